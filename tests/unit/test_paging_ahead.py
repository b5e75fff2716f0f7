"""Pages requested all at once: for any starts and any changes, the rows are those of a walk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleetops.environments.plugins.module_utils.environment import Listing
from ansible_collections.fleetops.environments.plugins.module_utils.errors import ApiError
from ansible_collections.fleetops.environments.plugins.module_utils.http import paging
from ansible_collections.fleetops.environments.plugins.module_utils.http.paging import CONCURRENCY, Page, list_pages

from .support import NOW

Change = Callable[[list[str]], None]


@dataclass
class Api:
    """A list call over rows that change: the next change happens before each answer.

    requests: the cursors, in order. most: the largest number of simultaneous requests. states: the rows at
    each time.
    """

    rows: list[str]
    limit: int
    changes: Iterable[Change] = ()
    fails: Callable[[Api], int | None] = lambda _api: None
    requests: list[str | None] = field(default_factory=list)
    most: int = 0
    states: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rows = list(self.rows)
        self.under_way = 0
        self._changes = iter(self.changes)

    async def ask(self, after: str | None) -> Page:
        self.requests.append(after)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(0)
            return self._answer(after)
        finally:
            self.under_way -= 1

    def _answer(self, after: str | None) -> Page:
        self.states.append(list(self.rows))
        for change in self._changes:
            change(self.rows)
            break
        self.states.append(list(self.rows))
        status = self.fails(self)
        if after is not None and after not in self.rows:
            status = 400
        if status is not None:
            raise ApiError(f"answered {status}", code=f"http_{status}", status=status)
        begin = 0 if after is None else self.rows.index(after) + 1
        page = [{"id": identity} for identity in self.rows[begin : begin + self.limit]]
        moment = NOW + timedelta(seconds=len(self.requests))
        return Page(page, begin + self.limit < len(self.rows), moment)

    def listed(self, starts: Sequence[str] = ()) -> Listing:
        return asyncio.run(list_pages("GET /rows", self.ask, starts=starts))

    def ids(self, starts: Sequence[str] = ()) -> list[str]:
        return [row["id"] for row in self.listed(starts).rows]

    def ids_or_error(self, starts: Sequence[str]) -> list[str] | ApiError:
        try:
            return self.ids(starts)
        except ApiError as error:
            return error


def names(count: int) -> list[str]:
    return [f"row-{number:02d}" for number in range(count)]


def adding(place: int, name: str) -> Change:
    return lambda rows: rows.insert(place % (len(rows) + 1), name)


def removing(place: int) -> Change:
    def change(rows: list[str]) -> None:
        if rows:
            del rows[place % len(rows)]

    return change


def moving(place: int, to: int) -> Change:
    def change(rows: list[str]) -> None:
        if rows:
            rows.insert(to % len(rows), rows.pop(place % len(rows)))

    return change


places = st.integers(0, 99)
come_and_go = st.one_of(
    st.builds(adding, places, st.uuids().map(str)), st.builds(removing, places), st.just(lambda _rows: None)
)
any_change = st.one_of(come_and_go, st.builds(moving, places, places))
fleets = st.integers(0, 60).map(names)
limits = st.integers(1, 12)


@given(rows=fleets, limit=limits, changes=st.lists(any_change, max_size=30), new_limit=limits)
def test_the_rows_equal_those_of_a_walk_after_any_change(
    rows: list[str], limit: int, changes: list[Change], new_limit: int
) -> None:
    api = Api(rows, limit)
    starts = api.listed().starts
    for change in changes:
        change(api.rows)
    api.limit = new_limit

    again, walked = api.listed(starts), api.listed()

    assert again.rows == walked.rows == [{"id": identity} for identity in api.rows]
    assert again.starts == walked.starts


@given(rows=fleets, limit=limits, data=st.data())
def test_the_rows_equal_those_of_a_walk_for_any_starts(rows: list[str], limit: int, data: st.DataObject) -> None:
    """Rows in any order, some of them twice, and texts that are not rows."""
    starts = data.draw(st.lists(st.sampled_from([*rows, "gone", ""])))
    api = Api(rows, limit)

    assert api.ids(starts) == rows
    walk = len(rows) // limit + 1
    assert len(api.requests) <= 2 * (len(starts) + 1) + walk


@given(rows=fleets, limit=limits, before=st.lists(any_change, max_size=10), changes=st.lists(come_and_go, max_size=40))
def test_rows_that_stay_while_others_come_and_go_are_listed_once_and_in_order(
    rows: list[str], limit: int, before: list[Change], changes: list[Change]
) -> None:
    api = Api(rows, limit)
    starts = api.listed().starts
    for change in before:
        change(api.rows)
    api = Api(api.rows, limit, changes)

    found = api.ids_or_error(starts)
    if isinstance(found, ApiError):
        # The row to continue from was removed between two requests, which also breaks a walk.
        assert found.status == 400
        return

    there = set(found)
    always = [name for name in api.states[0] if all(name in state for state in api.states)]
    assert [name for name in found if name in always] == always
    assert len(there) == len(found)
    assert there <= {name for state in api.states for name in state}


@given(rows=fleets, limit=limits, changes=st.lists(any_change, max_size=40))
def test_no_row_is_repeated_or_invented_during_any_change(rows: list[str], limit: int, changes: list[Change]) -> None:
    starts = Api(rows, limit).listed().starts
    api = Api(rows, limit, changes)

    found = api.ids_or_error(starts)
    if isinstance(found, ApiError):
        # As in a walk: the row to continue from was removed, or was added again further on.
        assert found.status == 400 or "the pages repeat" in str(found)
        return

    assert len(set(found)) == len(found)
    assert set(found) <= {name for state in api.states for name in state}


def test_an_unchanged_fleet_is_asked_for_each_page_once_and_for_all_at_a_time() -> None:
    api = Api(names(60), 5)
    starts = api.listed().starts
    assert api.most == 1
    walk, api.requests = api.requests, []

    assert api.ids(starts) == api.rows
    assert api.requests == walk
    assert api.most == len(walk) == 12


def test_no_more_requests_run_at_once_than_the_limit() -> None:
    api = Api(names(60), 1)

    assert api.ids(api.listed().starts) == api.rows
    assert api.most == CONCURRENCY


def test_the_time_of_a_listing_is_that_of_the_first_answer() -> None:
    api = Api(names(60), 5)
    starts = api.listed().starts

    async def last_page_first(after: str | None) -> Page:
        page = await api.ask(after)
        return Page(page.rows, page.more, NOW - timedelta(hours=1) if after == starts[-1] else NOW)

    assert asyncio.run(list_pages("GET /rows", last_page_first, starts=starts)).fetched_at == NOW - timedelta(hours=1)


@pytest.mark.parametrize("gone", [0, 5, 10])
def test_a_start_whose_row_was_removed_costs_one_more_request_than_its_page(gone: int) -> None:
    api = Api(names(60), 5)
    starts = api.listed().starts
    api.rows.remove(starts[gone])
    api.requests.clear()

    assert api.ids(starts) == api.rows
    assert len(api.requests) == len(starts) + 2


def test_rows_added_everywhere_are_also_fetched_at_once() -> None:
    api = Api(names(60), 5)
    starts = api.listed().starts
    for number, start in enumerate(starts):
        api.rows.insert(api.rows.index(start), f"new-{number}")
    under_way: list[int] = []
    api.fails = lambda api: under_way.append(api.under_way)

    assert api.ids(starts) == api.rows
    assert len(under_way) <= 2 * (len(starts) + 1)
    # Only the last request is alone: no page is left for the walk.
    assert under_way.count(1) == 1


def test_the_page_size_that_the_server_uses_is_remembered() -> None:
    api = Api(names(60), 7)

    assert api.listed().starts == [f"row-{number:02d}" for number in range(6, 59, 7)]
    assert Api(names(14), 7).listed().starts == ["row-06"]
    assert Api(names(7), 7).listed().starts == []
    assert Api([], 7).listed().starts == []


@given(rows=st.integers(10, 60).map(names), most=st.integers(1, CONCURRENCY))
def test_a_server_that_throttles_parallel_requests_gets_fewer(rows: list[str], most: int) -> None:
    """The client has already repeated and waited; here each 429 is the last one."""
    api = Api(rows, 2, fails=lambda api: 429 if api.under_way > most else None)

    assert api.ids(Api(rows, 2).listed().starts) == rows


def test_a_server_that_throttles_even_a_walk_fails_the_listing() -> None:
    api = Api(names(60), 5, fails=lambda _api: 429)

    with pytest.raises(ApiError, match="answered 429"):
        api.ids(Api(names(60), 5).listed().starts)

    assert len(api.requests) == 13


@pytest.mark.parametrize("status", [401, 403, 500, 503])
@pytest.mark.parametrize("number", [1, 5, 12])
def test_a_page_that_fails_in_another_way_fails_the_listing_as_a_whole(status: int, number: int) -> None:
    answered: list[int] = []

    def fails(_api: Api) -> int | None:
        answered.append(1)
        return status if len(answered) == number else None

    api = Api(names(60), 5, fails=fails)

    with pytest.raises(ApiError, match=f"answered {status}"):
        api.ids(Api(names(60), 5).listed().starts)

    assert len(api.requests) <= 12


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([], "hasNextPage is true on an empty page"),
        ([{"id": "row-05"}, {"name": "x"}], "the last row of a page has no id to go on from"),
        ([{"id": "row-05"}, "text"], "the last row of a page has no id to go on from"),
        ([{"id": "row-04"}], "the cursor 'row-04' came back; the pages repeat"),
        ([{"id": "row-03"}, {"id": "row-04"}], "the cursor 'row-04' came back; the pages repeat"),
    ],
)
def test_an_inconsistent_page_fails_the_listing(rows: list[Any], problem: str) -> None:
    api = Api(names(60), 5)
    starts = api.listed().starts

    async def ask(after: str | None) -> Page:
        return Page(rows, True, NOW) if after == "row-04" else await api.ask(after)

    with pytest.raises(ApiError, match=problem) as raised:
        asyncio.run(list_pages("GET /rows", ask, starts=starts))

    assert str(raised.value).startswith("GET /rows: ")
    assert raised.value.code == "invalid"


def test_a_listing_without_an_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "MAX_PAGES", 5)

    api = Api(names(60), 5)

    with pytest.raises(ApiError, match="did not end after 5 pages"):
        api.ids(["row-04"])
