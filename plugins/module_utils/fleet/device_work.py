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
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Container, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from .._deps import jmespath
from ..errors import ApiError
from ..providers.conversation import DEFAULT_CONVERSATION
from ..providers.letta.client import Client
from ..providers.letta.relay import Relay
from ..text import one_line
from .fan_out import ProviderRun, Target
from .jobs import ConversationOutcome, Job, make_relay, on_each

_LONGEST = 200
# Seconds for a device to name its conversations; old devices do not know the question.
_NAMED_WITHIN = 5.0
# Most conversations of one device that are looked at, and most conversations of an agent that belong to no device.
_MOST_PLACES, _MOST_STRAYS = 200, 20
OutcomeT = TypeVar("OutcomeT", bound=ConversationOutcome)
# What a target ends as whose conversations end differently is the last one of these.
_GRAVITY = ("skipped", "ok", "changed", "not_attempted", "offline", "failed", "unknown")
# The processes that have not ended, in the same form whatever their kind is.
_BACKGROUND = jmespath.compile(
    "background_processes[?type(@) == 'object'"
    " && !contains(['completed', 'failed', 'cancelled', 'killed'], status)]"
    ".{process_id: process_id || id, kind: kind, command: command || description, status: status}"
)


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
    active = relay.loop_status.get("active_run_ids")
    runs = [one_line(run, _LONGEST) for run in active] if isinstance(active, list) else []
    queue = None if relay.queue is None else [item for item in relay.queue if isinstance(item, dict)]
    return Work(
        busy=relay.busy,
        run_ids=runs,
        waiting=None if queue is None else len(queue),
        paused=None if queue is None else sum(item.get("paused") is True for item in queue),
        background=[
            {name: one_line(text, _LONGEST) if text and isinstance(text, str) else None for name, text in one.items()}
            for one in _BACKGROUND.search(relay.device_status) or []
        ],
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


class KnownConversations:
    """Which conversations of an agent belong to which environments, by their ids.

    They are those that were recorded, and those that were made for an environment, which their summaries say.

    recorded: each as `{id, agent_id, conversation_id}`, with the id of an environment; others are left out.
    problems: why there may be others, by what that concerns: an agent's id, a host, or an empty text for all.
    """

    def __init__(self, recorded: Iterable[Mapping[str, Any]], problems: Iterable[str] = ()) -> None:
        self.problems: dict[str, list[str]] = {}
        self._owners: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        self._note(("", problem) for problem in problems)
        for one in recorded:
            if one.get("agent_id") and one.get("conversation_id") not in (None, "", DEFAULT_CONVERSATION):
                self._owners[str(one["agent_id"])][str(one["conversation_id"])].add(str(one.get("id")))

    async def list_places(
        self, client: Client, target: Target, relay: Relay
    ) -> tuple[list[Target], list[tuple[str, str]]]:
        """A target in each conversation that belongs to its device, and in none of another one; its own one first.

        Besides, why there may be others, each with what that concerns: an agent or a host. What the device names and is
        another agent's is to be skipped. relay: an open one to the device.
        """
        agent_id, problems = str(target.agent_id), []
        owners = self._owners[agent_id]
        try:
            for made in await client.standing.list_made(agent_id):
                owners[made.id].add(made.environment_id)
        except ApiError as error:
            problems.append((agent_id, f"the conversations of {agent_id} cannot be listed: {error}"))
        # The newest are the last ones.
        own = [one for one, environments in reversed(owners.items()) if target.environment.id in environments]
        places = {one: replace(target, conversation_id=one) for one in (_find_own(target), None, *own)}
        try:
            async for place in _find_named(relay, target, {*owners, *map(str, places)}, _MOST_PLACES - len(places)):
                places[place.conversation_id] = place
        except ApiError as error:
            problems.append((target.host, f"the conversations that {target.host} names cannot be read: {error}"))
        if len(places) > _MOST_PLACES:
            many = f"{len(places)} conversations belong to {target.host}, too many to look at"
            problems.append((target.host, many))
        return list(places.values())[:_MOST_PLACES], problems

    async def on_each_place(
        self, run: ProviderRun, begin: Callable[[Target], OutcomeT], job: Job[OutcomeT]
    ) -> list[OutcomeT]:
        """As `on_each`, with the job done in one place of a target after the other; returns an outcome for each place.

        A target whose device cannot be asked for its conversations has its own one alone.
        """
        parts: dict[str, list[OutcomeT]] = {}

        async def work(client: Client, target: Target, outcome: OutcomeT) -> None:
            try:
                async with await make_relay(client, target, outcome) as relay:
                    places, problems = await self.list_places(client, target, relay)
            except ApiError as error:
                places = [replace(target, conversation_id=_find_own(target))]
                problems = [(target.host, f"the conversations of {target.host} cannot be asked for: {error}")]
            found = parts[target.host] = [begin(place) for place in places]
            for place, part in zip(places, found, strict=True):
                if place.skip is None and not run.fan_out.stop.requested:
                    await run.fan_out.attempt(place, part, partial(job, client))
            outcome.status = max((part.status for part in found), key=_GRAVITY.index)
            if outcome.status != "offline":
                self._note(problems)

        outcomes = await on_each(run, begin, work)
        return [part for outcome in outcomes for part in parts.get(outcome.host, [outcome])]

    async def find_strays(self, run: ProviderRun, outcomes: Iterable[ConversationOutcome]) -> dict[str, list[str]]:
        """Agent → its conversations with a turn or an open tool call that belong to no known environment.

        outcomes: of the places that were looked at.
        """
        looked_at: dict[str, set[str | None]] = defaultdict(set)
        for outcome in outcomes:
            if outcome.status != "skipped":
                looked_at[str(outcome.agent_id)].add(outcome.conversation_id)
        slots = asyncio.Semaphore(run.policy.concurrency)
        async with Client(run.settings) as client:

            async def find(agent_id: str) -> list[str]:
                async with slots:
                    return await self._find_strays(client, agent_id, looked_at[agent_id])

            found = await asyncio.gather(*map(find, looked_at))
        return {agent_id: strays for agent_id, strays in zip(looked_at, found, strict=True) if strays}

    async def _find_strays(self, client: Client, agent_id: str, looked_at: set[str | None]) -> list[str]:
        # The default one belongs to every device of the agent.
        known, found, doubt = {None, *looked_at, *self._owners[agent_id]}, set(), ""
        try:
            found = {
                run.conversation_id for run in await client.list_runs(agent_id, active="true") if run.active
            } - known
            asking = await client.list_runs(agent_id, stop_reason="requires_approval")
            doubtful = {run.conversation_id for run in asking if run.stop_reason == "requires_approval"} - known - found
            for one in sorted(map(str, doubtful))[:_MOST_STRAYS]:
                if await client.find_open_call(agent_id, one) is not None:
                    found.add(one)
            if len(doubtful) > _MOST_STRAYS:
                doubt = f"{len(doubtful)} conversations have asked for approval, too many to look at"
        except ApiError as error:
            doubt = str(error)
        if doubt:
            self._note([(agent_id, f"it is not known whether {agent_id} is at work elsewhere: {doubt}")])
        return sorted(map(str, found))

    def _note(self, problems: Iterable[tuple[str, str]]) -> None:
        for concerned, problem in problems:
            known = self.problems.setdefault(concerned, [])
            if problem not in known:
                known.append(problem)


def _find_own(target: Target) -> str | None:
    return None if target.conversation_id == DEFAULT_CONVERSATION else target.conversation_id


async def _find_named(relay: Relay, target: Target, known: Container[str], most: int) -> AsyncIterator[Target]:
    """A target in each conversation that its device names and that is not known. Raises ApiError.

    most: how many the device is asked about.
    """
    answer = await relay.request({"type": "get_cwd_map"}, "get_cwd_map_response", _NAMED_WITHIN)
    if not isinstance(directories := answer.get("cwd_map"), dict):
        raise ApiError("the answer names none", code="invalid")
    # Those that agents have by default are of another kind.
    keys = [str(key).partition(":") for key in directories]
    named = [one for kind, _colon, one in keys if kind == "conversation" and one and one not in known]
    for number, one in enumerate(named):
        place = replace(target, conversation_id=one)
        yield await _check_owner(relay, place) if number < most else place


async def _check_owner(relay: Relay, place: Target) -> Target:
    """The target, which is to be skipped unless its device finds the conversation with the same agent. Raises ApiError.

    The device is asked and not the API, since it may have agents of its own.
    """
    try:
        found = await relay.retrieve("conversation", str(place.conversation_id))
    except ApiError as error:
        if error.code != "no_agent":
            raise
        return replace(place, skip=f"not looked at, as {error}")
    owner = found.get("agent_id") if isinstance(found, dict) else None
    if not isinstance(owner, str):
        raise ApiError(f"it does not say whose {place.conversation_id} is", code="invalid")
    if owner == place.agent_id:
        return place
    owner = one_line(owner, _LONGEST)
    return replace(place, agent_id=owner, skip=f"not looked at, as it is of {owner}")
