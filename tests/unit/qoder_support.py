"""Helpers of the unit tests for Qoder."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from ansible_collections.fleetops.environments.plugins.module_utils.environment import Environment
from ansible_collections.fleetops.environments.plugins.module_utils.http.settings import HttpSettings
from ansible_collections.fleetops.environments.plugins.module_utils.providers.qoder.client import Client
from ansible_collections.fleetops.environments.plugins.module_utils.providers.qoder.models import read_environment
from tests.sandbox.process import Sandbox

from .support import settings_for

AGENT = "agent_1"
Answer = TypeVar("Answer")


def qoder_settings(sandbox: Sandbox, **changes: Any) -> HttpSettings:
    """Settings for the sandbox's Qoder."""
    return settings_for(sandbox.qoder.url, **{"api_key": sandbox.qoder.key, **changes})


def new_environment(sandbox: Sandbox, **row: Any) -> Environment:
    """Add an environment; return it as the inventory would list it."""
    return qoder_environment(sandbox.qoder.add_environment(**row), sandbox.qoder.url)


def qoder_environment(raw: dict[str, Any], base_url: str = "https://api.qoder.com/api/v1/cloud") -> Environment:
    """A row as an Environment."""
    return read_environment(raw, base_url)


def with_client(settings: HttpSettings, use: Callable[[Client], Awaitable[Answer]]) -> Answer:
    """The result of the calls that use a client."""

    async def run() -> Answer:
        async with Client(settings) as client:
            return await use(client)

    return asyncio.run(run())


def only_session(sandbox: Sandbox) -> dict[str, Any]:
    """The only session."""
    [session] = sandbox.qoder.sessions()
    return session
