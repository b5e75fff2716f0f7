# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are written at once, or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from .errors import OptionError
from .text import one_line

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
