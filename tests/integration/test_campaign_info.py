"""campaign_info: what the ledger has about a campaign."""

from __future__ import annotations

import sqlite3

import pytest

from tests.sandbox.turns import ErrorTurn

from .conftest import AGENT, Ansible, step

SEND = {"content": "hello", "agent_id": AGENT, "ledger": "ledger.sqlite", "max_failures": "100%"}


@pytest.mark.covers("campaign_info", "campaign", "ledger", "include_deliveries")
def test_a_campaign_is_counted_and_on_request_shown_row_by_row(ansible: Ansible) -> None:
    names = [f"campaign-{number}" for number in range(4)]
    ids = [ansible.sandbox.add_environment(connectionName=name)["id"] for name in names]
    ansible.sandbox.add_fault("status", status=400, route="messages", target=ids[2])
    ansible.sandbox.script("agent-failing", ErrorTurn(message="no credit"))
    targets = [names[0], {"host": names[1], "agent_id": "agent-failing"}, names[2], names[3]]
    of_c = {"campaign": "c", "ledger": "ledger.sqlite"}

    sent = ansible.steps(
        step("none yet", "campaign_info", campaign="c"),
        step("send", "send_message", **SEND, targets=targets, campaign="c", wait_for_reply=True),
        step("send other", "send_message", **SEND, targets=names[:1], campaign="d"),
        env={"FLEETOPS_LEDGER": str(ansible.directory / "ledger.sqlite")},
    )
    with sqlite3.connect(ansible.directory / "ledger.sqlite") as connection:
        connection.execute(f"UPDATE deliveries SET status = 'in_flight' WHERE host = '{names[3]}'")
    connection.close()
    before = (ansible.directory / "ledger.sqlite").read_bytes()
    run = ansible.steps(
        step("all", "campaign_info", **of_c, include_deliveries=True),
        step("counts", "campaign_info", **of_c),
        step("other", "campaign_info", **of_c | {"campaign": "d"}),
        step("by environment", "campaign_info", campaign="d"),
        {**step("would be made", "campaign_info", campaign="d", ledger="nowhere.sqlite"), "check_mode": True},
        step("damaged", "campaign_info", campaign="d", ledger="play.yml"),
        step("nowhere", "campaign_info", campaign="d", ledger="nowhere.sqlite"),
        env={"FLEETOPS_LEDGER": str(ansible.directory / "ledger.sqlite")},
    )

    results = {entry["task"]: entry["result"] for entry in run.results}
    assert sent.result("none yet")["msg"] == "campaign 'c': 0 deliveries: nobody was reached"
    shown = results["all"]
    assert shown["msg"] == "campaign 'c': 4 deliveries: 2 sent, 1 failed, 1 interrupted"
    assert {status: count for status, count in shown["counts"].items() if count} == {
        "sent": 2, "failed": 1, "interrupted": 1,
    }  # fmt: skip
    assert {state: count for state, count in shown["replies"].items() if count} == {"replied": 2, "failed": 1}
    assert [row["host"] for row in shown["deliveries"]] == names
    assert [row["environment_id"] for row in shown["deliveries"]] == ids
    assert [row["outcome"] for row in shown["deliveries"]] == [None, None, "http_400", None]
    assert shown["deliveries"][0]["client_message_id"] == sent.result("send")["targets"][0]["client_message_id"]
    assert shown["deliveries"][0]["playbook"] == str(ansible.directory / "play.yml")
    assert "deliveries" not in results["counts"]
    assert results["counts"]["counts"] == shown["counts"]
    for name in ("other", "by environment"):
        assert results[name]["msg"] == "campaign 'd': 1 deliveries: 1 sent"
    assert results["would be made"]["msg"] == "campaign 'd': 0 deliveries: nobody was reached"
    nowhere = ansible.directory / "nowhere.sqlite"
    assert results["nowhere"]["msg"] == f"ledger: there is no '{nowhere}'; give the one that a run has made"
    assert results["damaged"]["msg"].startswith("ledger: ")
    assert [entry["outcome"] for entry in run.results] == ["ok"] * 5 + ["failed"] * 2
    assert not any(entry["result"]["changed"] for entry in run.results if entry["outcome"] == "ok")
    assert (ansible.directory / "ledger.sqlite").read_bytes() == before
    assert not nowhere.exists()
