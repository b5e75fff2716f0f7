# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rollouts in the ledger: the plan, and what has happened to each wave and target since."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, fields
from typing import Any

from ..environment import EnvironmentReference
from ..errors import ApiError, OptionError
from .schema import Rollout, RolloutTarget, Wave
from .store import Ledger

_OF_A_TARGET = [field.name for field in fields(RolloutTarget)]
_OF_A_WAVE = [field.name for field in fields(Wave)]
# The names are ours alone.
_ADD_TARGET = (
    f"INSERT INTO rollout_targets (rollout, place, {', '.join(_OF_A_TARGET)}) "  # noqa: S608
    f"VALUES (?, ?, {', '.join('?' * len(_OF_A_TARGET))})"
)
_SET_WAVE = (
    f"INSERT INTO rollout_waves (rollout, {', '.join(_OF_A_WAVE)}) "  # noqa: S608
    f"VALUES (?, {', '.join('?' * len(_OF_A_WAVE))}) "
    f"ON CONFLICT (rollout, number) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _OF_A_WAVE)}"
)
_SET_TOLD = "UPDATE rollout_targets SET told_at = ?, to_version = ? WHERE rollout = ? AND environment_id = ?"
_SET_UPDATED = (
    "UPDATE rollout_targets SET told_at = NULL, to_version = ?, updated_at = ? WHERE rollout = ? AND environment_id = ?"
)
_SET_END = (
    "UPDATE rollout_targets SET status = ?, to_version = ?, updated_at = ?, ended_at = ?, reason = ? "
    "WHERE rollout = ? AND environment_id = ?"
)


def list_rollout_names(ledger: Ledger) -> list[str]:
    """The names of all rollouts, in the order in which they were planned."""
    return [row["name"] for row in ledger.query("SELECT name FROM rollouts ORDER BY planned_at, name")]


def find_rollout(ledger: Ledger, name: str) -> Rollout | None:
    """A rollout as it stands, None if there is none of that name."""
    found = ledger.query("SELECT name, version, waves_wanted, planned_at FROM rollouts WHERE name = ?", (name,))
    if not found:
        return None
    waves = f"SELECT {', '.join(_OF_A_WAVE)} FROM rollout_waves WHERE rollout = ? ORDER BY number"  # noqa: S608
    targets = f"SELECT {', '.join(_OF_A_TARGET)} FROM rollout_targets WHERE rollout = ? ORDER BY place"  # noqa: S608
    return Rollout(
        **{**found[0], "waves_wanted": json.loads(found[0]["waves_wanted"])},
        waves=[Wave(**row) for row in ledger.query(waves, (name,))],
        targets=[RolloutTarget(**row) for row in ledger.query(targets, (name,))],
    )


def add_rollout(ledger: Ledger, rollout: Rollout) -> bool:
    """Record a new rollout; False if another run has recorded one of that name meanwhile."""
    row = (rollout.name, rollout.version, json.dumps(list(rollout.waves_wanted)), rollout.planned_at, ledger.run)
    insert = "INSERT INTO rollouts (name, version, waves_wanted, planned_at, run) VALUES (?, ?, ?, ?, ?)"
    with ledger.transaction(durable=True):
        if not ledger.change(f"{insert} ON CONFLICT DO NOTHING", row):
            return False
        ledger.change_each(_SET_WAVE, [(rollout.name, *astuple(wave)) for wave in rollout.waves])
        ledger.change_each(
            _ADD_TARGET, [(rollout.name, place, *astuple(target)) for place, target in enumerate(rollout.targets)]
        )
    return True


def record_changes(
    ledger: Ledger, rollout: Rollout, *, waves: Sequence[Wave] = (), targets: Sequence[RolloutTarget] = ()
) -> None:
    """Record the state of waves, and the ends of targets."""
    ends = [
        (end.status, end.to_version, end.updated_at, end.ended_at, end.reason, rollout.name, end.environment_id)
        for end in targets
    ]
    of_waves = [(_SET_WAVE, (rollout.name, *astuple(wave))) for wave in waves]
    ledger.change_together([*of_waves, *((_SET_END, end) for end in ends)])


class RolloutUpdates:
    """Records which devices of a rollout were told to update, and which are back, before and after each update.

    A later run of the rollout does not tell a device that may be updating again, and knows the devices that are done.
    The calls are described where they are made, in fleet/update.py.

    devices: environment → its device, or itself if it has none.
    """

    def __init__(self, ledger: Ledger, rollout: Rollout, devices: Mapping[str, str]) -> None:
        self._ledger, self._name, self._devices = ledger, rollout.name, devices
        # When each was told that is not known to have ended, and whether it has installed the update.
        self._told = {
            target.environment_id: (target.told_at, target.status is None and target.to_version is not None)
            for target in rollout.targets
            if target.told_at is not None
        }

    def find_told(self, environment: EnvironmentReference) -> tuple[str, bool] | None:
        if environment.id in self._told:
            return self._told[environment.id]
        device, told = environment.device_id, self._told.items()
        of_it = [one for other, one in told if not one[1] and self._devices.get(other, other) == device]
        return max(of_it, default=None)

    def tell(self, environment_id: str, installed: str | None = None) -> None:
        self._change(_SET_TOLD, self._ledger.now(), installed, self._name, environment_id)

    def forget(self, environment_id: str) -> None:
        self._told.pop(environment_id, None)
        self._change(_SET_TOLD, None, None, self._name, environment_id)

    def done(self, environment_id: str, version: str | None, updated_at: str | None) -> None:
        self._told.pop(environment_id, None)
        self._change(_SET_UPDATED, version, updated_at, self._name, environment_id)

    def _change(self, statement: str, *values: str | None) -> None:
        try:
            self._ledger.change_together([(statement, values)])
        except OptionError as error:
            raise ApiError(str(error), code="ledger") from None


def export_rollout(ledger: Ledger, name: str) -> dict[str, Any] | None:
    """A rollout as plain data for a report, with its `state` and the `size` of each wave; None for an unknown name."""
    rollout = find_rollout(ledger, name)
    if rollout is None:
        return None
    waves = [{**asdict(wave), "size": len(rollout.targets_of(wave.number))} for wave in rollout.waves]
    return {**asdict(rollout), "state": rollout.state, "waves": waves}
