# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Letta's REST API for environments: the client.

Source of the rules: the API reference, "Environments" (list, retrieve, send message). It leaves open which row the
look-up of a device answers with, and how a lost connection is reported; the client works with either answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...environment import Environment, EnvironmentReference, Listing
from ...errors import ApiError, OptionError
from ...http import paging
from ...http.client import Answer
from ...http.settings import HttpSettings
from ...options import drop_blanks
from ...text import one_line
from .. import base
from ..conversation import DEFAULT_CONVERSATION, Address, Place
from ..message import Message
from .approvals import answer_over_relay, find_decisions
from .history import History, HistoryMessage, Run, Runs
from .models import EnvironmentPage, SendResult, read_environment
from .shared_listing import SharedListing
from .standing import StandingConversations

_PAGE_SIZE = 100
# An API may give fewer rows than asked for, though hardly fewer than so many. The page after the last one is empty.
_LEAST_PAGE_SIZE = 20
# Most pages of an account's agents, or of an agent's conversations or runs.
_MOST_PAGES = 200
# Agents in an error.
_MOST_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Query:
    """The parameters of a listing.

    limit: rows a page. all_pages: whether to read all pages, or one.
    """

    online_only: bool = False
    source: str | None = None
    user_id: str | None = None
    after: str | None = None
    limit: int | None = _PAGE_SIZE
    all_pages: bool = True

    def parameters(self) -> dict[str, str]:
        """The query string's parameters, as the API names them."""
        given = {
            "limit": str(self.limit) if self.limit is not None else None,
            "onlineOnly": "true" if self.online_only else None,
            "source": self.source,
            "userId": self.user_id,
        }
        return drop_blanks(given)


@dataclass(frozen=True, slots=True)
class Cancellation:
    """The effect of cancelling. run_ids: the runs that it ended. unclear: whether it may have ended others too."""

    run_ids: list[str]
    unclear: bool


