# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands and files over a terminal of a device, byte for byte.

Source of the rules: Letta Code (0.34) starts the user's own shell in a terminal and forwards its output as UTF-8 text,
a frame every 16 ms. It does not end a terminal when the client disconnects, and never in the first two seconds. So the
shell is replaced by ours (terminal.sh). Ours speaks base64 between marks, and ends by itself when the client is silent.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import io
import re
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

from ...environment import EnvironmentReference
from ...errors import ApiError, FleetError
from ...http.settings import HttpSettings
from ...text import one_line
from ..base import find_online
from .client import Client
from .models import get_effective_mode
from .relay import Relay, describe_refusal
from .terminal_output import Marks, Output, Part, Result, Sink, make_refusal

# Wider than any prompt, and with too few rows for zsh to ask a new user for its configuration.
_SIZE = {"cols": 500, "rows": 10}
# Typed into the user's shell, whichever that is. The space keeps the line out of the history of some shells, the
# variable out of that of others. Our shell ignores a second copy.
_LOADER = (
    " HISTFILE= exec /bin/sh -c '"
    "n={mark}; stty raw -echo min 0 time 255; "
    'printf "<%s ready %s>" $n ${{BASH_VERSION:+ahead}}; '
    'while read -r s; do case $s in H*) ;; *) eval "$s"; esac; done'
    "'\n"
)
# Seconds after which the line is typed again: a program that the shell runs at its start may have read it.
_TYPED_AGAIN_AFTER = 1.0
# Seconds between two signs of life; the shell on the device gives up after 25.5.
_SIGN_OF_LIFE = 5.0
# Seconds to say goodbye in. A network that takes no more data would block for ever.
_FAREWELL_WITHIN = 2.0
# Most characters in a frame.
_FRAME = 64 * 1024
# Most bytes of a command that goes in one line, which a shell reads byte by byte.
_LINE = 4 * 1024
# Most bytes of a file that are sent before the device confirms them.
_PIECE = 1024 * 1024
# Most parts of the output that wait to be read. Then the network waits.
_PARTS = 16

# Called with the whole output of a command so far; returns the line to type, empty to go on, None to wait for more.
Prompter: TypeAlias = Callable[[bytes], "bytes | None"]


class CommandResult(NamedTuple):
    """A command that has ended. status: its exit status, or 128 plus the number of the signal that ended it."""

    status: int
    stdout: bytes
    stderr: bytes


async def open_terminal(
    settings: HttpSettings, listed: EnvironmentReference, *, any_mode: bool, max_output: int
) -> Terminal:
    """Open a terminal of an environment over its present connection.

    any_mode: whether a terminal may be opened where the agent itself may not do all that a terminal can.
    max_output: megabytes that a command may print on each of its outputs.
    Raises ApiError for a device that cannot be reached, with the code `offline` where it is away. Raises FleetError for
    a device on which no terminal may be opened.
    """
    async with Client(settings) as client:
        environment = await find_online(client, listed)
    if str(environment.fields["os"]).startswith("win"):
        raise FleetError(f"the device runs {environment.fields['os']}, and only POSIX systems can be worked with")
    if not any_mode and environment.fields["mode"] is not None:
        _require_unrestricted(environment.fields["mode"])
    terminal = Terminal(Relay(settings, environment.connection_id), settings.timeout, max_output)
    await terminal.open(ask_mode=not any_mode and environment.fields["mode"] is None)
    return terminal


