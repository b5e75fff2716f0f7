"""Qoder's client: a session is created once, and a message sent once, whatever happens to the requests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.environment import Environment
from ansible_collections.fleetops.environments.plugins.module_utils.errors import ApiError
from ansible_collections.fleetops.environments.plugins.module_utils.http import paging
from ansible_collections.fleetops.environments.plugins.module_utils.http.settings import HttpSettings
from ansible_collections.fleetops.environments.plugins.module_utils.providers.base import Accepted, make_idempotency_key
from ansible_collections.fleetops.environments.plugins.module_utils.providers.conversation import Address
from ansible_collections.fleetops.environments.plugins.module_utils.providers.message import Message
from ansible_collections.fleetops.environments.plugins.module_utils.providers.qoder import client as qoder
from ansible_collections.fleetops.environments.plugins.module_utils.providers.qoder.client import Client
from tests.sandbox.process import Sandbox
from tests.sandbox.qoder_turns import QoderTurn

from .qoder_support import AGENT, new_environment, only_session, qoder_environment, qoder_settings, with_client
from .support import http_answer, raw_server, settings_for

HELLO = Message("hello", "message-1", "message-1")
UNCLEAR = [
    {"fault": "drop_after"},
    {"fault": "drop_during"},
    {"fault": "drop_before"},
    {"fault": "status", "status": 500},
    {"fault": "status", "status": 503},
    {"fault": "status", "status": 429},
    {"fault": "slow", "seconds": 1.5},
]


def name_of(rule: dict[str, Any]) -> str:
    return "-".join(str(value) for value in rule.values())


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy session is asked again after a short pause."""
    monkeypatch.setattr(qoder, "_BUSY_PAUSE", 0.01)


def create(
    settings: HttpSettings, environment: Environment, agent: str = AGENT, client_message_id: str = "message-1"
) -> str:
    return with_client(settings, lambda client: client.create_conversation(environment, agent, client_message_id))


def send(
    settings: HttpSettings, environment: Environment, session_id: str, messages: Sequence[Message] = (HELLO,)
) -> Accepted:
    return with_client(
        settings,
        lambda client: client.send(environment, messages, Address(AGENT, session_id)),
    )


