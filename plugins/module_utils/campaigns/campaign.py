# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Campaigns: the same messages to the same environments are delivered once, whatever happens to the runs.

The order for each target: claim it (committed), look it up in the conversation where that is in doubt, send, record.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from ..errors import ApiError, OptionError
from ..fleet.delivery import NEW_CONVERSATION, Delivery, MessageTarget
from ..ledger.audit_log import AuditLog
from ..ledger.schema import ACTIVE, Entry
from ..ledger.store import Ledger
from ..providers.base import idempotency_key
from ..providers.conversation import Question
from ..text import iso_now
from .plan import Plan, other_content

# What a delivery's end leaves open: whether it was accepted.
_IN_DOUBT = ("in_flight", "unknown")

# A provider with sessions keeps idempotency keys for 24 h.
_KEYS_PROTECT_FOR = timedelta(hours=23)

FOUND = "found in the conversation"
_UNRECORDED = "another delivery could not be put down"
# Seconds to wait for another process that the ledger was waited for in vain before.
_NOT_LONG = 0.1
# See `Conversations.arrived` in provider.py.
Arrived = Callable[[Question, bool], Awaitable[str | None]]


def settle(delivery: Delivery, entry: Entry, reason: str | None = None) -> None:
    """Report that the message was delivered before."""
    delivery.status, delivery.reason = "already_sent", reason or f"delivered before, {entry.sent_at or entry.ended_at}"
    delivery.client_message_id, delivery.conversation_id = entry.client_message_id, entry.conversation_id
    delivery.otid = entry.otid or delivery.otid
    delivery.sent_at = entry.sent_at or entry.ended_at


def hold(delivery: Delivery, state: str) -> bool:
    """Whether a campaign in this state sends nothing; the delivery then says so."""
    if state == ACTIVE:
        return False
    delivery.status = "skipped" if state == "cancelled" else "not_attempted"
    delivery.reason, delivery.error = f"the campaign is {state}", None
    return True


@dataclass(frozen=True, slots=True)
class _Claim:
    """What this run has in flight.

    replaced: the row before. seen: that, where it is of the same attempt. in_doubt: whether it may be delivered.
    """

    entry: Entry
    replaced: Entry | None
    seen: Entry | None
    in_doubt: bool


