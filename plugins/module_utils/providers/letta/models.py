# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Letta's wire models. Source: the API reference, "Environments". Keys that real devices send beyond it are kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from ..._deps import pydantic
from ...environment import Environment, InvalidRow, Listing, is_updatable, validate_rows
from ...text import format_time
from ..rows import Items, Part, Readable, RowId, read_row

NAME = "letta"
# An environment is online while its last heartbeat is younger than this.
HEARTBEAT_LIMIT = timedelta(seconds=120)

# Older names of modes, which devices still accept.
RENAMED_MODES = {"default": "standard", "bypassPermissions": "unrestricted", "fullAccess": "unrestricted"}

# Read from epoch milliseconds, up to 9999-12-31T23:59:59Z, the last moment that a date can hold.
_Time = Annotated[
    float,
    pydantic.Field(strict=True, ge=0, le=253402300799000, allow_inf_nan=False),
    pydantic.AfterValidator(lambda milliseconds: datetime.fromtimestamp(milliseconds / 1000, UTC)),
]


class _Wire(pydantic.BaseModel):
    """Reads the API's camelCase and keeps unknown keys."""

    model_config = pydantic.ConfigDict(alias_generator=pydantic.alias_generators.to_camel, extra="allow")


class SelfUpdate(pydantic.BaseModel):
    """What a device says about updating itself."""

    supported: pydantic.StrictBool
    writable: pydantic.StrictBool
    install_path: str | None = None
    manual_command: str | None = None
    reason: str | None = None


class Metadata(_Wire, Part):
    """What a device says of itself when it registers."""

    git_branch: str | None = None
    version: str | None = pydantic.Field(default=None, alias="lettaCodeVersion")
    node_version: str | None = None
    os: str | None = None
    self_update: SelfUpdate | None = pydantic.Field(default=None, alias="self_update")
    supported_commands: Items[str] | None = pydantic.Field(default=None, alias="supported_commands")
    working_directory: str | None = None


class Row(_Wire):
    """One environment connection as the list and retrieve calls return it."""

    id: RowId
    device_id: RowId
    connection_id: Readable | None = None
    connection_name: str
    organization_id: str
    pod_id: str | None = None
    connected_at: _Time | None = None
    last_heartbeat: _Time | None = None
    first_seen_at: _Time
    last_seen_at: _Time
    api_key_owner: str | None = None
    # An unknown mode is data: newer devices may report modes that the reference does not list.
    mode: str | None = pydantic.Field(default=None, alias="currentMode")
    listener_instance_id: str | None = None
    metadata: Metadata | None = None
    user_id: str | None = None


class EnvironmentPage(pydantic.BaseModel):
    connections: list[Any]
    has_next_page: pydantic.StrictBool = pydantic.Field(alias="hasNextPage")


class SendResult(pydantic.BaseModel):
    message: str = ""
    success: pydantic.StrictBool


def read_environments(
    listing: Listing, base_url: str, *, online_only: bool = False
) -> tuple[list[Environment], list[InvalidRow]]:
    """The rows of a listing as environments, and those that are not as the API promises.

    online_only: leave out offline environments. The API returns some of them even with `onlineOnly`.
    """
    found, invalid = validate_rows(listing.rows, lambda raw: read_environment(raw, base_url, listing.fetched_at))
    return [item for item in found if item.status == "online" or not online_only], invalid


def read_environment(raw: Any, base_url: str, now: datetime) -> Environment:
    """A row as an Environment, online or not as of `now`. Raises pydantic's ValidationError for one without an id."""
    row, flaws = read_row(Row, raw)
    metadata = row.metadata or Metadata()
    # The API's own rule.
    is_fresh = row.last_heartbeat is not None and now - row.last_heartbeat < HEARTBEAT_LIMIT
    status = "online" if row.connection_id and is_fresh else "offline"
    self_update = raw["metadata"]["self_update"] if metadata.self_update is not None else None
    known: dict[str, Any] = {
        **vars(metadata),
        **vars(row),
        **{name: format_time(value) for name, value in vars(row).items() if isinstance(value, datetime)},
        "connection_id": row.connection_id or None,
        "effective_mode": get_effective_mode(row.mode),
        "self_update": self_update,
        "online": status == "online",
        "status": status,
        "updatable": is_updatable(self_update),
        "listed_at": format_time(now),
        # The rest of the metadata is in the fields above; both would make an inventory a quarter larger.
        "metadata": flaws.add_to(metadata.model_extra),
        "extra": dict(row.model_extra or {}),
        "invalid": sorted(flaws),
    }
    return Environment(
        provider=NAME,
        id=row.id,
        device_id=row.device_id,
        connection_id=row.connection_id or None,
        base_url=base_url,
        status=status,
        self_update=self_update,
        fields={name: known[name] for name in FIELDS},
        problem=flaws.describe(),
    )


def get_effective_mode(mode: str | None) -> str | None:
    """What a device reads a mode as; None for an unknown one."""
    return RENAMED_MODES.get(str(mode), mode)


def is_same_mode(one: str | None, other: str | None) -> bool:
    """Whether two modes mean the same: `default` is `standard`, `bypassPermissions` is `unrestricted`."""
    return get_effective_mode(one) == get_effective_mode(other)


# The fields of every row. Expressions are checked against them, and the documentation lists them.
FIELDS: tuple[str, ...] = (
    "id", "device_id", "connection_id", "connection_name", "listener_instance_id", "organization_id", "user_id",
    "api_key_owner", "pod_id", "mode", "effective_mode", "os", "version", "node_version", "git_branch",
    "working_directory", "self_update", "supported_commands", "online", "status", "updatable", "connected_at",
    "last_heartbeat", "last_seen_at", "first_seen_at", "listed_at", "metadata", "extra", "invalid",
)  # fmt: skip
