# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What many ask for, asked for once: one listing of all environments for many look-ups, and others."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Generic, TypeVar

from ...environment import Environment, InvalidRow, Listing, check_dropped
from ...errors import ApiError
from .models import read_environments

# Seconds for which look-ups share a listing.
_SHARED_FOR = 5.0
Found = TypeVar("Found")


class SharedAnswers(Generic[Found]):
    """Asks once for what many ask for. An error is forgotten, unless the answer would be too long again."""

    def __init__(self, ask: Callable[..., Coroutine[Any, Any, Found]]) -> None:
        self._ask = ask
        self._answers: dict[tuple[Any, ...], asyncio.Task[Found]] = {}

    async def get(self, *key: Any, fresh: bool = False) -> Found:
        """What is answered to these arguments. fresh: ask again. Raises ApiError."""
        if fresh or key not in self._answers:
            self._answers[key] = asyncio.create_task(self._ask(*key))
        answer = self._answers[key]
        try:
            # One that is cancelled does not cancel what the others wait for.
            return await asyncio.shield(answer)
        except ApiError as error:
            if error.code != "too_long" and self._answers.get(key) is answer:
                del self._answers[key]
            # Each gets an error of its own: what is unclear about one message is not about another.
            raise error.but(may_be_accepted=False) from None


class SharedListing:
    """Looks environments up in a listing that all look-ups of a few seconds share.

    list_all: lists every row of the account, `page_size` rows a request. base_url: of the API.
    """

    def __init__(self, list_all: Callable[[], Coroutine[Any, Any, Listing]], base_url: str, page_size: int) -> None:
        self._list_all = list_all
        self._base_url = base_url
        self._page_size = page_size
        # A guess until the first listing is read.
        self._pages = 10
        self._listing = SharedAnswers(self._read)
        self._listed_at = 0.0
        self._looked_up: set[str] = set()
        # Of the latest listing.
        self._invalid: list[InvalidRow] = []
        self._rows = 0

    def is_cheaper_for(self, lookups: int) -> bool:
        """Whether a listing needs fewer requests than so many single look-ups."""
        return lookups > self._pages

    async def find(self, environment_id: str) -> Environment | None:
        """An environment as the listing has it, None if it is not there. Raises ApiError.

        A second look-up of the same id gets a new listing, since its caller waits for a change.
        """
        now = time.monotonic()
        fresh = now - self._listed_at > _SHARED_FOR or environment_id in self._looked_up
        if fresh:
            self._listed_at = now
            self._looked_up.clear()
        self._looked_up.add(environment_id)
        return (await self._listing.get(fresh=fresh)).get(environment_id)

    def require_ids(self) -> None:
        """Raise ApiError where an environment that is not there may be one of many rows without an id."""
        check_dropped(self._invalid, self._rows)

    async def _read(self) -> Mapping[str, Environment]:
        listing = await self._list_all()
        self._rows = len(listing.rows)
        self._pages = max(1, math.ceil(self._rows / self._page_size))
        found, self._invalid = read_environments(listing, self._base_url)
        return {environment.id: environment for environment in found}
