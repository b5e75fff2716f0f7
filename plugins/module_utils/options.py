# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that plugins share: their specifications, their types, and which source of a value counts."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from .errors import OptionError
from .text import one_line

# What Ansible takes for a boolean. True and 1.0 equal 1.
_BOOLEANS: dict[Any, bool] = {
    **dict.fromkeys((1, "1", "on", "t", "true", "y", "yes"), True),
    **dict.fromkeys((0, "0", "off", "f", "false", "n", "no"), False),
}


def is_blank(value: Any) -> bool:
    """Whether a value is no value. AWX passes an empty optional field as an empty string."""
    return value is None or (isinstance(value, str) and not value.strip())


def drop_blanks(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if not is_blank(value)}


def convert_value(option: str, value: Any, kind: str) -> Any:
    """The value of an option in the type of the option; it may be a text. None stays None. Raises OptionError.

    kind: `bool`, `float`, `int`, `path` or `str`, as in an Ansible specification. Other kinds convert nothing.
    """
    if value is None or kind not in _CONVERTERS:
        return value
    if kind in ("path", "str") and isinstance(value, (Mapping, list)):
        # The value is not shown: it may be a key in the wrong shape.
        raise OptionError(option, "must be a text, not a list or dictionary")
    try:
        return _CONVERTERS[kind](value)
    except (KeyError, OverflowError, RuntimeError, TypeError, ValueError):
        expected = "a number" if kind == "float" else f"of the type {kind}"
        raise OptionError(option, f"must be {expected}, got {one_line(repr(value), 60)}") from None


def parse_share(option: str, value: str, whole: int) -> int:
    """A count, or a percentage of `whole` rounded down, as a count. Raises OptionError for any other value."""
    text = value.strip()
    number = text.removesuffix("%").strip()
    if not (number.isascii() and number.isdigit()) or (text.endswith("%") and int(number) > 100):
        raise OptionError(option, f"must be a count such as 5 or a percentage such as 10%, got {value!r}")
    return int(number) * whole // 100 if text.endswith("%") else int(number)


def _to_bool(value: Any) -> bool:
    return _BOOLEANS[value.strip().lower() if isinstance(value, str) else value]


def _to_int(value: Any) -> int:
    """A template makes `5.0` of a division, which is a whole number; `5.5` is none."""
    number = float(value)
    if not number.is_integer():
        raise ValueError
    return int(number)


def _to_float(value: Any) -> float:
    """Python takes also `nan` and `inf`, which no option can have."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "bool": _to_bool,
    "float": _to_float,
    "int": _to_int,
    "path": lambda value: str(Path(os.path.expandvars(str(value))).expanduser()),
    "str": str,
}


def merge_connection_options(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The connection options of several sources. Each option is that of the first source that has it.

    A key and a key file are one thing: a key file of an earlier source goes before a key of a later one.
    """
    options: dict[str, Any] = {}
    for layer in layers:
        present = {name: value for name, value in layer.items() if name in SETTINGS_SPEC and not is_blank(value)}
        if "api_key" in options or "api_key_file" in options:
            present.pop("api_key", None)
            present.pop("api_key_file", None)
        options = present | options
    return options


CONNECTION_SPEC: dict[str, dict[str, Any]] = {
    "base_url": {"type": "str"},
    "api_key": {"type": "str", "no_log": True},
    "api_key_file": {"type": "path", "no_log": False},
    "allow_http": {"type": "bool", "default": False},
    "timeout": {"type": "float", "default": 30},
    "retries": {"type": "int", "default": 5},
    "deadline": {"type": "float", "default": 120},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
    "client_cert": {"type": "path"},
    "client_key": {"type": "path", "no_log": False},
}

SETTINGS_SPEC: dict[str, dict[str, Any]] = {**CONNECTION_SPEC, "relay_timeout": {"type": "float", "default": 10}}
ROWS_SPEC: dict[str, dict[str, Any]] = {"max_dropped_rows": {"type": "str", "default": "10%"}}
