# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When something that failed is tried again: one policy for requests and for connections to the relay."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..errors import ApiError
from .gate import MAX_RETRY_AFTER, add_jitter
from .settings import HttpSettings

Value = TypeVar("Value")
# Seconds: the first pause, which doubles with each try, the longest one, and how much of chance is added.
_FIRST_PAUSE, _LONGEST_PAUSE, _JITTER = 0.2, 15.0, 0.2


@dataclass(frozen=True, slots=True)
class Success(Generic[Value]):
    """What succeeded. attempts: how many tries it took. unclear: whether one before may have been accepted."""

    value: Value
    attempts: int
    unclear: bool


async def call_with_retries(
    settings: HttpSettings,
    what: str,
    call: Callable[[], Awaitable[Value]],
    *,
    repeatable: bool,
    final: Sequence[int] = (),
    may_be_accepted: Callable[[], bool] = lambda: False,
) -> Success[Value]:
    """Call until it succeeds, fails for good, or the deadline of `settings` is over.

    No try starts before the moment that the server named to any caller with the same `settings`. The deadline counts
    from when the first try may start: a call that was held back for the sake of others has all of it left, and the
    same time again for being held back. Later pauses of that kind are within the deadline, like the call's own.

    Once a stop is requested no other try starts: the call ends with the error of the last one.

    what: names the call in the error of the deadline. call: one try; a transient ApiError is tried again.
    repeatable: also after a try that may have been accepted. final: statuses not to try again although transient.
    may_be_accepted: whether the try that the deadline cuts short may have been.
    Raises ApiError, with `attempts` and `may_be_accepted` of all tries together.
    """
    await settings.gate.wait_until_open(what, time.monotonic() + settings.deadline)
    tries = _Tries(settings, what, repeatable=repeatable, final=final)
    try:
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + settings.deadline):
            return Success(await tries.run(call), tries.count, tries.unclear)
    except TimeoutError:
        raise ApiError(
            f"{what}: no answer within the deadline of {settings.deadline:g} s",
            code="timeout",
            may_be_accepted=tries.unclear or may_be_accepted(),
            transient=True,
            attempts=tries.count,
        ) from None
    except ApiError as error:
        raise error.but(may_be_accepted=tries.unclear, attempts=tries.count) from None


class _Tries:
    """The tries of one call; the arguments are those of `call_with_retries`.

    count: how many there were. unclear: whether one that failed may have been accepted.
    """

    def __init__(self, settings: HttpSettings, what: str, *, repeatable: bool, final: Sequence[int]) -> None:
        self.count = 0
        self.unclear = False
        self._settings, self._what, self._repeatable, self._final = settings, what, repeatable, final
        self._deadline = time.monotonic() + settings.deadline

    async def run(self, call: Callable[[], Awaitable[Value]]) -> Value:
        """Try until it succeeds or fails for good. Raises the ApiError of the last try."""
        gate = self._settings.gate
        while True:
            try:
                await gate.wait_until_open(self._what, self._deadline)
                self.count += 1
                return await call()
            except ApiError as error:
                gate.note_error(error)
                self.unclear = self.unclear or error.may_be_accepted
                pause = self._pause_after(error)
                if pause is None:
                    raise
                await gate.stop.sleep(pause)
                if gate.stop.requested:
                    raise

    def _pause_after(self, error: ApiError) -> float | None:
        """Seconds until the next try; None where there is none."""
        if not error.transient or error.status in self._final or self._settings.gate.stop.requested:
            return None
        if self.count > self._settings.retries or (error.may_be_accepted and not self._repeatable):
            return None
        left = self._deadline - time.monotonic()
        if error.retry_after is None:
            back_off = min(_FIRST_PAUSE * 2 ** (self.count - 1), _LONGEST_PAUSE)
            pause = back_off + random.uniform(0, _JITTER)  # noqa: S311 - only spreads the requests
        elif error.retry_after > min(MAX_RETRY_AFTER, left):
            return None
        else:
            pause = add_jitter(error.retry_after)
        return pause if pause < left else None
