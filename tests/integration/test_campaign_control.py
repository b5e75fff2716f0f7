"""campaign_control: running and later runs obey it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from .conftest import AGENT, Ansible, Run, step

LEDGER = {"campaign": "c", "ledger": "ledger.sqlite"}
SEND = {"content": "hello", "agent_id": AGENT, **LEDGER}


@pytest.mark.covers("campaign_control", "campaign", "state", "ledger")
def test_later_runs_respect_the_state_of_the_campaign(ansible: Ansible) -> None:
    name = "campaign-0"
    ansible.sandbox.add_environment(connectionName=name)
    send = {**SEND, "targets": [name]}
    control = {**LEDGER, "state": "paused"}

    run = ansible.steps(
        {**step("check", "campaign_control", **control), "check_mode": True},
        # In check mode, because there is no ledger yet.
        {**step("state", "campaign_info", **LEDGER), "check_mode": True},
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


def waits_at_its_rate(ansible: Ansible, names: list[str]) -> dict[str, Any]:
    return {"rate": 1}


def waits_for_the_server(ansible: Ansible, names: list[str]) -> dict[str, Any]:
    ansible.sandbox.add_fault("status", status=429, retry_after=20, route="messages", nth=[3])
    return {}


def waits_for_the_environments(ansible: Ansible, names: list[str]) -> dict[str, Any]:
    for entry in ansible.sandbox.fleet():
        if entry["name"] in names[1:]:
            ansible.sandbox.offline(entry["id"])
    return {"when_offline": "wait", "offline_timeout": 300}


@pytest.mark.parametrize(
    ("state", "status", "waits"),
    [
        ("paused", "not_attempted", waits_at_its_rate),
        ("cancelled", "skipped", waits_for_the_server),
        ("paused", "not_attempted", waits_for_the_environments),
    ],
)
def test_a_running_run_stops_whatever_it_waits_for(
    ansible: Ansible, state: str, status: str, waits: Callable[[Ansible, list[str]], dict[str, Any]]
) -> None:
    names = [f"campaign-{number:02}" for number in range(40)]
    for name in names:
        ansible.sandbox.add_environment(connectionName=name)
    options = waits(ansible, names)
    control = replace(ansible, directory=ansible.directory / "control")
    control.directory.mkdir()
    runs: list[Run] = []
    sending = threading.Thread(
        target=lambda: runs.append(ansible.task("send_message", **SEND, targets=names, **options))
    )
    sending.start()
    deadline = time.monotonic() + 30
    while not ansible.sandbox.requests("messages"):
        assert time.monotonic() < deadline
    # Time for the run to be in the middle of a longer pause.
    time.sleep(3)
    control.task("campaign_control", campaign="c", ledger="../ledger.sqlite", state=state).assert_quiet()
    set_at = time.monotonic()
    begun = len(ansible.sandbox.requests("messages"))
    time.sleep(2)
    in_time = len(ansible.sandbox.requests("messages"))
    sending.join(30)

    # The time includes the end of the process; without the stop it would have waited for more than 15 s.
    assert time.monotonic() - set_at < 6
    assert len(ansible.sandbox.requests("messages")) == in_time <= begun + 2
    [run] = runs
    run.assert_quiet()
    targets = run.result("it")["targets"]
    sent = [target for target in targets if target["status"] == "sent"]
    rest = [target for target in targets if target["status"] != "sent"]
    assert 1 <= len(sent) <= in_time
    assert {(target["status"], target["reason"], str(target["error"])) for target in rest} == {
        (status, f"the campaign is {state}", "None")
    }
    # No unsent message stays in progress.
    found = ansible.task("campaign_info", **LEDGER).result("it")["counts"]
    assert {name: count for name, count in found.items() if count and name != "offline"} == {"sent": len(sent)}

    for entry in ansible.sandbox.fleet():
        if entry["name"] in names and not entry["online"]:
            ansible.sandbox.online(entry["id"])
    ansible.sandbox.clear_faults()
    ansible.task("campaign_control", **LEDGER, state="active")
    done = ansible.task("send_message", **SEND, targets=names).result("it")["counts"]
    assert (done["sent"], done["already_sent"]) == (len(rest), len(sent))
