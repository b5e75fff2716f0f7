"""The pages of a listing: all of them together, or an error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleetops.environments.plugins.module_utils.environment import Listing
from ansible_collections.fleetops.environments.plugins.module_utils.errors import ApiError
from ansible_collections.fleetops.environments.plugins.module_utils.http import paging
from ansible_collections.fleetops.environments.plugins.module_utils.http.client import Answer, HttpClient
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.client import Client, Query
from ansible_collections.fleetops.environments.plugins.module_utils.providers.qoder.client import Client as QoderClient
from ansible_collections.fleetops.environments.plugins.module_utils.providers.registry import find_provider

from .support import NOW, http_answer, raw_server, settings_for

Page = Callable[[Mapping[str, str], int], Any]


def list_all(page: Page, query: Query | None = None) -> tuple[Listing, list[dict[str, str]]]:
    """The listing of an API that answers a call's parameters and number with `page`; and the calls' parameters."""
    calls: list[dict[str, str]] = []

    async def get(_self: HttpClient, *segments: str, params: dict[str, str]) -> Answer:
        assert segments == ("v1", "environments")
        calls.append(dict(params))
        where = "GET http://127.0.0.1:1/v1/environments"
        return Answer(page(params, len(calls)), NOW + timedelta(seconds=len(calls)), where=where)

    async def run() -> Listing:
        async with Client(settings_for("http://127.0.0.1:1")) as client:
            return await client.list(query or Query())

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(HttpClient, "get", get)
        return asyncio.run(run()), calls


def rows(*identities: Any) -> list[dict[str, Any]]:
    return [{"id": identity} for identity in identities]


def pages(*parts: list[Any]) -> Page:
    """These pages; each is found by the last row id of the page before."""

    def page(parameters: Mapping[str, str], _number: int) -> Any:
        cursors = [None, *(part[-1]["id"] for part in parts[:-1])]
        index = cursors.index(parameters.get("after"))
        return {"connections": parts[index], "hasNextPage": index < len(parts) - 1}

    return page


@given(count=st.integers(0, 30), limit=st.integers(1, 12), data=st.data())
def test_a_listing_is_every_row_once_in_order(count: int, limit: int, data: st.DataObject) -> None:
    """Each page has at most `limit` rows, and repeats some earlier rows."""
    fresh = rows(*(f"environment-{number}" for number in range(count)))

    def page(parameters: Mapping[str, str], _number: int) -> Any:
        assert parameters["limit"] == str(limit)
        after = parameters.get("after")
        start = 0 if after is None else 1 + [row["id"] for row in fresh].index(after)
        size = data.draw(st.integers(1, limit))
        repeated = data.draw(st.lists(st.sampled_from(fresh[:start]), max_size=limit - size)) if start else []
        return {"connections": repeated + fresh[start : start + size], "hasNextPage": start + size < count}

    listing, _calls = list_all(page, Query(limit=limit))

    assert listing.rows == fresh
    assert listing.next_after is None


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=6), data=st.data())
def test_repeated_pages_are_an_error_and_never_a_partial_list(sizes: list[int], data: st.DataObject) -> None:
    """The last page leads back to an earlier page, in a cycle of one page or of several."""
    parts: list[list[dict[str, Any]]] = []
    for number, size in enumerate(sizes):
        parts.append(rows(*(f"page-{number}-{index}" for index in range(size))))
    back_to = data.draw(st.integers(0, len(parts) - 1))

    def page(parameters: Mapping[str, str], number: int) -> Any:
        index = number - 1 if number <= len(parts) else back_to + (number - 1 - len(parts)) % (len(parts) - back_to)
        return {"connections": parts[index], "hasNextPage": True}

    with pytest.raises(ApiError, match="came back; the pages repeat") as raised:
        list_all(page)

    assert raised.value.code == "invalid"


def test_a_page_that_starts_after_the_cursor_asked_for_and_ends_with_it_is_an_error() -> None:
    with pytest.raises(ApiError, match="'start' came back"):
        list_all(
            lambda _parameters, _number: {"connections": rows("a", "start"), "hasNextPage": True}, Query(after="start")
        )


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        ({"connections": []}, "hasNextPage: Field required"),
        ({"connections": rows("a"), "hasNextPage": None}, "hasNextPage: Input should be a valid boolean, got None"),
        ({"connections": rows("a"), "hasNextPage": "false"}, "hasNextPage: Input should be a valid boolean"),
        ({"connections": rows("a"), "hasNextPage": 1}, "hasNextPage: Input should be a valid boolean, got 1"),
        ({"hasNextPage": False}, "connections: Field required"),
        ({"connections": None, "hasNextPage": False}, "connections: Input should be a valid list, got None"),
        ({"connections": {"a": 1}, "hasNextPage": False}, "connections: Input should be a valid list"),
        ({"connections": [], "hasNextPage": True}, "hasNextPage is true on an empty page"),
        ({"connections": [{"name": "a"}], "hasNextPage": True}, "the last row of a page has no id to go on from"),
        ({"connections": rows("a", ""), "hasNextPage": True}, "the last row of a page has no id to go on from"),
        ({"connections": rows("a", 17), "hasNextPage": True}, "the last row of a page has no id to go on from"),
        ({"connections": ["a"], "hasNextPage": True}, "the last row of a page has no id to go on from"),
        ([], "Input should be"),
        (None, "Input should be"),
        ("ok", "Input should be"),
    ],
)
@pytest.mark.parametrize("on_page", [1, 2])
def test_an_inconsistent_page_fails_the_whole_listing(page: Any, problem: str, on_page: int) -> None:
    first = {"connections": rows("first"), "hasNextPage": True}

    with pytest.raises(ApiError) as raised:
        list_all(lambda _parameters, number: page if number == on_page else first)

    assert problem in str(raised.value)
    assert "GET http://127.0.0.1:1/v1/environments: " in str(raised.value)
    assert raised.value.code == "invalid"


def test_a_listing_without_an_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "MAX_PAGES", 5)

    with pytest.raises(ApiError, match="did not end after 5 pages"):
        list_all(lambda _parameters, number: {"connections": rows(f"environment-{number}"), "hasNextPage": True})


@pytest.mark.parametrize("starts", [(), ["start-1", "start-2"]])
def test_all_pages_together_have_a_limit_of_bytes(monkeypatch: pytest.MonkeyPatch, starts: Sequence[str]) -> None:
    monkeypatch.setattr(paging, "LONGEST_LISTING", 5 * 1024**2)
    asked: list[str | None] = []

    async def get(_self: HttpClient, *_segments: str, params: dict[str, str]) -> Answer:
        asked.append(params.get("after"))
        page = {"connections": rows(f"environment-{len(asked)}"), "hasNextPage": True}
        return Answer(page, NOW, size=1024**2)

    monkeypatch.setattr(HttpClient, "get", get)
    with pytest.raises(
        ApiError, match=r"^GET http://127\.0\.0\.1:1/v1/environments: all pages .* than 5 MB$"
    ) as raised:
        list_from(starts=starts)
    assert raised.value.code == "too_long"
    # Requests that were under way are counted, too.
    assert 6 <= len(asked) <= 6 + len(starts)


def test_all_pages_together_have_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    async def get(_self: HttpClient, *_segments: str, params: dict[str, str]) -> Answer:
        number = int(params.get("after", "0")) + 1
        await asyncio.sleep(0.02)
        return Answer({"connections": rows(str(number)), "hasNextPage": True}, NOW)

    monkeypatch.setattr(HttpClient, "get", get)
    with pytest.raises(ApiError, match=r"did not end within 0\.5 s, 5 times the deadline of one call$") as raised:
        list_from(deadline=0.1)
    assert (raised.value.code, raised.value.transient) == ("timeout", True)


def list_from(*, starts: Sequence[str] = (), **settings: Any) -> Listing:
    """The listing of the client."""

    async def run() -> Listing:
        async with Client(settings_for("http://127.0.0.1:1", **settings)) as client:
            return await client.list(Query(), starts)

    return asyncio.run(run())


def test_rows_without_an_id_are_all_kept_so_that_each_is_reported() -> None:
    listing, _calls = list_all(pages([*rows(None, 17, 17), "text", *rows("a")], rows("b")))

    assert listing.rows == [*rows(None, 17, 17), "text", *rows("a", "b")]


UNREADABLE = [b'"env-\\ud800"', b'"env-\\udfff"', b'"env-\xe9"', b'"env-\xe8"']


@pytest.mark.parametrize(
    ("client", "body"),
    [
        (Client, b'{"hasNextPage": false, "connections": [%s]}'),
        (QoderClient, b'{"has_more": false, "data": [%s]}'),
    ],
    ids=["letta", "qoder"],
)
def test_ids_that_differ_in_what_cannot_be_read_are_dropped_and_not_merged(client: Any, body: bytes) -> None:
    listed = body % b", ".join(b'{"id": %s}' % identity for identity in [b'"a"', *UNREADABLE, b'"b"'])
    provider = find_provider("letta" if client is Client else "qoder")

    async def run() -> Listing:
        async with raw_server(lambda _head: http_answer(listed)) as (url, _received):
            api = client(settings_for(url))
            async with api:
                found: Listing = await api.list(provider.query())
                return found

    listing = asyncio.run(run())
    found, invalid = provider.environments(listing, "http://127.0.0.1:1", provider.query())

    assert [environment.id for environment in found] == ["a", "b"]
    assert [row.id for row in invalid if row.dropped] == ["env-\N{REPLACEMENT CHARACTER}"] * 4


def test_the_time_of_a_listing_is_that_of_its_first_page() -> None:
    listing, _calls = list_all(pages(rows("a"), rows("b")))

    assert listing.fetched_at == NOW + timedelta(seconds=1)


def test_one_page_of_several_gives_the_cursor_of_the_next() -> None:
    api = pages(rows("a", "b"), rows("c"))

    first, _calls = list_all(api, Query(all_pages=False))
    second, calls = list_all(api, Query(all_pages=False, after=first.next_after))

    assert (first.rows, first.next_after) == (rows("a", "b"), "b")
    assert (second.rows, second.next_after) == (rows("c"), None)
    assert [call["after"] for call in calls] == ["b"]


def test_a_page_that_claims_a_next_page_without_a_cursor_is_an_error() -> None:
    with pytest.raises(ApiError, match="empty page"):
        list_all(lambda _parameters, _number: {"connections": [], "hasNextPage": True}, Query(all_pages=False))


def test_parameters_are_texts_and_unset_ones_are_left_out() -> None:
    query = Query(online_only=True, source="local", user_id="user-1", after="a", limit=7)

    assert list_all(pages(rows("b")), Query())[1] == [{"limit": "100"}]
    assert list_all(lambda _parameters, _number: {"connections": [], "hasNextPage": False}, query)[1] == [
        {"onlineOnly": "true", "source": "local", "userId": "user-1", "after": "a", "limit": "7"}
    ]
