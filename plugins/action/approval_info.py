# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action approval_info: list what waits for approval on the current host or on all of `targets`."""

from __future__ import annotations

from collections.abc import Sequence

from ..module_utils.fleet.approvals import PendingOutcome, list_pending
from ..plugin_utils.actions.everywhere import EverywhereAction
from ..plugin_utils.actions.on_targets import TaskRun


class ActionModule(EverywhereAction):
    STATUSES = ("ok", "offline", "skipped", "not_attempted", "failed", "unknown")
    CHANGED = frozenset()

    async def run_on_targets(self, run: TaskRun) -> Sequence[PendingOutcome]:
        return await list_pending(run.provider_run, run.options["tool_names"], self.known)

    def summarize_more(self, outcomes: Sequence[PendingOutcome]) -> str:
        waiting = sum(len(outcome.pending_approvals) for outcome in outcomes)
        return f"; {waiting} tool calls wait" if waiting else ""
