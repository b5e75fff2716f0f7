# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rollouts: which device is updated in which wave, when a wave has passed, and which wave is next.

A rollout is planned once. Its version, its devices and their waves then stay the same. All of this is plain data; the
ledger stores it (ledger/rollouts.py), and preflight.py finds out which devices can be updated.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from ..errors import OptionError
from ..fleet.update import UpdateOutcome
from ..ledger.schema import UPDATABLE, Rollout, RolloutTarget, Wave
from ..options import parse_share
from ..versions import show_version

# A target's good ends, and those that count against the failure budget.
GOOD = ("changed", "ok")
FAILED = ("failed", "unknown", "offline", "skipped")
# The end of a target that the user leaves out of a rollout. Its wave is judged without it.
EXCLUDED = "excluded"


def check_waves(waves: Sequence[str]) -> None:
    """Raise OptionError for waves that do not grow to 100%."""
    for wave in waves:
        if parse_share("waves", wave, 100) < 1:
            raise OptionError("waves", f"must each be 1 or more, got {wave!r}")
    if not waves or waves[-1].strip() != "100%":
        raise OptionError("waves", "must end with '100%', so that each target is in one of them")
    for before, wave in itertools.pairwise(waves):
        alike = before.endswith("%") == wave.endswith("%")
        if alike and parse_share("waves", wave, 100) <= parse_share("waves", before, 100):
            raise OptionError("waves", f"count all targets so far, so each must be more than before, got {list(waves)}")


def size_waves(waves: Sequence[str], targets: int) -> list[int]:
    """The number of targets in each wave. Raises OptionError.

    waves: the number of targets that are updated by the end of each, as counts or percentages, such as `1`, `5%`,
        `25%`, `100%`. A wave has at least one target; waves that would have none are left out.
    """
    check_waves(waves)
    sizes: list[int] = []
    done = 0
    for wave in waves:
        if done == targets:
            break
        until = min(targets, max(done + 1, parse_share("waves", wave, targets)))
        sizes.append(until - done)
        done = until
    return sizes


def plan_rollout(
    name: str, version: str, waves: Sequence[str], targets: Sequence[RolloutTarget], planned_at: str
) -> Rollout:
    """A new rollout, with its updatable targets in waves, in the order given. Raises OptionError.

    Those at risk come last, in a wave of their own. If all are at risk, they have the usual waves, which protect them.
    """
    found = Counter(target.preflight for target in targets)
    sizes = size_waves(waves, found["updatable"] or found["at_risk"])
    if found["updatable"] and found["at_risk"]:
        sizes.append(found["at_risk"])
    numbers = iter([number for number, size in enumerate(sizes, start=1) for _place in range(size)])
    ordered = sorted(targets, key=lambda target: target.preflight == "at_risk")
    return Rollout(
        name=name,
        version=version,
        waves_wanted=list(waves),
        planned_at=planned_at,
        waves=[Wave(number=number) for number, _size in enumerate(sizes, start=1)],
        targets=[
            replace(target, wave=next(numbers)) if target.preflight in UPDATABLE else target for target in ordered
        ],
    )


def check_same(rollout: Rollout, version: str, waves: Sequence[str], environment_ids: Sequence[str]) -> None:
    """Raise OptionError if a rollout was planned otherwise than a run wants it."""
    known = f"rollout {rollout.name!r} was planned at {rollout.planned_at}"
    if version != rollout.version:
        raise OptionError("version", f"{known} for {rollout.version}, got {version}; give another name")
    if list(waves) != list(rollout.waves_wanted):
        raise OptionError(
            "waves", f"{known} with {list(rollout.waves_wanted)}, got {list(waves)}; leave them, or give another name"
        )
    if environment_ids and not {target.environment_id for target in rollout.targets} & set(environment_ids):
        raise OptionError("targets", f"{known} for others, and none of these is in it; give another name")


def exclude_targets(rollout: Rollout, environment_ids: Collection[str], reason: str, now: str) -> Rollout:
    """A rollout without these environments: those in its waves that are not updated are left out from now on."""

    def exclude(target: RolloutTarget) -> RolloutTarget:
        settled = target.wave is None or target.status in (*GOOD, EXCLUDED)
        if settled or target.environment_id not in environment_ids:
            return target
        return replace(target, status=EXCLUDED, reason=reason, ended_at=now)

    return replace(rollout, targets=[exclude(target) for target in rollout.targets])


def list_judged(rollout: Rollout, wave: Wave) -> list[RolloutTarget]:
    """The targets by which a wave is judged."""
    return [target for target in rollout.targets_of(wave.number) if target.status != EXCLUDED]


def begin_wave(rollout: Rollout, wave: Wave, max_failures: str, now: str) -> Wave:
    """A wave as it begins, again or for the first time. Raises OptionError for a `max_failures` that is no share."""
    allowed = parse_share("max_failures", max_failures, len(list_judged(rollout, wave)))
    started_at = wave.started_at or now
    return replace(wave, state="running", started_at=started_at, ended_at=None, max_failures=allowed, reason=None)


