# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report: a fleet as it was listed, and what happened to each environment in campaigns and a rollout."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

from .._deps import pydantic
from ..environment import Environment, is_updatable
from ..text import format_time, one_line

SCHEMA = 1
DIMENSIONS = ("provider", "status", "mode", "os", "version", "config_type", "networking_type")
UNKNOWN = "unknown"
_LONGEST = 200
_GENERATED = re.compile(r'("generated_at": ?)"[^"]*"|(^fleetops_report_generated_timestamp_seconds )\S+', re.MULTILINE)


def _clean(value: Any) -> str | None:
    """A text of a device or a user as one short line; None for no text."""
    return one_line(value, _LONGEST) or None if isinstance(value, str) else None


_Clean = pydantic.BeforeValidator(_clean)
Line = Annotated[str, pydantic.BeforeValidator(lambda value: one_line(value, _LONGEST))]


class FleetRow(pydantic.BaseModel):
    """One environment of the fleet.

    A dimension is None if the provider has no such field, and `unknown` if the field has no value.
    updatable: whether it says that it can update itself, None if the provider has no such field.
    last_seen_at: ISO 8601 in UTC.
    """

    host: Line
    id: Line
    provider: str
    status: str
    mode: str | None
    os: str | None
    version: str | None
    config_type: str | None
    networking_type: str | None
    updatable: bool | None
    not_updatable_reason: Annotated[str | None, _Clean]
    last_seen_at: Annotated[str | None, _Clean]


class ReportedDelivery(pydantic.BaseModel):
    """What happened to one environment in a campaign, from its record in the ledger.

    outcome: the code of its error, or how it was found to be sent.
    """

    host: Line
    id: str = pydantic.Field(validation_alias="environment_id")
    status: str
    outcome: Annotated[str | None, _Clean]
    reply_state: str | None
    attempt: int
    sent_at: str | None
    ended_at: str | None


class ReportedCampaign(pydantic.BaseModel):
    """A campaign of the ledger. counts: deliveries by status. replies: turns by how they ended."""

    name: Line
    state: str
    counts: Mapping[str, int]
    replies: Mapping[str, int]
    deliveries: Sequence[ReportedDelivery]


class ReportedWave(pydantic.BaseModel):
    """A wave of a rollout. size: its number of targets. reason: why it failed."""

    number: int
    size: int
    state: str
    started_at: str | None
    ended_at: str | None
    reason: Annotated[str | None, _Clean]


class ReportedTarget(pydantic.BaseModel):
    """What happened to one environment in a rollout, from its record in the ledger.

    status: how its update ended, else why it has none (`current`, `offline`, `not_updatable`), else `waiting`.
    wave: None if it is in no wave. manual_command: how to update it by hand, in the device's own words.
    """

    host: Line
    id: str = pydantic.Field(validation_alias="environment_id")
    status: str
    reason: Annotated[str | None, _Clean]
    wave: int | None
    from_version: Annotated[str | None, _Clean]
    to_version: Annotated[str | None, _Clean]
    manual_command: Annotated[str | None, _Clean]
    ended_at: str | None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _complete_status(cls, record: Mapping[str, Any]) -> dict[str, Any]:
        planned = "waiting" if record["wave"] is not None else record["preflight"]
        return {**record, "status": record["status"] or planned}


class ReportedRollout(pydantic.BaseModel):
    """A rollout of the ledger. version: the lowest one wanted. counts: targets by status."""

    name: Line
    version: Line
    state: str
    planned_at: str
    counts: Mapping[str, int]
    waves: Sequence[ReportedWave]
    targets: Sequence[ReportedTarget]


class Report(pydantic.BaseModel):
    """Everything that the report is about.

    listed_at: when the newest of the rows was listed, None if no provider says so.
    not_looked_at: `listed_at` and `last_seen_at`, if the inventory leaves them out.
    """

    listed_at: str | None
    not_looked_at: Sequence[str]
    environments: Sequence[FleetRow]
    rollout: ReportedRollout | None
    campaigns: Sequence[ReportedCampaign]

    def count_values(self) -> dict[str, dict[str, int]]:
        """How many environments have each value of each dimension that occurs; the most frequent first."""
        found = {name: _count(getattr(row, name) for row in self.environments) for name in DIMENSIONS}
        return {name: values for name, values in found.items() if values}

    def to_json(self, generated_at: datetime) -> dict[str, Any]:
        """The report as JSON values; the time of its generation comes first."""
        of_fleet = {"listed_at", "not_looked_at"}
        fleet = {"total": len(self.environments), "counts": self.count_values(), **self.model_dump(include=of_fleet)}
        head = {"generated_at": format_time(generated_at), "schema": SCHEMA, "fleet": fleet}
        return head | self.model_dump(exclude=of_fleet)


def report_fleet(
    fleet: Mapping[str, Environment],
    campaigns: Sequence[ReportedCampaign] = (),
    rollout: ReportedRollout | None = None,
    not_looked_at: Sequence[str] = (),
) -> Report:
    """The report on a fleet. fleet: host name → environment, whose `fields` say what is known of it."""
    listed_at = [text for item in fleet.values() if (text := _clean(item.fields.get("listed_at")))]
    rows = [_report_environment(host, environment) for host, environment in sorted(fleet.items())]
    newest = max(listed_at, default=None)
    blind = list(not_looked_at)
    return Report(listed_at=newest, not_looked_at=blind, environments=rows, rollout=rollout, campaigns=campaigns)


def report_campaign(name: str, state: str, records: Iterable[Mapping[str, Any]]) -> ReportedCampaign:
    deliveries = [ReportedDelivery.model_validate(record) for record in records]
    counts = _count(delivery.status for delivery in deliveries)
    replies = _count(delivery.reply_state for delivery in deliveries)
    return ReportedCampaign(name=name, state=state, counts=counts, replies=replies, deliveries=deliveries)


def report_rollout(record: Mapping[str, Any]) -> ReportedRollout:
    targets = [ReportedTarget.model_validate(target) for target in record["targets"]]
    return ReportedRollout(**{**record, "targets": targets, "counts": _count(target.status for target in targets)})


def equals_except_time(text: str, other: str) -> bool:
    """Whether two files of the report differ in nothing but the time of their generation."""
    text, other = (_GENERATED.sub(r"\1\2", each, count=1) for each in (text, other))
    return text == other


def _report_environment(host: str, environment: Environment) -> FleetRow:
    fields = environment.fields
    of_provider = {name: (_clean(fields[name]) or UNKNOWN) if name in fields else None for name in DIMENSIONS[2:]}
    can_update = is_updatable(environment.self_update) if "updatable" in fields else None
    return FleetRow(
        host=host,
        id=environment.id,
        provider=environment.provider,
        # Qoder has a status of its own; `online` says only that an environment takes messages.
        status=_clean(fields.get("status")) or environment.status,
        **of_provider,
        updatable=can_update,
        not_updatable_reason=(environment.self_update or {}).get("reason") if can_update is False else None,
        last_seen_at=fields.get("last_seen_at"),
    )


def _count(values: Iterable[str | None]) -> dict[str, int]:
    found = Counter(value for value in values if value is not None)
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
