# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Delivery: messages to one environment or to many, and what happened to each."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ..environment import EnvironmentReference
from ..errors import ApiError
from ..providers.base import Client, Provider, find_online, find_reachable
from ..providers.conversation import (
    DEFAULT_CONVERSATION,
    EITHER_CONVERSATION,
    TO_BE_OPENED,
    Address,
    Look,
    Place,
    Question,
    Reply,
)
from ..providers.message import Message
from ..providers.registry import find_provider
from ..stop import Stop
from ..text import format_now
from .fan_out import FanOut, Outcome, Policy, Target, record_failures
from .progress import Progress, run_beside
from .replies import wait_for_reply

STATUSES = ("sent", "already_sent", "offline", "skipped", "not_attempted", "failed", "unknown")
# The reason of a message that is already in its conversation.
FOUND = "found in the conversation"
# Seconds between two looks at whether a campaign is to stop.
_LOOK_EVERY = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageTarget(Target):
    """A target and the messages for it. conversation_id may be one of TO_BE_OPENED.

    attempt: how often a campaign has sent them with this time.
    """

    messages: Sequence[Message]
    attempt: int = 1

    @property
    def provider(self) -> Provider:
        """The environment's provider."""
        return find_provider(self.environment.provider)

    @property
    def client_message_id(self) -> str | None:
        """The id of the first message that has one; approvals have none."""
        return next((message.client_message_id for message in self.messages if not message.approvals), None)

    @property
    def otid(self) -> str | None:
        """The id in the history of the last user message, by which its reply is found; approvals have none."""
        otid = next((message.otid for message in reversed(self.messages) if not message.approvals), None)
        return self.provider.history_id(otid)

    def question(self, conversation_id: str | None, *, otid: str | None = None, since: str | None = None) -> Question:
        """What a reply is wanted to: the last user message, or the approvals if there is none.

        otid: the id that the API gave the message, if it gave one. since: ISO 8601, before which it was not sent.
        """
        answers = [answer for message in self.messages for answer in message.approvals]
        return Question(
            provider=self.environment.provider,
            agent_id=self.agent_id or "",
            conversation_id=conversation_id,
            otid=otid or self.otid,
            client_message_id=self.client_message_id,
            tool_call_ids=[str(answer["tool_call_id"]) for answer in answers],
            environment=self.environment,
            text=next((message.text for message in reversed(self.messages) if not message.approvals), None),
            since=since,
        )


@dataclass(slots=True, kw_only=True)
class Delivery(Outcome):
    """What happened to the messages for one target.

    status: one of STATUSES. attempts: message requests made. sent_at: when they were accepted, ISO 8601 in UTC.
    session_id: the conversation, if it is a session. via: `rest` or `relay`.
    reply: the reply, if it was waited for; it changes no status.
    """

    provider: str
    client_message_id: str | None
    otid: str | None
    agent_id: str | None
    conversation_id: str | None
    connection_id: str | None
    session_id: str | None = None
    response_message: str | None = None
    attempts: int = 0
    via: str | None = None
    sent_at: str | None = None
    reply: Reply | None = None

    @property
    def has_failed(self) -> bool:
        """Whether the messages were not delivered, or not replied to."""
        return self.status in ("failed", "unknown") or (self.reply is not None and self.reply.state != "replied")

    @classmethod
    def of(cls, target: MessageTarget) -> Delivery:
        """A delivery that has not begun, or that is not to begin."""
        return cls.make(
            target,
            provider=target.environment.provider,
            client_message_id=target.client_message_id,
            otid=target.otid,
            agent_id=target.agent_id,
            conversation_id=None if target.conversation_id in TO_BE_OPENED else target.conversation_id,
            connection_id=target.environment.connection_id,
        )


class Once:
    """Keeps a message from being delivered twice by several runs. A campaign does so; this one lets every run send."""

    # Whether an earlier run may have made the message's conversation.
    HAS_EARLIER_RUNS = False

    def looks_up(self, target: MessageTarget) -> bool:
        """Whether `find_earlier` looks for a target's message."""
        return False

    def mark_settled(self, target: MessageTarget, delivery: Delivery) -> bool:
        """Whether the message is known to be delivered; the delivery then says so."""
        return False

    async def find_stop(self) -> str | None:
        """Why no more messages may be sent, in a few words; None while they may. Raises ApiError."""
        return None

    def mark_unsent(self, delivery: Delivery) -> bool:
        """Whether `find_stop` has found a reason; the delivery then gives it as its own."""
        return False

    async def claim(self, target: MessageTarget, delivery: Delivery) -> bool:
        """Whether this run may send the message now; the delivery says why it may not. Raises ApiError."""
        return True

    async def record_session(self, target: MessageTarget, delivery: Delivery) -> None:
        """Record the conversation that was opened for a target. Raises ApiError."""

    async def find_earlier(self, target: MessageTarget, delivery: Delivery, place: Place) -> str | None:
        """The message's id in its conversation, empty if it has none; None if it is not there. Raises ApiError.

        The delivery then has the conversation of `place` in which it is.
        """
        return None

    async def record(self, target: MessageTarget, delivery: Delivery) -> None:
        """Record what happened to the message. It is completed although the sending is cut off meanwhile."""


