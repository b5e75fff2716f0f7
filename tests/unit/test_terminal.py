"""The parts of a terminal's output; the shell on the device has tests on real devices."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Coroutine
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.loader import become_loader, shell_loader
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleetops.environments.plugins.module_utils.errors import ApiError
from ansible_collections.fleetops.environments.plugins.module_utils.http.settings import HttpSettings
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta import terminal
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.relay import Relay
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.terminal_output import (
    Marks,
    Part,
    Result,
)
from ansible_collections.fleetops.environments.plugins.plugin_utils.connection import Device, Prompts

MARK = "0123456789abcdef0123456789abcdef"
# Output that a user's shell may print first, and output of other programs at any time.
NOISE = st.text(alphabet="ab<> \r\n\x1b[0;31m" + MARK[:4], max_size=40)


def pieces(text: str, cuts: list[int]) -> list[str]:
    """A text cut at these positions."""
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[start:end] for start, end in pairwise(places)]


@given(before=NOISE, stdout=st.binary(max_size=300), cuts=st.lists(st.integers(0, 2000), max_size=8))
def test_an_answer_is_the_same_however_it_is_cut(before: str, stdout: bytes, cuts: list[int]) -> None:
    encoded = terminal._encode(stdout)
    shown = f"{before}<{MARK} out ->{encoded}<{MARK} err><{MARK} end 0>"

    marks, out, err = Marks(MARK), bytearray(), bytearray()
    answer = Result(out.extend, err.extend)
    for piece in pieces(shown, cuts):
        for part in marks.split(piece):
            answer.take(part)

    assert (bytes(out), bytes(err), answer.status, answer.note) == (stdout, b"", "0", "-")


@pytest.mark.parametrize("piece", [1, 7, 1000, 70_000])
def test_a_mark_has_a_limit_and_each_piece_of_it_is_read_once(piece: int) -> None:
    marks, read = Marks(MARK), 0

    class Counting:
        """The expression of the marks, with the number of characters that it reads."""

        def split(self, text: str) -> list[str]:
            nonlocal read
            read += len(text)
            return words.split(text)

    words, marks._words = marks._words, Counting()  # type: ignore[assignment]
    longest = "x" * 60_000
    parts = [part for start in range(3) for part in send_in_pieces(marks, f"a<{MARK} {longest}>{start}", piece)]
    assert "".join(part for part in parts if isinstance(part, str)) == "a0a1a2"
    assert [part for part in parts if isinstance(part, list)] == [[longest]] * 3
    assert read < 4 * 3 * 60_000
    with pytest.raises(ValueError, match="a mark has no end"):
        send_in_pieces(marks, f"<{MARK} " + "x" * 70_000, piece)


def send_in_pieces(marks: Marks, text: str, length: int) -> list[Part]:
    """The parts of a text that comes in pieces of this length."""
    return [part for start in range(0, len(text), length) for part in marks.split(text[start : start + length])]


class ScriptedRelay(Relay):
    """A relay to a terminal that prints once our shell is typed: what a function of the mark returns."""

    def __init__(self, shown: Callable[[str], list[str]]) -> None:
        super().__init__(HttpSettings(base_url="http://localhost", api_key="key"), "connection")
        self._shown = shown
        self._frames: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def open(self, greet: Callable[[], Awaitable[object]]) -> None:
        await greet()

    async def send(self, frame: Any) -> None:
        for mark in re.findall("n=([0-9a-f]+);", frame.get("data", "")):
            for data in self._shown(mark):
                self._frames.put_nowait({"type": "terminal_output", "terminal_id": frame["terminal_id"], "data": data})

    async def receive(self, name: str) -> dict[str, Any]:
        frame = await self._frames.get()
        self._frames.task_done()
        return frame


def test_a_terminal_whose_mark_never_ends_is_an_error() -> None:
    shell = terminal.Terminal(ScriptedRelay(lambda mark: [f"<{mark} ", "x" * 70_000]), 30, max_output=1)

    with pytest.raises(ApiError) as raised:
        asyncio.run(shell.open())

    error = raised.value
    assert error.code == "garbled"
    url = "http://localhost/v1/environments/connection/status/ws"
    assert str(error) == f"{url}: the terminal's answer cannot be read: a mark has no end"


def test_a_worker_whose_shell_cannot_be_closed_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def run(self, work: Coroutine[Any, Any, None]) -> None:
            work.close()
            raise RuntimeError("no event loop")

    ended: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *call: ended.append(call))
    device = Device({}, {}, any_mode=False, max_output=1, max_file=1)
    device._shell = Broken(), shell_at("http://localhost", timeout=30)  # type: ignore[assignment]

    with pytest.raises(RuntimeError):
        device._end_process()
    assert ended == [(os.getpid(), signal.SIGTERM)]


@pytest.mark.parametrize("encoded", ["aGk", "a\x1b[0m", "aGk=aGk=", "äöü="])
def test_invalid_base64_is_an_error_and_never_output(encoded: str) -> None:
    parts = Marks(MARK).split(f"<{MARK} out ->{encoded}<{MARK} err>")
    answer = Result(bytearray().extend, bytearray().extend)

    def taken() -> None:
        for part in parts:
            answer.take(part)

    with pytest.raises(ValueError, match=r"."):
        taken()


def shell_at(base_url: str, timeout: float) -> terminal.Terminal:
    """A terminal that is not open yet."""
    settings = HttpSettings(base_url=base_url, api_key="key", timeout=timeout)
    return terminal.Terminal(Relay(settings, "connection"), timeout, max_output=1)


def ended_by(*parts: Part) -> ApiError:
    """The error of a command to which a device answers with these parts."""

    async def run() -> None:
        shell = shell_at("http://localhost", timeout=30)
        shell._type = lambda _text: asyncio.sleep(0)  # type: ignore[method-assign]
        for part in parts:
            shell._parts.put_nowait(part)
        await shell.run(b"true", b"")

    with pytest.raises(ApiError) as ended:
        asyncio.run(run())
    return ended.value


@pytest.mark.parametrize("reason", ["bm8gcm9vbQ==", "no&room"])
def test_a_shell_that_could_not_start_has_no_effect(reason: str) -> None:
    error = ended_by(["refused", reason])

    assert re.fullmatch(r"http://\S+/ws: the shell on the device cannot begin: (no room|no&room)", str(error)), error
    assert not error.may_be_accepted


@pytest.mark.parametrize("parts", [(["out", "-"],), (["out", "-"], "", ["err"])])
def test_a_command_that_prints_too_much_is_an_error_that_names_the_option(parts: tuple[Part, ...]) -> None:
    error = ended_by(*parts, *[terminal._encode(bytes(300_000))] * 4)

    assert error.code == "too_long"
    assert error.may_be_accepted
    assert str(error) == (
        "http://localhost/v1/environments/connection/status/ws: the command printed more than 1 MB and was ended; "
        "raise max_output (variable letta_max_output), or have the command write into a file"
    )


@pytest.mark.parametrize("status", ["-1", "9" * 5000, "lost", "٣"])
def test_an_invalid_status_is_an_error_and_never_a_result(status: str) -> None:
    error = ended_by(["out", "-"], ["err"], ["end", status])

    assert error.code == "garbled"
    assert error.may_be_accepted


def test_a_network_that_accepts_no_more_data_is_reported_within_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stalled(request: web.Request) -> web.WebSocketResponse:
        """Starts a shell, and then reads nothing."""
        relay = web.WebSocketResponse()
        await relay.prepare(request)
        spawned = json.loads(await relay.receive_str())
        [mark] = re.findall("n=([0-9a-f]+);", json.loads(await relay.receive_str())["data"])
        shown = {"type": "terminal_output", "terminal_id": spawned["terminal_id"], "data": f"<{mark} ready>"}
        await relay.send_json(shown)
        await over.wait()
        return relay

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", stalled)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await web.SockSite(runner, listening).start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            shell = shell_at(address, timeout=1)
            await shell.open()
            try:
                await shell.put(io.BytesIO(bytes(20_000_000)), b"/there", 0o600)
            finally:
                await shell.close()
        finally:
            over.set()
            await runner.cleanup()

    over = asyncio.Event()
    # More data than the buffers of this machine hold.
    monkeypatch.setattr(terminal, "_PIECE", 16 * 1024 * 1024)
    with pytest.raises(ApiError, match=r"nothing could be sent for the timeout of 1 s$") as lost:
        asyncio.run(asyncio.wait_for(run(), 60))
    assert not lost.value.may_be_accepted


def test_noise_between_two_commands_is_not_kept() -> None:
    async def run() -> terminal.CommandResult:
        noise = ["noise\n"] * 1000
        relay = ScriptedRelay(lambda mark: [f"<{mark} ready>", *noise, *[f"<{mark} .>"] * 1000, "end of noise"])
        shell = terminal.Terminal(relay, 30, max_output=1)
        await shell.open()
        try:
            await relay._frames.join()
            assert shell._parts.empty()
            running = asyncio.create_task(shell.run(b"true"))
            await asyncio.sleep(0)
            for data in [f"<{shell._marks.mark} out ->aGk=<{shell._marks.mark} err><{shell._marks.mark} end 0>", ""]:
                frame = {"type": "terminal_output", "terminal_id": shell._id, "data": data}
                relay._frames.put_nowait(frame)
            return await running
        finally:
            await shell.close()

    assert asyncio.run(asyncio.wait_for(run(), 30)) == terminal.CommandResult(0, b"hi", b"")


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_the_shell_on_the_device_is_one_line_that_shells_understand(shell: str) -> None:
    script = terminal._read_script()

    assert "\n" not in script
    subprocess.run([shell, "-n", "-c", script], check=True)


@pytest.mark.parametrize(
    ("permissions", "mode"),
    [("-rw-r--r--", 0o644), ("-rwsr-x--t", 0o751), ("-rw-------+", 0o600), ("lrwxrwxrwx", 0o777), ("", 0)],
)
def test_permissions_are_parsed_from_the_output_of_ls(permissions: str, mode: int) -> None:
    assert terminal._read_mode(permissions) == mode


@pytest.fixture
def sudo() -> Any:
    """Ansible's own become plugin, with a password."""
    plugin = become_loader.get("sudo")
    plugin.set_options(direct={"become_pass": "open sesame"})
    plugin.build_become_command("id", shell_loader.get("sh"))
    return plugin


