"""The event source for Event-Driven Ansible against a real sandbox, alone and killed at every step."""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import shutil
import signal
import sqlite3
import subprocess
import sys
import types
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.errors import OptionError
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.changes import (
    ReportedState,
    ReportedStates,
)
from tests.sandbox.process import Sandbox

from .conftest import CHECKOUT

# As ansible-rulebook finds it: below a directory with the name ansible_collections.
SOURCE = (
    CHECKOUT
    / ".build/collections/ansible_collections/fleetops/environments/extensions/eda/plugins/event_source/letta.py"
)
Events = list[dict[str, Any]]


def arguments(sandbox: Sandbox, **others: Any) -> dict[str, Any]:
    return {"base_url": sandbox.url, "api_key": sandbox.api_key, "interval": 1, "jitter": 0, "retries": 0, **others}


async def listen(
    sandbox: Sandbox, test: Callable[[Callable[[int], Awaitable[Events]]], Awaitable[None]], **others: Any
) -> None:
    """Run the source for the duration of the test. The test gets a function that waits for a number of events."""
    queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=1)
    source = runpy.run_path(str(SOURCE))["main"](queue, arguments(sandbox, **others))

    async def next_events(number: int) -> Events:
        async with asyncio.timeout(60):
            return [(await queue.get())["letta"] for _number in range(number)]

    async with asyncio.TaskGroup() as group:
        listening = group.create_task(source)
        await wait_for_listings(sandbox, 1)
        await test(next_events)
        assert queue.empty()
        listening.cancel()


async def wait_for_listings(sandbox: Sandbox, more: int) -> None:
    """Wait for this number of further listings of the fleet."""
    wanted = len(sandbox.requests("list")) + more
    while len(sandbox.requests("list")) < wanted:  # noqa: ASYNC110 - the sandbox has no event for a request
        await asyncio.sleep(0.05)


def test_a_change_is_an_event_and_a_change_that_is_undone_is_no_event(sandbox: Sandbox) -> None:
    first, second, third = [entry for entry in sandbox.fleet() if entry["online"]][:3]
    metadata = {**second["row"]["metadata"], "lettaCodeVersion": "9.9.9"}

    async def test(next_events: Callable[[int], Awaitable[Events]]) -> None:
        await wait_for_listings(sandbox, 1)
        sandbox.offline(first["id"])
        [event] = await next_events(1)
        assert (event["type"], event["id"], event["status"]) == ("offline", first["id"], "offline")
        assert event["previous"]["status"] == "online"

        sandbox.online(first["id"])
        assert [(event["type"], event["id"]) for event in await next_events(1)] == [("online", first["id"])]

        sandbox.patch(second["id"], metadata=metadata, currentMode="plan")
        events = {event["type"]: event for event in await next_events(2)}
        assert events.keys() == {"version", "mode"}
        assert (events["version"]["version"], events["mode"]["mode"]) == ("9.9.9", "plan")

        # Between two listings.
        sandbox.offline(third["id"])
        sandbox.online(third["id"])
        new = sandbox.add_environment(connectionName="{{ lookup('pipe', 'id') }}")
        [event] = await next_events(1)
        assert (event["type"], event["id"], event["previous"]) == ("new_device", new["id"], None)
        assert event["connection_name"] == "___lookup__pipe____id_____"

        sandbox.remove(first["id"])
        assert [(event["type"], event["id"]) for event in await next_events(1)] == [("offline", first["id"])]

    asyncio.run(listen(sandbox, test))


def test_only_events_of_the_selected_types_are_reported(sandbox: Sandbox) -> None:
    first, second = [entry for entry in sandbox.fleet() if entry["online"]][:2]

    async def test(next_events: Callable[[int], Awaitable[Events]]) -> None:
        await wait_for_listings(sandbox, 1)
        sandbox.offline(first["id"])
        sandbox.patch(second["id"], currentMode="plan")
        assert [(event["type"], event["id"]) for event in await next_events(1)] == [("mode", second["id"])]

    asyncio.run(listen(sandbox, test, types=["mode"]))


@pytest.mark.parametrize("fault", ["status", "html_200", "drop_before", "truncated_json", "no_connections"])
def test_no_fault_ends_the_source_and_the_next_listing_reports_the_missed_events(sandbox: Sandbox, fault: str) -> None:
    first = next(entry for entry in sandbox.fleet() if entry["online"])

    async def test(next_events: Callable[[int], Awaitable[Events]]) -> None:
        await wait_for_listings(sandbox, 1)
        sandbox.add_fault(fault, route="list", **({"status": 503} if fault == "status" else {}))
        sandbox.offline(first["id"])
        await wait_for_listings(sandbox, 2)
        sandbox.clear_faults()
        assert [(event["type"], event["id"]) for event in await next_events(1)] == [("offline", first["id"])]

    asyncio.run(listen(sandbox, test))


