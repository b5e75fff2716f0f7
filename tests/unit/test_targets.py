"""Which environments a task acts on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

from ansible_collections.fleetops.environments.plugins.module_utils.errors import FleetError, OptionError
from ansible_collections.fleetops.environments.plugins.plugin_utils.actions.targets import (
    read_current_host,
    read_targets,
)

from .support import environment_of, row


def variables(number: int, **changes: Any) -> dict[str, Any]:
    found = environment_of(row(id=f"environment-{number}"))
    return {"fleetops_environment": {**found.contract(), **changes}}


def inventory(hosts: Mapping[str, Mapping[str, Any]]) -> HostVars:
    """The facts that Ansible has about hosts with these variables."""
    loader = DataLoader()
    found = InventoryManager(loader)
    for host, values in hosts.items():
        found.add_host(host)
        for name, value in values.items():
            found.get_host(host).set_variable(name, value)
    return HostVars(found, VariableManager(loader, found), loader)


KEYS = ("content", "agent_id", "conversation_id", "client_message_id")
TASK_VARS: dict[str, Any] = {
    "inventory_hostname": "alpha",
    "hostvars": inventory(
        {
            "alpha": variables(1),
            "beta": variables(2),
            "twin": variables(1),
            "elsewhere": variables(1, base_url="https://other.example"),
            "server": {},
            "damaged": variables(3, id=None),
        }
    ),
}


def test_the_current_host_is_a_target() -> None:
    [item] = read_current_host(TASK_VARS)

    assert (item.host, item.environment.id, item.given) == ("alpha", "environment-1", {})


def test_a_current_host_without_an_environment_is_refused() -> None:
    with pytest.raises(FleetError, match=r"^server is no environment: it has no variable fleetops_environment, "):
        read_current_host({**TASK_VARS, "inventory_hostname": "server"})


def test_targets_are_names_or_entries_in_their_order() -> None:
    entry = {"host": "alpha", "content": "a", "agent_id": "", "conversation_id": None, "client_message_id": "m-1"}

    first, second = read_targets(["beta", entry], KEYS, None, TASK_VARS)

    assert (first.host, first.given) == ("beta", {})
    assert (second.host, second.given) == ("alpha", {"content": "a", "client_message_id": "m-1"})
    assert second.environment.id == "environment-1"


def test_the_same_id_at_another_url_is_another_environment() -> None:
    assert len(read_targets(["alpha", "elsewhere"], KEYS, None, TASK_VARS)) == 2


@pytest.mark.parametrize("name", ["alpha", "twin"])
def test_a_repeated_environment_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match=rf"^targets\[2\]: '{name}' is the same environment as 'alpha'$"):
        read_targets(["alpha", "beta", name], KEYS, None, TASK_VARS)


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        (5, "must be a host name or a dictionary with host, got 5"),
        (["alpha"], "must be a host name or a dictionary with host, got ['alpha']"),
        ("", "'' is no host of the inventory"),
        ("gamma", "'gamma' is no host of the inventory"),
        ({}, "'None' is no host of the inventory"),
        ({"host": 5}, "'5' is no host of the inventory"),
        ({"host": ["alpha"]}, "is no host of the inventory"),
        ({"host": "alpha", "text": "a"}, "has no key 'text'; it may have host, content, agent_id, "),
        ({"host": "alpha", 5: "a"}, "has no key '5'; it may have host, content, agent_id, "),
    ],
)
def test_an_invalid_entry_is_refused_by_its_place(target: Any, problem: str) -> None:
    with pytest.raises(OptionError) as raised:
        read_targets(["beta", target], KEYS, None, TASK_VARS)

    assert str(raised.value).startswith("targets[1]: ")
    assert problem in str(raised.value)


@pytest.mark.parametrize("name", ["server", "damaged"])
def test_a_host_without_an_environment_is_refused_by_name(name: str) -> None:
    with pytest.raises(FleetError, match=f"^{name}[: ]"):
        read_targets(["alpha", name], KEYS, None, TASK_VARS)


def test_more_targets_than_allowed_are_refused() -> None:
    assert len(read_targets(["alpha", "beta"], KEYS, 2, TASK_VARS)) == 2
    with pytest.raises(OptionError, match=r"^max_targets: 2 targets are more than the 1 allowed$"):
        read_targets(["alpha", "beta"], KEYS, 1, TASK_VARS)
