"""The relay's client: what it sends, what it waits for, and how it handles a lost connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from ansible_collections.fleetops.environments.plugins.module_utils.errors import ApiError
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.relay import Relay
from tests.sandbox.process import Sandbox

from .support import http_answer, raw_server, settings_for

RELOAD = {"type": "execute_command", "command_id": "reload"}
ANSWER = "execute_command_response"


@pytest.fixture
def device(sandbox: Sandbox) -> dict[str, Any]:
    """A simulated device that answers commands."""
    metadata = {"lettaCodeVersion": "0.34.12", "supported_commands": ["reload"]}
    added: dict[str, Any] = sandbox.add_environment(connectionName="relayed", metadata=metadata)
    return added


def through(
    sandbox: Sandbox,
    device: dict[str, Any],
    what: Callable[[Relay], Awaitable[Any]],
    *,
    agent_id: str | None = None,
    **settings: Any,
) -> Any:
    """The result of the calls that use the relay to a device."""

    async def run() -> Any:
        relay = Relay(settings_for(sandbox, **settings), device["connectionId"], agent_id)
        async with relay:
            return await what(relay)

    return asyncio.run(run())


async def reload(relay: Relay) -> Any:
    return await relay.request(RELOAD, ANSWER, 5)


def failure(*arguments: Any, **settings: Any) -> ApiError:
    with pytest.raises(ApiError) as raised:
        through(*arguments, **settings)
    return raised.value


def count_commands(sandbox: Sandbox, device: dict[str, Any]) -> int:
    """The number of commands that reached the device."""
    return len(sandbox.received().get(device["id"], {}).get("commands", []))


def test_each_answer_reaches_its_request(sandbox: Sandbox, device: dict[str, Any]) -> None:
    sandbox.command(device["id"], "reload", output="Reloaded", seconds=0.1)

    answer = through(sandbox, device, reload)

    assert (answer["success"], answer["output"]) == (True, "Reloaded")
    assert count_commands(sandbox, device) == 1


def test_the_device_reports_its_state_on_entry(sandbox: Sandbox, device: dict[str, Any]) -> None:
    sandbox.patch(device["id"], currentMode="acceptEdits")

    async def states(relay: Relay) -> tuple[Any, Any]:
        return relay.device_status["current_permission_mode"], relay.loop_status["status"]

    assert through(sandbox, device, states, agent_id="agent-1") == ("acceptEdits", "WAITING_ON_INPUT")


def test_the_device_reports_its_state_again_on_every_entry(sandbox: Sandbox, device: dict[str, Any]) -> None:
    async def states(relay: Relay) -> tuple[Any, Any, Any]:
        return relay.device_status["is_processing"], relay.loop_status["status"], relay.queue

    assert through(sandbox, device, states, agent_id="agent-1") == (False, "WAITING_ON_INPUT", [])
    assert through(sandbox, device, states, agent_id="agent-1") == (False, "WAITING_ON_INPUT", [])


def test_every_frame_is_acknowledged_so_that_many_commands_fit_one_connection(
    sandbox: Sandbox, device: dict[str, Any]
) -> None:
    async def often(relay: Relay) -> int:
        return len([await reload(relay) for _number in range(100)])

    assert through(sandbox, device, often) == 100


def test_pings_are_answered_during_the_wait_for_an_answer(sandbox: Sandbox, device: dict[str, Any]) -> None:
    sandbox.settings(relay_ping=0.05)
    sandbox.command(device["id"], "reload", output="late", seconds=0.5)

    assert through(sandbox, device, reload)["output"] == "late"


def test_a_relay_that_closes_once_is_tried_again_before_anything_is_asked(
    sandbox: Sandbox, device: dict[str, Any]
) -> None:
    sandbox.add_fault("relay_close", nth=1)

    assert through(sandbox, device, reload)["success"] is True
    assert count_commands(sandbox, device) == 1
    assert len(sandbox.requests("relay")) == 2


def test_a_relay_that_always_closes_leaves_nothing_unclear(sandbox: Sandbox, device: dict[str, Any]) -> None:
    sandbox.add_fault("relay_close", code=1013)

    error = failure(sandbox, device, reload, retries=1)

    assert (error.code, error.may_be_accepted, error.attempts) == ("dropped", False, 2)
    assert "the relay closed the connection (1013" in str(error)
    assert count_commands(sandbox, device) == 0


@pytest.mark.parametrize(("fault", "runs"), [("relay_cut_before", 0), ("relay_cut_after", 1), ("relay_cut_during", 1)])
def test_a_command_whose_connection_is_cut_is_unclear_and_not_repeated(
    sandbox: Sandbox, device: dict[str, Any], fault: str, runs: int
) -> None:
    sandbox.add_fault(fault)

    error = failure(sandbox, device, reload)

    assert (error.code, error.may_be_accepted) == ("dropped", True)
    assert "no answer to execute_command: the connection was cut" in str(error)
    assert count_commands(sandbox, device) == runs
    assert len(sandbox.requests("relay")) == 1


def test_a_frame_that_is_not_json_is_ignored(sandbox: Sandbox, device: dict[str, Any]) -> None:
    sandbox.add_fault("relay_not_json")

    assert through(sandbox, device, reload)["success"] is True


def test_a_device_that_does_not_answer_is_detected_before_anything_is_asked(
    sandbox: Sandbox, device: dict[str, Any]
) -> None:
    sandbox.add_fault("relay_silent")

    error = failure(sandbox, device, reload, retries=0, timeout=0.3)

    assert (error.code, error.may_be_accepted) == ("timeout", False)
    assert "no answer to sync within 0.3 s" in str(error)


def test_a_device_that_does_not_answer_is_asked_once_and_given_up_after_the_relay_timeout(
    sandbox: Sandbox, device: dict[str, Any]
) -> None:
    sandbox.add_fault("relay_silent")

    error = failure(sandbox, device, reload, retries=5, relay_timeout=0.3)

    assert (error.code, error.may_be_accepted, error.attempts) == ("timeout", False, 1)
    assert str(error).endswith("the device did not answer within the relay_timeout of 0.3 s")
    assert len(sandbox.requests("relay")) == 1


def test_what_a_device_reports_unasked_is_no_answer() -> None:
    async def report(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        while not socket.closed:
            await socket.send_str(json.dumps({"type": "stream_delta", "delta": {}, "seq": 1}))
            await asyncio.sleep(0.05)
        return socket

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", report)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            async with Relay(settings_for(address, relay_timeout=0.3), "connection-1"):
                pass
        finally:
            await runner.cleanup()

    with pytest.raises(ApiError, match=r"the device did not answer within the relay_timeout of 0\.3 s$"):
        asyncio.run(run())


def test_the_relay_timeout_is_for_the_first_answer_alone(sandbox: Sandbox, device: dict[str, Any]) -> None:
    sandbox.command(device["id"], "reload", output="late", seconds=1)

    assert through(sandbox, device, reload, relay_timeout=0.5)["output"] == "late"


def test_an_answer_that_is_late_is_unclear(sandbox: Sandbox, device: dict[str, Any]) -> None:
    sandbox.command(device["id"], "reload", seconds=60)

    error = failure(sandbox, device, lambda relay: relay.request(RELOAD, ANSWER, 0.2))

    assert (error.code, error.may_be_accepted) == ("timeout", True)
    assert "no answer to execute_command within 0.2 s" in str(error)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"status": 404}, "offline"),
        ({"status": 503}, "offline"),
        ({"status": 403}, "http_403"),
        ({"status": 500}, "http_500"),
    ],
)
def test_a_refusal_is_identified_by_its_status(
    sandbox: Sandbox, device: dict[str, Any], fault: dict[str, Any], code: str
) -> None:
    sandbox.add_fault("status", route="relay", **fault)

    error = failure(sandbox, device, reload, retries=0)

    assert (error.code, error.status, error.may_be_accepted) == (code, fault["status"], False)


def test_a_wrong_key_is_refused_and_not_shown(sandbox: Sandbox, device: dict[str, Any]) -> None:
    error = failure(sandbox, device, reload, api_key="a-wrong-key-for-the-relay")

    assert error.status == 401
    assert "the server refused the key given with api_key" in str(error)
    assert "a-wrong-key" not in str(error)


def test_the_relay_waits_as_long_as_the_server_asks(sandbox: Sandbox, device: dict[str, Any]) -> None:
    sandbox.add_fault("status", route="relay", status=429, retry_after=1, nth=1)

    assert through(sandbox, device, reload)["success"] is True
    first, second = sandbox.requests("relay")
    assert second["at"] - first["at"] >= 1


def test_a_redirect_is_not_followed(sandbox: Sandbox, device: dict[str, Any]) -> None:
    sandbox.add_fault("redirect", route="relay", location=sandbox.url + "/elsewhere")

    error = failure(sandbox, device, reload)

    assert error.code == "redirect"
    assert len(sandbox.requests()) == 1


def test_a_missing_server_is_a_failure_to_connect(device: dict[str, Any]) -> None:
    async def run() -> None:
        async with Relay(settings_for("http://127.0.0.1:9", retries=0), "connection-1"):
            pass

    with pytest.raises(ApiError, match=r"^http://127.0.0.1:9/.*: cannot connect: ") as raised:
        asyncio.run(run())

    assert (raised.value.code, raised.value.may_be_accepted) == ("connect", False)
    assert "SSLContext" not in str(raised.value)


def test_a_proxy_that_refuses_is_reported_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with raw_server(lambda _head: http_answer(status=b"407 Who are you?")) as (proxy, _received):
            monkeypatch.setenv("HTTPS_PROXY", proxy.replace("//", "//somebody:the-password@"))
            async with Relay(settings_for("https://letta.example", retries=0), "connection-1"):
                pass

    with pytest.raises(ApiError) as raised:
        asyncio.run(run())

    assert str(raised.value).endswith(": cannot connect: the proxy answered 407 Who are you?")
    assert (raised.value.code, raised.value.may_be_accepted) == ("connect", False)


def test_a_name_that_leaves_the_path_is_percent_encoded(sandbox: Sandbox) -> None:
    error = failure(sandbox, {"connectionId": "../a/b?c"}, reload, retries=0)

    assert error.code == "offline"
    [request] = sandbox.requests("relay")
    assert request["path"] == "/v1/environments/..%2Fa%2Fb%3Fc/status/ws"
