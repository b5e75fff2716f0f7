# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has changed in a fleet from one listing to the next, as events for Event-Driven Ansible.

An SQLite file stores what each device was last reported as. A device is recorded once its events are queued, and not
before: if a process ends, however that happens, no event is left out, and those of at most one device come once more.
A device that has long been missing from the list is forgotten, or the file would keep each container that ever was.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ..environment import Environment
from ..errors import OptionError
from ..text import format_time, one_line

TYPES = ("new_device", "online", "offline", "version", "mode")

# Event-Driven Ansible hands an event on as extra variables, which are templates to Ansible.
_UNSAFE = re.compile(r"[^A-Za-z0-9._:/@+-]")
_LONGEST = 200
_TEXTS = ("id", "device_id", "connection_id", "connection_name", "mode", "effective_mode", "os", "version")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS fleets (base_url TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS devices (
    base_url TEXT, id TEXT, status TEXT, version TEXT, mode TEXT, PRIMARY KEY (base_url, id)
)
"""


@dataclass(frozen=True, slots=True)
class ReportedState:
    """What a device was last reported as."""

    status: str
    version: str | None
    mode: str | None

    @classmethod
    def of(cls, environment: Environment) -> ReportedState:
        """What a device is now."""
        return cls(environment.status, environment.fields.get("version"), environment.fields.get("mode"))


def replace_unsafe(value: Any) -> Any:
    """A text with only letters, digits and `._:/@+-`, all else being `_`, and of 200 characters at most."""
    return _UNSAFE.sub("_", value)[:_LONGEST] if isinstance(value, str) else None


def find_events(before: ReportedState | None, environment: Environment, now: datetime) -> list[dict[str, Any]]:
    """The events of a device: what differs from what it was reported as, however often it changed in between.

    A device that was never reported is a `new_device`, and nothing else. Each event is
    `{type, provider, status, previous, at}` with the device's id, device_id, connection_id, connection_name, mode,
    effective_mode, os and version; previous is `{status, version, mode}`, None of a new device.
    """
    after = ReportedState.of(environment)
    if before is None:
        types = ["new_device"]
    else:
        types = [after.status] if after.status != before.status else []
        types += [name for name in ("version", "mode") if getattr(after, name) not in (None, getattr(before, name))]
    device = {name: replace_unsafe(environment.fields.get(name)) for name in _TEXTS}
    previous = {name: replace_unsafe(value) for name, value in asdict(before).items()} if before else None
    common = {"provider": environment.provider, **device, "status": after.status, "previous": previous}
    return [{"type": name, **common, "at": format_time(now)} for name in types]


class ReportedStates(AbstractContextManager["ReportedStates"]):
    """What the devices of a URL were last reported as; a context manager. Raises OptionError for `state_file`.

    path: None stores it in memory, so that each start is the first one.
    """

    def __init__(self, path: str | None, base_url: str) -> None:
        self._path, self._base_url = path, base_url
        # What could not be recorded yet.
        self._kept: dict[str, ReportedState] = {}
        with self._errors():
            if path:
                Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path or ":memory:", isolation_level=None)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.executescript(_SCHEMA)
            if "missing_since" not in [column[1] for column in self._connection.execute("PRAGMA table_info(devices)")]:
                self._connection.execute("ALTER TABLE devices ADD COLUMN missing_since REAL")

    def __exit__(self, *_exc_info: object) -> None:
        self._connection.close()

    def reported(self) -> dict[str, ReportedState] | None:
        """By the id of the device; None before anything was recorded of the fleet."""
        with self._errors():
            known = self._query("SELECT 1 FROM fleets WHERE base_url = ?")
            rows = self._query("SELECT id, status, version, mode FROM devices WHERE base_url = ?")
        found = {row[0]: ReportedState(*row[1:]) for row in rows}
        return found | self._kept if known or self._kept else None

    def record(self, devices: Mapping[str, ReportedState]) -> None:
        """Record what devices have been reported as, all of them or none.

        Raises OptionError; the devices are then known while the process lives, and recorded with the next ones.
        """
        self._kept |= devices
        rows = [(self._base_url, id_, item.status, item.version, item.mode) for id_, item in self._kept.items()]
        with self._errors(), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("INSERT OR IGNORE INTO fleets VALUES (?)", (self._base_url,))
            self._connection.executemany("REPLACE INTO devices VALUES (?, ?, ?, ?, ?, NULL)", rows)
        self._kept.clear()

    def forget_missing(self, missing: Collection[str], now: datetime, after: float) -> None:
        """Forget the devices that have been missing from the list for `after` seconds. Raises OptionError.

        missing: the ids of all devices that were reported and are not in the list. now: when that was fetched.
        """
        moment = now.timestamp()
        query = "SELECT id, missing_since FROM devices WHERE base_url = ? AND missing_since IS NOT NULL"
        with self._errors(), self._connection:
            since = dict(self._query(query))
            gone = [(self._base_url, id_) for id_ in since if id_ in missing and moment - since[id_] >= after]
            changed = [(moment if id_ in missing else None, self._base_url, id_) for id_ in since.keys() ^ set(missing)]
            if gone or changed:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany("DELETE FROM devices WHERE base_url = ? AND id = ?", gone)
                update = "UPDATE devices SET missing_since = ? WHERE base_url = ? AND id = ?"
                self._connection.executemany(update, changed)

    def _query(self, query: str) -> list[Any]:
        return self._connection.execute(query, (self._base_url,)).fetchall()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            message = f"cannot use {self._path!r}: {one_line(error)}; name a file that can be written"
            raise OptionError("state_file", message) from None


def find_gone(reported: Mapping[str, ReportedState], listed: Collection[str]) -> dict[str, ReportedState]:
    """The devices that were online and are no longer in the list, as offline. listed: the ids of all rows."""
    missing = sorted(reported.keys() - set(listed))
    return {id_: replace(reported[id_], status="offline") for id_ in missing if reported[id_].status == "online"}
