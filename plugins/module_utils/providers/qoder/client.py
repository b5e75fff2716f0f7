# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client of Qoder's REST API for cloud environments.

An environment is a template. To instruct one, a session is made in it, and the message is an event of that session.
Source of the rules: the Cloud Agents API reference. It has two generations, which page in different ways.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, TypeAlias

from ..._deps import pydantic
from ...environment import Environment, EnvironmentReference, Listing
from ...errors import ApiError
from ...http.client import Answer
from ...http.gate import Pace
from ...http.paging import MAX_PAGES, Bounds, drop_repeated_rows, find_row_id
from ...http.settings import HttpSettings
from ...text import one_line
from .. import base
from ..conversation import Address, Place
from ..message import Message
from .models import Event, ListPage, Query, Session, read_environment

# The limits of the reference: reads and writes a second, and seconds between two pages.
_READS, _WRITES, _BETWEEN_PAGES = 50.0, 20.0, 0.1
# Seconds between two tries to send to a session that is busy.
_BUSY_PAUSE = 1.0
_EVENTS_A_PAGE = 100
Params: TypeAlias = Mapping[str, str]


class Client(base.Client):
    """Qoder's environments and sessions over REST."""

    def __init__(self, settings: HttpSettings) -> None:
        super().__init__(settings)
        self._reads, self._writes = Pace(_READS), Pace(_WRITES)

    async def list(self, query: Query, starts: Sequence[str] = ()) -> Listing:
        """All rows that match, newest first, each once.

        starts: not used, because the API asks for a pause between pages.
        """
        pages: list[ListPage] = []
        dates = []
        next_after = None
        backwards = query.before_id is not None
        where = f"GET {self.settings.base_url}/environments"
        walk = self._walk_pages(("environments",), query.parameters(), query.start())
        async for page, date in walk:
            pages.append(page)
            dates.append(date)
            if page.more and not query.all_pages:
                next_after = _find_end(where, page, backwards=backwards)
                break
        rows = (row for page in (reversed(pages) if backwards else pages) for row in page.data)
        return Listing(drop_repeated_rows(rows), min(dates), next_after)

    async def _walk_pages(
        self, path: Sequence[str], parameters: Params, cursor: Params
    ) -> AsyncIterator[tuple[ListPage, Any]]:
        """Each page of a list call with its date, in both generations of the API."""
        where = f"GET {self.settings.base_url}/{'/'.join(path)}"
        bounds, backwards = Bounds(where, self.settings.deadline), "before_id" in cursor
        cursors: list[Params] = []
        for _number in range(MAX_PAGES):
            cursors.append(cursor)
            await self._reads.wait_for_turn()
            answer = await bounds.wait_for(self._http.get(*path, params={**parameters, **cursor}))
            page = answer.read_as(ListPage.model_validate)
            cursor = _find_cursor(where, page, backwards=backwards)
            yield page, answer.date
            if not page.more:
                return
            if cursor in cursors:
                told = one_line("".join(cursor.values()), 80)
                raise ApiError(f"{where}: the cursor {told!r} came back; the pages repeat", code="invalid")
            await asyncio.sleep(_BETWEEN_PAGES)
        raise ApiError(f"{where}: did not end after {MAX_PAGES} pages", code="invalid")

    async def _post(self, *path: str, body: Any, key: str) -> Answer:
        """POST a request that the server carries out once for each key within 24 h."""
        await self._writes.wait_for_turn()
        try:
            return await self._http.post(*path, body=body, headers={"Idempotency-Key": key}, repeatable=True)
        except ApiError as error:
            if not _is_of_another_request(error):
                raise
            had = "another agent, session or content within 24 h"
            way_out = "give it these, or give another client_message_id or campaign"
            raise error.but(f"{error}: the message with this id had {had}; {way_out}") from None

    async def retrieve(self, identity: str) -> Environment:
        await self._reads.wait_for_turn()
        answer = await self._http.get("environments", identity)
        return answer.read_as(lambda raw: read_environment(raw, self.settings.base_url))

    async def open_conversation(
        self, target: EnvironmentReference, agent_id: str, client_message_id: str | None, kind: str, *, look: bool
    ) -> Place:
        return Place(await self.create_conversation(target, agent_id, str(client_message_id)))

    async def create_conversation(self, target: EnvironmentReference, agent_id: str, client_message_id: str) -> str:
        """Make one session in an environment for a message, and return its id.

        agent_id: an id, or the JSON of an object with `id`, `type` and `version`.
        """
        body = {"agent": _write_agent(agent_id), "environment_id": target.id}
        key = base.make_idempotency_key(target.id, client_message_id, "session")
        answer = await self._post("sessions", body=body, key=key)
        return answer.read_as(Session.model_validate, may_be_accepted=True).id

    async def send(
        self, target: EnvironmentReference, messages: Sequence[Message], to: Address, final: Sequence[int] = ()
    ) -> base.Accepted:
        """Send user messages once as events of a session. A busy session is waited for until the deadline.

        An error is unclear also if an earlier try was: the session may be busy with what that try sent.
        """
        contents = [[{"type": "text", "text": text} for text in message.texts] for message in messages]
        events = [{"type": "user.message", "content": content} for content in contents]
        path = ("sessions", str(to.conversation_id), "events")
        key = base.make_idempotency_key(target.id, str(messages[0].client_message_id), "message")
        give_up_at = time.monotonic() + self.settings.deadline
        attempts, unclear = 0, False
        while True:
            try:
                answer = await self._post(*path, body={"events": events}, key=key)
                break
            except ApiError as error:
                attempts, unclear = attempts + error.attempts, unclear or error.may_be_accepted
                failure = error.but(attempts=attempts, may_be_accepted=unclear)
                if error.status != 409 or _is_of_another_request(error):
                    raise failure from None
                await self._wait_for_busy(failure, give_up_at)
        attempts, message_id = attempts + answer.attempts, _find_echoed_id(answer.data)
        return base.Accepted("the session accepted the message", attempts, message_id=message_id)

    async def _wait_for_busy(self, error: ApiError, give_up_at: float) -> None:
        """Wait a moment for a session that is in a turn. Raises its error at the deadline and after a stop."""
        pause, stop = _BUSY_PAUSE * random.uniform(1, 2), self.settings.gate.stop  # noqa: S311 - spreads the requests
        if time.monotonic() + pause >= give_up_at:
            within = f"the deadline of {self.settings.deadline:g} s"
            way_out = "raise the deadline, or leave session_id out for a session of its own"
            raise error.but(f"{error}: the session's turn did not end within {within}; {way_out}")
        await stop.sleep(pause)
        if stop.requested:
            raise error

    async def events(self, session_id: str, after_id: str | None) -> AsyncIterator[Event]:
        """The events of a session after one of them, oldest first. Entries that are no events are left out."""
        parameters = {"limit": str(_EVENTS_A_PAGE), "order": "asc"}
        cursor = {"after_id": after_id} if after_id is not None else {}
        path = ("sessions", session_id, "events")
        async for page, _date in self._walk_pages(path, parameters, cursor):
            for raw in page.data:
                try:
                    yield Event.model_validate(raw)
                except pydantic.ValidationError:
                    continue


