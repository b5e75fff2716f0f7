"""Replies: what a conversation has about one message, and how a reply is waited for."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.environment import Environment
from ansible_collections.fleetops.environments.plugins.module_utils.errors import ApiError
from ansible_collections.fleetops.environments.plugins.module_utils.fleet import replies
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.delivery import (
    Delivery,
    MessageTarget,
    deliver,
    wait_for_replies,
)
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.fan_out import Policy
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.replies import SentMessage, collect_replies
from ansible_collections.fleetops.environments.plugins.module_utils.http.paging import Bounds
from ansible_collections.fleetops.environments.plugins.module_utils.providers.conversation import Look, Question, Reply
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta import reader as letta_reader
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta import replies as letta_replies
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.approvals import find_requests
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.client import Client
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.history import (
    HistoryMessage,
    Run,
    ToolCall,
    find_turn,
)
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.reader import DeviceState, Reader
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.relay import Relay
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.replies import ReplySearch
from ansible_collections.fleetops.environments.plugins.module_utils.providers.message import parse_messages
from tests.sandbox.process import Sandbox
from tests.sandbox.turns import ApprovalTurn, ErrorTurn, GiveUpTurn, LongTurn

from .support import KEY, environment_of, settings_for

AGENT = "agent-1"


@pytest.fixture
def device(sandbox: Sandbox) -> Environment:
    """A simulated device that is online."""
    return environment_of(sandbox.add_environment(connectionName="asked"), sandbox.url, datetime.now(UTC))


def to(environment: Environment, *messages: Any, **changes: Any) -> MessageTarget:
    sent = parse_messages("messages", messages or [{"content": "hello"}])
    fields = {"host": environment.id, "environment": environment, "messages": sent, "agent_id": AGENT, **changes}
    return MessageTarget(**fields)


def approval_of(tool_call_id: str, **decision: Any) -> dict[str, Any]:
    return {"type": "approval", "approvals": [{"tool_call_id": tool_call_id, "approve": True, **decision}]}


def ask_all(
    sandbox: Sandbox,
    *targets: MessageTarget,
    within: float = 10,
    rate: float | None = None,
    meanwhile: Callable[[], None] = lambda: None,
    **settings: Any,
) -> list[Delivery]:
    """Send and wait for the replies, while a thread runs something else."""
    rules = Policy(concurrency=4, rate=None, max_failures=99, when_offline="skip", offline_timeout=1)

    async def run() -> list[Delivery]:
        given = settings_for(sandbox, **settings)
        async with Client(given) as client:
            deliveries = await deliver({"letta": client}, targets, rules)
            reader = Reader(client, concurrency=4, rate=rate)
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.to_thread(meanwhile))
                pairs = list(zip(targets, deliveries, strict=True))
                await wait_for_replies(pairs, lambda question: ReplySearch(reader, question).look, within)
        return deliveries

    return asyncio.run(run())


def ask(sandbox: Sandbox, target: MessageTarget, **options: Any) -> Reply:
    [delivery] = ask_all(sandbox, target, **options)
    assert delivery.status == "sent"
    assert delivery.reply is not None
    assert delivery.error == delivery.reply.error
    return delivery.reply


def say(sandbox: Sandbox, device: Environment, content: str, otid: str, **body: Any) -> None:
    """Send a message without the code under test."""
    message = {"role": "user", "content": content, "client_message_id": otid, "otid": otid}
    url = f"/v1/environments/{device.connection_id}/messages"
    headers = {"Authorization": f"Bearer {sandbox.api_key}"}
    body = {"agentId": AGENT, "messages": [message], **body}
    sandbox.control.post(url, headers=headers, json=body).raise_for_status()


def look_once(sandbox: Sandbox, *questions: Question, **settings: Any) -> list[Reply]:
    """One look at each."""

    async def run() -> list[Reply]:
        given = settings_for(sandbox, **settings)
        async with Client(given) as client:
            reader = Reader(client, concurrency=4, rate=None)
            return [await ReplySearch(reader, question).look() for question in questions]

    return asyncio.run(run())


def question(otid: str, **changes: Any) -> Question:
    return Question(**{"provider": "letta", "agent_id": AGENT, "conversation_id": None, "otid": otid, **changes})


def code(reply: Reply) -> str | None:
    return reply.error["code"] if reply.error else None


def test_the_reply_comes_with_its_run(sandbox: Sandbox, device: Environment) -> None:
    sandbox.script(AGENT, LongTurn(seconds=0.7, text="Forty-two."))

    reply = ask(sandbox, to(device))

    assert (reply.state, reply.text, reply.stop_reason, reply.error) == ("replied", "Forty-two.", "end_turn", None)
    assert str(reply.run_id).startswith("run-")
    assert reply.duration == pytest.approx(0.7, abs=0.1)
    assert reply.pending_approvals == []


def test_a_failed_turn_is_reported_with_its_reason(sandbox: Sandbox, device: Environment) -> None:
    sandbox.script(AGENT, ErrorTurn(message="no credit\nleft"))

    reply = ask(sandbox, to(device))

    assert (reply.state, code(reply), reply.stop_reason) == ("failed", "reply_failed", "error")
    assert reply.error is not None
    assert reply.error["message"] == "the turn failed: no credit left"


def test_a_turn_that_is_cancelled_has_failed(sandbox: Sandbox, device: Environment) -> None:
    sandbox.script(AGENT, LongTurn(seconds=30))

    def cancel() -> None:
        time.sleep(0.3)
        headers = {"Authorization": f"Bearer {sandbox.api_key}"}
        sandbox.control.post(f"/v1/agents/{AGENT}/messages/cancel", headers=headers, json={}).raise_for_status()

    reply = ask(sandbox, to(device), meanwhile=cancel)

    assert (reply.state, reply.error) == ("failed", {"code": "reply_failed", "message": "the turn was cancelled"})


def test_a_turn_longer_than_the_timeout_is_still_waiting(sandbox: Sandbox, device: Environment) -> None:
    sandbox.script(AGENT, LongTurn(seconds=30))

    started = time.monotonic()
    reply = ask(sandbox, to(device), within=1.5)

    assert time.monotonic() - started < 3
    assert (reply.state, code(reply)) == ("waiting", "reply_timeout")
    assert reply.error is not None
    assert "within the reply_timeout of 1.5 s" in reply.error["message"]
    assert str(reply.run_id).startswith("run-")


def test_a_message_that_never_arrives_is_lost(sandbox: Sandbox, device: Environment) -> None:
    sandbox.script(AGENT, LongTurn(seconds=30))
    say(sandbox, device, "what keeps the device busy", "o-1")

    reply = ask(sandbox, to(device), within=1.5)

    assert (reply.state, code(reply)) == ("lost", "reply_timeout")
    assert reply.error is not None
    assert reply.error["message"].endswith("within the reply_timeout of 1.5 s; it may wait on its device")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look asks the device for a message that is missing, which has had the time to arrive."""
    monkeypatch.setattr(letta_replies, "_RARE", 0.0)
    monkeypatch.setattr(letta_reader, "_ARRIVED_WITHIN", timedelta(0))


