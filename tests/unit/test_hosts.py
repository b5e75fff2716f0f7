"""Environments and their fields, read back from the hosts of an inventory."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from ansible import constants
from ansible.errors import AnsibleFilterError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play import Play
from ansible.template import trust_as_template
from ansible.vars import manager as core_variables
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

from ansible_collections.fleetops.environments.plugins.filter.environment_findings import environment_findings
from ansible_collections.fleetops.environments.plugins.filter.select_environments import select_environments
from ansible_collections.fleetops.environments.plugins.module_utils.text import format_time
from ansible_collections.fleetops.environments.plugins.plugin_utils.core_internals import drop_facts
from ansible_collections.fleetops.environments.plugins.plugin_utils.hosts import (
    count_dropped_rows,
    find_facts_named,
    find_listing_time,
    read_host_environments,
)

from .support import NOW, environment_of, row


def _host(prefix: str = "letta_", **fields: Any) -> dict[str, Any]:
    """The variables of a host as the inventory sets them."""
    environment = environment_of(row())
    known = {**environment.fields, **fields}
    return {"fleetops_environment": environment.contract(), **{f"{prefix}{name}": known[name] for name in known}}


HOSTVARS = {
    "old": _host(version="0.33.1", last_seen_at=format_time(NOW - timedelta(days=9)), listed_at=format_time(NOW)),
    "new": _host(version="0.34.12", last_seen_at=format_time(NOW), listed_at=format_time(NOW)),
    "server": {"letta_version": "0.1"},
}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([], ["new", "old"]),
        ("semver(version, '<0.34')", ["old"]),
        (["version", "!older_than(last_seen_at, '7d')"], ["new"]),
        (["semver(version, '<0.34')", "!older_than(last_seen_at, '7d')"], []),
    ],
)
def test_environments_are_kept_if_all_filters_hold(filters: Any, expected: list[str]) -> None:
    assert select_environments(["server", "new", "nobody", "old"], HOSTVARS, filters) == expected


def test_ages_count_from_the_listing() -> None:
    [(_host, found)] = read_host_environments(["new"], HOSTVARS)

    assert find_listing_time(found) == NOW
    assert found.fields["version"] == "0.34.12"


@pytest.mark.parametrize(
    ("hosts", "filters", "prefix", "message"),
    [
        (["new"], "moed == 'x'", None, "filters: \"moed == 'x'\" names 'moed'.*'mode' is nearest"),
        ([], "moed == 'x'", None, "names 'moed'"),
        (["new"], {"mode": "x"}, None, "filters: must be a list of expressions"),
        (["new"], "online", "my_", "new has no variables that begin with 'my_'.*hostvars_prefix"),
    ],
)
def test_invalid_filters_are_an_error(hosts: list[str], filters: Any, prefix: str | None, message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        select_environments(hosts, HOSTVARS, filters, prefix)


def test_another_prefix_is_read_if_it_is_given() -> None:
    hostvars = {"new": _host("my_", version="0.34.12") | {"letta_version": "0.1"}}

    assert select_environments(["new"], hostvars, "version == '0.34.12'", "my_") == ["new"]
    assert select_environments(["new"], hostvars, "version == '0.34.12'") == []


def test_without_any_field_there_is_an_error() -> None:
    hostvars = {"new": {"fleetops_environment": _host()["fleetops_environment"]}}

    assert select_environments(["new"], hostvars) == ["new"]
    with pytest.raises(AnsibleFilterError, match="new has no variables that begin with 'letta_'"):
        select_environments(["new"], hostvars, "online")


def test_fields_are_those_of_the_inventory_and_not_rendered() -> None:
    loader = DataLoader()
    inventory = InventoryManager(loader)
    inventory.add_host("new")
    for name, value in _host(mode="standard", version=trust_as_template("{{ 1 + 1 }}")).items():
        inventory.get_host("new").set_variable(name, value)
    manager = VariableManager(loader, inventory)
    manager.set_nonpersistent_facts("new", {"letta_mode": "unrestricted", "fleetops_environment": {"id": "other"}})

    [(_host_name, found)] = read_host_environments(["new"], HostVars(inventory, manager, loader))

    assert (found.fields["mode"], found.fields["version"]) == ("standard", "{{ 1 + 1 }}")
    assert found.fields["version"].__class__ is str


@pytest.fixture
def facts_are_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by default, and unlike in the checkout's ansible.cfg. Core reads that when it is imported."""
    monkeypatch.setenv("ANSIBLE_INJECT_FACT_VARS", "true")
    monkeypatch.setattr(constants, "INJECT_FACTS_AS_VARS", True)
    monkeypatch.setattr(core_variables, "_INJECT_FACTS", True, raising=False)


