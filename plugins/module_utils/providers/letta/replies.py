# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the reply to a message at Letta: in the history of its conversation, by its runs, and by asking the device.

Source of the rules: Letta Code's own clients, and the behaviour of real devices (0.34). A device sends queued messages
to the agent together, as one run. It starts another run each time it has run a tool. When the model fails for a while,
the device sends the same content again, under another otid.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ...errors import ApiError
from ...text import one_line
from ..conversation import DROPPED, Look, Question, Reply
from .client import Client
from .history import HistoryMessage, Run, Turn, find_turn, seconds_between
from .reader import DeviceState, Reader
from .shared_listing import SharedAnswers

# A message is searched among the latest 2,000 of its conversation, which are many turns.
_MOST_MESSAGES = 2_000
# A turn that has just ended may not be in the history yet; Letta's own client waits as long.
_TEXT_COMES_WITHIN = 15.0
_GOOD_ENDS = (None, "end_turn", "tool_rule")
# With more seconds than this between looks, a look also checks that the environment is online, and that the device has
# a message that is missing.
_RARE = 4.0
# Seconds that the environment may be offline for; a device that registers again is back within less.
_OFFLINE_FOR = 20.0

# Reading a whole conversation has to end: 500 requests take minutes.
_MOST_LOOKED_THROUGH = 50_000


class Conversations:
    """Letta's conversations, as delivery and reply_info read them."""

    def __init__(self, client: Client, *, concurrency: int, rate: float | None) -> None:
        self._reader = Reader(client, concurrency=concurrency, rate=rate)
        self._readings = SharedAnswers(self._read_back)

    def search_reply(self, question: Question) -> Look:
        return ReplySearch(self._reader, question).look

    async def find_message(self, question: Question, fresh: bool) -> str | None:
        """The message's id if it is anywhere in its conversation, which is read once for all that ask; else None.

        Raises ApiError if the message is not in what was read, and that is not the whole conversation.
        """
        # Not only back to `question.since`: a run that has just claimed the message does not know who sent it before.
        place = Question(question.provider, question.agent_id, question.conversation_id)
        otids, is_whole = await self._readings.get(place, fresh=fresh)
        if question.otid in otids:
            return question.otid
        if not is_whole:
            raise ApiError(
                f"it is not among the latest {_MOST_LOOKED_THROUGH:,} messages of the conversation, and older ones are "
                "not read; with verify=none it is sent without a look",
                code="too_long",
            )
        return None

    async def _read_back(self, place: Question) -> tuple[set[str | None], bool]:
        """The otids of a conversation's user messages, and whether these are all of them."""
        otids: set[str | None] = set()
        looked_through = 0
        try:
            async for page in self._reader.read_history(place):
                otids |= {message.otid for message in page if message.message_type == "user_message" and message.otid}
                looked_through += len(page)
                page.clear()
                if looked_through >= _MOST_LOOKED_THROUGH:
                    return otids, False
        except ApiError as error:
            # Nothing has arrived in a conversation that is not there.
            if error.status != 404:
                raise
        return otids, True


