# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is under way on a device, as the device itself reports it, and in which conversations it may be.

Source of the rules: Letta Code 0.34, and observations of real devices. A device that was restarted in the middle of a
turn has the turn's messages in its queue, and begins them when it is contacted in certain ways. Background processes
go on after an abort, and their end begins a turn. A device reports on one conversation at a time, and names those that
have a working directory of their own there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import ApiError
from ..http.settings import HttpSettings
from ..providers.conversation import DEFAULT_CONVERSATION
from ..providers.letta.client import Client
from ..providers.letta.relay import Relay
from ..providers.letta.standing import MadeListing, list_made
from ..text import one_line
from .fan_out import Target
from .jobs import ConversationOutcome, make_relay

_LONGEST_TEXT = 200
# Seconds for a device to name its conversations; old devices do not know the question.
_NAMED_WITHIN = 5.0
# Most conversations of one device that are looked at, and most conversations of an agent that belong to no device.
_MOST_PLACES, _MOST_STRAYS = 200, 20
ItemT = TypeVar("ItemT")
FoundT = TypeVar("FoundT")
_ENDED = ("completed", "failed", "cancelled", "killed")


@dataclass(frozen=True, slots=True)
class Work:
    """What is under way in a conversation on a device.

    busy: whether a turn is under way or waits for approval; None if the device reported nothing. run_ids: the runs
        under way, as far as they are known.
    waiting: how many messages wait on the device. paused: how many of them wait until the queue is resumed. Both are
        None if the device did not report its queue.
    background: `{process_id, kind, command, status}` of each process that does not end with the turn.
    """

    busy: bool | None
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
    busy = bool(runs or status.get("is_processing") or status.get("pending_control_requests"))
    return Work(
        busy=busy if status or relay.loop_status else None,
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


@dataclass(frozen=True, slots=True)
class ConversationTarget(Target):
    """A target in a conversation that was found. relay_only: whether other devices may be at work in it, too.

    The server would end their turns as well, so then the device alone is asked.
    """

    relay_only: bool = False


class KnownConversations:
    """Which conversations of an agent belong to which environments, by their ids.

    They are those that were recorded, and those that were made for an environment, which their summaries say. These are
    listed once for each agent.

    recorded: each as `{id, agent_id, conversation_id}`, with the id of an environment; others are left out.
    problems: why there may be others.
    """

    def __init__(self, recorded: Iterable[Mapping[str, Any]], problems: Iterable[str]) -> None:
        self.problems = dict.fromkeys(problems)
        self._owners: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        self._listings: dict[str, asyncio.Task[MadeListing]] = {}
        for one in recorded:
            if one.get("agent_id") and one.get("conversation_id") not in (None, "", DEFAULT_CONVERSATION):
                self._owners[str(one["agent_id"])][str(one["conversation_id"])].add(str(one.get("id")))

    async def find_owners(self, client: Client, agent_id: str) -> dict[str, set[str]]:
        """Conversation → its environments."""
        if agent_id not in self._listings:
            self._listings[agent_id] = asyncio.create_task(list_made(client, agent_id))
        try:
            # One that is cancelled does not cancel the listing of the others.
            made = (await asyncio.shield(self._listings[agent_id])).made
        except ApiError as error:
            self.problems[f"the conversations of {agent_id} cannot be listed: {error}"] = None
            made = []
        for one in made:
            self._owners[agent_id][one.id].add(one.environment_id)
        return self._owners[agent_id]

    async def list_places(self, client: Client, target: Target, relay: Relay | None = None) -> list[ConversationTarget]:
        """A target in each conversation that belongs to its device, and in none of another one; its own one first.

        relay: an open one to the device; None to open one for the question.
        """
        owners, here, named = await self.find_owners(client, str(target.agent_id)), {target.environment.id}, []
        with contextlib.suppress(ApiError):
            if relay is not None:
                named = await _list_named(relay)
            else:
                async with await make_relay(client, target, ConversationOutcome.of(target)) as own_relay:
                    named = await _list_named(own_relay)
        # The newest are the last ones.
        own = [one for one, environments in reversed(owners.items()) if here <= environments]
        first = None if target.conversation_id == DEFAULT_CONVERSATION else target.conversation_id
        places = list(dict.fromkeys([first, None, *own, *(one for one in named if one not in owners)]))
        if len(places) > _MOST_PLACES:
            self.problems[f"{len(places)} conversations belong to {target.host}, too many to look at"] = None
        alone = {one for one in (first, *own) if owners.get(str(one), here) == here}
        if any(environments != here for environments in owners.values()):
            alone -= {None}
        return [
            ConversationTarget(
                target.host, target.environment, target.agent_id, one, target.skip, relay_only=one not in alone
            )
            for one in places[:_MOST_PLACES]
        ]

    async def find_places(
        self, settings: HttpSettings, targets: Sequence[Target], concurrency: int
    ) -> list[ConversationTarget]:
        """The places of all targets. concurrency: targets at a time."""
        found = await _gather(settings, targets, concurrency, self.list_places)
        return [place for places in found for place in places]

    async def find_strays(
        self, settings: HttpSettings, places: Sequence[Target], concurrency: int
    ) -> dict[str, list[str]]:
        """Agent → its conversations with a turn or an open tool call that belong to no known environment.

        places: where devices were asked. concurrency: agents at a time.
        """
        looked_at: dict[str, set[str | None]] = defaultdict(set)
        for place in places:
            looked_at[str(place.agent_id)].add(place.conversation_id)

        async def find(client: Client, agent_id: str) -> list[str]:
            return await self._find_strays(client, agent_id, looked_at[agent_id])

        found = await _gather(settings, list(looked_at), concurrency, find)
        return {agent_id: strays for agent_id, strays in zip(looked_at, found, strict=True) if strays}

    async def _find_strays(self, client: Client, agent_id: str, looked_at: set[str | None]) -> list[str]:
        # The default one belongs to every device of the agent.
        known, found = {None, *looked_at, *await self.find_owners(client, agent_id)}, set()
        try:
            found = {
                run.conversation_id for run in await client.list_runs(agent_id, active="true") if run.active
            } - known
            asking = await client.list_runs(agent_id, stop_reason="requires_approval")
            doubtful = {run.conversation_id for run in asking if run.stop_reason == "requires_approval"} - known - found
            for one in sorted(map(str, doubtful))[:_MOST_STRAYS]:
                if await client.find_open_call(agent_id, one) is not None:
                    found.add(one)
        except ApiError as error:
            self.problems[f"it is not known whether {agent_id} is at work elsewhere: {error}"] = None
        return sorted(map(str, found))


async def _gather(
    settings: HttpSettings, items: Sequence[ItemT], concurrency: int, ask: Callable[[Client, ItemT], Awaitable[FoundT]]
) -> list[FoundT]:
    """What is found for each item, with one client, in the same order."""
    slots = asyncio.Semaphore(concurrency)
    async with Client(settings) as client:

        async def find(item: ItemT) -> FoundT:
            async with slots:
                return await ask(client, item)

        return await asyncio.gather(*map(find, items))


async def _list_named(relay: Relay) -> list[str]:
    """The conversations that a device names, without those that agents have by default."""
    try:
        answer = await relay.request({"type": "get_cwd_map"}, "get_cwd_map_response", _NAMED_WITHIN)
    except ApiError as error:
        if error.code != "timeout":
            raise
        return []
    directories = answer.get("cwd_map")
    named = [str(key).partition(":") for key in directories] if isinstance(directories, dict) else []
    return [conversation_id for kind, _colon, conversation_id in named if kind == "conversation" and conversation_id]


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
