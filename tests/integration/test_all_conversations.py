"""all_conversations: which conversations the modules and playbooks look at, and what their output says of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.standing import write_summary
from tests.sandbox.turns import ApprovalTurn, LongTurn

from .conftest import Ansible, Run, recap_of, step

NAMES = ("one", "two")
AGENT = "agent-1"


@pytest.fixture
def devices(ansible: Ansible) -> list[dict[str, Any]]:
    """Two simulated devices that share an agent."""
    ansible.file("group_vars/letta.yml", f"letta_agent_id: {AGENT}\n")
    return [ansible.sandbox.add_environment(connectionName=name, currentMode="unrestricted") for name in NAMES]


def _make_conversation(ansible: Ansible, summary: str | None = None) -> str:
    key = {"Authorization": f"Bearer {ansible.sandbox.api_key}"}
    url = f"/v1/conversations/?agent_id={AGENT}"
    return str(ansible.sandbox.control.post(url, headers=key, json={"summary": summary}).json()["id"])


def _work(ansible: Ansible, host: str, conversation_id: str, turn: Any = None, **options: Any) -> None:
    """Begin a turn in a conversation on a host."""
    ansible.sandbox.script(AGENT, turn or LongTurn(seconds=3600))
    target = {"host": host, "conversation_id": conversation_id, "agent_id": AGENT}
    ansible.steps(step("work", "send_message", targets=[target], content="work", **options)).assert_quiet()


def _running(ansible: Ansible) -> set[str]:
    key = {"Authorization": f"Bearer {ansible.sandbox.api_key}"}
    runs = ansible.sandbox.control.get(f"/v1/runs/?agent_id={AGENT}&active=true", headers=key).json()
    return {run["conversation_id"] or "default" for run in runs}


def _play(ansible: Ansible, name: str, *arguments: str, **variables: Any) -> Run:
    return ansible.playbook(f"fleetops.environments.{name}", "-e", json.dumps(variables), *arguments)


@pytest.mark.covers("environment_turn", "all_conversations", "ledger", "earlier_results")
@pytest.mark.covers("approval_info", "all_conversations", "ledger", "earlier_results")
def test_turns_and_tool_calls_are_found_where_a_ledger_or_a_result_file_has_them(
    ansible: Ansible, devices: list[dict[str, Any]]
) -> None:
    ledger, results = str(ansible.directory / "own.sqlite"), str(ansible.directory / "sent.csv")
    recorded, sent = (_make_conversation(ansible) for _number in range(2))
    _work(ansible, "one", recorded, campaign="spring", ledger=ledger)
    _work(ansible, "one", sent, ApprovalTurn(tool_name="Bash"), result_file=results)
    told = {"targets": NAMES, "agent_id": AGENT}
    everywhere = {**told, "all_conversations": True}

    run = ansible.steps(
        step("one turn", "environment_turn", **told, state="aborted"),
        step("no call", "approval_info", **told),
        step("calls", "approval_info", **everywhere, ledger=ledger, earlier_results=results),
        step("ledger", "environment_turn", **everywhere, state="aborted", ledger=ledger) | {"check_mode": True},
        step("all", "environment_turn", **everywhere, state="aborted", ledger=ledger, earlier_results=results),
        step("missing", "environment_turn", **everywhere, state="aborted", ledger="gone.sqlite"),
    )

    def looked_at(task: str, status: str) -> set[tuple[str, str | None]]:
        targets = run.result(task)["targets"]
        return {(target["host"], target["conversation_id"]) for target in targets if target["status"] == status}

    default = {(name, None) for name in NAMES}
    assert looked_at("one turn", "ok") == looked_at("no call", "ok") == default
    assert looked_at("calls", "ok") == {*default, ("one", recorded), ("one", sent)}
    waiting = {target["conversation_id"]: target["pending_approvals"] for target in run.result("calls")["targets"]}
    assert [call["tool_name"] for call in waiting[sent]] == ["Bash"]
    assert run.result("calls")["strays"] == {}
    # Only the result file has the other one.
    assert (looked_at("ledger", "ok"), looked_at("ledger", "changed")) == (default, {("one", recorded)})
    assert run.result("ledger")["strays"] == {AGENT: [sent]}
    assert looked_at("all", "changed") == {("one", recorded), ("one", sent)}
    assert (run.result("all")["strays"], run.result("all")["problems"], _running(ansible)) == ({}, {}, set())
    [problem] = run.result("missing")["problems"][""]
    assert problem.startswith("ledger: there is no ")


def test_conversations_that_are_gone_keep_no_other_one_from_being_stopped(
    ansible: Ansible, devices: list[dict[str, Any]]
) -> None:
    results = str(ansible.directory / "sent.csv")
    sent = _make_conversation(ansible)
    _work(ansible, "one", sent, result_file=results)
    lines = (ansible.directory / "sent.csv").read_text(encoding="utf-8").splitlines()
    # The newest are looked at first.
    gone = [lines[1].replace(sent, f"conv-gone-{number}") for number in range(5)]
    ansible.file("sent.csv", "\n".join([*lines, *gone, ""]))
    options = {"targets": NAMES, "agent_id": AGENT, "all_conversations": True, "concurrency": 1, "max_failures": "100%"}

    run = ansible.steps(step("all", "environment_turn", **options, state="aborted", earlier_results=results))

    counts = run.result("all")["counts"]
    assert run.result("all")["msg"].startswith("8 conversations of 2 targets: 1 changed, 2 ok, 5 failed; failed: one: ")
    assert run.result("all")["failed_hosts"] == ["one"]
    assert (counts["failed"], counts["changed"], counts["not_attempted"]) == (5, 1, 0)
    assert _running(ansible) == set()


@pytest.mark.covers("environment_turn", "all_conversations", "ledger", "earlier_results")
def test_options_that_go_with_all_conversations_alone_are_refused(
    ansible: Ansible, devices: list[dict[str, Any]]
) -> None:
    told = {"targets": ["one"], "state": "aborted", "agent_id": AGENT}
    everywhere = {**told, "all_conversations": True}

    run = ansible.steps(
        step("alone", "environment_turn", state="aborted", agent_id=AGENT, all_conversations=True),
        step("ledger", "environment_turn", **told, ledger="l.sqlite"),
        step("results", "approval_info", targets=["one"], agent_id=AGENT, earlier_results="sent.jsonl"),
        step("no file", "environment_turn", **everywhere, earlier_results="missing.jsonl"),
        step("resumed", "environment_turn", **{**everywhere, "state": "resumed"}),
        step("run", "environment_turn", **everywhere, run_id="run-1"),
        hosts="one",
    )

    assert {entry["task"]: entry["result"]["msg"] for entry in run.results} == {
        "alone": "all_conversations: needs targets",
        "ledger": "ledger: needs all_conversations=true",
        "results": "earlier_results: needs all_conversations=true",
        "no file": "earlier_results: cannot read 'missing.jsonl': No such file or directory",
        "resumed": "all_conversations: needs state=aborted, got state=resumed",
        "run": "run_id: cannot go with all_conversations, as a run is of one conversation",
    }


def test_tool_calls_are_answered_in_every_conversation_of_a_host(
    ansible: Ansible, devices: list[dict[str, Any]]
) -> None:
    own, other = (_make_conversation(ansible, write_summary(device["id"])) for device in devices)
    _work(ansible, "one", "default", ApprovalTurn(tool_name="Read"))
    _work(ansible, "one", own, ApprovalTurn(tool_name="Bash"))
    _work(ansible, "two", other, ApprovalTurn(tool_name="Bash"))
    told = {"approvals_allow": "*", "approvals_deny": "Bash"}

    checked = _play(ansible, "approvals", "--limit", "one", "--check", **told)
    run, again = (_play(ansible, "approvals", "--limit", limit, **told) for limit in ("one", "one,two"))

    for each in (checked, run, again):
        each.assert_quiet()
    said = [[line.split("  ")[2:5] for line in each.result("Show what was answered")["msg"]] for each in (checked, run)]
    assert sorted(said[0]) == [["allow", "not_attempted", "-"], ["deny", "not_attempted", "-"]]
    assert sorted(said[1]) == [["allow", "sent", "relay"], ["deny", "sent", "relay"]]
    assert [each.result("Summarise")["msg"] for each in (checked, run, again)] == [
        "2 tool calls waited, 2 would be answered, 2 wait now; 2 conversations looked at",
        "2 tool calls waited, 2 answered, 0 wait now; 2 conversations looked at",
        "1 tool calls waited, 1 answered, 0 wait now; 4 conversations looked at",
    ]


def test_the_playbooks_leave_alone_what_is_of_a_host_outside_the_limit(
    ansible: Ansible, devices: list[dict[str, Any]]
) -> None:
    own, other = (_make_conversation(ansible, write_summary(device["id"])) for device in devices)
    _work(ansible, "one", own, ApprovalTurn(tool_name="Bash"))
    _work(ansible, "one", "default")
    _work(ansible, "two", other)

    approvals = _play(ansible, "approvals", "--limit", "one")
    stopped = _play(ansible, "stop", "--limit", "one", stop_mode="standard")

    approvals.assert_quiet()
    assert approvals.result("Summarise")["msg"] == (
        "1 tool calls waited, 0 answered, 1 wait now; 2 conversations looked at"
    )
    [line] = approvals.result("Show what waits, by tool")["msg"]
    assert line.split("  ")[:2] == ["Bash", "one"]
    assert line.split("  ")[-1] == own
    stopped.assert_quiet()
    assert stopped.result("Say who did not confirm")["msg"] == "1 hosts: 1 confirmed; 2 conversations looked at"
    assert [line.split("  ")[:3] for line in stopped.result("Show the result of each host")["msg"]] == [
        ["one", "turn", "changed"], ["one", "turn", "changed"], ["one", "mode", "changed"], ["one", "mode", "changed"],
    ]  # fmt: skip
    assert _running(ansible) == {other}


def test_work_of_no_known_device_and_background_work_leave_hosts_unconfirmed(
    ansible: Ansible, devices: list[dict[str, Any]]
) -> None:
    stray = _make_conversation(ansible)
    stranger = ansible.sandbox.add_environment(connectionName="stranger")
    _work(ansible, "stranger", stray)
    sleep = {"process_id": "bash_1", "kind": "bash", "command": "sleep 60", "status": "running"}

    strays, approvals = _play(ansible, "stop", stop_hosts="one,two"), _play(ansible, "approvals", "--limit", "one")
    ansible.sandbox.interrupt(stranger["id"])
    ansible.sandbox.background(devices[0]["id"], AGENT, sleep)
    left = _play(ansible, "stop", stop_hosts="one,two")
    allowed = _play(ansible, "stop", stop_hosts="one,two", stop_allow_background=True)

    doubt = f"conversation {stray} of {AGENT} has work, and belongs to no known device"
    for name in NAMES:
        strays.assert_error(f"{name}: {doubt}")
    assert strays.returncode == 2
    assert approvals.result("Show what waits, by tool")["msg"] == [doubt]
    assert left.returncode == 2
    left.assert_error("one: background work goes on: sleep 60")
    assert "one  background  bash  sleep 60" in left.result("Show the result of each host")["msg"]
    assert [recap_of(left)[name]["failed"] for name in NAMES] == [1, 0]
    allowed.assert_quiet()


def test_what_could_not_be_found_out_leaves_those_unconfirmed_that_it_concerns(
    ansible: Ansible, devices: list[dict[str, Any]]
) -> None:
    ansible.file("group_vars/letta.yml", "letta_agent_id: agent-{{ inventory_hostname }}\nletta_retries: 0\n")
    other = _make_conversation(ansible)
    odd = {f"conversation:{other}": "/srv"}
    ansible.sandbox.patch(devices[1]["id"], metadata={**devices[1]["metadata"], "cwd_map": odd})

    ansible.sandbox.add_fault("status", route="conversation_list", status=503, times=1)
    listing = _play(ansible, "stop", stop_hosts="one,two", stop_concurrency=1)
    ansible.sandbox.patch(devices[1]["id"], metadata={**devices[1]["metadata"], "cwd_map": "odd"})
    names = _play(ansible, "stop", stop_hosts="one,two")

    listing.assert_error("one: the conversations of agent-one cannot be listed: GET ")
    names.assert_error("two: the conversations that two names cannot be read: the answer names none")
    assert [[recap_of(run)[name]["failed"] for name in NAMES] for run in (listing, names)] == [[1, 0], [0, 1]]
    line = f"two  turn  skipped  conversation {other}: not looked at, as it is of {AGENT}"
    assert line in listing.result("Show the result of each host")["msg"]


def test_a_turn_of_another_device_goes_on_where_the_device_that_is_meant_is_away(
    ansible: Ansible, devices: list[dict[str, Any]]
) -> None:
    shared = _make_conversation(ansible)
    for name in ("default", shared):
        _work(ansible, "two", name)
    ansible.sandbox.offline(devices[0]["id"])

    run = _play(ansible, "stop", "--limit", "one", stop_conversation_id=shared)

    assert run.returncode == 2
    run.assert_error(f"one: conversation {shared}: turn offline: the environment is offline")
    assert _running(ansible) == {"default", shared}