def test_the_password_is_sent_to_the_prompt_once(sudo: Any) -> None:
    prompts, prompt = Prompts(sudo), sudo.prompt.encode()

    assert prompts(b"") is None
    assert prompts(prompt) == b"open sesame\n"
    assert prompts(prompt) is None
    assert prompts(prompt + sudo.success.encode() + b"\n") == b""
    assert prompts.remove_from(prompt + b"err\n") == b"err\n"


def test_no_password_is_sent_without_a_prompt(sudo: Any) -> None:
    prompts = Prompts(sudo)

    assert prompts(sudo.success.encode() + b"\n") == b""
    assert prompts.remove_from(b"err\n") == b"err\n"


@pytest.mark.parametrize("after", [b"Sorry, try again.\n", b"\nNochmal:\nPROMPT"])
def test_a_second_prompt_means_that_the_password_is_wrong(sudo: Any, after: bytes) -> None:
    prompts, prompt = Prompts(sudo), sudo.prompt.encode()
    prompts(prompt)

    with pytest.raises(AnsibleError, match=r"^Incorrect sudo password, see become_pass$"):
        prompts(prompt + after.replace(b"PROMPT", prompt))


@pytest.mark.parametrize(("unclear", "opened"), [([True], 1), ([False, True], 2)])
def test_an_operation_that_may_have_been_done_is_not_repeated_and_said_to_be_unclear(
    monkeypatch: pytest.MonkeyPatch, unclear: list[bool], opened: int
) -> None:
    errors = [ApiError("the connection was cut", code="dropped", may_be_accepted=may_be) for may_be in unclear]

    class Lost:
        """A shell, and the loop that it runs in; every operation fails."""

        def run(self, *_operation: Any) -> Any:
            raise errors.pop(0)

    shells: list[Lost] = []

    def open_again(_device: Device) -> tuple[Lost, Lost]:
        shells.append(Lost())
        return shells[-1], shells[-1]

    monkeypatch.setattr(Device, "open", open_again)
    device = Device({}, {}, any_mode=True, max_output=1, max_file=1)

    with pytest.raises(AnsibleConnectionFailure, match=r"^the connection was cut; what was begun may have been done$"):
        device._do(lambda _terminal: Lost())  # type: ignore[arg-type,return-value]
    assert len(shells) == opened
