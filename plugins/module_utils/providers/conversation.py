# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Questions about messages that were sent, and the replies to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..environment import EnvironmentReference
from ..errors import ApiError
from ..text import one_line

STATES = ("replied", "waiting", "needs_approval", "failed", "lost")
DROPPED = "reply_dropped"
# As `conversation_id`: an agent's default one, which every agent has.
DEFAULT_CONVERSATION = "default"
# As `conversation_id`: one that is made for the message; the one for agent and environment, made where it is missing;
# that one if the agent has such conversations, else its default one.
NEW_CONVERSATION, STANDING_CONVERSATION, EITHER_CONVERSATION = "new", "standing", "standing or default"
# Those that a user may name, and all that become an id when the message is sent.
MADE_CONVERSATIONS = frozenset({NEW_CONVERSATION, STANDING_CONVERSATION})
TO_BE_OPENED = MADE_CONVERSATIONS | {EITHER_CONVERSATION}


class Address(NamedTuple):
    """Who is addressed: an agent, or whichever answers there; and its conversation, None for its default one."""

    agent_id: str | None
    conversation_id: str | None


@dataclass(frozen=True, slots=True)
class Place:
    """The conversation for a message. conversation_id: None is the agent's default one.

    others: those in which an earlier run may have sent the message. is_new: nothing was sent in it before.
    problem: why it is not known whether these are all.
    """

    conversation_id: str | None
    others: Sequence[str | None] = ()
    is_new: bool = False
    problem: ApiError | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A message whose reply is wanted.

    provider: its name. agent_id: empty if a session decides who answers. otid: the message's id in the history.
    tool_call_ids: for answers to tool calls, which have no id of their own.
    client_message_id: the id by which its device knows it, or the first of the messages that came with it.
    text: the message's, for an API whose history has only its own ids. since: ISO 8601, before which it was not sent.
    conversation_id: None is the agent's default one. environment: None if nothing is known of it.
    """

    provider: str
    agent_id: str
    conversation_id: str | None
    otid: str | None = None
    client_message_id: str | None = None
    tool_call_ids: Sequence[str] = ()
    environment: EnvironmentReference | None = None
    text: str | None = None
    since: str | None = None


@dataclass(slots=True)
class Reply:
    """What happened to a message.

    state: one of STATES. `waiting`: it is not in the history yet, or its turn goes on. `lost`: it did not get into the
        history in time, its device dropped it (then the code is DROPPED), its agent or conversation is gone, or its
        device disappeared in mid-turn.
    text: the agent's last text in the turn. duration: seconds from the message to the end of the turn.
    run_id: the turn's last run. event_id: the message's event in a session.
    stop_reason: why the turn, or its last run, ended. pending_approvals: `{request_id, tool_call_id, tool_name,
        arguments}` each; request_id is None if the device could not be asked. error: `{code, message}`.
    """

    state: str = "waiting"
    text: str | None = None
    run_id: str | None = None
    event_id: str | None = None
    stop_reason: str | None = None
    duration: float | None = None
    pending_approvals: list[dict[str, Any]] = field(default_factory=list)
    error: dict[str, str] | None = None

    def end(self, state: str, code: str, message: str) -> Reply:
        """Set the state and the reason for it, and return this reply."""
        self.state, self.error = state, {"code": code, "message": message}
        return self

    def need_approval(self, pending: list[dict[str, Any]], doubt: str = "") -> Reply:
        """Say that the turn waits for approvals, and return this reply. doubt: what is not known about that."""
        self.pending_approvals = pending
        calls = one_line(", ".join(f"{entry['tool_name']} ({entry['tool_call_id']})" for entry in pending))
        return self.end("needs_approval", "needs_approval", f"the turn waits for approval of {calls}{doubt}")

    @property
    def found(self) -> bool:
        """Whether the message is in the history."""
        return self.run_id is not None or self.event_id is not None

    @property
    def code(self) -> str | None:
        """Why there is no reply, as the code of its error."""
        return self.error["code"] if self.error else None


# Lets a number of seconds go by, and looks once for the reply to a message.
Look = Callable[[float], Awaitable[Reply]]
