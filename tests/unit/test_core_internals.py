"""The private attributes of ansible-core that the collection uses, one by one.

This file is the first to fail on an ansible-core that changed one of them, and names it.
"""

from __future__ import annotations

import ast
import gc
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible import constants, release
from ansible.executor.process import worker
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play import Play
from ansible.plugins.loader import vars_loader
from ansible.template import trust_as_template
from ansible.vars import manager as core_variables
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

from ansible_collections.fleetops.environments.plugins.plugin_utils import core_internals

CHECKOUT = Path(__file__).parents[2]
HOST_GROUP_VARS = "ansible.builtin.host_group_vars"


@dataclass(frozen=True)
class Core:
    """Objects of the installed core: an inventory of the hosts alpha and beta, and a play with two tasks."""

    loader: DataLoader
    inventory: InventoryManager
    manager: VariableManager
    hostvars: HostVars
    source: str
    task: Any
    task_of_a_role: Any
    worker: Any


@pytest.fixture(autouse=True)
def facts_are_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by default, and unlike in the checkout's ansible.cfg. Core reads that when it is imported."""
    monkeypatch.setenv("ANSIBLE_INJECT_FACT_VARS", "true")
    monkeypatch.setattr(constants, "INJECT_FACTS_AS_VARS", True)
    monkeypatch.setattr(core_variables, "_INJECT_FACTS", True, raising=False)


