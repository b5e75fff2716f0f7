"""Our shell under each program that is /bin/sh on some system, in a terminal of this machine instead of a device."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.errors import ApiError
from ansible_collections.fleetops.environments.plugins.module_utils.http.settings import HttpSettings
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.relay import Relay
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.terminal import (
    CommandResult,
    RefusedError,
    Terminal,
)

PATIENCE = 60.0
# The programs behind /bin/sh on Debian, on Fedora and macOS, and on Alpine.
SHELLS = ["dash", "bash", "busybox"]
LARGE = bytes(range(256)) * 20_000
# Megabytes that a command may print on each of its outputs.
MOST = 5


class LocalRelay(Relay):
    """A relay to a terminal of this machine, whose user's shell is `sh`; our own shell then also runs in `sh`."""

    def __init__(self, sh: Path, directory: Path) -> None:
        super().__init__(HttpSettings(base_url="http://localhost", api_key="key", timeout=PATIENCE), "connection")
        self._sh, self._directory = str(sh), directory
        self._frames: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def open(self, greet: Callable[[], Awaitable[object]]) -> None:
        await greet()

    async def send(self, frame: Any) -> None:
        if frame["type"] == "terminal_spawn":
            self._id = frame["terminal_id"]
            environment = {"PATH": os.environ["PATH"], "HOME": str(self._directory), "TMPDIR": str(self._directory)}
            child, self._master = pty.fork()
            if child == 0:
                os.execve(self._sh, ["sh"], environment)
            self._child = child
            asyncio.get_running_loop().add_reader(self._master, self._readable)
        elif frame["type"] == "terminal_input":
            await asyncio.to_thread(self._write, frame["data"].replace("/bin/sh", self._sh).encode())

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._master, data) :]

    def _readable(self) -> None:
        try:
            data = os.read(self._master, 65536)
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._master)
        kind = "terminal_output" if data else "terminal_exited"
        self._frames.put_nowait({"type": kind, "terminal_id": self._id, "data": data.decode()})

    async def receive(self, name: str) -> dict[str, Any]:
        return await self._frames.get()

    async def ended(self) -> None:
        """Wait until the shell has ended."""
        await asyncio.to_thread(os.waitpid, self._child, 0)
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)


