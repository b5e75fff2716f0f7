# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Delivery: messages to one environment or to many, and what became of each."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .environment import Environment, Provider
from .errors import ApiError, OptionError

STATUSES = ("sent", "already_sent", "offline", "skipped", "not_attempted", "failed", "unknown")
# As `conversation_id`: make a conversation for the target.
NEW_CONVERSATION = "new"
_LONGEST_PAUSE = 15.0


@dataclass(frozen=True, slots=True)
class Target:
    """One environment and what it is to get.

    messages: in the API's shapes. conversation_id: an id, `new`, or None for the API's own choice.
    skip: why nothing is to be sent, None otherwise.
    """

    host: str
    environment: Environment
    messages: Sequence[Mapping[str, Any]]
    agent_id: str | None = None
    conversation_id: str | None = None
    skip: str | None = None

    @property
    def client_message_id(self) -> str | None:
        """The id of the first message that has one; approvals have none."""
        return next(
            (str(message["client_message_id"]) for message in self.messages if "client_message_id" in message), None
        )


@dataclass(slots=True)
class Delivery:
    """What became of one target.

    status: one of STATUSES; `unknown` may have been accepted. attempts: message requests made. duration: seconds.
    error: `{code, message}`.
    """

    host: str
    id: str
    client_message_id: str | None
    agent_id: str | None
    conversation_id: str | None
    connection_id: str | None
    status: str
    reason: str | None
    response_message: str | None = None
    attempts: int = 0
    duration: float = 0.0
    error: dict[str, str] | None = None

    @classmethod
    def of(cls, target: Target) -> Delivery:
        """A delivery that has not begun, or that is not to begin."""
        return cls(
            host=target.host,
            id=target.environment.id,
            client_message_id=target.client_message_id,
            agent_id=target.agent_id,
            conversation_id=None if target.conversation_id == NEW_CONVERSATION else target.conversation_id,
            connection_id=target.environment.connection_id,
            status="not_attempted" if target.skip is None else "skipped",
            reason=target.skip,
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """How a fan-out goes.

    concurrency: sends at a time. rate: sends started a second, None for no limit.
    max_failures: how many targets may fail before no new send starts.
    when_offline: `skip`, `fail` or `wait`; offline_timeout: seconds to wait, from the start of the fan-out.
    """

    concurrency: int
    rate: float | None
    max_failures: int
    when_offline: str
    offline_timeout: float

    def is_failure(self, delivery: Delivery) -> bool:
        """Whether a delivery counts as failed."""
        return delivery.status in ("failed", "unknown") or (
            delivery.status == "offline" and self.when_offline != "skip"
        )


def failure_budget(value: str, targets: int) -> int:
    """`max_failures` as a count: a number, or a percentage of the targets rounded down. Raises OptionError."""
    text = value.strip()
    number = text.removesuffix("%").strip()
    if not (number.isascii() and number.isdigit()) or (text.endswith("%") and int(number) > 100):
        raise OptionError("max_failures", f"must be a count such as 5 or a percentage such as 10%, got {value!r}")
    return int(number) * targets // 100 if text.endswith("%") else int(number)


async def deliver(provider: Provider, targets: Sequence[Target], policy: Policy) -> list[Delivery]:
    """Send to every target; one Delivery each, in the same order.

    Above the failure budget no new send starts, those in flight finish, and the rest stays `not_attempted`.
    """
    return await _FanOut(provider, targets, policy).run()


def counts(deliveries: Sequence[Delivery]) -> dict[str, int]:
    """How many deliveries ended in each status, all of STATUSES in order."""
    found = Counter(delivery.status for delivery in deliveries)
    return {status: found[status] for status in STATUSES}


class _FanOut:
    def __init__(self, provider: Provider, targets: Sequence[Target], policy: Policy) -> None:
        self._provider = provider
        self._policy = policy
        self._pairs = [(target, Delivery.of(target)) for target in targets]
        self._failures = 0
        self._next_start = 0.0

    async def run(self) -> list[Delivery]:
        """Send in rounds: a second round and more only for targets that are waited for."""
        give_up_at = time.monotonic() + self._policy.offline_timeout
        pause = 1.0
        open_pairs = self._pairs
        while open_pairs:
            left = give_up_at - time.monotonic()
            waits = self._policy.when_offline == "wait" and left > 0
            open_pairs = await self._round(open_pairs, waits=waits)
            if open_pairs:
                await asyncio.sleep(max(0.0, min(pause, left)))
                pause = min(pause * 2, _LONGEST_PAUSE)
        return [delivery for _target, delivery in self._pairs]

    async def _round(self, pairs: Sequence[tuple[Target, Delivery]], *, waits: bool) -> list[tuple[Target, Delivery]]:
        """Try every pair once; returns those that are offline and to be waited for."""
        queue = iter(pairs)
        offline: list[tuple[Target, Delivery]] = []

        async def worker() -> None:
            for target, delivery in queue:
                if target.skip is not None:
                    continue
                if self._stopped():
                    return
                started = time.monotonic()
                await self._one(target, delivery)
                delivery.duration = round(delivery.duration + time.monotonic() - started, 3)
                if delivery.status == "offline" and waits:
                    offline.append((target, delivery))
                elif self._policy.is_failure(delivery):
                    self._failures += 1

        async with asyncio.TaskGroup() as group:
            for _number in range(min(self._policy.concurrency, len(pairs))):
                group.create_task(worker())
        return [] if self._stopped() else offline

    def _stopped(self) -> bool:
        """Whether more targets failed than allowed, so that no new send may start."""
        return self._failures > self._policy.max_failures

    async def _one(self, target: Target, delivery: Delivery) -> None:
        try:
            environment = await self._reachable(target)
            await self._pace()
            if self._stopped():
                return
            if delivery.conversation_id is None and target.conversation_id == NEW_CONVERSATION:
                delivery.conversation_id = await self._new_conversation(str(target.agent_id))
            await self._send_late_bound(target, environment, delivery)
        except ApiError as error:
            delivery.status = "unknown" if error.may_be_accepted else "offline" if error.code == "offline" else "failed"
            delivery.error = {"code": error.code, "message": str(error)}
        else:
            delivery.status, delivery.error = "sent", None

    async def _new_conversation(self, agent_id: str) -> str:
        try:
            return await self._provider.create_conversation(agent_id)
        except ApiError as error:
            # The message itself has not been sent, so nothing about it is unclear.
            error.may_be_accepted = False
            raise

    async def _send_late_bound(self, target: Target, environment: Environment, delivery: Delivery) -> None:
        """Send; when the connection has gone, look the target up and send once more."""
        try:
            await self._send(target, environment, delivery, final=tuple(self._provider.GONE))
        except ApiError as error:
            if error.status not in self._provider.GONE:
                raise
            unclear = error.may_be_accepted
        else:
            return
        try:
            environment = await self._reachable(target, fresh=True)
            await self._pace()
            await self._send(target, environment, delivery)
        except ApiError as error:
            error.may_be_accepted = error.may_be_accepted or unclear
            error.code = "offline" if error.status == 404 else error.code
            raise

    async def _reachable(self, target: Target, *, fresh: bool = False) -> Environment:
        """The target as listed, or as it is now where the listing cannot be right. Raises ApiError when offline."""
        listed = target.environment
        if not fresh and listed.status == "online" and listed.connection_id is not None:
            return listed
        found = await self._provider.resolve(listed)
        if found is None:
            raise ApiError("the environment is no longer there", code="offline")
        if found.status != "online":
            raise ApiError("the environment is offline", code="offline")
        return found

    async def _send(
        self, target: Target, environment: Environment, delivery: Delivery, final: Sequence[int] = ()
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

    async def _pace(self) -> None:
        if self._policy.rate is None:
            return
        now = time.monotonic()
        start = max(now, self._next_start)
        self._next_start = start + 1 / self._policy.rate
        await asyncio.sleep(start - now)
