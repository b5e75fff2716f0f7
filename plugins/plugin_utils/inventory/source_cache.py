# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The listing of an inventory source, kept by the cache plugin that the user chose."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from ansible.plugins.inventory import get_cache_plugin

from ...module_utils.environment import Listing
from ...module_utils.http.sanitize import is_too_deep
from ...module_utils.text import format_time, one_line


class SourceCache:
    """One cached listing: its rows, and where its pages began. An entry that cannot be used counts as absent.

    rows: core's cache of the source. key: of the listing; another URL, query or API key has another one.
    plugin, options: the cache plugin and its options, for the beginnings of pages. These have a cache of their own
        without a time-out, since they are useful after the rows have expired.
    warn: shows the user a line.
    """

    def __init__(
        self, rows: Any, key: str, plugin: str, options: Mapping[str, Any], warn: Callable[[str], None]
    ) -> None:
        self._rows, self._key, self._warn = rows, key, warn
        present = {name: value for name, value in options.items() if value is not None}
        self._starts = get_cache_plugin(plugin, **present, _timeout=0)
        # Before the rows: some cache plugins, asked for one entry, forget all others that have expired.
        self.starts = self._read_starts()

    def read(self) -> Listing | None:
        """The listing that is kept; None, with a warning, if the entry is damaged."""
        try:
            return _read_entry(self._rows[self._key])
        except KeyError:
            return None
        except Exception as error:  # noqa: BLE001 - whatever a cache plugin raises, the API has the answer
            self._warn(f"the cache entry {self._key} cannot be used: {one_line(error, 100)}; it is listed again")
            return None

    def write(self, listing: Listing) -> None:
        """Keep a listing. Core writes the rows when the source has been read."""
        # As one text, since cache plugins revive what looks like a mark of Ansible's own in an object.
        self._rows[self._key] = json.dumps({"fetched_at": format_time(listing.fetched_at), "rows": list(listing.rows)})
        if list(listing.starts) != self.starts:
            self._starts[f"{self._key}_starts"] = json.dumps(listing.starts)
            self._starts.set_cache()

    def _read_starts(self) -> list[str]:
        try:
            starts = json.loads(self._starts[f"{self._key}_starts"])
        except Exception:  # noqa: BLE001 - whatever a cache plugin raises, a listing needs no starts
            return []
        known = isinstance(starts, list) and all(isinstance(start, str) for start in starts)
        return starts if known else []


def _read_entry(text: str) -> Listing:
    """The listing of an entry. Raises errors of several types for one that `SourceCache.write` has not written."""
    entry = json.loads(text)
    rows, fetched_at = entry.get("rows"), datetime.fromisoformat(entry.get("fetched_at"))
    if not isinstance(rows, list) or is_too_deep(rows) or fetched_at.tzinfo is None:
        raise ValueError("it is not what was written")
    return Listing(rows, fetched_at.astimezone(UTC))
