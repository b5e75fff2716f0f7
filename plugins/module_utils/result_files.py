# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that a fan-out leaves behind: a line for each target, and whom to try again."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .errors import OptionError, one_line

_FORMATS = (".jsonl", ".csv")


def check_writable(option: str, path: str) -> None:
    """Raise OptionError when a file cannot be written at `path`, so that it is known before anything is sent."""
    if option == "result_file" and not path.endswith(_FORMATS):
        raise OptionError(option, f"must end in .jsonl (JSON Lines) or .csv, got {path!r}")
    if Path(path).is_dir():
        raise OptionError(option, f"cannot write {path!r}: it is a directory")
    try:
        # Only trying tells: root may write where a file system is read-only or takes no files.
        with tempfile.TemporaryFile(dir=Path(path).absolute().parent):
            pass
    except OSError as error:
        raise OptionError(option, f"cannot write {path!r}: {one_line(error.strerror)}") from None


def check_directory(option: str, path: str) -> None:
    """Raise OptionError when there is no directory to write to, and none can be made at `path`."""
    if Path(path).exists() and not Path(path).is_dir():
        raise OptionError(option, f"{path!r} is no directory")
    check_writable(option, str(Path(path, "file") if Path(path).is_dir() else path))


def write_results(path: str, results: Sequence[Mapping[str, Any]]) -> None:
    """One line for each target: JSON Lines, or CSV where the name ends in `.csv`. Raises OptionError."""
    _write("result_file", path, _csv(results) if path.endswith(".csv") else _json_lines(results))


def write_hosts(path: str, hosts: Sequence[str]) -> None:
    """One host a line, as `--limit @file` reads it. Raises OptionError.

    No file is left when there are none: Ansible takes an empty one for no limit at all.
    """
    if hosts:
        _write("retry_file", path, [f"{host}\n" for host in hosts])
        return
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        raise OptionError("retry_file", f"cannot remove {path!r}: {one_line(error.strerror)}") from None


def make_directory(option: str, path: str) -> None:
    """Make a directory for the user alone unless there is one. Raises OptionError."""
    try:
        Path(path).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise OptionError(option, f"cannot make the directory {path!r}: {one_line(error.strerror)}") from None


def file_for(directory: str, name: str, ending: str) -> str:
    """The path of a file that is named after something, in the directory whatever that something is called."""
    safe = "".join(
        character if character.isprintable() and character not in "/\\%" else quote(character, safe="")
        for character in name
    )
    return str(Path(directory) / f"{safe}{ending}")


def differs(path: str, text: str) -> bool:
    """Whether there is no such file, or it holds another text."""
    try:
        return Path(path).read_bytes() != text.encode()
    except OSError:
        return True


def write_text(option: str, path: str, text: str, *, mode: int = 0o600) -> None:
    """Write a file, replacing one or a link of that name. mode: its permissions. Raises OptionError."""
    _write(option, path, [text], mode)


def _json_lines(results: Sequence[Mapping[str, Any]]) -> list[str]:
    return [json.dumps(result, ensure_ascii=False) + "\n" for result in results]


class _Lines(list[str]):
    """Collects what a csv writer writes."""

    def write(self, line: str) -> None:
        self.append(line)


def _csv(results: Sequence[Mapping[str, Any]]) -> Sequence[str]:
    if not results:
        return []
    lines = _Lines()
    writer = csv.DictWriter(lines, _flat(results[0]))
    writer.writeheader()
    for result in results:
        writer.writerow({name: _harmless(value) for name, value in _flat(result).items()})
    return lines


def _flat(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result with its error in two columns, at the end, and other structures as JSON."""
    error = result.get("error") or {}
    plain = {name: value for name, value in result.items() if name != "error"}
    for name, value in plain.items():
        if isinstance(value, (dict, list)):
            plain[name] = json.dumps(value, ensure_ascii=False)
    return {**plain, "error_code": error.get("code"), "error_message": error.get("message")}


def _harmless(value: Any) -> Any:
    """A spreadsheet takes a text that begins with one of these for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _write(option: str, path: str, lines: Sequence[str], mode: int = 0o600) -> None:
    """Replace the file at once, so that a reader never sees half of it."""
    temporary = ""
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", newline="", dir=Path(path).absolute().parent, delete=False
        ) as file:
            temporary = file.name
            file.writelines(lines)
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise OptionError(option, f"cannot write {path!r}: {one_line(error.strerror)}") from None
