# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Questions about messages that were sent, and the replies to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..environment import EnvironmentReference

STATES = ("replied", "waiting", "needs_approval", "failed", "lost")
# As `conversation_id`: make a conversation for the target.
NEW_CONVERSATION = "new"


@dataclass(frozen=True, slots=True)
class Question:
    """What a reply is wanted to.

    provider: its name. agent_id: empty where a session alone says who answers. otid: the message's id in the history.
    tool_call_ids: for answers to tool calls, which have no id of their own.
    text: of the message, for an API whose history has no id of ours, and since: ISO 8601, before which it was not sent.
    conversation_id: None is the agent's default one. environment: None where nothing is known of it.
    """

    provider: str
    agent_id: str
    conversation_id: str | None
    otid: str | None = None
    tool_call_ids: Sequence[str] = ()
    environment: EnvironmentReference | None = None
    text: str | None = None
    since: str | None = None


@dataclass(slots=True)
class Reply:
    """What became of a message.

    state: one of STATES. `waiting`: it is not in the history yet, or its turn goes on. `lost`: it did not get there
        in time, or its agent or conversation is gone, or in mid-turn its device.
    text: the last that the agent said in the turn. duration: seconds from the message to the end of the turn.
    run_id: the turn's last run; event_id: the event of a session that the message is.
    stop_reason: why the turn, or its last run, ended. pending_approvals: `{request_id, tool_call_id, tool_name,
        arguments}` each; request_id is None where the device could not be asked. error: `{code, message}`.
    """

    state: str = "waiting"
    text: str | None = None
    run_id: str | None = None
    event_id: str | None = None
    stop_reason: str | None = None
    duration: float | None = None
    pending_approvals: list[dict[str, Any]] = field(default_factory=list)
    error: dict[str, str] | None = None

    def ended(self, state: str, code: str, message: str) -> Reply:
        """The same with a state, and the reason for it."""
        self.state, self.error = state, {"code": code, "message": message}
        return self

    @property
    def found(self) -> bool:
        """Whether the message is in the history."""
        return self.run_id is not None or self.event_id is not None


# One look at what became of a message, told how many seconds passed since the one before.
Look = Callable[[float], Awaitable[Reply]]
