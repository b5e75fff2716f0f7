# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger's SQLite file: opened, locked, and what can be done when that fails."""

from __future__ import annotations

import errno
import fcntl
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import OptionError
from ..text import one_line

# Seconds for which another process may keep the file locked: at first, and once messages are being sent.
_AT_FIRST, _UNDER_WAY = 5.0, 30.0
# Seconds between two tries to lock what another run has.
_BETWEEN_TRIES = 0.02


def _connect(path: Path, mode: str, *, immutable: bool = False) -> sqlite3.Connection:
    """mode: `ro` or `rw`. immutable: without a lock, and without the files that SQLite keeps beside it."""
    how = f"mode={mode}&immutable={immutable:d}"
    return sqlite3.connect(f"{path.as_uri()}?{how}", uri=True, timeout=_AT_FIRST, isolation_level=None)


def _is_open(path: Path) -> bool:
    """Whether somebody has a ledger open, or was killed while they had: what they wrote last is beside it."""
    return Path(f"{path}-wal").exists()


def _check_has_one_name(path: Path) -> None:
    """Raise OptionError for a file with hard links: what SQLite and the runs keep beside it goes by its name."""
    names = path.stat().st_nlink
    if names > 1:
        raise OptionError(
            "ledger",
            f"{str(path)!r} has {names} names (hard links), and runs under another one would not be noticed; leave "
            "one name, and use symbolic links for others",
        )


@contextmanager
def _locked(descriptor: int, byte: int, how: int = fcntl.LOCK_EX, *, within: float = 0.0) -> Iterator[None]:
    """Hold a lock on one byte of a file. Raises OSError where another process has it for longer than `within` s."""
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


_LOCKED = "another process keeps it locked, and `fuser` names it; end that, or run this again when it has ended"
_OTHERWISE = "name another file"
_FULL = "make room, and run this again"
_FAULTY = "see that its disk has room and works, or name another file"
_UNREADABLE = "see that it and its directory can be written, or name another file"
_BELOW_A_FILE = "a part of its path is a file, and no directory; name another file"
# What can be done about it, by the error of SQLite or of the system.
_WAYS_OUT = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_FULL: _FULL,
    # A full disk, too, where SQLite finds that out while it makes the -shm.
    sqlite3.SQLITE_IOERR: _FAULTY,
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


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """What goes wrong with the file, as one line with the way out."""
    try:
        yield
    except sqlite3.OperationalError as error:
        # The low byte is the kind of error, the others say more of it.
        way_out = _WAYS_OUT.get(error.sqlite_errorcode & 0xFF, _OTHERWISE)
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
