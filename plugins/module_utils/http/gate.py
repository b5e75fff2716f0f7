# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a request may start: not before the server's Retry-After, and so many a second."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from ..errors import ApiError
from ..stop import Stop

MAX_RETRY_AFTER = 60.0
# A number of 400 digits would be infinite.
_LONGEST_WAIT = 365 * 86400.0
# Seconds over which requests that waited start, so that they do not all reach the server at once.
_SPREAD = 1.0


def add_jitter(seconds: float) -> float:
    """A pause that a server asked for, with up to a second more; a pause of 0 s stays 0 s."""
    return seconds + random.uniform(0, _SPREAD) if seconds > 0 else 0.0  # noqa: S311 - only spreads the requests


class Gate:
    """Holds back every request with the same settings while the server wants no request.

    stop: once it is requested, a request that is held back does not start any more.
    """

    def __init__(self) -> None:
        self.stop = Stop()
        self._opens_at = 0.0

    def note_error(self, error: ApiError) -> None:
        """Close until the moment that the server named with an error, if other requests would get the same answer.

        A 429 is about the key, and so about all requests. A 503 with a Retry-After above 60 s may be about one target
        whose connection has gone: it closes nothing.
        """
        asked = error.retry_after or 0.0
        if error.status == 429 or (error.status == 503 and asked <= MAX_RETRY_AFTER):
            self._opens_at = max(self._opens_at, time.monotonic() + asked)

    async def wait_until_open(self, what: str, until: float) -> None:
        """Wait until a request may start.

        what: names the request in the error. until: the latest start, in seconds of the monotonic clock.
        Raises ApiError immediately if the wait would be longer, or if a stop is requested meanwhile. Nothing was sent.
        """
        while (left := self._opens_at - time.monotonic()) > 0:
            pause = add_jitter(left)
            if pause > until - time.monotonic():
                message = f"{what}: not sent, as the server asked for no request in the next {left:.0f} s"
                raise ApiError(message, code="throttled", retry_after=left, transient=True, attempts=0)
            await self.stop.sleep(pause)
            if self.stop.requested:
                message = f"{what}: not sent, as {self.stop.why} while the server wanted no request"
                raise ApiError(message, code="stopped", transient=True, attempts=0)


def parse_date(value: str | None) -> datetime | None:
    """An HTTP date (RFC 9110, 5.6.7) in UTC, which it is in where it names no zone; None if absent or unreadable."""
    try:
        date = parsedate_to_datetime(value or "")
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """A Retry-After header in seconds, a year at most; None if absent or unreadable.

    The header is a number of seconds or an HTTP date (RFC 9110, 10.2.3).
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), _LONGEST_WAIT)
    date = parse_date(text)
    return min(max(0.0, (date - now).total_seconds()), _LONGEST_WAIT) if date else None


class Throttle:
    """Lets at most `concurrency` requests go on at a time, and `rate` start in a second; None for no limit."""

    def __init__(self, concurrency: int, rate: float | None) -> None:
        self._slots = asyncio.Semaphore(concurrency)
        self._pace = Pace(rate)

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        async with self._slots:
            await self._pace.wait_for_turn()
            yield


class Pace:
    """Lets `rate` requests or targets start in a second; None for no limit."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._next_start = 0.0

    async def wait_for_turn(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Wait until one more may start. sleep: waits so many seconds."""
        if self._rate is None:
            return
        now = time.monotonic()
        start = max(now, self._next_start)
        self._next_start = start + 1 / self._rate
        await sleep(start - now)
