# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides what targets mean that name no conversation, before anything is sent.

A conversation has one turn at a time. So targets that share an agent have a standing conversation each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ...module_utils.fleet.fan_out import Target
from ...module_utils.providers.conversation import (
    EITHER_CONVERSATION,
    STANDING_CONVERSATION,
    TO_BE_OPENED,
    Address,
)
from ...module_utils.providers.registry import find_provider
from ...module_utils.text import one_line


def count_addresses(targets: Iterable[Target]) -> Counter[Address]:
    """The addresses of targets whose agents can have standing conversations."""
    return Counter(Address(target.agent_id, target.conversation_id) for target in targets if _has_standing(target))


def choose_conversations(targets: Sequence[Target], others: Counter[Address]) -> list[Target]:
    """The targets with their conversations. others: the addresses of the hosts that have a task of their own."""
    agents = Counter(agent_id for agent_id, _conversation_id in (count_addresses(targets) + others).elements())

    def choose(target: Target) -> Target:
        if target.conversation_id is not None or not _has_standing(target):
            return target
        is_shared = agents[target.agent_id] > 1
        return replace(target, conversation_id=STANDING_CONVERSATION if is_shared else EITHER_CONVERSATION)

    return [choose(target) for target in targets]


def explain_crowded(targets: Iterable[Target], others: Counter[Address]) -> str | None:
    """What can happen to targets that name the same conversation, in one line; None if no two of them do."""
    crowded = [
        f"{count + others[one]} targets share {one_line(one.conversation_id, 80)} of {one_line(one.agent_id, 80)}"
        for one, count in count_addresses(targets).items()
        if count + others[one] > 1 and one.conversation_id is not None and one.conversation_id not in TO_BE_OPENED
    ]
    if not crowded:
        return None
    return (
        f"conversation_id: {'; '.join(crowded[:3])}. A conversation has one turn at a time, and a device that finds it "
        "busy for a minute drops its message. Leave conversation_id out for a conversation each."
    )


def _has_standing(target: Target) -> bool:
    return find_provider(target.environment.provider).standing and target.agent_id is not None
