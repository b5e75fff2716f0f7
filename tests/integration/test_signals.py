"""A fan-out that a signal or the end of its time stops: no message starts then, and the files record what was done."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import AGENT, Ansible, awake, messages_of, step

CONCURRENCY = 2
# Seconds of an answer that must not be waited for: a play that waits has not ended after half of them.
ENDLESS = 240


def start_play(ansible: Ansible, keywords: Mapping[str, Any] | None = None, **options: Any) -> subprocess.Popen[bytes]:
    """A play that sends to many targets, two of which are under way when this returns. keywords: of the task."""
    names = [entry["name"] for entry in awake(ansible.sandbox)[:12]]
    files = {"result_file": str(ansible.directory / "results.jsonl"), "retry_file": str(ansible.directory / "again")}
    message = {"content": "hello", "agent_id": AGENT, "targets": names, "concurrency": CONCURRENCY, **files, **options}
    task = {"name": "it", "fleetops.environments.send_message": message, "run_once": True, **(keywords or {})}
    path = ansible.file("play.yml", yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": [task]}]))
    process = ansible.start(path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    until = time.monotonic() + 60
    while len(ansible.sandbox.requests("messages")) < 3 * CONCURRENCY and time.monotonic() < until:
        time.sleep(0.02)
    return process


def results(ansible: Ansible, within: float = 15) -> dict[str, str]:
    """Host → status in the result file, which a worker may write after Ansible itself has ended."""
    path: Path = ansible.directory / "results.jsonl"
    until = time.monotonic() + within
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.05)
    return {line["host"]: line["status"] for line in map(json.loads, path.read_text().splitlines())}


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 99), (signal.SIGTERM, -signal.SIGTERM)])
def test_no_message_starts_after_a_signal_and_the_files_are_written(
    ansible: Ansible, signum: signal.Signals, code: int
) -> None:
    ansible.sandbox.add_fault("slow", route="messages", seconds=1)
    process = start_play(ansible)

    process.send_signal(signum)
    begun = len(ansible.sandbox.requests("messages"))
    output = process.communicate(timeout=30)[0].decode()
    found = results(ansible)
    time.sleep(1.5)

    assert process.returncode == code
    assert "Traceback" not in output
    assert begun == 3 * CONCURRENCY == len(ansible.sandbox.requests("messages"))
    sent = [host for host, status in found.items() if status == "sent"]
    rest = [host for host, status in found.items() if status == "not_attempted"]
    assert (len(sent), len(rest)) == (begun, 12 - begun)
    assert (ansible.directory / "again").read_text().splitlines() == rest
    reached = {entry["name"] for entry in awake(ansible.sandbox) if messages_of(ansible.sandbox, entry)}
    assert reached == set(sent)


def test_a_send_that_does_not_finish_soon_is_cut_off_and_not_tried_again(ansible: Ansible) -> None:
    ansible.sandbox.add_fault("slow", route="messages", seconds=ENDLESS, nth=[5, 6])
    process = start_play(ansible, timeout=ENDLESS)

    process.send_signal(signal.SIGINT)
    process.communicate(timeout=ENDLESS / 2)

    statuses = list(results(ansible).values())
    assert {status: statuses.count(status) for status in statuses} == {"sent": 4, "unknown": 2, "not_attempted": 6}
    assert len((ansible.directory / "again").read_text().splitlines()) == 6


def test_the_ledger_and_the_audit_log_record_the_sends_that_were_cut_off(ansible: Ansible) -> None:
    ansible.sandbox.add_fault("slow", route="messages", seconds=20, nth=[5, 6])
    ledger, audit = str(ansible.directory / "ledger.sqlite"), ansible.directory / "audit.jsonl"
    process = start_play(ansible, campaign="c", ledger=ledger, audit_log=str(audit))

    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)

    assert list(results(ansible).values()).count("unknown") == 2
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [(line["status"], line["outcome"]) for line in lines[4:]] == [("unknown", "interrupted")] * 2
    counts = ansible.task("campaign_info", campaign="c", ledger=ledger).result("it")["counts"]
    assert {status: count for status, count in counts.items() if count} == {"sent": 4, "unknown": 2}


def test_replies_are_no_longer_waited_for(ansible: Ansible) -> None:
    ansible.sandbox.add_fault("slow", route="history", seconds=ENDLESS)
    process = start_play(ansible, wait_for_reply=True)
    until = time.monotonic() + 60
    while not ansible.sandbox.requests("history") and time.monotonic() < until:
        time.sleep(0.05)

    process.send_signal(signal.SIGINT)
    process.communicate(timeout=ENDLESS / 2)

    assert set(results(ansible).values()) == {"sent"}


def test_a_worker_stops_soon_after_ansible_was_killed(ansible: Ansible) -> None:
    ansible.sandbox.add_fault("slow", route="messages", seconds=1)
    process = start_play(ansible)

    process.kill()
    process.communicate(timeout=30)
    found = results(ansible)
    sent = [host for host, status in found.items() if status == "sent"]
    time.sleep(1.5)

    # The last sends are those under way when the worker noticed, a second later.
    assert len(ansible.sandbox.requests("messages")) == len(sent) < 12
    assert set(found.values()) == {"sent", "not_attempted"}


# The task keyword `timeout`, and the setting of the same meaning.

# Seconds; long enough for the messages before the slow ones on a busy machine.
TIME = 12
TIMED_OUT = f"Timed out after {TIME} second(s)"


@pytest.mark.parametrize("by", ["keyword", "setting"])
def test_at_the_end_of_its_time_a_task_records_what_it_did(
    ansible: Ansible, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    ansible.sandbox.add_fault("slow", route="messages", seconds=ENDLESS, nth=[5, 6])
    ledger, audit = str(ansible.directory / "ledger.sqlite"), ansible.directory / "audit.jsonl"
    if by == "setting":
        monkeypatch.setenv("ANSIBLE_TASK_TIMEOUT", str(TIME))
    keywords = {"timeout": TIME} if by == "keyword" else {}
    kept = {"campaign": "c", "ledger": ledger, "audit_log": str(audit)}
    process = start_play(ansible, keywords, timeout=ENDLESS, deadline=ENDLESS, **kept)

    output = process.communicate(timeout=ENDLESS / 2)[0].decode()

    assert process.returncode == 2
    assert TIMED_OUT in output
    assert "Traceback" not in output
    statuses = list(results(ansible).values())
    assert {status: statuses.count(status) for status in statuses} == {"sent": 4, "unknown": 2, "not_attempted": 6}
    assert len((ansible.directory / "again").read_text().splitlines()) == 6
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [(line["status"], line["outcome"]) for line in lines[4:]] == [("unknown", "interrupted")] * 2
    counts = ansible.task("campaign_info", campaign="c", ledger=ledger).result("it")["counts"]
    assert {status: count for status, count in counts.items() if count} == {"sent": 4, "unknown": 2}


def test_a_message_under_way_at_the_end_of_the_time_has_its_grace_also_for_a_single_host(ansible: Ansible) -> None:
    hosts = [entry["name"] for entry in awake(ansible.sandbox)[:2]]
    ansible.sandbox.add_fault("slow", route="messages", seconds=TIME + 1, nth=1)
    ansible.sandbox.add_fault("slow", route="messages", seconds=ENDLESS, nth=2)
    audit = ansible.directory / "audit.jsonl"
    kept = {"campaign": "c", "ledger": str(ansible.directory / "ledger.sqlite"), "audit_log": str(audit)}
    options = {"content": "hello", "agent_id": AGENT, "timeout": ENDLESS, "deadline": ENDLESS, **kept}

    run = ansible.task("send_message", play={"hosts": hosts}, keywords={"timeout": TIME}, **options)

    assert all(run.result("it", host)["msg"].endswith(f"{TIMED_OUT}.") for host in hosts)
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [line["status"] for line in lines] == ["sent", "unknown"]


# By what keeps them from ending by themselves: every action that asks somebody, and its options.
HUNG: dict[str, dict[str, dict[str, Any]]] = {
    "list": {"environment_info": {}},
    "history": {"reply_info": {"client_message_id": "m", "agent_id": AGENT}},
    "retrieve": {
        "environment_info": {"device_id": "device"},
        "rollout": {"name": "r", "version": "9.9.9", "targets": ["{{ inventory_hostname }}"], "ledger": "l.sqlite"},
        "self_update": {"target_version": "9.9.9"},
        "wait_for_environment": {},
    },
    "relay": {
        "approval_info": {"agent_id": AGENT},
        "environment_command": {"command": "reload"},
        "environment_mode": {"mode": "acceptEdits", "agent_id": AGENT},
        "environment_turn": {"state": "resumed", "agent_id": AGENT},
    },
}


@pytest.mark.parametrize("route", HUNG)
def test_every_action_ends_with_its_time_and_shows_no_key(ansible: Ansible, route: str) -> None:
    able = [entry for entry in awake(ansible.sandbox) if "reload" in entry["row"]["metadata"]["supported_commands"]]
    source = ansible.static(ansible.listing())
    ansible.sandbox.add_fault("slow", route=route, seconds=ENDLESS)
    usual = {"api_key": ansible.sandbox.api_key, "deadline": ENDLESS, "timeout": ENDLESS}
    tasks = [{**step(module, module, **options, **usual), "timeout": 2} for module, options in HUNG[route].items()]
    began = time.monotonic()

    run = ansible.steps(*tasks, hosts=able[0]["name"], source=source)

    assert time.monotonic() - began < ENDLESS / 2
    for module in HUNG[route]:
        assert run.result(module)["msg"].endswith("Timed out after 2 second(s)."), run.output
    assert ansible.sandbox.api_key not in run.output