@pytest.mark.usefixtures("quick")
def test_a_message_that_its_device_has_dropped_is_not_waited_for(sandbox: Sandbox, device: Environment) -> None:
    sandbox.script(AGENT, GiveUpTurn())

    started = time.monotonic()
    reply = ask(sandbox, to(device), within=60)

    assert time.monotonic() - started < 30
    assert reply.state == "lost"
    assert reply.error == {
        "code": "reply_dropped",
        "message": "the device has dropped the message; why, it says at that moment alone",
    }


@pytest.mark.usefixtures("quick")
def test_the_words_with_which_a_device_gives_a_message_up_are_the_end_of_its_turn(
    sandbox: Sandbox, device: Environment
) -> None:
    sandbox.script(AGENT, GiveUpTurn(seconds=3, message="Turn still\nrunning"))

    reply = ask(sandbox, to(device), within=60)

    assert reply.state == "failed"
    assert reply.error == {
        "code": "reply_failed",
        "message": "the device gave the message up: Turn still running",
    }


ENDED = {"message_type": "loop_error", "is_terminal": True, "client_message_ids": ["m-0", "m-1"], "message": "Busy"}


@pytest.mark.parametrize(
    ("delta", "words"),
    [
        (ENDED, "Busy"),
        ({**ENDED, "message": None}, "without a reason"),
        ({**ENDED, "client_message_ids": ["m-2"]}, None),
        ({**ENDED, "client_message_ids": None}, None),
        ({**ENDED, "is_terminal": False}, None),
        ({**ENDED, "message_type": "retry"}, None),
        ("odd", None),
    ],
    ids=["ours", "no words", "another message", "no message", "tries again", "a retry", "malformed"],
)
def test_a_terminal_error_that_names_the_message_is_its_end(delta: Any, words: str | None) -> None:
    asked = question("o-1", client_message_id="m-1")

    assert letta_reader._find_words({"type": "stream_delta", "delta": delta}, asked) == words


