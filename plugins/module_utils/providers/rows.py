# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads rows field by field where they are malformed: such a field is unknown, and costs no row."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar, get_args

from .._deps import pydantic
from ..errors import find_first_problem
from ..text import one_line

# The most characters of JSON that are kept of a malformed value.
_LONGEST = 1000
T = TypeVar("T")


class Flaws(dict[str, tuple[str, Any, str]]):
    """The malformed fields of a row: name → the API's key, the value as the API sent it, and what is wrong with it."""

    def describe(self) -> str | None:
        """All of them as one line, None if there are none."""
        return one_line("; ".join(f"{name}: {problem}" for name, (_key, _value, problem) in self.items())) or None

    def add_to(self, metadata: Mapping[str, Any] | None) -> dict[str, Any]:
        """Metadata with the values under their keys; a key that is there already gets a `_` at its end."""
        found = dict(metadata or {})
        for key, value, _problem in self.values():
            if value is not None:
                text = json.dumps(value)
                free = next(name for name in (key + "_" * number for number in itertools.count()) if name not in found)
                found[free] = value if len(text) <= _LONGEST else one_line(text, _LONGEST)
        return found


def read_row(model: Any, raw: Any) -> tuple[Any, Flaws]:
    """A row as a model, and its malformed fields, which are None. Raises pydantic's ValidationError for a bad id."""
    flaws = Flaws()
    try:
        return model.model_validate(raw), flaws
    except pydantic.ValidationError:
        return _make_tolerant(model).model_validate(raw, context=flaws), flaws


@functools.cache
def _make_tolerant(model: Any) -> Any:
    """The same model, but with None for a field other than `id` that is malformed or missing."""
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        known = get_args(field.annotation)
        part = _make_tolerant(known[0]) | None if known and known[0] in Part.__subclasses__() else field.annotation
        noted = pydantic.WrapValidator(functools.partial(_note_flaw, field.alias or name))
        default = pydantic.Field(default=None, validate_default=True, alias=field.alias)
        fields[name] = (Annotated[(part, *field.metadata, noted)], default)
    fields.pop("id", None)
    return pydantic.create_model(model.__name__, __base__=model, **fields)


def _note_flaw(key: str, value: Any, read: Callable[[Any], Any], info: Any) -> Any:
    try:
        return read(value)
    except pydantic.ValidationError as error:
        info.context[info.field_name] = (key, value, find_first_problem(error))
        return None


class Part(pydantic.BaseModel):
    """A part of a row whose fields are read one by one, too."""

    model_config = pydantic.ConfigDict(extra="allow")


# A text without U+FFFD, as which bytes that are no UTF-8, and half characters, are read. Ids may differ in these only.
Readable = Annotated[str, pydantic.StringConstraints(pattern="^[^\ufffd]*$")]
RowId = Annotated[Readable, pydantic.Field(min_length=1)]
# A list of which one bad item is enough. Of any other list pydantic records each.
Items = Annotated[list[T], pydantic.Field(fail_fast=True)]
