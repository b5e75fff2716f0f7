"""What a message to many takes of memory."""

from __future__ import annotations

import os
import subprocess

import yaml

from .conftest import AGENT, Ansible, awake, messages_of

FEW, MANY = 2, 12
SIZE = 8_000_000


def peak(ansible: Ansible, targets: int) -> int:
    """Bytes that Ansible or a worker of its took at most while a large text went to so many targets."""
    text = str(ansible.file("text", "x" * SIZE))
    names = [entry["name"] for entry in awake(ansible.sandbox)[:targets]]
    message = {"content_file": text, "agent_id": AGENT, "targets": names, "concurrency": 1}
    task = {"name": "it", "fleetops.environments.send_message": message, "run_once": True}
    path = ansible.file("play.yml", yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": [task]}]))
    process = ansible.start(path, stdout=subprocess.DEVNULL)
    _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss * 1024


def test_a_text_takes_no_more_memory_for_many_targets_than_for_few(ansible: Ansible) -> None:
    few = peak(ansible, FEW)
    many = peak(ansible, MANY)

    assert many - few < 2 * SIZE < (MANY - FEW) * SIZE
    received = [messages_of(ansible.sandbox, entry) for entry in awake(ansible.sandbox)]
    assert [len(message["content"]) for messages in received for message in messages] == [SIZE] * (FEW + MANY)


def test_a_result_does_not_hold_the_text(ansible: Ansible) -> None:
    names = [entry["name"] for entry in awake(ansible.sandbox)[:3]]

    run = ansible.task(
        "send_message",
        content="a text that is nowhere else",
        agent_id=AGENT,
        targets=names,
        play={"hosts": names[0]},
    )

    assert run.result("it")["counts"]["sent"] == 3
    assert "a text that is nowhere else" not in str({**run.result("it"), "invocation": None})
