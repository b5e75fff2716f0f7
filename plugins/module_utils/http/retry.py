# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When something that failed is tried again: one policy for requests and for connections to the relay."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from ..errors import ApiError
from .gate import MAX_RETRY_AFTER, add_jitter
from .settings import HttpSettings

Value = TypeVar("Value")
# Seconds: the first pause, which doubles with each try, the longest one, and how much of chance is added.
_FIRST_PAUSE, _LONGEST_PAUSE, _JITTER = 0.2, 15.0, 0.2


async def call_with_retries(
    settings: HttpSettings,
    what: str,
    call: Callable[[], Awaitable[Value]],
    *,
    repeatable: bool,
    final: Sequence[int] = (),
    may_be_accepted: Callable[[], bool] = lambda: False,
) -> tuple[Value, int, bool]:
    """Call until it succeeds, fails for good, or the deadline of `settings` is over.

    Returns what the call returned, how often it was tried, and whether a try that failed may have been accepted.

    No try starts before the moment that the server named to any caller with the same `settings`. The deadline begins
    when the first try may start; before that, a call may wait for the gate for up to the same time. All later pauses
    count against the deadline.

    After a stop no other try starts, and the call ends with the error of the last one.

    what: names the call in the error of the deadline. call: one try; a transient ApiError is tried again.
    repeatable: also after a try that may have been accepted. final: statuses not to try again although transient.
    may_be_accepted: whether the try that the deadline cuts short may have been.
    Raises ApiError, with `attempts` and `may_be_accepted` of all tries together.
    """
    await settings.gate.wait_until_open(what, time.monotonic() + settings.deadline)
    count, unclear = 0, False
    gate, deadline = settings.gate, time.monotonic() + settings.deadline
    try:
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + settings.deadline):
            while True:
                try:
                    await gate.wait_until_open(what, deadline)
                    count += 1
                    return await call(), count, unclear
                except ApiError as error:
                    gate.note_error(error)
                    unclear = unclear or error.may_be_accepted
                    may_repeat = (repeatable or not error.may_be_accepted) and count <= settings.retries
                    pause = _find_pause(error, count, deadline) if may_repeat else None
                    if pause is None or error.status in final or gate.stop.requested:
                        raise
                    await gate.stop.sleep(pause)
                    if gate.stop.requested:
                        raise
    except TimeoutError:
        unclear = unclear or may_be_accepted()
        message = f"{what}: no answer within the deadline of {settings.deadline:g} s"
        raise ApiError(message, code="timeout", may_be_accepted=unclear, transient=True, attempts=count) from None
    except ApiError as error:
        raise error.but(may_be_accepted=unclear, attempts=count) from None


def _find_pause(error: ApiError, tries: int, deadline: float) -> float | None:
    """Seconds until the next try; None if another try is in vain, or too late."""
    if error.retry_after is None:
        back_off = min(_FIRST_PAUSE * 2 ** min(tries - 1, 10), _LONGEST_PAUSE)
        pause = back_off + random.uniform(0, _JITTER)  # noqa: S311 - only spreads the requests
    else:
        pause = add_jitter(error.retry_after)
    is_in_time = pause < deadline - time.monotonic() and (error.retry_after or 0) <= MAX_RETRY_AFTER
    return pause if error.transient and is_in_time else None
