# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The run of a rollout: its waves one after the other. What has happened is in the ledger before the next step begins.

A wave is recorded as running before its first device is told to update. So a run that ends in a wave, however it ends,
leaves it running, and the next run does it again; fleet/update.py tells no device twice.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from ..fleet.delivery import MessageTarget, deliver, wait_for_replies
from ..fleet.drain import Drain
from ..fleet.fan_out import Outcome, Policy, Target
from ..fleet.progress import report_at_pace
from ..fleet.update import Update, UpdateOutcome, update_environments
from ..fleet.wait import Goal, wait_for_environments
from ..http.settings import HttpSettings
from ..ledger.deliveries import Deliveries
from ..ledger.rollouts import RolloutUpdates, record_changes
from ..ledger.schema import Rollout, Wave
from ..ledger.store import Ledger
from ..providers.message import Message
from ..providers.registry import AllConversations, open_clients
from ..text import format_now
from .waves import GOOD, begin_wave, judge_wave, list_waves_to_run


@dataclass(frozen=True, slots=True)
class RolloutRun:
    """Runs waves of a rollout that is in the ledger, and that no other run has. Raises OptionError for the ledger.

    targets: the devices that the run may touch, by environment id, each with the agent that must reply on it.
    policy: how devices are updated; its `report` shows a line. every: seconds between two lines that count.
    options: those of the module `rollout`. in_doubt: as for update_environments.
    """

    ledger: Ledger
    rollout: Rollout
    settings: HttpSettings
    targets: dict[str, Target]
    policy: Policy
    every: float
    options: dict[str, Any]
    in_doubt: dict[str, str] = field(default_factory=dict)

    async def run(self) -> None:
        """Run the waves until one does not pass; at a gate only the first. A stop leaves its wave running."""
        waves = list_waves_to_run(self.rollout, self.targets)
        for wave, mine in waves[:1] if self.options["gate"] else waves:
            if not await self._run_wave(wave, [self.targets[target.environment_id] for target in mine]):
                return

    async def _run_wave(self, wave: Wave, targets: Sequence[Target]) -> bool:
        """Whether the wave has passed."""
        budget = self.options["canary_max_failures" if wave.number == 1 else "max_failures"]
        wave = begin_wave(self.rollout, wave, budget, format_now())
        record_changes(self.ledger, self.rollout, waves=[wave])
        outcomes = await self._update(wave, targets)
        updated = {outcome.id: outcome for outcome in outcomes}
        await self._soak(wave, _list_good(targets, outcomes), updated)
        if self.options["probe_agent_id"]:
            await self._probe(wave, _list_good(targets, outcomes), updated)
        if self.policy.stop.requested:
            return False
        wave, ends = judge_wave(self.rollout, wave, updated, format_now())
        record_changes(self.ledger, self.rollout, waves=[wave], targets=ends)
        stands = "is running" if wave.state == "running" else wave.state
        self._show(wave, f" {stands}{f': {wave.reason}' if wave.reason else ''}")
        return wave.state == "passed"

    async def _update(self, wave: Wave, targets: Sequence[Target]) -> list[UpdateOutcome]:
        within, progress = self.options["update_timeout"], RolloutUpdates(self.ledger, self.rollout)
        recorded = Deliveries(self.ledger).conversations()
        drain = Drain(self.options["when_busy"], self.options["busy_timeout"], recorded)
        update = Update(self.rollout.version, "command", within, any_manual_command=False, drain=drain)
        async with self._phase(wave, "update", targets, max_failures=wave.max_failures) as policy:
            given = (self.settings, targets, policy, update, progress)
            return await update_environments(*given, in_doubt=self.in_doubt, check_mode=False)

    async def _soak(self, wave: Wave, targets: Sequence[Target], updated: dict[str, UpdateOutcome]) -> None:
        """Fail each device that is not steady."""
        goal = Goal("online", self.rollout.version, steady_for=self.options["soak"])
        within = self.options["soak"] + self.options["soak_grace"]
        async with self._phase(wave, "soak", targets, within, longest_pause=self.options["poll_interval"]) as policy:
            waits = await wait_for_environments(self.settings, targets, policy, goal, within, check_mode=False)
        for wait in waits:
            outcome = updated[wait.id]
            outcome.version = wait.version or outcome.version
            if wait.status != "ok":
                _fail(outcome, "after the update", wait)

    async def _probe(self, wave: Wave, targets: Sequence[Target], updated: dict[str, UpdateOutcome]) -> None:
        """Fail each device on which its agent does not reply."""
        within = self.options["probe_timeout"]
        messages = [_make_probe(target, self.options["probe_content"]) for target in targets]
        async with (
            open_clients({target.environment.provider: self.settings for target in targets}) as clients,
            self._phase(wave, "probe", targets, within, when_offline="skip") as policy,
        ):
            conversations = AllConversations(clients, concurrency=policy.concurrency, rate=policy.rate)
            deliveries = await deliver(clients, messages, policy)
            pairs = list(zip(messages, deliveries, strict=True))
            waiting = wait_for_replies(pairs, conversations.search_reply, within, policy.report)
            await policy.stop.run(waiting, grace=0)
        for delivery in deliveries:
            if delivery.reply is None or delivery.reply.state != "replied":
                state = delivery.reply.state if delivery.reply else None
                _fail(updated[delivery.id], "the probe was not answered", delivery, state)

    @asynccontextmanager
    async def _phase(
        self, wave: Wave, what: str, targets: Sequence[Target], within: float = 0.0, **changes: Any
    ) -> AsyncIterator[Policy]:
        """Show that a phase of a wave begins, and while it is open how far it is. Yields the policy of the phase.

        within: seconds after which it ends, 0 if that is not known. changes: to the policy, by which each device has
        its turn, whatever others do.
        """
        began = time.monotonic()
        if targets:
            self._show(wave, f", {what}: {len(targets)} targets{f', at most {within:g} s' if within else ''}")

        def show(line: str) -> None:
            spent = time.monotonic() - began
            stands = f"at most {max(0.0, within - spent):.0f} s left" if within else f"{spent:.0f} s so far"
            self._show(wave, f", {what}, {stands}: {line}")

        async with report_at_pace(show, self.every) as report:
            yield replace(self.policy, **{"max_failures": len(targets), "report": report, **changes})

    def _show(self, wave: Wave, line: str) -> None:
        # After a signal core has ended, and nothing reads the lines of a worker.
        if self.policy.report is not None and not self.policy.stop.requested:
            self.policy.report(f"wave {wave.number} of rollout {self.rollout.name!r}{line}")


def _list_good(targets: Sequence[Target], outcomes: Sequence[UpdateOutcome]) -> list[Target]:
    return [target for target, outcome in zip(targets, outcomes, strict=True) if outcome.status in GOOD]


def _make_probe(target: Target, content: str) -> MessageTarget:
    to = (target.host, target.environment, target.agent_id, target.conversation_id)
    return MessageTarget(*to, messages=[Message.from_user(content)])


def _fail(outcome: UpdateOutcome, what: str, proof: Outcome, state: str | None = None) -> None:
    why = (proof.error["message"] if proof.error else proof.reason) or state or "it was not done"
    outcome.status, outcome.error = "failed", {"code": "unproven", "message": f"{what}: {why}"}
