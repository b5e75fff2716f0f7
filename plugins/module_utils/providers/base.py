# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every provider offers to the other rooms."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self, TypeVar

from ..environment import Environment, EnvironmentReference, InvalidRow, Listing
from ..errors import ApiError
from ..http.client import HttpClient
from ..http.settings import HttpSettings
from ..options import SETTINGS_SPEC, convert_value, drop_blanks, merge_connection_options
from .conversation import NEW_CONVERSATION, Address, Look, Place, Question
from .message import Message

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Accepted:
    """A message that was accepted. message: the API's answer as text. attempts: requests made.

    via: `rest` for the provider's API, `relay` for the device itself. note: what the user should know of it, or None.
    message_id: the id of the last message in its conversation, if the API gives it.
    """

    message: str
    attempts: int
    via: str = "rest"
    note: str | None = None
    message_id: str | None = None


class Conversations(Protocol):
    """Finds messages in their conversations, and the replies to them. Every call raises ApiError."""

    def search_reply(self, question: Question) -> Look:
        """A function that looks for the reply to one message each time it is called."""

    async def find_message(self, question: Question, fresh: bool) -> str | None:
        """The id of a message in its conversation: empty if it has none there, None if the message is not there.

        fresh: read the conversation anew, whatever was read of it before.
        """


async def none_if_missing(call: Awaitable[Found]) -> Found | None:
    """What a call answers; None for the status 404. Raises ApiError."""
    try:
        return await call
    except ApiError as error:
        if error.status == 404:
            return None
        raise


