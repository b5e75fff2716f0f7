"""What a message to many takes of memory."""

from __future__ import annotations

import os
import subprocess

import yaml

from .conftest import AGENT, Ansible, awake, messages_of

TARGETS = 12
SIZE = 8_000_000


def peak(ansible: Ansible, size: int) -> int:
    """Bytes that Ansible or a worker of its took at most while a text of this size went to all targets."""
    text = str(ansible.file("text", "x" * size))
    names = [entry["name"] for entry in awake(ansible.sandbox)[:TARGETS]]
    message = {"content_file": text, "agent_id": AGENT, "targets": names, "concurrency": 1}
    task = {"name": "it", "fleetops.environments.send_message": message, "run_once": True}
    path = ansible.file("play.yml", yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": [task]}]))
    process = ansible.start(path, stdout=subprocess.DEVNULL)
    _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss * 1024


def test_a_text_takes_its_size_once_however_many_get_it(ansible: Ansible) -> None:
    little = peak(ansible, 100)
    much = peak(ansible, SIZE)

    # It is there as a text, as what is being sent, and as what was read.
    assert much - little < 5 * SIZE < TARGETS * SIZE
    received = [messages_of(ansible.sandbox, entry) for entry in awake(ansible.sandbox)]
    assert sorted(len(message["content"]) for messages in received for message in messages) == sorted(
        [100, SIZE] * TARGETS
    )


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
