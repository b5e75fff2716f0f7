# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Campaigns: the same messages to the same environments are delivered once, whatever happens to the runs.

The steps for each target, in the order of the methods: `claim` its row, which is committed; open its conversation if it
names none and `record_session`; `find_earlier`, which looks in the conversation, and in all others where an earlier run
may have sent it, for a message that may have been delivered before; send; `record` the end.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ..errors import ApiError, OptionError
from ..fleet.delivery import FOUND, Delivery, MessageTarget, Once
from ..ledger.audit_log import AuditLog
from ..ledger.deliveries import Deliveries
from ..ledger.schema import ACTIVE, Entry
from ..providers.conversation import DEFAULT_CONVERSATION, NEW_CONVERSATION, TO_BE_OPENED, Place, Question
from .plan import CampaignPlan, describe_other_content

# The statuses that leave open whether a message was accepted.
_IN_DOUBT = ("in_flight", "unknown")

# A provider keeps idempotency keys for 24 h.
_KEYS_PROTECT_FOR = timedelta(hours=23)

_UNRECORDED = "another delivery could not be recorded"
# Seconds after which a claim is renewed before its message is sent.
_RENEW_AFTER = 2.0
# Seconds to wait for another process to unlock the ledger after a longer wait was in vain.
_NOT_LONG = 0.1


def mark_delivered(delivery: Delivery, entry: Entry) -> None:
    """Report that the message was delivered before."""
    delivery.status, delivery.reason = "already_sent", f"delivered before, {entry.sent_at or entry.ended_at}"
    delivery.client_message_id, delivery.conversation_id = entry.client_message_id, entry.conversation_id
    delivery.otid = entry.otid or delivery.otid
    delivery.sent_at = entry.sent_at or entry.ended_at


def mark_inactive(delivery: Delivery, state: str) -> bool:
    """Whether a campaign in this state sends nothing; the delivery then says so."""
    if state == ACTIVE:
        return False
    delivery.status = "skipped" if state == "cancelled" else "not_attempted"
    delivery.reason, delivery.error = f"the campaign is {state}", None
    return True


@dataclass(frozen=True, slots=True)
class _Claim:
    """The row with which this run has a message in flight.

    replaced: the row before, None if there was none. earlier: the row before, if it is of the same attempt.
    since: time of the monotonic clock at which it was made or renewed.
    """

    entry: Entry
    replaced: Entry | None
    earlier: Entry | None
    since: float

    def is_in_doubt(self, target: MessageTarget) -> bool:
        """Whether the message may have been delivered before.

        The ledger may be new, or may have lost its last commits. A Qoder session does not store our message id: in a
        session that the user named, an equal text may be another message, so only the idempotency key identifies ours.
        """
        if target.otid is not None or (self.earlier is not None and self.earlier.status in _IN_DOUBT):
            return True
        return self.replaced is None and target.conversation_id == NEW_CONVERSATION


