# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action environment_outcome: end the current host with its outcome in a variable that has those of all hosts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..module_utils.errors import OptionError
from ..module_utils.text import one_line
from ..plugin_utils.actions.base import EnvironmentAction


class ActionModule(EnvironmentAction):
    def execute(self, options: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        name, host = options["outcomes"], task_vars["inventory_hostname"]
        # The raw variable: templating it would go through all outcomes for each host.
        variable, _dot, key = name.partition(".")
        outcomes = task_vars.get(variable)
        if key and isinstance(outcomes, Mapping):
            outcomes = outcomes.get(key)
        if not isinstance(outcomes, Mapping):
            problem = f"must name a variable that has been set to a dictionary, and {one_line(repr(name), 80)} is none"
            raise OptionError("outcomes", problem)
        if host not in outcomes:
            return {"changed": False, "skipped": True, "msg": f"{host} is not in {name}"}
        why = outcomes[host]
        return {"changed": False, "failed": True, "msg": str(why)} if why else {"changed": False}
