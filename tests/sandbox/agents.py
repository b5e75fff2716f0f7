"""Scripted agents: every agent id exists, and has the turns that the test wrote for it."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Iterator

from .api import ApiError
from .conversations import Conversation, Run
from .fleet import Row
from .turns import ReplyTurn, Script, Turn


class Agents:
    """All agents with their conversations. Everything is found by its id, because there may be thousands."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._removed: set[str] = set()
        self._names: dict[str, str] = {}
        self._turns: dict[str, deque[Turn]] = {}
        self._then: dict[str, Turn] = {}
        # The default conversation of an agent is stored under the agent's id.
        self._conversations: dict[str, Conversation] = {}
        self._made: dict[str, list[Conversation]] = {}
        self._runs: dict[str, Run] = {}

    def script(self, agent_id: str, script: Script) -> None:
        self._turns.setdefault(agent_id, deque()).extend(script.turns)
        if script.then is not None:
            self._then[agent_id] = script.then

    def remove(self, agent_id: str) -> None:
        self._removed.add(agent_id)

    def rename(self, agent_id: str, name: str) -> None:
        self._names[agent_id] = name

    def name(self, agent_id: str) -> str:
        return self._names.get(agent_id, agent_id)

    def ids(self) -> list[str]:
        """Return the ids of the agents that a test has named or scripted, or that have a conversation."""
        known = dict.fromkeys([*self._names, *self._turns, *self._made])
        return [agent_id for agent_id in known if agent_id not in self._removed]

    def check(self, agent_id: str) -> None:
        if agent_id in self._removed:
            raise ApiError(404, "NOT_FOUND", f"Agent {agent_id!r} not found")

    def create_conversation(self, agent_id: str, summary: str | None = None) -> Conversation:
        self.check(agent_id)
        conversation = self._keep(f"conv-{uuid.uuid4()}", agent_id)
        conversation.summary = summary
        return conversation

    def conversation(self, conversation_id: str, agent_id: str = "") -> Conversation:
        """Return a conversation by its id, or the default one of an agent: ``default``, or the agent's id itself."""
        key = agent_id if conversation_id == "default" else conversation_id
        found = self._conversations.get(key)
        if found is None:
            if not key or (key != agent_id and not key.startswith("agent-")):
                raise ApiError(404, "NOT_FOUND", f"Conversation {conversation_id!r} not found")
            found = self._keep(key, key)
        self.check(found.agent_id)
        return found

    def restart(self, device: str, now: float) -> None:
        """Let a simulated device restart in the middle of its turns."""
        for conversation in self._conversations.values():
            conversation.restart(device, now)

    def conversations(self, agent_id: str) -> Iterator[Conversation]:
        """Yield the conversations of an agent."""
        yield from self._made.get(agent_id, [])

    def runs(self, agent_id: str) -> list[Run]:
        """Return the runs of an agent, oldest first."""
        return [run for run in self._runs.values() if run.conversation.agent_id == agent_id]

    def run(self, run_id: str) -> Run:
        run = self._runs.get(run_id)
        if run is None:
            raise ApiError(404, "NOT_FOUND", f"Run {run_id!r} not found")
        return run

    def deliver(self, device: str, conversation: str, agent_id: str, messages: list[Row], now: float) -> None:
        """Let a simulated device start a turn; without agent or conversation it never starts, as on a real one."""
        try:
            found = self.conversation(conversation, agent_id)
        except ApiError:
            return
        found.enqueue(device, messages, now)

    def _keep(self, key: str, agent_id: str) -> Conversation:
        own_id = "default" if key == agent_id else key
        conversation = Conversation(agent_id, own_id, lambda: self._next_turn(agent_id), self._runs)
        self._conversations[key] = conversation
        self._made.setdefault(agent_id, []).append(conversation)
        return conversation

    def _next_turn(self, agent_id: str) -> Turn:
        turns = self._turns.get(agent_id)
        return turns.popleft() if turns else self._then.get(agent_id, ReplyTurn())
