"""Turns: what is aborted and resumed, by which way, and what the result says if an answer is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.fleet import turn
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.fan_out import ProviderRun, Target
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.turn import TurnChange, TurnOutcome, set_turn
from tests.sandbox.process import Sandbox
from tests.sandbox.turns import ApprovalTurn, LongTurn

from .sandbox.devices import play_device
from .support import environment_of, http_answer, policy, raw_server, row, settings_for

AGENT = "agent-1"
PAUSED = "1 message waits on the device, paused until state=resumed or another message"


@pytest.fixture
def device(sandbox: Sandbox) -> dict[str, Any]:
    """A simulated device."""
    return sandbox.add_environment(connectionName="one")


def say(sandbox: Sandbox, device: dict[str, Any], *texts: str, agent_id: str = AGENT) -> None:
    """Send messages to an agent of a device, each in a request of its own."""
    for text in texts:
        body = {"agentId": agent_id, "messages": [{"role": "user", "content": text, "client_message_id": text}]}
        url = f"/v1/environments/{device['connectionId']}/messages"
        sandbox.control.post(url, headers=_key(sandbox), json=body).raise_for_status()


def _key(sandbox: Sandbox) -> dict[str, str]:
    return {"Authorization": f"Bearer {sandbox.api_key}"}


def runs(sandbox: Sandbox, agent_id: str = AGENT) -> dict[str, str]:
    """What happened to each message to the agent: the status of its run."""
    http: httpx.Client = sandbox.control
    history = http.get(f"/v1/agents/{agent_id}/messages?order=asc", headers=_key(sandbox)).json()
    return {
        message["content"]: http.get(f"/v1/runs/{message['run_id']}", headers=_key(sandbox)).json()["status"]
        for message in history
        if message["message_type"] == "user_message"
    }


def busy(sandbox: Sandbox, device: dict[str, Any], *queued: str) -> None:
    """Put the agent into a long turn, with these messages waiting for its end."""
    sandbox.script(AGENT, LongTurn(seconds=3600))
    say(sandbox, device, "work", *queued)


def set_turns(
    sandbox: Sandbox,
    *devices: dict[str, Any],
    state: str = "aborted",
    run_id: str | None = None,
    within: float = 5.0,
    check_mode: bool = False,
    agent_id: str = AGENT,
    conversation_id: str | None = None,
    rules: Any = None,
    mode: str | None = None,
    end_background: bool = False,
    **settings: Any,
) -> Sequence[TurnOutcome]:
    """What happened to the devices as listed."""
    targets = [
        Target(device["connectionName"], environment_of(device, sandbox.url), agent_id, conversation_id)
        for device in devices
    ]
    wanted = TurnChange(state, run_id, within, mode, end_background)
    run = ProviderRun(settings_for(sandbox, **settings), targets, rules or policy(), check_mode)
    return asyncio.run(set_turn(run, wanted))


def one(*arguments: Any, **options: Any) -> TurnOutcome:
    [outcome] = set_turns(*arguments, **options)
    return outcome


# Aborting over the relay


def test_a_turn_is_aborted_and_waiting_messages_stay_paused(sandbox: Sandbox, device: dict[str, Any]) -> None:
    busy(sandbox, device, "next")

    outcome = one(sandbox, device)

    assert (outcome.status, outcome.via, outcome.error) == ("changed", "relay", None)
    assert (outcome.queue_paused, outcome.reason) == (True, PAUSED)
    assert (outcome.agent_id, outcome.conversation_id) == (AGENT, None)
    assert outcome.connection_id == device["connectionId"]
    [run_id] = outcome.run_ids
    assert run_id.startswith("run-")
    assert runs(sandbox) == {"work": "cancelled"}
    assert sandbox.requests("cancel") == []


def test_without_waiting_messages_nothing_is_paused(sandbox: Sandbox, device: dict[str, Any]) -> None:
    busy(sandbox, device)

    outcome = one(sandbox, device)

    assert (outcome.status, outcome.queue_paused, outcome.reason) == ("changed", False, None)


def test_a_second_abort_is_ok_and_still_shows_the_paused_messages(sandbox: Sandbox, device: dict[str, Any]) -> None:
    busy(sandbox, device, "next")
    one(sandbox, device)

    outcome = one(sandbox, device)

    assert (outcome.status, outcome.via, outcome.queue_paused, outcome.run_ids) == ("ok", "relay", True, [])
    assert outcome.reason == f"no turn is under way; {PAUSED}"


def test_nothing_to_abort_is_ok(sandbox: Sandbox, device: dict[str, Any]) -> None:
    outcome = one(sandbox, device)

    assert (outcome.status, outcome.reason, outcome.queue_paused) == ("ok", "no turn is under way", False)
    assert sandbox.requests("cancel") == []


def test_a_turn_that_waits_for_approval_is_aborted(sandbox: Sandbox, device: dict[str, Any]) -> None:
    sandbox.script(AGENT, ApprovalTurn())
    say(sandbox, device, "work")

    assert one(sandbox, device).status == "changed"
    assert one(sandbox, device).status == "ok"


def test_only_the_given_run_is_aborted(sandbox: Sandbox, device: dict[str, Any]) -> None:
    busy(sandbox, device)

    other = one(sandbox, device, run_id="run-other")
    assert (other.status, other.run_ids) == ("ok", [])
    assert runs(sandbox) == {"work": "running"}

    [run_id] = one(sandbox, device, check_mode=True).run_ids
    outcome = one(sandbox, device, run_id=run_id)
    assert (outcome.status, outcome.run_ids) == ("changed", [run_id])
    assert runs(sandbox) == {"work": "cancelled"}


def test_another_conversation_continues(sandbox: Sandbox, device: dict[str, Any]) -> None:
    busy(sandbox, device)
    made = sandbox.control.post(f"/v1/conversations/?agent_id={AGENT}", headers=_key(sandbox), json={}).json()

    assert one(sandbox, device, conversation_id=made["id"]).status == "ok"
    assert one(sandbox, device, agent_id="agent-2").status == "ok"
    assert runs(sandbox) == {"work": "running"}


def test_an_unknown_agent_is_reported(sandbox: Sandbox, device: dict[str, Any]) -> None:
    sandbox.remove_agent("agent-gone")

    for state in ("aborted", "resumed"):
        outcome = one(sandbox, device, state=state, agent_id="agent-gone")
        assert (outcome.status, outcome.error) == (
            "failed",
            {
                "code": "no_agent",
                "message": "agent_id: the device does not find 'agent-gone': 404 Agent 'agent-gone' not found",
            },
        )
    assert sandbox.requests("cancel") == []


def test_an_unknown_conversation_is_reported(sandbox: Sandbox, device: dict[str, Any]) -> None:
    outcome = one(sandbox, device, conversation_id="conv-gone")

    assert outcome.error is not None
    assert outcome.error["message"].startswith("conversation_id: the device does not find 'conv-gone'")


# Answers that are lost


@pytest.mark.parametrize("fault", ["relay_cut_before", "relay_cut_after", "relay_cut_during"])
def test_an_abort_whose_answer_is_lost_is_confirmed_by_asking_again(
    sandbox: Sandbox, device: dict[str, Any], fault: str
) -> None:
    busy(sandbox, device, "next")
    sandbox.add_fault(fault, times=1)

    outcome = one(sandbox, device)

    assert (outcome.status, outcome.via, outcome.queue_paused) == ("changed", "relay", True)
    assert len(outcome.run_ids) == 1
    assert outcome.reason is not None
    lost = "no turn is under way any more, after a request whose answer was lost; "
    assert outcome.reason == (PAUSED if fault == "relay_cut_before" else lost + PAUSED)
    assert runs(sandbox) == {"work": "cancelled"}


def test_a_lost_answer_to_nothing_is_ok(sandbox: Sandbox, device: dict[str, Any]) -> None:
    sandbox.add_fault("relay_cut_after", times=1)

    assert one(sandbox, device).status == "ok"


@pytest.mark.parametrize("fault", ["relay_cut_before", "relay_cut_after", "relay_cut_during"])
def test_the_server_cancels_if_every_answer_is_lost(sandbox: Sandbox, device: dict[str, Any], fault: str) -> None:
    busy(sandbox, device)
    sandbox.add_fault(fault)

    outcome = one(sandbox, device)

    assert (outcome.status, outcome.via, outcome.queue_paused) == ("changed", "rest", None)
    assert outcome.reason is not None
    assert "over REST, since " in outcome.reason
    assert len(outcome.run_ids) == 1
    assert runs(sandbox) == {"work": "cancelled"}
    assert len(sandbox.requests("relay")) == 2


def test_the_outcome_is_unknown_if_neither_relay_nor_server_answers(sandbox: Sandbox, device: dict[str, Any]) -> None:
    busy(sandbox, device)
    sandbox.add_fault("relay_cut_after")
    sandbox.add_fault("status", route="cancel", status=403)

    outcome = one(sandbox, device)

    assert (outcome.status, outcome.via) == ("unknown", None)
    assert outcome.error is not None
    assert "no answer to abort_message" in outcome.error["message"]
    assert "; over REST: POST " in outcome.error["message"]


# Without the relay


@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "relay_close"},
        {"fault": "relay_silent"},
        {"fault": "status", "route": "relay", "status": 404},
        {"fault": "status", "route": "relay", "status": 403},
        {"fault": "drop_before", "route": "relay"},
    ],
    ids=lambda fault: f"{fault['fault']}{fault.get('status', '')}",
)
def test_without_the_relay_the_server_cancels(sandbox: Sandbox, device: dict[str, Any], fault: dict[str, Any]) -> None:
    busy(sandbox, device)
    sandbox.add_fault(**fault)

    first = one(sandbox, device, retries=0, timeout=0.5)
    second = one(sandbox, device, retries=0, timeout=0.5)

    assert (first.status, first.via, first.queue_paused, len(first.run_ids)) == ("changed", "rest", None, 1)
    assert first.reason is not None
    assert first.reason.startswith(f"over REST, since {sandbox.url}/v1/environments/")
    assert (second.status, second.via, second.run_ids) == ("ok", "rest", [])
    assert second.reason is not None
    assert second.reason.startswith("the server has no run under way; over REST, since ")
    assert runs(sandbox) == {"work": "cancelled"}
    paths = {(entry["path"], tuple(entry["query"].items())) for entry in sandbox.requests("cancel")}
    assert paths == {("/v1/conversations/default/cancel", (("agent_id", AGENT),))}


def test_a_frame_that_is_not_json_is_ignored(sandbox: Sandbox, device: dict[str, Any]) -> None:
    busy(sandbox, device)
    sandbox.add_fault("relay_not_json")

    assert one(sandbox, device).via == "relay"


def test_the_turn_of_an_offline_device_is_cancelled(sandbox: Sandbox, device: dict[str, Any]) -> None:
    busy(sandbox, device)
    sandbox.offline(device["id"])

    outcome = one(sandbox, device)

    assert (outcome.status, outcome.via, outcome.connection_id) == ("changed", "rest", None)
    assert outcome.reason == "over REST, since the environment is offline"
    assert runs(sandbox) == {"work": "cancelled"}
    assert one(sandbox, device).status == "ok"
    assert sandbox.requests("relay") == []


def test_over_rest_only_the_given_conversation_or_run_is_cancelled(sandbox: Sandbox, device: dict[str, Any]) -> None:
    busy(sandbox, device)
    [run_id] = one(sandbox, device, check_mode=True).run_ids
    made = sandbox.control.post(f"/v1/conversations/?agent_id={AGENT}", headers=_key(sandbox), json={}).json()
    sandbox.offline(device["id"])

    assert one(sandbox, device, conversation_id=made["id"]).status == "ok"
    assert runs(sandbox) == {"work": "running"}
    first, second = (one(sandbox, device, run_id=run_id) for _number in range(2))

    assert (first.status, first.run_ids, second.status) == ("changed", [run_id], "ok")
    assert [entry["path"] for entry in sandbox.requests("cancel")] == [
        f"/v1/conversations/{made['id']}/cancel",
        f"/v1/agents/{AGENT}/messages/cancel",
        f"/v1/agents/{AGENT}/messages/cancel",
    ]


def test_a_cancel_whose_answer_is_lost_is_repeated(sandbox: Sandbox, device: dict[str, Any]) -> None:
    busy(sandbox, device)
    sandbox.offline(device["id"])
    sandbox.add_fault("drop_after", route="cancel", nth=1)

    outcome = one(sandbox, device)

    assert (outcome.status, outcome.via) == ("changed", "rest")
    assert outcome.reason is not None
    assert outcome.reason.startswith("the server has no run under way any more, after a request whose answer was lost")
    assert len(sandbox.requests("cancel")) == 2


def test_a_device_without_a_relay_is_offline_if_the_server_does_not_know_its_agent(
    sandbox: Sandbox, device: dict[str, Any]
) -> None:
    sandbox.offline(device["id"])
    sandbox.remove_agent(AGENT)

    outcome = one(sandbox, device)

    assert (outcome.status, outcome.via) == ("offline", None)
    assert outcome.error is not None
    assert outcome.error["message"].startswith("the environment is offline; over REST: POST ")
    waiting = policy(when_offline="wait", offline_timeout=0.2)
    assert one(sandbox, device, rules=waiting).status == "offline"


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (None, "offline"),
        ({"fault": "status", "route": "relay", "status": 403}, "failed"),
        ({"fault": "relay_cut_before"}, "unknown"),
    ],
    ids=["offline", "refused", "cut"],
)
def test_a_tool_call_open_on_the_device_cannot_be_ended_by_the_server(
    sandbox: Sandbox, device: dict[str, Any], fault: dict[str, Any] | None, status: str
) -> None:
    sandbox.script(AGENT, ApprovalTurn())
    say(sandbox, device, "work")
    if fault is None:
        sandbox.offline(device["id"])
    else:
        sandbox.add_fault(**fault)

    outcome = one(sandbox, device)

    assert (outcome.status, outcome.via) == (status, None)
    assert outcome.error is not None
    assert "; over REST: the server has no run under way, but a tool call of run-" in outcome.error["message"]
    assert outcome.error["message"].endswith(" is open, which only the device can end")


def test_a_tool_call_that_the_device_ended_is_over(sandbox: Sandbox, device: dict[str, Any]) -> None:
    sandbox.script(AGENT, ApprovalTurn())
    say(sandbox, device, "work")
    sandbox.add_fault("relay_cut_after")

    assert (one(sandbox, device).status, one(sandbox, device).status) == ("changed", "ok")


def test_no_other_method_is_tried_if_the_look_up_fails(sandbox: Sandbox, device: dict[str, Any]) -> None:
    sandbox.add_fault("status", route="retrieve", status=400)

    outcome = one(sandbox, device)

    assert (outcome.status, outcome.via) == ("failed", None)
    assert sandbox.requests("relay") == sandbox.requests("cancel") == []


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b'{"run-1": "cancelled", "run-2": "failed"}', "unknown", "did not cancel run-2 (failed)"),
        (b'{"run-2": "failed"}', "failed", "did not cancel run-2 (failed)"),
        (b"[]", "unknown", "the answer is no object"),
        (b"{}", "ok", ""),
    ],
)
def test_runs_that_the_server_did_not_cancel_are_reported(body: bytes, status: str, message: str) -> None:
    async def run() -> TurnOutcome:
        def answer(head: bytes) -> bytes:
            if head.startswith(b"POST"):
                return http_answer(body)
            # The device is not there, and the conversation is empty.
            return http_answer(b"[]") if b"/messages" in head else http_answer(status=b"404 Not Found")

        async with raw_server(answer) as (url, _received):
            target = Target("one", environment_of(row(), url), AGENT)
            wanted = TurnChange("aborted", None, 1.0)
            [outcome] = await set_turn(ProviderRun(settings_for(url), [target], policy()), wanted)
            return outcome

    outcome = asyncio.run(run())

    assert outcome.status == status
    assert message in (outcome.error or {"message": ""})["message"]


# Resuming


def test_paused_messages_continue_once(sandbox: Sandbox, device: dict[str, Any]) -> None:
    busy(sandbox, device, "next")
    one(sandbox, device)

    first, second = (one(sandbox, device, state="resumed") for _number in range(2))

    assert (first.status, first.via, first.queue_paused, first.reason) == (
        "changed",
        "relay",
        False,
        "1 message goes on",
    )
    assert (second.status, second.queue_paused, second.reason) == ("ok", False, "no message is paused")
    assert runs(sandbox) == {"work": "cancelled", "next": "completed"}


@pytest.mark.parametrize("fault", ["relay_cut_before", "relay_cut_after", "relay_cut_during"])
def test_a_resume_whose_answer_is_lost_is_confirmed_by_asking_again(
    sandbox: Sandbox, device: dict[str, Any], fault: str
) -> None:
    busy(sandbox, device, "next")
    one(sandbox, device)
    sandbox.add_fault(fault, times=1)

    outcome = one(sandbox, device, state="resumed")

    assert (outcome.status, outcome.via) == ("changed", "relay")
    assert runs(sandbox) == {"work": "cancelled", "next": "completed"}


def test_a_resume_whose_answers_are_lost_is_unknown(sandbox: Sandbox, device: dict[str, Any]) -> None:
    busy(sandbox, device, "next")
    one(sandbox, device)
    sandbox.add_fault("relay_cut_after")

    assert one(sandbox, device, state="resumed").status == "unknown"


@pytest.mark.parametrize(
    ("fault", "status"),
    [({"fault": "relay_close"}, "failed"), ({"fault": "status", "route": "relay", "status": 503}, "offline")],
    ids=["closed", "gone"],
)
def test_only_the_relay_can_resume(
    sandbox: Sandbox, device: dict[str, Any], fault: dict[str, Any], status: str
) -> None:
    sandbox.add_fault(**fault)

    outcome = one(sandbox, device, state="resumed", retries=0)

    assert (outcome.status, outcome.via) == (status, None)
    assert outcome.error is not None
    assert outcome.error["message"].endswith("; a queue can be resumed over the relay only")
    assert sandbox.requests("cancel") == []


# A device that was restarted in the middle of a turn


@pytest.fixture
def restarted(sandbox: Sandbox, device: dict[str, Any]) -> dict[str, Any]:
    """A device with the messages of two turns in its queue, which it begins once it is contacted."""
    sandbox.script(AGENT, LongTurn(seconds=3600), LongTurn(seconds=3600))
    sandbox.patch(device["id"], currentMode="unrestricted")
    say(sandbox, device, "work", "next")
    return sandbox.interrupt(device["id"])


def test_a_mode_is_set_before_the_abort_which_ends_what_the_mode_began(
    sandbox: Sandbox, restarted: dict[str, Any]
) -> None:
    outcome = one(sandbox, restarted, mode="standard")

    assert (outcome.status, outcome.under_way, outcome.error) == ("changed", False, None)
    assert outcome.mode == {"status": "changed", "mode": "standard", "previous_mode": "unrestricted", "error": None}
    assert "running" not in runs(sandbox).values()
    again = one(sandbox, restarted, mode="standard")
    assert (again.status, again.under_way, (again.mode or {})["status"]) == ("ok", False, "ok")


def test_without_a_last_look_no_turn_is_said_to_be_over(
    sandbox: Sandbox, device: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ansible_collections.fleetops.environments.plugins.module_utils.fleet.turn._LOOK_AFTER", ())

    outcome = one(sandbox, device, mode="strict")

    assert (outcome.status, outcome.under_way) == ("ok", None)
    assert outcome.reason == "the device does not report what is under way"


def test_what_waits_after_a_restart_is_named_and_resuming_says_what_it_began(
    sandbox: Sandbox, restarted: dict[str, Any]
) -> None:
    aborted = one(sandbox, restarted)
    would = one(sandbox, restarted, state="resumed", check_mode=True)
    resumed = one(sandbox, restarted, state="resumed")

    waits = "2 messages wait on the device, which goes on with state=resumed, another message or another mode"
    assert (aborted.status, aborted.under_way, aborted.reason) == ("ok", False, f"no turn is under way; {waits}")
    assert (would.status, would.reason) == ("changed", "2 messages would go on")
    assert (resumed.status, resumed.under_way, resumed.reason) == ("changed", True, "2 messages go on")
    assert len(resumed.run_ids) == 1


def test_a_mode_that_cannot_be_set_keeps_no_turn_from_being_aborted(sandbox: Sandbox, device: dict[str, Any]) -> None:
    busy(sandbox, device)

    outcome = one(sandbox, device, mode="asleep")

    assert (outcome.status, outcome.under_way) == ("changed", False)
    assert outcome.mode is not None
    assert outcome.mode["status"] == "unknown"
    assert "Unsupported permission mode" in outcome.mode["error"]["message"]
    assert runs(sandbox) == {"work": "cancelled"}


def test_the_mode_of_an_offline_device_is_not_set(sandbox: Sandbox, device: dict[str, Any]) -> None:
    busy(sandbox, device)
    sandbox.offline(device["id"])

    outcome = one(sandbox, device, mode="strict")

    assert (outcome.status, outcome.via, outcome.under_way) == ("changed", "rest", None)
    assert (outcome.mode or {})["status"] == "offline"


# Background processes

SLEEP = {"process_id": "bash_1", "kind": "bash", "command": "sleep 60", "status": "running", "started_at_ms": 1}
MONITOR = {"process_id": "mon_1", "kind": "monitor", "description": "watch the log", "status": "running"}


def test_background_processes_are_returned_and_monitors_are_ended(sandbox: Sandbox, device: dict[str, Any]) -> None:
    sandbox.background(device["id"], AGENT, SLEEP, MONITOR, {"process_id": "old", "status": "completed"})
    sleep = {"process_id": "bash_1", "kind": "bash", "command": "sleep 60", "status": "running"}
    monitor = {"process_id": "mon_1", "kind": "monitor", "command": "watch the log", "status": "running"}

    looked, ended = one(sandbox, device), one(sandbox, device, end_background=True)

    assert looked.background_processes == [sleep, monitor]
    assert ended.background_processes == [sleep]
    assert one(sandbox, device, conversation_id=None, agent_id="agent-2").background_processes == []


def test_a_turn_that_begins_again_after_each_abort_is_an_error(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "_LOOK_AFTER", (0.0, 0.0))
    states = [
        {"type": "update_device_status", "device_status": {"is_processing": True}},
        {"type": "update_loop_status", "loop_status": {"status": "SENDING_API_REQUEST"}},
        {"type": "update_queue", "queue": []},
        {"type": "sync_response", "success": True},
    ]
    aborted = [{"type": "abort_message_response", "success": True, "aborted": True}]
    with play_device(sandbox, sync=states, abort_message=aborted) as device:
        outcome = one(sandbox, {**device, "connectionName": "one"})

    assert (outcome.status, outcome.under_way) == ("failed", True)
    assert outcome.error == {"code": "busy", "message": "a turn is under way again after 3 aborts"}


# Check mode


def test_check_mode_shows_the_turn_to_abort_and_the_waiting_messages(sandbox: Sandbox, device: dict[str, Any]) -> None:
    idle = one(sandbox, device, check_mode=True)
    busy(sandbox, device, "next")
    at_work = one(sandbox, device, check_mode=True)

    assert (idle.status, idle.queue_paused) == ("ok", False)
    assert (at_work.status, at_work.via, at_work.queue_paused, at_work.reason) == ("changed", "relay", True, PAUSED)
    assert len(at_work.run_ids) == 1
    assert runs(sandbox) == {"work": "running"}


def test_check_mode_shows_the_messages_to_resume(sandbox: Sandbox, device: dict[str, Any]) -> None:
    before = one(sandbox, device, state="resumed", check_mode=True)
    busy(sandbox, device, "next")
    one(sandbox, device)
    after = one(sandbox, device, state="resumed", check_mode=True)

    assert (before.status, after.status) == ("ok", "changed")
    assert runs(sandbox) == {"work": "cancelled"}


def test_check_mode_cannot_ask_the_server(sandbox: Sandbox, device: dict[str, Any]) -> None:
    busy(sandbox, device)
    sandbox.offline(device["id"])

    outcome = one(sandbox, device, check_mode=True)

    assert (outcome.status, outcome.via) == ("changed", "rest")
    assert outcome.reason == (
        "over REST, since the environment is offline; only cancelling shows whether the server runs anything"
    )
    assert sandbox.requests("cancel") == []
