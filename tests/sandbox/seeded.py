"""The fleet of a size and a seed: the same two numbers give the same environments again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from .fleet import Environment, Fleet, Row, Source, milliseconds, random_uuid

DAY = 24 * 3600.0

COMMANDS = [
    "browser_device_mcp_oauth",
    "clear",
    "clear-messages",
    "doctor",
    "dream",
    "reflect",
    "reflection",
    "init",
    "compact",
    "reload",
    "context-limit",
    "channels",
    "upgrade-letta-code",
    "toolset",
    "secret",
    "monitor_stop",
]

SELF_UPDATE: dict[str, dict[str, Any]] = {
    "npm": {
        "supported": True,
        "writable": True,
        "install_path": "/usr/local/lib/node_modules/@letta-ai/letta-code",
        "manual_command": "npm install -g @letta-ai/letta-code@latest",
    },
    "pip": {
        "supported": False,
        "writable": False,
        "reason": "This Letta Code runtime is managed by a Python package installer.",
        # Prose instead of a command, as real devices report it.
        "manual_command": "Upgrade with your installer: uv tool upgrade letta, pipx upgrade letta, "
        "or python -m pip install --upgrade letta",
    },
}

MACHINES: dict[str, dict[str, Any]] = {
    "linux": {"architecture": "x64", "osName": "Debian GNU/Linux", "osVersion": "12", "model": "Container"},
    "darwin": {"architecture": "arm64", "osName": "macOS", "osVersion": "15.5", "model": "MacBookPro18,3"},
    "win32": {"architecture": "x64", "osName": "Windows 11 Pro", "osVersion": "10.0.26100", "model": "Virtual Machine"},
}
HOMES = {"linux": "/home/dev/", "darwin": "/Users/dev/", "win32": "C:\\Users\\dev\\"}
NAMES = [
    "alder",
    "aspen",
    "beech",
    "birch",
    "cedar",
    "elm",
    "fir",
    "hazel",
    "juniper",
    "larch",
    "linden",
    "maple",
    "oak",
    "pine",
    "rowan",
    "spruce",
]
PROJECTS = ["billing", "catalog", "checkout", "docs", "gateway", "ledger", "search", "storefront"]
BRANCHES = ["main", "develop", "feature/audit-log", "fix/retry-after", "release/2.4"]


@dataclass(frozen=True)
class Profile:
    """The properties of one device of the fleet."""

    mode: str | None
    os: str
    version: str | None
    install: Literal["npm", "pip", "old"] = "npm"
    """old: a device from before self_update, which sends version, os and Node version and nothing else."""
    state: Literal["online", "offline", "stale"] = "online"
    """stale: the row still has a connection id, but the last heartbeat is too old."""
    rows: int = 1
    metadata: bool = True
    source: Source = "local"


PROFILES = (
    Profile("standard", "linux", "0.33.9"),
    Profile("standard", "linux", "0.34.12", "pip"),
    Profile("standard", "linux", "0.33.9", source="remote"),
    Profile("default", "darwin", "0.34.2"),
    Profile("acceptEdits", "linux", "0.34.12", "pip"),
    Profile("standard", "linux", "0.33.4"),
    Profile("bypassPermissions", "win32", "0.34.2"),
    Profile("unrestricted", "linux", "0.34.12", "pip", source="remote"),
    Profile(None, "linux", "0.25.3", "old"),
    Profile("standard", "linux", "0.33.9", state="offline"),
    Profile("plan", "linux", "0.25.10", "old"),
    Profile("acceptEdits", "darwin", "0.33.9", rows=2),
    Profile("standard", "win32", "0.35.0-rc.1"),
    Profile("default", "linux", "0.33.9", "pip", state="offline"),
    Profile("unrestricted", "darwin", "0.35.0-rc.1"),
    Profile(None, "linux", None),
    Profile("standard", "linux", "0.33.9", "pip"),
    Profile(None, "linux", None, metadata=False),
    Profile("bypassPermissions", "linux", "0.34.12", state="stale", source="remote"),
    Profile("standard", "darwin", "0.34.2", "pip", state="offline"),
)
"""Every twenty devices have each of these once, so that even a small fleet includes every case."""


def seeded_fleet(devices: int, seed: int) -> Fleet:
    """Return a fleet of this many devices; a smaller fleet with the same seed is its beginning."""
    now = time.time()
    organization = f"org-{random_uuid(Random(f'{seed} organization'))}"
    return Fleet(environment for index in range(devices) for environment in _device(index, seed, organization, now))


def new_environment(seed: int, number: int) -> Environment:
    """Return an online environment that is in no seeded fleet: a test adds it and then overrides fields."""
    organization = f"org-{random_uuid(Random(f'{seed} organization'))}"
    random = Random(f"{seed} added {number}")
    profile = Profile("standard", "linux", "0.34.12")
    environment = _environment(
        profile, f"added-{number:04d}", random_uuid(random), organization, random=random, now=time.time()
    )
    # Not a container, which a rollout treats with care.
    environment.row["metadata"]["machine"]["model"] = "Virtual Machine"
    return environment


def _device(index: int, seed: int, organization: str, now: float) -> list[Environment]:
    """Return the rows of one device, one for each ``letta server`` that runs on it under its own name."""
    random = Random(f"{seed} device {index}")
    profile = PROFILES[index % len(PROFILES)]
    name = f"{random.choice(NAMES)}-{index:04d}"
    device_id = random_uuid(random)
    names = [name, *(f"{name}-review-{number}" for number in range(2, profile.rows + 1))]
    return [_environment(profile, each, device_id, organization, random=random, now=now) for each in names]


def _environment(
    profile: Profile, name: str, device_id: str, organization: str, *, random: Random, now: float
) -> Environment:
    first_seen = milliseconds(now - random.uniform(1, 200) * DAY)
    row: Row = {
        "id": f"environment-{random_uuid(random)}",
        "deviceId": device_id,
        "listenerInstanceId": f"server-{random.getrandbits(64):016x}",
        "connectionName": name,
        "connectionId": None,
        "organizationId": organization,
        "podId": f"pod-{random.getrandbits(32):08x}",
        "connectedAt": None,
        "firstSeenAt": first_seen,
        "lastHeartbeat": None,
        "lastSeenAt": first_seen,
    }
    if random.random() < 0.5:
        row["userId"] = f"user-{random_uuid(random)}"
        row["apiKeyOwner"] = random.choice(["ada@example.com", "grace@example.com", "katherine@example.com"])
    if profile.mode is not None:
        row["currentMode"] = profile.mode
    if profile.metadata:
        row["metadata"] = _metadata(profile, random)
    environment = Environment(row, profile.source)
    if profile.state == "offline":
        row["podId"] = None
        environment.stop_heartbeat(now - random.uniform(0.2, 30) * DAY)
        return environment
    environment.connect(now - random.uniform(600, 20_000))
    environment.heartbeat_delay = random.uniform(0.5, 9.5)
    if profile.state == "stale":
        environment.stop_heartbeat(now - random.uniform(180, 540))
    return environment


def _metadata(profile: Profile, random: Random) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "lettaCodeVersion": profile.version,
        "os": profile.os,
        "nodeVersion": random.choice(["v20.19.4", "v22.19.0", "v24.8.0"]),
    }
    if profile.version is None:
        del metadata["lettaCodeVersion"]
    if profile.install == "old":
        return metadata
    metadata |= {
        "machine": {**MACHINES[profile.os], "memoryBytes": random.choice([8, 16, 32]) * 2**30},
        "environmentMessageProtocol": "v2-input",
        "supportsPairedListenerGenerations": True,
        "supported_commands": list(COMMANDS),
        "self_update": dict(SELF_UPDATE[profile.install]),
    }
    if random.random() < 0.6:
        metadata["workingDirectory"] = HOMES[profile.os] + random.choice(PROJECTS)
        metadata["gitBranch"] = random.choice(BRANCHES)
    return metadata
