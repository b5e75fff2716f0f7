"""Several processes on one ledger, like the job slices of a controller that share a campaign."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from .conftest import AGENT, Ansible, Run, step

HOSTS = [f"slice-{number:02}" for number in range(60)]
SLICES = 3


@pytest.fixture(autouse=True)
def fleet(ansible: Ansible) -> None:
    """Sixty online environments."""
    for name in HOSTS:
        ansible.sandbox.add_environment(connectionName=name)


def played_at_once(ansible: Ansible, slices: Sequence[Sequence[str]]) -> list[Run]:
    """One process for each slice, all at the same time, with a common campaign and ledger."""
    ledger = str(ansible.directory / "ledger.sqlite")
    send = step(
        "it",
        "send_message",
        content="hello",
        agent_id=AGENT,
        campaign="slices",
        ledger=ledger,
        targets="{{ ansible_play_batch }}",
    )
    play = [{"hosts": "letta", "gather_facts": False, "tasks": [{**send, "run_once": True}]}]

    def run(number: int) -> Run:
        directory = ansible.directory / str(number)
        directory.mkdir(exist_ok=True)
        return replace(ansible, directory=directory).playbook(play, "--limit", ",".join(slices[number]))

    with ThreadPoolExecutor(len(slices)) as threads:
        return list(threads.map(run, range(len(slices))))


def statuses(run: Run) -> dict[str, str]:
    """What happened to each host of one process."""
    return {target["host"]: target["status"] for target in run.result("it")["targets"]}


def assert_one_turn_each(ansible: Ansible) -> None:
    received = ansible.sandbox.received()
    turns = {entry["name"]: received.get(entry["id"], {}).get("turns", 0) for entry in ansible.sandbox.fleet()}
    assert {name: turns[name] for name in HOSTS} == dict.fromkeys(HOSTS, 1)
    assert sum(entry["posts"] for entry in received.values()) == len(HOSTS)


def test_slices_of_one_campaign_reach_every_target_once(ansible: Ansible) -> None:
    slices = [HOSTS[number::SLICES] for number in range(SLICES)]

    first = played_at_once(ansible, slices)
    again = played_at_once(ansible, slices)

    for run, hosts in zip([*first, *again], slices * 2, strict=True):
        run.assert_quiet()
        assert list(statuses(run)) == sorted(hosts)
    assert [set(statuses(run).values()) for run in first] == [{"sent"}] * SLICES
    assert [set(statuses(run).values()) for run in again] == [{"already_sent"}] * SLICES
    assert_one_turn_each(ansible)


def test_overlapping_slices_do_not_send_twice(ansible: Ansible) -> None:
    """Each host is in two of three slices; answers are slow enough for the two slices to overlap, as a rule."""
    ansible.sandbox.add_fault("slow", route="messages", seconds=0.5)
    without = [HOSTS[number::SLICES] for number in range(SLICES)]
    slices = [[host for host in HOSTS if host not in hosts] for hosts in without]

    runs = [statuses(run) for run in played_at_once(ansible, slices)]

    for host in HOSTS:
        ends = sorted(run[host] for run in runs if host in run)
        assert ends in (["not_attempted", "sent"], ["already_sent", "sent"])
    assert_one_turn_each(ansible)
