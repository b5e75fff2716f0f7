"""Qoder's pages, with the cursors of either generation of its API."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Literal

from .api import Call, positive
from .fleet import Row
from .qoder_errors import refuse

Generation = Literal["seed", "new"]
"""seed: the API page that this collection was first written for; new: the newest pages and qca-sdk."""

DEFAULT_LIMIT = 20
MOST = 100


@dataclass(frozen=True)
class Cursor:
    id: str
    backwards: bool = False

    def token(self) -> str:
        """Return the value of ``next_page``: a text that no client can construct."""
        text = f"{'<' if self.backwards else '>'}{self.id}"
        return "page_" + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def page(call: Call, rows: dict[str, Row], generation: Generation, *, newest_first: bool) -> Row:
    """Return ``{data, first_id, last_id, has_more}``, in the new generation with ``next_page``.

    Ids sort by age. The row of a cursor may have been removed.
    """
    limit, cursor = _limit(call, generation), _cursor(call, generation)
    following = sorted(rows, reverse=newest_first)
    backwards = cursor is not None and cursor.backwards
    if cursor is not None:
        lower = newest_first is not backwards
        following = [id_ for id_ in following if (id_ < cursor.id if lower else id_ > cursor.id)]
    ids = following[-limit:] if backwards else following[:limit]
    first, last = (ids[0], ids[-1]) if ids else (None, None)
    more = len(following) > limit
    envelope: Row = {"data": [rows[id_] for id_ in ids], "first_id": first, "last_id": last, "has_more": more}
    if generation == "new":
        end = first if backwards else last
        envelope["next_page"] = Cursor(end, backwards).token() if more and end is not None else None
    return envelope


def _limit(call: Call, generation: Generation) -> int:
    limit = positive(call, "limit", DEFAULT_LIMIT)
    if limit > MOST and generation == "new":
        raise refuse(400, f"limit must not be above {MOST}", "limit")
    return min(limit, MOST)


def _cursor(call: Call, generation: Generation) -> Cursor | None:
    # A generation ignores a parameter that it does not know.
    names = ("after_id", "before_id", "page") if generation == "new" else ("after_id", "before_id")
    given = [name for name in names if name in call.query]
    if len(given) > 1:
        raise refuse(400, f"{' and '.join(given)} are mutually exclusive", given[1])
    if not given:
        return None
    value = call.query[given[0]]
    if not value:
        raise refuse(400, f"{given[0]} must not be empty", given[0])
    return _of_token(value) if given == ["page"] else Cursor(value, given == ["before_id"])


def _of_token(token: str) -> Cursor:
    encoded = token.removeprefix("page_")
    try:
        text = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        text = ""
    cursor = Cursor(text[1:], text.startswith("<"))
    if cursor.token() != token:
        raise refuse(400, "page is not a cursor of this API", "page")
    return cursor
