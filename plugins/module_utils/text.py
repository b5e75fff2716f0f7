# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Texts as the collection writes them: one printable line, short hashes, times in UTC."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

# How many characters of a text are read for each one of a line; the others may be blanks.
_READ = 16


def one_line(text: object, limit: int = 300) -> str:
    """Text from anywhere as one printable line of at most `limit` characters."""
    whole = str(text).strip()
    # What a peer says may have megabytes.
    start = whole[: limit * _READ]
    if not start.isprintable():
        start = "".join(character if character.isprintable() else " " for character in start)
    line = " ".join(start.split())
    return line if len(line) <= limit and len(whole) <= limit * _READ else line[: limit - 1] + "…"


def join_first(texts: Sequence[str], most: int, separator: str = "; ") -> str:
    """The first `most` of some texts, and how many more there are."""
    more = [f"and {len(texts) - most} more"] if len(texts) > most else []
    return separator.join([*texts[:most], *more])


def find_nearest(name: object, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The name that is most like another one; None where less than `cutoff` (0 to 1) is the same in each."""
    return next(iter(difflib.get_close_matches(str(name), list(known), n=1, cutoff=cutoff)), None)


def shorten(text: str) -> str:
    """Eight hexadecimal digits that stand for an id (the start of its SHA-256)."""
    return hash_text(text)[:8]


def hash_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def add_hash(name: str, text: str, *, separator: str = "_", longest: int | None = None) -> Iterator[str]:
    """Names made of `name` and a hash of `text`, of at most `longest` characters: the shortest hash first."""
    code = hash_text(text)
    for length in range(8, len(code) + 1, 8):
        cut = name if longest is None else name[: longest - len(separator) - length]
        yield f"{cut}{separator}{code[:length]}"


def format_time(moment: datetime, precision: str = "milliseconds") -> str:
    """A time as ISO 8601 in UTC with `Z`. precision: as for `datetime.isoformat`."""
    return moment.astimezone(UTC).isoformat(timespec=precision).replace("+00:00", "Z")


def format_now() -> str:
    return format_time(datetime.now(UTC))
