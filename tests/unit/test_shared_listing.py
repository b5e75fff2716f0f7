"""The listing that look-ups share: when it is read, and what each look-up gets from it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.environment import Listing
from ansible_collections.fleetops.environments.plugins.module_utils.errors import ApiError
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta import shared_listing as module
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.shared_listing import SharedListing

from .support import NOW, row

PAGE_SIZE = 100


class Account:
    """An account whose listing has the rows `env-0`, `env-1` and so on; each listing has one more row."""

    def __init__(self, rows: int = 1) -> None:
        self.listings = 0
        self.error: ApiError | None = None
        self._rows = rows

    async def list_all(self) -> Listing:
        self.listings += 1
        await asyncio.sleep(0.01)
        if self.error is not None:
            raise self.error
        rows = [row(id=f"env-{number}") for number in range(self._rows)]
        self._rows += 1
        return Listing(rows, NOW)

    def share(self) -> SharedListing:
        return SharedListing(self.list_all, "https://api.example.com", PAGE_SIZE)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def test_look_ups_at_the_same_time_share_one_listing() -> None:
    account = Account(rows=20)

    async def look_up() -> list[Any]:
        shared = account.share()
        return await asyncio.gather(*(shared.find(f"env-{number}") for number in range(30)))

    found = run(look_up())

    assert [one and one.id for one in found] == [f"env-{number}" for number in range(20)] + [None] * 10
    assert account.listings == 1


def test_a_later_look_up_of_another_id_shares_the_listing() -> None:
    account = Account(rows=2)

    async def look_up() -> None:
        shared = account.share()
        assert await shared.find("env-0")
        assert await shared.find("env-1")

    run(look_up())

    assert account.listings == 1


def test_a_second_look_up_of_the_same_id_reads_a_new_listing() -> None:
    account = Account(rows=1)

    async def look_up() -> None:
        shared = account.share()
        assert await shared.find("env-1") is None
        assert await shared.find("env-1")
        # The new listing is shared as the first one was.
        assert await shared.find("env-0")

    run(look_up())

    assert account.listings == 2


def test_an_old_listing_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHARED_FOR", 0.0)
    account = Account(rows=2)

    async def look_up() -> None:
        shared = account.share()
        await shared.find("env-0")
        await shared.find("env-1")

    run(look_up())

    assert account.listings == 2


def test_each_look_up_gets_its_own_error() -> None:
    account = Account()
    account.error = ApiError("HTTP 503", code="http_503", status=503, transient=True, may_be_accepted=True, attempts=3)

    async def look_up() -> list[Any]:
        shared = account.share()
        return await asyncio.gather(shared.find("env-0"), shared.find("env-1"), return_exceptions=True)

    errors = run(look_up())

    assert account.listings == 1
    assert errors[0] is not errors[1]
    for error in errors:
        assert isinstance(error, ApiError)
        assert (str(error), error.code, error.status, error.transient) == ("HTTP 503", "http_503", 503, True)
        # A failed listing does not make a message unclear.
        assert not error.may_be_accepted


def test_a_listing_that_failed_is_not_shared() -> None:
    account = Account(rows=2)
    account.error = ApiError("HTTP 503", code="http_503", status=503)

    async def look_up() -> None:
        shared = account.share()
        with pytest.raises(ApiError):
            await shared.find("env-0")
        account.error = None
        assert await shared.find("env-1")

    run(look_up())

    assert account.listings == 2


def test_a_cancelled_look_up_does_not_cancel_the_listing_of_the_others() -> None:
    account = Account(rows=2)

    async def look_up() -> None:
        shared = account.share()
        first = asyncio.create_task(shared.find("env-0"))
        second = asyncio.create_task(shared.find("env-1"))
        await asyncio.sleep(0)
        first.cancel()
        assert await second
        assert first.cancelled()

    run(look_up())

    assert account.listings == 1


@pytest.mark.parametrize(("rows", "pages"), [(0, 1), (100, 1), (101, 2), (1_000, 10)])
def test_a_listing_is_cheaper_for_more_look_ups_than_pages(rows: int, pages: int) -> None:
    shared = Account(rows=rows).share()

    run(shared.find("env-0"))

    assert not shared.is_cheaper_for(pages)
    assert shared.is_cheaper_for(pages + 1)


def test_a_listing_is_expected_to_have_ten_pages_before_the_first_was_read() -> None:
    shared = Account().share()

    assert not shared.is_cheaper_for(10)
    assert shared.is_cheaper_for(11)