class TestCreate:
    def test_a_session_in_the_environment_with_the_agent(self, sandbox: Sandbox) -> None:
        environment = new_environment(sandbox)

        session_id = create(qoder_settings(sandbox), environment)

        session = only_session(sandbox)
        assert (session["id"], session["environment_id"], session["agent_id"]) == (session_id, environment.id, AGENT)
        assert session["turns"] == 0

    def test_an_agent_of_a_version(self, sandbox: Sandbox) -> None:
        agent = json.dumps({"id": "agent_2", "type": "agent", "version": 4})

        create(qoder_settings(sandbox), new_environment(sandbox), agent)

        assert (only_session(sandbox)["agent_id"], only_session(sandbox)["agent_version"]) == ("agent_2", 4)

    def test_an_agent_that_is_neither_id_nor_json(self, sandbox: Sandbox) -> None:
        with pytest.raises(ApiError, match=r"the agent '\{no' is neither an id nor JSON"):
            create(qoder_settings(sandbox), new_environment(sandbox), "{no")
        assert sandbox.requests() == []

    def test_each_message_and_environment_gets_its_own_session(self, sandbox: Sandbox) -> None:
        one, other = new_environment(sandbox), new_environment(sandbox)
        made = [
            create(qoder_settings(sandbox), environment, client_message_id=message)
            for environment, message in ((one, "a"), (one, "b"), (other, "a"), (one, "a"), (other, "a"))
        ]

        assert len(set(made)) == 3
        assert made[0] == made[3]
        assert made[2] == made[4]
        assert len(sandbox.qoder.sessions()) == 3

    @pytest.mark.parametrize("rule", UNCLEAR, ids=name_of)
    def test_a_failure_is_repeated_under_the_same_key(self, sandbox: Sandbox, rule: dict[str, Any]) -> None:
        sandbox.add_fault(**rule, route="qoder_create", times=1)

        session_id = create(qoder_settings(sandbox, timeout=1), new_environment(sandbox))

        assert only_session(sandbox)["id"] == session_id
        assert len(sandbox.requests("qoder_create")) == 2

    @pytest.mark.parametrize("status", [429, 503])
    def test_a_gateway_error_without_details(self, status: int) -> None:
        async def run() -> None:
            async with answered_with(http_answer(b"", status=b"%d No" % status)) as client:
                await _create(client)

        with pytest.raises(ApiError, match="an empty body") as caught:
            asyncio.run(run())
        assert (caught.value.code, caught.value.may_be_accepted) == (f"http_{status}", False)

    def test_an_archived_environment_refuses(self, sandbox: Sandbox) -> None:
        environment = new_environment(sandbox)
        sandbox.qoder.patch(environment.id, status="archived", archived=True, archived_at="2026-01-01T00:00:00Z")

        with pytest.raises(ApiError, match=r"is archived \(param environment_id, request_id ") as caught:
            create(qoder_settings(sandbox), environment)
        assert (caught.value.status, caught.value.param, caught.value.attempts) == (400, "environment_id", 1)

    def test_an_unknown_agent(self, sandbox: Sandbox) -> None:
        sandbox.qoder.remove_agent("agent_gone")

        with pytest.raises(ApiError, match="Agent 'agent_gone' not found") as caught:
            create(qoder_settings(sandbox), new_environment(sandbox), "agent_gone")
        assert (caught.value.status, caught.value.may_be_accepted) == (404, False)

    def test_another_agent_under_the_same_id_fails_at_once(self, sandbox: Sandbox) -> None:
        environment = new_environment(sandbox)
        create(qoder_settings(sandbox), environment)

        with pytest.raises(ApiError, match="had another agent, session or content within 24 h; give ") as caught:
            create(qoder_settings(sandbox), environment, "agent_2")
        assert (caught.value.status, caught.value.attempts) == (409, 1)

    def test_an_answer_without_an_id(self, sandbox: Sandbox) -> None:
        sandbox.add_fault("without_id", route="qoder_create")

        with pytest.raises(ApiError, match=r"POST .*/sessions: unexpected answer: id: ") as caught:
            create(qoder_settings(sandbox), new_environment(sandbox))
        assert (caught.value.code, caught.value.may_be_accepted) == ("invalid", True)


