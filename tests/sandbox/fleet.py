"""The environments that exist, and the events that can happen to them.

An environment's row is kept exactly as the API sends it, a plain dictionary, because a test may put anything in it:

    {"id": "environment-<uuid>", "deviceId": "<uuid>", "connectionId": "<uuid>" | None, "connectionName": str,
     "organizationId": str, "podId": str | None, "connectedAt": ms | None, "firstSeenAt": ms,
     "lastHeartbeat": ms | None, "lastSeenAt": ms, "metadata": {...}, ...}
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

Row = dict[str, Any]
Source = Literal["local", "remote"]

ONLINE_WITHIN = 120.0
"""Seconds after the last heartbeat during which an environment counts as online."""


def milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def random_uuid(random: Random) -> str:
    """Return a version 4 UUID that depends on the seed alone."""
    return str(uuid.UUID(int=random.getrandbits(128), version=4))


def merge(row: Row, changes: Row) -> None:
    """Put raw fields into a row; metadata is merged at any depth, ``$delete`` lists (dotted) keys to remove."""
    for key, value in changes.items():
        if key == "$delete":
            continue
        if isinstance(value, dict) and isinstance(row.get(key), dict):
            merge(row[key], value)
        else:
            row[key] = value
    for path in changes.get("$delete", []):
        *parents, last = path.split(".")
        place: Any = row
        for parent in parents:
            place = place.get(parent) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place.pop(last, None)


@dataclass
class Environment:
    """One row of the fleet, and its heartbeat."""

    row: Row
    source: Source = "local"
    """The value that ``source`` selects by. The API does not show it in the row."""
    heartbeat_delay: float | None = None
    """While the device heartbeats: the constant age of the last beat, in seconds. None: the row's own times count."""
    connections: int = 0
    """The number of connection ids so far, so that the next one differs."""

    @property
    def id(self) -> str:
        return str(self.row["id"])

    def wire(self, now: float) -> Row:
        """Return the row as the API answers it at this moment."""
        if self.heartbeat_delay is None:
            return dict(self.row)
        last = milliseconds(now - self.heartbeat_delay)
        return {**self.row, "lastHeartbeat": last, "lastSeenAt": last}

    def last_active(self, now: float) -> float:
        """Return max(lastHeartbeat, lastSeenAt) in seconds; a value that is not a number counts as never."""
        if self.heartbeat_delay is not None:
            return now - self.heartbeat_delay
        times = (self.row.get("lastHeartbeat"), self.row.get("lastSeenAt"))
        return max((t / 1000 for t in times if isinstance(t, (int, float))), default=0.0)

    def online(self, now: float) -> bool:
        if not self.row.get("connectionId"):
            return False
        if self.heartbeat_delay is not None:
            return True
        heartbeat = self.row.get("lastHeartbeat")
        return isinstance(heartbeat, (int, float)) and now - heartbeat / 1000 < ONLINE_WITHIN

    def stop_heartbeat(self, at: float) -> None:
        """Let the row age from the given time on."""
        self.row["lastHeartbeat"] = self.row["lastSeenAt"] = milliseconds(at)
        self.heartbeat_delay = None

    def connect(self, now: float) -> None:
        """Register the device (again) with a connection id that was never used before."""
        self.connections += 1
        self.row["connectionId"] = random_uuid(Random(f"connection {self.id} {self.connections}"))
        self.row["connectedAt"] = milliseconds(now)
        if self.heartbeat_delay is None:
            self.heartbeat_delay = 1.0


class Fleet:
    """All environments in their stable order, and the look-ups the API needs."""

    def __init__(self, environments: Iterable[Environment] = ()) -> None:
        self._environments: dict[str, Environment] = {}
        self._by_connection: dict[str, Environment] | None = None
        self.replace(environments)

    def replace(self, environments: Iterable[Environment]) -> None:
        """Replace the environments with exactly these."""
        self._environments = {environment.id: environment for environment in environments}
        self._by_connection = None

    def __iter__(self) -> Iterator[Environment]:
        return iter(self._environments.values())

    def __len__(self) -> int:
        return len(self._environments)

    def get(self, environment_id: str) -> Environment | None:
        return self._environments.get(environment_id)

    def split_after(self, environment_id: str) -> tuple[list[Environment], list[Environment]]:
        """Return the environments up to and including this one, and those that follow; KeyError without it."""
        if environment_id not in self._environments:
            raise KeyError(environment_id)
        order = list(self)
        position = list(self._environments).index(environment_id) + 1
        return order[:position], order[position:]

    def by_connection(self, connection_id: str) -> Environment | None:
        # Rebuilt only after a change: ten thousand messages in a row must not scan ten thousand rows each.
        if self._by_connection is None:
            self._by_connection = {e.row["connectionId"]: e for e in self if isinstance(e.row.get("connectionId"), str)}
        return self._by_connection.get(connection_id)

    def by_device(self, device_id: str, now: float) -> list[Environment]:
        """Return the environments of a device, the most recently active one first."""
        rows = [environment for environment in self if environment.row.get("deviceId") == device_id]
        return sorted(rows, key=lambda environment: environment.last_active(now), reverse=True)

    def add(self, environment: Environment) -> None:
        if environment.id in self._environments:
            raise ValueError(f"there is already an environment {environment.id}")
        self._environments[environment.id] = environment
        self._by_connection = None

    def remove(self, environment: Environment) -> None:
        del self._environments[environment.id]
        self._by_connection = None

    def patch(self, environment: Environment, changes: Row) -> None:
        """Override raw fields. A given lastHeartbeat or lastSeenAt stays as given: the heartbeat stops."""
        if changes.get("id", environment.id) != environment.id:
            raise ValueError("the id of an environment never changes: remove it and add another")
        if environment.heartbeat_delay is not None and {"lastHeartbeat", "lastSeenAt"} & changes.keys():
            environment.stop_heartbeat(time.time() - environment.heartbeat_delay)
        merge(environment.row, changes)
        self._by_connection = None

    def rotate(self, environment: Environment) -> None:
        """Let the device register again: same row, another connection id, online."""
        environment.connect(time.time())
        self._by_connection = None

    def connected(self, environment: Environment, connection_id: str) -> None:
        """Record that a real device opened this connection; from now on its own heartbeats count."""
        now = milliseconds(time.time())
        environment.row |= {"connectionId": connection_id, "podId": "pod-sandbox"}
        environment.row |= dict.fromkeys(("connectedAt", "lastHeartbeat", "lastSeenAt"), now)
        self._by_connection = None

    def online(self, environment: Environment) -> None:
        """Let the heartbeat continue; a device that kept its connection keeps it."""
        if not environment.row.get("connectionId"):
            environment.connect(time.time())
        environment.heartbeat_delay = environment.heartbeat_delay or 1.0
        self._by_connection = None

    def offline(self, environment: Environment) -> None:
        """Remove the connection; the last heartbeat is now and ages from here on."""
        if environment.heartbeat_delay is not None:
            environment.stop_heartbeat(time.time() - environment.heartbeat_delay)
        environment.row["connectionId"] = environment.row["podId"] = environment.row["connectedAt"] = None
        self._by_connection = None

    def age(self, environment: Environment, seconds: float) -> None:
        """Set the age of the last heartbeat; it grows from now on. The connection id stays."""
        environment.stop_heartbeat(time.time() - seconds)
