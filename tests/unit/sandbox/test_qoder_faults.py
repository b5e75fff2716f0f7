"""Each fault at Qoder's routes is what it claims to be, seen with a plain HTTP client."""

from __future__ import annotations

import json
import uuid
from typing import Any

import httpx
import pytest

from tests.sandbox.process import Sandbox

from .qoder import AGENT, active, create, error, events, list_ids, new_session, send

ROUTES = [
    "qoder_list",
    "qoder_environment",
    "qoder_work",
    "qoder_create",
    "qoder_session",
    "qoder_send",
    "qoder_events",
]


def call(sandbox: Sandbox, qoder: httpx.Client, route: str, **options: Any) -> httpx.Response:
    """Make one request to a route, in a fleet without any other fault."""
    sandbox.clear_faults()
    session_id, environment_id = new_session(sandbox, qoder), active(sandbox)[0]
    hosted = sandbox.qoder.add_environment(config={"type": "self_hosted"})["id"]
    rule = options.pop("rule")
    sandbox.add_fault(**rule, route=route)
    message = {"type": "user.message", "content": [{"type": "text", "text": "hello"}]}
    method, path, body = {
        "qoder_list": ("GET", "/environments", None),
        "qoder_environment": ("GET", f"/environments/{environment_id}", None),
        "qoder_work": ("GET", f"/environments/{hosted}/work/stats", None),
        "qoder_create": ("POST", "/sessions", {"agent": AGENT, "environment_id": environment_id}),
        "qoder_session": ("GET", f"/sessions/{session_id}", None),
        "qoder_send": ("POST", f"/sessions/{session_id}/events", {"events": [message]}),
        "qoder_events": ("GET", f"/sessions/{session_id}/events", None),
    }[route]
    return qoder.request(method, path, json=body, **options)


def count_accepted(sandbox: Sandbox) -> int:
    """The number of sessions and turns that the test created, without the session of ``call``."""
    sessions = sandbox.qoder.sessions()
    turns: int = sum(session["turns"] for session in sessions)
    return len(sessions) - 1 + turns


@pytest.mark.parametrize("route", ROUTES)
class TestEveryRoute:
    @pytest.mark.parametrize(
        ("status", "type_"), [(429, "rate_limit_error"), (500, "api_error"), (503, "api_error"), (400, None)]
    )
    def test_status(self, sandbox: Sandbox, qoder: httpx.Client, route: str, status: int, type_: str | None) -> None:
        response = call(sandbox, qoder, route, rule={"fault": "status", "status": status, "retry_after": 2})

        assert error(response) == (status, type_ or "invalid_request_error", None)
        assert response.headers["retry-after"] == "2"
        assert count_accepted(sandbox) == 0

    @pytest.mark.parametrize("status", [429, 503])
    def test_bare_status_of_a_gateway(self, sandbox: Sandbox, qoder: httpx.Client, route: str, status: int) -> None:
        response = call(sandbox, qoder, route, rule={"fault": "status", "status": status, "body": "empty"})

        assert (response.status_code, response.content) == (status, b"")
        assert "retry-after" not in response.headers

    def test_html(self, sandbox: Sandbox, qoder: httpx.Client, route: str) -> None:
        assert call(sandbox, qoder, route, rule={"fault": "html_200"}).text.startswith("<!DOCTYPE html>")
        assert call(sandbox, qoder, route, rule={"fault": "status", "status": 502, "body": "html"}).status_code == 502

    @pytest.mark.parametrize("fault", ["not_json", "truncated_json"])
    def test_garbage(self, sandbox: Sandbox, qoder: httpx.Client, route: str, fault: str) -> None:
        response = call(sandbox, qoder, route, rule={"fault": fault})

        with pytest.raises(json.JSONDecodeError):
            response.json()

    @pytest.mark.parametrize("fault", ["drop_before", "drop_during", "drop_after"])
    def test_dropped(self, sandbox: Sandbox, qoder: httpx.Client, route: str, fault: str) -> None:
        with pytest.raises(httpx.TransportError):
            call(sandbox, qoder, route, rule={"fault": fault})

        takes_effect = route in ("qoder_create", "qoder_send") and fault != "drop_before"
        assert count_accepted(sandbox) == int(takes_effect)

    @pytest.mark.parametrize("takes_effect", [True, False])
    def test_time_out(self, sandbox: Sandbox, qoder: httpx.Client, route: str, takes_effect: bool) -> None:
        rule = {"fault": "slow", "seconds": 3600, "accepted": takes_effect}

        with pytest.raises(httpx.ReadTimeout):
            call(sandbox, qoder, route, rule=rule, timeout=httpx.Timeout(None, read=0.2))

        while sandbox.requests()[-1]["fault"] != "slow":
            # On a busy machine the client gave up before the server had read the request.
            continue
        assert count_accepted(sandbox) == int(takes_effect and route in ("qoder_create", "qoder_send"))


