"""What is left of a command on a device when its task, its run, or the device itself ends before it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.integration.conftest import Ansible
from tests.sandbox.process import Sandbox

from .conftest import Fleet
from .device import Device, eventually
from .test_connection import on_devices, task
from .test_terminal import gone


def endless(pid_file: Path) -> dict[str, Any]:
    """A task whose command says who it is, and goes on."""
    return task("it", "raw", _raw_params=f"echo $$ >'{pid_file}'; sleep 600")


def has_ended(pid_file: Path) -> Callable[[], bool]:
    """Whether the command, which did begin, is no more."""
    pid = int(pid_file.read_text())
    return lambda: not Path(f"/proc/{pid}").exists()


def test_a_command_ends_with_the_time_of_its_task(ansible: Ansible, fleet: Fleet, tmp_path: Path) -> None:
    run = on_devices(ansible, {**endless(tmp_path / "pid"), "timeout": 5})

    assert "Timed out after 5 second(s)" in run.output
    eventually(has_ended(tmp_path / "pid"))
    gone(fleet.alpha)


def test_a_command_ends_after_a_run_that_is_killed(ansible: Ansible, fleet: Fleet, tmp_path: Path) -> None:
    variables = {"ansible_connection": "fleetops.environments.letta"}
    play = {"hosts": "alpha", "gather_facts": False, "vars": variables, "tasks": [endless(tmp_path / "pid")]}
    playbook = ansible.file("play.yml", yaml.safe_dump([play]))
    process = ansible.start(playbook, process_group=0)
    eventually(lambda: (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text()))

    os.killpg(process.pid, signal.SIGKILL)
    # Workers are sessions of their own.
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        if str(playbook).encode() in _content(entry):
            os.kill(int(entry.parent.name), signal.SIGKILL)
    process.wait()

    eventually(has_ended(tmp_path / "pid"))
    gone(fleet.alpha)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_device_that_dies_is_unreachable_and_takes_the_command_with_it(
    letta: None, lone_sandbox: Sandbox, tmp_path: Path
) -> None:
    ansible = Ansible(tmp_path, lone_sandbox)
    with Device.start(lone_sandbox, "alpha", tmp_path / "alpha") as device:
        variables = {"ansible_connection": "fleetops.environments.letta"}
        play = {"hosts": "alpha", "gather_facts": False, "vars": variables, "tasks": [endless(tmp_path / "pid")]}
        with (tmp_path / "output").open("w") as output:
            process = ansible.start(ansible.file("play.yml", yaml.safe_dump([play])), stdout=output, stderr=output)
            eventually(lambda: (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text()))
            ended = has_ended(tmp_path / "pid")

            device.kill()

            assert process.wait() == 4
        assert "what was begun may have been done" in (tmp_path / "output").read_text()
        eventually(ended)
        gone(device)
