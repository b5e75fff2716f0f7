# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a fan-out: a line for each target, and which hosts to try again; and the lines of an earlier one."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import OptionError
from ..files import write_text
from ..text import one_line

# A spreadsheet takes such a text for a formula, also with full-width or small signs.
_FORMULA = re.compile(r"[\t\r\n]|\s*[=+\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b]")


def write_results(path: str, results: Sequence[Mapping[str, Any]]) -> None:
    """One line for each target: JSON Lines, or CSV where the name ends in `.csv`. Raises OptionError."""
    if path.endswith(".csv"):
        write_text("result_file", path, _write_csv(results))
    else:
        write_text("result_file", path, "".join(json.dumps(result, ensure_ascii=False) + "\n" for result in results))


def write_hosts(path: str, hosts: Sequence[str]) -> None:
    """One host a line, as `--limit @file` reads it. Raises OptionError.

    No file is left when there are none: Ansible takes an empty one for no limit at all.
    """
    if hosts:
        write_text("retry_file", path, "".join(f"{host}\n" for host in hosts))
        return
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        raise OptionError("retry_file", f"cannot remove {path!r}: {one_line(error.strerror)}") from None


def read_results(path: str) -> list[dict[str, Any]]:
    """The results that `write_results` has written. Raises OptionError for `earlier_results`."""
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            if path.endswith(".csv"):
                return [dict(row) for row in csv.DictReader(file)]
            results = [json.loads(line) for line in file if line.strip()]
            return [result for result in results if isinstance(result, dict)]
    except OSError as error:
        raise OptionError("earlier_results", f"cannot read {path!r}: {one_line(error.strerror)}") from None
    except (ValueError, csv.Error) as error:
        raise OptionError("earlier_results", f"{path!r} is no result file: {one_line(error)}") from None


def _write_csv(results: Sequence[Mapping[str, Any]]) -> str:
    if not results:
        return ""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _flatten(results[0]))
    writer.writeheader()
    for result in results:
        writer.writerow({name: _escape_formula(value) for name, value in _flatten(result).items()})
    return text.getvalue()


def _flatten(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result with its error in two columns, at the end, and other structures as JSON."""
    error = result.get("error") or {}
    plain = {name: value for name, value in result.items() if name != "error"}
    for name, value in plain.items():
        if isinstance(value, (dict, list)):
            plain[name] = json.dumps(value, ensure_ascii=False)
    return {**plain, "error_code": error.get("code"), "error_message": error.get("message")}


def _escape_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value
