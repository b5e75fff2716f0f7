# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action check_variables: refuse variables that a playbook or role does not have, and give the others their types."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleValueOmittedError

from ..module_utils.environment import DROPPED
from ..module_utils.errors import OptionError
from ..module_utils.ledger.url import find_url
from ..plugin_utils import core_internals as core
from ..plugin_utils.actions.base import EnvironmentAction
from ..plugin_utils.hosts import HostVariables, count_dropped_rows, find_facts_named
from ..plugin_utils.options import explain_templates, read_specification
from ..plugin_utils.variables import check_modes, check_names, convert_variable, has_role, read_variables

_MODES = read_specification("wait_for_environment")["mode"]["choices"]


class ActionModule(EnvironmentAction):
    def execute(self, options: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        name, hostvars, host = options["name"], task_vars["hostvars"], core.find_current_host(task_vars)
        known, pattern = read_variables(name), f"{name}_hosts"
        given = core.read_run_variables(hostvars, self._task, name, host)
        if core.is_in_role(self._task):
            others = () if core.is_included_once(self._task) else task_vars["ansible_play_batch"]
            hosts = list(dict.fromkeys([host, *others]))
            pattern_of_play = str((self._task.get_play().get_ds() or {}).get("hosts"))
            if pattern in given and pattern not in pattern_of_play:
                raise OptionError(pattern, "chooses no hosts of this play, which has its own; use --limit")
        else:
            with explain_templates(pattern, "cannot be read"):
                chosen = convert_variable(pattern, known[pattern], self._templar.template(given.get(pattern)))
            hosts = core.find_hosts(hostvars, chosen)
        refused = self._find_facts(name, hosts, hostvars)
        if host in refused and core.is_included_once(self._task):
            # The tasks of the include are for this host alone, so there is no other one to go on with.
            raise refused[host]
        # What is done once takes the variables of the first host that is left.
        host = next((one for one in hosts if one not in refused), host)
        result: dict[str, Any] = {"hosts": hosts, "refused": {one: str(problem) for one, problem in refused.items()}}
        listed = core.find_listed_names(hostvars, host)
        check_names(name, known, given, listed)
        if pattern in listed - given.keys() and not core.is_in_role(self._task):
            raise OptionError(pattern, "is set where Ansible chooses no hosts by it; give it with -e, or use --limit")
        variables = self._read(known, host, task_vars)
        if name == "audit":
            result[DROPPED] = count_dropped_rows(hostvars, "letta", variables.get("audit_hostvars_prefix"))
        # The playbook needs what the output may not have.
        is_secret = find_url(variables.get(f"{name}_ledger")) is not None
        return {"changed": False, "variables": variables, "_ansible_no_log": is_secret, **result}

    def _find_facts(self, name: str, hosts: Iterable[str], hostvars: Mapping[str, Any]) -> dict[str, OptionError]:
        """Host → its fact that core's templates in the playbook or its role would take for a variable."""
        own = (f"{name}_",) if has_role(name) else ()
        way_out = "leave the host out with --limit, or set inject_facts_as_vars = false"
        return {
            host: OptionError(fact, f"{host} has a fact of this name, which a device may set; {way_out}")
            for host, fact in find_facts_named(self._task, hostvars, hosts, (f"__{name}", *own))
        }

    def _read(self, known: Mapping[str, Any], host: str, task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """The variables that are set or have a default, as they are for a host. Raises OptionError."""
        found: dict[str, Any] = {}
        with core.without_facts():
            variables = HostVariables(self._task, task_vars, self._templar, [host]).read_all(host)
            templar = self._templar.copy_with_new_env(available_variables=variables)
            for name, rules in known.items():
                value = None
                with explain_templates(name, "cannot be read"), contextlib.suppress(AnsibleValueOmittedError):
                    value = templar.template(variables.get(name))
                found[name] = convert_variable(name, rules, value)
                if name == "audit_forbidden_modes":
                    check_modes(name, found[name], _MODES)
        return {name: value for name, value in found.items() if value is not None}
