"""Each fault is what it claims to be, seen with a plain HTTP client."""

from __future__ import annotations

import json
import math
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import letta_client
import pytest
from letta_client import Letta

from tests.sandbox.process import Sandbox

MESSAGE = {"role": "user", "content": "hello", "client_message_id": "m-1"}


def online(sandbox: Sandbox, count: int = 1) -> list[dict[str, Any]]:
    return [entry["row"] for entry in sandbox.fleet() if entry["online"]][:count]


def post(http: httpx.Client, row: dict[str, Any], **options: Any) -> httpx.Response:
    body = {"messages": [MESSAGE], "agentId": "agent-1"}
    return http.post(f"/v1/environments/{row['connectionId']}/messages", json=body, **options)


def get(http: httpx.Client, **query: Any) -> Any:
    response = http.get("/v1/environments", params=query)
    assert response.status_code == 200
    return response.json()


class TestStatus:
    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            ("envelope", '{"errorCode": "SANDBOX_FAULT", "message": "The sandbox was told to fail"}'),
            ("error_envelope", '{"error": "The sandbox was told to fail", "errorCode": "SANDBOX_FAULT"}'),
            ("empty", ""),
        ],
    )
    def test_body(self, sandbox: Sandbox, http: httpx.Client, body: str, expected: str) -> None:
        sandbox.add_fault("status", status=502, body=body)

        response = http.get("/v1/environments")

        assert (response.status_code, response.text) == (502, expected)

    def test_html(self, sandbox: Sandbox, http: httpx.Client) -> None:
        sandbox.add_fault("status", status=502, body="html")

        response = http.get("/v1/environments")

        assert response.status_code == 502
        assert response.headers["content-type"].startswith("text/html")

    @pytest.mark.parametrize(("value", "header"), [(3, "3"), (0.5, "0.5"), ("soon", "soon"), (-1, "-1")])
    def test_retry_after(self, sandbox: Sandbox, http: httpx.Client, value: Any, header: str) -> None:
        sandbox.add_fault("status", status=429, retry_after=value)

        assert http.get("/v1/environments").headers["retry-after"] == header

    def test_retry_after_date(self, sandbox: Sandbox, http: httpx.Client) -> None:
        sandbox.add_fault("status", status=429, retry_after_date=3600)

        headers = http.get("/v1/environments").headers

        distance = parsedate_to_datetime(headers["retry-after"]) - parsedate_to_datetime(headers["date"])
        assert distance.total_seconds() == pytest.approx(3600, abs=60)

    def test_echo_key(self, sandbox: Sandbox, http: httpx.Client) -> None:
        sandbox.add_fault("status", status=400, echo_key=True)

        assert sandbox.api_key in http.get("/v1/environments").json()["message"]
        assert sandbox.api_key not in json.dumps(sandbox.requests())

    @pytest.mark.parametrize("accepted", [False, True])
    def test_accepted(self, sandbox: Sandbox, http: httpx.Client, accepted: bool) -> None:
        sandbox.add_fault("status", status=504, accepted=accepted)

        assert post(http, online(sandbox)[0]).status_code == 504
        assert bool(sandbox.received()) is accepted


class TestBody:
    def test_html_200(self, sandbox: Sandbox, http: httpx.Client) -> None:
        sandbox.add_fault("html_200")

        response = post(http, online(sandbox)[0])

        assert response.status_code == 200
        assert response.text.startswith("<!DOCTYPE html>")
        assert sandbox.received() == {}

    def test_truncated_json(self, sandbox: Sandbox, http: httpx.Client) -> None:
        sandbox.add_fault("truncated_json")

        response = http.get("/v1/environments")

        assert response.status_code == 200
        assert response.text.startswith('{"connections": [')
        with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
            response.json()

    def test_not_json(self, sandbox: Sandbox, http: httpx.Client) -> None:
        sandbox.add_fault("not_json")

        response = http.get("/v1/environments")

        assert response.headers["content-type"] == "application/json"
        assert response.text == "upstream says: ok"

    def test_success_false(self, sandbox: Sandbox, http: httpx.Client) -> None:
        sandbox.add_fault("success_false")

        response = post(http, online(sandbox)[0])

        assert (response.status_code, response.json()["success"]) == (200, False)
        assert sandbox.received() == {}

    def test_redirect(self, sandbox: Sandbox, http: httpx.Client) -> None:
        sandbox.add_fault("redirect", location="http://127.0.0.1:9/", status=308)

        response = http.get("/v1/environments")

        assert (response.status_code, response.headers["location"]) == (308, "http://127.0.0.1:9/")


