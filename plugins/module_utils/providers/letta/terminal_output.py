# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what a terminal prints: our marks, and the base64 between them."""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections.abc import Callable
from typing import Any, TypeAlias

from ...errors import ApiError
from ...text import one_line

# A mark as a list of words, or the text between two marks.
Part: TypeAlias = "str | list[str]"
Sink = Callable[[Any], object]
# Most characters of a mark. The longest ones show what a command has said before it gets a password (terminal.sh).
_LONGEST_MARK = 64 * 1024


class Marks:
    """Finds our marks in the output of a terminal. mark: the random text with which each of them begins."""

    def __init__(self, mark: str) -> None:
        self.mark = mark
        # Splits a text into those between the marks and the words of the marks, in turns.
        self._words = re.compile(f"<{mark}( [^<>]{{0,{_LONGEST_MARK}}})>")
        # The last text that may be the beginning of a mark, in pieces, and its length.
        self._rest: list[str] = []
        self._length = 0

    def split(self, text: str) -> list[Part]:
        """The parts of the next piece of output: marks as lists of words, and the text between them, unchanged.

        Raises ValueError for a mark that is too long.
        """
        self._rest.append(text)
        if self._length > len(self.mark) + 1 and "<" not in text and ">" not in text:
            # A mark goes on. Each piece is read once, however many pieces the mark has.
            self._length += len(text)
            parts: list[Part] = []
        else:
            parts = self._split("".join(self._rest))
        if self._length > _LONGEST_MARK:
            raise ValueError("a mark has no end")
        return parts

    def _split(self, text: str) -> list[Part]:
        *whole, last = self._words.split(text)
        # What may be the beginning of a mark waits for the rest of it. No mark contains another `<`.
        before, bracket, after = last.rpartition("<")
        begin, word = f"<{self.mark} ", bracket + after
        waits = bracket and (word.startswith(begin) or begin.startswith(word))
        last, word = (before, word) if waits else (last, "")
        self._rest, self._length = [word], len(word)
        parts: list[Part] = [piece.split() if place % 2 else piece for place, piece in enumerate(whole)]
        return [*parts, last]


class Output:
    """What a command prints on one of its outputs. what: names the device in errors. most: megabytes."""

    def __init__(self, what: str, most: int) -> None:
        self._what, self._most = what, most
        self.data = bytearray()

    def extend(self, data: bytes) -> None:
        """Add the next bytes. Raises ApiError if there are too many."""
        if len(self.data) + len(data) > self._most * 1024**2:
            raise self.make_error()
        self.data += data

    def make_error(self) -> ApiError:
        """The error of a command that printed too much."""
        ended = f"the command printed more than {self._most} MB and was ended"
        way_out = "raise max_output (variable letta_max_output), or have the command write into a file"
        return ApiError(f"{self._what}: {ended}; {way_out}", code="too_long", may_be_accepted=True)


class Result:
    """The result of an operation, built part by part. status: None until it has ended. note: on standard output."""

    def __init__(self, stdout: Sink, stderr: Sink) -> None:
        self.status: str | None = None
        self.note = ""
        self._sinks = {"out": stdout, "err": stderr}
        self._sink: Sink | None = None
        # Base64 that makes no whole bytes yet.
        self._rest = ""

    def take(self, part: Part) -> None:
        """Take the next part. Raises ValueError or IndexError for one that is not valid."""
        if isinstance(part, str):
            if self._sink is not None:
                text = self._rest + part.replace("\r", "").replace("\n", "")
                whole = len(text) // 4 * 4
                self._rest = text[whole:]
                self._sink(binascii.a2b_base64(text[:whole], strict_mode=True))
            return
        if self._rest:
            raise ValueError("it is cut off")
        word, *rest = part
        self._sink = self._sinks.get(word)
        if word == "out":
            self.note = rest[0]
        elif word == "end":
            self.status = rest[0]


def make_refusal(what: str, words: list[str]) -> ApiError:
    """The error of a shell that could not begin on `what`. Its reason is in base64, or else taken as it is."""
    why = "".join(words[1:]).encode(errors="replace")
    with contextlib.suppress(ValueError):
        why = base64.b64decode(why, validate=True)
    reason = one_line(why.decode(errors="replace"))
    return ApiError(f"{what}: the shell on the device cannot begin: {reason}", code="refused")
