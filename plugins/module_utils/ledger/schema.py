# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger's tables, and their rows: deliveries, runs, rollouts with their waves and targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import OptionError

SCHEMA_VERSION = 3
# The preflights of targets that a rollout updates. Those at risk are in a container.
UPDATABLE = ("updatable", "at_risk")
# The state of a campaign that is neither paused nor cancelled.
ACTIVE = "active"

SCHEMA = """
CREATE TABLE ledger (created_at TEXT NOT NULL);
CREATE TABLE runs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL, started_at TEXT NOT NULL,
    os_user TEXT, awx_job_id TEXT, awx_user TEXT, playbook TEXT
);
CREATE TABLE campaigns (
    campaign TEXT PRIMARY KEY, created_at TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'active',
    source_hash TEXT, source_since TEXT, repeat INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE deliveries (
    campaign TEXT NOT NULL, environment_id TEXT NOT NULL, host TEXT NOT NULL, attempt INTEGER NOT NULL,
    client_message_id TEXT NOT NULL, content_hash TEXT NOT NULL, status TEXT NOT NULL,
    repeat INTEGER NOT NULL,
    run INTEGER NOT NULL REFERENCES runs (number), began_at TEXT NOT NULL, claimed_at TEXT NOT NULL,
    agent_id TEXT, conversation_id TEXT, session_key TEXT, message_key TEXT, otid TEXT,
    sent_at TEXT, ended_at TEXT, outcome TEXT, reply_state TEXT,
    PRIMARY KEY (campaign, environment_id)
);
CREATE TABLE rollouts (
    name TEXT PRIMARY KEY, version TEXT NOT NULL, waves_wanted TEXT NOT NULL, planned_at TEXT NOT NULL,
    run INTEGER NOT NULL REFERENCES runs (number)
);
CREATE TABLE rollout_waves (
    rollout TEXT NOT NULL REFERENCES rollouts (name), number INTEGER NOT NULL, state TEXT NOT NULL,
    started_at TEXT, ended_at TEXT, max_failures INTEGER, reason TEXT,
    PRIMARY KEY (rollout, number)
);
CREATE TABLE rollout_targets (
    rollout TEXT NOT NULL REFERENCES rollouts (name), place INTEGER NOT NULL, host TEXT NOT NULL,
    environment_id TEXT NOT NULL, preflight TEXT NOT NULL, wave INTEGER, from_version TEXT, to_version TEXT,
    status TEXT, told_at TEXT, updated_at TEXT, ended_at TEXT, reason TEXT, manual_command TEXT, install_path TEXT,
    PRIMARY KEY (rollout, environment_id)
)
"""
# By version, the statements that make the next one of it. Schema 1 had several forms, and no release.
UPGRADES = {2: "ALTER TABLE rollout_targets ADD COLUMN told_at TEXT"}


def check_version(ledger: str, version: int, way_out: str) -> None:
    """Raise OptionError for a schema that is newer than SCHEMA_VERSION, or too old. ledger, way_out: for the error."""
    if version != SCHEMA_VERSION and version not in UPGRADES:
        newer = "update the collection, or " if version > SCHEMA_VERSION else ""
        known = f"this version of the collection knows {SCHEMA_VERSION}"
        raise OptionError("ledger", f"{ledger} has the schema {version}, and {known}; {newer}{way_out}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One delivery of a campaign, as its row has it. Times are ISO 8601 in UTC.

    status: `in_flight` from just before it is sent until its end is known, then its end.
    repeat: the repeat of the campaign for which it was claimed last.
    run: the number of the run that claimed it last, at `claimed_at`. began_at: when this attempt was claimed first.
    conversation_id: of a conversation or a session. session_key, message_key: the idempotency keys of the calls that
        make the session and send the message in it.
    otid: the id of the last message in the conversation, once it is known.
    outcome: the code of the error, or how the message was found to be sent.
    reply_state: the state of its reply, if that was waited for.
    """

    campaign: str
    environment_id: str
    host: str
    attempt: int
    client_message_id: str
    content_hash: str
    status: str
    repeat: int
    run: int
    began_at: str
    claimed_at: str
    agent_id: str | None = None
    conversation_id: str | None = None
    session_key: str | None = None
    message_key: str | None = None
    otid: str | None = None
    sent_at: str | None = None
    ended_at: str | None = None
    outcome: str | None = None
    reply_state: str | None = None


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Who runs which playbook; stored with the run."""

    os_user: str
    awx_job_id: str | None = None
    awx_user: str | None = None
    playbook: str | None = None

    def describe(self) -> str:
        """Who that is, for another run that waits."""
        return f"by {self.os_user}" + (f", AWX job {self.awx_job_id}" if self.awx_job_id else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutTarget:
    """One target of a rollout.

    preflight: one of UPDATABLE, `current`, `offline` or `not_updatable`, when the rollout was planned.
    wave: its number, None unless it was updatable. from_version: at the preflight.
    status: the end of its update: one of GOOD or FAILED in waves.py, `excluded`, or `not_attempted`. None before it.
    told_at: when it was told to update, until the end of that is known. to_version: the version that it says it has
        installed, then that on which it was at its end. updated_at: when it was back on the version.
        ended_at: when its end was recorded. Times are ISO 8601 in UTC.
    reason: why it is in no wave, what was under way on it when it was planned, or what was done or went wrong.
    """

    host: str
    environment_id: str
    preflight: str
    wave: int | None = None
    from_version: str | None = None
    to_version: str | None = None
    status: str | None = None
    told_at: str | None = None
    updated_at: str | None = None
    ended_at: str | None = None
    reason: str | None = None
    manual_command: str | None = None
    install_path: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """One wave of a rollout.

    state: `pending`, `running` (also if it was interrupted, or a run left targets out), `passed` or `failed`.
    max_failures: the number of targets that may fail, None before it has begun. started_at: when it began first.
    ended_at: when it was judged last. reason: why it has not passed.
    """

    number: int
    state: str = "pending"
    started_at: str | None = None
    ended_at: str | None = None
    max_failures: int | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A rollout as it stands. waves_wanted: the waves as the user gave them, as in `wave_sizes`."""

    name: str
    version: str
    waves_wanted: Sequence[str]
    planned_at: str
    waves: Sequence[Wave] = field(default_factory=list)
    targets: Sequence[RolloutTarget] = field(default_factory=list)

    @property
    def state(self) -> str:
        """`failed` if a wave has failed, `passed` if all have passed, else `pending` or `running`."""
        states = {wave.state for wave in self.waves}
        if states <= {"passed"}:
            return "passed"
        if "failed" in states:
            return "failed"
        return "pending" if states == {"pending"} else "running"

    @property
    def next_wave(self) -> int | None:
        """The number of the first wave that has not passed."""
        return next((wave.number for wave in self.waves if wave.state != "passed"), None)

    def targets_of(self, number: int) -> list[RolloutTarget]:
        """The targets of a wave, in the order given."""
        return [target for target in self.targets if target.wave == number]
