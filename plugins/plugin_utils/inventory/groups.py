# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Groups by the fields of a provider's rows, such as mode, OS and version. Jinja would take much longer."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...module_utils.errors import OptionError
from ...module_utils.text import add_hash

# The group of the rows of which a field is malformed.
_INVALID = "invalid"
_LONGEST_VALUE = 64
# A version that can be read back from its group's name: 0_34_12, v22_19_0, 0_35_0_rc_1.
_VERSION = re.compile(r"(v?[0-9]+\.[0-9]+)\.[0-9]+(?:-[A-Za-z]+(?:\.[0-9]+)?)?")
_GROUP_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Dimension:
    """A field by which rows can be grouped.

    name: as in `group_by`, and the start of the groups' names. names: value → group, where no other values exist.
    versions: whether the values are versions. in_series: whether a version's group is in the group of its series.
    renamed: old word → new word. The group of an old word is in the group of the new one.
    """

    name: str
    field: str
    names: Mapping[Any, str] | None = None
    versions: bool = False
    in_series: bool = False
    renamed: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Groups:
    """members: group → indices of rows. parents: group → the group it lies in."""

    members: dict[str, list[int]] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)

    def of_rows(self, count: int) -> list[list[str]]:
        """The groups of each of `count` rows."""
        found: list[list[str]] = [[] for _index in range(count)]
        for group, indices in self.members.items():
            for index in indices:
                found[index].append(group)
        return found


def check_group_name(option: str, name: str) -> str:
    """`name` when Ansible allows it for a group. Raises OptionError."""
    if not _GROUP_NAME.fullmatch(name) or name in ("all", "ungrouped"):
        raise OptionError(option, f"must be letters, digits and '_', not begin with a digit, and be free, got {name!r}")
    return name


def reads_as_group(name: str, dimensions: Sequence[Dimension], prefix: str) -> bool:
    """Whether a group of these dimensions can have a name, whether a row is in it now or not."""
    return name == prefix + _INVALID or any(
        name in (prefix + value for value in dimension.names.values())
        if dimension.names is not None
        else name.startswith(f"{prefix}{dimension.name}_")
        for dimension in dimensions
    )


def group_rows(rows: Sequence[Mapping[str, Any]], dimensions: Sequence[Dimension], prefix: str) -> Groups:
    """Groups for rows of fields. A row is in one group of each dimension, or in one for each value of a list.

    A row with an `invalid` field is also in the group of this name.

    Group names keep the API's own words; characters that Ansible does not allow become `_`. Where two values would
    have one name, or a text would read as another version, the less literal one gets a short hash.
    """
    groups = Groups()
    if invalid := [index for index, row in enumerate(rows) if row.get(_INVALID)]:
        groups.members[prefix + _INVALID] = invalid
    for dimension in dimensions:
        by_value: dict[Any, list[int]] = {}
        for index, row in enumerate(rows):
            for value in _list_values(row.get(dimension.field)):
                by_value.setdefault(value, []).append(index)
        renamed = dimension.renamed or {}
        names = _name_groups(dimension, {*by_value, *map(renamed.get, by_value)})
        for value, indices in by_value.items():
            name = prefix + names[value]
            groups.members[name] = indices
            if dimension.in_series and (series := _find_series(dimension, value)):
                groups.parents[name] = prefix + series
            if value in renamed:
                groups.parents[name] = prefix + names[renamed[value]]
    return groups


def _list_values(value: Any) -> Iterator[Any]:
    """The values of one row without repetitions, None for no value."""
    values = dict.fromkeys(value) if isinstance(value, list) else [value]
    yield from ([None if item == "" else item for item in values]) or [None]


def _name_groups(dimension: Dimension, values: Collection[Any]) -> Mapping[Any, str]:
    """Value → group name. No two are alike, and the order of the values does not matter."""
    if dimension.names is not None:
        return dimension.names
    names: dict[Any, str] = {None: f"{dimension.name}_unknown"}
    used = {names[None], *(_find_series(dimension, text) for text in values if dimension.in_series)}
    texts = sorted(value for value in values if value is not None)
    for text in sorted(texts, key=lambda text: not _is_literal(dimension, text)):
        names[text] = next(name for name in _list_candidates(dimension, text) if name not in used)
        used.add(names[text])
    return names


def _list_candidates(dimension: Dimension, text: str) -> Iterator[str]:
    """Names for a value, the plainest first. A text that only looks like a version always has a hash."""
    plain = re.sub(r"[^A-Za-z0-9_]", "_", text)
    name = f"{dimension.name}_{plain[:_LONGEST_VALUE]}"
    if _is_literal(dimension, text) or (not dimension.versions and len(text) <= _LONGEST_VALUE):
        yield name
    yield from add_hash(name, text)


def _find_series(dimension: Dimension, version: str | None) -> str | None:
    """The group of a version's series: `version_0_34` for 0.34.12; None for a text that only looks like a version."""
    match = _VERSION.fullmatch(version or "")
    return f"{dimension.name}_{match[1].replace('.', '_')}" if match else None


def _is_literal(dimension: Dimension, text: str) -> bool:
    """Whether a group's name can be read back as this value."""
    if dimension.versions:
        return _VERSION.fullmatch(text) is not None
    return re.fullmatch(r"[A-Za-z0-9_]+", text) is not None and len(text) <= _LONGEST_VALUE
