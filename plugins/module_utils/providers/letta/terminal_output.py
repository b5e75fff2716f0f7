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
        self._word = re.compile(f"<{mark}((?: [^ <>]*)+)>")

    def split(self, text: str) -> list[Part]:
        """The parts of the next piece of output: marks as lists of words, and the text between them, unchanged."""
        *whole, self._rest = self._split(self._rest + text)
        return whole

    def _split(self, text: str) -> list[Any]:
        parts: list[Part] = []
        at = 0
        for found in self._word.finditer(text):
            parts += [text[at : found.start()], found[1].split()]
            at = found.end()
        begun = text.rfind("<", at)
        word = text[begun:] if begun >= 0 else ""
        end = len(text) - (len(word) if self._begins(word) else 0)
        return [*parts, text[at:end], text[end:]]

    def _begins(self, word: str) -> bool:
        """Whether a text may be the beginning of a mark. No mark contains another `<`."""
        begin = f"<{self.mark} "
        return word.startswith(begin) or begin.startswith(word)


class Result:
    """The result of an operation, built part by part. status: None until it has ended. note: on standard output."""

    def __init__(self, stdout: Sink, stderr: Sink) -> None:
        self.status: str | None = None
        self.note = ""
        self._decoders = {"out": _Decoder(stdout), "err": _Decoder(stderr)}
        self._now: _Decoder | None = None

    def take(self, part: Part) -> None:
        """Take the next part. Raises ValueError or IndexError for one that is not valid, ApiError for a refusal."""
        if isinstance(part, str):
            if self._now is not None:
                self._now.feed(part)
            return
        if self._now is not None:
            self._now.end()
        word, *rest = part
        self._now = self._decoders.get(word)
        if word == "out":
            self.note = rest[0]
        elif word == "end":
            self.status = rest[0]
        elif word == "refused":
            raise make_refusal(part)


class _Decoder:
    """Decodes base64 that comes in pieces. Raises ValueError for text that is not base64."""

    def __init__(self, sink: Sink) -> None:
        self._sink, self._rest = sink, ""

    def feed(self, text: str) -> None:
        text = self._rest + text.translate(_NO_BREAKS)
        whole = len(text) // 4 * 4
        self._rest = text[whole:]
        self._sink(binascii.a2b_base64(text[:whole], strict_mode=True))

    def end(self) -> None:
        if self._rest:
            raise ValueError("it is cut off")


_NO_BREAKS = {ord("\r"): None, ord("\n"): None}


def make_refusal(words: list[str]) -> ApiError:
    """The error of a shell that could not begin. Its reason is in base64, or else taken as it is."""
    why = "".join(words[1:]).encode(errors="replace")
    with contextlib.suppress(ValueError):
        why = base64.b64decode(why, validate=True)
    return ApiError(f"the shell on the device cannot begin: {one_line(why.decode(errors='replace'))}", code="refused")
