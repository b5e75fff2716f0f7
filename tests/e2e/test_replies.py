"""Real devices are asked and answer: replies, failed turns, and tool calls that wait for approval."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.relay import Relay
from tests.integration.conftest import Ansible, Run, step
from tests.sandbox.turns import ApprovalTurn, ErrorTurn, LongTurn
from tests.unit.support import settings_for

from .conftest import Fleet
from .device import PATIENCE, Device


def _agent(fleet: Fleet, *turns: Any) -> str:
    """The test's own agent, which has these turns."""
    agent_id = f"agent-{uuid.uuid4()}"
    fleet.sandbox.script(agent_id, *turns)
    return agent_id


def _ask(ansible: Ansible, agent_id: str, *more: dict[str, Any], **options: Any) -> Run:
    ask = step("ask", "send_message", agent_id=agent_id, wait_for_reply=True, reply_timeout=PATIENCE, **options)
    return ansible.steps({**ask, "register": "asked"}, *more, hosts="alpha")


def _set_standard(fleet: Fleet, agent_id: str) -> None:
    """Make the device ask before it calls a tool for this agent."""
    connection_id = next(e["row"]["connectionId"] for e in fleet.sandbox.fleet() if e["name"] == "alpha")

    async def change() -> None:
        async with Relay(settings_for(fleet.sandbox), connection_id, agent_id=agent_id) as relay:
            change = {"type": "change_device_state", "payload": {"mode": "standard"}}
            await relay.exchange(change, lambda _frame: relay.device_status["current_permission_mode"] == "standard", 9)

    asyncio.run(change())


def test_an_instruction_reaches_the_devices_and_their_replies_come_back(ansible: Ansible, fleet: Fleet) -> None:
    agents = {name: _agent(fleet, f"This is {name}.") for name in ("alpha", "beta")}
    targets = [{"host": name, "agent_id": agent} for name, agent in agents.items()]

    run = ansible.task(
        "send_message", targets=targets, content="Who are you?", wait_for_reply=True, reply_timeout=PATIENCE
    )

    run.assert_quiet()
    assert [entry["reply"]["text"] for entry in run.result("it")["targets"]] == ["This is alpha.", "This is beta."]


def test_devices_that_share_an_agent_do_not_wait_for_each_others_turns(ansible: Ansible, fleet: Fleet) -> None:
    """In one conversation the API refuses the second device, which gives up after four tries."""
    agent_id = _agent(fleet)
    fleet.sandbox.script(agent_id, then=LongTurn(seconds=4, text="Looked."))
    ask = {"agent_id": agent_id, "content": "Look.", "wait_for_reply": True, "reply_timeout": PATIENCE}

    runs = [ansible.task("send_message", targets=["alpha", "beta"], **ask) for _number in range(2)]

    for run in runs:
        run.assert_quiet()
        assert [entry["reply"]["text"] for entry in run.result("it")["targets"]] == ["Looked.", "Looked."]
    used = [[entry["conversation_id"] for entry in run.result("it")["targets"]] for run in runs]
    assert used[0] == used[1]
    assert len({*used[0]}) == len(fleet.sandbox.conversations(agent_id)) == 2
    assert {entry["status"] for entry in fleet.sandbox.requests("turn")} == {200}


def test_a_failed_turn_is_reported_and_a_turn_that_the_device_repeats_is_waited_for(
    ansible: Ansible, fleet: Fleet
) -> None:
    broken = _agent(fleet, ErrorTurn(message="no credit left"))
    busy = _agent(fleet, ErrorTurn(message="overloaded", retryable=True), "At last.")

    failed, replied = _ask(ansible, broken, content="?"), _ask(ansible, busy, content="?")

    assert failed.result("ask")["msg"] == "alpha: sent: the turn failed: no credit left"
    assert replied.result("ask")["reply"]["text"] == "At last."


def test_messages_that_wait_on_the_device_have_one_reply(ansible: Ansible, fleet: Fleet) -> None:
    agent_id = _agent(fleet, LongTurn(seconds=8), "To both.")
    send = {"agent_id": agent_id, "content": "?"}

    run = ansible.steps(
        {**step("busy", "send_message", **send), "register": "busy"},
        {**step("first", "send_message", **send), "register": "first"},
        {**step("second", "send_message", **send, wait_for_reply=True), "register": "second"},
        step("all", "reply_info", replies=["{{ busy }}", "{{ first }}", "{{ second }}"]),
        hosts="alpha",
    )

    assert [reply["text"] for reply in run.result("all")["replies"]] == ["Done.", "To both.", "To both."]


