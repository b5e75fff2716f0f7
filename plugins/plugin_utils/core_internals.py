# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: SLF001
"""What ansible-core has no public way to say or do. No other file uses private attributes of its objects.

tests/unit/test_core_internals.py checks each attribute against the core that is installed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from ansible import constants
from ansible._internal._task import TaskContext
from ansible.plugins.loader import vars_loader
from ansible.template import Templar
from ansible.vars import manager as core_variables
from ansible.vars.plugins import get_vars_from_inventory_sources, get_vars_from_path

from ..module_utils.text import hash_text
from .options import explain_templates

# The vars plugin that core always has: what it finds for many hosts at once is what it finds for each.
_HOST_GROUP_VARS = "ansible.builtin.host_group_vars"
# Facts that core's own modules return for each host, and whose names nobody gives to a variable.
_OF_SETUP = frozenset({"discovered_interpreter_python", "gather_subset", "module_setup"})
_OF_LOOPS = frozenset({"ansible_index_var", "ansible_loop", "ansible_loop_var"})

Value = TypeVar("Value")
_SHARED: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def read_host_variables(hostvars: Any, host: str) -> Mapping[str, Any]:
    """The variables that inventory sources and add_host set for a host itself, not rendered."""
    variables: Mapping[str, Any] = hostvars._inventory.get_host(host).vars
    return variables


def read_all_groups(hostvars: Any, name: str) -> Iterator[Any]:
    """The values that inventory sources set for all groups of the inventory, not rendered."""
    return (group.vars[name] for group in hostvars._inventory.groups.values() if name in group.vars)


def are_facts_variables() -> bool:
    """Whether the configuration has core make variables of facts."""
    return bool(constants.config.get_config_value("INJECT_FACTS_AS_VARS"))


def read_facts(hostvars: Any, host: str) -> Mapping[str, Any]:
    """The facts of a host that core makes variables of, without those that core itself names `ansible_...`.

    A module on a device may return facts of any name. They outrank the variables of inventory, groups and hosts.
    """
    facts: Mapping[str, Any] = {}
    with contextlib.suppress(KeyError):
        facts = hostvars._variable_manager._fact_cache.get(host) if are_facts_variables() else {}
    return {name: value for name, value in facts.items() if name not in _OF_SETUP and not name.startswith("ansible_")}


@contextlib.contextmanager
def without_facts() -> Iterator[None]:
    """While this lasts, core makes no variables of the facts that `read_facts` returns. `ansible_facts` has them."""
    usual = core_variables.clean_facts
    core_variables.clean_facts = lambda facts: {k: fact for k, fact in usual(facts).items() if k.startswith("ansible_")}
    try:
        yield
    finally:
        core_variables.clean_facts = usual


def _find_worker() -> Any:
    """The worker that this process is; None in another process. Core has the module loaded where it has workers."""
    module = sys.modules.get("ansible.executor.process.worker")
    return module and module.current_worker


def _find_variables(worker: Any) -> Mapping[str, Any]:
    """The variables of the task that a worker runs. From core 2.21 on its context alone has those of a loop's item."""
    found: Mapping[str, Any] = getattr(TaskContext.current(optional=True), "task_vars", worker._task_vars)
    return found


def find_current_host(task_vars: Mapping[str, Any]) -> str:
    """The name of the host that a task runs on, also where a fact says another one."""
    worker = _find_worker()
    return str(worker._host.name if worker else task_vars["inventory_hostname"])


def find_loop_names(task: Any) -> frozenset[str]:
    """The variables that core sets for an item of a task's loop; none where it has no loop."""
    if task.loop is None and not task.loop_with:
        return frozenset()
    return _OF_LOOPS.union(filter(None, (task.loop_control.loop_var, task.loop_control.index_var)))


def drop_facts(
    task: Any, host: str, variables: Mapping[str, Any], names: Iterable[str] | None = None
) -> Mapping[str, Any]:
    """The variables of a task on a host, without facts. What a fact has replaced is as the operator set it.

    names: only facts of these names are dropped. Facts stay below `ansible_facts`, and so do those that core itself
        names `ansible_...`.
    """
    hostvars = variables["hostvars"]
    facts = set(read_facts(hostvars, host)) if names is None else read_facts(hostvars, host).keys() & names
    if not facts:
        return variables
    dropped = {*facts, "vars"} - find_loop_names(task)
    with without_facts():
        own = read_task_variables(hostvars, host, task)
    kept = {name: value for name, value in variables.items() if name not in dropped}
    return kept | {name: own[name] for name in dropped if name in own}


def read_own_variables() -> Mapping[str, Any] | None:
    """The variables of the task that this worker runs, not rendered, without facts; None in another process."""
    worker = _find_worker()
    return drop_facts(worker._task, worker._host.name, _find_variables(worker)) if worker else None


def read_connection_variables(given: Mapping[str, Any], delegate: str | None) -> Mapping[str, Any]:
    """The variables that core gives a connection, rendered; those of this collection as no fact sets them.

    delegate: the host that the task is delegated to. Nothing connects outside of a worker. Raises OptionError.
    """
    worker = _find_worker()
    if not worker:
        return given
    hostvars, task, variables = worker._variable_manager._hostvars, worker._task, _find_variables(worker)
    host = hostvars._inventory.get_host(worker._host.name if delegate is None else delegate)
    of_core = {name: value for name, value in given.items() if name.startswith(("ansible_", "_"))}
    if host is None:
        return of_core
    if not read_facts(hostvars, host.name):
        return given
    if delegate is not None:
        of_loop = {name: variables[name] for name in find_loop_names(task) if name in variables}
        variables = read_task_variables(hostvars, host.name, task) | of_loop
    variables = drop_facts(task, host.name, variables)
    templar, own = Templar(loader=worker._loader, variables=variables), {}
    for name in (given.keys() - of_core) & variables.keys():
        with explain_templates(name, "cannot be read without facts"), without_facts():
            own[name] = templar.template(variables[name])
    return of_core | own


