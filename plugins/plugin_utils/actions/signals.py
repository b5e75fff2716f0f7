# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signals that end a task: SIGINT and SIGTERM, which core passes on, and the SIGALRM of the keyword `timeout`."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

from ...module_utils.stop import Stop

# Seconds between two checks that Ansible itself is still there.
_LOOK_EVERY = 1.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
_WHY: dict[int, str] = {signal.SIGALRM: "the time of the task is over"}


@contextlib.contextmanager
def stop_on_signals(stop: Stop) -> Iterator[None]:
    """A signal stops the work while the context is open. On exit the signal is raised again, for core's own handler.

    Core's own handler ends the worker at once, before results and files are written. On SIGINT core sends a SIGTERM
    right after, and then waits for its workers. On SIGTERM core is gone itself. In both cases it takes no result any
    more. A worker outlives an Ansible that is killed, so the end of its parent stops the work as well.

    On SIGALRM core's handler raises its error for the task. In an event loop that error would end one callback.
    """
    received: list[int] = []

    def note(signum: int, _frame: object) -> None:
        received.append(signum)
        stop.cut(_WHY.get(signum, "a signal came"))

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.signal(signum, note) for signum in _SIGNALS}
    ended = watch_parent(stop.cut)
    try:
        yield
    finally:
        ended.set()
        for signum, handler in before.items():
            signal.signal(signum, handler)
        if received:
            # The last one, since a SIGTERM may come after the end of the task's time.
            signal.raise_signal(received[-1])


def watch_parent(on_end: Callable[[], object]) -> threading.Event:
    """Call a function, in another thread, when the parent is gone, unless the event that is returned is set before."""
    parent, ended = os.getppid(), threading.Event()

    def watch() -> None:
        while not ended.wait(_LOOK_EVERY):
            # Another process is the parent then.
            if os.getppid() != parent:
                on_end()
                return

    threading.Thread(target=watch, daemon=True).start()
    return ended
