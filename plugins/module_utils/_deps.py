# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Third-party packages, imported in one place.

Without them the plugins still import (``ansible-doc`` and ``ansible-test`` run without them);
``require()`` then tells the user in one line which package which Python lacks.
"""

from __future__ import annotations

import sys
from typing import Any

from .errors import FleetError

_missing: list[str] = []


class _Absent:
    """Stands in for a missing package: class bodies and decorators that name it still evaluate."""

    def __init__(self, package: str) -> None:
        _missing.append(package)

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *_args: Any, **_kwargs: Any) -> Any:
        return self

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return ()


try:
    import aiohttp
    import yarl  # aiohttp's own addresses
except ImportError:
    aiohttp = yarl = _Absent("aiohttp")  # type: ignore[assignment]

try:
    import httpx
except ImportError:
    httpx = _Absent("httpx")  # type: ignore[assignment]

try:
    import jmespath
    import jmespath.exceptions
    import jmespath.functions
except ImportError:
    jmespath = _Absent("jmespath")

try:
    import pydantic
    import pydantic.alias_generators
except ImportError:
    pydantic = _Absent("pydantic")  # type: ignore[assignment]

try:
    import semantic_version
except ImportError:
    semantic_version = _Absent("semantic_version")

__all__ = ["aiohttp", "httpx", "jmespath", "pydantic", "require_packages", "semantic_version", "yarl"]


def require_packages() -> None:
    """Raise FleetError naming the missing packages and the Python that lacks them."""
    if _missing:
        raise FleetError(
            f"missing Python package(s): {', '.join(_missing)}; "
            f"install with: {sys.executable} -m pip install {' '.join(_missing)}"
        )
