"""A shell on a real device: any bytes as input and output, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.fleetops.environments.plugins.module_utils.errors import ApiError, FleetError
from ansible_collections.fleetops.environments.plugins.module_utils.http.settings import HttpSettings
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.client import Client
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.terminal import (
    CommandResult,
    RefusedError,
    Terminal,
    open_terminal,
)
from tests.sandbox.process import Sandbox

from .conftest import Fleet
from .device import PATIENCE, Device, eventually

# The device is unchanged after each example.
REPEATED = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = st.binary(min_size=1, max_size=80).filter(
    lambda name: b"\0" not in name and b"/" not in name and name not in (b".", b"..")
)


@asynccontextmanager
async def _shell(fleet: Fleet, **options: Any) -> AsyncIterator[Terminal]:
    api = HttpSettings(base_url=fleet.sandbox.url, api_key=fleet.sandbox.api_key, **{"timeout": PATIENCE, **options})
    async with Client(api) as client:
        environment = await client.retrieve(fleet.alpha_row["deviceId"])
    terminal = await open_terminal(api, environment, any_mode=False, max_output=100)
    try:
        yield terminal
    finally:
        await terminal.close()


def _in_shell(fleet: Fleet, work: Callable[[Terminal], Awaitable[Any]], **options: Any) -> Any:
    async def run() -> Any:
        async with _shell(fleet, **options) as shell:
            return await work(shell)

    return asyncio.run(run())


def leftovers(device: Device) -> list[Path]:
    """Directories of our shells on a device, and processes with a terminal there."""
    home = f"HOME={device.home}".encode()
    found = list(device.home.glob("ansible-letta-*"))
    for process in Path("/proc").glob("[0-9]*"):
        # It may end in the meantime.
        with contextlib.suppress(OSError):
            terminal = (process / "stat").read_text().rpartition(")")[2].split()[4]
            if terminal != "0" and home in (process / "environ").read_bytes().split(b"\0"):
                found.append(process)
    return found


def wait_until_gone(device: Device) -> None:
    """Wait until none of our files and processes are left on a device."""
    eventually(lambda: not leftovers(device))


@REPEATED
@given(stdin=st.binary(max_size=2000), status=st.integers(0, 255))
def test_any_bytes_come_back_unchanged(fleet: Fleet, stdin: bytes, status: int) -> None:
    copies = f"tee /dev/stderr; exit {status}".encode()

    assert _in_shell(fleet, lambda shell: shell.run(copies, stdin)) == CommandResult(status, stdin, stdin)


@REPEATED
@given(name=NAMES, content=st.binary(max_size=2000), mode=st.sampled_from([0o600, 0o644, 0o755, 0o400]))
def test_a_file_of_any_name_is_copied_there_and_back(
    fleet: Fleet, tmp_path: Path, name: bytes, content: bytes, mode: int
) -> None:
    path = os.fsencode(tmp_path) + b"/" + name
    sink = io.BytesIO()

    async def there_and_back(shell: Terminal) -> int:
        await shell.put(io.BytesIO(content), path, mode)
        return await shell.fetch(path, sink, 100)

    assert _in_shell(fleet, there_and_back) == mode
    assert sink.getvalue() == content
    Path(os.fsdecode(path)).unlink()


def test_large_data_arrive_complete(fleet: Fleet, tmp_path: Path) -> None:
    content = os.urandom(50_000_000)
    sink, path = io.BytesIO(), os.fsencode(tmp_path / "large")
    command = b": " + b"x" * 100_000 + b"; sha256sum"

    async def work(shell: Terminal) -> tuple[CommandResult, CommandResult, CommandResult]:
        await shell.put(io.BytesIO(content), path, 0o640)
        await shell.fetch(path, sink, 100)
        printed = await shell.run(b"cat " + path)
        counted = await shell.run(command, content[:5_000_000])
        return printed, counted, await shell.run(b"cat")

    printed, counted, nothing = _in_shell(fleet, work)

    assert sink.getvalue() == content
    assert printed == CommandResult(0, content, b"")
    assert counted.stdout.split()[0].decode() == hashlib.sha256(content[:5_000_000]).hexdigest()
    assert nothing == CommandResult(0, b"", b"")


def test_a_command_runs_as_over_ssh(fleet: Fleet) -> None:
    async def work(shell: Terminal) -> dict[str, CommandResult]:
        commands = {
            "home": b"pwd",
            "environment": b"env",
            "terminal": b"cat </dev/tty",
            "killed": b"kill -9 $$",
            "interrupted": b"sh -c 'kill -INT $$'",
            "background": b"sleep 600 & echo $!",
            "shell": b"echo $0; alias; jobs",
            "nothing": b"",
        }
        return {name: await shell.run(command) for name, command in commands.items()}

    ends = _in_shell(fleet, work)

    assert ends["home"].stdout.decode().strip() == str(fleet.alpha.home)
    environment = ends["environment"].stdout.decode()
    # Ansible has no need for the device's own key, and a colour code in an answer would break it.
    assert "LETTA_API_KEY" not in environment
    assert "TERM=" not in environment
    assert f"LETTA_BASE_URL={fleet.sandbox.url}" in environment
    assert ends["terminal"].status != 0
    assert (ends["killed"], ends["interrupted"].status) == (CommandResult(137, b"", b""), 130)
    assert ends["nothing"] == CommandResult(0, b"", b"")
    # As under SSH, background processes outlive the connection.
    sleeper = int(ends["background"].stdout)
    wait_until_gone(fleet.alpha)
    os.kill(sleeper, 15)


def test_an_unreadable_or_unwritable_file_is_refused_with_the_reason_and_the_shell_continues(
    fleet: Fleet, tmp_path: Path
) -> None:
    async def refusal(begun: Awaitable[Any]) -> str:
        with pytest.raises(RefusedError) as refused:
            await begun
        return str(refused.value)

    async def work(shell: Terminal) -> list[str]:
        large, path = io.BytesIO(bytes(5_000_000)), os.fsencode(tmp_path)
        said = [
            await refusal(shell.fetch(path + b"/none", io.BytesIO(), 100)),
            await refusal(shell.fetch(path, io.BytesIO(), 100)),
            await refusal(shell.put(large, path, 0o600)),
            await refusal(shell.put(large, path + b"/none/file", 0o600)),
            await refusal(shell.put(large, b"/dev/full", 0o600)),
        ]
        assert (await shell.run(b"echo still here")).stdout == b"still here\n"
        return said

    assert [text.lower() for text in _in_shell(fleet, work)] == [
        "no such file",
        "it is a directory",
        "is a directory",
        "directory nonexistent",
        "write error",
    ]


def test_a_quiet_command_lasts_longer_than_the_timeout(fleet: Fleet) -> None:
    assert _in_shell(fleet, lambda shell: shell.run(b"sleep 15; echo done"), timeout=10).stdout == b"done\n"


def test_a_device_that_falls_silent_is_reported_and_its_command_ends(fleet: Fleet) -> None:
    fleet.sandbox.add_fault("relay_silent", target=fleet.alpha_row["id"], command=4)

    with pytest.raises(ApiError, match=r"nothing heard of the device for the timeout of 15 s$") as lost:
        _in_shell(fleet, lambda shell: shell.run(b"sleep 600"), timeout=15)

    assert lost.value.may_be_accepted
    wait_until_gone(fleet.alpha)


def test_a_shell_that_never_shows_its_prompt_is_ended(letta: None, lone_sandbox: Sandbox, tmp_path: Path) -> None:
    waiting = tmp_path / "waiting"
    waiting.write_text("#!/bin/sh\nexec sleep 600\n")
    waiting.chmod(0o755)
    with Device.start(lone_sandbox, "alpha", tmp_path / "alpha", SHELL=str(waiting)) as device:
        fleet = Fleet(lone_sandbox, device, device)
        lone_sandbox.patch(fleet.alpha_row["id"], currentMode="unrestricted")

        with pytest.raises(ApiError, match=r"no shell on the device within the timeout of 10 s$"):
            _in_shell(fleet, lambda shell: shell.run(b"true"), timeout=10, retries=0)

        wait_until_gone(device)


def test_a_device_in_another_mode_is_refused_even_if_only_the_device_knows_its_mode(fleet: Fleet) -> None:
    async def work(shell: Terminal) -> CommandResult:
        return await shell.run(b"true")

    row = fleet.alpha_row
    for mode in ("standard", "acceptEdits", "something new"):
        fleet.sandbox.patch(row["id"], currentMode=mode)
        with pytest.raises(FleetError, match=f"^the device is in mode {mode}, which a terminal would go round; "):
            _in_shell(fleet, work)
    assert fleet.sandbox.requests("relay") == []

    for known in ("bypassPermissions", "unrestricted", None):
        fleet.sandbox.patch(row["id"], currentMode=known)
        assert _in_shell(fleet, work) == CommandResult(0, b"", b"")
