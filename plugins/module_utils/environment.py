# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Environments, whatever the provider: as the inventory listed them, and as the API describes them now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from ._deps import pydantic
from .errors import ApiError, FleetError, find_first_problem
from .options import ROWS_SPEC, drop_blanks, parse_share
from .text import one_line

# The host variable by which the actions learn from the inventory which environment a host is.
CONTRACT = "fleetops_environment"
# The count of a listing's rows that are no environments: a variable of the source's group, after its prefix.
DROPPED = "dropped_rows"
_MOST_DROPPED: str = ROWS_SPEC["max_dropped_rows"]["default"]


@dataclass(frozen=True, slots=True)
class EnvironmentReference:
    """An environment as the inventory listed it: enough to find it and to send to it.

    device_id: None if its row has none that can be used; it is then looked up in a listing.
    status: `online` if it could be worked with, else `offline`, as of the listing.
    self_update: what the environment says about updating itself (`supported`, `writable`, `reason`,
        `install_path`, `manual_command`), None if it says nothing.
    """

    provider: str
    id: str
    device_id: str | None
    connection_id: str | None
    base_url: str
    status: str
    self_update: Mapping[str, Any] | None

    def contract(self) -> dict[str, Any]:
        """The value of the host variable `fleetops_environment`."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(EnvironmentReference)}
        return values | {"self_update": None if self.self_update is None else dict(self.self_update)}

    def with_fields(self, fields: Mapping[str, Any]) -> Environment:
        """The environment with fields that were read from host variables."""
        return Environment(**self.contract(), fields=fields)

    @staticmethod
    def from_contract(value: Any) -> EnvironmentReference:
        """The environment that a host variable `fleetops_environment` describes.

        Raises FleetError when the variable is not what the inventory set.
        """
        value = remove_unsafe(value)
        if not isinstance(value, Mapping):
            raise FleetError(f"{CONTRACT} is not a dictionary")
        texts: dict[str, Any] = {name: value.get(name) for name in ("provider", "id", "base_url", "status")}
        maybe: dict[str, Any] = {name: value.get(name) or None for name in ("device_id", "connection_id")}
        for name, text in (texts | drop_blanks(maybe)).items():
            if not isinstance(text, str) or not text:
                raise FleetError(f"{CONTRACT}.{name} is not a text")
        self_update = value.get("self_update")
        return EnvironmentReference(
            **texts, **maybe, self_update=self_update if isinstance(self_update, Mapping) else None
        )


@dataclass(frozen=True, slots=True)
class Environment(EnvironmentReference):
    """An environment as the API describes it.

    fields: everything that is known of it, under snake_case names and as JSON values. Filters see them, they become
        host variables, and `environment_info` returns them.
    problem: what is malformed in its row, as one line; None if nothing is.
    """

    fields: Mapping[str, Any]
    problem: str | None = None

    def row(self) -> dict[str, Any]:
        """Its fields, with the host variable that makes a host of it."""
        return {**self.fields, CONTRACT: self.contract()}

    @property
    def away(self) -> str:
        """The word for its state if it cannot be worked with."""
        return "archived" if self.fields.get("archived") else "offline"


def describe_state(environment: Environment | None) -> str:
    """The state of an environment as one line; None stands for one that is no longer there."""
    if environment is None:
        return "no longer there"
    known = environment.fields
    seen_at, version, mode = (known[name] or "unknown" for name in ("last_seen_at", "version", "mode"))
    seen = f" (last seen at {seen_at})" if environment.status == "offline" else ""
    return one_line(f"{environment.status}{seen}, version {version}, mode {mode}")


def is_updatable(self_update: Mapping[str, Any] | None) -> bool:
    """Whether an environment can update itself: `supported` and `writable` are both true."""
    said = self_update or {}
    return said.get("supported") is True and said.get("writable") is True


def remove_unsafe(value: Any) -> Any:
    """Undo `{"__ansible_unsafe": text}`, in which AWX stores an exported inventory's untrusted text."""
    if isinstance(value, Mapping):
        if set(value) == {"__ansible_unsafe"}:
            return value["__ansible_unsafe"]
        return {key: remove_unsafe(item) for key, item in value.items()}
    return [remove_unsafe(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class Listing:
    """A provider's answer to a listing: the rows as its API sent them.

    fetched_at: when, by the server's clock. Which environments are online is judged at this moment, also when the rows
        come from a cache.
    next_after: the cursor of the next page, if the listing stopped before the end.
    starts: ids of the rows after which its pages began. With them the next listing can ask for all pages at once.
    """

    # asyncio.run makes a repr of its result, and that of many rows takes long.
    rows: Sequence[Mapping[str, Any]] = field(repr=False)
    fetched_at: datetime
    next_after: str | None = None
    starts: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class InvalidRow:
    """A row that is not as the API promises.

    id: its id as text, or its place in the listing. problem: the first fault, as one line.
    dropped: whether it has no id that can be used, and is therefore no environment.
    """

    id: str
    problem: str
    dropped: bool = False


# Of rows without an id so many are described one by one.
_MOST_DESCRIBED = 100
_NOT_DESCRIBED = InvalidRow("without an id", "id: missing or no text", dropped=True)


def validate_rows(
    rows: Sequence[Any], make: Callable[[Any], Environment]
) -> tuple[list[Environment], list[InvalidRow]]:
    """Rows as environments, and the rows that are not as the API promises.

    make: makes one from a row. Raises pydantic's ValidationError for a row that is dropped, as one without a text `id`.
    """
    valid: list[Environment] = []
    invalid: list[InvalidRow] = []
    described = 0
    for number, raw in enumerate(rows, start=1):
        identity = raw.get("id") if isinstance(raw, Mapping) else None
        has_id = isinstance(identity, str) and identity != ""
        if described == _MOST_DESCRIBED and not has_id:
            # Without an id the row is dropped. To validate and describe a million of them takes long, and much memory.
            invalid.append(_NOT_DESCRIBED)
            continue
        try:
            found = make(raw)
        except pydantic.ValidationError as error:
            name = one_line(identity, 80) if has_id else f"number {number}"
            invalid.append(InvalidRow(name, find_first_problem(error), dropped=True))
            described += not has_id
        else:
            valid.append(found)
            if found.problem is not None:
                invalid.append(InvalidRow(one_line(found.id, 80), found.problem))
    return valid, invalid


def check_dropped(invalid: Iterable[InvalidRow], rows: int, most: str | None = None) -> int:
    """How many of a listing's rows are dropped. Raises ApiError above `most`, a count or a percentage of all rows.

    most: None where there is no such option. The option's default is then the limit, and the error does not name it.
    """
    dropped = [row for row in invalid if row.dropped]
    limit = _MOST_DROPPED if most is None else most
    if len(dropped) > parse_share("max_dropped_rows", limit, rows):
        option = "" if most is None else "max_dropped_rows: "
        problem = f"{len(dropped)} of {rows} rows have no id that can be used, and {limit} may be dropped"
        raise ApiError(f"{option}{problem}; they are {describe_invalid(dropped)}", code="invalid")
    return len(dropped)


def describe_invalid(invalid: Sequence[InvalidRow], most: int = 5) -> str:
    """Rows that are not as the API promises, as one line: the first `most` by id, and how many more there are."""
    rows = sorted(invalid, key=lambda row: not row.dropped)
    shown = "; ".join(f"environment {row.id}{' (dropped)' * row.dropped}: {row.problem}" for row in rows[:most])
    more = f"; and {len(rows) - most} more" if len(rows) > most else ""
    return f"not as the API promises: {shown}{more}"


def note_invalid(invalid: Sequence[InvalidRow]) -> list[str]:
    """The line that warns of rows that are not as the API promises; none where all are as it does."""
    return [f"rows are {describe_invalid(invalid)}"] if invalid else []
