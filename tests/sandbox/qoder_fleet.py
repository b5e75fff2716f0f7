"""Qoder's environments in both generations of its API, and the accounts that own them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from .api import Call
from .fleet import Row, merge
from .qoder_errors import refuse
from .qoder_pages import Generation

Marker = Literal["archived_at", "archived", "status"]
"""The key that shows that an environment is archived: a client must understand each form alone."""

SEED_PACKAGES = {"apt", "pip", "npm"}
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


@dataclass
class CloudEnvironment:
    """One environment, with the changes of the test.

    ``row`` has every key of either generation; both of them show a test's changes as they are.
    """

    row: Row
    markers: tuple[Marker, ...] = ("archived_at", "archived", "status")
    """The archived row of the seed generation. The new generation has archived_at only."""
    workers: int = 0
    """The number of workers that poll for a self-hosted environment. The API does not show it in the row."""
    changes: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._wire: dict[Generation, Row] = {}

    @property
    def id(self) -> str:
        return str(self.row["id"])

    def exists_in(self, generation: Generation) -> bool:
        """Return whether a generation has this kind of environment at all."""
        return generation == "new" or self.config_type != "self_hosted"

    @property
    def config_type(self) -> Any:
        config = self.wire("new").get("config")
        return config.get("type") if isinstance(config, dict) else None

    def patch(self, changes: Row) -> None:
        """Override raw fields."""
        if changes.get("id", self.id) != self.id:
            raise ValueError("the id of an environment never changes: remove it and add another")
        self.workers = changes.pop("$workers", self.workers)
        self.changes.append(changes)
        self._wire.clear()

    def wire(self, generation: Generation) -> Row:
        """Return the row as a generation answers it. It is cached: a caller that changes it must copy it."""
        if generation not in self._wire:
            row = deepcopy(self.row)
            if generation == "new":
                _to_new(row)
            else:
                _to_seed(row, self.markers)
            for changes in self.changes:
                merge(row, deepcopy(changes))
            self._wire[generation] = row
        return self._wire[generation]

    def archived(self, generation: Generation) -> bool:
        row = self.wire(generation)
        return bool(row.get("archived_at")) or row.get("archived") is True or row.get("status") == "archived"


@dataclass
class Account:
    """The owner of a key, who sees only its own environments and sessions."""

    name: str
    key: str
    forbidden: bool = False
    """Whether the valid key still gets 403."""
    environments: dict[str, CloudEnvironment] = field(default_factory=dict)

    def replace(self, environments: Iterable[CloudEnvironment]) -> None:
        """Replace the environments with exactly these."""
        self.environments = {environment.id: environment for environment in environments}

    def add(self, environment: CloudEnvironment) -> None:
        if environment.id in self.environments:
            raise ValueError(f"there is already an environment {environment.id}")
        self.environments[environment.id] = environment

    def get(self, environment_id: str, generation: Generation) -> CloudEnvironment:
        found = self.environments.get(environment_id)
        if found is None or not found.exists_in(generation):
            raise refuse(404, f"Environment {environment_id!r} not found")
        return found

    def selected(self, call: Call, generation: Generation) -> dict[str, Row]:
        """Return the rows that the filters of a list call select, by id."""
        include = call.query.get("include_archived", "false")
        if include not in ("true", "false"):
            raise refuse(400, "include_archived must be true or false", "include_archived")
        since, until = _time(call, "created_at[gte]"), _time(call, "created_at[lte]")
        return {
            environment.id: environment.wire(generation)
            for environment in self.environments.values()
            if environment.exists_in(generation)
            and (include == "true" or not environment.archived(generation))
            and _within(environment.wire(generation).get("created_at"), since, until)
        }


def parsed_time(text: object) -> datetime | None:
    """Return the time of an RFC 3339 text, or None for any other text."""
    if not isinstance(text, str) or not RFC_3339.fullmatch(text):
        return None
    try:
        # Python has no leap seconds.
        return datetime.fromisoformat(f"{text[:17]}59{text[19:]}".upper() if text[17:19] == "60" else text.upper())
    except ValueError:
        return None


def _time(call: Call, name: str) -> datetime | None:
    if name not in call.query:
        return None
    moment = parsed_time(call.query[name])
    if moment is None:
        raise refuse(400, f"{name} must be an RFC 3339 timestamp", name)
    return moment


def _within(created_at: object, since: datetime | None, until: datetime | None) -> bool:
    if since is None and until is None:
        return True
    created = parsed_time(created_at)
    return created is not None and (since is None or since <= created) and (until is None or created <= until)


def _to_new(row: Row) -> None:
    row.pop("status", None)
    row.pop("archived", None)


def _to_seed(row: Row, markers: tuple[Marker, ...]) -> None:
    if row.get("archived_at"):
        row["archived"] = "archived" in markers
        if "status" in markers:
            row["status"] = "archived"
        if "archived_at" not in markers:
            row["archived_at"] = None
    config = row.get("config")
    if not isinstance(config, dict):
        return
    if config.get("networking"):
        config["networking"] = {"type": config["networking"]["type"]}
    if config.get("packages"):
        config["packages"] = {kind: names for kind, names in config["packages"].items() if kind in SEED_PACKAGES}
