# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting until environments are online or offline, at a version, in a mode. It only reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..environment import Environment, describe_state
from ..errors import ApiError
from ..providers.letta.client import Client
from ..providers.letta.models import is_same_mode
from ..versions import is_at_least
from .fan_out import Outcome, ProviderRun, Target
from .jobs import on_each

STATUSES = ("ok", "skipped", "not_attempted", "failed", "unknown")


@dataclass(frozen=True, slots=True)
class Goal:
    """What to wait for; all conditions must hold at the same time.

    state: `online` or `offline`. version: the least semantic version. mode: this one, or another name of it.
    steady_for: seconds for which the conditions must have held, on one connection.
    """

    state: str
    version: str | None = None
    mode: str | None = None
    steady_for: float = 0.0

    def is_met(self, environment: Environment | None) -> bool:
        """Whether the conditions hold for an environment; None stands for one that is no longer there."""
        if environment is None:
            return self.state == "offline" and self.version is None and self.mode is None
        return (
            environment.status == self.state
            and (self.version is None or is_at_least(environment.fields["version"], self.version))
            and (self.mode is None or is_same_mode(environment.fields["mode"], self.mode))
        )

    def __str__(self) -> str:
        version = f"at version {self.version} or newer" if self.version else None
        mode = f"in mode {self.mode}" if self.mode else None
        steady = f"steady for {self.steady_for:g} s" if self.steady_for else None
        return ", ".join(part for part in (self.state, version, mode, steady) if part)


@dataclass(slots=True, kw_only=True)
class WaitOutcome(Outcome):
    """The result of waiting for one environment, and what was last known of it.

    status: one of STATUSES. online: None if nothing is known. elapsed: seconds from the start to the last look.
    steady: seconds for which the goal had been met on one connection, as of the last look.
    reason: while the environment is waited for, what the last look showed.
    """

    online: bool | None = None
    version: str | None = None
    mode: str | None = None
    connection_id: str | None = None
    last_seen_at: str | None = None
    elapsed: float = 0.0
    steady: float = 0.0

    def note(self, found: Environment | None) -> None:
        """Record what a look showed. An environment that is no longer there keeps its last version and mode."""
        self.online, self.connection_id = False, None
        if found is not None:
            self.online, self.connection_id = found.status == "online", found.connection_id
            self.version, self.mode = found.fields["version"], found.fields["mode"]
            self.last_seen_at = found.fields["last_seen_at"]

    def give_up(self, goal: Goal, *, check_mode: bool, why_early: str | None) -> None:
        """End the waiting. why_early: what ended it before its time was over, None if the time was over."""
        known, self.reason, self.status = self.reason, None, "failed"
        if check_mode:
            self.status, self.reason = "skipped", f"would wait until {goal}: it is {known}"
        elif why_early is not None:
            why = f"given up after {self.elapsed:.0f} s, since {why_early}"
            self.error = {"code": "given_up", "message": f"not {goal}, and {why}: it is {known}"}
        else:
            self.error = {"code": "timeout", "message": f"not {goal} after {self.elapsed:.0f} s: it is {known}"}


async def wait_for_environments(run: ProviderRun, goal: Goal, within: float) -> list[WaitOutcome]:
    """Wait up to `within` seconds until every target meets the goal; one outcome each, in the same order.

    In check mode it looks once. The policy's `report` is called with a line of progress before each pause.
    """
    watch = _Watch(goal, run.policy.tell, len(run.targets))
    policy = replace(run.policy, when_offline="wait", offline_timeout=0.0 if run.check_mode else within)
    # The lines of the watch say more than those of the fan-out.
    run = replace(run, policy=replace(policy, report=None, before_waiting=watch.report_waiting))
    waits = await on_each(run, WaitOutcome.make, watch.look)
    why_early = policy.stop.why or "too many others failed"
    for wait in waits:
        if wait.error is not None and wait.error["code"] == "interrupted":
            # A look only reads, so one that is cut off leaves nothing in doubt.
            wait.status, wait.error, wait.reason = "waiting", None, wait.reason or "not known yet"
        if wait.status == "waiting":
            early = run.fan_out.is_closed and wait.elapsed < within
            wait.give_up(goal, check_mode=run.check_mode, why_early=why_early if early else None)
    return waits


class _Watch:
    """Looks at each target until it meets the goal, and reports how many do."""

    def __init__(self, goal: Goal, report: Callable[[str], None], targets: int) -> None:
        self._goal, self._report, self._targets = goal, report, targets
        # How many targets each round looks up.
        self._open = targets
        self._started = time.monotonic()
        # Environment id → the connection on which the goal is met, and since when.
        self._held: dict[str, tuple[str | None, float]] = {}

    async def look(self, client: Client, target: Target, wait: WaitOutcome) -> None:
        """Look at one target. A transient error leaves it waiting for the next look."""
        asked_at = time.monotonic()
        try:
            found = await client.resolve(target.environment, among=self._open)
        except ApiError as error:
            if not error.transient:
                raise
            wait.status, wait.reason = "waiting", f"not known: {error}"
        else:
            wait.note(found)
            steady = self._measure_steadiness(target, found, asked_at)
            wait.steady = round(steady or 0.0, 3)
            if steady is not None and steady >= self._goal.steady_for:
                wait.status, wait.reason = "ok", None
            else:
                so_far = f", steady for {steady:.1f} s" if steady is not None else ""
                wait.status, wait.reason = "waiting", f"{describe_state(found)}{so_far}"
        finally:
            wait.elapsed = round(time.monotonic() - self._started, 3)

    def _measure_steadiness(self, target: Target, found: Environment | None, asked_at: float) -> float | None:
        """Seconds up to `asked_at` for which a target has met the goal on its present connection; None if it does not.

        A look-up that failed in between changes nothing, as long as the connection is the same afterwards.
        """
        if not self._goal.is_met(found):
            self._held.pop(target.environment.id, None)
            return None
        connection_id = found.connection_id if found is not None else None
        now = (connection_id, time.monotonic())
        held = self._held.setdefault(target.environment.id, now)
        if held[0] != connection_id:
            held = self._held[target.environment.id] = now
        return max(0.0, asked_at - held[1])

    def report_waiting(self, waiting: Sequence[WaitOutcome]) -> None:
        """Report how many targets are waited for, which is also how many the next round looks up."""
        self._open = len(waiting)
        of_one = f"{waiting[0].host} is {waiting[0].reason}"
        of_many = f"{self._targets - self._open} of {self._targets} are, {self._open} are waited for"
        stands = of_one if self._targets == 1 else of_many
        self._report(f"waiting until {self._goal}, {time.monotonic() - self._started:.0f} s: {stands}")