class Terminal:
    """A shell on a device, over a relay of its own. Every call raises ApiError.

    However it ends, the shell and its files are gone within 26 s, and at once where the device hears of the end.

    timeout: seconds for the shell to start, for each sign of life of it, and for the network to take what is sent.
    max_output: megabytes that a command may print on each of its outputs.
    """

    def __init__(self, relay: Relay, timeout: float, max_output: int) -> None:
        self._relay, self._url = relay, relay.url
        self._id = ""
        self._timeout, self._max_output = timeout, max_output
        self._tasks: list[asyncio.Task[None]] = []
        self._parts: asyncio.Queue[Part | ApiError] = asyncio.Queue(_PARTS)
        self._lost: ApiError | None = None
        # Whether an operation goes on, and whether the shell reads all that is sent as a part of it.
        self._works = self._busy = False
        self._reads_ahead = False
        self._heard = time.monotonic()

    async def open(self, *, ask_mode: bool = False) -> None:
        """Start the shell. This is retried, since nothing has run yet; commands are not.

        ask_mode: ask the device for its mode first, and raise FleetError unless it is unrestricted.
        """
        await self._relay.open(lambda: self._start_shell(ask_mode=ask_mode))
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._show_life())]

    async def close(self) -> None:
        """End the shell, and what runs in it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(ApiError, TimeoutError):
            async with asyncio.timeout(_FAREWELL_WITHIN):
                await self._type("bye\n")
        await self._relay.close()

    async def run(self, command: bytes, stdin: bytes = b"", answers: Prompter | None = None) -> CommandResult:
        """Run a command with /bin/sh, in a session of its own, and wait for its end.

        answers: gives the lines that are typed before standard input. It is called after each output until it says to
        go on, which must be within the timeout.
        """
        line, encoded = "", ""
        if len(command) <= _LINE:
            line = _encode(command or b":")
        else:
            await self._put(io.BytesIO(command), ".command", "-")
        if len(stdin) <= _PIECE:
            encoded = _encode(stdin)
        else:
            await self._put(io.BytesIO(stdin), ".in", "-")
        how, most = "ask" if answers else "all", self._max_output * 1024**2
        stdout = Output(self._url, self._max_output)
        operation = f"run {how} {len(encoded)} {len(stdin)} {most} {line}"
        status, stderr, _note = await self._do(operation, encoded, stdout.extend, answers)
        return CommandResult(status, bytes(stdout.data), stderr)

    async def put(self, source: BinaryIO, path: bytes, mode: int) -> None:
        """Write a file. mode: of a new file, less the umask. Raises RefusedError if the file cannot be written."""
        await self._put(source, _encode(path), f"{mode:o}")

    async def fetch(self, path: bytes, sink: BinaryIO, most: int) -> int:
        """Read a file of at most `most` megabytes into an empty `sink`; returns its permissions.

        Raises RefusedError if it cannot be read.
        """

        def write(data: bytes) -> None:
            if sink.tell() + len(data) > most * 1024**2:
                problem = f"the file is longer than {most} MB; raise max_file (variable letta_max_file)"
                raise ApiError(f"{self._url}: {problem}", code="too_long")
            sink.write(data)

        return _read_mode(await self._do_or_raise(f"get {_encode(path)}", "", write))

    async def _put(self, source: BinaryIO, path: str, mode: str) -> None:
        source.seek(0)
        how, size, piece = "new", 0, source.read(_PIECE)
        while how == "new" or piece:
            following = source.read(_PIECE)
            size += len(piece)
            encoded, final_mode = _encode(piece), "-" if following else mode
            operation = f"put {how} {len(encoded)} {size} {final_mode} {path}"
            await self._do_or_raise(operation, encoded, Output(self._url, self._max_output).extend)
            how, piece = "more", following

    async def _start_shell(self, *, ask_mode: bool) -> None:
        """Have the device start a terminal, and replace the user's shell in it by ours."""
        if ask_mode:
            await self._relay.sync()
            _require_unrestricted(self._relay.device_status.get("current_permission_mode"))
        if self._id:
            await self._abandon()
        self._id = str(uuid.uuid4())
        self._marks = Marks(uuid.uuid4().hex)
        await self._relay.send({"type": "terminal_spawn", "terminal_id": self._id, **_SIZE, "cwd": "/"})
        try:
            async with asyncio.timeout(self._timeout):
                while not await self._type_loader():
                    pass
        except (TimeoutError, asyncio.CancelledError) as error:
            await self._abandon()
            message = f"{self._url}: no shell on the device within the timeout of {self._timeout:g} s"
            late = ApiError(message, code="timeout", transient=True)
            raise (late if isinstance(error, TimeoutError) else error) from None
        await self._type(_read_script() + "\n")

    async def _abandon(self) -> None:
        """End a terminal in which our shell may not have begun. The user's shell would wait there for ever."""
        with contextlib.suppress(ApiError, TimeoutError):
            async with asyncio.timeout(_FAREWELL_WITHIN):
                # A device does not kill a terminal in its first two seconds.
                await self._type(" exit\n")
                await self._relay.send({"type": "terminal_kill", "terminal_id": self._id})

    async def _type_loader(self) -> bool:
        """Type the line that starts our shell into the user's; whether ours has begun."""
        await self._type(_LOADER.format(mark=self._marks.mark))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TYPED_AGAIN_AFTER):
                while not (ready := [part for part in await self._read_parts() if part[:1] == ["ready"]]):
                    pass
                self._reads_ahead = "ahead" in ready[0]
                return True
        return False

    async def _type(self, text: str) -> None:
        for start in range(0, len(text), _FRAME):
            frame = {"type": "terminal_input", "terminal_id": self._id, "data": text[start : start + _FRAME]}
            try:
                async with asyncio.timeout(self._timeout):
                    await self._relay.send(frame)
            except TimeoutError:
                message = f"{self._url}: nothing could be sent for the timeout of {self._timeout:g} s"
                raise ApiError(message, code="timeout", transient=True) from None
            self._heard = time.monotonic()

    async def _read_parts(self) -> list[Part]:
        while True:
            frame = await self._relay.receive("the terminal")
            if frame.get("terminal_id") != self._id:
                continue
            self._heard = time.monotonic()
            if frame.get("type") == "terminal_output":
                try:
                    return self._marks.split(str(frame.get("data")))
                except ValueError as error:
                    raise self._explain(error) from None
            if frame.get("type") == "terminal_exited":
                raise self._relay.make_drop_error("the terminal", f"it has ended ({describe_refusal(frame)})")

    async def _listen(self) -> None:
        try:
            while True:
                for part in await self._read_parts():
                    # Between two operations other programs may print, and nothing reads it.
                    if self._works or part[:1] == ["refused"]:
                        await self._parts.put(part)
        except ApiError as error:
            self._lose(error)

    async def _show_life(self) -> None:
        """Tell the shell that the connection is alive, and find out whether the shell is."""
        try:
            while time.monotonic() - self._heard <= self._timeout:
                await asyncio.sleep(min(_SIGN_OF_LIFE, self._timeout / 3))
                # During an operation the shell would read this as a part of the operation.
                if not self._busy:
                    heard = self._heard
                    await self._type(".\n")
                    self._heard = heard
        except ApiError as error:
            self._lose(error)
        else:
            message = f"{self._url}: nothing heard of the device for the timeout of {self._timeout:g} s"
            self._lose(ApiError(message, code="timeout", transient=True))

    def _lose(self, error: ApiError) -> None:
        if self._lost is None:
            self._lost = error
            with contextlib.suppress(asyncio.QueueFull):
                self._parts.put_nowait(error)

    async def _do_or_raise(self, operation: str, payload: str, stdout: Sink) -> str:
        """Do an operation that has a note alone. Raises RefusedError if the device cannot do it."""
        status, stderr, note = await self._do(operation, payload, stdout)
        if status != 0:
            # The shell's message begins with its name and the line.
            why = one_line(stderr.decode(errors="replace")).rpartition(": ")[2]
            raise RefusedError(why or f"exit status {status}", code="refused")
        return note

    async def _do(
        self, operation: str, payload: str, stdout: Sink, answers: Prompter | None = None
    ) -> tuple[int, bytes, str]:
        """Do an operation; returns its exit status, standard error, and its note on standard output."""
        if self._lost is not None:
            raise self._lost
        self._works = self._busy = True
        stderr = Output(self._url, self._max_output)
        result = Result(stdout, stderr.extend)
        has_begun = False
        try:
            await self._begin(operation, payload)
            has_begun = True
            await self._finish(result, answers)
        except (ApiError, TimeoutError, ValueError, IndexError) as error:
            found = self._explain(error)
            # The shell does not begin an operation that did not arrive completely, and does nothing if it refuses.
            lost = found.but(may_be_accepted=has_begun and found.code != "refused")
            self._lose(lost)
            raise lost from None
        self._works = self._busy = False
        status = str(result.status)
        if status == "much":
            raise stderr.make_error()
        if not re.fullmatch("[0-9]{1,3}", status):
            why = one_line(stderr.data.decode(errors="replace")) or "its output could not be read"
            raise ApiError(f"{self._url}: the command's result is lost: {why}", code="garbled", may_be_accepted=True)
        return int(status), bytes(stderr.data), result.note

    async def _begin(self, operation: str, payload: str) -> None:
        await self._type(f"{operation}\n")
        if payload and self._reads_ahead:
            while await self._next_part() != ["more"]:
                pass
        await self._type(payload)

    async def _finish(self, result: Result, answers: Prompter | None) -> None:
        async with asyncio.timeout(self._timeout if answers else None) as to_answer:
            while result.status is None:
                part = await self._next_part()
                if part == ["running"]:
                    self._busy = False
                elif part[:1] == ["said"] and answers is not None:
                    line = answers(base64.b64decode(part[1]))
                    if line == b"":
                        to_answer.reschedule(None)
                    if line is not None:
                        await self._type(f"pass {_encode(line)}\n" if line else "go\n")
                else:
                    result.take(part)

    async def _next_part(self) -> Part:
        if self._lost is not None and self._parts.empty():
            raise self._lost
        part = await self._parts.get()
        if isinstance(part, ApiError):
            raise part
        if isinstance(part, list) and part[:1] == ["refused"]:
            raise make_refusal(self._url, part)
        return part

    def _explain(self, error: Exception) -> ApiError:
        if isinstance(error, ApiError):
            return error
        if isinstance(error, TimeoutError):
            message = f"{self._url}: the command asked nothing known within the timeout of {self._timeout:g} s"
            return ApiError(message, code="timeout")
        return ApiError(f"{self._url}: the terminal's answer cannot be read: {one_line(error)}", code="garbled")


class RefusedError(ApiError):
    """The device refused an operation; the text is its reason."""


@functools.cache
def _read_script() -> str:
    lines = Path(__file__).with_suffix(".sh").read_text(encoding="ascii").splitlines()
    return " ".join(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _read_mode(permissions: str) -> int:
    """The mode as a number, from the form `-rw-r--r--` of `ls -l`."""
    letters = permissions[1:10].ljust(9, "-")
    return sum(1 << (8 - place) for place, letter in enumerate(letters) if letter in "rwxst")


def _require_unrestricted(mode: Any) -> None:
    # Here the agent itself may do everything that a terminal can.
    if get_effective_mode(mode) != "unrestricted":
        raise FleetError(
            f"the device is in mode {one_line(mode or 'unknown', 60)}, which a terminal would go round; commands run "
            f"in unrestricted and its older words only, unless letta_allow_outside_permission_mode is true"
        )
