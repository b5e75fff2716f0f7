# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs: what a module does with each of its Letta devices."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Self, TypeAlias

from ..providers.base import find_online
from ..providers.conversation import TO_BE_OPENED, Place
from ..providers.letta.client import Client
from ..providers.letta.relay import Relay
from .fan_out import Outcome, OutcomeT, ProviderRun, Target

# Does the work for one target with the client that all of them share. Sets the outcome's status, or raises ApiError.
Job: TypeAlias = Callable[[Client, Target, OutcomeT], Awaitable[None]]


@dataclass(slots=True, kw_only=True)
class ConversationOutcome(Outcome):
    """What happened to one agent's conversation. connection_id: the connection over which the device was asked."""

    agent_id: str | None
    conversation_id: str | None
    connection_id: str | None = None

    @classmethod
    def of(cls, target: Target, **more: Any) -> Self:
        """The outcome of a target whose job has not begun. more: its other fields."""
        conversation_id = None if target.conversation_id in TO_BE_OPENED else target.conversation_id
        return cls.make(target, agent_id=target.agent_id, conversation_id=conversation_id, **more)


async def on_each(run: ProviderRun, begin: Callable[[Target], OutcomeT], job: Job[OutcomeT]) -> list[OutcomeT]:
    """Do a job for every target; returns one outcome each, in the same order.

    begin: makes the outcome of a target whose job has not begun.
    job: is called when the target has had its turn in `rate`, and not once the fan-out is closed.
    """
    pairs = [(target, begin(target)) for target in run.targets]
    async with Client(run.settings) as client:

        async def start(target: Target, outcome: OutcomeT) -> None:
            if await run.fan_out.may_start():
                # An earlier round may have found the target offline.
                outcome.error = None
                if target.conversation_id in TO_BE_OPENED and isinstance(outcome, ConversationOutcome):
                    # A standing one that is not there is the agent's default one.
                    place, kind = Place(None), target.conversation_id
                    if (agent_id := target.agent_id) is not None:
                        place = await client.open_conversation(target.environment, agent_id, None, kind, look=False)
                    outcome.conversation_id = None if place.conversation_id in TO_BE_OPENED else place.conversation_id
                    target = replace(target, conversation_id=outcome.conversation_id)
                await job(client, target, outcome)

        await run.fan_out.run(pairs, start)
    return [outcome for _target, outcome in pairs]


async def make_relay(client: Client, target: Target, outcome: ConversationOutcome) -> Relay:
    """The relay to a target's device over its present connection, which the outcome notes. It is not open yet.

    Raises ApiError, with the code `offline` for a device that is offline or gone.
    """
    environment = await find_online(client, target.environment)
    outcome.connection_id = environment.connection_id
    return Relay(client.settings, environment.connection_id, target.agent_id, target.conversation_id)
