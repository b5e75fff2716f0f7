# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Versions, compared as semantic versions (https://semver.org)."""

from __future__ import annotations

from typing import Any

from ._deps import semantic_version
from .errors import OptionError
from .text import one_line


def parse_version(text: str | None) -> Any:
    """A version that can be compared, from `0.34.12`, `v22.19.0` or `0.35.0-rc.1`; None for another text."""
    try:
        return semantic_version.Version(text.removeprefix("v")) if text else None
    except ValueError:
        return None


def is_at_least(text: str | None, least: str) -> bool:
    """Whether a version is `least` or newer. A text that is no version is not."""
    found = parse_version(text)
    return found is not None and bool(found >= parse_version(least))


def show_version(version: str | None) -> str:
    return one_line(version, 60) if version else "an unknown version"


def explain_incomparable(version: str | None, wanted: str) -> str:
    """Why a device's version, which is none, cannot be compared with the version wanted."""
    reported = f"{one_line(repr(version), 60)} as its version, which cannot" if version else "no version that can"
    return f"reports {reported} be compared with {wanted}"


def check_version(option: str, text: str | None) -> None:
    """Raise OptionError when the value of an option, if it has any, is no version."""
    if text is not None and parse_version(text) is None:
        raise OptionError(option, f"must be a semantic version such as 0.34.12, got {one_line(repr(text), 60)}")
