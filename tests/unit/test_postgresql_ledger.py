"""The ledger in PostgreSQL: what a run does when its connection is lost, and how it says what is missing."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime

import psycopg
import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.errors import OptionError
from ansible_collections.fleetops.environments.plugins.module_utils.ledger import postgresql_session
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.deliveries import Deliveries
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.postgresql import PostgresqlLedger
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.rollouts import (
    RolloutUpdates,
    add_rollout,
    find_rollout,
    record_changes,
)
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.schema import Wave
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.url import (
    PostgresqlUrl,
    find_secrets,
    find_url,
)
from tests.sandbox.pgbouncer import find_pgbouncer, start_pgbouncer
from tests.sandbox.postgresql import PATIENCE, PostgresqlServer

from .support import BEGUN
from .test_ledger_stores import FACTS, ROLLOUT, make_earlier


@pytest.fixture
def url(postgresql_url: str) -> PostgresqlUrl:
    return PostgresqlUrl(postgresql_url)


@pytest.fixture
def ledger(url: PostgresqlUrl) -> Iterator[PostgresqlLedger]:
    with PostgresqlLedger.open(url, FACTS) as opened:
        yield opened


def end_sessions(url: PostgresqlUrl, of: str = "fleetops") -> None:
    """End the sessions of the ledger, as an administrator or the network does."""
    with psycopg.connect(url.text, autocommit=True) as connection:
        own = "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity "
        connection.execute(
            own + "WHERE datname = current_database() AND application_name = %s AND pid != pg_backend_pid()", (of,)
        )


def problem(url: PostgresqlUrl) -> str:
    """The error when a ledger is opened: one line that names the option, without user and password."""
    with pytest.raises(OptionError) as caught:
        PostgresqlLedger.open(url, FACTS).close()
    message = str(caught.value)
    assert message.startswith("ledger: ")
    assert "\n" not in message
    assert not any(secret in message for secret in find_secrets(url.text))
    return message


# A lost connection


def test_a_run_whose_session_was_ended_connects_again_with_its_locks(
    ledger: PostgresqlLedger, url: PostgresqlUrl
) -> None:
    entry = replace(BEGUN, run=ledger.run)
    with ledger.hold_rollout("r"), PostgresqlLedger.open(url, FACTS) as other:
        end_sessions(url)
        assert asyncio.run(Deliveries(ledger).replace(None, entry))
        assert other.is_alive(ledger.run)
        end_sessions(url)
        assert Deliveries(ledger).entries("c") == {"e": entry}
        end_sessions(url)
        assert add_rollout(ledger, ROLLOUT)
        end_sessions(url)
        with ledger.transaction(durable=True):
            assert asyncio.run(Deliveries(ledger).replace(entry, replace(entry, status="sent")))
        assert other.is_alive(ledger.run)


def test_a_run_ends_its_earlier_session_that_the_server_still_takes_for_alive(
    ledger: PostgresqlLedger, url: PostgresqlUrl
) -> None:
    end_sessions(url)
    with psycopg.connect(url.text, autocommit=True) as earlier:
        earlier.execute("SELECT pg_advisory_lock(%s::int, %s::int)", (postgresql_session.RUNS, ledger.run))
        assert asyncio.run(Deliveries(ledger).replace(None, BEGUN))
        with pytest.raises(psycopg.OperationalError, match="terminating connection"):
            earlier.execute("SELECT 1")


def test_a_transaction_whose_connection_is_lost_changes_nothing(ledger: PostgresqlLedger, url: PostgresqlUrl) -> None:
    with pytest.raises(OptionError, match=r"^ledger: cannot use postgresql://127\.0\.0\.1:.*"):
        lose_in_a_transaction(ledger, url)
    assert Deliveries(ledger).entries("c") == {}


def lose_in_a_transaction(ledger: PostgresqlLedger, url: PostgresqlUrl) -> None:
    with ledger.transaction(durable=True):
        asyncio.run(Deliveries(ledger).replace(None, BEGUN))
        end_sessions(url)
        asyncio.run(Deliveries(ledger).replace(BEGUN, replace(BEGUN, status="sent")))


@pytest.mark.parametrize("how", [signal.SIGQUIT, signal.SIGINT])
def test_a_run_waits_for_its_server_that_stops_and_starts(
    ledger: PostgresqlLedger, postgresql: PostgresqlServer, how: signal.Signals
) -> None:
    entry = replace(BEGUN, run=ledger.run)
    assert asyncio.run(Deliveries(ledger).replace(None, entry))
    postgresql.stop(how)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(asyncio.run, Deliveries(ledger).replace(entry, replace(entry, status="sent")))
        postgresql.run()
        assert asked.result()
    assert ledger.is_alive(ledger.run)
    assert Deliveries(ledger).entries("c") == {"e": replace(entry, status="sent")}


def test_a_run_without_its_server_ends_with_one_line(ledger: PostgresqlLedger, postgresql: PostgresqlServer) -> None:
    postgresql.stop()
    ledger.wait_for_others(0.5)
    with pytest.raises(OptionError) as caught:
        asyncio.run(Deliveries(ledger).replace(None, BEGUN))
    assert str(caught.value).startswith("ledger: cannot use postgresql://127.0.0.1:")
    assert "see that its server runs" in str(caught.value)
    with pytest.raises(OptionError, match=r"^ledger: "):
        ledger.query("SELECT 1")


def test_a_statement_that_ends_its_own_session_is_not_repeated_for_ever(ledger: PostgresqlLedger) -> None:
    ledger.wait_for_others(0.3)
    with pytest.raises(OptionError, match="terminating connection"):
        ledger.query("SELECT pg_terminate_backend(pg_backend_pid())")
    assert ledger.query("SELECT 1 AS one") == [{"one": 1}]


def test_a_rollout_goes_on_when_its_session_is_ended_before_each_change(
    ledger: PostgresqlLedger, url: PostgresqlUrl
) -> None:
    updates = RolloutUpdates(ledger, ROLLOUT, {})
    with ledger.hold_rollout("r"):
        steps: list[Callable[[], object]] = [
            lambda: add_rollout(ledger, ROLLOUT),
            lambda: record_changes(ledger, ROLLOUT, waves=[Wave(number=1, state="running")]),
            lambda: updates.tell("e1"),
            lambda: updates.done("e1", "1.0.0", "2026-01-31T12:00:00.000Z"),
            lambda: record_changes(ledger, ROLLOUT, waves=[Wave(number=1, state="passed")]),
        ]
        for change in steps:
            end_sessions(url)
            change()
        end_sessions(url)
    found = find_rollout(ledger, "r")
    assert found is not None
    assert (found.waves[0].state, found.targets[0].to_version) == ("passed", "1.0.0")


def test_a_run_that_is_told_to_end_does_not_wait_for_its_server(
    ledger: PostgresqlLedger, postgresql: PostgresqlServer
) -> None:
    async def end_while_waiting() -> None:
        change = asyncio.create_task(Deliveries(ledger).replace(None, BEGUN))
        await asyncio.sleep(0.3)
        change.cancel()
        await change

    ledger.wait_for_others(PATIENCE)
    postgresql.stop()
    began = time.monotonic()
    with pytest.raises(OptionError, match="see that its server runs"):
        asyncio.run(end_while_waiting())
    assert time.monotonic() < began + PATIENCE


def test_a_run_whose_rollout_another_one_has_gone_on_with_ends(ledger: PostgresqlLedger, url: PostgresqlUrl) -> None:
    add_rollout(ledger, ROLLOUT)
    with ledger.hold_rollout("r"):
        end_sessions(url)
        with PostgresqlLedger.open(url, FACTS) as other, other.hold_rollout("r"):
            pass
        with pytest.raises(OptionError, match=r"was lost, and run 2 has gone on with rollout 'r'$"):
            ledger.query("SELECT 1")
        with pytest.raises(OptionError, match="was lost"):
            record_changes(ledger, ROLLOUT, waves=[Wave(number=1, state="failed")])


def test_a_run_whose_rollout_another_one_has_ends(ledger: PostgresqlLedger, url: PostgresqlUrl) -> None:
    with ledger.hold_rollout("r"):
        end_sessions(url)
        with PostgresqlLedger.open(url, FACTS) as other, other.hold_rollout("r"):
            ledger.wait_for_others(0.5)
            with pytest.raises(OptionError, match=r"was lost, and another run has its rollout$"):
                add_rollout(ledger, ROLLOUT)
            assert find_rollout(other, "r") is None


def test_a_session_without_its_lock_changes_nothing(ledger: PostgresqlLedger) -> None:
    ledger.query("SELECT pg_advisory_unlock_all()")
    with pytest.raises(OptionError, match="has lost the lock of its run"):
        asyncio.run(Deliveries(ledger).replace(None, BEGUN))
    assert Deliveries(ledger).entries("c") == {}


# Rights


@pytest.fixture
def restricted(postgresql: PostgresqlServer, url: PostgresqlUrl) -> Iterator[PostgresqlUrl]:
    """The database for a role that may only connect."""
    role = f"slice {os.getpid()}"
    with postgresql.connect() as admin:
        admin.execute(f"CREATE ROLE \"{role}\" LOGIN PASSWORD '{postgresql.password}'")
    yield PostgresqlUrl(url.text.replace("fleet:", f"slice%20{os.getpid()}:"))
    with postgresql.connect(url.text.rpartition("/")[2]) as admin:
        admin.execute(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')


def run_statements(postgresql: PostgresqlServer, url: PostgresqlUrl, message: str) -> None:
    """Run what a message says, as an administrator."""
    statements = message.partition("and run this again: ")[2]
    assert statements
    with postgresql.connect(url.text.rpartition("/")[2]) as admin:
        admin.execute(statements)


def test_a_role_that_may_not_make_the_tables_gets_the_statements_that_an_administrator_runs(
    restricted: PostgresqlUrl, postgresql: PostgresqlServer
) -> None:
    message = problem(restricted)
    assert "permission denied for database" in message
    run_statements(postgresql, restricted, message)
    with PostgresqlLedger.open(restricted, FACTS) as opened:
        assert opened.run == 1


def test_a_role_that_may_not_use_the_tables_of_another_one_gets_the_statements(
    restricted: PostgresqlUrl, ledger: PostgresqlLedger, postgresql: PostgresqlServer
) -> None:
    message = problem(restricted)
    assert "permission denied" in message
    run_statements(postgresql, restricted, message)
    with PostgresqlLedger.open(restricted, FACTS) as opened:
        assert opened.is_alive(ledger.run)
        assert asyncio.run(Deliveries(opened).replace(None, BEGUN))


def test_a_role_that_may_not_upgrade_the_tables_of_another_one_gets_the_statements(
    restricted: PostgresqlUrl, url: PostgresqlUrl, postgresql: PostgresqlServer
) -> None:
    make_earlier(url)
    run_statements(postgresql, restricted, problem(restricted))
    message = problem(restricted)
    assert "must be owner of table rollout_targets" in message
    run_statements(postgresql, restricted, message)
    with PostgresqlLedger.open(restricted, FACTS) as opened:
        assert find_rollout(opened, "r") == ROLLOUT


# Poolers


@pytest.fixture(params=["session", "transaction"])
def pooled(request: pytest.FixtureRequest, postgresql_url: str) -> Iterator[PostgresqlUrl]:
    if find_pgbouncer() is None:
        pytest.skip("PgBouncer is missing (on Debian: sudo apt-get install pgbouncer)")
    with start_pgbouncer(postgresql_url, str(request.param)) as url:
        yield PostgresqlUrl(url)


def test_a_pooler_is_used_unless_it_changes_sessions(pooled: PostgresqlUrl, request: pytest.FixtureRequest) -> None:
    if "[transaction]" in request.node.name:
        assert "behind a pooler that changes the session between transactions" in problem(pooled)
        return
    with PostgresqlLedger.open(pooled, FACTS) as one, PostgresqlLedger.open(pooled, FACTS) as other:
        assert one.is_alive(other.run)
        assert asyncio.run(Deliveries(one).replace(None, BEGUN))
        assert Deliveries(other).entries("c") == {"e": BEGUN}


def test_a_pooler_with_one_session_for_all_is_judged_in_bounded_time(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_pgbouncer() is None:
        pytest.skip("PgBouncer is missing (on Debian: sudo apt-get install pgbouncer)")
    monkeypatch.setattr(postgresql_session, "_POOLER_TIME", 1.0)
    with (
        start_pgbouncer(postgresql_url, "session", 1) as url,
        PostgresqlLedger.open(PostgresqlUrl(url), FACTS) as opened,
    ):
        assert opened.run == 1
    with start_pgbouncer(postgresql_url, "transaction", 1) as url:
        assert "behind a pooler" in problem(PostgresqlUrl(url))


# The URL


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://user:secret@host:1/name", "postgresql://host:1/name"),
        ("postgres://host", "postgresql://host"),
        ("PostgreSQL://user@one:1,two:2/name?sslmode=require", "postgresql://one:1,two:2/name"),
        ("postgresql:///name?host=/run&password=secret", "postgresql:///name"),
        ("postgresql://user:sec@ret@host/name", "postgresql://host/name"),
        ("postgresql://user:sec/ret@host/name", "postgresql://host/name"),
        ("postgresql://user:sec?ret@host/name", "postgresql://..."),
        ("postgresql://host/name?password=sec@ret", "postgresql://..."),
    ],
)
def test_a_url_is_shown_without_user_and_password(text: str, shown: str) -> None:
    url = find_url(text)
    assert str(url) == shown
    assert "secret" not in repr(url)


def test_a_path_is_no_url() -> None:
    assert find_url("/a/postgresql://b") is None
    assert find_url("postgresql:/b") is None
    assert find_url(None) is None
    assert find_secrets("mysql://user:secret@host/name") == {"mysql://user:secret@host/name"}
    assert find_url(" PostgreSQL://User@Host/Name ") == PostgresqlUrl("postgresql://User@Host/Name")
    assert find_secrets("/a/path") == set()
    assert find_secrets("postgresql://u:p%40w@h") == {"postgresql://u:p%40w@h", "p@w"}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("mysql://user:secret@host/name", "it begins with another word"),
        ("postgresql+psycopg://user:secret@host/name", "it begins with another word"),
        ("postgresql://user:se/cret@host/name", "the port is not a number"),
        ("postgresql://host:99999/name", "the port is not a number"),
        ("postgresql://user:secret@host/name?sslmod=require", "invalid URI query parameter"),
        ("postgresql://user:se%zzcret@host/name", "invalid percent-encoded token"),
        ("postgresql://[user:secret/name", "end of string reached when looking for matching"),
        ("postgresql://user:secret@127.0.0.1:1/name", "127.0.0.1:1/name: "),
        ("postgresql://user:secret@127.0.0.1:1/name?sslmode=sometimes", "invalid sslmode value"),
        ("postgresql://user:secret@no.such.host.invalid/name", "see that its server runs, and that host, port"),
    ],
)
def test_a_url_that_cannot_be_used_is_one_line_without_its_secrets(text: str, what: str) -> None:
    message = problem(PostgresqlUrl(text))
    assert what in message
    assert not re.search(r"se[/%]|cret|user:|sslmod=|\buser\b(?!,| and)", message)


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        (("fleet:", "fleet:wrong"), 'password authentication failed for user "********"'),
        (("fleet:", "nobody:"), 'password authentication failed for user "********"'),
        (("/test_", "/none_"), "does not exist"),
        (("?", "?sslmode=require"), "server does not support SSL"),
    ],
)
def test_a_server_that_refuses_is_one_line_without_secrets(
    url: PostgresqlUrl, changed: tuple[str, str], what: str
) -> None:
    message = problem(PostgresqlUrl(f"{url.text}?".replace(*changed).rstrip("?")))
    assert what in message
    assert message.endswith(
        "see that its server runs, and that host, port, database, user, password and sslmode are right"
    )


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(OptionError) as caught:
        PostgresqlUrl("postgresql://user:secret@host/name").read()
    assert "requirements-postgresql.txt" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_run_may_be_silent_whatever_the_database_says(url: PostgresqlUrl) -> None:
    with psycopg.connect(url.text, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {url.read()['dbname']} SET idle_session_timeout = '1s'")
    with PostgresqlLedger.open(url, FACTS) as opened:
        assert opened.query("SHOW idle_session_timeout") == [{"idle_session_timeout": "0"}]


def test_the_time_is_the_servers(ledger: PostgresqlLedger, url: PostgresqlUrl) -> None:
    with psycopg.connect(url.text) as connection:
        before, after = (connection.execute("SELECT clock_timestamp()").fetchone() for _time in range(2))
    assert before is not None
    assert after is not None
    assert abs((datetime.fromisoformat(ledger.now()) - before[0]).total_seconds()) < PATIENCE