@pytest.mark.parametrize("approve", [True, False])
def test_a_tool_call_that_waits_is_shown_and_answered(
    ansible: Ansible, fleet: Fleet, tmp_path: Path, approve: bool
) -> None:
    made = tmp_path / "made"
    call = {"command": f"touch {made}", "description": "Make a file"}
    agent_id = _agent(fleet, ApprovalTurn(tool_name="Bash", arguments=call, text="Made.", denied_text="Then not."))
    _set_standard(fleet, agent_id)
    decision = {"tool_call_id": "{{ asked.reply.pending_approvals[0].tool_call_id }}", "approve": approve}
    answer = {"approvals": [decision], "agent_id": agent_id, "wait_for_reply": True, "reply_timeout": PATIENCE}

    run = _ask(
        ansible,
        agent_id,
        step("answer", "send_message", **answer),
        step("later", "reply_info", replies=["{{ asked }}"]),
        content="Make it.",
    )

    asked, answered = run.result("ask"), run.result("answer")
    assert (asked["status"], asked["error"]["code"]) == ("sent", "needs_approval")
    [pending] = asked["reply"]["pending_approvals"]
    assert pending["request_id"] == f"perm-{pending['tool_call_id']}"
    assert (pending["tool_name"], pending["arguments"]) == ("Bash", call)
    text = "Made." if approve else "Then not."
    assert (answered["status"], answered["via"], answered["reply"]["text"]) == ("sent", "relay", text)
    assert [reply["text"] for reply in run.result("later")["replies"]] == [text]
    assert made.exists() is approve


def test_a_tool_that_the_device_runs_by_itself_is_waited_for(ansible: Ansible, fleet: Fleet) -> None:
    call = {"command": "python3 -c 'import time; time.sleep(4)'", "description": "Wait"}
    agent_id = _agent(fleet, ApprovalTurn(tool_name="Bash", arguments=call, text="Ran it."))

    run = _ask(ansible, agent_id, content="Run it.")

    run.assert_quiet()
    reply = run.result("ask")["reply"]
    assert (reply["text"], reply["pending_approvals"]) == ("Ran it.", [])
    assert reply["duration"] > 3


def test_a_message_that_a_device_gives_up_is_failed_in_its_words_and_lost_for_a_later_look(
    ansible: Ansible, fleet: Fleet
) -> None:
    agent_id = _agent(fleet, LongTurn(seconds=100), "To the second attempt.")
    send = {"content": "?", "agent_id": agent_id, "conversation_id": "default"}
    told = {**send, "targets": ["beta"], "campaign": "once", "ledger": "ledger.sqlite", "max_failures": 1}

    run = ansible.steps(
        step("busy", "send_message", **send, targets=["alpha"]),
        {**step("waited", "send_message", **told, wait_for_reply=True, reply_timeout=180), "register": "waited"},
        {"name": "the device's patience", "ansible.builtin.pause": {"seconds": 12}},
        step("later", "reply_info", replies="{{ waited.targets }}"),
        step("again", "send_message", **told, retry="failed_turns", wait_for_reply=True, reply_timeout=180),
    )

    waited = run.result("waited")["targets"][0]
    assert (waited["status"], waited["reply"]["state"]) == ("sent", "failed")
    assert waited["error"]["message"].startswith("the device gave the message up: ")
    [later] = run.result("later")["replies"]
    assert (later["state"], later["error"]["code"]) == ("lost", "reply_dropped")
    again = run.result("again")["targets"][0]
    assert (again["status"], again["reply"]["text"]) == ("sent", "To the second attempt.")


def test_a_device_killed_during_its_turn_is_not_waited_for(ansible: Ansible, fleet: Fleet, tmp_path: Path) -> None:
    agent_id = _agent(fleet, LongTurn(seconds=3600))
    with Device.start(fleet.sandbox, "gamma", tmp_path / "gamma") as gamma:
        power_cut = threading.Timer(10, gamma.process.kill)
        power_cut.start()
        started = time.monotonic()
        run = ansible.task(
            "send_message",
            targets=["gamma"],
            content="?",
            agent_id=agent_id,
            wait_for_reply=True,
            reply_timeout=600,
        )
        power_cut.join()

    run.assert_error("gamma: sent: the environment went offline before the end of the turn")
    target = run.result("it")["targets"][0]
    assert (target["status"], target["reply"]["state"]) == ("sent", "lost")
    assert time.monotonic() - started < PATIENCE
