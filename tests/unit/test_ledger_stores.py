"""What both ledgers promise: one file of SQLite, or PostgreSQL, shared by runs in several processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.errors import OptionError
from ansible_collections.fleetops.environments.plugins.module_utils.ledger import postgresql
from ansible_collections.fleetops.environments.plugins.module_utils.ledger import sqlite as sqlite_ledger
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.deliveries import Deliveries
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.rollouts import (
    RolloutUpdates,
    add_rollout,
    find_rollout,
    list_rollout_names,
    record_changes,
)
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.schema import (
    Entry,
    Rollout,
    RolloutTarget,
    RunFacts,
    Wave,
)
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.store import (
    Ledger,
    Location,
    find_location,
    open_ledger,
    open_to_show,
    read_ledger,
)

from .support import BEGUN

FACTS = RunFacts("tester", "7", "alice", "/plays/site.yml")
ROLLOUT = Rollout(
    name="r",
    version="1.0.0",
    waves_wanted=["50%", "100%"],
    planned_at="2026-01-31T10:00:00.000Z",
    waves=[Wave(number=1), Wave(number=2)],
    targets=[
        RolloutTarget(host="one", environment_id="e1", preflight="updatable", wave=1),
        RolloutTarget(host="two", environment_id="e2", preflight="offline", reason="100% off: ?"),
    ],
)


@pytest.fixture(params=["sqlite", "postgresql"])
def given(request: pytest.FixtureRequest) -> str:
    """The value of the option `ledger`: nothing is there yet."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("tmp_path") / "state" / "ledger.sqlite")
    return str(request.getfixturevalue("postgresql_url"))


@pytest.fixture
def location(given: str) -> Location:
    return find_location(given)


@pytest.fixture
def ledger(location: Location) -> Iterator[Ledger]:
    with open_ledger(location, FACTS) as opened:
        yield opened


