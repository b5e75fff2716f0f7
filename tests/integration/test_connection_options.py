"""The options of the connection plugin are not the task keywords of the same names."""

from __future__ import annotations

import pytest

from tests.sandbox.process import Sandbox

from .conftest import Ansible

COMMAND = {"name": "it", "ansible.builtin.raw": "true"}


@pytest.mark.parametrize(
    ("env", "arguments", "seconds"),
    [
        ({"LETTA_TIMEOUT": "5"}, (), "5"),
        ({}, ("--timeout", "6"), "6"),
        ({"LETTA_TIMEOUT": "60"}, ("-e", "letta_timeout=4.5"), "4.5"),
    ],
    ids=["environment", "command line", "variable"],
)
def test_a_silent_device_is_unreachable_after_the_timeout(
    ansible: Ansible, sandbox: Sandbox, env: dict[str, str], arguments: tuple[str, ...], seconds: str
) -> None:
    sandbox.add_fault("relay_silent")
    source = ansible.source(connection="relay", filters=["status == 'online' && mode == 'unrestricted'"])

    run = ansible.steps(COMMAND, source=source, hosts="all[0]", arguments=arguments, env={**env, "LETTA_RETRIES": "0"})

    run.assert_error("UNREACHABLE!", f"no shell on the device within the timeout of {seconds} s")


@pytest.mark.parametrize("how", ["environment", "variable"])
def test_a_silent_device_is_unreachable_after_the_relay_timeout(ansible: Ansible, sandbox: Sandbox, how: str) -> None:
    sandbox.add_fault("relay_silent")
    source = ansible.source(connection="relay", filters=["status == 'online' && mode == 'unrestricted'"])
    arguments = ("-e", "letta_relay_timeout=1.5") if how == "variable" else ()
    env = {"LETTA_RELAY_TIMEOUT": "1.5" if how == "environment" else "60"}

    run = ansible.steps(COMMAND, source=source, hosts="all[0]", arguments=arguments, env=env)

    run.assert_error("UNREACHABLE!", "the device did not answer within the relay_timeout of 1.5 s")
    assert len(sandbox.requests("relay")) == 1


@pytest.mark.covers("letta", "connection")
def test_the_inventory_sets_the_connection_only_on_request(ansible: Ansible) -> None:
    said = {
        name: {host.get("ansible_connection") for host in ansible.hosts(**options).values()}
        for name, options in {"usual": {}, "none": {"connection": "none"}, "relay": {"connection": "relay"}}.items()
    }

    assert said == {"usual": {None}, "none": {None}, "relay": {"fleetops.environments.letta"}}


def test_a_host_of_another_inventory_fails_with_the_missing_variable(ansible: Ansible) -> None:
    variables = {"ansible_connection": "fleetops.environments.letta"}

    run = ansible.steps(COMMAND, source="elsewhere,", hosts="elsewhere", vars=variables)

    run.assert_error(
        "the host has no variable fleetops_environment, which the inventory fleetops.environments.letta sets"
    )
