# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger: which campaign reached which environment, in an SQLite file that runs at the same time share.

Rollouts have their tables in it as well: see rollout_ledger.py.

What was committed survives the end of the process, however it ends. The end of the machine can take the latest of it,
as waiting for the disk before each message would cost more than sending it. That, like the loss of a whole ledger, is
made up for by the campaigns, which look up all that the ledger does not have as sent.

Whether another run is still alive shows from a lock that it holds on its own byte of a file beside the ledger: the
kernel lets go of it when the process ends, and it tells between containers too, where process ids and host names would
say nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

from ..errors import OptionError
from ..text import iso_now, one_line
from .database import _AT_FIRST, _UNDER_WAY, _check_has_one_name, _connect, _errors, _is_open, _locked
from .schema import _SCHEMA, ACTIVE, SCHEMA_VERSION, Entry, RunFacts

# "flee", so that nobody's other database is taken for a ledger.
_APPLICATION_ID = 0x666C6565
# The byte of the lock file that no run has, whose numbers begin with 1.
_WHO_PREPARES = 0


_COLUMNS = [field.name for field in fields(Entry)]
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM deliveries WHERE campaign = ?"  # noqa: S608 - names of ours
_OF_ITS_RUN = ("run_id", "os_user", "awx_job_id", "awx_user", "playbook")
_SELECT_WITH_RUNS = (
    f"SELECT {', '.join((*_COLUMNS, *_OF_ITS_RUN))} FROM deliveries JOIN runs ON run = number "  # noqa: S608
    "WHERE campaign = ?1 AND (?2 IS NULL OR environment_id = ?2) ORDER BY host, environment_id"
)
_NAMES, _VALUES = ", ".join(_COLUMNS), ", ".join("?" * len(_COLUMNS))
_INSERT = f"INSERT INTO deliveries ({_NAMES}) VALUES ({_VALUES}) ON CONFLICT DO NOTHING"  # noqa: S608
# Campaign and environment id come first, and SQLite finds the row by them alone.
_AS_SEEN = f"WHERE campaign = ? AND environment_id = ? AND ({', '.join(_COLUMNS[2:])}) IS ({_VALUES[6:]})"
_UPDATE = f"UPDATE deliveries SET ({_NAMES}) = ({_VALUES}) {_AS_SEEN}"  # noqa: S608
_DELETE = f"DELETE FROM deliveries {_AS_SEEN}"  # noqa: S608


def ledger_path(option: str | None) -> Path:
    """Where the ledger is: the option, else FLEETOPS_LEDGER, else below the XDG state directory. Raises OptionError.

    Links are followed: runs know each other by a file beside the ledger, which must be the same one for all of them.
    """
    given = option or os.environ.get("FLEETOPS_LEDGER", "").strip()
    if given:
        try:
            return Path(given).expanduser().resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise OptionError(
                "ledger", f"{one_line(given, 80)!r} is no path: {one_line(error)}; name another file"
            ) from None
    state = os.environ.get("XDG_STATE_HOME", "")
    # The XDG specification has relative paths ignored.
    base = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
    return (base / "fleetops" / "ledger.sqlite").resolve()


