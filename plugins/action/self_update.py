# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action self_update: update the current host, or all of `targets`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..module_utils.environment import is_updatable
from ..module_utils.fleet.drain import Drain
from ..module_utils.fleet.fan_out import Target
from ..module_utils.fleet.update import NOT_UPDATED, Update, UpdateOutcome, update_environments
from ..module_utils.ledger.deliveries import Deliveries
from ..module_utils.ledger.store import open_to_show
from ..module_utils.providers.conversation import MADE_CONVERSATIONS
from ..module_utils.providers.letta.provider import PROVIDER
from ..module_utils.versions import check_version
from ..plugin_utils.actions.on_targets import TargetsAction, TaskRun
from ..plugin_utils.actions.targets import read_current_host
from ..plugin_utils.core_internals import hold_between_hosts


class ActionModule(TargetsAction):
    PROVIDERS = (PROVIDER,)
    SETTLED = frozenset({"changed", "ok", "unknown"})
    OPENS = MADE_CONVERSATIONS

    def check_options(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> None:
        super().check_options(options, task_vars)
        check_version("target_version", options["target_version"])

    def is_settled(self, target: Target, outcome: UpdateOutcome) -> bool:
        """Also a device that was told to update, and is not back on the version wanted."""
        return super().is_settled(target, outcome) or (outcome.error or {}).get("code") == NOT_UPDATED

    def execute(self, options: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """As for every action on targets. Hosts with a task each take turns if they are one device."""
        if options["targets"] is not None:
            return super().execute(options, task_vars)
        self.check_options(options, task_vars)
        [item] = read_current_host(task_vars)
        with hold_between_hosts(item.environment.device_id or item.environment.id):
            return super().execute(options, task_vars)

    async def run_on_targets(self, run: TaskRun) -> Sequence[UpdateOutcome]:
        with open_to_show(run.options["ledger"], check_mode=run.check_mode) as ledger:
            recorded = Deliveries(ledger).conversations()
        method = run.options["method"]
        self._warn_of_crowd(run, [one for one in run.targets if _may_get_message(one, method)])
        update = Update(
            target_version=run.options["target_version"],
            method=method,
            within=run.options["update_timeout"],
            any_manual_command=run.options["allow_any_manual_command"],
            drain=Drain(run.options["when_busy"], run.options["busy_timeout"], recorded),
        )
        return await update_environments(run.provider_run, update)


def _may_get_message(target: Target, method: str) -> bool:
    return method == "message" or (method == "auto" and not is_updatable(target.environment.self_update))
