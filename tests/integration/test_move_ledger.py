"""examples/ledger/move.py: campaigns and rollouts go on in the ledger that theirs was copied into."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.ledger.schema import RunFacts
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.store import open_ledger

from .conftest import AGENT, CHECKOUT, Ansible, Run, step

PROGRAM = CHECKOUT / ".build/collections/ansible_collections/fleetops/environments/examples/ledger/move.py"
NAMES = [f"moved-{number}" for number in range(4)]
VERSION = "0.34.12"
SEND = {"content": "hello", "agent_id": AGENT, "campaign": "c"}
ROLLOUT = {"name": "r", "version": VERSION, "waves": ["1", "100%"], "targets": NAMES, "soak": 0.2, "poll_interval": 0.1}


@pytest.fixture(autouse=True)
def fleet(ansible: Ansible) -> None:
    for name in NAMES:
        ansible.sandbox.add_environment(connectionName=name, metadata={"lettaCodeVersion": "0.33.9"})
    ansible.sandbox.upgrade_to(VERSION)


def play(ansible: Ansible, ledger: str, *tasks: dict[str, Any]) -> Run:
    run = ansible.steps(*tasks, env={"FLEETOPS_LEDGER": ledger})
    run.assert_quiet()
    return run


def moved(ansible: Ansible, source: str, target: str) -> tuple[int, str]:
    """The exit code of the program, and what it printed."""
    done = subprocess.run(
        [sys.executable, PROGRAM, source], cwd=ansible.directory, env={**os.environ, "FLEETOPS_LEDGER": target},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


SHOWN = step("shown", "campaign_info", campaign="c", include_deliveries=True)


def test_a_ledger_is_moved_into_postgresql_and_everything_goes_on(ansible: Ansible, postgresql_url: str) -> None:
    file = str(ansible.directory / "ledger.sqlite")
    before = play(
        ansible,
        file,
        step("send", "send_message", **SEND, targets=NAMES[:2]),
        step("pause", "campaign_control", campaign="paused", state="paused"),
        step("plan", "rollout", **ROLLOUT, state="planned"),
        SHOWN,
    )
    play(ansible, postgresql_url, step("other", "send_message", **SEND | {"campaign": "other"}, targets=NAMES[:1]))

    assert moved(ansible, "ledger.sqlite", postgresql_url) == (0, "copied 2 campaigns, 2 deliveries, 1 rollouts\n")
    kept = Path(file).read_bytes()
    after = play(
        ansible,
        postgresql_url,
        SHOWN,
        step("send", "send_message", **SEND, targets=NAMES),
        step("paused", "send_message", **SEND | {"campaign": "paused"}, targets=NAMES[:1]),
        step("run", "rollout", **ROLLOUT, state="run", soak_grace=5, update_timeout=30),
    )

    assert after.result("shown")["deliveries"] == before.result("shown")["deliveries"]
    assert after.result("send")["msg"] == "4 targets: 2 sent, 2 already_sent"
    assert after.result("paused")["targets"][0]["reason"] == "the campaign is paused"
    assert (after.result("run")["state"], after.result("run")["planned_at"]) == (
        "passed",
        before.result("plan")["planned_at"],
    )
    assert Path(file).read_bytes() == kept


def test_a_ledger_with_the_same_campaigns_is_left_as_it_is(ansible: Ansible) -> None:
    one, other = (str(ansible.directory / name) for name in ("one.sqlite", "other.sqlite"))
    for ledger in (one, other):
        play(ansible, ledger, step("send", "send_message", **SEND, targets=NAMES[:1]))
    before = play(ansible, other, SHOWN).result("shown")

    assert moved(ansible, one, other) == (1, "move.py: TO: has campaigns of the same name: 'c'\n")
    assert play(ansible, other, SHOWN).result("shown") == before


def test_a_ledger_in_use_and_one_that_is_not_there_are_refused(ansible: Ansible) -> None:
    file = ansible.directory / "used.sqlite"
    target = str(ansible.directory / "new.sqlite")
    with open_ledger(file, RunFacts("somebody")) as used:
        in_use = moved(ansible, str(file), target)

    assert in_use == (1, f"move.py: FROM: run {used.run} is using it; try again when that has ended\n")
    assert moved(ansible, "gone.sqlite", target)[0] == 1
    assert moved(ansible, str(file), target) == (0, "copied 0 campaigns, 0 deliveries, 0 rollouts\n")
