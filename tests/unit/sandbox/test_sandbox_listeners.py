"""Devices that register: their rows, their sockets, and what is passed on to them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.sandbox.process import Sandbox
from tests.unit.sandbox.devices import METADATA, device, open_socket, read_close, receive, registration, send

MESSAGE = {"role": "user", "content": "hello", "client_message_id": "m-1", "otid": "o-1"}


def truth(sandbox: Sandbox, environment_id: str) -> dict[str, Any]:
    return next(entry for entry in sandbox.fleet() if entry["id"] == environment_id)


def post(http: httpx.Client, connection_id: str, *messages: Any, **body: Any) -> httpx.Response:
    return http.post(f"/v1/environments/{connection_id}/messages", json={"messages": list(messages), **body})


class TestRegister:
    def test_row(self, sandbox: Sandbox, http: httpx.Client) -> None:
        with device(sandbox, http) as alpha:
            entry = truth(sandbox, alpha.environment_id)

        assert (entry["name"], entry["online"]) == ("alpha", True)
        assert (entry["row"]["deviceId"], entry["row"]["listenerInstanceId"]) == ("device-1", "server-alpha")
        assert entry["row"]["metadata"] == METADATA

    def test_same_row_another_connection(self, sandbox: Sandbox, http: httpx.Client) -> None:
        with device(sandbox, http) as first:
            pass
        with device(sandbox, http, metadata={**METADATA, "lettaCodeVersion": "0.35.0"}) as second:
            entry = truth(sandbox, first.environment_id)

        assert second.environment_id == first.environment_id
        assert second.connection_id != first.connection_id
        assert entry["row"]["metadata"]["lettaCodeVersion"] == "0.35.0"

    def test_another_listener_of_the_device_has_its_own_row(self, sandbox: Sandbox, http: httpx.Client) -> None:
        with device(sandbox, http) as alpha, device(sandbox, http, name="beta") as beta:
            assert alpha.environment_id != beta.environment_id

    def test_row_is_offline_until_the_device_connects(self, sandbox: Sandbox, http: httpx.Client) -> None:
        http.post("/v1/environments/register", json=registration())

        [entry] = [entry for entry in sandbox.fleet() if entry["name"] == "alpha"]
        assert (entry["online"], entry["row"]["connectionId"]) == (False, None)

    @pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"deviceId": "", "connectionName": "alpha"}'])
    def test_bad_body(self, http: httpx.Client, body: bytes) -> None:
        assert http.post("/v1/environments/register", content=body).status_code == 400

    def test_fault(self, sandbox: Sandbox, http: httpx.Client) -> None:
        sandbox.add_fault("status", route="register", status=503, retry_after=1, times=1)

        assert http.post("/v1/environments/register", json=registration()).status_code == 503
        assert http.post("/v1/environments/register", json=registration()).status_code == 200


class TestSockets:
    def test_pair_is_greeted(self, sandbox: Sandbox, http: httpx.Client) -> None:
        greeting = {"type": "listener_ready", "connection_generation": "generation-1", "connection_attempt": 1}

        with device(sandbox, http) as alpha:
            assert alpha.ready == [greeting, greeting]

    @pytest.mark.parametrize("single", ["setting", "old device"])
    def test_single(self, sandbox: Sandbox, http: httpx.Client, single: str) -> None:
        sandbox.settings(paired=single != "setting")
        metadata = METADATA if single == "setting" else {"lettaCodeVersion": "0.25.3"}

        with device(sandbox, http, metadata=metadata) as alpha:
            assert alpha.stream is None
            assert truth(sandbox, alpha.environment_id)["online"]

    def test_ping_is_the_heartbeat(self, sandbox: Sandbox, http: httpx.Client) -> None:
        with device(sandbox, http) as alpha:
            sandbox.patch(alpha.environment_id, lastHeartbeat=1)
            assert not truth(sandbox, alpha.environment_id)["online"]

            send(alpha.control, type="ping")
            assert receive(alpha.control) == {"type": "pong"}

            assert truth(sandbox, alpha.environment_id)["online"]

    def test_status_feeds_the_row(self, sandbox: Sandbox, http: httpx.Client) -> None:
        status = {"current_permission_mode": "acceptEdits", "current_working_directory": "/srv/billing"}
        with device(sandbox, http) as alpha:
            send(alpha.control, type="update_device_status", device_status=status)
            send(alpha.control, type="ping")
            receive(alpha.control)

            row = truth(sandbox, alpha.environment_id)["row"]

        assert row["currentMode"] == "acceptEdits"
        assert row["metadata"] == {**METADATA, "workingDirectory": "/srv/billing"}

    @pytest.mark.parametrize("channel", ["control", "stream"])
    def test_offline_when_a_socket_closes(self, sandbox: Sandbox, http: httpx.Client, channel: str) -> None:
        with device(sandbox, http) as alpha:
            getattr(alpha, channel).close()
            while truth(sandbox, alpha.environment_id)["online"]:
                continue

            assert truth(sandbox, alpha.environment_id)["row"]["connectionId"] is None
            assert post(http, alpha.connection_id, MESSAGE).status_code == 404

    def test_wrong_key(self, sandbox: Sandbox, http: httpx.Client) -> None:
        url = http.post("/v1/environments/register", json=registration()).json()["wsUrl"]

        with pytest.raises(InvalidStatus) as refused, open_socket(url, "wrong"):
            pass
        assert refused.value.response.status_code == 401

    def test_unknown_connection_must_register_again(self, sandbox: Sandbox) -> None:
        with open_socket(f"{sandbox.url}/v1/environments/gone/ws", sandbox.api_key) as socket:
            assert read_close(socket) == (1008, "Environment not found")

    def test_newer_registration_replaces_the_connection(self, sandbox: Sandbox, http: httpx.Client) -> None:
        with device(sandbox, http) as first, device(sandbox, http) as second:
            assert read_close(first.control) == (1000, "Replaced by new connection")
            assert truth(sandbox, second.environment_id)["row"]["connectionId"] == second.connection_id


class TestMessages:
    def test_new_form(self, sandbox: Sandbox, http: httpx.Client) -> None:
        with device(sandbox, http) as alpha:
            assert post(http, alpha.connection_id, MESSAGE, agentId="agent-1").json()["success"] is True

            assert receive(alpha.control) == {
                "type": "input",
                "runtime": {"agent_id": "agent-1", "conversation_id": "default"},
                "payload": {"kind": "create_message", "messages": [MESSAGE]},
            }
            received = sandbox.received()[alpha.environment_id]
        assert (received["posts"], received["turns"]) == (1, 1)

    def test_old_form(self, sandbox: Sandbox, http: httpx.Client) -> None:
        with device(sandbox, http, metadata={"lettaCodeVersion": "0.25.3"}) as alpha:
            post(http, alpha.connection_id, MESSAGE, agentId="agent-1", conversationId="conv-1")

            names = {"agentId": "agent-1", "conversationId": "conv-1"}
            assert receive(alpha.control) == {"type": "message", "messages": [MESSAGE], **names}

    def test_approval_is_passed_on_unchanged(self, sandbox: Sandbox, http: httpx.Client) -> None:
        approval = {"type": "approval", "approvals": [{"approve": True, "tool_call_id": "call-1"}]}
        with device(sandbox, http) as alpha:
            post(http, alpha.connection_id, approval, agentId="agent-1")

            assert receive(alpha.control)["payload"] == {"kind": "create_message", "messages": [approval]}

    def test_repeats_are_passed_on_to_the_device(self, sandbox: Sandbox, http: httpx.Client) -> None:
        with device(sandbox, http) as alpha:
            for _number in range(2):
                post(http, alpha.connection_id, MESSAGE, agentId="agent-1")
                assert receive(alpha.control)["type"] == "input"

            assert sandbox.received()[alpha.environment_id]["duplicates"] == 1


class TestControl:
    @pytest.mark.parametrize(
        ("event", "expected"), [("rotate", (1008, "Environment not found")), ("offline", (1001, "Going away"))]
    )
    def test_event(self, sandbox: Sandbox, http: httpx.Client, event: str, expected: tuple[int, str]) -> None:
        with device(sandbox, http) as alpha:
            getattr(sandbox, event)(alpha.environment_id)

            assert read_close(alpha.control) == expected

    def test_removed_device_ends(self, sandbox: Sandbox, http: httpx.Client) -> None:
        with device(sandbox, http) as alpha:
            sandbox.remove(alpha.environment_id)

            assert read_close(alpha.control) == (1000, "Replaced by new connection")

    def test_cannot_be_set_online(self, sandbox: Sandbox, http: httpx.Client) -> None:
        with device(sandbox, http) as alpha, pytest.raises(RuntimeError, match="a real device knows no event online"):
            sandbox.online(alpha.environment_id)

    def test_connected_device_outlives_a_reset(self, sandbox: Sandbox, http: httpx.Client) -> None:
        with device(sandbox, http) as alpha:
            sandbox.reset()

            assert truth(sandbox, alpha.environment_id)["online"]
            assert post(http, alpha.connection_id, MESSAGE).status_code == 200

        while truth(sandbox, alpha.environment_id)["online"]:
            continue
        sandbox.reset()
        assert alpha.environment_id not in [entry["id"] for entry in sandbox.fleet()]
