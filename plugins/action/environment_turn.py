# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action environment_turn: abort an agent's turn on the current host or on all of `targets`, or let the queue go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..module_utils.errors import OptionError
from ..module_utils.fleet.turn import TurnChange, TurnOutcome, set_turn
from ..plugin_utils.actions.everywhere import EverywhereAction
from ..plugin_utils.actions.on_targets import TaskRun


class ActionModule(EverywhereAction):
    def check_options(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> None:
        super().check_options(options, task_vars)
        of_an_abort = ("run_id", "mode", "end_background", "all_conversations")
        given = next((name for name in of_an_abort if options[name]), None)
        if given is not None and options["state"] != "aborted":
            raise OptionError(given, f"needs state=aborted, got state={options['state']}")
        if options["run_id"] and options["all_conversations"]:
            raise OptionError("run_id", "cannot go with all_conversations, as a run is of one conversation")

    async def run_on_targets(self, run: TaskRun) -> Sequence[TurnOutcome]:
        wanted = TurnChange(
            run.options["state"],
            run.options["run_id"],
            run.options["answer_timeout"],
            run.options["mode"],
            run.options["end_background"],
            over_rest=self.known is None,
        )
        return await set_turn(run.provider_run, wanted, self.known)
