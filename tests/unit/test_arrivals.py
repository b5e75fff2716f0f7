"""Whether a conversation has a message, however old, and which error is raised if that cannot be found out."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.errors import ApiError
from ansible_collections.fleetops.environments.plugins.module_utils.providers.conversation import Question
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta import replies as module
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.history import HistoryMessage
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.replies import Conversations


class OneConversation:
    """A client of a server that has one conversation of user messages; `otid-0` is the oldest."""

    def __init__(self, length: int) -> None:
        self.requests = 0
        # How many messages of earlier pages were still in memory when a page was requested.
        self.kept: list[int] = []
        self._length = length
        self._given: list[weakref.ref[HistoryMessage]] = []

    async def list_messages(
        self, _agent_id: str, _conversation_id: str | None, *, limit: int, cursor: Mapping[str, str]
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


def find_messages(client: OneConversation, *otids: str) -> list[Any]:
    """The result for each message, when all are looked up at once."""
    conversations = Conversations(client, concurrency=4, rate=None)  # type: ignore[arg-type]

    async def run() -> list[Any]:
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
