# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Qoder's wire models: environments and events coming in, the parameters of a listing going out.

Source of the shapes: the Cloud Agents API reference, which has two generations. A row of the older one has `status`
and `archived`. A row of the newer one has neither, and more in `config`. So every key but `id` is optional.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from ..._deps import pydantic
from ...environment import Environment, InvalidRow, Listing, validate_rows
from ...errors import OptionError
from ...options import drop_blanks
from ...text import format_time, one_line
from ..rows import Items, Part, RowId, read_row

NAME = "qoder"
# The newer generation of the API refuses more. The older one returns this many.
_MOST_ROWS = 100
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]([01]\d|2[0-3]):\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Query:
    """The list call's parameters, and where to stop. Raises OptionError.

    after_id, before_id: where the walk starts; the second goes backwards, to newer environments.
    created_at_gte, created_at_lte: RFC 3339. limit: rows a page. all_pages: go on to the end.
    """

    after_id: str | None = None
    before_id: str | None = None
    include_archived: bool = False
    created_at_gte: str | None = None
    created_at_lte: str | None = None
    limit: int = _MOST_ROWS
    all_pages: bool = True

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise OptionError("limit", f"must be 1 or more, got {self.limit}")
        if self.after_id is not None and self.before_id is not None:
            raise OptionError("before_id", "cannot go with after_id; a walk starts at one of them")
        self.parameters()

    def parameters(self) -> dict[str, str]:
        """The parameters that are the same for each page."""
        parameters = {"limit": str(min(self.limit, _MOST_ROWS))}
        if self.include_archived:
            parameters["include_archived"] = "true"
        for name, key in (("created_at_gte", "created_at[gte]"), ("created_at_lte", "created_at[lte]")):
            if getattr(self, name) is not None:
                parameters[key] = _write_time(name, getattr(self, name))
        return parameters

    def start(self) -> dict[str, str]:
        """The cursor of the first page."""
        return drop_blanks({"after_id": self.after_id, "before_id": self.before_id})


def _write_time(option: str, text: str) -> str:
    """A time in RFC 3339 in the form that the API takes: with `T` and `Z` as capitals. Raises OptionError."""
    text = text.strip()
    try:
        _to_utc(text)
    except ValueError as error:
        shown = one_line(repr(text), 60)
        raise OptionError(option, f"{error} such as 2026-01-31T12:00:00Z, got {shown}") from None
    return text.upper().replace(" ", "T")


def _to_utc(text: str) -> str:
    """A time in RFC 3339, in UTC. A leap second counts as the one before it. Raises ValueError for any other text."""
    known = f"{text[:17]}59{text[19:]}" if text[17:19] == "60" else text
    with contextlib.suppress(ValueError, OverflowError):
        if _RFC_3339.fullmatch(text):
            # To the microsecond, as in the API, so that created_at_gte and created_at_lte can name this very time.
            return format_time(datetime.fromisoformat(known.upper()), "microseconds")
    raise ValueError("must be a time in RFC 3339")


_Time = Annotated[str, pydantic.AfterValidator(_to_utc)]


class _Networking(pydantic.BaseModel):
    type: str | None = None


class _Config(Part):
    config_type: str | None = pydantic.Field(default=None, alias="type")
    networking_type: _Networking | None = pydantic.Field(default=None, alias="networking")
    packages: dict[str, Any] | None = None


class Row(pydantic.BaseModel):
    """One environment as the list and retrieve calls return it; its times in UTC."""

    model_config = pydantic.ConfigDict(extra="allow")

    id: RowId
    type: str | None = None
    name: str | None = None
    description: str | None = None
    status: str | None = None
    config: _Config | None = None
    metadata: dict[str, Any] | None = None
    archived: pydantic.StrictBool | None = None
    archived_at: _Time | None = None
    created_at: _Time | None = None
    updated_at: _Time | None = None


class ListPage(pydantic.BaseModel):
    """One answer to a list call. next_page: the newer generation's cursor."""

    data: list[Any]
    first_id: str | None = None
    last_id: str | None = None
    has_more: pydantic.StrictBool | None = None
    next_page: str | None = None

    @property
    def more(self) -> bool | None:
        """Whether another page follows; None if the page does not say."""
        if self.has_more is None and "next_page" in self.model_fields_set:
            return bool(self.next_page)
        return self.has_more


class Session(pydantic.BaseModel):
    """A session; the other keys are not needed."""

    id: str = pydantic.Field(min_length=1)


class Block(pydantic.BaseModel):
    """A part of a message's content."""

    type: str = "text"
    text: str | None = None


class _StopReason(pydantic.BaseModel):
    type: str | None = None
    event_ids: Items[str] | None = None


class Event(pydantic.BaseModel):
    """One event of a session. name, input: of a tool call. error: of `session.error`."""

    id: str | None = None
    type: str
    content: Items[Block] | str | None = None
    stop_reason: _StopReason | None = None
    name: str | None = None
    input: Any = None
    error: Any = None
    processed_at: pydantic.AwareDatetime | None = None

    @property
    def text(self) -> str:
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "".join(block.text or "" for block in self.content if block.type == "text")


def read_environments(listing: Listing, base_url: str, _query: Any) -> tuple[list[Environment], list[InvalidRow]]:
    """The rows of a listing as environments, and those that are not as the API promises."""
    return validate_rows(listing.rows, lambda raw: read_environment(raw, base_url))


def read_environment(raw: Any, base_url: str) -> Environment:
    """A row as an Environment, online unless it is or may be archived, which refuses sessions.

    Raises pydantic's ValidationError for one without an id.
    """
    row, flaws = read_row(Row, raw)
    config = row.config or _Config()
    networking = config.networking_type or _Networking()
    archived: bool | None = row.archived_at is not None or row.archived is True or row.status == "archived"
    if not archived and flaws.keys() & {"archived", "archived_at", "status"}:
        archived = None
    fields: dict[str, Any] = vars(row) | {
        "config": {} if row.config is None else raw["config"],
        "config_type": config.config_type or None,
        "networking_type": networking.type or None,
        # The newer generation names its own kind beside the package managers.
        "packages": {name: value for name, value in (config.packages or {}).items() if name != "type"},
        "metadata": flaws.add_to(row.metadata),
        "archived": archived,
        "extra": dict(row.model_extra or {}),
        "invalid": sorted(flaws),
    }
    return Environment(
        provider=NAME,
        id=row.id,
        device_id=row.id,
        connection_id=None,
        base_url=base_url,
        status="online" if archived is False else "offline",
        self_update=None,
        fields={name: fields[name] for name in FIELDS},
        problem=flaws.describe(),
    )


# The fields of every row. Expressions are checked against them, and the documentation lists them.
FIELDS: tuple[str, ...] = (
    "id", "type", "name", "description", "status", "config", "config_type", "networking_type", "packages", "metadata",
    "archived", "archived_at", "created_at", "updated_at", "extra", "invalid",
)  # fmt: skip
