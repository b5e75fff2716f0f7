# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A ledger in an SQLite file, which runs at the same time share. The statements are in deliveries.py and rollouts.py.

What was committed survives the end of the process, however it ends. The end of the machine can take the latest commits,
since waiting for the disk before each message would cost more than sending it. Campaigns make up for that, and for the
loss of a whole ledger: they look up each message that the ledger does not have as sent.

A run that is alive holds a lock on a byte of its own in a file beside the ledger. The kernel releases the lock when the
process ends. It works between containers too, where process ids and host names say nothing. A run that works on a
rollout holds a lock on a file of the rollout, beside the ledger, too.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from ..errors import OptionError
from ..text import format_now, hash_text, one_line
from .schema import SCHEMA, SCHEMA_VERSION, UPGRADES, RunFacts, check_version

# "flee", so that no other database is taken for a ledger.
_APPLICATION_ID = 0x666C6565
# The byte of the lock file for the run that prepares the ledger; the numbers of runs begin with 1.
_PREPARING = 0
# Seconds for which another process may keep the file locked: at first, and once messages are being sent.
_AT_FIRST, _UNDER_WAY = 5.0, 30.0
# Seconds between two tries to lock a byte that another run has locked.
_BETWEEN_TRIES = 0.02
# Seconds for which the process of a rollout may go on after its ansible-playbook was killed, and between two looks.
_LAST_TASK, _LOOK_EVERY = 10.0, 0.1
_MOST_READ = 1000
Result = TypeVar("Result")
# What a user can do about an error of the file.
_LOCKED = "another process keeps it locked, and `fuser` names it; end that, or run this again when it has ended"
_OTHERWISE = "name another file"
_FULL = "make room, and run this again"
_UNREADABLE = "see that it and its directory can be written, or name another file"
_BELOW_A_FILE = "a part of its path is a file, and no directory; name another file"
_WAYS_OUT_OF_SQLITE = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_FULL: _FULL,
    # Also a full disk, if SQLite finds that out while it makes the -shm.
    sqlite3.SQLITE_IOERR: "see that its disk has room and works, or name another file",
    sqlite3.SQLITE_CANTOPEN: _UNREADABLE,
    sqlite3.SQLITE_READONLY: _UNREADABLE,
}
_WAYS_OUT_OF_THE_SYSTEM = {
    errno.EAGAIN: _LOCKED,
    errno.EACCES: _UNREADABLE,
    errno.EEXIST: _BELOW_A_FILE,
    errno.ENOTDIR: _BELOW_A_FILE,
    errno.EISDIR: "name a file in it",
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
}