class Client(ABC):
    """A provider's client. Use as an async context manager; every call raises ApiError."""

    # The statuses that mean that a connection has gone and nothing was delivered over it. Empty if environments are not
    # reached over connections.
    GONE: frozenset[int] = frozenset()

    def __init__(self, settings: HttpSettings) -> None:
        self.settings = settings
        self._http = HttpClient(settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._http.__aexit__(*exc_info)

    @abstractmethod
    async def list(self, query: Any, starts: Sequence[str] = ()) -> Listing:
        """All rows that match the query. starts: those of an earlier listing of the same query."""

    @abstractmethod
    async def retrieve(self, identity: str) -> Environment:
        """One environment, by the option `Provider.looked_up_by`. The error has the status 404 if there is none."""

    async def resolve(self, wanted: EnvironmentReference, *, among: int = 1) -> Environment | None:
        """The same environment as it is now; None if it is no longer there.

        among: how many look-ups are made together; one listing may answer them all.
        """
        return await none_if_missing(self.retrieve(wanted.id))

    @abstractmethod
    async def send(
        self, target: EnvironmentReference, messages: Sequence[Message], to: Address, final: Sequence[int] = ()
    ) -> Accepted:
        """Send over the connection that the target has. final: statuses after which the request is not repeated."""

    @abstractmethod
    async def open_conversation(
        self, target: EnvironmentReference, agent_id: str, client_message_id: str | None, kind: str, *, look: bool
    ) -> Place:
        """Find or make the conversation of a kind for a message to an agent. kind: one of TO_BE_OPENED, or an id.

        client_message_id: the message's, by which the API may recognize repetitions. None to make no standing one: its
            place is then STANDING_CONVERSATION.
        look: whether an earlier run may have made it, or sent the message in another one, which are then looked for.
        """


def make_idempotency_key(environment_id: str, client_message_id: str, call: str) -> str:
    """The Idempotency-Key of one of a message's calls, `session` or `message`: a UUIDv4, always the same.

    It includes the environment, because a user may give several environments a message with the same id, and a key is
    valid for a whole account.
    """
    parts = json.dumps([environment_id, client_message_id, call])
    return str(uuid.UUID(bytes=hashlib.sha256(parts.encode()).digest()[:16], version=4))


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider, as the other rooms see it.

    name: as in the inventory's variables (`<name>_api_key`), and of its folder and its inventory plugin.
    base_url: the usual one. fields: every name that a row has, in the order of the documentation.
    query: the listing's parameters, a dataclass whose fields are named like the options. Raises OptionError.
    client: makes a client. environments: the rows of a listing, and those that do not validate.
    conversations: makes the Conversations of a client, from the client, `concurrency` (requests at a time) and `rate`
        (requests a second, None for no limit).
    looked_up_by: the option that names one environment. called: the field with its name, which others may share.
    first_seen: the field that says since when the provider knows an environment, as text that sorts by time.
    volatile: the fields that change while nothing happens to an environment, and the API's key of each, if it has one.
    agent, conversation: the options that say who is addressed.
    standing: whether an agent can have a standing conversation for each environment.
    find_agent: finds the id of an agent by its name. Raises OptionError, ApiError. None if agents have no such names.
    sessions: whether conversations are sessions. A session is made for each target that names none, it decides which
        agent answers, its history has the API's ids alone, and the API drops repetitions by keys that it keeps for
        24 h. Only the methods below read this.
    refused: by option of send_message, why the provider's environments do not take it.
    environment_variables: by connection option, those that are not called `<NAME>_<OPTION>`.
    """

    name: str
    base_url: str
    fields: Sequence[str]
    query: type[Any]
    client: Callable[[HttpSettings], Client]
    environments: Callable[[Listing, str, Any], tuple[list[Environment], list[InvalidRow]]]
    conversations: Callable[..., Conversations]
    looked_up_by: Literal["environment_id", "device_id"] = "environment_id"
    called: str = "name"
    agent: Literal["agent_id", "agent"] = "agent_id"
    conversation: Literal["conversation_id", "session_id"] = "conversation_id"
    first_seen: str = "first_seen_at"
    volatile: Mapping[str, str | None] = field(default_factory=dict)
    standing: bool = False
    find_agent: Callable[[HttpSettings, str], Coroutine[Any, Any, str]] | None = None
    sessions: bool = False
    refused: Mapping[str, str] = field(default_factory=dict)
    environment_variables: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def variable_of(self, option: str) -> str:
        """The Ansible variable of an option: `letta_api_key`."""
        return f"{self.name}_{option}"

    def environment_variables_of(self, option: str) -> Sequence[str]:
        """The environment variables of a connection option, such as `LETTA_API_KEY`. The first one set counts."""
        return self.environment_variables.get(option, (self.variable_of(option).upper(),))

    def options_in_variables(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """The connection options that Ansible variables give, as they are: blank or templates."""
        names = {option: self.variable_of(option) for option in SETTINGS_SPEC}
        return {option: variables[name] for option, name in names.items() if name in variables}

    def options_in_environment(self) -> dict[str, str]:
        """The connection options that environment variables give; a blank variable gives none."""
        found = {}
        for option in SETTINGS_SPEC:
            values = (os.environ.get(name, "").strip() for name in self.environment_variables_of(option))
            found[option] = next(filter(None, values), "")
        return drop_blanks(found)

    def makes_session(self, conversation_id: str | None) -> bool:
        """Whether a session is made for a target that names this conversation, or none."""
        return self.sessions and conversation_id in (None, NEW_CONVERSATION)

    def session_of(self, conversation_id: str | None) -> str | None:
        """The session that a conversation is; None if conversations are not sessions."""
        return conversation_id if self.sessions else None

    def may_be_archived(self, status: int | None) -> bool:
        """Whether a session that is refused with a status may mean an environment that is archived or removed now."""
        return self.sessions and status in (400, 404, 409)

    def knows_who_answers(self, agent_id: str | None) -> bool:
        """Whether it is known which agent answers a target that names this agent, or none."""
        return self.sessions or agent_id is not None

    def history_id(self, otid: str | None) -> str | None:
        """The id in the history of a message that is sent under an id; None if the API makes its own ids."""
        return None if self.sessions else otid

    def idempotency_keys(self, environment_id: str, client_message_id: str) -> dict[str, str]:
        """The Idempotency-Keys of a message, as `session_key` and `message_key`; empty if the API takes none."""
        calls = ("session", "message") if self.sessions else ()
        return {f"{call}_key": make_idempotency_key(environment_id, client_message_id, call) for call in calls}

    @property
    def reply_keys(self) -> Sequence[str]:
        """What of a sent message is needed to tell its reply from others, as keys of a result of send_message."""
        return (self.conversation,) if self.sessions else ("client_message_id", "agent_id")

    @property
    def key_help(self) -> str:
        """How to give a key, for the error when there is none."""
        return (
            f"set the option api_key or api_key_file, the variable {self.variable_of('api_key')}, "
            f"or the environment variable {' or '.join(self.environment_variables_of('api_key'))} of the command "
            "itself (environment: of a play does not reach actions)"
        )


def connection_settings(provider: Provider, *layers: Mapping[str, Any]) -> HttpSettings:
    """How to reach a provider. This is the only place where connection options become settings.

    layers: connection options by their names, the layer that counts most first. A blank value is no value. After the
        layers come the environment variables, and then the usual values.
    Raises OptionError for an option that cannot be used or a missing key, FleetError for a proxy that cannot be used.
    """
    usual = {name: rules.get("default") for name, rules in SETTINGS_SPEC.items()} | {"base_url": provider.base_url}
    options = merge_connection_options((*layers, provider.options_in_environment(), usual))
    converted = {name: convert_value(name, value, SETTINGS_SPEC[name]["type"]) for name, value in options.items()}
    variable, [in_environment] = provider.variable_of("allow_http"), provider.environment_variables_of("allow_http")
    allow_http_help = f"the option allow_http, the variable {variable}, or {in_environment}=true"
    return HttpSettings.from_options(converted, api_key_help=provider.key_help, allow_http_help=allow_http_help)


async def find_online(client: Client, listed: EnvironmentReference) -> Environment:
    """An environment as it is now. Raises ApiError, with the code `offline` for one that is offline or gone."""
    found = await client.resolve(listed)
    if found is None:
        raise ApiError("the environment is no longer there", code="offline")
    if found.status != "online":
        raise ApiError(f"the environment is {found.away}", code="offline")
    return found


async def find_reachable(client: Client, listed: EnvironmentReference) -> EnvironmentReference:
    """An environment as listed; as it is now if the listing has it offline or without a needed connection.

    Raises ApiError as `find_online`.
    """
    if listed.status == "online" and (listed.connection_id is not None or not client.GONE):
        return listed
    return await find_online(client, listed)
