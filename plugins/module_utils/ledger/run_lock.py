# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A kernel lock that one task takes and the whole run of `ansible-playbook` holds.

Each task runs in a process of its own, and the locks of a process end with it. A lock of flock(2) belongs to an open
file, and lasts while the file is open anywhere, also on its way through a socket. Ansible imports this module before it
forks, so all tasks of a run share one socket. The file is sent into the socket and never received, so it stays open
until the last process of the run has ended, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
import uuid
from pathlib import Path

# The same in all tasks of a run.
_RUN = uuid.uuid4().hex
_KEEPER, _KEPT = (end.detach() for end in socket.socketpair())
_MOST_READ = 1000
_LOOK_EVERY = 0.1


def lock_for_run(path: Path, note: str, patience: float) -> str | None:
    """Lock a file until this run has ended. Returns None, or the note of another run that holds the lock.

    note: about this run, for other runs. patience: seconds to wait for another run to end. The file is made and never
    removed: a run that has the removed file open and a run that opens the next one would not notice each other.
    Raises OSError.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        until = time.monotonic() + patience
        while not _try_to_lock(descriptor):
            run, _newline, noted = os.pread(descriptor, _MOST_READ, 0).decode(errors="replace").partition("\n")
            if run == _RUN:
                return None
            if time.monotonic() > until:
                return noted
            time.sleep(_LOOK_EVERY)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{_RUN}\n{note}".encode(), 0)
        with socket.socket(fileno=os.dup(_KEEPER)) as keeper:
            socket.send_fds(keeper, [b"."], [descriptor])
    finally:
        os.close(descriptor)
    return None


def _try_to_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
