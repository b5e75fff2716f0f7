"""Plain helpers of the unit tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from ansible_collections.fleetops.environments.plugins.module_utils.environment import Environment
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.fan_out import Policy
from ansible_collections.fleetops.environments.plugins.module_utils.http.client import Answer, HttpClient, HttpSettings
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.schema import Entry
from ansible_collections.fleetops.environments.plugins.module_utils.options import CONNECTION_SPEC
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.models import read_environment
from tests.sandbox.process import Sandbox
from tests.sandbox.turns import Turn

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
KEY = "a-key-for-the-unit-tests"
# The row of a delivery that a run has begun.
BEGUN = Entry(
    campaign="c",
    environment_id="e",
    host="alpha",
    attempt=1,
    client_message_id="m",
    content_hash="h",
    status="in_flight",
    repeat=0,
    run=1,
    began_at="2026-01-31T12:00:00.000Z",
    claimed_at="2026-01-31T12:00:00.000Z",
)


def settings_for(target: Sandbox | str, **changes: Any) -> HttpSettings:
    """Settings for a sandbox, or for a URL with a made-up key: few retries, since each one waits."""
    given = (
        {"base_url": target, "api_key": KEY}
        if isinstance(target, str)
        else {"base_url": target.url, "api_key": target.api_key}
    )
    usual = {name: rules.get("default") for name, rules in CONNECTION_SPEC.items()}
    return HttpSettings.from_options({**usual, "retries": 2, **given, **changes}, api_key_help="")


def policy(**changes: Any) -> Policy:
    """The policy of a fan-out, unless a test needs another one."""
    standard = {"concurrency": 4, "rate": None, "max_failures": 0, "when_offline": "skip", "offline_timeout": 60.0}
    return Policy(**{**standard, **changes})


def http_get(settings: HttpSettings, *segments: str, params: dict[str, str] | None = None) -> Answer:
    """One GET by its own client."""

    async def run() -> Answer:
        async with HttpClient(settings) as client:
            return await client.get(*segments, params=params)

    return asyncio.run(run())


def http_post(settings: HttpSettings, *segments: str, **options: Any) -> Answer:
    """One POST by its own client."""

    async def run() -> Answer:
        async with HttpClient(settings) as client:
            return await client.post(*segments, **options)

    return asyncio.run(run())


def begin_turn(
    sandbox: Sandbox, environment: Environment, agent_id: str, turn: Turn, conversation_id: str | None = None
) -> None:
    """Let an agent work on a device, by default in its default conversation."""
    sandbox.script(agent_id, turn)
    body = {
        "messages": [{"role": "user", "content": "work", "client_message_id": f"{agent_id} {conversation_id}"}],
        "agentId": agent_id,
        **({"conversationId": conversation_id} if conversation_id is not None else {}),
    }
    path = ("v1", "environments", str(environment.connection_id), "messages")
    http_post(settings_for(sandbox), *path, body=body, repeatable=False)


@asynccontextmanager
async def raw_server(answer: Callable[[bytes], bytes]) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers the head of each request with these bytes; yields its URL and the heads it received."""
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            received.append(head)
            writer.write(answer(head))
            await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", received


def http_answer(body: bytes = b"{}", *, status: bytes = b"200 OK", headers: tuple[bytes, ...] = ()) -> bytes:
    """The bytes of an HTTP answer."""
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), b"Connection: close", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def row(**changes: Any) -> dict[str, Any]:
    """A row with every key that the API always sends; online at NOW."""
    return {
        "id": "environment-1",
        "deviceId": "device-1",
        "connectionId": "connection-1",
        "connectionName": "alpha",
        "organizationId": "org-1",
        "podId": "pod-1",
        "connectedAt": NOW_MS - 3_600_000,
        "firstSeenAt": NOW_MS - 7_200_000,
        "lastHeartbeat": NOW_MS - 5_000,
        "lastSeenAt": NOW_MS - 5_000,
        **changes,
    }


def environment_of(raw: dict[str, Any], base_url: str = "https://api.letta.com", now: datetime = NOW) -> Environment:
    """A row as an Environment."""
    return read_environment(raw, base_url, now)
