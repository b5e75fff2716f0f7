"""The relay: who may listen, which frames a client gets, and how a fault breaks it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from socket import SHUT_RDWR
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidMessage, InvalidStatus
from websockets.sync.client import ClientConnection

from tests.sandbox.process import Sandbox
from tests.unit.sandbox.devices import device, open_socket, read_close, receive, send

RUNTIME = {"agent_id": "agent-1", "conversation_id": "default"}
COMMAND = {"type": "execute_command", "command_id": "reload", "request_id": "r-1", "runtime": RUNTIME}


@pytest.fixture
def row(sandbox: Sandbox) -> dict[str, Any]:
    return sandbox.add_environment()


@contextmanager
def relay(sandbox: Sandbox, connection_id: str, **query: str) -> Iterator[ClientConnection]:
    url = f"{sandbox.url}/v1/environments/{connection_id}/status/ws"
    with open_socket(url, sandbox.api_key, **{"agentId": "agent-1", "channel": "control", **query}) as socket:
        yield socket


def answer(socket: ClientConnection, request_id: str = "r-1") -> dict[str, Any]:
    """The next frame with this request id; acknowledges everything up to it."""
    while True:
        frame: dict[str, Any] = receive(socket)
        send(socket, type="ack", seq=frame["seq"])
        if frame.get("request_id") == request_id:
            return frame


class TestUpgrade:
    @pytest.mark.parametrize(
        ("connection", "key", "status"),
        [("none", None, 404), ("own", "wrong", 401), ("own", "a-key-without-rights", 403)],
    )
    def test_refused(
        self, sandbox: Sandbox, row: dict[str, Any], connection: str, key: str | None, status: int
    ) -> None:
        path = f"/v1/environments/{row['connectionId'] if connection == 'own' else connection}/status/ws"

        with (
            pytest.raises(InvalidStatus) as refused,
            open_socket(sandbox.url + path, key or sandbox.api_key, agentId="agent-1"),
        ):
            pass

        assert refused.value.response.status_code == status
        assert json.loads(refused.value.response.body).keys() == {"errorCode", "message"}
        assert sandbox.requests("relay")[0]["status"] == status

    def test_connection_of_a_device_that_is_offline(self, sandbox: Sandbox, row: dict[str, Any]) -> None:
        sandbox.age(row["id"], 121)

        with pytest.raises(InvalidStatus), relay(sandbox, row["connectionId"]):
            pass

    @pytest.mark.parametrize("path", ["/v1/environments/x/status", "/elsewhere"])
    def test_other_path(self, sandbox: Sandbox, path: str) -> None:
        with pytest.raises(InvalidStatus) as refused, open_socket(sandbox.url + path, sandbox.api_key):
            pass

        assert refused.value.response.status_code == 404


class TestFrames:
    def test_frames_of_a_real_device(self, sandbox: Sandbox, http: httpx.Client) -> None:
        """The frames of the client's own scope and those without a scope, from either socket of the pair."""
        with device(sandbox, http) as alpha, relay(sandbox, alpha.connection_id) as client:
            send(client, **COMMAND)
            assert receive(alpha.control) == COMMAND
            send(alpha.control, type="update_queue", runtime={**RUNTIME, "agent_id": "agent-2"})
            send(alpha.control, type="update_queue", runtime={**RUNTIME, "conversation_id": "conv-1"})
            send(alpha.control, type="execute_command_response", request_id="r-1")
            assert receive(client) == {"type": "execute_command_response", "request_id": "r-1", "seq": 1}
            assert alpha.stream is not None
            send(alpha.stream, type="update_queue", runtime=RUNTIME)
            assert receive(client) == {"type": "update_queue", "runtime": RUNTIME, "seq": 2}
            [command] = sandbox.received()[alpha.environment_id]["commands"]

        assert command == {"command_id": "reload", "request_id": "r-1", "args": None, "runtime": RUNTIME}

    def test_acknowledgements_and_pongs_are_not_forwarded(self, sandbox: Sandbox, http: httpx.Client) -> None:
        with device(sandbox, http) as alpha, relay(sandbox, alpha.connection_id) as client:
            send(client, type="ack", seq=1)
            send(client, type="pong")
            client.send("not JSON")
            send(client, type="sync", runtime=RUNTIME)

            assert receive(alpha.control)["type"] == "sync"

    def test_each_client_has_its_own_sequence_numbers(self, sandbox: Sandbox, row: dict[str, Any]) -> None:
        with relay(sandbox, row["connectionId"]) as first:
            send(first, type="sync", request_id="s-1", runtime=RUNTIME)
            assert answer(first, "s-1")["seq"] == 3
            with relay(sandbox, row["connectionId"]) as second:
                send(second, type="sync", request_id="s-2", runtime=RUNTIME)

                # The device's own state was already sent over this connection.
                assert answer(second, "s-2")["seq"] == 2
                assert answer(first, "s-2")["seq"] == 6

    def test_no_more_than_a_window_without_acknowledgement(self, sandbox: Sandbox, http: httpx.Client) -> None:
        with device(sandbox, http) as alpha, relay(sandbox, alpha.connection_id) as client:
            send(client, type="sync", runtime=RUNTIME)
            receive(alpha.control)
            for number in range(70):
                send(alpha.control, type="terminal_output", data=str(number))
            assert [receive(client)["seq"] for _number in range(64)] == list(range(1, 65))
            with pytest.raises(TimeoutError):
                client.recv(timeout=0.05)

            send(client, type="ack", seq=2)
            assert [receive(client)["data"] for _number in range(2)] == ["64", "65"]

    def test_ping(self, sandbox: Sandbox, row: dict[str, Any]) -> None:
        sandbox.settings(relay_ping=0.01)
        with relay(sandbox, row["connectionId"]) as client:
            assert receive(client) == {"type": "ping"}

    @pytest.mark.parametrize("event", ["rotate", "offline"])
    def test_ends_with_the_connection(self, sandbox: Sandbox, row: dict[str, Any], event: str) -> None:
        with relay(sandbox, row["connectionId"]) as client:
            getattr(sandbox, event)(row["id"])

            assert read_close(client) == (1001, "Environment disconnected")

    def test_ends_with_a_real_device(self, sandbox: Sandbox, http: httpx.Client) -> None:
        with device(sandbox, http) as alpha, relay(sandbox, alpha.connection_id) as client:
            alpha.control.close()

            assert read_close(client) == (1001, "Environment disconnected")


