"""The Qoder environments of a size and a seed: the same two numbers give the same rows again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from .fleet import Row
from .qoder_fleet import CloudEnvironment, Marker
from .seeded import NAMES, PROJECTS

FIRST = datetime(2026, 1, 5, 8, tzinfo=UTC)
"""When the first environment was created; the others follow, about an hour apart."""

LIMITED: Row = {"type": "limited", "allowed_hosts": [], "allow_package_managers": True, "allow_mcp_servers": False}
OPEN: Row = {"type": "unrestricted"}
PACKAGES = {
    "apt": ["curl", "git", "jq"],
    "pip": ["ansible-core==2.19.3", "httpx"],
    "npm": ["typescript", "@types/node"],
    "cargo": ["ripgrep"],
    "gem": ["rake"],
    "go": ["golang.org/x/tools/cmd/stringer@latest"],
}
HOSTS = ["pypi.org", "*.example.com", "registry.npmjs.org"]


@dataclass(frozen=True)
class Profile:
    """The properties of one environment of the fleet."""

    type: str | None = "cloud"
    """None: the config has no type."""
    networking: Row | None = None
    packages: int = 0
    """The number of kinds of packages."""
    status: str = "ready"
    archived: tuple[Marker, ...] = ()
    missing: tuple[str, ...] = ()
    """Keys that are missing from the row."""
    name: str | None = None
    workers: int = 0


PROFILES = (
    Profile(networking=LIMITED, packages=1, name="default"),
    Profile(networking=OPEN, packages=6),
    Profile(networking=LIMITED, packages=3),
    Profile("self_hosted", workers=2),
    Profile(networking=LIMITED, archived=("archived_at", "archived", "status")),
    Profile(networking=OPEN, missing=("description", "metadata")),
    Profile(networking=LIMITED, archived=("archived_at",)),
    Profile(packages=2),
    Profile("self_hosted"),
    Profile(networking=OPEN, archived=("archived",)),
    Profile(networking=LIMITED, packages=4, name="shared"),
    Profile("edge", networking={"type": "mesh"}),
    Profile(networking=LIMITED, archived=("status",), packages=1),
    Profile(missing=("config",)),
    Profile(None, networking=OPEN),
    Profile(networking=LIMITED, status="building"),
    Profile(networking=OPEN, missing=("name",)),
    Profile("self_hosted", archived=("archived_at",)),
    Profile(networking=LIMITED, missing=("type", "status", "archived", "archived_at", "created_at", "updated_at")),
    Profile(networking=OPEN, status="failed", packages=5),
)
"""Every twenty environments have each of these once, so that even a small fleet includes every case."""

HOSTILE: dict[str, list[Any]] = {
    "name": [
        "{{ lookup('pipe', 'id') }}",
        "{% for x in range(9) %}x{% endfor %}",
        "<script>alert(1)</script>",
        "x" * 100_000,
        "two\nlines\r\n\x00\x1b[31m",
        "../../etc/passwd",
        "localhost",
        "all",
        "",
        "ünï 🚀",
        None,
        17,
        ["a"],
        {"a": 1},
    ],
    "description": ["{{ 1 + 1 }}", "y" * 100_000, None, 0, ["{{ x }}"]],
    "status": ["{{ ansible_env }}", "", None, 5, ["ready"], "re ady/x"],
    "archived": ["yes", 1, None],
    "archived_at": ["yesterday", True, [1]],
    "created_at": ["yesterday", 17, None, "2026-13-45T99:00:00Z"],
    "updated_at": [{}, "{{ now() }}"],
    "metadata": [["a"], None, "text", {"{{ key }}": "{{ value }}", "n": 1}, {"k": {"deep": [None]}}],
    "config": [
        None,
        [],
        "cloud",
        5,
        {},
        {"type": 3},
        {"type": "{{ type }}", "networking": None, "packages": None},
        {"type": "cloud", "networking": "limited"},
        {"type": "cloud", "networking": {"type": ["limited"]}},
        {"type": "cloud", "networking": {"type": "<b>"}, "packages": ["curl"]},
        {"type": "cloud", "packages": {"apt": "curl", "pip": [1, None, {}], "{{ x }}": ["{{ y }}"]}},
    ],
    "type": ["session", None],
    "{{ unknown }}": ["{{ also }}"],
}


def seeded_environments(count: int, seed: int, *, hostile: bool = False) -> list[CloudEnvironment]:
    """Return this many environments, oldest first; a smaller number with the same seed gives the first of them.

    Each hostile environment has a few values that no client should trust.
    """
    return [_environment(index, seed, hostile=hostile) for index in range(count)]


def new_environment(seed: int, number: int) -> CloudEnvironment:
    """Return an environment that is in no seeded fleet and newer than all: a test adds it and then overrides fields."""
    profile = Profile(networking=LIMITED, packages=1, name=f"added-{number:04d}")
    created = FIRST + timedelta(days=20 * 365, hours=number)
    return CloudEnvironment(_row(profile, number, created, Random(f"{seed} qoder added {number}")))


def _environment(index: int, seed: int, *, hostile: bool) -> CloudEnvironment:
    random = Random(f"{seed} qoder {index}")
    profile = PROFILES[index % len(PROFILES)]
    created = FIRST + timedelta(hours=index, microseconds=random.randrange(10**9))
    environment = CloudEnvironment(_row(profile, index, created, random), profile.archived, profile.workers)
    if hostile:
        keys = random.sample(sorted(HOSTILE), k=random.randint(1, 4))
        environment.patch({key: random.choice(HOSTILE[key]) for key in keys})
    return environment


def _row(profile: Profile, index: int, created: datetime, random: Random) -> Row:
    updated = created + timedelta(seconds=random.randrange(10**6))
    row: Row = {
        # The age comes first, so that ids sort by age.
        "id": f"env_{int(created.timestamp() * 1000):012x}7{random.getrandbits(76):019x}",
        "type": "environment",
        "name": profile.name or f"{random.choice(NAMES)}-{index:04d}",
        "description": random.choice(["", f"Builds {random.choice(PROJECTS)}"]),
        "status": profile.status,
        "config": _config(profile, random),
        "metadata": {"team": random.choice(PROJECTS)} if random.random() < 0.5 else {},
        "archived": bool(profile.archived),
        "archived_at": _iso(updated) if profile.archived else None,
        "created_at": _iso(created),
        "updated_at": _iso(updated),
    }
    return {key: value for key, value in row.items() if key not in profile.missing}


def _config(profile: Profile, random: Random) -> Row:
    config: Row = {"type": profile.type} if profile.type is not None else {}
    if profile.type == "self_hosted":
        return config
    if profile.networking is not None:
        config["networking"] = dict(profile.networking)
    if "allowed_hosts" in config.get("networking", {}):
        config["networking"]["allowed_hosts"] = random.sample(HOSTS, k=random.randrange(3))
    kinds = list(PACKAGES)[: profile.packages]
    config["packages"] = {"type": "packages", **{kind: list(PACKAGES[kind]) for kind in kinds}}
    return config


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
