# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a device may be told to update now. An update ends the turns and the background work of its device."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..environment import Environment
from ..errors import ApiError
from ..providers.conversation import TO_BE_OPENED
from ..providers.letta.client import Client
from ..providers.letta.relay import Relay
from ..text import one_line
from .device_work import KnownConversations, count_messages, read_work
from .fan_out import Outcome, Target

_ALL_THE_SAME = "when_busy=interrupt updates it all the same"
# The code of an error that keeps no device from being told: nothing says where to look.
_UNKNOWN_AGENT = "unknown_agent"


class Drain:
    """Holds back devices on which something is under way.

    when_busy: `wait`, `skip` or `interrupt`. within: seconds to wait for a device, from the first look that found it
        busy. recorded: as for KnownConversations; it names the agents of a device, too.
    in_doubt: device → the host as which it was told to update, and may still be installing.
    """

    def __init__(
        self, when_busy: str = "wait", within: float = 600.0, recorded: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        self._when_busy, self._within = when_busy, within
        self.in_doubt: dict[str, str] = {}
        self._known = KnownConversations(recorded)
        self._agents: dict[str, set[str]] = defaultdict(set)
        for row in recorded:
            if row["agent_id"]:
                self._agents[str(row["id"])].add(str(row["agent_id"]))
        self._busy_since: dict[str, float] = {}
        # Environment → where something was under way at the last look.
        self._busy_at: dict[str, Target] = {}

    async def holds_back(self, client: Client, target: Target, environment: Environment, outcome: Outcome) -> bool:
        """Whether a device is not told now; the outcome is then `skipped` or `later`, and says why. Raises ApiError."""
        try:
            work = None if self._when_busy == "interrupt" else await self.find_work(client, target, environment)
        except ApiError as error:
            if error.code == _UNKNOWN_AGENT:
                return False
            raise error.but(f"what is under way on it cannot be found out: {error}; {_ALL_THE_SAME}") from None
        if work is None:
            return False
        outcome.status, outcome.reason = "skipped", f"busy: {work}"
        if self._when_busy == "wait":
            outcome.status, now = "later", time.monotonic()
            waited = now - self._busy_since.setdefault(environment.id, now)
            if waited >= self._within:
                busy = f"not told to update, as it is still busy after {waited:.0f} s: {work}"
                raise ApiError(f"{busy}; {_ALL_THE_SAME}", code="busy")
        return True

    async def find_work(self, client: Client, target: Target, environment: Environment) -> str | None:
        """What is under way on a device in a conversation that belongs to it, as one line. Raises ApiError."""
        own = None if target.conversation_id in TO_BE_OPENED else target.conversation_id
        agents = dict.fromkeys(sorted(self._agents.get(environment.id, ()))) | {target.agent_id: own}
        given = [replace(target, agent_id=one, conversation_id=agents[one]) for one in agents if one is not None]
        if not given:
            why = "no agent is known whose turns would end there; letta_agent_id says which"
            raise ApiError(why, code=_UNKNOWN_AGENT)
        last = self._busy_at.pop(environment.id, None)
        problems: dict[str, None] = {}
        # It grows while it is walked.
        places: list[Target] = [*filter(None, [last]), *(one for one in given if one != last)]
        for place in places:
            async with Relay(
                client.settings, environment.connection_id, place.agent_id, place.conversation_id
            ) as relay:
                if work := _describe(relay, place):
                    self._busy_at[environment.id] = place
                    return one_line(work, 500)
                if place in given:
                    more, doubts = await self._known.list_places(client, place, relay)
                    places += more[1:]
                    problems |= dict.fromkeys(problem for _concerned, problem in doubts)
        if problems:
            raise ApiError("; ".join(problems), code="unknown_work")
        return None


def _describe(relay: Relay, place: Target) -> str:
    """What a device reports as under way in one conversation, empty for nothing."""
    work, where = read_work(relay), f" in {place.conversation_id}" if place.conversation_id else ""
    if work.busy is None:
        raise ApiError(f"the device does not say what is under way{where}", code="unknown_work")
    ready = (work.waiting or 0) - (work.paused or 0)
    commands = [str(process["command"] or process["process_id"]) for process in work.background]
    found = {
        f"a turn of {place.agent_id}{where}": work.busy,
        count_messages(ready, "is queued", "are queued"): ready,
        one_line(f"in the background: {', '.join(commands)}"): commands,
    }
    return "; ".join(line for line, is_so in found.items() if is_so)
