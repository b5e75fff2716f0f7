# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The conversations that this collection makes, and finds again by their summaries.

A standing conversation is for one agent and one environment, whatever is sent in it. Any other one is for one message.
Source of the rules: Letta's SDK. It is not verified how the API searches, so summaries are compared here, exactly.
"""

from __future__ import annotations

import re
from functools import partial
from typing import NamedTuple, Protocol
from urllib.parse import quote

from ...environment import Listing
from ...errors import ApiError
from ..conversation import (
    DEFAULT_CONVERSATION,
    EITHER_CONVERSATION,
    MADE_CONVERSATIONS,
    NEW_CONVERSATION,
    STANDING_CONVERSATION,
    TO_BE_OPENED,
    Place,
)
from .shared_listing import SharedAnswers

# The statuses with which an API refuses to list, or does not find the agent.
_REFUSED = frozenset({400, 403, 404, 405, 422, 501})
_OURS = "fleetops.environments"
_STANDING, _FOR_MESSAGE = f"{_OURS} standing conversation of", f"{_OURS} message"
_SUMMARY = re.compile(f"(?:{re.escape(_STANDING)}|{re.escape(_FOR_MESSAGE)} \\S+ to) (?P<environment>.+)", re.DOTALL)


class Conversations(Protocol):
    """Letta's client, as far as it is needed here. Every call raises ApiError."""

    async def list_conversations(self, agent_id: str, summary: str, *, all_pages: bool) -> Listing: ...

    async def create_conversation(self, agent_id: str, summary: str) -> str: ...


class MadeConversation(NamedTuple):
    """A conversation that this collection has made for an environment. summary: as the API has it."""

    id: str
    environment_id: str
    summary: str
    is_archived: bool = False


class MadeListing(NamedTuple):
    """Conversations that this collection has made with an agent, oldest first, archived ones too.

    is_whole: whether no page follows. is_searched: whether the API left out what was not searched for.
    """

    made: list[MadeConversation]
    is_whole: bool
    is_searched: bool


def write_summary(environment_id: str, message_id: str | None = None) -> str:
    """The summary of an environment's standing conversation, or of the one for a message to it."""
    what = _STANDING if message_id is None else f"{_FOR_MESSAGE} {quote(message_id, safe='')} to"
    return f"{what} {environment_id}"


async def list_made(client: Conversations, agent_id: str, text: str = _OURS, all_pages: bool = True) -> MadeListing:
    """The made conversations whose summary has a text, and perhaps others. Raises ApiError.

    A page has 100 of them. all_pages: at most 200 pages, or one.
    """
    listing = await client.list_conversations(agent_id, text, all_pages=all_pages)
    rows = [row for row in listing.rows if row.get("agent_id") in (None, agent_id) and row.get("id")]
    rows.sort(key=lambda row: (str(row.get("created_at") or "~"), str(row["id"])))
    made = [
        MadeConversation(str(row["id"]), match["environment"], match[0], bool(row.get("archived")))
        for row in rows
        if (match := _SUMMARY.fullmatch(str(row.get("summary"))))
    ]
    is_searched = all(text.casefold() in str(row.get("summary")).casefold() for row in listing.rows)
    return MadeListing(made, listing.next_after is None, is_searched)


class StandingConversations:
    """Lists and opens conversations for one client. The same is listed once. Every call raises ApiError."""

    def __init__(self, client: Conversations) -> None:
        self._client = client
        self._listings = SharedAnswers(partial(list_made, client))
        # By agent, the first environment that was looked for.
        self._first: dict[str, str] = {}

    async def list_made(self, agent_id: str) -> list[MadeConversation]:
        """All that was made with an agent, oldest first, archived ones too; nothing if the API refuses to list."""
        try:
            return (await self._listings.get(agent_id, _OURS, True)).made
        except ApiError as error:
            if error.status in _REFUSED:
                return []
            raise

    async def open(self, agent_id: str, environment_id: str, message_id: str | None, kind: str, *, look: bool) -> Place:
        """As `open_conversation` of a client."""
        made, problem, is_new = list[MadeConversation](), None, False
        try:
            if look or kind != NEW_CONVERSATION:
                made += await self._find(agent_id, environment_id)
            if look:
                made += await self._find(agent_id, environment_id, message_id)
            if kind == EITHER_CONVERSATION and await self._has_standing(agent_id):
                kind = STANDING_CONVERSATION
        except ApiError as error:
            # An API that refuses to list conversations has none that were found or made with a list.
            makes = kind in MADE_CONVERSATIONS and message_id is not None
            if makes or error.status not in _REFUSED:
                if error.code != "too_long" and kind in TO_BE_OPENED:
                    raise
                problem = error
        place = None if kind == EITHER_CONVERSATION else kind
        if kind in MADE_CONVERSATIONS:
            summary = write_summary(environment_id, message_id if kind == NEW_CONVERSATION else None)
            usable = [one.id for one in made if one.summary == summary and not one.is_archived]
            if is_new := not usable and message_id is not None:
                usable = [await self._client.create_conversation(agent_id, summary)]
            place = usable[0] if usable else kind
        others = dict.fromkeys([*(one.id for one in made), None]) if look else {}
        others.pop(None if place == DEFAULT_CONVERSATION else place, None)
        return Place(place, tuple(others), is_new, problem)

    async def _has_standing(self, agent_id: str) -> bool:
        """Whether messages to any environment go to a standing conversation with an agent."""
        found = False
        for text, all_pages in ((_OURS, False), (_STANDING, False), (_OURS, True)):
            listing = await self._listings.get(agent_id, text, all_pages)
            found = any(one.summary.startswith(_STANDING) and not one.is_archived for one in listing.made)
            if found or listing.is_whole:
                break
        return found

    async def _find(self, agent_id: str, environment_id: str, message_id: str | None = None) -> list[MadeConversation]:
        """An environment's standing conversations, or those for a message to it."""
        summary, first = write_summary(environment_id, message_id), self._first.setdefault(agent_id, environment_id)
        listing = await self._listings.get(agent_id, _OURS, False)
        if not listing.is_whole:
            searches = (await self._listings.get(agent_id, write_summary(first), False)).is_searched
            beginning = (_STANDING if message_id is None else _FOR_MESSAGE) if searches else _OURS
            # One search costs less than a list, more of them cost more.
            alone = searches and first == environment_id
            try:
                listing = await self._listings.get(agent_id, summary if alone else beginning, not alone)
            except ApiError as error:
                if error.code != "too_long" or not searches:
                    raise
                listing = await self._listings.get(agent_id, summary, False)
        return [one for one in listing.made if one.summary == summary]
