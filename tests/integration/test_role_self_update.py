"""The role self_update and its playbook: waves, what ends a rollout, and how it continues."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import yaml

from ansible_collections.fleetops.environments.plugins.module_utils.ledger.rollouts import export_rollout
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.schema import RunFacts
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.store import open_ledger, read_ledger
from tests.sandbox.turns import LongTurn

from .conftest import CHECKOUT, Ansible, Run, messages_of

NAME = "fleetops.environments.self_update"
VERSION, OLD = "0.34.12", "0.33.9"
ROLLOUT = f"self_update-{VERSION}"
LEDGER = "ledger.sqlite"
QUICK = {
    "self_update_version": VERSION,
    "self_update_soak": 0.3,
    "self_update_soak_grace": 0.7,
    "self_update_poll_interval": 0.2,
    "self_update_update_timeout": 5,
    "self_update_offline_timeout": 5,
    "self_update_hosts": "d*",
}
LOST = (
    "lost by an update: --channels, --org, --skills, --debug and --lifecycle-output, since a device then runs with "
    "--computer-name alone"
)
UNABLE = {
    "supported": False,
    "writable": False,
    "reason": "Managed by the image.",
    "install_path": "/opt/letta",
    "manual_command": "Ask the owner.",
}


def _add(ansible: Ansible, *names: str, **metadata: Any) -> dict[str, dict[str, Any]]:
    """Simulated devices on an old version, which update themselves on request."""
    ansible.sandbox.upgrade_to(VERSION)
    return {
        name: ansible.sandbox.add_environment(connectionName=name, metadata={"lettaCodeVersion": OLD, **metadata})
        for name in names
    }


def _names(count: int) -> list[str]:
    return [f"d{number}" for number in range(count)]


def _rollout(ansible: Ansible, *arguments: str, playbook: str = NAME, source: Any = None, **variables: Any) -> Run:
    env = {"FLEETOPS_LEDGER": LEDGER, "ANSIBLE_SHOW_CUSTOM_STATS": "true"}
    # Only the devices that a test adds, because the tasks on each host take time.
    source = source or ansible.source(filters=["starts_with(connection_name, 'd')"])
    given = {name: value for name, value in (QUICK | variables).items() if value is not None}
    return ansible.playbook(playbook, "-e", json.dumps(given), *arguments, source=source, env=env)


def _record(ansible: Ansible) -> dict[str, Any]:
    """The rollout as the ledger has it."""
    with read_ledger(ansible.directory / LEDGER) as ledger:
        record = export_rollout(ledger, ROLLOUT)
    assert record is not None
    return record


def _waves(ansible: Ansible) -> list[str]:
    return [wave["state"] for wave in _record(ansible)["waves"]]


def _statuses(ansible: Ansible) -> dict[str, str | None]:
    return {target["host"]: target["status"] for target in _record(ansible)["targets"]}


def _told(ansible: Ansible, devices: dict[str, dict[str, Any]]) -> dict[str, int]:
    """How often each device was asked to update itself, without those that were not asked."""
    received = ansible.sandbox.received()
    told = {name: len(received.get(row["id"], {}).get("commands", [])) for name, row in devices.items()}
    return {name: count for name, count in told.items() if count}


def _recap(run: Run, what: str) -> dict[str, int]:
    """Host → its figure in the recap, for hosts where it is not zero."""
    found = re.findall(rf"^(\S+) +: .*\b{what}=(\d+)", run.stdout, re.MULTILINE)
    return {host: int(count) for host, count in found if count != "0"}


def _lines(run: Run) -> list[str]:
    """The lines about the rollout that were shown last."""
    shown: list[list[str]] = [entry["result"]["msg"] for entry in run.results if entry["task"] == "Show the rollout"]
    return shown[-1]


def _stop(ansible: Ansible, device: dict[str, Any]) -> None:
    """Make a device unable to update itself, without a sign of that beforehand."""
    ansible.sandbox.command(device["id"], "upgrade-letta-code", output="Failed: EACCES", success=False)


def _repair(ansible: Ansible, device: dict[str, Any]) -> None:
    """Update a device by hand."""
    ansible.sandbox.patch(device["id"], metadata={"lettaCodeVersion": VERSION})
    ansible.sandbox.rotate(device["id"])


@pytest.mark.parametrize("playbook", [NAME, str(CHECKOUT / "playbooks/self_update.yml")], ids=["by name", "by path"])
def test_a_fleet_is_updated_in_four_waves_and_the_second_time_nothing_is_done(ansible: Ansible, playbook: str) -> None:
    devices = _add(ansible, *_names(10))

    checked = _rollout(ansible, "--check", playbook=playbook)
    assert not list(ansible.directory.glob("*.sqlite*"))
    assert ansible.sandbox.received() == {}
    # As -e or a survey of AWX passes it.
    first = _rollout(ansible, playbook=playbook, self_update_gate="false")
    second = _rollout(ansible, playbook=playbook)

    checked.assert_quiet()
    *said, unseen = _lines(checked)
    # A message that no campaign sent is in no ledger.
    assert unseen.startswith(f"{', '.join(devices)} were not looked at: no agent is known whose turns would end")
    assert said == [
        f"rollout '{ROLLOUT}': 10 updatable in 4 waves, 0 current, 0 not updatable, 0 offline",
        "wave 1, pending: d0",
        "wave 2, pending: d1",
        "wave 3, pending: d2",
        "wave 4, pending: d3, d4, d5, d6, d7, d8, d9",
        LOST,
        "may fail: 0 in wave 1, 5% in each other one; each device must be steady for 0.3 s",
    ]
    first.assert_quiet()
    assert [line.partition(":")[0] for line in _lines(first)[1:]] == [
        f"wave {number}, passed" for number in range(1, 5)
    ]
    record = _record(ansible)
    assert record["state"] == "passed"
    assert _statuses(ansible) == dict.fromkeys(devices, "changed")
    for target in record["targets"]:
        wave = record["waves"][target["wave"] - 1]
        assert wave["started_at"] <= target["updated_at"] <= wave["ended_at"] == target["ended_at"]
        assert (target["from_version"], target["to_version"]) == (OLD, VERSION)
    ends = [wave["ended_at"] for wave in record["waves"]]
    begins = [wave["started_at"] for wave in record["waves"]]
    assert all(end <= begin for end, begin in zip(ends, begins[1:], strict=False))
    # Under its own name, although the tasks ran once for all hosts.
    assert _recap(first, "failed") == {}
    assert set(_recap(first, "ok")) == set(devices)
    assert '"done": true' in first.stdout
    second.assert_quiet()
    assert _recap(second, "changed") == {}
    assert _told(ansible, devices) == dict.fromkeys(devices, 1)
    assert _record(ansible) == record


def test_a_canary_that_fails_stops_the_rollout_until_it_is_repaired(ansible: Ansible) -> None:
    devices = _add(ansible, *_names(4))
    _stop(ansible, devices["d0"])

    failed = _rollout(ansible)
    told = _told(ansible, devices)
    _repair(ansible, devices["d0"])
    again = _rollout(ansible)

    assert failed.returncode == 2
    failed.assert_error(
        f"wave 1 of rollout '{ROLLOUT}' failed, as 1 of its 1 targets failed, 0 may; run the same again to try it ",
        "again, leave hosts out with self_update_exclude, or allow more with self_update_canary_max_failures: d0: ",
        "d0: the device did not update; it said: Failed: EACCES",
    )
    assert told == {"d0": 1}
    assert (_recap(failed, "failed"), set(_recap(failed, "ok"))) == ({"d0": 1}, set(devices))
    assert "WARNING" not in failed.output
    again.assert_quiet()
    assert _waves(ansible) == ["passed"] * 4
    assert _statuses(ansible) == {"d0": "ok", "d1": "changed", "d2": "changed", "d3": "changed"}


def test_a_device_that_comes_back_and_dies_again_fails_its_wave(ansible: Ansible) -> None:
    devices = _add(ansible, *_names(3))
    ansible.sandbox.upgrade_to(VERSION, stays=10)

    run = _rollout(ansible, self_update_soak=12, self_update_soak_grace=1)

    run.assert_error(
        "wave 1 of rollout", f"d0: after the update: not online, at version {VERSION} or newer, steady for 12"
    )
    assert _recap(run, "failed") == {"d0": 1}
    assert _told(ansible, devices) == {"d0": 1}
    [dead, *_others] = _record(ansible)["targets"]
    assert (dead["status"], dead["to_version"], dead["updated_at"] is not None) == ("failed", VERSION, True)


def test_within_the_budget_the_rollout_continues_and_failed_devices_are_tried_again_at_the_end(
    ansible: Ansible,
) -> None:
    devices = _add(ansible, *_names(6))
    for name in ("d0", "d3"):
        _stop(ansible, devices[name])
    told: dict[str, Any] = {
        "self_update_waves": ["1", "100%"],
        "self_update_canary_max_failures": 1,
        "self_update_max_failures": "20%",
    }

    first = _rollout(ansible, **told)
    _repair(ansible, devices["d0"])
    second = _rollout(ansible, "--limit", "d0,d3", **told)

    assert first.returncode == second.returncode == 2
    assert _recap(first, "failed") == {"d0": 1, "d3": 1}
    first.assert_error("d3: the device did not update; it said: Failed: EACCES")
    assert "self_update_canary_max_failures" not in first.output
    # As AWX relaunches a job on its failed hosts.
    assert _recap(second, "failed") == {"d3": 1}
    assert _waves(ansible) == ["passed", "passed"]
    assert _told(ansible, devices) == {**dict.fromkeys(devices, 1), "d3": 2}


def test_a_wave_above_its_budget_starts_no_more_devices(ansible: Ansible) -> None:
    devices = _add(ansible, *_names(6))
    for name in ("d1", "d2"):
        _stop(ansible, devices[name])
    told: dict[str, Any] = {"self_update_waves": ["1", "100%"], "self_update_concurrency": 1}

    failed = _rollout(ansible, **told)
    limited = _rollout(ansible, "--limit", "d1,d0", **told)

    assert _recap(failed, "failed") == {"d1": 1}
    assert _told(ansible, devices) == {"d0": 1, "d1": 2}
    assert _waves(ansible) == ["passed", "failed"]
    assert [line for line in _lines(limited) if line.startswith("in its waves")] == [
        "in its waves, but not in this run: d2, d3, d4, d5"
    ]


def test_the_advice_of_a_failed_wave_works_with_a_limit(ansible: Ansible) -> None:
    devices = _add(ansible, *_names(5))
    for name in ("d1", "d2"):
        _stop(ansible, devices[name])
    told: dict[str, Any] = {"self_update_waves": ["1", "4", "100%"]}

    failed = _rollout(ansible, **told)
    others = _rollout(ansible, "--limit", "d3,d4", **told)
    after_the_others = _told(ansible, devices)
    # "run the same again with d1, d2 in --limit", of which one is repaired, "or allow more".
    _repair(ansible, devices["d1"])
    again = _rollout(ansible, "--limit", "d3,d4,d1,d2", **told)
    allowed = _rollout(ansible, "--limit", "d4", **told, self_update_max_failures=1)

    advice = "to try it again, leave hosts out with self_update_exclude, or allow more with self_update_max_failures: "
    failed.assert_error(
        f"wave 2 of rollout '{ROLLOUT}' failed, as 2 of its 3 targets failed, 0 may; run the same again {advice}"
    )
    others.assert_error(f"run the same again with d1, d2 in --limit {advice}")
    assert "d4" not in after_the_others
    again.assert_error("1 of its 3 targets failed, 0 may; run the same again to try it again")
    assert _recap(again, "failed") == {"d2": 1}
    # The second wave is judged by what may fail now, and no device of it is touched.
    allowed.assert_quiet()
    assert _waves(ansible) == ["passed"] * 3
    assert _told(ansible, devices)["d4"] == 1
    assert _told(ansible, devices)["d2"] == 2


def test_a_device_that_is_left_out_lets_its_wave_pass_also_with_a_limit(ansible: Ansible) -> None:
    devices = _add(ansible, *_names(4))
    _stop(ansible, devices["d1"])
    told: dict[str, Any] = {"self_update_waves": ["1", "3", "100%"]}

    failed = _rollout(ansible, **told)
    rest = _rollout(ansible, "--limit", "d3", **told, self_update_exclude="d1")
    last = _rollout(ansible, **told)

    assert _recap(failed, "failed") == {"d1": 1}
    rest.assert_quiet()
    assert "left out of its waves: d1" in _lines(rest)
    assert _statuses(ansible) == {"d0": "changed", "d1": "excluded", "d2": "changed", "d3": "changed"}
    [excluded] = [target for target in _record(ansible)["targets"] if target["host"] == "d1"]
    assert excluded["reason"] == "left out with exclude=d1"
    last.assert_quiet()
    assert _waves(ansible) == ["passed"] * 3
    assert _told(ansible, devices) == dict.fromkeys(_names(4), 1)


def test_a_run_that_leaves_targets_out_goes_as_far_as_allowed(ansible: Ansible) -> None:
    devices = _add(ansible, *_names(4))
    _rollout(ansible, "--check")
    _rollout(ansible, self_update_gate=True)

    limited = _rollout(ansible, "--limit", "d1,d3")
    rest = _rollout(ansible)

    limited.assert_quiet()
    assert _recap(limited, "failed") == {}
    assert _lines(limited)[3] == "wave 3, pending: d2"
    assert _told(ansible, devices) == dict.fromkeys(devices, 1)
    rest.assert_quiet()
    assert _waves(ansible) == ["passed"] * 4


def test_targets_in_no_wave_are_shown_and_not_updated(ansible: Ansible) -> None:
    devices = _add(ansible, "d-able", "d-asleep")
    devices |= _add(ansible, "d-unable", self_update=UNABLE) | _add(ansible, "d-new", lettaCodeVersion="0.35.0")
    ansible.sandbox.offline(devices["d-asleep"]["id"])

    checked = _rollout(ansible, "--check")
    untouched = ansible.sandbox.received()
    run = _rollout(ansible)

    run.assert_quiet()
    assert untouched == {}
    assert _told(ansible, devices) == {"d-able": 1}
    lines = _lines(run)
    # Check mode shows all of this beforehand.
    planned = [line for line in _lines(checked) if not re.match("lost by|may fail|d-able was not looked at", line)]
    assert planned == [line.replace("passed", "pending") for line in lines]
    assert lines[:3] == [
        f"rollout '{ROLLOUT}': 1 updatable in 1 waves, 1 current, 1 not updatable, 1 offline",
        "wave 1, passed: d-able",
        "current: d-new",
    ]
    assert lines[3].startswith("offline: d-asleep: offline (last seen at ")
    assert lines[4] == (
        "to be updated by hand: d-unable: not updatable: Managed by the image.; installed in /opt/letta; "
        "its manual command: Ask the owner."
    )


def test_what_was_under_way_when_a_rollout_was_planned_is_shown_with_the_time(ansible: Ansible) -> None:
    devices = _add(ansible, "d-busy", "d-silent")
    ansible.sandbox.script("agent-1", LongTurn(seconds=3600))
    ansible.file("group_vars/all.yml", "letta_agent_id: agent-1")
    source = ansible.source(filters=["starts_with(connection_name, 'd')"])
    ansible.task("send_message", source=source, targets=["d-busy"], content="work").assert_quiet()
    ansible.sandbox.add_fault("relay_close", target=devices["d-silent"]["id"])

    run = _rollout(ansible, "--check")

    run.assert_quiet()
    busy, silent = (line for line in _lines(run) if " was " in line)
    assert re.fullmatch(r"d-busy was busy: a turn of agent-1( in \S+)? \(at 20\S+Z\)", busy)
    assert re.fullmatch(r"d-silent was not looked at: .+ \(at 20\S+Z\)", silent)


def test_a_device_missing_at_the_start_of_its_wave_fails_it_and_counts_once_it_is_back(ansible: Ansible) -> None:
    devices = _add(ansible, *_names(3))
    _rollout(ansible, self_update_gate=True)
    ansible.sandbox.offline(devices["d1"]["id"])

    gone = _rollout(ansible, self_update_offline_timeout=0.2)
    ansible.sandbox.online(devices["d1"]["id"])
    back = _rollout(ansible)

    gone.assert_error("wave 2 of rollout", "d1: the environment is offline")
    assert _recap(gone, "failed") == {"d1": 1}
    back.assert_quiet()
    assert _statuses(ansible) == dict.fromkeys(devices, "changed")


def _start_rollout(ansible: Ansible, **variables: Any) -> subprocess.Popen[bytes]:
    play = [{"import_playbook": NAME, "vars": QUICK | {"self_update_ledger": LEDGER} | variables}]
    path = ansible.file("interrupted.yml", yaml.safe_dump(play))
    return ansible.start(path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def _until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 90
    while not is_so() and time.monotonic() < until:
        time.sleep(0.05)
    assert is_so()


def test_at_the_end_of_its_time_a_run_ends_cleanly_and_the_next_one_goes_on(
    ansible: Ansible, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = _add(ansible, *_names(2))
    # It reports that it is about to restart, and restarts when this test allows it.
    slow = devices["d1"]
    ansible.sandbox.command(slow["id"], "upgrade-letta-code", output=f"Updated to {VERSION}.")
    told: dict[str, Any] = {"self_update_waves": ["1", "100%"], "self_update_update_timeout": 60}

    monkeypatch.setenv("ANSIBLE_TASK_TIMEOUT", "10")
    ended = _rollout(ansible, **told)
    monkeypatch.delenv("ANSIBLE_TASK_TIMEOUT")
    left = {target["host"]: target for target in _record(ansible)["targets"]}
    waves = _waves(ansible)
    _repair(ansible, slow)
    again = _rollout(ansible, **told)

    assert ended.returncode == 2
    ended.assert_error("Timed out after 10 second(s)")
    assert waves == ["passed", "running"]
    assert left["d1"]["told_at"] is not None
    again.assert_quiet()
    assert _waves(ansible) == ["passed", "passed"]
    assert _statuses(ansible) == dict.fromkeys(devices, "changed")
    assert _told(ansible, devices) == dict.fromkeys(devices, 1)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_rollout_continues_where_it_stopped(ansible: Ansible, signum: signal.Signals) -> None:
    devices = _add(ansible, *_names(6))
    late = _add(ansible, "d9")
    ansible.sandbox.patch(late["d9"]["id"], metadata={"lettaCodeVersion": VERSION})
    ansible.sandbox.upgrade_to(VERSION, seconds=1.5)
    told: dict[str, Any] = {"self_update_waves": ["1", "100%"], "self_update_concurrency": 2}

    process = _start_rollout(ansible, **told)
    _until(lambda: len(_told(ansible, devices)) == 3)
    process.send_signal(signum)
    process.communicate(timeout=30)
    interrupted = _waves(ansible)
    # After the plan was made, one device became old and another joined the fleet.
    ansible.sandbox.patch(late["d9"]["id"], metadata={"lettaCodeVersion": OLD})
    devices |= late | _add(ansible, "d8")
    ansible.sandbox.upgrade_to(VERSION, seconds=0.2)
    again = _rollout(ansible, **told)

    assert interrupted == ["passed", "running"]
    again.assert_quiet()
    assert _waves(ansible) == ["passed", "passed"]
    # Each device was asked once, also those that were about to restart when the run ended.
    assert _told(ansible, devices) == dict.fromkeys(_names(6), 1)
    assert "not in this rollout, as it was planned before: d8" in _lines(again)


def test_a_run_killed_in_a_wave_leaves_a_record_of_each_device(ansible: Ansible) -> None:
    devices = _add(ansible, *_names(3))
    # It reports that it is about to restart, and restarts when this test allows it.
    slow = devices["d1"]
    ansible.sandbox.command(slow["id"], "upgrade-letta-code", output=f"Updated to {VERSION}.")
    told: dict[str, Any] = {
        "self_update_waves": ["100%"], "self_update_concurrency": 1, "self_update_update_timeout": 60
    }  # fmt: skip

    killed = _start_rollout(ansible, **told)
    _until(lambda: set(_told(ansible, devices)) == {"d0", "d1"})
    killed.kill()
    killed.communicate(timeout=30)
    left = {target["host"]: target for target in _record(ansible)["targets"]}
    looks = len(ansible.sandbox.requests("retrieve"))
    again = _start_rollout(ansible, **told)
    _until(lambda: len(ansible.sandbox.requests("retrieve")) > looks + 4)
    told_while_it_was_slow = _told(ansible, devices)
    _repair(ansible, slow)
    again.communicate(timeout=90)

    assert _waves(ansible) == ["passed"]
    assert (left["d0"]["told_at"], left["d0"]["to_version"]) == (None, VERSION)
    assert left["d1"]["told_at"] > left["d0"]["updated_at"]
    assert (left["d1"]["updated_at"], left["d2"]["told_at"]) == (None, None)
    assert told_while_it_was_slow == {"d0": 1, "d1": 1}
    assert again.returncode == 0
    assert _told(ansible, devices) == dict.fromkeys(devices, 1)
    ended = {target["host"]: target for target in _record(ansible)["targets"]}
    assert _statuses(ansible) == dict.fromkeys(devices, "changed")
    assert ended["d0"]["updated_at"] == left["d0"]["updated_at"]
    assert {target["told_at"] for target in ended.values()} == {None}


def test_a_rollout_begun_with_the_version_before_is_taken_up(ansible: Ansible) -> None:
    devices = _add(ansible, *_names(5))
    # Its run has ended in the second wave: d1 was back, d2 was told and is back by now, d3 was not told.
    for name in ("d0", "d1", "d2"):
        _repair(ansible, devices[name])
    then, updated = "2026-01-31T12:00:00.000Z", f"updated from {OLD} to {VERSION}"
    before: dict[str, dict[str, Any]] = {
        "d0": {"wave": 1, "status": "changed", "to_version": VERSION, "updated_at": then, "ended_at": then},
        "d1": {"wave": 2, "to_version": VERSION, "updated_at": then},
        "d2": {"wave": 2, "told_at": then},
        "d3": {"wave": 2},
        "d4": {"wave": 3},
    }
    with open_ledger(ansible.directory / LEDGER, RunFacts("tester")) as ledger:
        ledger.change("INSERT INTO rollouts VALUES (?, ?, ?, ?, ?)", (ROLLOUT, VERSION, '["1", "4", "100%"]', then, 1))
        for number, state in ((1, "passed"), (2, "running"), (3, "pending")):
            ended = then if state == "passed" else None
            row = (ROLLOUT, number, state, None if state == "pending" else then, ended, 0, None)
            ledger.change("INSERT INTO rollout_waves VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        for place, (name, more) in enumerate(before.items()):
            target = {"rollout": ROLLOUT, "place": place, "host": name, "environment_id": devices[name]["id"]}
            values = {**target, "preflight": "updatable", "from_version": OLD, **more}
            marks = ", ".join("?" * len(values))
            ledger.change(f"INSERT INTO rollout_targets ({', '.join(values)}) VALUES ({marks})", list(values.values()))

    run = _rollout(ansible, self_update_waves=["1", "4", "100%"])

    run.assert_quiet()
    assert _waves(ansible) == ["passed"] * 3
    assert _told(ansible, devices) == {"d3": 1, "d4": 1}
    assert _statuses(ansible) == dict.fromkeys(devices, "changed")
    [d0, d1, *_others] = _record(ansible)["targets"]
    assert (d0["ended_at"], d1["updated_at"], d1["reason"]) == (then, then, updated)


def test_a_device_that_was_asked_and_did_not_update_in_time_is_asked_again(ansible: Ansible) -> None:
    devices = _add(ansible, "d0")
    ansible.sandbox.command(devices["d0"]["id"], "upgrade-letta-code", output=f"Updated to {VERSION}.")

    killed = _start_rollout(ansible, self_update_update_timeout=60)
    _until(lambda: _told(ansible, devices) == {"d0": 1})
    killed.kill()
    killed.communicate(timeout=30)
    run = _rollout(ansible, self_update_update_timeout=1)

    run.assert_error(f"d0: not back on version {VERSION} or newer within 1 s")
    assert _told(ansible, devices) == {"d0": 2}


def test_a_rollout_belongs_to_one_run_at_a_time(ansible: Ansible) -> None:
    devices = _add(ansible, *_names(2))
    ansible.sandbox.upgrade_to(VERSION, comes_back=False)
    told: dict[str, Any] = {"self_update_waves": ["100%"], "self_update_update_timeout": 90}

    first = _start_rollout(ansible, **told)
    _until(lambda: set(_told(ansible, devices)) == set(devices))
    second = _rollout(ansible, **told)
    checked = _rollout(ansible, "--check", **told)
    other = _rollout(ansible, **told, self_update_rollout="other", self_update_gate=True, self_update_offline_timeout=0)
    for device in devices.values():
        ansible.sandbox.online(device["id"])
        _repair(ansible, device)
    first.communicate(timeout=90)
    third = _rollout(ansible, **told)

    assert second.returncode == 2
    second.assert_error(f"name: another run has rollout '{ROLLOUT}' since 20", "; wait until that has ended")
    checked.assert_quiet()
    assert _lines(checked)[1].startswith("wave 1, running: ")
    assert "another run has" not in other.output
    assert first.returncode == 0
    third.assert_quiet()
    assert _told(ansible, devices) == dict.fromkeys(devices, 1)


def test_with_a_gate_each_run_is_a_wave(ansible: Ansible) -> None:
    devices = _add(ansible, *_names(3))
    stats = []

    for number in range(1, 5):
        run = _rollout(ansible, self_update_gate=True, self_update_waves=["1", "2", "100%"])
        run.assert_quiet()
        assert len(_told(ansible, devices)) == min(number, 3)
        stats.append(re.findall(r'"(?:done|next_wave|state)": "?(\w+)', run.stdout))

    assert stats == [
        ["false", "2", "running"],
        ["false", "3", "running"],
        ["true", "null", "passed"],
        ["true", "null", "passed"],
    ]


def test_a_run_whose_own_hosts_passed_passes_despite_another_failure_within_the_budget(ansible: Ansible) -> None:
    devices = _add(ansible, *_names(3))
    _stop(ansible, devices["d0"])
    told: dict[str, Any] = {"self_update_waves": ["1", "100%"], "self_update_canary_max_failures": 1}

    first = _rollout(ansible, **told)
    others = _rollout(ansible, "--limit", "d1,d2", **told)

    assert _recap(first, "failed") == {"d0": 1}
    others.assert_quiet()
    assert _recap(others, "failed") == {}
    assert "d0: the device did not update" in others.stdout


def test_a_probe_makes_an_agent_reply_on_each_device(ansible: Ansible) -> None:
    devices = _add(ansible, *_names(2))
    ansible.sandbox.add_fault("status", route="messages", status=422, target=devices["d1"]["id"])

    told: dict[str, Any] = {
        "self_update_probe_agent_id": "agent-probe",
        "self_update_probe_content": "Are you there?",
        "self_update_probe_timeout": 20,
    }

    checked = _rollout(ansible, "--check", **told)
    run = _rollout(ansible, **told)

    assert _lines(checked)[-1].endswith("steady for 0.3 s, and agent-probe must reply")
    assert _recap(run, "failed") == {"d1": 1}
    run.assert_error("wave 2 of rollout", "d1: the probe was not answered: ", "422")
    [message] = messages_of(ansible.sandbox, devices["d0"])
    assert (message["agentId"], message["content"]) == ("agent-probe", "Are you there?")
    assert message["conversationId"].startswith("conv-")
    assert _statuses(ansible) == {"d0": "changed", "d1": "failed"}


def test_more_hosts_than_the_limit_fail_as_one(ansible: Ansible) -> None:
    devices = _add(ansible, *_names(3))
    _stop(ansible, devices["d0"])

    run = _rollout(ansible, self_update_max_failed_hosts=2, self_update_hosts=",".join(devices))

    assert run.returncode == 2
    run.assert_error("wave 1 of rollout", "d0: the device did not update; it said: Failed: EACCES")
    assert len(_recap(run, "failed")) == 1


def test_the_devices_of_a_role_are_those_of_its_play(ansible: Ansible) -> None:
    devices = _add(ansible, *_names(4))
    play = {"hosts": "d0,d2", "gather_facts": False, "roles": [NAME]}
    path = ansible.file("site.yml", yaml.safe_dump([play]))

    own = {"self_update_hosts": None, "self_update_rollout": "mine", "self_update_ledger": "mine.sqlite"}
    run = _rollout(ansible, playbook=str(path), **own)

    run.assert_quiet()
    assert _told(ansible, devices) == {"d0": 1, "d2": 1}
    with read_ledger(ansible.directory / "mine.sqlite") as ledger:
        assert (export_rollout(ledger, "mine") or {})["state"] == "passed"


@pytest.mark.parametrize(
    ("variables", "parts"),
    [
        (
            {"self_update_hosts": "mode_nosuch"},
            ("no target", "self_update_hosts=mode_nosuch", "self_update_allow_empty"),
        ),
        ({"self_update_max_targets": 2}, ("max_targets: 3 targets are more than the 2 allowed",)),
        ({"self_update_version": "newest"}, ("version: must be a semantic version such as 0.34.12, got 'newest'",)),
        ({"self_update_version": None}, ("missing required arguments: self_update_version",)),
        ({"self_update_waves": ["1", "10"]}, ("waves: must end with '100%'",)),
        ({"self_update_canary_max_failures": "few"}, ("max_failures: must be a count",)),
        ({"self_update_update_timeout": 0}, ("update_timeout: must be more than 0",)),
        ({"self_update_gate": "perhaps"}, ("self_update_gate",)),
    ],
)
def test_invalid_options_fail_before_anything_is_updated(
    ansible: Ansible, variables: dict[str, Any], parts: Sequence[str]
) -> None:
    _add(ansible, *_names(3))

    run = _rollout(ansible, **variables)

    assert run.returncode == 2
    run.assert_error(*parts)
    assert ansible.sandbox.received() == {}


def test_hostile_names_and_texts_are_data(ansible: Ansible) -> None:
    text = "{{ lookup('pipe', 'touch pwned') }} $(touch pwned)"
    names = ["d{{ lookup('pipe', 'touch pwned') }}", "d'; DROP TABLE rollouts; --", "d<b>\u202eevil", "d" * 300]
    devices = _add(ansible, *names, "d-broken")
    _add(ansible, "d-unable", self_update={**UNABLE, "reason": text, "manual_command": text})
    ansible.sandbox.command(devices["d-broken"]["id"], "upgrade-letta-code", output=text, success=False)

    run = _rollout(ansible, self_update_waves=["100%"], self_update_canary_max_failures=1, self_update_hosts="letta")

    assert _recap(run, "failed") == {"d-broken": 1}
    run.assert_error(f"d-broken: the device did not update; it said: {text}")
    assert "WARNING" not in run.output
    assert not list(ansible.directory.glob("**/pwned"))
    assert _waves(ansible) == ["passed"]
    assert _told(ansible, devices) == dict.fromkeys(devices, 1)
    assert sorted(filter(None, _statuses(ansible).values())) == ["changed"] * 4 + ["failed"]
    assert f"to be updated by hand: d-unable: not updatable: {text}" in " ".join(_lines(run))
