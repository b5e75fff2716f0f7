"""Retry-After: a pause that the server asks of one request applies to all requests with the same settings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.errors import ApiError
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.delivery import (
    Delivery,
    MessageTarget,
    deliver,
)
from ansible_collections.fleetops.environments.plugins.module_utils.http import gate as retry_after
from ansible_collections.fleetops.environments.plugins.module_utils.http.client import Answer, HttpClient
from ansible_collections.fleetops.environments.plugins.module_utils.http.gate import Gate
from ansible_collections.fleetops.environments.plugins.module_utils.http.settings import HttpSettings
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.client import Client
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.relay import Relay
from ansible_collections.fleetops.environments.plugins.module_utils.providers.message import Message
from tests.sandbox.process import Sandbox

from .support import environment_of, policy, settings_for


@pytest.fixture
def short_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let waiting requests start within a short time."""
    monkeypatch.setattr(retry_after, "_SPREAD", 0.05)


def targets_of(sandbox: Sandbox, count: int) -> list[MessageTarget]:
    rows = [entry["row"] for entry in sandbox.fleet() if entry["online"]][:count]
    assert len(rows) == count
    return [
        MessageTarget(row["id"], environment_of(row, sandbox.url), "agent-1", messages=[message(number)])
        for number, row in enumerate(rows)
    ]


def message(number: int) -> Message:
    return Message("hello", f"m-{number}", f"m-{number}")


async def after_a_refused_call(client: HttpClient, *calls: Awaitable[Any]) -> list[Any]:
    """The results or errors of calls made after one call was asked to wait; the result of that one comes first."""
    refused = asyncio.create_task(client.get("v1", "environments", "held-up"))
    await asyncio.sleep(0.3)
    return await asyncio.gather(refused, *calls, return_exceptions=True)


def list_after_refusal(settings: HttpSettings, others: int = 1) -> list[Any]:
    """The results of a call for `held-up` and of others that are made after its answer."""

    async def run() -> list[Any]:
        async with HttpClient(settings) as client:
            return await after_a_refused_call(client, *(client.get("v1", "environments") for _number in range(others)))

    return asyncio.run(run())


def test_no_request_is_sent_before_the_time_that_the_server_gave_for_one_target(sandbox: Sandbox) -> None:
    targets = targets_of(sandbox, 8)
    sandbox.add_fault("status", route="messages", target=targets[2].environment.id, status=429, retry_after=1, times=1)

    async def run() -> list[str]:
        async with Client(settings_for(sandbox)) as client:
            return [delivery.status for delivery in await deliver({"letta": client}, targets, policy(concurrency=1))]

    assert asyncio.run(run()) == ["sent"] * 8
    log = sandbox.requests("messages")
    assert [entry["status"] for entry in log] == [200, 200, 429, *[200] * 6]
    assert log[3]["at"] - log[2]["at"] >= 1


def test_requests_that_waited_do_not_all_start_at_once(sandbox: Sandbox) -> None:
    sandbox.add_fault("status", route="retrieve", status=429, retry_after=1, times=1)
    sandbox.add_environment(deviceId="held-up")

    assert all(isinstance(reply, Answer) for reply in list_after_refusal(settings_for(sandbox), others=15))

    refused, *others = sorted(entry["at"] for entry in sandbox.requests())
    assert len(others) == 16
    assert others[0] - refused >= 1
    assert others[-1] - others[0] > 0.3


@pytest.mark.usefixtures("short_spread")
def test_a_503_that_asks_to_wait_applies_to_all_targets(sandbox: Sandbox) -> None:
    sandbox.add_fault("status", route="retrieve", status=503, retry_after=1, times=1)
    sandbox.add_environment(deviceId="held-up")

    list_after_refusal(settings_for(sandbox))

    refused, *others = sandbox.requests()
    assert [entry["at"] - refused["at"] >= 1 for entry in others] == [True, True]


@pytest.mark.parametrize("status", [500, 502])
def test_any_other_error_concerns_one_request_only(sandbox: Sandbox, status: int) -> None:
    sandbox.add_fault("status", route="retrieve", status=status, retry_after=1, times=1)
    sandbox.add_environment(deviceId="held-up")

    list_after_refusal(settings_for(sandbox))

    refused, other, again = sandbox.requests()
    assert (other["route"], again["route"]) == ("list", "retrieve")
    assert other["at"] - refused["at"] < 1 <= again["at"] - refused["at"]


def test_a_503_that_asks_for_too_long_a_pause_fails_its_own_target_only(sandbox: Sandbox) -> None:
    sandbox.add_fault("status", route="retrieve", status=503, retry_after=61)

    refused, other = list_after_refusal(settings_for(sandbox))

    assert (refused.code, refused.attempts, refused.retry_after) == ("http_503", 1, 61)
    assert str(refused).endswith("(the server asked to wait 61 s)")
    assert other.attempts == 1


