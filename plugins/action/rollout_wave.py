# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action rollout_wave: begin a wave, or judge it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..module_utils.errors import OptionError
from ..module_utils.ledger.rollouts import get_rollout, lock_rollout, record_wave
from ..module_utils.ledger.schema import Rollout, RolloutTarget, Wave
from ..module_utils.ledger.sqlite import Ledger, find_ledger_path, read_ledger
from ..module_utils.rollouts.waves import FAILED, WaveResults, begin_wave, judge_wave
from ..module_utils.text import format_now
from ..modules.rollout_wave import SPEC
from ..plugin_utils.actions.base import EnvironmentAction
from ..plugin_utils.actions.run_facts import find_run_facts

_OF_THE_END = ("updated", "waited", "probed")


class ActionModule(EnvironmentAction):
    SPEC = SPEC

    def execute(self, options: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        path, facts = find_ledger_path(options["ledger"]), find_run_facts(self._task, task_vars)
        rollout = _get_rollout(path, options["name"])
        if not self._task.check_mode:
            lock_rollout(path, rollout.name, facts)
            # Another run may have continued it while this one waited for the lock.
            rollout = _get_rollout(path, rollout.name)
        wave, targets = _move_wave(rollout, options)
        if not self._task.check_mode:
            with Ledger.open(path, facts) as ledger:
                record_wave(ledger, rollout.name, wave, targets)
        return _describe(rollout, wave, targets)


def _get_rollout(path: Path, name: str) -> Rollout:
    with read_ledger(path) as ledger:
        return get_rollout(ledger, name)


def _move_wave(rollout: Rollout, options: Mapping[str, Any]) -> tuple[Wave, list[RolloutTarget]]:
    """The wave and its targets after the step that `state` names. Raises OptionError."""
    now = format_now()
    if options["state"] == "started":
        early = next((name for name in _OF_THE_END if options[name] is not None), None)
        if early is not None:
            raise OptionError(early, "goes with state=ended, when there is something to judge")
        return begin_wave(rollout, options["wave"], options["max_failures"], now), []
    if options["updated"] is None:
        raise OptionError("updated", "is needed with state=ended: what self_update returned in targets")
    given = {name: _index_by_id(name, options[name]) for name in _OF_THE_END if options[name] is not None}
    return judge_wave(rollout, options["wave"], WaveResults(**given), now)


def _index_by_id(option: str, entries: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The results of a module, by environment id. Raises OptionError for an entry that no module returns."""
    for place, entry in enumerate(entries):
        if not all(isinstance(entry.get(key), str) for key in ("id", "status")):
            raise OptionError(f"{option}[{place}]", "has no id and status; give what the module returned in targets")
    return {entry["id"]: entry for entry in entries}


def _describe(rollout: Rollout, wave: Wave, targets: Sequence[RolloutTarget]) -> dict[str, Any]:
    before = rollout.wave(wave.number)
    why = f": {wave.reason}" if wave.reason else ""
    failed = {target.host: target.reason for target in targets if target.status in FAILED}
    stands = "is running" if wave.state == "running" else wave.state
    return {
        "changed": wave.state != before.state,
        "msg": f"wave {wave.number} of rollout {rollout.name!r} {stands}{why}",
        "state": wave.state,
        "passed": wave.state == "passed",
        "max_failures": wave.max_failures,
        "reason": wave.reason,
        "failed_hosts": list(failed),
        "reasons": failed,
    }
