"""Qoder's environments, listed from a sandbox process: complete, or an error of one line."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.environment import Environment, Listing
from ansible_collections.fleetops.environments.plugins.module_utils.errors import ApiError
from ansible_collections.fleetops.environments.plugins.module_utils.http import paging
from ansible_collections.fleetops.environments.plugins.module_utils.http.client import HttpSettings
from ansible_collections.fleetops.environments.plugins.module_utils.providers.qoder.client import Client, Query
from ansible_collections.fleetops.environments.plugins.module_utils.providers.qoder.models import read_environments
from ansible_collections.fleetops.environments.plugins.module_utils.providers.qoder.provider import PROVIDER
from ansible_collections.fleetops.environments.plugins.module_utils.providers.registry import fetch_listing
from tests.sandbox.process import Sandbox

from .support import http_answer, raw_server, settings_for

GENERATIONS = ("seed", "new")
PATH = "/environments"


@pytest.fixture(scope="module")
def process() -> Iterator[Sandbox]:
    with Sandbox.start(devices=0, qoder_environments=30, seed=5) as sandbox:
        yield sandbox


@pytest.fixture(params=GENERATIONS)
def sandbox(process: Sandbox, request: pytest.FixtureRequest) -> Sandbox:
    """The seeded fleet, as each generation of the API shows it."""
    process.reset()
    process.settings(qoder_generation=request.param)
    return process


@pytest.fixture
def newer(process: Sandbox) -> Sandbox:
    process.reset()
    return process


def settings(sandbox: Sandbox, **changes: Any) -> HttpSettings:
    return settings_for(sandbox.qoder.url, **{"api_key": sandbox.qoder.key, **changes})


def list_rows(sandbox: Sandbox, **query: Any) -> Listing:
    return fetch_listing(PROVIDER, settings(sandbox), Query(**query))


def ids(listing: Listing) -> list[Any]:
    return [row["id"] for row in listing.rows]


def expected_ids(sandbox: Sandbox, *, archived: bool = False) -> list[str]:
    """The ids that a list holds, the newest first."""
    return [entry["id"] for entry in reversed(sandbox.qoder.environments()) if archived or not entry["archived"]]


def queries(sandbox: Sandbox) -> list[dict[str, str]]:
    return [request["query"] for request in sandbox.requests("qoder_list")]


def listing_error(sandbox: Sandbox, query: Mapping[str, Any] | None = None, **changes: Any) -> ApiError:
    """The error of a listing, on one line that names the call and no key."""
    with pytest.raises(ApiError) as raised:
        fetch_listing(PROVIDER, settings(sandbox, **changes), Query(**(query or {})))

    message = str(raised.value)
    assert message.startswith(f"GET {sandbox.qoder.url}{PATH}: ")
    assert message.isprintable()
    assert sandbox.qoder.key not in message
    assert not raised.value.may_be_accepted
    return raised.value


# What exists, by every query


@pytest.mark.parametrize("limit", [3, 7, 100, 1000])
def test_a_listing_is_every_environment_once_the_newest_first(sandbox: Sandbox, limit: int) -> None:
    listing = list_rows(sandbox, limit=limit)
    rows = {entry["id"]: entry["row"] for entry in sandbox.qoder.environments()}

    assert ids(listing) == expected_ids(sandbox)
    assert list(listing.rows) == [rows[identity] for identity in expected_ids(sandbox)]
    assert len(queries(sandbox)) == -(-len(listing.rows) // min(limit, 100))
    assert (listing.next_after, listing.starts) == (None, ())


def test_archived_environments_come_when_they_are_asked_for(sandbox: Sandbox) -> None:
    everything = list_rows(sandbox, include_archived=True, limit=7)
    found, invalid = read_environments(everything, sandbox.qoder.url, Query())

    assert ids(everything) == expected_ids(sandbox, archived=True)
    assert invalid == []
    archived = {entry["id"] for entry in sandbox.qoder.environments() if entry["archived"]}
    assert {item.id for item in found if item.fields["archived"]} == archived
    assert {item.id for item in found if item.status == "offline"} == archived
    assert len(archived) > 3


@pytest.mark.parametrize("limit", [2, 5, 100])
def test_a_listing_may_begin_after_or_before_an_environment(sandbox: Sandbox, limit: int) -> None:
    everything = expected_ids(sandbox)
    middle = everything[11]

    assert ids(list_rows(sandbox, after_id=middle, limit=limit)) == everything[12:]
    assert ids(list_rows(sandbox, before_id=middle, limit=limit)) == everything[:11]
    assert ids(list_rows(sandbox, after_id=everything[-1])) == []
    assert ids(list_rows(sandbox, before_id=everything[0])) == []


@pytest.mark.parametrize(("option", "first"), [("after_id", slice(3, 7)), ("before_id", slice(5, 9))])
def test_one_page_at_a_time_gives_the_cursor_of_the_next(sandbox: Sandbox, option: str, first: slice) -> None:
    everything = expected_ids(sandbox)
    cursor: str | None = everything[2] if option == "after_id" else everything[9]
    walked: list[list[str]] = []
    while cursor is not None:
        page = list_rows(sandbox, **{option: cursor}, limit=4, all_pages=False)
        walked.append(ids(page))
        cursor = page.next_after

    assert walked[0] == everything[first]
    together = [identity for page in (walked if option == "after_id" else reversed(walked)) for identity in page]
    assert together == (everything[3:] if option == "after_id" else everything[:9])
    assert all("page" not in query for query in queries(sandbox))


def test_the_times_select_environments_created_between_them(sandbox: Sandbox) -> None:
    dated = [entry for entry in sandbox.qoder.environments() if entry["row"].get("created_at")]
    since, until = dated[4]["row"]["created_at"], dated[19]["row"]["created_at"]
    within = {entry["id"] for entry in dated[4:20]}

    listing = list_rows(sandbox, created_at_gte=since.lower(), created_at_lte=until, include_archived=True, limit=3)

    assert ids(listing) == [identity for identity in expected_ids(sandbox, archived=True) if identity in within]
    found = retrieve_row(sandbox, dated[4]["id"]).fields["created_at"]
    assert ids(list_rows(sandbox, created_at_gte=found, created_at_lte=found, include_archived=True)) == [
        dated[4]["id"]
    ]


def test_every_request_repeats_the_filters_and_has_one_cursor(sandbox: Sandbox) -> None:
    filters = {"created_at[gte]": "2000-01-01T00:00:00Z", "created_at[lte]": "2100-01-01T00:00:00Z"}
    start = expected_ids(sandbox)[2]

    list_rows(
        sandbox,
        after_id=start,
        limit=4,
        include_archived=True,
        created_at_gte=filters["created_at[gte]"],
        created_at_lte=filters["created_at[lte]"],
    )

    asked = queries(sandbox)
    assert len(asked) > 3
    cursor = "page" if sandbox.settings()["qoder_generation"] == "new" else "after_id"
    for number, query in enumerate(asked):
        assert query.keys() - filters.keys() == {"limit", "include_archived", cursor if number else "after_id"}
        assert filters.items() <= query.items()
        assert (query["limit"], query["include_archived"]) == ("4", "true")
    assert asked[0]["after_id"] == start


def test_there_is_a_pause_between_pages_and_none_before_the_first(newer: Sandbox) -> None:
    list_rows(newer, limit=8)

    moments = [request["at"] for request in newer.requests("qoder_list")]
    assert all(later - earlier >= 0.09 for earlier, later in pairwise(moments))


def test_an_account_without_environments_is_an_empty_listing(sandbox: Sandbox) -> None:
    sandbox.qoder.account("empty", "key-of-an-empty-account")

    assert ids(fetch_listing(PROVIDER, settings(sandbox, api_key="key-of-an-empty-account"), Query())) == []


def test_a_repeated_row_is_kept_once() -> None:
    """A row without an id cannot be distinguished from others."""
    body = {"data": [{"id": "a"}, {"id": "b"}, {}, {"id": "a"}, {}, "a"], "has_more": False}

    async def run() -> Listing:
        async with raw_server(lambda _head: http_answer(json.dumps(body).encode())) as (url, _received):
            client = Client(settings_for(url))
            async with client:
                return await client.list(Query())

    assert list(asyncio.run(run()).rows) == [{"id": "a"}, {"id": "b"}, {}, {}, "a"]


# One environment


def retrieve_row(sandbox: Sandbox, identity: str) -> Environment:
    async def run() -> Environment:
        async with Client(settings(sandbox)) as client:
            return await client.retrieve(identity)

    return asyncio.run(run())


def resolve_row(sandbox: Sandbox, wanted: Environment) -> Environment | None:
    async def run() -> Environment | None:
        async with Client(settings(sandbox)) as client:
            return await client.resolve(wanted)

    return asyncio.run(run())


def test_an_environment_is_retrieved_as_it_is_listed(sandbox: Sandbox) -> None:
    found, invalid = read_environments(list_rows(sandbox, include_archived=True), sandbox.qoder.url, Query())

    assert invalid == []
    for item in found[:5]:
        assert retrieve_row(sandbox, item.id) == item
        assert resolve_row(sandbox, item) == item


def test_an_environment_archived_or_removed_after_the_listing_is_resolved_as_that(sandbox: Sandbox) -> None:
    first, second = (retrieve_row(sandbox, identity) for identity in expected_ids(sandbox)[:2])
    sandbox.qoder.patch(first.id, archived_at="2026-05-18T15:28:07Z")
    sandbox.qoder.remove(second.id)

    again = resolve_row(sandbox, first)

    assert again is not None
    assert (again.id, again.status) == (first.id, "offline")
    assert resolve_row(sandbox, second) is None


def test_a_missing_environment_is_a_404_with_the_id_of_the_request(sandbox: Sandbox) -> None:
    with pytest.raises(ApiError, match=r"404 Not Found: not_found_error: .*nowhere.*\(request_id \S+\)$") as raised:
        retrieve_row(sandbox, "env_nowhere")

    assert (raised.value.status, raised.value.code) == (404, "http_404")


@pytest.mark.parametrize("changes", [{"name": 17}, {"config": "cloud"}, {"created_at": "yesterday"}])
def test_a_malformed_field_of_a_retrieved_row_is_named(sandbox: Sandbox, changes: dict[str, Any]) -> None:
    identity = sandbox.qoder.add_environment(**changes)["id"]

    found = retrieve_row(sandbox, identity)

    assert (found.id, found.fields["invalid"]) == (identity, list(changes))


def test_an_answer_without_an_id_is_an_error(newer: Sandbox) -> None:
    newer.add_fault("without_id", route="qoder_environment")

    with pytest.raises(ApiError, match="unexpected answer: id: "):
        retrieve_row(newer, expected_ids(newer)[0])


@pytest.mark.parametrize("fault", [{"fault": "status", "status": 500}, {"fault": "html_200"}])
def test_a_failed_look_up_is_not_a_missing_environment(newer: Sandbox, fault: dict[str, Any]) -> None:
    wanted = retrieve_row(newer, expected_ids(newer)[0])
    newer.add_fault(**fault, route="qoder_environment")

    with pytest.raises(ApiError):
        resolve_row(newer, wanted)


@pytest.mark.parametrize("identity", ["a/b c?d#e%2F..", "..", "../environments"])
def test_an_id_is_one_part_of_the_address(newer: Sandbox, identity: str) -> None:
    with pytest.raises(ApiError):
        retrieve_row(newer, identity)

    assert newer.requests("qoder_list") == []


# Failures

DOES_NOT_ADD_UP: list[tuple[str, str, str]] = [
    # the generation, the fault, and the error
    ("seed", "repeat_cursor", "came back; the pages repeat"),
    ("new", "repeat_cursor", "came back; the pages repeat"),
    ("seed", "cursor_cycle", "came back; the pages repeat"),
    ("new", "cursor_cycle", "came back; the pages repeat"),
    ("seed", "no_cursor", "has_more is true, and no cursor tells where to go on"),
    ("new", "no_cursor", "has_more is true, and no cursor tells where to go on"),
    ("seed", "no_has_more", "neither has_more nor next_page says whether others follow"),
    ("seed", "next_page_after_empty", "has_more is true on an empty page"),
    ("new", "next_page_after_empty", "has_more is true on an empty page"),
    ("seed", "no_data", "unexpected answer: data: Field required"),
    ("new", "no_data", "unexpected answer: data: Field required"),
    ("new", "html_200", "an HTML page"),
    ("new", "not_json", "instead of JSON"),
    ("new", "truncated_json", "instead of JSON"),
    ("new", "redirect", "redirected to https://elsewhere.invalid/"),
    ("new", "drop_before", "dropped"),
    ("new", "drop_during", "dropped"),
    ("new", "drop_after", "dropped"),
]


@pytest.mark.parametrize("cursor", ["after_id", "before_id"])
@pytest.mark.parametrize(("generation", "fault", "said"), DOES_NOT_ADD_UP)
def test_a_failed_page_fails_the_whole_listing(
    process: Sandbox, cursor: str, generation: str, fault: str, said: str
) -> None:
    if (generation, fault, cursor) == ("seed", "cursor_cycle", "before_id"):
        # The cycle leads to the newest environment, and there is no row before it.
        said = "has_more is true on an empty page"
    process.reset()
    process.settings(qoder_generation=generation)
    # The first page of the cycle is the one that leads to the beginning.
    nth = 3 if fault == "cursor_cycle" else 2
    process.add_fault(fault, route="qoder_list", nth=list(range(nth, nth + 20)))
    start = expected_ids(process)[0 if cursor == "after_id" else -1]

    error = listing_error(process, {cursor: start, "limit": 3}, retries=0)

    assert said in str(error)
    assert len(queries(process)) <= 5


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"null",
        b'"environments"',
        b'{"data": {}, "has_more": false}',
        b'{"data": null, "has_more": false}',
        b'{"data": [], "has_more": "no"}',
        b'{"data": [], "has_more": 0}',
        b'{"data": [{}], "has_more": true, "last_id": 17}',
        b'{"data": [{}], "has_more": true, "last_id": ""}',
        b'{"data": [{}], "has_more": true, "next_page": ["x"]}',
        b'{"data": []}',
    ],
)
def test_an_answer_other_than_a_page_is_an_error(body: bytes) -> None:
    async def run() -> None:
        async with raw_server(lambda _head: http_answer(body)) as (url, received):
            client = Client(settings_for(url))
            async with client:
                try:
                    await client.list(Query())
                finally:
                    assert len(received) == 1

    with pytest.raises(ApiError) as raised:
        asyncio.run(run())

    assert raised.value.code == "invalid"
    assert str(raised.value).isprintable()


def test_a_page_that_announces_more_in_one_way_only_is_understood(newer: Sandbox) -> None:
    newer.add_fault("no_has_more", route="qoder_list")
    assert ids(list_rows(newer, limit=7)) == expected_ids(newer)
    newer.clear_faults()
    newer.add_fault("no_next_page", route="qoder_list")
    assert ids(list_rows(newer, limit=7)) == expected_ids(newer)
    newer.clear_faults()
    newer.add_fault("no_next_page", route="qoder_list", nth=2)
    assert ids(list_rows(newer, limit=7)) == expected_ids(newer)


def test_a_single_page_gives_the_next_cursor_or_fails(newer: Sandbox) -> None:
    newer.add_fault("no_cursor", route="qoder_list")

    assert "no cursor tells where to go on" in str(listing_error(newer, {"limit": 3, "all_pages": False}))


ERRORS = {
    400: "400 Bad Request: invalid_request_error: The sandbox was told to fail",
    401: "401 Unauthorized: authentication_error: The sandbox was told to fail",
    403: "403 Forbidden: permission_error: The sandbox was told to fail",
    404: "404 Not Found: not_found_error: The sandbox was told to fail",
    409: "409 Conflict: conflict_error: The sandbox was told to fail",
    429: "429 Too Many Requests: rate_limit_error: The sandbox was told to fail",
    500: "500 Internal Server Error: api_error: The sandbox was told to fail",
}


@pytest.mark.parametrize("status", ERRORS)
def test_every_documented_error_is_shown_with_the_id_of_the_request(newer: Sandbox, status: int) -> None:
    newer.add_fault("status", route="qoder_list", status=status, echo_key=True, nth=[2, 3])

    error = listing_error(newer, {"limit": 5}, retries=1)

    message = str(error)
    assert ERRORS[status] in message
    _said, request_id, rest = message.partition("(request_id ")
    assert request_id
    assert len(rest.partition(")")[0]) == 36
    assert (error.status, error.code) == (status, f"http_{status}")
    assert ("the server refused the key given with api_key" in message) is (status in (401, 403))
    assert len(queries(newer)) == (3 if status in (429, 500) else 2)


def test_a_wrong_parameter_is_named() -> None:
    """The query refuses everything documented; this server refuses more."""
    body = {
        "type": "error",
        "request_id": "request-1",
        "error": {"type": "invalid_request_error", "message": "no such row", "param": "after_id"},
    }

    async def run() -> None:
        answer = http_answer(json.dumps(body).encode(), status=b"400 Bad Request")
        async with raw_server(lambda _head: answer) as (url, _received):
            client = Client(settings_for(url))
            async with client:
                await client.list(Query(after_id="env_gone"))

    with pytest.raises(ApiError) as raised:
        asyncio.run(run())

    assert str(raised.value).endswith(
        "400 Bad Request: invalid_request_error: no such row (param after_id, request_id request-1)"
    )


def test_an_unknown_key_and_a_key_without_rights(sandbox: Sandbox) -> None:
    sandbox.qoder.account("guest", "key-of-a-guest", forbidden=True)

    nobody = listing_error(sandbox, api_key="key-of-nobody")
    guest = listing_error(sandbox, api_key="key-of-a-guest")

    assert "401 Unauthorized: authentication_error: A valid access token is required (request_id " in str(nobody)
    assert "403 Forbidden: permission_error: This account may not use Cloud Agents (request_id " in str(guest)
    assert "key-of-nobody" not in str(nobody)
    assert "key-of-a-guest" not in str(guest)
    assert len(queries(sandbox)) == 2


@pytest.mark.parametrize("status", [429, 503])
def test_a_gateway_error_without_details_is_tried_again(newer: Sandbox, status: int) -> None:
    newer.add_fault("status", route="qoder_list", status=status, body="empty", nth=2)
    assert ids(list_rows(newer, limit=10)) == expected_ids(newer)

    newer.clear_faults()
    newer.add_fault("status", route="qoder_list", status=status, body="empty")
    error = listing_error(newer, retries=0)

    assert (error.status, error.transient) == (status, True)
    assert str(error).endswith(": an empty body")


def test_a_request_waits_as_long_as_the_server_asks(newer: Sandbox) -> None:
    newer.add_fault("status", route="qoder_list", status=429, retry_after=1, nth=2)
    start = time.monotonic()

    assert ids(list_rows(newer, limit=10)) == expected_ids(newer)
    assert time.monotonic() - start >= 1


def test_a_server_that_asks_for_too_long_a_wait_fails_at_once(newer: Sandbox) -> None:
    newer.add_fault("status", route="qoder_list", status=429, retry_after=3600)
    start = time.monotonic()

    error = listing_error(newer)

    assert "asked to wait 3600 s" in str(error)
    assert "request_id" in str(error)
    assert time.monotonic() - start < 5
    assert len(queries(newer)) == 1


def test_slow_pages_together_have_a_deadline(newer: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "DEADLINES", 0.05)
    newer.add_fault("slow", route="qoder_list", seconds=0.1)

    error = listing_error(newer, {"limit": 1}, deadline=20)

    assert error.code == "timeout"
    assert "did not end within 1 s, 0.05 times the deadline of one call" in str(error)


def test_all_pages_together_have_a_limit_of_bytes(newer: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "LONGEST_LISTING", 1000)

    error = listing_error(newer, {"limit": 1})

    assert error.code == "too_long"
    assert "all pages together are longer than 0 MB" in str(error)
    assert 1 < len(queries(newer)) < 30


def test_a_slow_page_fails_the_whole_listing(newer: Sandbox) -> None:
    newer.add_fault("slow", route="qoder_list", seconds=3600, nth=2)

    assert "no answer within the timeout of 0.3 s" in str(listing_error(newer, {"limit": 5}, retries=0, timeout=0.3))


# the damage of a row, and its malformed fields, None for a row that is dropped
DAMAGES = {
    "no_id": None,
    "id_number": None,
    "id_empty": None,
    "not_an_object": None,
    "config_text": ["config"],
    "metadata_list": ["metadata"],
    "archived_text": ["archived", "archived_at", "status"],
    "type_number": ["type"],
    "networking_list": ["networking_type"],
    "packages_text": ["packages"],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_row_is_reported_and_only_one_without_an_id_is_dropped(sandbox: Sandbox, damage: str) -> None:
    ids, fields = expected_ids(sandbox), DAMAGES[damage]
    broken = ids[9]
    sandbox.add_fault("invalid_rows", route="qoder_list", rows=[broken], damage=damage)

    found, [reported] = read_environments(list_rows(sandbox, limit=4), sandbox.qoder.url, Query())

    named = {item.id: item.fields["invalid"] for item in found}
    assert list(named) == [identity for identity in ids if identity != broken or fields is not None]
    assert named.get(broken) == fields
    assert (reported.id, reported.dropped) == (("number 10", True) if fields is None else (broken, False))


@pytest.mark.parametrize("damage", ["name_null", "name_template", "name_markup", "name_huge"])
def test_a_strange_but_valid_row_is_kept(sandbox: Sandbox, damage: str) -> None:
    sandbox.add_fault("invalid_rows", route="qoder_list", rows=[0], damage=damage)

    found, invalid = read_environments(list_rows(sandbox, limit=4), sandbox.qoder.url, Query())

    assert ([item.id for item in found], invalid) == (expected_ids(sandbox), [])


def test_a_hostile_account_can_be_listed(sandbox: Sandbox) -> None:
    sandbox.qoder.account("hostile", "key-of-a-hostile-account", environments=60, seed=3, hostile=True)

    listing = fetch_listing(
        PROVIDER, settings(sandbox, api_key="key-of-a-hostile-account"), Query(include_archived=True)
    )
    found, invalid = read_environments(listing, sandbox.qoder.url, Query())

    entries = sandbox.qoder.environments("hostile")
    assert [item.id for item in found] == [entry["id"] for entry in reversed(entries)]
    assert not any(row.dropped for row in invalid)
    assert all(row.problem.isprintable() for row in invalid)
