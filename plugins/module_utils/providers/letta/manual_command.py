# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A device's report about updating itself: its manual command, and why it is not updatable.

Source: `getSelfUpdateStatus` of Letta Code, whose `manual_command` is a command line, or prose such as "Upgrade with
your installer: uv tool upgrade letta, ...".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...environment import is_updatable
from ...text import one_line
from ...versions import is_at_least, parse_version

SelfUpdateReport = Mapping[str, Any]

_INSTRUCTION = """\
Update Letta Code on the machine you run on. This installation reports the following way to update itself:

{manual_command}

Do exactly that and nothing else, then report the output and the version that is installed afterwards."""

# Whole command lines that only install a newer Letta Code from the installer's own registry.
_VERSION = r"([0-9][0-9A-Za-z.+-]*)"
_KNOWN_INSTALLERS = re.compile(
    rf"(?:npm (?:install|i) (?:-g|--global)|(?:pnpm|bun) add (?:-g|--global)|yarn global add)"
    rf" @letta-ai/letta-code(?:@(?:latest|{_VERSION}))?"
    r"|(?:npm update|pnpm update) (?:-g|--global) @letta-ai/letta-code"
    rf"|(?:python3? -m )?pip3? install (?:--upgrade|-U) letta(?:=={_VERSION})?"
    r"|pipx upgrade letta"
    r"|uv tool upgrade letta"
    r"|brew upgrade (?:letta|letta-code)",
    re.ASCII,
)


def find_manual_command(said: SelfUpdateReport | None) -> str | None:
    """The `manual_command` of a device's `self_update`; None if it reports none."""
    command = (said or {}).get("manual_command")
    return command.strip() or None if isinstance(command, str) else None


def find_problem(command: str, installed: str | None) -> str | None:
    """What is wrong with a manual command; None for one of a known installer, which no prose or shell syntax is.

    installed: the version that the device has. A command may name no older version, and none if it is unknown.
    """
    found = _KNOWN_INSTALLERS.fullmatch(command)
    if found is None:
        return "is no installer's command known here"
    named = next(filter(None, found.groups()), None)
    if named is None or (parse_version(installed) is not None and is_at_least(named, str(installed))):
        return None
    return f"names {named}, which is not known to be at least the version of the device ({installed or 'unknown'})"


def explain_refusal(said: SelfUpdateReport | None, installed: str | None, *, any_command: bool) -> str | None:
    """Why no agent is told to do what a device reports; None if it may be told.

    installed: the version that the device has. any_command: whether the command of an unknown installer will do.
    """
    command = find_manual_command(said)
    if command is None:
        return "reports no manual_command"
    problem = None if any_command else find_problem(command, installed)
    return problem and f"manual_command {problem} (see allow_any_manual_command): {one_line(command)}"


def write_instruction(command: str) -> str:
    """The text that tells an agent to update its machine with a manual command."""
    return _INSTRUCTION.format(manual_command=command)


def explain_not_updatable(said: SelfUpdateReport | None) -> str:
    """Why a device does not update itself or reports no command, in its own words if it gives a reason."""
    said = said or {}
    missing = "manual_command" if is_updatable(said) else "self_update support"
    reason = said.get("reason") or f"reports no {missing}"
    path = f"; installed in {said['install_path']}" if said.get("install_path") else ""
    return one_line(f"not updatable: {reason}{path}")