def test_a_listing_with_more_dropped_rows_than_the_option_allows_has_no_events(sandbox: Sandbox) -> None:
    second = [entry for entry in sandbox.fleet() if entry["online"]][1]

    async def test(next_events: Callable[[int], Awaitable[Events]]) -> None:
        await wait_for_listings(sandbox, 1)
        sandbox.add_fault("invalid_rows", damage="no_id", rows=[0])
        sandbox.offline(second["id"])
        await wait_for_listings(sandbox, 2)
        sandbox.clear_faults()
        assert [(event["type"], event["id"]) for event in await next_events(1)] == [("offline", second["id"])]

    asyncio.run(listen(sandbox, test, max_dropped_rows=0))


def test_malformed_rows_are_logged_once_while_they_stay_so(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    entry = sandbox.fleet()[0]
    sandbox.patch(entry["id"], currentMode=17)

    async def test(next_events: Callable[[int], Awaitable[Events]]) -> None:
        await wait_for_listings(sandbox, 3)

    asyncio.run(listen(sandbox, test))
    lines = [record.getMessage() for record in caplog.records if "not as the API promises" in record.getMessage()]
    assert len(lines) == 1
    assert entry["id"] in lines[0]


def test_an_event_that_cannot_be_recorded_is_reported_once_and_recorded_later(sandbox: Sandbox, tmp_path: Path) -> None:
    first, second = [entry for entry in sandbox.fleet() if entry["online"]][:2]
    path = tmp_path / "state"

    async def test(next_events: Callable[[int], Awaitable[Events]]) -> None:
        await wait_for_listings(sandbox, 1)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            sandbox.offline(first["id"])
            assert [event["id"] for event in await next_events(1)] == [first["id"]]
            await wait_for_listings(sandbox, 2)
        sandbox.offline(second["id"])
        assert [event["id"] for event in await next_events(1)] == [second["id"]]
        await wait_for_listings(sandbox, 1)

    asyncio.run(listen(sandbox, test, state_file=str(path)))

    with ReportedStates(str(path), sandbox.url) as state:
        reported = state.reported()
    assert reported is not None
    assert (reported[first["id"]].status, reported[second["id"]].status) == ("offline", "offline")


def count_rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as file:
        return int(file.execute("SELECT count(*) FROM devices").fetchone()[0])


def test_devices_that_are_long_gone_are_forgotten(sandbox: Sandbox, tmp_path: Path) -> None:
    """Fleets of containers have a new device for each job, so the state would grow for ever."""
    state, queued = tmp_path / "state", tmp_path / "queued"
    fleet = len(sandbox.fleet())
    once(sandbox, state, queued, forget_after=0)

    gone: list[str] = []
    for number in range(8):
        born = [sandbox.add_environment(connectionName=f"job-{number}")["id"] for _number in range(5)]
        _status, events = once(sandbox, state, queued, forget_after=0)
        wanted = [("new_device", id_) for id_ in born] + [("offline", id_) for id_ in gone]
        assert sorted((event["type"], event["id"]) for event in events) == sorted(wanted)
        # Those of this listing, and those of the one before, which are missing for the first time.
        assert count_rows(state) == fleet + len(born) + len(gone)
        for id_ in born:
            sandbox.remove(id_)
        gone = born


def test_a_device_that_comes_back_in_time_is_online_and_later_it_is_new(sandbox: Sandbox, tmp_path: Path) -> None:
    state, queued = tmp_path / "state", tmp_path / "queued"
    row = sandbox.add_environment(connectionName="laptop")

    def come_back(forget_after: float) -> list[str]:
        sandbox.remove(row["id"])
        events = [once(sandbox, state, queued, forget_after=forget_after)[1] for _time in range(2)]
        assert [[event["type"] for event in some] for some in events] == [["offline"], []]
        sandbox.add_environment(**row)
        return [event["type"] for event in once(sandbox, state, queued, forget_after=forget_after)[1]]

    once(sandbox, state, queued)
    assert come_back(3600) == ["online"]
    assert come_back(0) == ["new_device"]


def test_a_listed_device_is_not_forgotten_however_long_it_is_offline(sandbox: Sandbox, tmp_path: Path) -> None:
    state, queued = tmp_path / "state", tmp_path / "queued"
    first = next(entry for entry in sandbox.fleet() if entry["online"])
    once(sandbox, state, queued)

    sandbox.offline(first["id"])
    seen = [once(sandbox, state, queued, forget_after=0)[1] for _time in range(3)]
    sandbox.online(first["id"])
    seen += [once(sandbox, state, queued, forget_after=0)[1]]

    assert [[event["type"] for event in events] for events in seen] == [["offline"], [], [], ["online"]]


def test_the_state_of_an_earlier_release_can_be_used(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.executescript(
            "CREATE TABLE fleets (base_url TEXT PRIMARY KEY);"
            "CREATE TABLE devices (base_url TEXT, id TEXT, status TEXT, version TEXT, mode TEXT, "
            "PRIMARY KEY (base_url, id));"
            "INSERT INTO fleets VALUES ('u'); INSERT INTO devices VALUES ('u', 'a', 'offline', NULL, 'plan')"
        )
    for _time in range(2):
        with ReportedStates(str(path), "u") as state:
            assert state.reported() == {"a": ReportedState("offline", None, "plan")}
    with ReportedStates(str(path), "u") as state:
        for seconds, known in ((0, ["a"]), (59, ["a"]), (60, [])):
            state.forget_missing({"a"}, datetime.fromtimestamp(seconds, UTC), 60)
            assert list(state.reported() or {}) == known


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("interval", "soon", "must be between 1 and 86400 seconds, got 'soon'"),
        ("max_dropped_rows", "some", "must be a count such as 5 or a percentage such as 10%, got 'some'"),
        ("forget_after", -1, "must be between 0 and 1000000000 seconds, got -1"),
        ("types", ["onlin"], "must be a list of new_device, online"),
        ("intervall", 60, "there is no such option; there are interval"),
        ("validate_certs", "maybe", "must be of the type bool"),
        ("state_file", "/dev/null/events", "name a file that can be written"),
    ],
)
def test_an_option_that_cannot_be_used_is_one_line(sandbox: Sandbox, option: str, value: Any, problem: str) -> None:
    main = runpy.run_path(str(SOURCE))["main"]

    with pytest.raises(OptionError, match=f"^{option}: [^\n]*{problem}"):
        asyncio.run(main(asyncio.Queue(), arguments(sandbox, **{option: value})))


