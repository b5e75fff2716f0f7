"""Qoder's official SDK, an independent client, and the sandbox agree on the API."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import qca.common
from qca.managed import AsyncManaged, Managed

from ansible_collections.fleetops.environments.plugins.module_utils.http.settings import HttpSettings
from ansible_collections.fleetops.environments.plugins.module_utils.providers.qoder.client import Query
from ansible_collections.fleetops.environments.plugins.module_utils.providers.qoder.provider import PROVIDER
from ansible_collections.fleetops.environments.plugins.module_utils.providers.registry import fetch_listing
from tests.sandbox.process import Sandbox
from tests.sandbox.qoder_turns import QoderTurn

AGENT = "agent_1"
EVERY = {"include_archived": True, "limit": 7}


@pytest.fixture(scope="module")
def process() -> Iterator[Sandbox]:
    with Sandbox.start(devices=0, qoder_environments=30, seed=5) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(process: Sandbox) -> Sandbox:
    process.reset()
    return process


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[Managed]:
    with Managed(base_url=sandbox.qoder.url, access_token=sandbox.qoder.key, max_retries=0) as client:
        yield client


def expected_ids(sandbox: Sandbox, *, archived: bool = False) -> list[str]:
    """Return the ids of a list, in its order."""
    return [entry["id"] for entry in reversed(sandbox.qoder.environments()) if archived or not entry["archived"]]


def message(text: str) -> dict[str, Any]:
    return {"type": "user.message", "content": [{"type": "text", "text": text}]}


def session_in(client: Managed, sandbox: Sandbox) -> str:
    session = client.sessions.create(agent=AGENT, environment_id=expected_ids(sandbox)[0])
    assert session.id is not None
    return session.id


class TestEnvironments:
    def test_new_generation_page_by_page(self, sandbox: Sandbox, client: Managed) -> None:
        assert [each.id for each in client.environments.list(limit=4)] == expected_ids(sandbox)
        assert [each.id for each in client.environments.list(**EVERY)] == expected_ids(sandbox, archived=True)
        assert len(sandbox.requests("qoder_list")) == -(-len(expected_ids(sandbox)) // 4) + 5

    def test_asynchronously(self, sandbox: Sandbox) -> None:
        async def listed() -> list[str | None]:
            known = {"base_url": sandbox.qoder.url, "access_token": sandbox.qoder.key}
            async with AsyncManaged(**known) as client:
                return [each.id async for each in client.environments.list(**EVERY)]

        assert asyncio.run(listed()) == expected_ids(sandbox, archived=True)

    def test_seed_generation_ends_after_one_page(self, sandbox: Sandbox, client: Managed) -> None:
        """The SDK follows next_page only: it ignores that there are more rows."""
        sandbox.settings(qoder_generation="seed")

        page = client.environments.list(limit=4)

        assert page.has_more is True
        assert page.has_next_page() is False
        assert [each.id for each in page] == expected_ids(sandbox)[:4]

    def test_fields(self, sandbox: Sandbox, client: Managed) -> None:
        rows = {entry["id"]: entry["row"] for entry in sandbox.qoder.environments()}

        shown = {each.id: each.to_dict() for each in client.environments.list(**EVERY)}

        assert shown == rows

    def test_our_client_lists_the_same(self, sandbox: Sandbox, client: Managed) -> None:
        settings = HttpSettings(base_url=sandbox.qoder.url, api_key=sandbox.qoder.key)
        since = sandbox.qoder.environments()[9]["row"]["created_at"]

        for query in (EVERY, {"limit": 4}, {**EVERY, "created_at_gte": since}):
            theirs = [each.to_dict() for each in client.environments.list(**query)]
            assert list(fetch_listing(PROVIDER, settings, Query(**query)).rows) == theirs
            assert theirs

    def test_created_at(self, sandbox: Sandbox, client: Managed) -> None:
        row = sandbox.qoder.environments()[9]["row"]
        moment = datetime.fromisoformat(row["created_at"])

        page = client.environments.list(created_at_gte=moment, created_at_lte=moment, include_archived=True)

        assert [each.id for each in page] == [row["id"]]

    def test_one_environment_and_its_workers(self, sandbox: Sandbox, client: Managed) -> None:
        row = sandbox.qoder.add_environment(config={"type": "self_hosted"}, **{"$workers": 2})

        environment = client.environments.retrieve(row["id"])

        assert environment.config is not None
        assert environment.config.type == "self_hosted"
        assert client.environments.work.stats(row["id"]).workers_polling == 2

    def test_errors(self, sandbox: Sandbox, client: Managed) -> None:
        with pytest.raises(qca.common.BadRequestError, match="limit") as refused:
            client.environments.list(limit=101)
        assert (refused.value.type, bool(refused.value.request_id)) == ("invalid_request_error", True)
        with pytest.raises(qca.common.NotFoundError):
            client.environments.retrieve("env_nowhere")
        with pytest.raises(qca.common.AuthenticationError):
            client.with_options(access_token="wrong").environments.list()
        sandbox.add_fault("status", status=429, body="empty")
        with pytest.raises(qca.common.RateLimitError):
            client.environments.list()


class TestSessions:
    def test_send_and_read(self, sandbox: Sandbox, client: Managed) -> None:
        sandbox.qoder.script(AGENT, QoderTurn(texts=["You said {content}.", "Good."], polls=2))
        session_id = session_in(client, sandbox)

        sent = client.sessions.events.send(session_id, events=[message("hello")])
        assert sent.data is not None
        accepted = sent.data[0].id
        assert accepted is not None
        read: list[Any] = []
        while not read or read[-1].type != "session.status_idle":
            read = list(client.sessions.events.list(session_id, after_id=accepted, order="asc", limit=100))

        texts = [event.content[0].text for event in read if event.type == "agent.message"]
        assert texts == ["You said hello.", "Good."]
        assert read[-1].stop_reason.type == "end_turn"
        assert len(sandbox.requests("qoder_events")) == 3
        [session] = sandbox.qoder.sessions()
        assert (session["id"], session["turns"], session["messages"]) == (session_id, 1, ["hello"])

    def test_events_page_by_page(self, sandbox: Sandbox, client: Managed) -> None:
        sandbox.qoder.script(AGENT, QoderTurn(texts=["again"] * 30))
        session_id = session_in(client, sandbox)
        client.sessions.events.send(session_id, events=[message("hello")])

        read = [event.type for event in client.sessions.events.list(session_id, limit=10, order="asc")]

        assert read == sandbox.qoder.sessions()[0]["events"]

    def test_pinned_agent(self, sandbox: Sandbox, client: Managed) -> None:
        agent: Any = {"id": AGENT, "type": "agent", "version": 3}

        session = client.sessions.create(agent=agent, environment_id=expected_ids(sandbox)[0], title="nightly")

        assert session.agent is not None
        assert (session.agent.id, session.agent.version, session.title) == (AGENT, 3, "nightly")
        assert isinstance(session.created_at, datetime)
        assert client.sessions.retrieve(str(session.id)).status == "idle"

    def test_tool_confirmation(self, sandbox: Sandbox, client: Managed) -> None:
        sandbox.qoder.script(AGENT, QoderTurn(ends="requires_action"))
        session_id = session_in(client, sandbox)
        client.sessions.events.send(session_id, events=[message("hello")])
        idle = list(client.sessions.events.list(session_id))[-1]
        assert idle.stop_reason is not None
        assert idle.stop_reason.event_ids is not None
        [use] = idle.stop_reason.event_ids

        confirmation: Any = {"type": "user.tool_confirmation", "tool_use_id": use, "result": "allow"}
        client.sessions.events.send(session_id, events=[confirmation])

        last = list(client.sessions.events.list(session_id))[-1]
        assert last.stop_reason is not None
        assert last.stop_reason.type == "end_turn"

    def test_busy(self, sandbox: Sandbox, client: Managed) -> None:
        sandbox.qoder.script(AGENT, QoderTurn(polls=3))
        session_id = session_in(client, sandbox)
        client.sessions.events.send(session_id, events=[message("hello")])

        with pytest.raises(qca.common.ConflictError):
            client.sessions.events.send(session_id, events=[message("more")])

    def test_repeats_with_a_key_are_one_session(self, sandbox: Sandbox, client: Managed) -> None:
        """The SDK repeats a POST by itself only if it has a key, which its caller must provide."""
        sandbox.add_fault("drop_after", route="qoder_create", times=1)
        key = str(uuid.uuid4())

        session = client.with_options(max_retries=2).sessions.create(
            agent=AGENT, environment_id=expected_ids(sandbox)[0], extra_headers={"Idempotency-Key": key}
        )

        assert [each["id"] for each in sandbox.qoder.sessions()] == [session.id]
        assert [entry["idempotency_key"] for entry in sandbox.requests("qoder_create")] == [key, key]

    def test_without_a_key_a_dropped_post_is_not_repeated(self, sandbox: Sandbox, client: Managed) -> None:
        sandbox.add_fault("drop_after", route="qoder_create", times=1)

        with pytest.raises(qca.common.APIConnectionError):
            client.with_options(max_retries=2).sessions.create(agent=AGENT, environment_id=expected_ids(sandbox)[0])

        assert len(sandbox.qoder.sessions()) == 1