class Ledger:
    """An open ledger; a context manager. Every call raises OptionError for `ledger` where the file cannot be used."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self._lock_file: int | None = None
        self.run = 0

    @classmethod
    def open(cls, path: Path, facts: RunFacts) -> Self:
        """Open for a run, which is put down; the file, and its directory, are made for the user alone."""
        with _errors(path):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            _check_has_one_name(path)
            cls._check_is_ledger(path)
            ledger = cls(path, _connect(path, "rw"))
        try:
            with _errors(path):
                # Opened once: closing any descriptor of a file ends all of a process's locks on it.
                ledger._lock_file = os.open(f"{path}-lock", os.O_CREAT | os.O_RDWR, 0o600)
                with _locked(ledger._lock_file, _WHO_PREPARES, within=_AT_FIRST):
                    ledger._prepare()
                ledger._begin_run(facts)
                ledger.wait_for_others(_UNDER_WAY)
        except BaseException:
            ledger.close()
            raise
        return ledger

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Open to read alone; None where there is no ledger yet."""
        with _errors(path):
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if not path.exists() or not path.stat().st_size:
                return None
            cls._check_is_ledger(path)
            # To read it SQLite makes files beside it. Where it cannot, and nobody has it open, it is read without.
            immutable = not _is_open(path) and not os.access(path.parent, os.W_OK, effective_ids=True)
            ledger = cls(path, _connect(path, "ro", immutable=immutable))
            try:
                # A run that was killed, or goes on, while it made it.
                if ledger._is_new():
                    ledger.close()
                    return None
                # A copy of a ledger may be without it: nobody runs on that.
                if Path(f"{path}-lock").exists():
                    ledger._lock_file = os.open(f"{path}-lock", os.O_RDONLY)
            except BaseException:
                ledger.close()
                raise
            return ledger

    @classmethod
    def _check_is_ledger(cls, path: Path) -> None:
        """Raise OptionError for what is no ledger of this version; what nobody has open stays as it is."""
        found = cls(path, _connect(path, "ro", immutable=not _is_open(path)))
        with closing(found):
            found._check_schema()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file, and of the lock that says that the run is alive."""
        self._connection.close()
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def wait_for_others(self, seconds: float) -> None:
        """Let another process keep the file locked for so long from now on before a call fails."""
        self._connection.execute(f"PRAGMA busy_timeout = {seconds * 1000:.0f}")

    def begin(self, campaign: str, source_hash: str | None, repeat: int) -> None:
        """Put a campaign down, with what it sends and the repeat it is in.

        Raises OptionError for `campaign` where it has sent something else.
        """
        with self._transaction():
            self._add(campaign)
            self.check_source(campaign, source_hash)
            if source_hash is not None:
                self._connection.execute(
                    "UPDATE campaigns SET source_hash = ?, source_since = ? WHERE campaign = ? AND source_hash IS NULL",
                    (source_hash, iso_now(), campaign),
                )
            self._connection.execute(
                "UPDATE campaigns SET repeat = max(repeat, ?) WHERE campaign = ?", (repeat, campaign)
            )

    def repeat(self, campaign: str) -> int:
        """How often it has been begun to send the campaign to all again."""
        with _errors(self._path):
            row = self._connection.execute("SELECT repeat FROM campaigns WHERE campaign = ?", (campaign,)).fetchone()
        return int(row[0]) if row is not None else 0

    def check_source(self, campaign: str, source_hash: str | None) -> None:
        """Raise OptionError for `campaign` where it has sent something else. source_hash: None is not compared."""
        query = "SELECT source_since FROM campaigns WHERE campaign = ? AND source_hash != ?"
        with _errors(self._path):
            other = self._connection.execute(query, (campaign, source_hash)).fetchone()
        if other is not None:
            raise OptionError(
                "campaign",
                f"{campaign!r} has had other content since {other[0]}; give what is new a campaign of its own",
            )

    def state(self, campaign: str) -> str:
        """What was last set, `active` where nothing was."""
        with _errors(self._path):
            row = self._connection.execute("SELECT state FROM campaigns WHERE campaign = ?", (campaign,)).fetchone()
        return str(row[0]) if row is not None else ACTIVE

    def set_state(self, campaign: str, state: str) -> None:
        """Set the state, which runs read before each delivery; a campaign may have one before its first run."""
        with self._durably(), self._transaction():
            self._add(campaign)
            self._connection.execute("UPDATE campaigns SET state = ? WHERE campaign = ?", (state, campaign))

    def _add(self, campaign: str) -> None:
        self._connection.execute(
            "INSERT OR IGNORE INTO campaigns (campaign, created_at) VALUES (?, ?)", (campaign, iso_now())
        )

    def entries(self, campaign: str) -> dict[str, Entry]:
        """The deliveries of a campaign, by environment id."""
        with _errors(self._path):
            return {entry.environment_id: entry for entry in self._select(_SELECT, (campaign,))}

    def entry(self, campaign: str, environment_id: str) -> Entry | None:
        """One delivery, None where nothing is known of it."""
        with _errors(self._path):
            return next(self._select(f"{_SELECT} AND environment_id = ?", (campaign, environment_id)), None)

    def records(self, campaign: str, environment_id: str | None = None) -> list[dict[str, str | int | None]]:
        """The deliveries of a campaign, or that to one environment, in the order of the hosts, each with who ran it.

        The status of one that is in flight by a run that has ended is `interrupted`.
        """
        with _errors(self._path):
            rows = self._connection.execute(_SELECT_WITH_RUNS, (campaign, environment_id)).fetchall()
        records = [dict(zip((*_COLUMNS, *_OF_ITS_RUN), row, strict=True)) for row in rows]
        for record in records:
            run = record.pop("run")
            if record["status"] == "in_flight" and not self.is_alive(run):
                record["status"] = "interrupted"
        return records

    def replace(self, seen: Entry | None, entry: Entry) -> bool:
        """Put a delivery down where its row is still as it was seen, None for no row; whether it was."""
        with _errors(self._path):
            # One statement, which is a transaction of its own.
            if seen is None:
                return self._connection.execute(_INSERT, _values(entry)).rowcount == 1
            return self._connection.execute(_UPDATE, (*_values(entry), *_values(seen))).rowcount == 1

    def restore(self, entry: Entry, before: Entry | None) -> None:
        """Have a delivery's row be what it was before `entry`, none where that is None, unless it has changed since."""
        if before is not None:
            self.replace(entry, before)
            return
        with _errors(self._path):
            self._connection.execute(_DELETE, _values(entry))

    def query(self, statement: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The rows that a statement selects, by the names of their columns."""
        with _errors(self._path):
            cursor = self._connection.execute(statement, values)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """The database in a transaction, which is on the disk when this ends."""
        with self._durably(), self._transaction():
            yield self._connection

    def is_alive(self, run: int) -> bool:
        """Whether another run has not ended."""
        if run == self.run or self._lock_file is None:
            return run == self.run
        try:
            # Shared, so that two who look do not take each other for the one that is looked for.
            with _locked(self._descriptor, run, fcntl.LOCK_SH):
                return False
        except OSError:
            return True

    @property
    def _descriptor(self) -> int:
        if self._lock_file is None:
            raise RuntimeError("the ledger is closed")
        return self._lock_file

    def _select(self, query: str, values: Sequence[str]) -> Iterator[Entry]:
        for row in self._connection.execute(query, values):
            yield Entry(**dict(zip(_COLUMNS, row, strict=True)))

    def _prepare(self) -> None:
        """Make the tables in a file that is new. Writing is tried here, before anything is sent."""
        self._connection.execute("PRAGMA journal_mode = WAL")
        # What is committed survives the process; `_durably` says where that is not enough.
        self._connection.execute("PRAGMA synchronous = NORMAL")
        with self._transaction():
            if self._is_new():
                for statement in _SCHEMA.split(";"):
                    self._connection.execute(statement)
                self._connection.execute("INSERT INTO ledger VALUES (?)", (iso_now(),))
                self._connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._check_schema()

    def _is_new(self) -> bool:
        return not self._connection.execute("SELECT 1 FROM sqlite_master").fetchone()

    def _check_schema(self) -> None:
        """Raise OptionError for a database of something else, and for a ledger of another version's."""
        if self._is_new():
            return
        if self._pragma("application_id") != _APPLICATION_ID:
            raise OptionError("ledger", f"{str(self._path)!r} is a database of something else; name another file")
        version = self._pragma("user_version")
        if version != SCHEMA_VERSION:
            raise OptionError(
                "ledger",
                f"{str(self._path)!r} has the schema {version}, and this version of the collection knows "
                f"{SCHEMA_VERSION}; update the collection, or name another file",
            )

    def _begin_run(self, facts: RunFacts) -> None:
        with self._transaction():
            cursor = self._connection.execute(
                "INSERT INTO runs (run_id, started_at, os_user, awx_job_id, awx_user, playbook) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (str(uuid.uuid4()), iso_now(), facts.os_user, facts.awx_job_id, facts.awx_user, facts.playbook),
            )
            self.run = int(cursor.lastrowid or 0)
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1, self.run)

    @contextmanager
    def _durably(self) -> Iterator[None]:
        """Have what is committed in here on the disk when it is, and with it all that was committed before."""
        self._connection.execute("PRAGMA synchronous = FULL")
        try:
            yield
        finally:
            self._connection.execute("PRAGMA synchronous = NORMAL")

    def _pragma(self, name: str) -> int:
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _errors(self._path):
            # IMMEDIATE: what is read in it stays true until it is committed.
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def ledger_to_show(option: str | None, *, check_mode: bool) -> Ledger | None:
    """The ledger opened to read alone; None where there is none yet, and nobody has named one.

    In check mode a task before this one did not make what it would have made. Raises OptionError.
    """
    path = ledger_path(option)
    ledger = Ledger.read(path)
    if ledger is None and option and not check_mode and not path.exists():
        raise OptionError("ledger", f"there is no {str(path)!r}; give the file that a run has made")
    return ledger


def _values(entry: Entry) -> list[Any]:
    """An entry's values, in the order of the columns."""
    return [getattr(entry, name) for name in _COLUMNS]
