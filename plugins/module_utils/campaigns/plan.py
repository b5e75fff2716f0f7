# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans a campaign from its ledger, before anything is sent: its targets, and the ids of their messages.

The id of a message follows from campaign, environment and attempt alone, so it is the same after a ledger was lost.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..errors import OptionError
from ..fleet.delivery import MessageTarget
from ..fleet.replies import SentMessage, collect_replies
from ..ledger.deliveries import Deliveries
from ..ledger.schema import ACTIVE, Entry
from ..providers.conversation import DROPPED, Look, Question
from ..providers.message import Message
from ..text import hash_text

_IDS = uuid.UUID("7c1f0c52-9f0e-4c5e-8a1e-3f6b0d2a9e47")


def make_message_id(campaign: str, environment_id: str, attempt: int, place: int = 0) -> str:
    """The id of a message. place: its index among the messages of one attempt."""
    return str(uuid.uuid5(_IDS, json.dumps([campaign, environment_id, attempt, place])))


def hash_content(messages: Sequence[Message]) -> str:
    """The SHA-256 of user messages without their ids, as JSON with sorted keys. Ledgers store it: it never changes."""
    bare = [{"role": "user", "content": message.content_option} for message in messages]
    return hash_text(json.dumps(bare, sort_keys=True))


@dataclass(frozen=True, slots=True)
class CampaignPlan:
    """The plan of a campaign: the targets that are not settled get their messages, under the ids that these have.

    targets: as given, with the ids of their attempt in the messages.
    settled: by environment id, the delivery of each target that got its message before and gets none now.
    content_hashes: by environment id, the hash of the messages.
    source_hash: the hash of the content that the targets share, None if each has its own.
    repeat: the number of times that a run has begun to send to all again, this run included.
    state: of the campaign; nothing is sent unless it is active.
    rows: by environment id, the deliveries of the campaign as the plan has read them.
    """

    targets: Sequence[MessageTarget]
    settled: Mapping[str, Entry]
    content_hashes: Mapping[str, str]
    source_hash: str | None = None
    repeat: int = 0
    state: str = ACTIVE
    rows: Mapping[str, Entry] = field(default_factory=dict)


def plan_campaign(
    deliveries: Deliveries,
    campaign: str,
    retry: str,
    targets: Sequence[MessageTarget],
    source_hash: str | None = None,
    *,
    failed: Collection[str] = (),
) -> CampaignPlan:
    """The plan of a run. failed: see `find_failed_turns`. Raises OptionError if the content has changed."""
    entries, repeat = deliveries.entries(campaign), deliveries.repeat(campaign)
    to_send = [target for target in targets if target.skip is None]
    if retry == "all" and not _is_unfinished(repeat, entries, to_send):
        repeat += 1
    hashes = {target.environment.id: hash_content(target.messages) for target in to_send}
    settled: dict[str, Entry] = {}
    attempts = dict.fromkeys(hashes, 1)
    for environment_id, entry in ((one, entries[one]) for one in hashes if one in entries):
        if entry.content_hash != hashes[environment_id]:
            raise OptionError("campaign", describe_other_content(campaign, entry))
        is_wanted = environment_id in failed or _is_wanted_again(entry, retry, repeat)
        is_sent = entry.status == "sent"
        attempts[environment_id] = entry.attempt + (is_sent and is_wanted)
        if is_sent and not is_wanted:
            settled[environment_id] = entry
    deliveries.check_source(campaign, source_hash)
    planned = [
        _set_ids(campaign, target, attempts[target.environment.id]) if target.skip is None else target
        for target in targets
    ]
    return CampaignPlan(planned, settled, hashes, source_hash, repeat, deliveries.state(campaign), entries)


async def find_failed_turns(plan: CampaignPlan, search_reply: Callable[[Question], Look]) -> set[str]:
    """Look once at what is settled without a known end; the ids of environments whose turn failed or never began."""
    messages = []
    for target in plan.targets:
        entry, provider = plan.settled.get(target.environment.id), target.provider
        if entry and entry.reply_state not in ("failed", "replied") and provider.knows_who_answers(entry.agent_id):
            question = target.question(entry.conversation_id, otid=entry.otid, since=entry.sent_at)
            question = replace(question, agent_id=entry.agent_id or "")
            messages.append(SentMessage(target.host, entry.environment_id, entry.client_message_id, question))
    replies = await collect_replies(messages, search_reply, math.inf)
    ends = zip(messages, replies, strict=True)
    return {str(one.id) for one, reply in ends if reply.state == "failed" or reply.code == DROPPED}


def _is_unfinished(repeat: int, entries: Mapping[str, Entry], targets: Sequence[MessageTarget]) -> bool:
    """Whether the last repeat has not reached all targets, or all environments in the ledger."""
    reached = {entry.environment_id for entry in entries.values() if entry.repeat >= repeat and entry.status == "sent"}
    wanted = entries.keys() | {target.environment.id for target in targets}
    return repeat > 0 and not wanted <= reached


def _is_wanted_again(entry: Entry, retry: str, repeat: int) -> bool:
    return (retry == "all" and entry.repeat < repeat) or (retry == "failed_turns" and entry.reply_state == "failed")


def _set_ids(campaign: str, target: MessageTarget, attempt: int) -> MessageTarget:
    ids = [make_message_id(campaign, target.environment.id, attempt, place) for place in range(len(target.messages))]
    messages = [
        replace(message, client_message_id=own_id, otid=own_id)
        for message, own_id in zip(target.messages, ids, strict=True)
    ]
    return replace(target, messages=messages, attempt=attempt)


def describe_other_content(campaign: str, entry: Entry) -> str:
    """The message for a target whose content differs from the content in its row."""
    return (
        f"{campaign!r} has had other content for {entry.host} since {entry.claimed_at}; "
        "give what is new a campaign of its own"
    )