SENT = "2026-01-31T12:00:00.000Z"
BEFORE, AFTER = "2026-01-31T11:00:00.000Z", "2026-01-31T12:00:01.000Z"


@pytest.mark.parametrize(
    ("reported", "connected_at", "asked", "may_have"),
    [
        ({}, BEFORE, {}, False),
        ({"queue": [{"client_message_id": "m-2"}, "odd", {}]}, BEFORE, {}, False),
        ({"queue": [{"client_message_id": "m-1"}]}, BEFORE, {}, True),
        ({"loop_status": {"client_message_ids_by_run_id": {"run-1": ["m-0", "m-1"], "run-2": 7}}}, BEFORE, {}, True),
        ({"loop_status": {"client_message_ids_by_run_id": "odd"}}, BEFORE, {}, False),
        ({"queue": None}, BEFORE, {}, True),
        ({}, None, {}, True),
        ({}, AFTER, {}, True),
        ({}, BEFORE, {"since": None}, True),
        # Read when the tests are collected, which may be long before this one runs.
        ({}, BEFORE, {"since": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}, True),
        ({}, BEFORE, {"client_message_id": None}, True),
    ],
    ids=[
        "idle", "others wait", "it waits", "it had a run", "malformed", "no queue reported", "since when connected",
        "connected again", "sent when", "just sent", "no id",
    ],
)  # fmt: skip
def test_a_device_may_have_a_message_unless_all_is_known(
    reported: dict[str, Any], connected_at: str | None, asked: dict[str, Any], may_have: bool
) -> None:
    relay = Relay(settings_for("http://127.0.0.1:9"), "connection-1")
    relay.queue = []
    for name, value in reported.items():
        setattr(relay, name, value)
    sent = question("m-1", **{"client_message_id": "m-1", "since": SENT, **asked})

    assert letta_reader._may_have(relay, connected_at, sent) is may_have


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("most", [20, 2_000])
def test_a_message_is_not_dropped_if_older_messages_than_were_read_may_be_it(
    sandbox: Sandbox, device: Environment, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(letta_replies, "_MOST_MESSAGES", most)
    for number in range(15):
        say(sandbox, device, str(number), f"o-{number}")
    now = datetime.now(UTC).isoformat()

    [reply] = look_once(sandbox, question("gone", client_message_id="gone", environment=device, since=now))

    assert reply.state == ("waiting" if most == 20 else "lost")


@pytest.mark.usefixtures("quick")
def test_what_waits_on_its_device_is_waited_for(sandbox: Sandbox, device: Environment) -> None:
    sandbox.script(AGENT, LongTurn(seconds=30))
    now = datetime.now(UTC).isoformat()
    for otid in ("o-1", "o-2"):
        say(sandbox, device, "?", otid)

    [reply] = look_once(sandbox, question("o-2", client_message_id="o-2", environment=device, since=now))

    assert (reply.state, reply.error) == ("waiting", None)


def test_messages_that_waited_together_have_one_reply(sandbox: Sandbox, device: Environment) -> None:
    sandbox.script(AGENT, LongTurn(seconds=2, text="first"), "both")

    say(sandbox, device, "a", "o-1")
    deliveries = ask_all(sandbox, to(device, {"content": "b"}), to(device, {"content": "c"}))

    assert [delivery.reply and delivery.reply.text for delivery in deliveries] == ["both", "both"]
    assert look_once(sandbox, question("o-1"))[0].text == "first"


def test_the_turn_of_the_next_message_is_not_the_reply(sandbox: Sandbox, device: Environment) -> None:
    sandbox.script(AGENT, ErrorTurn(message="broken"), "an answer to somebody else", "mine")
    say(sandbox, device, "first", "o-1")
    say(sandbox, device, "second", "o-2")
    say(sandbox, device, "third", "o-3")

    first, second, third = look_once(sandbox, question("o-1"), question("o-2"), question("o-3"))

    assert (first.state, first.text, second.text, third.text) == ("failed", None, "an answer to somebody else", "mine")


def test_a_message_that_the_device_sent_again_has_the_last_reply(sandbox: Sandbox, device: Environment) -> None:
    sandbox.script(AGENT, ErrorTurn(message="busy"), ErrorTurn(message="busy"), "at last")
    for otid in ("o-1", "again-1", "again-2"):
        say(sandbox, device, "the same", otid)

    [reply] = look_once(sandbox, question("o-1"))

    assert (reply.state, reply.text) == ("replied", "at last")


def test_another_conversation_is_not_searched(sandbox: Sandbox, device: Environment) -> None:
    headers = {"Authorization": f"Bearer {sandbox.api_key}"}
    made = sandbox.control.post(f"/v1/conversations/?agent_id={AGENT}", headers=headers, json={}).json()["id"]
    sandbox.script(AGENT, "in its own", "in the default one")
    say(sandbox, device, "a", "same-id", conversationId=made)
    say(sandbox, device, "b", "same-id")

    own, default, nowhere = look_once(
        sandbox,
        question("same-id", conversation_id=made),
        question("same-id"),
        question("same-id", agent_id="agent-2"),
    )

    assert (own.text, default.text, nowhere.state, nowhere.found) == (
        "in its own",
        "in the default one",
        "waiting",
        False,
    )


@pytest.mark.parametrize("rows", [99, 100, 101, 250])
def test_an_old_message_is_found_on_a_later_page(sandbox: Sandbox, device: Environment, rows: int) -> None:
    sandbox.script(AGENT, "old", then="new")
    say(sandbox, device, "the one", "o-1")
    for number in range(rows // 2):
        say(sandbox, device, str(number), f"later-{number}")

    [reply] = look_once(sandbox, question("o-1"))

    assert (reply.state, reply.text) == ("replied", "old")


def test_a_history_is_searched_once_and_then_only_new_messages(sandbox: Sandbox, device: Environment) -> None:
    for number in range(110):
        say(sandbox, device, str(number), f"before-{number}")
    sandbox.clear_requests()

    async def run() -> list[int]:
        asked_for = []
        async with Client(settings_for(sandbox)) as client:
            watch = ReplySearch(Reader(client, concurrency=1, rate=None), question("not there"))
            for _look in range(2):
                assert (await watch.look()).state == "waiting"
                asked_for.append(len(sandbox.requests("history")))
        return asked_for

    first, second = asyncio.run(run())

    assert first >= 3
    assert second - first == 1


def test_a_removed_agent_and_an_unknown_conversation_are_lost(sandbox: Sandbox, device: Environment) -> None:
    say(sandbox, device, "hello", "o-1")
    sandbox.remove_agent(AGENT)

    gone, unknown = look_once(
        sandbox, question("o-1"), question("o-1", agent_id="agent-2", conversation_id="conv-nobody-made")
    )

    assert [(reply.state, code(reply)) for reply in (gone, unknown)] == [("lost", "reply_lost")] * 2
    assert gone.error is not None
    assert "Agent 'agent-1' not found" in gone.error["message"]


def test_the_device_reports_which_tool_call_waits(sandbox: Sandbox, device: Environment) -> None:
    sandbox.script(AGENT, ApprovalTurn(tool_name="Bash", arguments={"command": "rm -r /tmp/x"}))

    reply = ask(sandbox, to(device))

    [pending] = reply.pending_approvals
    assert (reply.state, code(reply), reply.stop_reason) == ("needs_approval", "needs_approval", "requires_approval")
    assert pending == {
        "request_id": f"perm-{pending['tool_call_id']}",
        "tool_call_id": pending["tool_call_id"],
        "tool_name": "Bash",
        "arguments": {"command": "rm -r /tmp/x"},
    }
    assert reply.error is not None
    assert reply.error["message"] == f"the turn waits for approval of Bash ({pending['tool_call_id']})"


@pytest.mark.parametrize("fault", ["relay_close", "relay_silent"])
def test_without_the_relay_the_history_shows_which_tool_call_waits(
    sandbox: Sandbox, device: Environment, fault: str
) -> None:
    sandbox.script(AGENT, ApprovalTurn(arguments={"command": "true"}))
    sandbox.add_fault(fault)

    reply = ask(sandbox, to(device), retries=0, timeout=0.5)

    [pending] = reply.pending_approvals
    assert (reply.state, pending["request_id"], pending["tool_name"]) == ("needs_approval", None, "Bash")
    assert pending["arguments"] == {"command": "true"}
    assert reply.error is not None
    assert reply.error["message"].endswith("; its device could not be asked whether it does")


@pytest.mark.parametrize(("approve", "text"), [(True, "Deleted."), (False, "Then not.")])
def test_an_answer_over_the_relay_ends_the_turn(
    sandbox: Sandbox, device: Environment, approve: bool, text: str
) -> None:
    sandbox.script(AGENT, ApprovalTurn(text="Deleted."))
    tool_call_id = ask(sandbox, to(device)).pending_approvals[0]["tool_call_id"]

    [delivery] = ask_all(sandbox, to(device, approval_of(tool_call_id, approve=approve)))

    assert (delivery.status, delivery.via, delivery.client_message_id) == ("sent", "relay", None)
    assert delivery.reply is not None
    assert (delivery.reply.state, delivery.reply.text) == ("replied", text)
    assert sandbox.received()[device.id]["approvals"] == []


def test_an_answer_that_the_device_does_not_wait_for_goes_to_the_api(sandbox: Sandbox, device: Environment) -> None:
    result = {"tool_call_id": "call-1", "status": "success", "tool_return": "ok"}

    decision, tool = ask_all(
        sandbox,
        to(device, approval_of("call-1")),
        to(device, {"type": "approval", "approvals": [result]}),
        within=0.1,
    )

    assert (decision.status, decision.via, tool.status, tool.via) == ("sent", "rest", "sent", "rest")
    assert len(sandbox.received()[device.id]["approvals"]) == 2
    assert (decision.reason, tool.reason) == ("the device does not wait for this answer, and may refuse it", None)


@pytest.mark.parametrize(
    ("fault", "status", "answered"),
    [
        # The device is not asked anything before it has reported what it waits for.
        ("relay_cut_before", "unknown", False),
        ("relay_cut_after", "unknown", True),
        ("relay_cut_during", "unknown", True),
        ("relay_not_json", "sent", True),
    ],
)
def test_an_unclear_answer_is_unknown_and_not_repeated(
    sandbox: Sandbox, device: Environment, fault: str, status: str, answered: bool
) -> None:
    sandbox.script(AGENT, ApprovalTurn(text="Deleted."))
    say(sandbox, device, "delete", "o-1")
    [waits] = look_once(sandbox, question("o-1", environment=device))
    sandbox.add_fault(fault)

    [delivery] = ask_all(sandbox, to(device, approval_of(waits.pending_approvals[0]["tool_call_id"])))

    sandbox.clear_faults()
    [after] = look_once(sandbox, question("o-1", environment=device))
    assert (delivery.status, after.text) == (status, "Deleted." if answered else None)
    assert sandbox.received()[device.id]["approvals"] == []


def test_an_abandoned_tool_call_has_failed(sandbox: Sandbox, device: Environment) -> None:
    sandbox.script(AGENT, ApprovalTurn(), "next")
    say(sandbox, device, "delete", "o-1")
    runtime = {"agent_id": AGENT, "conversation_id": "default"}

    async def abort() -> None:
        relay = Relay(settings_for(sandbox), str(device.connection_id), agent_id=AGENT)
        async with relay:
            await relay.request({"type": "abort_message", "runtime": runtime}, "abort_message_response", 5)

    asyncio.run(abort())
    [idle] = look_once(sandbox, question("o-1", environment=device))
    say(sandbox, device, "go on", "o-2")
    before, after = look_once(sandbox, question("o-1", environment=device), question("o-2"))

    assert (idle.state, before.state, before.text, after.text) == ("failed", "failed", None, "next")
    assert before.error == {
        "code": "reply_failed",
        "message": "the turn was given up while a tool call had no answer",
    }


@pytest.mark.parametrize("route", ["history", "runs"])
@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "status", "status": 500, "times": 3},
        {"fault": "status", "status": 429, "retry_after": 0, "times": 2},
        {"fault": "html_200", "times": 2},
        {"fault": "drop_before", "times": 3},
        {"fault": "truncated_json", "times": 2},
    ],
    ids=["500", "429", "html", "drop", "truncated"],
)
def test_requests_that_fail_during_the_wait_lose_no_reply(
    sandbox: Sandbox, device: Environment, route: str, fault: dict[str, Any]
) -> None:
    sandbox.add_fault(**fault, route=route)

    reply = ask(sandbox, to(device), retries=1, within=20)

    assert (reply.state, reply.text) == ("replied", "Done.")


