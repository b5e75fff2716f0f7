"""environment_command: which command runs on which device, how often, and what its result is."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Ansible, step


@pytest.fixture
def devices(ansible: Ansible) -> list[dict[str, Any]]:
    """Three simulated devices that list the commands reload and compact."""
    metadata = {"lettaCodeVersion": "0.34.12", "supported_commands": ["reload", "compact"]}
    names = ("one", "two", "three")
    return [ansible.sandbox.add_environment(connectionName=name, metadata=metadata) for name in names]


def _list_commands(ansible: Ansible, device: dict[str, Any]) -> list[dict[str, Any]]:
    """The commands that reached a device."""
    commands: list[dict[str, Any]] = ansible.sandbox.received().get(device["id"], {}).get("commands", [])
    return commands


@pytest.mark.covers("environment_command", "command", "args", "agent_id", "conversation_id")
def test_a_command_runs_once_on_each_device_and_its_output_comes_back(
    ansible: Ansible, devices: list[dict[str, Any]]
) -> None:
    ansible.sandbox.command(devices[1]["id"], "compact", output="Compacted 7 messages")
    two = {"host": "two", "agent_id": "agent-2", "conversation_id": "conv-2"}

    run = ansible.task("environment_command", targets=["one", two], command="compact", args="all", agent_id="agent-1")

    run.assert_quiet()
    result = run.result("it")
    assert (result["changed"], result["counts"]["changed"], result["msg"]) == (True, 2, "2 targets: 2 changed")
    one, other = result["targets"]
    assert (one["output"], other["output"]) == ("Done.", "Compacted 7 messages")
    assert (other["version"], other["connection_id"]) == ("0.34.12", devices[1]["connectionId"])
    for device, agent, conversation in ((devices[0], "agent-1", "default"), (devices[1], "agent-2", "conv-2")):
        [command] = _list_commands(ansible, device)
        assert (command["command_id"], command["args"]) == ("compact", "all")
        assert command["runtime"] == {"agent_id": agent, "conversation_id": conversation}
    assert _list_commands(ansible, devices[2]) == []


def test_the_current_host_is_the_target_without_targets(ansible: Ansible, devices: list[dict[str, Any]]) -> None:
    run = ansible.task("environment_command", command="reload", play={"hosts": "one,two"})

    run.assert_quiet()
    assert [run.result("it", host)["status"] for host in ("one", "two")] == ["changed", "changed"]
    assert [len(_list_commands(ansible, device)) for device in devices] == [1, 1, 0]


def test_a_conversation_cannot_be_made_for_a_command(ansible: Ansible, devices: list[dict[str, Any]]) -> None:
    run = ansible.task("environment_command", targets=["one"], command="reload", agent_id="a", conversation_id="new")

    run.assert_error("conversation_id: must be one that exists, got 'new' for one")
    assert _list_commands(ansible, devices[0]) == []


def test_a_command_that_fails_has_failed_with_its_output(ansible: Ansible, devices: list[dict[str, Any]]) -> None:
    ansible.sandbox.command(devices[0]["id"], "reload", output="No settings\nhere", success=False)

    run = ansible.task("environment_command", command="reload", play={"hosts": "one"})

    run.assert_error("the command failed: No settings here")
    result = run.result("it")
    assert (result["output"], result["error"]["code"]) == ("No settings\nhere", "command_failed")
    assert result["changed"] is False


def test_a_command_that_the_device_does_not_list_is_refused_before_anything_is_sent(
    ansible: Ansible, devices: list[dict[str, Any]]
) -> None:
    bare = ansible.sandbox.add_environment(connectionName="bare", metadata={"$delete": ["supported_commands"]})

    run = ansible.steps(
        step("dance", "environment_command", command="dance", targets=["one"]),
        step("bare", "environment_command", command="reload", targets=["bare"]),
    )

    said = [run.result(task)["targets"][0]["error"] for task in ("dance", "bare")]
    assert [error["code"] for error in said] == ["unsupported", "unsupported"]
    assert "does not support 'dance'; its supported_commands are reload, compact" in said[0]["message"]
    assert "its supported_commands are nothing" in said[1]["message"]
    assert ansible.sandbox.requests("relay") == []
    assert _list_commands(ansible, devices[0]) == _list_commands(ansible, bare) == []


@pytest.mark.parametrize("command", ["browser_device_mcp_oauth", "monitor_stop", "secret", "toolset"])
def test_what_does_not_run_as_a_command_is_refused_with_the_way_out(ansible: Ansible, command: str) -> None:
    listed = ["reload", "browser_device_mcp_oauth", "monitor_stop", "secret", "toolset"]
    ansible.sandbox.add_environment(connectionName="lister", metadata={"supported_commands": listed})

    run = ansible.steps(
        step("it", "environment_command", command=command, targets=["lister"]),
        step("dance", "environment_command", command="dance", targets=["lister"]),
    )

    refused = run.result("it")["targets"][0]["error"]
    assert refused["code"] == "unsupported"
    assert refused["message"].startswith(f"command: {command!r} does not run as a command; use Letta Code itself")
    assert ("playbook fleetops.environments.stop" in refused["message"]) == (command == "monitor_stop")
    said = run.result("dance")["targets"][0]["error"]["message"]
    assert said.endswith("does not support 'dance'; its supported_commands are reload")
    assert ansible.sandbox.requests("relay") == []


def test_a_device_that_never_answers_over_the_relay_is_given_up_after_the_nearest_relay_timeout(
    ansible: Ansible, devices: list[dict[str, Any]]
) -> None:
    ansible.sandbox.add_fault("relay_silent")
    told = {"command": "reload", "targets": ["one"]}
    variable = {"letta_relay_timeout": 0.5}

    run = ansible.steps(
        {**step("option", "environment_command", **told, relay_timeout=0.4), "vars": variable},
        {**step("variable", "environment_command", **told), "vars": variable},
        step("environment", "environment_command", **told),
        step("zero", "environment_command", **told, relay_timeout=0),
        env={"LETTA_RELAY_TIMEOUT": "0.6"},
    )

    for name, seconds in (("option", "0.4"), ("variable", "0.5"), ("environment", "0.6")):
        target = run.result(name)["targets"][0]
        assert target["status"] == "failed"
        assert target["error"]["message"].endswith(f"did not answer within the relay_timeout of {seconds} s")
    assert run.result("zero")["msg"] == "relay_timeout: must be between 0 and 86400 seconds, got 0.0"
    assert len(ansible.sandbox.requests("relay")) == 3
    assert _list_commands(ansible, devices[0]) == []


@pytest.mark.covers("environment_command", "command_timeout")
def test_an_answer_that_does_not_come_in_time_is_unknown(ansible: Ansible, devices: list[dict[str, Any]]) -> None:
    for device in devices:
        ansible.sandbox.command(device["id"], "reload", output="late", seconds=1)
    ansible.sandbox.patch(devices[1]["id"], metadata={"lettaCodeVersion": "0.25.0"})

    run = ansible.steps(
        step("short", "environment_command", command="reload", targets=["one", "two"], command_timeout=0.2),
        step("long", "environment_command", command="reload", targets=["three"], command_timeout=30),
        step("none", "environment_command", command="reload", targets=["three"], command_timeout=0),
    )

    new, old = run.result("short")["targets"]
    assert (new["status"], old["status"]) == ("unknown", "unknown")
    assert new["error"]["message"].endswith("no answer to execute_command within 0.2 s")
    assert old["error"]["message"].endswith(
        "the device runs 0.25.0, and those before 0.30.0 may run a command without answering"
    )
    assert run.result("long")["targets"][0]["output"] == "late"
    assert run.result("none")["msg"] == "command_timeout: must be more than 0, got 0.0"


@pytest.mark.parametrize(
    ("fault", "status", "runs"),
    [
        ("relay_close", "failed", 0),
        ("relay_cut_before", "unknown", 0),
        ("relay_cut_after", "unknown", 1),
        ("relay_cut_during", "unknown", 1),
        ("relay_not_json", "changed", 1),
        ("relay_silent", "failed", 0),
    ],
)
def test_the_command_runs_at_most_once_and_the_result_is_honest_wherever_the_relay_fails(
    ansible: Ansible, devices: list[dict[str, Any]], fault: str, status: str, runs: int
) -> None:
    ansible.sandbox.add_fault(fault, target=devices[0]["id"])

    run = ansible.task(
        "environment_command", command="reload", targets=["one", "two"], retries=1, timeout=1, max_failures=1
    )

    one, two = run.result("it")["targets"]
    assert (one["status"], two["status"]) == (status, "changed")
    assert len(_list_commands(ansible, devices[0])) == runs
    assert "Traceback" not in run.output
    if status != "changed":
        assert "\n" not in one["error"]["message"]
        assert ansible.sandbox.url in one["error"]["message"]


def test_check_mode_asks_whether_the_command_exists_and_runs_nothing(
    ansible: Ansible, devices: list[dict[str, Any]]
) -> None:
    run = ansible.steps(
        step("reload", "environment_command", command="reload", targets=["one"]),
        step("dance", "environment_command", command="dance", targets=["one"]),
        arguments=("--check",),
    )

    assert run.result("reload")["changed"] is True
    assert run.result("dance")["targets"][0]["error"]["code"] == "unsupported"
    assert _list_commands(ansible, devices[0]) == []
    assert ansible.sandbox.requests("relay") == []


def test_check_mode_waits_for_no_device(ansible: Ansible, devices: list[dict[str, Any]]) -> None:
    ansible.sandbox.offline(devices[0]["id"])

    run = ansible.steps(
        step("it", "environment_command", command="reload", targets=["one", "two"], when_offline="wait"),
        arguments=("--check",),
    )

    run.assert_quiet()
    assert [target["status"] for target in run.result("it")["targets"]] == ["offline", "changed"]
