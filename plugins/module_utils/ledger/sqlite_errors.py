# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user can do about an error of the ledger's SQLite file."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import OptionError
from ..text import one_line

_LOCKED = "another process keeps it locked, and `fuser` names it; end that, or run this again when it has ended"
_OTHERWISE = "name another file"
_FULL = "make room, and run this again"
_FAULTY = "see that its disk has room and works, or name another file"
_UNREADABLE = "see that it and its directory can be written, or name another file"
_BELOW_A_FILE = "a part of its path is a file, and no directory; name another file"
_WAYS_OUT_OF_SQLITE = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_FULL: _FULL,
    # Also a full disk, if SQLite finds that out while it makes the -shm.
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
def explain_errors(path: Path) -> Iterator[None]:
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