class TestFaults:
    def commands(self, sandbox: Sandbox, row: dict[str, Any]) -> list[str]:
        received = sandbox.received().get(row["id"], {"commands": []})
        return [command["request_id"] for command in received["commands"]]

    def test_status(self, sandbox: Sandbox, row: dict[str, Any]) -> None:
        sandbox.add_fault("status", route="relay", status=503, retry_after=2, target=row["id"])

        with pytest.raises(InvalidStatus) as refused, relay(sandbox, row["connectionId"]):
            pass

        assert refused.value.response.status_code == 503
        assert refused.value.response.headers["retry-after"] == "2"

    def test_drop_before(self, sandbox: Sandbox, row: dict[str, Any]) -> None:
        sandbox.add_fault("drop_before", route="relay")

        with pytest.raises(InvalidMessage), relay(sandbox, row["connectionId"]):
            pass

        assert sandbox.requests("relay")[0]["status"] == "dropped"

    @pytest.mark.parametrize("code", [1011, 1008])
    def test_close(self, sandbox: Sandbox, row: dict[str, Any], code: int) -> None:
        sandbox.add_fault("relay_close", code=code)

        with relay(sandbox, row["connectionId"]) as client:
            assert read_close(client) == (code, "The sandbox was told to close")

    @pytest.mark.parametrize(
        ("fault", "ran"), [("relay_cut_before", []), ("relay_cut_after", ["r-1"]), ("relay_cut_during", ["r-1"])]
    )
    def test_cut(self, sandbox: Sandbox, row: dict[str, Any], fault: str, ran: list[str]) -> None:
        sandbox.add_fault(fault, times=1)
        with relay(sandbox, row["connectionId"]) as client:
            send(client, type="sync", request_id="s-1", runtime=RUNTIME)
            answer(client, "s-1")
            send(client, **COMMAND)

            with pytest.raises(ConnectionClosedError):
                answer(client)

        assert self.commands(sandbox, row) == ran
        with relay(sandbox, row["connectionId"]) as client:
            send(client, **{**COMMAND, "request_id": "r-2"})
            assert answer(client, "r-2")["success"] is True

    def test_cut_during_the_answer_of_an_old_device(self, sandbox: Sandbox, row: dict[str, Any]) -> None:
        sandbox.patch(row["id"], metadata={"lettaCodeVersion": "0.29.9"})
        sandbox.add_fault("relay_cut_during")
        with relay(sandbox, row["connectionId"]) as client:
            send(client, **COMMAND)

            assert receive(client)["delta"]["message_type"] == "slash_command_start"
            with pytest.raises(ConnectionClosedError):
                client.recv(timeout=5)

    def test_not_json(self, sandbox: Sandbox, row: dict[str, Any]) -> None:
        sandbox.add_fault("relay_not_json")
        with relay(sandbox, row["connectionId"]) as client:
            assert client.recv(timeout=5) == "upstream says: ok"
            send(client, **COMMAND)

            assert answer(client)["success"] is True

    def test_silent(self, sandbox: Sandbox, row: dict[str, Any]) -> None:
        sandbox.add_fault("relay_silent")
        with relay(sandbox, row["connectionId"]) as client:
            send(client, **COMMAND)

            with pytest.raises(TimeoutError):
                client.recv(timeout=0.05)

        assert self.commands(sandbox, row) == []

    def test_faults_of_replies_do_not_affect_sockets(self, sandbox: Sandbox, row: dict[str, Any]) -> None:
        sandbox.add_fault("truncated_json")
        with relay(sandbox, row["connectionId"]) as client:
            send(client, **COMMAND)
            assert answer(client)["success"] is True

    def test_route_is_checked(self, sandbox: Sandbox) -> None:
        with pytest.raises(RuntimeError, match="relay_close is a fault of the route relay"):
            sandbox.add_fault("relay_close", route="messages")


def test_a_client_that_disappears_affects_no_other_client(sandbox: Sandbox, row: dict[str, Any]) -> None:
    """A client that disappears without closing does not affect other clients."""
    with relay(sandbox, row["connectionId"]) as client:
        # Closing it would wait for the thread that reads from it.
        client.socket.shutdown(SHUT_RDWR)
    with relay(sandbox, row["connectionId"]) as client:
        send(client, **COMMAND)
        assert answer(client)["success"] is True
        client.close()
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=5)
