# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds a message and its reply at Qoder: in the events of its session.

A session takes no message during a turn, so the events after a message, up to the end of a turn, are its own turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

from ..._deps import jmespath
from ...errors import ApiError
from ...http.gate import Throttle
from ...text import one_line
from ..base import none_if_missing
from ..conversation import Look, Question, Reply
from .client import Client
from .models import Event

# The most by which our clock and the server's may differ.
_CLOCKS_DIFFER = timedelta(minutes=5)
# By stop reason.
_FAILURES: dict[str | None, str] = {
    "end_turn": "the turn ended without an answer",
    "cancelled": "the turn was cancelled",
    "requires_action": "the turn waited for approval, and another message came instead",
    "terminated": "the session was terminated",
}
_CALLS = ("agent.tool_use", "agent.mcp_tool_use", "agent.custom_tool_use")


class Conversations:
    """Qoder's sessions, as delivery and reply_info read them. Raises ApiError."""

    def __init__(self, client: Client, *, concurrency: int, rate: float | None) -> None:
        self._client = client
        self._throttle = Throttle(concurrency, rate)

    async def find_message(self, question: Question, fresh: bool) -> str | None:
        """The id of the message among the events of its session, which are read each time."""
        # A session that does not exist has no messages.
        return await none_if_missing(self._find_event_id(question))

    async def _find_event_id(self, question: Question) -> str | None:
        found = [event.id or "" async for event in self.events(question, None) if _is_asked_about(question, event)]
        return found[0] if found else None

    def search_reply(self, question: Question) -> Look:
        """A function that waits and looks for the reply. Each time it reads only the events since the time before."""
        read_to = question.otid
        turn = _SessionTurn(question.otid) if question.otid is not None else None

        async def look(seconds: float) -> Reply:
            nonlocal read_to, turn
            await asyncio.sleep(seconds)
            try:
                async for event in self.events(question, read_to):
                    read_to = event.id or read_to
                    if turn is not None:
                        turn.take(event)
                    elif _is_asked_about(question, event):
                        turn = _SessionTurn(event.id, event.processed_at)
            except ApiError as error:
                if error.status != 404:
                    raise
                return Reply().end("lost", "reply_lost", str(error))
            return turn.reply() if turn is not None else Reply()

        return look

    async def events(self, question: Question, after_id: str | None) -> AsyncIterator[Event]:
        async with self._throttle.request():
            async for event in self._client.events(str(question.conversation_id), after_id):
                yield event


class _SessionTurn:
    """The events from a message to the end of its turn."""

    def __init__(self, event_id: str | None, began_at: datetime | None = None) -> None:
        self._event_id = event_id
        self._began_at = began_at
        self._text: str | None = None
        self._calls: dict[str, Event] = {}
        self._end: Event | None = None
        self._is_over = False

    def take(self, event: Event) -> None:
        """Add the next event; events after the end belong to other turns."""
        if self._end is not None and not self._is_over:
            # The turn goes on only if its request for approval was answered, and not if another message came.
            self._is_over = event.type == "user.message" or not _waits(self._end)
        if self._is_over:
            return
        self._began_at = self._began_at or event.processed_at
        if event.type == "agent.message":
            self._text = event.text if event.text.strip() else self._text
        elif event.type in _CALLS and event.id is not None:
            self._calls[event.id] = event
        if _find_stop_reason(event) is not None:
            self._end = event
        elif event.type == "session.status_running" or event.type.startswith("agent."):
            self._end = None

    def reply(self) -> Reply:
        """The reply of the turn as it stands."""
        reply, end = Reply(text=self._text, event_id=self._event_id), self._end
        if end is None:
            return reply
        if self._began_at is not None and end.processed_at is not None:
            reply.duration = round((end.processed_at - self._began_at).total_seconds(), 3)
        reply.stop_reason = _find_stop_reason(end)
        if _waits(end) and not self._is_over:
            waiting = (end.stop_reason and end.stop_reason.event_ids) or list(self._calls)
            return reply.need_approval([_describe_approval(call_id, self._calls.get(call_id)) for call_id in waiting])
        if reply.stop_reason == "deleted":
            return reply.end("lost", "reply_lost", "the session was deleted before the end of the turn")
        if reply.stop_reason == "end_turn" and self._text is not None:
            reply.state = "replied"
            return reply
        said = jmespath.search("message", end.error) or reply.stop_reason
        why = _FAILURES.get(reply.stop_reason) or f"the turn failed: {one_line(said)}"
        return reply.end("failed", "reply_failed", why)


def _is_asked_about(question: Question, event: Event) -> bool:
    """Whether an event is the message: by its id, else by its text, if known, and its time."""
    if event.type != "user.message":
        return False
    if question.otid is not None:
        return event.id == question.otid
    if question.since is not None and event.processed_at is not None:
        earliest = datetime.fromisoformat(question.since) - _CLOCKS_DIFFER
        if event.processed_at < earliest:
            return False
    return question.text is None or event.text == question.text


def _find_stop_reason(event: Event) -> str | None:
    """Why a turn ended with an event: the API's own word, or the name of the event; None if it did not end."""
    if event.type == "session.status_idle":
        return (event.stop_reason.type if event.stop_reason else None) or "end_turn"
    if event.type == "session.error":
        # Either a word, or an object with it.
        retry = jmespath.search("retry_status.type || retry_status", event.error)
        return None if retry == "retrying" else "error"
    return {"session.status_terminated": "terminated", "session.deleted": "deleted"}.get(event.type)


def _waits(end: Event) -> bool:
    """Whether a turn that stopped here waits until a tool call is allowed or answered."""
    return _find_stop_reason(end) == "requires_action"


def _describe_approval(call_id: str, call: Event | None) -> dict[str, Any]:
    return {
        "request_id": call_id,
        "tool_call_id": call_id,
        "tool_name": call.name if call else None,
        "arguments": call.input if call else None,
    }
