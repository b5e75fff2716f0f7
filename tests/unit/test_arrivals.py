"""Whether a conversation has a message, however old, and which error is raised if that cannot be found out."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.errors import ApiError
from ansible_collections.fleetops.environments.plugins.module_utils.http import paging
from ansible_collections.fleetops.environments.plugins.module_utils.http.client import Answer, HttpClient
from ansible_collections.fleetops.environments.plugins.module_utils.http.paging import Bounds
from ansible_collections.fleetops.environments.plugins.module_utils.http.settings import HttpSettings
from ansible_collections.fleetops.environments.plugins.module_utils.providers.conversation import Question
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta import reader
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta import replies as module
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.client import Client
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.history import HistoryMessage
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.replies import Conversations

from .support import NOW, settings_for


class OneConversation:
    """A client of a server that has one conversation of user messages; `otid-0` is the oldest."""

    def __init__(self, length: int) -> None:
        self.requests = 0
        self.settings = settings_for("http://localhost")
        # How many messages of earlier pages were still in memory when a page was requested.
        self.kept: list[int] = []
        self._length = length
        self._given: list[weakref.ref[HistoryMessage]] = []

    async def list_messages(
        self, _agent_id: str, _conversation_id: str | None, *, limit: int, cursor: Mapping[str, str], bounds: Bounds
    ) -> Sequence[HistoryMessage]:
        self.requests += 1
        self.kept.append(sum(reference() is not None for reference in self._given))
        end = int(cursor["before"].removeprefix("message-")) if cursor else self._length
        page = [
            HistoryMessage(id=f"message-{number}", message_type="user_message", otid=f"otid-{number}")
            for number in reversed(range(max(0, end - limit), end))
        ]
        self._given += map(weakref.ref, page)
        return page


def find_messages(client: Any, *otids: str, rate: float | None = None) -> list[Any]:
    """The result for each message, when all are looked up at once. client: a client, or settings for one."""

    async def run() -> list[Any]:
        async with AsyncExitStack() as stack:
            opens = isinstance(client, HttpSettings)
            opened = await stack.enter_async_context(Client(client)) if opens else client
            conversations = Conversations(opened, concurrency=4, rate=rate)
            questions = [Question("letta", "agent-1", None, otid, since="2026-01-31T12:00:00.000Z") for otid in otids]
            return await asyncio.gather(
                *(conversations.find_message(one, False) for one in questions), return_exceptions=True
            )

    return asyncio.run(run())


@pytest.mark.parametrize("length", [0, 1, 2_001, 3_000])
def test_a_long_conversation_is_searched_once(length: int) -> None:
    client = OneConversation(length)
    expected = [f"otid-{number}" for number in range(length)][:1]

    assert find_messages(client, "otid-0", "none of them") == [*(expected or [None]), None]
    assert client.requests == length // 100 + 1


def test_no_message_is_kept_after_it_was_read() -> None:
    """Each message may have several megabytes."""
    client = OneConversation(1_000)

    assert find_messages(client, "otid-0") == ["otid-0"]
    assert client.kept == [0] * 11


class ToolReturn:
    """The result of a tool; a weak reference shows whether it is still in memory."""


def test_the_result_of_a_tool_is_not_kept_with_its_message() -> None:
    """A result may have several megabytes, and a turn may have hundreds of results."""
    large = ToolReturn()
    kept = weakref.ref(large)
    fields = {"id": "message-1", "message_type": "tool_return_message", "tool_call_id": "one", "tool_return": large}
    others = [{"tool_call_id": "two", "tool_return": large}]

    message = HistoryMessage.model_validate({**fields, "tool_returns": others})
    del large, fields, others

    assert message.answered_calls == {"one", "two"}
    assert kept() is None


def test_a_message_may_be_in_the_part_that_was_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_LOOKED_THROUGH", 200)
    client = OneConversation(1_000)

    newer, older = find_messages(client, "otid-999", "otid-0")

    assert newer == "otid-999"
    assert isinstance(older, ApiError)
    assert str(older).startswith("it is not among the latest 200 messages of the conversation, and older ones are not")
    assert client.requests == 2


def serve_single_messages(monkeypatch: pytest.MonkeyPatch, count: int, seconds: float = 0.0) -> list[int]:
    """Have a server answer with one message of a megabyte a page; returns a list that gets an entry for each request.

    count: how many messages there are. seconds: what each answer takes.
    """
    asked: list[int] = []

    async def get(_self: HttpClient, *_segments: str, params: dict[str, str]) -> Answer:
        asked.append(len(asked))
        await asyncio.sleep(seconds)
        message = {"id": f"message-{len(asked)}", "message_type": "user_message", "date": NOW.isoformat()}
        return Answer([message] if len(asked) <= count else [], NOW, size=1024**2)

    monkeypatch.setattr(reader, "_PAGE", 1)
    monkeypatch.setattr(HttpClient, "get", get)
    return asked


@pytest.mark.parametrize(
    ("bound", "value", "seconds", "problem"),
    [
        ("DEADLINES", 0.1, 0.01, "did not end within 0.2 s, 0.1 times the deadline of one call"),
        ("LONGEST_LISTING", 5 * 1024**2, 0.0, "all pages together are longer than 5 MB"),
    ],
)
def test_a_conversation_without_an_end_has_the_bounds_of_a_listing(
    monkeypatch: pytest.MonkeyPatch, bound: str, value: float, seconds: float, problem: str
) -> None:
    monkeypatch.setattr(paging, bound, value)
    asked = serve_single_messages(monkeypatch, 1_000_000, seconds)

    [found] = find_messages(settings_for("http://localhost", deadline=2), "otid")

    assert str(found) == f"http://localhost: the conversation default of agent-1: {problem}"
    assert len(asked) > 1


def test_the_time_in_which_requests_wait_for_their_turn_is_no_time_of_a_conversation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(paging, "DEADLINES", 0.1)
    asked = serve_single_messages(monkeypatch, 10)

    # All may take 100 ms, and the last one starts after 500 ms.
    found = find_messages(settings_for("http://localhost", deadline=1), "otid", rate=20)

    assert found == [None]
    assert len(asked) == 11
