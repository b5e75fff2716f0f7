"""The playbooks self_update and instruct on real devices."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Ansible, Run, recap_of
from tests.sandbox.process import Sandbox

from .conftest import Fleet
from .device import PATIENCE, VERSION, Device, eventually, wheel
from .npm_install import BREAKS, OLDER, SWAPS, npm_device

ROLLOUT = {
    "self_update_version": VERSION,
    "self_update_rollout": "r",
    "self_update_waves": ["1", "100%"],
    "self_update_update_timeout": PATIENCE,
    "self_update_soak": 1,
    "self_update_soak_grace": PATIENCE,
    "self_update_poll_interval": 0.2,
    "self_update_ledger": "ledger.sqlite",
}
REPORT = {"report_json_path": "fleet.json", "report_rollout": "r", "report_ledger": "ledger.sqlite"}


@contextmanager
def _old_devices(sandbox: Sandbox, folder: Path, **installs: str) -> Iterator[dict[str, Device]]:
    """Devices of the older version by name. installs: the effect of `npm install` on each."""
    # Loaded once, before the devices start in parallel.
    wheel(OLDER)
    with ExitStack() as running:

        def start(name: str) -> Device:
            return running.enter_context(npm_device(sandbox, name, folder / name, installs[name]))

        with ThreadPoolExecutor() as starting:
            devices = list(starting.map(start, installs))
        yield dict(zip(installs, devices, strict=True))


def _run(ansible: Ansible, *playbooks: str, **variables: Any) -> Run:
    plays = [{"import_playbook": f"fleetops.environments.{name}"} for name in playbooks]
    return ansible.playbook(plays, "-e", json.dumps(variables))


def _entry(sandbox: Sandbox, name: str) -> dict[str, Any]:
    [entry] = [entry for entry in sandbox.fleet() if entry["name"] == name]
    return entry


def _versions(sandbox: Sandbox) -> dict[str, str]:
    return {entry["name"]: entry["row"]["metadata"]["lettaCodeVersion"] for entry in sandbox.fleet()}


def _connections(sandbox: Sandbox) -> dict[str, str | None]:
    """Name → connection of the device, for those that are online."""
    return {entry["name"]: entry["row"]["connectionId"] for entry in sandbox.fleet() if entry["online"]}


def _shown(run: Run, task: str) -> list[list[str]]:
    """The output of a task of the role, for each time that it ran."""
    return [entry["result"]["msg"] for entry in run.results if entry["task"] == task and "msg" in entry["result"]]


def test_the_other_devices_are_updated_after_the_canary_and_a_second_run_changes_nothing(
    letta: None, lone_sandbox: Sandbox, tmp_path: Path
) -> None:
    names = ["alpha", "beta", "gamma"]
    ansible = Ansible(tmp_path, lone_sandbox)
    with _old_devices(lone_sandbox, tmp_path, **dict.fromkeys(names, SWAPS)):
        before, old = _connections(lone_sandbox), _versions(lone_sandbox)
        first = _run(ansible, "self_update", **ROLLOUT)
        between, told = _connections(lone_sandbox), lone_sandbox.received()
        second = _run(ansible, "self_update", "report", **ROLLOUT, **REPORT)
        after, new = _connections(lone_sandbox), _versions(lone_sandbox)

    first.assert_quiet()
    planned, done = _shown(first, "Show the rollout")
    assert planned[0] == "rollout 'r': 3 updatable in 2 waves, 0 current, 0 not updatable, 0 offline"
    assert done[1:] == ["wave 1, passed: alpha", "wave 2, passed: beta, gamma"]
    assert old == dict.fromkeys(names, OLDER)
    assert new == dict.fromkeys(names, VERSION)
    assert sorted(before) == sorted(between) == names
    assert set(before.values()).isdisjoint(between.values())

    second.assert_quiet()
    assert [entry["task"] for entry in second.results if entry["result"].get("changed")] == ["Write the report"]
    assert (after, lone_sandbox.received()) == (between, told)
    report = json.loads((tmp_path / "fleet.json").read_text())
    assert {row["host"]: row["version"] for row in report["environments"]} == new
    rollout = report["rollout"]
    assert (rollout["state"], [wave["state"] for wave in rollout["waves"]]) == ("passed", ["passed", "passed"])
    assert [(end["host"], end["status"], end["from_version"], end["to_version"]) for end in rollout["targets"]] == [
        (name, "changed", OLDER, VERSION) for name in names
    ]
    canary, rest = rollout["waves"]
    assert canary["started_at"] < canary["ended_at"] <= rest["started_at"] < rest["ended_at"]


def test_a_canary_that_does_not_come_back_stops_the_rollout_before_the_next_wave(
    letta: None, lone_sandbox: Sandbox, tmp_path: Path
) -> None:
    # The whole time passes, and it may be too short for the device to do anything.
    variables = {**ROLLOUT, "self_update_update_timeout": 8}
    with _old_devices(lone_sandbox, tmp_path, alpha=BREAKS, beta=SWAPS) as devices:
        before = _connections(lone_sandbox)
        run = _run(Ansible(tmp_path, lone_sandbox), "self_update", **variables)
        devices["alpha"].process.wait(PATIENCE)
        eventually(lambda: "alpha" not in _connections(lone_sandbox))
        after, told = _connections(lone_sandbox), lone_sandbox.received()
        ids = {name: _entry(lone_sandbox, name)["id"] for name in devices}

    assert run.returncode == 2
    run.assert_error("wave 1 of rollout 'r' failed", f"alpha: not back on version {VERSION} or newer within 8 s: ")
    assert {host: counts["failed"] for host, counts in recap_of(run).items()} == {"alpha": 1, "beta": 0}
    _planned, ended = _shown(run, "Show the rollout")
    assert [line.partition(":")[0] for line in ended[1:3]] == ["wave 1, failed", "wave 2, pending"]
    assert after == {"beta": before["beta"]}
    assert _versions(lone_sandbox)["beta"] == OLDER
    assert set(told) == {ids["alpha"]}


@pytest.fixture
def omega(fleet: Fleet, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The entry of a device that was in the fleet and is now offline. Its home is `omega` in the test's directory."""
    with Device.start(fleet.sandbox, "omega", tmp_path / "omega"):
        pass
    eventually(lambda: "omega" not in _connections(fleet.sandbox))
    entry = _entry(fleet.sandbox, "omega")
    yield entry
    fleet.sandbox.remove(entry["id"])


