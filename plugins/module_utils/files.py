# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes files whole or not at all, and checks beforehand that they can be written."""

from __future__ import annotations

import operator
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from .errors import OptionError
from .text import one_line


def check_writable(option: str, path: str) -> None:
    """Raise OptionError when a file cannot be written at `path`. It is called before anything is sent."""
    if option == "result_file" and not path.endswith((".jsonl", ".csv")):
        raise OptionError(option, f"must end in .jsonl (JSON Lines) or .csv, got {path!r}")
    if Path(path).is_dir():
        raise OptionError(option, f"cannot write {path!r}: it is a directory")
    try:
        # Permissions do not tell it: root has them on a file system that is read-only or takes no files.
        with tempfile.TemporaryFile(dir=Path(path).absolute().parent):
            pass
    except OSError as error:
        raise OptionError(option, f"cannot write {path!r}: {one_line(error.strerror)}") from None


def check_directory(option: str, path: str) -> None:
    """Raise OptionError when `path` is no directory that can be written to, and none can be made there."""
    if Path(path).exists() and not Path(path).is_dir():
        raise OptionError(option, f"{path!r} is no directory")
    check_writable(option, str(Path(path, "file") if Path(path).is_dir() else path))


def make_directory(option: str, path: str) -> None:
    """Make a directory that only the user can read, unless there is one. Raises OptionError."""
    try:
        Path(path).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise OptionError(option, f"cannot make the directory {path!r}: {one_line(error.strerror)}") from None


def name_file(directory: str, name: str, ending: str) -> str:
    """The path of a file that is named after something. No name leads out of the directory."""
    safe = "".join(
        character if character.isprintable() and character not in "/\\%" else quote(character, safe="")
        for character in name
    )
    return str(Path(directory) / f"{safe}{ending}")


def differs_from(path: str, text: str, is_same: Callable[[str, str], bool] = operator.eq) -> bool:
    """Whether there is no such file, or its text is another one. is_same: compares two texts."""
    try:
        return not is_same(Path(path).read_bytes().decode(), text)
    except (OSError, UnicodeDecodeError):
        return True


def write_text(option: str, path: str, text: str, *, mode: int = 0o600) -> None:
    """Replace a file, or a link of that name, by a text. A reader never sees a part of it. Raises OptionError.

    mode: the permissions of the file.
    """
    temporary = ""
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", newline="", dir=Path(path).absolute().parent, delete=False
        ) as file:
            temporary = file.name
            file.write(text)
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise OptionError(option, f"cannot write {path!r}: {one_line(error.strerror)}") from None
