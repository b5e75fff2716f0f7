# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads environments back from the inventory's hosts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from ansible.plugins.loader import vars_loader
from ansible.vars.plugins import get_vars_from_inventory_sources, get_vars_from_path

from ..module_utils.environment import CONTRACT, Environment, without_unsafe
from ..module_utils.errors import FleetError, OptionError
from ..module_utils.filters import Expressions
from ..module_utils.providers.base import Provider
from ..module_utils.providers.registry import known_providers, provider_named
from ..module_utils.text import one_line


def fleet(
    option: str, hosts: Iterable[Any], wanted: Sequence[str], task_vars: Mapping[str, Any]
) -> dict[str, Environment]:
    """Host → environment, its `fields` being those of `wanted` that its provider has, as its inventory says.

    Hosts that are no environments are left out. Raises OptionError for `option` for a name that is no host of the
    inventory, and FleetError for an environment whose variables were tampered with.
    """
    hostvars = task_vars["hostvars"]
    found: dict[str, Environment] = {}
    for host in hosts:
        if not isinstance(host, str) or host not in hostvars:
            raise OptionError(option, f"{one_line(host, 80)!r} is no host of the inventory")
        if environment := environment_of(host, task_vars):
            fields = _fields(environment.provider, wanted, all_as_listed(hostvars, host))
            found[host] = replace(environment, fields=fields)
    return found


def _fields(provider: str, wanted: Sequence[str], variables: Mapping[str, Any]) -> dict[str, Any]:
    """What the variables say, whatever their prefix; nothing where there are no such variables."""
    names = provider_named(provider).fields
    longest = max(names, key=len)
    others = (name.removesuffix(longest) for name in variables if name.endswith(longest))
    for prefix in (f"{provider}_", *others):
        if all(prefix + name in variables for name in names):
            return {name: without_unsafe(variables[prefix + name]) for name in names if name in wanted}
    return {}


@dataclass(frozen=True, slots=True)
class Row:
    """A host of the inventory that is an environment. fields: as in `Environment`. seen_at: when they were listed."""

    host: str
    provider: str
    fields: Mapping[str, Any]
    seen_at: datetime


def environments_among(hosts: Sequence[str], hostvars: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Those of the hosts that the inventory plugins listed, with their variables, which Ansible makes at each look."""
    known = ((host, hostvars[host]) for host in hosts if host in hostvars)
    return ((host, variables) for host, variables in known if CONTRACT in variables)


def rows_of(
    hosts: Sequence[str], hostvars: Mapping[str, Any], prefix: str | None = None, provider: str | None = None
) -> list[Row]:
    """The environments among hosts, in the same order; other hosts are left out.

    prefix: of the variables, the provider's usual one (`letta_`) unless given. provider: only environments of this one.
    Raises FleetError where an environment has no variable of that prefix.
    """
    rows = []
    for host, variables in environments_among(hosts, hostvars):
        found = Environment.from_contract(variables[CONTRACT]).provider
        if provider in (None, found):
            rows.append(_row(host, variables, provider_named(found), prefix))
    return rows


def expressions_for(option: str, expressions: Any, rows: Sequence[Row]) -> Expressions:
    """Compiled expressions that may name what an environment of any of the rows' providers has. Raises OptionError."""
    providers = sorted({row.provider for row in rows}) or known_providers()
    return Expressions(option, expressions, [name for one in providers for name in provider_named(one).fields])


def _row(host: str, variables: Mapping[str, Any], provider: Provider, prefix: str | None) -> Row:
    prefix = provider.variable_of("") if prefix is None else prefix
    found = {name: variables[f"{prefix}{name}"] for name in provider.fields if f"{prefix}{name}" in variables}
    if not found:
        raise FleetError(
            f"{host} has no variables that begin with {one_line(repr(prefix), 60)}, as the inventory's hostvars_prefix "
            "is another one; give that as the prefix"
        )
    # JMESPath takes plain values only, and not what Ansible has made of them.
    fields = json.loads(json.dumps(dict.fromkeys(provider.fields) | found))
    return Row(host, provider.name, fields, _moment(fields.get("listed_at")))


def _moment(listed_at: Any) -> datetime:
    """When a row was listed: ages count from then, as in the inventory; from now where it does not say."""
    try:
        return datetime.fromisoformat(listed_at)
    except (TypeError, ValueError):
        return datetime.now(UTC)


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


def environment_of(host: str, task_vars: Mapping[str, Any]) -> Environment | None:
    """The environment that a host of the inventory is, None for another name. Raises FleetError."""
    hostvars = task_vars["hostvars"]
    contract = as_listed(hostvars, host, CONTRACT) if host in hostvars else None
    return _environment(host, contract) if contract is not None else None


def _environment(host: str, contract: Any) -> Environment:
    """The environment of a contract. It is not rendered: the texts in it come from whoever runs the environment."""
    if contract is None:
        raise FleetError(
            f"{host} is no environment: it has no variable {CONTRACT}, which this collection's inventory plugins set"
        )
    try:
        return Environment.from_contract(contract)
    except FleetError as error:
        raise FleetError(f"{host}: {error}") from None
