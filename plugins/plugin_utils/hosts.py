# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads hosts of the inventory: which environment each one is, its variables, and facts that pass for variables.

Environments and their fields are read as the inventory has them. They are never rendered, since their texts come from
the environments, and variables of plays, facts and files do not replace them. The user's own variables
(`letta_agent_id`) count from everywhere but facts, by Ansible's precedence, and are rendered.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from ansible.vars.hostvars import HostVars

from ..module_utils.environment import CONTRACT, DROPPED, Environment, EnvironmentReference, remove_unsafe
from ..module_utils.errors import FleetError, OptionError
from ..module_utils.filters import Expressions
from ..module_utils.providers.base import Provider
from ..module_utils.providers.registry import find_provider, list_providers
from ..module_utils.text import one_line
from . import core_internals as core

# The variables that core sets for a task, whichever host it runs on.
_SHARED = (
    *("ansible_play_batch", "ansible_play_hosts", "ansible_play_hosts_all", "ansible_search_path", "hostvars"),
    *("ansible_failed_result", "ansible_failed_task"),
)
# What templates of playbooks rely on, and what core lets a fact replace.
_OF_TEMPLATES = frozenset(
    {"dict", "group_names", "inventory_hostname", "inventory_hostname_short", "lookup", "omit", "query"}
)


def check_host(option: str, host: Any, hostvars: Mapping[str, Any]) -> str:
    """The name of a host. Raises OptionError for `option` for what is no host of the inventory."""
    if not isinstance(host, str) or host not in hostvars:
        raise OptionError(option, f"{one_line(host, 80)!r} is no host of the inventory")
    return host


def find_environment(host: str, hostvars: Mapping[str, Any]) -> EnvironmentReference | None:
    """The environment that a host is; None for another host, and for a name that is no host.

    Raises FleetError for a host whose variable is not what the inventory set.
    """
    contract = _listed_variables(host, hostvars).get(CONTRACT) if host in hostvars else None
    if contract is None:
        return None
    try:
        return EnvironmentReference.from_contract(contract)
    except FleetError as error:
        raise FleetError(f"{host}: {error}") from None


def require_environment(host: str, hostvars: Mapping[str, Any]) -> EnvironmentReference:
    """As `find_environment`. Raises FleetError also for a host that is no environment."""
    environment = find_environment(host, hostvars)
    if environment is None:
        raise FleetError(
            f"{host} is no environment: it has no variable {CONTRACT}, which this collection's inventory plugins set"
        )
    return environment


def find_environments(hosts: Iterable[str], hostvars: Mapping[str, Any]) -> Iterator[tuple[str, EnvironmentReference]]:
    """Those of the hosts that are environments, in the same order. Raises FleetError."""
    for host in hosts:
        if environment := find_environment(host, hostvars):
            yield host, environment


def read_fields(
    host: str, environment: EnvironmentReference, hostvars: Mapping[str, Any], prefix: str | None = None
) -> dict[str, Any]:
    """The fields of an environment that is a host: one for each of its provider, None where the inventory has none.

    A volatile field without a variable is missing: the source leaves it out, which says nothing of its value.

    prefix: what the names of the variables begin with. None: the prefix with which there is a variable for each field,
        else the provider's usual one, such as `letta_`.
    It is empty where no variable has the prefix. The values are plain JSON values, as JMESPath takes no others.
    """
    variables, provider = _listed_variables(host, hostvars), find_provider(environment.provider)
    if prefix is None:
        prefix = _find_prefix(provider, variables)
    found = {name: variables[prefix + name] for name in provider.fields if prefix + name in variables}
    if not found:
        return {}
    # YAML has times, of which JSON has only texts.
    plain: dict[str, Any] = json.loads(json.dumps(remove_unsafe(found), default=str))
    return dict.fromkeys(_list_lasting(provider)) | plain


def read_host_environments(
    hosts: Iterable[str], hostvars: Mapping[str, Any], prefix: str | None = None, provider: str | None = None
) -> list[tuple[str, Environment]]:
    """Those of the hosts that are environments, with their `fields`. provider: only environments of this one.

    prefix: what the names of the variables begin with; None for the provider's usual one, such as `letta_`.
    Raises FleetError for an environment that has no variable with it.
    """
    found = []
    for host, environment in find_environments(hosts, hostvars):
        if provider not in (None, environment.provider):
            continue
        wanted = find_provider(environment.provider).variable_of("") if prefix is None else prefix
        fields = read_fields(host, environment, hostvars, wanted)
        if not fields:
            raise FleetError(
                f"{host} has no variables that begin with {one_line(repr(wanted), 60)}, as the inventory's "
                "hostvars_prefix is another one; give that as the prefix"
            )
        found.append((host, environment.with_fields(fields)))
    return found


def count_dropped_rows(hostvars: HostVars, provider: str, prefix: str | None = None) -> int:
    """How many rows the listings of an inventory dropped, also where no host is left.

    prefix: as for `read_host_environments`.
    """
    name = (find_provider(provider).variable_of("") if prefix is None else prefix) + DROPPED
    return sum(value for value in core.read_all_groups(hostvars, name) if isinstance(value, int))


def find_left_out(environment: Environment) -> set[str]:
    """The volatile fields that the inventory leaves out, of an environment with its `fields`."""
    known = environment.fields
    return find_provider(environment.provider).volatile.keys() - known.keys() if known else set()


