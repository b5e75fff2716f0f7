"""The result of a send when something fails, and that no device ever gets a second turn."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.process import Sandbox

from .conftest import AGENT, Ansible, Run, awake, step


@dataclass(frozen=True)
class Case:
    """Rules for one environment's message route, and the expected result of the send.

    each: the faults of the first, second... request; the last one without `nth` is permanent.
    """

    each: list[dict[str, Any]]
    status: str
    turns: int
    requests: int
    says: str = ""
    options: dict[str, Any] = field(default_factory=dict)


def _always(fault: str, **rule: Any) -> list[dict[str, Any]]:
    return [{"fault": fault, **rule}]


def _once(fault: str, **rule: Any) -> list[dict[str, Any]]:
    return [{"fault": fault, "times": 1, **rule}]


APPROVAL = {"messages": [{"type": "approval", "approvals": [{"tool_call_id": "call", "approve": True}]}]}

# With `retries: 1`, so at most two requests under one message id; `timeout: 0.5`.
CASES = {
    # Permanent faults.
    "429": Case(_always("status", status=429), "failed", 0, 2, "429 Too Many Requests: SANDBOX_FAULT"),
    "429 with Retry-After": Case(_always("status", status=429, retry_after=1), "failed", 0, 2, "asked to wait"),
    "429 with a Retry-After that is none": Case(_always("status", status=429, retry_after="soon"), "failed", 0, 2),
    "400": Case(_always("status", status=400), "failed", 0, 1, "400 Bad Request: SANDBOX_FAULT"),
    "401": Case(_always("status", status=401), "failed", 0, 1, "api_key"),
    "403 with the other envelope": Case(
        _always("status", status=403, body="error_envelope"), "failed", 0, 1, "The sandbox was told to fail"
    ),
    "422 with HTML": Case(_always("status", status=422, body="html"), "failed", 0, 1, "an HTML page"),
    "404 although it is online": Case(_always("status", status=404, body="html"), "offline", 0, 2),
    "503 although it is online": Case(_always("status", status=503), "failed", 0, 3, "503"),
    "500": Case(_always("status", status=500), "unknown", 0, 2, "500 Internal Server Error: SANDBOX_FAULT"),
    "500 after it took effect": Case(_always("status", status=500, accepted=True), "unknown", 1, 2),
    "502 with HTML": Case(_always("status", status=502, body="html"), "unknown", 0, 2, "an HTML page"),
    "504 with nothing": Case(_always("status", status=504, body="empty", accepted=True), "unknown", 1, 2, "empty body"),
    "408": Case(_always("status", status=408), "unknown", 0, 2),
    "200 with HTML": Case(_always("html_200"), "unknown", 0, 1, "an HTML page"),
    "200 with HTML after it took effect": Case(_always("html_200", accepted=True), "unknown", 1, 1),
    "200 with text": Case(_always("not_json"), "unknown", 1, 1, "instead of JSON"),
    "200 with truncated JSON": Case(_always("truncated_json"), "unknown", 1, 1, "instead of JSON"),
    "200 with success: false": Case(
        _always("success_false"), "failed", 0, 1, "The environment did not take the message"
    ),
    "redirect to another host": Case(_always("redirect"), "failed", 0, 1, "https://elsewhere.invalid/"),
    "redirect 302": Case(_always("redirect", status=302), "failed", 0, 1, "redirected"),
    "an answer that comes too late": Case(_always("slow", seconds=2), "unknown", 1, 2, "within the timeout of 0.5 s"),
    "dropped before": Case(_always("drop_before"), "unknown", 0, 2, "dropped"),
    "reset before": Case(_always("drop_before", reset=True), "unknown", 0, 2, "dropped"),
    "dropped after": Case(_always("drop_after"), "unknown", 1, 2, "dropped"),
    "reset after": Case(_always("drop_after", reset=True), "unknown", 1, 2, "dropped"),
    "dropped in the middle of the answer": Case(_always("drop_during"), "unknown", 1, 2, "dropped"),
    # Temporary faults.
    "429 once": Case(_once("status", status=429, retry_after=1), "sent", 1, 2),
    "429 once with a date": Case(_once("status", status=429, retry_after_date=1), "sent", 1, 2),
    "500 once": Case(_once("status", status=500), "sent", 1, 2),
    "500 once after it took effect": Case(_once("status", status=500, accepted=True), "sent", 1, 2),
    "404 once": Case(_once("status", status=404), "sent", 1, 2),
    "503 once": Case(_once("status", status=503), "sent", 1, 2),
    "408 once": Case(_once("status", status=408, body="empty"), "sent", 1, 2),
    "too late once": Case(_once("slow", seconds=2), "sent", 1, 2),
    "dropped once before": Case(_once("drop_before"), "sent", 1, 2),
    "dropped once after": Case(_once("drop_after"), "sent", 1, 2),
    "dropped once in the middle": Case(_once("drop_during"), "sent", 1, 2),
    # One after the other: a result that was unclear once stays unclear.
    "dropped after, then 400": Case(
        [*_once("drop_after", nth=1), *_once("status", status=400, nth=2)], "unknown", 1, 2, "400"
    ),
    "500, then gone": Case(
        [*_once("status", status=500, nth=1, accepted=True), *_always("status", status=404)], "unknown", 1, 3, "404"
    ),
    "gone, then 500": Case(
        [*_once("status", status=404, nth=1), *_once("status", status=500, nth=2)], "sent", 1, 3
    ),
    "429, then too late": Case(
        [*_once("status", status=429, retry_after=0, nth=1), *_always("slow", seconds=2)], "unknown", 1, 2
    ),
    # Approvals have no id.
    "approval: 429 once": Case(_once("status", status=429, retry_after=1), "sent", 0, 2, options=APPROVAL),
    "approval: gone once": Case(_once("status", status=503), "sent", 0, 2, options=APPROVAL),
    "approval: 500 once": Case(_once("status", status=500), "unknown", 0, 1, options=APPROVAL),
    "approval: dropped once before": Case(_once("drop_before"), "unknown", 0, 1, options=APPROVAL),
    "approval: dropped once after": Case(_once("drop_after"), "unknown", 0, 1, options=APPROVAL),
    "approval: too late once": Case(_once("slow", seconds=2), "unknown", 0, 1, options=APPROVAL),
}  # fmt: skip


@dataclass(frozen=True)
class Done:
    """The results of one play with all cases, by case."""

    run: Run
    results: dict[str, dict[str, Any]]
    received: dict[str, dict[str, Any]]
    requests: dict[str, int]
    posts: dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    """One play in which every case has its own environment."""
    with Sandbox.start(devices=0) as sandbox:
        ids: dict[str, str] = {}
        connections: dict[str, str] = {}
        for number, (name, case) in enumerate(CASES.items()):
            row = sandbox.add_environment(connectionName=f"case-{number:02d}")
            ids[name], connections[name] = row["id"], row["connectionId"]
            for rule in case.each:
                sandbox.add_fault(**rule, route="messages", target=row["id"])
        ansible = Ansible(Path(tmp_path_factory.mktemp("faults")), sandbox)
        common = {"agent_id": AGENT, "retries": 1, "timeout": 0.5, "max_failures": "100%", "when_offline": "skip"}
        hosts = {name: f"case-{number:02d}" for number, name in enumerate(CASES)}
        text = [name for name, case in CASES.items() if not case.options]
        approvals = [name for name, case in CASES.items() if case.options]
        run = ansible.steps(
            step("text", "send_message", **common, content="Hello", targets=[hosts[name] for name in text]),
            step("approvals", "send_message", **common, **APPROVAL, targets=[hosts[name] for name in approvals]),
        )
        results = dict(zip(text, run.result("text")["targets"], strict=True))
        results |= dict(zip(approvals, run.result("approvals")["targets"], strict=True))
        received = sandbox.received()
        log = sandbox.requests("messages")
        posts = {
            name: [request for request in log if request["path"].split("/")[3] == connections[name]] for name in CASES
        }
        yield Done(
            run,
            results,
            {name: received.get(id_, {}) for name, id_ in ids.items()},
            {name: len(found) for name, found in posts.items()},
            posts,
        )


@pytest.mark.covers("send_message", "retries", "timeout")
@pytest.mark.parametrize("name", CASES)
def test_a_send_ends_as_expected_with_at_most_one_turn(done: Done, name: str) -> None:
    case, result, received = CASES[name], done.results[name], done.received[name]
    error = result["error"] or {"code": None, "message": ""}

    assert (result["status"], received.get("turns", 0), done.requests[name]) == (
        case.status, case.turns, case.requests,
    ), result  # fmt: skip
    assert result["attempts"] == case.requests
    assert case.says in error["message"]
    assert (result["error"] is None) == (case.status == "sent")
    assert "\n" not in error["message"]
    ids = {message["client_message_id"] for message in received.get("messages", [])}
    assert ids <= {result["client_message_id"]}


def test_the_play_with_all_faults_ends_without_a_traceback_or_a_key(done: Done) -> None:
    assert done.run.returncode == 0, done.run.output
    assert "Traceback" not in done.run.output
    counts = done.run.result("text")["counts"]
    text = [case.status for case in CASES.values() if not case.options]
    assert {status: count for status, count in counts.items() if count} == {
        status: text.count(status) for status in text
    }


@pytest.mark.parametrize("pause", [{"retry_after": 3600}, {"retry_after_date": 3600}])
def test_a_429_for_an_hour_fails_its_target_and_all_later_ones_without_another_request(
    ansible: Ansible, pause: dict[str, int]
) -> None:
    targets = [entry["name"] for entry in awake(ansible.sandbox)[:3]]
    ansible.sandbox.add_fault("status", status=429, route="messages", **pause)
    send = {"targets": targets, "content": "Hello", "agent_id": AGENT, "max_failures": "100%", "concurrency": 1}

    result = ansible.task("send_message", **send).result("it")

    assert [target["status"] for target in result["targets"]] == ["failed"] * 3
    refused, *others = [target["error"]["message"] for target in result["targets"]]
    assert "429 Too Many Requests" in refused
    assert "(the server asked to wait 3" in refused
    assert all("not sent, as the server asked for no request in the next 3" in message for message in others)
    assert len(ansible.sandbox.requests("messages")) == 1


def test_a_failure_before_the_message_is_sent_is_not_unknown(ansible: Ansible) -> None:
    """No message request was made, so no message can have been accepted."""
    online, *_rest = awake(ansible.sandbox)
    stale = next(entry for entry in ansible.sandbox.fleet() if not entry["online"])
    sandbox = ansible.sandbox
    for agent, rule in {
        "agent-dropped": {"fault": "drop_after"},
        "agent-500": {"fault": "status", "status": 500},
        "agent-late": {"fault": "slow", "seconds": 3},
        "agent-absent": {"fault": "status", "status": 404},
        "agent-refused": {"fault": "status", "status": 422},
        "agent-page": {"fault": "html_200"},
    }.items():
        sandbox.add_fault(**rule, route="conversations", target=agent)
    sandbox.add_fault("slow", route="retrieve", target=stale["id"], seconds=3)
    agents = ["dropped", "500", "late", "absent", "refused", "page"]

    # It accepts connections and sends nothing, not even for TLS.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        say = {"targets": [online["name"]], "content": "Hello", "agent_id": AGENT, "deadline": 1}
        say |= {"conversation_id": "default"}
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        connecting = ansible.task("send_message", **say, base_url=f"https://{address}")
        waiting = ansible.task("send_message", **say, base_url=f"http://{address}")
    for cut_short, status in ((connecting, "failed"), (waiting, "unknown")):
        (target,) = cut_short.result("it")["targets"]
        assert (target["status"], target["error"]["code"]) == (status, "timeout")

    run = ansible.steps(
        *(
            step(
                agent,
                "send_message",
                targets=[online["name"]],
                content="Hello",
                agent_id=f"agent-{agent}",
                conversation_id="new",
                retries=0,
                timeout=0.5,
            )
            for agent in agents
        ),
        step(
            "look-up",
            "send_message",
            targets=[stale["name"]],
            content="Hello",
            agent_id=AGENT,
            deadline=0.5,
        ),
    )

    assert sandbox.requests("messages") == []
    statuses = {name: run.result(name)["targets"][0]["status"] for name in [*agents, "look-up"]}
    assert statuses == dict.fromkeys([*agents, "look-up"], "failed")
    assert {entry["outcome"] for entry in run.results} == {"failed"}


@pytest.mark.covers("send_message", "deadline", "when_offline")
def test_a_failed_look_up_is_a_failure_and_not_an_offline_host(ansible: Ansible) -> None:
    stale = next(entry for entry in ansible.sandbox.fleet() if not entry["online"])
    ansible.sandbox.add_fault("status", route="retrieve", target=stale["id"], status=500, nth=[1, 2])
    ansible.sandbox.add_fault("status", route="retrieve", target=stale["id"], status=429, retry_after=3, nth=[3])
    say = {"targets": [stale["name"]], "content": "Hello", "agent_id": AGENT, "retries": 1}

    run = ansible.steps(
        step("500", "send_message", **say), step("429", "send_message", **say, deadline=2), hosts="localhost"
    )

    for name in ("500", "429"):
        (target,) = run.result(name)["targets"]
        assert (target["status"], target["error"]["code"]) == ("failed", f"http_{name}")
    assert len(ansible.sandbox.requests("retrieve")) == 3
    assert [entry["outcome"] for entry in run.results] == ["failed", "failed"]


@pytest.mark.parametrize("gone", [404, 503])
def test_an_old_listing_still_reaches_the_same_rows_and_no_others(ansible: Ansible, gone: int) -> None:
    """The inventory is an export as AWX stores it; then the connections change, and the messages are sent."""
    sandbox = ansible.sandbox
    sandbox.settings(offline_status=gone)
    same, slept, left, moved = awake(sandbox)[:4]
    # A device with two rows, the newer of which the look-up by device returns; the same with the row removed.
    older, newer = [entry for entry in sandbox.fleet() if entry["name"].startswith("spruce-0011")]
    removed = sandbox.add_environment(connectionName="removed")
    sibling = sandbox.add_environment(connectionName="sibling", deviceId=removed["deviceId"])
    woken = next(entry for entry in sandbox.fleet() if not entry["online"])
    listing = ansible.listing(trust="none")
    source = ansible.static(listing)
    assert "__ansible_unsafe" in source.read_text()

    sandbox.rotate(moved["id"])
    sandbox.rotate(older["id"])
    sandbox.age(older["id"], 60)
    sandbox.offline(slept["id"])
    sandbox.remove(left["id"])
    sandbox.remove(removed["id"])
    sandbox.online(woken["id"])
    sandbox.clear_requests()
    wanted = {
        same["name"]: ("sent", 1),
        slept["name"]: ("offline", 1),
        left["name"]: ("offline", 1),
        moved["name"]: ("sent", 2),
        older["name"]: ("sent", 2),
        "removed": ("offline", 1),
        woken["name"]: ("sent", 1),
    }
    run = ansible.task("send_message", source=source, content="Hello", agent_id=AGENT, targets=list(wanted))

    run.assert_quiet()
    targets = {target["host"]: target for target in run.result("it")["targets"]}
    assert {host: (target["status"], target["attempts"]) for host, target in targets.items()} == wanted
    received = sandbox.received()
    assert {id_: (device["turns"], device["duplicates"]) for id_, device in received.items()} == {
        entry["id"]: (1, 0) for entry in (same, moved, older, woken)
    }
    assert newer["id"] not in received
    assert sibling["id"] not in received
    rows = {entry["id"]: entry["row"] for entry in sandbox.fleet()}
    for entry in (moved, older, woken):
        target = targets[entry["name"]]
        assert target["connection_id"] == rows[entry["id"]]["connectionId"] != entry["row"]["connectionId"]
        (message,) = received[entry["id"]]["messages"]
        assert message["client_message_id"] == target["client_message_id"]


@pytest.mark.covers("send_message", "self_update")
def test_an_inventory_stored_by_awx_still_has_the_update_command(ansible: Ansible) -> None:
    entries = awake(ansible.sandbox)[:2]
    updatable, managed = entries
    listing = ansible.listing(trust="none")

    run = ansible.task(
        "send_message",
        source=ansible.static(listing),
        self_update=True,
        agent_id=AGENT,
        targets=[entry["name"] for entry in entries],
    )

    run.assert_quiet()
    assert set(ansible.sandbox.received()) == {updatable["id"]}
    (message,) = ansible.sandbox.received()[updatable["id"]]["messages"]
    assert "\nnpm install -g @letta-ai/letta-code@latest\n" in message["content"]
    skipped = run.result("it")["targets"][1]
    assert skipped["status"] == "skipped"
    assert managed["row"]["metadata"]["self_update"]["reason"] in skipped["reason"]
