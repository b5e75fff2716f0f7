# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fan-out: one piece of work for each target, with bounded concurrency, a rate and a failure budget."""

from __future__ import annotations

import asyncio
import functools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from ..environment import EnvironmentReference
from ..errors import ApiError
from ..http.gate import Pace
from ..http.settings import HttpSettings
from ..stop import GRACE, Stop
from ..text import one_line
from .progress import Progress


@dataclass(frozen=True, slots=True)
class Target:
    """One environment, with the agent and the conversation that a job is about.

    conversation_id: an id, or None for the agent's default conversation.
    skip: why the target is left alone, None for one that is worked on.
    """

    host: str
    environment: EnvironmentReference
    agent_id: str | None = None
    conversation_id: str | None = None
    skip: str | None = None


@dataclass(slots=True)
class Outcome:
    """What happened to one target.

    status: `not_attempted` or `skipped` at first. The work sets the final one; an ApiError makes it `offline`,
        `unknown` (may have been accepted) or `failed`. A target that is `offline` or `waiting` is worked on again while
        the policy waits, and one that is `later` until its work ends otherwise.
    duration: seconds. error: `{code, message}`.
    """

    host: str
    id: str
    status: str
    reason: str | None
    duration: float = 0.0
    error: dict[str, str] | None = None

    @property
    def has_failed(self) -> bool:
        """Whether the target counts as failed under every policy."""
        return self.status in ("failed", "unknown")

    @classmethod
    def make(cls, target: Target, **more: Any) -> Self:
        """The outcome of a target whose work has not begun, or is not to begin. more: its other fields."""
        status = "not_attempted" if target.skip is None else "skipped"
        return cls(host=target.host, id=target.environment.id, status=status, reason=target.skip, **more)


@dataclass(frozen=True, slots=True)
class Policy:
    """How a fan-out goes.

    concurrency: targets at a time. rate: targets started a second, None for no limit.
    max_failures: how many targets may fail before no new one starts.
    when_offline: `skip`, `fail` or `wait`; offline_timeout: seconds to wait, from the start of the fan-out.
    longest_pause: seconds between two rounds of waiting; the first pauses are shorter.
    before_waiting: is called before each pause between rounds, with the outcomes of those that are waited for.
    report: is called with a line of progress, at most once a second; None to report nothing.
    stop: once it is requested no new target starts. At the level CUT, targets under way have GRACE seconds to finish.
    """

    concurrency: int
    rate: float | None
    max_failures: int
    when_offline: str = "fail"
    offline_timeout: float = 0.0
    longest_pause: float = 15.0
    before_waiting: Callable[[Sequence[Any]], None] = lambda _outcomes: None
    report: Callable[[str], None] | None = None
    stop: Stop = field(default_factory=Stop, compare=False, repr=False)

    def tell(self, line: str) -> None:
        """Report a line. After a signal core has ended, and nothing reads the lines of a worker."""
        if self.report is not None and not self.stop.requested:
            self.report(line)

    def is_failure(self, outcome: Outcome) -> bool:
        """Whether an outcome counts as failed."""
        return outcome.has_failed or (outcome.status == "offline" and self.when_offline != "skip")


@dataclass(frozen=True)
class ProviderRun:
    """What is done with targets of one provider, and how. check_mode: nothing is changed."""

    settings: HttpSettings
    targets: Sequence[Target]
    policy: Policy
    check_mode: bool = False

    @functools.cached_property
    def fan_out(self) -> FanOut:
        return FanOut(self.policy)


def count_each(values: Iterable[str], names: Sequence[str]) -> dict[str, int]:
    """How often each of `names` is among the values, in the order of the names."""
    found = Counter(values)
    return {name: found[name] for name in names}


T = TypeVar("T", bound=Target)
OutcomeT = TypeVar("OutcomeT", bound=Outcome)
# Works on one target and sets the outcome's status, or raises ApiError.
Work = Callable[[T, OutcomeT], Awaitable[None]]


