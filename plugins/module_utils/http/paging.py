# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the pages of a list call, one after the other or all at once.

One after the other costs a round trip a page. An earlier listing leaves the ids that its pages began after
(`Listing.starts`). With these all pages are requested at once, and the walk then uses the pages that join.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Optional

from ..environment import Listing
from ..errors import ApiError
from ..text import one_line
from .client import Answer

# A longer listing has no end. So many bytes are 100,000 rows with all that devices report.
MAX_PAGES = 10_000
LONGEST_LISTING = 128 * 1024**2
# How many times the deadline of one call a listing may take as a whole.
DEADLINES = 5
# How many pages are requested at a time.
CONCURRENCY = 20
# How many pages are requested after each start. The second page is for rows that were added meanwhile; a third one
# would cost more requests than a walk if the order has changed.
_PAGES_AHEAD = 2
# Statuses for a start whose row is gone; the API reference does not say which. The walk requests the page again.
_GONE = frozenset({400, 404})


@dataclass(frozen=True, slots=True)
class Page:
    """One page. rows: as the API sent them. more: whether the API says that others follow. date: of the answer."""

    rows: Sequence[Any]
    more: bool
    date: datetime


class Bounds:
    """What all pages of a listing may take together: time while a call is under way, and bytes.

    what: names the call in errors. deadline: seconds that one call may take.
    """

    def __init__(self, what: str, deadline: float) -> None:
        self._what, self._seconds = what, deadline * DEADLINES
        self._calls, self._idle_since = 0, asyncio.get_running_loop().time()
        self._ends_at = self._idle_since + self._seconds
        self._left = LONGEST_LISTING

    async def wait_for(self, call: Awaitable[Answer]) -> Answer:
        """The answer to the call for one page. Raises ApiError once the listing takes too much."""
        clock = asyncio.get_running_loop().time
        if not self._calls:
            self._ends_at += clock() - self._idle_since
        self._calls += 1
        try:
            async with asyncio.timeout_at(self._ends_at):
                answer = await call
        except TimeoutError:
            limit = f"{self._seconds:g} s, {DEADLINES} times the deadline of one call"
            raise ApiError(f"{self._what}: did not end within {limit}", code="timeout", transient=True) from None
        finally:
            self._calls, self._idle_since = self._calls - 1, clock()
        self._left -= answer.size
        if self._left < 0:
            problem = f"all pages together are longer than {LONGEST_LISTING // 1024**2} MB"
            raise ApiError(f"{self._what}: {problem}", code="too_long")
        return answer


# Requests the page after the row of an id; None for the first page. Raises ApiError.
Ask = Callable[[Optional[str]], Awaitable[Page]]  # noqa: UP045 - pylint takes | for an operation here


async def list_pages(
    what: str, ask: Ask, *, after: str | None = None, starts: Sequence[str] = (), all_pages: bool = True
) -> Listing:
    """The rows after `after`, all or none of them; a row that comes twice is kept once.

    what: names the call in errors. all_pages: read to the end. starts: the starts of an earlier listing of the same
    query. Whatever they are, the rows are those of a walk without them:

    - If nothing changes meanwhile: the same rows in the same order.
    - If rows are added and removed meanwhile: every row that is there all the time, once and in order, and none, some
      or all of the others. A walk, too, sees each page at another moment.
    - If a row changes its place meanwhile, it may be missing, and so may the rows that it passes if a page begins after
      it. No row comes twice, and no row comes that was not there at some moment.

    This holds because a page is used only if the row that it begins after is in a page that was used before it.

    Raises ApiError for a page that fails or is inconsistent: a cursor that does not advance, a last row without an id,
    an empty page that claims a next one. A start whose row is gone is no failure. A start that stays throttled is left
    to the walk.
    """
    ahead = await _fetch_ahead(ask, after, starts) if starts else {}
    rows: list[Any] = []
    cursors: set[str | None] = set()
    dates: list[datetime] = []
    size = 1
    for _number in range(MAX_PAGES):
        page = ahead.pop(after, None) or await ask(after)
        dates.append(page.date)
        size = max(size, len(page.rows))
        rows += page.rows
        if not page.more:
            rows = drop_repeated_rows(rows)
            # What the second page and later ones begin after, if each has as many rows as the longest one.
            return Listing(rows, min(dates), starts=list(_find_row_ids(rows[size - 1 : -1 : size])))
        cursors.add(after)
        joins = (identity for identity in _find_row_ids(page.rows) if identity in ahead)
        after = next(joins, None) or _find_cursor(what, page)
        if after in cursors:
            raise _error(what, f"the cursor {one_line(after, 80)!r} came back; the pages repeat")
        if not all_pages:
            return Listing(drop_repeated_rows(rows), min(dates), after)
    raise _error(what, f"did not end after {MAX_PAGES} pages")


async def _fetch_ahead(ask: Ask, first: str | None, starts: Sequence[str]) -> dict[str | None, Page]:
    """The first page and the pages after each start, by the row that they begin after, as far as they were answered."""
    pages: dict[str | None, Page] = {}
    known = frozenset(starts)
    queue = iter([first, *starts])

    async def worker() -> None:
        for start in queue:
            try:
                await segment(start)
            except ApiError as error:
                if error.status == 429:
                    # The server wants fewer requests. Without any worker the walk does the rest.
                    return
                if error.status not in _GONE:
                    raise

    async def segment(after: str | None) -> None:
        for _number in range(_PAGES_AHEAD):
            page = pages[after] = await ask(after)
            after = find_row_id(page.rows[-1]) if page.rows else None
            if not page.more or after is None or not known.isdisjoint(_find_row_ids(page.rows)):
                return

    try:
        async with asyncio.TaskGroup() as group:
            for _number in range(min(CONCURRENCY, len(starts) + 1)):
                group.create_task(worker())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return pages


def _find_cursor(what: str, page: Page) -> str:
    if not page.rows:
        raise _error(what, "hasNextPage is true on an empty page")
    cursor = find_row_id(page.rows[-1])
    if not cursor:
        raise _error(what, "the last row of a page has no id to go on from")
    return cursor


def _find_row_ids(rows: Iterable[Any]) -> Iterator[str]:
    return filter(None, map(find_row_id, rows))


def drop_repeated_rows(rows: Iterable[Any]) -> list[Any]:
    """The rows, each id once. A row without an id is kept, so that it is reported."""
    kept: dict[object, Any] = {}
    for row in rows:
        kept.setdefault(find_row_id(row) or object(), row)
    return list(kept.values())


def find_row_id(row: Any) -> str | None:
    """The id of a row as the API sent it; None if it has none, or an unreadable one that may be another row's."""
    identity = row.get("id") if isinstance(row, dict) else None
    return identity if isinstance(identity, str) and identity and "\ufffd" not in identity else None


def _error(what: str, problem: str) -> ApiError:
    return ApiError(f"{what}: {problem}", code="invalid")
