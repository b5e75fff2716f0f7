"""The conversations that this collection makes are found again by their summaries, however the API searches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.errors import ApiError, OptionError
from ansible_collections.fleetops.environments.plugins.module_utils.providers.conversation import Place
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta import client as letta
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.client import Client, find_agent
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.standing import (
    MadeConversation,
    list_made,
    list_standing,
    write_summary,
)
from tests.sandbox.process import Sandbox

from .support import environment_of, row, settings_for

AGENT = "agent-1"


def ask(sandbox: Sandbox, question: Callable[[Client], Coroutine[Any, Any, Any]]) -> Any:
    async def run() -> Any:
        async with Client(settings_for(sandbox)) as client:
            return await question(client)

    return asyncio.run(run())


def make(sandbox: Sandbox, *summaries: str | None, agent_id: str = AGENT) -> list[str]:
    """Conversations with these summaries, in this order; returns their ids."""
    headers = {"Authorization": f"Bearer {sandbox.api_key}"}
    path = f"/v1/conversations/?agent_id={agent_id}"
    bodies = [{} if summary is None else {"summary": summary} for summary in summaries]
    return [sandbox.control.post(path, headers=headers, json=body).json()["id"] for body in bodies]


def open_one(
    client: Client, kind: str, environment_id: str = "e", message_id: str | None = "m", *, look: bool = False
) -> Coroutine[Any, Any, Place]:
    return client.open_conversation(environment_of(row(id=environment_id)), AGENT, message_id, kind, look=look)


class Rows:
    """A client that lists these rows, whatever is searched for."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        self.rows = rows

    async def list_conversations(self, agent_id: str, summary: str) -> Any:
        return self.rows

    async def create_conversation(self, agent_id: str, summary: str) -> str:
        raise AssertionError("nothing is to be made")


@pytest.mark.parametrize("environment_id", ["environment-1", "a to b", "(%41)", "two\nlines"])
@pytest.mark.parametrize("message_id", [None, "m-1", "a to b", "50% {x}", " "])
def test_what_is_written_into_a_summary_is_read_from_it(environment_id: str, message_id: str | None) -> None:
    client = Rows({"id": "conv-1", "summary": write_summary(environment_id, message_id)})

    assert asyncio.run(list_made(client, AGENT)) == [MadeConversation("conv-1", environment_id, message_id is None)]


@pytest.mark.parametrize(
    "row_",
    [
        {"id": "conv-1"},
        {"id": "conv-1", "summary": None},
        {"id": "conv-1", "summary": ["fleetops.environments standing conversation of e"]},
        {"id": "conv-1", "summary": "About fleetops.environments standing conversation of e"},
        {"id": "conv-1", "summary": "fleetops.environments standing conversation of "},
        {"id": "conv-1", "summary": "Fleetops.Environments standing conversation of e"},
        {"id": None, "summary": write_summary("e")},
        {"summary": write_summary("e")},
        {"id": "conv-1", "summary": write_summary("e"), "agent_id": "agent-2"},
        {"id": "conv-1", "summary": write_summary("e"), "archived": True},
    ],
)
def test_what_is_not_exactly_ours_is_left_out(row_: dict[str, Any]) -> None:
    assert asyncio.run(list_made(Rows(row_), AGENT)) == []


def test_the_oldest_of_several_comes_first_whatever_the_order_of_the_answer() -> None:
    rows = [
        {"id": f"conv-{number}", "summary": write_summary("e"), "created_at": created_at}
        for number, created_at in enumerate([None, "2026-02-01T00:00:00Z", "2026-01-01T00:00:00Z"])
    ]

    assert asyncio.run(list_standing(Rows(*rows), AGENT)) == {"e": ["conv-2", "conv-1", "conv-0"]}


