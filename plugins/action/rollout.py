# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action rollout: plan a rollout, or continue one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..module_utils.fleet.fan_out import Target
from ..module_utils.ledger.rollouts import add_rollout, find_rollout, get_rollout, lock_rollout
from ..module_utils.ledger.schema import Rollout
from ..module_utils.ledger.sqlite import Ledger, find_ledger_path, read_ledger
from ..module_utils.providers.letta.provider import PROVIDER
from ..module_utils.rollouts.preflight import find_preflights
from ..module_utils.rollouts.waves import check_same, check_waves, describe_rollout, plan_rollout
from ..module_utils.text import format_now
from ..module_utils.versions import check_version
from ..modules.rollout import SPEC
from ..plugin_utils.actions.base import EnvironmentAction
from ..plugin_utils.actions.run_facts import find_run_facts
from ..plugin_utils.actions.targets import Item, read_targets


class ActionModule(EnvironmentAction):
    SPEC = SPEC
    PROVIDERS = (PROVIDER,)

    def execute(self, options: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        check_version("version", options["version"])
        check_waves(options["waves"])
        self._require_run_once("targets", task_vars, "plan for all of them")
        items = read_targets(options["targets"], (), options["max_targets"], task_vars)
        hosts = {item.environment.id: item.host for item in items}
        path = find_ledger_path(options["ledger"])
        with read_ledger(path) as ledger:
            known = find_rollout(ledger, options["name"])
        if known is not None:
            check_same(known, options["version"], options["waves"], list(hosts))
        plan = known or self._plan(options, items, task_vars)
        if self._task.check_mode:
            return _describe(plan, hosts, changed=known is None)
        facts = find_run_facts(self._task, task_vars)
        lock_rollout(path, options["name"], facts)
        with Ledger.open(path, facts) as ledger:
            # Another run may have planned or continued it while this one waited for the lock.
            is_new = add_rollout(ledger, plan)
            plan = get_rollout(ledger, options["name"])
        check_same(plan, options["version"], options["waves"], list(hosts))
        return _describe(plan, hosts, changed=is_new)

    def _plan(self, options: Mapping[str, Any], items: Sequence[Item], task_vars: Mapping[str, Any]) -> Rollout:
        """A plan for the targets as they are now."""
        settings = self._connections("targets", self._group_by_provider(items), task_vars)[PROVIDER.name]
        targets = [Target(item.host, item.environment) for item in items]
        found = self._wait_for(find_preflights(settings, targets, options["concurrency"], options["version"]))
        return plan_rollout(options["name"], options["version"], options["waves"], found, format_now())


def _describe(rollout: Rollout, hosts: Mapping[str, str], *, changed: bool) -> dict[str, Any]:
    found = Counter("updatable" if target.wave else target.preflight for target in rollout.targets)
    message = (
        f"rollout {rollout.name!r}: {found['updatable']} updatable in {len(rollout.waves)} waves, "
        f"{found['current']} current, {found['not_updatable']} not updatable, {found['offline']} offline"
    )
    return {"changed": changed, "msg": message, **describe_rollout(rollout, hosts)}
