# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds providers by name, and opens their clients."""

from __future__ import annotations

import asyncio
import functools
import importlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from ..environment import Listing
from ..errors import FleetError
from ..http.settings import HttpSettings
from ..text import one_line
from .base import Client, Conversations, Provider
from .conversation import Look, Question


class AllConversations(Conversations):
    """The Conversations of several providers as one. clients: a client for each provider, by its name."""

    def __init__(self, clients: Mapping[str, Client], *, concurrency: int, rate: float | None) -> None:
        self._of = {
            name: find_provider(name).conversations(client, concurrency=concurrency, rate=rate)
            for name, client in clients.items()
        }

    def search_reply(self, question: Question) -> Look:
        return self._of[question.provider].search_reply(question)

    async def find_message(self, question: Question, fresh: bool) -> str | None:
        return await self._of[question.provider].find_message(question, fresh)


@functools.cache
def list_providers() -> Sequence[str]:
    """The names of all providers: each is a folder beside this file with a `provider.py`."""
    return tuple(sorted(path.parent.name for path in Path(__file__).parent.glob("*/provider.py")))


@functools.cache
def find_provider(name: str) -> Provider:
    """The provider of a name. Raises FleetError."""
    known = list_providers()
    if name not in known:
        raise FleetError(f"there is no provider {one_line(repr(name), 60)}; there are {', '.join(known)}")
    found: Provider = importlib.import_module(f".{name}.provider", __package__).PROVIDER
    return found


@asynccontextmanager
async def open_clients(connections: Mapping[str, HttpSettings]) -> AsyncIterator[dict[str, Client]]:
    """A client for each provider, by its name. connections: how to reach it."""
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(find_provider(name).client(settings))
            for name, settings in connections.items()
        }


def fetch_listing(provider: Provider, settings: HttpSettings, query: Any, starts: Sequence[str] = ()) -> Listing:
    """List once, from synchronous code; `starts` as for `Client.list`. Raises ApiError."""
    return asyncio.run(fetch_rows(provider, settings, query, starts))


async def fetch_rows(provider: Provider, settings: HttpSettings, query: Any, starts: Sequence[str] = ()) -> Listing:
    """List once with a client of its own; `starts` as for `Client.list`. Raises ApiError."""
    async with provider.client(settings) as client:
        return await client.list(query, starts)
