"""Simulated devices at the other end of the relay answer as real devices were seen to answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from letta_client import Letta
from websockets.sync.client import ClientConnection

from tests.sandbox.process import Sandbox
from tests.sandbox.turns import ApprovalTurn, LongTurn, Turn
from tests.unit.sandbox.devices import open_socket, read_close, receive, send

AGENT = "agent-1"
RUNTIME = {"agent_id": AGENT, "conversation_id": "default"}


class Client:
    """A relay client that keeps the frames it received."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.frames: list[dict[str, Any]] = []
        self._asked = 0

    def next(self) -> dict[str, Any]:
        frame: dict[str, Any] = receive(self.socket)
        send(self.socket, type="ack", seq=frame["seq"])
        self.frames.append(frame)
        return frame

    def ask(self, frame_type: str, **fields: Any) -> dict[str, Any]:
        """Send a frame and return the answer to it; what comes before is in `frames`."""
        self._asked += 1
        self.frames = []
        send(self.socket, **{"type": frame_type, "request_id": f"r-{self._asked}", "runtime": RUNTIME, **fields})
        while self.next().get("request_id") != f"r-{self._asked}":
            pass
        return self.frames[-1]

    def command(self, command_id: str, **fields: Any) -> tuple[bool, str]:
        answer = self.ask("execute_command", command_id=command_id, **fields)
        assert answer["type"] == "execute_command_response"
        return answer["success"], answer["output"]

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The device's state and the loop's."""
        assert self.ask("sync", force_device_status=True)["success"] is True
        assert self.next()["type"] == "update_queue"
        return self.frames[0]["device_status"], self.frames[1]["loop_status"]

    def kinds(self) -> list[str]:
        return [frame.get("delta", {}).get("message_type", frame["type"]) for frame in self.frames]


@pytest.fixture
def row(sandbox: Sandbox) -> dict[str, Any]:
    return sandbox.add_environment(currentMode="standard")


@pytest.fixture
def client(sandbox: Sandbox, row: dict[str, Any]) -> Iterator[Client]:
    with connect_client(sandbox, row) as socket:
        yield Client(socket)


def connect_client(sandbox: Sandbox, row: dict[str, Any], **query: str) -> ClientConnection:
    url = f"{sandbox.url}/v1/environments/{row['connectionId']}/status/ws"
    return open_socket(url, sandbox.api_key, **{"agentId": AGENT, **query})


def say(http: httpx.Client, row: dict[str, Any], text: str = "hello") -> None:
    message = {"role": "user", "content": text, "client_message_id": f"m-{text}"}
    body = {"messages": [message], "agentId": AGENT}
    assert http.post(f"/v1/environments/{row['connectionId']}/messages", json=body).json()["success"]


def history(letta: Letta) -> list[str]:
    return [row.message_type for row in letta.conversations.messages.list(AGENT, order="asc")]


class TestCommands:
    def test_reload(self, client: Client) -> None:
        assert client.command("reload") == (True, "Reloaded settings, local mods, and agent secrets")
        assert client.kinds() == ["slash_command_start", "slash_command_end", "execute_command_response"]

    def test_unknown(self, client: Client) -> None:
        assert client.command("sing") == (False, "Unknown command: sing")

    def test_scripted(self, sandbox: Sandbox, row: dict[str, Any], client: Client) -> None:
        sandbox.command(row["id"], "doctor", output="It is ill.", success=False, seconds=0.01)

        assert client.command("doctor", args="now") == (False, "It is ill.")
        assert client.frames[0]["delta"]["input"] == "/doctor now"

    def test_repeated_request_is_run_again(self, sandbox: Sandbox, row: dict[str, Any], client: Client) -> None:
        for _number in range(2):
            client.command("reload", request_id="r-1")
            client._asked = 0

        commands = sandbox.received()[row["id"]]["commands"]
        assert [command["request_id"] for command in commands] == ["r-1", "r-1"]

    def test_old_device_does_not_answer(self, sandbox: Sandbox, row: dict[str, Any], client: Client) -> None:
        sandbox.patch(row["id"], metadata={"lettaCodeVersion": "0.29.9"})
        send(client.socket, type="execute_command", command_id="reload", request_id="r-1", runtime=RUNTIME)
        client.ask("sync", request_id="r-1")

        assert "slash_command_end" in client.kinds()
        assert "execute_command_response" not in client.kinds()

    @pytest.mark.parametrize(
        "broken",
        [
            {"runtime": {**RUNTIME, "agent_id": None}},
            {"runtime": {**RUNTIME, "agent_id": ""}},
            {"runtime": {"agent_id": AGENT}},
            {"runtime": None},
            {"command_id": 1},
            {"request_id": None},
        ],
    )
    def test_frame_that_a_device_cannot_read(self, client: Client, broken: dict[str, Any]) -> None:
        whole = {"type": "execute_command", "command_id": "reload", "request_id": "r-0", "runtime": RUNTIME}
        send(client.socket, **{**whole, **broken})

        client.ask("sync")

        assert "execute_command_response" not in client.kinds()


class TestUpgrade:
    def row_now(self, sandbox: Sandbox, row: dict[str, Any]) -> dict[str, Any]:
        return next(entry["row"] for entry in sandbox.fleet() if entry["id"] == row["id"])

    def test_same_row_new_connection_new_version(self, sandbox: Sandbox, row: dict[str, Any], client: Client) -> None:
        sandbox.upgrade_to("0.36.1", seconds=0.05)

        success, output = client.command("upgrade-letta-code")

        assert success
        assert output.startswith("Updated to 0.36.1. ")
        assert output.endswith("\nRestarting remote listener...")
        assert read_close(client.socket) == (1001, "Environment disconnected")
        assert self.row_now(sandbox, row)["connectionId"] is None
        while not (now := self.row_now(sandbox, row))["connectionId"]:
            continue
        assert now["connectionId"] != row["connectionId"]
        assert now["metadata"]["lettaCodeVersion"] == "0.36.1"
        assert now["metadata"]["supported_commands"] == row["metadata"]["supported_commands"]

    def test_comes_back_on_the_old_version(self, sandbox: Sandbox, row: dict[str, Any], client: Client) -> None:
        sandbox.upgrade_to("0.36.1", seconds=0, comes_back_at="0.34.12")

        assert client.command("upgrade-letta-code")[0]
        while (now := self.row_now(sandbox, row))["connectionId"] in (None, row["connectionId"]):
            continue

        assert now["metadata"]["lettaCodeVersion"] == "0.34.12"

    def test_comes_back_and_dies(self, sandbox: Sandbox, row: dict[str, Any], client: Client) -> None:
        sandbox.upgrade_to("0.36.1", seconds=0, stays=0.3)

        assert client.command("upgrade-letta-code")[0]
        while (now := self.row_now(sandbox, row))["connectionId"] in (None, row["connectionId"]):
            continue
        while (now := self.row_now(sandbox, row))["connectionId"]:
            continue

        assert now["metadata"]["lettaCodeVersion"] == "0.36.1"

    def test_does_not_come_back(self, sandbox: Sandbox, row: dict[str, Any], client: Client) -> None:
        sandbox.upgrade_to("0.36.1", seconds=0, comes_back=False)

        assert client.command("upgrade-letta-code")[0]

        assert read_close(client.socket) == (1001, "Environment disconnected")
        assert self.row_now(sandbox, row)["connectionId"] is None

    @pytest.mark.parametrize(
        ("self_update", "output"),
        [
            ({"supported": False, "manual_command": "Ask your administrator"}, "Failed: Ask your administrator"),
            (
                {"writable": False, "manual_command": "npm i -g letta"},
                "Failed: Update failed: EACCES\n\nTo update manually: npm i -g letta",
            ),
        ],
    )
    def test_not_updatable(
        self, sandbox: Sandbox, row: dict[str, Any], client: Client, self_update: dict[str, Any], output: str
    ) -> None:
        sandbox.patch(row["id"], metadata={"self_update": self_update})

        assert client.command("upgrade-letta-code") == (False, output)
        assert self.row_now(sandbox, row)["connectionId"] == row["connectionId"]

    def test_nothing_newer(self, sandbox: Sandbox, client: Client) -> None:
        sandbox.upgrade_to("0.34.12")

        assert client.command("upgrade-letta-code") == (True, "Already on latest version (0.34.12)")


class TestState:
    def test_idle(self, row: dict[str, Any], client: Client) -> None:
        device, loop = client.state()

        assert (device["current_permission_mode"], device["pending_control_requests"]) == ("standard", [])
        assert device["current_connection_id"] == row["connectionId"]
        assert loop["status"] == "WAITING_ON_INPUT"

    def test_change_of_mode(self, sandbox: Sandbox, row: dict[str, Any], client: Client) -> None:
        send(client.socket, type="change_device_state", runtime=RUNTIME, payload={"mode": "acceptEdits", "cwd": "/srv"})

        assert client.next()["device_status"]["current_permission_mode"] == "acceptEdits"
        now = next(entry["row"] for entry in sandbox.fleet() if entry["id"] == row["id"])
        assert (now["currentMode"], now["metadata"]["workingDirectory"]) == ("acceptEdits", "/srv")

    @pytest.mark.parametrize(("word", "mode"), [("default", "standard"), ("fullAccess", "unrestricted")])
    def test_older_name_of_a_mode(self, client: Client, word: str, mode: str) -> None:
        send(client.socket, type="change_device_state", runtime=RUNTIME, payload={"mode": word})

        assert client.next()["device_status"]["current_permission_mode"] == mode

    def test_invalid_mode(self, client: Client) -> None:
        send(client.socket, type="change_device_state", runtime=RUNTIME, payload={"mode": "plan"})

        assert client.next()["delta"]["message"] == "Unsupported permission mode: plan"
        assert client.state()[0]["current_permission_mode"] == "standard"

    def test_mode_belongs_to_a_conversation(self, sandbox: Sandbox, row: dict[str, Any], client: Client) -> None:
        send(client.socket, type="change_device_state", runtime=RUNTIME, payload={"mode": "strict"})
        assert client.state()[0]["current_permission_mode"] == "strict"

        other = {"agent_id": "agent-2", "conversation_id": "default"}
        with connect_client(sandbox, row, agentId="agent-2") as socket:
            second = Client(socket)
            second.ask("sync", runtime=other)
            assert second.frames[0]["device_status"]["current_permission_mode"] == "standard"

    def test_own_state_is_not_sent_twice_unless_asked(self, client: Client) -> None:
        client.state()

        client.ask("sync")

        assert client.kinds() == ["update_loop_status", "sync_response"]

    def test_queue(self, sandbox: Sandbox, http: httpx.Client, row: dict[str, Any], client: Client) -> None:
        sandbox.script(AGENT, LongTurn(seconds=3600))
        for text in ("a", "b"):
            say(http, row, text)

        client.state()
        [waiting] = client.frames[-1]["queue"]
        assert (waiting["content"], waiting["client_message_id"], "paused" in waiting) == ("b", "m-b", False)
        client.ask("abort_message")
        [waiting] = client.next()["queue"]
        assert waiting["paused"] is True
        client.ask("resume_queue")
        assert client.next()["queue"] == []

    def test_look_up(self, sandbox: Sandbox, letta: Letta, client: Client) -> None:
        conversation = letta.conversations.create(agent_id=AGENT)
        sandbox.remove_agent("agent-2")

        assert client.ask("agent_retrieve", agent_id=AGENT)["agent"]["id"] == AGENT
        assert client.ask("conversation_retrieve", conversation_id=conversation.id)["success"] is True
        assert client.ask("agent_retrieve", agent_id="agent-2")["error"] == "404 Agent 'agent-2' not found"
        assert client.ask("conversation_retrieve", conversation_id="conv-no")["success"] is False

    def test_without_an_agent(self, sandbox: Sandbox, row: dict[str, Any]) -> None:
        runtime = {"agent_id": None, "conversation_id": "default"}
        with connect_client(sandbox, row, agentId="") as socket:
            assert Client(socket).ask("sync", runtime=runtime)["success"] is True


class TestApproval:
    def waiting(self, sandbox: Sandbox, http: httpx.Client, row: dict[str, Any], client: Client) -> dict[str, Any]:
        sandbox.script(AGENT, ApprovalTurn(arguments={"command": "touch a"}, text="Did it.", denied_text="Did not."))
        say(http, row)
        device, loop = client.state()
        assert loop["status"] == "WAITING_ON_APPROVAL"
        [request] = device["pending_control_requests"]
        assert request["request_id"] == f"perm-{request['request']['tool_call_id']}"
        assert (request["request"]["tool_name"], request["request"]["input"]) == ("Bash", {"command": "touch a"})
        return dict(request)

    def respond(self, client: Client, request_id: str, behavior: str) -> dict[str, Any]:
        decision = {"behavior": behavior, "message": "because"}
        payload = {"kind": "approval_response", "request_id": request_id, "decision": decision}
        return client.ask("input", payload=payload)

    @pytest.mark.parametrize(("behavior", "text"), [("allow", "Did it."), ("deny", "Did not.")])
    def test_answer(
        self,
        *,
        sandbox: Sandbox,
        http: httpx.Client,
        letta: Letta,
        row: dict[str, Any],
        client: Client,
        behavior: str,
        text: str,
    ) -> None:
        request = self.waiting(sandbox, http, row, client)

        assert self.respond(client, request["request_id"], behavior)["accepted"] is True

        assert client.kinds() == ["assistant_message", "turn_finished", "input_accepted"]
        rows = list(letta.conversations.messages.list(AGENT, order="asc"))
        assert (rows[2].approve, rows[2].reason, rows[3].content) == (behavior == "allow", "because", text)
        assert client.state()[0]["pending_control_requests"] == []
        late = self.respond(client, request["request_id"], behavior)
        assert (late["accepted"], late["error"]) == (False, "Approval request is no longer pending")

    def test_other_device_of_the_conversation_has_nothing_pending(
        self, sandbox: Sandbox, http: httpx.Client, row: dict[str, Any], client: Client
    ) -> None:
        request = self.waiting(sandbox, http, row, client)
        other = sandbox.add_environment()
        with connect_client(sandbox, other) as socket:
            assert Client(socket).state()[0]["pending_control_requests"] == []
            assert self.respond(Client(socket), request["request_id"], "allow")["accepted"] is False

    def test_over_rest_no_turn_continues(
        self, sandbox: Sandbox, http: httpx.Client, row: dict[str, Any], client: Client
    ) -> None:
        request = self.waiting(sandbox, http, row, client)
        approval = {"approve": True, "tool_call_id": request["request"]["tool_call_id"]}
        body = {"messages": [{"type": "approval", "approvals": [approval]}], "agentId": AGENT}

        assert http.post(f"/v1/environments/{row['connectionId']}/messages", json=body).status_code == 200

        assert client.state()[0]["pending_control_requests"] == [request]


class TestTurns:
    def test_message_over_the_relay(self, letta: Letta, client: Client) -> None:
        message = {"role": "user", "content": "hello", "client_message_id": "m-1", "otid": "o-1"}
        payload = {"kind": "create_message", "messages": [message]}
        for _number in range(2):
            answer = client.ask("input", payload=payload)
            assert (answer["accepted"], answer["disposition"]) == (True, "started")

        assert history(letta) == ["user_message", "assistant_message"]

    @pytest.mark.parametrize(
        "messages",
        [None, [{"role": "system"}], [{"type": "approval", "approvals": [{"approve": True, "tool_call_id": "t"}]}]],
    )
    def test_message_that_is_refused(self, client: Client, messages: Any) -> None:
        assert client.ask("input", payload={"kind": "create_message", "messages": messages})["accepted"] is False

    @pytest.mark.parametrize("turn", [LongTurn(seconds=3600), ApprovalTurn()], ids=["runs", "waits"])
    def test_abort_and_resume(
        self, *, sandbox: Sandbox, http: httpx.Client, letta: Letta, row: dict[str, Any], client: Client, turn: Turn
    ) -> None:
        sandbox.script(AGENT, turn)
        for text in ("a", "b", "c"):
            say(http, row, text)
        run_id = client.state()[1]["active_run_ids"][0]

        assert client.ask("abort_message", run_id="run-other")["aborted"] is False
        assert client.ask("abort_message", run_id=run_id)["aborted"] is True
        assert client.kinds()[:2] == ["status", "turn_finished"]
        assert client.ask("abort_message")["aborted"] is False
        assert history(letta).count("user_message") == 1
        assert letta.runs.retrieve(run_id).status == ("cancelled" if isinstance(turn, LongTurn) else "completed")

        answer = client.ask("resume_queue")
        assert (answer["resumed"], answer["success"]) == (2, True)
        # The queued messages are one turn. The device also reports that the tool call will not come.
        waited = ["approval_response_message"] if isinstance(turn, ApprovalTurn) else ["user_message"]
        assert history(letta)[-4:] == [*waited, "user_message", "user_message", "assistant_message"]
        assert client.ask("resume_queue")["resumed"] == 0

    def test_next_message_ends_the_pause(
        self, sandbox: Sandbox, http: httpx.Client, letta: Letta, row: dict[str, Any], client: Client
    ) -> None:
        sandbox.script(AGENT, LongTurn(seconds=3600))
        say(http, row, "a")
        say(http, row, "b")
        client.ask("abort_message")

        say(http, row, "c")

        assert history(letta).count("user_message") == 3

    def test_nothing_to_abort(self, client: Client) -> None:
        answer = client.ask("abort_message")

        assert (answer["aborted"], answer["success"]) == (False, True)

    def test_turn_of_another_device_continues(
        self, sandbox: Sandbox, http: httpx.Client, letta: Letta, client: Client
    ) -> None:
        sandbox.script(AGENT, LongTurn(seconds=3600))
        say(http, sandbox.add_environment())

        assert client.ask("abort_message")["aborted"] is False
        assert letta.runs.retrieve(letta.conversations.messages.list(AGENT).items[0].run_id).status == "running"
