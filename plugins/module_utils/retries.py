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

from ._deps import tenacity
from .errors import ApiError
from .http_settings import HttpSettings
from .retry_after import MAX_RETRY_AFTER, spread

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
    deadline = time.monotonic() + settings.deadline
    stop = settings.gate.stop
    unclear = False
    tries = 0
    failures: list[ApiError] = []

    def again(error: BaseException) -> bool:
        nonlocal unclear
        if not isinstance(error, ApiError):
            return False
        failures.append(error)
        unclear = unclear or error.may_be_accepted
        if not error.transient or error.status in final or stop.requested:
            return False
        if (error.retry_after or 0) > min(MAX_RETRY_AFTER, deadline - time.monotonic()):
            return False
        return repeatable or not error.may_be_accepted

    async def pause(seconds: float) -> None:
        await stop.sleep(seconds)
        if stop.requested:
            raise failures[-1]

    async def one_try() -> Value:
        # tenacity takes only a coroutine function for one.
        nonlocal tries
        await settings.gate.passed(what, deadline)
        tries += 1
        try:
            return await once()
        except ApiError as error:
            settings.gate.heed(error)
            raise

    retrying = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(again),
        wait=_wait,
        sleep=pause,
        stop=tenacity.stop_after_attempt(settings.retries + 1) | tenacity.stop_before_delay(settings.deadline),
        reraise=True,
    )
    try:
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + settings.deadline):
            value: Value = await retrying(one_try)
            return Attempted(value, tries, unclear)
    except TimeoutError:
        message = f"{what}: no answer within the deadline of {settings.deadline:g} s"
        raise ApiError(
            message,
            code="timeout",
            may_be_accepted=unclear or may_be_accepted(),
            transient=True,
            attempts=tries,
        ) from None
    except ApiError as error:
        error.may_be_accepted = unclear
        error.attempts = tries
        raise


def _wait(state: Any) -> float:
    error = state.outcome.exception()
    if error.retry_after is not None:
        return spread(error.retry_after)
    back_off = tenacity.wait_exponential(multiplier=0.2, max=15) + tenacity.wait_random(0, 0.2)
    return float(back_off(state))