@pytest.fixture
def core(tmp_path: Path) -> Core:
    """The group `some` has alpha. Each variable is named after the place that sets it."""
    for name, text in {
        "fleet/group_vars/some.yml": "of_source_file: 1\n",
        "host_vars/beta.yml": "of_playbook_file: 1\n",
        "roles/one/tasks/main.yml": "- debug:\n",
        "roles/one/defaults/main.yml": "of_role_defaults: 1\n",
        "roles/one/vars/main.yml": "of_role_vars: 1\n",
        "files.yml": "of_vars_files: 1\n",
        "1.yml": "of_vars_files_of_alpha: 1\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    source = str(tmp_path / "fleet/hosts.ini")
    loader = DataLoader()
    loader.set_basedir(str(tmp_path))
    inventory = InventoryManager(loader, sources=[source], parse=False)
    inventory.add_group("some")
    inventory.groups["some"].set_variable("of_group", 1)
    for host, group in {"alpha": "some", "beta": "all"}.items():
        inventory.add_host(host, group=group)
    inventory.get_host("alpha").set_variable("of_source", 1)
    manager = VariableManager(loader, inventory)
    hostvars = HostVars(inventory, manager, loader)
    play = Play().load(
        {
            "hosts": "all",
            "gather_facts": False,
            "tasks": [{"debug": {}, "vars": {"of_task": 1}}],
            "roles": [{"role": "one", "of_role_parameter": 1, "vars": {"of_role_call": 1}}],
            "vars": {"of_play": 1},
            "vars_files": ["files.yml", trust_as_template("{{ of_source_file }}.yml")],
        },
        variable_manager=manager,
        loader=loader,
    )
    [role] = play.get_roles()
    [task_of_a_role] = role.compile(play=play)[0].block
    manager.extra_vars["of_extra"] = 1
    [task] = play.get_tasks()[0]
    manager.set_host_facts("alpha", {"of_facts": 1, "ansible_os": 1, "module_setup": True})
    manager.set_host_variable("alpha", "of_include_vars", 1)
    manager.set_nonpersistent_facts("alpha", {"of_set_fact": 1})
    # Core looks for vars plugins when variables are read for the first time.
    manager.get_vars(host=inventory.get_host("alpha"))
    variables = manager.get_vars(play=play, host=inventory.get_host("beta"), task=task)
    process = worker.WorkerProcess(
        final_q=None, task_vars=variables, host=inventory.get_host("beta"), task=task, play_context=None, loader=loader,
        variable_manager=manager, shared_loader_obj=None, worker_id=1, cliargs=None,
    )  # fmt: skip
    return Core(loader, inventory, manager, hostvars, source, task, task_of_a_role, process)


# Each attribute, with whether it has the form that the collection expects.
ATTRIBUTES: dict[str, Callable[[Core], bool]] = {
    "HostVars._inventory": lambda core: core.hostvars._inventory is core.inventory,
    "HostVars._variable_manager": lambda core: core.hostvars._variable_manager is core.manager,
    "VariableManager._loader": lambda core: core.manager._loader is core.loader,
    "VariableManager._fact_cache": lambda core: core.manager._fact_cache.get("alpha")["of_facts"] == 1,
    "VariableManager._hostvars": lambda core: core.manager._hostvars is core.hostvars,
    "VariableManager._vars_cache": lambda core: core.manager._vars_cache["alpha"] == {"of_include_vars": 1},
    "VariableManager._nonpersistent_fact_cache": lambda core: (
        core.manager._nonpersistent_fact_cache["alpha"] == {"of_set_fact": 1}
    ),
    "InventoryManager._sources": lambda core: core.inventory._sources == [core.source],
    "PluginLoader._paths": lambda _core: len(vars_loader._paths) > 0,
    "PluginLoader._plugin_instance_cache": lambda _core: HOST_GROUP_VARS in vars_loader._plugin_instance_cache,
    "Task._role": lambda core: core.task._role is None and core.task_of_a_role._role.get_name() == "one",
    "WorkerProcess._host": lambda core: core.worker._host is core.inventory.get_host("beta"),
    "WorkerProcess._loader": lambda core: core.worker._loader is core.loader,
    "WorkerProcess._task": lambda core: core.worker._task is core.task,
    "WorkerProcess._task_vars": lambda core: core.worker._task_vars["inventory_hostname"] == "beta",
    "WorkerProcess._variable_manager": lambda core: core.worker._variable_manager is core.manager,
    "Task._uuid": lambda core: core.task.copy()._uuid == core.task._uuid != core.task_of_a_role._uuid,
    "Task._ds": lambda core: core.task._ds is not None and core.task._ds is core.task.get_ds(),
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_of_core_has_the_expected_form(core: Core, name: str) -> None:
    try:
        same = ATTRIBUTES[name](core)
    except (AttributeError, KeyError, TypeError) as error:
        pytest.fail(f"ansible-core {release.__version__} has no {name} as core_internals.py uses it: {error!r}")
    assert same, f"ansible-core {release.__version__} has something else in {name}"


def test_every_private_attribute_that_is_used_is_checked() -> None:
    tree = ast.parse(Path(core_internals.__file__).read_text())
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr.startswith("_")}

    assert used == {name.partition(".")[2] for name in ATTRIBUTES}


def test_no_other_file_uses_private_attributes() -> None:
    files = [*CHECKOUT.glob("plugins/**/*.py"), *CHECKOUT.glob("extensions/**/*.py")]

    assert [path.name for path in files if "SLF001" in path.read_text()] == ["core_internals.py"]


def test_variables_that_the_inventory_sets_for_a_host(core: Core) -> None:
    found = core_internals.read_host_variables(core.hostvars, "alpha")

    assert "of_source" in found
    assert "of_group" not in found


def test_a_variable_that_the_inventory_sets_for_any_group(core: Core) -> None:
    assert list(core_internals.read_all_groups(core.hostvars, "of_group")) == [1]


@pytest.mark.parametrize(("host", "expected"), [("alpha", ["of_include_vars", "of_set_fact"]), ("beta", [])])
def test_variables_that_tasks_stored_for_a_host(core: Core, host: str, expected: list[str]) -> None:
    assert [name for found in core_internals.read_stored_variables(core.hostvars, host) for name in found] == expected


@pytest.mark.parametrize(
    ("hosts", "expected"), [(["alpha"], {"of_group", "of_source_file"}), (["beta"], {"of_playbook_file"})]
)
def test_names_that_groups_and_files_set(core: Core, hosts: list[str], expected: set[str]) -> None:
    found = core_internals.find_shared_names(core.hostvars, hosts)

    assert {name for name in found if name.startswith("of_")} == expected | {"of_extra"}


def test_variables_of_a_task_on_another_host(core: Core) -> None:
    found = core_internals.read_task_variables(core.hostvars, "beta", core.task)

    assert {name for name in found if name.startswith("of_")} == {
        "of_extra", "of_playbook_file", "of_play", "of_task", "of_vars_files", "of_role_defaults", "of_role_vars",
    }  # fmt: skip
    assert found["inventory_hostname"] == "beta"


def test_facts_that_are_variables_are_those_that_core_does_not_name(core: Core) -> None:
    assert core_internals.read_facts(core.hostvars, "alpha") == {"of_facts": 1}
    assert core_internals.read_facts(core.hostvars, "beta") == {}


def test_core_makes_no_variables_of_facts_for_a_while(core: Core) -> None:
    with core_internals.without_facts():
        during = core_internals.read_task_variables(core.hostvars, "alpha", core.task)
    after = core_internals.read_task_variables(core.hostvars, "alpha", core.task)

    assert ("of_facts" in during, "of_facts" in after) == (False, True)
    assert during["ansible_os"] == after["ansible_os"] == 1
    assert during["ansible_facts"]["of_facts"] == 1


def test_the_current_host_is_the_one_of_the_worker(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    assert core_internals.find_current_host({"inventory_hostname": "alpha"}) == "alpha"

    monkeypatch.setattr(worker, "current_worker", core.worker)
    assert core_internals.find_current_host({"inventory_hostname": "alpha"}) == "beta"


@pytest.mark.parametrize(
    ("delegate", "expected"),
    [
        (None, {"of_facts": "lie", "of_source": "lie", "of_play": "lie"}),
        ("alpha", {"of_source": 1, "of_play": 1}),
        ("nobody", {}),
    ],
)
def test_the_variables_of_a_connection_are_not_facts(
    core: Core, monkeypatch: pytest.MonkeyPatch, delegate: str | None, expected: dict[str, Any]
) -> None:
    given = {"of_facts": "lie", "of_source": "lie", "of_play": "lie"}
    of_core = {"_extras": {}, "ansible_pipelining": True}
    assert core_internals.read_connection_variables(given, delegate) == given

    monkeypatch.setattr(worker, "current_worker", core.worker)
    # The worker's own host, beta, has no facts.
    assert core_internals.read_connection_variables(given | of_core, delegate) == expected | of_core


def test_a_task_has_the_names_of_its_loop_alone(core: Core) -> None:
    assert core_internals.find_loop_names(core.task) == frozenset()

    core.task.loop = [1]
    core.task.loop_control.index_var = "place"
    assert core_internals.find_loop_names(core.task) > {"item", "place"}


def test_variables_that_the_run_sets_for_a_task(core: Core) -> None:
    of_a_play = {"of_extra", "of_play", "of_vars_files", "of_vars_files_of_alpha"}
    found = core_internals.read_run_variables(core.hostvars, core.task, "mine", "alpha")
    in_a_role = core_internals.read_run_variables(core.hostvars, core.task_of_a_role, "mine", "alpha")

    assert {name for name in found if name.startswith("of_")} == of_a_play | {"of_task"}
    assert {name for name in in_a_role if name.startswith("of_")} == of_a_play | {"of_role_parameter", "of_role_call"}


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("alpha", {"of_extra", "of_group", "of_source_file", "of_source", "of_include_vars", "of_set_fact"}),
        ("beta", {"of_extra", "of_playbook_file"}),
    ],
)
def test_names_that_the_inventory_and_earlier_tasks_set(core: Core, host: str, expected: set[str]) -> None:
    found = core_internals.find_listed_names(core.hostvars, host)

    assert {name for name in found if name.startswith("of_")} == expected


