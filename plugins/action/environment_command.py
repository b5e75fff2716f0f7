# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action environment_command: run a device's command on the current host, or on all of `targets`."""

from __future__ import annotations

from collections.abc import Sequence

from ..module_utils.fleet.command import Command, CommandOutcome, run_command
from ..module_utils.providers.conversation import STANDING_CONVERSATION
from ..module_utils.providers.letta.provider import PROVIDER
from ..plugin_utils.actions.on_targets import TargetsAction, TaskRun


class ActionModule(TargetsAction):
    PROVIDERS = (PROVIDER,)
    OPENS = frozenset({STANDING_CONVERSATION})
    SETTLED = frozenset({"changed", "unknown"})

    async def run_on_targets(self, run: TaskRun) -> Sequence[CommandOutcome]:
        command = Command(run.options["command"], run.options["command_timeout"], run.options["args"])
        return await run_command(run.provider_run, command)
