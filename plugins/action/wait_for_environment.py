# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action wait_for_environment: wait for the current host, or for all of `targets`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..module_utils.errors import OptionError
from ..module_utils.fleet.fan_out import Target
from ..module_utils.fleet.wait import STATUSES, Goal, WaitOutcome, wait_for_environments
from ..module_utils.providers.letta.provider import PROVIDER
from ..module_utils.versions import check_version
from ..plugin_utils.actions.on_targets import TargetsAction, TaskRun
from ..plugin_utils.actions.targets import Item


class ActionModule(TargetsAction):
    PROVIDERS = (PROVIDER,)
    STATUSES = STATUSES
    CHANGED = frozenset()
    ITEM_KEYS = ()

    def check_options(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> None:
        super().check_options(options, task_vars)
        check_version("version", options["version"])
        within, steady_for = options["wait_timeout"], options["steady_for"]
        if steady_for > within:
            raise OptionError("steady_for", f"must be at most the wait_timeout of {within}, got {steady_for}")

    def make_target(self, item: Item, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> Target:
        """One host; no agent is asked anything."""
        return Target(item.host, item.environment)

    async def run_on_targets(self, run: TaskRun) -> Sequence[WaitOutcome]:
        options = run.options
        policy = replace(run.policy, longest_pause=options["poll_interval"], report=self.find_display())
        goal = Goal(options["state"], options["version"], options["mode"], options["steady_for"])
        return await wait_for_environments(replace(run, policy=policy).provider_run, goal, options["wait_timeout"])
