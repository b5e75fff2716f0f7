# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report: a fleet as it was listed, and what became of each environment in campaigns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from ..environment import Environment, updatable
from ..text import iso_utc, one_line

# Of the shape of the JSON; a reader of it need not know how the page looks.
SCHEMA = 1
# What environments are counted by. Which of them a provider has shows from its fields.
DIMENSIONS = ("provider", "status", "mode", "os", "version", "config_type", "networking_type")
UNKNOWN = "unknown"
_LONGEST = 200
# Written at the beginning of each file, before anything that a device said.
_GENERATED = re.compile(r'("generated_at": ?)"[^"]*"|(^fleetops_report_generated_timestamp_seconds )\S+', re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One environment of the fleet.

    A dimension is None where the provider has no such field, and `unknown` where it has one without a value.
    updatable: whether it says that it can update itself, None where the provider has no such thing. reason: why not.
    last_seen_at: ISO 8601 in UTC.
    """

    host: str
    id: str
    provider: str
    status: str
    mode: str | None
    os: str | None
    version: str | None
    config_type: str | None
    networking_type: str | None
    updatable: bool | None
    not_updatable_reason: str | None
    last_seen_at: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedDelivery:
    """What became of one environment in a campaign. outcome: the code of its error, or how it was found to be sent."""

    host: str
    id: str
    status: str
    outcome: str | None
    reply_state: str | None
    attempt: int
    sent_at: str | None
    ended_at: str | None


@dataclass(frozen=True, slots=True)
class ReportedCampaign:
    """A campaign of the ledger. counts, replies: deliveries by status, and turns by what came of them."""

    name: str
    state: str
    counts: Mapping[str, int]
    replies: Mapping[str, int]
    deliveries: Sequence[ReportedDelivery]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedWave:
    """A wave of a rollout. size: how many targets are in it. reason: why it failed."""

    number: int
    size: int
    state: str
    started_at: str | None
    ended_at: str | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedTarget:
    """What became of one environment in a rollout.

    status: how its update ended, else why it has none (`current`, `offline`, `not_updatable`), else `waiting`.
    wave: None where it is in none. manual_command: how to update by hand what cannot update itself, in its own words.
    """

    host: str
    id: str
    status: str
    reason: str | None
    wave: int | None
    from_version: str | None
    to_version: str | None
    manual_command: str | None
    ended_at: str | None


@dataclass(frozen=True, slots=True)
class ReportedRollout:
    """A rollout of the ledger. version: the one that is wanted at least. counts: targets by status."""

    name: str
    version: str
    state: str
    planned_at: str
    counts: Mapping[str, int]
    waves: Sequence[ReportedWave]
    targets: Sequence[ReportedTarget]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that the report is about.

    listed_at: when the newest of the rows was listed, None where no provider says so.
    """

    listed_at: str | None
    environments: Sequence[Listed]
    campaigns: Sequence[ReportedCampaign] = ()
    rollout: ReportedRollout | None = None

    def counts(self) -> dict[str, dict[str, int]]:
        """How many environments have each value of each dimension that any has; the most frequent first."""
        found = {name: _counted(getattr(row, name) for row in self.environments) for name in DIMENSIONS}
        return {name: values for name, values in found.items() if values}

    def as_json(self, generated_at: datetime) -> dict[str, Any]:
        """The report as JSON values; the time of its generation comes first."""
        return {
            "generated_at": iso_utc(generated_at),
            "schema": SCHEMA,
            "fleet": {"total": len(self.environments), "listed_at": self.listed_at, "counts": self.counts()},
            "environments": [asdict(row) for row in self.environments],
            "rollout": asdict(self.rollout) if self.rollout else None,
            "campaigns": [asdict(campaign) for campaign in self.campaigns],
        }


def fleet_report(
    fleet: Mapping[str, Environment], campaigns: Sequence[ReportedCampaign] = (), rollout: ReportedRollout | None = None
) -> Report:
    """The report on the environments that hosts of the inventory are. Their `fields` say what is known of them."""
    listed_at = [text for item in fleet.values() if (text := _text(item.fields.get("listed_at")))]
    rows = [_listed(host, environment) for host, environment in sorted(fleet.items())]
    return Report(max(listed_at, default=None), rows, campaigns, rollout)


def campaign_report(name: str, state: str, records: Iterable[Mapping[str, Any]]) -> ReportedCampaign:
    """A campaign, from the records that the ledger has of it."""
    deliveries = [
        ReportedDelivery(
            host=one_line(record["host"], _LONGEST),
            id=record["environment_id"],
            status=record["status"],
            outcome=_text(record["outcome"]),
            reply_state=record["reply_state"],
            attempt=record["attempt"],
            sent_at=record["sent_at"],
            ended_at=record["ended_at"],
        )
        for record in records
    ]
    return ReportedCampaign(
        name=one_line(name, _LONGEST),
        state=state,
        counts=_counted(delivery.status for delivery in deliveries),
        replies=_counted(delivery.reply_state for delivery in deliveries),
        deliveries=deliveries,
    )


def rollout_report(record: Mapping[str, Any]) -> ReportedRollout:
    """A rollout, from the record that the ledger has of it."""
    targets = [
        ReportedTarget(
            host=one_line(target["host"], _LONGEST),
            id=target["environment_id"],
            status=target["status"] or ("waiting" if target["preflight"] == "updatable" else target["preflight"]),
            reason=_text(target["reason"]),
            wave=target["wave"],
            from_version=_text(target["from_version"]),
            to_version=_text(target["to_version"]),
            manual_command=_text(target["manual_command"]),
            ended_at=target["ended_at"],
        )
        for target in record["targets"]
    ]
    return ReportedRollout(
        name=one_line(record["name"], _LONGEST),
        version=one_line(record["version"], _LONGEST),
        state=record["state"],
        planned_at=record["planned_at"],
        counts=_counted(target.status for target in targets),
        waves=[
            ReportedWave(
                number=wave["number"],
                size=wave["size"],
                state=wave["state"],
                started_at=wave["started_at"],
                ended_at=wave["ended_at"],
                reason=_text(wave["reason"]),
            )
            for wave in record["waves"]
        ],
        targets=targets,
    )


def same_but_for_the_time(text: str, other: str) -> bool:
    """Whether two files of the report differ in nothing but the time of their generation."""
    return _without_time(text) == _without_time(other)


def _without_time(text: str) -> str:
    return _GENERATED.sub(r"\1\2", text, count=1)


def _listed(host: str, environment: Environment) -> Listed:
    fields = environment.fields
    of_provider = {name: (_text(fields[name]) or UNKNOWN) if name in fields else None for name in DIMENSIONS[2:]}
    says = environment.self_update or {}
    can_update = updatable(environment.self_update) if "updatable" in fields else None
    return Listed(
        host=one_line(host, _LONGEST),
        id=one_line(environment.id, _LONGEST),
        provider=environment.provider,
        # Qoder's own word where there is one: online says only that it takes messages.
        status=_text(fields.get("status")) or environment.status,
        **of_provider,
        updatable=can_update,
        not_updatable_reason=_text(says.get("reason")) if can_update is False else None,
        last_seen_at=_text(fields.get("last_seen_at")),
    )


def _counted(values: Iterable[str | None]) -> dict[str, int]:
    found = Counter(value for value in values if value is not None)
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _text(value: Any) -> str | None:
    return one_line(value, _LONGEST) or None if isinstance(value, str) else None
