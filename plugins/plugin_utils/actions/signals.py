# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signals that end a worker: SIGINT and SIGTERM, which core passes on. The end of Ansible itself counts as one."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

from ...module_utils.stop import Stop

# Seconds between two checks that Ansible itself is still there.
_LOOK_EVERY = 1.0


@contextlib.contextmanager
def stop_on_signals(stop: Stop) -> Iterator[None]:
    """A signal stops the work while the context is open. On exit the signal is raised again, for core's own handler.

    Core's own handler ends the worker at once, before results and files are written. On SIGINT core sends a SIGTERM
    right after, and then waits for its workers. On SIGTERM core is gone itself. In both cases it takes no result any
    more. A worker outlives an Ansible that is killed, so the end of its parent stops the work as well.
    """
    received: list[int] = []

    def note(signum: int, _frame: object) -> None:
        received.append(signum)
        stop.cut()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.signal(signum, note) for signum in (signal.SIGINT, signal.SIGTERM)}
    ended = threading.Event()
    threading.Thread(target=_watch_parent, args=(stop, os.getppid(), ended), daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        for signum, handler in before.items():
            signal.signal(signum, handler)
    if received:
        signal.raise_signal(received[0])


def _watch_parent(stop: Stop, parent: int, ended: threading.Event) -> None:
    """Stop the work when the parent is gone; another process is the parent then."""
    while not ended.wait(_LOOK_EVERY):
        if os.getppid() != parent:
            stop.cut()
            return