@contextmanager
def another_run(location: Location, rollout: str | None = None) -> Iterator[tuple[int, int]]:
    """A run in another process, which may hold a rollout: its number and its process id. It is killed at the end."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        with open_ledger(location, FACTS) as opened:
            holding = opened.hold_rollout(rollout) if rollout else nullcontext()
            with holding:
                os.write(sender, str(opened.run).encode())
                signal.pause()
    try:
        os.close(sender)
        yield int(os.read(receiver, 20)), child
    finally:
        os.close(receiver)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def open_and_exit(location: Location) -> None:
    """In a child: its exit status is 0 if the ledger could be opened."""
    try:
        open_ledger(location, FACTS).close()
        os._exit(0)
    except OptionError as error:
        sys.stderr.write(f"{error}\n")
    os._exit(1)


def refusal(location: Location) -> str:
    with pytest.raises(OptionError) as caught:
        open_ledger(location, FACTS).close()
    return str(caught.value)


def test_a_claim_is_compared_replaced_and_restored(ledger: Ledger, location: Location) -> None:
    deliveries, ended = Deliveries(ledger), replace(BEGUN, status="sent", otid="o%?")
    assert asyncio.run(deliveries.replace(None, BEGUN))
    assert not asyncio.run(deliveries.replace(None, replace(BEGUN, host="other")))
    assert not asyncio.run(deliveries.replace(replace(BEGUN, agent_id="a"), ended))
    assert asyncio.run(deliveries.replace(BEGUN, ended))
    with read_ledger(location) as reading:
        assert Deliveries(reading).entries("c") == {"e": ended}
        assert Deliveries(reading).entry("c", "other") is None

    asyncio.run(deliveries.restore(ended, BEGUN))
    assert deliveries.entry("c", "e") == BEGUN
    asyncio.run(deliveries.restore(ended, None))
    assert deliveries.entry("c", "e") == BEGUN
    asyncio.run(deliveries.restore(BEGUN, None))
    assert deliveries.entries("c") == {}


def test_a_transaction_that_fails_changes_nothing(ledger: Ledger) -> None:
    deliveries = Deliveries(ledger)
    with suppress(KeyboardInterrupt), ledger.transaction(durable=True):
        assert asyncio.run(deliveries.replace(None, BEGUN))
        raise KeyboardInterrupt
    assert deliveries.entries("c") == {}

    with ledger.transaction(durable=True):
        asyncio.run(deliveries.replace(None, BEGUN))
    assert deliveries.entries("c") == {"e": BEGUN}


def test_a_statement_that_fails_names_the_option_and_leaves_the_ledger_usable(ledger: Ledger) -> None:
    with pytest.raises(OptionError, match=r"^ledger: .*missing"):
        ledger.query("SELECT * FROM missing")
    with pytest.raises(OptionError, match=r"^ledger: "), ledger.transaction(durable=False):
        ledger.change("DELETE FROM missing")

    assert asyncio.run(Deliveries(ledger).replace(None, BEGUN))


def test_a_run_is_alive_until_its_process_is_killed(ledger: Ledger, location: Location) -> None:
    assert ledger.is_alive(ledger.run)
    with another_run(location) as (run, process), read_ledger(location) as reading:
        assert run != ledger.run
        asyncio.run(Deliveries(ledger).replace(None, replace(BEGUN, run=run)))
        assert ledger.is_alive(run)
        assert reading.is_alive(run)
        assert not reading.is_alive(run + 1)
        assert Deliveries(reading).records("c")[0]["status"] == "in_flight"

        os.kill(process, signal.SIGKILL)
        os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
        while ledger.is_alive(run):
            pass
        assert not reading.is_alive(run)
        [record] = Deliveries(reading).records("c")
        assert (record["status"], record["os_user"], record["awx_job_id"]) == ("interrupted", "tester", "7")


def test_one_run_at_a_time_holds_a_rollout(location: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sqlite_ledger, postgresql):
        monkeypatch.setattr(module, "_LAST_TASK", 0.0)
    with another_run(location, "r"), open_ledger(location, FACTS) as ledger:
        with pytest.raises(OptionError) as caught, ledger.hold_rollout("r"):
            pass
        assert str(caught.value).startswith("name: another run has rollout 'r' since 20")
        assert str(caught.value).endswith(", by tester, AWX job 7; wait until that has ended")
        with ledger.hold_rollout("other"):
            pass

    monkeypatch.undo()
    with open_ledger(location, FACTS) as ledger:
        for _time in range(2):
            with ledger.hold_rollout("r"):
                pass


def test_a_campaign_has_one_content_a_repeat_and_a_state(ledger: Ledger) -> None:
    deliveries = Deliveries(ledger)
    assert (deliveries.state("c"), deliveries.repeat("c")) == ("active", 0)
    deliveries.set_state("c", "paused")
    deliveries.begin("c", None, 0)
    deliveries.begin("c", "one", 2)
    deliveries.begin("c", "one", 1)
    assert (deliveries.state("c"), deliveries.repeat("c")) == ("paused", 2)
    with pytest.raises(OptionError, match=r"^campaign: 'c' has had other content since 20"):
        deliveries.begin("c", "two", 3)
    assert deliveries.repeat("c") == 2


def test_the_deliveries_come_in_the_order_of_the_hosts_by_their_bytes(ledger: Ledger) -> None:
    entries = [replace(BEGUN, environment_id=name, host=name, run=ledger.run) for name in ("é", "b", "_a", "B", "a")]
    for entry in entries:
        asyncio.run(Deliveries(ledger).replace(None, entry))
    assert [record["host"] for record in Deliveries(ledger).records("c")] == ["B", "_a", "a", "b", "é"]


def test_a_rollout_is_stored_and_read(ledger: Ledger, location: Location) -> None:
    assert add_rollout(ledger, ROLLOUT)
    assert not add_rollout(ledger, ROLLOUT)
    with read_ledger(location) as reading:
        assert list_rollout_names(reading) == ["r"]
        assert find_rollout(reading, "r") == ROLLOUT
        assert find_rollout(reading, "other") is None

    RolloutUpdates(ledger, ROLLOUT, {}).tell("e1", "1.0.0")
    wave = Wave(number=1, state="passed", max_failures=0)
    target = replace(ROLLOUT.targets[0], status="updated", reason="done")
    record_changes(ledger, ROLLOUT, waves=[wave], targets=[target])
    found = find_rollout(ledger, "r")
    assert found is not None
    assert found.waves == [wave, ROLLOUT.waves[1]]
    assert (found.targets[0].status, found.targets[0].reason) == ("updated", "done")
    assert (found.targets[0].told_at or "").startswith("20")


def test_a_text_of_a_device_that_has_any_characters_is_stored(ledger: Ledger) -> None:
    target = replace(ROLLOUT.targets[0], manual_command="a\0b\x1b[31m%s ? \U0001f600'\"")
    assert add_rollout(ledger, replace(ROLLOUT, targets=[target]))
    found = find_rollout(ledger, "r")
    assert found is not None
    assert str(found.targets[0].manual_command).replace("\0", "\ufffd") == "a\ufffdb\x1b[31m%s ? \U0001f600'\""


def test_what_is_not_there_reads_as_empty_unless_the_option_names_it(given: str, location: Location) -> None:
    with read_ledger(location) as reading:
        assert reading.run == 0
        assert Deliveries(reading).entries("c") == {}
        assert not reading.is_alive(1)
    with open_to_show(given, check_mode=True) as shown:
        assert list_rollout_names(shown) == []
    with pytest.raises(OptionError, match=r"^ledger: there is no '.*'; give the one that a run has made$"):
        open_to_show(given, check_mode=False)


def set_version(ledger: Ledger, version: int) -> None:
    if isinstance(ledger, sqlite_ledger.SqliteLedger):
        ledger.change(f"PRAGMA user_version = {version}")
    else:
        ledger.change("UPDATE ledger SET version = ?", (version,))


def make_earlier(location: Location) -> Entry:
    with open_ledger(location, FACTS) as opened:
        entry = replace(BEGUN, run=opened.run)
        asyncio.run(Deliveries(opened).replace(None, entry))
        add_rollout(opened, ROLLOUT)
        opened.change("ALTER TABLE rollout_targets DROP COLUMN told_at")
        set_version(opened, 2)
    return entry


def test_an_earlier_schema_is_upgraded_by_one_of_many_runs_and_read_before(location: Location) -> None:
    entry = make_earlier(location)
    for _time in range(2):
        with read_ledger(location) as reading:
            assert Deliveries(reading).entries("c") == {"e": entry}
            assert find_rollout(reading, "r") == ROLLOUT
    children = []
    for _number in range(3):
        children.append(os.fork())
        if children[-1] == 0:
            open_and_exit(location)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 3

    with open_ledger(location, FACTS) as opened:
        assert Deliveries(opened).entries("c") == {"e": entry}
        RolloutUpdates(opened, ROLLOUT, {}).tell("e1")
        found = find_rollout(opened, "r")
        assert found is not None
        assert (found.targets[0].told_at or "").startswith("20")


@pytest.mark.parametrize(
    ("version", "way_out"), [(4, "; update the collection, or name another "), (1, "; name another ")]
)
def test_an_unknown_schema_is_refused(location: Location, version: int, way_out: str) -> None:
    with open_ledger(location, FACTS) as opened:
        set_version(opened, version)

    message = refusal(location)
    assert message.startswith(
        f"ledger: {location if not isinstance(location, os.PathLike) else repr(str(location))} has"
    )
    assert f"has the schema {version}, and this version of the collection knows 3{way_out}" in message
    with pytest.raises(OptionError, match=f"has the schema {version}"):
        read_ledger(location)


def test_many_runs_make_a_ledger_together(location: Location) -> None:
    children = []
    for _number in range(4):
        children.append(os.fork())
        if children[-1] == 0:
            open_and_exit(location)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    with open_ledger(location, FACTS) as opened:
        assert opened.run == 5


def test_the_time_is_the_one_that_all_runs_share(ledger: Ledger) -> None:
    assert ledger.now().startswith("20")
    assert ledger.now() <= ledger.now()