def test_the_nearest_source_of_an_option_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = runpy.run_path(str(SOURCE))["_Options"]
    (tmp_path / "key").write_text("key-of-the-file\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LETTA_API_KEY", "key-of-the-environment")
    monkeypatch.setenv("LETTA_VALIDATE_CERTS", "off")
    monkeypatch.setenv("LETTA_TIMEOUT", " ")

    usual = options({"api_key_file": "", "base_url": None}).settings
    own = options({"api_key_file": "~/key", "validate_certs": True, "timeout": "7"}).settings
    by_variable = options({"api_key_file": "$HOME/key"}).settings

    assert (usual.api_key, usual.validate_certs, usual.timeout) == ("key-of-the-environment", False, 30)
    assert usual.base_url == "https://api.letta.com"
    assert (own.api_key, own.validate_certs, own.timeout) == ("key-of-the-file", True, 7)
    assert by_variable.api_key == "key-of-the-file"


def test_the_next_listing_comes_after_the_interval_and_part_of_the_jitter(sandbox: Sandbox) -> None:
    main = runpy.run_path(str(SOURCE))["main"]
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 5:
            raise asyncio.CancelledError

    # The functions of a module that runpy has run use this dictionary for their global names.
    main.__globals__["asyncio"] = types.SimpleNamespace(**{**vars(asyncio), "sleep": sleep})
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main(asyncio.Queue(), arguments(sandbox, interval=60, jitter=10)))

    assert all(60 <= seconds <= 70 for seconds in pauses)
    assert len(set(pauses)) == 5


def once(sandbox: Sandbox, state: Path, queued: Path, *, dies_at: int = 0, **options: Any) -> tuple[int, Events]:
    """Report one listing in its own process; return its exit status and the events that it queued."""
    queued.unlink(missing_ok=True)
    given = json.dumps(arguments(sandbox, state_file=str(state), **options))
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.event_source_process", str(SOURCE), given, str(queued), str(dies_at)],
        cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": str(CHECKOUT / ".build/collections")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    lines = queued.read_text().splitlines() if queued.exists() else []
    return done.returncode, [json.loads(line)["letta"] for line in lines]


def test_a_kill_at_any_step_loses_no_event_and_may_repeat_those_of_one_device(sandbox: Sandbox, tmp_path: Path) -> None:
    first, second = [entry for entry in sandbox.fleet() if entry["online"]][:2]
    begun, queued = tmp_path / "begun", tmp_path / "queued"
    assert once(sandbox, begun, queued) == (0, [])
    sandbox.offline(first["id"])
    sandbox.patch(second["id"], currentMode="plan", metadata={**second["row"]["metadata"], "lettaCodeVersion": "9.9.9"})
    wanted = {("offline", first["id"]), ("mode", second["id"]), ("version", second["id"])}

    ended, step = -signal.SIGKILL, 0
    while ended:
        step += 1
        state = shutil.copy(begun, tmp_path / f"state-{step}")
        ended, before = once(sandbox, state, queued, dies_at=step)
        _ended, after = once(sandbox, state, queued)
        seen = Counter((event["type"], event["id"]) for event in before + after)
        assert seen.keys() == wanted, step
        assert len({id_ for (_type, id_), count in seen.items() if count > 1}) <= 1, step
    # Two steps for each event, and two for each device.
    assert step == 2 * 3 + 2 * 2 + 1
