"""Copies a ledger into another one, as a file of SQLite into PostgreSQL: move.py FROM [TO]

FROM and TO are what the option `ledger` takes. TO is FLEETOPS_LEDGER unless it is given, so that no password need be in
the command. No run may use FROM meanwhile. TO may have campaigns and rollouts of its own with other names. Everything
is copied or nothing, and FROM stays as it is.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path

# The directory of the collections that this file is in, with the links that lead to it.
sys.path.insert(0, str(Path(__file__).absolute().parents[5]))

from ansible_collections.fleetops.environments.plugins.module_utils.errors import OptionError
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.schema import RunFacts
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.store import (
    Ledger,
    find_location,
    open_ledger,
    open_to_show,
)

# Each before those that refer to it. Runs are numbered anew.
TABLES = ("campaigns", "deliveries", "rollouts", "rollout_waves", "rollout_targets")
NAMES = {"campaigns": "campaign", "rollouts": "name"}


def move(source: Ledger, target: Ledger) -> str:
    """Copy everything; returns what that was, in words. Raises OptionError where the two do not fit."""
    runs = source.query("SELECT * FROM runs ORDER BY number")
    if alive := [row["number"] for row in runs if source.is_alive(row["number"])]:
        raise OptionError("FROM", f"run {alive[0]} is using it; try again when that has ended")
    rows = {table: source.query(f"SELECT * FROM {table}") for table in TABLES}  # noqa: S608 - names of ours
    for table, name in NAMES.items():
        there = {row[name] for row in target.query(f"SELECT {name} FROM {table}")}  # noqa: S608
        if both := sorted(there.intersection(row[name] for row in rows[table])):
            raise OptionError("TO", f"has {table} of the same name: {', '.join(map(repr, both))}")
    with target.transaction(durable=True):
        numbers = {None: None}
        for run in runs:
            old = run.pop("number")
            [added] = target.query(f"{insertion('runs', run)} RETURNING number", [*run.values()])
            numbers[old] = added["number"]
        for table in TABLES:
            for row in rows[table]:
                if "run" in row:
                    row["run"] = numbers[row["run"]]
            if rows[table]:
                target.change_each(insertion(table, rows[table][0]), [tuple(row.values()) for row in rows[table]])
    return ", ".join(f"{len(rows[table])} {table}" for table in ("campaigns", "deliveries", "rollouts"))


def insertion(table: str, columns: Iterable[str]) -> str:
    """The statement that inserts a row."""
    names = list(columns)
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"  # noqa: S608


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="FROM")
    parser.add_argument("target", metavar="TO", nargs="?")
    given = parser.parse_args()
    facts = RunFacts(os.environ.get("USER") or str(os.getuid()), playbook=str(Path(__file__).absolute()))
    try:
        with (
            open_to_show(given.source, check_mode=False) as source,
            open_ledger(find_location(given.target), facts) as target,
        ):
            copied = move(source, target)
    except OptionError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    sys.stdout.write(f"copied {copied}\n")


if __name__ == "__main__":
    main()
