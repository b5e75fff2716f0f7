# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where options come from: blank is unset, and the nearest source of a key counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .arguments import CONNECTION_SPEC


def blank(value: Any) -> bool:
    """Whether a value is the same as no value. AWX gives an optional field that was left empty as an empty string."""
    return value is None or (isinstance(value, str) and not value.strip())


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are not blank."""
    return {name: value for name, value in options.items() if not blank(value)}


def layered(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The connection options of several sources, the first source that has one counting.

    A key and a key file are one thing: a key file of an earlier source goes before a key of a later one.
    """
    options: dict[str, Any] = {}
    for layer in layers:
        present = {name: value for name, value in layer.items() if name in CONNECTION_SPEC and not blank(value)}
        if "api_key" in options or "api_key_file" in options:
            present.pop("api_key", None)
            present.pop("api_key_file", None)
        options = present | options
    return options
