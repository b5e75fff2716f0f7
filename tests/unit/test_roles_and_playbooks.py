"""The variables of roles and playbooks: listed once, in step with the code, and with their own prefix."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.fleetops.environments.plugins.action.environment_mode import ActionModule as EnvironmentMode
from ansible_collections.fleetops.environments.plugins.plugin_utils.variables import read_variables
from tests.sandbox.process import CHECKOUT

ROLES = ["instruct", "self_update"]
PLAYBOOKS = yaml.safe_load((CHECKOUT / "meta/argument_specs.yml").read_text())["argument_specs"]
OF_NO_ROLE = [name for name in PLAYBOOKS if name not in ROLES]
CHECK = "fleetops.environments.check_variables"


def _set_here(node: Any) -> Iterator[str]:
    """The variables that plays and tasks set themselves."""
    if isinstance(node, list):
        for item in node:
            yield from _set_here(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in ("vars", "ansible.builtin.set_fact"):
                yield from value
            elif key in ("register", "loop_var"):
                yield value
            yield from _set_here(value)


def _read(text: str, prefix: str) -> set[str]:
    """The variables with a prefix that a file reads and does not set."""
    code = re.sub(r"^ *#.*$", "", text, flags=re.MULTILINE)
    return set(re.findall(rf"\b{prefix}_[a-z_]+\b", code)) - set(_set_here(yaml.safe_load(text)))


def _files_of(name: str) -> list[Path]:
    """The playbook, and the tasks of the role of the same name."""
    return [CHECKOUT / f"playbooks/{name}.yml", *sorted((CHECKOUT / "roles" / name).glob("tasks/*.yml"))]


@pytest.mark.parametrize("name", ROLES)
def test_a_roles_variables_are_specified_documented_and_of_its_prefix(name: str) -> None:
    role = CHECKOUT / "roles" / name
    specified = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text())
    readme = (role / "README.md").read_text()

    assert {option: spec["default"] for option, spec in specified.items() if "default" in spec} == defaults
    tasks = [path.read_text() for path in sorted((role / "tasks").glob("*.yml"))]
    assert _read("\n".join(text.removeprefix("---\n") for text in tasks), name) == set(specified)
    assert set(re.findall(rf"`({name}_[a-z_]+)`", readme)) == set(specified) | {f"{name}_hosts"}


def test_every_playbook_has_its_variables_in_the_list() -> None:
    assert sorted(PLAYBOOKS) == sorted(path.stem for path in (CHECKOUT / "playbooks").glob("*.yml"))


@pytest.mark.parametrize("name", OF_NO_ROLE)
def test_a_playbooks_variables_are_those_of_the_list(name: str) -> None:
    text = (CHECKOUT / "playbooks" / f"{name}.yml").read_text()

    # The check reads the pattern, and returns the hosts.
    assert sorted(_read(text, name) | {f"{name}_hosts"}) == sorted(PLAYBOOKS[name]["options"])


@pytest.mark.parametrize("name", ROLES)
def test_a_playbook_of_a_role_reads_only_variables_that_it_or_the_role_has(name: str) -> None:
    assert _read((CHECKOUT / "playbooks" / f"{name}.yml").read_text(), name) <= read_variables(name).keys()


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_a_playbook_chooses_its_hosts_by_the_default_of_the_list_and_repeats_no_other_default(name: str) -> None:
    text = (CHECKOUT / "playbooks" / f"{name}.yml").read_text()
    default = PLAYBOOKS[name]["options"][f"{name}_hosts"]["default"]
    chosen = [play["hosts"] for play in yaml.safe_load(text)]

    # The last play of the audit is about rows that are no hosts.
    last = ["all:localhost"] if name == "audit" else []
    listed = ["all:localhost", f"{{{{ {name}_hosts | default('{default}', true) }}}}", *last]
    assert chosen in (listed, ["all:localhost"])
    repeated = re.findall(rf"\b({name}_[a-z_]+) \| default\(([^)]*)\)", "\n".join(text.split("hosts:")))
    assert {variable for variable, _default in repeated if "default" in read_variables(name)[variable]} <= {
        f"{name}_hosts"
    }


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_a_variable_has_a_type_that_the_check_knows_and_a_meaning(name: str) -> None:
    for variable, rules in read_variables(name).items():
        assert variable.startswith(f"{name}_")
        assert rules["type"] in ("bool", "dict", "float", "int", "list", "path", "raw", "str")
        assert ("elements" in rules) == (rules["type"] == "list")
        assert rules["description"]


def test_stop_mode_is_each_mode_that_restricts() -> None:
    modes = PLAYBOOKS["stop"]["options"]["stop_mode"]["choices"]

    assert set(EnvironmentMode.SPEC["mode"]["choices"]) - set(modes) == {"bypassPermissions", "unrestricted"}


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_a_variable_that_is_set_inside_begins_with_two_underscores(name: str) -> None:
    inside = {one for path in _files_of(name) for one in _set_here(yaml.safe_load(path.read_text()))}

    assert [one for one in inside if not f"{one}_".startswith(f"__{name}_")] in ([], ["self_update_targets"])


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_the_check_is_the_first_task_of_a_playbook_and_of_its_role(name: str) -> None:
    tasks = [yaml.safe_load((CHECKOUT / "playbooks" / f"{name}.yml").read_text())[0]["tasks"][0]]
    if name in ROLES:
        (entry,) = {"send.yml", "rollout.yml"} & {path.name for path in _files_of(name)}
        tasks.append(yaml.safe_load((CHECKOUT / "roles" / name / "tasks" / entry).read_text())[0])
        main = yaml.safe_load((CHECKOUT / "roles" / name / "tasks/main.yml").read_text())
        assert main[0]["ansible.builtin.import_tasks"] == entry

    for task in tasks:
        assert task[CHECK] == {"name": name}
        assert (task["run_once"], task["tags"]) == (True, "always")
