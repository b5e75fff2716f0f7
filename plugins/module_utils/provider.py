# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the other parts ask of a provider's client, and how a target is found that moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .environment import Environment
from .errors import ApiError


@dataclass(frozen=True, slots=True)
class Accepted:
    """A message that was taken. message: what was said to it. attempts: how many requests that needed.

    via: `rest` for the provider's API, `relay` for the device itself. note: what may come of that, None for nothing.
    """

    message: str
    attempts: int
    via: str = "rest"
    note: str | None = None


class Provider(Protocol):
    """A provider's client, as far as delivery needs it."""

    # Statuses with which the API says that a connection has gone, so that nothing was delivered over it.
    GONE: frozenset[int]

    async def resolve(self, wanted: Environment, *, among: int = 1) -> Environment | None:
        """The same row as it is now; None when it is no longer there. Raises ApiError.

        among: how many look-ups are being made, where one answer may serve them all.
        """

    async def send(
        self,
        target: Environment,
        messages: Sequence[Mapping[str, Any]],
        *,
        agent_id: str | None,
        conversation_id: str | None,
        final: Sequence[int] = (),
    ) -> Accepted:
        """Send over the target's present connection; `final` statuses are not retried. Raises ApiError."""

    async def create_conversation(self, agent_id: str) -> str:
        """Make a conversation with an agent and return its id. Raises ApiError."""


async def reachable(provider: Provider, listed: Environment, *, fresh: bool = False) -> Environment:
    """An environment as listed, or as it is now where the listing cannot be right or `fresh` asks for it.

    Raises ApiError, with the code `offline` for one that is offline or gone.
    """
    if not fresh and listed.status == "online" and listed.connection_id is not None:
        return listed
    found = await provider.resolve(listed)
    if found is None:
        raise ApiError("the environment is no longer there", code="offline")
    if found.status != "online":
        raise ApiError("the environment is offline", code="offline")
    return found
