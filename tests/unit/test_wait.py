"""Waiting: when it ends, what it asks of the API, and what the result knows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.environment import Environment
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.fan_out import (
    FanOut,
    Policy,
    ProviderRun,
    Target,
)
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.wait import (
    Goal,
    WaitOutcome,
    wait_for_environments,
)
from ansible_collections.fleetops.environments.plugins.module_utils.stop import Stop
from tests.sandbox.process import Sandbox

from .support import environment_of, row, settings_for


def add_environment(sandbox: Sandbox, **fields: Any) -> Environment:
    return environment_of(sandbox.add_environment(**fields), sandbox.url)


def wait_for_all(
    sandbox: Sandbox,
    environments: Sequence[Environment],
    goal: Goal,
    within: float = 5,
    *,
    check_mode: bool = False,
    meanwhile: Callable[[], None] = lambda: None,
    lines: list[str] | None = None,
    policy: dict[str, Any] | None = None,
    **settings: Any,
) -> list[WaitOutcome]:
    """Wait for these while a thread runs something else."""
    report = (lines if lines is not None else []).append
    standard = {"concurrency": 4, "rate": None, "max_failures": 0, "longest_pause": 0.2, "report": report}
    rules = Policy(**{**standard, **(policy or {})})

    async def run() -> list[WaitOutcome]:
        targets = [Target(environment.id, environment) for environment in environments]
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(meanwhile))
            return await wait_for_environments(
                ProviderRun(settings_for(sandbox, **settings), targets, rules, check_mode), goal, within
            )

    return asyncio.run(run())


def looks(sandbox: Sandbox) -> list[str]:
    return [entry["route"] for entry in sandbox.requests()]


def after_the_first_look(sandbox: Sandbox, do: Callable[[], object]) -> Callable[[], None]:
    def wait() -> None:
        until = time.monotonic() + 10
        while not looks(sandbox) and time.monotonic() < until:
            time.sleep(0.01)
        do()

    return wait


# When it ends


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        (Goal("online"), True),
        (Goal("offline"), False),
        (Goal("online", "0.34.12"), True),
        (Goal("online", "0.34.13"), False),
        (Goal("online", "0.34.12-rc.1"), True),
        (Goal("online", mode="standard"), True),
        (Goal("online", mode="default"), True),
        (Goal("online", mode="unrestricted"), False),
        (Goal("online", "0.34.12", "standard"), True),
        (Goal("online", "0.34.13", "standard"), False),
        (Goal("online", "0.34.12", "acceptEdits"), False),
        (Goal("offline", "0.34.12", "standard"), False),
    ],
)
def test_every_condition_must_hold(goal: Goal, met: bool) -> None:
    environment = environment_of(row(currentMode="standard", metadata={"lettaCodeVersion": "0.34.12"}))

    assert goal.is_met(environment) is met


@pytest.mark.parametrize("mode", ["unrestricted", "bypassPermissions", "fullAccess"])
def test_modes_are_compared_by_meaning(mode: str) -> None:
    environment = environment_of(row(currentMode=mode))

    assert [Goal("online", mode=wanted).is_met(environment) for wanted in ("bypassPermissions", "unrestricted")] == [
        True, True,
    ]  # fmt: skip
    assert not Goal("online", mode="default").is_met(environment)


@pytest.mark.parametrize("metadata", [{"lettaCodeVersion": "dev"}, {}, None])
def test_an_invalid_version_meets_no_goal(metadata: Any) -> None:
    environment = environment_of(row(metadata=metadata))

    assert not Goal("online", "0.0.1").is_met(environment)
    assert not Goal("online", mode="standard").is_met(environment)


def test_a_removed_environment_is_offline_and_nothing_else() -> None:
    assert Goal("offline").is_met(None)
    assert not any(goal.is_met(None) for goal in (Goal("online"), Goal("offline", "0.1.0"), Goal("offline", mode="a")))


def test_an_environment_that_meets_its_goal_is_looked_up_once(sandbox: Sandbox) -> None:
    environment = add_environment(sandbox, currentMode="default")
    lines: list[str] = []

    [wait] = wait_for_all(sandbox, [environment], Goal("online", "0.34.0", "standard"), lines=lines)

    assert (wait.status, wait.error, wait.reason) == ("ok", None, None)
    assert (wait.online, wait.version, wait.mode) == (True, "0.34.12", "default")
    assert wait.connection_id == environment.connection_id
    assert looks(sandbox) == ["retrieve"]
    assert lines == []


def test_it_ends_when_the_device_comes_online(sandbox: Sandbox) -> None:
    environment = add_environment(sandbox)
    sandbox.offline(environment.id)
    lines: list[str] = []

    [wait] = wait_for_all(
        sandbox,
        [environment],
        Goal("online"),
        meanwhile=after_the_first_look(sandbox, lambda: sandbox.online(environment.id)),
        lines=lines,
    )

    assert (wait.status, wait.online, wait.error, wait.reason) == ("ok", True, None, None)
    assert 0 < wait.elapsed < 5
    assert lines[0].startswith(f"waiting until online, 0 s: {environment.id} is offline (last seen at ")


def test_it_ends_when_the_device_is_on_the_version_and_in_the_mode(sandbox: Sandbox) -> None:
    environment = add_environment(sandbox, currentMode="plan", metadata={"lettaCodeVersion": "0.33.0"})
    changes = {"currentMode": "bypassPermissions", "metadata": {"lettaCodeVersion": "0.35.1"}}

    [wait] = wait_for_all(
        sandbox,
        [environment],
        Goal("online", "0.35.0", "unrestricted"),
        meanwhile=after_the_first_look(sandbox, lambda: sandbox.patch(environment.id, **changes)),
    )

    assert (wait.status, wait.version, wait.mode) == ("ok", "0.35.1", "bypassPermissions")


def test_it_ends_when_the_device_is_offline(sandbox: Sandbox) -> None:
    off, removed = add_environment(sandbox), add_environment(sandbox)

    def go() -> None:
        sandbox.offline(off.id)
        sandbox.remove(removed.id)

    waits = wait_for_all(sandbox, [off, removed], Goal("offline"), meanwhile=after_the_first_look(sandbox, go))

    assert [(wait.status, wait.online, wait.connection_id) for wait in waits] == [("ok", False, None)] * 2
    assert [wait.version for wait in waits] == ["0.34.12", "0.34.12"]


def test_after_the_timeout_it_fails_with_the_last_state(sandbox: Sandbox) -> None:
    environment = add_environment(sandbox, currentMode="plan", metadata={"lettaCodeVersion": "0.33.0"})
    sandbox.age(environment.id, 300)

    [wait] = wait_for_all(sandbox, [environment], Goal("online", "0.34.0", "standard"), 0.5)

    assert wait.status == "failed"
    assert wait.error is not None
    assert wait.error["code"] == "timeout"
    assert wait.error["message"].startswith("not online, at version 0.34.0 or newer, in mode standard after ")
    assert wait.error["message"].endswith(
        f" s: it is offline (last seen at {wait.last_seen_at}), version 0.33.0, mode plan"
    )
    assert (wait.online, wait.version, wait.mode) == (False, "0.33.0", "plan")
    # The last look happens when the time is over.
    assert set(looks(sandbox)) == {"retrieve"}
    assert wait.elapsed >= 0.5


def test_a_removed_environment_fails_with_its_last_state(sandbox: Sandbox) -> None:
    environment = add_environment(sandbox)
    sandbox.remove(environment.id)

    [wait] = wait_for_all(sandbox, [environment], Goal("online"), 0)

    assert wait.error == {"code": "timeout", "message": "not online after 0 s: it is no longer there"}


def test_with_a_timeout_of_zero_it_looks_once(sandbox: Sandbox) -> None:
    environment = add_environment(sandbox)

    [wait] = wait_for_all(sandbox, [environment], Goal("offline"), 0)

    assert (wait.status, looks(sandbox)) == ("failed", ["retrieve"])


# Steady


def test_the_goal_must_hold_for_the_steady_time(sandbox: Sandbox) -> None:
    environment = add_environment(sandbox)

    [wait] = wait_for_all(sandbox, [environment], Goal("online", steady_for=0.5))

    assert (wait.status, wait.reason, wait.error) == ("ok", None, None)
    assert 0.5 <= wait.steady <= wait.elapsed < 5


@pytest.mark.parametrize("event", ["rotate", "dies"])
def test_a_device_that_reconnects_or_dies_restarts_the_steady_time(sandbox: Sandbox, event: str) -> None:
    environment = add_environment(sandbox)

    def lose() -> None:
        time.sleep(0.7)
        if event == "rotate":
            sandbox.rotate(environment.id)
        else:
            sandbox.offline(environment.id)
            time.sleep(0.3)
            sandbox.online(environment.id)

    [wait] = wait_for_all(
        sandbox,
        [environment],
        Goal("online", steady_for=1.0),
        10,
        meanwhile=after_the_first_look(sandbox, lose),
    )

    assert wait.status == "ok"
    assert 1.0 <= wait.steady < wait.elapsed - 0.5


def test_a_device_that_comes_back_and_dies_is_not_steady(sandbox: Sandbox) -> None:
    stays, dies = add_environment(sandbox), add_environment(sandbox)

    def die() -> None:
        time.sleep(0.5)
        sandbox.offline(dies.id)

    steady, gone = wait_for_all(
        sandbox, [stays, dies], Goal("online", steady_for=1.0), 2, meanwhile=after_the_first_look(sandbox, die)
    )

    assert (steady.status, gone.status, gone.steady) == ("ok", "failed", 0.0)
    assert gone.error is not None
    assert gone.error["message"].startswith("not online, steady for 1 s after 2 s: it is offline (last seen at ")


def test_a_failed_look_up_does_not_end_the_steady_time(sandbox: Sandbox) -> None:
    environment = add_environment(sandbox)
    sandbox.add_fault("status", route="retrieve", status=503, nth=[2, 3])

    [wait] = wait_for_all(sandbox, [environment], Goal("online", steady_for=0.7), retries=0)

    assert wait.status == "ok"
    assert wait.elapsed - wait.steady < 0.2


def test_a_device_that_is_not_yet_steady_says_for_how_long_it_was(sandbox: Sandbox) -> None:
    environment = add_environment(sandbox)

    [wait] = wait_for_all(sandbox, [environment], Goal("online", steady_for=60), 0.5)

    assert wait.error is not None
    assert wait.error["message"].startswith("not online, steady for 60 s after ")
    assert "version 0.34.12, mode standard, steady for 0." in wait.error["message"]


def test_an_offline_device_can_be_steady(sandbox: Sandbox) -> None:
    environment = add_environment(sandbox)
    sandbox.remove(environment.id)

    [wait] = wait_for_all(sandbox, [environment], Goal("offline", steady_for=0.3))

    assert (wait.status, wait.steady >= 0.3) == ("ok", True)


# Look-ups that fail


def test_a_look_up_that_fails_briefly_is_repeated(sandbox: Sandbox) -> None:
    environment = add_environment(sandbox)
    sandbox.add_fault("status", route="retrieve", status=503, nth=[1, 2])

    [wait] = wait_for_all(sandbox, [environment], Goal("online"), retries=0)

    assert (wait.status, wait.error, wait.reason) == ("ok", None, None)
    assert looks(sandbox) == ["retrieve"] * 3


def test_a_look_up_that_can_never_succeed_fails_at_once(sandbox: Sandbox) -> None:
    one, two = add_environment(sandbox), add_environment(sandbox)
    sandbox.add_fault("status", route="retrieve", status=401, target=one.id)

    waits = wait_for_all(sandbox, [one, two], Goal("online"), 60, policy={"max_failures": 1})

    assert [wait.status for wait in waits] == ["failed", "ok"]
    assert waits[0].error is not None
    assert waits[0].error["code"] == "http_401"


def test_a_timeout_shows_the_last_error(sandbox: Sandbox) -> None:
    environment = add_environment(sandbox)
    sandbox.add_fault("status", route="retrieve", status=503)

    [wait] = wait_for_all(sandbox, [environment], Goal("online"), 0.3, retries=0)

    assert wait.error is not None
    assert wait.error["message"].startswith("not online after 0 s: it is not known: GET http://127.0.0.1:")
    assert "503" in wait.error["message"]


# Many


def test_a_target_does_not_wait_for_the_turn_of_another(sandbox: Sandbox) -> None:
    away = [add_environment(sandbox) for _number in range(3)]
    for environment in away:
        sandbox.offline(environment.id)
    here = add_environment(sandbox)

    waits = wait_for_all(sandbox, [*away, here], Goal("online"), 0.5, policy={"concurrency": 1})

    assert [wait.status for wait in waits] == ["failed", "failed", "failed", "ok"]


def test_a_late_device_counts_although_others_did_not_come(sandbox: Sandbox) -> None:
    away, late = add_environment(sandbox), add_environment(sandbox)
    for environment in (away, late):
        sandbox.offline(environment.id)

    waits = wait_for_all(
        sandbox,
        [away, late],
        Goal("online"),
        1.5,
        policy={"concurrency": 1},
        meanwhile=after_the_first_look(sandbox, lambda: sandbox.online(late.id)),
    )

    assert [wait.status for wait in waits] == ["failed", "ok"]


def test_a_target_abandoned_because_others_failed_is_no_timeout(sandbox: Sandbox) -> None:
    away, broken = add_environment(sandbox), add_environment(sandbox)
    sandbox.offline(away.id)
    sandbox.add_fault("html_200", route="retrieve", nth=2)

    given_up, failed = wait_for_all(sandbox, [away, broken], Goal("online"), 30, policy={"concurrency": 1})

    assert (given_up.error or {})["code"] == "given_up"
    assert "too many others failed" in (given_up.error or {})["message"]
    assert (failed.error or {})["code"] == "not_json"


@pytest.mark.parametrize("slow", [False, True])
def test_a_wait_that_a_signal_ends_says_so(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, slow: bool) -> None:
    monkeypatch.setattr(f"{FanOut.__module__}.GRACE", 0.1)
    away = add_environment(sandbox)
    sandbox.offline(away.id)
    if slow:
        sandbox.add_fault("slow", route="retrieve", seconds=60)
    stop = Stop()

    [wait] = wait_for_all(
        sandbox,
        [away],
        Goal("online"),
        30,
        policy={"stop": stop},
        meanwhile=after_the_first_look(sandbox, stop.cut),
    )

    assert (wait.status, (wait.error or {})["code"]) == ("failed", "given_up")
    message = (wait.error or {})["message"]
    assert message.startswith("not online, and given up after 0 s, since a signal came: it is ")
    assert ("it is not known yet" if slow else "it is offline (last seen at") in message


def test_many_targets_share_a_listing_for_each_round(sandbox: Sandbox) -> None:
    many = [add_environment(sandbox) for _number in range(12)]
    for environment in many:
        sandbox.offline(environment.id)
    gone, shadow = many[0], many[1]
    sandbox.remove(gone.id)
    lines: list[str] = []

    def come_online() -> None:
        for environment in many[1:]:
            sandbox.online(environment.id)
        sandbox.add_environment(deviceId=shadow.device_id)

    waits = wait_for_all(
        sandbox,
        many,
        Goal("online"),
        1.0,
        meanwhile=after_the_first_look(sandbox, come_online),
        lines=lines,
        policy={"concurrency": 12},
    )

    assert [wait.status for wait in waits] == ["failed"] + ["ok"] * 11
    # Only the environment that no listing has is looked up alone; a single environment needs no listing.
    assert looks(sandbox)[:3] == ["list", "retrieve", "list"]
    assert set(looks(sandbox)[3:]) == {"retrieve"}
    assert lines[0].startswith("waiting until online, 0 s: 0 of 12 are, 12 are waited for")


def test_rate_paces_the_look_ups(sandbox: Sandbox) -> None:
    environments = [add_environment(sandbox) for _number in range(3)]
    started = time.monotonic()

    wait_for_all(sandbox, environments, Goal("online"), policy={"rate": 10})

    assert time.monotonic() - started >= 0.2


def test_check_mode_looks_once_and_shows_the_goal(sandbox: Sandbox) -> None:
    here, away = add_environment(sandbox), add_environment(sandbox, currentMode="standard")
    sandbox.offline(away.id)

    ok, skipped = wait_for_all(sandbox, [here, away], Goal("online"), 60, check_mode=True)
    [unsteady] = wait_for_all(sandbox, [here], Goal("online", steady_for=30), 60, check_mode=True)

    assert (ok.status, ok.reason) == ("ok", None)
    assert (skipped.status, skipped.error) == ("skipped", None)
    assert skipped.reason is not None
    assert skipped.reason.startswith("would wait until online: it is offline (last seen at ")
    assert (unsteady.status, (unsteady.reason or "")[:46]) == (
        "skipped",
        "would wait until online, steady for 30 s: it i",
    )
    assert looks(sandbox) == ["retrieve"] * 3