@dataclass(slots=True)
class ReplySearch:
    """Looks for the reply to one message, again and again.

    A look reads the last known run first: while this is under way, it is the only request. Then it reads the history,
    for the device may have started another run, and asks the device whether it is going to start one. The history is
    always read after the run has ended, so that no message of the run is missing.
    """

    reader: Reader
    question: Question
    # The turn's last run that is known.
    _run_id: str | None = None
    # The runs in which the device sent the message again.
    _sent_again_in: set[str] = field(default_factory=set)
    # The newest message of a history that was searched in vain.
    _searched_to: str | None = None
    # Whether it is in no part of the history, and whether there are older parts than were read.
    _is_missing: bool = False
    _is_cut: bool = False
    _offline_since: float | None = None

    async def look(self, seconds: float = 0.0) -> Reply:
        """What has happened to the message after so many seconds. Raises ApiError."""
        ends_at = time.monotonic() + seconds
        device = await self.reader.ask_device(self.question, seconds) if self._is_missing and seconds > _RARE else None
        await asyncio.sleep(0 if device and device.words else ends_at - time.monotonic())
        try:
            reply = await self._read_reply()
            if self._is_missing and not seconds and (device := await self.reader.ask_device(self.question)):
                # What the device has not got any more may have got into the history meanwhile.
                reply = await self._read_reply()
        except ApiError as error:
            if error.status != 404:
                raise
            return Reply().end("lost", "reply_lost", str(error))
        if self._is_missing and device and device.words:
            return reply.end("failed", "reply_failed", f"the device gave the message up: {device.words}")
        if self._is_missing and device and not device.may_have:
            return reply.end("lost", DROPPED, "the device has dropped the message; why, it says at that moment alone")
        if reply.state == "waiting" and seconds > _RARE and await self._is_away():
            return reply.end("lost", "reply_lost", "the environment went offline before the end of the turn")
        return reply

    async def _read_reply(self) -> Reply:
        run = await self._read_run()
        device_is_idle = False
        while run is None or not run.active:
            turn = await self._find_turn()
            self._is_missing = turn is None and not self._is_cut and self.question.otid is not None
            if turn is None or turn.run_id is None:
                return Reply()
            if turn.run_id != self._run_id:
                self._run_id = turn.run_id
                run, device_is_idle = await self._read_run(), False
            elif run is None:
                return _reply_without_run(turn)
            elif again := turn.find_repeated_run(run):
                self._sent_again_in.add(again)
                device_is_idle = False
            elif device_is_idle or turn.next_message is not None or not run.may_go_on:
                return _describe_end(turn, run)
            else:
                device = await self.reader.ask_device(self.question)
                if device is None:
                    return self._reply_without_device(turn, run)
                if device.busy:
                    return _reply_so_far(turn, run, self._list_pending(turn, device))
                # The device may have started and ended another run since the history was read.
                device_is_idle = True
        return Reply(run_id=run.id)

    async def _read_run(self) -> Run | None:
        return await self.reader.read_run(self._run_id) if self._run_id is not None else None

    async def _find_turn(self) -> Turn | None:
        """The turn as the history has it now; what an earlier look has searched in vain is not read again."""
        history: list[HistoryMessage] = []
        turn: Turn | None = None
        async for older in self.reader.read_history(self.question):
            history += older
            turn = find_turn(self.question, history, self._sent_again_in)
            searched = any(message.id == self._searched_to for message in older)
            if turn is not None or searched or len(history) >= _MOST_MESSAGES:
                break
        self._searched_to = history[0].id if history and turn is None else None
        self._is_cut = self._is_cut or len(history) >= _MOST_MESSAGES
        return turn

    def _reply_without_device(self, turn: Turn, run: Run) -> Reply:
        """The reply if the device cannot be asked: a tool call without an answer in the history waits for approval."""
        if run.status == "failed":
            return _describe_end(turn, run)
        calls = [call for call in turn.open_calls if call.tool_call_id not in self.question.tool_call_ids]
        return _reply_so_far(turn, run, [self.reader.describe_approval(call) for call in calls])

    def _list_pending(self, turn: Turn, device: DeviceState) -> list[dict[str, Any]]:
        ours = {call.tool_call_id: call for message in turn.messages for call in message.calls}
        return [
            self.reader.describe_approval(ours[request["tool_call_id"]], request)
            for request in device.pending
            if request["tool_call_id"] in ours
        ]

    async def _is_away(self) -> bool:
        """Whether the environment has been offline for so long that no device works on the turn."""
        if not await self.reader.is_offline(self.question):
            self._offline_since = None
            return False
        now = time.monotonic()
        self._offline_since = self._offline_since or now
        return now - self._offline_since >= _OFFLINE_FOR


def _describe_end(turn: Turn, run: Run) -> Reply:
    """The reply of a turn that does not go on after its last run, which is over."""
    started = turn.messages[0].date if len({message.run_id for message in turn.messages}) > 1 else run.created_at
    reply = Reply(
        state="replied",
        text=turn.text,
        run_id=run.id,
        stop_reason=run.stop_reason,
        duration=seconds_between(started, run.completed_at),
    )
    if run.status == "cancelled" or run.stop_reason == "cancelled":
        return reply.end("failed", "reply_failed", "the turn was cancelled")
    if run.status == "failed" or run.stop_reason not in (*_GOOD_ENDS, "requires_approval"):
        why = one_line(run.problem) or run.stop_reason or "the server does not say why"
        return reply.end("failed", "reply_failed", f"the turn failed: {why}")
    if run.stop_reason == "requires_approval":
        return reply.end("failed", "reply_failed", "the turn was given up while a tool call had no answer")
    if turn.text is None:
        age = seconds_between(run.completed_at, datetime.now(UTC))
        if turn.next_message is None and (age is None or age < _TEXT_COMES_WITHIN):
            return Reply(run_id=run.id)
        return reply.end("failed", "reply_failed", "the turn ended without an answer")
    return reply


def _reply_without_run(turn: Turn) -> Reply:
    """The reply of a turn whose last run the server has deleted: a history outlives its runs."""
    if turn.text is None:
        return Reply().end("lost", "reply_lost", f"the server has no run {turn.run_id}, and no answer")
    return Reply(state="replied", text=turn.text, run_id=turn.run_id)


def _reply_so_far(turn: Turn, run: Run, pending: list[dict[str, Any]]) -> Reply:
    """The reply of a turn that goes on: it waits for approval if a call is pending, else the device works on it."""
    reply = Reply(text=turn.text, run_id=run.id, stop_reason=run.stop_reason)
    if not pending:
        return reply
    doubt = "" if all(entry["request_id"] for entry in pending) else "; its device could not be asked whether it does"
    return reply.need_approval(pending, doubt)
