# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A session with PostgreSQL: how it connects and connects again, its advisory locks, and ways out of errors.

The server releases the locks of a session when the session ends, however the process ends. It notices within a minute
that a machine has gone. A pooler that gives each transaction another session would lose them, so it is refused.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TypeVar

# store.py imports this only for a URL, and url.py says what to do where the package is missing.
with contextlib.suppress(ImportError):
    import psycopg
    from psycopg import errors
    from psycopg.rows import DictRow, dict_row

from ..errors import OptionError
from ..text import one_line
from .url import PostgresqlUrl

# The schema with our tables, as identifiers of other programs in the same database do not matter then.
NAMESPACE = "fleetops"
# The first key of our advisory locks: of transactions, which come one after the other, of runs, and of rollouts.
TRANSACTIONS, RUNS, ROLLOUTS = 0x666C6501, 0x666C6502, 0x666C6503
# The rows of pg_locks for an advisory lock of two keys, granted to any session of this database.
LOCKED = (
    "FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = %s::int::oid AND objid = %s::int::oid "
    "AND objsubid = 2 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
# Seconds for which a lock is waited for and a connection tried again: at first, and once messages are being sent.
_AT_FIRST, _UNDER_WAY = 5.0, 30.0
_BETWEEN_TRIES = 0.2
# Seconds for which a pooler may let a second connection wait.
_POOLER_TIME = 5.0
# Unless the URL says otherwise. A connection whose other end has gone is noticed in less than a minute.
_PARAMETERS = {
    "client_encoding": "utf8",
    "connect_timeout": "10",
    "fallback_application_name": "fleetops",
    "keepalives_idle": "20",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "45000",
}
# The server's side of the same. A run that was stopped in a transaction does not keep the others waiting, and one that
# waits for replies may be silent; PostgreSQL 13 has no time-out for that.
_SETTINGS = """
SET search_path TO fleetops;
SET default_transaction_isolation TO 'read committed';
SET idle_in_transaction_session_timeout TO '30s';
SET tcp_keepalives_idle TO 20;
SET tcp_keepalives_interval TO 10;
SET tcp_keepalives_count TO 3;
SET tcp_user_timeout TO '45s';
SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'
"""
_POOLED = (
    "is behind a pooler that changes the session between transactions, and a run holds a lock of its session while it "
    "is alive; name the server itself, or set pool_mode=session for this database in PgBouncer"
)
# What a user can do about an error, by the start of its SQLSTATE.
_WAYS_OUT = {
    "55P03": "another run keeps it locked; run this again when that has ended",
    "53": "make room on its server, or see its limits, and run this again",
    "25006": "name its primary server, as a standby can be read alone",
    "22012": "this session has lost the lock of its run; run this again",
}
_OTHERWISE = "see the log of its server, and run this again"
_WITHOUT_CONNECTION = "see that its server runs, and that host, port, database, user, password and sslmode are right"

_RIGHTS = (
    f"CREATE SCHEMA IF NOT EXISTS {NAMESPACE}; GRANT USAGE, CREATE ON SCHEMA {NAMESPACE} TO {{role}}; "
    f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {NAMESPACE} TO {{role}}"
)

# What it logs would be on standard error and in Ansible's log, and each error is raised anyway.
logging.getLogger("psycopg").setLevel(logging.CRITICAL)

Result = TypeVar("Result")


class Session:
    """A connection with PostgreSQL, in autocommit mode, and the locks that it holds. Every call raises OptionError.

    patience: seconds for which a lost connection is tried again. in_transaction: whether statements are part of one,
        so that they cannot be repeated.
    needs: the statements that an administrator runs for a role without rights.
    find_loss: says after a lost connection what another run has taken over meanwhile, None for nothing.
    """

    connection: psycopg.Connection[DictRow]

    def __init__(self, url: PostgresqlUrl) -> None:
        self._url = url
        self._parameters = {**_PARAMETERS, **url.read()}
        self._locks: list[tuple[int, int]] = []
        self._role = ""
        self._ahead = timedelta()
        # What another run has taken over; this one changes nothing any more.
        self._loss: str | None = None
        self.patience = self._limit = _AT_FIRST
        self.in_transaction = False
        self.needs = _RIGHTS
        self.find_loss: Callable[[], str | None] = lambda: None
        with self.explain_errors():
            self._connect()

    def close(self) -> None:
        self.connection.close()

    def now(self) -> datetime:
        """The present time by the clock of the server."""
        return datetime.now(UTC) + self._ahead

    def wait_for_others(self, seconds: float = _UNDER_WAY) -> None:
        """Set for how long locks are waited for, and a lost connection is tried again."""
        self.patience = seconds

    def run(self, work: Callable[[psycopg.Connection[DictRow]], Result]) -> Result:
        """What some work with the connection returns; it is done again if the connection was lost."""
        since = None
        with self.explain_errors():
            while True:
                if self._loss is not None:
                    raise OptionError("ledger", f"the connection with {self._url} was lost, and {self._loss}")
                try:
                    if self._limit != self.patience:
                        self._limit_waiting()
                    return work(self.connection)
                except psycopg.OperationalError:
                    since = time.monotonic() if since is None else since
                    # The work itself may be what ends the connection.
                    if not self.connection.closed or self.in_transaction or self._has_waited(since):
                        raise
                self._connect_again(since)

    def lock(self, kind: int, key: int) -> bool:
        """Take an advisory lock of the session; False if another session has it."""
        is_taken = self.run(lambda connection: _take(connection, kind, key))
        if is_taken:
            self._locks.append((kind, key))
        return is_taken

    def unlock(self, kind: int, key: int) -> None:
        """Release a lock; it has gone where the session has ended."""
        self._locks.remove((kind, key))
        with contextlib.suppress(psycopg.Error):
            self.connection.execute("SELECT pg_advisory_unlock(%s::int, %s::int)", (kind, key))

    @contextlib.contextmanager
    def explain_errors(self) -> Iterator[None]:
        """Raise OptionError, with the way out, instead of an error of psycopg."""
        try:
            yield
        except errors.InsufficientPrivilege as error:
            way_out = f"have an administrator run this in it, and run this again: {self.needs.format(role=self._role)}"
            raise OptionError("ledger", f"{self._url}: {self._hide(error)}; {way_out}") from None
        except psycopg.Error as error:
            state = error.sqlstate or ""
            lost = isinstance(error, psycopg.OperationalError) and (not state or state.startswith(("08", "57", "28")))
            way_out = _WITHOUT_CONNECTION if lost else _OTHERWISE
            way_out = next((_WAYS_OUT[start] for start in (state, state[:2]) if start in _WAYS_OUT), way_out)
            raise OptionError("ledger", f"cannot use {self._url}: {self._hide(error)}; {way_out}") from None

    def _hide(self, error: psycopg.Error) -> str:
        """What an error says, without user and password."""
        text = str(error)
        for name in ("password", "user"):
            if secret := self._parameters.get(name):
                text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "********", text)
        return one_line(text)

    def _connect(self) -> None:
        self.connection = _open(self._parameters)
        try:
            self._set_up()
        except BaseException:
            self.connection.close()
            raise

    def _set_up(self) -> None:
        before = datetime.now(UTC)
        found = self._ask_session()
        self._ahead = found["now"] - before - (datetime.now(UTC) - before) / 2
        # A pooler gives the keys for cancelling a statement itself.
        if found["pid"] != self.connection.info.backend_pid and self._is_shared(found["pid"]):
            raise OptionError("ledger", f"{self._url} {_POOLED}")
        self._role = found["role"]
        self.connection.execute(_SETTINGS)
        self._limit_waiting()
        for kind, key in self._locks:
            if kind == RUNS:
                # The server may not have noticed yet that the session before has ended; no other run takes this lock.
                self.connection.execute(f"SELECT pg_terminate_backend(pid) {LOCKED}", (kind, key))

    def _has_waited(self, since: float) -> bool:
        """Whether as much time has passed as there is for a lost connection. It may become less meanwhile."""
        return time.monotonic() > since + self.patience

    def _connect_again(self, since: float) -> None:
        """Connect with the same locks. Notes if another run has taken its place."""
        while not self._try_to_connect(is_last=self._has_waited(since)):
            time.sleep(_BETWEEN_TRIES)
        self._loss = self._loss or self.find_loss()

    def _try_to_connect(self, *, is_last: bool) -> bool:
        try:
            self._connect()
        except psycopg.OperationalError:
            if is_last:
                raise
            return False
        if all(_take(self.connection, *lock) for lock in self._locks):
            return True
        self.connection.close()
        if is_last:
            self._loss = "another run has its rollout"
        return is_last

    def _ask_session(self) -> DictRow:
        question = "SELECT pg_backend_pid() AS pid, clock_timestamp() AS now, quote_ident(current_user) AS role"
        return self.connection.execute(question).fetchall()[0]

    def _is_shared(self, pid: int) -> bool:
        """Whether a pooler gives the session to another connection while this one is in no transaction."""
        with contextlib.suppress(psycopg.OperationalError), _open(self._parameters) as other:
            # A pool of one session for each connection may let the other one wait for ever.
            limit = threading.Timer(_POOLER_TIME, _cut, [other.fileno()])
            limit.start()
            try:
                other.execute("BEGIN")
                found = other.execute("SELECT pg_backend_pid() AS pid").fetchall()[0]
                return bool(found["pid"] == pid or self._ask_session()["pid"] != pid)
            finally:
                limit.cancel()
                limit.join()
        return False

    def _limit_waiting(self) -> None:
        self._limit = self.patience
        self.connection.execute(f"SET lock_timeout TO {max(1, round(self._limit * 1000))}")


def _open(parameters: dict[str, str]) -> psycopg.Connection[DictRow]:
    return psycopg.connect(**parameters, autocommit=True, row_factory=dict_row)  # type: ignore[arg-type]


def _take(connection: psycopg.Connection[DictRow], kind: int, key: int) -> bool:
    question = "SELECT pg_try_advisory_lock(%s::int, %s::int) AS is_taken"
    return bool(connection.execute(question, (kind, key)).fetchall()[0]["is_taken"])


def _cut(descriptor: int) -> None:
    with contextlib.suppress(OSError), socket.socket(fileno=descriptor) as connection:
        try:
            connection.shutdown(socket.SHUT_RDWR)
        finally:
            connection.detach()
