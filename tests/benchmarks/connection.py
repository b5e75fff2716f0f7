"""Modules on a device over the relay, compared with OpenSSH to the same machine on the loopback interface.

Both have pipelining, the same inventory and the same interpreter. OpenSSH keeps its connection (ControlPersist), which
a first command opens before anything is measured; over the relay each task has one of its own.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.device import Device
from tests.sandbox.process import Sandbox

from .harness import MEGABYTE, Comparison, Figures, Goal, Scale, Workplace, in_turn
from .network import Network

TASKS = 10
COPIES = 3
COPIED = 10 * MEGABYTE


def run(scale: Scale, directory: Path) -> list[Comparison]:
    """Wall time of whole plays."""
    with (
        Sandbox.start(devices=0) as sandbox,
        Device.start(sandbox, "device", directory / "device"),
        ssh_server(directory / "ssh") as over_ssh,
    ):
        [device] = sandbox.fleet()
        sandbox.patch(device["id"], currentMode="unrestricted")
        work = Workplace(directory, Network(sandbox.url, sandbox.api_key))
        source = work.source(connection="relay")
        plays = {
            f"{TASKS} tasks of `ping`": (work.play("ping", *[{"ansible.builtin.ping": {}}] * TASKS), 1.0),
            f"{TASKS} tasks of `setup`": (work.play("setup", *[{"ansible.builtin.setup": {}}] * TASKS), 1.0),
            f"{COPIES} tasks of `copy`, 10 MB each": (work.play("copy", *copies(directory)), 1.5),
        }
        found: list[Comparison] = []
        for name, (playbook, bound) in plays.items():
            taken = compare_plays(scale.runs, work, source, playbook, over_ssh)
            goal = Goal("at most", bound)
            found.append(Comparison(f"{name} over the relay", "OpenSSH", "s", taken["relay"], taken["ssh"], goal))
    return found


def compare_plays(
    runs: int, work: Workplace, source: str, playbook: str, over_ssh: Mapping[str, str]
) -> dict[str, list[float]]:
    """Seconds of a play each way."""

    def play_once(name: str, **variables: str) -> Figures:
        shared = {
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_pipelining": "true",
            "copied_to": str(work.directory / f"copied-{time.monotonic_ns()}"),
        }
        given = [f"{name}={value}" for name, value in {**shared, **variables}.items()]
        arguments = [argument for each in given for argument in ("-e", each)]
        return work.measure(f"{Path(playbook).stem}-{name}", "ansible-playbook", "-i", source, playbook, *arguments)

    ssh = {name: f"'{value}'" for name, value in over_ssh.items()}
    play_once("warm", **ssh)
    taken = in_turn(runs, relay=lambda: play_once("relay"), ssh=lambda: play_once("ssh", **ssh))
    return {name: [figures.wall for figures in each] for name, each in taken.items()}


def copies(directory: Path) -> list[dict[str, Any]]:
    """Tasks that copy a file of random bytes to a path that does not exist."""
    content = directory / "content"
    content.write_bytes(os.urandom(COPIED))
    return [
        {"ansible.builtin.copy": {"src": str(content), "dest": f"{{{{ copied_to }}}}-{number}", "mode": "0600"}}
        for number in range(COPIES)
    ]


@contextmanager
def ssh_server(directory: Path) -> Iterator[dict[str, str]]:
    """A private OpenSSH server; yields the variables with which Ansible uses it."""
    server = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if server is None:
        raise RuntimeError("OpenSSH's server is needed to compare with (on Debian: apt-get install openssh-server)")
    directory.mkdir()
    for name in ("host", "user"):
        key = str(directory / name)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    (directory / "authorized").write_text((directory / "user.pub").read_text())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = {
        "ListenAddress": "127.0.0.1",
        "Port": port,
        "HostKey": directory / "host",
        "AuthorizedKeysFile": directory / "authorized",
        "PidFile": "none",
        "StrictModes": "no",
        "PermitRootLogin": "prohibit-password",
        "UsePAM": "no",
        "Subsystem": "sftp internal-sftp",
    }
    config = directory / "config"
    config.write_text("".join(f"{name} {value}\n" for name, value in options.items()))
    # The directory where a server of root drops its rights; Debian's service creates it, but is not running.
    needed = Path("/run/sshd")
    made = os.geteuid() == 0 and not needed.exists()
    if made:
        needed.mkdir()
    process = subprocess.Popen([server, "-D", "-e", "-f", str(config)], stderr=subprocess.DEVNULL)
    try:
        _wait_for(port)
        control = "-o ControlMaster=auto -o ControlPersist=600s"
        known = "-o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -o LogLevel=ERROR"
        yield {
            "ansible_connection": "ssh",
            "ansible_host": "127.0.0.1",
            "ansible_port": str(port),
            "ansible_user": getpass.getuser(),
            "ansible_ssh_private_key_file": str(directory / "user"),
            "ansible_ssh_args": f"{control} {known}",
            "ansible_control_path_dir": str(directory),
        }
    finally:
        process.terminate()
        process.wait()
        if made:
            needed.rmdir()


def _wait_for(port: int) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port)):
                return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
