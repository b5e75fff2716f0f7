"""Ansible ended by a signal during a fan-out: no message starts after it, and the files record what was done."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import AGENT, Ansible, awake, messages_of

CONCURRENCY = 2
# Seconds of an answer that must not be waited for: a play that waits has not ended after half of them.
ENDLESS = 240


def start_play(ansible: Ansible, **options: Any) -> subprocess.Popen[bytes]:
    """A play that sends to many targets, two of which are under way when this returns."""
    names = [entry["name"] for entry in awake(ansible.sandbox)[:12]]
    files = {"result_file": str(ansible.directory / "results.jsonl"), "retry_file": str(ansible.directory / "again")}
    message = {"content": "hello", "agent_id": AGENT, "targets": names, "concurrency": CONCURRENCY, **files, **options}
    task = {"name": "it", "fleetops.environments.send_message": message, "run_once": True}
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
