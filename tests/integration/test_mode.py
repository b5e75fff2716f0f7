"""environment_mode: which mode a conversation gets on which device, and how the task reports it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sandbox.turns import LongTurn

from .conftest import Ansible, step

NAMES = ("one", "two")


@pytest.fixture
def devices(ansible: Ansible) -> list[dict[str, Any]]:
    """Two simulated devices whose conversations begin in the modes `standard` and `bypassPermissions`."""
    modes = ("standard", "bypassPermissions")
    return [
        ansible.sandbox.add_environment(connectionName=name, currentMode=mode)
        for name, mode in zip(NAMES, modes, strict=True)
    ]


def _targets(*names: str) -> list[dict[str, Any]]:
    return [{"host": name, "agent_id": f"agent-{name}"} for name in names]


def _modes(targets: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(target["status"], target["previous_mode"], target["mode"]) for target in targets]


@pytest.mark.covers("environment_mode", "mode", "agent_id")
def test_a_mode_is_set_if_it_differs(ansible: Ansible, devices: list[dict[str, Any]]) -> None:
    told = {"targets": _targets(*NAMES), "mode": "unrestricted"}

    run = ansible.steps(
        step("check", "environment_mode", **told) | {"check_mode": True},
        step("set", "environment_mode", **told),
        step("set again", "environment_mode", **told),
        step("other agent", "environment_mode", targets=["one"], agent_id="agent-two", mode="default"),
    )

    run.assert_quiet()
    there = ("ok", "bypassPermissions", "bypassPermissions")
    assert _modes(run.result("check")["targets"]) == [("changed", "standard", "unrestricted"), there]
    assert _modes(run.result("set")["targets"]) == [("changed", "standard", "unrestricted"), there]
    assert _modes(run.result("set again")["targets"]) == [("ok", "unrestricted", "unrestricted"), there]
    assert _modes(run.result("other agent")["targets"]) == [("ok", "standard", "standard")]
    assert [entry["result"]["changed"] for entry in run.results] == [True, True, False, False]
    one = run.result("set")["targets"][0]
    assert (one["agent_id"], one["conversation_id"]) == ("agent-one", None)
    assert one["connection_id"] == devices[0]["connectionId"]


def test_work_that_a_mode_begins_is_announced(ansible: Ansible, devices: list[dict[str, Any]]) -> None:
    ansible.sandbox.script("agent-one", then=LongTurn(seconds=3600))
    ansible.steps(step("work", "send_message", targets=_targets("one"), content="work")).assert_quiet()
    ansible.sandbox.interrupt(devices[0]["id"])
    told = {"targets": _targets(*NAMES), "mode": "strict"}

    run = ansible.steps(
        step("check", "environment_mode", **told) | {"check_mode": True},
        step("set", "environment_mode", **told),
    )

    run.assert_quiet()
    assert run.result("check")["msg"] == "2 targets: 2 changed; 1 of them would begin work that waited"
    assert run.result("set")["msg"] == "2 targets: 2 changed; 1 of them began work that waited"
    assert [target["work_started"] for target in run.result("set")["targets"]] == [True, False]


@pytest.mark.covers("environment_mode", "conversation_id")
def test_a_mode_belongs_to_one_conversation(ansible: Ansible, devices: list[dict[str, Any]]) -> None:
    key = {"Authorization": f"Bearer {ansible.sandbox.api_key}"}
    made = ansible.sandbox.control.post("/v1/conversations/?agent_id=agent-one", headers=key, json={}).json()["id"]
    told = {"targets": _targets("one"), "mode": "strict"}

    run = ansible.steps(
        step("conversation", "environment_mode", **told, conversation_id=made),
        step("default", "environment_mode", **told) | {"check_mode": True},
        step("new", "environment_mode", **told, conversation_id="new"),
    )

    [changed] = run.result("conversation")["targets"]
    assert (changed["status"], changed["conversation_id"], changed["mode"]) == ("changed", made, "strict")
    assert run.result("default")["targets"][0]["previous_mode"] == "standard"
    assert run.result("new")["msg"] == "conversation_id: must be one that exists, got 'new' for one"


def test_the_current_host_is_the_target_and_the_difference_is_shown(
    ansible: Ansible, devices: list[dict[str, Any]]
) -> None:
    told = {"mode": "acceptEdits", "agent_id": "agent-1"}

    run = ansible.steps(
        step("check", "environment_mode", **told) | {"check_mode": True},
        step("set", "environment_mode", **told),
        step("again", "environment_mode", **told),
        arguments=("--diff",),
        hosts="one",
    )

    run.assert_quiet()
    for line in ("--- before: one", "+++ after: one", '-    "mode": "standard"', '+    "mode": "acceptEdits"'):
        # In check mode and when the mode is set, and not without a difference.
        assert run.stdout.count(line) == 2, run.stdout
    assert run.result("set")["previous_mode"] == "standard"


def test_no_difference_is_shown_unless_asked_for(ansible: Ansible, devices: list[dict[str, Any]]) -> None:
    run = ansible.task("environment_mode", targets=_targets("one"), mode="strict")

    run.assert_quiet()
    assert "+++ after" not in run.stdout


@pytest.mark.covers("environment_mode", "answer_timeout")
def test_a_mode_whose_confirmation_is_late_is_read_again(ansible: Ansible, devices: list[dict[str, Any]]) -> None:
    run = ansible.steps(
        step("short", "environment_mode", targets=_targets("one"), mode="strict", answer_timeout=0.00001),
        step("default", "environment_mode", targets=_targets("two"), mode="strict"),
        step("none", "environment_mode", targets=_targets("two"), mode="strict", answer_timeout=-1),
    )

    assert [run.result(task)["targets"][0]["status"] for task in ("short", "default")] == ["changed", "changed"]
    asked = [entry["path"] for entry in ansible.sandbox.requests("relay")]
    assert [sum(device["connectionId"] in path for path in asked) for device in devices] == [2, 1]
    assert run.result("none")["msg"] == "answer_timeout: must be more than 0, got -1.0"


@pytest.mark.parametrize(
    ("fault", "status", "mode"),
    [
        ("relay_close", "failed", None),
        ("relay_cut_before", "failed", "standard"),
        ("relay_cut_after", "changed", "strict"),
        ("relay_cut_during", "changed", "strict"),
        ("relay_not_json", "changed", "strict"),
        ("relay_silent", "failed", None),
    ],
)
def test_the_result_is_honest_wherever_the_relay_fails(
    ansible: Ansible, devices: list[dict[str, Any]], fault: str, status: str, mode: str | None
) -> None:
    ansible.sandbox.add_fault(fault, target=devices[0]["id"])

    run = ansible.task(
        "environment_mode", targets=_targets(*NAMES), mode="strict", retries=1, timeout=1, max_failures=1
    )

    one, two = run.result("it")["targets"]
    assert (one["status"], one["mode"], two["status"]) == (status, mode, "changed")
    assert "Traceback" not in run.output
    if status == "failed":
        assert "\n" not in one["error"]["message"]
        assert ansible.sandbox.url in one["error"]["message"]


def test_bad_input_is_one_line(ansible: Ansible, devices: list[dict[str, Any]]) -> None:
    ansible.sandbox.remove_agent("agent-one")

    run = ansible.steps(
        step("gone", "environment_mode", targets=_targets("one"), mode="strict"),
        step("nobody", "environment_mode", targets=["one"], mode="strict"),
        step("word", "environment_mode", targets=_targets("one"), mode="plan"),
    )

    said = {entry["task"]: entry["result"]["msg"] for entry in run.results}
    assert "agent_id: the device does not find 'agent-one': 404 Agent 'agent-one' not found" in said["gone"]
    assert said["nobody"].startswith("agent_id: one has none; give it with the task")
    assert "value of mode must be one of: default, standard" in said["word"]
