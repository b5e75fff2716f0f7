# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server sent, made fit to be kept and shown."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

# Shorter keys are dummies for local servers, and may be part of an innocent word.
_SHORTEST_SECRET = 8
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_DEEPEST = 64
_REDACTED = "********"


def parsed(text: str, key: str) -> Any:
    """The JSON value in a text, made harmless. Raises ValueError where it holds none."""
    try:
        value = json.loads(text, parse_constant=not_json, parse_float=finite)
    except RecursionError:
        raise ValueError("it is too deep") from None
    return harmless(value, key)


def harmless(value: Any, key: str, depth: int = _DEEPEST) -> Any:
    """A JSON value without what must not be kept or shown.

    Left out are the API key, half characters that no file or terminal takes, what lies too deep for programs that
    recurse, and the leading underscores of keys by which Ansible's own serializers mark their types.
    """
    if isinstance(value, str):
        whole = _HALF_CHARACTER.sub("\ufffd", value)
        return whole.replace(key, _REDACTED) if len(key) >= _SHORTEST_SECRET else whole
    if depth == 0 and isinstance(value, (dict, list)):
        return None
    if isinstance(value, list):
        return [harmless(item, key, depth - 1) for item in value]
    if isinstance(value, dict):
        return {harmless(_unmarked(name), key): harmless(item, key, depth - 1) for name, item in value.items()}
    return value


def _unmarked(name: str) -> str:
    return name.lstrip("_") if name.startswith("__ansible") else name


def not_json(name: str) -> NoReturn:
    """For json.loads(parse_constant=...): Python reads NaN and Infinity, JSON has none."""
    raise ValueError(f"{name} is not JSON")


def finite(text: str) -> float:
    """For json.loads(parse_float=...): a number that a float can hold. Raises ValueError."""
    number = float(text)
    return number if math.isfinite(number) else not_json(text)
