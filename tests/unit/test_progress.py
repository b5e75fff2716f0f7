"""Progress: what a line says, and when it is shown."""

from __future__ import annotations

import asyncio

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.errors import FleetError
from ansible_collections.fleetops.environments.plugins.module_utils.fleet import progress as module
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.progress import Progress


@pytest.fixture
def progress(monkeypatch: pytest.MonkeyPatch) -> Progress:
    """Progress of 3,000 targets that begins at the time 0."""
    monkeypatch.setattr("time.monotonic", lambda: 0.0)
    return Progress("targets", 3000)


def count_ended(progress: Progress, **ended: int) -> None:
    for status, count in ended.items():
        for _number in range(count):
            progress.count(status, failed=status == "failed")


def test_a_line_counts_the_ended_targets_by_status(progress: Progress) -> None:
    assert progress.line(2.0) == "0 of 3000 targets, 0 failed, 0.0 a second"

    count_ended(progress, sent=590, already_sent=7, failed=3)
    assert progress.line(4.0) == ("600 of 3000 targets, 590 sent, 7 already_sent, 3 failed, 150.0 a second, 16 s left")
    count_ended(progress, sent=2400)
    assert progress.line(6.0) == ("3000 of 3000 targets, 2990 sent, 7 already_sent, 3 failed, 500.0 a second, 0 s left")


def test_the_pace_is_that_of_the_last_seconds(progress: Progress) -> None:
    count_ended(progress, sent=1000)
    for now in range(1, 11):
        assert f", {1000 / now:.1f} a second" in progress.line(now)
    for now in range(11, 31):
        count_ended(progress, sent=2)
        line = progress.line(now)

    assert line == "1040 of 3000 targets, 1040 sent, 0 failed, 2.0 a second, 980 s left"


def test_no_remaining_time_is_shown_when_no_target_ends(progress: Progress) -> None:
    count_ended(progress, sent=1)
    for now in range(1, 30):
        line = progress.line(now)

    assert line == "1 of 3000 targets, 1 sent, 0 failed, 0.0 a second"


def test_a_line_is_shown_at_first_and_when_more_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHOW_EVERY", 0.01)
    shown: list[str] = []
    progress, more = Progress("replies", 2), asyncio.Event()

    def show(line: str) -> None:
        shown.append(line)
        more.set()

    async def run() -> None:
        async with progress.show(show):
            for _number in range(2):
                await more.wait()
                more.clear()
                # Long enough for more lines, if there were any.
                await asyncio.sleep(0.05)
                progress.count("replied", failed=False)
            await more.wait()

    asyncio.run(run())

    assert [line.partition(",")[0] for line in shown] == ["0 of 2 replies", "1 of 2 replies", "2 of 2 replies"]


def test_after_a_long_silence_a_line_is_shown_although_no_more_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHOW_EVERY", 0.01)
    monkeypatch.setattr(module, "_LONGEST_SILENCE", 0.02)
    shown: list[str] = []
    enough = asyncio.Event()

    def show(line: str) -> None:
        shown.append(line)
        if len(shown) == 3:
            enough.set()

    async def run() -> None:
        async with Progress("targets", 2).show(show):
            await enough.wait()

    asyncio.run(run())

    assert [line.partition(",")[0] for line in shown[:3]] == ["0 of 2 targets"] * 3


def test_an_error_within_is_raised_as_it_is() -> None:
    async def run() -> None:
        async with Progress("targets", 1).show(lambda _line: None):
            raise FleetError("not so")

    with pytest.raises(FleetError, match="not so"):
        asyncio.run(run())


def test_nothing_is_shown_without_a_terminal() -> None:
    async def run() -> None:
        async with Progress("targets", 1).show(None):
            pass

    asyncio.run(run())