@pytest.fixture
def lying(facts_are_variables: None) -> tuple[Any, Any, dict[str, Any]]:
    """The facts that a device returned with a play of the hosts `lying` and `honest`: manager, task, variables."""
    loader = DataLoader()
    inventory = InventoryManager(loader)
    for name in ("lying", "honest"):
        inventory.add_host(name)
        inventory.get_host(name).set_variable("instruct_content", "of the inventory")
    manager = VariableManager(loader, inventory)
    hostvars = HostVars(inventory, manager, loader)
    manager.extra_vars["instruct_rate"] = 5
    play = Play().load(
        {"hosts": "all", "gather_facts": False, "tasks": [{"debug": {}}]}, variable_manager=manager, loader=loader
    )
    [task] = play.get_tasks()[0]
    manager.set_host_facts(
        "lying",
        {"instruct_content": "lie", "instruct_rate": 0, "instruct_mode": "lie", "omit": "lie", "disk": "full"},
    )
    return task, manager, {"hostvars": hostvars}


def test_facts_that_count_as_variables_of_a_play_are_found(lying: tuple[Any, Any, dict[str, Any]]) -> None:
    task, _manager, task_vars = lying

    found = find_facts_named(task, task_vars["hostvars"], ["lying", "honest"], ("instruct_", "__instruct_"))

    # Extra variables outrank the fact, and `disk` is no name of ours.
    assert found == [("lying", "instruct_content"), ("lying", "instruct_mode"), ("lying", "omit")]


def test_variables_without_facts_are_those_of_the_operator(lying: tuple[Any, Any, dict[str, Any]]) -> None:
    task, manager, task_vars = lying
    with_facts = manager.get_vars(play=task.get_play(), task=task, host=manager._inventory.get_host("lying"))

    own = drop_facts(task, "lying", with_facts)

    assert {name: own.get(name) for name in ("instruct_content", "instruct_rate", "instruct_mode", "disk")} == {
        "instruct_content": "of the inventory",
        "instruct_rate": 5,
        "instruct_mode": None,
        "disk": None,
    }
    assert own["ansible_facts"]["disk"] == "full"
    assert own["vars"]["instruct_content"] == "of the inventory"
    assert drop_facts(task, "honest", task_vars) is task_vars


def test_texts_that_a_controller_stored_as_unsafe_are_texts() -> None:
    unsafe = {"__ansible_unsafe": "0.34.12"}
    hostvars = {"new": _host(version=unsafe, supported_commands=[unsafe])}

    assert select_environments(["new"], hostvars, "version == '0.34.12' && supported_commands[0] == version") == ["new"]


def test_a_damaged_environment_is_named() -> None:
    with pytest.raises(AnsibleFilterError, match=r"^new: fleetops_environment\.id is not a text"):
        select_environments(["new"], {"new": {"fleetops_environment": {"provider": "letta"}}})


def test_each_rule_is_checked_by_itself() -> None:
    rules = {"old": "!semver(version, '>=0.34')", "stale": "older_than(last_seen_at, '7d')", "never": "!id"}

    found = environment_findings(["server", "new", "old"], HOSTVARS, rules)

    assert [(entry["host"], entry["findings"]) for entry in found] == [("new", []), ("old", ["old", "stale"])]
    assert (found[1]["version"], found[1]["last_seen_at"]) == ("0.33.1", "2026-01-22T12:00:00.000Z")


def test_a_value_missing_from_the_inventory_is_unknown() -> None:
    [found] = environment_findings(["bare"], {"bare": _host(mode=None, version=None)}, {"no mode": "!mode"})

    assert (found["findings"], found["mode"], found["version"]) == (["no mode"], "unknown", "unknown")


def test_malformed_fields_are_in_each_entry() -> None:
    hostvars = {"odd": _host(invalid=["os", "version"]), "even": _host()}

    found = environment_findings(["odd", "even"], hostvars, {"malformed": "invalid"})

    assert [(entry["findings"], entry["invalid"]) for entry in found] == [(["malformed"], ["os", "version"]), ([], [])]


def test_a_fact_does_not_change_how_many_rows_were_dropped() -> None:
    loader = DataLoader()
    inventory = InventoryManager(loader, sources=[], parse=False)
    inventory.add_group("letta")
    inventory.groups["letta"].set_variable("letta_dropped_rows", 3)
    inventory.add_host("alpha", group="letta")
    manager = VariableManager(loader=loader, inventory=inventory)
    manager.set_host_facts("alpha", {"letta_dropped_rows": 0})

    assert count_dropped_rows(HostVars(inventory, manager, loader), "letta") == 3


def test_text_from_a_device_becomes_one_line() -> None:
    [found] = environment_findings(["odd"], {"odd": _host(version="1\n\x1b[2J" + "2" * 100)}, {})

    assert found["version"].isprintable()
    assert len(found["version"]) <= 60


@pytest.mark.parametrize(
    ("rules", "message"),
    [(["online"], "rules: must be names and expressions"), ({"typo": "moed"}, "rules: 'moed' names 'moed'")],
)
def test_invalid_rules_are_an_error(rules: Any, message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        environment_findings(["new"], HOSTVARS, rules)


@pytest.mark.parametrize(("provider", "expected"), [(None, ["new"]), ("letta", ["new"]), ("qoder", [])])
def test_rules_may_be_for_one_provider(provider: str | None, expected: list[str]) -> None:
    found = environment_findings(["new"], HOSTVARS, {}, provider=provider)

    assert [entry["host"] for entry in found] == expected