class FanOut:
    """Does a piece of work for each target.

    Above the failure budget no new work starts, work under way finishes, and the other targets stay `not_attempted`.
    The same happens when the policy's `stop` is requested. Work that is then cut off may have been done, so its target
    ends `unknown`.
    """

    def __init__(self, policy: Policy) -> None:
        self.stop = policy.stop
        self._policy = policy
        self._failures = 0
        self._progress = Progress("targets", 0)
        self._pace = Pace(policy.rate)

    async def run(self, pairs: Sequence[tuple[T, OutcomeT]], work: Work[T, OutcomeT]) -> None:
        """Work in rounds. After the first round only targets that are waited for are worked on."""
        policy = self._policy
        open_pairs = [pair for pair in pairs if pair[0].skip is None]
        give_up_at = time.monotonic() + policy.offline_timeout
        pause = min(1.0, policy.longest_pause)
        self._progress = Progress("targets", len(open_pairs))
        async with self._progress.show(policy.tell if policy.report is not None else None):
            while open_pairs:
                left = give_up_at - time.monotonic()
                waits = policy.when_offline == "wait" and left > 0
                open_pairs = await self._work_on(open_pairs, work, waits=waits)
                if open_pairs:
                    policy.before_waiting([outcome for _target, outcome in open_pairs])
                    # Once the policy waits no more, those that are left are worked on later by their own choice.
                    await self.stop.sleep(min(pause, left) if waits else pause)
                    pause = min(pause * 2, policy.longest_pause)

    async def may_start(self) -> bool:
        """Wait until `rate` allows another start; False when no more targets start."""
        await self._pace.wait_for_turn(self.stop.sleep)
        return not self.is_closed

    async def attempt(self, target: T, outcome: OutcomeT, work: Work[T, OutcomeT]) -> None:
        """Work on one target once, and record on its outcome what goes wrong."""
        started = time.monotonic()
        with record_failures(outcome, self.stop):
            await work(target, outcome)
        outcome.duration = round(outcome.duration + time.monotonic() - started, 3)

    async def _work_on(
        self, pairs: Sequence[tuple[T, OutcomeT]], work: Work[T, OutcomeT], *, waits: bool
    ) -> list[tuple[T, OutcomeT]]:
        """Work on every pair once; returns those that are waited for."""
        queue = iter(pairs)
        waited_for: list[tuple[T, OutcomeT]] = []

        async def worker() -> None:
            for target, outcome in queue:
                if self.is_closed:
                    return
                await self.attempt(target, outcome, work)
                if outcome.status == "later" or (outcome.status in ("offline", "waiting") and waits):
                    outcome.status = "not_attempted" if outcome.status == "later" else outcome.status
                    waited_for.append((target, outcome))
                    continue
                failed = self._policy.is_failure(outcome)
                self._failures += failed
                self._progress.count(outcome.status, failed=failed)

        async def workers() -> None:
            async with asyncio.TaskGroup() as group:
                for _number in range(min(self._policy.concurrency, len(pairs))):
                    group.create_task(worker())

        await self.stop.run(workers(), GRACE)
        return [] if self.is_closed else waited_for

    @property
    def is_closed(self) -> bool:
        """Whether no more targets start: too many have failed, or a stop is requested."""
        return self._failures > self._policy.max_failures or self.stop.requested


def record_error(outcome: Outcome, error: ApiError) -> None:
    """Record an error on the outcome, as its status and its error."""
    outcome.status = "unknown" if error.may_be_accepted else "offline" if error.code == "offline" else "failed"
    outcome.error = {"code": error.code, "message": str(error)}


@contextmanager
def record_failures(outcome: Outcome, stop: Stop) -> Iterator[None]:
    """Record an exception on the outcome, as its status and its error. stop: what cuts the work off."""
    try:
        yield
    except ApiError as error:
        record_error(outcome, error)
    except Exception as error:  # noqa: BLE001 - a fault of ours with one target must not lose the other outcomes
        outcome.status = "unknown"
        outcome.error = {"code": "internal", "message": f"{type(error).__name__}: {one_line(error)}"}
    except asyncio.CancelledError:
        outcome.status = "unknown"
        outcome.error = {"code": "interrupted", "message": f"cut off, as {stop.why}; it may have been done"}
        raise
