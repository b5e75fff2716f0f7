# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Delivery: messages to one environment or to many, and what became of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .environment import Environment
from .errors import ApiError
from .fan_out import FanOut, Outcome, Policy, Target
from .provider import Provider, reachable

STATUSES = ("sent", "already_sent", "offline", "skipped", "not_attempted", "failed", "unknown")
# As `conversation_id`: make a conversation for the target.
NEW_CONVERSATION = "new"


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageTarget(Target):
    """A target and what it is to get: messages in the API's shapes. conversation_id may be `new`."""

    messages: Sequence[Mapping[str, Any]]

    @property
    def client_message_id(self) -> str | None:
        """The id of the first message that has one; approvals have none."""
        return next(
            (str(message["client_message_id"]) for message in self.messages if "client_message_id" in message), None
        )


@dataclass(slots=True, kw_only=True)
class Delivery(Outcome):
    """What became of the messages for one target. status: one of STATUSES. attempts: message requests made."""

    client_message_id: str | None
    agent_id: str | None
    conversation_id: str | None
    connection_id: str | None
    response_message: str | None = None
    attempts: int = 0

    @classmethod
    def of(cls, target: MessageTarget) -> Delivery:
        """A delivery that has not begun, or that is not to begin."""
        return cls(
            **cls.begin(target),
            client_message_id=target.client_message_id,
            agent_id=target.agent_id,
            conversation_id=None if target.conversation_id == NEW_CONVERSATION else target.conversation_id,
            connection_id=target.environment.connection_id,
        )


async def deliver(provider: Provider, targets: Sequence[MessageTarget], policy: Policy) -> list[Delivery]:
    """Send to every target; one Delivery each, in the same order."""
    pairs = [(target, Delivery.of(target)) for target in targets]
    fan_out = FanOut(policy)
    await fan_out.run(pairs, Sender(provider, fan_out).send)
    return [delivery for _target, delivery in pairs]


class Sender:
    """Sends to one target at a time, as part of a fan-out. Raises ApiError."""

    def __init__(self, provider: Provider, fan_out: FanOut) -> None:
        self._provider = provider
        self._fan_out = fan_out

    async def send(self, target: MessageTarget, delivery: Delivery) -> None:
        """Send to one target when its turn has come."""
        environment = await reachable(self._provider, target.environment)
        if await self._fan_out.may_start():
            await self.send_now(target, environment, delivery)

    async def send_now(self, target: MessageTarget, environment: Environment, delivery: Delivery) -> None:
        """Send over the target's connection as `environment` has it, late bound."""
        if delivery.conversation_id is None and target.conversation_id == NEW_CONVERSATION:
            delivery.conversation_id = await self._new_conversation(str(target.agent_id))
        await self._late_bound(target, environment, delivery)
        delivery.status, delivery.error = "sent", None

    async def _new_conversation(self, agent_id: str) -> str:
        try:
            return await self._provider.create_conversation(agent_id)
        except ApiError as error:
            # The message itself has not been sent, so nothing about it is unclear.
            error.may_be_accepted = False
            raise

    async def _late_bound(self, target: MessageTarget, environment: Environment, delivery: Delivery) -> None:
        """Send; when the connection has gone, look the target up and send once more."""
        try:
            await self._once(target, environment, delivery, final=tuple(self._provider.GONE))
        except ApiError as error:
            if error.status not in self._provider.GONE:
                raise
            unclear = error.may_be_accepted
        else:
            return
        try:
            environment = await reachable(self._provider, target.environment, fresh=True)
            await self._fan_out.may_start()
            await self._once(target, environment, delivery)
        except ApiError as error:
            error.may_be_accepted = error.may_be_accepted or unclear
            error.code = "offline" if error.status == 404 else error.code
            raise

    async def _once(
        self, target: MessageTarget, environment: Environment, delivery: Delivery, final: Sequence[int] = ()
    ) -> None:
        delivery.connection_id = environment.connection_id
        try:
            accepted = await self._provider.send(
                environment,
                target.messages,
                agent_id=target.agent_id,
                conversation_id=delivery.conversation_id,
                final=final,
            )
        except ApiError as error:
            delivery.attempts += error.attempts
            raise
        delivery.attempts += accepted.attempts
        delivery.response_message = accepted.message
