# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action fleet_report: write a report on a fleet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ..module_utils.environment import Environment
from ..module_utils.errors import OptionError
from ..module_utils.ledger.deliveries import Deliveries
from ..module_utils.ledger.rollouts import export_rollout, list_rollout_names
from ..module_utils.ledger.store import Ledger, make_empty_ledger, open_to_show
from ..module_utils.report.files import MODES, check_path, render_file, report_differs, write_report
from ..module_utils.report.model import ReportedRollout, report_campaign, report_fleet, report_rollout
from ..plugin_utils.actions.base import EnvironmentAction
from ..plugin_utils.hosts import check_host, find_environments, find_left_out, read_fields


class ActionModule(EnvironmentAction):
    def execute(self, options: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        paths = {option: options[option] for option in MODES if options[option]}
        self._check(paths, task_vars)
        hosts = task_vars["ansible_play_hosts_all"] if options["hosts"] is None else options["hosts"]
        environments = _read_fleet(hosts, task_vars["hostvars"])
        if not environments and not options["allow_empty"]:
            raise OptionError("hosts", "none of them is an environment; set allow_empty=true where that is fine")
        # A report on neither needs no ledger.
        wanted = options["campaigns"] or options["rollout"]
        check_mode = bool(self._task.check_mode)
        with open_to_show(options["ledger"], check_mode=check_mode) if wanted else make_empty_ledger() as ledger:
            kept = Deliveries(ledger)
            campaigns = [report_campaign(name, kept.state(name), kept.records(name)) for name in options["campaigns"]]
            rollout = _report_rollout(ledger, options["rollout"])
        left_out = {name for environment in environments.values() for name in find_left_out(environment)}
        report = report_fleet(environments, campaigns, rollout, sorted(left_out & {"last_seen_at", "listed_at"}))
        now, files = datetime.now(UTC), []
        for option, path in paths.items():
            text = render_file(option, report, now)
            files.append({"path": path, "changed": report_differs(path, text)})
            if not self._task.check_mode:
                write_report(option, path, text)
        counts = report.count_values()
        statuses = ", ".join(f"{count} {status}" for status, count in counts.get("status", {}).items())
        blind = " and ".join(report.not_looked_at)
        note = f"; {blind} not looked at (volatile_variables of the inventory is false)" if blind else ""
        return {
            "changed": any(file["changed"] for file in files),
            "msg": f"{len(report.environments)} environments: {statuses or 'nothing to report'}{note}",
            "total": len(report.environments),
            "counts": counts,
            "files": files,
        }

    def _check(self, paths: Mapping[str, str], task_vars: Mapping[str, Any]) -> None:
        if not paths:
            raise OptionError("path", f"is needed, or one of {', '.join(list(MODES)[1:])}")
        for option, path in paths.items():
            check_path(option, path)
        self._require_run_once(next(iter(paths)), task_vars, "write the same files")


def _read_fleet(hosts: Sequence[Any], hostvars: Mapping[str, Any]) -> dict[str, Environment]:
    """Host → environment, with the fields that the inventory has. Hosts that are no environments are left out."""
    names = [check_host("hosts", host, hostvars) for host in hosts]
    return {
        host: environment.with_fields(read_fields(host, environment, hostvars))
        for host, environment in find_environments(names, hostvars)
    }


def _report_rollout(ledger: Ledger, name: str | None) -> ReportedRollout | None:
    if name is None:
        return None
    if record := export_rollout(ledger, name):
        return report_rollout(record)
    known = ", ".join(map(repr, list_rollout_names(ledger)))
    raise OptionError("rollout", f"the ledger has no rollout {name!r}; it has {known or 'none'}")