class Campaign(Once):
    """A campaign while its messages are sent: claims each target's message, and records what happened to it.

    In a row that is in flight, a conversation of TO_BE_OPENED means that nothing has been sent yet.

    find_message: as in Conversations. audit: None for no audit log.
    verify: whether to look up each message that is in doubt, or only those that no key protects.
    """

    HAS_EARLIER_RUNS = True

    def __init__(
        self,
        name: str,
        deliveries: Deliveries,
        plan: CampaignPlan,
        find_message: Callable[[Question, bool], Awaitable[str | None]],
        audit: AuditLog | None = None,
        *,
        verify: bool = True,
    ) -> None:
        self._name = name
        self._deliveries = deliveries
        self._ledger = deliveries.ledger
        self._plan = plan
        self._find_message = find_message
        self._verify = verify
        self._audit = audit
        self._claims: dict[str, _Claim] = {}
        # The row of each target as this run knows it.
        self._rows = dict(plan.rows)
        self._runs: dict[int, dict[str, Any]] = {}
        self._state = plan.state
        # Why a delivery could not be recorded, None while all could.
        self.problem: str | None = None
        self._began_at = self._ledger.now()
        deliveries.begin(name, plan.source_hash, plan.repeat)

    def mark_settled(self, target: MessageTarget, delivery: Delivery) -> bool:
        entry = self._plan.settled.get(target.environment.id)
        if entry is not None:
            mark_delivered(delivery, entry)
        return entry is not None

    async def find_stop(self) -> str | None:
        """Why this run sends no more messages: the campaign is paused or cancelled, or a delivery was not recorded.

        A reason that was found once stays for the whole run. Raises ApiError if the ledger fails.
        """
        if self.problem is not None:
            return _UNRECORDED
        with self._convert_errors():
            if self._state == ACTIVE:
                self._state = await self._ledger.in_thread(lambda: self._deliveries.state(self._name))
        return None if self._state == ACTIVE else f"the campaign is {self._state}"

    def mark_unsent(self, delivery: Delivery) -> bool:
        if self.problem is not None:
            delivery.status, delivery.reason, delivery.error = "not_attempted", _UNRECORDED, None
            return True
        return mark_inactive(delivery, self._state)

    async def claim(self, target: MessageTarget, delivery: Delivery) -> bool:
        """Record the target's message as in flight; False if it is not to be sent, and the delivery says why.

        Raises ApiError, unclear only if the message may have been sent before.
        """
        if self.mark_unsent(delivery):
            return False
        with self._convert_errors():
            claim = await self._take_claim(target, delivery)
        if claim is None:
            return False
        self._claims[target.environment.id] = claim
        opened = claim.entry.conversation_id
        delivery.conversation_id = None if opened in TO_BE_OPENED else opened
        return True

    async def _take_claim(self, target: MessageTarget, delivery: Delivery) -> _Claim | None:
        """Replace the row by one of this run; None if the row does not allow it, and the delivery says why.

        The row is as the plan has read it unless it is in doubt, or has been replaced since.
        """
        seen, is_held = self._rows.get(target.environment.id), False
        if seen is not None and seen.status in _IN_DOUBT:
            seen, is_held = await self._read(target)
        while seen is None or self._may_claim(seen, target, delivery, is_held=is_held):
            earlier = seen if seen is not None and seen.attempt == target.attempt else None
            claim = _Claim(self._make_entry(target, earlier), seen, earlier, time.monotonic())
            if await self._deliveries.replace(seen, claim.entry):
                return claim
            seen, is_held = await self._read(target)
        return None

    async def _read(self, target: MessageTarget) -> tuple[Entry | None, bool]:
        """The target's row as it is now, and whether another run that is alive has it in flight."""

        def look() -> tuple[Entry | None, bool]:
            seen = self._deliveries.entry(self._name, target.environment.id)
            if seen is None or seen.status != "in_flight" or seen.run == self._ledger.run:
                return seen, False
            return seen, self._ledger.is_alive(seen.run)

        seen, is_held = await self._ledger.in_thread(look)
        self._keep(target, seen)
        return seen, is_held

    def _keep(self, target: MessageTarget, row: Entry | None) -> None:
        if row is not None:
            self._rows[target.environment.id] = row
        else:
            self._rows.pop(target.environment.id, None)

    def _make_entry(self, target: MessageTarget, earlier: Entry | None) -> Entry:
        now, ids = self._ledger.now(), (target.environment.id, str(target.client_message_id))
        return Entry(
            campaign=self._name,
            environment_id=ids[0],
            host=target.host,
            attempt=target.attempt,
            client_message_id=ids[1],
            content_hash=self._plan.content_hashes[ids[0]],
            status="in_flight",
            repeat=self._plan.repeat,
            run=self._ledger.run,
            began_at=earlier.began_at if earlier is not None else now,
            claimed_at=now,
            agent_id=target.agent_id,
            conversation_id=choose_conversation(target, earlier),
            **target.provider.idempotency_keys(*ids),
        )

    def _may_claim(self, seen: Entry, target: MessageTarget, delivery: Delivery, *, is_held: bool) -> bool:
        """Whether a row allows this run to send the message. Raises ApiError if only the user can decide.

        is_held: whether another run that is alive has it in flight.
        """
        if is_held:
            delivery.reason = f"another run of the campaign has it in flight since {seen.claimed_at}"
            return False
        if seen.attempt > target.attempt or (seen.attempt == target.attempt and seen.status == "sent"):
            mark_delivered(delivery, seen)
            return False
        if seen.content_hash != self._plan.content_hashes[target.environment.id]:
            raise ApiError(describe_other_content(self._name, seen), code="other_content")
        if seen.status not in _IN_DOUBT or seen.conversation_id in TO_BE_OPENED:
            return True
        place = (seen.agent_id, seen.conversation_id or DEFAULT_CONVERSATION)
        # The one that an earlier run has opened takes the place of one to be opened.
        wanted = place[1] if target.conversation_id in TO_BE_OPENED else target.conversation_id or DEFAULT_CONVERSATION
        if place != (target.agent_id, wanted):
            raise ApiError(
                f"may have been delivered before to agent {place[0]}, conversation {place[1]}; "
                "run the campaign with these once, so that it is looked up there",
                code="other_agent",
                may_be_accepted=True,
            )
        return True

    async def record_session(self, target: MessageTarget, delivery: Delivery) -> None:
        await self._renew(target, conversation_id=delivery.conversation_id)

    async def _renew(self, target: MessageTarget, **changes: Any) -> None:
        """Change the row of a claim. Raises ApiError if another run has taken it over, to which this one was dead."""
        claim, since = self._claims[target.environment.id], time.monotonic()
        entry = replace(claim.entry, **changes)
        with self._convert_errors():
            is_ours = await self._deliveries.replace(claim.entry, entry)
        if not is_ours:
            raise ApiError("another run of the campaign has taken it over", code="taken_over")
        self._claims[target.environment.id] = replace(claim, entry=entry, since=since)

    def looks_up(self, target: MessageTarget) -> bool:
        """Whether a target's message is in doubt, and is to be looked up."""
        claim = self._claims[target.environment.id]
        is_wanted = self._verify or _has_expired_key(claim.entry)
        return is_wanted and target.provider.knows_who_answers(target.agent_id) and claim.is_in_doubt(target)

    async def find_earlier(self, target: MessageTarget, delivery: Delivery, place: Place) -> str | None:
        """As in Once; only a message that is in doubt is looked up. The error of a look-up that fails is unclear."""
        found = await self._look_up(target, delivery, place) if self.looks_up(target) else None
        if found is None and time.monotonic() > self._claims[target.environment.id].since + _RENEW_AFTER:
            await self._renew(target, claimed_at=self._ledger.now())
        return found

    async def _look_up(self, target: MessageTarget, delivery: Delivery, place: Place) -> str | None:
        earlier = self._claims[target.environment.id].earlier
        # A conversation that this run has read lacks what another run has sent since this one began.
        fresh = earlier is not None and earlier.claimed_at >= self._began_at
        since = earlier.began_at if earlier is not None else None
        try:
            for conversation_id in (*([] if place.is_new else [place.conversation_id]), *place.others):
                found = await self._find_message(target.question(conversation_id, since=since), fresh)
                if found is not None:
                    delivery.conversation_id = conversation_id
                    return found
            if place.problem is not None:
                raise place.problem.but(f"{place.problem}; with verify=none it is sent without a look")
        except ApiError as error:
            message = f"whether it was delivered before cannot be looked up: {error}"
            raise error.but(message, may_be_accepted=True) from None
        return None

    async def record(self, target: MessageTarget, delivery: Delivery) -> None:
        """Record what happened to the target's message, and to its turn if that was waited for.

        The row of a message that was claimed and not sent is restored. If the ledger fails, the delivery says so and
        the row stays in flight, so the next run looks the message up. After that, or if the audit log fails, nothing
        more is sent.
        """
        claim = self._claims.pop(target.environment.id, None)
        try:
            if claim is not None and delivery.status in ("skipped", "not_attempted"):
                await self._deliveries.restore(claim.entry, claim.replaced)
                self._keep(target, claim.replaced)
            else:
                # No other run changes the row of a claim while this run is alive.
                await self._record_end(
                    target, delivery, claim.entry if claim else self._rows.get(target.environment.id)
                )
        except OptionError as error:
            self._give_up(error)
            delivery.error = delivery.error or {"code": error.option, "message": str(error)}

    async def _record_end(self, target: MessageTarget, delivery: Delivery, entry: Entry | None) -> None:
        while entry is not None and entry.client_message_id == delivery.client_message_id:
            ended = self._add_end(entry, delivery)
            if ended == entry:
                return
            if await self._deliveries.replace(entry, ended):
                self._keep(target, ended)
                await self._log(target, ended)
                return
            entry, _is_held = await self._read(target)

    async def _log(self, target: MessageTarget, entry: Entry) -> None:
        if self._audit is None:
            return
        record, run = asdict(entry), entry.run
        del record["run"]
        if run not in self._runs:
            self._runs[run] = await self._ledger.in_thread(lambda: self._deliveries.describe_run(run))
        record |= self._runs[run]
        contents = [message.content_option for message in target.messages]
        self._audit.append({**record, "content": contents} if self._audit.with_content else record)

    def _add_end(self, entry: Entry, delivery: Delivery) -> Entry:
        """The row with what is known now; the row of another run keeps its end."""
        reply_state = delivery.reply.state if delivery.reply else entry.reply_state
        if entry.run != self._ledger.run or entry.status != "in_flight":
            return replace(entry, reply_state=reply_state)
        found = delivery.status == "already_sent"
        return replace(
            entry,
            status="sent" if found else delivery.status,
            sent_at=delivery.sent_at,
            ended_at=self._ledger.now(),
            conversation_id=delivery.conversation_id if found else entry.conversation_id,
            otid=delivery.otid,
            outcome=FOUND if found else delivery.error["code"] if delivery.error else None,
            reply_state=reply_state,
        )

    @contextmanager
    def _convert_errors(self) -> Iterator[None]:
        try:
            yield
        except OptionError as error:
            self._give_up(error)
            raise ApiError(str(error), code="ledger") from None

    def _give_up(self, error: OptionError) -> None:
        """Send nothing more, and wait only shortly for the ledger while the messages under way end."""
        self.problem = self.problem or str(error)
        if error.option == "ledger":
            self._ledger.wait_for_others(_NOT_LONG)


def choose_conversation(target: MessageTarget, earlier: Entry | None) -> str | None:
    """The conversation of a claim. What an earlier run may have sent stays where it sent it, under the same id.

    earlier: the row of the same attempt. Without a conversation it was sent to the agent's default one.
    """
    wanted = target.conversation_id
    if target.provider.makes_session(wanted):
        return earlier.conversation_id if earlier is not None else None
    if wanted not in TO_BE_OPENED or earlier is None or earlier.status not in _IN_DOUBT:
        return wanted
    return wanted if earlier.conversation_id in TO_BE_OPENED else earlier.conversation_id or DEFAULT_CONVERSATION


def _has_expired_key(entry: Entry) -> bool:
    """Whether the idempotency key of a message has expired, or expires soon, so that it no longer protects."""
    age = datetime.now(UTC) - datetime.fromisoformat(entry.began_at)
    return entry.message_key is not None and age > _KEYS_PROTECT_FOR
