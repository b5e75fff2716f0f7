"""What AWX does around Ansible, for tests without AWX."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .conftest import Ansible, Run

ENVIRONMENT = {
    "ANSIBLE_INVENTORY_UNPARSED_FAILED": "True",
    "ANSIBLE_INVENTORY_EXPORT": "True",
    "ANSIBLE_VERBOSE_TO_STDERR": "True",
    "ANSIBLE_HOST_PATTERN_MISMATCH": "error",
    # Core 2.19 ignores the plural form.
    "ANSIBLE_COLLECTIONS_PATHS": "/runner/requirements_collections",
}
# AWX's columns for names have this length.
_LONGEST_NAME = 512


def run_inventory(ansible: Ansible, source: Path, output: Path, env: Mapping[str, str] | None = None) -> Run:
    """Run `ansible-inventory` as AWX does for a source of a project. env: what its credential injects."""
    arguments = ["--list", "--export", "--output", str(output), "--playbook-dir", str(source.parent), "-vvv"]
    return ansible.inventory(*arguments, source=source, env={**ENVIRONMENT, **(env or {})})


@dataclass(frozen=True)
class Stored:
    """An inventory in AWX: the variables of each host, the enabled hosts, and the hosts of each group.

    imported: the hosts and groups of the source; a user may have made others. written: the hosts that the latest import
        made or changed.
    """

    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    enabled: set[str] = field(default_factory=set)
    groups: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    imported: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)

    def script(self, path: Path, number: int = 0, count: int = 1) -> Path:
        """Write the inventory of a job: an inventory script that prints the enabled hosts, or a slice of them."""
        hosts = sorted(self.enabled)[number::count]
        groups = {
            name: {"hosts": [host for host in hosts if host in group["hosts"]], "children": group["children"]}
            for name, group in self.groups.items()
        }
        hostvars = {name: self.hosts[name] for name in hosts}
        printed = {"_meta": {"hostvars": hostvars}, "all": {"hosts": hosts}, **groups}
        path.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(printed)}\nEND\n")
        path.chmod(0o755)
        return path


def sync(
    ansible: Ansible,
    path: Path,
    source: Mapping[str, Any],
    before: Stored | None = None,
    env: Mapping[str, str] | None = None,
) -> tuple[Stored, Run]:
    """Run an inventory update: the inventory after it, which is the one before it if the update fails."""
    before = before or Stored()
    output = ansible.directory / "artifact.json"
    run = run_inventory(ansible, path, output, env)
    if run.returncode != 0:
        return before, run
    try:
        return store_export(json.loads(output.read_text(encoding="utf-8")), source, before), run
    except ValueError:
        return before, run


def store_export(exported: Mapping[str, Any], source: Mapping[str, Any], before: Stored | None = None) -> Stored:
    """A stand-in for AWX's import, by the rules of its mem_inventory.py and inventory_import.py.

    exported: what `run_inventory` wrote. source: the arguments of awx.awx.inventory_source. before: the inventory that
    the import changes. Raises ValueError if the whole import fails.
    """
    before = before or Stored()
    hosts, groups = _read_export(exported)
    # A row that the export does not have any more deletes its host, and what a user has made stays.
    gone = before.imported - hosts.keys() - groups.keys() if source["overwrite"] else set()
    kept = {name: variables for name, variables in before.hosts.items() if name not in gone}
    kept_groups = {
        name: {**group, "hosts": [host for host in group["hosts"] if host in kept]}
        for name, group in before.groups.items()
        if name not in gone
    }
    if not source["overwrite"]:
        groups = {name: _merge_groups(group, kept_groups.get(name)) for name, group in groups.items()}
    if not source["overwrite_vars"]:
        hosts = {name: kept.get(name, {}) | variables for name, variables in hosts.items()}
    states = {name: _is_enabled(variables, source) for name, variables in hosts.items()}
    # A host without the variable is enabled when it is new, and keeps its state later.
    enabled = {
        name
        for name in kept.keys() | hosts.keys()
        if (name in before.enabled or name not in kept if states.get(name) is None else states[name])
    }
    written = {
        name
        for name, variables in hosts.items()
        if kept.get(name) != variables or (name in enabled) != (name in before.enabled)
    }
    imported = (before.imported - gone) | hosts.keys() | groups.keys()
    return Stored(kept | hosts, enabled, kept_groups | groups, imported, written)


def _read_export(exported: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, list[str]]]]:
    """The hosts with their variables, and the groups. Raises ValueError for a name that AWX does not take."""
    hosts: dict[str, dict[str, Any]] = {}
    groups: dict[str, dict[str, list[str]]] = {}
    for name, group in exported.items():
        if name == "_meta":
            continue
        members = []
        for host in group.get("hosts", []):
            own, port = _host_and_port(host)
            hosts.setdefault(own, {"ansible_port": port} if port else {})
            members.append(own)
        if name not in ("all", "ungrouped"):
            if len(name) > _LONGEST_NAME:
                raise ValueError(f"AWX does not take the name {name!r}")
            groups[name] = {"hosts": members, "children": group.get("children", [])}
    for name, own in hosts.items():
        own.update(exported["_meta"]["hostvars"].get(name, {}))
    return hosts, groups


def _merge_groups(new: Mapping[str, list[str]], old: Mapping[str, list[str]] | None) -> dict[str, list[str]]:
    return {kind: [*dict.fromkeys([*(old or {}).get(kind, []), *names])] for kind, names in new.items()}


def _host_and_port(name: str) -> tuple[str, int | None]:
    if re.search(r"\{\{[^}]+}}|\{%[^%]+%}|\0", name) or not 0 < len(name) <= _LONGEST_NAME:
        raise ValueError(f"AWX does not take the name {name!r}")
    if name.count(":") != 1:
        return name, None
    name, _colon, port = name.partition(":")
    return name, int(port) if port.isdecimal() else None


def _is_enabled(variables: Mapping[str, Any], source: Mapping[str, Any]) -> bool | None:
    """Compare as `_get_enabled` does; None for a host without the variable."""
    found: Any = variables
    for key in source["enabled_var"].split("."):
        if not isinstance(found, Mapping) or key not in found:
            return None
        found = found[key]
    return str(found).lower() == source["enabled_value"].lower()
