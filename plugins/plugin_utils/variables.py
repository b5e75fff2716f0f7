# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The variables of this collection's playbooks and roles: what there is, and whether what is set can be used."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.common.yaml import yaml_load

from ..module_utils.errors import OptionError
from ..module_utils.options import convert_value, is_blank
from ..module_utils.text import find_nearest, one_line

_ROOT = Path(__file__).parents[2]
# Names of ten letters that differ by one letter, or by two that are swapped.
_NEARLY = 0.88


def read_variables(name: str) -> dict[str, dict[str, Any]]:
    """The variables of a playbook and its role, with their specifications. Raises OptionError for another name."""
    found: dict[str, dict[str, Any]] = {}
    for path, entry in ((_ROOT / "meta", name), (_ROOT / "roles" / name / "meta", "main")):
        if (file := path / "argument_specs.yml").exists():
            entries = yaml_load(file.read_text(encoding="utf-8"))["argument_specs"]
            found |= entries[entry]["options"] if entry in entries else {}
    if not found:
        raise OptionError("name", f"there is no playbook or role {one_line(name, 60)!r}")
    return found


def find_variables(template: Any) -> list[str]:
    """The variables of any of the playbooks and roles that a template names."""
    words, playbooks = set(re.findall(r"\w+", str(template))), sorted((_ROOT / "playbooks").glob("*.yml"))
    return [one for playbook in playbooks for one in read_variables(playbook.stem) if one in words]


def check_names(name: str, known: Collection[str], given: Collection[str], listed: Collection[str]) -> None:
    """Raise OptionError for a variable that is meant for a playbook or role, and is none of its variables.

    given: the names that the run sets. Each one with the prefix of the playbook or role is meant for it.
    listed: the names that the inventory sets. Other roles may have the prefix, so only what is nearly the name of a
        variable that is not set is meant. The same holds for names without the prefix.
    """
    unset = set(known) - set(given) - set(listed)
    for one in sorted({*given, *listed} - set(known)):
        if one in given and f"{one}_".startswith(f"__{name}_"):
            raise OptionError(one, f"is internal to {name}, and cannot be set")
        of_the_run = one in given and one.startswith(f"{name}_")
        if near := find_nearest(one, known if of_the_run else unset, 0 if of_the_run else _NEARLY):
            raise OptionError(one, f"{name} has no such variable; {near!r} is nearest")


def convert_variable(name: str, rules: Mapping[str, Any], value: Any) -> Any:
    """The value of a variable in its type, where a list may be one text with commas. Raises OptionError."""
    kind, shown = rules["type"], one_line(repr(value), 60)
    if value is None or (is_blank(value) and (kind != "str" or "choices" in rules)):
        return rules.get("default")
    if kind == "list" and isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    expected: Any = {"dict": Mapping, "list": list}.get(kind, object)
    if not isinstance(value, expected):
        raise OptionError(name, f"must be a {kind}, got {shown}")
    if value not in rules.get("choices", (value,)):
        raise OptionError(name, f"must be one of {', '.join(rules['choices'])}, got {shown}")
    if kind == "list":
        return [convert_value(name, part, rules["elements"]) for part in value]
    return convert_value(name, value, kind)
