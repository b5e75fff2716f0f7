"""Rollouts: the waves, what the outcomes of a wave mean, what runs next, and what the ledger stores."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleetops.environments.plugins.module_utils.errors import OptionError
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.update import UpdateOutcome
from ansible_collections.fleetops.environments.plugins.module_utils.ledger import sqlite as sqlite_module
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.rollouts import (
    add_rollout,
    export_rollout,
    find_rollout,
    list_rollout_names,
    record_changes,
)
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.schema import (
    Rollout,
    RolloutTarget,
    RunFacts,
    Wave,
)
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.store import Ledger, open_ledger, read_ledger
from ansible_collections.fleetops.environments.plugins.module_utils.rollouts.waves import (
    begin_wave,
    check_same,
    describe_rollout,
    exclude_targets,
    judge_wave,
    plan_rollout,
    size_waves,
)

VERSION, WAVES = "0.34.12", ["1", "5%", "25%", "100%"]
THEN, NOW, LATER = (f"2026-01-31T1{hour}:00:00.000Z" for hour in (1, 2, 3))


def target(name: str, preflight: str = "updatable", **fields: Any) -> RolloutTarget:
    return RolloutTarget(host=f"host-{name}", environment_id=name, preflight=preflight, from_version="0.33.9", **fields)


def plan(count: int = 4, waves: Sequence[str] = ("1", "100%"), more: Sequence[RolloutTarget] = ()) -> Rollout:
    return plan_rollout("r", VERSION, waves, [*(target(str(number)) for number in range(count)), *more], THEN)


def with_wave(rollout: Rollout, wave: Wave, targets: Sequence[RolloutTarget] = ()) -> Rollout:
    """A rollout as the ledger has it after one of its waves was stored."""
    ends = {end.environment_id: end for end in targets}
    return replace(
        rollout,
        waves=[wave if wave.number == old.number else old for old in rollout.waves],
        targets=[ends.get(old.environment_id, old) for old in rollout.targets],
    )


def update_result(name: str, status: str = "changed", **fields: Any) -> UpdateOutcome:
    """The outcome of an update, with its proofs, for a target."""
    good = {"version": VERSION, "updated_at": NOW, "reason": f"updated from 0.33.9 to {VERSION}"}
    known: dict[str, Any] = {"changed": good, "ok": {"version": VERSION}}.get(status, {})
    return UpdateOutcome(**{"host": f"host-{name}", "id": name, "status": status, "reason": None, **known, **fields})


def run_wave(rollout: Rollout, number: int, *outcomes: UpdateOutcome, max_failures: str = "0") -> Rollout:
    """A rollout after a wave was begun and judged."""
    wave = begin_wave(rollout, rollout.waves[number - 1], max_failures, NOW)
    updated = {outcome.id: outcome for outcome in outcomes}
    return with_wave(rollout, *judge_wave(rollout, wave, updated, LATER))


def statuses(rollout: Rollout, number: int) -> list[str | None]:
    return [target.status for target in rollout.targets_of(number)]


# Waves


@st.composite
def waves_that_grow(draw: st.DrawFn) -> list[str]:
    numbers = draw(st.lists(st.integers(1, 99), unique=True, max_size=6).map(sorted))
    counted = draw(st.integers(0, len(numbers)))
    # First counts and then percentages, as users write them.
    return [*(str(number) for number in numbers[:counted]), *(f"{number}%" for number in numbers[counted:]), "100%"]


@given(waves_that_grow(), st.integers(0, 400))
def test_each_target_is_in_one_wave_and_no_wave_is_empty(waves: list[str], targets: int) -> None:
    sizes = size_waves(waves, targets)

    assert sum(sizes) == targets
    assert all(size >= 1 for size in sizes)
    assert len(sizes) <= len(waves)


@given(waves_that_grow(), st.integers(1, 400))
def test_a_wave_ends_at_its_size_or_one_target_after_the_wave_before(waves: list[str], targets: int) -> None:
    done = 0
    for size, wave in zip(size_waves(waves, targets), waves, strict=False):
        number = int(wave.removesuffix("%"))
        wanted = number * targets // 100 if wave.endswith("%") else number
        assert done + size == min(targets, max(wanted, done + 1))
        done += size


@given(
    waves_that_grow(),
    st.lists(st.sampled_from(["updatable", "current", "offline", "not_updatable"]), max_size=60),
)
def test_a_plan_keeps_the_order_and_puts_updatable_targets_into_waves(waves: list[str], preflights: list[str]) -> None:
    targets = [target(str(number), preflight) for number, preflight in enumerate(preflights)]

    rollout = plan_rollout("r", VERSION, waves, targets, THEN)

    assert [replace(one, wave=None) for one in rollout.targets] == targets
    numbers = [one.wave for one in rollout.targets if one.preflight == "updatable"]
    assert numbers == sorted(number for number in numbers if number is not None)
    assert {one.wave for one in rollout.targets if one.preflight != "updatable"} <= {None}
    assert [wave.number for wave in rollout.waves] == sorted(set(numbers))
    assert rollout == plan_rollout("r", VERSION, waves, targets, THEN)


def waves_of(rollout: Rollout) -> list[list[str]]:
    return [[one.environment_id for one in rollout.targets_of(wave.number)] for wave in rollout.waves]


def test_devices_at_risk_are_updated_last_in_a_wave_of_their_own() -> None:
    targets = [target(name, "at_risk" if name in "ad" else "updatable") for name in "abcde"]

    rollout = plan_rollout("r", VERSION, ["1", "100%"], [*targets, target("f", "current")], THEN)

    assert waves_of(rollout) == [["b"], ["c", "e"], ["a", "d"]]
    described = describe_rollout(rollout, {one.environment_id: one.host for one in targets})
    assert described["at_risk"] == ["host-a", "host-d"]


def test_where_every_device_is_at_risk_they_have_the_usual_waves() -> None:
    rollout = plan_rollout("r", VERSION, ["1", "100%"], [target(name, "at_risk") for name in "abc"], THEN)

    assert waves_of(rollout) == [["a"], ["b", "c"]]


def test_a_plan_names_the_devices_that_were_busy_and_those_at_risk_until_they_are_updated() -> None:
    targets = [target("0", reason="busy: a turn of agent-1"), target("1", "at_risk")]
    rollout = plan_rollout("r", VERSION, ["1", "100%"], targets, THEN)
    hosts = {one.environment_id: one.host for one in targets}

    planned = describe_rollout(rollout, hosts)
    done = describe_rollout(run_wave(run_wave(rollout, 1, update_result("0")), 2, update_result("1")), hosts)

    assert planned["busy"] == [{"host": "host-0", "reason": "busy: a turn of agent-1"}]
    assert planned["at_risk"] == ["host-1"]
    assert done["busy"] == done["at_risk"] == []
    left_out = replace(rollout, targets=[replace(one, status="excluded") for one in rollout.targets])
    assert describe_rollout(left_out, hosts)["at_risk"] == []


@pytest.mark.parametrize(
    ("targets", "sizes"),
    [
        (0, []),
        (1, [1]),
        (2, [1, 1]),
        (3, [1, 1, 1]),
        (4, [1, 1, 1, 1]),
        (100, [1, 4, 20, 75]),
        (10_000, [1, 499, 2000, 7500]),
    ],
)
def test_the_waves_of_fleets(targets: int, sizes: list[int]) -> None:
    assert size_waves(WAVES, targets) == sizes


@pytest.mark.parametrize(
    ("waves", "problem"),
    [
        ([], "must end with '100%'"),
        (["1", "50%"], "must end with '100%'"),
        (["1", "100"], "must end with '100%'"),
        (["0", "100%"], "must each be 1 or more, got '0'"),
        (["0%", "100%"], "must each be 1 or more, got '0%'"),
        (["5%", "5%", "100%"], "each must be more than before, got ['5%', '5%', '100%']"),
        (["10", "5", "100%"], "each must be more than before"),
        (["some", "100%"], "must be a count such as 5 or a percentage such as 10%, got 'some'"),
        (["-1", "100%"], "must be a count"),
        (["101%", "100%"], "must be a count"),
        (["1.5", "100%"], "must be a count"),
    ],
)
def test_invalid_waves_are_refused(waves: list[str], problem: str) -> None:
    with pytest.raises(OptionError, match=r"^waves: ") as caught:
        size_waves(waves, 10)

    assert problem in str(caught.value)


# The start of a wave, and what counts as the same rollout


def test_a_wave_that_begins_keeps_its_first_time_and_gets_its_budget() -> None:
    rollout = plan()

    first = begin_wave(rollout, rollout.waves[0], "0", NOW)
    assert first == Wave(number=1, state="running", started_at=NOW, max_failures=0)
    assert begin_wave(rollout, first, "100%", LATER) == replace(first, max_failures=1)
    assert begin_wave(rollout, rollout.waves[1], "67%", LATER).max_failures == 2


@pytest.mark.parametrize("budget", ["", "some", "-1", "101%"])
def test_a_budget_is_a_count_or_a_percentage(budget: str) -> None:
    with pytest.raises(OptionError, match=r"^max_failures: "):
        begin_wave(plan(), plan().waves[0], budget, NOW)


def test_a_run_with_another_version_waves_or_targets_is_refused() -> None:
    rollout = plan(waves=WAVES)

    check_same(rollout, VERSION, WAVES, ["0", "stranger"])
    check_same(rollout, VERSION, WAVES, [])
    with pytest.raises(
        OptionError, match=r"^version: rollout 'r' was planned at .* for 0.34.12, got 0.35.0; give anoth"
    ):
        check_same(rollout, "0.35.0", WAVES, ["0"])
    with pytest.raises(OptionError, match=r"^waves: rollout 'r' was planned at .* with \['1', "):
        check_same(rollout, VERSION, ["100%"], ["0"])
    with pytest.raises(OptionError, match=r"^targets: rollout 'r' was planned at .* for others"):
        check_same(rollout, VERSION, WAVES, ["stranger"])


# Judging


def test_a_wave_passes_when_all_its_targets_are_updated() -> None:
    rollout = run_wave(plan(), 1, update_result("0"))

    assert rollout.waves[0] == Wave(number=1, state="passed", started_at=NOW, ended_at=LATER, max_failures=0)
    assert rollout.targets[0] == target(
        "0", wave=1, to_version=VERSION, status="changed", updated_at=NOW, ended_at=LATER,
        reason=f"updated from 0.33.9 to {VERSION}",
    )  # fmt: skip
    assert (rollout.state, rollout.next_wave) == ("running", 2)


@pytest.mark.parametrize("status", ["failed", "unknown", "offline", "skipped"])
@pytest.mark.parametrize(("allowed", "state"), [("0", "failed"), ("1", "passed"), ("33%", "failed"), ("34%", "passed")])
def test_a_wave_fails_when_more_targets_fail_than_allowed(status: str, allowed: str, state: str) -> None:
    rollout = run_wave(plan(), 1, update_result("0"))
    bad = update_result("1", status, error={"code": "c", "message": "it broke"})

    rollout = run_wave(rollout, 2, bad, update_result("2"), update_result("3", "ok"), max_failures=allowed)

    assert rollout.waves[1].state == state == rollout.state
    assert rollout.waves[1].reason == ("1 of its 3 targets failed, 0 may" if state == "failed" else None)
    assert statuses(rollout, 2) == [status, "changed", "ok"]
    assert rollout.targets_of(2)[0].reason == "it broke"


def test_a_target_that_failed_after_its_update_is_recorded_as_updated() -> None:
    unsteady = update_result("0", error={"code": "unproven", "message": "after the update: not online"})
    unsteady.status = "failed"

    rollout = run_wave(plan(), 1, unsteady)

    end = rollout.targets[0]
    assert (rollout.waves[0].state, end.status, end.reason) == ("failed", "failed", "after the update: not online")
    assert (end.updated_at, end.to_version) == (NOW, VERSION)


def test_a_wave_with_targets_that_were_left_out_has_not_ended() -> None:
    rollout = run_wave(
        run_wave(plan(), 1, update_result("0")), 2, update_result("1"), update_result("2", "not_attempted")
    )

    wave = rollout.waves[1]
    assert (wave.state, wave.ended_at, wave.reason) == ("running", None, "2 of its 3 targets were left out")

    rollout = run_wave(rollout, 2, update_result("2"), update_result("3"))
    assert (rollout.waves[1].state, rollout.state) == ("passed", "passed")
    assert statuses(rollout, 2) == ["changed", "changed", "changed"]


def test_a_target_updated_by_an_earlier_run_keeps_its_record() -> None:
    rollout = run_wave(
        run_wave(plan(), 1, update_result("0")),
        2,
        update_result("1"),
        update_result("2", "failed"),
        update_result("3", "failed"),
    )
    assert rollout.state == "failed"

    rollout = run_wave(rollout, 2, update_result("1", "ok"), update_result("2", "ok"), update_result("3"))

    first, second, _third = rollout.targets_of(2)
    assert (first.status, first.updated_at) == ("changed", NOW)
    # The time of the update is unknown.
    assert (second.status, second.updated_at, second.from_version, second.to_version) == (
        "ok", None, "0.33.9", VERSION,
    )  # fmt: skip


def test_failures_of_earlier_runs_count() -> None:
    rollout = run_wave(
        run_wave(plan(), 1, update_result("0")), 2, update_result("1", "failed"), update_result("2"), update_result("3")
    )

    assert run_wave(rollout, 2, update_result("2", "ok")).waves[1].state == "failed"


def test_a_target_that_is_not_attempted_again_keeps_its_earlier_outcome() -> None:
    rollout = run_wave(
        run_wave(plan(), 1, update_result("0")),
        2,
        update_result("1", "failed"),
        update_result("2", "failed"),
        update_result("3"),
    )

    again = run_wave(
        rollout,
        2,
        update_result("1", "failed"),
        update_result("2", "not_attempted"),
        update_result("3", "not_attempted"),
    )

    assert statuses(again, 2) == ["failed", "failed", "changed"]
    assert again.waves[1].state == "failed"


# The next waves


def hosts(*numbers: int) -> dict[str, str]:
    return {str(number): f"now-{number}" for number in numbers}


def to_run(rollout: Rollout, *numbers: int) -> list[tuple[int, list[str]]]:
    found = describe_rollout(rollout, hosts(*numbers))["to_run"]
    return [(wave["number"], wave["hosts"]) for wave in found]


def test_waves_that_have_not_passed_run_with_the_hosts_of_the_run() -> None:
    rollout = plan()

    assert to_run(rollout, 3, 2, 1, 0) == [(1, ["now-0"]), (2, ["now-1", "now-2", "now-3"])]
    assert to_run(rollout, 0) == [(1, ["now-0"])]
    # The second wave cannot begin before the first.
    assert to_run(rollout, 1, 2, 3) == []
    passed = run_wave(rollout, 1, update_result("0"))
    assert to_run(passed, 0, 1, 2) == [(2, ["now-1", "now-2"])]
    failed = run_wave(passed, 2, update_result("1", "failed"), update_result("2"), update_result("3"))
    assert to_run(failed, 0, 1, 2, 3) == [(2, ["now-1", "now-2", "now-3"])]
    interrupted = with_wave(passed, begin_wave(passed, passed.waves[1], "0", NOW))
    assert to_run(interrupted, 0, 1, 2, 3) == [(2, ["now-1", "now-2", "now-3"])]


def test_failed_targets_are_tried_again_when_all_waves_have_passed() -> None:
    rollout = run_wave(plan(), 1, update_result("0", "failed"), max_failures="1")
    assert to_run(rollout, 0, 1, 2, 3) == [(2, ["now-1", "now-2", "now-3"])]

    rollout = run_wave(rollout, 2, update_result("1"), update_result("2"), update_result("3"))

    assert rollout.state == "passed"
    assert to_run(rollout, 0, 1, 2, 3) == [(1, ["now-0"])]
    assert to_run(rollout, 1, 2, 3) == []
    again = run_wave(rollout, 1, update_result("0"))
    assert to_run(again, 0, 1, 2, 3) == []
    assert again.waves[0].started_at == NOW


def test_a_wave_whose_targets_have_all_ended_is_judged_anew_without_them() -> None:
    passed = run_wave(plan(5, ("1", "4", "100%")), 1, update_result("0"))
    failed = run_wave(passed, 2, update_result("1", "failed"), update_result("2"), update_result("3"))

    # A run for the third wave alone: the second one passes where more may fail, and else fails as before.
    assert to_run(failed, 4) == [(2, []), (3, ["now-4"])]
    assert run_wave(failed, 2).waves[1].reason == "1 of its 3 targets failed, 0 may"
    assert run_wave(failed, 2, max_failures="1").waves[1].state == "passed"
    open_one = run_wave(passed, 2, update_result("1", "failed"), update_result("2", "not_attempted"))
    assert to_run(open_one, 4) == []


# Targets that are left out


def test_a_wave_is_judged_without_the_targets_that_are_left_out() -> None:
    passed = run_wave(plan(), 1, update_result("0"))
    failed = run_wave(passed, 2, update_result("1", "failed"), update_result("2"), update_result("3", "offline"))

    rollout = exclude_targets(failed, {"0", "1", "stranger"}, "why", LATER)

    # What is updated stays so.
    assert [one.status for one in rollout.targets] == ["changed", "excluded", "changed", "offline"]
    assert (rollout.targets[1].reason, rollout.targets[1].ended_at) == ("why", LATER)
    assert exclude_targets(rollout, {"1"}, "again", NOW) == rollout
    assert to_run(rollout, 1, 2, 3) == [(2, ["now-2", "now-3"])]
    seen = describe_rollout(rollout, {})
    assert (seen["excluded"], seen["left_out"]) == (["host-1"], ["host-3"])
    assert [entry["host"] for entry in seen["failed_targets"]] == ["host-3"]
    judged = run_wave(rollout, 2, update_result("2", "ok"), update_result("3"))
    assert (judged.state, statuses(judged, 2)) == ("passed", ["excluded", "changed", "changed"])
    # Half of two.
    assert begin_wave(rollout, rollout.waves[1], "50%", NOW).max_failures == 1


def test_a_wave_of_which_all_targets_are_left_out_passes() -> None:
    rollout = exclude_targets(run_wave(plan(), 1, update_result("0", "failed")), {"0"}, "why", LATER)

    assert to_run(rollout, 1, 2, 3) == [(1, []), (2, ["now-1", "now-2", "now-3"])]
    assert run_wave(rollout, 1).waves[0].state == "passed"


def test_targets_in_no_wave_cannot_be_left_out() -> None:
    rollout = plan(1, more=[target("c", "current"), target("o", "offline", reason="asleep")])

    assert exclude_targets(rollout, {"c", "o"}, "why", NOW) == rollout


def test_a_view_names_every_target_once() -> None:
    others = [
        target("c", "current"),
        target("o", "offline", reason="asleep"),
        target("n", "not_updatable", reason="pip", manual_command="pip install", install_path="/opt"),
    ]
    rollout = run_wave(plan(2, more=others), 1, update_result("0", "failed", error={"message": "it broke"}))

    seen = describe_rollout(rollout, {"0": "zero", "c": "sea", "new": "new"})

    assert seen["failed_targets"] == [{"host": "zero", "wave": 1, "status": "failed", "reason": "it broke"}]
    assert seen["current"] == ["sea"]
    assert seen["offline"] == [{"host": "host-o", "reason": "asleep"}]
    assert seen["not_updatable"] == [
        {"host": "host-n", "reason": "pip", "manual_command": "pip install", "install_path": "/opt"}
    ]
    assert (seen["left_out"], seen["not_in_rollout"]) == (["host-1"], ["new"])
    assert (seen["state"], seen["next_wave"], seen["done"]) == ("failed", 1, False)
    assert [(wave["number"], wave["state"], wave["hosts"]) for wave in seen["waves"]] == [
        (1, "failed", ["zero"]),
        (2, "pending", ["host-1"]),
    ]


def test_a_rollout_without_targets_has_passed() -> None:
    rollout = plan(0, more=[target("c", "current")])

    seen = describe_rollout(rollout, {"c": "sea"})

    assert (rollout.state, seen["done"], seen["to_run"], seen["waves"]) == ("passed", True, [], [])
    assert plan().state == "pending"


# The ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def open_for_tester(path: Path) -> Ledger:
    return open_ledger(path, RunFacts("tester"))


def test_a_rollout_is_stored_once_and_read_unchanged(path: Path) -> None:
    hostile = target("'; DROP TABLE rollouts; --", "not_updatable", reason="<b>\u202e", manual_command="$(rm -rf /)")
    rollout = plan(more=[hostile, target("o", "offline", reason="asleep")])

    with open_for_tester(path) as ledger:
        assert find_rollout(ledger, "r") is None
        assert export_rollout(ledger, "r") is None
        assert add_rollout(ledger, rollout)
        assert not add_rollout(ledger, plan(2))
        assert add_rollout(ledger, replace(rollout, name="'; --", planned_at=NOW))

    with read_ledger(path) as reading:
        assert find_rollout(reading, "r") == rollout
        assert list_rollout_names(reading) == ["r", "'; --"]


def test_the_outcome_of_a_wave_is_stored(path: Path) -> None:
    rollout = plan()
    with open_for_tester(path) as ledger:
        add_rollout(ledger, rollout)
        wave = begin_wave(rollout, rollout.waves[0], "0", NOW)
        record_changes(ledger, rollout, waves=[wave])
        assert find_rollout(ledger, "r") == with_wave(rollout, wave)
        wave, ends = judge_wave(rollout, wave, {"0": update_result("0")}, LATER)
        record_changes(ledger, rollout, waves=[wave], targets=ends)

        kept = find_rollout(ledger, "r")
        record = export_rollout(ledger, "r")

    assert kept == run_wave(rollout, 1, update_result("0"))
    assert record is not None
    assert (record["name"], record["state"], record["version"]) == ("r", "running", VERSION)
    assert record["waves"][0] == {
        "number": 1,
        "size": 1,
        "state": "passed",
        "started_at": NOW,
        "ended_at": LATER,
        "max_failures": 0,
        "reason": None,
    }
    assert record["targets"][0]["status"] == "changed"
    assert record["targets"][1]["wave"] == 2


# The lock

# Holds the lock as earlier releases do: on the same file, with the id of the run in its first line.
EARLIER = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR, 0o600)
fcntl.flock(descriptor, fcntl.LOCK_EX)
os.pwrite(descriptor, b"a-run-of-before\\nsince yesterday, by somebody", 0)
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_module, "_LAST_TASK", 0.2)


@contextmanager
def hold_rollout(path: Path, name: str, facts: RunFacts) -> Iterator[None]:
    with open_ledger(path, facts) as ledger, ledger.hold_rollout(name):
        yield


@pytest.mark.usefixtures("no_patience")
def test_a_rollout_is_held_by_one_run_and_free_when_it_ends(path: Path) -> None:
    with hold_rollout(path, "r", RunFacts("tester", awx_job_id="7")):
        with (
            pytest.raises(OptionError, match=r"^name: another run has rollout 'r' since 20.*, by tester, AWX job 7; "),
            hold_rollout(path, "r", RunFacts("other")),
        ):
            pass
        with hold_rollout(path, "another", RunFacts("other")):
            pass
    with hold_rollout(path, "r", RunFacts("other")):
        pass


@pytest.mark.usefixtures("no_patience")
def test_the_lock_of_an_earlier_release_is_respected_until_its_run_is_dead(path: Path) -> None:
    with hold_rollout(path, "r", RunFacts("tester")):
        pass
    [lock] = path.parent.glob("ledger.sqlite-rollout-*")
    command = [sys.executable, "-c", EARLIER, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as earlier:
        assert earlier.stdout is not None
        assert earlier.stdout.readline() == b"locked\n"
        with (
            pytest.raises(OptionError, match=r"another run has rollout 'r' since yesterday, by somebody; wait until"),
            hold_rollout(path, "r", RunFacts("tester")),
        ):
            pass
        earlier.kill()
        earlier.wait()
        with hold_rollout(path, "r", RunFacts("tester")):
            pass


def test_a_lock_that_cannot_be_made_is_an_error_of_the_ledger(path: Path) -> None:
    with hold_rollout(path, "r", RunFacts("tester")):
        pass
    [lock] = path.parent.glob("ledger.sqlite-rollout-*")
    lock.unlink()
    lock.mkdir()

    with (
        pytest.raises(OptionError, match=r"^ledger: cannot use '.*-rollout-.*' beside it: Is a directory$"),
        hold_rollout(path, "r", RunFacts("tester")),
    ):
        pass
