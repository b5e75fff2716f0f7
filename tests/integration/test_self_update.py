"""self_update: which devices are updated, by which method, and what is reported."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.sandbox.turns import LongTurn

from .conftest import Ansible, messages_of, step

NPM = "npm install -g @letta-ai/letta-code@latest"
PROSE = "Ask whoever runs this machine."
WHY = "Managed by the image."


@pytest.fixture
def devices(ansible: Ansible) -> dict[str, dict[str, Any]]:
    """Simulated devices: an old one that updates itself, one that cannot, one whose manual command is prose."""
    unable = {"supported": False, "writable": False, "reason": WHY}
    said = {"able": {}, "unable": {**unable, "manual_command": NPM}, "prose": {**unable, "manual_command": PROSE}}
    ansible.sandbox.upgrade_to("0.34.12")
    return {
        name: ansible.sandbox.add_environment(
            connectionName=name, metadata={"lettaCodeVersion": "0.33.9", "self_update": self_update}
        )
        for name, self_update in said.items()
    }


def _list_commands(ansible: Ansible, device: dict[str, Any]) -> list[str]:
    """The commands that reached a device."""
    commands = ansible.sandbox.received().get(device["id"], {}).get("commands", [])
    return [command["command_id"] for command in commands]


@contextmanager
def _meanwhile(do: Callable[[], None]) -> Iterator[None]:
    """Do something while a playbook runs."""
    thread = threading.Thread(target=do)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _agent_updates(ansible: Ansible, device: dict[str, Any], version: str) -> Callable[[], None]:
    """Let a device come back on a version when a message has reached its agent."""

    def update() -> None:
        until = time.monotonic() + 60
        while not messages_of(ansible.sandbox, device) and time.monotonic() < until:
            time.sleep(0.05)
        ansible.sandbox.patch(device["id"], metadata={"lettaCodeVersion": version})
        ansible.sandbox.rotate(device["id"], restart=True)

    return update


@pytest.mark.covers("self_update", "target_version")
def test_devices_are_updated_once_and_only_those_that_need_it(
    ansible: Ansible, devices: dict[str, dict[str, Any]]
) -> None:
    newer = ansible.sandbox.add_environment(connectionName="newer", metadata={"lettaCodeVersion": "0.35.0"})

    first = ansible.task("self_update", targets=["able", "newer"], target_version="0.34.12")
    second = ansible.task("self_update", targets=["able", "newer"], target_version="0.34.12")

    first.assert_quiet()
    second.assert_quiet()
    result = first.result("it")
    assert (result["changed"], result["msg"]) == (True, "2 targets: 1 changed, 1 ok")
    able, other = result["targets"]
    assert able["connection_id"] not in (None, devices["able"]["connectionId"])
    assert (able["id"], able["status"], able["method"]) == (devices["able"]["id"], "changed", "command")
    assert (able["previous_version"], able["version"]) == ("0.33.9", "0.34.12")
    assert (other["status"], other["reason"]) == ("ok", "0.35.0 is newer than 0.34.12")
    result = second.result("it")
    assert (result["changed"], result["msg"]) == (False, "2 targets: 2 ok")
    assert (_list_commands(ansible, devices["able"]), _list_commands(ansible, newer)) == (["upgrade-letta-code"], [])


def test_the_current_host_is_the_target_without_targets(ansible: Ansible, devices: dict[str, dict[str, Any]]) -> None:
    ansible.sandbox.upgrade_to("0.34.12", comes_back_at="0.34.11")

    run = ansible.task("self_update", play={"hosts": "able"}, target_version="0.34.11")

    run.assert_quiet()
    result = run.result("it")
    assert (result["changed"], result["status"], result["version"]) == (True, "changed", "0.34.11")
    assert result["msg"] == "able: changed: updated from 0.33.9 to 0.34.11"


def test_hosts_that_are_one_device_are_updated_one_after_the_other_by_a_task_each(ansible: Ansible) -> None:
    old = {"lettaCodeVersion": "0.33.9"}
    pair = [
        ansible.sandbox.add_environment(connectionName=name, deviceId="device-pair", metadata=old)
        for name in ("one", "two")
    ]
    ansible.sandbox.upgrade_to("0.34.12", seconds=3)
    under_way = []

    def watch() -> None:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            told = sum(len(_list_commands(ansible, device)) for device in pair)
            rows = {entry["id"]: entry["row"] for entry in ansible.sandbox.fleet()}
            versions = [rows[device["id"]]["metadata"]["lettaCodeVersion"] for device in pair]
            under_way.append(told - versions.count("0.34.12"))
            if versions.count("0.34.12") == len(pair):
                return
            time.sleep(0.05)

    with _meanwhile(watch):
        run = ansible.task("self_update", play={"hosts": "one,two"}, target_version="0.34.12")

    run.assert_quiet()
    assert max(under_way) == 1


@pytest.mark.covers("self_update", "method", "agent_id", "conversation_id")
def test_the_requested_method_is_used(ansible: Ansible, devices: dict[str, dict[str, Any]]) -> None:
    with _meanwhile(_agent_updates(ansible, devices["able"], "0.34.12")):
        run = ansible.steps(
            step(
                "message",
                "self_update",
                targets=["able"],
                method="message",
                target_version="0.34.12",
                agent_id="agent-1",
                conversation_id="conv-1",
            ),
            step("command", "self_update", targets=["unable"], method="command", agent_id="agent-1"),
            step("auto", "self_update", targets=["unable"]),
        )

    [told] = run.result("message")["targets"]
    assert (told["status"], told["method"]) == ("changed", "message")
    [message] = messages_of(ansible.sandbox, devices["able"])
    assert NPM in message["content"].splitlines()
    assert (message["agentId"], message["conversationId"]) == ("agent-1", "conv-1")
    assert told["client_message_id"] == message["client_message_id"]
    assert _list_commands(ansible, devices["able"]) == []
    [refused] = run.result("command")["targets"]
    assert refused["error"]["code"] == "not_updatable"
    assert refused["error"]["message"].startswith(f"not updatable: {WHY}")
    [stuck] = run.result("auto")["targets"]
    assert stuck["error"]["code"] == "no_method"
    assert stuck["error"]["message"].endswith(f"to update by hand: {NPM}")
    assert messages_of(ansible.sandbox, devices["unable"]) == _list_commands(ansible, devices["unable"]) == []


def test_the_agent_of_each_host_is_instructed_if_the_command_is_not_possible(
    ansible: Ansible, devices: dict[str, dict[str, Any]]
) -> None:
    ansible.file("host_vars/unable.yml", "letta_agent_id: agent-host")
    with _meanwhile(_agent_updates(ansible, devices["unable"], "0.34.12")):
        run = ansible.task("self_update", targets=["able", "unable"], target_version="0.34.12")

    run.assert_quiet()
    assert [(target["status"], target["method"]) for target in run.result("it")["targets"]] == [
        ("changed", "command"),
        ("changed", "message"),
    ]
    [message] = messages_of(ansible.sandbox, devices["unable"])
    assert message["agentId"] == "agent-host"


@pytest.mark.covers("self_update", "allow_any_manual_command", "update_timeout")
def test_a_manual_command_in_prose_is_shown_and_sent_only_when_that_is_allowed(
    ansible: Ansible, devices: dict[str, dict[str, Any]]
) -> None:
    told = {"targets": ["prose"], "target_version": "0.34.12", "agent_id": "agent-1"}

    run = ansible.steps(step("default", "self_update", **told))
    sent = messages_of(ansible.sandbox, devices["prose"])
    started = time.monotonic()
    allowed = ansible.steps(step("any", "self_update", **told, allow_any_manual_command=True, update_timeout=0.5))

    run.assert_quiet()
    [skipped] = run.result("default")["targets"]
    assert (skipped["status"], skipped["reason"].endswith(f": {PROSE}"), sent) == ("skipped", True, [])
    [failed] = allowed.result("any")["targets"]
    assert failed["error"]["message"].startswith("not back on version 0.34.12 or newer within 0.5 s: it is online, ")
    assert failed["error"]["message"].endswith("; the message was delivered")
    assert PROSE in messages_of(ansible.sandbox, devices["prose"])[0]["content"]
    assert time.monotonic() - started < 60


@pytest.mark.covers("self_update", "update_timeout")
def test_a_device_that_does_not_come_back_in_time_has_failed_with_its_last_state(
    ansible: Ansible, devices: dict[str, dict[str, Any]]
) -> None:
    ansible.sandbox.upgrade_to("0.34.12", comes_back=False)

    run = ansible.task("self_update", targets=["able"], target_version="0.34.12", update_timeout=1)

    run.assert_error("able: failed: not back on version 0.34.12 or newer within 1 s: it is offline (last seen at ")
    result = run.result("it")
    assert (result["changed"], result["failed_hosts"]) == (False, ["able"])
    assert result["targets"][0]["output"].startswith("Updated to 0.34.12.")


def test_a_cut_relay_ends_as_changed_when_the_device_is_back(
    ansible: Ansible, devices: dict[str, dict[str, Any]]
) -> None:
    ansible.sandbox.add_fault("relay_cut_after", target=devices["able"]["id"])

    run = ansible.task("self_update", targets=["able"], target_version="0.34.12", agent_id="agent-1")

    run.assert_quiet()
    assert run.result("it")["targets"][0]["status"] == "changed"
    assert _list_commands(ansible, devices["able"]) == ["upgrade-letta-code"]
    assert messages_of(ansible.sandbox, devices["able"]) == []


def test_an_unclear_update_is_unknown_and_not_in_the_retry_file(
    ansible: Ansible, devices: dict[str, dict[str, Any]]
) -> None:
    ansible.sandbox.add_fault("relay_cut_before", target=devices["able"]["id"])

    run = ansible.task(
        "self_update", targets=["able"], target_version="0.34.12", update_timeout=1, retry_file="again.txt"
    )

    run.assert_error("able: unknown: ", "the update may be under way")
    assert run.result("it")["changed"] is True
    assert not (ansible.directory / "again.txt").exists()


@pytest.mark.covers("self_update", "when_busy", "busy_timeout", "agent_id")
def test_a_busy_device_is_told_as_the_task_says(ansible: Ansible, devices: dict[str, dict[str, Any]]) -> None:
    ansible.sandbox.script("agent-1", LongTurn(seconds=3600))
    told = {"targets": ["able"], "target_version": "0.34.12", "agent_id": "agent-1"}

    run = ansible.steps(
        step("work", "send_message", targets=["able"], agent_id="agent-1", content="work"),
        step("skip", "self_update", **told, when_busy="skip"),
        step("wait", "self_update", **told, busy_timeout=0),
        step("interrupt", "self_update", **told, when_busy="interrupt"),
    )

    skipped, late, interrupted = (run.result(task)["targets"][0] for task in ("skip", "wait", "interrupt"))
    assert (skipped["status"], skipped["reason"]) == ("skipped", "busy: a turn of agent-1")
    assert (late["status"], late["error"]["code"]) == ("failed", "busy")
    assert late["error"]["message"].startswith("not told to update, as it is still busy after 0 s: a turn of agent-1")
    assert (interrupted["status"], interrupted["version"]) == ("changed", "0.34.12")
    assert _list_commands(ansible, devices["able"]) == ["upgrade-letta-code"]


@pytest.mark.covers("self_update", "ledger")
def test_the_conversation_of_a_campaign_is_looked_at(ansible: Ansible, devices: dict[str, dict[str, Any]]) -> None:
    ansible.sandbox.script("agent-1", LongTurn(seconds=3600))
    told = {"targets": ["able"], "target_version": "0.34.12", "when_busy": "skip"}

    run = ansible.steps(
        step(
            "work", "send_message", targets=["able"], agent_id="agent-1", content="work", campaign="work",
            ledger="campaigns.sqlite",
        ),
        step("absent", "self_update", **told, ledger="absent.sqlite"),
        step("named", "self_update", **told, ledger="campaigns.sqlite"),
    )  # fmt: skip

    assert run.result("absent")["msg"].startswith("ledger: there is no ")
    [busy] = run.result("named")["targets"]
    assert busy["status"] == "skipped"
    assert busy["reason"].startswith("busy: a turn of agent-1")
    assert _list_commands(ansible, devices["able"]) == []


def test_a_device_that_is_busy_by_its_own_agent_is_waited_for_by_default(
    ansible: Ansible, devices: dict[str, dict[str, Any]]
) -> None:
    ansible.sandbox.script("agent-host", LongTurn(seconds=3600))
    ansible.file("host_vars/able.yml", "letta_agent_id: agent-host")
    ansible.steps(step("work", "send_message", targets=["able"], content="work")).assert_quiet()
    commands: list[list[str]] = []

    def end_turn() -> None:
        looks, until = len(ansible.sandbox.requests("relay")), time.monotonic() + 60
        while len(ansible.sandbox.requests("relay")) < looks + 2 and time.monotonic() < until:
            time.sleep(0.05)
        commands.append(_list_commands(ansible, devices["able"]))
        key = {"Authorization": f"Bearer {ansible.sandbox.api_key}"}
        url = "/v1/conversations/default/cancel?agent_id=agent-host"
        ansible.sandbox.control.post(url, headers=key, json={}).raise_for_status()

    with _meanwhile(end_turn):
        run = ansible.task("self_update", targets=["able"], target_version="0.34.12")

    run.assert_quiet()
    assert run.result("it")["targets"][0]["status"] == "changed"
    assert commands == [[]]


@pytest.mark.covers("self_update", "target_version", "update_timeout", "when_busy", "busy_timeout")
def test_invalid_versions_and_times_are_refused_before_anything_is_asked(
    ansible: Ansible, devices: dict[str, dict[str, Any]]
) -> None:
    run = ansible.steps(
        step("short", "self_update", targets=["able"], target_version="0.34"),
        step("words", "self_update", targets=["able"], target_version="latest"),
        step("timeout", "self_update", targets=["able"], update_timeout=0),
        step("method", "self_update", targets=["able"], method="magic"),
        step("busy", "self_update", targets=["able"], when_busy="kill"),
        step("busy timeout", "self_update", targets=["able"], busy_timeout=-1),
    )

    said = {entry["task"]: entry["result"]["msg"] for entry in run.results}
    assert said["short"] == "target_version: must be a semantic version such as 0.34.12, got '0.34'"
    assert said["words"] == "target_version: must be a semantic version such as 0.34.12, got 'latest'"
    assert said["timeout"] == "update_timeout: must be more than 0, got 0.0"
    assert "method" in said["method"]
    assert said["busy"] == "value of when_busy must be one of: wait, skip, interrupt, got: kill"
    assert said["busy timeout"] == "busy_timeout: must be 0 or more, got -1.0"
    assert ansible.sandbox.requests("retrieve") == []


def test_check_mode_shows_the_change_and_the_method(ansible: Ansible, devices: dict[str, dict[str, Any]]) -> None:
    told = {"targets": ["able", "unable", "prose"], "agent_id": "agent-1"}

    run = ansible.steps(
        step("old", "self_update", **told, target_version="0.34.12"),
        step("new", "self_update", **told, target_version="0.33.0"),
        arguments=("--check",),
    )

    run.assert_quiet()
    result = run.result("old")
    assert (result["changed"], result["msg"]) == (True, "3 targets: 2 changed, 1 skipped")
    assert [(target["method"], target["reason"]) for target in result["targets"][:2]] == [
        ("command", "would run upgrade-letta-code"),
        ("message", f"would have agent-1 do this: {NPM}"),
    ]
    assert run.result("new")["changed"] is False
    assert ansible.sandbox.received() == {}
    assert ansible.sandbox.requests("relay") == []
