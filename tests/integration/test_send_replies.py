"""send_message that waits for replies, and answers to waiting tool calls."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.sandbox.turns import ApprovalTurn, ErrorTurn, LongTurn

from .conftest import AGENT, Ansible, awake, step

ASK = {"content": "How are you?", "wait_for_reply": True}


def _devices(ansible: Ansible, count: int) -> list[str]:
    """Add this number of simulated devices; return their names."""
    names = [f"asked-{number:02}" for number in range(count)]
    for name in names:
        ansible.sandbox.add_environment(connectionName=name)
    return names


@pytest.mark.covers("send_message", "wait_for_reply", "reply_timeout")
def test_the_current_host_has_the_reply_or_the_reason_for_its_absence(ansible: Ansible) -> None:
    host = awake(ansible.sandbox)[0]["name"]
    script = ansible.sandbox.script
    script("agent-reply", LongTurn(seconds=0.5, text="Fine."))
    script("agent-error", ErrorTurn(message="no credit left"))
    script("agent-long", LongTurn(seconds=300))
    script("agent-approval", ApprovalTurn(tool_name="Bash", arguments={"command": "reboot"}))
    script("agent-quick", LongTurn(seconds=300))

    run = ansible.steps(
        step("reply", "send_message", **ASK, agent_id="agent-reply"),
        step("error", "send_message", **ASK, agent_id="agent-error"),
        step("long", "send_message", **ASK, agent_id="agent-long", reply_timeout=1.5),
        step("approval", "send_message", **ASK, agent_id="agent-approval"),
        step("quick", "send_message", content="x", agent_id="agent-quick"),
        step("no agent", "send_message", **ASK),
        step("no time", "send_message", **ASK, agent_id=AGENT, reply_timeout=0),
        hosts=host,
    )

    assert "Traceback" not in run.output
    outcomes = {entry["task"]: entry["outcome"] for entry in run.results}
    assert outcomes == dict.fromkeys(outcomes, "failed") | {"reply": "ok", "quick": "ok"}
    results = {entry["task"]: entry["result"] for entry in run.results}
    assert results["no agent"]["msg"] == f"wait_for_reply: needs an agent_id, and {host} has none"
    assert results["no time"]["msg"] == "reply_timeout: must be more than 0, got 0.0"
    assert results["quick"]["reply"] is None
    told = {name: results[name] for name in ("reply", "error", "long", "approval")}
    # A delivered message is reported as delivered.
    assert [(result["status"], result["changed"]) for result in told.values()] == [("sent", True)] * 4
    assert [result["reply"]["state"] for result in told.values()] == ["replied", "failed", "waiting", "needs_approval"]
    codes = [(result["error"] or {}).get("code") for result in told.values()]
    assert codes == [None, "reply_failed", "reply_timeout", "needs_approval"]
    reply = told["reply"]["reply"]
    assert (reply["text"], reply["stop_reason"], reply["error"]) == ("Fine.", "end_turn", None)
    assert reply["run_id"].startswith("run-")
    assert 0.4 < reply["duration"] < 1
    assert told["error"]["msg"] == f"{host}: sent: the turn failed: no credit left"
    assert told["long"]["msg"] == f"{host}: sent: no reply within the reply_timeout of 1.5 s; the turn may go on"
    [pending] = told["approval"]["reply"]["pending_approvals"]
    assert (pending["tool_name"], pending["arguments"]) == ("Bash", {"command": "reboot"})
    assert told["approval"]["msg"].startswith(f"{host}: sent: the turn waits for approval of Bash (call-")
    # Each agent was asked once.
    assert len(ansible.sandbox.requests("messages")) == 5


@pytest.mark.covers("send_message", "wait_for_reply", "max_failures", "retry_file", "result_file")
def test_fifty_devices_are_asked_at_once_and_every_reply_is_distinguished(ansible: Ansible) -> None:
    names = _devices(ansible, 50)
    targets = [{"host": name, "agent_id": f"agent-{name}"} for name in names]
    for target in targets:
        ansible.sandbox.script(target["agent_id"], LongTurn(seconds=1, text=f"This is {target['host']}."))
    for number, turn in ((50, ErrorTurn()), (51, ApprovalTurn())):
        name = f"odd-{number}"
        ansible.sandbox.add_environment(connectionName=name)
        targets.append({"host": name, "agent_id": f"agent-{name}"})
        ansible.sandbox.script(f"agent-{name}", turn)
    unreachable = ansible.sandbox.add_environment(connectionName="refused")
    targets.append({"host": "refused", "agent_id": "agent-refused"})
    ansible.sandbox.add_fault("status", route="messages", status=400, target=unreachable["id"])

    run = ansible.task(
        "send_message",
        **ASK,
        targets=targets,
        max_failures=3,
        retry_file="again.txt",
        result_file="report.jsonl",
    )

    run.assert_quiet()
    result = run.result("it")
    assert [entry["reply"]["text"] for entry in result["targets"][:50]] == [f"This is {name}." for name in names]
    assert (result["counts"]["sent"], result["counts"]["failed"]) == (52, 1)
    assert result["replies"] == {"replied": 50, "waiting": 0, "needs_approval": 1, "failed": 1, "lost": 0}
    assert result["failed_hosts"] == ["odd-50", "odd-51", "refused"]
    assert result["msg"].startswith(
        "53 targets: 52 sent, 1 failed; replies: 50 replied, 1 needs_approval, 1 failed; failed: odd-50: sent: the turn"
    )
    # Targets that have the message must not get it again.
    assert (ansible.directory / "again.txt").read_text().split() == ["refused"]
    lines = [json.loads(line) for line in (ansible.directory / "report.jsonl").read_text().splitlines()]
    assert [line["reply"] and line["reply"]["state"] for line in lines] == [
        *["replied"] * 50, "failed", "needs_approval", None,
    ]  # fmt: skip
    # All messages were sent before anything was read.
    routes = [entry["route"] for entry in ansible.sandbox.requests() if entry["route"] in ("messages", "history")]
    assert "messages" not in routes[routes.index("history") :]


@pytest.mark.covers("send_message", "wait_for_reply", "max_failures")
def test_replies_that_fail_count_against_max_failures(ansible: Ansible) -> None:
    one, two = _devices(ansible, 2)
    ansible.sandbox.script("agent-bad", then=ErrorTurn())
    targets = [{"host": one, "agent_id": "agent-good"}, {"host": two, "agent_id": "agent-bad"}]

    run = ansible.steps(
        step("strict", "send_message", **ASK, targets=targets),
        step("half", "send_message", **ASK, targets=targets, max_failures="50%"),
    )

    assert [entry["outcome"] for entry in run.results] == ["failed", "ok"]
    assert [run.result(task)["max_failures_exceeded"] for task in ("strict", "half")] == [True, False]
    assert run.result("strict")["changed"] is True


@pytest.mark.covers("send_message", "rate", "wait_for_reply")
def test_reading_replies_keeps_to_the_rate(ansible: Ansible) -> None:
    names = _devices(ansible, 6)
    ansible.sandbox.script(AGENT, then=LongTurn(seconds=0.2))

    run = ansible.task("send_message", **ASK, targets=names, agent_id=AGENT, conversation_id="new", rate=8)

    run.assert_quiet()
    times = sorted(entry["at"] for route in ("history", "runs") for entry in ansible.sandbox.requests(route))
    assert len(times) >= 18
    assert all(later - earlier >= 0.9 for earlier, later in zip(times, times[8:], strict=False))


@pytest.mark.covers("send_message", "wait_for_reply", "messages", "conversation_id")
def test_the_last_of_several_messages_is_waited_for_in_its_own_conversation(ansible: Ansible) -> None:
    one, two = _devices(ansible, 2)
    ansible.sandbox.script(AGENT, then="You said {content}")
    messages = [{"content": "a"}, {"content": "b", "otid": "its-own-otid"}]

    run = ansible.task(
        "send_message",
        targets=[one, two],
        messages=messages,
        agent_id=AGENT,
        conversation_id="new",
        wait_for_reply=True,
    )

    run.assert_quiet()
    assert [entry["reply"]["text"] for entry in run.result("it")["targets"]] == ["You said b"] * 2


@pytest.mark.parametrize(("approve", "text"), [(True, "Rebooted."), (False, "Then not.")])
@pytest.mark.covers("send_message", "approvals", "wait_for_reply")
def test_a_tool_call_that_waits_is_answered_over_the_relay(ansible: Ansible, approve: bool, text: str) -> None:
    entry = awake(ansible.sandbox)[0]
    ansible.sandbox.script(AGENT, ApprovalTurn(text="Rebooted.", arguments={"command": "reboot"}))
    ask = {**step("ask", "send_message", **ASK, agent_id=AGENT), "register": "asked"}
    call: dict[str, Any] = {"tool_call_id": "{{ asked.reply.pending_approvals[0].tool_call_id }}", "approve": approve}

    run = ansible.steps(
        ask,
        step("answer", "send_message", approvals=[call], agent_id=AGENT, wait_for_reply=True),
        step("again", "send_message", approvals=[call], agent_id=AGENT),
        step("waited", "send_message", approvals=[call], agent_id=AGENT, wait_for_reply=True),
        hosts=entry["name"],
    )

    answer, again = run.result("answer"), run.result("again")
    assert (answer["status"], answer["via"], answer["reply"]["text"]) == ("sent", "relay", text)
    assert (again["status"], again["via"]) == ("sent", "rest")
    assert again["reason"] == "the device does not wait for this answer, and may refuse it"
    waited = run.result("waited")
    assert (waited["reply"]["state"], waited["error"]["code"]) == ("lost", "reply_lost")
    assert [entry["outcome"] for entry in run.results] == ["failed", "ok", "ok", "failed"]
    assert len(ansible.sandbox.received()[entry["id"]]["approvals"]) == 2


@pytest.mark.covers("send_message", "approvals")
def test_an_answer_that_may_have_been_accepted_is_unknown_and_not_repeated(ansible: Ansible) -> None:
    entry = awake(ansible.sandbox)[0]
    ansible.sandbox.script(AGENT, ApprovalTurn(text="Rebooted."))
    first = ansible.task("send_message", **ASK, agent_id=AGENT, play={"hosts": entry["name"]}).result("it")
    ansible.sandbox.add_fault("relay_cut_after")
    call = {"tool_call_id": first["reply"]["pending_approvals"][0]["tool_call_id"], "approve": True}

    run = ansible.task("send_message", targets=[entry["name"]], approvals=[call], agent_id=AGENT, retry_file="again")

    run.assert_error(f"{entry['name']}: unknown: ", "no answer to input")
    assert run.result("it")["targets"][0]["status"] == "unknown"
    assert ansible.sandbox.received()[entry["id"]]["approvals"] == []
    assert not (ansible.directory / "again").exists()


def test_no_reply_is_waited_for_in_check_mode(ansible: Ansible) -> None:
    run = ansible.task("send_message", "--check", **ASK, targets=_devices(ansible, 2), agent_id=AGENT)

    run.assert_quiet()
    assert run.result("it")["msg"] == "would send to 2 of 2 targets"
    assert ansible.sandbox.requests("history") == ansible.sandbox.requests("messages") == []