class TestConnection:
    @pytest.mark.parametrize(("fault", "accepted"), [("drop_before", False), ("drop_after", True)])
    def test_no_reply(self, sandbox: Sandbox, http: httpx.Client, fault: str, accepted: bool) -> None:
        sandbox.add_fault(fault, route="messages")

        with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
            post(http, online(sandbox)[0])

        assert bool(sandbox.received()) is accepted
        assert [entry["status"] for entry in sandbox.requests()] == ["dropped"]

    def test_reset(self, sandbox: Sandbox, http: httpx.Client) -> None:
        sandbox.add_fault("drop_before", reset=True)

        with pytest.raises(httpx.ReadError):
            http.get("/v1/environments")

    def test_half_a_reply(self, sandbox: Sandbox, http: httpx.Client) -> None:
        sandbox.add_fault("drop_during")

        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
            http.get("/v1/environments")

    def test_slow(self, sandbox: Sandbox, http: httpx.Client) -> None:
        sandbox.add_fault("slow", seconds=0.01)

        assert post(http, online(sandbox)[0]).json()["success"] is True
        assert sandbox.requests()[0]["fault"] == "slow"

    def test_slower_than_the_client_waits(self, sandbox: Sandbox, http: httpx.Client) -> None:
        sandbox.add_fault("slow", seconds=3600, accepted=False)

        with pytest.raises(httpx.ReadTimeout):
            post(http, online(sandbox)[0], timeout=httpx.Timeout(None, read=0.05))

        assert sandbox.received() == {}

    def test_message_is_accepted_before_the_wait(self, sandbox: Sandbox, http: httpx.Client) -> None:
        sandbox.add_fault("slow", seconds=3600)
        row = online(sandbox)[0]

        with pytest.raises(httpx.ReadTimeout):
            post(http, row, timeout=httpx.Timeout(None, read=0.05))
        while row["id"] not in sandbox.received():
            # On a busy machine the client gave up before the server had read the request.
            continue

        assert sandbox.received()[row["id"]]["turns"] == 1


class TestPage:
    def test_repeat_cursor(self, sandbox: Sandbox, http: httpx.Client) -> None:
        sandbox.add_fault("repeat_cursor", nth=2)
        first = get(http, limit="5")
        cursor = first["connections"][-1]["id"]

        second = get(http, limit="5", after=cursor)

        assert [row["id"] for row in second["connections"]] == [row["id"] for row in first["connections"]]
        assert second["hasNextPage"] is True

    @pytest.mark.parametrize(
        ("fault", "keys"), [("no_has_next_page", {"connections"}), ("no_connections", {"hasNextPage"})]
    )
    def test_missing_key(self, sandbox: Sandbox, http: httpx.Client, fault: str, keys: set[str]) -> None:
        sandbox.add_fault(fault)

        assert get(http).keys() == keys

    def test_next_page_after_empty(self, sandbox: Sandbox, http: httpx.Client) -> None:
        sandbox.add_fault("next_page_after_empty")

        assert get(http) == {"connections": [], "hasNextPage": True}

    def test_invalid_rows(self, sandbox: Sandbox, http: httpx.Client) -> None:
        last = online(sandbox)[-1]["id"]
        sandbox.add_fault("invalid_rows", rows=[0, 1, last, 99, "elsewhere"], damage=None)

        rows = get(http, limit="10")["connections"]

        assert "id" not in rows[0]
        assert rows[1]["id"] == 17
        assert all(isinstance(row["id"], str) for row in rows[2:])

    @pytest.mark.parametrize(
        ("damage", "key", "value"),
        [
            ("name_null", "connectionName", None),
            ("device_missing", "deviceId", None),
            ("heartbeat_text", "lastHeartbeat", "a moment ago"),
            ("metadata_list", "metadata", ["linux"]),
        ],
    )
    def test_damage(self, sandbox: Sandbox, http: httpx.Client, damage: str, key: str, value: Any) -> None:
        sandbox.add_fault("invalid_rows", rows=[-1], damage=damage)

        assert get(http, limit="3")["connections"][-1].get(key) == value
        assert sandbox.fleet()[2]["row"][key] != value

    def test_damaged_version_and_row(self, sandbox: Sandbox, http: httpx.Client) -> None:
        sandbox.add_fault("invalid_rows", damage="version_number", nth=1)
        sandbox.add_fault("invalid_rows", damage="not_an_object", nth=2)

        assert get(http)["connections"][0]["metadata"]["lettaCodeVersion"] == 0.34
        assert get(http)["connections"][0] == "environment"

    def test_nan(self, sandbox: Sandbox, http: httpx.Client) -> None:
        sandbox.add_fault("nan", rows=[1])

        assert math.isnan(get(http)["connections"][1]["lastHeartbeat"])

    def test_page_faults_do_not_change_other_answers(self, sandbox: Sandbox, http: httpx.Client) -> None:
        sandbox.add_fault("no_connections")

        assert post(http, online(sandbox)[0]).json()["success"] is True
        assert http.get("/v1/environments?limit=0").status_code == 400