def judge_wave(
    rollout: Rollout, wave: Wave, outcomes: Mapping[str, UpdateOutcome], now: str
) -> tuple[Wave, list[RolloutTarget]]:
    """A wave that was begun, and its targets, after its updates and their proofs. outcomes: by environment id.

    The wave has failed if more targets than allowed have failed, in this run or before. Else it has passed if all
    targets have ended, and stays `running` if a run left some out.
    """
    after = [_end(target, outcomes.get(target.environment_id), now) for target in list_judged(rollout, wave)]
    failures = sum(target.status in FAILED for target in after)
    open_ones = sum(target.status not in (*GOOD, *FAILED) for target in after)
    allowed = wave.max_failures or 0
    if failures > allowed:
        state, reason = "failed", f"{failures} of its {len(after)} targets failed, {allowed} may"
    elif open_ones:
        state, reason = "running", f"{open_ones} of its {len(after)} targets were left out"
    else:
        state, reason = "passed", None
    return replace(wave, state=state, ended_at=None if state == "running" else now, reason=reason), after


def _end(target: RolloutTarget, outcome: UpdateOutcome | None, now: str) -> RolloutTarget:
    """A target with its end. One that this run left alone keeps the end that it had."""
    if outcome is None or (outcome.status == "not_attempted" and target.status is not None):
        return target
    status, reason = outcome.status, outcome.error["message"] if outcome.error else outcome.reason
    to_version, updated_at = outcome.version or target.to_version, outcome.updated_at or target.updated_at
    if status == "ok" and target.updated_at is not None:
        # An earlier run of this rollout has updated it.
        status, reason = "changed", f"updated from {show_version(target.from_version)} to {to_version}"
    return replace(target, status=status, reason=reason, to_version=to_version, updated_at=updated_at, ended_at=now)


def describe_rollout(rollout: Rollout, hosts: Mapping[str, str]) -> dict[str, Any]:
    """The state of a rollout for a run that may touch these hosts alone; what the module `rollout` returns.

    hosts: environment id → host name, in the order given.
    """

    def name_of(target: RolloutTarget) -> str:
        return hosts.get(target.environment_id, target.host)

    def entries(field: str, values: Sequence[str], *more: str) -> list[dict[str, Any]]:
        found = (target for target in rollout.targets if getattr(target, field) in values)
        return [{"host": name_of(target), **{name: getattr(target, name) for name in more}} for target in found]

    frozen = {target.environment_id for target in rollout.targets}
    left = [target for target in rollout.targets if target.status not in (*GOOD, EXCLUDED)]
    return {
        "name": rollout.name,
        "version": rollout.version,
        "planned_at": rollout.planned_at,
        "state": rollout.state,
        "waves": [
            {**asdict(wave), "hosts": [name_of(target) for target in rollout.targets_of(wave.number)]}
            for wave in rollout.waves
        ],
        "to_run": [
            {"number": wave.number, "hosts": [name_of(target) for target in targets]}
            for wave, targets in list_waves_to_run(rollout, hosts)
        ],
        "at_risk": [name_of(target) for target in left if target.preflight == "at_risk"],
        "busy": [
            {"host": entry["host"], "reason": entry["reason"]}
            for entry in entries("preflight", UPDATABLE, "status", "reason")
            if entry["status"] is None and entry["reason"] is not None
        ],
        "current": [entry["host"] for entry in entries("preflight", ["current"])],
        "offline": entries("preflight", ["offline"], "reason"),
        "not_updatable": entries("preflight", ["not_updatable"], "reason", "manual_command", "install_path"),
        "failed_targets": entries("status", FAILED, "wave", "status", "reason"),
        "left_out": [name_of(target) for target in left if target.wave and target.environment_id not in hosts],
        "excluded": [entry["host"] for entry in entries("status", [EXCLUDED])],
        "not_in_rollout": [host for id_, host in hosts.items() if id_ not in frozen],
        "next_wave": rollout.next_wave,
        "done": rollout.next_wave is None,
    }


def list_waves_to_run(rollout: Rollout, among: Collection[str]) -> list[tuple[Wave, list[RolloutTarget]]]:
    """The waves that have not passed, each with its targets that a run may touch; after the last wave, the failed ones.

    A wave without such a target is listed once all of its targets have ended, to be judged anew. Before that no later
    wave may begin.
    among: ids of the environments that the run may touch.
    """
    waves: list[tuple[Wave, list[RolloutTarget]]] = []
    for wave in rollout.waves:
        passed = wave.state == "passed"
        if passed and rollout.next_wave is not None:
            continue
        judged = list_judged(rollout, wave)
        mine = [one for one in judged if one.environment_id in among and (not passed or one.status in FAILED)]
        if not passed and not mine and any(one.status not in (*GOOD, *FAILED) for one in judged):
            break
        if mine or not passed:
            waves.append((wave, mine))
    return waves
