"""The official SDK and the sandbox agree on Letta's API."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
import letta_client
import pytest
from letta_client import Letta

from tests.sandbox.process import Sandbox


def user_message(number: int = 1, **fields: Any) -> dict[str, Any]:
    message = {"role": "user", "content": "hello", "client_message_id": f"m-{number}", "otid": f"o-{number}"}
    return {**message, **fields}


def first_online(sandbox: Sandbox) -> dict[str, Any]:
    row: dict[str, Any] = next(entry["row"] for entry in sandbox.fleet() if entry["online"])
    return row


def post(http: httpx.Client, connection_id: str, *messages: Any, **body: Any) -> httpx.Response:
    return http.post(f"/v1/environments/{connection_id}/messages", json={"messages": list(messages), **body})


class TestList:
    def test_sdk_pages_through_the_whole_fleet(self, sandbox: Sandbox, letta: Letta) -> None:
        ids: list[str] = []
        page = letta.environments.list(limit="7")
        ids += [connection.id for connection in page.connections]
        while page.has_next_page:
            page = letta.environments.list(limit="7", after=ids[-1])
            ids += [connection.id for connection in page.connections]

        assert ids == [entry["id"] for entry in sandbox.fleet()]
        assert len(sandbox.requests("list")) == 6

    def test_default_page_holds_fifty(self, sandbox: Sandbox, letta: Letta) -> None:
        for _number in range(10):
            sandbox.add_environment()

        page = letta.environments.list()

        assert len(page.connections) == 50
        assert page.has_next_page

    def test_online_only_keeps_rows_that_merely_have_a_connection(self, sandbox: Sandbox, letta: Letta) -> None:
        listed = {connection.id for connection in letta.environments.list(online_only="true", limit="100").connections}

        fleet = sandbox.fleet()
        assert listed == {entry["id"] for entry in fleet if entry["row"]["connectionId"]}
        assert listed > {entry["id"] for entry in fleet if entry["online"]}

    def test_paging_continues_after_a_row_that_left_the_selection(self, sandbox: Sandbox, letta: Letta) -> None:
        whole = [c.id for c in letta.environments.list(online_only="true", limit="100").connections]
        sandbox.offline(whole[4])

        page = letta.environments.list(online_only="true", limit="3", after=whole[4])

        assert [connection.id for connection in page.connections] == whole[5:8]

    @pytest.mark.parametrize("source", ["local", "remote"])
    def test_source(self, sandbox: Sandbox, letta: Letta, source: Any) -> None:
        page = letta.environments.list(source=source, limit="100")

        expected = [entry["id"] for entry in sandbox.fleet() if entry["source"] == source]
        assert [connection.id for connection in page.connections] == expected != []

    def test_user_id(self, sandbox: Sandbox, letta: Letta) -> None:
        user = next(entry["row"]["userId"] for entry in sandbox.fleet() if "userId" in entry["row"])

        page = letta.environments.list(user_id=user)

        assert {connection.user_id for connection in page.connections} == {user}

    def test_unknown_keys_reach_the_client(self, letta: Letta) -> None:
        connection = letta.environments.list(limit="1").connections[0]

        assert connection.metadata is not None
        assert connection.model_extra is not None
        assert connection.model_extra["listenerInstanceId"].startswith("server-")
        assert connection.metadata.environmentMessageProtocol == "v2-input"

    @pytest.mark.parametrize(
        "query",
        ["limit=0", "limit=ten", "limit=-1", "limit=", "source=moon", "onlineOnly=True", "after=nowhere", "after="],
    )
    def test_bad_query(self, http: httpx.Client, query: str) -> None:
        response = http.get(f"/v1/environments?{query}")

        assert response.status_code == 400
        assert response.json().keys() == {"errorCode", "message"}

    def test_date_header(self, http: httpx.Client) -> None:
        assert http.get("/v1/environments").headers["date"].endswith("GMT")


class TestRetrieve:
    def test_row(self, sandbox: Sandbox, letta: Letta) -> None:
        row = first_online(sandbox)

        environment = letta.environments.retrieve(row["deviceId"])

        assert (environment.id, environment.connection_id) == (row["id"], row["connectionId"])

    def test_most_recently_active_of_several_rows(self, sandbox: Sandbox, letta: Letta) -> None:
        names = {entry["row"]["deviceId"]: entry["id"] for entry in sandbox.fleet() if "-review-" in entry["name"]}
        device_id, second = next(iter(names.items()))
        first = next(e["id"] for e in sandbox.fleet() if e["row"]["deviceId"] == device_id and e["id"] != second)

        sandbox.age(first, 60)
        assert letta.environments.retrieve(device_id).id == second
        sandbox.age(second, 61)
        assert letta.environments.retrieve(device_id).id == first

    def test_unknown_device(self, letta: Letta) -> None:
        with pytest.raises(letta_client.NotFoundError):
            letta.environments.retrieve("no-such-device")

    @pytest.mark.parametrize("device_id", ["a/b", "a%2Fb", "a b?c=d#e", "100%", "ünï", "messages"])
    def test_any_device_id(self, sandbox: Sandbox, letta: Letta, device_id: str) -> None:
        row = sandbox.add_environment(deviceId=device_id)

        assert letta.environments.retrieve(device_id).id == row["id"]

    def test_encoded_slash_from_any_client(self, sandbox: Sandbox, http: httpx.Client) -> None:
        row = sandbox.add_environment(deviceId="x/y z")

        assert http.get(f"/v1/environments/{quote('x/y z', safe='')}").json()["id"] == row["id"]


class TestAuthentication:
    @pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic Zm9v"}])
    def test_unauthorized(self, sandbox: Sandbox, headers: dict[str, str]) -> None:
        response = httpx.get(f"{sandbox.url}/v1/environments", headers=headers, trust_env=False)

        assert response.status_code == 401
        assert response.json()["errorCode"] == "UNAUTHORIZED"

    def test_forbidden(self, sandbox: Sandbox) -> None:
        with (
            Letta(base_url=sandbox.url, api_key="a-key-without-rights", max_retries=0) as letta,
            pytest.raises(letta_client.PermissionDeniedError),
        ):
            letta.environments.list()

    def test_unknown_route(self, http: httpx.Client) -> None:
        response = http.put("/v1/environments")

        assert (response.status_code, response.json()["errorCode"]) == (404, "NOT_FOUND")


SHAPES = {
    "text": [user_message()],
    "without otid": [{"role": "user", "content": "hello", "client_message_id": "m"}],
    "text parts": [user_message(content=[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])],
    "several": [user_message(1), user_message(2)],
    "tool return": [
        {"type": "approval", "approvals": [{"status": "success", "tool_call_id": "t", "tool_return": "done"}]}
    ],
    "whole tool return": [
        {
            "type": "approval",
            "approvals": [
                {
                    "type": "tool",
                    "status": "error",
                    "tool_call_id": "t",
                    "tool_return": [{"type": "text", "text": "no"}],
                    "stdout": ["a"],
                    "stderr": None,
                }
            ],
        }
    ],
    "decision": [{"type": "approval", "approvals": [{"approve": True, "tool_call_id": "t"}]}],
    "whole decision": [
        {
            "type": "approval",
            "approvals": [
                {
                    "type": "approval",
                    "approve": False,
                    "tool_call_id": "t",
                    "reason": "not today",
                    "updated_input": {"path": "/tmp"},
                }
            ],
        }
    ],
    "message and decision": [
        user_message(),
        {"type": "approval", "approvals": [{"approve": True, "tool_call_id": "t"}]},
    ],
}

BAD_BODIES: dict[str, Any] = {
    "no messages": {},
    "messages is an object": {"messages": {}},
    "no client_message_id": {"messages": [{"role": "user", "content": "x"}]},
    "content is a number": {"messages": [user_message(content=1)]},
    "role": {"messages": [user_message(role="system")]},
    "part type": {"messages": [user_message(content=[{"type": "image", "text": "x"}])]},
    "otid is null": {"messages": [user_message(otid=None)]},
    "unknown key": {"messages": [user_message()], "agent_id": "agent-1"},
    "agentId is null": {"messages": [user_message()], "agentId": None},
    "approve is text": {"messages": [{"type": "approval", "approvals": [{"approve": "yes", "tool_call_id": "t"}]}]},
    "approval status": {
        "messages": [{"type": "approval", "approvals": [{"status": "ok", "tool_call_id": "t", "tool_return": ""}]}]
    },
    "a list": [],
}


class TestMessages:
    @pytest.mark.parametrize("name", SHAPES)
    def test_sdk_sends_every_shape(self, sandbox: Sandbox, letta: Letta, name: str) -> None:
        row = first_online(sandbox)
        messages: Any = SHAPES[name]

        reply = letta.environments.send_message(
            row["connectionId"], messages=messages, agent_id="agent-1", conversation_id="conv-1"
        )

        assert reply.success
        received = sandbox.received()[row["id"]]
        users = [message for message in messages if "role" in message]
        approvals = [approval for message in messages for approval in message.get("approvals", [])]
        target = {"agentId": "agent-1", "conversationId": "conv-1"}
        assert received["posts"] == 1
        assert [m["content"] for m in received["messages"]] == [m["content"] for m in users]
        assert received["approvals"] == [{**target, **approval} for approval in approvals]
        assert received["turns"] == (1 if users else 0)

    def test_received_messages_are_recorded(self, sandbox: Sandbox, http: httpx.Client) -> None:
        row = first_online(sandbox)

        post(http, row["connectionId"], user_message(), agentId="agent-1")

        assert sandbox.received() == {
            row["id"]: {
                "posts": 1,
                "messages": [
                    {
                        "agentId": "agent-1",
                        "conversationId": None,
                        "client_message_id": "m-1",
                        "otid": "o-1",
                        "content": "hello",
                    }
                ],
                "duplicates": 0,
                "dropped": 0,
                "approvals": [],
                "turns": 1,
                "commands": [],
            }
        }

    @pytest.mark.parametrize("name", BAD_BODIES)
    def test_bad_body(self, sandbox: Sandbox, http: httpx.Client, name: str) -> None:
        row = first_online(sandbox)

        response = http.post(f"/v1/environments/{row['connectionId']}/messages", json=BAD_BODIES[name])

        assert response.status_code == 400
        assert response.json()["errorCode"] == "BAD_REQUEST"
        assert sandbox.received() == {}

    def test_error_names_the_fault(self, sandbox: Sandbox, http: httpx.Client) -> None:
        response = post(http, first_online(sandbox)["connectionId"], user_message(role="system"))

        assert response.json()["message"] == "messages.0.user.role: Input should be 'user'"

    def test_not_json(self, sandbox: Sandbox, http: httpx.Client) -> None:
        path = f"/v1/environments/{first_online(sandbox)['connectionId']}/messages"

        assert http.post(path, content=b"{").status_code == 400

    def test_repeat_is_dropped_within_its_conversation(self, sandbox: Sandbox, http: httpx.Client) -> None:
        row = first_online(sandbox)
        for conversation in ("conv-1", "conv-1", "conv-2"):
            response = post(http, row["connectionId"], user_message(), agentId="a", conversationId=conversation)
            assert response.json()["success"] is True

        received = sandbox.received()[row["id"]]
        assert (received["posts"], received["duplicates"], received["turns"]) == (3, 1, 2)
        assert [m["conversationId"] for m in received["messages"]] == ["conv-1", "conv-2"]

    def test_memory_ends_after_4096_messages_and_with_a_restart(self, sandbox: Sandbox, http: httpx.Client) -> None:
        row = first_online(sandbox)
        post(http, row["connectionId"], *(user_message(number) for number in range(4097)), agentId="a")
        post(http, row["connectionId"], user_message(4096), agentId="a")
        assert sandbox.received()[row["id"]]["duplicates"] == 1
        post(http, row["connectionId"], user_message(0), agentId="a")
        assert sandbox.received()[row["id"]]["duplicates"] == 1

        row = sandbox.rotate(row["id"])
        post(http, row["connectionId"], user_message(0), agentId="a")
        assert sandbox.received()[row["id"]]["duplicates"] == 2
        row = sandbox.rotate(row["id"], restart=True)
        post(http, row["connectionId"], user_message(0), agentId="a")
        assert sandbox.received()[row["id"]]["duplicates"] == 2

    def test_old_device_drops_a_message_without_agent(self, sandbox: Sandbox, http: httpx.Client) -> None:
        old = sandbox.add_environment(**{"$delete": ["metadata.environmentMessageProtocol"]})
        new = sandbox.add_environment()

        assert post(http, old["connectionId"], user_message()).json()["success"] is True
        assert post(http, new["connectionId"], user_message()).json()["success"] is True

        received = sandbox.received()
        assert (received[old["id"]]["dropped"], received[old["id"]]["turns"]) == (1, 0)
        assert (received[new["id"]]["dropped"], received[new["id"]]["turns"]) == (0, 1)

    @pytest.mark.parametrize("status", [404, 503])
    def test_missing_connection(self, sandbox: Sandbox, http: httpx.Client, status: int) -> None:
        sandbox.settings(offline_status=status)
        rows = [sandbox.add_environment() for _number in range(3)]
        sandbox.offline(rows[0]["id"])
        sandbox.rotate(rows[1]["id"])
        sandbox.age(rows[2]["id"], 121)

        codes = {post(http, row["connectionId"], user_message()).status_code for row in rows}

        assert codes == {status}
        assert sandbox.received() == {}


def test_conversation(letta: Letta) -> None:
    first = letta.conversations.create(agent_id="agent-1", summary="weekly check")
    second = letta.conversations.create(agent_id="agent-1")

    assert first.agent_id == "agent-1"
    assert first.summary == "weekly check"
    assert first.id.startswith("conv-")
    assert first.id != second.id


def test_conversation_needs_an_agent(http: httpx.Client) -> None:
    assert http.post("/v1/conversations/").status_code == 400
