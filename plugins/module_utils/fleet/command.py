# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands of a device, run over the relay, at most once each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from ..errors import ApiError
from ..providers.base import find_online
from ..providers.letta.client import Client
from ..providers.letta.relay import Relay
from ..text import one_line
from ..versions import is_at_least, show_version
from .fan_out import ProviderRun, Target
from .jobs import ConversationOutcome, on_each

# What devices list among their commands, and do not run as such; and the way out. Seen on 0.34.
_NO_COMMANDS = dict.fromkeys(("browser_device_mcp_oauth", "secret", "toolset"), "use Letta Code itself")
_NO_COMMANDS["monitor_stop"] = "use Letta Code itself, or the playbook fleetops.environments.stop"
# Devices from this version on answer a command. Older ones may run it, and report that to the conversation only.
_ANSWERS_SINCE = "0.30.0"


@dataclass(frozen=True, slots=True)
class Command:
    """What to run. within: seconds to wait for the answer. args: everything after the command's name."""

    name: str
    within: float
    args: str | None = None


@dataclass(slots=True, kw_only=True)
class CommandOutcome(ConversationOutcome):
    """What happened to the command on one device.

    status: `changed` when it ran with success. output: the device's answer, also of a command that failed.
    """

    command: str
    output: str | None = None
    version: str | None = None


async def run_command(run: ProviderRun, command: Command) -> list[CommandOutcome]:
    """Run a command on every target; one outcome each, in the same order. Nothing is run in check mode."""

    async def work(client: Client, target: Target, outcome: CommandOutcome) -> None:
        environment = await find_online(client, target.environment)
        outcome.version, outcome.connection_id = environment.fields["version"], environment.connection_id
        listed = [one for one in environment.fields["supported_commands"] or [] if one not in _NO_COMMANDS]
        if command.name not in listed:
            shown = one_line(", ".join(listed), 200) or "nothing"
            problem = f"the device does not support {command.name!r}; its supported_commands are {shown}"
            if command.name in _NO_COMMANDS:
                problem = f"{command.name!r} does not run as a command; {_NO_COMMANDS[command.name]}"
            raise ApiError(f"command: {problem}", code="unsupported")
        if not run.check_mode:
            relay = Relay(client.settings, outcome.connection_id, target.agent_id, target.conversation_id)
            outcome.output, success = await execute_command(relay, command, outcome.version)
            if not success:
                said = one_line(outcome.output) or "without a word"
                raise ApiError(f"the command failed: {said}", code="command_failed")
        outcome.status = "changed"

    begin = partial(CommandOutcome.of, command=command.name)
    return await on_each(run, begin, work)


async def execute_command(relay: Relay, command: Command, version: str | None) -> tuple[str, bool]:
    """Run a command over a relay that is not open yet; returns the device's answer, and whether it reports success.

    version: that of the device, for the error when no answer comes. Raises ApiError.
    """
    frame = {"type": "execute_command", "command_id": command.name}
    if command.args is not None:
        frame["args"] = command.args
    async with relay:
        try:
            answer = await relay.request(frame, "execute_command_response", command.within)
        except ApiError as error:
            if error.code != "timeout" or is_at_least(version, _ANSWERS_SINCE):
                raise
            age = f"the device runs {show_version(version)}"
            more = f"{age}, and those before {_ANSWERS_SINCE} may run a command without answering"
            raise error.but(f"{error}; {more}") from None
    return str(answer.get("output") or ""), answer.get("success") is True
