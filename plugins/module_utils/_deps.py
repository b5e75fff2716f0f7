# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Third-party packages, imported in one place.

Without them the plugins still import (``ansible-doc`` and ``ansible-test`` run without them);
``require_packages()`` then tells the user in one line which package which Python lacks.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from .errors import FleetError

_missing: list[str] = []
for _package in ("aiohttp", "httpx", "jmespath", "pydantic", "semantic_version"):
    try:
        importlib.import_module(_package)
    except ImportError:
        _missing.append(_package)


class _Absent:
    """Stands in for a package: class bodies and decorators that name it still evaluate."""

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *_args: Any, **_kwargs: Any) -> Any:
        return self

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return ()


if TYPE_CHECKING or not _missing:
    import aiohttp
    import httpx
    import jmespath
    import jmespath.exceptions
    import jmespath.functions
    import pydantic
    import pydantic.alias_generators
    import semantic_version
    import yarl  # aiohttp's own addresses
else:
    # Nothing works unless all are there.
    aiohttp = httpx = jmespath = pydantic = semantic_version = yarl = _Absent()

__all__ = ["aiohttp", "httpx", "jmespath", "pydantic", "require_packages", "semantic_version", "yarl"]


def require_packages() -> None:
    """Raise FleetError naming the missing packages and the Python that lacks them."""
    if _missing:
        raise FleetError(
            f"missing Python package(s): {', '.join(_missing)}; "
            f"install with: {sys.executable} -m pip install {' '.join(_missing)}"
        )
