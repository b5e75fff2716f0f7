"""What AWX does around Ansible, for tests without AWX."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
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


def run_inventory(ansible: Ansible, source: Path, output: Path, env: Mapping[str, str] | None = None) -> Run:
    """Run `ansible-inventory` as AWX does for a source of a project. env: what its credential injects."""
    arguments = ["--list", "--export", "--output", str(output), "--playbook-dir", str(source.parent), "-vvv"]
    return ansible.inventory(*arguments, source=source, env={**ENVIRONMENT, **(env or {})})


@dataclass(frozen=True)
class Stored:
    """An inventory in AWX: the variables of each host, the enabled hosts, and the hosts of each group."""

    hosts: dict[str, dict[str, Any]]
    enabled: set[str]
    groups: dict[str, dict[str, list[str]]]

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


def store_export(exported: Mapping[str, Any], source: Mapping[str, Any]) -> Stored:
    """A stand-in for AWX's import, by the rules of its mem_inventory.py and inventory_import.py.

    exported: what `run_inventory` wrote. source: the arguments of awx.awx.inventory_source. Raises ValueError if the
    whole import fails.
    """
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
            groups[name] = {"hosts": members, "children": group.get("children", [])}
    for name, own in hosts.items():
        own.update(exported["_meta"]["hostvars"].get(name, {}))
    return Stored(hosts, {name for name in hosts if _is_enabled(hosts[name], source)}, groups)


def _host_and_port(name: str) -> tuple[str, int | None]:
    if re.search(r"\{\{[^}]+}}|\{%[^%]+%}|\0", name) or not 0 < len(name) <= 512:
        raise ValueError(f"AWX does not take the name {name!r}")
    if name.count(":") != 1:
        return name, None
    name, _colon, port = name.partition(":")
    return name, int(port) if port.isdecimal() else None


def _is_enabled(variables: Mapping[str, Any], source: Mapping[str, Any]) -> bool:
    """Compare as `_get_enabled` does; a host without the variable is enabled."""
    found: Any = variables
    for key in source["enabled_var"].split("."):
        if not isinstance(found, Mapping) or key not in found:
            return True
        found = found[key]
    return str(found).lower() == source["enabled_value"].lower()
