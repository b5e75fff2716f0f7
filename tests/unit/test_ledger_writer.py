"""The thread that writes a ledger for an event loop: what it commits together, and what cuts a caller off."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.errors import OptionError
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.writer import Writer


class Store:
    """Notes the statements of each transaction, and begins none until it may."""

    def __init__(self) -> None:
        self.transactions: list[list[str]] = []
        self.goes_on, self.has_begun = threading.Event(), asyncio.Event()
        self.tell: Callable[[], None] = lambda: None
        self.error: OptionError | None = None

    def change_together(self, changes: Sequence[tuple[str, Sequence[Any]]]) -> list[int]:
        self.tell()
        assert self.goes_on.wait(60)
        self.transactions.append([statement for statement, _values in changes])
        if self.error is not None:
            raise self.error
        return [values[2] for _statement, values in changes]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def writer(store: Store) -> Iterator[Writer]:
    with closing(Writer(store.change_together, lambda: None)) as writer:
        yield writer
        store.goes_on.set()


async def during_a_transaction(store: Store, writer: Writer, *others: Coroutine[Any, Any, Any]) -> list[Any]:
    """What comes of others that are asked for while the transaction of a first one is under way."""
    loop = asyncio.get_running_loop()
    store.tell = lambda: loop.call_soon_threadsafe(store.has_begun.set)
    first = asyncio.create_task(writer.change("first", ("c", "e", 1)))
    await store.has_begun.wait()
    tasks = [asyncio.create_task(other) for other in others]
    await asyncio.sleep(0)
    store.goes_on.set()
    return await asyncio.gather(first, *tasks, return_exceptions=True)


def test_what_waits_is_one_transaction_in_the_order_of_its_rows(store: Store, writer: Writer) -> None:
    async def run() -> list[Any]:
        asked = [("x", ("c", "f", 0)), ("y", ("c", "e", 3)), ("z", ("c", "f", 2))]
        calls = [writer.change(*one) for one in asked]
        return await during_a_transaction(store, writer, *calls, writer.call(lambda: "called"))

    assert asyncio.run(run()) == [1, 0, 3, 2, "called"]
    assert store.transactions == [["first"], ["y", "x", "z"]]


def test_an_error_is_that_of_all_that_were_in_the_transaction(store: Store, writer: Writer) -> None:
    store.error = OptionError("ledger", "the disk is full")

    async def run() -> list[Any]:
        others = [writer.change("x", ("c", "f", 0)), writer.change("y", ("c", "g", 0)), writer.call(lambda: 7)]
        return await during_a_transaction(store, writer, *others)

    assert asyncio.run(run()) == [store.error, store.error, store.error, 7]


def test_a_caller_that_is_cancelled_gets_its_result_and_is_cancelled_then(store: Store, writer: Writer) -> None:
    noted: list[Any] = []

    async def change() -> None:
        noted.append(await writer.change("x", ("c", "f", 5)))
        noted.append(await writer.change("y", ("c", "f", 6)))
        await asyncio.sleep(60)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        store.tell = lambda: loop.call_soon_threadsafe(store.has_begun.set)
        task = asyncio.create_task(change())
        await store.has_begun.wait()
        task.cancel()
        await asyncio.sleep(0)
        store.goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert noted == [5, 6]
    assert store.transactions == [["x"], ["y"]]


def test_a_cancelled_caller_fails_at_the_time_that_it_has(store: Store, writer: Writer) -> None:
    async def run() -> None:
        store.goes_on.set()
        async with asyncio.timeout(0):
            await writer.change("x", ("c", "f", 5))
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        asyncio.run(run())
    assert store.transactions == [["x"]]


def test_closing_waits_for_what_was_asked(store: Store, writer: Writer) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        store.tell = lambda: loop.call_soon_threadsafe(store.has_begun.set)
        tasks = [asyncio.create_task(writer.change(name, ("c", "e", 1))) for name in "xy"]
        await store.has_begun.wait()
        threading.Timer(0.05, store.goes_on.set).start()
        writer.close()
        await asyncio.gather(*tasks)

    asyncio.run(run())
    assert [name for names in store.transactions for name in names] == ["x", "y"]
