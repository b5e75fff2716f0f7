"""Qoder's side of a running sandbox, and the calls with which a test controls it.

sandbox.qoder.script("agent_1", QoderTurn(ends="requires_action"))
...
[session] = sandbox.qoder.sessions()
assert session["turns"] == 1
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from .qoder import FIRST_ACCOUNT
from .qoder_turns import QoderTurn

Json = dict[str, Any]


@dataclass
class QoderSandbox:
    url: str
    """The base URL of the API."""
    key: str
    """The access token of the account "default"."""
    ask: Callable[..., Any]
    """Sends a method, a path below /_sandbox/ and optionally a body; returns the answer."""

    def account(self, name: str, key: str, **options: Any) -> None:
        """Create an account, in place of the one of this name: "default" has the sandbox's own key.

        Options: ``environments`` (how many, default 0), ``seed``, ``hostile`` (values that no client should trust)
        and ``forbidden`` (403 for all it does).
        """
        self.ask("PUT", f"qoder/accounts/{quote(name, safe='')}", {"key": key, **options})

    def environments(self, account: str = FIRST_ACCOUNT) -> list[Json]:
        """Return every environment as ``{id, archived, row}``, oldest first; row is the API's answer."""
        environments: list[Json] = self.ask("GET", _path(account))
        return environments

    def add_environment(self, account: str = FIRST_ACCOUNT, **row: Any) -> Json:
        """Add an environment, newer than all others, with raw fields overridden; return its row.

        ``**{"$workers": 2}`` is how many workers poll for it, when it is self-hosted.
        """
        added: Json = self.ask("POST", _path(account), row)
        return added

    def patch(self, environment_id: str, account: str = FIRST_ACCOUNT, **row: Any) -> Json:
        """Override raw fields of a row; ``**{"$delete": ["status", "config.packages"]}`` removes keys."""
        patched: Json = self.ask("PATCH", _path(account, environment_id), row)
        return patched

    def remove(self, environment_id: str, account: str = FIRST_ACCOUNT) -> None:
        self.ask("DELETE", _path(account, environment_id))

    def script(self, agent_id: str, *turns: QoderTurn | str, then: QoderTurn | str | None = None) -> None:
        """Give an agent these turns, one after the other; a text is a reply.

        ``then`` is the turn when no other is left, in all of the agent's sessions; by default "Done.".
        """
        body = {"turns": [_turn(turn) for turn in turns], "then": _turn(then) if then is not None else None}
        self.ask("POST", f"qoder/agents/{quote(agent_id, safe='')}/script", body)

    def remove_agent(self, agent_id: str) -> None:
        """Remove an agent; every other agent id exists."""
        self.ask("DELETE", f"qoder/agents/{quote(agent_id, safe='')}")

    def sessions(self) -> list[Json]:
        """Return every session that was created, oldest first, with what it received.

        ``{id, account, environment_id, agent_id, agent_version, title, metadata, status, turns, messages,
        confirmations, refused, events}``: messages are the texts that were accepted, turns counts what they started
        (messages that came together start one), refused counts those that came while it was busy, and events are the
        types in their order.
        """
        sessions: list[Json] = self.ask("GET", "qoder/sessions")
        return sessions

    def pass_time(self, seconds: float) -> None:
        """Move the clock forward: after 24 hours an idempotency key expires."""
        self.ask("POST", "qoder/clock", {"seconds": seconds})


def _turn(turn: QoderTurn | str) -> Json:
    return (QoderTurn(texts=[turn]) if isinstance(turn, str) else turn).model_dump()


def _path(account: str, environment_id: str | None = None) -> str:
    path = f"qoder/accounts/{quote(account, safe='')}/environments"
    return path if environment_id is None else f"{path}/{quote(environment_id, safe='')}"