class TestPages:
    @pytest.mark.parametrize(("generation", "cursor"), [("seed", "after_id"), ("new", "page")])
    def test_repeat_cursor(self, sandbox: Sandbox, qoder: httpx.Client, generation: str, cursor: str) -> None:
        sandbox.settings(qoder_generation=generation)
        sandbox.add_fault("repeat_cursor", nth=2)
        key = "next_page" if generation == "new" else "last_id"
        first = qoder.get("/environments?limit=3").json()

        second = qoder.get("/environments", params={"limit": 3, cursor: first[key]}).json()

        assert (second[key], second["has_more"]) == (first[key], True)

    @pytest.mark.parametrize(("generation", "cursor"), [("seed", "after_id"), ("new", "page")])
    def test_cursor_cycle(self, sandbox: Sandbox, qoder: httpx.Client, generation: str, cursor: str) -> None:
        sandbox.settings(qoder_generation=generation)
        sandbox.add_fault("cursor_cycle", nth=3)
        key = "next_page" if generation == "new" else "last_id"
        cursors: list[str] = []

        for _number in range(4):
            query = {"limit": 3, **({cursor: cursors[-1]} if cursors else {})}
            cursors.append(qoder.get("/environments", params=query).json()[key])

        assert cursors == [cursors[0], cursors[1], cursors[0], cursors[1]]
        assert cursors[0] != cursors[1]

    @pytest.mark.parametrize("generation", ["seed", "new"])
    def test_more_pages_without_a_cursor(self, sandbox: Sandbox, qoder: httpx.Client, generation: str) -> None:
        sandbox.settings(qoder_generation=generation)
        sandbox.add_fault("no_cursor")

        page = qoder.get("/environments?limit=3").json()

        assert len(page.pop("data")) == 3
        assert page == {"has_more": True, "first_id": None, "last_id": None}

    def test_only_the_older_cursor_continues(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        sandbox.add_fault("no_next_page")

        assert list_ids(qoder, limit=3) == active(sandbox)
        assert all("page" not in entry["query"] for entry in sandbox.requests("qoder_list"))

    @pytest.mark.parametrize(("fault", "key"), [("no_has_more", "has_more"), ("no_data", "data")])
    def test_missing_key(self, sandbox: Sandbox, qoder: httpx.Client, fault: str, key: str) -> None:
        sandbox.add_fault(fault)

        keys = {"data", "first_id", "last_id", "has_more", "next_page"}
        assert qoder.get("/environments").json().keys() == keys - {key}

    def test_more_after_an_empty_page(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        sandbox.add_fault("next_page_after_empty")

        page = qoder.get("/environments?limit=3").json()

        assert (page["data"], page["has_more"]) == ([], True)

    def test_faults_of_pages_do_not_change_errors_and_other_routes(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        sandbox.add_fault("no_data")

        assert error(qoder.get("/environments?limit=0"))[0] == 400
        assert new_session(sandbox, qoder)


class TestFields:
    @pytest.mark.parametrize(
        ("damage", "key", "value"),
        [
            ("id_number", "id", 17),
            ("id_empty", "id", ""),
            ("name_null", "name", None),
            ("name_template", "name", "{{ lookup('pipe', 'id') }}"),
            ("name_markup", "name", "<script>alert(1)</script>"),
            ("name_huge", "name", "x" * 1_000_000),
            ("config_text", "config", "{{ cloud }}"),
            ("networking_list", "config", {"type": "cloud", "networking": ["limited"]}),
            ("packages_text", "config", {"type": "cloud", "packages": "curl"}),
            ("metadata_list", "metadata", ["linux"]),
            ("archived_text", "archived", "yes"),
            ("type_number", "type", 5),
        ],
    )
    def test_damage(self, sandbox: Sandbox, qoder: httpx.Client, damage: str, key: str, value: Any) -> None:
        sandbox.add_fault("invalid_rows", rows=[-1], damage=damage, times=1)

        assert qoder.get("/environments?limit=1").json()["data"][-1][key] == value
        assert qoder.get("/environments?limit=1").json()["data"][-1].get(key) != value

    def test_rows_without_id_and_invalid_rows(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        named = active(sandbox)[2]
        sandbox.add_fault("invalid_rows", rows=[named], damage="not_an_object", nth=1)
        sandbox.add_fault("invalid_rows", rows=[0, 1], nth=2)

        assert qoder.get("/environments").json()["data"][2] == "environment"
        rows = qoder.get("/environments").json()["data"]
        assert "id" not in rows[0]
        assert rows[1]["id"] == 17

    @pytest.mark.parametrize(
        ("damage", "key"), [("content_text", "content"), ("stop_reason_text", "stop_reason"), ("type_number", "type")]
    )
    def test_events(self, sandbox: Sandbox, qoder: httpx.Client, damage: str, key: str) -> None:
        session_id = new_session(sandbox, qoder)
        send(qoder, session_id)
        sandbox.add_fault("invalid_rows", route="qoder_events", damage=damage, rows=[-1], times=1)

        assert not isinstance(events(qoder, session_id)[-1][key], dict | list)
        assert events(qoder, session_id)[-1]["stop_reason"] == {"type": "end_turn"}

    def test_success_without_id(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        environment_id, key = active(sandbox)[0], str(uuid.uuid4())
        sandbox.add_fault("without_id", times=1)

        first, second = (create(qoder, environment_id, key) for _number in range(2))
        assert (first.status_code, "id" in first.json()) == (201, False)
        # The reply that is kept under the key has no fault.
        assert second.json() == {"id": second.json()["id"], **first.json()}

        sandbox.add_fault("without_id", route="qoder_send", times=1)
        response = send(qoder, second.json()["id"])
        assert (response.status_code, "id" in response.json()["data"][0]) == (202, False)
        assert [session["turns"] for session in sandbox.qoder.sessions()] == [1]


class TestRules:
    def test_target(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        first, second = active(sandbox)[:2]
        sandbox.add_fault("status", target=first)

        assert [create(qoder, each).status_code for each in (first, second)] == [500, 201]
        sandbox.clear_faults()
        sessions = {each: create(qoder, each).json()["id"] for each in (first, second)}
        for target in (first, sessions[first]):
            sandbox.clear_faults()
            sandbox.add_fault("status", target=target)
            assert [send(qoder, each).status_code for each in sessions.values()] == [500, 202]

    @pytest.mark.parametrize(("target", "status"), [(AGENT, 500), ("agent_2", 202), ("default", 500), ("second", 202)])
    def test_target_can_be_an_agent_or_an_account(
        self, sandbox: Sandbox, qoder: httpx.Client, target: str, status: int
    ) -> None:
        session_id = new_session(sandbox, qoder)
        sandbox.add_fault("status", target=target)

        assert send(qoder, session_id).status_code == status

    def test_per_target_counts_for_each_environment(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        first, second = active(sandbox)[:2]
        sandbox.add_fault("status", route="qoder_create", nth=1, per_target=True)

        assert [create(qoder, each).status_code for each in (first, second, first, second)] == [500, 500, 201, 201]

    def test_a_drop_after_acceptance_and_the_same_key_is_one_turn(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        session_id, key = new_session(sandbox, qoder), str(uuid.uuid4())
        sandbox.add_fault("drop_after", route="qoder_send", times=1)

        with pytest.raises(httpx.RemoteProtocolError):
            send(qoder, session_id, key=key)
        assert send(qoder, session_id, key=key).status_code == 202

        assert [session["turns"] for session in sandbox.qoder.sessions()] == [1]

    def test_no_key_in_the_log(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        sandbox.add_fault("status", echo_key=True)

        assert sandbox.qoder.key in qoder.get("/environments").json()["error"]["message"]
        assert sandbox.qoder.key not in json.dumps(sandbox.requests())

    @pytest.mark.parametrize(
        "rule",
        [
            {"fault": "no_cursor", "route": "list"},
            {"fault": "without_id", "route": "qoder_list"},
            {"fault": "success_false", "route": "qoder_send"},
            {"fault": "invalid_rows", "route": "qoder_create"},
        ],
    )
    def test_invalid_rule(self, sandbox: Sandbox, rule: dict[str, Any]) -> None:
        with pytest.raises(RuntimeError, match="400"):
            sandbox.add_fault(**rule)
