"""The progress of a fan-out is shown on a terminal, and nowhere else."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.sandbox.turns import LongTurn

from .conftest import AGENT, Ansible, awake

MODULES = {
    "send_message": {"content": "hello"},
    "environment_command": {"command": "reload"},
}


def play(module: str, targets: list[str], **keywords: Any) -> list[dict[str, Any]]:
    options = {**MODULES[module], "agent_id": AGENT, "targets": targets, "rate": 4}
    task = {"name": "it", f"fleetops.environments.{module}": options, "run_once": True, **keywords}
    return [{"hosts": "all", "gather_facts": False, "tasks": [task]}]


@pytest.mark.parametrize("module", MODULES)
def test_the_progress_of_a_fan_out_is_shown_on_a_terminal(ansible: Ansible, module: str) -> None:
    names = [
        ansible.sandbox.add_environment(
            connectionName=f"host-{number}",
            metadata={"lettaCodeVersion": "0.34.12", "supported_commands": ["reload"]},
        )["connectionName"]
        for number in range(8)
    ]

    shown = ansible.on_a_terminal(ansible.file("shown.yml", yaml.safe_dump(play(module, names))))

    lines = re.findall(
        r"^(\d) of 8 targets, \1 (?:sent|changed), 0 failed, \d\.\d a second, \d s left\r$", shown, re.MULTILINE
    )
    assert 1 <= len(lines) <= 3
    assert lines == sorted(lines)
    assert "WARNING" not in shown


def test_the_number_of_replies_is_shown_during_the_wait(ansible: Ansible) -> None:
    entries = awake(ansible.sandbox)[:2]
    ansible.sandbox.script("agent-slow", LongTurn(seconds=3))
    targets = [entries[0]["name"], {"host": entries[1]["name"], "agent_id": "agent-slow"}]
    option = {"content": "hello", "agent_id": AGENT, "targets": targets, "wait_for_reply": True}
    task = {"name": "it", "fleetops.environments.send_message": option, "run_once": True}
    plays = [{"hosts": "all", "gather_facts": False, "tasks": [task]}]

    shown = ansible.on_a_terminal(ansible.file("shown.yml", yaml.safe_dump(plays)))

    assert re.search(r"^1 of 2 replies, 1 replied, 0 failed, \d\.\d a second, \d+ s left\r$", shown, re.MULTILINE)
    assert "WARNING" not in shown


def test_progress_is_not_shown_without_a_terminal_or_for_hidden_tasks(ansible: Ansible) -> None:
    names = [entry["name"] for entry in awake(ansible.sandbox)[:8]]

    hidden = play("send_message", names, no_log=True)
    shown = ansible.on_a_terminal(ansible.file("hidden.yml", yaml.safe_dump(hidden)))
    run = ansible.playbook(play("send_message", names))

    assert "it" in shown
    assert "8 targets: 8 sent" in str(run.result("it"))
    assert "failed, " not in shown
    assert " a second" not in run.output