class SqliteLedger(AbstractContextManager["SqliteLedger"]):
    """A ledger in a file, as `Ledger` in store.py. Every call raises OptionError for `ledger` if it cannot be used."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self._connection.row_factory = sqlite3.Row
        self._lock_file: int | None = None
        self._note = ""
        self.run = 0

    @classmethod
    def open(cls, path: Path, facts: RunFacts) -> Self:
        """Open for a run, and record the run. The file and its directory are made for the user alone."""
        with _explain_errors(path), ExitStack() as undo:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            _check_has_one_name(path)
            cls._check_is_ledger(path)
            ledger = cls(path, _connect(path, "rw"))
            undo.push(ledger)
            # Opened once: closing any descriptor of a file ends all locks of the process on it.
            lock_file = ledger._lock_file = os.open(f"{path}-lock", os.O_CREAT | os.O_RDWR, 0o600)
            with _hold_lock(lock_file, _PREPARING, within=_AT_FIRST):
                ledger._prepare()
            ledger._begin_run(facts, lock_file)
            ledger.wait_for_others(_UNDER_WAY)
            undo.pop_all()
        return ledger

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Open to read alone; None if there is no ledger yet."""
        with _explain_errors(path), ExitStack() as undo:
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            # Without tables: the run that makes it was killed before it had made them, or is about to make them.
            if not path.exists() or not path.stat().st_size or not (version := cls._check_is_ledger(path)):
                return None
            # SQLite makes files beside a ledger that it reads, unless it is immutable. A ledger that no process has
            # open, in a directory that cannot be written, does not change.
            immutable = not _is_open(path) and not os.access(path.parent, os.W_OK, effective_ids=True)
            ledger = cls(path, _connect(path, "ro", immutable=immutable))
            undo.push(ledger)
            # A copy of a ledger may be without the lock file: no run uses it.
            if Path(f"{path}-lock").exists():
                ledger._lock_file = os.open(f"{path}-lock", os.O_RDONLY)
            if version < SCHEMA_VERSION:
                ledger._copy_into_memory()
            undo.pop_all()
        return ledger

    @classmethod
    def make_empty(cls) -> Self:
        """A ledger in memory, in which nothing is recorded."""
        ledger = cls(Path(), sqlite3.connect(":memory:", isolation_level=None))
        ledger._prepare()
        return ledger

    @classmethod
    def _check_is_ledger(cls, path: Path) -> int:
        """As `_read_version`. The file is not changed unless it is open."""
        with cls(path, _connect(path, "ro", immutable=not _is_open(path))) as found:
            return found._read_version()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, and release the lock that says that the run is alive."""
        self._connection.close()
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def now(self) -> str:
        """The present time for its rows."""
        return format_now()

    def wait_for_others(self, seconds: float) -> None:
        """Set for how long a call waits for another process to unlock the file before it fails."""
        self._connection.execute(f"PRAGMA busy_timeout = {seconds * 1000:.0f}")

    def query(self, statement: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The rows that a statement selects, by the names of their columns."""
        with _explain_errors(self._path):
            return [dict(row) for row in self._connection.execute(statement, values)]

    def change(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Run one statement, which is a transaction of its own; returns the number of rows that it changed."""
        with _explain_errors(self._path):
            return self._connection.execute(statement, values).rowcount

    async def change_soon(self, statement: str, values: Sequence[Any] = ()) -> int:
        """As `change`, and at once: a thread would cost more than the statement."""
        return self.change(statement, values)

    async def in_thread(self, function: Callable[[], Result]) -> Result:
        """What a function returns that calls this ledger; it is called at once."""
        return function()

    def change_together(self, changes: Sequence[tuple[str, Sequence[Any]]]) -> list[int]:
        """Run statements as one durable transaction; returns how many rows each changed."""
        with self.transaction(durable=True):
            return [self.change(statement, values) for statement, values in changes]

    def change_each(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement with the values of each row, in the transaction that is open."""
        with _explain_errors(self._path):
            self._connection.executemany(statement, rows)

    @contextmanager
    def transaction(self, *, durable: bool) -> Iterator[None]:
        """A transaction that is committed at the end, or rolled back where an exception ends it.

        durable: whether it is on the disk then, and with it all that was committed before.
        """
        with _explain_errors(self._path):
            if durable:
                self._connection.execute("PRAGMA synchronous = FULL")
            try:
                # IMMEDIATE: rows that are read in the transaction do not change before it is committed.
                self._connection.execute("BEGIN IMMEDIATE")
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                if durable:
                    self._connection.execute("PRAGMA synchronous = NORMAL")

    def is_alive(self, run: int) -> bool:
        """Whether a run has not ended."""
        if run == self.run or self._lock_file is None:
            return run == self.run
        try:
            # A shared lock: two processes that check the same run must not see each other as that run.
            with _hold_lock(self._lock_file, run, fcntl.LOCK_SH):
                return False
        except OSError:
            return True

    @contextmanager
    def hold_rollout(self, name: str) -> Iterator[None]:
        """Keep other runs from a rollout while this is open. Raises OptionError for `name` if another run has it.

        The file of the lock is never removed: a run that has the removed file open and a run that opens the next one
        would not notice each other.
        """
        lock = f"{self._path}-rollout-{hash_text(name)[:16]}"
        with ExitStack() as at_end:
            try:
                descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
                at_end.callback(os.close, descriptor)
                holder = _lock_whole(descriptor, f"since {format_now()}, {self._note}")
            except OSError as error:
                raise OptionError("ledger", f"cannot use {lock!r} beside it: {one_line(error.strerror)}") from None
            if holder is not None:
                problem = f"another run has rollout {name!r} {one_line(holder)}; wait until that has ended"
                raise OptionError("name", problem)
            yield

    def _prepare(self) -> None:
        """Make or upgrade the tables. Writing is tried here, before anything is sent."""
        self._connection.execute("PRAGMA journal_mode = WAL")
        # Commits survive the process; `transaction` says which ones survive the machine.
        self._connection.execute("PRAGMA synchronous = NORMAL")
        with self.transaction(durable=False):
            version = self._read_version()
            if not version:
                self._run_all(SCHEMA)
                self.change("INSERT INTO ledger VALUES (?)", (format_now(),))
                self.change(f"PRAGMA application_id = {_APPLICATION_ID}")
            for earlier in range(version or SCHEMA_VERSION, SCHEMA_VERSION):
                self._run_all(UPGRADES[earlier])
            if version != SCHEMA_VERSION:
                self.change(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _copy_into_memory(self) -> None:
        """Read from an upgraded copy from now on: reading changes no file."""
        with closing(self._connection) as earlier:
            self._connection = sqlite3.connect(":memory:", isolation_level=None)
            self._connection.row_factory = sqlite3.Row
            earlier.backup(self._connection)
        self._prepare()

    def _run_all(self, statements: str) -> None:
        for statement in statements.split(";"):
            self.change(statement)

    def _read_version(self) -> int:
        """The version of its schema, 0 without tables. Raises OptionError for other tables, and unknown versions."""
        if not self._connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            return 0
        if self._pragma("application_id") != _APPLICATION_ID:
            raise OptionError("ledger", f"{str(self._path)!r} is a database of something else; name another file")
        version = self._pragma("user_version")
        check_version(repr(str(self._path)), version, "name another file")
        return version

    def _begin_run(self, facts: RunFacts, lock_file: int) -> None:
        with self.transaction(durable=False):
            cursor = self._connection.execute(
                "INSERT INTO runs (run_id, started_at, os_user, awx_job_id, awx_user, playbook) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (str(uuid.uuid4()), format_now(), facts.os_user, facts.awx_job_id, facts.awx_user, facts.playbook),
            )
            self.run = int(cursor.lastrowid or 0)
            # No other run sees the number before the lock is held.
            fcntl.lockf(lock_file, fcntl.LOCK_EX, 1, self.run)
        self._note = facts.describe()

    def _pragma(self, name: str) -> int:
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])


