# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A wish to stop that comes while things are under way, such as a signal."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

# Seconds that what is under way may take to finish.
GRACE = 5.0


class _Flag:
    """An event that may be set before there is a loop, and from a signal handler."""

    def __init__(self) -> None:
        self.is_set = False
        self._event: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def set(self) -> None:
        self.is_set = True
        if self._event is not None and self._loop is not None and not self._loop.is_closed():
            # A signal handler runs between any two steps of the loop, and while it sleeps.
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self) -> None:
        loop = asyncio.get_running_loop()
        if self._event is None or self._loop is not loop:
            self._loop, self._event = loop, asyncio.Event()
        if not self.is_set:
            await self._event.wait()


class Stop:
    """Whether to stop. What starts things asks `requested`; `request` may be called from a signal handler.

    why: what has come, for the messages.
    """

    def __init__(self) -> None:
        self.why = "a signal came"
        self._starts = _Flag()
        self._work = _Flag()

    @property
    def requested(self) -> bool:
        """Whether nothing is to start any more."""
        return self._starts.is_set

    def request(self) -> None:
        """Start nothing from now on, and let what is under way be cut off soon."""
        self._starts.set()
        self._work.set()

    def hold(self, why: str) -> None:
        """Start nothing from now on, and let what is under way finish."""
        self.why = why
        self._starts.set()

    async def sleep(self, seconds: float) -> None:
        """Sleep for so long, or until nothing is to start any more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._starts.wait()

    async def cut(self, work: Coroutine[Any, Any, None], grace: float) -> None:
        """Do the work, and cancel it `grace` seconds after a request."""

        async def cancel() -> None:
            await self._work.wait()
            await asyncio.sleep(grace)
            working.cancel()

        async with asyncio.TaskGroup() as group:
            working = group.create_task(work)
            cancelling = group.create_task(cancel())
            working.add_done_callback(lambda _working: cancelling.cancel())
