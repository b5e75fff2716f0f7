"""An inventory of 10,000 environments, compared with the same one from a script, and with groups made with Jinja."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .harness import Comparison, Figures, Goal, Scale, Workplace, in_turn
from .network import start_network

VERSION = "letta_version | default('unknown', true) | regex_replace('[^A-Za-z0-9]', '_')"
KEYED_GROUPS = [
    {
        "key": "letta_mode | default('unknown', true)",
        "prefix": "mode",
        # The group of an old word is in the group of the word that replaced it; the others are in the root group.
        "parent_group": "{{ 'letta' if letta_effective_mode == letta_mode or not letta_mode"
        " else 'mode_' ~ letta_effective_mode }}",
    },
    {"key": "letta_os | default('unknown', true)", "prefix": "os"},
    {
        "key": VERSION,
        "prefix": "version",
        # Every version has a group of its minor version above it; an unknown version is in the root group.
        "parent_group": "{{ 'version_' ~ letta_version | regex_search('^[0-9]+[.][0-9]+') | replace('.', '_')"
        " if letta_version else 'letta' }}",
    },
    {"key": "letta_status", "prefix": "", "separator": ""},
]
# The variables that differ in each listing.
MOMENTS = {"letta_listed_at", "letta_last_heartbeat", "letta_last_seen_at"}


def run(scale: Scale, directory: Path) -> list[Comparison]:
    """CPU of the whole command `ansible-inventory --list`."""
    with start_network(scale.listed) as network:
        work = Workplace(directory, network)
        native = work.source()
        keyed = work.source("keyed.letta.yml", group_by=[], keyed_groups=KEYED_GROUPS)
        static = script(work, work.listing(native).output)
        for what, listing in {"keyed_groups": work.listing(keyed), "the script": listed_by(work, static)}.items():
            check_same(what, listing.output, work.listing(native).output)
        taken = in_turn(
            scale.runs,
            native=lambda: work.listing(native),
            script=lambda: listed_by(work, static),
            keyed=lambda: work.listing(keyed),
        )
    cpu = {name: [figures.cpu for figures in each] for name, each in taken.items()}
    what = f"`ansible-inventory --list`, {scale.listed:,} environments"
    return [
        Comparison(what, "a static JSON script", "CPU, s", cpu["native"], cpu["script"], Goal("at most", 0.80)),
        Comparison(what, "`keyed_groups`", "CPU, s", cpu["native"], cpu["keyed"], Goal("at most", 0.35)),
    ]


def script(work: Workplace, listing: Path) -> str:
    """Write a script that prints a listing, as texts without marks; return its path."""
    work.file("fleet.json", json.dumps(plain(json.loads(listing.read_text()))))
    path = work.file("fleet.sh", '#!/bin/sh\nexec cat "${0%/*}/fleet.json"\n')
    Path(path).chmod(0o755)
    return path


def listed_by(work: Workplace, script: str) -> Figures:
    """`ansible-inventory --list` of a script."""
    return work.listing(script, ANSIBLE_INVENTORY_ENABLED="script")


def plain(value: Any) -> Any:
    """A listing without its marks of unsafe texts."""
    if isinstance(value, dict):
        if value.keys() == {"__ansible_unsafe"}:
            return value["__ansible_unsafe"]
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def check_same(what: str, listing: Path, wanted: Path) -> None:
    """Raise RuntimeError unless two listings have the same groups, hosts and variables."""
    one, other = _comparable(listing), _comparable(wanted)
    for name in one.keys() | other.keys():
        if one.get(name) != other.get(name):
            raise RuntimeError(f"{what} does not make what it is compared with: {name} differs")


def _comparable(path: Path) -> dict[str, Any]:
    """Group → its hosts, including those of groups below it; and host → its variables, without its times."""
    listing = plain(json.loads(path.read_text()))
    hosts = listing.pop("_meta")["hostvars"]

    def members(group: str) -> set[str]:
        entry = listing.get(group, {})
        below: Sequence[str] = entry.get("children", [])
        return set(entry.get("hosts", [])).union(*(members(child) for child in below))

    variables = {
        f"host {name}": {key: host[key] for key in host.keys() - MOMENTS} for name, host in sorted(hosts.items())
    }
    return variables | {f"group {name}": sorted(members(name)) for name in listing}
