"""rollout: what is planned, run, stored and returned, what is shown meanwhile, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.sandbox.turns import LongTurn

from .conftest import AGENT, CHECKOUT, Ansible, Run, add_updatable, messages_of, step

VERSION = "0.34.12"
LEDGER = {"FLEETOPS_LEDGER": "default.sqlite"}
PLAN = {"name": "r", "version": VERSION}
QUICK = {"soak": 0.2, "soak_grace": 1, "poll_interval": 0.1, "update_timeout": 5}
RUN = {**PLAN, **QUICK, "state": "run"}


@pytest.fixture
def names(ansible: Ansible) -> list[str]:
    """Six simulated devices that can update themselves."""
    names = [f"device-{number}" for number in range(6)]
    add_updatable(ansible.sandbox, names, VERSION)
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
def test_the_named_ledger_is_used(ansible: Ansible, names: list[str], run: Callable[..., Run]) -> None:
    run(step("other", "rollout", **PLAN, targets=names, ledger="other.sqlite")).assert_quiet()

    assert ansible.ledgers.exists(ansible.directory / "other.sqlite")
    assert not ansible.ledgers.exists(ansible.directory / "default.sqlite")


@pytest.mark.covers("rollout", "version", "waves", "targets", "max_targets", "concurrency", "state", "exclude")
@pytest.mark.covers("rollout", "canary_max_failures", "max_failures", "soak_grace")
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
        "value of state must be one of: planned, run": {"state": "paused"},
        "exclude: 'nobody' matches no environment": {"exclude": "nobody"},
        "exclude: 'device-9' matches no environment": {"exclude": "device-0,device-9"},
        "canary_max_failures: must be a count such as 5": {"canary_max_failures": "few"},
        "max_failures: must be a count such as 5": {"max_failures": "101%"},
        "soak_grace: must be 0 or more, got -1": {"soak_grace": -1},
    }

    done = run(*(step(message, "rollout", **{**PLAN, "targets": names, **told}) for message, told in wrong.items()))

    for entry in done.results:
        assert entry["result"]["msg"].startswith(entry["task"]), entry["result"]["msg"]
    assert len(done.results) == len(wrong)
    assert {entry["route"] for entry in ansible.sandbox.requests()} == {"list"}
    assert not ansible.ledgers.exists(ansible.directory / "default.sqlite")


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
    assert not ansible.ledgers.exists(ansible.directory / "default.sqlite")


def test_a_play_of_several_hosts_plans_once(ansible: Ansible, names: list[str], run: Callable[..., Run]) -> None:
    done = run(step("it", "rollout", **PLAN, targets=names), hosts=",".join(names))

    assert {entry["result"]["msg"].partition(", or each")[0] for entry in done.results} == {
        "targets: in a play of several hosts needs run_once: true, and a strategy that heeds it such as linear"
    }


@pytest.mark.of_the_file
@pytest.mark.covers("rollout", "state")
def test_check_mode_creates_no_file_and_shows_the_stored_rollout(
    ansible: Ansible, names: list[str], run: Callable[..., Run]
) -> None:
    plan = step("plan", "rollout", **PLAN, targets=names)
    waves = step("run", "rollout", **RUN, targets=names)

    checked = run(plan, waves, arguments=("--check",))
    files = sorted(path.name for path in ansible.directory.iterdir())
    run(plan).assert_quiet()
    before = (ansible.directory / "default.sqlite").read_bytes()
    again = run(plan, waves, arguments=("--check",))

    assert checked.result("plan")["changed"] is checked.result("run")["changed"] is True
    assert [len(wave) for wave in _waves(checked.result("run"))] == [1, 1, 1, 3]
    assert not [name for name in files if "sqlite" in name]
    assert again.result("plan")["changed"] is False
    assert again.result("run")["state"] == "pending"
    assert (ansible.directory / "default.sqlite").read_bytes() == before
    assert ansible.sandbox.received() == {}


def _told(ansible: Ansible) -> dict[str, int]:
    """How often each device was told to update itself, without those that were not."""
    received = ansible.sandbox.received()
    told = {entry["name"]: len(received.get(entry["id"], {}).get("commands", [])) for entry in ansible.sandbox.fleet()}
    return {name: count for name, count in told.items() if count}


def _shown(done: Run) -> list[str]:
    return [line for line in done.stdout.splitlines() if line.startswith("wave ")]


@pytest.mark.covers("rollout", "state", "gate")
def test_the_waves_run_one_after_the_other_and_at_a_gate_one_alone(
    ansible: Ansible, names: list[str], run: Callable[..., Run]
) -> None:
    told = {"targets": names, "waves": ["1", "3", "100%"]}

    gated = run(step("it", "rollout", **RUN, **told, gate=True))
    after_the_gate = _told(ansible)
    rest = run(step("it", "rollout", **RUN, **told))
    again = run(step("it", "rollout", **RUN, **told))

    for done in (gated, rest, again):
        done.assert_quiet()
    assert after_the_gate == {names[0]: 1}
    result = gated.result("it")
    assert (result["changed"], result["state"], result["next_wave"], result["done"]) == (True, "running", 2, False)
    assert _shown(gated) == [
        "wave 1 of rollout 'r', update: 1 targets",
        "wave 1 of rollout 'r', soak: 1 targets, at most 1.2 s",
        "wave 1 of rollout 'r' passed",
    ]
    assert [line for line in _shown(rest) if line.endswith("passed")] == [
        f"wave {number} of rollout 'r' passed" for number in (2, 3)
    ]
    assert _told(ansible) == dict.fromkeys(names, 1)
    assert (rest.result("it")["state"], rest.result("it")["to_run"]) == ("passed", [])
    assert (again.result("it")["changed"], _shown(again)) == (False, [])


@pytest.mark.covers("rollout", "canary_max_failures", "max_failures", "update_timeout")
def test_the_task_succeeds_where_devices_failed_and_says_how_the_rollout_stands(
    ansible: Ansible, names: list[str], run: Callable[..., Run]
) -> None:
    ids = {entry["name"]: entry["id"] for entry in ansible.sandbox.fleet()}
    for name in (names[0], names[2]):
        ansible.sandbox.command(ids[name], "upgrade-letta-code", output="Failed", success=False)
    # It says that it updates itself, and does not.
    ansible.sandbox.command(ids[names[3]], "upgrade-letta-code", output=f"Updated to {VERSION}.")
    told = {"targets": names, "waves": ["2", "5", "100%"], "canary_max_failures": "1", "max_failures": "34%"}

    done = run(step("it", "rollout", **RUN | {"update_timeout": 1}, **told))

    done.assert_quiet()
    result = done.result("it")
    assert (result["state"], result["next_wave"]) == ("failed", 2)
    assert [(entry["host"], entry["wave"], entry["status"]) for entry in result["failed_targets"]] == [
        (names[0], 1, "failed"),
        (names[2], 2, "failed"),
        (names[3], 2, "failed"),
    ]
    assert result["failed_targets"][1]["reason"] == "the device did not update; it said: Failed"
    assert f"not back on version {VERSION} or newer within 1 s" in result["failed_targets"][2]["reason"]
    assert _shown(done)[-1] == "wave 2 of rollout 'r' failed: 2 of its 3 targets failed, 1 may"
    assert names[5] not in _told(ansible)


@pytest.mark.covers("rollout", "offline_timeout")
def test_an_offline_device_is_waited_for_and_then_has_failed(
    ansible: Ansible, names: list[str], run: Callable[..., Run]
) -> None:
    run(step("plan", "rollout", **PLAN, targets=names[:1])).assert_quiet()
    ansible.sandbox.offline(ansible.hosts()[names[0]]["letta_id"])

    done = run(step("it", "rollout", **RUN, targets=names[:1], offline_timeout=0.2))

    [failed] = done.result("it")["failed_targets"]
    assert (failed["status"], failed["reason"].partition(" (")[0]) == ("offline", "the environment is offline")


@pytest.mark.covers("rollout", "soak", "soak_grace", "poll_interval")
def test_a_device_that_is_not_steady_in_time_has_failed(
    ansible: Ansible, names: list[str], run: Callable[..., Run]
) -> None:
    ansible.sandbox.upgrade_to(VERSION, stays=1)
    steady = {"soak": 3, "soak_grace": 0.5, "poll_interval": 0.1}

    done = run(step("it", "rollout", **RUN | steady, targets=names[:1]))

    [failed] = done.result("it")["failed_targets"]
    unsteady = f"after the update: not online, at version {VERSION} or newer, steady for 3 s after "
    assert failed["reason"].startswith(unsteady)
    assert ": it is offline (" in failed["reason"]


@pytest.mark.covers("rollout", "probe_agent_id", "probe_timeout")
def test_an_agent_that_does_not_reply_in_time_fails_its_device(
    ansible: Ansible, names: list[str], run: Callable[..., Run]
) -> None:
    ansible.sandbox.script("agent-slow", LongTurn(seconds=600))

    done = run(step("it", "rollout", **RUN, targets=names[:1], probe_agent_id="agent-slow", probe_timeout=1))

    [failed] = done.result("it")["failed_targets"]
    assert failed["reason"].startswith("the probe was not answered: ")


@pytest.mark.covers("rollout", "probe_agent_id", "probe_content")
def test_an_agent_must_reply_on_each_device_in_a_conversation_of_its_own(
    ansible: Ansible, names: list[str], run: Callable[..., Run]
) -> None:
    ids = {entry["name"]: entry["id"] for entry in ansible.sandbox.fleet()}
    ansible.sandbox.add_fault("status", route="messages", status=422, target=ids[names[1]])
    probe = {"probe_agent_id": AGENT, "probe_content": "Are you there?", "probe_timeout": 20}

    done = run(step("it", "rollout", **RUN, **probe, targets=names[:2], waves=["100%"], max_failures="1"))

    [failed] = done.result("it")["failed_targets"]
    assert failed["host"] == names[1]
    assert failed["reason"].startswith("the probe was not answered: ")
    [message] = messages_of(ansible.sandbox, {"id": ids[names[0]]})
    assert (message["agentId"], message["content"]) == (AGENT, "Are you there?")
    assert message["conversationId"].startswith("conv-")


@pytest.mark.covers("rollout", "exclude")
def test_devices_can_be_left_out_of_a_rollout_that_has_begun(
    ansible: Ansible, names: list[str], run: Callable[..., Run]
) -> None:
    ids = {entry["name"]: entry["id"] for entry in ansible.sandbox.fleet()}
    for name in names[:2]:
        ansible.sandbox.command(ids[name], "upgrade-letta-code", output="Failed", success=False)
    told = {"targets": names, "waves": ["2", "100%"]}

    failed = run(step("it", "rollout", **RUN, **told))
    # One is in the inventory no more.
    ansible.sandbox.remove(ids[names[1]])
    left = [name for name in names if name != names[1]]
    out = {"exclude": f"{names[0]},{names[1]},{names[5]}"}
    checked = run(step("it", "rollout", **RUN, **told | {"targets": left}, **out), arguments=("--check",))
    done = run(step("it", "rollout", **RUN, **told | {"targets": left}, **out))
    later = run(step("it", "rollout", **RUN, **told | {"targets": left}))

    assert failed.result("it")["state"] == "failed"
    excluded = [names[0], names[1], names[5]]
    assert checked.result("it")["excluded"] == done.result("it")["excluded"] == excluded
    assert checked.result("it")["state"] == "failed"
    assert checked.result("it")["to_run"] == [{"number": 1, "hosts": []}, {"number": 2, "hosts": names[2:5]}]
    assert (done.result("it")["state"], done.result("it")["left_out"]) == ("passed", [])
    # They stay left out.
    assert (later.result("it")["excluded"], later.result("it")["to_run"]) == (excluded, [])
    assert _told(ansible) == dict.fromkeys([names[0], *names[2:5]], 1)


@pytest.mark.covers("rollout", "exclude")
def test_a_new_rollout_has_no_wave_for_devices_that_are_left_out(
    ansible: Ansible, names: list[str], run: Callable[..., Run]
) -> None:
    done = run(step("it", "rollout", **PLAN, targets=names, exclude="device-*,!device-0,!device-1,!device-3"))

    assert _waves(done.result("it")) == [[names[0]], [names[1]], [names[3]]]


@pytest.mark.covers("rollout", "containers")
def test_devices_in_containers_are_planned_last_or_left_to_be_updated_by_hand(
    ansible: Ansible, names: list[str], run: Callable[..., Run]
) -> None:
    metadata = {"lettaCodeVersion": "0.33.9", "machine": {"model": "Container"}}
    ansible.sandbox.add_environment(connectionName="boxed", metadata=metadata)
    told = {"targets": ["boxed", *names[:2]], "waves": ["1", "100%"]}

    done = run(
        step("last", "rollout", **PLAN, **told),
        step("skip", "rollout", **PLAN | {"name": "s"}, **told, containers="skip"),
    )

    assert _waves(done.result("last")) == [[names[0]], [names[1]], ["boxed"]]
    assert done.result("last")["at_risk"] == ["boxed"]
    assert _waves(done.result("skip")) == [[names[0]], [names[1]]]
    assert [entry["host"] for entry in done.result("skip")["not_updatable"]] == ["boxed"]


@pytest.mark.covers("rollout", "when_busy", "busy_timeout")
def test_a_busy_device_is_told_as_the_task_says(ansible: Ansible, names: list[str], run: Callable[..., Run]) -> None:
    ansible.sandbox.script("agent-host", LongTurn(seconds=3600))
    ansible.file(f"host_vars/{names[0]}.yml", "letta_agent_id: agent-host")
    told = {"targets": names[:1], "waves": ["100%"]}

    done = run(
        step("work", "send_message", targets=names[:1], content="work"),
        step("plan", "rollout", **PLAN, **told),
        step("skip", "rollout", **RUN, **told, when_busy="skip"),
        step("wait", "rollout", **RUN, **told, busy_timeout=0),
    )
    before = _told(ansible)
    interrupted = run(step("it", "rollout", **RUN, **told, when_busy="interrupt"))

    busy = "busy: a turn of agent-host"
    assert done.result("plan")["busy"] == [{"host": names[0], "reason": busy}]
    [skipped], [late] = (done.result(task)["failed_targets"] for task in ("skip", "wait"))
    assert (skipped["status"], skipped["reason"]) == ("skipped", busy)
    assert late["reason"].startswith("not told to update, as it is still busy after 0 s: a turn of agent-host")
    assert before == {}
    assert interrupted.result("it")["state"] == "passed"


def test_the_module_of_single_waves_says_what_to_use_instead(ansible: Ansible) -> None:
    done = ansible.task("rollout_wave", name="r", wave=1, state="started")

    done.assert_error("'fleetops.environments.rollout_wave' module has been removed", "rollout with state=run")


# What is shown while it runs


# A callback whose output is for machines: one line of JSON.
MACHINE = """
from ansible.plugins.callback import CallbackBase
DOCUMENTATION = "name: lines_json\\ntype: stdout\\nshort_description: s\\ndescription: d\\n"
class CallbackModule(CallbackBase):
    CALLBACK_VERSION, CALLBACK_TYPE, CALLBACK_NAME = 2.0, "stdout", "lines_json"
    def v2_playbook_on_stats(self, stats):
        self._display.display('{"done": true}')
