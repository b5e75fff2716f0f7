# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action campaign_info: show the deliveries of a campaign."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..module_utils.fleet.fan_out import count_each
from ..module_utils.ledger.deliveries import Deliveries
from ..module_utils.ledger.store import open_to_show
from ..module_utils.providers.conversation import STATES
from ..plugin_utils.actions.base import EnvironmentAction

_STATUSES = ("sent", "unknown", "failed", "offline", "in_flight", "interrupted")


class ActionModule(EnvironmentAction):
    def execute(self, options: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        with open_to_show(options["ledger"], check_mode=bool(self._task.check_mode)) as ledger:
            deliveries = Deliveries(ledger)
            records = deliveries.records(options["campaign"])
            state = deliveries.state(options["campaign"])
        found = count_each((record["status"] for record in records), _STATUSES)
        ended = ", ".join(f"{count} {status}" for status, count in found.items() if count)
        result: dict[str, Any] = {
            "changed": False,
            "state": state,
            "msg": f"campaign {options['campaign']!r}: {len(records)} deliveries: {ended or 'nobody was reached'}",
            "counts": found,
            "replies": count_each((record["reply_state"] for record in records), STATES),
        }
        return result | ({"deliveries": records} if options["include_deliveries"] else {})
