# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a reply is found at Letta: in the conversation's history, by its runs, and by asking the device.

Source of the rules: Letta Code's own clients, and what real devices were seen to do (0.34). A device sends queued
messages to the agent together, as one run. Each time it has run a tool it goes on in another run. When the model fails
for a while it sends the same content again, under another otid.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ...errors import ApiError
from ...http.gate import Pace
from ...text import one_line
from ..base import reachable
from ..conversation import Look, Question, Reply
from .approvals import requests_in
from .client import Client
from .history import HistoryMessage, Run, ToolCall, Turn, seconds_between, turn_of
from .relay import Relay

_PAGE = 100
# A turn's messages are not looked for among older ones: 2,000 of them are many turns.
_MOST_MESSAGES = 2_000
# Whether a message was ever delivered is not answered by reading on for ever: 500 requests are minutes.
_MOST_LOOKED_THROUGH = 50_000
# A turn that has just ended may not be in the history yet; Letta's own client waits as long.
_TEXT_COMES_WITHIN = 15.0
_GOOD_ENDS = (None, "end_turn", "tool_rule")
# Seconds between looks from which on the environment is looked at as well, and for which it may be offline: a device
# that registers again is back within less.
_RARE, _OFFLINE_FOR = 4.0, 20.0


@dataclass(frozen=True, slots=True)
class _Device:
    """What a device says about a conversation. pending: its requests for approval. busy: whether a turn goes on."""

    pending: Sequence[dict[str, Any]]
    busy: bool