def test_a_refused_key_ends_the_wait(sandbox: Sandbox, device: Environment) -> None:
    sandbox.add_fault("status", route="history", status=401)

    started = time.monotonic()
    reply = ask(sandbox, to(device), within=30)

    assert (reply.state, code(reply)) == ("waiting", "http_401")
    assert time.monotonic() - started < 10


def test_requests_keep_to_the_rate(sandbox: Sandbox, device: Environment) -> None:
    sandbox.script(AGENT, LongTurn(seconds=1), then="Done.")
    targets = [to(device, {"content": str(number)}, agent_id=f"agent-{number}") for number in range(8)]

    ask_all(sandbox, *targets, rate=10)

    begun = sandbox.requests("messages")[-1]["at"]
    requests = [entry for route in ("history", "runs") for entry in sandbox.requests(route)]
    assert len(requests) >= 24
    for number, arrived in enumerate(sorted(entry["at"] for entry in requests)):
        assert arrived - begun >= number / 10 - 0.001


def test_the_pauses_between_looks_grow_to_15_seconds() -> None:
    slept: list[float] = []

    async def look(seconds: float) -> Reply:
        slept.append(seconds)
        return Reply(run_id="run-1", state="waiting" if len(slept) < 14 else "replied")

    asyncio.run(replies.wait_for_reply(look, datetime.now(UTC), 600))

    assert 0.4 <= slept[0] <= 0.6
    assert all(earlier < later * 1.01 for earlier, later in zip(slept[:6], slept[2:8], strict=True))
    assert 12 <= slept[-1] <= 18


