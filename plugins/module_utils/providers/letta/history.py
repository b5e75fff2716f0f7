# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A conversation's messages and runs, and the turns in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..._deps import pydantic
from ...http.sanitize import parse_json
from ..conversation import Question
from ..rows import Items


class ToolCall(pydantic.BaseModel):
    """A tool that the agent calls. arguments: JSON as the model wrote it."""

    tool_call_id: str | None = None
    name: str | None = None
    arguments: str | None = None

    def parse_arguments(self, key: str) -> Any:
        """The arguments as JSON values without the API key, or the text if it is no JSON."""
        try:
            return parse_json(self.arguments or "{}", key)
        except ValueError:
            return self.arguments


class ToolAnswer(pydantic.BaseModel):
    """The answer to one tool call: a decision (`approve`) or the tool's result (`status`)."""

    tool_call_id: str | None = None
    approve: bool | None = None
    status: str | None = None


class HistoryMessage(pydantic.BaseModel):
    """One message of a conversation. Which keys it has depends on its `message_type`."""

    id: str
    message_type: str
    date: datetime | None = None
    run_id: str | None = None
    otid: str | None = None
    content: Any = None
    tool_call: ToolCall | None = None
    tool_calls: Items[ToolCall] | None = None
    tool_call_id: str | None = None
    tool_returns: Items[ToolAnswer] | None = None
    approvals: Items[ToolAnswer] | None = None

    @property
    def text(self) -> str:
        """The text of the content, which the API sends as a text or as parts."""
        parts = self.content if isinstance(self.content, list) else [self.content]
        texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
        return "\n".join(text for text in texts if isinstance(text, str))

    @property
    def calls(self) -> Sequence[ToolCall]:
        """The tool calls that it asks approval for."""
        if self.message_type != "approval_request_message":
            return []
        return self.tool_calls or ([self.tool_call] if self.tool_call else [])

    @property
    def answered_calls(self) -> set[str]:
        if self.message_type == "approval_response_message":
            return {answer.tool_call_id for answer in self.approvals or [] if answer.tool_call_id}
        if self.message_type == "tool_return_message":
            ids = [self.tool_call_id, *(answer.tool_call_id for answer in self.tool_returns or [])]
            return {tool_call_id for tool_call_id in ids if tool_call_id}
        return set()

    @property
    def goes_on(self) -> bool:
        """Whether the turn goes on after it: it has a tool's result, or allows the call."""
        if self.message_type != "approval_response_message":
            return False
        return any(answer.approve or answer.status == "success" for answer in self.approvals or [])


class History(pydantic.BaseModel):
    messages: Items[HistoryMessage]


class Run(pydantic.BaseModel):
    """One request to the model, and its end; a turn that calls tools on a device has several runs."""

    id: str
    status: str | None = None
    stop_reason: str | None = None
    created_at: datetime | None = None
    completed_at: datetime | None = None
    metadata: dict[str, Any] | None = None
    agent_id: str | None = None
    conversation_id: str | None = None

    @property
    def active(self) -> bool:
        """Whether it has not ended; an unknown status is no end."""
        return self.status not in ("completed", "failed", "cancelled")

    @property
    def may_go_on(self) -> bool:
        """Whether the device may start another run: to answer tool calls, or to try again after a failure."""
        return self.status == "failed" or self.stop_reason == "requires_approval"

    @property
    def problem(self) -> str:
        """Why it failed, in the server's words; empty if the server does not say."""
        error = (self.metadata or {}).get("error")
        if isinstance(error, dict):
            error = error.get("detail") or error.get("message")
        return str(error or "")


class Runs(pydantic.BaseModel):
    runs: Items[Run]


def seconds_between(earlier: datetime | None, later: datetime | None) -> float | None:
    """Seconds from one moment to another; None if one is unknown. A moment without a zone is in UTC."""
    if earlier is None or later is None:
        return None
    begin, end = (moment.replace(tzinfo=moment.tzinfo or UTC) for moment in (earlier, later))
    return round((end - begin).total_seconds(), 3)


# Seconds within which a device sends the same content again: its pauses are 1, 2 and 4 s.
_SENT_AGAIN_WITHIN = 60.0


@dataclass(slots=True)
class Turn:
    """The messages of a turn, oldest first, beginning with the one that the question is about.

    next_message: the user message that begins the next turn, None if there is none yet.
    """

    messages: list[HistoryMessage]
    next_message: HistoryMessage | None = None

    @property
    def run_id(self) -> str | None:
        """The last run."""
        return next((message.run_id for message in reversed(self.messages) if message.run_id), None)

    @property
    def text(self) -> str | None:
        """The last text of the agent, None if it has said nothing."""
        said = [message.text for message in self.messages if message.message_type == "assistant_message"]
        return next((text for text in reversed(said) if text.strip()), None)

    @property
    def open_calls(self) -> list[ToolCall]:
        answered = {tool_call_id for message in self.messages for tool_call_id in message.answered_calls}
        calls = [call for message in self.messages for call in message.calls]
        return [call for call in calls if call.tool_call_id not in answered]

    def find_repeated_run(self, run: Run) -> str | None:
        """The run in which the device sent the same content again after a failed run, None if it did not."""
        following = self.next_message
        if run.status != "failed" or following is None or following.content != self.messages[0].content:
            return None
        pause = seconds_between(run.completed_at, following.date)
        return following.run_id if pause is not None and pause < _SENT_AGAIN_WITHIN else None


def find_turn(question: Question, history: Sequence[HistoryMessage], runs: set[str]) -> Turn | None:
    """The turn that a question is about, None if its message is not in the history.

    history: newest first. runs: known runs of the turn besides the one of its message.
    """
    start = next((place for place, message in enumerate(history) if _is_asked_about(question, message)), None)
    if start is None:
        return None
    first = history[start]
    turn = Turn([first])
    ours = runs | ({first.run_id} if first.run_id else set())
    for message in reversed(history[:start]):
        if message.message_type == "user_message" and message.run_id not in ours:
            # The device answers a tool call that it gives up for this message; that is no part of the turn before.
            turn.messages = [before for before in turn.messages if before is first or before.run_id != message.run_id]
            turn.next_message = message
            break
        turn.messages.append(message)
        # The device may send more with a tool's result: the text of a skill, or a message that had to wait.
        if message.goes_on and message.run_id:
            ours.add(message.run_id)
    return turn


def _is_asked_about(question: Question, message: HistoryMessage) -> bool:
    if question.otid is not None:
        return message.message_type == "user_message" and message.otid == question.otid
    return any(call.tool_call_id in question.tool_call_ids for call in message.calls)
