# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action rollout: plan a rollout, or take it up again, and run its waves."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from ansible.inventory.manager import split_host_pattern

from ..module_utils.errors import OptionError
from ..module_utils.fleet.drain import Drain
from ..module_utils.fleet.fan_out import Policy, ProviderRun, Target
from ..module_utils.http.settings import HttpSettings
from ..module_utils.ledger.deliveries import Deliveries
from ..module_utils.ledger.rollouts import add_rollout, find_rollout, record_changes
from ..module_utils.ledger.schema import Rollout
from ..module_utils.ledger.store import find_location, read_ledger
from ..module_utils.options import parse_share
from ..module_utils.providers.conversation import MADE_CONVERSATIONS, NEW_CONVERSATION
from ..module_utils.providers.letta.provider import PROVIDER
from ..module_utils.rollouts.preflight import find_preflights
from ..module_utils.rollouts.run import RolloutRun
from ..module_utils.rollouts.waves import (
    EXCLUDED,
    check_same,
    check_waves,
    describe_rollout,
    exclude_targets,
    plan_rollout,
)
from ..module_utils.text import format_now, one_line
from ..module_utils.versions import check_version
from ..plugin_utils.actions.base import ON_A_TERMINAL, EnvironmentAction
from ..plugin_utils.actions.run_facts import open_ledger_for
from ..plugin_utils.actions.signals import stop_on_signals
from ..plugin_utils.actions.targets import Item, read_targets
from ..plugin_utils.core_internals import find_hosts
from ..plugin_utils.hosts import HostVariables, find_environments

# Seconds between two lines that count, at a terminal and in a log.
_EVERY = 1.0 if ON_A_TERMINAL else 30.0


class ActionModule(EnvironmentAction):
    PROVIDERS = (PROVIDER,)
    OPENS = MADE_CONVERSATIONS

    def execute(self, options: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        _check_options(options)
        self._require_run_once("targets", task_vars, "plan for all of them")
        items = read_targets(options["targets"], (), options["max_targets"], task_vars)
        location, name = find_location(options["ledger"]), options["name"]
        with read_ledger(location) as ledger:
            known, recorded, now = find_rollout(ledger, name), Deliveries(ledger).conversations(), ledger.now()
        drain = Drain(options["when_busy"], options["busy_timeout"], recorded)
        excluded = self._find_excluded(options["exclude"], known, task_vars["hostvars"])
        mine = [item for item in items if item.environment.id not in excluded]
        hosts = {item.environment.id: item.host for item in mine}
        self._host_variables = HostVariables(self._task, task_vars, self._templar, list(hosts.values()))
        targets = {item.environment.id: self._make_target(item, options) for item in mine}
        wanted = (options["version"], options["waves"], [item.environment.id for item in items])
        if known is not None:
            check_same(known, *wanted)
        plan = known or self._plan(options, self._connect(mine), list(targets.values()), drain)
        left_out = (excluded, f"left out with exclude={one_line(options['exclude'], 80)}", now)
        if self._task.check_mode:
            return _describe(exclude_targets(plan, *left_out), hosts, before=known)
        with open_ledger_for(location, self._task, task_vars) as ledger, ledger.hold_rollout(name):
            # Another run may have planned or continued it while this one waited for the lock.
            is_new = add_rollout(ledger, plan)
            before = find_rollout(ledger, name) or plan
            check_same(before, *wanted)
            plan = exclude_targets(before, *left_out)
            record_changes(ledger, plan, targets=[one for one in plan.targets if one.status == EXCLUDED])
            if options["state"] == "run":
                settings, policy = self._connect(mine), self._make_policy(options)
                with stop_on_signals(self._stop):
                    asyncio.run(RolloutRun(ledger, plan, settings, targets, policy, _EVERY, options, drain).run())
            return _describe(find_rollout(ledger, name) or plan, hosts, before=None if is_new else before)

    def _connect(self, items: Sequence[Item]) -> HttpSettings:
        return self._connections("targets", self._group_by_provider(items))[PROVIDER.name]

    def _plan(
        self, options: Mapping[str, Any], settings: HttpSettings, targets: Sequence[Target], drain: Drain
    ) -> Rollout:
        """A plan for the targets as they are now. drain: finds what is under way on them."""
        run = ProviderRun(settings, targets, Policy(options["concurrency"], rate=None, max_failures=0))
        found = self._wait_for(find_preflights(run, options["version"], options["containers"], drain=drain))
        return plan_rollout(options["name"], options["version"], options["waves"], found, format_now())

    def _make_target(self, item: Item, options: Mapping[str, Any]) -> Target:
        """A device, with its agent, or the one that must reply on it, and the conversation. Raises OptionError."""
        given: dict[str, Any] = {PROVIDER.agent: options["probe_agent_id"], PROVIDER.conversation: NEW_CONVERSATION}
        agent, conversation = (self._find_address(PROVIDER, name, item.host, {}, given) for name in given)
        return Target(item.host, item.environment, agent, conversation)

    def _make_policy(self, options: Mapping[str, Any]) -> Policy:
        return Policy(
            concurrency=options["concurrency"],
            rate=None,
            max_failures=0,
            # An interrupted run may have told a device to restart.
            when_offline="wait",
            offline_timeout=options["offline_timeout"],
            report=None if self._task.no_log else self._display_line,
            stop=self._stop,
        )

    def _find_excluded(self, pattern: str | None, rollout: Rollout | None, hostvars: Mapping[str, Any]) -> set[str]:
        """The ids of the environments that a pattern names, in the inventory or in the rollout.

        Raises OptionError if a part of it names none, since a misspelt device would be told to update.
        """
        if pattern is None:
            return set()

        def find_listed(part: str) -> set[str]:
            hosts = find_hosts(hostvars, part, limited=False)
            return {environment.id for _host, environment in find_environments(hosts, hostvars)}

        found = find_listed(pattern)
        # A device that is in the inventory no more can be left out, too.
        gone = [target for target in rollout.targets if target.host not in hostvars] if rollout is not None else []
        for part in split_host_pattern(pattern):
            named = {target.environment_id for target in gone if fnmatchcase(target.host, part)}
            if not named and not part.startswith(("!", "&")) and not find_listed(part):
                raise OptionError("exclude", f"{one_line(repr(part), 80)} matches no environment")
            found |= named
        return found


def _check_options(options: Mapping[str, Any]) -> None:
    check_version("version", options["version"])
    check_waves(options["waves"])
    for name in ("canary_max_failures", "max_failures"):
        parse_share(name, options[name], 100)


def _describe(rollout: Rollout, hosts: Mapping[str, str], *, before: Rollout | None) -> dict[str, Any]:
    found = Counter("updatable" if target.wave else target.preflight for target in rollout.targets)
    message = (
        f"rollout {rollout.name!r}: {found['updatable']} updatable in {len(rollout.waves)} waves, "
        f"{found['current']} current, {found['not_updatable']} not updatable, {found['offline']} offline"
    )
    return {"changed": rollout != before, "msg": message, **describe_rollout(rollout, hosts)}
