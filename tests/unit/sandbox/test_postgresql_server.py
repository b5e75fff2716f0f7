"""The PostgreSQL server of the tests: it starts as an ordinary user, keeps what was committed, and leaves nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from tests.sandbox.postgresql import PostgresqlServer
from tests.sandbox.process import CHECKOUT


def test_each_database_is_new_and_belongs_to_a_role_that_is_no_superuser(postgresql: PostgresqlServer) -> None:
    with postgresql.database() as first, postgresql.database() as second:
        with psycopg.connect(first, autocommit=True) as connection:
            connection.execute("CREATE TABLE here (number int)")
            [superuser] = connection.execute("SELECT usesuper FROM pg_user WHERE usename = current_user").fetchone()
        with psycopg.connect(second) as connection:
            found = connection.execute("SELECT * FROM pg_tables WHERE tablename = 'here'").fetchall()

    assert (superuser, found) == (False, [])
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(first)


def test_a_password_is_needed(postgresql: PostgresqlServer, postgresql_url: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgresql_url.replace(postgresql.password, "another"))


@pytest.mark.parametrize("how", [signal.SIGQUIT, signal.SIGINT])
def test_what_was_committed_is_there_when_the_server_has_been_stopped_and_started(
    postgresql: PostgresqlServer, postgresql_url: str, how: signal.Signals
) -> None:
    with psycopg.connect(postgresql_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
    with psycopg.connect(postgresql_url) as connection:
        postgresql.stop(how)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError, match="refused"):
            psycopg.connect(postgresql_url)
        postgresql.run()
    with psycopg.connect(postgresql_url) as connection:
        assert connection.execute("SELECT number FROM kept").fetchall() == [(7,)]


def test_the_server_is_an_ordinary_users_and_leaves_nothing(postgresql: PostgresqlServer) -> None:
    with PostgresqlServer.start() as server:
        assert Path(f"/proc/{server.pid}").stat().st_uid != 0
        directory, pid = server.directory, server.pid

    assert not directory.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_server_ends_with_the_tests_also_when_they_are_killed(postgresql: PostgresqlServer) -> None:
    program = (
        "import os\nfrom tests.sandbox.postgresql import PostgresqlServer\n"
        "with PostgresqlServer.start() as server:\n"
        "    print(server.directory, flush=True)\n    os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    directory = Path(killed.stdout.strip())

    # It removes this file last.
    while (directory / "data/postmaster.pid").exists():
        time.sleep(0.02)
    shutil.rmtree(directory)
