# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is under way on a device, in one conversation of an agent, as the device itself reports it.

Source of the rules: Letta Code 0.34, and observations of real devices. A device that was restarted in the middle of a
turn has the turn's messages in its queue, and begins them when it is contacted in certain ways. Background processes
go on after an abort, and their end begins a turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..providers.letta.relay import Relay
from ..text import one_line

_LONGEST_TEXT = 200
_ENDED = ("completed", "failed", "cancelled", "killed")


@dataclass(frozen=True, slots=True)
class Work:
    """What is under way in a conversation on a device.

    busy: whether a turn is under way or waits for approval. run_ids: the runs under way, as far as they are known.
    waiting: how many messages wait on the device. paused: how many of them wait until the queue is resumed. Both are
        None if the device did not report its queue.
    background: `{process_id, kind, command, status}` of each process that does not end with the turn.
    """

    busy: bool
    run_ids: list[str]
    waiting: int | None
    paused: int | None
    background: list[dict[str, Any]]

    @property
    def ready(self) -> int:
        """How many messages begin a turn once the device goes on with its queue; 0 if they wait for a turn's end."""
        return 0 if self.busy or self.waiting is None or self.paused is None else self.waiting - self.paused


def read_work(relay: Relay) -> Work:
    """What a device last reported over a relay about the relay's conversation."""
    status, active = relay.device_status, relay.loop_status.get("active_run_ids")
    runs = [one_line(run, _LONGEST_TEXT) for run in active] if isinstance(active, list) else []
    queue = None if relay.queue is None else [item for item in relay.queue if isinstance(item, dict)]
    return Work(
        busy=bool(runs or status.get("is_processing") or status.get("pending_control_requests")),
        run_ids=runs,
        waiting=None if queue is None else len(queue),
        paused=None if queue is None else sum(item.get("paused") is True for item in queue),
        background=_read_background(status.get("background_processes")),
    )


def describe_begun(before: Work, after: Work) -> str | None:
    """What an idle device has begun between two looks; None for nothing."""
    if before.busy:
        return None
    begun = (before.waiting or 0) - (after.waiting or 0)
    if begun > 0:
        return count_messages(begun, "goes on", "go on")
    return "a turn goes on" if after.busy else None


def count_messages(count: int, does: str, do: str) -> str:
    """So many messages, with the verb for one and for several."""
    return f"1 message {does}" if count == 1 else f"{count} messages {do}"


def _read_background(reported: Any) -> list[dict[str, Any]]:
    """The processes that have not ended, in the same form whatever their kind is."""
    entries = reported if isinstance(reported, list) else []
    return [
        {
            "process_id": _read_text(entry, "process_id", "id"),
            "kind": _read_text(entry, "kind"),
            "command": _read_text(entry, "command", "description"),
            "status": _read_text(entry, "status"),
        }
        for entry in entries
        if isinstance(entry, dict) and entry.get("status") not in _ENDED
    ]


def _read_text(entry: dict[str, Any], *names: str) -> str | None:
    text = next((entry[name] for name in names if isinstance(entry.get(name), str) and entry[name]), None)
    return None if text is None else one_line(text, _LONGEST_TEXT)