def _find_cursor(where: str, page: ListPage, *, backwards: bool) -> dict[str, str]:
    """The cursor of the page after this one: a single parameter, none after the last page.

    Raises ApiError for a page that contradicts itself, because the list may then be incomplete.
    """
    if page.more is None:
        raise ApiError(f"{where}: neither has_more nor next_page says whether others follow", code="invalid")
    if not page.more:
        return {}
    if not page.data:
        raise ApiError(f"{where}: has_more is true on an empty page", code="invalid")
    if page.next_page:
        return {"page": page.next_page}
    return {"before_id" if backwards else "after_id": _find_end(where, page, backwards=backwards)}


def _find_end(where: str, page: ListPage, *, backwards: bool) -> str:
    """The id at which the next page begins: of the last row, or of the first if the walk goes backwards."""
    end = page.first_id if backwards else page.last_id
    if not end:
        raise ApiError(f"{where}: has_more is true, and no cursor tells where to go on", code="invalid")
    return end


def _write_agent(agent_id: str) -> Any:
    """An agent as the API takes it: an id, or the value of a JSON object. Raises ApiError."""
    if not agent_id.startswith("{"):
        return agent_id
    try:
        return json.loads(agent_id)
    except ValueError:
        raise ApiError(f"the agent {one_line(agent_id, 60)!r} is neither an id nor JSON", code="invalid") from None


def _is_of_another_request(error: ApiError) -> bool:
    """Whether the server had another request under the same key, so that waiting does not help."""
    return error.status == 409 and (error.param or "").lower() == "idempotency-key"


def _find_echoed_id(data: Any) -> str | None:
    """The id of the last message, if the answer has the events."""
    events = data.get("data", data.get("events")) if isinstance(data, dict) else data
    return next(filter(None, map(find_row_id, reversed(events))), None) if isinstance(events, list) else None
