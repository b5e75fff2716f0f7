# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shell on a Letta device, for the connection plugin: calls that block, over a relay that is asynchronous."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleFileNotFound
from ansible.module_utils.common.text.converters import to_bytes, to_text

from ..module_utils import _deps
from ..module_utils.environment import CONTRACT, EnvironmentReference
from ..module_utils.errors import ApiError, FleetError
from ..module_utils.providers.base import connection_settings
from ..module_utils.providers.letta.provider import PROVIDER
from ..module_utils.providers.letta.terminal import CommandResult, RefusedError, Terminal, open_terminal
from .actions.signals import watch_parent

Value = TypeVar("Value")


class Device:
    """A device and the shell on it.

    contract: the host variable `fleetops_environment`. variables: the host's, among them those of the options.
    any_mode: whether the shell also starts in a mode in which the agent may do less than a terminal can.
    max_output: megabytes that a command may print on each of its outputs. max_file: those of a file that is fetched.
    While the shell is open, the end of Ansible ends it and this process.
    Every call raises AnsibleConnectionFailure where the device cannot be reached, so that the host is unreachable,
    and AnsibleError for everything else.
    """

    def __init__(
        self, contract: Any, variables: Mapping[str, Any], *, any_mode: bool, max_output: int, max_file: int
    ) -> None:
        self._contract, self._variables, self._any_mode = contract, variables, any_mode
        self._max_output, self._max_file = max_output, max_file
        self._shell: tuple[LoopThread, Terminal] | None = None
        self._closed = threading.Event()
        self._lost = False

    def open(self) -> tuple[LoopThread, Terminal]:
        """Connect and start the shell. Returns the shell with the event loop that it runs in."""
        background = LoopThread()
        try:
            _deps.require_packages()
            environment = self._environment()
            variables = PROVIDER.options_in_variables(self._variables)
            settings = connection_settings(PROVIDER, variables, {"base_url": environment.base_url})
            if self._lost:
                # Ansible goes on to clean up, which must not wait once more for a device that has gone.
                settings = replace(settings, retries=0)
            opening = open_terminal(settings, environment, any_mode=self._any_mode, max_output=self._max_output)
            terminal = background.run(opening)
        except ApiError as error:
            raise AnsibleConnectionFailure(str(error)) from None
        except FleetError as error:
            raise AnsibleError(str(error)) from None
        else:
            self._shell = background, terminal
            self._closed = watch_parent(self._end_process)
            return self._shell
        finally:
            if self._shell is None:
                background.close()

    def close(self) -> None:
        """End the shell, and what runs in it."""
        if self._shell is not None:
            background, terminal = self._shell
            self._shell = None
            self._closed.set()
            background.run(terminal.close())
            background.close()

    def _end_process(self) -> None:
        """End the shell and this worker, whose Ansible was killed. The worker would wait for the end of its command."""
        try:
            if self._shell is not None:
                background, terminal = self._shell
                background.run(terminal.close())
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    def run(self, command: bytes, stdin: bytes, become: Any) -> CommandResult:
        """Run a command. become: the become plugin whose prompt is answered, or None."""
        prompts = Prompts(become) if become else None
        result = self._do(lambda terminal: terminal.run(command, stdin, prompts))
        if prompts is not None:
            # A command that ended at once may have said that the password is wrong.
            prompts(result.stdout + result.stderr)
            result = result._replace(stderr=prompts.remove_from(result.stderr))
        return result

    def put(self, source: bytes, path: bytes) -> None:
        """Copy a file to the device. A new file there gets the mode of the source, without the bits of the umask."""
        try:
            with Path(os.fsdecode(source)).open("rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                self._do(lambda terminal: terminal.put(file, path, mode))
        except FileNotFoundError:
            raise AnsibleFileNotFound(f"there is no file {to_text(source)}") from None
        except OSError as error:
            raise AnsibleError(f"cannot read {to_text(source)}: {error.strerror}") from None

    def fetch(self, path: bytes, target: bytes) -> None:
        """Copy a file from the device. A new file here gets the mode of the source, without the bits of the umask."""
        new = not os.path.lexists(target)
        try:
            with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                mode = self._do(lambda terminal: terminal.fetch(path, file, self._max_file))
                if new:
                    umask = os.umask(0o077)
                    os.umask(umask)
                    os.fchmod(file.fileno(), mode & ~umask)
        except OSError as error:
            raise AnsibleError(f"cannot write {to_text(target)}: {error.strerror}") from None

    def _do(self, operation: Callable[[Terminal], Coroutine[Any, Any, Value]]) -> Value:
        """Do an operation once. A connection that ended before the operation began is opened again, once."""
        may_open_again = True
        while True:
            background, terminal = self._shell or self.open()
            try:
                return background.run(operation(terminal))
            except RefusedError as error:
                raise AnsibleError(str(error)) from None
            except ApiError as error:
                self._lost = error.code != "too_long"
                self.close()
                if not self._lost:
                    raise AnsibleError(str(error)) from None
                if error.may_be_accepted or not may_open_again:
                    doubt = "; what was begun may have been done" if error.may_be_accepted else ""
                    raise AnsibleConnectionFailure(f"{error}{doubt}") from None
            except BaseException:
                # A time-out of the task and a wrong password also end what runs on the device.
                self._lost = False
                self.close()
                raise
            may_open_again = False

    def _environment(self) -> EnvironmentReference:
        """The device, as the inventory says. Raises FleetError."""
        if self._contract is None:
            raise FleetError(
                f"the host has no variable {CONTRACT}, which the inventory fleetops.environments.letta sets"
            )
        environment = EnvironmentReference.from_contract(self._contract)
        if environment.provider != PROVIDER.name:
            raise FleetError(f"the host is an environment of {environment.provider}, and only Letta's have terminals")
        return environment


class Prompts:
    """Answers the password prompt of a command. become: the become plugin that wrapped the command."""

    def __init__(self, become: Any) -> None:
        self._become = become
        self._answered_up_to: int | None = None

    def __call__(self, said: bytes) -> bytes | None:
        """The answer to the output so far, as `Prompter` defines it. Raises AnsibleError for a wrong password."""
        become = self._become
        if become.check_success(said):
            return b""
        since = said[self._answered_up_to or 0 :]
        prompted = become.check_password_prompt(since)
        if become.check_incorrect_password(since) or (prompted and self._answered_up_to is not None):
            raise AnsibleError(f"Incorrect {become.name} password, see become_pass")
        if become.check_missing_password(since):
            raise AnsibleError(f"Missing {become.name} password, see become_pass")
        if not prompted:
            return None
        self._answered_up_to = len(said)
        return f"{become.get_option('become_pass')}\n".encode()

    def remove_from(self, stderr: bytes) -> bytes:
        """Standard error without the prompt that was answered."""
        return stderr if self._answered_up_to is None else stderr.replace(to_bytes(self._become.prompt), b"", 1)


class LoopThread:
    """An event loop in a daemon thread, which does not keep the process from ending."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Value]) -> Value:
        """Wait for a coroutine's result. Raises what it raises. An interruption of the wait cancels the coroutine."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Stop the loop. No coroutine may be running."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
