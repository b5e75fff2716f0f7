# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers to tool calls that wait for approval, sent to the device over the relay.

Source of the rules: Letta Code 0.34. A device asks about one tool call after another, refuses answers that come as
messages, and accepts each answer once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..._deps import jmespath
from ...errors import ApiError
from ...http.settings import HttpSettings
from ...text import one_line
from ..conversation import Address
from ..message import Message
from .relay import Relay, describe_refusal

_DENIED = "Denied by the operator"
# Seconds until a device asks about the next of several tool calls.
_NEXT_WITHIN = 10.0
_PAUSE = 0.3
# Of a list, those entries that have what is needed; of anything else null.
_REQUESTS = jmespath.compile(
    "pending_control_requests[?type(request.tool_call_id) == 'string'].{request_id: request_id, "
    "tool_call_id: request.tool_call_id, tool_name: request.tool_name, arguments: request.input}"
)

Decision = Mapping[str, Any]


def find_decisions(messages: Sequence[Message]) -> list[Decision]:
    """The decisions in messages that contain nothing else; else an empty list."""
    answers = [answer for message in messages for answer in message.approvals]
    alone = all(message.approvals for message in messages) and all("approve" in answer for answer in answers)
    return answers if alone else []


async def answer_over_relay(
    settings: HttpSettings, connection_id: str | None, to: Address, decisions: Sequence[Decision]
) -> str | None:
    """Give the device the decisions, each once; returns why not, where it waits for none of them or cannot be asked.

    Raises ApiError for what is unclear or was refused, and with the code `offline` if the connection has gone.
    """
    left = {str(decision["tool_call_id"]): decision for decision in decisions}
    # None until the device has been given an answer.
    give_up_at: float | None = None
    while left:
        # On entering, the device reports what it waits for.
        relay = Relay(settings, connection_id, *to)
        waiting = None
        try:
            async with relay:
                waiting = _find_waiting(relay, left)
                for tool_call_id, request_id in waiting.items():
                    await _answer(relay, request_id, left[tool_call_id], settings.timeout)
                    del left[tool_call_id]
        except ApiError as error:
            if waiting is None and give_up_at is None and error.code != "offline":
                return f"the device could not be asked whether it waits for this answer: {error}"
            raise _make_doubtful(error, left, decisions) from None
        if waiting:
            give_up_at = time.monotonic() + _NEXT_WITHIN
        elif give_up_at is None:
            return "the device does not wait for this answer, and may refuse it"
        elif time.monotonic() > give_up_at:
            late = ApiError(f"the device did not ask within {_NEXT_WITHIN:g} s", code="timeout")
            raise _make_doubtful(late, left, decisions)
        else:
            await asyncio.sleep(_PAUSE)
    return None


def find_requests(relay: Relay) -> list[dict[str, Any]] | None:
    """What a device asks about, each as `{request_id, tool_call_id, tool_name, arguments}`; None if it does not say."""
    found: list[dict[str, Any]] | None = _REQUESTS.search(relay.device_status)
    return found


def _find_waiting(relay: Relay, decisions: Mapping[str, Decision]) -> dict[str, str]:
    """Tool call id → request id, of each decision that the device waits for."""
    found = {entry["tool_call_id"]: entry["request_id"] for entry in find_requests(relay) or []}
    return {call: request_id for call, request_id in found.items() if call in decisions and isinstance(request_id, str)}


async def _answer(relay: Relay, request_id: str, decision: Decision, within: float) -> None:
    reason = decision.get("reason")
    # A device rejects a denial without a message.
    said: dict[str, Any] = {"behavior": "deny", "message": reason or _DENIED}
    if decision["approve"]:
        allowed = {"behavior": "allow", "message": reason, "updated_input": decision.get("updated_input")}
        said = {name: value for name, value in allowed.items() if value is not None}
    payload = {"kind": "approval_response", "request_id": request_id, "decision": said}
    answer = await relay.request({"type": "input", "payload": payload}, "input_accepted", within)
    if answer.get("accepted") is not True:
        why = describe_refusal(answer)
        raise ApiError(f"the device refused the answer to {decision['tool_call_id']}: {why}", code="refused")


def _make_doubtful(error: ApiError, left: Mapping[str, Decision], decisions: Sequence[Decision]) -> ApiError:
    """The error; if some tool calls were answered before, one that says so and may not be repeated."""
    if len(left) == len(decisions):
        return error
    message = f"some tool calls were answered, but not {one_line(', '.join(left))}: {error}"
    return ApiError(message, code=error.code, may_be_accepted=True)