class TestSend:
    def test_the_message_is_an_event_of_the_session(self, sandbox: Sandbox) -> None:
        environment = new_environment(sandbox)
        session_id = create(qoder_settings(sandbox), environment)

        accepted = send(qoder_settings(sandbox), environment, session_id)

        assert (only_session(sandbox)["messages"], only_session(sandbox)["turns"]) == (["hello"], 1)
        assert (accepted.attempts, accepted.via) == (1, "rest")
        assert accepted.message_id is not None
        assert accepted.message_id.startswith("evt_")

    def test_several_messages_are_one_request_and_one_turn(self, sandbox: Sandbox) -> None:
        environment = new_environment(sandbox)
        session_id = create(qoder_settings(sandbox), environment)
        parts = replace(HELLO, content=("two", "three"))

        accepted = send(qoder_settings(sandbox), environment, session_id, [HELLO, parts])

        assert (only_session(sandbox)["messages"], only_session(sandbox)["turns"]) == (["hello", "two\nthree"], 1)
        events = with_client(qoder_settings(sandbox), lambda client: _events(client, session_id))
        assert [event.id for event in events if event.type == "user.message"][-1] == accepted.message_id

    @pytest.mark.parametrize("rule", UNCLEAR, ids=name_of)
    def test_a_failure_is_repeated_under_the_same_key(self, sandbox: Sandbox, rule: dict[str, Any]) -> None:
        environment = new_environment(sandbox)
        session_id = create(qoder_settings(sandbox), environment)
        sandbox.add_fault(**rule, route="qoder_send", times=1)

        accepted = send(qoder_settings(sandbox, timeout=1), environment, session_id)

        assert accepted.attempts == len(sandbox.requests("qoder_send")) == 2
        assert only_session(sandbox)["turns"] == 1

    def test_a_repetition_gets_the_same_event(self, sandbox: Sandbox) -> None:
        environment = new_environment(sandbox)
        session_id = create(qoder_settings(sandbox), environment)

        first, second = (send(qoder_settings(sandbox), environment, session_id) for _number in range(2))

        assert first.message_id == second.message_id
        assert only_session(sandbox)["turns"] == 1

    def test_a_busy_session_is_waited_for(self, sandbox: Sandbox) -> None:
        environment = new_environment(sandbox)
        session_id = self._busy(sandbox, environment, polls=3)

        accepted = send(qoder_settings(sandbox), environment, session_id)

        assert (only_session(sandbox)["turns"], only_session(sandbox)["refused"]) == (2, 3)
        assert accepted.attempts == 4

    def test_the_wait_ends_at_the_deadline(self, sandbox: Sandbox) -> None:
        environment = new_environment(sandbox)
        session_id = self._busy(sandbox, environment, polls=100_000)
        began = time.monotonic()

        with pytest.raises(ApiError, match="turn did not end within the deadline of 1 s; raise") as caught:
            send(qoder_settings(sandbox, deadline=1), environment, session_id)
        assert time.monotonic() - began < 3
        assert (caught.value.status, caught.value.may_be_accepted) == (409, False)
        assert caught.value.attempts == only_session(sandbox)["refused"] > 1
        assert only_session(sandbox)["turns"] == 1

    def test_an_event_that_may_have_been_accepted_stays_unclear_while_the_session_is_busy(
        self, sandbox: Sandbox
    ) -> None:
        environment = new_environment(sandbox)
        session_id = self._busy(sandbox, environment, polls=100_000)
        sandbox.add_fault("drop_before", route="qoder_send", times=1)

        with pytest.raises(ApiError) as caught:
            send(qoder_settings(sandbox, deadline=1), environment, session_id)
        assert caught.value.may_be_accepted

    def test_a_stop_ends_the_wait(self, sandbox: Sandbox) -> None:
        environment = new_environment(sandbox)
        session_id = self._busy(sandbox, environment, polls=100_000)
        settings = qoder_settings(sandbox)

        async def stopped(client: Client) -> None:
            sending = asyncio.create_task(client.send(environment, [HELLO], Address(AGENT, session_id)))
            await asyncio.sleep(0.3)
            settings.gate.stop.cut()
            await sending

        began = time.monotonic()
        with pytest.raises(ApiError) as caught:
            with_client(settings, stopped)
        assert caught.value.status == 409
        assert time.monotonic() - began < 3

    def test_other_content_under_the_same_id_fails_at_once(self, sandbox: Sandbox) -> None:
        environment = new_environment(sandbox)
        session_id = create(qoder_settings(sandbox), environment)
        send(qoder_settings(sandbox), environment, session_id)

        with pytest.raises(ApiError, match="had another agent, session or content within 24 h") as caught:
            send(qoder_settings(sandbox), environment, session_id, [replace(HELLO, content="bye")])
        assert (caught.value.status, caught.value.attempts) == (409, 1)
        assert only_session(sandbox)["turns"] == 1

    def test_a_missing_session_is_an_error(self, sandbox: Sandbox) -> None:
        with pytest.raises(ApiError, match="Session 'sess_none' not found") as caught:
            send(qoder_settings(sandbox), new_environment(sandbox), "sess_none")
        assert (caught.value.status, caught.value.may_be_accepted) == (404, False)

    def test_an_answer_without_ids_is_accepted(self, sandbox: Sandbox) -> None:
        environment = new_environment(sandbox)
        session_id = create(qoder_settings(sandbox), environment)
        sandbox.add_fault("without_id", route="qoder_send")

        assert send(qoder_settings(sandbox), environment, session_id).message_id is None

    @staticmethod
    def _busy(sandbox: Sandbox, environment: Environment, polls: int) -> str:
        """A session that is in another user's turn for this many looks."""
        sandbox.qoder.script(AGENT, QoderTurn(polls=polls))
        session_id = create(qoder_settings(sandbox), environment, client_message_id="another")
        send(qoder_settings(sandbox), environment, session_id, [replace(HELLO, client_message_id="another")])
        return session_id


