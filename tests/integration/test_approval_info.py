"""approval_info: which tool calls wait on which device, and how the task reports them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sandbox.turns import ApprovalTurn

from .conftest import Ansible, step

NAMES = ("one", "two")


@pytest.fixture
def devices(ansible: Ansible) -> list[dict[str, Any]]:
    """Two simulated devices; the agent of the first, `agent-one`, waits for approval of a command."""
    devices = [ansible.sandbox.add_environment(connectionName=name) for name in NAMES]
    ansible.sandbox.script("agent-one", ApprovalTurn(tool_name="Bash", arguments={"command": "{{ 1 + 1 }}"}))
    ansible.steps(step("ask", "send_message", targets=_targets("one"), content="work")).assert_quiet()
    return devices


def _targets(*names: str, **more: Any) -> list[dict[str, Any]]:
    return [{"host": name, "agent_id": f"agent-{name}", **more} for name in names]


def _list_waiting(result: dict[str, Any]) -> list[list[str]]:
    return [[call["tool_name"] for call in target["pending_approvals"]] for target in result["targets"]]


@pytest.mark.covers("approval_info", "agent_id")
def test_waiting_tool_calls_are_listed_every_time(ansible: Ansible, devices: list[dict[str, Any]]) -> None:
    told = {"targets": _targets(*NAMES)}

    run = ansible.steps(
        step("check", "approval_info", **told) | {"check_mode": True},
        step("ask", "approval_info", **told),
        step("other agent", "approval_info", targets=["one"], agent_id="agent-two"),
    )

    run.assert_quiet()
    assert run.result("check")["msg"] == run.result("ask")["msg"] == "2 targets: 2 ok; 1 tool calls wait"
    assert [entry["result"]["changed"] for entry in run.results] == [False] * 3
    one, two = run.result("ask")["targets"]
    [call] = one["pending_approvals"]
    assert call.pop("tool_call_id").startswith("call-")
    assert call.pop("request_id").startswith("perm-call-")
    assert call == {"tool_name": "Bash", "arguments": {"command": "{{ 1 + 1 }}"}}
    assert (one["agent_id"], one["conversation_id"], one["connection_id"]) == (
        "agent-one", None, devices[0]["connectionId"],
    )  # fmt: skip
    assert two["pending_approvals"] == []
    assert _list_waiting(run.result("other agent")) == [[]]


@pytest.mark.covers("approval_info", "conversation_id")
def test_only_one_conversation_is_asked_about(ansible: Ansible, devices: list[dict[str, Any]]) -> None:
    key = {"Authorization": f"Bearer {ansible.sandbox.api_key}"}
    made = ansible.sandbox.control.post("/v1/conversations/?agent_id=agent-one", headers=key, json={}).json()["id"]

    run = ansible.steps(
        step("conversation", "approval_info", targets=_targets("one"), conversation_id=made),
        step("new", "approval_info", targets=_targets("one"), conversation_id="new"),
    )

    [asked] = run.result("conversation")["targets"]
    assert (asked["conversation_id"], asked["pending_approvals"]) == (made, [])
    assert run.result("new")["msg"] == "conversation_id: must be one that exists, got 'new' for one"


@pytest.mark.covers("approval_info", "tool_names")
def test_only_tools_with_the_given_names_are_listed(ansible: Ansible, devices: list[dict[str, Any]]) -> None:
    names = {"same": ["Bash"], "pattern": ["R*", "B?s[h]"], "small": ["bash"], "part": ["Bas"], "none": []}

    run = ansible.steps(
        *(step(task, "approval_info", targets=_targets("one"), tool_names=given) for task, given in names.items())
    )

    run.assert_quiet()
    assert [_list_waiting(run.result(task)) for task in names] == [[["Bash"]], [["Bash"]], [[]], [[]], [[]]]


def test_the_current_host_is_the_target_without_targets(ansible: Ansible, devices: list[dict[str, Any]]) -> None:
    run = ansible.task("approval_info", agent_id="agent-one", play={"hosts": "one"})

    run.assert_quiet()
    assert [call["tool_name"] for call in run.result("it")["pending_approvals"]] == ["Bash"]


@pytest.mark.parametrize(
    ("fault", "status"), [("relay_close", "failed"), ("relay_silent", "failed"), ("relay_not_json", "ok")]
)
def test_the_result_is_honest_wherever_the_relay_fails(
    ansible: Ansible, devices: list[dict[str, Any]], fault: str, status: str
) -> None:
    ansible.sandbox.add_fault(fault, target=devices[0]["id"])

    run = ansible.task("approval_info", targets=_targets(*NAMES), retries=1, timeout=1, max_failures=1)

    one, two = run.result("it")["targets"]
    assert (one["status"], two["status"]) == (status, "ok")
    assert "Traceback" not in run.output
    if status == "failed":
        assert "\n" not in one["error"]["message"]