def test_the_hosts_of_a_pattern(core: Core) -> None:
    patterns = ("some", ["beta"], "nobody", "localhost")

    found = [core_internals.find_hosts(core.hostvars, pattern) for pattern in patterns]
    assert (found[0][0], found[1:]) == ("alpha", [["beta"], [], []])


def test_a_vars_plugin_of_the_user_is_noticed(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not core_internals.has_own_vars_plugins()

    monkeypatch.setitem(vars_loader._plugin_instance_cache, "ansible.legacy.own", (None, None))
    assert core_internals.has_own_vars_plugins()


def test_a_task_is_in_a_role_or_not(core: Core) -> None:
    assert not core_internals.is_in_role(core.task)
    assert core_internals.is_in_role(core.task_of_a_role)


def test_the_source_of_a_task_can_be_hidden(core: Core) -> None:
    core_internals.hide_source(core.task)

    assert core.task.get_ds() is None


def test_what_attempts_share_belongs_to_the_object_of_the_task(core: Core) -> None:
    other = core.task.copy()

    first, again, of_other = (
        core_internals.share_between_attempts(task, list) for task in (core.task, core.task, other)
    )

    assert first is again
    assert first is not of_other
    del other
    gc.collect()
    assert list(core_internals._SHARED) == [core.task]


# An action that fails, and writes which object it has for its task, in all attempts so far.
ACTION = """
import json
import pathlib

from ansible.plugins.action import ActionBase

TASKS = []

class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        # A task that is kept leaves its place in memory to no other one.
        TASKS.append(self._task)
        pathlib.Path("seen.json").write_text(json.dumps([TASKS.index(task) for task in TASKS]))
        return {"failed": True}
"""


def test_attempts_have_one_object_for_the_task_and_items_of_a_loop_have_copies(tmp_path: Path) -> None:
    task = {"which_task": {}, "loop": ["same", "same"], "until": "false", "retries": 2, "delay": 0}
    (tmp_path / "action_plugins").mkdir()
    (tmp_path / "action_plugins/which_task.py").write_text(ACTION)
    (tmp_path / "play.yml").write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]))

    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", "play.yml"]
    subprocess.run(command, cwd=tmp_path, check=False, capture_output=True)

    assert json.loads((tmp_path / "seen.json").read_text()) == [0, 0, 0, 3, 3, 3]


def test_the_first_host_of_a_task_makes_what_all_of_them_share(
    core: Core, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))
    made = iter([["first", None, 1], ["second", None, 1], ["third", None, 1]])

    def share(task: Any) -> Any:
        return core_internals.share_between_hosts(task, lambda: next(made))

    found = [share(core.task), share(core.task.copy()), share(core.task_of_a_role), share(core.task)]

    assert found == [["first", None, 1], ["first", None, 1], ["second", None, 1], ["first", None, 1]]
    [file] = [path for path in tmp_path.glob("fleetops-*") if "first" in path.read_text()]
    file.write_text('["fir')
    assert [share(core.task), share(core.task)] == [["third", None, 1]] * 2
