# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Campaigns in the ledger: what each one sends, its state, and its delivery to each environment."""

from __future__ import annotations

from dataclasses import astuple, fields
from typing import Any

from ..errors import OptionError
from .schema import ACTIVE, Entry
from .store import Ledger

_COLUMNS = [field.name for field in fields(Entry)]
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM deliveries WHERE campaign = ?"  # noqa: S608 - names of ours
_OF_A_RUN = "run_id, os_user, awx_job_id, awx_user, playbook"
_SELECT_WITH_RUNS = (
    f"SELECT {', '.join(_COLUMNS)}, {_OF_A_RUN} FROM deliveries JOIN runs ON run = number "  # noqa: S608
    "WHERE campaign = ? ORDER BY host, environment_id"
)
_NAMES, _VALUES = ", ".join(_COLUMNS), ", ".join("?" * len(_COLUMNS))
_INSERT = f"INSERT INTO deliveries ({_NAMES}) VALUES ({_VALUES}) ON CONFLICT DO NOTHING"  # noqa: S608
# Campaign and environment id come first, and SQLite finds the row by them alone.
_AS_SEEN = f"WHERE campaign = ? AND environment_id = ? AND ({', '.join(_COLUMNS[2:])}) IS ({_VALUES[6:]})"
_UPDATE = f"UPDATE deliveries SET ({_NAMES}) = ({_VALUES}) {_AS_SEEN}"  # noqa: S608
_DELETE = f"DELETE FROM deliveries {_AS_SEEN}"  # noqa: S608
_ADD_CAMPAIGN = "INSERT INTO campaigns (campaign, created_at) VALUES (?, ?) ON CONFLICT DO NOTHING"
_SET_REPEAT = "UPDATE campaigns SET repeat = ? WHERE campaign = ? AND repeat < ?"


class Deliveries:
    """The campaigns in a ledger, and their deliveries. Every call raises OptionError for `ledger` if it fails."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def begin(self, campaign: str, source_hash: str | None, repeat: int) -> None:
        """Record a campaign, the hash of what it sends, and the repeat it is in.

        Raises OptionError for `campaign` if it has sent something else.
        """
        with self.ledger.transaction(durable=False):
            self.ledger.change(_ADD_CAMPAIGN, (campaign, self.ledger.now()))
            self.check_source(campaign, source_hash)
            if source_hash is not None:
                self.ledger.change(
                    "UPDATE campaigns SET source_hash = ?, source_since = ? WHERE campaign = ? AND source_hash IS NULL",
                    (source_hash, self.ledger.now(), campaign),
                )
            self.ledger.change(_SET_REPEAT, (repeat, campaign, repeat))

    def repeat(self, campaign: str) -> int:
        """The number of times that a run has begun to send the campaign to all again."""
        rows = self.ledger.query("SELECT repeat FROM campaigns WHERE campaign = ?", (campaign,))
        return int(rows[0]["repeat"]) if rows else 0

    def check_source(self, campaign: str, source_hash: str | None) -> None:
        """Raise OptionError for `campaign` if it has sent something else. source_hash: not compared if None."""
        query = "SELECT source_since FROM campaigns WHERE campaign = ? AND source_hash != ?"
        if other := self.ledger.query(query, (campaign, source_hash)):
            since = other[0]["source_since"]
            raise OptionError(
                "campaign", f"{campaign!r} has had other content since {since}; give what is new a campaign of its own"
            )

    def state(self, campaign: str) -> str:
        """The state that was set last, `active` if none was."""
        rows = self.ledger.query("SELECT state FROM campaigns WHERE campaign = ?", (campaign,))
        return str(rows[0]["state"]) if rows else ACTIVE

    def set_state(self, campaign: str, state: str) -> None:
        """Set the state, which runs read each second; a campaign may have one before its first run."""
        with self.ledger.transaction(durable=True):
            self.ledger.change(_ADD_CAMPAIGN, (campaign, self.ledger.now()))
            self.ledger.change("UPDATE campaigns SET state = ? WHERE campaign = ?", (state, campaign))

    def entries(self, campaign: str) -> dict[str, Entry]:
        """The deliveries of a campaign, by environment id."""
        return {row["environment_id"]: Entry(**row) for row in self.ledger.query(_SELECT, (campaign,))}

    def entry(self, campaign: str, environment_id: str) -> Entry | None:
        """One delivery, None if the ledger has none."""
        rows = self.ledger.query(f"{_SELECT} AND environment_id = ?", (campaign, environment_id))
        return Entry(**rows[0]) if rows else None

    def records(self, campaign: str) -> list[dict[str, Any]]:
        """The deliveries of a campaign in the order of the hosts, each with what `describe_run` says of its run.

        The status of a delivery that is in flight by a run that has ended is `interrupted`.
        """
        records = self.ledger.query(_SELECT_WITH_RUNS, (campaign,))
        for record in records:
            run = record.pop("run")
            if record["status"] == "in_flight" and not self.ledger.is_alive(run):
                record["status"] = "interrupted"
        return records

    def describe_run(self, run: int) -> dict[str, Any]:
        """`run_id`, and who runs which playbook."""
        return self.ledger.query(f"SELECT {_OF_A_RUN} FROM runs WHERE number = ?", (run,))[0]  # noqa: S608

    def conversations(self) -> list[dict[str, Any]]:
        """`id` of the environment, `agent_id` and `conversation_id` of the deliveries of all campaigns."""
        return self.ledger.query("SELECT DISTINCT environment_id AS id, agent_id, conversation_id FROM deliveries")

    async def replace(self, seen: Entry | None, entry: Entry) -> bool:
        """Record a delivery if its row is still as it was seen, None for no row; returns whether it was."""
        if seen is None:
            changed = await self.ledger.change_soon(_INSERT, astuple(entry))
        else:
            changed = await self.ledger.change_soon(_UPDATE, (*astuple(entry), *astuple(seen)))
        # It may have been recorded just before the connection was lost.
        key = (entry.campaign, entry.environment_id)
        return changed == 1 or await self.ledger.in_thread(lambda: self.entry(*key)) == entry

    async def restore(self, entry: Entry, before: Entry | None) -> None:
        """Put a delivery's row back to what it was before `entry`, None for no row, unless it has changed since."""
        if before is not None:
            await self.replace(entry, before)
        else:
            await self.ledger.change_soon(_DELETE, astuple(entry))
