# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders the files of a report, and says whether they changed."""

from __future__ import annotations

import json
import stat
from datetime import datetime
from pathlib import Path

from ..errors import OptionError
from ..files import check_writable, differs_from, write_text
from .metrics import render_metrics
from .model import Report, equals_except_time
from .page import render_page

# The options that name the files, and the permissions of a new one: the exporter runs as a user of its own.
MODES = {"path": 0o600, "json_path": 0o600, "metrics_path": 0o644}


def check_path(option: str, path: str) -> None:
    """Raise OptionError if a file cannot be written, or if the exporter would not read it."""
    if option == "metrics_path" and not path.endswith(".prom"):
        raise OptionError(option, f"must end in .prom, since the exporter reads no other files, got {path!r}")
    check_writable(option, path)


def render_file(option: str, report: Report, generated_at: datetime) -> str:
    """What the file that an option names is to hold."""
    match option:
        case "path":
            return render_page(report.to_json(generated_at))
        case "json_path":
            return json.dumps(report.to_json(generated_at), ensure_ascii=False, indent=2) + "\n"
        case _:
            return render_metrics(report, generated_at)


def report_differs(path: str, text: str) -> bool:
    """Whether there is no such file, or its text differs in more than the time of the report."""
    return differs_from(path, text, equals_except_time)


def write_report(option: str, path: str, text: str) -> None:
    """Replace the file at once, with the permissions that it had. Raises OptionError."""
    try:
        before = Path(path).lstat().st_mode
    except OSError:
        before = 0
    # A link is replaced, and what it leads to says nothing of the report.
    mode = stat.S_IMODE(before) if stat.S_ISREG(before) else MODES[option]
    write_text(option, path, text, mode=mode)
