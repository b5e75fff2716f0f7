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


class Marks:
    """Finds our marks in the output of a terminal. mark: the random text with which each of them begins."""

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self._rest = ""
        # Splits a text into those between the marks and the words of the marks, in turns.
        self._words = re.compile(f"<{mark}((?: [^ <>]*)+)>")

    def split(self, text: str) -> list[Part]:
        """The parts of the next piece of output: marks as lists of words, and the text between them, unchanged."""
        *whole, last = self._words.split(self._rest + text)
        # What may be the beginning of a mark waits for the rest of it. No mark contains another `<`.
        before, bracket, after = last.rpartition("<")
        begin, word = f"<{self.mark} ", bracket + after
        waits = bracket and (word.startswith(begin) or begin.startswith(word))
        last, self._rest = (before, word) if waits else (last, "")
        parts: list[Part] = [piece.split() if place % 2 else piece for place, piece in enumerate(whole)]
        return [*parts, last]


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


def make_refusal(words: list[str]) -> ApiError:
    """The error of a shell that could not begin. Its reason is in base64, or else taken as it is."""
    why = "".join(words[1:]).encode(errors="replace")
    with contextlib.suppress(ValueError):
        why = base64.b64decode(why, validate=True)
    return ApiError(f"the shell on the device cannot begin: {one_line(why.decode(errors='replace'))}", code="refused")
