"""wait_for_environment: what it waits for, how long, how often it looks, and what it shows meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from .conftest import Ansible, step

MODULE = "wait_for_environment"


@pytest.fixture
def device(ansible: Ansible) -> dict[str, Any]:
    """A simulated device that is online."""
    return ansible.sandbox.add_environment(
        connectionName="one", currentMode="default", metadata={"lettaCodeVersion": "0.34.12"}
    )


def _after_the_first_look(ansible: Ansible, do: Callable[[], object]) -> threading.Thread:
    def wait() -> None:
        until = time.monotonic() + 60
        while not ansible.sandbox.requests("retrieve") and time.monotonic() < until:
            time.sleep(0.05)
        do()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.covers("wait_for_environment", "state")
def test_the_task_waits_until_the_device_is_online(ansible: Ansible, device: dict[str, Any]) -> None:
    ansible.sandbox.offline(device["id"])
    thread = _after_the_first_look(ansible, lambda: ansible.sandbox.online(device["id"]))

    run = ansible.task(MODULE, play={"hosts": "one"}, wait_timeout=60)

    thread.join()
    run.assert_quiet()
    result = run.result("it")
    assert (result["changed"], result["status"], result["online"], result["msg"]) == (False, "ok", True, "one: ok")
    assert 0.9 < result["elapsed"] < 60
    assert len(ansible.sandbox.requests("retrieve")) >= 2


@pytest.mark.covers("wait_for_environment", "state", "version", "mode", "wait_timeout")
def test_every_condition_must_hold_at_once(ansible: Ansible, device: dict[str, Any]) -> None:
    met = [
        {},
        {"version": "0.34.12"},
        {"version": "0.34.0"},
        {"mode": "standard"},
        {"mode": "default", "version": "0.34.12"},
    ]
    unmet = [
        {"state": "offline"},
        {"version": "0.34.13"},
        {"mode": "unrestricted"},
        {"mode": "acceptEdits", "version": "0.34.12"},
        {"mode": "standard", "version": "0.35.0"},
        {"state": "offline", "mode": "standard"},
    ]

    run = ansible.steps(
        *(
            step(str(number), MODULE, targets=["one"], wait_timeout=0, **wanted)
            for number, wanted in enumerate([*met, *unmet])
        )
    )

    assert [entry["outcome"] for entry in run.results] == ["ok"] * len(met) + ["failed"] * len(unmet)
    assert len(ansible.sandbox.requests("retrieve")) == len(met) + len(unmet)
    assert all(entry["result"]["changed"] is False for entry in run.results)
    [last] = run.result("9")["targets"]
    assert last["error"] == {
        "code": "timeout",
        "message": "not online, at version 0.35.0 or newer, in mode standard after 0 s: it is online, "
        "version 0.34.12, mode default",
    }
    assert (last["online"], last["version"], last["mode"]) == (True, "0.34.12", "default")


@pytest.mark.covers("wait_for_environment", "wait_timeout", "poll_interval")
def test_the_options_decide_how_often_and_how_long_it_looks(ansible: Ansible, device: dict[str, Any]) -> None:
    told = {"targets": ["one"], "state": "offline"}

    run = ansible.steps(
        step("often", MODULE, **told, wait_timeout=2, poll_interval=0.2),
        step("seldom", MODULE, **told, wait_timeout=2),
    )

    often, seldom = (run.result(task)["targets"][0] for task in ("often", "seldom"))
    assert 2 <= often["elapsed"] < 10
    assert 2 <= seldom["elapsed"] < 10
    looks = len(ansible.sandbox.requests("retrieve"))
    # Pauses of one and at most two seconds end with the third look.
    assert 6 <= looks - 3 <= 12


@pytest.mark.covers("wait_for_environment", "steady_for")
def test_a_device_that_comes_back_and_dies_restarts_the_wait(ansible: Ansible, device: dict[str, Any]) -> None:
    stays = ansible.sandbox.add_environment(connectionName="stays")

    def die() -> None:
        time.sleep(1)
        ansible.sandbox.offline(device["id"])

    thread = _after_the_first_look(ansible, die)
    told = {"targets": ["one", "stays"], "wait_timeout": 5, "poll_interval": 0.2}

    run = ansible.steps(step("steady", MODULE, **told, steady_for=3), step("looks", MODULE, **told, state="online"))

    thread.join()
    assert stays["connectionId"] is not None
    died, steady = run.result("steady")["targets"]
    assert (died["status"], died["steady"], died["online"]) == ("failed", 0.0, False)
    assert died["error"]["message"].startswith("not online, steady for 3 s after 5 s: it is offline")
    assert (steady["status"], steady["steady"] >= 3) == ("ok", True)


def test_a_fan_out_reports_every_target_and_which_to_wait_for_again(ansible: Ansible, device: dict[str, Any]) -> None:
    away = ansible.sandbox.add_environment(connectionName="away")
    ansible.sandbox.offline(away["id"])
    told = {"targets": ["one", "away"], "wait_timeout": 0}

    run = ansible.steps(
        step("none", MODULE, **told, retry_file="again.txt", result_file="report.jsonl"),
        step("half", MODULE, **told, max_failures="50%"),
    )

    assert [entry["outcome"] for entry in run.results] == ["failed", "ok"]
    result = run.result("none")
    assert result["counts"] == {"ok": 1, "skipped": 0, "not_attempted": 0, "failed": 1, "unknown": 0}
    assert (result["failed_hosts"], result["changed"]) == (["away"], False)
    assert result["msg"].startswith("2 targets: 1 ok, 1 failed; failed: away: failed: not online after 0 s: it is offl")
    assert (ansible.directory / "again.txt").read_text() == "away\n"
    assert len((ansible.directory / "report.jsonl").read_text().splitlines()) == 2


@pytest.mark.covers("wait_for_environment", "version", "mode", "wait_timeout", "poll_interval", "steady_for")
def test_invalid_options_are_refused_before_anything_is_asked(ansible: Ansible, device: dict[str, Any]) -> None:
    wrong: dict[str, dict[str, Any]] = {
        "version: must be a semantic version such as 0.34.12, got 'newest'": {"version": "newest"},
        "wait_timeout: must be 0 or more, got -1.0": {"wait_timeout": -1},
        "poll_interval: must be more than 0, got 0.0": {"poll_interval": 0},
        "steady_for: must be 0 or more, got -1.0": {"steady_for": -1},
        "steady_for: must be at most the wait_timeout of 300.0, got 301.0": {"steady_for": 301},
        "value of mode must be one of: ": {"mode": "acceptedits"},
        "value of state must be one of: ": {"state": "gone"},
        "unsupported option: when_offline": {"when_offline": "wait"},
        "unsupported option: agent_id": {"agent_id": "agent-1"},
    }

    run = ansible.steps(*(step(message, MODULE, targets=["one"], **told) for message, told in wrong.items()))

    for entry in run.results:
        assert entry["result"]["msg"].startswith(entry["task"]), entry["result"]["msg"]
    assert len(run.results) == len(wrong)
    assert ansible.sandbox.requests("retrieve") == []


def test_check_mode_looks_once_and_shows_the_goal(ansible: Ansible, device: dict[str, Any]) -> None:
    run = ansible.steps(
        step("here", MODULE, targets=["one"]),
        step("old", MODULE, targets=["one"], version="0.35.0"),
        arguments=("--check",),
    )

    run.assert_quiet()
    assert run.result("here")["targets"][0]["status"] == "ok"
    [old] = run.result("old")["targets"]
    assert (old["status"], old["reason"]) == (
        "skipped",
        "would wait until online, at version 0.35.0 or newer: it is online, version 0.34.12, mode default",
    )
    assert len(ansible.sandbox.requests("retrieve")) == 2


@pytest.mark.parametrize("strategy", ["linear", "free"])
def test_progress_is_shown_on_a_terminal_and_nowhere_else(
    ansible: Ansible, device: dict[str, Any], strategy: str
) -> None:
    task = {"name": "it", f"fleetops.environments.{MODULE}": {"state": "offline", "wait_timeout": 1}}
    hidden = {**task, "name": "hidden", "no_log": True}
    play = {"hosts": "one", "gather_facts": False, "strategy": strategy, "tasks": [{**task, "ignore_errors": True}]}
    path = ansible.file("play.yml", yaml.safe_dump([play]))
    silent = ansible.playbook([{**play, "tasks": [{**task, "ignore_errors": True}]}])
    shown = ansible.on_a_terminal(path)
    nothing = ansible.on_a_terminal(ansible.file("hidden.yml", yaml.safe_dump([{**play, "tasks": [hidden]}])))

    line = "waiting until offline, 0 s: one is online, version 0.34.12, mode default"
    assert line in shown
    assert "WARNING" not in shown
    assert "waiting until" not in silent.output
    assert "waiting until" not in nothing