def read_stored_variables(hostvars: Any, host: str) -> Iterator[Mapping[str, Any]]:
    """What tasks stored for a host, facts aside: include_vars, then set_fact and register."""
    manager = hostvars._variable_manager
    yield manager._vars_cache.get(host, {})
    yield manager._nonpersistent_fact_cache.get(host, {})


def find_shared_names(hostvars: Any, hosts: Iterable[str]) -> frozenset[str]:
    """The names that groups, extra variables, and files for any of the hosts or their groups set."""
    manager, inventory = hostvars._variable_manager, hostvars._inventory
    members = [inventory.get_host(host) for host in hosts]
    groups = {group.name: group for member in members for group in member.get_groups()}
    groups["all"] = inventory.groups["all"]
    entities = [*groups.values(), *members]
    # The loader knows the directory of the playbook. The files lie there, and beside the sources.
    loader, stage = manager._loader, "task"
    found = [
        *(group.vars for group in groups.values()),
        manager.extra_vars,
        get_vars_from_inventory_sources(loader, inventory._sources, entities, stage),
        get_vars_from_path(loader, loader.get_basedir(), entities, stage),
    ]
    return frozenset(name for variables in found for name in variables)


def has_own_vars_plugins() -> bool:
    """Whether a vars plugin of the user may set a variable, and another value for each host.

    Core finds the plugins when variables are first read; before that nothing is known.
    """
    return vars_loader._paths is None or bool(set(vars_loader._plugin_instance_cache) - {_HOST_GROUP_VARS})


def read_task_variables(hostvars: Any, host: str, task: Any) -> dict[str, Any]:
    """The variables that a task would have if it ran on a host, not rendered."""
    found: dict[str, Any] = hostvars._variable_manager.get_vars(
        play=task.get_play(), host=hostvars._inventory.get_host(host), task=task
    )
    return found


def read_run_variables(hostvars: Any, task: Any, name: str, host: str) -> dict[str, Any]:
    """What the run sets for a task, not rendered: extra variables, those of play, role and task, and `vars_files`.

    Variables that only the inventory, facts or a role's own files set are not among them, and none that begins with the
    name of another role of the play, such as `{name}_more`.
    host: whose variables complete the paths of `vars_files`.
    """
    play = task.get_play()
    found: dict[str, Any] = hostvars._variable_manager.get_vars(play=play, task=task, include_hostvars=False)
    if play.get_vars_files():
        with without_facts():
            own, listed = read_task_variables(hostvars, host, task), find_listed_names(hostvars, host)
        found |= {one: value for one, value in own.items() if one not in listed}
    for role in (*play.roles, *(task.get_dep_chain() or ())):
        prefix = f"{role.get_name().rpartition('.')[2]}_"
        others = [
            one for one in found if one.startswith(prefix) and prefix.startswith(f"{name}_") and prefix != f"{name}_"
        ]
        for one in (*role.get_default_vars(), *role.get_vars(include_params=False, only_exports=True), *others):
            found.pop(one, None)
    return found


def find_listed_names(hostvars: Any, host: str) -> set[str]:
    """The names that the inventory, files for a host or its groups, and earlier tasks set. Facts are left out."""
    found = {*find_shared_names(hostvars, [host]), *read_host_variables(hostvars, host)}
    return found.union(*read_stored_variables(hostvars, host))


def find_hosts(hostvars: Any, pattern: Any, *, limited: bool = True) -> list[str]:
    """The hosts of the inventory that a pattern matches, of those that the play and `--limit` leave, or of all."""
    found = hostvars._inventory.get_hosts(pattern, ignore_limits=not limited, ignore_restrictions=not limited)
    return [str(host.name) for host in found if not host.implicit]


def is_in_role(task: Any) -> bool:
    """Whether a task belongs to a role, whose variables only its tasks see."""
    return task._role is not None


def is_included_once(task: Any) -> bool:
    """Whether a task stands in a file or role that was included with `run_once`, for one host alone."""
    include = task.get_first_parent_include()
    return include is not None and (bool(include.run_once) or is_included_once(include))


def share_between_attempts(task: Any, make: Callable[[], Value]) -> Value:
    """What the attempts of a task (`until`, `retries`) share; the first one makes it.

    Core makes another action for each attempt, with the same object for the task. Each item of a loop gets a copy of
    it, also an item that comes twice.
    """
    shared: Value = _SHARED[task] if task in _SHARED else _SHARED.setdefault(task, make())
    return shared


def share_between_hosts(task: Any, make: Callable[[], Any]) -> Any:
    """A JSON value that the hosts of a task share, each in a process; the first makes it, in a file of this run."""
    with Path(constants.DEFAULT_LOCAL_TMP, f"fleetops-{task._uuid}.json").open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        # It is empty, or not whole where a process was killed.
        with contextlib.suppress(ValueError):
            return json.loads(file.read())
        file.truncate(0)
        file.write(json.dumps(value := make()))
        return value


@contextlib.contextmanager
def hold_between_hosts(name: str) -> Iterator[None]:
    """Keep the other hosts' processes of this run from something while this is open; waits for those that have it."""
    with Path(constants.DEFAULT_LOCAL_TMP, f"fleetops-{hash_text(name)}.lock").open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def hide_source(task: Any) -> None:
    """Keep core from showing the lines around a task that fails. Core finds them by the tag of the data structure."""
    task._ds = None
