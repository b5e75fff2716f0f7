"""Campaigns: each device gets its message once, whatever happens to the runs."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.campaigns.campaign import Campaign
from ansible_collections.fleetops.environments.plugins.module_utils.campaigns.plan import make_message_id, plan_campaign
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.delivery import (
    Delivery,
    MessageTarget,
    deliver,
)
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.deliveries import Deliveries
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.schema import Entry, RunFacts
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.store import Ledger, open_ledger, read_ledger
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.client import Client
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.replies import Conversations
from ansible_collections.fleetops.environments.plugins.module_utils.providers.message import Message
from tests.sandbox.process import Sandbox
from tests.unit.support import environment_of, policy, row, settings_for

from .campaign_process import STEPS, start, wait_for_end


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def names(sandbox: Sandbox) -> list[str]:
    """Four online environments."""
    return [str(sandbox.add_environment()["id"]) for _number in range(4)]


def turns(sandbox: Sandbox) -> dict[str, int]:
    return {name: received["turns"] for name, received in sandbox.received().items()}


def once_each(names: Sequence[str]) -> dict[str, int]:
    return dict.fromkeys(names, 1)


def statuses(deliveries: Sequence[dict[str, Any]]) -> list[str]:
    return [delivery["status"] for delivery in deliveries]


def rows(ledger: Path) -> dict[str, Entry]:
    with read_ledger(ledger) as opened:
        return Deliveries(opened).entries("c")


def change(ledger: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(ledger, isolation_level=None)) as connection:
        connection.execute(statement)


def restart(sandbox: Sandbox, names: Sequence[str]) -> None:
    """Let the devices forget which messages they received."""
    for name in names:
        sandbox.rotate(name, restart=True)


def kill_run(sandbox: Sandbox, ledger: Path, names: Sequence[str], **given: Any) -> None:
    """A run that dies at the given step."""
    with start(sandbox, ledger, names, **given) as process:
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL


@contextlib.contextmanager
def killed_while_it_waits(sandbox: Sandbox, ledger: Path, names: Sequence[str], **given: Any) -> Iterator[None]:
    """A run whose messages were accepted but not yet answered; it is alive in the block, and killed at its end."""
    sandbox.add_fault("slow", seconds=60, route="messages", times=2)
    with start(sandbox, ledger, names, **given) as process:
        deadline = time.monotonic() + 30
        while len(turns(sandbox)) < 2:
            assert time.monotonic() < deadline
        yield
        process.kill()
        process.communicate(timeout=60)
    sandbox.clear_faults()


def test_a_campaign_that_is_run_twice_sends_once(sandbox: Sandbox, ledger: Path, names: list[str]) -> None:
    first = wait_for_end(start(sandbox, ledger, names))
    restart(sandbox, names)
    sandbox.clear_requests()
    second = wait_for_end(start(sandbox, ledger, names))

    assert (statuses(first), statuses(second)) == (["sent"] * 4, ["already_sent"] * 4)
    assert [one["client_message_id"] for one in first] == [make_message_id("c", name, 1) for name in names]
    assert [one["client_message_id"] for one in first] == [one["client_message_id"] for one in second]
    assert turns(sandbox) == once_each(names)
    assert [entry["route"] for entry in sandbox.requests()] == ["list"]


@pytest.mark.parametrize("step", STEPS)
def test_a_run_that_is_killed_at_any_step_is_completed_by_the_next(
    sandbox: Sandbox, ledger: Path, names: list[str], step: str
) -> None:
    """The devices restart in between, so they do not know which messages they received."""
    for nth in (2, 1):
        kill_run(sandbox, ledger, names, die_at=step, nth=nth)
        restart(sandbox, names)
    done = wait_for_end(start(sandbox, ledger, names))

    assert set(statuses(done)) <= {"sent", "already_sent"}
    assert turns(sandbox) == once_each(names)
    assert {entry.status for entry in rows(ledger).values()} == {"sent"}


def test_a_run_that_is_killed_while_it_waits_for_the_answer_has_sent(
    sandbox: Sandbox, ledger: Path, names: list[str]
) -> None:
    with killed_while_it_waits(sandbox, ledger, names):
        pass
    restart(sandbox, names)
    done = wait_for_end(start(sandbox, ledger, names))

    assert statuses(done) == ["already_sent", "already_sent", "sent", "sent"]
    assert done[0]["reason"] == "found in the conversation"
    assert turns(sandbox) == once_each(names)
    assert [rows(ledger)[name].outcome for name in names] == ["found in the conversation"] * 2 + [None] * 2


def test_a_delivery_in_progress_of_a_live_run_is_not_sent_by_another(
    sandbox: Sandbox, ledger: Path, names: list[str]
) -> None:
    with killed_while_it_waits(sandbox, ledger, names):
        other = wait_for_end(start(sandbox, ledger, names))

    assert statuses(other) == ["not_attempted", "not_attempted", "sent", "sent"]
    assert other[0]["reason"].startswith("another run of the campaign has it in flight since 20")
    assert turns(sandbox) == once_each(names)


def test_simultaneous_runs_send_once(sandbox: Sandbox, ledger: Path) -> None:
    names = [str(sandbox.add_environment()["id"]) for _number in range(30)]
    sandbox.add_fault("slow", seconds=0.05, route="messages")
    runs = [start(sandbox, ledger, order, verify=False) for order in (names, names[::-1], names[10:] + names[:10])]
    all_done = [wait_for_end(run) for run in runs]

    assert {status for done in all_done for status in statuses(done)} <= {"sent", "already_sent", "not_attempted"}
    assert sum(statuses(done).count("sent") for done in all_done) == 30
    assert len(sandbox.requests("messages")) == 30
    assert turns(sandbox) == once_each(names)


@pytest.mark.parametrize("created_at", [None, "2020-01-01T00:00:00.000Z"])
def test_after_a_lost_ledger_the_conversations_show_which_targets_were_reached(
    sandbox: Sandbox, ledger: Path, names: list[str], created_at: str | None
) -> None:
    """created_at: the time of the later ledger; the campaign may be much older."""
    wait_for_end(start(sandbox, ledger, names[:3]))
    for file in ledger.parent.iterdir():
        file.unlink()
    if created_at is not None:
        open_ledger(ledger, RunFacts("tester")).close()
        change(ledger, f"UPDATE ledger SET created_at = '{created_at}'")
    restart(sandbox, names)
    done = wait_for_end(start(sandbox, ledger, names))

    assert statuses(done) == ["already_sent"] * 3 + ["sent"]
    assert turns(sandbox) == once_each(names)


@pytest.mark.parametrize("kept", [None, "failed"])
def test_rows_that_the_ledger_lost_in_a_machine_crash_are_looked_up(
    sandbox: Sandbox, ledger: Path, names: list[str], kept: str | None
) -> None:
    """kept: the status in the ledger of a delivery whose last status was lost, None if its row was lost."""
    kill_run(sandbox, ledger, names[:2], die_at="recorded", nth=2)
    change(ledger, f"UPDATE deliveries SET status = '{kept}'" if kept else "DELETE FROM deliveries")
    restart(sandbox, names)

    done = wait_for_end(start(sandbox, ledger, names))

    assert statuses(done) == ["already_sent", "already_sent", "sent", "sent"]
    assert turns(sandbox) == once_each(names)


def test_a_shared_conversation_is_read_once(sandbox: Sandbox, ledger: Path, names: list[str]) -> None:
    wait_for_end(start(sandbox, ledger, names, agent_id="agent-1"))

    assert len(sandbox.requests("history")) == 1


def test_a_shared_conversation_is_read_again_after_a_failed_read(
    sandbox: Sandbox, ledger: Path, names: list[str]
) -> None:
    sandbox.add_fault("html_200", route="history", times=1)
    done = wait_for_end(start(sandbox, ledger, names, agent_id="agent-1", concurrency=1, max_failures=1))

    assert statuses(done) == ["unknown", "sent", "sent", "sent"]
    assert len(sandbox.requests("history")) == 2


def test_a_message_that_cannot_be_looked_up_is_not_sent(sandbox: Sandbox, ledger: Path, names: list[str]) -> None:
    sandbox.add_fault("status", status=400, route="history")
    done = wait_for_end(start(sandbox, ledger, names[:1]))
    assert statuses(done) == ["unknown"]
    assert "whether it was delivered before cannot be looked up: " in done[0]["error"]["message"]
    assert turns(sandbox) == {}

    sandbox.clear_faults()
    assert statuses(wait_for_end(start(sandbox, ledger, names[:1]))) == ["sent"]


def test_a_message_that_another_agent_may_have_is_not_sent_to_this_one(
    sandbox: Sandbox, ledger: Path, names: list[str]
) -> None:
    kill_run(sandbox, ledger, names[:1], die_at="sent", agent_id="agent-1")
    [done] = wait_for_end(start(sandbox, ledger, names[:1], agent_id="agent-2"))

    assert (done["status"], done["error"]["code"]) == ("unknown", "other_agent")
    assert "agent agent-1" in done["error"]["message"]
    assert turns(sandbox) == once_each(names[:1])


def test_without_a_look_up_the_message_is_sent_again_under_its_id(
    sandbox: Sandbox, ledger: Path, names: list[str]
) -> None:
    kill_run(sandbox, ledger, names, die_at="sent", nth=2, verify=False)
    done = wait_for_end(start(sandbox, ledger, names, verify=False))

    assert {*statuses(done)} <= {"sent", "already_sent"}
    assert sandbox.requests("history") == []
    # The devices drop the messages that they already have.
    assert turns(sandbox) == once_each(names)


@pytest.mark.parametrize("fault", ["drop_after", "drop_before"])
def test_an_unclear_delivery_is_looked_up_by_the_next_run(
    sandbox: Sandbox, ledger: Path, names: list[str], fault: str
) -> None:
    sandbox.add_fault(fault, route="messages")
    assert statuses(wait_for_end(start(sandbox, ledger, names[:1]))) == ["unknown"]
    sandbox.clear_faults()
    restart(sandbox, names)

    done = wait_for_end(start(sandbox, ledger, names[:1]))

    assert statuses(done) == ["already_sent" if fault == "drop_after" else "sent"]
    assert turns(sandbox) == once_each(names[:1])


def test_sending_to_all_again_is_another_attempt_under_another_id(
    sandbox: Sandbox, ledger: Path, names: list[str]
) -> None:
    wait_for_end(start(sandbox, ledger, names[:2]))
    done = wait_for_end(start(sandbox, ledger, names[:2], retry="all"))

    assert statuses(done) == ["sent", "sent"]
    assert [one["client_message_id"] for one in done] == [make_message_id("c", name, 2) for name in names[:2]]
    assert turns(sandbox) == dict.fromkeys(names[:2], 2)


def test_an_interrupted_repeat_is_completed_before_another_begins(
    sandbox: Sandbox, ledger: Path, names: list[str]
) -> None:
    wait_for_end(start(sandbox, ledger, names[:3]))
    kill_run(sandbox, ledger, names, die_at="recorded", nth=2, retry="all", concurrency=1)
    # Targets that are new to the campaign, or not selected in between, do not end the repeat.
    between = wait_for_end(start(sandbox, ledger, names[:3]))
    restart(sandbox, names)
    second = wait_for_end(start(sandbox, ledger, names, retry="all"))

    assert statuses(between) == ["already_sent"] * 3
    assert [status == "already_sent" for status in statuses(second)] == [True, True, False, False]
    assert turns(sandbox) == dict(zip(names, (2, 2, 2, 1), strict=True))
    assert statuses(wait_for_end(start(sandbox, ledger, names, retry="all"))) == ["sent"] * 4
    assert turns(sandbox) == dict(zip(names, (3, 3, 3, 2), strict=True))


def test_each_of_several_messages_has_its_own_id(sandbox: Sandbox, ledger: Path, names: list[str]) -> None:
    wait_for_end(start(sandbox, ledger, names[:1], messages=[{"content": "a"}, {"content": "b"}]))

    sent = sandbox.received()[names[0]]["messages"]
    assert [message["client_message_id"] for message in sent] == [
        make_message_id("c", names[0], 1, place) for place in (0, 1)
    ]
    assert [message["otid"] for message in sent] == [message["client_message_id"] for message in sent]


def test_a_row_records_the_delivery(sandbox: Sandbox, ledger: Path, names: list[str]) -> None:
    wait_for_end(start(sandbox, ledger, names[:1]))

    [row] = rows(ledger).values()
    assert (row.status, row.attempt, row.host, row.agent_id) == ("sent", 1, names[0], f"agent-{names[0]}")
    assert row.claimed_at <= str(row.sent_at) <= str(row.ended_at)
    assert oct(ledger.stat().st_mode)[-3:] == "600"


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_full_ledger_sends_nothing_that_it_cannot_record(
    sandbox: Sandbox, ledger: Path, names: list[str], concurrency: int
) -> None:
    done = wait_for_end(start(sandbox, ledger, names, full_at="claim", max_failures=4, concurrency=concurrency))

    assert done[0]["status"] == "failed"
    assert done[0]["error"]["code"] == "ledger"
    assert done[0]["error"]["message"].endswith(": database or disk is full; make room, and run this again")
    # It would fail for all other targets too.
    assert statuses(done)[1:] == ["not_attempted"] * 3
    assert {one["reason"] for one in done[1:]} == {"another delivery could not be recorded"}
    assert turns(sandbox) == {}


def test_a_ledger_that_stays_locked_is_waited_for_once(
    sandbox: Sandbox, ledger: Path, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ansible_collections.fleetops.environments.plugins.module_utils.ledger.sqlite._UNDER_WAY", 0.2)
    targets = [
        MessageTarget(name, environment_of(row(id=name)), "agent-1", messages=[Message.from_user("a")])
        for name in names
    ]
    waits: list[int] = []

    async def run(opened: Ledger) -> list[Delivery]:
        async with Client(settings_for(sandbox)) as client:
            arrived = Conversations(client, concurrency=1, rate=None).find_message
            planned = plan_campaign(Deliveries(opened), "c", "undelivered", targets)
            campaign = Campaign("c", Deliveries(opened), planned, arrived)
            waits.append(opened.query("PRAGMA busy_timeout")[0]["timeout"])
            with contextlib.closing(sqlite3.connect(ledger, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                done = await deliver({"letta": client}, planned.targets, policy(max_failures=4), campaign)
            waits.append(opened.query("PRAGMA busy_timeout")[0]["timeout"])
            assert done[0].error is not None
            assert campaign.problem == done[0].error["message"]
            return done

    with open_ledger(ledger, RunFacts("tester")) as opened:
        done = asyncio.run(run(opened))
    assert [delivery.status for delivery in done] == ["failed", *["not_attempted"] * 3]
    assert f"ledger: cannot use {str(ledger)!r}: database is locked; another process" in str(done[0].error)
    assert turns(sandbox) == {}
    # The sends that are under way then do not wait as long again.
    assert waits == [200, 100]


def test_a_sent_message_that_the_ledger_cannot_record_is_looked_up_later(
    sandbox: Sandbox, ledger: Path, names: list[str]
) -> None:
    [first] = wait_for_end(start(sandbox, ledger, names[:1], full_at="record"))
    restart(sandbox, names)
    [second] = wait_for_end(start(sandbox, ledger, names[:1]))

    assert (first["status"], first["error"]["code"]) == ("sent", "ledger")
    assert second["status"] == "already_sent"
    assert turns(sandbox) == once_each(names[:1])
