"""Ledgers of tests, in files or in PostgreSQL: with LEDGERS=postgresql each file that a test names is a database.

`make test-matrix` runs the tests of campaigns and rollouts so, too. `Ledgers` has what a test does to a ledger from
outside, whichever it is. A test that is about the file itself is marked `of_the_file`, and skipped with databases.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

IN_POSTGRESQL = os.environ.get("LEDGERS") == "postgresql"
# A ledger in the text of a play, in an argument, or in the environment.
_FILE = re.compile(r"[\w./~-]+\.sqlite\b")


@dataclass
class Ledgers:
    """The ledgers of a test. make: the URL of a new database; None with files."""

    make: Callable[[], str] | None = None
    _urls: dict[Path, str] = field(default_factory=dict)

    def url(self, path: Path) -> str:
        """The URL of the database that stands for a file."""
        assert self.make is not None
        place = Path(os.path.normpath(path))
        return self._urls.get(place) or self._urls.setdefault(place, self.make())

    def name_databases(self, text: str, directory: Path) -> str:
        """A text in which the names of ledgers are URLs. directory: where the names are looked for."""
        if self.make is None:
            return text
        return _FILE.sub(lambda found: self.url(directory / found[0]), text)

    def query(self, path: Path, statement: str) -> list[tuple[Any, ...]]:
        """The rows that a statement selects."""
        with self._open(path) as connection:
            return [tuple(row) for row in connection.execute(statement)]

    def change(self, path: Path, statement: str) -> None:
        """Run a statement."""
        with self._open(path) as connection:
            connection.execute(statement)

    def lose(self, path: Path) -> None:
        """Remove the ledger, as if it had never been there."""
        if self.make is None:
            for file in path.parent.glob(f"{path.name}*"):
                file.unlink()
        else:
            self.change(path, "DROP SCHEMA fleetops CASCADE")

    def exists(self, path: Path) -> bool:
        """Whether a run has made the ledger."""
        if self.make is None:
            return path.exists()
        return self.query(path, "SELECT to_regclass('fleetops.ledger')") != [(None,)]

    @contextlib.contextmanager
    def _open(self, path: Path) -> Iterator[Any]:
        if self.make is None:
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
                yield connection
        else:
            with psycopg.connect(self.url(path), autocommit=True, options="-c search_path=fleetops") as connection:
                yield connection
