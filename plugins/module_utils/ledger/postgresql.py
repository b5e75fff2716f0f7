# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A ledger in PostgreSQL, which runs on many machines share. The statements are those of the SQLite ledger.

What was committed survives. A run that is alive holds an advisory lock with its number, and one of the rollout that it
works on; postgresql_session.py has what becomes of them when the connection is lost.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from typing import Any, Self, TypeVar

from ..errors import OptionError
from ..text import format_time, hash_text, one_line
from .postgresql_session import LOCKED, NAMESPACE, ROLLOUTS, RUNS, TRANSACTIONS, Session
from .schema import SCHEMA, SCHEMA_VERSION, UPGRADES, RunFacts, check_version
from .url import PostgresqlUrl
from .writer import Writer

# Seconds for which the process of a rollout may go on after its ansible-playbook was killed, and between two looks.
_LAST_TASK, _LOOK_EVERY = 10.0, 0.2
# Seconds for a lock or a lost connection once the run has been told to end.
_IN_A_HURRY = 2.0
Result = TypeVar("Result")
_NUMBER = "BIGINT GENERATED ALWAYS AS IDENTITY"
# Fails in a session that does not hold the lock, and so undoes the transaction that it is a part of.
_CHECK_LOCK = f"SELECT 1 / count(*) {LOCKED} AND pid = pg_backend_pid()"
_LOCK_TRANSACTION = f"SELECT pg_advisory_xact_lock({TRANSACTIONS}, 0)"
_ADD_RUN = (
    "INSERT INTO runs (run_id, started_at, os_user, awx_job_id, awx_user, playbook) "
    "VALUES (?, ?, ?, ?, ?, ?) RETURNING number"
)
# The run whose session holds the lock of a rollout.
_FIND_HOLDER = (
    "SELECT started_at, os_user, awx_job_id, awx_user, playbook FROM runs WHERE number IN "  # noqa: S608 - as above
    f"(SELECT objid::int FROM pg_locks WHERE locktype = 'advisory' AND classid = {RUNS} AND objsubid = 2 "
    f"AND pid IN (SELECT pid {LOCKED}))"
)


