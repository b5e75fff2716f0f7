"""A stop: its levels, and where it may be requested from."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.stop import Level, Stop
from ansible_collections.fleetops.environments.plugins.plugin_utils.actions.signals import stop_on_signals


def run_under(stop: Stop, request: Callable[[], object]) -> list[str]:
    """The outcome of work that takes half a second under a stop that is requested during it."""
    done: list[str] = []

    async def work() -> None:
        request()
        await stop.sleep(3600)
        done.append("woken")
        await asyncio.sleep(0.5)
        done.append("finished")

    async def run() -> None:
        async with asyncio.timeout(20):
            await stop.run(work(), grace=0.1)

    asyncio.run(run())
    return done


def test_at_finish_running_work_finishes() -> None:
    stop = Stop()

    assert run_under(stop, lambda: stop.finish("it is paused")) == ["woken", "finished"]
    assert (stop.level, stop.requested, stop.why) == (Level.FINISH, True, "it is paused")


def test_at_cut_running_work_is_cut_off_after_the_grace_period() -> None:
    stop = Stop()

    assert run_under(stop, stop.cut) == ["woken"]
    assert (stop.level, stop.requested, stop.why) == (Level.CUT, True, "a signal came")


def test_a_cut_after_a_finish_cuts_off_and_the_level_never_falls() -> None:
    stop = Stop()
    stop.finish("it is paused")

    assert run_under(stop, lambda: threading.Timer(0.1, stop.cut).start()) == ["woken"]
    stop.finish("it is paused")
    assert (stop.level, stop.why) == (Level.CUT, "a signal came")


@pytest.mark.parametrize("handles", [signal.SIGALRM, None])
def test_a_loop_that_sleeps_is_woken_by_a_signal_handler_and_by_a_thread(handles: signal.Signals | None) -> None:
    stop = Stop()

    def request() -> None:
        if handles is None:
            threading.Timer(0.1, stop.cut).start()
        else:
            signal.setitimer(signal.ITIMER_REAL, 0.1)

    before = signal.signal(signal.SIGALRM, lambda _signum, _frame: stop.cut())
    began = time.monotonic()
    try:
        assert run_under(stop, request) == ["woken"]
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < 10


def test_a_stop_may_be_requested_before_and_after_its_loop() -> None:
    stop = Stop()
    assert (stop.level, stop.requested, stop.why) == (Level.GO, False, None)
    asyncio.run(stop.sleep(0.01))
    stop.finish("it is paused")
    asyncio.run(stop.sleep(3600))
    stop.cut()

    assert run_under(stop, lambda: None) == ["woken"]


class TimeIsOverError(BaseException):
    """What core's handler of SIGALRM raises."""


@pytest.mark.parametrize("fails", [False, True])
def test_an_alarm_stops_the_work_and_its_handler_is_called_after_it(fails: bool) -> None:
    stop, done = Stop(), []

    def core(_signum: int, _frame: object) -> None:
        done.append("core")
        raise TimeIsOverError

    async def work() -> None:
        # An error that a callback raises is lost in the event loop.
        asyncio.get_running_loop().call_later(0.1, signal.raise_signal, signal.SIGALRM)
        await stop.sleep(3600)
        done.append("woken")
        if fails:
            raise ValueError("a fault of ours")

    def run() -> None:
        with stop_on_signals(stop):
            asyncio.run(stop.run(work(), grace=20))

    before = signal.signal(signal.SIGALRM, core)
    try:
        with pytest.raises(TimeIsOverError):
            run()
        assert signal.getsignal(signal.SIGALRM) is core
    finally:
        signal.signal(signal.SIGALRM, before)
    assert done == ["woken", "core"]
    assert stop.why == "the time of the task is over"


def test_work_that_is_cut_off_has_no_result_and_its_own_errors_are_not_hidden() -> None:
    async def fail() -> None:
        raise TimeoutError("of its own")

    stop = Stop()
    assert asyncio.run(stop.run(asyncio.sleep(0, "done"), grace=0)) == "done"
    with pytest.raises(TimeoutError, match="of its own"):
        asyncio.run(stop.run(fail(), grace=0))
    stop.cut()
    assert asyncio.run(stop.run(asyncio.sleep(3600, "done"), grace=0)) is None
