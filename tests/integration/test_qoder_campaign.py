"""Campaigns to Qoder: each environment has one turn, in one session, whatever happens to the runs."""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.fleet.delivery import (
    FOUND,
    MessageTarget,
)
from ansible_collections.fleetops.environments.plugins.module_utils.http import retry as retries
from ansible_collections.fleetops.environments.plugins.module_utils.providers.conversation import (
    NEW_CONVERSATION,
    Address,
)
from ansible_collections.fleetops.environments.plugins.module_utils.providers.message import Message, parse_messages
from ansible_collections.fleetops.environments.plugins.module_utils.providers.qoder.client import Client
from ansible_collections.fleetops.environments.plugins.module_utils.text import format_time
from tests.sandbox.process import Sandbox
from tests.sandbox.qoder_turns import QoderTurn
from tests.unit.qoder_support import AGENT, new_environment, qoder_settings, with_client

from .kill_points import begin_run, each_step, entries, run_forked

# Longer than the server keeps idempotency keys.
LATER = 25 * 3600.0


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow another attempt for failed deliveries at once."""
    monkeypatch.setattr(retries, "_FIRST_PAUSE", 0.0)


@pytest.fixture
def targets(sandbox: Sandbox) -> list[MessageTarget]:
    """Two environments, which each get "hello" in a new session."""
    return [to(sandbox), to(sandbox)]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "c.sqlite"


def to(sandbox: Sandbox, session_id: str = NEW_CONVERSATION) -> MessageTarget:
    environment, messages = new_environment(sandbox), parse_messages("messages", [{"content": "hello"}])
    return MessageTarget(environment.id, environment, AGENT, session_id, messages=messages)


def new_session(sandbox: Sandbox, target: MessageTarget) -> str:
    return with_client(
        qoder_settings(sandbox), lambda client: client.create_conversation(target.environment, AGENT, "by-hand")
    )


def turns(sandbox: Sandbox) -> list[int]:
    """The turns of the sessions that have any; each session is for another environment or another attempt."""
    return [session["turns"] for session in sandbox.qoder.sessions() if session["turns"]]


def a_day_later(sandbox: Sandbox, ledger: Path) -> None:
    """Let the server forget the keys of all sent requests."""
    sandbox.qoder.pass_time(LATER)
    connection = sqlite3.connect(ledger)
    with connection:
        before = format_time(datetime.now(UTC) - timedelta(seconds=LATER))
        connection.execute("UPDATE deliveries SET began_at = ?, claimed_at = ?", (before, before))
    connection.close()


def repeat_request(sandbox: Sandbox, path: str, key: str, body: dict[str, Any]) -> Any:
    """The server's answer to a request with a known key."""
    headers = {"Authorization": f"Bearer {sandbox.qoder.key}", "Idempotency-Key": key}
    return httpx.post(f"{sandbox.qoder.url}/{path}", json=body, headers=headers, trust_env=False).json()


def lose(ledger: Path) -> None:
    for file in ledger.parent.iterdir():
        file.unlink()


def sent_without_an_answer(sandbox: Sandbox, ledger: Path, target: MessageTarget) -> None:
    """A run whose message was accepted, and which did not record that."""
    sandbox.add_fault("drop_after", route="qoder_send")
    assert run_forked(sandbox, ledger, [target])["statuses"] == ["unknown"]
    assert turns(sandbox) == [1]
    sandbox.clear_faults()
    sandbox.clear_requests()


def test_a_campaign_that_is_run_twice_sends_once(sandbox: Sandbox, ledger: Path, targets: list[MessageTarget]) -> None:
    first = run_forked(sandbox, ledger, targets)
    sandbox.clear_requests()
    second = run_forked(sandbox, ledger, targets)

    assert (first["statuses"], second["statuses"]) == (["sent"] * 2, ["already_sent"] * 2)
    assert turns(sandbox) == [1, 1]
    assert sandbox.requests() == []


