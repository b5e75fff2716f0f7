# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger's SQLite file, which runs at the same time share. The statements are in deliveries.py and rollouts.py.

What was committed survives the end of the process, however it ends. The end of the machine can take the latest commits,
since waiting for the disk before each message would cost more than sending it. Campaigns make up for that, and for the
loss of a whole ledger: they look up each message that the ledger does not have as sent.

A run that is alive holds a lock on a byte of its own in a file beside the ledger. The kernel releases the lock when the
process ends. It works between containers too, where process ids and host names say nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from ..errors import OptionError
from ..text import format_now, one_line
from .schema import SCHEMA, SCHEMA_VERSION, RunFacts

# "flee", so that no other database is taken for a ledger.
_APPLICATION_ID = 0x666C6565
# The byte of the lock file for the run that prepares the ledger; the numbers of runs begin with 1.
_PREPARING = 0
# Seconds for which another process may keep the file locked: at first, and once messages are being sent.
_AT_FIRST, _UNDER_WAY = 5.0, 30.0
# Seconds between two tries to lock a byte that another run has locked.
_BETWEEN_TRIES = 0.02
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


def find_ledger_path(option: str | None) -> Path:
    """The path of the ledger: the option, else FLEETOPS_LEDGER, else below the XDG state directory. Raises OptionError.

    Links are followed: runs find each other by a file beside the ledger, which must be the same one for all of them.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    # The XDG specification has relative paths ignored.
    usual = f"{state if state.startswith('/') else '~/.local/state'}/fleetops/ledger.sqlite"
    path = option or os.environ.get("FLEETOPS_LEDGER", "").strip() or usual
    try:
        return Path(path).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        problem = f"{one_line(path, 80)!r} is no path: {one_line(error)}; name another file"
        raise OptionError("ledger", problem) from None


class Ledger(AbstractContextManager["Ledger"]):
    """An open ledger; a context manager. Every call raises OptionError for `ledger` if the file cannot be used.

    run: the number of this run, 0 if the ledger is open to read alone.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self._connection.row_factory = sqlite3.Row
        self._lock_file: int | None = None
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
            if not path.exists() or not path.stat().st_size or not cls._check_is_ledger(path):
                return None
            # SQLite makes files beside a ledger that it reads, unless it is immutable. A ledger that no process has
            # open, in a directory that cannot be written, does not change.
            immutable = not _is_open(path) and not os.access(path.parent, os.W_OK, effective_ids=True)
            ledger = cls(path, _connect(path, "ro", immutable=immutable))
            undo.push(ledger)
            # A copy of a ledger may be without the lock file: no run uses it.
            if Path(f"{path}-lock").exists():
                ledger._lock_file = os.open(f"{path}-lock", os.O_RDONLY)
            undo.pop_all()
        return ledger

    @classmethod
    def make_empty(cls) -> Self:
        """A ledger in memory, in which nothing is recorded."""
        ledger = cls(Path(), sqlite3.connect(":memory:", isolation_level=None))
        ledger._prepare()
        return ledger

    @classmethod
    def _check_is_ledger(cls, path: Path) -> bool:
        """Whether a file has tables; it is not changed unless it is open. Raises OptionError as `_has_tables`."""
        with cls(path, _connect(path, "ro", immutable=not _is_open(path))) as found:
            return found._has_tables()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, and release the lock that says that the run is alive."""
        self._connection.close()
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

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

    @contextmanager
    def transaction(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        """The database in a transaction that is committed at the end, or rolled back where an exception ends it.

        durable: whether it is on the disk then, and with it all that was committed before.
        """
        with _explain_errors(self._path):
            if durable:
                self._connection.execute("PRAGMA synchronous = FULL")
            try:
                # IMMEDIATE: rows that are read in the transaction do not change before it is committed.
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
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

    def _prepare(self) -> None:
        """Make the tables if the file is new. Writing is tried here, before anything is sent."""
        self._connection.execute("PRAGMA journal_mode = WAL")
        # Commits survive the process; `transaction` says which ones survive the machine.
        self._connection.execute("PRAGMA synchronous = NORMAL")
        with self.transaction(durable=False):
            if not self._has_tables():
                for statement in SCHEMA.split(";"):
                    self._connection.execute(statement)
                self._connection.execute("INSERT INTO ledger VALUES (?)", (format_now(),))
                self._connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _has_tables(self) -> bool:
        """Whether it has tables. Raises OptionError for those of something else, and of another version."""
        if not self._connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            return False
        if self._pragma("application_id") != _APPLICATION_ID:
            raise OptionError("ledger", f"{str(self._path)!r} is a database of something else; name another file")
        version = self._pragma("user_version")
        if version != SCHEMA_VERSION:
            raise OptionError(
                "ledger",
                f"{str(self._path)!r} has the schema {version}, and this version of the collection knows "
                f"{SCHEMA_VERSION}; update the collection, or name another file",
            )
        return True

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

    def _pragma(self, name: str) -> int:
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])


def read_ledger(path: Path) -> Ledger:
    """The ledger opened to read alone; an empty one if there is none yet. Raises OptionError."""
    return Ledger.read(path) or Ledger.make_empty()


def open_to_show(option: str | None, *, check_mode: bool) -> Ledger:
    """As `read_ledger`. Raises OptionError also if the option names a file that is not there.

    In check mode a task before this one has not made the ledger that it would make.
    """
    path = find_ledger_path(option)
    ledger = Ledger.read(path)
    if ledger is None and option and not check_mode and not path.exists():
        raise OptionError("ledger", f"there is no {str(path)!r}; give the file that a run has made")
    return ledger or Ledger.make_empty()


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