class Reader:
    """Reads what a reply needs: `rate` requests a second at most, `concurrency` at a time. Raises ApiError."""

    def __init__(self, client: Client, *, concurrency: int, rate: float | None) -> None:
        self._client = client
        self._slots = asyncio.Semaphore(concurrency)
        self._pace = Pace(rate)

    def approval(
        self, call: ToolCall, request_id: Any = None, request: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """A tool call that waits, as it is returned. request: what the device says of it."""
        request = request or {}
        return {
            "request_id": request_id,
            "tool_call_id": call.tool_call_id,
            "tool_name": request.get("tool_name") or call.name,
            "arguments": request.get("input") or call.parsed_arguments(self._client.settings.api_key),
        }

    async def page(self, question: Question, cursor: dict[str, str]) -> Sequence[HistoryMessage]:
        """A page of the conversation, newest first."""
        async with self._slot():
            return await self._client.messages(question.agent_id, question.conversation_id, limit=_PAGE, cursor=cursor)

    async def history(self, question: Question) -> AsyncIterator[list[HistoryMessage]]:
        """The whole conversation, newest first, a page at a time; what comes twice is left out.

        A page may be cleared by who gets it: messages may be large, and nothing of them is needed here any more.
        """
        known: set[str] = set()
        last, way = "", "before"
        cursor: dict[str, str] = {}
        while True:
            page = list(await self.page(question, cursor))
            count = len(page)
            page = [message for message in page if message.id not in known]
            if count and not page and way == "before":
                # The reference has cursors in the order asked for, Letta's own client has them in time.
                way, cursor = "after", {"after": last}
                continue
            if not page:
                return
            known.update(message.id for message in page)
            last = page[-1].id
            cursor = {way: last}
            yield page
            if count < _PAGE:
                return

    async def run(self, run_id: str) -> Run | None:
        """A run, None where the server has it no more."""
        async with self._slot():
            return await self._client.run(run_id)

    async def is_offline(self, question: Question) -> bool:
        """Whether the environment is known to be offline now."""
        if question.environment is None:
            return False
        async with self._slot():
            found = await self._client.resolve(question.environment)
        return found is None or found.status != "online"

    async def device(self, question: Question) -> _Device | None:
        """What the device says, None where it cannot be asked."""
        if question.environment is None:
            return None
        try:
            async with self._slot():
                environment = await reachable(self._client, question.environment, fresh=True)
            relay = Relay(
                self._client.settings,
                str(environment.connection_id),
                agent_id=question.agent_id,
                conversation_id=question.conversation_id,
            )
            async with self._slot(), relay:
                requests, status = requests_in(relay), relay.loop_status.get("status")
        except ApiError:
            return None
        if requests is None:
            return None
        return _Device(requests, busy=status != "WAITING_ON_INPUT")

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        async with self._slots:
            await self._pace.turn()
            yield


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read of a conversation. otids: of its user messages. whole: whether that is all of them."""

    otids: set[str | None]
    whole: bool


class Arrivals:
    """Which messages are in their conversations. A conversation is read once for all who ask. Raises ApiError."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._read: dict[tuple[str, str | None], asyncio.Task[_Read]] = {}

    async def arrived(self, question: Question, fresh: bool) -> str | None:
        """The message's id where it is in its conversation, wherever in it. fresh: read that again.

        Raises ApiError where it is not in what was read, and that is not the whole conversation.
        """
        # Not only back to `question.since`: a run that has just claimed the message does not know who sent it before.
        key = (question.agent_id, question.conversation_id)
        if fresh or key not in self._read:
            self._read[key] = asyncio.create_task(self._read_back(question))
        reading = self._read[key]
        try:
            read = await asyncio.shield(reading)
        except ApiError:
            # Whoever asks next has it read anew: what went wrong once is not to fail all of a campaign.
            if self._read.get(key) is reading:
                del self._read[key]
            raise
        if question.otid in read.otids:
            return question.otid
        if not read.whole:
            raise ApiError(
                f"it is not among the latest {_MOST_LOOKED_THROUGH:,} messages of the conversation, and older ones are "
                "not read; with verify=none it is sent without a look",
                code="too_long",
            )
        return None

    async def _read_back(self, question: Question) -> _Read:
        otids: set[str | None] = set()
        looked_through = 0
        try:
            async for page in self._reader.history(question):
                otids |= {message.otid for message in page if message.message_type == "user_message" and message.otid}
                looked_through += len(page)
                page.clear()
                if looked_through >= _MOST_LOOKED_THROUGH:
                    return _Read(otids, whole=False)
        except ApiError as error:
            # Nothing has arrived in a conversation that is not there.
            if error.status != 404:
                raise
        return _Read(otids, whole=True)


class Conversations:
    """Letta's conversations, as delivery and reply_info read them."""

    def __init__(self, client: Client, *, concurrency: int, rate: float | None) -> None:
        self._reader = Reader(client, concurrency=concurrency, rate=rate)
        self.arrived = Arrivals(self._reader).arrived

    def look_for(self, question: Question) -> Look:
        """What looks at one message, again and again."""
        return Watch(self._reader, question).look


@dataclass(slots=True)
class Watch:
    """One message, looked at again and again. A look costs one request as long as a run is under way."""

    reader: Reader
    question: Question
    _runs: set[str] = field(default_factory=set)
    _run_id: str | None = None
    _newest: str | None = None
    _offline_since: float | None = None

    async def look(self, seconds: float = 0.0) -> Reply:
        """What became of the message by now. seconds: since the look before. Raises ApiError."""
        try:
            reply = await self._look()
        except ApiError as error:
            if error.status != 404:
                raise
            return Reply().ended("lost", "reply_lost", str(error))
        if reply.state == "waiting" and seconds > _RARE and await self._is_away():
            return reply.ended("lost", "reply_lost", "the environment went offline before the end of the turn")
        return reply

    async def _is_away(self) -> bool:
        """Whether the environment has been offline for so long that nobody works on the turn."""
        if not await self.reader.is_offline(self.question):
            self._offline_since = None
            return False
        now = time.monotonic()
        self._offline_since = self._offline_since or now
        return now - self._offline_since >= _OFFLINE_FOR

    async def _look(self) -> Reply:
        # A run that is over counts for the history that was read after it: only then nothing can be missing.
        run = await self.reader.run(self._run_id) if self._run_id else None
        idle_after: str | None = None
        while run is None or not run.active:
            turn = await self._turn()
            if turn is None or turn.run_id is None:
                return Reply()
            if run is None or self._run_id != turn.run_id:
                self._run_id = turn.run_id
                run = await self.reader.run(turn.run_id)
                if run is None:
                    return _without_run(turn)
            elif again := turn.sent_again_as(run):
                self._runs.add(again)
            elif turn.next_message is not None or not run.may_go_on or idle_after == run.id:
                return _reply(turn, run)
            else:
                device = await self.reader.device(self.question)
                if device is None:
                    return self._without_device(turn, run)
                if device.busy:
                    return _unfinished(turn, run, self._pending(turn, device))
                # It may have gone on and ended since the history was read.
                idle_after = run.id
        return Reply(run_id=run.id)

    async def _turn(self) -> Turn | None:
        """The turn as the history has it now; what an earlier look has searched in vain is left out."""
        history: list[HistoryMessage] = []
        turn: Turn | None = None
        async for older in self.reader.history(self.question):
            history += older
            turn = turn_of(self.question, history, self._runs)
            searched = any(message.id == self._newest for message in older)
            if turn is not None or searched or len(history) >= _MOST_MESSAGES:
                break
        self._newest = history[0].id if history and turn is None else None
        return turn

    def _without_device(self, turn: Turn, run: Run) -> Reply:
        """What counts where the device cannot be asked: a tool call in the history that has no answer."""
        if run.status == "failed":
            return _reply(turn, run)
        calls = [call for call in turn.open_calls if call.tool_call_id not in self.question.tool_call_ids]
        return _unfinished(turn, run, [self.reader.approval(call) for call in calls])

    def _pending(self, turn: Turn, device: _Device) -> list[dict[str, Any]]:
        """What the device waits for in this turn."""
        ours = {call.tool_call_id: call for message in turn.messages for call in message.calls}
        return [
            self.reader.approval(ours[call_id], entry.get("request_id"), entry["request"])
            for entry in device.pending
            if isinstance(call_id := entry["request"].get("tool_call_id"), str) and call_id in ours
        ]


def _reply(turn: Turn, run: Run) -> Reply:
    """What the turn and its last run, which is over, come to when nobody works on it any more."""
    started = turn.messages[0].date if len({message.run_id for message in turn.messages}) > 1 else run.created_at
    reply = Reply(
        state="replied",
        text=turn.text,
        run_id=run.id,
        stop_reason=run.stop_reason,
        duration=seconds_between(started, run.completed_at),
    )
    if run.status == "cancelled" or run.stop_reason == "cancelled":
        return reply.ended("failed", "reply_failed", "the turn was cancelled")
    if run.status == "failed" or run.stop_reason not in (*_GOOD_ENDS, "requires_approval"):
        why = one_line(run.problem) or run.stop_reason or "the server does not say why"
        return reply.ended("failed", "reply_failed", f"the turn failed: {why}")
    if run.stop_reason == "requires_approval":
        return reply.ended("failed", "reply_failed", "the turn was given up while a tool call had no answer")
    if turn.text is None:
        age = seconds_between(run.completed_at, datetime.now(UTC))
        if turn.next_message is None and (age is None or age < _TEXT_COMES_WITHIN):
            return Reply(run_id=run.id)
        return reply.ended("failed", "reply_failed", "the turn ended without an answer")
    return reply


def _without_run(turn: Turn) -> Reply:
    """The history outlives its runs."""
    if turn.text is None:
        return Reply().ended("lost", "reply_lost", f"the server has no run {turn.run_id}, and no answer")
    return Reply(state="replied", text=turn.text, run_id=turn.run_id)


def _unfinished(turn: Turn, run: Run, pending: list[dict[str, Any]]) -> Reply:
    """Waiting for approval where something is pending, else just waiting: the device runs its tool or tries again."""
    reply = Reply(text=turn.text, run_id=run.id, stop_reason=run.stop_reason, pending_approvals=pending)
    if not pending:
        return reply
    calls = ", ".join(f"{entry['tool_name']} ({entry['tool_call_id']})" for entry in pending)
    doubt = "" if all(entry["request_id"] for entry in pending) else "; its device could not be asked whether it does"
    return reply.ended("needs_approval", "needs_approval", f"the turn waits for approval of {one_line(calls)}{doubt}")
