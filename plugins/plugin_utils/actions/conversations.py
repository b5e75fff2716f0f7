# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides what targets mean that name no conversation, before anything is sent.

A conversation has one turn at a time. So targets that share an agent have a standing conversation each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from ...module_utils.fleet.fan_out import Target
from ...module_utils.providers.conversation import EITHER_CONVERSATION, STANDING_CONVERSATION, TO_BE_OPENED
from ...module_utils.providers.registry import find_provider
from ...module_utils.text import one_line


def choose_conversations(targets: Sequence[Target], is_shared: Callable[[Target], bool]) -> list[Target]:
    """The targets with their conversations. is_shared: whether other tasks of the play are for a target's agent."""
    agents = Counter(target.agent_id for target in targets if _has_standing(target))

    def choose(target: Target) -> Target:
        if target.conversation_id is not None or not _has_standing(target):
            return target
        shared = agents[target.agent_id] > 1 or is_shared(target)
        return replace(target, conversation_id=STANDING_CONVERSATION if shared else EITHER_CONVERSATION)

    return [choose(target) for target in targets]


def explain_crowded(targets: Sequence[Target]) -> str | None:
    """What can happen to targets that name the same conversation, in one line; None if no two of them do."""
    named = [target for target in targets if _has_standing(target) and target.skip is None]
    counts = Counter((target.conversation_id, target.agent_id) for target in named)
    crowded = [
        f"{count} targets share {one_line(conversation, 80)} of {one_line(agent, 80)}"
        for (conversation, agent), count in counts.items()
        if count > 1 and conversation is not None and conversation not in TO_BE_OPENED
    ]
    if not crowded:
        return None
    return (
        f"conversation_id: {'; '.join(crowded[:3])}. A conversation has one turn at a time, and a device that finds it "
        "busy for a minute drops its message. Leave conversation_id out for a conversation each."
    )


def _has_standing(target: Target) -> bool:
    return find_provider(target.environment.provider).standing and target.agent_id is not None
