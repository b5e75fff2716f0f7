# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as numbers, for the textfile collector of Prometheus' node exporter.

Source of the format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from .model import Report

# Each value is a time series that Prometheus keeps. All further values are counted together as `other`.
_MOST_VALUES = 20

_BY_DIMENSION = {
    "mode": "Environments by the permission mode they are in.",
    "os": "Environments by operating system.",
    "version": "Environments by the version they run.",
    "config_type": "Environments by the type of their configuration.",
    "networking_type": "Environments by the kind of network access.",
}

Samples = Iterable[tuple[Mapping[str, str], float]]


def render_metrics(report: Report, generated_at: datetime) -> str:
    """The text of a `.prom` file: no metric says anything of one environment alone."""
    return "".join(line for gauge in _find_gauges(report, generated_at) for line in _render_gauge(*gauge))


def _find_gauges(report: Report, generated_at: datetime) -> Iterator[tuple[str, str, Samples]]:
    """The name, the meaning and the samples of each metric."""
    written: Samples = [({}, round(generated_at.timestamp(), 3))]
    yield "fleetops_report_generated_timestamp_seconds", "When this report was written, as a Unix time.", written
    rows = report.environments
    found = _count_labels(("provider", "status"), [(row.provider, row.status) for row in rows])
    yield "fleetops_environments", "Environments of the fleet.", found
    for name, meaning in _BY_DIMENSION.items():
        values = [(row.provider, str(value)) for row in rows if (value := getattr(row, name)) is not None]
        yield f"fleetops_environments_by_{name}", meaning, _count_labels(("provider", name), values)
    found = _count_labels(("provider",), [(row.provider,) for row in rows if row.updatable])
    yield "fleetops_environments_updatable", "Environments that say they can update themselves.", found
    found = [
        ({"campaign": campaign.name, "status": status}, count)
        for campaign in report.campaigns
        for status, count in campaign.counts.items()
    ]
    yield "fleetops_campaign_deliveries", "Deliveries of a campaign by how they ended.", found
    if rollout := report.rollout:
        found = [({"rollout": rollout.name, "status": status}, count) for status, count in rollout.counts.items()]
        yield "fleetops_rollout_targets", "Targets of a rollout by how their update ended.", found
        found = _count_labels(("rollout", "state"), [(rollout.name, wave.state) for wave in rollout.waves])
        yield "fleetops_rollout_waves", "Waves of a rollout by their state.", found


def _count_labels(labels: Sequence[str], values: Iterable[tuple[str, ...]]) -> Samples:
    """How often each of the most frequent values comes, in an order that stays, and all the rest together."""
    found = Counter(values)
    kept = Counter(dict(found.most_common(_MOST_VALUES)))
    for value, count in found.items():
        if value not in kept:
            kept[(*value[:-1], "other")] += count
    return [(dict(zip(labels, value, strict=True)), count) for value, count in sorted(kept.items())]


def _render_gauge(name: str, meaning: str, samples: Samples) -> Iterator[str]:
    """A metric with its samples; nothing where there are none."""
    lines = [f"{name}{_render_labels(labels)} {value}\n" for labels, value in samples]
    if lines:
        yield f"# HELP {name} {meaning}\n# TYPE {name} gauge\n"
        yield from lines


def _render_labels(labels: Mapping[str, str]) -> str:
    pairs = [f'{name}="{_escape(value)}"' for name, value in labels.items()]
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
