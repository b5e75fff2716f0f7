# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tool calls that wait for approval on devices, as the devices themselves report them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from ..errors import ApiError
from ..providers.letta.approvals import find_requests
from ..providers.letta.client import Client
from .device_work import KnownConversations
from .fan_out import ProviderRun, Target
from .jobs import ConversationOutcome, make_relay, on_each


@dataclass(slots=True, kw_only=True)
class PendingOutcome(ConversationOutcome):
    """What waits on one device. status: `ok` when the device reported it.

    pending_approvals: `{request_id, tool_call_id, tool_name, arguments}` each, in the agent's words.
    """

    pending_approvals: list[dict[str, Any]] = field(default_factory=list)


async def list_pending(
    run: ProviderRun, tool_names: Sequence[str] | None = None, known: KnownConversations | None = None
) -> list[PendingOutcome]:
    """Ask every target; one outcome each, in the same order. tool_names: patterns, None for every tool.

    known: where else the devices are asked, with an outcome for each place; None for the targets' own conversations.
    """

    async def ask(client: Client, target: Target, outcome: PendingOutcome) -> None:
        async with await make_relay(client, target, outcome) as relay:
            await relay.require_runtime()
            requests = find_requests(relay)
        if requests is None:
            raise ApiError("the device does not say what waits for approval", code="invalid")
        outcome.pending_approvals = [one for one in requests if matches_tool(one["tool_name"], tool_names)]
        outcome.status = "ok"

    on_all = on_each if known is None else known.on_each_place
    return await on_all(run, PendingOutcome.of, ask)


def matches_tool(tool_name: Any, patterns: Sequence[str] | None) -> bool:
    """Whether a tool's name matches one of the patterns, as in a shell. None matches every tool."""
    return patterns is None or any(fnmatchcase(str(tool_name), pattern) for pattern in patterns)


def decide_approvals(
    pending: Sequence[Mapping[str, Any]], allow: Sequence[str], deny: Sequence[str], reason: str | None
) -> list[dict[str, Any]]:
    """Answers `{tool_call_id, approve, reason}` to the calls whose tools match a pattern; deny wins over allow.

    Each id is answered once, and one that is not printable never, since it would be refused with all other answers.
    """
    answers = {}
    for call in pending:
        tool_call_id, denied = str(call["tool_call_id"]), matches_tool(call["tool_name"], deny)
        if tool_call_id.isprintable() and (denied or matches_tool(call["tool_name"], allow)):
            said = {"reason": reason} if reason else {}
            answers[tool_call_id] = {"tool_call_id": tool_call_id, "approve": not denied, **said}
    return list(answers.values())
