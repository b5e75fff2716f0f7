# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One view of Retry-After: what a server asks of one request holds for all that go to it with the same key."""

from __future__ import annotations

import random
import time

from .errors import ApiError
from .stop import Stop

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