class TestRules:
    def statuses(self, http: httpx.Client, count: int) -> list[int]:
        return [http.get("/v1/environments").status_code for _number in range(count)]

    def test_nth(self, sandbox: Sandbox, http: httpx.Client) -> None:
        sandbox.add_fault("status", nth=2)
        sandbox.add_fault("status", nth=[1, 4], status=503)

        assert self.statuses(http, 5) == [503, 500, 200, 503, 200]
        assert [(rule["calls"], rule["fired"]) for rule in sandbox.faults()] == [(5, 1), (5, 2)]

    def test_the_first_of_several_rules_applies(self, sandbox: Sandbox, http: httpx.Client) -> None:
        sandbox.add_fault("status", status=503, times=1)
        sandbox.add_fault("status", status=500)

        assert self.statuses(http, 2) == [503, 500]
        assert [(rule["calls"], rule["fired"]) for rule in sandbox.faults()] == [(2, 1), (2, 1)]

    def test_times(self, sandbox: Sandbox, http: httpx.Client) -> None:
        sandbox.add_fault("status", times=2)

        assert self.statuses(http, 3) == [500, 500, 200]

    def test_share_is_the_same_for_the_same_seed(self, sandbox: Sandbox, http: httpx.Client) -> None:
        def once() -> list[int]:
            sandbox.clear_faults()
            sandbox.add_fault("status", share=0.3, seed=5)
            return self.statuses(http, 100)

        assert once() == once()
        assert 15 < once().count(500) < 45

    def test_route(self, sandbox: Sandbox, http: httpx.Client) -> None:
        sandbox.add_fault("status", route="messages")

        assert self.statuses(http, 1) == [200]
        assert post(http, online(sandbox)[0]).status_code == 500

    @pytest.mark.parametrize("key", ["id", "deviceId", "connectionId"])
    def test_target(self, sandbox: Sandbox, http: httpx.Client, key: str) -> None:
        first, second = online(sandbox, 2)
        sandbox.add_fault("status", target=first[key])

        assert [post(http, row).status_code for row in (first, second)] == [500, 200]
        assert http.get(f"/v1/environments/{first['deviceId']}").status_code == 500
        assert http.get(f"/v1/environments/{second['deviceId']}").status_code == 200

    def test_target_of_a_conversation_is_its_agent(self, sandbox: Sandbox, letta: Letta) -> None:
        sandbox.add_fault("status", route="conversations", target="agent-1")

        letta.conversations.create(agent_id="agent-2")
        with pytest.raises(letta_client.InternalServerError):
            letta.conversations.create(agent_id="agent-1")

    def test_per_target(self, sandbox: Sandbox, http: httpx.Client) -> None:
        first, second = online(sandbox, 2)
        sandbox.add_fault("drop_after", route="messages", nth=1, per_target=True)

        for row in (first, second):
            with pytest.raises(httpx.RemoteProtocolError):
                post(http, row)
            # The count continues across connections of the same environment.
            assert post(http, sandbox.rotate(row["id"])).status_code == 200

        received = sandbox.received()
        assert [(r["turns"], r["duplicates"]) for r in received.values()] == [(1, 1), (1, 1)]

    @pytest.mark.parametrize(
        "rule",
        [
            {"fault": "explode"},
            {"fault": "status", "route": "everything"},
            {"fault": "status", "stauts": 500},
            {"fault": "drop_before", "accepted": True},
            {"fault": "nan", "route": "messages"},
        ],
    )
    def test_invalid_rule(self, sandbox: Sandbox, rule: dict[str, Any]) -> None:
        with pytest.raises(RuntimeError, match="400"):
            sandbox.add_fault(**rule)