def test_the_ledger_has_the_session_the_event_and_both_keys(
    sandbox: Sandbox, ledger: Path, targets: list[MessageTarget]
) -> None:
    run_forked(sandbox, ledger, targets)

    for name, entry in entries(ledger).items():
        again = {"agent": AGENT, "environment_id": name}
        assert repeat_request(sandbox, "sessions", str(entry.session_key), again)["id"] == entry.conversation_id
        content = [{"type": "text", "text": "hello"}]
        path, events = f"sessions/{entry.conversation_id}/events", [{"type": "user.message", "content": content}]
        [event] = repeat_request(sandbox, path, str(entry.message_key), {"events": events})["data"]
        assert event["id"] == entry.otid
    assert turns(sandbox) == [1, 1]
    assert len(sandbox.qoder.sessions()) == 2


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("verify", [True, False])
def test_a_run_that_is_killed_at_any_await_is_completed_by_the_next(
    sandbox: Sandbox, tmp_path: Path, targets: list[MessageTarget], later: bool, verify: bool
) -> None:
    """It dies twice, and after each time the server may have forgotten the keys."""
    before: set[str] = set()

    def kill(ledger: Path, step: int) -> dict[str, Any] | None:
        before.update(session["id"] for session in sandbox.qoder.sessions())
        first: dict[str, Any] | None = run_forked(sandbox, ledger, targets, step, verify=verify)
        if first is None:
            if later:
                a_day_later(sandbox, ledger)
            run_forked(sandbox, ledger, targets, step, verify=verify)
        return first

    def complete(ledger: Path) -> None:
        if later:
            a_day_later(sandbox, ledger)
        done = run_forked(sandbox, ledger, targets, verify=verify)
        assert set(done["statuses"]) <= {"sent", "already_sent"}
        sessions = [session for session in sandbox.qoder.sessions() if session["id"] not in before]
        had = {session["environment_id"]: session["turns"] for session in sessions if session["turns"]}
        assert had == {target.environment.id: 1 for target in targets}
        assert sum(session["turns"] for session in sessions) == len(targets)
        if not later:
            assert len(sessions) == len(targets)

    each_step(tmp_path, kill, complete)


@pytest.mark.parametrize("verify", [True, False])
def test_after_the_keys_expire_the_events_are_read_first(
    sandbox: Sandbox, ledger: Path, targets: list[MessageTarget], verify: bool
) -> None:
    sent_without_an_answer(sandbox, ledger, targets[0])
    a_day_later(sandbox, ledger)

    done = run_forked(sandbox, ledger, targets[:1], verify=verify)

    assert done["statuses"] == ["already_sent"]
    assert [entry["route"] for entry in sandbox.requests()] == ["qoder_events"]
    [entry] = entries(ledger).values()
    assert (entry.status, entry.outcome) == ("sent", FOUND)
    assert str(entry.otid).startswith("evt_")


def test_while_the_keys_are_kept_a_message_is_sent_again_without_a_look_up(
    sandbox: Sandbox, ledger: Path, targets: list[MessageTarget]
) -> None:
    sent_without_an_answer(sandbox, ledger, targets[0])

    done = run_forked(sandbox, ledger, targets[:1], verify=False)

    assert done["statuses"] == ["sent"]
    assert [entry["route"] for entry in sandbox.requests()] == ["qoder_send"]
    assert turns(sandbox) == [1]


def test_a_message_that_cannot_be_looked_up_is_not_sent(
    sandbox: Sandbox, ledger: Path, targets: list[MessageTarget]
) -> None:
    sent_without_an_answer(sandbox, ledger, targets[0])
    a_day_later(sandbox, ledger)
    sandbox.add_fault("status", status=400, route="qoder_events")

    assert run_forked(sandbox, ledger, targets[:1], verify=False)["statuses"] == ["unknown"]
    sandbox.clear_faults()
    assert run_forked(sandbox, ledger, targets[:1], verify=False)["statuses"] == ["already_sent"]
    assert turns(sandbox) == [1]


@pytest.mark.parametrize("verify", [True, False])
def test_a_lost_ledger_sends_nothing_again_while_the_keys_are_kept(
    sandbox: Sandbox, ledger: Path, targets: list[MessageTarget], verify: bool
) -> None:
    run_forked(sandbox, ledger, targets)
    lose(ledger)

    done = run_forked(sandbox, ledger, targets, verify=verify)

    assert done["statuses"] == ["already_sent" if verify else "sent"] * 2
    assert turns(sandbox) == [1, 1]
    assert len(sandbox.qoder.sessions()) == 2


@pytest.mark.parametrize(
    ("route", "fault", "ends"),
    [
        ("qoder_create", "drop_after", ["failed", "sent"]),
        ("qoder_create", "drop_before", ["failed", "sent"]),
        ("qoder_send", "drop_after", ["unknown", "already_sent"]),
        ("qoder_send", "drop_before", ["unknown", "sent"]),
    ],
)
def test_an_unclear_delivery_is_resolved_by_the_next_run(
    sandbox: Sandbox, ledger: Path, route: str, fault: str, ends: list[str]
) -> None:
    target = to(sandbox)
    sandbox.add_fault(fault, route=route, times=3)

    statuses = [run_forked(sandbox, ledger, [target])["statuses"] for _number in range(2)]

    assert statuses == [[end] for end in ends]
    assert turns(sandbox) == [1]
    assert len(sandbox.qoder.sessions()) == 1


