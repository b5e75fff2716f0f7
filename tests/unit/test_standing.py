"""The conversations that this collection makes are found again by their summaries, however the API searches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.environment import Listing
from ansible_collections.fleetops.environments.plugins.module_utils.errors import ApiError, OptionError
from ansible_collections.fleetops.environments.plugins.module_utils.providers.conversation import Place
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta import client as letta
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.client import Client, find_agent
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.standing import (
    MadeConversation,
    list_made,
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

    async def list_conversations(self, agent_id: str, summary: str, *, all_pages: bool) -> Listing:
        return Listing(self.rows, datetime.now(UTC))

    async def create_conversation(self, agent_id: str, summary: str) -> str:
        raise AssertionError("nothing is to be made")


@pytest.mark.parametrize("environment_id", ["environment-1", "a to b", "(%41)", "two\nlines"])
@pytest.mark.parametrize("message_id", [None, "m-1", "a to b", "50% {x}", " "])
def test_what_is_written_into_a_summary_is_read_from_it(environment_id: str, message_id: str | None) -> None:
    summary = write_summary(environment_id, message_id)

    [made] = asyncio.run(list_made(Rows({"id": "conv-1", "summary": summary}), AGENT)).made

    assert made == MadeConversation("conv-1", environment_id, summary)


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
    ],
)
def test_what_is_not_exactly_ours_is_left_out(row_: dict[str, Any]) -> None:
    assert asyncio.run(list_made(Rows(row_), AGENT)).made == []


def test_the_oldest_of_several_comes_first_whatever_the_order_of_the_answer() -> None:
    rows = [
        {"id": f"conv-{number}", "summary": write_summary("e"), "created_at": created_at}
        for number, created_at in enumerate([None, "2026-02-01T00:00:00Z", "2026-01-01T00:00:00Z"])
    ]

    assert [one.id for one in asyncio.run(list_made(Rows(*rows), AGENT)).made] == ["conv-2", "conv-1", "conv-0"]


@pytest.mark.parametrize("searches", [True, False])
def test_what_was_made_with_an_agent_is_listed_once(sandbox: Sandbox, searches: bool) -> None:
    sandbox.settings(searches=searches)
    first, _other, second, for_message = make(
        sandbox, write_summary("a"), "weekly check", write_summary("ab"), write_summary("a", "m")
    )
    make(sandbox, write_summary("a"), agent_id="agent-2")
    sandbox.archive(second)

    async def list_often(client: Client) -> list[Any]:
        at_once = await asyncio.gather(*(client.standing.list_made(AGENT) for _number in range(3)))
        return [*at_once, await client.standing.list_made(AGENT)]

    assert (
        ask(sandbox, list_often)
        == [
            [
                MadeConversation(first, "a", write_summary("a")),
                MadeConversation(second, "ab", write_summary("ab"), is_archived=True),
                MadeConversation(for_message, "a", write_summary("a", "m")),
            ]
        ]
        * 4
    )
    assert len(sandbox.requests("conversation_list")) == 1


def test_a_listing_that_failed_is_not_kept_and_one_that_is_refused_is_empty(sandbox: Sandbox) -> None:
    [made] = make(sandbox, write_summary("a"))

    async def list_three_times(client: Client) -> list[Any]:
        sandbox.add_fault("html_200", route="conversation_list", times=1)
        with pytest.raises(ApiError):
            await client.standing.list_made(AGENT)
        sandbox.add_fault("status", route="conversation_list", status=403, times=1)
        return [await client.standing.list_made(AGENT), [one.id for one in await client.standing.list_made(AGENT)]]

    assert ask(sandbox, list_three_times) == [[], [made]]


@pytest.mark.parametrize("searches", [True, False])
def test_pages_are_read_to_the_end(sandbox: Sandbox, searches: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.settings(searches=searches)
    monkeypatch.setattr(letta, "_PAGE_SIZE", 20)
    made = make(sandbox, *(write_summary(str(number)) for number in range(45)))

    listed = ask(sandbox, lambda client: client.standing.list_made(AGENT))

    assert [(one.environment_id, one.id) for one in listed] == [(str(at), own) for at, own in enumerate(made)]
    assert len(sandbox.requests("conversation_list")) == 3


def test_a_list_without_an_end_is_an_error(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letta, "_PAGE_SIZE", 20)
    monkeypatch.setattr(letta, "_MOST_PAGES", 2)
    make(sandbox, *(write_summary(str(number)) for number in range(45)))

    with pytest.raises(ApiError, match=r"GET http://\S+/v1/conversations/: did not end after 2 pages$") as raised:
        ask(sandbox, lambda client: client.standing.list_made(AGENT))
    assert raised.value.code == "too_long"


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

    assert ask(sandbox, lambda client: open_one(client, "standing")) == Place(first)
    assert ask(sandbox, lambda client: open_one(client, "standing", look=True)) == Place(first, (second, None))


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> int:
    """The size of a page: the smallest that the client takes for a full one."""
    monkeypatch.setattr(letta, "_PAGE_SIZE", 20)
    return 20


def open_all(count: int, kind: str, *, look: bool) -> Callable[[Client], Coroutine[Any, Any, list[Place]]]:
    """Opens a conversation for each of so many environments, at the same time."""

    async def open_each(client: Client) -> list[Place]:
        return await asyncio.gather(*(open_one(client, kind, str(at), look=look) for at in range(count)))

    return open_each


@pytest.mark.parametrize("searches", [True, False])
@pytest.mark.parametrize(("kind", "look"), [("standing", False), ("standing", True), ("new", True)])
def test_the_environments_of_an_agent_share_one_list(
    sandbox: Sandbox, small_pages: int, searches: bool, kind: str, look: bool
) -> None:
    """Whatever the API searches for, there is no search for each target."""
    sandbox.settings(searches=searches)
    make(sandbox, *["weekly check"] * small_pages)
    places = ask(sandbox, open_all(small_pages + 5, kind, look=look))
    assert len({place.conversation_id for place in places}) == small_pages + 5

    sandbox.clear_requests()
    again = ask(sandbox, open_all(small_pages + 5, kind, look=look))

    assert [place.conversation_id for place in again] == [place.conversation_id for place in places]
    assert sandbox.requests("conversations") == []
    # Where it searches: a page, two searches for the first one, two pages of what was made, and what was not.
    assert len(sandbox.requests("conversation_list")) <= (6 if searches else 5)


def test_a_conversation_among_many_is_found_with_one_search(sandbox: Sandbox, small_pages: int) -> None:
    *_others, wanted = make(sandbox, *(write_summary(str(at)) for at in range(3 * small_pages)))

    place = ask(sandbox, lambda client: open_one(client, "standing or default", str(3 * small_pages - 1)))

    assert place == Place(wanted)
    assert len(sandbox.requests("conversation_list")) == 2


@pytest.fixture
def too_many(sandbox: Sandbox, small_pages: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """An agent with more conversations than are listed; how many of them were made."""
    monkeypatch.setattr(letta, "_MOST_PAGES", 2)
    made = [write_summary(f"x{at}", message) for at in range(2 * small_pages) for message in (None, "other")]
    make(sandbox, *["weekly check"] * 2 * small_pages, *made)
    return len(made)


@pytest.mark.usefixtures("too_many")
@pytest.mark.parametrize("kind", ["standing", "new", "standing or default", "default", "conv-1"])
@pytest.mark.parametrize("look", [True, False])
def test_each_is_searched_for_where_the_list_is_too_long(sandbox: Sandbox, kind: str, look: bool) -> None:
    [standing] = make(sandbox, write_summary("1"))

    places = ask(sandbox, open_all(3, kind, look=look))

    assert [place.problem for place in places] == [None] * 3
    assert (standing == places[1].conversation_id) == kind.startswith("standing")
    assert (standing in places[1].others) == (look and not kind.startswith("standing"))


@pytest.mark.usefixtures("too_many")
@pytest.mark.parametrize(
    ("kind", "goes_to"), [("standing", None), ("standing or default", [None]), ("default", ["default"])]
)
def test_what_is_not_known_where_the_api_does_not_search_fails_no_target(
    sandbox: Sandbox, kind: str, goes_to: list[str | None] | None
) -> None:
    """What an earlier run may have sent is another matter: the place says that not all was looked at."""
    sandbox.settings(searches=False)

    places = ask(sandbox, open_all(9, kind, look=True))

    assert {str(place.problem).partition(": ")[2] for place in places} == {"did not end after 2 pages"}
    assert [place.is_new for place in places] == [goes_to is None] * 9
    assert goes_to is None or {place.conversation_id for place in places} == set(goes_to)
    assert len(sandbox.requests("conversation_list")) == 4


def test_a_list_that_fails_is_read_again_for_the_next(sandbox: Sandbox) -> None:
    async def open_both(client: Client) -> list[Any]:
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


@pytest.mark.parametrize("searches", [True, False])
@pytest.mark.parametrize("kind", ["standing", "new", "standing or default", "default", "conv-1"])
def test_every_conversation_that_may_have_a_message_is_named_whatever_is_asked_for(
    sandbox: Sandbox, searches: bool, kind: str
) -> None:
    sandbox.settings(searches=searches)
    archived, standing, of_another, for_message, _for_another = make(
        sandbox, write_summary("e"), write_summary("e"), write_summary("e2"), write_summary("e", "m"),
        write_summary("e", "m2"),
    )  # fmt: skip
    sandbox.archive(archived)

    place = ask(sandbox, lambda client: open_one(client, kind, look=True))

    opened = {"standing": standing, "standing or default": standing, "new": for_message}.get(kind, kind)
    default = {None} if kind != "default" else set()
    assert (place.conversation_id, place.is_new) == (opened, False)
    assert {*place.others} == ({archived, standing, for_message} | default) - {opened}
    assert of_another not in place.others


def test_an_archived_standing_conversation_is_not_sent_in(sandbox: Sandbox) -> None:
    [archived] = make(sandbox, write_summary("e"))
    sandbox.archive(archived)

    assert ask(sandbox, lambda client: open_one(client, "standing or default")) == Place(None)
    assert ask(sandbox, lambda client: open_one(client, "standing")).is_new


def test_the_conversation_of_a_message_is_found_again_where_an_earlier_run_may_have_made_it(sandbox: Sandbox) -> None:
    [standing] = make(sandbox, write_summary("e"))
    first = ask(sandbox, lambda client: open_one(client, "new", look=True))
    again = ask(sandbox, lambda client: open_one(client, "new", look=True))
    without = ask(sandbox, lambda client: open_one(client, "new"))

    assert (first.is_new, first.others) == (True, (standing, None))
    assert again == Place(first.conversation_id, (standing, None))
    assert (without.is_new, without.others) == (True, ())
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

    def test_a_row_without_an_id_is_no_agent(self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        async def list_agents(_self: Client, _name: str | None) -> list[dict[str, Any]]:
            return [{"name": "ops"}, {"name": "ops", "id": None}, {"name": "ops", "id": "agent-7"}]

        monkeypatch.setattr(Client, "list_agents", list_agents)

        assert asyncio.run(find_agent(settings_for(sandbox), "ops")) == "agent-7"

    def test_a_name_that_none_has(self, sandbox: Sandbox) -> None:
        sandbox.name_agent("agent-7", "ops\n2")

        with pytest.raises(OptionError) as raised:
            asyncio.run(find_agent(settings_for(sandbox), "opps"))
        assert str(raised.value) == (
            "agent_name: there are no agents called 'opps'; give the agent_id of one: ops 2 (agent-7)"
        )
