"""Slash commands of simulated devices: the output of each, and the effect of an update."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from semantic_version import Version

from .fleet import Environment
from .seeded import COMMANDS

UPGRADE = "upgrade-letta-code"
ANSWERS_SINCE = Version("0.30.0")
"""Older devices show the end of a command in the agent's output only."""

NO_COMMANDS = ("browser_device_mcp_oauth", "toolset", "secret", "monitor_stop")
"""What devices list among their commands, and do not run as such. Seen on letta 0.34.12."""
OUTPUTS = {"reload": "Reloaded settings, local mods, and agent secrets"}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Command(_Body):
    """The body of ``POST /_sandbox/environments/{id}/commands``: the effect of a command on one device."""

    command_id: str
    output: str = ""
    success: bool = True
    seconds: float = Field(default=0.0, strict=False, ge=0)
    """Seconds that the command takes."""


class Upgrade(_Body):
    """The body of ``POST /_sandbox/upgrade``: the effect of an update on every device that can update itself."""

    version: str = "0.35.0"
    """The newest version."""
    lingers: float = Field(default=0.05, strict=False, ge=0)
    """Seconds that a device stays after its answer. Real devices: one."""
    seconds: float = Field(default=0.2, strict=False, ge=0)
    """Seconds that the device is then away."""
    comes_back: bool = True
    comes_back_at: str | None = None
    """The version that the device then has, if it is not the newest."""
    stays: float | None = Field(default=None, strict=False, ge=0)
    """Seconds after which the device then dies, if it does."""


def metadata_of(environment: Environment) -> dict[str, Any]:
    metadata = environment.row.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def answers_commands(environment: Environment) -> bool:
    """Whether a device sends execute_command_response; a device without a version counts as new."""
    version = _version(metadata_of(environment).get("lettaCodeVersion"))
    return version is None or version >= ANSWERS_SINCE


def default_command(environment: Environment, command_id: str) -> Command:
    """Return the default effect of a command."""
    listed = metadata_of(environment).get("supported_commands", COMMANDS)
    if command_id not in listed or command_id in NO_COMMANDS:
        return Command(command_id=command_id, output=f"Unknown command: {command_id}", success=False)
    return Command(command_id=command_id, output=OUTPUTS.get(command_id, "Done."))


def upgrade_result(environment: Environment, upgrade: Upgrade) -> tuple[Command, bool]:
    """Return the output of an update, and whether the device then restarts."""
    metadata = metadata_of(environment)
    update = metadata.get("self_update") or {}
    has, newest = _version(metadata.get("lettaCodeVersion")), _version(upgrade.version)
    if not update.get("supported"):
        output = f"Failed: {update.get('manual_command', 'Manual updates are disabled in development mode')}"
    elif has is not None and newest is not None and has >= newest:
        return Command(command_id=UPGRADE, output=f"Already on latest version ({has})"), False
    elif not update.get("writable"):
        output = f"Failed: Update failed: EACCES\n\nTo update manually: {update.get('manual_command')}"
    else:
        output = f"Updated to {upgrade.version}. Restart Letta Code to use the new version."
        return Command(command_id=UPGRADE, output=f"{output}\nRestarting remote listener..."), True
    return Command(command_id=UPGRADE, output=output, success=False), False


def _version(text: Any) -> Version | None:
    try:
        return Version(text)
    except (TypeError, ValueError):
        return None
