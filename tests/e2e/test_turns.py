"""Turns of real devices, stopped and continued; and their modes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.conftest import Ansible, step
from tests.sandbox.turns import ApprovalTurn, LongTurn

from .conftest import Fleet
from .device import eventually


def _api(ansible: Ansible, path: str) -> Any:
    key = {"Authorization": f"Bearer {ansible.sandbox.api_key}"}
    return ansible.sandbox.control.get(path, headers=key).json()


def _history(ansible: Ansible, agent: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = _api(ansible, f"/v1/agents/{agent}/messages?order=asc")
    return rows


def _answers(ansible: Ansible, agent: str) -> list[str]:
    return [row["content"] for row in _history(ansible, agent) if row["message_type"] == "assistant_message"]


def _at_work(ansible: Ansible, agent: str, *devices: str) -> None:
    """Start a long turn of an agent on each device, each in its own conversation, with a waiting message."""
    for device in devices:
        ansible.sandbox.script(f"{agent}-{device}", LongTurn(seconds=3600), "It goes on.")
    told = {"targets": _targets(agent, *devices)}
    ansible.steps(step("work", "send_message", **told, content="work")).assert_quiet()
    for device in devices:
        eventually(lambda agent_id=f"{agent}-{device}": _history(ansible, agent_id) != [])
    ansible.steps(step("next", "send_message", **told, content="next")).assert_quiet()


def _targets(agent: str, *devices: str) -> list[dict[str, str]]:
    return [{"host": device, "agent_id": f"{agent}-{device}"} for device in devices]


def test_turns_are_aborted_on_two_devices_and_waiting_messages_continue(ansible: Ansible) -> None:
    _at_work(ansible, "agent-abort", "alpha", "beta")
    told = {"targets": _targets("agent-abort", "alpha", "beta")}

    run = ansible.steps(
        step("check", "environment_turn", **told, state="aborted") | {"check_mode": True},
        step("abort", "environment_turn", **told, state="aborted"),
        step("again", "environment_turn", **told, state="aborted"),
    )

    run.assert_quiet()
    for device, would, did, again in zip(
        ("alpha", "beta"), *(run.result(task)["targets"] for task in ("check", "abort", "again")), strict=True
    ):
        assert (would["status"], did["status"], again["status"]) == ("changed", "changed", "ok")
        assert (did["via"], did["queue_paused"], again["queue_paused"]) == ("relay", True, True)
        [run_id] = did["run_ids"]
        assert would["run_ids"] == [run_id]
        eventually(lambda run_id=run_id: _api(ansible, f"/v1/runs/{run_id}")["status"] == "cancelled")
        assert _answers(ansible, f"agent-abort-{device}") == []

    run = ansible.steps(
        step("check", "environment_turn", **told, state="resumed") | {"check_mode": True},
        step("resume", "environment_turn", **told, state="resumed"),
        step("again", "environment_turn", **told, state="resumed"),
    )

    run.assert_quiet()
    statuses = [[target["status"] for target in entry["result"]["targets"]] for entry in run.results]
    assert statuses == [["changed", "changed"], ["changed", "changed"], ["ok", "ok"]]
    for device in ("alpha", "beta"):
        eventually(lambda agent=f"agent-abort-{device}": _answers(ansible, agent) == ["It goes on."])


def test_without_the_relay_the_server_ends_the_turn_and_the_device_continues(ansible: Ansible, fleet: Fleet) -> None:
    _at_work(ansible, "agent-rest", "alpha")
    fleet.sandbox.add_fault("status", route="relay", status=503)

    run = ansible.task("environment_turn", targets=_targets("agent-rest", "alpha"), state="aborted")

    run.assert_quiet()
    [target] = run.result("it")["targets"]
    assert (target["status"], target["via"], target["queue_paused"]) == ("changed", "rest", None)
    [run_id] = target["run_ids"]
    assert _api(ansible, f"/v1/runs/{run_id}")["status"] == "cancelled"
    # Nothing was paused: the device takes the waiting message as the next turn.
    eventually(lambda: _answers(ansible, "agent-rest-alpha") == ["It goes on."])


def test_a_mode_is_set_in_the_middle_of_a_turn_and_for_that_conversation_alone(ansible: Ansible) -> None:
    _at_work(ansible, "agent-mode", "alpha")
    told = {"targets": [*_targets("agent-mode", "alpha", "beta")]}

    run = ansible.steps(
        step("set", "environment_mode", **told, mode="strict"),
        step("again", "environment_mode", **told, mode="strict"),
        step("old word", "environment_mode", **told, mode="default"),
        step("same", "environment_mode", **told, mode="standard"),
        step("other", "environment_mode", targets=["alpha"], agent_id="agent-other", mode="bypassPermissions"),
        step("stop", "environment_turn", **told, state="aborted"),
    )

    run.assert_quiet()
    modes = {
        entry["task"]: [(target["status"], target.get("mode")) for target in entry["result"]["targets"]]
        for entry in run.results
    }
    assert modes == {
        "set": [("changed", "strict")] * 2,
        "again": [("ok", "strict")] * 2,
        "old word": [("changed", "standard")] * 2,
        "same": [("ok", "standard")] * 2,
        # Conversations begin as unrestricted.
        "other": [("ok", "unrestricted")],
        "stop": [("changed", None), ("ok", None)],
    }


def test_an_agent_that_does_not_exist_is_reported_by_the_device(ansible: Ansible, fleet: Fleet) -> None:
    fleet.sandbox.remove_agent("agent-gone")
    told = {"targets": ["alpha"], "agent_id": "agent-gone"}

    run = ansible.steps(
        step("turn", "environment_turn", **told, state="aborted"),
        step("mode", "environment_mode", **told, mode="strict"),
    )

    for task in ("turn", "mode"):
        [target] = run.result(task)["targets"]
        assert target["error"]["code"] == "no_agent"
        assert target["error"]["message"].startswith("agent_id: the device does not find 'agent-gone': 404")


@pytest.mark.parametrize(
    ("agent", "mode"), [("agent-waits", "standard"), ("agent-tool", "unrestricted")], ids=["waits", "runs a tool"]
)
def test_a_turn_is_aborted_while_its_tool_call_waits_and_while_it_runs(ansible: Ansible, agent: str, mode: str) -> None:
    # Letta Code refuses a plain sleep.
    command = f"mkfifo {agent} && cat {agent}"
    ansible.sandbox.script(agent, ApprovalTurn(tool_name="Bash", arguments={"command": command, "description": "x"}))
    told = {"targets": ["alpha"], "agent_id": agent}
    ansible.steps(
        step("mode", "environment_mode", **told, mode=mode),
        step("work", "send_message", **told, content="work"),
    ).assert_quiet()
    # A run that ends with a tool call: from here on the turn goes on at the device.
    eventually(lambda: any(row["message_type"] == "approval_request_message" for row in _history(ansible, agent)))

    run = ansible.steps(
        step("check", "environment_turn", **told, state="aborted") | {"check_mode": True},
        step("abort", "environment_turn", **told, state="aborted"),
        step("again", "environment_turn", **told, state="aborted"),
    )

    run.assert_quiet()
    assert [entry["result"]["targets"][0]["status"] for entry in run.results] == ["changed", "changed", "ok"]
    assert run.result("abort")["targets"][0]["queue_paused"] is False