class Campaign:
    """A campaign while its messages are sent: which target may have its own now, and what became of it."""

    def __init__(
        self,
        name: str,
        ledger: Ledger,
        plan: Plan,
        arrived: Arrived,
        audit: AuditLog | None = None,
        *,
        verify: bool = True,
    ) -> None:
        self._name = name
        self._ledger = ledger
        self._plan = plan
        self._arrived = arrived
        # Whether to look up all that is in doubt, or only what no key protects.
        self._verify = verify
        self._audit = audit
        self._claims: dict[str, _Claim] = {}
        self._state = ACTIVE
        # Why a delivery could not be put down, None while all could.
        self.problem: str | None = None
        self._began_at = iso_now()
        ledger.begin(name, plan.source_hash, plan.repeat)

    def settles(self, target: MessageTarget, delivery: Delivery) -> bool:
        """Whether the ledger has the target's message as delivered; the delivery then says so."""
        entry = self._plan.settled.get(target.environment.id)
        if entry is not None:
            settle(delivery, entry)
        return entry is not None

    def stopped(self) -> str | None:
        """Whether somebody has paused or cancelled the campaign, or a delivery could not be put down.

        Once it was, it is so for this run, in which nothing is taken up again. Raises ApiError where the ledger fails.
        """
        if self.problem is not None:
            return _UNRECORDED
        with self._ledger_errors():
            if self._state == ACTIVE:
                self._state = self._ledger.state(self._name)
        return None if self._state == ACTIVE else f"the campaign is {self._state}"

    def holds(self, delivery: Delivery) -> bool:
        """Whether nothing more is sent for a reason that `stopped` has found; the delivery then says so."""
        if self.problem is not None:
            delivery.status, delivery.reason, delivery.error = "not_attempted", _UNRECORDED, None
            return True
        return hold(delivery, self._state)

    def claim(self, target: MessageTarget, delivery: Delivery) -> bool:
        """Put the target's message in flight; False, and the delivery says why, where it is not to be sent.

        Raises ApiError, unclear only where it may have been sent before.
        """
        self.stopped()
        if self.holds(delivery):
            return False
        with self._ledger_errors():
            claim = self._claimed(target, delivery)
        if claim is None:
            return False
        self._claims[target.environment.id] = claim
        if target.in_session:
            delivery.conversation_id = claim.entry.conversation_id
        return True

    async def delivered(self, target: MessageTarget, delivery: Delivery) -> bool:
        """Look up what is in doubt; whether the message is in its conversation, and the delivery says so.

        A session that was made for it is put down first. Raises ApiError, unclear where it cannot be looked up.
        """
        claim = self._claims[target.environment.id]
        entry = replace(claim.entry, conversation_id=delivery.conversation_id)
        with self._ledger_errors():
            if entry != claim.entry and self._ledger.replace(claim.entry, entry):
                self._claims[target.environment.id] = replace(claim, entry=entry)
        can_be_looked_up = target.agent_id is not None or target.in_session
        if not claim.in_doubt or not can_be_looked_up or not (self._verify or _has_no_key(target, entry)):
            return False
        # What another run sent since this one began is not in what has been read before.
        fresh = claim.seen is not None and claim.seen.claimed_at >= self._began_at
        question = target.question(delivery.conversation_id, since=claim.seen.began_at if claim.seen else None)
        otid = await self._found(question, fresh=fresh)
        if otid is None:
            return False
        settle(delivery, replace(entry, otid=otid, ended_at=iso_now()), FOUND)
        return True

    def record(self, target: MessageTarget, delivery: Delivery) -> None:
        """Put down what became of the target's message, and of its turn where that was waited for.

        What was claimed and not sent is let go of: its row is as before. Where the ledger fails the delivery says so,
        and the row stays in flight: the next run looks it up. After that, and where the audit log fails, nothing more
        is sent.
        """
        claim = self._claims.pop(target.environment.id, None)
        try:
            # Nobody changes the row of a claim while its run is alive.
            entry = claim.entry if claim is not None else self._ledger.entry(self._name, target.environment.id)
            if claim is not None and entry is not None and delivery.status in ("skipped", "not_attempted"):
                self._ledger.restore(entry, claim.replaced)
            elif entry is not None and entry.client_message_id == delivery.client_message_id:
                ended = self._ended(entry, delivery)
                if self._ledger.replace(entry, ended) and ended != entry:
                    self._log(target)
        except OptionError as error:
            self._give_up(error)
            delivery.error = delivery.error or {"code": error.option, "message": str(error)}

    @contextmanager
    def _ledger_errors(self) -> Iterator[None]:
        try:
            yield
        except OptionError as error:
            self._give_up(error)
            raise ApiError(str(error), code="ledger") from None

    def _give_up(self, error: OptionError) -> None:
        """Send nothing more, and let what is under way end without another long wait for each."""
        self.problem = self.problem or str(error)
        if error.option == "ledger":
            self._ledger.wait_for_others(_NOT_LONG)

    def _log(self, target: MessageTarget) -> None:
        if self._audit is None:
            return
        [record] = self._ledger.records(self._name, target.environment.id)
        contents = [message.content_option for message in target.messages]
        self._audit.append({**record, "content": contents} if self._audit.with_content else record)

    def _ended(self, entry: Entry, delivery: Delivery) -> Entry:
        """The row with what is known now; that of another run keeps its end."""
        reply_state = delivery.reply.state if delivery.reply else entry.reply_state
        if entry.run != self._ledger.run or entry.status != "in_flight":
            return replace(entry, reply_state=reply_state)
        found = delivery.status == "already_sent"
        return replace(
            entry,
            status="sent" if found else delivery.status,
            sent_at=delivery.sent_at,
            ended_at=iso_now(),
            otid=delivery.otid,
            outcome=FOUND if found else delivery.error["code"] if delivery.error else None,
            reply_state=reply_state,
        )

    def _claimed(self, target: MessageTarget, delivery: Delivery) -> _Claim | None:
        """The claim of this run, None where it may have none."""
        while True:
            seen = self._ledger.entry(self._name, target.environment.id)
            if seen is not None and not self._may_claim(seen, target, delivery):
                return None
            before = seen if seen is not None and seen.attempt == target.attempt else None
            entry = self._in_flight(target, before)
            if self._ledger.replace(seen, entry):
                return _Claim(entry, seen, before, _is_in_doubt(target, seen, before))

    def _in_flight(self, target: MessageTarget, before: Entry | None) -> Entry:
        """The row of a claim. before: that of an earlier one for the same attempt."""
        now, ids = iso_now(), (target.environment.id, str(target.client_message_id))
        conversation_id = None if target.conversation_id == NEW_CONVERSATION else target.conversation_id
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
            began_at=before.began_at if before is not None else now,
            claimed_at=now,
            agent_id=target.agent_id,
            conversation_id=conversation_id or (before.conversation_id if before is not None else None),
            session_key=idempotency_key(*ids, "session") if target.in_session else None,
            message_key=idempotency_key(*ids, "message") if target.in_session else None,
        )

    def _may_claim(self, seen: Entry, target: MessageTarget, delivery: Delivery) -> bool:
        """Whether a row leaves the target's message to this run. Raises ApiError where only the user can tell."""
        if seen.status == "in_flight" and seen.run != self._ledger.run and self._ledger.is_alive(seen.run):
            delivery.reason = f"another run of the campaign has it in flight since {seen.claimed_at}"
            return False
        if seen.attempt > target.attempt or (seen.attempt == target.attempt and seen.status == "sent"):
            settle(delivery, seen)
            return False
        if seen.content_hash != self._plan.content_hashes[target.environment.id]:
            raise ApiError(other_content(self._name, seen), code="other_content")
        place = (seen.agent_id, seen.conversation_id)
        # A session that was made before is the one that a new one would be.
        wanted = seen.conversation_id if target.conversation_id == NEW_CONVERSATION else target.conversation_id
        if seen.status in _IN_DOUBT and place != (target.agent_id, wanted):
            raise ApiError(
                f"may have been delivered before to agent {seen.agent_id}, conversation {seen.conversation_id}; "
                "run the campaign with these once, so that it is looked up there",
                code="other_agent",
                may_be_accepted=True,
            )
        return True

    async def _found(self, question: Question, *, fresh: bool) -> str | None:
        try:
            return await self._arrived(question, fresh)
        except ApiError as error:
            message = f"whether it was delivered before cannot be looked up: {error}"
            raise ApiError(
                message, code=error.code, status=error.status, may_be_accepted=True, transient=error.transient
            ) from None


def _is_in_doubt(target: MessageTarget, seen: Entry | None, before: Entry | None) -> bool:
    """Whether a message may have been delivered before. seen: its row; before: that of the same attempt.

    The ledger may be a new one, as the last one was lost, or lack what the end of the machine took. A session has no id
    of ours to look up: in one that is given the same text may be another message's, and only the key tells.
    """
    if not target.in_session or (before is not None and before.status in _IN_DOUBT):
        return True
    return seen is None and target.conversation_id == NEW_CONVERSATION


def _has_no_key(target: MessageTarget, entry: Entry) -> bool:
    """Whether the key of a message has, or will soon have, expired, so that it no longer protects."""
    return target.in_session and datetime.now(UTC) - datetime.fromisoformat(entry.began_at) > _KEYS_PROTECT_FOR