def test_an_instruction_is_answered_and_reaches_an_offline_device_once_it_is_back(
    ansible: Ansible, fleet: Fleet, omega: dict[str, Any], tmp_path: Path
) -> None:
    replies = {name: f"This is {name}." for name in ("alpha", "beta", "omega")}
    for name, reply in replies.items():
        fleet.sandbox.script(f"agent-of-{name}", reply)
    ansible.file("group_vars/letta.yml", "letta_agent_id: agent-of-{{ inventory_hostname }}\n")
    told = {
        "instruct_hosts": ",".join(replies),
        "instruct_content": "Who are you?",
        "instruct_campaign": "who",
        "instruct_ledger": "ledger.sqlite",
        "instruct_wait_for_reply": True,
        "instruct_reply_timeout": PATIENCE,
        "instruct_reply_dir": "replies",
        "instruct_result_file": "results.jsonl",
    }

    def result_file() -> dict[str, tuple[str, str | None]]:
        lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
        return {line["host"]: (line["status"], line["reply"] and line["reply"]["text"]) for line in lines}

    def is_looked_up() -> bool:
        return any(omega["row"]["deviceId"] in request["path"] for request in fleet.sandbox.requests())

    without = _run(ansible, "instruct", **told)
    without_file = result_file()
    fleet.sandbox.clear_requests()
    wait = {"instruct_when_offline": "wait", "instruct_offline_timeout": PATIENCE}
    with ThreadPoolExecutor() as beside:
        waiting = beside.submit(_run, ansible, "instruct", **told, **wait)
        eventually(is_looked_up)
        with Device.start(fleet.sandbox, "omega", tmp_path / "omega"):
            with_all = waiting.result()

    without.assert_quiet()
    assert without_file == {
        "alpha": ("sent", "This is alpha."),
        "beta": ("sent", "This is beta."),
        "omega": ("offline", None),
    }
    [lines] = _shown(without, "Show what happened to each target")
    assert [line.split("  ")[3] for line in lines] == ["This is alpha.", "This is beta.", "the environment is offline"]

    with_all.assert_quiet()
    assert result_file() == {
        "alpha": ("already_sent", "This is alpha."),
        "beta": ("already_sent", "This is beta."),
        "omega": ("sent", "This is omega."),
    }
    assert {path.stem: path.read_text() for path in (tmp_path / "replies").iterdir()} == {
        name: f"{reply}\n" for name, reply in replies.items()
    }
    assert {id_: device["turns"] for id_, device in fleet.sandbox.received().items()} == {
        _entry(fleet.sandbox, name)["id"]: 1 for name in replies
    }
