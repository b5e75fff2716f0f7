"""Scripted agents: what a device gets when it posts a turn, and what the official SDK then reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import letta_client
import pytest
from letta_client import Letta

from tests.sandbox.process import Sandbox
from tests.sandbox.turns import ApprovalTurn, ErrorTurn, LongTurn, ReplyTurn

AGENT = "agent-1"


def user(text: str = "hello", otid: str = "o-1") -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": text, "otid": otid}


def approval(tool_call_id: str, *, approve: bool = True) -> dict[str, Any]:
    return {"type": "approval", "approvals": [{"type": "approval", "approve": approve, "tool_call_id": tool_call_id}]}


def turn(http: httpx.Client, *messages: Any, conversation: str = AGENT, **body: Any) -> list[dict[str, Any]]:
    """Post a turn as a device does; returns its events."""
    path = f"/v1/conversations/{conversation}/messages"
    with http.stream("POST", path, json={"messages": list(messages), **body}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        return list(events(response))


def events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    for line in lines[:-1]:
        yield json.loads(line.removeprefix("data: "))


def kinds(rows: Any) -> list[str]:
    return [row["message_type"] if isinstance(row, dict) else row.message_type for row in rows]


def history(letta: Letta, conversation: str = AGENT, **query: Any) -> list[Any]:
    return list(letta.conversations.messages.list(conversation, **{"order": "asc", **query}))


class TestTurns:
    def test_default_reply(self, http: httpx.Client, letta: Letta) -> None:
        said = turn(http, user())

        assert kinds(said) == ["ping", "assistant_message", "stop_reason", "usage_statistics"]
        asked, answer = history(letta)
        assert (asked.message_type, asked.content, asked.otid) == ("user_message", "hello", "o-1")
        assert (answer.message_type, answer.content, answer.run_id) == ("assistant_message", "Done.", asked.run_id)
        run = letta.runs.retrieve(answer.run_id)
        assert (run.status, run.stop_reason, run.agent_id) == ("completed", "end_turn", AGENT)

    def test_script_is_consumed_in_order(self, sandbox: Sandbox, http: httpx.Client, letta: Letta) -> None:
        sandbox.script(AGENT, "one", ReplyTurn(text="two, you said {content}"))
        sandbox.script(AGENT, then="more")
        reminder = {"type": "text", "text": "<system-reminder>where you are</system-reminder>"}

        for content in ("a", [reminder, {"type": "text", "text": "b"}], "c"):
            turn(http, {**user(), "content": content})

        assert [row.content for row in history(letta)[1::2]] == ["one", "two, you said b", "more"]

    @pytest.mark.parametrize(("retryable", "kind"), [(False, "llm_bad_request"), (True, "llm_error")])
    def test_error(self, sandbox: Sandbox, http: httpx.Client, letta: Letta, retryable: bool, kind: str) -> None:
        sandbox.script(AGENT, ErrorTurn(message="no credit", retryable=retryable))

        said = turn(http, user())

        assert kinds(said) == ["ping", "error_message", "stop_reason", "usage_statistics"]
        assert (said[1]["message"], said[1]["error_type"], said[2]["stop_reason"]) == ("no credit", kind, "error")
        [asked] = history(letta)
        run = letta.runs.retrieve(asked.run_id)
        assert (run.status, run.stop_reason) == ("failed", "error")
        assert run.metadata is not None
        assert run.metadata["error"] == {"error_type": kind, "message": "no credit", "detail": "no credit"}

    @pytest.mark.parametrize(("approve", "text"), [(True, "Sent."), (False, "Not sent.")])
    def test_approval(self, sandbox: Sandbox, http: httpx.Client, letta: Letta, approve: bool, text: str) -> None:
        script = ApprovalTurn(tool_name="Write", arguments={"path": "a"}, text="Sent.", denied_text="Not sent.")
        sandbox.script(AGENT, script)

        said = turn(http, user())
        assert kinds(said) == ["ping", "approval_request_message", "stop_reason", "usage_statistics"]
        call = said[1]["tool_call"]
        assert (call["name"], json.loads(call["arguments"])) == ("Write", {"path": "a"})
        waiting = letta.runs.retrieve(said[1]["run_id"])
        assert (waiting.status, waiting.stop_reason) == ("completed", "requires_approval")

        assert turn(http, approval(call["tool_call_id"], approve=approve))[1]["content"] == text
        rows = history(letta)
        assert kinds(rows)[1:] == ["approval_request_message", "approval_response_message", "assistant_message"]
        assert (rows[1].tool_call.name, rows[2].approve, rows[3].content) == ("Write", approve, text)
        assert rows[3].run_id != rows[1].run_id

    def test_tool_return_counts_as_approved(self, sandbox: Sandbox, http: httpx.Client) -> None:
        sandbox.script(AGENT, ApprovalTurn(text="Sent."))
        call_id = turn(http, user())[1]["tool_call"]["tool_call_id"]
        returned = {"type": "tool", "tool_call_id": call_id, "tool_return": "ok", "status": "success"}

        assert turn(http, {"type": "approval", "approvals": [returned]})[1]["content"] == "Sent."

    def test_next_message_instead_of_the_rest_of_a_turn(
        self, sandbox: Sandbox, http: httpx.Client, letta: Letta
    ) -> None:
        sandbox.script(AGENT, ApprovalTurn(), "next")
        call_id = turn(http, user())[1]["tool_call"]["tool_call_id"]

        assert turn(http, approval(call_id, approve=False), user("and now?"))[1]["content"] == "next"
        assert kinds(history(letta))[-3:] == ["approval_response_message", "user_message", "assistant_message"]

    def test_long(self, sandbox: Sandbox, http: httpx.Client, letta: Letta) -> None:
        sandbox.script(AGENT, LongTurn(seconds=0.05, text="At last."))

        assert turn(http, user())[1]["content"] == "At last."
        run = letta.runs.retrieve(history(letta)[1].run_id)
        assert run.completed_at is not None
        assert run.created_at is not None
        assert (run.completed_at - run.created_at).total_seconds() == pytest.approx(0.05, abs=0.001)

    @pytest.mark.parametrize("path", [f"conversations/{AGENT}/cancel", f"agents/{AGENT}/messages/cancel"])
    def test_cancel(self, sandbox: Sandbox, http: httpx.Client, letta: Letta, path: str) -> None:
        sandbox.script(AGENT, LongTurn(seconds=3600))
        with http.stream("POST", f"/v1/conversations/{AGENT}/messages", json={"messages": [user()]}) as response:
            lines = response.iter_lines()
            run_id = json.loads(next(lines).removeprefix("data: "))["run_id"]
            assert letta.runs.retrieve(run_id).status == "running"

            assert http.post(f"/v1/{path}").json() == {run_id: "cancelled"}

            rest = [line for line in lines if line]
        assert '"stop_reason": "cancelled"' in rest[0]
        assert kinds(history(letta)) == ["user_message"]
        assert letta.runs.retrieve(run_id).status == "cancelled"

    def test_cancel_by_run(self, sandbox: Sandbox, http: httpx.Client, letta: Letta) -> None:
        sandbox.script(AGENT, LongTurn(seconds=3600))
        with http.stream("POST", f"/v1/conversations/{AGENT}/messages", json={"messages": [user()]}) as response:
            run_id = json.loads(next(response.iter_lines()).removeprefix("data: "))["run_id"]

            assert letta.agents.messages.cancel(AGENT, run_ids=[run_id]) == {run_id: "cancelled"}


class TestRefusals:
    def test_nothing_to_cancel(self, letta: Letta) -> None:
        with pytest.raises(letta_client.ConflictError, match="No active runs"):
            letta.conversations.cancel("default", agent_id=AGENT)

    def test_busy_conversation(self, sandbox: Sandbox, http: httpx.Client) -> None:
        sandbox.script(AGENT, LongTurn(seconds=3600))
        path, body = f"/v1/conversations/{AGENT}/messages", {"messages": [user()]}
        with http.stream("POST", path, json=body) as response:
            next(response.iter_lines())

            refused = http.post(path, json=body)

        assert refused.status_code == 409
        assert "is currently being processed" in refused.json()["message"]

    def test_message_while_a_tool_call_waits(self, sandbox: Sandbox, http: httpx.Client) -> None:
        sandbox.script(AGENT, ApprovalTurn())
        turn(http, user())

        refused = http.post(f"/v1/conversations/{AGENT}/messages", json={"messages": [user()]})

        assert refused.status_code == 409
        assert "waiting for approval on a tool call" in refused.json()["message"]

    def test_answer_without_a_tool_call(self, sandbox: Sandbox, http: httpx.Client) -> None:
        path, body = f"/v1/conversations/{AGENT}/messages", {"messages": [approval("call-1")]}
        assert http.post(path, json=body).status_code == 400

        sandbox.script(AGENT, ApprovalTurn())
        turn(http, user())
        assert "Invalid tool call IDs" in http.post(path, json=body).json()["message"]

    @pytest.mark.parametrize(
        "body", [b"{", b"[]", b"{}", b'{"messages": ["hello"]}'], ids=["no JSON", "list", "empty", "text"]
    )
    def test_bad_turn(self, http: httpx.Client, body: bytes) -> None:
        assert http.post(f"/v1/conversations/{AGENT}/messages", content=body).status_code == 400

    @pytest.mark.parametrize("turn", [{"kind": "song"}, {"kind": "reply", "txt": "x"}, {"kind": "long", "seconds": -1}])
    def test_invalid_script(self, sandbox: Sandbox, turn: dict[str, Any]) -> None:
        response = sandbox.control.post(f"/_sandbox/agents/{AGENT}/script", json={"turns": [turn]})

        assert response.status_code == 400

    def test_removed_agent(self, sandbox: Sandbox, http: httpx.Client, letta: Letta) -> None:
        conversation = letta.conversations.create(agent_id=AGENT).id
        sandbox.remove_agent(AGENT)

        for path in (
            f"agents/{AGENT}",
            f"agents/{AGENT}/messages",
            f"conversations/{AGENT}/messages",
            f"conversations/{conversation}/messages",
        ):
            assert http.get(f"/v1/{path}").status_code == 404
        with pytest.raises(letta_client.NotFoundError):
            letta.conversations.create(agent_id=AGENT)
        assert http.get("/v1/agents/agent-2").status_code == 200

    @pytest.mark.parametrize("path", ["conversations/conv-none/messages", "conversations/default/messages", "runs/r"])
    def test_unknown(self, http: httpx.Client, path: str) -> None:
        assert http.get(f"/v1/{path}").status_code == 404


class TestReading:
    def test_agent(self, letta: Letta) -> None:
        agent = letta.agents.retrieve(AGENT)

        assert (agent.id, agent.llm_config.context_window) == (AGENT, 128_000)

    @pytest.mark.parametrize("part", ["secrets", "mcp-servers", "repositories"])
    def test_parts_that_devices_ask_for(self, http: httpx.Client, part: str) -> None:
        assert http.get(f"/v1/agents/{AGENT}/{part}").json() == []

    def test_models(self, letta: Letta) -> None:
        assert [model.handle for model in letta.models.list()] == ["anthropic/claude-scripted"]

    def test_agents_by_name(self, sandbox: Sandbox, letta: Letta) -> None:
        sandbox.name_agent("agent-7", "ops")
        letta.conversations.create(agent_id=AGENT)

        assert {agent.id: agent.name for agent in letta.agents.list()} == {"agent-7": "ops", AGENT: AGENT}
        assert [agent.id for agent in letta.agents.list(name="ops")] == ["agent-7"]
        assert list(letta.agents.list(name="op")) == []
        sandbox.settings(searches=False)
        assert len(list(letta.agents.list(name="ops"))) == 2

    def test_list_of_conversations(self, sandbox: Sandbox, letta: Letta) -> None:
        made = [letta.conversations.create(agent_id=AGENT, summary=text).id for text in ("Weekly", "daily", "weekly 2")]
        letta.conversations.create(agent_id="agent-2", summary="weekly")
        letta.conversations.messages.list(AGENT)

        def ids(**query: Any) -> list[str]:
            return [row.id for row in letta.conversations.list(agent_id=AGENT, **query)]

        assert ids() == made[::-1]
        assert ids(order="asc") == made
        assert ids(order="asc", limit=2) == made[:2]
        assert ids(order="asc", after=made[0]) == made[1:]
        assert ids(order="asc", summary_search="weekly") == [made[0], made[2]]
        sandbox.settings(searches=False)
        assert ids(order="asc", summary_search="weekly") == made

    def test_conversations_are_separate(self, http: httpx.Client, letta: Letta) -> None:
        made = letta.conversations.create(agent_id=AGENT).id
        turn(http, user("in it"), conversation=made)
        turn(http, user("by default"), conversation="default", agent_id=AGENT)

        assert letta.conversations.retrieve(made).agent_id == AGENT
        assert history(letta, made)[0].content == "in it"
        for rows in (
            history(letta, "default", agent_id=AGENT),
            list(letta.agents.messages.list(AGENT, order="asc")),
            list(letta.agents.messages.list(AGENT, order="asc", conversation_id="default")),
        ):
            assert [row.content for row in rows] == ["by default", "Done."]

    def test_pages(self, http: httpx.Client, letta: Letta) -> None:
        for number in range(5):
            turn(http, user(str(number)))
        asc = [row.id for row in history(letta)]

        def page(**query: Any) -> list[str]:
            return [row["id"] for row in http.get(f"/v1/conversations/{AGENT}/messages", params=query).json()]

        assert len(asc) == 10
        # The SDK pages with after, in either order.
        assert [row.id for row in history(letta, limit=3)] == asc
        assert [row.id for row in history(letta, limit=3, order="desc")] == asc[::-1]
        assert page() == asc[::-1]
        assert page(order="asc", after=asc[3], limit=2) == asc[4:6]
        assert page(order="asc", before=asc[3]) == asc[:3]
        assert page(order="desc", after=asc[3]) == asc[2::-1]
        assert page(order="desc", before=asc[7]) == asc[9:7:-1]

    @pytest.mark.parametrize(("query", "status"), [("limit=0", 400), ("order=up", 400), ("after=message-none", 404)])
    def test_bad_page(self, http: httpx.Client, query: str, status: int) -> None:
        assert http.get(f"/v1/conversations/{AGENT}/messages?{query}").status_code == status

    def test_reset_forgets_everything(self, sandbox: Sandbox, http: httpx.Client, letta: Letta) -> None:
        sandbox.script(AGENT, "one")
        sandbox.remove_agent("agent-2")
        turn(http, user())

        sandbox.reset()

        assert history(letta) == []
        assert turn(http, user())[1]["content"] == "Done."
        assert http.get("/v1/agents/agent-2").status_code == 200


class TestSimulatedDevices:
    @pytest.fixture
    def rows(self, sandbox: Sandbox) -> list[dict[str, Any]]:
        return [sandbox.add_environment() for _number in range(3)]

    def post(self, http: httpx.Client, row: dict[str, Any], text: str, **body: Any) -> None:
        message = {"role": "user", "content": text, "client_message_id": f"m-{text}"}
        body = {"messages": [message], "agentId": AGENT, **body}
        assert http.post(f"/v1/environments/{row['connectionId']}/messages", json=body).json()["success"]

    def test_message_starts_a_turn(
        self, sandbox: Sandbox, http: httpx.Client, letta: Letta, rows: list[dict[str, Any]]
    ) -> None:
        sandbox.script(AGENT, then="You said {content}")

        for number, row in enumerate(rows):
            self.post(http, row, str(number))
        self.post(http, rows[0], "0")

        assert [row.content for row in history(letta)[::2]] == ["0", "1", "2"]
        assert [row.content for row in history(letta)[1::2]] == [f"You said {number}" for number in range(3)]
        # A message without an otid has its client_message_id as otid.
        assert history(letta)[0].otid == "m-0"

    def test_next_turn_begins_when_the_previous_turn_ends(
        self, sandbox: Sandbox, http: httpx.Client, letta: Letta, rows: list[dict[str, Any]]
    ) -> None:
        sandbox.script(AGENT, LongTurn(seconds=0.1, text="one"), LongTurn(seconds=0.1, text="two"))
        self.post(http, rows[0], "a")
        self.post(http, rows[1], "b")
        assert [row.content for row in history(letta)] == ["a"]

        while len(history(letta)) < 4:
            continue

        shown = history(letta)
        assert [row.content for row in shown] == ["a", "one", "b", "two"]
        assert shown[2].date == shown[1].date

    @pytest.mark.parametrize("body", [{"agentId": "agent-gone"}, {"conversationId": "conv-none"}])
    def test_turn_that_never_starts(
        self, sandbox: Sandbox, http: httpx.Client, letta: Letta, rows: list[dict[str, Any]], body: dict[str, str]
    ) -> None:
        sandbox.remove_agent("agent-gone")

        self.post(http, rows[0], "a", **body)

        assert history(letta) == []
        assert sandbox.received()[rows[0]["id"]]["turns"] == 1