def fulfills(expressions: Expressions, environment: Environment) -> bool:
    """Whether all expressions are true of an environment with its `fields`. Raises OptionError.

    It is an error if they read a field that the inventory leaves out: to act on a guess would be worse.
    """
    if left_out := expressions.names & find_left_out(environment):
        problem = "which the inventory leaves out (volatile_variables: false); its source can filter by it"
        raise OptionError(expressions.option, f"reads {' and '.join(sorted(left_out))}, {problem}")
    return expressions.all_hold(environment.fields, find_listing_time(environment))


def find_listing_time(environment: Environment) -> datetime:
    """The time from which ages count: when the environment was listed, now if the inventory does not say when."""
    try:
        return datetime.fromisoformat(environment.fields["listed_at"])
    except (KeyError, TypeError, ValueError):
        return datetime.now(UTC)


def compile_expressions(option: str, expressions: Any, environments: Iterable[EnvironmentReference]) -> Expressions:
    """Expressions that may name each field that any of the environments can have. Raises OptionError."""
    providers = sorted({environment.provider for environment in environments}) or list_providers()
    return Expressions(option, expressions, [name for one in providers for name in find_provider(one).fields])


def find_facts_named(
    task: Any, hostvars: Mapping[str, Any], hosts: Iterable[str], prefixes: tuple[str, ...]
) -> list[tuple[str, str]]:
    """Host and name of each fact that counts as a variable of a task and whose name has one of the prefixes.

    Among them are always the names that templates rely on. A fact does not count where the operator gives the variable
    in a place that outranks facts, such as extra variables.
    """
    found = []
    for host in hosts:
        names = [name for name in core.read_facts(hostvars, host) if name.startswith(prefixes) or name in _OF_TEMPLATES]
        counting = core.read_task_variables(hostvars, host, task) if names else {}
        own = core.drop_facts(task, host, counting) if names else {}
        found += [(host, name) for name in sorted(names) if name not in own or own[name] != counting[name]]
    return found


def _listed_variables(host: str, hostvars: Mapping[str, Any]) -> Mapping[str, Any]:
    """The variables of a host, not rendered: those of the inventory alone where that has the environment."""
    if not isinstance(hostvars, HostVars):
        variables: Mapping[str, Any] = hostvars[host]
        return variables
    listed = core.read_host_variables(hostvars, host)
    if CONTRACT in listed:
        return listed
    with core.without_facts():
        found: Mapping[str, Any] = hostvars.raw_get(host)
    return found


def _list_lasting(provider: Provider) -> list[str]:
    """The fields for which each source sets a variable."""
    return [name for name in provider.fields if name not in provider.volatile]


def _find_prefix(provider: Provider, variables: Mapping[str, Any]) -> str:
    fields = _list_lasting(provider)
    usual, longest = provider.variable_of(""), max(fields, key=len)
    others = (name.removesuffix(longest) for name in variables if name.endswith(longest))
    whole = (prefix for prefix in (usual, *others) if all(prefix + name in variables for name in fields))
    return next(whole, usual)


class HostVariables:
    """The variables that a task would have on some hosts, whichever host it runs on. hosts: all that are read.

    task_vars: those of the current host, as `drop_facts` returns them.
    """

    def __init__(self, task: Any, task_vars: Mapping[str, Any], templar: Any, hosts: Sequence[str]) -> None:
        self._task, self._task_vars, self._templar, self._hosts = task, task_vars, templar, hosts
        self._hostvars = task_vars["hostvars"]

    def read(self, host: str, name: str) -> Any:
        """A variable's value, rendered; None where nothing but a fact sets it. Raises AnsibleError."""
        with core.without_facts():
            if host == self._task_vars["inventory_hostname"]:
                return self._templar.template(self._task_vars.get(name))
            if name in self._task_vars and self._may_be_of_the_play(name):
                variables = self.read_all(host)
                templar = self._templar.copy_with_new_env(available_variables=variables)
                return templar.template(variables.get(name))
            return self._hostvars[host].get(name) if self._may_be_of(host, name) else None

    def read_all(self, host: str) -> Mapping[str, Any]:
        """All variables, not rendered; those of the play and the task's loop are the current host's.

        Facts are among them, and none replaces what templates rely on, such as the name of the host.
        """
        if host == self._task_vars["inventory_hostname"] and not core.read_facts(self._hostvars, host):
            return self._task_vars
        names = (*_SHARED, *core.find_loop_names(self._task))
        shared = {name: self._task_vars[name] for name in names if name in self._task_vars}
        variables = {**core.read_task_variables(self._hostvars, host, self._task), **shared}
        return core.drop_facts(self._task, host, variables, _OF_TEMPLATES)

    def _may_be_of_the_play(self, name: str) -> bool:
        """Whether the play, its files, its roles or the task may set a variable, of which `hostvars` does not know."""
        play = self._task.get_play()
        if play.get_vars_files() or play.get_roles() or core.is_in_role(self._task):
            return True
        return name in play.get_vars() or name in self._task.get_vars()

    def _may_be_of(self, host: str, name: str) -> bool:
        """Whether anything that core makes a host's variables of has this one. Making all of them takes much longer."""
        return (
            core.has_own_vars_plugins()
            or name in self._shared_names
            or name in core.read_host_variables(self._hostvars, host)
            or any(name in variables for variables in core.read_stored_variables(self._hostvars, host))
        )

    @cached_property
    def _shared_names(self) -> frozenset[str]:
        return core.find_shared_names(self._hostvars, self._hosts)
