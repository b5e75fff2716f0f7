# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit log: a line of JSON for each end of a delivery, appended to a file that runs may share."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from ..errors import OptionError
from ..text import one_line

_NO_FILE = "is no regular file; name one that is, or one that is yet to be made"


class AuditLog(AbstractContextManager["AuditLog"]):
    """An open audit log; a context manager. Raises OptionError for `audit_log`.

    with_content: whether the messages themselves are in it.
    """

    def __init__(self, path: str, *, with_content: bool) -> None:
        self.with_content = with_content
        self._path = path
        try:
            # O_NONBLOCK: opening a FIFO, which is refused below, does not wait for its reader.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW
            self._file = os.open(path, flags, 0o600)
            is_file = stat.S_ISREG(os.fstat(self._file).st_mode)
        except OSError as error:
            raise self._problem(error) from None
        if not is_file:
            os.close(self._file)
            raise OptionError("audit_log", f"{path!r} {_NO_FILE}")

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._file)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a line with one write, so that the lines of several runs do not mix."""
        line = json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        try:
            if os.write(self._file, line) < len(line):
                raise OptionError("audit_log", f"cannot write all of a line to {self._path!r}; is the disk full?")
        except OSError as error:
            raise self._problem(error) from None

    def _problem(self, error: OSError) -> OptionError:
        if error.errno == errno.ENXIO:
            return OptionError("audit_log", f"{self._path!r} {_NO_FILE}")
        if error.errno == errno.ELOOP:
            return OptionError("audit_log", f"{self._path!r} is a symbolic link; name the file itself")
        return OptionError("audit_log", f"cannot write {self._path!r}: {one_line(error.strerror)}")
