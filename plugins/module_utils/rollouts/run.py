# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The run of a rollout: its waves one after the other. What has happened is in the ledger before the next step begins.

A wave is recorded as running before its first device is told to update. So a run that ends in a wave, however it ends,
leaves it running, and the next run does it again; fleet/update.py tells no device twice.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..fleet.delivery import MessageTarget, deliver, wait_for_replies
from ..fleet.drain import Drain
from ..fleet.fan_out import Outcome, Policy, ProviderRun, Target
from ..fleet.update import Update, UpdateOutcome, update_environments
from ..fleet.wait import Goal, wait_for_environments
from ..http.settings import HttpSettings
from ..ledger.rollouts import RolloutUpdates, record_changes
from ..ledger.schema import Rollout, Wave
from ..ledger.store import Ledger
from ..providers.message import Message
from ..providers.registry import AllConversations, open_clients
from .preflight import find_devices
from .waves import GOOD, begin_wave, judge_wave, list_waves_to_run


@dataclass(frozen=True, slots=True)
class RolloutRun:
    """Runs waves of a rollout that is in the ledger, and that no other run has. Raises OptionError for the ledger.

    targets: the devices that the run may touch, by environment id, each with the agent that must reply on it.
    policy: how devices are updated; its `report` shows a line. every: seconds between two lines that count.
    options: those of the module `rollout`. drain: what happens to a device on which something is under way.
    """

    ledger: Ledger
    rollout: Rollout
    settings: HttpSettings
    targets: dict[str, Target]
    policy: Policy
    every: float
    options: dict[str, Any]
    drain: Drain

    async def run(self) -> None:
        """Run the waves until one does not pass; at a gate only the first. A stop leaves its wave running."""
        waves = list_waves_to_run(self.rollout, self.targets)
        may_update = waves and any(one.told_at is not None for one in self.rollout.targets)
        devices = await find_devices(self.settings) if may_update else {}
        updates = RolloutUpdates(self.ledger, self.rollout, devices)
        for wave, mine in waves[:1] if self.options["gate"] else waves:
            # What may be updating comes before the other environments of its device, which wait for it.
            mine.sort(key=lambda one: one.told_at is None)
            if not await self._run_wave(wave, [self.targets[one.environment_id] for one in mine], updates):
                return

    async def _run_wave(self, wave: Wave, targets: Sequence[Target], updates: RolloutUpdates) -> bool:
        """Whether the wave has passed."""
        budget = self.options["canary_max_failures" if wave.number == 1 else "max_failures"]
        wave = begin_wave(self.rollout, wave, budget, self.ledger.now())
        record_changes(self.ledger, self.rollout, waves=[wave])
        updated = {outcome.id: outcome for outcome in await self._update(wave, targets, updates)}
        for prove in (self._soak, self._probe) if self.options["probe_agent_id"] else (self._soak,):
            if not self.policy.stop.requested:
                good = [target for target in targets if updated[target.environment.id].status in GOOD]
                await prove(wave, good, updated)
        if self.policy.stop.requested:
            return False
        wave, ends = judge_wave(self.rollout, wave, updated, self.ledger.now())
        record_changes(self.ledger, self.rollout, waves=[wave], targets=ends)
        stands = "is running" if wave.state == "running" else wave.state
        self._show(wave, f" {stands}{f': {wave.reason}' if wave.reason else ''}")
        return wave.state == "passed"

    async def _update(self, wave: Wave, targets: Sequence[Target], updates: RolloutUpdates) -> list[UpdateOutcome]:
        within = self.options["update_timeout"]
        update = Update(self.rollout.version, "command", within, any_manual_command=False, drain=self.drain)
        policy = self._begin_phase(wave, "update", targets, max_failures=wave.max_failures)
        return await update_environments(ProviderRun(self.settings, targets, policy), update, updates)

    async def _soak(self, wave: Wave, targets: Sequence[Target], updated: dict[str, UpdateOutcome]) -> None:
        """Fail each device that is not steady."""
        goal = Goal("online", self.rollout.version, steady_for=self.options["soak"])
        within = self.options["soak"] + self.options["soak_grace"]
        policy = self._begin_phase(wave, "soak", targets, within, longest_pause=self.options["poll_interval"])
        waits = await wait_for_environments(ProviderRun(self.settings, targets, policy), goal, within)
        for wait in waits:
            outcome = updated[wait.id]
            outcome.version = wait.version or outcome.version
            if wait.status != "ok":
                _fail(outcome, "after the update", wait)

    async def _probe(self, wave: Wave, targets: Sequence[Target], updated: dict[str, UpdateOutcome]) -> None:
        """Fail each device on which its agent does not reply."""
        within = self.options["probe_timeout"]
        content = self.options["probe_content"]
        messages = [
            MessageTarget(
                one.host, one.environment, one.agent_id, one.conversation_id, messages=[Message.from_user(content)]
            )
            for one in targets
        ]
        policy = self._begin_phase(wave, "probe", targets, within, when_offline="skip")
        async with open_clients({target.environment.provider: self.settings for target in targets}) as clients:
            conversations = AllConversations(clients, concurrency=policy.concurrency, rate=policy.rate)
            deliveries = await deliver(clients, messages, policy)
            pairs = list(zip(messages, deliveries, strict=True))
            waiting = wait_for_replies(pairs, conversations.search_reply, within, policy.report)
            await policy.stop.run(waiting, grace=0)
        for delivery in deliveries:
            if delivery.reply is None or delivery.reply.state != "replied":
                state = delivery.reply.state if delivery.reply else None
                _fail(updated[delivery.id], "the probe was not answered", delivery, state)

    def _begin_phase(
        self, wave: Wave, what: str, targets: Sequence[Target], within: float = 0.0, **changes: Any
    ) -> Policy:
        """Show that a phase of a wave begins; returns its policy, which shows how far it is.

        within: seconds after which it ends, 0 if that is not known. changes: to the policy, by which each device has
        its turn, whatever others do.
        """
        began = shown_at = time.monotonic()
        if targets:
            self._show(wave, f", {what}: {len(targets)} targets{f', at most {within:g} s' if within else ''}")

        def show(line: str) -> None:
            nonlocal shown_at
            now = time.monotonic()
            if now < shown_at + self.every:
                return
            shown_at, spent = now, now - began
            stands = f"at most {max(0.0, within - spent):.0f} s left" if within else f"{spent:.0f} s so far"
            self._show(wave, f", {what}, {stands}: {line}")

        return replace(self.policy, **{"max_failures": len(targets), "report": show, **changes})

    def _show(self, wave: Wave, line: str) -> None:
        self.policy.tell(f"wave {wave.number} of rollout {self.rollout.name!r}{line}")


def _fail(outcome: UpdateOutcome, what: str, proof: Outcome, state: str | None = None) -> None:
    why = (proof.error["message"] if proof.error else proof.reason) or state or "it was not done"
    outcome.status, outcome.error = "failed", {"code": "unproven", "message": f"{what}: {why}"}
