"""Letta's three calls, when the answer is not what the API promises."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.environment import Environment
from ansible_collections.fleetops.environments.plugins.module_utils.errors import ApiError
from ansible_collections.fleetops.environments.plugins.module_utils.providers.conversation import Address
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.client import Client, Query
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.models import read_environments
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.provider import PROVIDER
from ansible_collections.fleetops.environments.plugins.module_utils.providers.registry import fetch_listing
from tests.sandbox.process import Sandbox

from .support import environment_of, http_answer, raw_server, row, settings_for


def retrieve_device(sandbox: Sandbox, device_id: str) -> Environment:
    async def run() -> Environment:
        async with Client(settings_for(sandbox)) as client:
            return await client.retrieve(device_id)

    return asyncio.run(run())


def test_a_device_is_retrieved_as_it_is_listed(sandbox: Sandbox) -> None:
    listing = fetch_listing(PROVIDER, settings_for(sandbox), Query(limit=7))
    found, invalid = read_environments(listing, sandbox.url)

    assert invalid == []
    assert [environment.id for environment in found] == [entry["id"] for entry in sandbox.fleet()]
    assert {environment.status == "online" for environment in found} == {True, False}
    again = retrieve_device(sandbox, found[0].device_id)
    moving = {"listed_at", "last_heartbeat", "last_seen_at"}
    assert {**again.fields, **dict.fromkeys(moving)} == {**found[0].fields, **dict.fromkeys(moving)}


def test_a_device_that_is_not_there_is_a_404(sandbox: Sandbox) -> None:
    with pytest.raises(ApiError) as raised:
        retrieve_device(sandbox, "nobody")

    assert (raised.value.status, raised.value.code) == (404, "http_404")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"connectionName": None}, "connection_name"),
        ({"metadata": []}, "metadata"),
        ({"lastHeartbeat": "a moment ago"}, "last_heartbeat"),
    ],
)
def test_a_malformed_field_of_a_retrieved_row_is_named(sandbox: Sandbox, changes: dict[str, Any], name: str) -> None:
    added = sandbox.add_environment(deviceId="damaged", **changes)

    found = retrieve_device(sandbox, "damaged")

    assert (found.id, found.fields["invalid"]) == (added["id"], [name])


def test_a_row_without_a_device_is_resolved_in_the_listing(sandbox: Sandbox) -> None:
    added = sandbox.add_environment()
    wanted = replace(environment_of(added, sandbox.url), device_id=None)

    async def run() -> Environment | None:
        async with Client(settings_for(sandbox)) as client:
            return await client.resolve(wanted)

    found = asyncio.run(run())

    assert found is not None
    assert found.id == added["id"]
    assert {entry["route"] for entry in sandbox.requests()} == {"list"}


def test_an_environment_without_a_connection_is_offline_before_anything_is_sent(sandbox: Sandbox) -> None:
    async def run() -> None:
        async with Client(settings_for(sandbox)) as client:
            await client.send(environment_of(row(connectionId=None), sandbox.url), [], Address(None, None))

    with pytest.raises(ApiError) as raised:
        asyncio.run(run())

    assert (raised.value.code, raised.value.may_be_accepted) == ("offline", False)
    assert sandbox.requests() == []


@pytest.mark.parametrize("body", [b"{}", b'{"id": null}', b'{"id": ""}', b'{"id": 7}', b"[]", b"null"])
def test_a_conversation_without_an_id_is_an_error(body: bytes) -> None:
    async def run() -> None:
        async with raw_server(lambda _head: http_answer(body)) as (url, _received):
            client = Client(settings_for(url))
            async with client:
                await client.create_conversation("agent-1", "a summary")

    with pytest.raises(ApiError, match="the answer has no id") as raised:
        asyncio.run(run())

    assert raised.value.code == "invalid"


@pytest.mark.parametrize(
    ("wanted", "device", "answered", "expected"),
    [
        # In the listing.
        ("env-7", None, None, "env-7"),
        # Its row of the listing may be one of those without an id.
        ("env-9", "device-9", "env-9", "env-9"),
        ("env-9", None, None, None),
        ("env-9", "device-9", "env-8", None),
    ],
)
@pytest.mark.parametrize("among", [1, 100])
def test_rows_without_an_id_are_an_error_only_for_an_environment_that_is_found_nowhere(
    wanted: str, device: str | None, answered: str | None, expected: str | None, among: int
) -> None:
    rows = [row(id=f"env-{number}") for number in range(8)] + [row(id=None)]

    def answer(head: bytes) -> bytes:
        one = head.startswith(b"GET /v1/environments/device-9 ")
        return http_answer(
            json.dumps(row(id=answered) if one else {"connections": rows, "hasNextPage": False}).encode()
        )

    async def run() -> Environment | None:
        async with raw_server(answer) as (url, _received):
            reference = replace(environment_of(row(id=wanted), url), device_id=device)
            async with Client(settings_for(url)) as client:
                return await client.resolve(reference, among=among)

    if expected is None:
        with pytest.raises(ApiError, match=r"^1 of 9 rows have no id that can be used, and 10% may be dropped"):
            asyncio.run(run())
    else:
        found = asyncio.run(run())
        assert found is not None
        assert found.id == expected
