# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action campaign_control: pause, cancel or continue a campaign."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..module_utils.ledger.deliveries import Deliveries
from ..module_utils.ledger.store import find_location, read_ledger
from ..plugin_utils.actions.base import EnvironmentAction
from ..plugin_utils.actions.run_facts import open_ledger_for


class ActionModule(EnvironmentAction):
    def execute(self, options: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        campaign, wanted = options["campaign"], options["state"]
        location = find_location(options["ledger"])
        with read_ledger(location) as reading:
            before = Deliveries(reading).state(campaign)
        if before != wanted and not self._task.check_mode:
            with open_ledger_for(location, self._task, task_vars) as ledger:
                Deliveries(ledger).set_state(campaign, wanted)
        return {"changed": before != wanted, "previous_state": before}