@pytest.fixture(params=SHELLS)
def sh(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The program under the name that makes it act as that shell."""
    program = shutil.which(request.param)
    if program is None:
        pytest.skip(f"needs {request.param}")
    path = tmp_path / "sh"
    path.symlink_to(program)
    return path


def in_shell(sh: Path, directory: Path, work: Callable[[Terminal], Awaitable[Any]]) -> Any:
    """The result of work in our shell; asserts that nothing is left in the directory."""
    directory.mkdir()

    async def run() -> Any:
        relay = LocalRelay(sh, directory)
        terminal = Terminal(relay, PATIENCE, MOST)
        async with asyncio.timeout(PATIENCE):
            await terminal.open()
            try:
                done = await work(terminal)
            finally:
                await terminal.close()
            await relay.ended()
        return done

    done = asyncio.run(run())
    assert list(directory.glob("ansible-letta-*")) == []
    return done


def test_commands_get_their_input_and_give_their_output(sh: Path, tmp_path: Path) -> None:
    async def work(shell: Terminal) -> list[CommandResult]:
        return [
            await shell.run(b"cat; echo err >&2; exit 3", b"\0in\n"),
            await shell.run(b"wc -c", LARGE),
            await shell.run(b": " + b"x" * 100_000 + b"; kill -9 $$"),
            await shell.run(
                b"echo one; (echo two; echo three) >/dev/stdout; echo four; echo five >/dev/stderr; echo 6 >&2"
            ),
            await shell.run(b"sleep 30 & echo begun"),
        ]

    assert in_shell(sh, tmp_path / "there", work) == [
        CommandResult(3, b"\0in\n", b"err\n"),
        CommandResult(0, f"{len(LARGE)}\n".encode(), b""),
        CommandResult(137, b"", b""),
        CommandResult(0, b"one\ntwo\nthree\nfour\n", b"five\n6\n"),
        CommandResult(0, b"begun\n", b""),
    ]


def test_a_command_that_prints_too_much_is_ended_and_the_shell_continues(sh: Path, tmp_path: Path) -> None:
    all_of_it = MOST * 1024**2

    async def work(shell: Terminal) -> list[int]:
        for command in (b"cat /dev/zero", b"cat /dev/zero >&2", b"head -c %d /dev/zero" % (all_of_it + 1)):
            with pytest.raises(ApiError, match=f"printed more than {MOST} MB and was ended") as raised:
                await shell.run(command)
            assert (raised.value.code, raised.value.may_be_accepted) == ("too_long", True)
        longest = await shell.run(b"head -c %d /dev/zero; head -c %d /dev/zero >&2" % (all_of_it, all_of_it))
        return [len(longest.stdout), len(longest.stderr), (await shell.run(b"exit 3")).status]

    assert in_shell(sh, tmp_path / "there", work) == [all_of_it, all_of_it, 3]


@pytest.mark.parametrize("signals", [b"PIPE", b"PIPE TERM"])
def test_a_command_that_takes_no_notice_of_a_closed_output_is_ended(sh: Path, tmp_path: Path, signals: bytes) -> None:
    async def work(shell: Terminal) -> CommandResult:
        with pytest.raises(ApiError, match=f"printed more than {MOST} MB and was ended"):
            await shell.run(b"trap '' %s; while :; do head -c 1000000 /dev/zero; done" % signals)
        return await shell.run(b"echo still here")

    assert in_shell(sh, tmp_path / "there", work) == CommandResult(0, b"still here\n", b"")


def test_files_go_there_and_back(sh: Path, tmp_path: Path) -> None:
    paths = [b"-begins like an option", os.fsencode(tmp_path) + b"/ends with a newline\n"]

    async def work(shell: Terminal) -> list[tuple[int, bytes]]:
        found = []
        for path in paths:
            sink = io.BytesIO()
            await shell.put(io.BytesIO(LARGE), path, 0o640)
            found.append((await shell.fetch(path, sink, MOST), sink.getvalue()))
        return found

    assert in_shell(sh, tmp_path / "there", work) == [(0o640, LARGE)] * 2


def test_no_more_of_a_file_is_fetched_than_it_may_have(sh: Path, tmp_path: Path) -> None:
    file, sink = tmp_path / "file", io.BytesIO()
    file.write_bytes(LARGE)

    async def work(shell: Terminal) -> None:
        with pytest.raises(
            ApiError, match=r"the file is longer than 4 MB; raise max_file \(variable letta_max_file\)$"
        ):
            await shell.fetch(os.fsencode(file), sink, 4)

    in_shell(sh, tmp_path / "there", work)

    assert len(sink.getvalue()) <= 4 * 1024**2
    assert LARGE.startswith(sink.getvalue())


def test_a_pipe_without_another_end_is_refused_and_the_shell_continues(sh: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    async def work(shell: Terminal) -> CommandResult:
        with pytest.raises(RefusedError, match=r"^it is not a regular file$"):
            await shell.fetch(os.fsencode(pipe), io.BytesIO(), MOST)
        with pytest.raises(RefusedError, match=r"^it is a pipe$"):
            await shell.put(io.BytesIO(b"content"), os.fsencode(pipe), 0o600)
        return await shell.run(b"echo still here")

    assert in_shell(sh, tmp_path / "there", work) == CommandResult(0, b"still here\n", b"")


def test_a_command_that_prompts_is_answered_and_a_command_that_ends_at_once_is_harmless(
    sh: Path, tmp_path: Path
) -> None:
    def answers(said: bytes) -> bytes | None:
        if b"go\n" in said:
            return b""
        return b"open sesame\n" if said.endswith(b"password: ") else None

    async def work(shell: Terminal) -> list[CommandResult]:
        asks = b"printf 'password: ' >&2; read -r password; echo go; echo $password; cat"
        return [
            await shell.run(asks, b"in", answers),
            *[await shell.run(b"exit 7", b"", answers) for _attempt in range(5)],
            await shell.run(b"cat", b"in"),
        ]

    assert in_shell(sh, tmp_path / "there", work) == [
        CommandResult(0, b"go\nopen sesame\nin", b"password: "),
        *[CommandResult(7, b"", b"")] * 5,
        CommandResult(0, b"in", b""),
    ]


def test_a_command_is_ended_when_the_client_says_goodbye(sh: Path, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    os.mkfifo(begun)

    async def work(shell: Terminal) -> int:
        running = asyncio.create_task(shell.run(f"echo $$ >'{begun}'; exec sleep 600".encode()))
        process = int(await asyncio.to_thread(begun.read_text))
        running.cancel()
        return process

    process = in_shell(sh, tmp_path / "there", work)

    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
