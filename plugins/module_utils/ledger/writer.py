# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A thread that uses a ledger for an event loop. It commits together what waits together, with one round trip."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

# Statements of one transaction. After a kill all of them are in doubt.
_MOST = 100

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Change:
    statement: str
    values: Sequence[Any]
    ended: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class _Call:
    function: Callable[[], Any]
    ended: asyncio.Future[Any]


class Writer:
    """Changes rows and calls functions for callers that await the end. The thread starts with the first of them.

    change_together: runs statements as one transaction; returns how many rows each changed.
    hurry: is called where a caller is cancelled, so that what it waits for ends soon.
    """

    def __init__(
        self,
        change_together: Callable[[Sequence[tuple[str, Sequence[Any]]]], Sequence[int]],
        hurry: Callable[[], object],
    ) -> None:
        self._change_together, self._hurry = change_together, hurry
        self._waiting: SimpleQueue[_Change | _Call | None] = SimpleQueue()
        self._thread: Thread | None = None

    async def change(self, statement: str, values: Sequence[Any]) -> int:
        """Run a statement whose values begin with the two keys of its row; returns how many rows it changed."""
        changed: int = await self._do(_Change(statement, values, asyncio.get_running_loop().create_future()))
        return changed

    async def call(self, function: Callable[[], Result]) -> Result:
        """What a function returns."""
        returned: Result = await self._do(_Call(function, asyncio.get_running_loop().create_future()))
        return returned

    def close(self) -> None:
        """Wait until everything that was asked has ended."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
            self._thread = None

    async def _do(self, asked: _Change | _Call) -> Any:
        """What comes of it. A caller that is cancelled meanwhile gets it too, and is cancelled at its next await."""
        if self._thread is None:
            self._thread = Thread(target=self._work, name="ledger", daemon=True)
            self._thread.start()
        self._waiting.put(asked)
        is_cancelled = False
        while not asked.ended.done():
            try:
                await asyncio.wait([asked.ended])
            except asyncio.CancelledError:
                is_cancelled = True
                self._hurry()
        if is_cancelled and (task := asyncio.current_task()) is not None:
            task.uncancel()
            task.cancel()
        return asked.ended.result()

    def _work(self) -> None:
        goes_on = True
        while goes_on:
            asked = [self._waiting.get()]
            while len(asked) < _MOST and not self._waiting.empty():
                asked.append(self._waiting.get())
            # All runs change rows in the same order, so that none waits for another in a circle.
            changes = sorted((one for one in asked if isinstance(one, _Change)), key=lambda one: [*one.values[:2]])
            if changes:
                _tell(changes, lambda: self._change_together([(one.statement, one.values) for one in changes]))  # noqa: B023
            for one in asked:
                if isinstance(one, _Call):
                    _tell([one], lambda: [one.function()])  # noqa: B023
            goes_on = None not in asked


def _tell(asked: Sequence[_Change | _Call], work: Callable[[], Sequence[Any]]) -> None:
    """Do some work, and give each its result in the event loop, which may have ended; or all the error."""
    try:
        results, problem = work(), None
    except Exception as error:  # noqa: BLE001 - it is raised where it is awaited
        results, problem = [None] * len(asked), error

    def end() -> None:
        for one, result in zip(asked, results, strict=True):
            if problem is None:
                one.ended.set_result(result)
            else:
                one.ended.set_exception(problem)

    with contextlib.suppress(RuntimeError):
        asked[0].ended.get_loop().call_soon_threadsafe(end)
