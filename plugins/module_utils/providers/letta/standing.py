# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The conversations that this collection makes, and finds again by their summaries.

A standing conversation is for one agent and one environment, whatever is sent in it. Any other one is for one message.
Source of the rules: Letta's SDK. It is not verified how the API searches, so summaries are compared here, exactly.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from ...errors import ApiError
from ..conversation import EITHER_CONVERSATION, NEW_CONVERSATION, STANDING_CONVERSATION, Place

# The statuses with which an API refuses to list, or does not find the agent.
_REFUSED = frozenset({400, 403, 404, 405, 422, 501})
_OURS = "fleetops.environments"
_SUMMARY = re.compile(
    f"{re.escape(_OURS)} (?:standing conversation of|message (?P<message>\\S+) to) (?P<environment>.+)", re.DOTALL
)


class Conversations(Protocol):
    """Letta's client, as far as it is needed here. Every call raises ApiError."""

    async def list_conversations(self, agent_id: str, summary: str) -> Sequence[Mapping[str, Any]]: ...

    async def create_conversation(self, agent_id: str, summary: str) -> str: ...


class MadeConversation(NamedTuple):
    """A conversation that this collection has made. is_standing: whether it is for more than one message."""

    id: str
    environment_id: str
    is_standing: bool


def write_summary(environment_id: str, message_id: str | None = None) -> str:
    """The summary of an environment's standing conversation, or of the one for a message to it."""
    what = "standing conversation of" if message_id is None else f"message {quote(message_id, safe='')} to"
    return f"{_OURS} {what} {environment_id}"


async def list_made(client: Conversations, agent_id: str, summary: str = _OURS) -> list[MadeConversation]:
    """The conversations with an agent that this collection has made, oldest first. Raises ApiError.

    summary: only those whose summary has this text. A request lists 100 of them, and there are at most 200 requests.
    """
    rows = await client.list_conversations(agent_id, summary)
    ours = [row for row in rows if row.get("agent_id") in (None, agent_id) and not row.get("archived")]
    ours.sort(key=lambda row: (str(row.get("created_at") or "~"), str(row.get("id"))))
    found = [(row, _SUMMARY.fullmatch(str(row.get("summary")))) for row in ours if row.get("id")]
    return [
        MadeConversation(str(row["id"]), match["environment"], match["message"] is None)
        for row, match in found
        if match and summary in match[0]
    ]


async def list_standing(client: Conversations, agent_id: str) -> dict[str, list[str]]:
    """Environment id → the ids of its standing conversations with an agent, oldest first. Raises ApiError.

    The first one counts. Runs at the same time may have made others.
    """
    standing: dict[str, list[str]] = {}
    for made in await list_made(client, agent_id, write_summary("").strip()):
        standing.setdefault(made.environment_id, []).append(made.id)
    return standing


class StandingConversations:
    """Opens conversations for one client, which lists those of an agent once. Every call raises ApiError."""

    def __init__(self, client: Conversations) -> None:
        self._client = client
        # By agent and environment, the standing ones; and the agents of the first environments.
        self._known: dict[tuple[str, str], list[str]] = {}
        self._agents: set[str] = set()
        self._listings: dict[str, asyncio.Task[dict[str, list[str]]]] = {}

    async def open(self, agent_id: str, environment_id: str, message_id: str | None, kind: str, *, look: bool) -> Place:
        """As `open_conversation` of a client."""
        if kind == NEW_CONVERSATION:
            return await self._open_for_message(agent_id, environment_id, str(message_id), look=look)
        if kind == EITHER_CONVERSATION and not await self._has_any(agent_id):
            return Place(None)
        standing = await self._find(agent_id, environment_id)
        if not standing and message_id is None:
            return Place(STANDING_CONVERSATION)
        if is_new := not standing:
            standing.append(await self._client.create_conversation(agent_id, write_summary(environment_id)))
        return Place(standing[0], [*standing[1:], None], is_new)

    async def _has_any(self, agent_id: str) -> bool:
        try:
            return bool(await self._list(agent_id))
        except ApiError as error:
            # An API that does not list conversations cannot have been asked for a standing one.
            if error.status in _REFUSED:
                return False
            raise

    async def _open_for_message(self, agent_id: str, environment_id: str, message_id: str, *, look: bool) -> Place:
        summary, made, others = write_summary(environment_id, message_id), [], list[str | None]()
        if look:
            found = await list_made(self._client, agent_id, summary)
            made = [one.id for one in found if one.environment_id == environment_id]
            others = [*made[1:], *await self._find(agent_id, environment_id), None]
        if made:
            return Place(made[0], others)
        return Place(await self._client.create_conversation(agent_id, summary), others, is_new=True)

    async def _find(self, agent_id: str, environment_id: str) -> list[str]:
        """The standing ones of an environment. One search costs less than a list, more of them cost more."""
        key, is_first = (agent_id, environment_id), agent_id not in self._agents and agent_id not in self._listings
        self._agents.add(agent_id)
        if key not in self._known and is_first:
            made = await list_made(self._client, agent_id, write_summary(environment_id))
            self._known[key] = [one.id for one in made if one.is_standing and one.environment_id == environment_id]
        elif key not in self._known:
            self._known[key] = (await self._list(agent_id)).get(environment_id, [])
        return self._known[key]

    async def _list(self, agent_id: str) -> dict[str, list[str]]:
        if agent_id not in self._listings:
            self._listings[agent_id] = asyncio.create_task(list_standing(self._client, agent_id))
        listing = self._listings[agent_id]
        try:
            # One that is cancelled does not cancel the listing of the others.
            return await asyncio.shield(listing)
        except ApiError as error:
            if self._listings.get(agent_id) is listing:
                del self._listings[agent_id]
            raise error.but(may_be_accepted=False) from None