@pytest.mark.parametrize(("retry", "again"), [("all", 2), ("failed_turns", 1), ("undelivered", 0)])
def test_another_attempt_uses_another_session(
    sandbox: Sandbox, ledger: Path, targets: list[MessageTarget], retry: str, again: int
) -> None:
    run_forked(sandbox, ledger, targets)
    connection = sqlite3.connect(ledger)
    with connection:
        failed = targets[0].environment.id
        connection.execute("UPDATE deliveries SET reply_state = 'failed' WHERE environment_id = ?", (failed,))
    connection.close()

    for _number in range(2 if retry == "undelivered" else 1):
        done = run_forked(sandbox, ledger, targets, retry=retry)

    assert Counter(done["statuses"]) == +Counter(sent=again, already_sent=2 - again)
    assert turns(sandbox) == [1] * (2 + again)
    known = entries(ledger)[targets[0].environment.id]
    assert known.attempt == (2 if again else 1)
    assert (
        known.conversation_id
        == [session["id"] for session in sandbox.qoder.sessions() if session["environment_id"] == known.environment_id][
            -1
        ]
    )


def test_a_given_session_is_used(sandbox: Sandbox, ledger: Path) -> None:
    target = to(sandbox)
    session_id = new_session(sandbox, target)
    target = replace(target, conversation_id=session_id)

    for expected in ("sent", "already_sent"):
        assert run_forked(sandbox, ledger, [target])["statuses"] == [expected]
    lose(ledger)
    # With the same key it is the same message.
    assert run_forked(sandbox, ledger, [target])["statuses"] == ["sent"]

    [session] = sandbox.qoder.sessions()
    assert (session["id"], session["messages"]) == (session_id, ["hello"])


def test_a_given_session_with_the_same_text_of_another_message_gets_the_message(sandbox: Sandbox, ledger: Path) -> None:
    target = to(sandbox)
    session_id = new_session(sandbox, target)
    message = Message("hello", "of last week")

    async def say(client: Client) -> None:
        await client.send(target.environment, [message], Address(AGENT, session_id))

    with_client(qoder_settings(sandbox), say)

    for expected in ("sent", "already_sent"):
        done = run_forked(sandbox, ledger, [replace(target, conversation_id=session_id)])
        assert done["statuses"] == [expected]
    assert [session["messages"] for session in sandbox.qoder.sessions()] == [["hello", "hello"]]


def test_a_given_session_that_is_busy_too_long_fails(
    sandbox: Sandbox, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.integration.kill_points.qoder_settings", lambda it: qoder_settings(it, deadline=0.5))
    target = to(sandbox)
    session_id = new_session(sandbox, target)
    sandbox.qoder.script(AGENT, QoderTurn(polls=2))
    message = Message("before", "before")

    async def say(client: Client) -> None:
        await client.send(target.environment, [message], Address(AGENT, session_id))

    with_client(qoder_settings(sandbox), say)
    target = replace(target, conversation_id=session_id)

    statuses = [run_forked(sandbox, ledger, [target])["statuses"][0] for _number in range(4)]

    assert statuses == ["failed", "failed", "sent", "already_sent"]
    assert [session["messages"] for session in sandbox.qoder.sessions()] == [["before", "hello"]]


def test_an_environment_archived_after_the_listing_is_offline(
    sandbox: Sandbox, ledger: Path, targets: list[MessageTarget]
) -> None:
    archived = {"status": "archived", "archived": True, "archived_at": "2026-01-01T00:00:00Z"}
    sandbox.qoder.patch(targets[0].environment.id, **archived)
    sandbox.qoder.remove(targets[1].environment.id)

    assert run_forked(sandbox, ledger, targets)["statuses"] == ["offline", "offline"]
    assert sandbox.qoder.sessions() == []


def test_simultaneous_runs_send_once(sandbox: Sandbox, ledger: Path) -> None:
    targets = [to(sandbox) for _number in range(10)]
    sandbox.add_fault("slow", seconds=0.05, route="qoder_send")
    sandbox.add_fault("slow", seconds=0.05, route="qoder_create")
    runs = [begin_run(sandbox, ledger, order, verify=False) for order in (targets, targets[::-1])]
    statuses = [status for run in runs for status in run()["statuses"]]

    assert set(statuses) <= {"sent", "already_sent", "not_attempted"}
    assert statuses.count("sent") == 10
    assert turns(sandbox) == [1] * 10
    assert len(sandbox.qoder.sessions()) == 10
