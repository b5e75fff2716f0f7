# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The base of the actions that can be about every conversation of an agent on its devices."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from ...module_utils.errors import OptionError
from ...module_utils.fleet.device_work import KnownConversations
from ...module_utils.fleet.result_files import read_results
from ...module_utils.ledger.deliveries import Deliveries
from ...module_utils.ledger.store import open_to_show
from ...module_utils.providers.letta.provider import PROVIDER
from .on_targets import TargetsAction, TaskRun


class EverywhereAction(TargetsAction):
    """With `all_conversations` there is an outcome for each conversation of each target."""

    PROVIDERS = (PROVIDER,)
    NEEDS_AGENT = True

    def check_options(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> None:
        super().check_options(options, task_vars)
        self.known: KnownConversations | None = None
        if options["all_conversations"]:
            if options["targets"] is None:
                raise OptionError("all_conversations", "needs targets")
            self.known = self._read_known(options)
        for name in ("ledger", "earlier_results"):
            if options[name] and self.known is None:
                raise OptionError(name, "needs all_conversations=true")

    def _read_known(self, options: Mapping[str, Any]) -> KnownConversations:
        rows = read_results(options["earlier_results"]) if options["earlier_results"] else []
        problems = []
        try:
            with open_to_show(options["ledger"], check_mode=bool(self._task.check_mode)) as ledger:
                rows += Deliveries(ledger).conversations()
        except OptionError as error:
            # It keeps nobody from being stopped.
            problems.append(str(error))
        return KnownConversations(rows, problems)

    def make_result(self, run: TaskRun, outcomes: Sequence[Any]) -> dict[str, Any]:
        """The result; with `all_conversations` also which work was found elsewhere, and what could not be looked at."""
        result = super().make_result(run, outcomes)
        if self.known is None:
            return result
        search = self.known.find_strays(run.provider_run, outcomes)
        strays = asyncio.run(self._stop.run(search, grace=0))
        return {**result, "strays": strays or {}, "problems": self.known.problems}
