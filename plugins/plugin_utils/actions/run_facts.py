# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who runs which playbook, for the ledger that a run opens."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.utils.display import Display

from ...module_utils.ledger.schema import RunFacts
from ...module_utils.ledger.store import Ledger, Location, open_ledger

# What shows that this is a container: files of Podman and Docker, variables of Podman and Kubernetes.
_FILES, _VARIABLES = ("/run/.containerenv", "/.dockerenv"), {"container", "KUBERNETES_SERVICE_HOST"}


def open_ledger_for(location: Location, task: Any, variables: Mapping[str, Any]) -> Ledger:
    """The ledger opened for a run of this task. Warns of one that a container may take with it. Raises OptionError."""
    if isinstance(location, Path) and _is_container() and not any(location.parent.glob("*")):
        lost = f"ledger: {str(location)!r} is the first file of a directory in a container, and would end with it"
        Display().warning(f"{lost}; have the directory mounted, or give a postgresql:// URL")
    return open_ledger(location, find_run_facts(task, variables))


def _is_container() -> bool:
    return any(map(os.path.exists, _FILES)) or not _VARIABLES.isdisjoint(os.environ)


def find_run_facts(task: Any, variables: Mapping[str, Any]) -> RunFacts:
    """The user, the AWX job and its user where there is one, and the playbook.

    AWX gives a job the extra variables awx_job_id and, where a person started it and no schedule, awx_user_name; the
    same as tower_...; and JOB_ID with AWX_HOST in its environment. Source: awx_meta_vars in its models/unified_jobs.py
    and jobs.py, JOB_VARIABLE_PREFIXES in its constants.py, RunJob.build_env in its tasks/jobs.py (October 2024).
    """
    job_id = variables.get("awx_job_id") or variables.get("tower_job_id")
    if not job_id and "AWX_HOST" in os.environ:
        job_id = os.environ.get("JOB_ID")
    user = variables.get("awx_user_name") or variables.get("tower_user_name")
    return RunFacts(
        os_user=_find_os_user(),
        awx_job_id=str(job_id) if job_id else None,
        awx_user=str(user) if user else None,
        # The place is "path:line".
        playbook=str(task.get_play().get_path()).rpartition(":")[0] or None,
    )


def _find_os_user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        # A container may run under an id that has no name.
        return str(os.getuid())