@pytest.mark.parametrize("searches", [True, False])
def test_an_agents_standing_conversations_are_listed_by_environment(sandbox: Sandbox, searches: bool) -> None:
    sandbox.settings(searches=searches)
    first, _other, second, again, _for_message = make(
        sandbox, write_summary("a"), "weekly check", write_summary("ab"), write_summary("a"), write_summary("a", "m")
    )
    make(sandbox, write_summary("a"), agent_id="agent-2")

    assert ask(sandbox, lambda client: list_standing(client, AGENT)) == {"a": [first, again], "ab": [second]}


@pytest.mark.parametrize("searches", [True, False])
def test_pages_are_read_to_the_end(sandbox: Sandbox, searches: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.settings(searches=searches)
    monkeypatch.setattr(letta, "_PAGE_SIZE", 20)
    made = make(sandbox, *(write_summary(str(number)) for number in range(45)))

    listed = ask(sandbox, lambda client: list_standing(client, AGENT))

    assert listed == {str(number): [own_id] for number, own_id in enumerate(made)}
    assert len(sandbox.requests("conversation_list")) == 3


def test_a_list_without_an_end_is_an_error(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letta, "_PAGE_SIZE", 20)
    monkeypatch.setattr(letta, "_MOST_PAGES", 2)
    make(sandbox, *(write_summary(str(number)) for number in range(45)))

    with pytest.raises(ApiError, match=r"GET http://\S+/v1/conversations/: did not end after 2 pages$"):
        ask(sandbox, lambda client: list_standing(client, AGENT))


@pytest.mark.parametrize("status", [400, 403, 404, 405, 422, 501])
def test_an_api_that_does_not_list_conversations_has_default_ones(sandbox: Sandbox, status: int) -> None:
    sandbox.add_fault("status", route="conversation_list", status=status)

    assert ask(sandbox, lambda client: open_one(client, "standing or default")) == Place(None)
    with pytest.raises(ApiError):
        ask(sandbox, lambda client: open_one(client, "standing"))


def test_a_list_that_fails_does_not_mean_that_there_is_none(sandbox: Sandbox) -> None:
    sandbox.add_fault("html_200", route="conversation_list")

    with pytest.raises(ApiError):
        ask(sandbox, lambda client: open_one(client, "standing or default"))


@pytest.mark.parametrize("searches", [True, False])
def test_a_standing_conversation_is_made_once(sandbox: Sandbox, searches: bool) -> None:
    sandbox.settings(searches=searches)

    first = ask(sandbox, lambda client: open_one(client, "standing"))
    again = ask(sandbox, lambda client: open_one(client, "standing", message_id="other"))

    assert (first.is_new, again.is_new) == (True, False)
    assert first.conversation_id == again.conversation_id
    assert [made["summary"] for made in sandbox.conversations(AGENT)] == [write_summary("e")]


def test_of_several_standing_conversations_the_oldest_is_used_and_the_others_are_named(sandbox: Sandbox) -> None:
    first, second = make(sandbox, write_summary("e"), write_summary("e"))

    assert ask(sandbox, lambda client: open_one(client, "standing")) == Place(first, [second, None])


def test_the_environments_of_an_agent_share_one_list(sandbox: Sandbox) -> None:
    async def open_all(client: Client) -> list[Place]:
        return await asyncio.gather(*(open_one(client, "standing", str(number)) for number in range(15)))

    places = ask(sandbox, open_all)
    assert len({place.conversation_id for place in places}) == 15
    # The first environment is searched for alone, as a task with one target does.
    assert len(sandbox.requests("conversation_list")) == 2

    sandbox.clear_requests()
    assert [place.conversation_id for place in ask(sandbox, open_all)] == [place.conversation_id for place in places]
    assert len(sandbox.requests("conversation_list")) == 2
    assert sandbox.requests("conversations") == []


def test_a_list_that_fails_is_read_again_for_the_next(sandbox: Sandbox) -> None:
    async def open_both(client: Client) -> list[Any]:
        await open_one(client, "standing", "a")
        sandbox.add_fault("html_200", route="conversation_list", times=1)
        with pytest.raises(ApiError):
            await open_one(client, "standing", "b")
        return [await open_one(client, "standing", "b")]

    [place] = ask(sandbox, open_both)
    assert place.is_new


def test_an_agent_without_standing_conversations_keeps_its_default_one(sandbox: Sandbox) -> None:
    assert ask(sandbox, lambda client: open_one(client, "standing or default")) == Place(None)
    assert sandbox.conversations(AGENT) == []


@pytest.mark.parametrize("environment_id", ["e", "other"])
def test_an_agent_with_standing_conversations_has_one_for_each_environment(
    sandbox: Sandbox, environment_id: str
) -> None:
    """A run for one host that is left of many keeps to the rule of the runs before."""
    [made] = make(sandbox, write_summary(environment_id))

    place = ask(sandbox, lambda client: open_one(client, "standing or default"))

    assert place.is_new == (environment_id == "other")
    assert (place.conversation_id == made) == (environment_id == "e")


@pytest.mark.parametrize("kind", ["standing", "standing or default"])
def test_nothing_is_made_for_what_is_no_message(sandbox: Sandbox, kind: str) -> None:
    make(sandbox, write_summary("other"))

    place = ask(sandbox, lambda client: open_one(client, kind, message_id=None))

    assert place == Place("standing")
    assert len(sandbox.conversations(AGENT)) == 1


def test_the_conversation_of_a_message_is_found_again_where_an_earlier_run_may_have_made_it(sandbox: Sandbox) -> None:
    [standing] = make(sandbox, write_summary("e"))
    first = ask(sandbox, lambda client: open_one(client, "new", look=True))
    again = ask(sandbox, lambda client: open_one(client, "new", look=True))
    without = ask(sandbox, lambda client: open_one(client, "new"))

    assert (first.is_new, first.others) == (True, [standing, None])
    assert again == Place(first.conversation_id, [standing, None])
    assert (without.is_new, without.others) == (True, [])
    assert [made["summary"] for made in sandbox.conversations(AGENT)[1:]] == [write_summary("e", "m")] * 2


@pytest.mark.parametrize("kind", ["new", "standing"])
def test_the_conversation_of_another_environment_whose_id_begins_alike_is_not_used(sandbox: Sandbox, kind: str) -> None:
    ask(sandbox, lambda client: open_one(client, kind, "environment-12", look=True))

    assert ask(sandbox, lambda client: open_one(client, kind, "environment-1", look=True)).is_new


class TestAgents:
    @pytest.mark.parametrize("searches", [True, False])
    def test_a_name_that_one_agent_has(self, sandbox: Sandbox, searches: bool) -> None:
        sandbox.settings(searches=searches)
        sandbox.name_agent("agent-7", "ops")
        sandbox.name_agent("agent-8", "ops-2")

        assert asyncio.run(find_agent(settings_for(sandbox), "ops")) == "agent-7"

    def test_a_name_that_several_have(self, sandbox: Sandbox) -> None:
        for number in range(12):
            sandbox.name_agent(f"agent-{number}", "ops")

        listed = ", ".join(f"ops (agent-{number})" for number in range(10))
        with pytest.raises(OptionError) as raised:
            asyncio.run(find_agent(settings_for(sandbox), "ops"))
        assert str(raised.value) == (
            f"agent_name: there are 12 agents called 'ops'; give the agent_id of one: {listed} and 2 more"
        )

    def test_a_name_that_none_has(self, sandbox: Sandbox) -> None:
        sandbox.name_agent("agent-7", "ops\n2")

        with pytest.raises(OptionError) as raised:
            asyncio.run(find_agent(settings_for(sandbox), "opps"))
        assert str(raised.value) == (
            "agent_name: there are no agents called 'opps'; give the agent_id of one: ops 2 (agent-7)"
        )
