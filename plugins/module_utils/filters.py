# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""JMESPath expressions over the fields of an environment, with functions for versions, ages and ids."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ._deps import jmespath, semantic_version
from .errors import OptionError
from .text import find_nearest, one_line, shorten
from .versions import parse_version

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class _Functions(jmespath.functions.Functions):  # type: ignore[misc]
    """`semver(version, range)`, `older_than(moment, age)` and `short(id)`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = datetime.now(UTC)

    @jmespath.functions.signature({"types": ["string", "null"]}, {"types": ["string"]})  # type: ignore[untyped-decorator]
    def _func_semver(self, version: str | None, wanted: str) -> bool:
        """Whether a version is in a range such as `<0.34` or `>=0.34.2,<0.36`. A text that is no version is in none."""
        spec, found = _parse_range(wanted), parse_version(version)
        return found is not None and bool(spec.match(found))

    @jmespath.functions.signature({"types": ["string", "null"]}, {"types": ["string"]})  # type: ignore[untyped-decorator]
    def _func_older_than(self, moment: str | None, age: str) -> bool:
        """Whether an ISO 8601 time is longer ago than an age such as `90s`, `15m`, `12h`, `7d` or `2w`."""
        seconds = _parse_age(age)
        try:
            then = datetime.fromisoformat(moment or "")
        except ValueError:
            return False
        then = then if then.tzinfo else then.replace(tzinfo=UTC)
        return (self.now - then).total_seconds() > seconds

    @jmespath.functions.signature({"types": ["string"]})  # type: ignore[untyped-decorator]
    def _func_short(self, text: str) -> str:
        """Eight hexadecimal digits that stand for an id."""
        return shorten(text)


@functools.lru_cache(maxsize=256)
def _parse_range(wanted: str) -> Any:
    try:
        return semantic_version.SimpleSpec(wanted.replace(" ", ""))
    except ValueError:
        raise ValueError(f"semver: {wanted!r} is not a range such as '<0.34' or '>=0.34.2,<0.36'") from None


def _parse_age(age: str) -> int:
    match = re.fullmatch(r"([0-9]{1,9})([smhdw])", age.strip())
    if match is None:
        raise ValueError(f"older_than: {age!r} is not an age such as '90s', '12h' or '7d'")
    return int(match[1]) * _UNITS[match[2]]


# The type of each function's second argument. A literal is checked when the expression is compiled.
_ARGUMENTS: dict[str, Callable[[str], Any]] = {"semver": _parse_range, "older_than": _parse_age}


class Expressions:
    """Compiled expressions of one option.

    option: the option's name, for errors. known: the names that a row can have. names: those that the expressions read.
    Raises OptionError for an expression that does not compile, that has a name that no row has, or that fails on a row.
    """

    def __init__(self, option: str, expressions: Any, known: Sequence[str]) -> None:
        if isinstance(expressions, str):
            expressions = [expressions]
        if not isinstance(expressions, Sequence) or not all(isinstance(item, str) for item in expressions):
            raise OptionError(option, f"must be a list of expressions, got {one_line(repr(expressions), 80)}")
        self.option = option
        self._functions = _Functions()
        self._options = jmespath.Options(custom_functions=self._functions)
        self._compiled = [(text, self._compile(text, known)) for text in expressions]
        self.names = {name for _text, compiled in self._compiled for name in _find_names(compiled.parsed)}

    def _compile(self, text: str, known: Sequence[str]) -> Any:
        try:
            compiled = jmespath.compile(text)
        except (jmespath.exceptions.JMESPathError, RecursionError) as error:
            raise OptionError(self.option, f"{text!r} is not a JMESPath expression: {one_line(error)}") from None
        for function, argument in _find_literal_arguments(compiled.parsed):
            try:
                _ARGUMENTS[function](argument)
            except ValueError as error:
                raise OptionError(self.option, f"{text!r}: {error}") from None
        if _takes_a_list(compiled.parsed):
            problem = "takes the environment for a list; write a condition such as status == 'online'"
            raise OptionError(self.option, f"{text!r} {problem}")
        for name in _find_names(compiled.parsed):
            if name not in known:
                problem = f"names {name!r}, which no environment has; {find_nearest(name, known, 0)!r} is nearest"
                raise OptionError(self.option, f"{text!r} {problem}")
        return compiled

    def all_hold(self, row: Mapping[str, Any], now: datetime) -> bool:
        """Whether every expression is true of a row, in the sense of JMESPath. now: the time from which ages count."""
        self._functions.now = now
        return all(_is_true(self._search(text, compiled, row)) for text, compiled in self._compiled)

    def values(self, row: Mapping[str, Any]) -> Iterator[Any]:
        """Each expression's value for a row, in order."""
        return (self._search(text, compiled, row) for text, compiled in self._compiled)

    def _search(self, text: str, compiled: Any, row: Mapping[str, Any]) -> Any:
        try:
            return compiled.search(row, options=self._options)
        except (jmespath.exceptions.JMESPathError, ValueError) as error:
            # The row has no value for an argument of a function, so the expression has none for the row.
            if getattr(error, "actual_type", None) == "null":
                return None
            raise OptionError(self.option, f"{text!r} cannot be evaluated: {one_line(error)}") from None


def _is_true(value: Any) -> bool:
    """JMESPath takes null and empty strings, lists and objects for false, and 0 for true."""
    return value is not None and value is not False and value not in ("", [], {})


_OF_A_LIST = {"filter_projection", "projection", "index_expression", "flatten", "slice", "index"}
# Nodes whose first child is applied to the row, and the other children to the result of the first.
_NARROWING = {"subexpression", "pipe", "value_projection", *_OF_A_LIST}


def _takes_a_list(node: Mapping[str, Any]) -> bool:
    """Whether an expression applies to the row what only lists have, such as `[?mode == 'x']`: that is always null."""
    if node["type"] in ("identity", "current"):
        return False
    while isinstance(node, Mapping) and node["children"]:
        first = node["children"][0]
        if node["type"] in _OF_A_LIST and isinstance(first, Mapping) and first["type"] in ("identity", "current"):
            return True
        node = first
    return False


def _find_names(node: Mapping[str, Any]) -> Iterator[str]:
    """The names that an expression looks up in the row itself."""
    if node["type"] == "field":
        yield node["value"]
        return
    if node["type"] == "expref":
        return
    children = node["children"]
    if node["type"] in ("subexpression", "pipe") and children[0]["type"] in ("current", "identity"):
        children = children[1:]
    for child in children[:1] if node["type"] in _NARROWING else children:
        yield from _find_names(child)


def _find_literal_arguments(node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each of our functions in an expression with its second argument, where that is a literal."""
    children = node["children"]
    if node["type"] == "function_expression" and node["value"] in _ARGUMENTS and len(children) == 2:
        argument = children[1]
        if argument["type"] == "literal" and isinstance(argument["value"], str):
            yield node["value"], argument["value"]
    # A slice's children are numbers.
    for child in children:
        if isinstance(child, Mapping):
            yield from _find_literal_arguments(child)
