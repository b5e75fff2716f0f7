"""The same messages from a script without Ansible: ``bare.py CLIENT CONNECTIONS_FILE COUNT CONCURRENCY``.

CLIENT: letta (the official SDK), httpx or aiohttp (a loop around a POST). As a script would be written for once: no
checks beyond the answer's status, no look-up of connections that have gone, no results that are kept.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

AGENT = "agent-1"
URL, KEY = os.environ["LETTA_BASE_URL"], os.environ["LETTA_API_KEY"]

Send = Callable[[str], Awaitable[None]]


def message() -> Any:
    """One message in the format of the API."""
    own_id = str(uuid.uuid4())
    return {"role": "user", "content": "hello", "client_message_id": own_id, "otid": own_id}


def path(connection: str) -> str:
    return f"{URL}/v1/environments/{connection}/messages"


async def to_each(connections: Iterable[str], concurrency: int, send: Send) -> None:
    """Send over every connection, with this many requests at a time."""
    queue = iter(connections)

    async def worker() -> None:
        for connection in queue:
            await send(connection)

    async with asyncio.TaskGroup() as group:
        for _number in range(concurrency):
            group.create_task(worker())


async def by_letta(connections: Iterable[str], concurrency: int) -> None:
    """With the SDK's defaults, except retries, which would hide errors."""
    from letta_client import AsyncLetta  # noqa: PLC0415 - each client imports only its own package

    async with AsyncLetta(base_url=URL, api_key=KEY, max_retries=0) as client:

        async def send(connection: str) -> None:
            await client.environments.send_message(connection, agent_id=AGENT, messages=[message()])

        await to_each(connections, concurrency, send)


async def by_httpx(connections: Iterable[str], concurrency: int) -> None:
    """With as many kept connections as simultaneous requests."""
    import httpx  # noqa: PLC0415

    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(headers=headers, limits=limits, trust_env=False, timeout=60) as client:

        async def send(connection: str) -> None:
            answer = await client.post(path(connection), json={"agentId": AGENT, "messages": [message()]})
            answer.raise_for_status().json()

        await to_each(connections, concurrency, send)


async def by_aiohttp(connections: Iterable[str], concurrency: int) -> None:
    """With one session."""
    import aiohttp  # noqa: PLC0415

    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:

        async def send(connection: str) -> None:
            body = {"agentId": AGENT, "messages": [message()]}
            async with session.post(path(connection), json=body) as answer:
                answer.raise_for_status()
                await answer.json()

        await to_each(connections, concurrency, send)


CLIENTS = {"letta": by_letta, "httpx": by_httpx, "aiohttp": by_aiohttp}


def main() -> None:
    client, connections, count, concurrency = sys.argv[1:]
    chosen = json.loads(Path(connections).read_text())[: int(count)]
    asyncio.run(CLIENTS[client](chosen, int(concurrency)))


if __name__ == "__main__":
    main()
