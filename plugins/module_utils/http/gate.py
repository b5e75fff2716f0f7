# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a request may start: not before the server's Retry-After, and so many a second."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from ..errors import ApiError
from ..stop import Stop

MAX_RETRY_AFTER = 60.0
# Seconds over which those that waited start, so that they do not all meet the server at once.
_SPREAD = 1.0


def spread(seconds: float) -> float:
    """A pause that a server asked for, and a little more for each to start at another moment; no pause stays none."""
    # Nothing secret depends on it.
    return seconds + random.uniform(0, _SPREAD) if seconds > 0 else 0.0  # noqa: S311


class Gate:
    """Lets requests start, and none until the moment that the server named to any of them.

    stop: once it is requested, what is held back starts no more.
    """

    def __init__(self) -> None:
        self.stop = Stop()
        self._opens_at = 0.0

    def heed(self, error: ApiError) -> None:
        """Close until the moment that the server named with an error, where others would be told the same.

        A 429 is about the key, and so about all. A 503 that asks for longer than anybody waits may be about one target
        alone, whose connection has gone: it closes nothing, and whoever is told so fails at once.
        """
        asked = error.retry_after or 0.0
        if error.status == 429 or (error.status == 503 and asked <= MAX_RETRY_AFTER):
            self._opens_at = max(self._opens_at, time.monotonic() + asked)

    async def passed(self, what: str, until: float) -> None:
        """Wait until a request may start.

        what: names it in the error. until: when it must have started, by the monotonic clock.
        Raises ApiError, with nothing sent, at once when it would have to wait longer, and when it is to stop meanwhile.
        """
        while (left := self._opens_at - time.monotonic()) > 0:
            pause = spread(left)
            if pause > until - time.monotonic():
                raise ApiError(
                    f"{what}: not sent, as the server asked for no request in the next {left:.0f} s",
                    code="throttled",
                    retry_after=left,
                    transient=True,
                    attempts=0,
                )
            await self.stop.sleep(pause)
            if self.stop.requested:
                message = f"{what}: not sent, as {self.stop.why} while the server wanted no request"
                raise ApiError(message, code="stopped", transient=True, attempts=0)


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """A Retry-After header in seconds; None when absent or unreadable.

    The header is a number of seconds or an HTTP date (RFC 9110, 10.2.3).
    """
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value.strip())
    try:
        moment = parsedate_to_datetime(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


class Pace:
    """Lets `rate` things start in a second, None for as many as there are."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._next_start = 0.0

    async def turn(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Wait until one more may start. sleep: how."""
        if self._rate is None:
            return
        now = time.monotonic()
        start = max(now, self._next_start)
        self._next_start = start + 1 / self._rate
        await sleep(start - now)
