"""Machines with nothing in common but a ledger in PostgreSQL: each has its own home and directories."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.sandbox.postgresql import PostgresqlServer
from tests.sandbox.process import Sandbox

from .conftest import Ansible, awake
from .test_faults_at_scale import add_faults, listed_once
from .test_schedulers import instruct_arguments, run_scheduled

TARGETS = 120
SLICES = 3
# Devices of a slice that have their turn when the run of it is interrupted.
BEGUN = 5
PATIENCE = 120.0
# Runs without faults, after which everybody must have the message.
LAST_RUNS = 2


@dataclass(frozen=True)
class Machine:
    """Its directory is all that it has, besides the URL of the ledger."""

    directory: Path
    sandbox: Sandbox
    ledger: str

    @property
    def env(self) -> dict[str, str]:
        """What is its own."""
        home = self.directory / "home"
        home.mkdir(parents=True, exist_ok=True)
        return {"HOME": str(home), "ANSIBLE_HOME": str(home / ".ansible"), "FLEETOPS_LEDGER": self.ledger}

    def start(self, name: str, hosts: dict[str, dict[str, Any]]) -> subprocess.Popen[bytes]:
        """A play that sends to some hosts. name: of its playbook, and of the file with what it prints."""
        send = {"content": "hello", "campaign": "c", "targets": "{{ groups['all'] }}", "concurrency": 4}
        patience = {"timeout": 1, "retries": 2, "max_failures": "100%"}
        task = {"fleetops.environments.send_message": {**send, **patience}, "run_once": True}
        environment = {
            **os.environ, **self.env, "LETTA_BASE_URL": self.sandbox.url, "LETTA_API_KEY": self.sandbox.api_key,
        }  # fmt: skip
        source, play = self.directory / f"{name}.yaml", self.directory / f"{name}.yml"
        source.write_text(json.dumps({"all": {"hosts": hosts}}))
        play.write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": [task]}]))
        with (self.directory / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [Path(sys.executable).with_name("ansible-playbook"), "-i", source, play],
                cwd=self.directory, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip


def eventually(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def interrupt(
    run: subprocess.Popen[bytes], how: signal.Signals, fleet: Sandbox, hosts: dict[str, dict[str, Any]]
) -> None:
    """Send a signal to the processes of a run when some of its hosts have their turn."""
    eventually(lambda: len(ids_of(hosts) & turns_of(fleet).keys()) > BEGUN, "the run does not send")
    os.killpg(run.pid, how)


def end_session_of(server: PostgresqlServer, database: str, playbook: str) -> int:
    """End the sessions that show that runs of a playbook are alive, as the server does when their machine is gone."""
    with server.connect(database) as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN fleetops.runs ON objid = number"
            " WHERE locktype = 'advisory' AND playbook LIKE %s"
            " AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            (f"%/{playbook}.yml",),
        )
        return len(ended.fetchall())


@pytest.fixture
def fleet() -> Iterator[Sandbox]:
    """A separate sandbox with enough online devices."""
    with Sandbox.start(devices=TARGETS + TARGETS // 2, seed=3) as sandbox:
        yield sandbox


def ids_of(hosts: dict[str, dict[str, Any]]) -> set[str]:
    return {variables["fleetops_environment"]["id"] for variables in hosts.values()}


def turns_of(sandbox: Sandbox) -> dict[str, int]:
    return {id_: device["turns"] for id_, device in sandbox.received().items() if device["posts"]}


def test_each_agent_has_one_turn_though_one_slice_is_killed_and_another_one_loses_its_session(
    tmp_path: Path, fleet: Sandbox, postgresql: PostgresqlServer, postgresql_url: str
) -> None:
    """A quarter of all requests fails. The slice that is stopped goes on when another machine has done its work."""
    database = postgresql_url.rpartition("/")[2]
    machines = [Machine(tmp_path / name, fleet, postgresql_url) for name in ("one", "two")]
    hosts = listed_once(Ansible(tmp_path, fleet), shared=False, count=TARGETS)
    slices = [dict([*hosts.items()][number::SLICES]) for number in range(SLICES)]
    add_faults(fleet, shared=False)

    runs = [machines[number % 2].start(f"slice-{number}", slices[number]) for number in range(SLICES)]
    try:
        killed, stopped, other = runs
        interrupt(killed, signal.SIGKILL, fleet, slices[0])
        interrupt(stopped, signal.SIGSTOP, fleet, slices[1])
        eventually(lambda: end_session_of(postgresql, database, "slice-1"), "the stopped run has no session")
        # The other machine takes up each of the two slices.
        runs += [machines[1].start("again-0", slices[0]), machines[0].start("again-1", slices[1])]
        assert [run.wait(PATIENCE) in (0, 2) for run in (other, *runs[SLICES:])] == [True] * 3
        os.killpg(stopped.pid, signal.SIGCONT)
        assert (killed.wait(), stopped.wait(PATIENCE) in (0, 2)) == (-signal.SIGKILL, True)
    finally:
        for run in runs:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
            run.wait()

    fleet.clear_faults()
    for number in range(LAST_RUNS):
        last = machines[0].start(f"last-{number}", hosts)
        assert last.wait(PATIENCE) in (0, 2)
    assert last.returncode == 0, (tmp_path / "one/last-1.log").read_text()
    assert turns_of(fleet) == dict.fromkeys(ids_of(hosts), 1)


def test_two_machines_with_the_same_timer_run_a_campaign_once(
    tmp_path: Path, sandbox: Sandbox, postgresql_url: str
) -> None:
    """At the same moment, and again when it is over. Answers are slow, so that the two overlap."""
    sandbox.add_fault("slow", route="messages", seconds=1)

    def run(name: str) -> subprocess.CompletedProcess[str]:
        machine = Machine(tmp_path / name, sandbox, postgresql_url)
        ansible = Ansible(machine.directory, sandbox)
        return run_scheduled(ansible, "letta", *instruct_arguments(ansible), **machine.env)

    with ThreadPoolExecutor(2) as threads:
        first = [*threads.map(run, ["one", "two"])]
    again = run("two")

    # What one machine has under way is not attempted by the other one.
    assert {done.returncode for done in first} <= {0, 2}, first
    assert (again.returncode, again.stderr) == (0, "")
    received = {id_: device for id_, device in sandbox.received().items() if device["posts"]}
    assert {(device["turns"], device["posts"]) for device in received.values()} == {(1, 1)}
    assert received.keys() >= {entry["id"] for entry in awake(sandbox)}
