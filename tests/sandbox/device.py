"""The messages of the device behind an environment: it drops repeats and counts what reached it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from .fleet import Environment
from .messages import SendMessageBody, UserMessage

REMEMBERED_MESSAGES = 4096
"""How many client_message_ids a device remembers for each conversation. Seen on letta 0.34.12."""


@dataclass
class Received:
    """What one environment received since the last reset."""

    posts: int = 0
    """Requests for the environment that the API accepted."""
    messages: list[dict[str, Any]] = field(default_factory=list)
    """User messages that reached an agent: {agentId, conversationId, client_message_id, otid, content}."""
    duplicates: int = 0
    """User messages dropped because their client_message_id was known."""
    dropped: int = 0
    """Messages that an old device dropped because no agent was named."""
    approvals: list[dict[str, Any]] = field(default_factory=list)
    """Approvals as they were sent, with agentId and conversationId."""
    turns: int = 0
    """Requests with at least one new user message: each starts one turn of the agent."""
    commands: list[dict[str, Any]] = field(default_factory=list)
    """Commands that the device received: {command_id, request_id, args}."""


class Devices:
    """All devices, by environment id, because every environment is its own process."""

    def __init__(self) -> None:
        self._received: dict[str, Received] = {}
        # Used as an ordered set: the oldest id is the first one.
        self._known: dict[str, dict[tuple[str, str], dict[str, None]]] = {}

    def received(self) -> dict[str, dict[str, Any]]:
        return {environment_id: asdict(received) for environment_id, received in self._received.items()}

    def reset(self) -> None:
        self._received.clear()
        self._known.clear()

    def clear_received(self) -> None:
        """Forget the counts; the devices still know which messages they received."""
        self._received.clear()

    def restart(self, environment: Environment) -> None:
        """Let a device forget the message ids: it keeps them in memory only."""
        self._known.pop(environment.id, None)

    def deliver(self, environment: Environment, body: SendMessageBody) -> list[dict[str, Any]]:
        """Count a request of the API, and take its messages."""
        self._of(environment).posts += 1
        return self.take(environment, body)

    def count_command(self, environment: Environment, frame: dict[str, Any]) -> None:
        command = {name: frame.get(name) for name in ("command_id", "request_id", "args", "runtime")}
        self._of(environment).commands.append(command)

    def take(self, environment: Environment, body: SendMessageBody) -> list[dict[str, Any]]:
        """Count the messages that arrive; return the user messages that are new and reach an agent."""
        received = self._of(environment)
        if not body.agent_id and not _knows_new_form(environment):
            received.dropped += len(body.messages)
            return []
        target = {"agentId": body.agent_id or None, "conversationId": body.conversation_id}
        new = []
        for message in body.messages:
            if not isinstance(message, UserMessage):
                approvals = [approval.model_dump(exclude_unset=True) for approval in message.approvals]
                received.approvals += [{**target, **approval} for approval in approvals]
            elif self._repeated(environment, body, message):
                received.duplicates += 1
            else:
                content = message.model_dump()["content"]
                new.append({"content": content, "otid": message.otid or message.client_message_id})
                sent = {"client_message_id": message.client_message_id, "otid": message.otid or None}
                received.messages.append({**target, **sent, "content": content})
        received.turns += bool(new)
        return new if body.agent_id else []

    def _of(self, environment: Environment) -> Received:
        return self._received.setdefault(environment.id, Received())

    def _repeated(self, environment: Environment, body: SendMessageBody, message: UserMessage) -> bool:
        conversation = (body.agent_id, body.conversation_id or "default")
        known = self._known.setdefault(environment.id, {}).setdefault(conversation, {})
        if message.client_message_id in known:
            return True
        known[message.client_message_id] = None
        if len(known) > REMEMBERED_MESSAGES:
            del known[next(iter(known))]
        return False


def _knows_new_form(environment: Environment) -> bool:
    metadata = environment.row.get("metadata")
    return isinstance(metadata, dict) and "environmentMessageProtocol" in metadata
