# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress: how many targets have ended, with which status, at what rate, and how long the others will take."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

# Seconds between two lines, and after which a line is shown although no more have ended.
_SHOW_EVERY, _LONGEST_SILENCE = 1.0, 30.0
# The rate is that of the last so many seconds.
_WINDOW = 10.0


@asynccontextmanager
async def run_beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do the work while this is open, and cancel it at the end. Raises what is raised within, or by the work."""
    try:
        async with asyncio.TaskGroup() as group:
            working = group.create_task(work)
            yield
            working.cancel()
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None


class Progress:
    """Counts things that end. what: their name, in the plural. total: how many there are."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._ended: Counter[str] = Counter()
        # Pairs of a time and how many had ended then.
        self._looks = deque([(time.monotonic(), 0)])

    def count(self, status: str, *, failed: bool) -> None:
        """Count one more that has ended."""
        self._ended["failed" if failed else status] += 1

    @property
    def done(self) -> int:
        """How many have ended."""
        return self._ended.total()

    def line(self, now: float) -> str:
        """The line to show. now: time of the monotonic clock, not earlier than in the line before."""
        while len(self._looks) > 1 and self._looks[0][0] < now - _WINDOW:
            self._looks.popleft()
        then, done_then = self._looks[0]
        self._looks.append((now, self.done))
        a_second = (self.done - done_then) / max(now - then, _SHOW_EVERY)
        failed = self._ended["failed"]
        ended = "".join(f", {count} {status}" for status, count in self._ended.items() if status != "failed")
        left = f", {(self._total - self.done) / a_second:.0f} s left" if a_second else ""
        return f"{self.done} of {self._total} {self._what}{ended}, {failed} failed, {a_second:.1f} a second{left}"

    def show(self, report: Callable[[str], None] | None) -> AbstractAsyncContextManager[None]:
        """While this is open, report a line for each second in which more have ended, and after a long silence.

        report: None reports nothing.
        """
        return run_beside(self._keep_reporting(report)) if report is not None else nullcontext()

    async def _keep_reporting(self, report: Callable[[str], None]) -> None:
        said, silent_until = -1, 0.0
        while True:
            await asyncio.sleep(_SHOW_EVERY)
            now = time.monotonic()
            line = self.line(now)
            if self.done != said or now >= silent_until:
                said, silent_until = self.done, now + _LONGEST_SILENCE
                report(line)
