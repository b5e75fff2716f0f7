# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors whose text is one line for the user."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Final, Self

from .text import one_line


def find_first_problem(error: Any) -> str:
    """The first fault that a pydantic ValidationError names, as one line."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place and f'{place}: '}{one_line(first['msg'])}, got {one_line(repr(first['input']), 60)}"


class FleetError(Exception):
    """Base of every error this collection raises on purpose; `str()` is one line."""


class OptionError(FleetError):
    """An option has a value that cannot be used; names the option, the value and the way out."""

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option}: {problem}")
        self.option = option


@dataclass(eq=False, repr=False)
class ApiError(FleetError):
    """A call to a provider's API that did not succeed. It never changes: `but` gives another one.

    code: `connect`, `tls`, `timeout`, `dropped`, `redirect`, `not_json`, `refused` (the API said
        `success: false`), `throttled` (not sent, as the server wanted no request), `stopped` (not sent, as nothing is
        to start any more), `offline`, `invalid`, `too_long` (the rest was not read), or `http_<status>`.
    status: HTTP status, None where no reply came.
    param: what of the request the server blames, None where it does not say.
    retry_after: seconds the server asked to wait, None where it did not ask.
    may_be_accepted: whether the server may have acted on the request all the same.
    transient: whether the same request may succeed later.
    attempts: how many requests were made.
    """

    message: Final[str]
    only_by_name: KW_ONLY
    code: Final[str]
    status: Final[int | None] = None
    param: Final[str | None] = None
    retry_after: Final[float | None] = None
    may_be_accepted: Final[bool] = False
    transient: Final[bool] = False
    attempts: Final[int] = 1

    def __post_init__(self) -> None:
        super().__init__(self.message)

    def but(self, message: str | None = None, **changes: Any) -> Self:
        """The same error with another message, or with other values of the fields named."""
        return replace(self, message=self.message if message is None else message, **changes)
