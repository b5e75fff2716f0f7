"""Qoder's sessions: the events of each, and its current turn.

Nothing happens in the background and nothing depends on the clock: a turn ends after a number of look-ups.
"""

from __future__ import annotations

import itertools
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from .fleet import Row, milliseconds
from .qoder_bodies import Agent, NewEvents, NewSession, ToolConfirmation, UserMessage
from .qoder_errors import refuse
from .qoder_turns import QoderScript, QoderTurn, asked_for

COUNTER = itertools.count()


@dataclass
class Active:
    """The current turn of a session."""

    turn: QoderTurn
    content: str
    polls_left: int


@dataclass
class Session:
    id: str
    account: str
    environment_id: str
    agent: Agent
    title: str
    metadata: dict[str, str]
    next_turn: Callable[[str], QoderTurn]
    now: Callable[[], float]
    created: float
    events: dict[str, Row] = field(default_factory=dict)
    """Oldest first, by id."""
    active: Active | None = None
    waiting_for: str | None = None
    """The unconfirmed tool use."""
    ended: Literal["terminated", "deleted"] | None = None
    messages: list[str] = field(default_factory=list)
    """The text of each user message."""
    turns: int = 0
    """The number of turns that user messages started: messages that arrive together start one turn."""
    confirmations: list[Row] = field(default_factory=list)
    refused: int = 0
    """How often the session was too busy for more events."""

    def wire(self) -> Row:
        """Return the session as the API answers it."""
        agent = {**self.agent.model_dump(), "name": self.agent.id, "version": self.agent.version or 1}
        status = self.ended or ("processing" if self.active else "idle")
        created = _iso(self.created)
        return {
            "id": self.id,
            "type": "session",
            "agent_id": self.agent.id,
            "agent": agent,
            "environment_id": self.environment_id,
            "status": status,
            "title": self.title,
            "metadata": self.metadata,
            "resources": [],
            "vault_ids": [],
            "archived_at": None,
            "created_at": created,
            "updated_at": created,
        }

    def truth(self) -> Row:
        """Return what a test needs to know."""
        return {
            "id": self.id,
            "account": self.account,
            "environment_id": self.environment_id,
            "agent_id": self.agent.id,
            "agent_version": self.agent.version,
            "title": self.title,
            "metadata": self.metadata,
            "status": self.wire()["status"],
            "turns": self.turns,
            "messages": self.messages,
            "confirmations": self.confirmations,
            "refused": self.refused,
            "events": [event["type"] for event in self.events.values()],
        }

    def look(self) -> None:
        """Record that a client looks: the turn is still under way, or it ends now."""
        if self.active is None:
            return
        if self.active.polls_left:
            self.active.polls_left -= 1
        else:
            self._end(self.active)

    def take(self, body: NewEvents) -> list[Row]:
        """Accept all events or none of them; return the accepted events."""
        if self.ended is not None:
            raise refuse(400, f"Session {self.id!r} is {self.ended}")
        self.look()
        if self.active is not None:
            self.refused += 1
            raise refuse(409, f"Session {self.id!r} is busy")
        for event in body.events:
            if isinstance(event, ToolConfirmation) and event.tool_use_id != self.waiting_for:
                raise refuse(400, f"tool use {event.tool_use_id!r} does not wait for a confirmation", "events")
        accepted = [
            self._add(each.type, **each.model_dump(exclude={"type"}, exclude_none=True)) for each in body.events
        ]
        self.waiting_for = None
        confirmations = [event for event in body.events if isinstance(event, ToolConfirmation)]
        self.confirmations += [event.model_dump(exclude={"type"}) for event in confirmations]
        messages = [event.text for event in body.events if isinstance(event, UserMessage)]
        if messages:
            self.messages += messages
            self.turns += 1
            content = "\n".join(messages)
            self._start(self.next_turn(content), content)
        else:
            denied = any(event.result == "deny" for event in confirmations)
            self._start(QoderTurn(texts=["Then not." if denied else "Done."]), "")
        return accepted

    def _start(self, turn: QoderTurn, content: str) -> None:
        self._add("session.status_running")
        self.active = Active(turn, content, turn.polls)
        if not turn.polls:
            self._end(self.active)

    def _end(self, active: Active) -> None:
        self.active = None
        turn = active.turn
        for text in turn.texts:
            block = {"type": "text", "text": text.replace("{content}", active.content)}
            self._add("agent.message", content=[block])
        match turn.ends:
            case "end_turn" | "cancelled":
                self._add("session.status_idle", stop_reason={"type": turn.ends})
            case "requires_action":
                use = self._add("agent.tool_use", name=turn.tool_name, input=turn.arguments, evaluated_permission="ask")
                self.waiting_for = str(use["id"])
                self._add("session.status_idle", stop_reason={"type": turn.ends, "event_ids": [use["id"]]})
            case "error":
                retry = {"type": "exhausted"}
                self._add("session.error", error={"type": "unknown", "message": turn.message, "retry_status": retry})
            case "terminated":
                self._add("session.status_terminated")
                self.ended = "terminated"
            case "deleted":
                self._add("session.deleted")
                self.ended = "deleted"

    def _add(self, type_: str, **fields: object) -> Row:
        now = self.now()
        event: Row = {"id": _new_id("evt", now), "type": type_, **fields}
        event |= {"session_id": self.id, "created_at": _iso(now), "processed_at": _iso(now)}
        self.events[event["id"]] = event
        return event


class Sessions:
    """All sessions by their ids, and their agents: every agent exists."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.all: dict[str, Session] = {}
        self.removed_agents: set[str] = set()
        self._turns: dict[str, deque[QoderTurn]] = {}
        self._then: dict[str, QoderTurn] = {}

    def script(self, agent_id: str, script: QoderScript) -> None:
        self._turns.setdefault(agent_id, deque()).extend(script.turns)
        if script.then is not None:
            self._then[agent_id] = script.then

    def create(self, account: str, body: NewSession) -> Session:
        agent, now = body.pinned(), self._now()
        if agent.id in self.removed_agents:
            raise refuse(404, f"Agent {agent.id!r} not found", "agent")
        session = Session(
            id=_new_id("sess", now),
            account=account,
            environment_id=body.environment_id,
            agent=agent,
            title=body.title,
            metadata=body.metadata,
            next_turn=lambda content: self._next_turn(agent.id, content),
            now=self._now,
            created=now,
        )
        self.all[session.id] = session
        return session

    def get(self, account: str, session_id: str) -> Session:
        session = self.all.get(session_id)
        if session is None or session.account != account:
            raise refuse(404, f"Session {session_id!r} not found")
        return session

    def _next_turn(self, agent_id: str, content: str) -> QoderTurn:
        asked = asked_for(content)
        if asked is not None:
            return asked
        turns = self._turns.get(agent_id)
        return turns.popleft() if turns else self._then.get(agent_id, QoderTurn())


def _new_id(prefix: str, now: float) -> str:
    """Return an id that sorts by age."""
    return f"{prefix}_{milliseconds(now):012x}{next(COUNTER):08x}{uuid.uuid4().hex[:12]}"


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
