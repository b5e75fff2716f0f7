"""Sessions of Qoder: what is accepted, what an agent does with it, and what counts as the same request."""

from __future__ import annotations

import uuid
from typing import Any

import httpx
import pytest

from tests.sandbox.process import Sandbox
from tests.sandbox.qoder_turns import QoderTurn

from .qoder import AGENT, active, create, error, events, new_session, send

DAY = 24 * 3600


def types(rows: list[dict[str, Any]]) -> list[str]:
    return [row["type"] for row in rows]


def key() -> str:
    return str(uuid.uuid4())


def only(sandbox: Sandbox) -> dict[str, Any]:
    """The only session."""
    [session] = sandbox.qoder.sessions()
    return session


class TestCreate:
    def test_session(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        environment_id = active(sandbox)[0]

        response = create(qoder, environment_id, title="nightly", metadata={"run": "7"})

        session = response.json()
        assert response.status_code == 201
        assert (session["type"], session["status"], session["title"]) == ("session", "idle", "nightly")
        assert (session["environment_id"], session["agent_id"]) == (environment_id, AGENT)
        assert qoder.get(f"/sessions/{session['id']}").json() == session
        truth = only(sandbox)
        assert (truth["id"], truth["account"], truth["metadata"]) == (session["id"], "default", {"run": "7"})
        assert (truth["turns"], truth["events"]) == (0, [])

    @pytest.mark.parametrize(("version", "shown"), [({}, 1), ({"version": None}, 1), ({"version": 4}, 4)])
    def test_agent_object(self, sandbox: Sandbox, qoder: httpx.Client, version: dict[str, Any], shown: int) -> None:
        agent = {"id": "agent_2", "type": "agent", **version}

        session = create(qoder, active(sandbox)[0], agent=agent).json()

        assert (session["agent"]["id"], session["agent"]["version"]) == ("agent_2", shown)
        assert (only(sandbox)["agent_id"], only(sandbox)["agent_version"]) == ("agent_2", version.get("version"))

    @pytest.mark.parametrize("generation", ["seed", "new"])
    def test_archived_environments_refuse(self, sandbox: Sandbox, qoder: httpx.Client, generation: str) -> None:
        sandbox.settings(qoder_generation=generation)

        for entry in sandbox.qoder.environments():
            response = create(qoder, entry["id"])
            if entry["archived"]:
                assert error(response) == (400, "invalid_request_error", "environment_id")
            else:
                assert response.status_code == 201

    def test_unknown_environment_and_agent(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        sandbox.qoder.remove_agent("agent_gone")

        assert error(create(qoder, "env_nowhere")) == (404, "not_found_error", "environment_id")
        assert error(create(qoder, active(sandbox)[0], agent="agent_gone")) == (404, "not_found_error", "agent")
        assert sandbox.qoder.sessions() == []

    @pytest.mark.parametrize(
        "body",
        [
            {"agent": None},
            {"agent": ""},
            {"agent": {"id": "agent_1"}},
            {"agent": {"id": "agent_1", "type": "agent", "version": "4"}},
            {"title": 5},
            {"title": None},
            {"agent_id": "agent_1"},
            {"environment_id": 5},
        ],
    )
    def test_bad_body(self, sandbox: Sandbox, qoder: httpx.Client, body: dict[str, Any]) -> None:
        whole = {"agent": AGENT, "environment_id": active(sandbox)[0], **body}

        assert error(qoder.post("/sessions", json=whole))[:2] == (400, "invalid_request_error")

    @pytest.mark.parametrize("content", ["", "[]", "{", '"text"'])
    def test_body_that_is_no_object(self, qoder: httpx.Client, content: str) -> None:
        assert error(qoder.post("/sessions", content=content))[:2] == (400, "invalid_request_error")

    def test_sessions_belong_to_their_account(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        session_id = new_session(sandbox, qoder)
        sandbox.qoder.account("second", "key-of-the-second")
        second = {"Authorization": "Bearer key-of-the-second"}

        assert error(qoder.get(f"/sessions/{session_id}", headers=second))[0] == 404
        assert error(qoder.get(f"/sessions/{session_id}/events", headers=second))[0] == 404


class TestTurns:
    def test_the_whole_turn(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        session_id = new_session(sandbox, qoder)

        response = send(qoder, session_id, "how are you?")

        [accepted] = response.json()["data"]
        assert response.status_code == 202
        assert (accepted["type"], accepted["content"]) == (
            "user.message",
            [{"type": "text", "text": "how are you?"}],
        )
        following = events(qoder, session_id, after_id=accepted["id"])
        assert types(following) == ["session.status_running", "agent.message", "session.status_idle"]
        assert following[1]["content"] == [{"type": "text", "text": "Done."}]
        assert following[2]["stop_reason"] == {"type": "end_turn"}
        assert (only(sandbox)["turns"], only(sandbox)["messages"]) == (1, ["how are you?"])

    def test_messages_in_one_request_are_one_turn(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        session_id = new_session(sandbox, qoder)
        messages = [{"type": "user.message", "content": [{"type": "text", "text": text}]} for text in ("one", "two")]

        accepted = qoder.post(f"/sessions/{session_id}/events", json={"events": messages}).json()["data"]

        assert [event["content"][0]["text"] for event in accepted] == ["one", "two"]
        assert (only(sandbox)["turns"], only(sandbox)["messages"]) == (1, ["one", "two"])
        assert only(sandbox)["events"].count("session.status_idle") == 1

    def test_script(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        said = QoderTurn(texts=["You said {content}.", "So what?"])
        sandbox.qoder.script(AGENT, said, "Then this.", then="And always this.")
        session_id = new_session(sandbox, qoder)

        for _number in range(4):
            send(qoder, session_id, "yes")

        texts = [
            event["content"][0]["text"] for event in events(qoder, session_id, limit=100) if "agent" in event["type"]
        ]
        assert texts == ["You said yes.", "So what?", "Then this.", "And always this.", "And always this."]

    @pytest.mark.parametrize("ends", ["end_turn", "cancelled", "requires_action"])
    def test_stop_reasons(self, sandbox: Sandbox, qoder: httpx.Client, ends: Any) -> None:
        sandbox.qoder.script(AGENT, QoderTurn(ends=ends, texts=[]))
        session_id = new_session(sandbox, qoder)

        send(qoder, session_id)

        last = events(qoder, session_id)[-1]
        assert (last["type"], last["stop_reason"]["type"]) == ("session.status_idle", ends)
        assert send(qoder, session_id).status_code == 202

    @pytest.mark.parametrize(
        ("ends", "type_", "status"),
        [
            ("error", "session.error", 202),
            ("terminated", "session.status_terminated", 400),
            ("deleted", "session.deleted", 404),
        ],
    )
    def test_failures(self, sandbox: Sandbox, qoder: httpx.Client, ends: Any, type_: str, status: int) -> None:
        sandbox.qoder.script(AGENT, QoderTurn(ends=ends, texts=["I try."], message="no credit"))
        session_id = new_session(sandbox, qoder)
        send(qoder, session_id)

        rows = events(qoder, session_id)

        assert types(rows) == ["user.message", "session.status_running", "agent.message", type_]
        assert rows[-1].get("error", {}).get("message") == ("no credit" if ends == "error" else None)
        assert qoder.get(f"/sessions/{session_id}").status_code == (404 if ends == "deleted" else 200)
        assert send(qoder, session_id).status_code == status

    def test_a_message_can_ask_for_its_turn(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        session_id = new_session(sandbox, qoder)
        send(qoder, session_id, "Try this\nsandbox: cancelled polls=1")

        assert types(events(qoder, session_id))[-1] == "session.status_running"
        assert events(qoder, session_id)[-1]["stop_reason"] == {"type": "cancelled"}

    @pytest.mark.parametrize("result", ["allow", "deny"])
    def test_confirmation(self, sandbox: Sandbox, qoder: httpx.Client, result: str) -> None:
        sandbox.qoder.script(AGENT, QoderTurn(ends="requires_action", tool_name="Write", arguments={"path": "/x"}))
        session_id = new_session(sandbox, qoder)
        send(qoder, session_id)
        use, idle = events(qoder, session_id)[-2:]
        assert (use["type"], use["name"], use["input"]) == ("agent.tool_use", "Write", {"path": "/x"})
        assert idle["stop_reason"] == {"type": "requires_action", "event_ids": [use["id"]]}

        body = {"events": [{"type": "user.tool_confirmation", "tool_use_id": use["id"], "result": result}]}
        assert qoder.post(f"/sessions/{session_id}/events", json=body).status_code == 202

        following = events(qoder, session_id, after_id=idle["id"])
        said = following[2]["content"][0]["text"]
        assert said == ("Done." if result == "allow" else "Then not.")
        assert (only(sandbox)["turns"], only(sandbox)["confirmations"][0]["result"]) == (1, result)
        # No tool call waits any more.
        assert error(qoder.post(f"/sessions/{session_id}/events", json=body))[0] == 400

    def test_polls(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        sandbox.qoder.script(AGENT, QoderTurn(polls=3))
        session_id = new_session(sandbox, qoder)
        send(qoder, session_id)

        assert len(events(qoder, session_id)) == 2
        assert qoder.get(f"/sessions/{session_id}").json()["status"] == "processing"
        assert error(send(qoder, session_id, "more")) == (409, "conflict_error", None)
        assert (only(sandbox)["turns"], only(sandbox)["refused"]) == (1, 1)
        assert len(events(qoder, session_id)) == 4
        assert send(qoder, session_id, "more").status_code == 202

    def test_a_client_that_repeats_long_enough_is_accepted(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        sandbox.qoder.script(AGENT, QoderTurn(polls=2))
        session_id = new_session(sandbox, qoder)

        assert [send(qoder, session_id).status_code for _number in range(4)] == [202, 409, 409, 202]

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"events": []},
            {"events": [{"type": "user.message"}]},
            {"events": [{"type": "user.message", "content": "hello"}]},
            {"events": [{"type": "user.message", "content": []}]},
            {"events": [{"type": "user.message", "content": [{"type": "image", "text": "x"}]}]},
            {"events": [{"type": "agent.message", "content": [{"type": "text", "text": "x"}]}]},
            {"events": [{"type": "user.tool_confirmation", "tool_use_id": "evt_1", "result": "allow"}]},
        ],
    )
    def test_bad_events(self, sandbox: Sandbox, qoder: httpx.Client, body: dict[str, Any]) -> None:
        session_id = new_session(sandbox, qoder)

        response = qoder.post(f"/sessions/{session_id}/events", json=body)

        assert error(response) == (400, "invalid_request_error", "events")
        assert only(sandbox)["events"] == []

    def test_unknown_session(self, qoder: httpx.Client) -> None:
        assert error(send(qoder, "sess_nowhere")) == (404, "not_found_error", None)
        assert error(qoder.get("/sessions/sess_nowhere/events")) == (404, "not_found_error", None)


class TestEvents:
    @pytest.fixture
    def session_id(self, sandbox: Sandbox, qoder: httpx.Client) -> str:
        sandbox.qoder.script(AGENT, QoderTurn(texts=[f"Line {number}" for number in range(150)]))
        id_ = new_session(sandbox, qoder)
        send(qoder, id_)
        return id_

    @pytest.mark.parametrize("generation", ["seed", "new"])
    @pytest.mark.parametrize("order", ["asc", "desc"])
    def test_pages(self, sandbox: Sandbox, qoder: httpx.Client, session_id: str, generation: str, order: str) -> None:
        sandbox.settings(qoder_generation=generation)
        rows: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            query = {"limit": 100, "order": order, **cursor}
            page = qoder.get(f"/sessions/{session_id}/events", params=query).json()
            rows += page["data"]
            if not page["has_more"]:
                break
            cursor = {"page": page["next_page"]} if generation == "new" else {"after_id": page["last_id"]}

        assert types(rows[:: 1 if order == "asc" else -1]) == only(sandbox)["events"]
        assert len(rows) == len({row["id"] for row in rows}) == 153

    def test_oldest_first_by_default(self, qoder: httpx.Client, session_id: str) -> None:
        assert events(qoder, session_id)[0]["type"] == "user.message"
        assert len(events(qoder, session_id)) == 20

    def test_bad_order(self, qoder: httpx.Client, session_id: str) -> None:
        response = qoder.get(f"/sessions/{session_id}/events?order=up")

        assert error(response) == (400, "invalid_request_error", "order")


class TestIdempotency:
    def test_same_key_and_body_is_one_session(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        environment_id, same = active(sandbox)[0], key()

        first, second = (create(qoder, environment_id, same) for _number in range(2))

        assert (second.status_code, second.json()) == (201, first.json())
        assert only(sandbox)["id"] == first.json()["id"]
        assert [entry["idempotency_key"] for entry in sandbox.requests("qoder_create")] == [same, same]

    def test_same_key_and_body_is_one_turn_even_while_busy(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        sandbox.qoder.script(AGENT, QoderTurn(polls=5))
        session_id, same = new_session(sandbox, qoder), key()

        first, second = (send(qoder, session_id, key=same) for _number in range(2))

        assert (second.status_code, second.json()) == (202, first.json())
        assert (only(sandbox)["turns"], only(sandbox)["refused"]) == (1, 0)

    def test_another_body_or_place_conflicts(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        environment_id, same = active(sandbox)[0], key()
        session_id = create(qoder, environment_id, same).json()["id"]

        expected = (409, "conflict_error", "Idempotency-Key")
        assert error(create(qoder, environment_id, same, title="another")) == expected
        assert error(send(qoder, session_id, key=same)) == expected
        assert only(sandbox)["turns"] == 0

    def test_a_key_belongs_to_one_account(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        sandbox.qoder.account("second", "key-of-the-second", environments=1, seed=99)
        [entry] = sandbox.qoder.environments("second")
        same = key()
        create(qoder, active(sandbox)[0], same)

        qoder.headers["Authorization"] = "Bearer key-of-the-second"
        assert create(qoder, entry["id"], same).status_code == 201

        assert [session["account"] for session in sandbox.qoder.sessions()] == ["default", "second"]

    def test_a_refused_request_may_come_again_with_its_key(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        sandbox.qoder.script(AGENT, QoderTurn(polls=1))
        session_id, same = new_session(sandbox, qoder), key()
        send(qoder, session_id, "first")

        assert [send(qoder, session_id, "second", same).status_code for _number in range(3)] == [409, 202, 202]
        assert only(sandbox)["messages"] == ["first", "second"]

    def test_a_key_is_kept_for_a_day(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        environment_id, same = active(sandbox)[0], key()
        create(qoder, environment_id, same)
        sandbox.qoder.pass_time(DAY - 60)
        create(qoder, environment_id, same)
        assert len(sandbox.qoder.sessions()) == 1

        sandbox.qoder.pass_time(61)
        create(qoder, environment_id, same)
        assert len(sandbox.qoder.sessions()) == 2

    def test_without_a_key_each_request_creates_another(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        for _number in range(2):
            create(qoder, active(sandbox)[0])

        assert len(sandbox.qoder.sessions()) == 2

    @pytest.mark.parametrize("wrong", ["", "1", "c232ab00-9414-11ec-b3c8-9e6bdeced846"])
    def test_key_that_is_no_uuid_of_version_4(self, sandbox: Sandbox, qoder: httpx.Client, wrong: str) -> None:
        response = create(qoder, active(sandbox)[0], wrong)

        assert error(response) == (400, "invalid_request_error", "Idempotency-Key")

    def test_reset_forgets_keys_and_sessions(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        environment_id, same = active(sandbox)[0], key()
        first = create(qoder, environment_id, same).json()["id"]

        sandbox.reset()

        assert create(qoder, environment_id, same).json()["id"] != first
        assert len(sandbox.qoder.sessions()) == 1
