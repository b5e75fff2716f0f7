# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action campaign_info: show the deliveries of a campaign."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ..module_utils.ledger.deliveries import Deliveries
from ..module_utils.ledger.sqlite import open_to_show
from ..module_utils.providers.conversation import STATES
from ..modules.campaign_info import SPEC
from ..plugin_utils.actions.base import EnvironmentAction

_STATUSES = ("sent", "unknown", "failed", "offline", "in_flight", "interrupted")


class ActionModule(EnvironmentAction):
    SPEC = SPEC

    def execute(self, options: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        with open_to_show(options["ledger"], check_mode=bool(self._task.check_mode)) as ledger:
            deliveries = Deliveries(ledger)
            records = deliveries.records(options["campaign"])
            state = deliveries.state(options["campaign"])
        found = Counter(record["status"] for record in records)
        replies = Counter(record["reply_state"] for record in records)
        ended = ", ".join(f"{found[status]} {status}" for status in _STATUSES if found[status])
        result = {
            "changed": False,
            "state": state,
            "msg": f"campaign {options['campaign']!r}: {len(records)} deliveries: {ended or 'nobody was reached'}",
            "counts": {status: found[status] for status in _STATUSES},
            "replies": {state: replies[state] for state in STATES},
        }
        return result | ({"deliveries": records} if options["include_deliveries"] else {})
