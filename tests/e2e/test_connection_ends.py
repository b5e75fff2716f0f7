"""The remains of a command on a device when its task, its run, or the device itself ends before it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.integration.conftest import Ansible
from tests.sandbox.process import Sandbox

from .conftest import Fleet
from .device import Device, eventually
from .test_connection import on_devices, task
from .test_terminal import wait_until_gone


def endless(pid_file: Path) -> dict[str, Any]:
    """A task whose command identifies itself, and keeps running."""
    return task("it", "raw", _raw_params=f"echo $$ >'{pid_file}'; sleep 600")


def start_run(ansible: Ansible, pid_file: Path, **options: Any) -> tuple[subprocess.Popen[bytes], Path]:
    """A run of that task whose command has begun; with the playbook."""
    variables = {"ansible_connection": "fleetops.environments.letta"}
    play = {"hosts": "alpha", "gather_facts": False, "vars": variables, "tasks": [endless(pid_file)]}
    playbook = ansible.file("play.yml", yaml.safe_dump([play]))
    process = ansible.start(playbook, **options)
    eventually(lambda: pid_file.exists() and bool(pid_file.read_text()))
    return process, playbook


def has_ended(pid_file: Path) -> Callable[[], bool]:
    """Whether the command, which did begin, has ended."""
    pid = int(pid_file.read_text())
    return lambda: not Path(f"/proc/{pid}").exists()


def test_a_command_ends_with_the_time_of_its_task(ansible: Ansible, fleet: Fleet, tmp_path: Path) -> None:
    run = on_devices(ansible, {**endless(tmp_path / "pid"), "timeout": 5})

    assert "Timed out after 5 second(s)" in run.output
    eventually(has_ended(tmp_path / "pid"))
    wait_until_gone(fleet.alpha)


def test_a_command_ends_after_a_run_that_is_killed(ansible: Ansible, fleet: Fleet, tmp_path: Path) -> None:
    process, playbook = start_run(ansible, tmp_path / "pid", process_group=0)

    os.killpg(process.pid, signal.SIGKILL)
    # Workers are in their own sessions.
    for pid in _find_processes(playbook):
        os.kill(pid, signal.SIGKILL)
    process.wait()

    eventually(has_ended(tmp_path / "pid"))
    wait_until_gone(fleet.alpha)


def test_the_worker_and_its_command_end_after_ansible_was_killed(
    ansible: Ansible, fleet: Fleet, tmp_path: Path
) -> None:
    process, playbook = start_run(ansible, tmp_path / "pid")
    workers = [pid for pid in _find_processes(playbook) if pid != process.pid]
    assert workers

    process.kill()
    process.wait()

    eventually(lambda: not _find_processes(playbook))
    eventually(has_ended(tmp_path / "pid"))
    wait_until_gone(fleet.alpha)


def _find_processes(playbook: Path) -> list[int]:
    """The processes whose command line names a playbook. A worker has that of its Ansible."""
    found = Path("/proc").glob("[0-9]*/cmdline")
    return [int(entry.parent.name) for entry in found if str(playbook).encode() in _content(entry)]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_device_that_dies_is_unreachable_and_its_command_ends(
    letta: None, lone_sandbox: Sandbox, tmp_path: Path
) -> None:
    ansible = Ansible(tmp_path, lone_sandbox)
    with Device.start(lone_sandbox, "alpha", tmp_path / "alpha") as device:
        with (tmp_path / "output").open("w") as output:
            process, _playbook = start_run(ansible, tmp_path / "pid", stdout=output, stderr=output)
            ended = has_ended(tmp_path / "pid")

            device.kill()

            assert process.wait() == 4
        assert "what was begun may have been done" in (tmp_path / "output").read_text()
        eventually(ended)
        wait_until_gone(device)
