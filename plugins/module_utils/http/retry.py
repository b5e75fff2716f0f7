# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When something that failed is tried again: one policy for requests and for connections to the relay."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .._deps import tenacity
from ..errors import ApiError
from .gate import MAX_RETRY_AFTER, spread
from .settings import HttpSettings

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Attempted(Generic[Value]):
    """What succeeded. attempts: how many tries it took. unclear: whether one before may have been accepted."""

    value: Value
    attempts: int
    unclear: bool


async def attempted(
    settings: HttpSettings,
    what: str,
    once: Callable[[], Awaitable[Value]],
    *,
    repeatable: bool,
    final: Sequence[int] = (),
    may_be_accepted: Callable[[], bool] = lambda: False,
) -> Attempted[Value]:
    """Try until it succeeds, fails for good, or the deadline of `settings` is over.

    No try starts before the moment that the server named to anybody who shares `settings`. The deadline counts from
    when the first one may start: a call that was held back for the sake of others has all of it left, and as long
    for being held back. Later such pauses are within it, like those that it was asked for itself.

    Once a stop is requested no other try starts: it ends with what became of the last one.

    what: names it in the error of the deadline. once: one try; what it raises as a transient ApiError is tried again.
    repeatable: also after a try that may have been accepted. final: statuses not to try again although transient.
    may_be_accepted: whether the try under way, which the deadline cuts short, may have been.
    Raises ApiError, with `attempts` and `may_be_accepted` of all tries together.
    """
    await settings.gate.passed(what, time.monotonic() + settings.deadline)
    tries = _Tries(settings, what, once, repeatable=repeatable, final=final)
    try:
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + settings.deadline):
            value = await tries.run()
            return Attempted(value, tries.count, tries.unclear)
    except TimeoutError:
        message = f"{what}: no answer within the deadline of {settings.deadline:g} s"
        raise ApiError(
            message,
            code="timeout",
            may_be_accepted=tries.unclear or may_be_accepted(),
            transient=True,
            attempts=tries.count,
        ) from None
    except ApiError as error:
        error.may_be_accepted = tries.unclear
        error.attempts = tries.count
        raise


class _Tries(Generic[Value]):
    """The tries of one call; the arguments are those of `attempted`.

    count: how many there were. unclear: whether one that failed may have been accepted.
    """

    def __init__(
        self,
        settings: HttpSettings,
        what: str,
        once: Callable[[], Awaitable[Value]],
        *,
        repeatable: bool,
        final: Sequence[int],
    ) -> None:
        self.count = 0
        self.unclear = False
        self._settings = settings
        self._what = what
        self._once = once
        self._repeatable = repeatable
        self._final = final
        self._deadline = time.monotonic() + settings.deadline

    async def run(self) -> Value:
        """Try until it succeeds or fails for good."""
        # Most calls succeed at once, and to ask tenacity costs as much as half a request.
        try:
            return await self._next()
        except ApiError as error:
            return await self._repeated_after(error)

    async def _next(self) -> Value:
        await self._settings.gate.passed(self._what, self._deadline)
        self.count += 1
        try:
            return await self._once()
        except ApiError as error:
            self._settings.gate.heed(error)
            raise

    async def _repeated_after(self, failure: ApiError) -> Value:
        """Leave it to tenacity, for which the failure is the first attempt."""
        known = [failure]

        async def attempt() -> Value:
            if known:
                raise known.pop()
            return await self._next()

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(self._again),
            wait=_wait,
            sleep=self._pause,
            stop=self._enough,
            reraise=True,
        )
        value: Value = await retrying(attempt)
        return value

    def _again(self, error: BaseException) -> bool:
        """Whether there is another try after this error."""
        if not isinstance(error, ApiError):
            return False
        self._last = error
        self.unclear = self.unclear or error.may_be_accepted
        if not error.transient or error.status in self._final or self._settings.gate.stop.requested:
            return False
        if (error.retry_after or 0) > min(MAX_RETRY_AFTER, self._deadline - time.monotonic()):
            return False
        return self._repeatable or not error.may_be_accepted

    def _enough(self, state: Any) -> bool:
        too_late = time.monotonic() + state.upcoming_sleep >= self._deadline
        return self.count > self._settings.retries or bool(too_late)

    async def _pause(self, seconds: float) -> None:
        stop = self._settings.gate.stop
        await stop.sleep(seconds)
        if stop.requested:
            raise self._last


def _wait(state: Any) -> float:
    error = state.outcome.exception()
    if error.retry_after is not None:
        return spread(error.retry_after)
    back_off = tenacity.wait_exponential(multiplier=0.2, max=15) + tenacity.wait_random(0, 0.2)
    return float(back_off(state))
