"""playbooks/approvals.yml: the tool calls that wait on the devices, and the answers to them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.sandbox.turns import ApprovalTurn

from .conftest import Ansible, Run, recap_of, step

NAME = "fleetops.environments.approvals"
TOOLS = {"one": "Read", "two": "Bash", "three": "{{ 1 + 1 }}"}


@pytest.fixture
def devices(ansible: Ansible) -> dict[str, dict[str, Any]]:
    """Simulated devices by name, each with its own agent (`agent-one`, ...) whose tool call waits."""
    ansible.file("group_vars/letta.yml", "letta_agent_id: agent-{{ inventory_hostname }}\n")
    found = {name: ansible.sandbox.add_environment(connectionName=name) for name in TOOLS}
    for name, tool in TOOLS.items():
        ansible.sandbox.script(f"agent-{name}", ApprovalTurn(tool_name=tool, arguments={"of": "{{ hostvars }}"}))
    targets = [{"host": name, "agent_id": f"agent-{name}"} for name in TOOLS]
    ansible.steps(step("ask", "send_message", targets=targets, content="work")).assert_quiet()
    return found


def _answer(ansible: Ansible, *arguments: str, limit: str = "one,two,three", **variables: Any) -> Run:
    return ansible.playbook(NAME, "--limit", limit, "-e", json.dumps(variables), *arguments)


def _shown(run: Run, task: str) -> list[list[str]]:
    return [line.split("  ") for line in run.result(task)["msg"]]


def _list_waiting(run: Run) -> list[tuple[str, str, str]]:
    return [(tool, host, arguments) for tool, host, _call, arguments in _shown(run, "Show what waits, by tool")]


def test_only_named_tools_are_answered(ansible: Ansible, devices: dict[str, dict[str, Any]]) -> None:
    looked_at = "; 3 conversations looked at"
    for arguments in ((), (), ("--check",)):
        run = _answer(ansible, *arguments)
        run.assert_quiet()
        said = '{"of": "{{ hostvars }}"}'
        assert _list_waiting(run) == [("Bash", "two", said), ("Read", "one", said), ("{{ 1 + 1 }}", "three", said)]
        assert _shown(run, "Show what was answered") == []
        answered = "0 would be answered" if arguments else "0 answered"
        assert run.result("Summarise")["msg"] == f"3 tool calls waited, {answered}, 3 wait now{looked_at}"
    assert ansible.sandbox.requests("messages")[3:] == []


def test_matching_tool_calls_are_answered_once(ansible: Ansible, devices: dict[str, dict[str, Any]]) -> None:
    looked_at = "; 3 conversations looked at"
    told = {"approvals_allow": "R*, Bash", "approvals_deny": "B?sh", "approvals_reason": "By the book."}

    checked, run, again = _answer(ansible, "--check", **told), _answer(ansible, **told), _answer(ansible, **told)

    for each in (checked, run, again):
        each.assert_quiet()
    decided = [(line[0], *line[2:]) for line in _shown(checked, "Show what was answered")]
    assert decided == [("one", "allow", "not_attempted", "-", "-"), ("two", "deny", "not_attempted", "-", "-")]
    assert checked.result("Summarise")["msg"] == f"3 tool calls waited, 2 would be answered, 3 wait now{looked_at}"
    decided = [(line[0], *line[2:]) for line in _shown(run, "Show what was answered")]
    assert decided == [("one", "allow", "sent", "relay", "-"), ("two", "deny", "sent", "relay", "-")]
    assert run.result("Summarise")["msg"] == f"3 tool calls waited, 2 answered, 1 wait now{looked_at}"
    # In one task, with the concurrency of any other.
    [answered] = run.result("Answer")["results"]
    assert answered["counts"]["sent"] == 2
    asked_again = [target["host"] for target in run.result("Ask what still waits")["targets"]]
    assert sorted(asked_again) == ["one", "two"]
    assert again.result("Summarise")["msg"] == f"1 tool calls waited, 0 answered, 1 wait now{looked_at}"
    received = ansible.sandbox.received()
    key = {"Authorization": f"Bearer {ansible.sandbox.api_key}"}
    for name, text in (("one", "Done."), ("two", "Then not.")):
        rows = ansible.sandbox.control.get(f"/v1/agents/agent-{name}/messages", headers=key).json()
        assert text in [row.get("content") for row in rows]
        assert received[devices[name]["id"]]["turns"] == 1


def test_a_host_that_could_not_be_asked_or_answered_fails_under_its_own_name(
    ansible: Ansible, devices: dict[str, dict[str, Any]]
) -> None:
    ansible.sandbox.remove_agent("agent-one")
    ansible.sandbox.offline(devices["three"]["id"])
    ansible.sandbox.add_environment(connectionName="four")
    ansible.file("host_vars/four.yml", "letta_agent_id:\n")

    run = _answer(ansible, approvals_deny=["*"], approvals_when_offline="fail", limit="one,two,three,four")

    assert run.returncode == 2
    assert "WARNING" not in run.output
    run.assert_error("agent_id: the device does not find 'agent-one'")
    run.assert_error("the environment is offline")
    run.assert_error("no agent of Letta is known whose tool calls wait; give approvals_agent_id, or its letta_agent_id")
    assert [(line[0], line[2], line[3]) for line in _shown(run, "Show what was answered")] == [("two", "deny", "sent")]
    assert {host: counts["failed"] for host, counts in recap_of(run).items()} == {
        "one": 1, "two": 0, "three": 1, "four": 1,
    }  # fmt: skip


def test_an_agent_that_is_named_is_the_one_whose_calls_wait(
    ansible: Ansible, devices: dict[str, dict[str, Any]]
) -> None:
    ansible.sandbox.name_agent("agent-two", "ops")

    run = _answer(ansible, approvals_agent_name="ops", limit="one,two")

    waiting = run.result("Ask what waits")["targets"]
    assert {(target["host"], target["agent_id"]) for target in waiting} == {("one", "agent-two"), ("two", "agent-two")}
    assert [line[1] for line in _shown(run, "Show what waits, by tool")] == ["two"]


def test_an_answer_that_may_have_been_lost_is_reported(ansible: Ansible, devices: dict[str, dict[str, Any]]) -> None:
    ansible.sandbox.add_fault("relay_cut_after", target=devices["two"]["id"])

    run = _answer(ansible, limit="two", approvals_deny=["*"])

    assert run.returncode == 2
    run.assert_error("two: unknown: ", "no answer to input")
    [line] = _shown(run, "Show what was answered")
    assert line[2:4] == ["deny", "unknown"]
    assert run.result("Summarise")["msg"].startswith("1 tool calls waited, 0 answered, ")


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"approvals_allow": 5}, "approvals_allow: must be a list, got 5"),
        ({"approvals_allow": [{"Bash": True}]}, "approvals_allow: must be a text, not a list or dictionary"),
        ({"approvals_deny": {"Bash": True}}, "approvals_deny: must be a list, got {'Bash': True}"),
        ({"approvals_when_offline": "wait"}, "approvals_when_offline: must be one of skip, fail, got 'wait'"),
        ({"approvals_max_targets": 1}, "max_targets: 3 targets are more than the 1 allowed"),
        ({"approvals_hosts": "nobody"}, "no target: approvals_hosts=nobody matches no host"),
    ],
)
def test_an_error_is_one_line_and_nothing_is_answered(
    ansible: Ansible, devices: dict[str, dict[str, Any]], wrong: dict[str, Any], part: str
) -> None:
    run = _answer(ansible, **wrong)

    run.assert_error(part)
    assert run.returncode == 2
    assert all(device["approvals"] == [] for device in ansible.sandbox.received().values())