class PostgresqlLedger(AbstractContextManager["PostgresqlLedger"]):
    """A ledger in a database, as `Ledger` in store.py. Every call raises OptionError for `ledger` if it fails."""

    def __init__(self, url: PostgresqlUrl) -> None:
        self._url = url
        self._session = Session(url)
        self._writer = Writer(self.change_together, lambda: self.wait_for_others(_IN_A_HURRY))
        self.run = 0

    @classmethod
    def open(cls, url: PostgresqlUrl, facts: RunFacts) -> Self:
        """Open for a run, and record the run. The tables are made or upgraded."""
        with ExitStack() as undo:
            ledger = cls(url)
            undo.push(ledger)
            if ledger._read_version() != SCHEMA_VERSION:
                ledger._prepare()
            ledger._begin_run(facts)
            ledger._session.wait_for_others()
            undo.pop_all()
        return ledger

    @classmethod
    def read(cls, url: PostgresqlUrl) -> Self | None:
        """Open to read alone; None if there is no ledger yet."""
        with ExitStack() as undo:
            ledger = cls(url)
            undo.push(ledger)
            version = ledger._read_version()
            if not version:
                return None
            if version < SCHEMA_VERSION:
                ledger._copy(version)
            undo.pop_all()
        return ledger

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, and with it release the locks."""
        self._writer.close()
        self._session.close()

    def now(self) -> str:
        """The present time by the clock of the server, which all runs share."""
        return format_time(self._session.now())

    def wait_for_others(self, seconds: float) -> None:
        """Set for how long a call waits for another session, or for a connection, before it fails."""
        self._session.wait_for_others(seconds)

    def query(self, statement: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The rows that a statement selects, by the names of their columns."""
        rows: list[dict[str, Any]] = self._execute(statement, values).fetchall()
        return rows

    def change(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Run one statement, a transaction of its own unless one is open; returns how many rows it changed."""
        if self._session.in_transaction:
            return int(self._execute(statement, values).rowcount)
        return self.change_together([(statement, values)])[0]

    async def change_soon(self, statement: str, values: Sequence[Any] = ()) -> int:
        """As `change`. The values begin with the two keys of a row."""
        return await self._writer.change(statement, values)

    async def in_thread(self, function: Callable[[], Result]) -> Result:
        """What a function returns that calls this ledger."""
        return await self._writer.call(function)

    def change_together(self, changes: Sequence[tuple[str, Sequence[Any]]]) -> list[int]:
        """Run statements as one transaction with one round trip; returns how many rows each changed.

        If the connection is lost they run again, and what they changed before is not counted then.
        """

        def work(connection: Any) -> list[int]:
            # Without BEGIN all is one transaction that the end of the pipeline commits.
            with connection.pipeline():
                connection.execute(_CHECK_LOCK, (RUNS, self.run))
                cursors = [connection.execute(_translate(statement), _clean(values)) for statement, values in changes]
            return [cursor.rowcount for cursor in cursors]

        return self._session.run(work)

    def change_each(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement with the values of each row, in the transaction that is open."""
        self._session.run(lambda connection: connection.cursor().executemany(_translate(statement), map(_clean, rows)))

    @contextmanager
    def transaction(self, *, durable: bool) -> Iterator[None]:
        """A transaction that is committed at the end, or rolled back where an exception ends it.

        Rows that are read in it do not change before its end, as all transactions come one after the other.
        durable: here each one is.
        """
        session = self._session
        with session.explain_errors():
            # A connection that was lost before is found here, where all can begin again.
            session.run(lambda connection: connection.execute("BEGIN"))
            session.in_transaction = True
            try:
                session.connection.execute(_LOCK_TRANSACTION)
                yield
                session.connection.execute("COMMIT")
            except BaseException:
                if not session.connection.closed:
                    session.connection.execute("ROLLBACK")
                raise
            finally:
                session.in_transaction = False

    def is_alive(self, run: int) -> bool:
        """Whether a run has not ended."""
        return run == self.run or bool(self.query(f"SELECT pid {LOCKED}".replace("%s", "?"), (RUNS, run)))

    @contextmanager
    def hold_rollout(self, name: str) -> Iterator[None]:
        """Keep other runs from a rollout while this is open. Raises OptionError for `name` if another run has it."""
        # Keys are positive numbers of 32 bits.
        key = int(hash_text(name)[:8], 16) >> 1
        until = time.monotonic() + _LAST_TASK
        while not self._session.lock(ROLLOUTS, key):
            if time.monotonic() > until:
                holder = self._describe_holder(key)
                problem = f"another run has rollout {name!r} {one_line(holder)}; wait until that has ended"
                raise OptionError("name", problem)
            time.sleep(_LOOK_EVERY)
        # A run that has taken its place while the connection was lost has its number there.
        self.change("UPDATE rollouts SET run = ? WHERE name = ?", (self.run, name))
        self._session.find_loss = lambda: self._find_other_run(name)
        try:
            yield
        finally:
            self._session.find_loss = lambda: None
            self._session.unlock(ROLLOUTS, key)

    def _execute(self, statement: str, values: Sequence[Any]) -> Any:
        return self._session.run(lambda connection: connection.execute(_translate(statement), _clean(values)))

    def _find_other_run(self, name: str) -> str | None:
        found = self.query("SELECT run FROM rollouts WHERE name = ? AND run != ?", (name, self.run))
        return f"run {found[0]['run']} has gone on with rollout {name!r}" if found else None

    def _describe_holder(self, key: int) -> str:
        for row in self.query(_FIND_HOLDER.replace("%s", "?"), (ROLLOUTS, key)):
            since = row.pop("started_at")
            return f"since {since}, {RunFacts(**row).describe()}"
        return "under way"

    def _prepare(self) -> None:
        """Make or upgrade the tables, which another run may have done meanwhile."""
        with self.transaction(durable=True):
            version = self._read_version()
            if not version:
                if not self.query("SELECT 1 FROM pg_namespace WHERE nspname = ?", (NAMESPACE,)):
                    self.change(f"CREATE SCHEMA {NAMESPACE}")
                self._run_all(SCHEMA)
                self.change("ALTER TABLE ledger ADD COLUMN version INTEGER")
                self.change("INSERT INTO ledger VALUES (?, ?)", (self.now(), SCHEMA_VERSION))
            else:
                self._upgrade(version)

    def _upgrade(self, version: int) -> None:
        wanted = [UPGRADES[earlier] for earlier in range(version, SCHEMA_VERSION)]
        wanted.append(f"UPDATE ledger SET version = {SCHEMA_VERSION}")  # noqa: S608
        # Only the owner of a table may change its columns.
        self._session.needs = "; ".join([f"SET search_path TO {NAMESPACE}", *map(_adapt, wanted)])
        self._run_all("; ".join(wanted))

    def _copy(self, version: int) -> None:
        """Read from an upgraded copy from now on, as reading changes no table: temporary tables hide the others."""
        with self.transaction(durable=False):
            for row in self.query("SELECT tablename FROM pg_tables WHERE schemaname = ?", (NAMESPACE,)):
                table = row["tablename"]
                self.change(f"CREATE TEMPORARY TABLE {table} AS TABLE {NAMESPACE}.{table}")
            self._upgrade(version)

    def _run_all(self, statements: str) -> None:
        for statement in statements.split(";"):
            self.change(_adapt(statement))

    def _read_version(self) -> int:
        """The version of its schema, 0 without tables. Raises OptionError for an unknown one."""
        # Not to_regclass(), whose answer may be as old as the transaction.
        there = "SELECT 1 FROM pg_tables WHERE schemaname = ? AND tablename = 'ledger'"
        if not self.query(there, (NAMESPACE,)):
            return 0
        version = int(self.query(f"SELECT version FROM {NAMESPACE}.ledger")[0]["version"])  # noqa: S608 - a name of ours
        check_version(str(self._url), version, "name another database")
        return version

    def _begin_run(self, facts: RunFacts) -> None:
        who = (facts.os_user, facts.awx_job_id, facts.awx_user, facts.playbook)
        with self.transaction(durable=False):
            self.run = int(self.query(_ADD_RUN, (str(uuid.uuid4()), self.now(), *who))[0]["number"])
            # No other run sees the number before the lock is held.
            self._session.lock(RUNS, self.run)


def _adapt(statement: str) -> str:
    """A statement that makes or changes a table. Texts are sorted by their bytes, as in SQLite."""
    sorted_alike = statement.replace(" TEXT", ' TEXT COLLATE "C"')
    return sorted_alike.replace("INTEGER PRIMARY KEY AUTOINCREMENT", f"{_NUMBER} PRIMARY KEY")


def _clean(values: Sequence[Any]) -> list[Any]:
    """Values without the NUL that a device may have in a text, which PostgreSQL refuses."""
    return [value.replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) else value for value in values]


@cache
def _translate(statement: str) -> str:
    """A statement with the placeholders of psycopg. SQLite has another word for comparing rows with NULL in them."""
    escaped = statement.replace("%", "%%").replace("?", "%s")
    return escaped.replace(") IS (", ") IS NOT DISTINCT FROM (")
