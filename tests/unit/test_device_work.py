"""Every conversation of a device: which ones are looked at, and which work is found elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.fleet import device_work
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.device_work import (
    ConversationTarget,
    KnownConversations,
)
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.fan_out import Target
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.turn import TurnChange, set_turn
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.standing import write_summary
from tests.sandbox.process import Sandbox
from tests.sandbox.turns import ApprovalTurn, LongTurn

from .support import environment_of, policy, settings_for

AGENT = "agent-1"


@dataclass
class Found:
    places: list[tuple[str, str | None]]
    strays: dict[str, list[str]]
    problems: list[str]
    relay_only: set[str | None]


@pytest.fixture
def devices(sandbox: Sandbox) -> list[dict[str, Any]]:
    """Two simulated devices that share an agent."""
    return [sandbox.add_environment(connectionName=name) for name in ("one", "two")]


def _key(sandbox: Sandbox) -> dict[str, str]:
    return {"Authorization": f"Bearer {sandbox.api_key}"}


def _make_conversation(sandbox: Sandbox, summary: str | None = None, agent_id: str = AGENT) -> str:
    body = {"summary": summary} if summary else {}
    made = sandbox.control.post(f"/v1/conversations/?agent_id={agent_id}", headers=_key(sandbox), json=body).json()
    return str(made["id"])


def _work(
    sandbox: Sandbox,
    device: dict[str, Any],
    conversation_id: str | None = None,
    turn: Any = None,
    agent_id: str = AGENT,
) -> None:
    """Begin a turn in a conversation on a device."""
    sandbox.script(agent_id, turn or LongTurn(seconds=3600))
    body = {
        "agentId": agent_id,
        "messages": [{"role": "user", "content": "x", "client_message_id": str(conversation_id)}],
    }
    body |= {"conversationId": conversation_id} if conversation_id else {}
    url = f"/v1/environments/{device['connectionId']}/messages"
    sandbox.control.post(url, headers=_key(sandbox), json=body).raise_for_status()


def _look(
    sandbox: Sandbox,
    *devices: dict[str, Any],
    recorded: Sequence[dict[str, Any]] = (),
    agent_id: str = AGENT,
    conversation_id: str | None = None,
) -> Found:
    """Where the devices as listed are looked at, and what is found elsewhere."""

    async def look() -> Found:
        settings, known = settings_for(sandbox, retries=0, timeout=2), KnownConversations(recorded, [])
        targets = [
            Target(device["connectionName"], environment_of(device, sandbox.url), agent_id, conversation_id)
            for device in devices
        ]
        places = await known.find_places(settings, targets, 2)
        relay_only = {place.conversation_id for place in places if place.relay_only}
        strays = await known.find_strays(settings, places, 2)
        return Found(
            [(place.host, place.conversation_id) for place in places], strays, list(known.problems), relay_only
        )

    return asyncio.run(look())


def test_the_conversations_of_a_device_are_found_and_none_of_another_one(
    sandbox: Sandbox, devices: list[dict[str, Any]]
) -> None:
    one, two = devices
    standing, other = (_make_conversation(sandbox, write_summary(device["id"])) for device in devices)
    campaign = _make_conversation(sandbox, write_summary(one["id"], "m-1"))
    rows = [{"id": one["id"], "agent_id": AGENT, "conversation_id": name} for name in ("conv-a", "default", "", None)]
    rows += [{"id": two["id"], "agent_id": AGENT, "conversation_id": "conv-b"}, {"id": one["id"]}]
    rows += [{"id": one["id"], "agent_id": "agent-2", "conversation_id": "conv-c"}]

    found = _look(sandbox, one, recorded=rows)
    both = _look(sandbox, one, two, recorded=rows, conversation_id="conv-given")

    assert found.places == [("one", None), ("one", campaign), ("one", standing), ("one", "conv-a")]
    assert (found.strays, found.problems) == ({}, [])
    assert set(both.places) == {
        *(("one", name) for name in (None, "conv-given", campaign, standing, "conv-a")),
        *(("two", name) for name in (None, "conv-given", other, "conv-b")),
    }
    assert both.places[0] == ("one", "conv-given")
    assert len(sandbox.requests("conversation_list")) == 2


def test_a_conversation_that_the_device_names_is_its_own_unless_it_is_of_another_device(
    sandbox: Sandbox, devices: list[dict[str, Any]]
) -> None:
    named, other = _make_conversation(sandbox), _make_conversation(sandbox, write_summary(devices[1]["id"]))
    places = {f"conversation:{named}": "/srv", f"conversation:{other}": "/srv", "agent:x::conversation:default": "/"}
    sandbox.patch(devices[0]["id"], metadata={**devices[0]["metadata"], "cwd_map": places})

    assert _look(sandbox, devices[0]).places == [("one", None), ("one", named)]


@pytest.mark.parametrize("turn", [LongTurn(seconds=3600), ApprovalTurn()], ids=["turn", "call"])
def test_work_that_belongs_to_no_known_device_is_found(
    sandbox: Sandbox, devices: list[dict[str, Any]], turn: Any
) -> None:
    stray, of_two = _make_conversation(sandbox), _make_conversation(sandbox, write_summary(devices[1]["id"]))
    stranger = sandbox.add_environment(connectionName="stranger")
    for device, conversation_id in ((stranger, stray), (devices[1], of_two), (stranger, None)):
        _work(sandbox, device, conversation_id, turn)

    assert _look(sandbox, devices[0]).strays == {AGENT: [stray]}
    assert _look(sandbox, devices[0], agent_id="agent-2").strays == {}


def test_a_call_that_was_answered_is_no_work(sandbox: Sandbox, devices: list[dict[str, Any]]) -> None:
    stray, stranger = _make_conversation(sandbox), sandbox.add_environment(connectionName="stranger")
    _work(sandbox, stranger, stray, ApprovalTurn())
    answer = {"type": "approval", "approvals": [{"type": "approval", "approve": False, "tool_call_id": "x"}]}
    history = sandbox.control.get(f"/v1/conversations/{stray}/messages", headers=_key(sandbox)).json()
    answer["approvals"][0]["tool_call_id"] = history[0]["tool_call"]["tool_call_id"]
    url = f"/v1/conversations/{stray}/messages"
    sandbox.control.post(url, headers=_key(sandbox), json={"messages": [answer]}).raise_for_status()

    assert _look(sandbox, devices[0]).strays == {}


def test_what_cannot_be_looked_at_is_a_problem(
    sandbox: Sandbox, devices: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_work, "_MOST_PLACES", 2)
    for number in range(2):
        _make_conversation(sandbox, write_summary(devices[0]["id"], f"m-{number}"))

    many = _look(sandbox, devices[0])
    sandbox.add_fault("status", route="runs", status=403)
    runs = _look(sandbox, devices[1])
    sandbox.clear_faults()
    sandbox.add_fault("status", route="conversation_list", status=403)
    conversations = _look(sandbox, devices[1])

    assert many.problems == ["3 conversations belong to one, too many to look at"]
    [problem] = runs.problems
    assert problem.startswith(f"it is not known whether {AGENT} is at work elsewhere: GET ")
    [problem] = conversations.problems
    assert problem.startswith(f"the conversations of {AGENT} cannot be listed: GET ")


def test_the_server_is_not_told_of_a_conversation_in_which_another_device_may_be_at_work(
    sandbox: Sandbox, devices: list[dict[str, Any]]
) -> None:
    own = _make_conversation(sandbox, write_summary(devices[0]["id"]))
    rows = [{"id": device["id"], "agent_id": AGENT, "conversation_id": "conv-shared"} for device in devices]
    sandbox.offline(devices[0]["id"])

    alone, shared = _look(sandbox, devices[0]), _look(sandbox, devices[0], recorded=rows)
    given = _look(sandbox, devices[0], conversation_id="conv-x")
    given_and_shared = _look(sandbox, devices[0], recorded=rows, conversation_id="conv-shared")

    assert alone.places == [("one", None), ("one", own)]
    assert (alone.relay_only, shared.relay_only) == (set(), {None, "conv-shared"})
    assert (given.places[0], given.relay_only) == (("one", "conv-x"), {None})
    assert given_and_shared.relay_only == {None, "conv-shared"}


def test_an_offline_device_is_told_of_nothing_by_the_server_where_another_one_may_be_at_work(
    sandbox: Sandbox, devices: list[dict[str, Any]]
) -> None:
    _work(sandbox, devices[1])
    sandbox.offline(devices[0]["id"])
    target = ConversationTarget("one", environment_of(devices[0], sandbox.url), AGENT, None, None, relay_only=True)
    wanted = TurnChange("aborted", None, 5.0, "strict")

    [outcome] = asyncio.run(set_turn(settings_for(sandbox), [target], policy(), wanted, check_mode=False))

    assert (outcome.status, outcome.via, (outcome.mode or {})["status"]) == ("offline", None, "offline")
    assert sandbox.requests("cancel") == []
