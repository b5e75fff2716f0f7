"""Every conversation of a device: which ones are looked at, and which work is found elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.fleet import device_work
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.approvals import list_pending
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.device_work import (
    KnownConversations,
)
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.fan_out import ProviderRun, Target
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.turn import TurnChange, set_turn
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta import client
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.standing import write_summary
from tests.sandbox.process import Sandbox
from tests.sandbox.turns import ApprovalTurn, LongTurn

from .support import environment_of, policy, settings_for

AGENT = "agent-1"


@dataclass
class Found:
    places: list[tuple[str, str | None]]
    strays: dict[str, list[str]]
    problems: dict[str, list[str]]
    statuses: list[str]


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
    settings, known = settings_for(sandbox, retries=0, timeout=2), KnownConversations(recorded)
    targets = [
        Target(device["connectionName"], environment_of(device, sandbox.url), agent_id, conversation_id)
        for device in devices
    ]

    async def look() -> Found:
        run = ProviderRun(settings, targets, policy())
        outcomes = await list_pending(run, known=known)
        strays = await known.find_strays(run, outcomes)
        places = [(outcome.host, outcome.conversation_id) for outcome in outcomes]
        return Found(places, strays, known.problems, [outcome.status for outcome in outcomes])

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
    assert (found.strays, found.problems) == ({}, {})
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


def test_what_cannot_be_looked_at_is_a_problem_of_those_that_it_concerns(
    sandbox: Sandbox, devices: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_work, "_MOST_PLACES", 2)
    for number in range(2):
        _make_conversation(sandbox, write_summary(devices[0]["id"], f"m-{number}"))

    many = _look(sandbox, devices[0])
    sandbox.add_fault("status", route="runs", status=403)
    runs = _look(sandbox, devices[1])
    sandbox.clear_faults()
    sandbox.add_fault("status", route="conversation_list", status=503)
    conversations = _look(sandbox, devices[1])

    assert many.problems == {"one": ["3 conversations belong to one, too many to look at"]}
    [problem] = runs.problems[AGENT]
    assert problem.startswith(f"it is not known whether {AGENT} is at work elsewhere: GET ")
    [problem] = conversations.problems[AGENT]
    assert problem.startswith(f"the conversations of {AGENT} cannot be listed: GET ")


def test_an_api_that_does_not_list_conversations_has_none_of_ours(
    sandbox: Sandbox, devices: list[dict[str, Any]]
) -> None:
    sandbox.add_fault("status", route="conversation_list", status=405)

    assert _look(sandbox, devices[0]).problems == {}


def test_a_listing_that_failed_is_made_again_for_the_next_target(
    sandbox: Sandbox, devices: list[dict[str, Any]]
) -> None:
    own = [_make_conversation(sandbox, write_summary(device["id"])) for device in devices]
    sandbox.add_fault("status", route="conversation_list", status=503, times=1)
    targets = [Target(device["connectionName"], environment_of(device, sandbox.url), AGENT) for device in devices]
    settings, known = settings_for(sandbox, retries=0), KnownConversations([])

    outcomes = asyncio.run(list_pending(ProviderRun(settings, targets, policy(concurrency=1)), known=known))

    assert [outcome.conversation_id for outcome in outcomes] == [None, None, own[1]]
    assert list(known.problems) == [AGENT]


def test_searches_that_reach_their_bounds_say_so(
    sandbox: Sandbox, devices: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_work, "_MOST_STRAYS", 1)
    stranger = sandbox.add_environment(connectionName="stranger")
    for _number in range(2):
        _work(sandbox, stranger, _make_conversation(sandbox), ApprovalTurn())

    waiting = _look(sandbox, devices[0])
    monkeypatch.setattr(client, "_MOST_PAGES", 1)
    monkeypatch.setattr(client, "_LEAST_PAGE_SIZE", 1)
    runs = _look(sandbox, devices[0])

    assert len(waiting.strays[AGENT]) == 1
    doubt = f"it is not known whether {AGENT} is at work elsewhere: "
    assert waiting.problems == {AGENT: [f"{doubt}2 conversations have asked for approval, too many to look at"]}
    [problem] = [problem for problem in runs.problems[AGENT] if problem.startswith(doubt)]
    assert problem.endswith("/v1/runs/: did not end after 1 pages")


def test_more_runs_than_a_page_has_hide_no_work(
    sandbox: Sandbox, devices: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_PAGE_SIZE", 1)
    monkeypatch.setattr(client, "_LEAST_PAGE_SIZE", 1)
    stranger, strays = sandbox.add_environment(connectionName="stranger"), []
    for _number in range(3):
        strays.append(_make_conversation(sandbox))
        _work(sandbox, stranger, strays[-1])

    found = _look(sandbox, devices[0])

    assert (found.strays, found.problems) == ({AGENT: sorted(strays)}, {})


def test_a_device_that_does_not_say_which_conversations_it_has_is_a_problem_of_that_host(
    sandbox: Sandbox, devices: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_work, "_NAMED_WITHIN", 0.2)
    own = _make_conversation(sandbox, write_summary(devices[0]["id"]))
    sandbox.patch(devices[0]["id"], metadata={**devices[0]["metadata"], "cwd_map": "odd"})

    found = _look(sandbox, *devices)

    assert found.places[:2] == [("one", None), ("one", own)]
    assert set(found.statuses) == {"ok"}
    assert found.problems == {"one": ["the conversations that one names cannot be read: the answer names none"]}


def test_a_conversation_that_the_device_names_is_left_alone_unless_it_is_the_agents(
    sandbox: Sandbox, devices: list[dict[str, Any]]
) -> None:
    other = _make_conversation(sandbox, agent_id="agent-2")
    places = {f"conversation:{name}": "/srv" for name in (other, "conv-gone")}
    sandbox.patch(devices[0]["id"], metadata={**devices[0]["metadata"], "cwd_map": places})
    target = Target("one", environment_of(devices[0], sandbox.url), AGENT)
    known, wanted = KnownConversations([]), TurnChange("aborted", None, 5.0)
    _work(sandbox, devices[0], other, agent_id="agent-2")

    outcomes = asyncio.run(set_turn(ProviderRun(settings_for(sandbox), [target], policy()), wanted, known))

    assert [(outcome.agent_id, outcome.conversation_id, outcome.status) for outcome in outcomes] == [
        (AGENT, None, "ok"), ("agent-2", other, "skipped"), (AGENT, "conv-gone", "skipped"),
    ]  # fmt: skip
    assert outcomes[1].reason == "not looked at, as it is of agent-2"
    assert "the device does not find 'conv-gone'" in str(outcomes[2].reason)
    assert known.problems == {}
    assert _look(sandbox, devices[0], agent_id="agent-2").statuses == ["ok", "ok", "skipped"]


@pytest.mark.parametrize("away", ["offline", "silent"])
def test_the_server_is_told_of_no_conversation_of_a_device_that_cannot_be_reached(
    sandbox: Sandbox, devices: list[dict[str, Any]], away: str
) -> None:
    own = _make_conversation(sandbox, write_summary(devices[0]["id"]))
    rows = [{"id": devices[0]["id"], "agent_id": AGENT, "conversation_id": own}]
    _work(sandbox, devices[1])
    if away == "offline":
        sandbox.offline(devices[0]["id"])
    else:
        sandbox.add_fault("relay_silent", target=devices[0]["id"])
    target = Target("one", environment_of(devices[0], sandbox.url), AGENT)
    wanted = TurnChange("aborted", None, 5.0, "strict", over_rest=False)
    settings, known = settings_for(sandbox, relay_timeout=0.3), KnownConversations(rows)

    [outcome] = asyncio.run(set_turn(ProviderRun(settings, [target], policy()), wanted, known))

    status = "offline" if away == "offline" else "failed"
    assert (outcome.status, outcome.via, (outcome.mode or {})["status"]) == (status, None, status)
    assert outcome.under_way is None
    assert sandbox.requests("cancel") == []


def test_the_failure_budget_counts_targets_and_not_their_conversations(
    sandbox: Sandbox, devices: list[dict[str, Any]]
) -> None:
    rows = [
        {"id": devices[0]["id"], "agent_id": AGENT, "conversation_id": f"conv-gone-{number}"} for number in range(3)
    ]
    _work(sandbox, devices[1], own := _make_conversation(sandbox, write_summary(devices[1]["id"])))
    targets = [Target(device["connectionName"], environment_of(device, sandbox.url), AGENT) for device in devices]
    wanted, tight = TurnChange("aborted", None, 5.0), policy(concurrency=1, max_failures=1)

    run = ProviderRun(settings_for(sandbox), targets, tight)
    outcomes = asyncio.run(set_turn(run, wanted, KnownConversations(rows)))

    assert [(outcome.conversation_id, outcome.status) for outcome in outcomes[-2:]] == [(None, "ok"), (own, "changed")]
    assert [outcome.status for outcome in outcomes[1:4]] == ["failed"] * 3
