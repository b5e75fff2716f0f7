# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The variables of this collection's playbooks and roles: what there is, and whether what is set can be used."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.common.yaml import yaml_load
from yaml import YAMLError

from ..module_utils.errors import OptionError
from ..module_utils.options import convert_value, is_blank
from ..module_utils.text import find_nearest, one_line

_ROOT = Path(__file__).parents[2]
# Names of ten letters that differ by one letter, or by two that are swapped.
_NEARLY = 0.88
_LISTED = "meta/argument_specs.yml and roles/NAME/meta/argument_specs.yml of the collection list the variables"


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


def has_role(name: str) -> bool:
    """Whether there is a role of a name, whose tasks read its variables themselves."""
    return (_ROOT / "roles" / name).exists()


def is_of_collection(path: str) -> bool:
    """Whether a file is one of the collection's playbooks or of its roles."""
    file = Path(path).resolve()
    return any(file.is_relative_to((_ROOT / part).resolve()) for part in ("playbooks", "roles"))


def check_names(name: str, known: Collection[str], given: Collection[str], listed: Collection[str]) -> None:
    """Raise OptionError for a variable that is meant for a playbook or role, and is none of its variables.

    given: the names that the run sets. Each one with the prefix of the playbook or role is meant for it, and so is what
        is nearly the name of a variable that is not set.
    listed: the names that the inventory sets. Other roles may have the prefix, so one with the prefix is meant only if
        it is nearly the name of a variable that is not set.
    """
    unset = set(known) - set(given) - set(listed)
    for one in sorted({*given, *listed} - set(known)):
        word = one.casefold()
        if one in given and f"{word}_".startswith(f"__{name}_"):
            raise OptionError(one, f"is internal to {name}, and cannot be set")
        of_it = word.startswith(f"{name}_")
        if one in given and of_it:
            near = find_nearest(word, known)
            raise OptionError(one, f"{name} has no such variable; " + (f"{near!r} is nearest" if near else _LISTED))
        if (one in given or of_it) and (near := find_nearest(word, unset, _NEARLY)):
            way_out = "" if one in given else f"; the inventory sets it, so set {near} there, or rename it"
            raise OptionError(one, f"{name} has no such variable; {near!r} is nearest{way_out}")


def convert_variable(name: str, rules: Mapping[str, Any], value: Any) -> Any:
    """The value of a variable in its type, where a list may be one text with commas. Raises OptionError."""
    kind, shown = rules["type"], one_line(repr(value), 60)
    if value is None or (is_blank(value) and (kind != "str" or "choices" in rules)):
        return rules.get("default")
    if kind == "list" and isinstance(value, str):
        value = _split(name, value)
    expected: Any = {"dict": Mapping, "list": list}.get(kind, object)
    if not isinstance(value, expected):
        raise OptionError(name, f"must be a {kind}, got {shown}")
    if value not in rules.get("choices", (value,)):
        raise OptionError(name, f"must be one of {', '.join(rules['choices'])}, got {shown}")
    if kind == "list":
        return [convert_value(name, part, rules["elements"]) for part in value]
    return convert_value(name, value, kind)


def _split(name: str, text: str) -> Any:
    """The list that a text means: a,b or ["a","b"]. Raises OptionError."""
    found: Any = None
    with contextlib.suppress(YAMLError):
        found = yaml_load(str(text)) if text.lstrip().startswith("[") else text.split(",")
    if not isinstance(found, list) or (found == text.split(",") and re.search("[\"'{}]", text)):
        raise OptionError(name, f"""must be a list such as a,b or ["a","b"], got {one_line(repr(text), 60)}""")
    return [part.strip() if isinstance(part, str) else part for part in found]


def check_modes(name: str, modes: Iterable[str], known: Collection[str]) -> None:
    """Raise OptionError for a mode that is nearly a known one. Later releases of Letta Code may have other modes."""
    for mode in set(modes) - set(known):
        if near := find_nearest(mode.casefold(), known, 0.75):
            way_out = "a rule in audit_rules can forbid another mode of nearly that name"
            raise OptionError(name, f"{one_line(repr(mode), 60)} is no known mode, and {near!r} is nearest; {way_out}")
