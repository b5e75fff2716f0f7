# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What campaigns and rollouts ask of a ledger, where it is, and how it is opened."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, Union

from ..errors import OptionError
from ..text import one_line
from .schema import RunFacts
from .sqlite import SqliteLedger
from .url import PostgresqlUrl, find_url

if TYPE_CHECKING:
    from .postgresql import PostgresqlLedger

# Where a ledger is: a file of SQLite, or a database of PostgreSQL.
Location = Union[Path, PostgresqlUrl]  # noqa: UP007 - pylint takes | for an operation here
Result = TypeVar("Result")


class Ledger(AbstractContextManager["Ledger"], Protocol):
    """An open ledger; a context manager. Every call raises OptionError for `ledger` if it cannot be used.

    run: the number of this run, 0 if the ledger is open to read alone.
    """

    run: int

    def close(self) -> None:
        """Close it, and release what says that the run is alive."""

    def now(self) -> str:
        """The present time for its rows, as `format_time` writes it: all runs that share it have the same clock."""

    def wait_for_others(self, seconds: float) -> None:
        """Set for how long a call waits for another process to unlock the ledger before it fails."""

    def query(self, statement: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The rows that a statement selects, by the names of their columns."""

    def change(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Run one statement, a transaction of its own unless one is open; returns how many rows it changed."""

    async def change_soon(self, statement: str, values: Sequence[Any] = ()) -> int:
        """As `change`, for an event loop, which goes on meanwhile. It is completed although its caller is cancelled.

        What several callers ask for may be committed together, so the values begin with the two keys of the row. If the
        connection is lost meanwhile, it may have changed rows that are not counted.
        """

    async def in_thread(self, function: Callable[[], Result]) -> Result:
        """What a function returns that calls this ledger, for an event loop, as `change_soon`."""

    def change_together(self, changes: Sequence[tuple[str, Sequence[Any]]]) -> list[int]:
        """Run statements as one transaction, which survives the end of the machine; returns how many rows each changed.

        If the connection is lost they run again, so each has the same effect when it runs twice.
        """

    def change_each(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement with the values of each row, in the transaction that is open."""

    def transaction(self, *, durable: bool) -> AbstractContextManager[None]:
        """A transaction that is committed at the end, or rolled back where an exception ends it.

        durable: whether it survives the end of the machine, and with it all that was committed before.
        """

    def is_alive(self, run: int) -> bool:
        """Whether a run has not ended."""

    def hold_rollout(self, name: str) -> AbstractContextManager[None]:
        """Keep other runs from a rollout while this is open. Raises OptionError for `name` if another run has it."""


def find_location(option: str | None) -> Location:
    """Where the ledger is: the option, else FLEETOPS_LEDGER, else below the XDG state directory. Raises OptionError.

    Links are followed: runs find each other by a file beside the ledger, which must be the same one for all of them.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    # The XDG specification has relative paths ignored.
    usual = f"{state if state.startswith('/') else '~/.local/state'}/fleetops/ledger.sqlite"
    path = option or os.environ.get("FLEETOPS_LEDGER", "").strip() or usual
    if (url := find_url(path)) is not None:
        return url
    try:
        return Path(os.path.expandvars(path)).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        problem = f"{one_line(path, 80)!r} is no path: {one_line(error)}; name another file"
        raise OptionError("ledger", problem) from None


def open_ledger(location: Location, facts: RunFacts) -> Ledger:
    """The ledger opened for a run, which is recorded in it; it is made if there is none yet. Raises OptionError."""
    if isinstance(location, Path):
        return SqliteLedger.open(location, facts)
    return _import_postgresql().open(location, facts)


def read_ledger(location: Location) -> Ledger:
    """The ledger opened to read alone; an empty one if there is none yet. Raises OptionError."""
    return _read(location) or make_empty_ledger()


def open_to_show(option: str | None, *, check_mode: bool) -> Ledger:
    """As `read_ledger`. Raises OptionError also if the option names a file or a database without a ledger.

    In check mode a task before this one has not made the ledger that it would make.
    """
    location = find_location(option)
    ledger = _read(location)
    is_missing = ledger is None and not (isinstance(location, Path) and location.exists())
    if is_missing and option and not check_mode:
        raise OptionError("ledger", f"there is no {str(location)!r}; give the one that a run has made")
    return ledger or make_empty_ledger()


def make_empty_ledger() -> Ledger:
    """A ledger in memory, in which nothing is recorded."""
    return SqliteLedger.make_empty()


def _read(location: Location) -> Ledger | None:
    if isinstance(location, Path):
        return SqliteLedger.read(location)
    return _import_postgresql().read(location)


def _import_postgresql() -> type[PostgresqlLedger]:
    """Its package is optional, and takes a tenth of a second to import."""
    from .postgresql import PostgresqlLedger  # noqa: PLC0415

    return PostgresqlLedger
