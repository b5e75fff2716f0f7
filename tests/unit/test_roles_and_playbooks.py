"""The variables of roles and playbooks: documented, in step with the code, and with their own prefix."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.sandbox.process import CHECKOUT

ROLES = ["instruct", "self_update"]
PLAYBOOKS = ["approvals", "audit", "report", "stop"]


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


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_a_playbooks_variables_are_documented_at_its_top(name: str) -> None:
    text = (CHECKOUT / "playbooks" / f"{name}.yml").read_text()
    documented = re.findall(rf"^# ({name}_[a-z_]+)  ", text, flags=re.MULTILINE)

    assert sorted(documented) == sorted(_read(text, name))
