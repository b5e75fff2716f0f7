# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The base of the actions that can be about every conversation of an agent on its devices."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...module_utils.errors import OptionError
from ...module_utils.fleet.device_work import KnownConversations
from ...module_utils.fleet.fan_out import Outcome
from ...module_utils.fleet.result_files import read_results
from ...module_utils.ledger.deliveries import Deliveries
from ...module_utils.ledger.store import open_to_show
from .on_targets import TargetsAction, TaskRun


class EverywhereAction(TargetsAction):
    """With `all_conversations` there is an outcome for each conversation of each target."""

    def check_options(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> None:
        super().check_options(options, task_vars)
        self._known: KnownConversations | None = None
        if options["all_conversations"]:
            if options["targets"] is None:
                raise OptionError("all_conversations", "needs targets")
            self._known = self._read_known(options)
        for name in ("ledger", "earlier_results"):
            if options[name] and self._known is None:
                raise OptionError(name, "needs all_conversations=true")

    def _read_known(self, options: Mapping[str, Any]) -> KnownConversations:
        rows = read_results(options["earlier_results"]) if options["earlier_results"] else []
        problems = []
        try:
            with open_to_show(options["ledger"], check_mode=bool(self._task.check_mode)) as ledger:
                rows += Deliveries(ledger).conversations()
        except OptionError as error:
            # It keeps nobody from being stopped.
            problems.append(str(error))
        return KnownConversations(rows, problems)

    def _make_attempt(self, run: TaskRun) -> list[Outcome]:
        if self._known is None:
            return super()._make_attempt(run)
        return list(asyncio.run(self.run_on_targets(run)))

    async def work_on(self, run: TaskRun) -> Sequence[Outcome]:
        """As `run_on_targets`, of which this is the part of a subclass."""
        raise NotImplementedError

    async def run_on_targets(self, run: TaskRun) -> Sequence[Outcome]:
        if self._known is None:
            return await self.work_on(run)
        concurrency = run.policy.concurrency
        found = await self._stop.run(self._known.find_places(run.settings, run.targets, concurrency), grace=0)
        # Without what was cut off nothing begins.
        places = run.targets if found is None else found
        self._places = len(places)
        outcomes = await self.work_on(self._count_in_places(run, targets=places))
        self._strays = await self._stop.run(self._known.find_strays(run.settings, places, concurrency), grace=0) or {}
        return outcomes

    def _count_in_places(self, run: TaskRun, **changes: Any) -> TaskRun:
        # Outcomes are of conversations: what is allowed to fail of the targets is so of as large a share of them.
        allowed = run.policy.max_failures * self._places // max(1, len(run.targets))
        return replace(run, policy=replace(run.policy, max_failures=allowed), **changes)

    def make_result(self, run: TaskRun, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """The result; with `all_conversations` also which work was found elsewhere, and what could not be looked at."""
        result = super().make_result(run if self._known is None else self._count_in_places(run), outcomes)
        more = {"strays": self._strays, "problems": list(self._known.problems)} if self._known is not None else {}
        return result | more
