# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pages of a list call that goes on after a row: walked one after the other, or asked for at once.

Walking costs a round trip a page. Where an earlier listing left the rows that its pages began after (`Listing.starts`),
all of these pages are asked for together, and the walk then takes from them whatever joins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from ..environment import Listing
from ..errors import ApiError
from ..text import one_line

# A listing that goes on for longer than this has no end.
MAX_PAGES = 10_000
# Pages asked for at a time.
CONCURRENCY = 20
# How many pages are asked for after a start before it is left to the walk to find where that leads. The second one is
# for rows that came in between; more would cost more requests than a walk where the order is another one altogether.
_PAGES_AHEAD = 2
# What a start may be answered with whose row is gone; the reference does not say. The walk asks again where it matters.
_GONE = frozenset({400, 404})
_THROTTLED = 429


@dataclass(frozen=True, slots=True)
class Page:
    """One answer. rows: as the API sent them. more: whether it says that others follow. date: when it was given."""

    rows: Sequence[Any]
    more: bool
    date: datetime


class Ask(Protocol):
    """What asks for one page."""

    async def __call__(self, after: str | None) -> Page:
        """The rows after the row with this id, None for the first ones. Raises ApiError."""


async def listed(
    what: str, ask: Ask, *, after: str | None = None, starts: Sequence[str] = (), all_pages: bool = True
) -> Listing:
    """The rows after `after`, whole or not at all; a row that comes twice is kept once.

    what: names the call in errors. all_pages: go on to the end. starts: what an earlier listing of the same query
    left; whatever they are, the rows are those of a walk without them:

    - Where nothing changes meanwhile: the same rows in the same order.
    - Where rows are added and removed meanwhile: every row that is there all the time, once and in order, and of the
      others none, some or all, as with a walk. (A walk, too, sees each page at another moment.)
    - Where a row changes its place meanwhile, it may be missing, and with it rows that it passes if a page begins
      after it, as with a walk. Never a row twice, and never one that was not there at some moment.

    That holds because a page is used only if the row that it begins after is in a page that was used before it.

    Raises ApiError for any page that fails or does not add up: a cursor that does not advance, a last row without an
    id, an empty page that claims a next one. A start whose row is gone is no failure, and one that is throttled for
    good is left to the walk.
    """
    ahead = await _asked_ahead(ask, after, starts) if starts else {}
    rows: list[Any] = []
    seen: set[str] = set()
    cursors: set[str | None] = set()
    dates: list[datetime] = []
    size = 1
    for _number in range(MAX_PAGES):
        page = ahead.pop(after, None) or await ask(after)
        dates.append(page.date)
        size = max(size, len(page.rows))
        for row in page.rows:
            identity = identity_of(row)
            if identity not in seen:
                rows.append(row)
            if identity is not None:
                seen.add(identity)
        if not page.more:
            return Listing(rows, min(dates), starts=_starts(rows, size))
        cursors.add(after)
        after = _join(page, ahead) or _last(what, page)
        if after in cursors:
            raise _error(what, f"the cursor {one_line(after, 80)!r} came back; the pages repeat")
        if not all_pages:
            return Listing(rows, min(dates), after)
    raise _error(what, f"did not end after {MAX_PAGES} pages")


async def _asked_ahead(ask: Ask, first: str | None, starts: Sequence[str]) -> dict[str | None, Page]:
    """The first page and those after each start, by the row that they begin after; those that could be had."""
    pages: dict[str | None, Page] = {}
    known = frozenset(starts)
    queue = iter([first, *starts])

    async def worker() -> None:
        for start in queue:
            try:
                await segment(start)
            except ApiError as error:
                if error.status == _THROTTLED:
                    # One worker less is what the server asks for; with the last one gone, the walk does the rest.
                    return
                if error.status not in _GONE:
                    raise

    async def segment(after: str | None) -> None:
        for _number in range(_PAGES_AHEAD):
            page = pages[after] = await ask(after)
            after = identity_of(page.rows[-1]) if page.rows else None
            if not page.more or after is None or not known.isdisjoint(_identities(page)):
                return

    try:
        async with asyncio.TaskGroup() as group:
            for _number in range(min(CONCURRENCY, len(starts) + 1)):
                group.create_task(worker())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return pages


def _join(page: Page, ahead: dict[str | None, Page]) -> str | None:
    """The first row of a page after which another page is here already."""
    return next((identity for identity in _identities(page) if identity in ahead), None)


def _last(what: str, page: Page) -> str:
    if not page.rows:
        raise _error(what, "hasNextPage is true on an empty page")
    cursor = identity_of(page.rows[-1])
    if not cursor:
        raise _error(what, "the last row of a page has no id to go on from")
    return cursor


def _starts(rows: Sequence[Any], size: int) -> list[str]:
    """What the pages begin after, but for the first one, when each holds `size` of these rows."""
    return [identity for identity in map(identity_of, rows[size - 1 : -1 : size]) if identity]


def _identities(page: Page) -> Iterator[str]:
    return (identity for identity in map(identity_of, page.rows) if identity)


def identity_of(row: Any) -> str | None:
    """The id of a row as the API sent it, None where it has none."""
    identity = row.get("id") if isinstance(row, dict) else None
    return identity if isinstance(identity, str) else None


def _error(what: str, problem: str) -> ApiError:
    return ApiError(f"{what}: {problem}", code="invalid")
