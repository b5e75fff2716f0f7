# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removes from a server's answers what must not be kept or shown."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

# A shorter key is a dummy for a local server, and may be part of a word.
_SHORTEST_SECRET = 8
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_MARK = re.compile("^__(?=ansible)")
_DEEPEST = 64
_REDACTED = "********"
# A JSON text without these has no half character, no key in escapes, and no mark of Ansible's serializers.
_NEEDS_A_LOOK = ("\\u", '"__ansible')
# Characters with an escape of their own, besides \u.
_ESCAPED = frozenset('"\\/')


def parse_json(text: str, key: str) -> Any:
    """The sanitized JSON value of a text. Raises ValueError if the text is not JSON, or too deep.

    Ten thousand rows are a million texts. They are sanitized one by one only if the whole text gives a reason.
    """
    try:
        value = json.loads(text, parse_constant=refuse_constant, parse_float=parse_float)
    except RecursionError:
        raise ValueError("it is too deep") from None
    may_hold_key = len(key) >= _SHORTEST_SECRET and (key in text or not _ESCAPED.isdisjoint(key))
    if may_hold_key or any(part in text for part in _NEEDS_A_LOOK) or is_too_deep(value):
        return sanitize(value, key)
    return value


def sanitize(value: Any, key: str, depth: int = _DEEPEST) -> Any:
    """A JSON value without what must not be kept or shown.

    It removes the API key, half characters that no file or terminal accepts, values nested deeper than 64 levels, and
    the leading underscores of keys by which Ansible's serializers mark their types.
    """
    if isinstance(value, str):
        whole = _HALF_CHARACTER.sub("\ufffd", value)
        return whole.replace(key, _REDACTED) if len(key) >= _SHORTEST_SECRET else whole
    if depth == 0 and isinstance(value, (dict, list)):
        return None
    if isinstance(value, list):
        return [sanitize(item, key, depth - 1) for item in value]
    if isinstance(value, dict):
        return {sanitize(_MARK.sub("", name), key): sanitize(item, key, depth - 1) for name, item in value.items()}
    return value


def is_too_deep(value: Any) -> bool:
    """Whether a list or dictionary is nested so deep that `sanitize` removes it."""
    level = [value]
    for _number in range(_DEEPEST + 1):
        level = [item for item in level if isinstance(item, (dict, list))]
        if not level:
            return False
        level = [item for part in level for item in (part.values() if isinstance(part, dict) else part)]
    return True


def refuse_constant(name: str) -> NoReturn:
    """For json.loads(parse_constant=...): Python reads NaN and Infinity, JSON has none."""
    raise ValueError(f"{name} is not JSON")


def parse_float(text: str) -> float:
    """For json.loads(parse_float=...): a number that a float can hold. Raises ValueError."""
    number = float(text)
    return number if math.isfinite(number) else refuse_constant(text)