class Retry(Once):
    """Keeps a message from being delivered twice by the attempts of one task.

    earlier: by host, what came of the attempts before. find_message: as in Conversations.
    """

    def __init__(
        self, earlier: Mapping[str, Delivery], find_message: Callable[[Question, bool], Awaitable[str | None]]
    ) -> None:
        self._earlier, self._find_message = earlier, find_message

    async def claim(self, target: MessageTarget, delivery: Delivery) -> bool:
        """Let it be sent, into the conversation in which an earlier attempt sent it or may have sent it."""
        if earlier := self._earlier.get(target.host):
            delivery.conversation_id = earlier.conversation_id
            if earlier.status == "unknown" and target.conversation_id == EITHER_CONVERSATION:
                delivery.conversation_id = earlier.conversation_id or DEFAULT_CONVERSATION
        return True

    async def find_earlier(self, target: MessageTarget, delivery: Delivery, place: Place) -> str | None:
        """As in Once; only a message is looked up that is in doubt, and that the agent's history has under its id."""
        earlier = self._earlier.get(target.host)
        if earlier is None or earlier.status != "unknown" or target.otid is None or target.agent_id is None:
            return None
        return await self._find_message(target.question(delivery.conversation_id), False)


async def deliver(
    clients: Mapping[str, Client], targets: Sequence[MessageTarget], policy: Policy, once: Once | None = None
) -> list[Delivery]:
    """Send to every target; a Delivery each, in the same order. clients: a client for each provider, by its name."""
    once = once or Once()
    pairs = [(target, Delivery.of(target)) for target in targets]
    wanted = [pair for pair in pairs if not once.mark_settled(*pair)]
    fan_out = FanOut(policy)
    async with run_beside(_watch(once, policy.stop)):
        await fan_out.run(wanted, Sender(clients, fan_out, once).send)
    for target, delivery in pairs:
        still_waits = delivery.status == "offline" and policy.when_offline == "wait"
        if (still_waits or delivery.status == "not_attempted") and delivery.reason is None:
            once.mark_unsent(delivery)
        delivery.session_id = target.provider.session_of(delivery.conversation_id)
    return [delivery for _target, delivery in pairs]


async def _watch(once: Once, stop: Stop) -> None:
    """Request a stop as soon as `once` finds a reason, whatever the targets that have not started wait for."""
    while not stop.requested:
        # Where the ledger fails, the next delivery fails too, and says so.
        with contextlib.suppress(ApiError):
            if why := await once.find_stop():
                stop.finish(why)
        await asyncio.sleep(_LOOK_EVERY)


async def wait_for_replies(
    pairs: Sequence[tuple[MessageTarget, Delivery]],
    search_reply: Callable[[Question], Look],
    within: float,
    report: Callable[[str], None] | None = None,
) -> None:
    """Wait for the reply to everything that was delivered. Each delivery gets its reply, or why there is none.

    A delivery that has a reply keeps it. One whose reply was waited for in vain gets the whole time again.
    search_reply: gives the function that looks for the reply to one question. within: seconds since each was sent.
    report: as in Policy.
    """
    pairs = [
        (target, delivery)
        for target, delivery in pairs
        if delivery.status in ("sent", "already_sent") and (delivery.reply is None or delivery.has_failed)
    ]
    progress = Progress("replies", len(pairs))

    async def wait(target: MessageTarget, delivery: Delivery) -> None:
        question = target.question(delivery.conversation_id, otid=delivery.otid, since=delivery.sent_at)
        if question.tool_call_ids and question.otid is None and delivery.reason is not None:
            # The device does not wait for this answer, so a turn that is found belongs to another answer.
            delivery.reply = Reply().end("lost", "reply_lost", delivery.reason)
        else:
            began = datetime.now(UTC) if delivery.reply else datetime.fromisoformat(str(delivery.sent_at))
            delivery.reply = await wait_for_reply(search_reply(question), began, within)
        delivery.error = delivery.reply.error
        progress.count(delivery.reply.state, failed=delivery.has_failed)

    async with progress.show(report), asyncio.TaskGroup() as group:
        for pair in pairs:
            group.create_task(wait(*pair))


