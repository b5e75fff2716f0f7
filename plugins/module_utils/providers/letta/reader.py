# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what tells about a message: its conversation's history, its runs, its environment and its device."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ...errors import ApiError
from ...http.gate import Throttle
from ...http.paging import Bounds
from ...text import one_line
from ..base import find_online
from ..conversation import Question
from .approvals import find_requests
from .client import Client
from .history import HistoryMessage, Run, ToolCall
from .relay import Frame, Relay, describe_loop_error, find_loop_error

_PAGE = 100
# A message has got to its device by then, and what came of it into the history.
_ARRIVED_WITHIN = timedelta(seconds=80)


@dataclass(frozen=True, slots=True)
class DeviceState:
    """What a device says about a conversation. pending: its requests for approval. busy: whether a turn goes on.

    may_have: whether the message may be there, or has had a run. words: why it gave the message up, if that was heard.
    """

    pending: Sequence[dict[str, Any]]
    busy: bool
    may_have: bool = True
    words: str | None = None


class Reader:
    """Reads at most `rate` times a second, `concurrency` at a time. Raises ApiError."""

    def __init__(self, client: Client, *, concurrency: int, rate: float | None) -> None:
        self._client = client
        self._throttle = Throttle(concurrency, rate)

    def describe_approval(self, call: ToolCall, request: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A tool call that waits for approval, as modules return it. request: what the device says about it."""
        request = request or {}
        return {
            "request_id": request.get("request_id"),
            "tool_call_id": call.tool_call_id,
            "tool_name": request.get("tool_name") or call.name,
            "arguments": request.get("arguments") or call.parse_arguments(self._client.settings.api_key),
        }

    async def read_page(self, question: Question, cursor: dict[str, str], bounds: Bounds) -> Sequence[HistoryMessage]:
        """A page of the conversation, newest first."""
        async with self._throttle.request():
            return await self._client.list_messages(
                question.agent_id, question.conversation_id, limit=_PAGE, cursor=cursor, bounds=bounds
            )

    async def read_history(self, question: Question) -> AsyncIterator[list[HistoryMessage]]:
        """The whole conversation, newest first, a page at a time; a message that comes twice is left out.

        The caller may clear a page: messages may be large, and the reader does not need them again.
        """
        known: set[str] = set()
        last, way = "", "before"
        settings, place = self._client.settings, f"{question.conversation_id or 'default'} of {question.agent_id}"
        bounds = Bounds(f"{settings.base_url}: the conversation {one_line(place, 160)}", settings.deadline)
        while True:
            page = list(await self.read_page(question, {way: last} if last else {}, bounds))
            count = len(page)
            page = [message for message in page if message.id not in known]
            if count and not page and way == "before":
                # The reference has cursors in the order asked for, Letta's own client has them in time.
                way = "after"
                continue
            if not page:
                return
            known.update(message.id for message in page)
            last = page[-1].id
            yield page
            if count < _PAGE:
                return

    async def read_run(self, run_id: str) -> Run | None:
        """A run, None if the server has deleted it."""
        async with self._throttle.request():
            return await self._client.retrieve_run(run_id)

    async def is_offline(self, question: Question) -> bool:
        """Whether the environment is known to be offline now."""
        if question.environment is None:
            return False
        async with self._throttle.request():
            found = await self._client.resolve(question.environment)
        return found is None or found.status != "online"

    async def ask_device(self, question: Question, seconds: float = 0.0) -> DeviceState | None:
        """What the device says now, None if it cannot be asked.

        seconds: how long to listen to a device that may be trying to send the message, unless it gives it up before.
        """
        if question.environment is None:
            return None
        words = None
        try:
            async with self._throttle.request():
                environment = await find_online(self._client, question.environment)
            relay = Relay(self._client.settings, environment.connection_id, question.agent_id, question.conversation_id)
            async with contextlib.AsyncExitStack() as stack:
                async with self._throttle.request():
                    await stack.enter_async_context(relay)
                if seconds and question.client_message_id not in _list_messages(relay):
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(seconds):
                            while (words := _find_words(await relay.receive("the turn"), question)) is None:
                                pass
        except ApiError:
            return None
        # A device that reports nothing may be busy.
        requests, busy = find_requests(relay), relay.busy is not False
        may_have = busy or _may_have(relay, environment.fields["connected_at"], question)
        return None if requests is None else DeviceState(requests, busy, may_have, words)


def _list_messages(relay: Relay) -> list[Any]:
    """The client_message_ids of the messages that wait on the device, and of those that have had a run there."""
    runs = relay.loop_status.get("client_message_ids_by_run_id")
    ran = [one for ids in runs.values() if isinstance(ids, list) for one in ids] if isinstance(runs, dict) else []
    return ran + [item.get("client_message_id") for item in relay.queue or [] if isinstance(item, dict)]


def _may_have(relay: Relay, connected_at: str | None, question: Question) -> bool:
    """Whether the device has a message or may have it. After a restart it may be on the disk, which nothing shows."""
    if relay.queue is None or connected_at is None or question.since is None:
        return True
    sent_at = datetime.fromisoformat(question.since)
    if not datetime.fromisoformat(connected_at) <= sent_at <= datetime.now(UTC) - _ARRIVED_WITHIN:
        return True
    return question.client_message_id in (None, *_list_messages(relay))


def _find_words(frame: Frame, question: Question) -> str | None:
    """Why the device gives a message up, if a frame says so."""
    error = find_loop_error(frame)
    if error is None or error.get("is_terminal") is not True:
        return None
    ids = error.get("client_message_ids")
    is_ours = isinstance(ids, list) and question.client_message_id in ids
    return describe_loop_error(error) if is_ours else None