def _connect(path: Path, mode: str, *, immutable: bool = False) -> sqlite3.Connection:
    """mode: `ro` or `rw`. immutable: without a lock, and without the files that SQLite keeps beside it."""
    how = f"mode={mode}&immutable={immutable:d}"
    return sqlite3.connect(f"{path.as_uri()}?{how}", uri=True, timeout=_AT_FIRST, isolation_level=None)


def _is_open(path: Path) -> bool:
    """Whether a process has the ledger open, or was killed while it had: its latest commits are beside the file."""
    return Path(f"{path}-wal").exists()


def _check_has_one_name(path: Path) -> None:
    """Raise OptionError for a file with hard links: SQLite and the runs name the files beside it after its name."""
    names = path.stat().st_nlink
    if names > 1:
        raise OptionError(
            "ledger",
            f"{str(path)!r} has {names} names (hard links), and runs under another one would not be noticed; leave "
            "one name, and use symbolic links for others",
        )


@contextmanager
def _hold_lock(descriptor: int, byte: int, how: int = fcntl.LOCK_EX, *, within: float = 0.0) -> Iterator[None]:
    """Hold a lock on one byte of a file. Raises OSError if another process has it for longer than `within` s."""
    give_up_at = time.monotonic() + within
    while True:
        try:
            fcntl.lockf(descriptor, how | fcntl.LOCK_NB, 1, byte)
            break
        except OSError:
            if time.monotonic() >= give_up_at:
                raise
        time.sleep(_BETWEEN_TRIES)
    try:
        yield
    finally:
        fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, byte)


def _lock_whole(descriptor: int, note: str) -> str | None:
    """Lock a file until it is closed, and write a note for other runs. Returns the note of a run that has locked it.

    The kernel releases the lock with the process, however it ends. Earlier releases hold the same lock, and have the id
    of their run in the first line.
    """
    until = time.monotonic() + _LAST_TASK
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return os.pread(descriptor, _MOST_READ, 0).decode(errors="replace").partition("\n")[2]
            time.sleep(_LOOK_EVERY)
        else:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"\n{note}".encode(), 0)
            return None


@contextmanager
def _explain_errors(path: Path) -> Iterator[None]:
    """Raise OptionError, with the way out, instead of an error of SQLite or of the system. path: of the ledger."""
    try:
        yield
    except sqlite3.OperationalError as error:
        # The low byte is the kind of error, the others say more about it.
        way_out = _WAYS_OUT_OF_SQLITE.get(error.sqlite_errorcode & 0xFF, _OTHERWISE)
        raise OptionError("ledger", f"cannot use {str(path)!r}: {one_line(error)}; {way_out}") from None
    except sqlite3.DatabaseError as error:
        raise OptionError(
            "ledger",
            f"{str(path)!r} is damaged, or no ledger: {one_line(error)}; move it away, and whom it had reached is "
            "looked up in the conversations",
        ) from None
    except OSError as error:
        way_out = _WAYS_OUT_OF_THE_SYSTEM.get(error.errno or 0, _OTHERWISE)
        raise OptionError("ledger", f"cannot use {str(path)!r}: {one_line(error.strerror)}; {way_out}") from None