class Sender:
    """Sends to one target at a time, as part of a fan-out. Raises ApiError."""

    def __init__(self, clients: Mapping[str, Client], fan_out: FanOut, once: Once | None = None) -> None:
        self._clients = clients
        self._fan_out = fan_out
        self._once = once or Once()

    async def send(self, target: MessageTarget, delivery: Delivery) -> None:
        """Send to one target when the fan-out lets it start."""
        async with contextlib.AsyncExitStack() as at_end:
            with record_failures(delivery, self._fan_out.stop):
                await self._send_once(target, delivery, at_end)

    async def _send_once(self, target: MessageTarget, delivery: Delivery, at_end: contextlib.AsyncExitStack) -> None:
        try:
            environment = await find_reachable(self._clients[delivery.provider], target.environment)
            if not await self._fan_out.may_start():
                return
            # It is recorded however it ends, also if a signal cuts it off.
            at_end.push_async_callback(self._once.record, target, delivery)
            if await self._once.claim(target, delivery):
                await self.send_now(target, environment, delivery)
        except ApiError as error:
            # A message that failed only because no other try may start any more is unsent, and has not failed.
            may_be_sent = error.may_be_accepted and delivery.attempts > 0
            later = error.transient or error.code == "stopped"
            if may_be_sent or not later or not self._once.mark_unsent(delivery):
                raise

    async def send_now(self, target: MessageTarget, environment: EnvironmentReference, delivery: Delivery) -> None:
        """Send over the connection that `environment` has; over a newer one if that has gone. Raises ApiError."""
        place = await self._find_place(target, environment, delivery)
        found = await self._once.find_earlier(target, delivery, place)
        if found is not None:
            delivery.status, delivery.reason, delivery.sent_at = "already_sent", FOUND, format_now()
            delivery.otid = found or delivery.otid
            return
        await self._deliver(target, environment, delivery)
        delivery.status, delivery.error, delivery.sent_at = "sent", None, format_now()

    async def _find_place(self, target: MessageTarget, environment: EnvironmentReference, delivery: Delivery) -> Place:
        """The conversation to send to, which is opened if it has to be, and those that may have the message."""
        provider, kind = target.provider, delivery.conversation_id or target.conversation_id or DEFAULT_CONVERSATION
        if kind not in TO_BE_OPENED and not (provider.standing and self._once.looks_up(target)):
            return Place(kind)
        client, ids = self._clients[delivery.provider], (str(target.agent_id), target.client_message_id)
        try:
            place = await client.open_conversation(environment, *ids, kind, look=self._once.HAS_EARLIER_RUNS)
        except ApiError as error:
            if provider.may_be_archived(error.status):
                await find_online(client, target.environment)
            way_out = "; conversation_id=default sends without it" if provider.standing and not error.transient else ""
            # The message itself has not been sent, so nothing about it is unclear.
            raise error.but(f"{error}{way_out}", may_be_accepted=False) from None
        if kind in TO_BE_OPENED:
            # No tool call waits for an answer in a conversation that is not there.
            delivery.conversation_id = None if place.conversation_id in TO_BE_OPENED else place.conversation_id
            await self._once.record_session(target, delivery)
        return place

    async def _deliver(self, target: MessageTarget, environment: EnvironmentReference, delivery: Delivery) -> None:
        """Send. If the connection has gone, look the target up and send once more."""
        client = self._clients[delivery.provider]
        try:
            await self._request(target, environment, delivery, final=tuple(client.GONE))
        except ApiError as gone:
            if gone.status not in client.GONE:
                raise
            try:
                environment = await find_online(client, target.environment)
                await self._wait_for_start()
                await self._request(target, environment, delivery)
            except ApiError as error:
                code = "offline" if error.status == 404 else error.code
                may_be_accepted = error.may_be_accepted or gone.may_be_accepted
                raise error.but(code=code, may_be_accepted=may_be_accepted) from None

    async def _wait_for_start(self) -> None:
        await self._fan_out.may_start()
        # Above the failure budget work under way finishes. After a stop it may not send anew.
        if self._fan_out.stop.requested:
            message = f"its connection has gone, and it was not sent over the new one, as {self._fan_out.stop.why}"
            raise ApiError(message, code="stopped", attempts=0)

    async def _request(
        self, target: MessageTarget, environment: EnvironmentReference, delivery: Delivery, final: Sequence[int] = ()
    ) -> None:
        delivery.connection_id = environment.connection_id
        try:
            to = Address(target.agent_id, delivery.conversation_id)
            accepted = await self._clients[delivery.provider].send(environment, target.messages, to, final)
        except ApiError as error:
            delivery.attempts += error.attempts
            raise
        delivery.attempts += accepted.attempts
        delivery.response_message, delivery.via, delivery.reason = accepted.message, accepted.via, accepted.note
        delivery.otid = accepted.message_id or delivery.otid
