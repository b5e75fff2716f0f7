"""The rulebook that instructs devices when they come back, in the real ansible-rulebook."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.integration.conftest import AGENT, CHECKOUT, Ansible
from tests.sandbox.process import Sandbox

BIN = CHECKOUT / ".build/rulebook/bin"
# Seconds until Java, the rules and a playbook have started on a busy machine.
LONGEST = 120


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox.start(devices=6, seed=1) as sandbox:
        yield sandbox


def until(process: subprocess.Popen[bytes], output: Path, holds: Callable[[], bool]) -> None:
    """Wait until a condition holds; fails with the output if the process ends first, or the wait is too long."""
    give_up_at = time.monotonic() + LONGEST
    while not holds():
        assert process.poll() is None, output.read_text()
        assert time.monotonic() < give_up_at, output.read_text()
        time.sleep(0.1)


def listed_twice(process: subprocess.Popen[bytes], output: Path, sandbox: Sandbox) -> None:
    """Wait until the fleet was listed after this call: the first listing may have begun before it."""
    before = len(sandbox.requests("list"))
    until(process, output, lambda: len(sandbox.requests("list")) > before + 1)


def test_a_device_that_comes_back_is_instructed_once(sandbox: Sandbox, tmp_path: Path) -> None:
    source = Ansible(tmp_path, sandbox).source(hostnames=["id"])
    back, other = [entry for entry in sandbox.fleet() if entry["online"]][:2]
    given = tmp_path / "vars.yml"
    variables = {"campaign": "welcome", "content": "Welcome back.", "agent_id": AGENT, "interval": 1, "jitter": 0}
    given.write_text(yaml.safe_dump(variables))
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "LETTA_BASE_URL": sandbox.url,
        "LETTA_API_KEY": sandbox.api_key,
        "FLEETOPS_LEDGER": str(tmp_path / "ledger.sqlite"),
    }
    output = tmp_path / "output"
    command = ["ansible-rulebook", "-r", "fleetops.environments.reinstruct", "-i", str(source), "--vars", str(given)]
    with output.open("wb") as file:
        process = subprocess.Popen(
            [BIN / command[0], *command[1:]], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, stdout=file,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        for times in (1, 2):
            listed_twice(process, output, sandbox)
            sandbox.offline(back["id"])
            listed_twice(process, output, sandbox)
            sandbox.online(back["id"])
            until(process, output, lambda wanted=times: output.read_text().count("PLAY RECAP") == wanted)
        # An id that is also the name of a group.
        sandbox.add_environment(id="online")
        until(process, output, lambda: output.read_text().count("PLAY RECAP") == 3)
    finally:
        process.terminate()
        process.wait()

    received = sandbox.received()
    assert received.keys() == {back["id"]}, output.read_text()
    assert received[back["id"]]["turns"] == 1
    assert received[back["id"]]["messages"][0]["content"] == "Welcome back."
    assert other["id"] not in received
    assert "max_targets: " in output.read_text()
    assert sandbox.api_key not in output.read_text()
