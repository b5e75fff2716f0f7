"""A play that logs in to a host without the relay: OpenSSH's own error says what to do."""

from __future__ import annotations

import shutil

import pytest

from .conftest import Ansible

WAY_OUT = "this-host-has-no-login.write-gather_facts-false"


@pytest.mark.covers("letta", "connection")
@pytest.mark.skipif(shutil.which("ssh") is None, reason="needs OpenSSH's client")
@pytest.mark.parametrize(("provider", "also"), [("letta", ".or-connection-relay-in-its-source."), ("qoder", ".")])
def test_the_error_of_fact_gathering_says_what_to_do(ansible: Ansible, provider: str, also: str) -> None:
    source = ansible.source(plugin=f"fleetops.environments.{provider}")
    play = {"hosts": f"{provider}[0]", "tasks": [{"name": "it", "ansible.builtin.ping": {}}]}

    run = ansible.playbook([play], source=source)

    assert run.returncode == 4, run.output
    (entry,) = run.results
    assert entry["outcome"] == "unreachable"
    assert "Could not resolve hostname" in entry["result"]["msg"]
    assert WAY_OUT + also in entry["result"]["msg"]


def test_the_connection_of_a_play_still_counts(ansible: Ansible) -> None:
    play = {"hosts": "letta[0]", "gather_facts": False, "connection": "local"}
    echo = {"name": "it", "ansible.builtin.raw": "echo on the controller"}

    run = ansible.playbook([{**play, "tasks": [echo]}])

    assert run.result("it")["stdout"].strip() == "on the controller"


@pytest.mark.covers("letta", "connection")
def test_a_host_with_the_relay_has_no_advice_in_its_address(ansible: Ansible) -> None:
    hosts = ansible.hosts(connection="relay")

    assert {host["ansible_host"] for host in hosts.values()} == {
        f"{host['letta_id']}.letta.invalid" for host in hosts.values()
    }
