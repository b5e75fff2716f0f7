# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a device may be told to update now. An update ends the turns and the background work of its device."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ..environment import Environment
from ..errors import ApiError
from ..providers.conversation import NEW_CONVERSATION
from ..providers.letta.client import Client
from ..providers.letta.relay import Relay
from ..text import one_line
from .device_work import count_messages, read_work
from .fan_out import Outcome, Target

_ALL_THE_SAME = "when_busy=interrupt updates it all the same"


@dataclass(frozen=True, slots=True)
class Drain:
    """What happens to a device on which something is under way.

    when_busy: `wait`, `skip` or `interrupt`. within: seconds to wait for it, from the first look that found it busy.
    """

    when_busy: str = "wait"
    within: float = 600.0
    # Environment id → the time of that look.
    _busy_since: dict[str, float] = field(default_factory=dict)

    async def holds_back(self, client: Client, target: Target, environment: Environment, outcome: Outcome) -> bool:
        """Whether a device is not told now; the outcome is then `skipped` or `later`, and says why. Raises ApiError."""
        try:
            work = None if self.when_busy == "interrupt" else await find_work(client, target, environment)
        except ApiError as error:
            raise error.but(f"what is under way on it cannot be found out: {error}; {_ALL_THE_SAME}") from None
        if work is None:
            return False
        outcome.status, outcome.reason = "skipped", f"busy: {work}"
        if self.when_busy == "wait":
            outcome.status, now = "later", time.monotonic()
            waited = now - self._busy_since.setdefault(environment.id, now)
            if waited >= self.within:
                busy = f"not told to update, as it is still busy after {waited:.0f} s: {work}"
                raise ApiError(f"{busy}; {_ALL_THE_SAME}", code="busy")
        return True


async def find_work(client: Client, target: Target, environment: Environment) -> str | None:
    """What is under way on a device in its target's conversation, as one line. Raises ApiError."""
    if target.agent_id is None:
        return None
    conversation_id = None if target.conversation_id == NEW_CONVERSATION else target.conversation_id
    async with Relay(client.settings, environment.connection_id, target.agent_id, conversation_id) as relay:
        work = read_work(relay)
    ready = (work.waiting or 0) - (work.paused or 0)
    commands = [str(process["command"] or process["process_id"]) for process in work.background]
    found = {
        f"a turn of {target.agent_id}": work.busy,
        count_messages(ready, "is queued", "are queued"): ready,
        one_line(f"in the background: {', '.join(commands)}"): commands,
    }
    return "; ".join(line for line, is_so in found.items() if is_so) or None
