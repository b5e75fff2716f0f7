# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Letta's wire models. Source: the API reference, "Environments". Keys that real devices send beyond it are kept."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from ..._deps import pydantic
from ...environment import Environment, InvalidRow, Listing, is_updatable, validate_rows
from ...text import format_time

NAME = "letta"
# An environment is online while its last heartbeat is younger than this.
HEARTBEAT_LIMIT = timedelta(seconds=120)

# Older names of modes, which devices still accept.
_RENAMED_MODES = {"default": "standard", "bypassPermissions": "unrestricted", "fullAccess": "unrestricted"}

# Up to 9999-12-31T23:59:59Z, the last moment that a date can hold.
_Milliseconds = Annotated[float, pydantic.Field(ge=0, le=253402300799000, allow_inf_nan=False)]


class _Wire(pydantic.BaseModel):
    """Reads the API's camelCase and keeps unknown keys."""

    model_config = pydantic.ConfigDict(alias_generator=pydantic.alias_generators.to_camel, extra="allow")


class SelfUpdate(pydantic.BaseModel):
    """What a device says about updating itself."""

    supported: bool
    writable: bool
    install_path: str | None = None
    manual_command: str | None = None
    reason: str | None = None


class Metadata(_Wire):
    """What a device says of itself when it registers."""

    git_branch: str | None = None
    letta_code_version: str | None = None
    node_version: str | None = None
    os: str | None = None
    self_update: SelfUpdate | None = pydantic.Field(default=None, alias="self_update")
    supported_commands: list[str] | None = pydantic.Field(default=None, alias="supported_commands")
    working_directory: str | None = None


class Row(_Wire):
    """One environment connection as the list and retrieve calls return it. Times are epoch milliseconds."""

    id: str = pydantic.Field(min_length=1)
    device_id: str = pydantic.Field(min_length=1)
    connection_id: str | None
    connection_name: str
    organization_id: str
    pod_id: str | None
    connected_at: _Milliseconds | None
    last_heartbeat: _Milliseconds | None
    first_seen_at: _Milliseconds
    last_seen_at: _Milliseconds
    api_key_owner: str | None = None
    # An unknown mode is data: newer devices may report modes that the reference does not list.
    current_mode: str | None = None
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
    """The rows of a listing as environments, and those that do not validate.

    online_only: leave out offline environments. The API returns some of them even with `onlineOnly`.
    """
    found, invalid = validate_rows(
        listing.rows, lambda raw: read_environment(Row.model_validate(raw), raw, base_url, listing.fetched_at)
    )
    return [item for item in found if item.status == "online" or not online_only], invalid


def read_environment(row: Row, raw: Mapping[str, Any], base_url: str, now: datetime) -> Environment:
    """A row as an Environment, online or not as of `now`."""
    metadata = row.metadata or Metadata()
    status = "online" if _is_online(row, now) else "offline"
    self_update = (raw.get("metadata") or {}).get("self_update")
    fields: dict[str, Any] = {
        "id": row.id,
        "device_id": row.device_id,
        "connection_id": row.connection_id or None,
        "connection_name": row.connection_name,
        "listener_instance_id": row.listener_instance_id,
        "organization_id": row.organization_id,
        "user_id": row.user_id,
        "api_key_owner": row.api_key_owner,
        "pod_id": row.pod_id,
        "mode": row.current_mode,
        "os": metadata.os,
        "version": metadata.letta_code_version,
        "node_version": metadata.node_version,
        "git_branch": metadata.git_branch,
        "working_directory": metadata.working_directory,
        "self_update": self_update,
        "supported_commands": metadata.supported_commands,
        "online": status == "online",
        "status": status,
        "updatable": is_updatable(self_update),
        "connected_at": _write_time(row.connected_at),
        "last_heartbeat": _write_time(row.last_heartbeat),
        "last_seen_at": _write_time(row.last_seen_at),
        "first_seen_at": _write_time(row.first_seen_at),
        "listed_at": format_time(now),
        # The rest of the metadata is in the fields above; both would make an inventory a quarter larger.
        "metadata": dict(metadata.model_extra or {}),
        "extra": dict(row.model_extra or {}),
    }
    return Environment(
        provider=NAME,
        id=row.id,
        device_id=row.device_id,
        connection_id=row.connection_id or None,
        base_url=base_url,
        status=status,
        self_update=self_update,
        fields=fields,
    )


def is_same_mode(one: str | None, other: str | None) -> bool:
    """Whether two modes mean the same: `default` is `standard`, `bypassPermissions` is `unrestricted`."""
    return _RENAMED_MODES.get(str(one), one) == _RENAMED_MODES.get(str(other), other)


# The fields of every row. Expressions are checked against them, and the documentation lists them.
FIELDS: tuple[str, ...] = (
    "id", "device_id", "connection_id", "connection_name", "listener_instance_id", "organization_id", "user_id",
    "api_key_owner", "pod_id", "mode", "os", "version", "node_version", "git_branch", "working_directory",
    "self_update", "supported_commands", "online", "status", "updatable", "connected_at", "last_heartbeat",
    "last_seen_at", "first_seen_at", "listed_at", "metadata", "extra",
)  # fmt: skip


def _is_online(row: Row, now: datetime) -> bool:
    """The API's own rule: a connection, and a heartbeat younger than 120 s."""
    if not row.connection_id or row.last_heartbeat is None:
        return False
    return now - _read_time(row.last_heartbeat) < HEARTBEAT_LIMIT


def _read_time(milliseconds: float) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _write_time(milliseconds: float | None) -> str | None:
    return None if milliseconds is None else format_time(_read_time(milliseconds))