class TestEvents:
    @pytest.mark.parametrize("generation", ["seed", "new"])
    def test_all_pages_are_read_and_only_later_events_returned(
        self, sandbox: Sandbox, generation: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sandbox.settings(qoder_generation=generation)
        monkeypatch.setattr(qoder, "_EVENTS_A_PAGE", 2)
        environment = new_environment(sandbox)
        session_id = create(qoder_settings(sandbox), environment)
        for number in range(2):
            message = Message(str(number), str(number))
            last = send(qoder_settings(sandbox), environment, session_id, [message])

        everything = with_client(qoder_settings(sandbox), lambda client: _events(client, session_id))
        turn = ["user.message", "session.status_running", "agent.message", "session.status_idle"]
        assert [event.type for event in everything] == turn * 2
        assert len(sandbox.requests("qoder_events")) == 4
        after = with_client(qoder_settings(sandbox), lambda client: _events(client, session_id, last.message_id))
        assert [event.type for event in after] == turn[1:]

    def test_all_pages_together_have_a_limit_of_bytes(self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(qoder, "_EVENTS_A_PAGE", 1)
        monkeypatch.setattr(paging, "LONGEST_LISTING", 600)
        environment = new_environment(sandbox)
        session_id = create(qoder_settings(sandbox), environment)
        send(qoder_settings(sandbox), environment, session_id)

        with pytest.raises(ApiError, match=f"{session_id}/events: all pages together are longer than 0 MB") as raised:
            with_client(qoder_settings(sandbox), lambda client: _events(client, session_id))

        assert raised.value.code == "too_long"
        assert 1 < len(sandbox.requests("qoder_events")) < 4

    def test_a_value_other_than_an_event_is_left_out(self, sandbox: Sandbox) -> None:
        environment = new_environment(sandbox)
        session_id = create(qoder_settings(sandbox), environment)
        send(qoder_settings(sandbox), environment, session_id)
        sandbox.add_fault("invalid_rows", damage="type_number", rows=[1], route="qoder_events")

        assert len(with_client(qoder_settings(sandbox), lambda client: _events(client, session_id))) == 3


KEYS = ["id", "type", "data", "events", "error", "message", "param", "has_more", "last_id", "next_page", "content"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=20,
)


@hypothesis.given(answer=JSON, status=st.sampled_from([200, 202, 400, 409, 500]))
def test_hostile_answers_raise_nothing_but_api_errors(answer: Any, status: int) -> None:
    body = json.dumps(answer).encode()
    calls = (_create, _send, _events)

    async def run() -> None:
        async with answered_with(http_answer(body, status=b"%d Some" % status)) as client:
            for call in calls:
                with contextlib.suppress(ApiError):
                    await call(client, "sess_1")

    asyncio.run(run())


def test_an_idempotency_key_never_changes_and_differs_for_every_other_input() -> None:
    assert make_idempotency_key("env_1", "message-1", "session") == "cb74d90b-7c7b-46d3-8097-1fdde9e66dec"
    keys = {
        make_idempotency_key(*parts)
        for parts in [("e", "m", "session"), ("e", "m", "message"), ("e", "n", "session"), ("f", "m", "session")]
    }
    assert len(keys) == 4


@contextlib.asynccontextmanager
async def answered_with(answer: bytes) -> AsyncIterator[Client]:
    """A client whose every request is answered with these bytes."""
    async with contextlib.AsyncExitStack() as stack:
        url, _heads = await stack.enter_async_context(raw_server(lambda _head: answer))
        yield await stack.enter_async_context(Client(settings_for(url, retries=0, deadline=0.05)))


async def _create(client: Client, _session_id: str = "") -> str:
    return await client.create_conversation(qoder_environment({"id": "env_1"}), AGENT, "message-1")


async def _send(client: Client, session_id: str) -> Accepted:
    return await client.send(qoder_environment({"id": "env_1"}), [HELLO], Address(AGENT, session_id))


async def _events(client: Client, session_id: str, after_id: str | None = None) -> list[Any]:
    return [event async for event in client.events(session_id, after_id)]
