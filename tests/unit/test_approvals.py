"""Answers to several tool calls of a turn: a device asks about one at a time, and takes each answer once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from ansible_collections.fleetops.environments.plugins.module_utils.errors import ApiError, OptionError
from ansible_collections.fleetops.environments.plugins.module_utils.providers.conversation import Address
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta import approvals as letta_approvals
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.approvals import (
    answer_over_relay,
    find_decisions,
)
from ansible_collections.fleetops.environments.plugins.module_utils.providers.message import Message, parse_messages

from .support import settings_for

ALLOW = {"type": "approval", "tool_call_id": "call-1", "approve": True}
DENY = {"type": "approval", "tool_call_id": "call-2", "approve": False}


@dataclass
class FakeDevice:
    """A relay with a device that asks about these tool calls, the next one after an answer."""

    asks: list[str]
    refuses: str | None = None
    taken: list[dict[str, Any]] = field(default_factory=list)

    async def serve(self, socket: ServerConnection) -> None:
        async for text in socket:
            frame = json.loads(text)
            for answer in self.answers(frame):
                await socket.send(json.dumps(answer))

    def answers(self, frame: dict[str, Any]) -> list[dict[str, Any]]:
        request_id = frame.get("request_id")
        if frame["type"] == "sync":
            request = [{"request_id": f"perm-{call}", "request": {"tool_call_id": call}} for call in self.asks[:1]]
            return [
                {"type": "update_device_status", "device_status": {"pending_control_requests": request, "other": 1}},
                {"type": "update_loop_status", "loop_status": {"status": "WAITING_ON_APPROVAL"}},
                {"type": "sync_response", "request_id": request_id, "success": True},
            ]
        if frame["type"] != "input":
            return []
        payload = frame["payload"]
        assert payload["request_id"] == f"perm-{self.asks[0]}"
        if self.asks[0] == self.refuses:
            said = {"accepted": False, "error": "Approval request is no longer pending"}
        else:
            self.taken.append({"call": self.asks.pop(0), **payload["decision"]})
            said = {"accepted": True}
        return [{"type": "input_accepted", "request_id": request_id, **said}]


def answer(device: FakeDevice, decisions: Sequence[dict[str, Any]]) -> str | None:
    async def run() -> str | None:
        async with serve(device.serve, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            settings = settings_for(f"http://127.0.0.1:{port}", retries=0, timeout=2)
            return await answer_over_relay(settings, "connection-1", Address("agent-1", None), decisions)

    return asyncio.run(run())


def test_each_tool_call_is_answered_when_the_device_asks_for_it() -> None:
    device = FakeDevice(["call-2", "call-1"])

    assert answer(device, [ALLOW | {"reason": "fine", "updated_input": {"command": "ls"}}, DENY]) is None

    assert device.taken == [
        # A device refuses a denial without a message.
        {"call": "call-2", "behavior": "deny", "message": "Denied by the operator"},
        {"call": "call-1", "behavior": "allow", "message": "fine", "updated_input": {"command": "ls"}},
    ]


def test_a_decision_that_the_device_does_not_ask_for_is_not_sent() -> None:
    device = FakeDevice(["call-9"])

    assert answer(device, [ALLOW, DENY]) == "the device does not wait for this answer, and may refuse it"
    assert device.taken == []


def test_an_answer_that_stops_after_the_first_tool_call_is_unclear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letta_approvals, "_NEXT_WITHIN", 0.5)
    never, refused = FakeDevice(["call-1"]), FakeDevice(["call-1", "call-2"], refuses="call-2")

    errors = []
    for device in (never, refused):
        with pytest.raises(ApiError) as raised:
            answer(device, [ALLOW, DENY])
        errors.append(raised.value)

    assert [error.may_be_accepted for error in errors] == [True, True]
    assert [len(device.taken) for device in (never, refused)] == [1, 1]
    begun = "some tool calls were answered, but not call-2: "
    assert str(errors[0]) == f"{begun}the device did not ask within 0.5 s"
    assert str(errors[1]).endswith("refused the answer to call-2: Approval request is no longer pending")


def test_a_refused_answer_has_no_effect() -> None:
    with pytest.raises(ApiError) as raised:
        answer(FakeDevice(["call-1"], refuses="call-1"), [ALLOW])

    assert (raised.value.code, raised.value.may_be_accepted) == ("refused", False)


def test_only_messages_of_decisions_alone_go_to_the_device() -> None:
    result = {"type": "tool", "tool_call_id": "call-1", "status": "success", "tool_return": "ok"}
    user = Message("go on", "m-1")

    assert find_decisions([Message(approvals=(ALLOW, DENY))]) == [ALLOW, DENY]
    assert find_decisions([Message(approvals=(ALLOW, result))]) == []
    assert find_decisions([Message(approvals=(ALLOW,)), user]) == []
    assert find_decisions([user]) == []


def test_two_answers_to_one_tool_call_are_refused() -> None:
    message = {"type": "approval", "approvals": [ALLOW, {**ALLOW, "approve": False}]}

    with pytest.raises(OptionError, match="approvals: the same tool_call_id comes twice"):
        parse_messages("approvals", [message])
