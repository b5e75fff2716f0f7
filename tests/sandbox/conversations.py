"""Conversations of scripted agents: their histories, their runs, and the current turn of each.

Nothing happens in the background: the end of a long turn is recorded, and ``settle`` applies everything
that is due by the clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from .api import ApiError
from .fleet import Row
from .turns import ApprovalTurn, ErrorTurn, GiveUpTurn, LongTurn, ReplyTurn, Turn

StopReason = Literal["end_turn", "error", "cancelled", "requires_approval"]
STATUS = {"end_turn": "completed", "requires_approval": "completed", "error": "failed", "cancelled": "cancelled"}
INTERRUPTED = {"type": "approval", "approve": False, "reason": "User interrupted the stream"}
SAID_BY_AGENT = {"assistant_message", "approval_request_message"}


@dataclass
class Run:
    """One request to the agent; a turn that waited for approval continues in another run."""

    conversation: Conversation
    created: float
    id: str = field(default_factory=lambda: f"run-{uuid.uuid4()}")
    status: str = "running"
    stop_reason: StopReason | None = None
    completed: float | None = None
    error: Row | None = None
    said: list[Row] = field(default_factory=list)
    """The agent's messages of the run: the user's messages are not streamed back."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self, stop_reason: StopReason, at: float) -> None:
        self.status, self.stop_reason, self.completed = STATUS[stop_reason], stop_reason, at
        self.ended.set()

    def wire(self) -> Row:
        """Return the run as the API answers it."""
        conversation = self.conversation
        return {
            "id": self.id,
            "agent_id": conversation.agent_id,
            "conversation_id": None if conversation.id == "default" else conversation.id,
            "background": True,
            "created_at": iso(self.created),
            "completed_at": iso(self.completed) if self.completed is not None else None,
            "status": self.status,
            "stop_reason": self.stop_reason,
            "metadata": {"error": self.error} if self.error else {},
        }


@dataclass
class Active:
    """The current turn of a conversation: it takes time, or it waits for approval."""

    turn: LongTurn | ApprovalTurn | GiveUpTurn
    run: Run
    content: str
    ends: float = math.inf
    request: Row | None = None
    """The unanswered approval request."""
    device: str | None = None
    """The environment that delivered the user's message, if it is a simulated one."""
    messages: list[Row] = field(default_factory=list)
    """The user's messages that began the turn."""


