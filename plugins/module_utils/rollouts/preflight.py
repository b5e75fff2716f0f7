# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The preflight of a rollout: which targets have the version, can be updated, or cannot and why. It only reads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..environment import Environment, describe_state
from ..errors import ApiError, FleetError
from ..fleet.drain import Drain
from ..fleet.fan_out import Outcome, ProviderRun, Target
from ..fleet.jobs import on_each
from ..fleet.update import explain_no_command
from ..http.settings import HttpSettings
from ..ledger.schema import UPDATABLE, RolloutTarget
from ..providers.letta.client import Client, Query
from ..providers.letta.manual_command import find_manual_command
from ..providers.letta.models import read_environments
from ..text import one_line
from ..versions import explain_incomparable, is_at_least, parse_version

_MOST_SHOWN = 5


async def find_preflights(
    run: ProviderRun, version: str, containers: str = "last", *, drain: Drain
) -> list[RolloutTarget]:
    """Look at every target before a rollout to a version; returns them in the same order.

    containers: `last`, or `skip` to leave devices in containers to be updated by hand. drain: finds who is busy.
    Raises FleetError if a target cannot be looked up: a rollout keeps its plan, so a plan must not leave targets out.
    """
    classified: dict[str, RolloutTarget] = {}

    async def look(client: Client, target: Target, outcome: Outcome) -> None:
        found = await client.resolve(target.environment, among=len(run.targets))
        plan = classify_target(target, found, version, containers)
        if found is not None and plan.preflight in UPDATABLE:
            try:
                work = await drain.find_work(client, target, found)
                plan = replace(plan, reason=work and f"busy: {work}")
            except ApiError as error:
                # The update looks again.
                plan = replace(plan, reason=one_line(f"not looked at: {error}", 500))
        classified[target.host] = plan
        outcome.status = "ok"

    looks = await on_each(run, Outcome.make, look)
    failures = [f"{outcome.host}: {outcome.error['message']}" for outcome in looks if outcome.error is not None]
    if failures:
        shown = "; ".join(failures[:_MOST_SHOWN])
        raise FleetError(f"nothing was planned, as targets cannot be looked up: {shown}")
    return [classified[target.host] for target in run.targets]


async def find_devices(settings: HttpSettings) -> dict[str, str]:
    """Environment → its device, of all environments. Raises ApiError."""
    async with Client(settings) as client:
        found, _invalid = read_environments(await client.list(Query()), settings.base_url)
    return {one.id: one.device_id or one.id for one in found}


def classify_target(target: Target, found: Environment | None, version: str, containers: str) -> RolloutTarget:
    """A target by what was found of it; None stands for an environment that is no longer there.

    An offline target that was last seen on the version is current. Only targets that cannot update themselves get the
    manual command.
    """
    version_now = found.fields["version"] if found is not None else None
    known: dict[str, Any] = {"host": target.host, "environment_id": target.environment.id, "from_version": version_now}
    if is_at_least(version_now, version):
        return RolloutTarget(**known, preflight="current")
    if found is None or found.status != "online":
        return RolloutTarget(**known, preflight="offline", reason=describe_state(found))
    why_not = explain_no_command(found)
    if parse_version(version_now) is None:
        why_not = explain_incomparable(version_now, version)
    # Where Letta Code is the first process of a container, the container ends with it.
    machine = found.fields["metadata"].get("machine")
    at_risk = isinstance(machine, dict) and machine.get("model") == "Container"
    if why_not is None and at_risk and containers == "skip":
        why_not = "it is in a container, where an update may be its end, and containers are left out"
    if why_not is None:
        return RolloutTarget(**known, preflight="at_risk" if at_risk else "updatable")
    path = (found.self_update or {}).get("install_path")
    return RolloutTarget(
        **known,
        preflight="not_updatable",
        reason=why_not,
        manual_command=one_line(find_manual_command(found.self_update) or "") or None,
        install_path=one_line(path) if isinstance(path, str) and path else None,
    )