"""


def test_nothing_is_on_the_output_of_a_callback_that_a_machine_reads(ansible: Ansible, names: list[str]) -> None:
    ansible.file("callback/lines_json.py", MACHINE)
    folders = f"{ansible.directory / 'callback'}:{CHECKOUT / 'tests/integration/callback'}"
    env = {**LEDGER, "ANSIBLE_STDOUT_CALLBACK": "lines_json", "ANSIBLE_CALLBACK_PLUGINS": folders}

    done = ansible.steps(step("it", "rollout", **RUN, targets=names[:1]), env=env)

    assert json.loads(done.stdout) == {"done": True}
    assert "wave 1 of rollout 'r' passed" in done.stderr


def test_a_hidden_task_shows_nothing(ansible: Ansible, names: list[str], run: Callable[..., Run]) -> None:
    done = run({**step("it", "rollout", **RUN, targets=names[:1]), "no_log": True})

    assert done.returncode == 0
    assert _shown(done) == []
    assert _told(ansible) == {names[0]: 1}


def test_on_a_terminal_counts_and_the_time_left_are_shown_each_second(ansible: Ansible, names: list[str]) -> None:
    ansible.sandbox.upgrade_to(VERSION, seconds=3)
    task = step("it", "rollout", **RUN | {"soak": 3}, targets=names[:2], waves=["100%"], ledger="l.sqlite")
    plays = [{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]

    shown = ansible.on_a_terminal(ansible.file("shown.yml", yaml.safe_dump(plays)))

    lines = [line.rstrip() for line in shown.splitlines() if line.startswith("wave 1 of rollout 'r', soak, at most ")]
    assert 2 <= len(lines) <= 4
    assert all(" s left: waiting until online" in line for line in lines)
    assert "wave 1 of rollout 'r' passed" in shown
    assert re.search(r"^wave 1 of rollout 'r', update, \d s so far: 0 of 2 targets, 0 failed, ", shown, re.MULTILINE)
