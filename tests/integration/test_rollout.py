"""rollout and rollout_wave: what is planned, stored and returned, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .conftest import AGENT, Ansible, Run, step

VERSION = "0.34.12"
LEDGER = {"FLEETOPS_LEDGER": "default.sqlite"}
PLAN = {"name": "r", "version": VERSION}


@pytest.fixture
def names(ansible: Ansible) -> list[str]:
    """Six simulated devices that can update themselves."""
    names = [f"device-{number}" for number in range(6)]
    for name in names:
        ansible.sandbox.add_environment(connectionName=name, metadata={"lettaCodeVersion": "0.33.9"})
    ansible.sandbox.upgrade_to(VERSION)
    return names


@pytest.fixture
def run(ansible: Ansible) -> Callable[..., Run]:
    def steps(*tasks: dict[str, Any], **options: Any) -> Run:
        return ansible.steps(*tasks, env=LEDGER, **options)

    return steps


def _waves(result: dict[str, Any]) -> list[list[str]]:
    return [wave["hosts"] for wave in result["waves"]]


@pytest.mark.covers("rollout", "name", "version", "targets", "waves")
def test_a_plan_stays_the_same_when_the_fleet_changes(
    ansible: Ansible, names: list[str], run: Callable[..., Run]
) -> None:
    offline = ansible.sandbox.add_environment(connectionName="asleep", metadata={"lettaCodeVersion": "0.33.9"})
    ansible.sandbox.offline(offline["id"])
    ansible.sandbox.add_environment(connectionName="current", metadata={"lettaCodeVersion": VERSION})
    targets = ["asleep", *names, "current"]

    first = run(
        step("half", "rollout", **PLAN, targets=targets, waves=["2", "50%", "100%"]),
        step("standard", "rollout", **PLAN | {"name": "s"}, targets=targets[:4]),
        step("newer", "rollout", **PLAN | {"name": "n", "version": "0.34.13"}, targets=targets),
    )
    looked_up = len(ansible.sandbox.requests())
    ansible.sandbox.online(offline["id"])
    again = run(step("half", "rollout", **PLAN, targets=targets[:3], waves=["2", "50%", "100%"]))

    first.assert_quiet()
    plan = first.result("half")
    assert plan["msg"] == "rollout 'r': 6 updatable in 3 waves, 1 current, 0 not updatable, 1 offline"
    assert (plan["changed"], plan["state"], plan["next_wave"], plan["done"]) == (True, "pending", 1, False)
    assert _waves(plan) == [names[:2], names[2:3], names[3:]]
    assert plan["to_run"] == [{"number": n, "hosts": wave} for n, wave in enumerate(_waves(plan), start=1)]
    assert plan["current"] == ["current"]
    assert [entry["host"] for entry in plan["offline"]] == ["asleep"]
    assert _waves(first.result("standard")) == [names[:1], names[1:2], names[2:3]]
    assert first.result("newer")["current"] == []
    again.assert_quiet()
    kept = again.result("half")
    assert {key: kept[key] for key in ("waves", "current", "offline", "planned_at")} == {
        key: plan[key] for key in ("waves", "current", "offline", "planned_at")
    }
    assert kept["changed"] is False
    assert kept["to_run"] == [{"number": 1, "hosts": names[:2]}]
    assert kept["left_out"] == names[2:]
    # The inventory is listed again, and no device is looked up.
    assert {entry["route"] for entry in ansible.sandbox.requests()[looked_up:]} == {"list"}


@pytest.mark.covers("rollout", "ledger")
@pytest.mark.covers("rollout_wave", "ledger")
def test_the_named_ledger_is_used(ansible: Ansible, names: list[str], run: Callable[..., Run]) -> None:
    other = {"ledger": "other.sqlite"}
    wave = {"name": "r", "wave": 1, "state": "started"}

    done = run(
        step("other", "rollout", **PLAN, targets=names, **other),
        step("default", "rollout_wave", **wave),
        step("named", "rollout_wave", **wave, **other),
    )

    assert (ansible.directory / "other.sqlite").exists()
    assert not (ansible.directory / "default.sqlite").exists()
    assert done.result("default")["msg"].startswith("name: the ledger has no rollout 'r'; plan it with ")
    assert done.result("named")["state"] == "running"


@pytest.mark.covers("rollout", "version", "waves", "targets", "max_targets", "concurrency")
def test_invalid_options_are_refused_and_nothing_is_stored(
    ansible: Ansible, names: list[str], run: Callable[..., Run]
) -> None:
    wrong: dict[str, dict[str, Any]] = {
        "version: must be a semantic version such as 0.34.12, got 'latest'": {"version": "latest"},
        "waves: must end with '100%', so that each target is in one of them": {"waves": ["1", "50%"]},
        "waves: must be a count such as 5 or a percentage such as 10%, got 'all'": {"waves": ["all"]},
        "targets[0]: 'nobody' is no host of the inventory": {"targets": ["nobody"]},
        "localhost is no environment: ": {"targets": ["localhost"]},
        "targets[1]: 'device-0' is the same environment as 'device-0'": {"targets": [names[0]] * 2},
        "max_targets: 6 targets are more than the 5 allowed": {"max_targets": 5},
        "concurrency: must be 1 or more, got 0": {"concurrency": 0},
    }

    done = run(*(step(message, "rollout", **{**PLAN, "targets": names, **told}) for message, told in wrong.items()))

    for entry in done.results:
        assert entry["result"]["msg"].startswith(entry["task"]), entry["result"]["msg"]
    assert len(done.results) == len(wrong)
    assert {entry["route"] for entry in ansible.sandbox.requests()} == {"list"}
    assert not (ansible.directory / "default.sqlite").exists()


@pytest.mark.covers("rollout", "name", "version", "waves")
def test_another_version_other_waves_and_other_targets_need_another_name(
    ansible: Ansible, names: list[str], run: Callable[..., Run]
) -> None:
    told = {**PLAN, "targets": names[:3]}

    done = run(
        step("plan", "rollout", **told),
        step("version", "rollout", **told | {"version": "0.35.0"}),
        step("waves", "rollout", **told, waves=["100%"]),
        step("targets", "rollout", **told | {"targets": names[3:]}),
        step("new", "rollout", **told | {"targets": names[2:4]}),
        step("other", "rollout", **told | {"version": "0.35.0", "name": "q"}, waves=["100%"]),
    )

    known = r"rollout 'r' was planned at "
    for option in ("version", "waves", "targets"):
        assert done.result(option)["msg"].startswith(f"{option}: {known}")
        assert done.result(option)["msg"].endswith("give another name")
    assert done.result("new")["not_in_rollout"] == [names[3]]
    assert _waves(done.result("other")) == [names[:3]]


@pytest.mark.covers("rollout", "concurrency")
def test_concurrency_limits_the_look_ups(ansible: Ansible, names: list[str], run: Callable[..., Run]) -> None:
    ansible.sandbox.add_fault("slow", route="retrieve", seconds=0.2)

    run(step("two", "rollout", **PLAN, targets=names, concurrency=2)).assert_quiet()

    assert max(entry["under_way"] for entry in ansible.sandbox.requests("retrieve")) == 2


def test_nothing_is_stored_if_a_target_cannot_be_looked_up(
    ansible: Ansible, names: list[str], run: Callable[..., Run]
) -> None:
    ansible.sandbox.add_fault("status", route="retrieve", status=422, nth=3)

    done = run(step("it", "rollout", **PLAN, targets=names))

    assert done.result("it")["msg"].startswith("nothing was planned, as targets cannot be looked up: device-")
    assert not (ansible.directory / "default.sqlite").exists()


def test_a_play_of_several_hosts_plans_once(ansible: Ansible, names: list[str], run: Callable[..., Run]) -> None:
    done = run(step("it", "rollout", **PLAN, targets=names), hosts=",".join(names))

    assert {entry["result"]["msg"].partition(", or each")[0] for entry in done.results} == {
        "targets: in a play of several hosts needs run_once: true, and a strategy that heeds it such as linear"
    }


def test_check_mode_creates_no_file_and_shows_the_stored_rollout(
    ansible: Ansible, names: list[str], run: Callable[..., Run]
) -> None:
    plan = step("plan", "rollout", **PLAN, targets=names)
    wave = step("wave", "rollout_wave", name="r", wave=1, state="started")

    checked = run(plan, wave, arguments=("--check",))
    files = sorted(path.name for path in ansible.directory.iterdir())
    run(plan).assert_quiet()
    before = (ansible.directory / "default.sqlite").read_bytes()
    again = run(plan, wave, arguments=("--check",))

    assert checked.result("plan")["changed"] is True
    assert [len(wave) for wave in _waves(checked.result("plan"))] == [1, 1, 1, 3]
    assert not [name for name in files if "sqlite" in name]
    assert again.result("plan")["changed"] is False
    assert again.result("wave")["state"] == "running"
    assert (ansible.directory / "default.sqlite").read_bytes() == before


@pytest.mark.covers("rollout_wave", "name", "wave", "state", "max_failures", "updated", "waited", "probed")
def test_a_wave_is_judged_by_the_results_of_modules(
    ansible: Ansible, names: list[str], run: Callable[..., Run]
) -> None:
    """Two waves of three: the first judged by its updates alone, the second also by a wait and a reply."""
    broken = ansible.hosts()[names[4]]["letta_id"]
    mute = ansible.hosts()[names[5]]["letta_id"]
    ansible.sandbox.command(broken, "upgrade-letta-code", output="Failed", success=False)
    ansible.sandbox.add_fault("status", route="messages", status=422, target=mute)
    update = {"target_version": VERSION, "max_failures": "100%"}
    wave_2 = {"name": "r", "wave": 2}
    ended = {**wave_2, "state": "ended", "updated": "{{ second.targets }}", "waited": "{{ waited.targets }}"}

    done = run(
        step("plan", "rollout", **PLAN, targets=names, waves=["3", "100%"]),
        step("too early", "rollout_wave", **wave_2, state="started"),
        step("begin", "rollout_wave", name="r", wave=1, state="started"),
        {**step("update", "self_update", targets=names[:3], **update), "register": "first"},
        step("judge", "rollout_wave", name="r", wave=1, state="ended", updated="{{ first.targets }}"),
        step("begin 2", "rollout_wave", **wave_2, state="started", max_failures="67%"),
        {**step("update 2", "self_update", targets=names[3:], **update), "register": "second"},
        {
            **step("wait", "wait_for_environment", targets=[names[3], names[5]], version=VERSION),
            "register": "waited",
        },
        {
            **step(
                "probe", "send_message", targets=[names[3], names[5]], content="Ready?", agent_id=AGENT,
                wait_for_reply=True, max_failures="100%",
            ),
            "register": "probed",
        },
        step("judge 2", "rollout_wave", **ended),
        step("begin 3", "rollout_wave", **wave_2, state="started", max_failures="67%"),
        step("judge 3", "rollout_wave", **ended, probed="{{ probed.targets }}"),
        step("begin 4", "rollout_wave", **wave_2, state="started"),
        step("judge 4", "rollout_wave", **ended),
        step("look", "rollout", **PLAN, targets=names, waves=["3", "100%"]),
    )  # fmt: skip

    assert done.result("too early")["msg"] == "wave: 2 cannot begin before wave 1 has passed"
    begun, judged = done.result("begin"), done.result("judge")
    assert (begun["changed"], begun["state"], begun["passed"], begun["max_failures"]) == (True, "running", False, 0)
    assert begun["msg"] == "wave 1 of rollout 'r' is running"
    assert (judged["changed"], judged["state"], judged["passed"]) == (True, "passed", True)
    assert (judged["failed_hosts"], judged["reasons"], judged["reason"]) == ([], {}, None)
    second = done.result("judge 2")
    assert (second["passed"], second["max_failures"], second["failed_hosts"]) == (True, 2, [names[4]])
    assert second["reasons"] == {names[4]: "the device did not update; it said: Failed"}
    third = done.result("judge 3")
    assert third["passed"] is True
    assert third["failed_hosts"] == [names[4], names[5]]
    assert third["reasons"][names[5]].startswith("the probe was not answered: ")
    fourth = done.result("judge 4")
    assert (fourth["state"], fourth["reason"]) == ("failed", "1 of its 3 targets failed, 0 may")
    assert fourth["msg"] == "wave 2 of rollout 'r' failed: 1 of its 3 targets failed, 0 may"
    look = done.result("look")
    assert (look["state"], look["next_wave"]) == ("failed", 2)
    assert [(entry["host"], entry["wave"], entry["status"]) for entry in look["failed_targets"]] == [
        (names[4], 2, "failed")
    ]


@pytest.mark.covers("rollout_wave", "wave", "state", "max_failures", "updated", "waited", "probed")
def test_any_other_result_is_refused(ansible: Ansible, names: list[str], run: Callable[..., Run]) -> None:
    of_r = {"name": "r", "wave": 1}
    stranger = [{"id": "environment-of-nobody", "status": "ok"}]
    wrong: dict[str, dict[str, Any]] = {
        "wave: rollout 'r' has the waves 1 to 4, got 9": {"state": "started", "wave": 9},
        "max_failures: must be a count such as 5": {"state": "started", "max_failures": "few"},
        "updated: goes with state=ended": {"state": "started", "updated": []},
        "waited: goes with state=ended": {"state": "started", "waited": []},
        "probed: goes with state=ended": {"state": "started", "probed": []},
        "wave: 1 of rollout 'r' is pending; begin it": {"state": "ended", "updated": []},
        "updated: is needed with state=ended": {"state": "ended"},
        "value of state must be one of: started, ended": {"state": "paused"},
    }
    begun = {
        "updated[0]: has no id and status": {"updated": [{"host": "alpha"}]},
        "updated: 'environment-of-nobody' is not in wave 1": {"updated": stranger},
        "waited: 'environment-of-nobody' is not in wave 1": {"updated": [], "waited": stranger},
        "probed: 'environment-of-nobody' is not in wave 1": {"updated": [], "probed": stranger},
    }

    done = run(
        step("plan", "rollout", **PLAN, targets=names),
        *(step(message, "rollout_wave", **of_r | told) for message, told in wrong.items()),
        step("begin", "rollout_wave", **of_r, state="started"),
        *(step(message, "rollout_wave", **of_r, state="ended", **told) for message, told in begun.items()),
        step("left out", "rollout_wave", **of_r, state="ended", updated=[]),
    )

    said = {entry["task"]: entry["result"]["msg"] for entry in done.results}
    for message in (*wrong, *begun):
        assert said[message].startswith(message), said[message]
    assert said["left out"] == "wave 1 of rollout 'r' is running: 1 of its 1 targets were left out"
