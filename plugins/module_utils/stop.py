# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A request to stop while work is under way: by a signal, or because a campaign is paused or cancelled."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from enum import IntEnum
from typing import Any, TypeVar

# Seconds that work under way has to finish before it is cut off.
GRACE = 5.0
Value = TypeVar("Value")


class Level(IntEnum):
    """How far a stop goes. At FINISH nothing new starts. At CUT work under way is cut off as well."""

    GO = 0
    FINISH = 1
    CUT = 2


class Stop:
    """Whether work goes on; one is shared by everything that a task does.

    `finish` and `cut` may be called from a signal handler, from another thread, and before there is an event loop.
    The level never falls.

    why: the reason for the stop, for messages; None before one is requested.
    """

    def __init__(self) -> None:
        self.level = Level.GO
        self.why: str | None = None
        self._risen = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def requested(self) -> bool:
        """Whether nothing new may start."""
        return self.level > Level.GO

    def finish(self, why: str) -> None:
        self._raise_to(Level.FINISH, why)

    def cut(self, why: str = "a signal came") -> None:
        self._raise_to(Level.CUT, why)

    async def sleep(self, seconds: float) -> None:
        """Sleep so many seconds, or until a stop is requested."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._wait_for(Level.FINISH)

    async def run(self, work: Coroutine[Any, Any, Value], grace: float) -> Value | None:
        """Do the work, and cancel it `grace` seconds after the stop has reached CUT; None if it was cancelled."""

        async def limit_time() -> None:
            await self._wait_for(Level.CUT)
            limit.reschedule(asyncio.get_running_loop().time() + grace)

        try:
            async with asyncio.timeout(None) as limit:
                limiting = asyncio.create_task(limit_time())
                try:
                    return await work
                finally:
                    limiting.cancel()
        except TimeoutError:
            if not limit.expired():
                raise
            return None

    def _raise_to(self, level: Level, why: str) -> None:
        if level <= self.level:
            return
        self.level, self.why = level, why
        if self._loop is not None:
            # The loop may be closed. A signal handler may run at any step of the loop, and while the loop sleeps.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._risen.set)

    async def _wait_for(self, level: Level) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._risen = loop, asyncio.Event()
        while self.level < level:
            self._risen.clear()
            await self._risen.wait()
