"""Fan-out: how much work runs at a time, when no more work starts, and how each target ends."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.errors import ApiError
from ansible_collections.fleetops.environments.plugins.module_utils.fleet import progress
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.fan_out import (
    FanOut,
    Outcome,
    Policy,
    Target,
    count_each,
)
from ansible_collections.fleetops.environments.plugins.module_utils.stop import Stop

from .support import environment_of, row

STATUSES = ("ok", "offline", "skipped", "not_attempted", "failed", "unknown")
REFUSED = ApiError("no", code="http_400")
OFFLINE = ApiError("away", code="offline")


def target(number: int = 0, skip: str | None = None) -> Target:
    return Target(f"host-{number}", environment_of(row(id=f"environment-{number}")), skip=skip)


def policy(**changes: Any) -> Policy:
    standard = {"concurrency": 4, "rate": None, "max_failures": 0, "when_offline": "skip", "offline_timeout": 0.1}
    return Policy(**{**standard, **changes})


def run_fan_out(
    targets: Sequence[Target],
    work: Callable[[Target, Outcome], Awaitable[None]],
    fan_out: FanOut | None = None,
    **rules: Any,
) -> list[Outcome]:
    """Do the work for the targets; return their outcomes in the same order."""
    pairs = [(to, Outcome.make(to)) for to in targets]

    async def run() -> None:
        async with asyncio.timeout(20):
            await (fan_out or FanOut(policy(**rules))).run(pairs, work)

    asyncio.run(run())
    return [outcome for _to, outcome in pairs]


def end_as(*ends: str | Exception) -> Callable[[Target, Outcome], Awaitable[None]]:
    """Work that ends for `host-0` as the first argument says, `host-1` as the second, later hosts as the last."""

    async def work(to: Target, outcome: Outcome) -> None:
        end = ends[min(int(to.host.removeprefix("host-")), len(ends) - 1)]
        if isinstance(end, Exception):
            raise end
        outcome.status = end

    return work


def statuses(outcomes: Sequence[Outcome]) -> list[str]:
    return [outcome.status for outcome in outcomes]


# Outcomes of one target


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ApiError("no", code="http_400"), "failed"),
        (ApiError("away", code="offline"), "offline"),
        (ApiError("late", code="timeout", may_be_accepted=True), "unknown"),
        (ApiError("away", code="offline", may_be_accepted=True), "unknown"),
    ],
)
def test_an_api_error_is_the_outcome_of_its_target(error: ApiError, status: str) -> None:
    [outcome] = run_fan_out([target()], end_as(error))

    assert (outcome.status, outcome.error) == (status, {"code": error.code, "message": str(error)})


def test_any_other_exception_makes_only_that_target_unknown() -> None:
    outcomes = run_fan_out([target(0), target(1)], end_as(KeyError("a\nb"), "ok"), concurrency=1, max_failures=1)

    assert statuses(outcomes) == ["unknown", "ok"]
    assert outcomes[0].error == {"code": "internal", "message": r"KeyError: 'a\nb'"}


def test_the_time_that_the_work_took_is_kept() -> None:
    over = asyncio.Event()

    async def work(to: Target, outcome: Outcome) -> None:
        asyncio.get_running_loop().call_later(0.05, over.set)
        await over.wait()
        outcome.status = "ok"

    [outcome] = run_fan_out([target()], work)

    assert 0.05 <= outcome.duration < 5


def test_a_target_to_skip_is_left_alone() -> None:
    skipped, done = run_fan_out([target(0, skip="not updatable"), target(1)], end_as(REFUSED, "ok"))

    assert (skipped.status, skipped.reason, skipped.duration) == ("skipped", "not updatable", 0.0)
    assert done.status == "ok"


def test_no_target_is_no_work() -> None:
    assert run_fan_out([], end_as(REFUSED)) == []


# The budget of failures


def test_above_the_budget_no_work_starts_and_running_work_finishes() -> None:
    targets = [target(number) for number in range(12)]
    all_started, failed = asyncio.Barrier(4), asyncio.Event()
    started: list[str] = []

    async def work(to: Target, outcome: Outcome) -> None:
        started.append(to.host)
        await all_started.wait()
        if to is targets[0]:
            failed.set()
            raise REFUSED
        await failed.wait()
        outcome.status = "ok"

    outcomes = run_fan_out(targets, work, concurrency=4)

    assert [outcome.host for outcome in outcomes] == [to.host for to in targets]
    assert {status: count for status, count in count_each(statuses(outcomes), STATUSES).items() if count} == {
        "ok": 3,
        "not_attempted": 8,
        "failed": 1,
    }
    assert statuses(outcomes[4:]) == ["not_attempted"] * 8
    assert len(started) == 4


@pytest.mark.parametrize(("max_failures", "starts"), [(0, 1), (2, 3), (5, 6), (100, 10)])
def test_the_budget_is_how_many_may_fail(max_failures: int, starts: int) -> None:
    targets = [target(number) for number in range(10)]

    outcomes = run_fan_out(targets, end_as(REFUSED), concurrency=1, max_failures=max_failures)

    assert statuses(outcomes) == ["failed"] * starts + ["not_attempted"] * (10 - starts)


def test_offline_and_skipped_targets_are_within_the_budget() -> None:
    outcomes = run_fan_out([target(0), target(1, skip="why"), target(2)], end_as(OFFLINE, "ok"), concurrency=1)

    assert statuses(outcomes) == ["offline", "skipped", "ok"]


def test_an_offline_target_that_counts_as_failed_uses_the_budget() -> None:
    outcomes = run_fan_out([target(0), target(1)], end_as(OFFLINE, "ok"), concurrency=1, when_offline="fail")

    assert statuses(outcomes) == ["offline", "not_attempted"]


@pytest.mark.parametrize(
    ("status", "when_offline", "expected"),
    [
        ("failed", "skip", True),
        ("unknown", "skip", True),
        ("offline", "skip", False),
        ("offline", "fail", True),
        ("offline", "wait", True),
        ("ok", "fail", False),
        ("skipped", "fail", False),
        ("not_attempted", "fail", False),
    ],
)
def test_what_counts_as_failed(status: str, when_offline: str, expected: bool) -> None:
    outcome = replace(Outcome.make(target()), status=status)

    assert policy(when_offline=when_offline).is_failure(outcome) is expected


def test_counts_name_every_status_in_order() -> None:
    assert tuple(count_each([], STATUSES)) == STATUSES
    assert set(count_each([], STATUSES).values()) == {0}


# Concurrency and rate


@pytest.mark.parametrize(("concurrency", "most"), [(1, 1), (3, 3), (50, 9)])
def test_no_more_targets_run_at_once_than_allowed(concurrency: int, most: int) -> None:
    under_way: list[int] = []
    now = 0

    async def work(to: Target, outcome: Outcome) -> None:
        nonlocal now
        now += 1
        under_way.append(now)
        await asyncio.sleep(0)
        now -= 1
        outcome.status = "ok"

    outcomes = run_fan_out([target(number) for number in range(9)], work, concurrency=concurrency)

    assert max(under_way) == most
    assert statuses(outcomes) == ["ok"] * 9


def test_no_more_targets_start_in_a_second_than_allowed() -> None:
    fan_out = FanOut(policy(concurrency=10, rate=20))
    starts: list[float] = []

    async def work(to: Target, outcome: Outcome) -> None:
        assert await fan_out.may_start()
        starts.append(time.monotonic())
        outcome.status = "ok"

    began = time.monotonic()
    outcomes = run_fan_out([target(number) for number in range(6)], work, fan_out)

    for number, start in enumerate(starts):
        assert start - began >= number / 20 - 0.001
    assert statuses(outcomes) == ["ok"] * 6


def test_a_waiting_target_does_not_start_above_the_budget() -> None:
    fan_out = FanOut(policy(concurrency=10, rate=50))

    async def work(to: Target, outcome: Outcome) -> None:
        if await fan_out.may_start():
            raise REFUSED

    outcomes = run_fan_out([target(number) for number in range(5)], work, fan_out)

    assert statuses(outcomes) == ["failed", *["not_attempted"] * 4]


# Rounds


def away(rounds: int, tries: Counter[str]) -> Callable[[Target, Outcome], Awaitable[None]]:
    """Work that finds `host-0` offline for this many rounds, and counts the attempts of each host."""

    async def work(to: Target, outcome: Outcome) -> None:
        tries[to.host] += 1
        if to.host == "host-0" and tries[to.host] <= rounds:
            raise OFFLINE
        outcome.status = "ok"

    return work


def test_only_an_offline_target_that_is_waited_for_is_tried_again() -> None:
    tries: Counter[str] = Counter()

    outcomes = run_fan_out([target(0), target(1)], away(1, tries), when_offline="wait")

    assert statuses(outcomes) == ["ok", "ok"]
    assert tries == {"host-0": 2, "host-1": 1}


def test_a_target_that_stays_offline_is_tried_a_last_time_when_the_time_is_over() -> None:
    tries: Counter[str] = Counter()

    outcomes = run_fan_out([target(0), target(1)], away(99, tries), when_offline="wait")

    assert statuses(outcomes) == ["offline", "ok"]
    assert tries == {"host-0": 2, "host-1": 1}
    assert outcomes[0].error == {"code": "offline", "message": "away"}


@pytest.mark.parametrize("when_offline", ["skip", "wait"])
def test_a_target_whose_time_is_later_is_tried_until_its_work_ends_otherwise(when_offline: str) -> None:
    tries: Counter[str] = Counter()

    async def work(to: Target, outcome: Outcome) -> None:
        tries[to.host] += 1
        outcome.status = "later" if to.host == "host-0" and tries[to.host] <= 3 else "ok"

    outcomes = run_fan_out([target(0), target(1)], work, when_offline=when_offline, longest_pause=0.01)

    assert statuses(outcomes) == ["ok", "ok"]
    assert tries == {"host-0": 4, "host-1": 1}


@pytest.mark.parametrize("when_offline", ["skip", "fail"])
def test_a_target_that_is_not_waited_for_is_tried_once(when_offline: str) -> None:
    tries: Counter[str] = Counter()

    run_fan_out([target(0)], away(99, tries), when_offline=when_offline)

    assert tries == {"host-0": 1}


def test_above_the_budget_no_target_is_waited_for() -> None:
    outcomes = run_fan_out(
        [target(0), target(1)], end_as(OFFLINE, REFUSED), when_offline="wait", offline_timeout=3600, concurrency=1
    )

    assert statuses(outcomes) == ["offline", "failed"]


# Progress


def test_progress_is_reported_when_it_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SHOW_EVERY", 0.05)
    told: list[str] = []
    was_told = asyncio.Event()

    def report(line: str) -> None:
        told.append(line)
        was_told.set()

    async def work(to: Target, outcome: Outcome) -> None:
        if to.host == "host-1":
            raise REFUSED
        await was_told.wait()
        outcome.status = "ok"

    targets = [target(0), target(1), target(2, skip="why")]
    run_fan_out(targets, work, max_failures=1, report=report)

    [line] = told
    assert line.startswith("1 of 2 targets, 1 failed, ")


# Stopping


def test_after_a_stop_no_target_starts_and_running_work_finishes() -> None:
    stop = Stop()

    async def work(to: Target, outcome: Outcome) -> None:
        if to.host == "host-1":
            stop.cut()
        await asyncio.sleep(0.05)
        outcome.status = "ok"

    outcomes = run_fan_out([target(number) for number in range(5)], work, concurrency=2, stop=stop)

    assert statuses(outcomes) == ["ok", "ok", *["not_attempted"] * 3]


@pytest.mark.parametrize("why", ["a signal came", "the time of the task is over"])
def test_work_that_does_not_finish_soon_is_cut_off_and_unknown(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    monkeypatch.setattr(f"{FanOut.__module__}.GRACE", 0.1)
    stop = Stop()

    async def work(to: Target, outcome: Outcome) -> None:
        await asyncio.sleep(0.02)
        if to.host == "host-1":
            await asyncio.sleep(3600)
        stop.cut(why)
        outcome.status = "ok"

    outcomes = run_fan_out([target(number) for number in range(4)], work, concurrency=2, stop=stop)

    assert statuses(outcomes) == ["ok", "unknown", "not_attempted", "not_attempted"]
    assert outcomes[1].error == {"code": "interrupted", "message": f"cut off, as {why}; it may have been done"}


def test_after_a_stop_no_target_waits_for_a_turn_or_a_round() -> None:
    stop = Stop()
    fan_out = FanOut(policy(rate=0.001, when_offline="wait", offline_timeout=3600, stop=stop))

    async def work(to: Target, outcome: Outcome) -> None:
        if await fan_out.may_start():
            asyncio.get_running_loop().call_later(0.1, stop.cut)
            raise OFFLINE

    assert statuses(run_fan_out([target(0), target(1)], work, fan_out)) == ["offline", "not_attempted"]


def test_a_fan_out_stopped_before_it_began_does_nothing() -> None:
    stop = Stop()
    stop.cut()

    assert statuses(run_fan_out([target(0)], end_as(REFUSED), stop=stop)) == ["not_attempted"]
