"""campaign_control: who is under way and who comes later obey."""

from __future__ import annotations

import threading
import time

import pytest

from .conftest import AGENT, Ansible, Run, step

LEDGER = {"campaign": "c", "ledger": "ledger.sqlite"}
SEND = {"content": "hello", "agent_id": AGENT, **LEDGER}


@pytest.mark.covers("campaign_control", "campaign", "state", "ledger")
def test_later_runs_obey(ansible: Ansible) -> None:
    name = "campaign-0"
    ansible.sandbox.add_environment(connectionName=name)
    send = {**SEND, "targets": [name]}
    control = {**LEDGER, "state": "paused"}

    run = ansible.steps(
        {**step("check", "campaign_control", **control), "check_mode": True},
        step("state", "campaign_info", **LEDGER),
        step("pause", "campaign_control", **control),
        step("pause again", "campaign_control", **control),
        {**step("paused, check", "send_message", **send), "check_mode": True},
        step("paused", "send_message", **send),
        step("state paused", "campaign_info", **LEDGER),
        step("other", "send_message", **{**send, "campaign": "other"}),
        step("cancel", "campaign_control", **LEDGER, state="cancelled"),
        {**step("cancelled, check", "send_message", **send), "check_mode": True},
        step("cancelled", "send_message", **send),
        step("activate", "campaign_control", **LEDGER, state="active"),
        step("active", "send_message", **send),
    )

    run.assert_quiet()
    results = {entry["task"]: entry["result"] for entry in run.results}
    changed = {name: result["changed"] for name, result in results.items() if "previous_state" in result}
    assert changed == {"check": True, "pause": True, "pause again": False, "cancel": True, "activate": True}
    assert results["cancel"]["previous_state"] == "paused"
    assert (results["state"]["state"], results["state paused"]["state"]) == ("active", "paused")
    [paused], [cancelled] = results["paused"]["targets"], results["cancelled"]["targets"]
    assert (paused["status"], paused["reason"]) == ("not_attempted", "the campaign is paused")
    assert (cancelled["status"], cancelled["reason"]) == ("skipped", "the campaign is cancelled")
    for state in ("paused", "cancelled"):
        checked, sent = results[f"{state}, check"], results[state]
        assert checked["msg"] == f"would send to 0 of 1 targets; the campaign is {state}"
        assert (checked["changed"], checked["would_send"]) == (False, [])
        assert [(target["status"], target["reason"]) for target in checked["targets"]] == [
            (target["status"], target["reason"]) for target in sent["targets"]
        ]
    assert results["other"]["msg"] == results["active"]["msg"] == "1 targets: 1 sent"


def test_a_run_that_is_under_way_stops(ansible: Ansible) -> None:
    names = [f"campaign-{number:02}" for number in range(40)]
    for name in names:
        ansible.sandbox.add_environment(connectionName=name)
    control = Ansible(ansible.directory / "control", ansible.sandbox)
    control.directory.mkdir()
    runs: list[Run] = []
    sending = threading.Thread(
        target=lambda: runs.append(ansible.task("send_message", **SEND, targets=names, concurrency=1, rate=2))
    )
    sending.start()
    deadline = time.monotonic() + 30
    while not ansible.sandbox.requests("messages"):
        assert time.monotonic() < deadline
    paused = control.task("campaign_control", campaign="c", ledger="../ledger.sqlite", state="paused")
    paused_at = time.monotonic()
    sending.join(30)

    paused.assert_quiet()
    # It includes the end of the process; at its rate it would have gone on for more than 10 s.
    assert time.monotonic() - paused_at < 5
    [run] = runs
    run.assert_quiet()
    counts = run.result("it")["counts"]
    assert counts["sent"] == len(ansible.sandbox.requests("messages"))
    assert counts["not_attempted"] == len(names) - counts["sent"] > 10