def test_after_a_429_that_asks_for_too_long_a_pause_nothing_more_is_sent(sandbox: Sandbox) -> None:
    """For any number of allowed failures: the requests fail without asking the server again."""
    targets = targets_of(sandbox, 6)
    sandbox.add_fault("status", route="messages", target=targets[2].environment.id, status=429, retry_after=3600)

    async def run() -> list[Delivery]:
        async with Client(settings_for(sandbox)) as client:
            return await deliver({"letta": client}, targets, policy(concurrency=1, max_failures=6))

    deliveries = asyncio.run(run())

    assert [delivery.status for delivery in deliveries] == ["sent", "sent", *["failed"] * 4]
    codes = [delivery.error["code"] for delivery in deliveries if delivery.error]
    assert codes == ["http_429", *["throttled"] * 3]
    assert "not sent, as the server asked for no request in the next 3" in str(deliveries[3].error)
    assert [delivery.attempts for delivery in deliveries] == [1, 1, 1, 0, 0, 0]
    assert len(sandbox.requests("messages")) == 3


def test_a_429_with_too_long_a_pause_delays_requests_with_a_longer_deadline() -> None:
    gate = Gate()
    gate.note_error(ApiError("no", code="http_429", status=429, retry_after=61))

    async def run() -> None:
        async with asyncio.timeout(0.1):
            await gate.wait_until_open("GET", time.monotonic() + 120)

    with pytest.raises(TimeoutError):
        asyncio.run(run())


def test_a_request_that_would_wait_past_its_deadline_fails_at_once_with_nothing_sent(sandbox: Sandbox) -> None:
    sandbox.add_fault("status", route="retrieve", status=429, retry_after=30)

    began = time.monotonic()
    _refused, other = list_after_refusal(settings_for(sandbox, deadline=20))

    assert time.monotonic() - began < 5
    assert (other.code, other.attempts, other.may_be_accepted) == ("throttled", 0, False)
    assert f"GET {sandbox.url}/v1/environments: not sent, as the server asked for no request in the next 30 s" in str(
        other
    )
    assert 29 < other.retry_after <= 30
    assert len(sandbox.requests()) == 1


@pytest.mark.usefixtures("short_spread")
def test_a_pause_before_the_start_does_not_count_against_the_deadline(sandbox: Sandbox) -> None:
    sandbox.add_fault("status", route="retrieve", status=429, retry_after=1, times=1)
    sandbox.add_fault("slow", route="list", seconds=1)
    sandbox.add_environment(deviceId="held-up")

    _refused, other = list_after_refusal(settings_for(sandbox, deadline=1.5))

    assert other.attempts == 1
    assert sandbox.requests("list")[0]["at"] - sandbox.requests("retrieve")[0]["at"] >= 1


@pytest.mark.usefixtures("short_spread")
def test_a_started_request_that_must_pause_past_its_deadline_fails_at_once(sandbox: Sandbox) -> None:
    sandbox.add_fault("status", route="retrieve", status=429, retry_after=5)
    sandbox.add_fault("status", route="list", status=500, retry_after=1, times=1)

    async def run() -> ApiError:
        settings = settings_for(sandbox, deadline=4)
        async with HttpClient(settings) as client:
            begun = client.get("v1", "environments")
            [_refused, other] = await asyncio.gather(
                client.get("v1", "environments", "held-up"), begun, return_exceptions=True
            )
            assert isinstance(other, ApiError)
            return other

    began = time.monotonic()
    error = asyncio.run(run())

    assert time.monotonic() - began < 3
    assert (error.code, error.attempts) == ("throttled", 1)
    assert len(sandbox.requests("list")) == 1


@pytest.mark.usefixtures("short_spread")
def test_the_relay_pauses_with_the_other_requests(sandbox: Sandbox) -> None:
    row = targets_of(sandbox, 1)[0].environment
    sandbox.add_fault("status", route="retrieve", status=429, retry_after=1, times=1)
    sandbox.add_environment(deviceId="held-up")
    settings = settings_for(sandbox)

    async def connect() -> None:
        async with Relay(settings, str(row.connection_id)):
            pass

    async def run() -> list[Any]:
        async with HttpClient(settings) as client:
            return await after_a_refused_call(client, connect())

    assert asyncio.run(run())[1] is None
    refused, *others = sandbox.requests()
    assert sorted(entry["route"] for entry in others) == ["relay", "retrieve"]
    assert all(entry["at"] - refused["at"] >= 1 for entry in others)


def test_other_settings_do_not_pause(sandbox: Sandbox) -> None:
    sandbox.add_fault("status", route="retrieve", status=429, retry_after=30)

    async def run() -> list[Any]:
        async with HttpClient(settings_for(sandbox, deadline=20)) as client, HttpClient(settings_for(sandbox)) as other:
            return await after_a_refused_call(client, other.get("v1", "environments"))

    assert asyncio.run(run())[1].attempts == 1
