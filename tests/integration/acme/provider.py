# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Acme's machines: as `plugins/module_utils/providers/acme/provider.py` this is a third provider.

GET /machines answers `{machines: [{id, name, awake}]}`, POST /machines/{id}/inbox takes `{text}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..._deps import pydantic
from ...environment import Environment, EnvironmentReference, InvalidRow, Listing, validate_rows
from ...errors import ApiError
from .. import base
from ..conversation import Address, Look, Place, Question, Reply
from ..message import Message


@dataclass(frozen=True, slots=True)
class Query:
    """The list call has no parameters."""


class Row(pydantic.BaseModel):
    """One machine."""

    id: str
    name: str
    awake: bool


class Client(base.Client):
    """Acme's machines over REST."""

    async def list(self, query: Query, starts: Sequence[str] = ()) -> Listing:
        """All machines."""
        reply = await self._http.get("machines")
        return Listing(reply.data["machines"], reply.date)

    async def retrieve(self, identity: str) -> Environment:
        """The machine with this id."""
        found = (await self._by_id()).get(identity)
        if found is None:
            raise ApiError(f"there is no machine {identity}", code="http_404", status=404)
        return found

    async def resolve(self, wanted: EnvironmentReference, *, among: int = 1) -> Environment | None:
        """The current state of the machine; None when it no longer exists."""
        return (await self._by_id()).get(wanted.id)

    async def _by_id(self) -> dict[str, Environment]:
        listing = await self.list(Query())
        return {item.id: item for item in environments(listing, self.settings.base_url, Query())[0]}

    async def open_conversation(
        self, target: EnvironmentReference, agent_id: str, client_message_id: str | None, kind: str, *, look: bool
    ) -> Place:
        """Machines have no conversations."""
        raise ApiError("a machine of Acme has no conversations", code="refused")

    async def send(
        self, target: EnvironmentReference, messages: Sequence[Message], to: Address, final: Sequence[int] = ()
    ) -> base.Accepted:
        """Put the messages into the machine's inbox."""
        text = "\n".join(message.text for message in messages)
        reply = await self._http.post("machines", target.id, "inbox", body={"text": text}, repeatable=False)
        return base.Accepted("in the inbox", reply.attempts)


class Conversations:
    """Nothing can find messages again."""

    def __init__(self, client: Client, *, concurrency: int, rate: float | None) -> None:
        """Need none of it."""

    def search_reply(self, question: Question) -> Look:
        """Machines do not reply."""

        async def look(seconds: float = 0.0) -> Reply:
            return Reply().end("failed", "refused", "a machine of Acme does not reply")

        return look

    async def find_message(self, question: Question, fresh: bool) -> str | None:
        """The content of an inbox cannot be read."""
        return None


def environments(listing: Listing, base_url: str, query: Query) -> tuple[list[Environment], list[InvalidRow]]:
    """The rows as environments."""

    def make_environment(raw: Any) -> Environment:
        row = Row.model_validate(raw)
        return Environment(
            provider="acme",
            id=row.id,
            device_id=row.id,
            connection_id=None,
            base_url=base_url,
            status="online" if row.awake else "offline",
            self_update=None,
            fields={"id": row.id, "name": row.name, "awake": row.awake},
        )

    return validate_rows(listing.rows, make_environment)


PROVIDER = base.Provider(
    name="acme",
    base_url="https://machines.acme.example",
    fields=("id", "name", "awake"),
    query=Query,
    client=Client,
    environments=environments,
    conversations=Conversations,
    refused={"approvals": "a machine of Acme asks nothing"},
)