def test_the_whole_timeout_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async def look(seconds: float) -> Reply:
        await asyncio.sleep(seconds)
        return Reply(run_id="run-1")

    monkeypatch.setattr(replies.random, "uniform", lambda least, _most: least)
    started = time.monotonic()
    reply = asyncio.run(replies.wait_for_reply(look, datetime.now(UTC), 0.48))

    assert time.monotonic() - started >= 0.48
    assert code(reply) == "reply_timeout"


def test_a_device_that_goes_offline_during_its_turn_is_not_waited_for(
    sandbox: Sandbox, device: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(letta_replies, "_RARE", 0.0)
    monkeypatch.setattr(letta_replies, "_OFFLINE_FOR", 2.0)
    sandbox.script(AGENT, LongTurn(seconds=60))

    def leave() -> None:
        time.sleep(0.3)
        sandbox.offline(device.id)

    reply = ask(sandbox, to(device), meanwhile=leave, within=30)

    assert (reply.state, code(reply)) == ("lost", "reply_lost")
    assert reply.error is not None
    assert "went offline" in reply.error["message"]


def _history(*messages: tuple[str, str, dict[str, Any]]) -> list[HistoryMessage]:
    """Messages of type and run, newest first as in the API; the arguments are oldest first."""
    rows = [
        {"id": f"message-{number}", "message_type": f"{kind}_message", "run_id": run, **fields}
        for number, (kind, run, fields) in enumerate(messages)
    ]
    return [HistoryMessage.model_validate(row) for row in reversed(rows)]


def test_text_that_the_device_adds_to_a_tool_result_belongs_to_the_turn() -> None:
    call = {"tool_call": {"tool_call_id": "call-1", "name": "Skill", "arguments": "{}"}}
    done = {"approvals": [{"type": "tool", "tool_call_id": "call-1", "status": "success"}]}
    history = _history(
        ("user", "run-1", {"otid": "o-1", "content": "use the skill"}),
        ("approval_request", "run-1", call),
        ("approval_response", "run-2", done),
        ("user", "run-2", {"otid": "o-skill", "content": [{"type": "text", "text": "how it goes"}]}),
        ("assistant", "run-2", {"content": [{"type": "text", "text": "By the"}, {"type": "text", "text": "skill."}]}),
        ("user", "run-3", {"otid": "o-2", "content": "next"}),
        ("assistant", "run-3", {"content": "next"}),
    )

    turn = find_turn(question("o-1"), history, set())

    assert turn is not None
    assert (turn.run_id, turn.text, turn.open_calls) == ("run-2", "By the\nskill.", [])
    assert turn.next_message is not None
    assert turn.next_message.otid == "o-2"


def test_a_message_without_text_is_no_reply() -> None:
    history = _history(("user", "run-1", {"otid": "o-1", "content": "?"}), ("assistant", "run-1", {"content": " "}))

    turn = find_turn(question("o-1"), history, set())

    assert turn is not None
    assert turn.text is None


@pytest.mark.parametrize(
    ("arguments", "parsed"),
    [
        ('{"command": "ls"}', {"command": "ls"}),
        (None, {}),
        ("no JSON", "no JSON"),
        ('{"a": NaN}', '{"a": NaN}'),
        ('{"a": 1e999}', '{"a": 1e999}'),
        ("[" * 100_000, "[" * 100_000),
        ('{"a": "\\ud800"}', {"a": "\ufffd"}),
        ('{"a": "\\u0061-key-for-the-unit-tests"}', {"a": "********"}),
        ('{"__ansible_unsafe": "a"}', {"ansible_unsafe": "a"}),
    ],
    ids=["JSON", "none", "text", "NaN", "infinite", "too deep", "half a character", "the key", "a mark of Ansible's"],
)
def test_the_arguments_of_a_tool_call_are_made_harmless(arguments: str | None, parsed: Any) -> None:
    assert ToolCall(arguments=arguments).parse_arguments(KEY) == parsed


def test_deeply_nested_arguments_are_cut() -> None:
    text = json.dumps(ToolCall(arguments="[" * 500 + "]" * 500).parse_arguments(KEY))

    assert text == "[" * 64 + "null" + "]" * 64


def test_a_device_that_reports_an_invalid_id_asks_nothing(
    sandbox: Sandbox, device: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.script(AGENT, ApprovalTurn())
    say(sandbox, device, "delete", "o-1")

    relay = Relay.__new__(Relay)
    relay.device_status = {"pending_control_requests": [{"request": {"tool_call_id": ["call-1"]}}]}

    async def odd(_reader: Reader, _question: Question) -> Any:
        return DeviceState(find_requests(relay) or [], busy=True)

    monkeypatch.setattr(Reader, "ask_device", odd)
    [reply] = look_once(sandbox, question("o-1", environment=device))

    assert (reply.state, reply.pending_approvals) == ("waiting", [])


def test_a_reply_is_waited_for_until_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(replies.random, "uniform", lambda low, _high: low)

    async def look(seconds: float) -> Reply:
        slept.append(seconds)
        await asyncio.sleep(seconds)
        return Reply(run_id="run-1")

    started = time.monotonic()
    reply = asyncio.run(replies.wait_for_reply(look, datetime.now(UTC), 1))

    assert reply.state == "waiting"
    assert time.monotonic() - started >= 0.99
    assert len(slept) == 2


def test_an_internal_error_with_one_message_loses_no_other_reply() -> None:
    def look_for(question: Question) -> Look:
        async def look(_seconds: float) -> Reply:
            return Reply(text={"m-1": "Fine."}[str(question.otid)], state="replied")

        return look

    messages = [SentMessage("alpha", None, otid, question(otid)) for otid in ("m-1", "m-2")]
    fine, broken = asyncio.run(collect_replies(messages, look_for, 0))

    assert (fine.text, broken.state, code(broken)) == ("Fine.", "waiting", "internal")


def test_an_internal_error_while_waiting_ends_that_wait_alone() -> None:
    async def look(_seconds: float) -> Reply:
        return Reply(text={"m-1": "Fine."}["m-2"])

    reply = asyncio.run(replies.wait_for_reply(look, datetime.now(UTC), 5))

    assert (reply.state, reply.error) == ("waiting", {"code": "internal", "message": "KeyError: 'm-2'"})


def make_client() -> Client:
    """A client that has settings, and opens no connection."""
    client = Client.__new__(Client)
    client.settings = settings_for("http://localhost")
    return client


class Served(Reader):
    """A reader that reads what a test provides, instead of a server."""

    def __init__(self, history: list[HistoryMessage], run: Run) -> None:
        super().__init__(make_client(), concurrency=1, rate=None)
        self._history, self._run, self.asked = history, run, 0

    async def read_page(self, question: Question, cursor: dict[str, str], bounds: Bounds) -> list[HistoryMessage]:
        return self._history

    async def read_run(self, run_id: str) -> Run:
        self.asked += 1
        assert self.asked < 10, "it asks for ever"
        return self._run


def test_a_run_to_which_the_server_gives_another_id_is_requested_once() -> None:
    history = _history(("user", "run-1", {"otid": "o-1"}), ("assistant", "run-1", {"content": "Done."}))
    served = Served(history, Run(id="RUN-1", status="completed", stop_reason="end_turn"))

    reply = asyncio.run(ReplySearch(served, question("o-1")).look())

    assert (reply.state, reply.text, served.asked) == ("replied", "Done.", 1)


class Steps(Reader):
    """Records what is read. The device continues after the first run, which failed, while it is asked."""

    def __init__(self, *, busy: bool) -> None:
        super().__init__(make_client(), concurrency=1, rate=None)
        self.read: list[str] = []
        self._busy = busy
        self._history = _history(("user", "run-1", {"otid": "o-1", "content": "hello"}))

    async def read_page(self, question: Question, cursor: dict[str, str], bounds: Bounds) -> list[HistoryMessage]:
        self.read.append("history")
        return self._history

    async def read_run(self, run_id: str) -> Run:
        self.read.append(run_id)
        return Run(id=run_id, status="failed") if run_id == "run-1" else Run(id=run_id, status="running")

    async def ask_device(self, question: Question) -> DeviceState:
        self.read.append("device")
        if not self._busy:
            goes_on = {"approvals": [{"tool_call_id": "call-1", "status": "success"}]}
            self._history = _history(
                ("user", "run-1", {"otid": "o-1", "content": "hello"}), ("approval_response", "run-2", goes_on)
            )
        return DeviceState([], busy=self._busy)


def test_a_look_reads_the_run_then_the_history_then_asks_the_device() -> None:
    steps = Steps(busy=True)

    async def look_twice() -> list[Reply]:
        search = ReplySearch(steps, question("o-1"))
        return [await search.look(), await search.look()]

    first, second = asyncio.run(look_twice())

    assert (first.state, first.run_id, second.state) == ("waiting", "run-1", "waiting")
    assert steps.read == ["history", "run-1", "history", "device", "run-1", "history", "device"]


def test_a_run_that_began_while_the_device_was_asked_is_the_last_one() -> None:
    steps = Steps(busy=False)

    reply = asyncio.run(ReplySearch(steps, question("o-1")).look())

    assert (reply.state, reply.run_id) == ("waiting", "run-2")
    assert steps.read == ["history", "run-1", "history", "device", "history", "run-2"]


def test_device_messages_of_other_shapes_are_ignored(
    sandbox: Sandbox, device: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = [None, {}, {"request": None}, {"request": {}}, {"request": {"tool_call_id": {}}}]

    async def sync(relay: Relay) -> None:
        relay.device_status["pending_control_requests"] = odd

    monkeypatch.setattr(Relay, "sync", sync)
    sandbox.script(AGENT, ApprovalTurn())

    assert ask(sandbox, to(device), within=2).state == "waiting"


def test_an_agent_id_that_the_server_refuses_loses_no_other_reply() -> None:
    def look_for(about: Question) -> replies.Look:
        async def look(_seconds: float) -> Reply:
            if about.agent_id == "no id":
                raise ApiError("422 no such form of id", code="http_422", status=422)
            return Reply(state="replied", text="Done.")

        return look

    messages = [SentMessage(name, None, "o-1", question("o-1", agent_id=name)) for name in ("no id", AGENT)]
    refused, replied = asyncio.run(collect_replies(messages, look_for, 600))

    assert (refused.state, code(refused)) == ("waiting", "http_422")
    assert (replied.state, replied.text) == ("replied", "Done.")