class Client(base.Client):
    """Letta's environments over REST."""

    # The reference does not say which of the two the API sends for an offline connection.
    GONE = frozenset({404, 503})

    def __init__(self, settings: HttpSettings) -> None:
        super().__init__(settings)
        self._all_rows = SharedListing(lambda: self.list(Query()), settings.base_url, _PAGE_SIZE)
        self.standing = StandingConversations(self)

    async def list(self, query: Query, starts: Sequence[str] = ()) -> Listing:
        """All rows that match, each once. starts: see `paging`. Raises ApiError rather than returning some of them."""
        what = f"GET {self.settings.base_url}/v1/environments"
        bounds = paging.Bounds(what, self.settings.deadline)

        async def ask(after: str | None) -> paging.Page:
            parameters = query.parameters() | ({"after": after} if after is not None else {})
            answer = await bounds.wait_for(self._http.get("v1", "environments", params=parameters))
            page = answer.read_as(EnvironmentPage.model_validate)
            return paging.Page(page.connections, page.has_next_page, answer.date)

        return await paging.list_pages(what, ask, after=query.after, starts=starts, all_pages=query.all_pages)

    async def retrieve(self, device_id: str) -> Environment:
        """The environment of a device; if it has several, the API answers with the newest."""
        answer = await self._http.get("v1", "environments", device_id)
        return answer.read_as(lambda raw: read_environment(raw, self.settings.base_url, answer.date))

    async def resolve(self, wanted: EnvironmentReference, *, among: int = 1) -> Environment | None:
        """The same row as it is now; None if it is gone. `among` look-ups share a listing if that needs fewer requests.

        A device can own several rows, and the look-up by device answers with one of them. If that is another row, the
        wanted one is looked up in the list.
        """
        in_list = wanted.device_id is None or self._all_rows.is_cheaper_for(among)
        found = await self._all_rows.find(wanted.id) if in_list else None
        if found is None and wanted.device_id is not None:
            found = await base.none_if_missing(self.retrieve(wanted.device_id))
            if found is None:
                return None
            if found.id != wanted.id:
                found = None if in_list else await self._all_rows.find(wanted.id)
        if found is None:
            self._all_rows.require_ids()
        return found

    async def send(
        self, target: EnvironmentReference, messages: Sequence[Message], to: Address, final: Sequence[int] = ()
    ) -> base.Accepted:
        """Send messages over the environment's connection.

        User messages are sent again after an unclear failure, since the device drops a `client_message_id` that it
        has seen. Approvals have none and are sent once. Decisions about tool calls that the device waits for go over
        the relay, since devices refuse them among messages.
        """
        if target.connection_id is None:
            raise ApiError("the environment has no connection", code="offline")
        note = None
        if decisions := find_decisions(messages):
            note = await answer_over_relay(self.settings, target.connection_id, to, decisions)
            if note is None:
                return base.Accepted("the device accepted the answer", 1, via="relay")
        # The option `messages` has the form of the API.
        body: dict[str, Any] = {"messages": [message.as_option() for message in messages]}
        body |= drop_blanks({"agentId": to.agent_id, "conversationId": to.conversation_id})
        path = ("v1", "environments", target.connection_id, "messages")
        repeatable = not any(message.approvals for message in messages)
        answer = await self._http.post(*path, body=body, repeatable=repeatable, final=final)
        result = answer.read_as(SendResult.model_validate, may_be_accepted=True)
        if not result.success:
            raise ApiError(
                f"the API refused the message: {one_line(result.message)}",
                code="refused",
                may_be_accepted=answer.unclear,
                attempts=answer.attempts,
            )
        return base.Accepted(one_line(result.message), answer.attempts, note=note)

    async def open_conversation(
        self, target: EnvironmentReference, agent_id: str, client_message_id: str | None, kind: str, *, look: bool
    ) -> Place:
        return await self.standing.open(agent_id, target.id, client_message_id, kind, look=look)

    async def create_conversation(self, agent_id: str, summary: str) -> str:
        """Make a conversation with an agent; returns its id. Each call makes another one."""
        params, body = {"agent_id": agent_id}, {"summary": summary}
        answer = await self._http.post("v1", "conversations", "", body=body, params=params, repeatable=False)
        conversation_id = answer.data.get("id") if isinstance(answer.data, dict) else None
        if not isinstance(conversation_id, str) or not conversation_id:
            raise ApiError(f"POST {self.settings.base_url}/v1/conversations/: the answer has no id", code="invalid")
        return conversation_id

    async def list_conversations(self, agent_id: str, summary: str, *, all_pages: bool) -> Listing:
        """An agent's conversations, archived ones too. They are all, or only those whose summary has a text."""
        order = {"order": "asc", "order_by": "created_at"}
        wanted = {"agent_id": agent_id, "summary_search": summary, "archive_status": "all", **order}
        return await self._list_rows("conversations", wanted, all_pages=all_pages)

    async def list_agents(self, name: str | None) -> Sequence[Mapping[str, Any]]:
        """The agents of a name, as the API sent them; it may send others too. None: the first page of all agents."""
        return (await self._list_rows("agents", {"name": name} if name else {}, all_pages=name is not None)).rows

    async def _list_rows(self, kind: str, parameters: Mapping[str, str], *, all_pages: bool) -> Listing:
        """What a list call answers that gives a list alone. A listing of too many pages has the code `too_long`."""
        what, asked = f"GET {self.settings.base_url}/v1/{kind}/", itertools.count()
        bounds = paging.Bounds(what, self.settings.deadline)

        async def ask(after: str | None) -> paging.Page:
            if next(asked) == _MOST_PAGES:
                raise ApiError(f"{what}: did not end after {_MOST_PAGES} pages", code="too_long")
            page = {**parameters, "limit": str(_PAGE_SIZE), **({"after": after} if after is not None else {})}
            answer = await bounds.wait_for(self._http.get("v1", kind, "", params=page))
            if not isinstance(answer.data, list):
                raise ApiError(f"{what}: the answer is no list", code="invalid")
            return paging.Page(answer.data, len(answer.data) >= _LEAST_PAGE_SIZE, answer.date)

        listing = await paging.list_pages(what, ask, all_pages=all_pages)
        return replace(listing, rows=[row for row in listing.rows if isinstance(row, dict)])

    async def list_messages(
        self,
        agent_id: str,
        conversation_id: str | None,
        *,
        limit: int,
        cursor: Mapping[str, str],
        bounds: paging.Bounds | None = None,
    ) -> Sequence[HistoryMessage]:
        """A page of an agent's conversation, newest first; None is the default one. cursor: `before` or `after`."""
        parameters = {"order": "desc", "limit": str(limit), **cursor}
        if conversation_id in (None, DEFAULT_CONVERSATION):
            path = ("v1", "agents", agent_id, "messages")
            parameters["conversation_id"] = DEFAULT_CONVERSATION
        else:
            path = ("v1", "conversations", str(conversation_id), "messages")
        call = self._http.get(*path, params=parameters)
        answer = await (bounds.wait_for(call) if bounds else call)
        page = replace(answer, data={"messages": answer.data}).read_as(History.model_validate)
        return page.messages

    async def retrieve_run(self, run_id: str) -> Run | None:
        """A run; None if the server has deleted it."""
        answer = await base.none_if_missing(self._http.get("v1", "runs", run_id))
        return answer.read_as(Run.model_validate) if answer is not None else None

    async def list_runs(self, agent_id: str, **wanted: str) -> Sequence[Run]:
        """The runs of an agent, newest first. In its default conversation their `conversation_id` is None.

        wanted: parameters of the API, which a server may ignore.
        """
        listing = await self._list_rows("runs", {"agent_id": agent_id, "order": "desc", **wanted}, all_pages=True)
        answer = Answer({"runs": listing.rows}, listing.fetched_at, where=f"GET {self.settings.base_url}/v1/runs/")
        found = answer.read_as(Runs.model_validate).runs
        for run in found:
            if run.conversation_id in (DEFAULT_CONVERSATION, agent_id):
                run.conversation_id = None
        return [run for run in found if run.agent_id in (None, agent_id)]

    async def find_open_call(self, agent_id: str, conversation_id: str | None, run_id: str | None = None) -> str | None:
        """The run whose tool call ends the conversation, without a result; None if there is none, or of another run."""
        for newest in await self.list_messages(agent_id, conversation_id, limit=1, cursor={}):
            if newest.calls and run_id in (None, newest.run_id):
                return str(newest.run_id)
        return None

    async def cancel(self, agent_id: str, conversation_id: str | None, run_id: str | None) -> Cancellation:
        """Cancel the active runs of an agent's conversation, or one run of the agent.

        Cancelling twice does no harm, so the call is repeated after an unclear failure.
        """
        call, params, body = ["conversations", conversation_id or DEFAULT_CONVERSATION, "cancel"], None, {}
        if run_id is not None:
            call, body = ["agents", agent_id, "messages", "cancel"], {"run_ids": [run_id]}
        elif conversation_id in (None, DEFAULT_CONVERSATION):
            # The reference deprecates the agent's id in the place of the conversation's.
            params = {"agent_id": agent_id}
        try:
            answer = await self._http.post("v1", *call, body=body, params=params, repeatable=True)
        except ApiError as error:
            if error.status == 409:
                return Cancellation([], error.may_be_accepted)
            raise
        if not isinstance(answer.data, dict):
            raise ApiError(f"{answer.where}: the answer is no object", code="invalid", may_be_accepted=True)
        cancelled = [run for run, result in answer.data.items() if result == "cancelled"]
        others = [f"{run} ({result})" for run, result in answer.data.items() if result != "cancelled"]
        if others:
            raise ApiError(
                f"{answer.where}: the server did not cancel {one_line(', '.join(others))}",
                code="refused",
                may_be_accepted=bool(cancelled) or answer.unclear,
            )
        return Cancellation(cancelled, answer.unclear)


async def find_agent(settings: HttpSettings, name: str) -> str:
    """The id of the only agent of a name. Raises ApiError, and OptionError unless there is one."""
    async with Client(settings) as client:
        # The names are compared here too, since an API may search for more than the name.
        found = [row for row in await client.list_agents(name) if row.get("name") == name and row.get("id")]
        listed = found or await client.list_agents(None)
    if len(found) == 1:
        return str(found[0]["id"])
    shown = [f"{one_line(row.get('name'), 60)} ({one_line(row.get('id'), 60)})" for row in listed[:_MOST_SHOWN]]
    more = f" and {len(listed) - _MOST_SHOWN} more" if len(listed) > _MOST_SHOWN else ""
    problem = f"there are {len(found) or 'no'} agents called {one_line(repr(name), 60)}"
    way_out = f"give the agent_id of one: {', '.join(shown)}{more}" if shown else "there are no agents at all"
    raise OptionError("agent_name", f"{problem}; {way_out}")
