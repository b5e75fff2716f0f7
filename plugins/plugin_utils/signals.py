# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SIGINT and SIGTERM in a worker, which core passes on to it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from ..module_utils.stop import Stop


@contextlib.contextmanager
def stopped_by_signals(stop: Stop) -> Iterator[None]:
    """Have a signal stop what is done in here, files included, and only then end the worker as core does.

    Core's own handler ends it at once. On SIGINT core sends a SIGTERM right after, and then waits for its workers; on
    SIGTERM it is gone itself. Neither takes a result any more.
    """
    received: list[int] = []

    def note(signum: int, _frame: object) -> None:
        received.append(signum)
        stop.request()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.signal(signum, note) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    if received:
        signal.raise_signal(received[0])
