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
# Without these a JSON text holds no half character, no key that is spelt in escapes, and no marks of Ansible's.
_NEEDS_A_LOOK = ("\\u", '"__ansible')
# What JSON can spell in another way than by itself or by \u.
_ESCAPED = frozenset('"\\/')


def parsed(text: str, key: str) -> Any:
    """The JSON value in a text, made harmless. Raises ValueError where it holds none.

    Ten thousand rows are a million texts, so one by one they are looked at only where the whole gives a reason to.
    """
    try:
        value = json.loads(text, parse_constant=not_json, parse_float=finite)
    except RecursionError:
        raise ValueError("it is too deep") from None
    may_hold_key = len(key) >= _SHORTEST_SECRET and (key in text or not _ESCAPED.isdisjoint(key))
    if may_hold_key or any(part in text for part in _NEEDS_A_LOOK) or _too_deep(value):
        return harmless(value, key)
    return value


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


def _too_deep(value: Any) -> bool:
    """Whether there is a list or dictionary that `harmless` would cut off."""
    level = [value]
    for _number in range(_DEEPEST + 1):
        level = [item for item in level if isinstance(item, (dict, list))]
        if not level:
            return False
        level = [item for part in level for item in (part.values() if isinstance(part, dict) else part)]
    return True


def not_json(name: str) -> NoReturn:
    """For json.loads(parse_constant=...): Python reads NaN and Infinity, JSON has none."""
    raise ValueError(f"{name} is not JSON")


def finite(text: str) -> float:
    """For json.loads(parse_float=...): a number that a float can hold. Raises ValueError."""
    number = float(text)
    return number if math.isfinite(number) else not_json(text)
