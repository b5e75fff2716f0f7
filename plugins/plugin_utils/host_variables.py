# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Single variables of the inventory's hosts.

`hostvars[host]` works out everything that a host has, anew each time it is asked, and takes longer than to send a
message. Here it is asked only about hosts that may have the variable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from ansible.plugins.loader import vars_loader
from ansible.vars.plugins import get_vars_from_inventory_sources, get_vars_from_path

from ..module_utils.environment import CONTRACT

# The vars plugin that core always has: what it finds for many at once is what it finds for each.
_HOST_GROUP_VARS = "ansible.builtin.host_group_vars"


def as_listed(hostvars: Any, host: str, name: str) -> Any:
    """A host's variable as its inventory has it, not rendered; None where there is none.

    What plays and files beside the inventory set does not count where the inventory itself has it.
    """
    own: dict[str, Any] = hostvars._inventory.get_host(host).vars  # noqa: SLF001 - core has no public way
    return own[name] if name in own else hostvars.raw_get(host).get(name)


def all_as_listed(hostvars: Any, host: str) -> Mapping[str, Any]:
    """The variables of an environment's host, as its inventory has them, not rendered."""
    own: dict[str, Any] = hostvars._inventory.get_host(host).vars  # noqa: SLF001 - core has no public way
    variables: Mapping[str, Any] = own if CONTRACT in own else hostvars.raw_get(host)
    return variables


class HostVariables:
    """Variables that `hostvars` has of some hosts, from wherever they are set."""

    def __init__(self, hostvars: Any, hosts: Iterable[str]) -> None:
        self._hostvars = hostvars
        # Where core keeps what it makes hostvars of; it has no public way to ask for less than all.
        self._manager = hostvars._variable_manager  # noqa: SLF001
        self._inventory = hostvars._inventory  # noqa: SLF001
        self._hosts = [self._inventory.get_host(host) for host in hosts]

    def read(self, host: str, name: str) -> Any:
        """A variable's value, rendered; None where nothing sets it. Raises AnsibleError."""
        return self._hostvars[host].get(name) if self._may_have(host, name) else None

    def _may_have(self, host: str, name: str) -> bool:
        """Whether anything that core makes a host's variables of has one of this name."""
        manager, own = self._manager, self._inventory.get_host(host).vars
        try:
            facts = manager._fact_cache.get(host)  # noqa: SLF001 - facts, and set_fact with `cacheable`
        except KeyError:
            facts = {}
        included = manager._vars_cache.get(host, {})  # noqa: SLF001 - include_vars
        registered = manager._nonpersistent_fact_cache.get(host, {})  # noqa: SLF001 - set_fact and register
        return self._has_other_plugins or any(
            name in variables for variables in (own, facts, included, registered, self._shared)
        )

    @cached_property
    def _shared(self) -> frozenset[str]:
        """The names that groups, extra variables, and files for any of the hosts or their groups set."""
        groups = {group.name: group for host in self._hosts for group in host.get_groups()}
        groups["all"] = self._inventory.groups["all"]
        entities = [*groups.values(), *self._hosts]
        loader, stage = self._manager._loader, "task"  # noqa: SLF001 - knows the directory of the playbook
        sources = self._inventory._sources  # noqa: SLF001 - beside which there may be files
        found = [
            *(group.vars for group in groups.values()),
            self._manager.extra_vars,
            get_vars_from_inventory_sources(loader, sources, entities, stage),
            get_vars_from_path(loader, loader.get_basedir(), entities, stage),
        ]
        return frozenset(name for variables in found for name in variables)

    @cached_property
    def _has_other_plugins(self) -> bool:
        """Whether somebody's own vars plugin may set anything, and another thing for each host."""
        # Core has no public way; it is filled by whoever asked for variables first.
        return bool(set(vars_loader._plugin_instance_cache) - {_HOST_GROUP_VARS}) or vars_loader._paths is None  # noqa: SLF001