@dataclass
class Conversation:
    """The messages between an agent and its users, and the current turn."""

    agent_id: str
    id: str
    """``default`` for the conversation that every agent has."""
    next_turn: Callable[[], Turn]
    runs: dict[str, Run]
    """The runs of all conversations, by their ids."""
    summary: str | None = None
    created: float = field(default_factory=time.time)
    archived: bool = False
    rows: list[Row] = field(default_factory=list)
    """The history, oldest first."""
    places: dict[str, int] = field(default_factory=dict)
    """The position of a message in the history, by its id."""
    active: Active | None = None
    queue: dict[str, list[Row]] = field(default_factory=dict)
    """By environment: messages that its simulated device holds until the conversation is free, then sends as one."""
    paused: set[str] = field(default_factory=set)
    """Environments whose queue is paused since a turn was aborted on them."""
    held: set[str] = field(default_factory=set)
    """Environments that restarted in the middle of a turn: their queue waits until they are contacted."""
    interrupted: Active | None = None
    """A turn that was aborted while it waited: the agent gets this with the next message."""

    def settle(self, now: float) -> None:
        """Apply everything that is due: turns end, and queued messages start the next ones."""
        at = now
        while True:
            if self.active is not None and self.active.ends <= now:
                at = self.active.ends
                self._end_long(self.active, at)
            device = next((device for device in self.queue if device not in self.paused | self.held), None)
            if self.active is not None or device is None:
                return
            self._begin(self.queue.pop(device), at, device)

    def enqueue(self, device: str, messages: list[Row], now: float) -> None:
        """Take messages from a simulated device; a new message also ends the device's pause."""
        self.paused.discard(device)
        self.held.discard(device)
        self.queue.setdefault(device, []).extend(messages)
        self.settle(now)

    def request(self, messages: list[Row], now: float) -> Run:
        """Take user messages and answers to approvals that a real device posts; return the run that this starts."""
        self.settle(now)
        approvals = [approval for message in messages for approval in _approvals(message)]
        users = [message for message in messages if message.get("role") == "user"]
        waits = self.active is not None and self.active.request is not None
        if self.active is not None and not waits:
            raise _conflict("Another request is currently being processed for this conversation")
        if waits and not approvals:
            raise _conflict("The agent is waiting for approval on a tool call")
        if not approvals:
            return self._begin(users, now, None)
        run = self.answer(approvals, now, go_on=not users)
        return self._begin(users, now, None, run) if users else run

    def answer(self, approvals: list[Row], now: float, *, go_on: bool = True) -> Run:
        """Take the answers that the turn waits for, and continue it unless another message comes instead."""
        active = self.active
        if active is None or active.request is None or not isinstance(active.turn, ApprovalTurn):
            raise ApiError(400, "BAD_REQUEST", "No tool call is currently awaiting approval")
        call_id = active.request["tool_call"]["tool_call_id"]
        if [approval.get("tool_call_id") for approval in approvals] != [call_id]:
            raise ApiError(400, "BAD_REQUEST", f"Invalid tool call IDs. Expected {call_id!r}")
        run = self._run(now)
        self.active = None
        self._respond(active, approvals[0], run, now)
        approved = approvals[0].get("approve") is not False
        if go_on:
            self._say(active.turn.text if approved else active.turn.denied_text, active.content, run, now)
        return run

    def cancel(self, now: float) -> Run | None:
        """End the current run and return it; a run that waits for approval is not current."""
        self.settle(now)
        if self.active is None or self.active.request is not None:
            return None
        run = self.active.run
        run.end("cancelled", now)
        self.active = None
        return run

    def abort(self, device: str, run_id: str | None, now: float) -> bool:
        """Let a simulated device end its turn, also one that waits; its queue pauses from now on."""
        self.settle(now)
        active = self.active
        if active is None or active.device != device or run_id not in (None, active.run.id):
            return False
        self.paused.add(device)
        if active.request is None:
            return self.cancel(now) is not None
        self.active, self.interrupted = None, active
        return True

    def resume(self, device: str, now: float) -> int:
        """Let the queue of a simulated device continue; return how many messages were paused."""
        stood = len(self.queue.get(device, [])) if device in self.paused else 0
        self.paused.discard(device)
        self.contact(device, now)
        return stood

    def contact(self, device: str, now: float) -> None:
        """Let a simulated device that was restarted in the middle of a turn go on with it."""
        self.held.discard(device)
        self.settle(now)

    def restart(self, device: str, now: float) -> None:
        """Let a simulated device restart: the messages of its turn are in its queue again, before the others."""
        self.settle(now)
        active = self.active
        if active is not None and active.device == device:
            active.run.end("cancelled", now)
            self.active = None
            self.queue[device] = [*active.messages, *self.queue.get(device, [])]
        if device in self.queue:
            self.paused.discard(device)
            self.held.add(device)

    async def until_over(self, run: Run) -> None:
        """Wait for the end of a run, by the clock or by another request."""
        while run.status == "running":
            remaining = self.active.ends - time.time() if self.active is not None else 0
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(run.ended.wait(), remaining)
            self.settle(time.time())

    def page(self, *, newest_first: bool, after: str | None, before: str | None, limit: int) -> list[Row]:
        """Return rows in the given order; after and before refer to that order, as everywhere in Letta's API."""
        low, high = (before, after) if newest_first else (after, before)
        start = self._place(low) + 1 if low is not None else 0
        stop = self._place(high) if high is not None else len(self.rows)
        if newest_first:
            return self.rows[max(start, stop - limit) : stop][::-1]
        return self.rows[start : min(stop, start + limit)]

    def _begin(self, messages: list[Row], at: float, device: str | None, run: Run | None = None) -> Run:
        turn = self.next_turn()
        if isinstance(turn, GiveUpTurn):
            self.active = Active(turn, Run(self, at), "", ends=at + turn.seconds, device=device)
            return self.active.run
        run = run or self._run(at)
        if self.interrupted is not None:
            self._respond(self.interrupted, INTERRUPTED, run, at)
            self.interrupted = None
        for message in messages:
            self._add("user_message", run, at, content=message["content"], otid=message.get("otid"))
        content = _text(messages[-1]["content"]) if messages else ""
        match turn:
            case ReplyTurn():
                self._say(turn.text, content, run, at)
            case ErrorTurn():
                run.error = {"error_type": turn.error_type, "message": turn.message, "detail": turn.message}
                run.end("error", at)
            case LongTurn():
                self.active = Active(turn, run, content, at + turn.seconds, device=device, messages=messages)
            case ApprovalTurn():
                request = self._ask(turn, run, at)
                self.active = Active(turn, run, content, request=request, device=device, messages=messages)
                run.end("requires_approval", at)
        return run

    def _run(self, at: float) -> Run:
        run = Run(self, at)
        self.runs[run.id] = run
        return run

    def _say(self, text: str, content: str, run: Run, at: float) -> None:
        self._add("assistant_message", run, at, content=text.replace("{content}", content))
        run.end("end_turn", at)

    def _ask(self, turn: ApprovalTurn, run: Run, at: float) -> Row:
        call_id = f"call-{uuid.uuid4()}"
        call = {"name": turn.tool_name, "arguments": json.dumps(turn.arguments), "tool_call_id": call_id}
        return self._add("approval_request_message", run, at, tool_call=call, tool_calls=[call])

    def _respond(self, active: Active, approval: Row, run: Run, at: float) -> None:
        assert active.request is not None
        call_id = active.request["tool_call"]["tool_call_id"]
        answer = {"approve": approval.get("approve") is not False, "reason": approval.get("reason")}
        answer |= {"approval_request_id": active.request["id"], "approvals": [{**approval, "tool_call_id": call_id}]}
        self._add("approval_response_message", run, at, **answer)

    def _end_long(self, active: Active, at: float) -> None:
        self.active = None
        if not isinstance(active.turn, GiveUpTurn):
            self._say(active.turn.text, active.content, active.run, at)

    def _add(self, message_type: str, run: Run, at: float, **fields: Any) -> Row:
        row = {"id": f"message-{uuid.uuid4()}", "date": iso(at), "message_type": message_type, "run_id": run.id}
        row |= fields
        self.places[row["id"]] = len(self.rows)
        self.rows.append(row)
        if message_type in SAID_BY_AGENT:
            run.said.append(row)
        return row

    def _place(self, message_id: str) -> int:
        if message_id not in self.places:
            raise ApiError(404, "NOT_FOUND", f"No message {message_id!r} in this conversation")
        return self.places[message_id]


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


def _approvals(message: Row) -> list[Row]:
    return message.get("approvals") or [] if message.get("type") == "approval" else []


def _text(content: Any) -> str:
    """Return the user's text, without the text that a device puts before it."""
    if isinstance(content, str):
        return content
    texts = [str(part.get("text", "")) for part in content]
    return " ".join(text for text in texts if not text.startswith("<system-reminder>"))


def _conflict(message: str) -> ApiError:
    return ApiError(409, "CONFLICT", f"CONFLICT: Cannot send a new message: {message}")
