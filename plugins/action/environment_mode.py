# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action environment_mode: set the mode of an agent's conversation on the current host or on all of `targets`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..module_utils.fleet.fan_out import Outcome
from ..module_utils.fleet.mode import ModeOutcome, set_mode
from ..module_utils.providers.conversation import STANDING_CONVERSATION
from ..module_utils.providers.letta.provider import PROVIDER
from ..plugin_utils.actions.on_targets import TargetsAction, TaskRun


class ActionModule(TargetsAction):
    PROVIDERS = (PROVIDER,)
    OPENS = frozenset({STANDING_CONVERSATION})
    NEEDS_AGENT = True

    async def run_on_targets(self, run: TaskRun) -> Sequence[ModeOutcome]:
        return await set_mode(run.provider_run, run.options["mode"], run.options["answer_timeout"])

    def summarize_more(self, outcomes: Sequence[ModeOutcome]) -> str:
        began = sum(bool(outcome.work_started) for outcome in outcomes)
        did = "would begin" if self._task.check_mode else "began"
        return f"; {began} of them {did} work that waited" if began else ""

    def make_result(self, run: TaskRun, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        diff = [
            {
                "before_header": outcome.host,
                "after_header": outcome.host,
                "before": {"mode": outcome.previous_mode},
                "after": {"mode": outcome.mode},
            }
            for outcome in outcomes
            if isinstance(outcome, ModeOutcome) and outcome.status == "changed"
        ]
        return {**super().make_result(run, outcomes), **({"diff": diff} if self._task.diff and diff else {})}
