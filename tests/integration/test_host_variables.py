"""A target's variable may be set anywhere that Ansible allows, and applies to that host alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import Ansible, Run, step

NAME = "letta_agent_id"
# Sets the variable to the name of its host and one more word.
TEMPLATE = {NAME: "{{ inventory_hostname }} templated"}
PLUGIN = f"""
from ansible.inventory.host import Host
from ansible.plugins.vars import BaseVarsPlugin

class VarsModule(BaseVarsPlugin):
    # Of several entities it sees only the first.
    def get_vars(self, loader, path, entities):
        is_one = any(isinstance(first, Host) and first.name == "HOST" for first in entities[:1])
        return {{"{NAME}": "of the plugin"}} if is_one else {{}}
"""

Place = dict[str, Any]


@pytest.fixture
def hosts(ansible: Ansible) -> list[str]:
    """The names of the hosts; none of their groups has variables."""
    return [entry["name"] for entry in ansible.sandbox.fleet()]


def source(ansible: Ansible, **options: Any) -> Path:
    """The inventory in its own directory, so that files beside it are not beside the playbook."""
    return ansible.file("fleet/fleet.letta.yml", yaml.safe_dump({"plugin": "fleetops.environments.letta", **options}))


def play(name: str, host: str, *before: Mapping[str, Any], **keywords: Any) -> dict[str, Any]:
    """A play on this machine alone whose last task shows which target a message to a host would reach."""
    keywords.setdefault("hosts", "localhost")
    return {"gather_facts": False, **keywords, "tasks": [*before, shown(name, host)]}


def shown(name: str, host: str, **keywords: Any) -> dict[str, Any]:
    task = step(name, "send_message", targets=[host], content="Hello")
    return {**task, "check_mode": True, "run_once": True, **keywords}


def agent_in(run: Run, name: str) -> Any:
    """The target that a message would reach."""
    return run.result(name)["targets"][0]["agent_id"]


def text(**variables: Any) -> str:
    return yaml.safe_dump(variables)


# File → text, with HOST for the host with the variable; `arguments` and `options` belong to the command and
# to the inventory source.
BESIDE: dict[str, Place] = {
    "a group of another source": {"fleet/groups.ini": f"[some]\nHOST\n[some:vars]\n{NAME}=found"},
    "a group's parent": {"fleet/groups.ini": f"[some]\nHOST\n[more:children]\nsome\n[more:vars]\n{NAME}=found"},
    "all of another source": {"fleet/groups.ini": f"[all:vars]\n{NAME}=found"},
    "another source, ini": {"fleet/more.ini": f"HOST {NAME}=found"},
    "another source, yaml": {"fleet/more.yaml": yaml.safe_dump({"all": {"hosts": {"HOST": {NAME: "found"}}}})},
    "group_vars beside the inventory": {"fleet/group_vars/letta.yml": text(**{NAME: "found"})},
    "group_vars for all beside the inventory": {"fleet/group_vars/all/some.yml": text(**{NAME: "found"})},
    "host_vars beside the inventory": {"fleet/host_vars/HOST.yml": text(**{NAME: "found"})},
    "group_vars beside the playbook": {"group_vars/letta/some.yml": text(**{NAME: "found"})},
    "host_vars beside the playbook": {"host_vars/HOST": text(**{NAME: "found"})},
    "a template beside the inventory": {
        "fleet/group_vars/all.yml": text(**{NAME: "{{ found_in }}", "found_in": "found"})
    },
    "compose": {"options": {"compose": {NAME: "'found'"}}},
    "extra variables": {"arguments": ["-e", f"{NAME}=found"]},
    "a file of extra variables": {"extra.yml": text(**{NAME: "found"}), "arguments": ["-e", "@extra.yml"]},
    "a vars plugin": {"vars_plugins/own.py": PLUGIN.replace("of the plugin", "found")},
}


@pytest.mark.parametrize("place", BESIDE)
def test_a_variable_set_outside_the_play_is_used(ansible: Ansible, hosts: list[str], place: str) -> None:
    files = dict(BESIDE[place])
    arguments, options = files.pop("arguments", []), files.pop("options", {})
    for name, content in files.items():
        path = ansible.file(name.replace("HOST", hosts[0]), content.replace("HOST", hosts[0]))
        if path.suffix in (".ini", ".yaml"):
            arguments = [*arguments, "-i", str(path)]

    # The second of two targets.
    targets = {"hosts": "localhost", "gather_facts": False, "tasks": [shown("both", hosts[1])]}
    targets["tasks"][0]["fleetops.environments.send_message"]["targets"] = [hosts[1], hosts[0]]
    run = ansible.playbook(
        [play("one", hosts[0]), targets],
        *arguments,
        source=source(ansible, **options),
        env={"ANSIBLE_INVENTORY_ENABLED": "fleetops.environments.letta,yaml,ini"},
    )

    assert agent_in(run, "one") == "found"
    other, same = run.result("both")["targets"]
    assert same["agent_id"] == "found"
    of_one_host = ("host_vars", "another source,", "a group of", "a group's", "a vars plugin")
    assert other["agent_id"] == (None if place.startswith(of_one_host) else "found")


def test_a_variable_set_by_a_play_is_used(ansible: Ansible, hosts: list[str]) -> None:
    ansible.file("files.yml", text(**{NAME: "vars_files"}))
    ansible.file("roles/given/defaults/main.yml", text(**{NAME: "role defaults"}))
    ansible.file("roles/firm/vars/main.yml", text(**{NAME: "role vars"}))
    task = {NAME: "task"}
    run = ansible.playbook(
        [
            play("nothing", hosts[0]),
            play("play", hosts[0], vars={NAME: "play"}),
            play("templated", hosts[0], vars=TEMPLATE),
            play("vars_files", hosts[0], vars_files=["files.yml"]),
            play("prompt", hosts[0], vars_prompt=[{"name": NAME, "default": "vars_prompt", "private": False}]),
            play("defaults", hosts[0], roles=["given"]),
            play("role", hosts[0], roles=["firm"]),
            {"hosts": "localhost", "gather_facts": False, "tasks": [{**shown("task", hosts[0]), "vars": task}]},
            {
                "hosts": "localhost",
                "gather_facts": False,
                "tasks": [{"vars": {NAME: "block"}, "block": [shown("block", hosts[0])]}],
            },
            play("nothing any more", hosts[0]),
        ],
        source=source(ansible),
    )

    assert {name: agent_in(run, name) for name in ("nothing", "nothing any more")} == {
        "nothing": None,
        "nothing any more": None,
    }
    assert {
        name: agent_in(run, name) for name in ("play", "templated", "vars_files", "prompt", "defaults", "role")
    } == {
        "play": "play",
        "templated": f"{hosts[0]} templated",
        "vars_files": "vars_files",
        "prompt": "vars_prompt",
        "defaults": "role defaults",
        "role": "role vars",
    }
    assert (agent_in(run, "task"), agent_in(run, "block")) == ("task", "block")


def test_a_variable_set_by_tasks_for_a_host_is_used(ansible: Ansible, hosts: list[str]) -> None:
    ansible.file("included.yml", text(**{NAME: "include_vars"}))
    ansible.file("fleet/group_vars/made.yml", text(other="{{ inventory_hostname }}"))
    facts, cached, included, registered, delegated, added, named = hosts[:7]

    def on(host: str, task: Mapping[str, Any]) -> dict[str, Any]:
        return {"hosts": host, "gather_facts": False, "tasks": [task]}

    delegation = {"delegate_to": delegated, "delegate_facts": True}
    run = ansible.playbook(
        [
            on(facts, {"ansible.builtin.set_fact": {NAME: "set_fact"}}),
            on(cached, {"ansible.builtin.set_fact": {NAME: "cached", "cacheable": True}}),
            on(included, {"ansible.builtin.include_vars": "included.yml"}),
            on(registered, {"ansible.builtin.debug": {"msg": "seen"}, "register": NAME}),
            on("localhost", {"ansible.builtin.set_fact": {NAME: "delegated"}, **delegation}),
            on("localhost", {"ansible.builtin.add_host": {"name": added, NAME: "add_host"}}),
            on(named, {"ansible.builtin.set_fact": TEMPLATE}),
            *(play(host, host) for host in hosts[:8]),
        ],
        source=source(ansible),
        env={"ANSIBLE_CACHE_PLUGIN": "jsonfile", "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(ansible.directory / "facts")},
    )
    later = ansible.playbook(
        [play("later", cached)],
        source=source(ansible),
        env={"ANSIBLE_CACHE_PLUGIN": "jsonfile", "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(ansible.directory / "facts")},
    )

    shown_as = dict(zip(hosts, (agent_in(run, host) for host in hosts[:8]), strict=False))
    assert '"msg": "seen"' in shown_as.pop(registered)
    assert shown_as == {
        facts: "set_fact",
        cached: "cached",
        included: "include_vars",
        delegated: "delegated",
        added: "add_host",
        named: f"{named} templated",
        hosts[7]: None,
    }
    # In another run nobody can tell it from a fact that a device returned.
    assert agent_in(later, "later") is None


def test_variable_files_of_a_group_that_a_play_creates_are_used(ansible: Ansible, hosts: list[str]) -> None:
    ansible.file("fleet/group_vars/made.yml", text(**{NAME: "of the group"}))
    run = ansible.playbook(
        [
            {"hosts": hosts[0], "gather_facts": False, "tasks": [{"ansible.builtin.group_by": {"key": "made"}}]},
            play("member", hosts[0]),
            play("other", hosts[1]),
        ],
        source=source(ansible),
    )

    assert (agent_in(run, "member"), agent_in(run, "other")) == ("of the group", None)


def test_the_entry_of_a_target_overrides_a_variable_that_cannot_be_read(ansible: Ansible, hosts: list[str]) -> None:
    ansible.file("fleet/group_vars/all.yml", text(**{NAME: "{{ nope }}"}))
    entry = shown("entry", hosts[0])
    entry["fleetops.environments.send_message"]["targets"] = [{"host": hosts[0], "agent_id": "of the entry"}]
    plain = {"hosts": "localhost", "gather_facts": False, "tasks": [entry, shown("none", hosts[0])]}
    run = ansible.playbook([plain], source=source(ansible))

    assert agent_in(run, "entry") == "of the entry"
    assert run.result("none")["msg"] == f"{NAME}: cannot be read: 'nope' is undefined"


def test_the_environment_of_a_host_comes_from_its_inventory_and_is_never_rendered(
    ansible: Ansible, hosts: list[str]
) -> None:
    listing = ansible.listing(source(ansible))
    contracts = {name: values["fleetops_environment"] for name, values in listing["_meta"]["hostvars"].items()}
    contracts[hosts[0]]["self_update"] = {"supported": "{{ lookup('pipe', 'touch rendered') }}"}
    # A file in which every text is trusted, as in an inventory that a user writes by hand.
    known = {name: {"fleetops_environment": contract} for name, contract in contracts.items()}
    elsewhere = {**contracts[hosts[1]], "id": "another"}
    ansible.file(f"host_vars/{hosts[1]}.yml", text(fleetops_environment=elsewhere))
    static = ansible.file("fleet/static.yaml", yaml.safe_dump({"all": {"hosts": known}}))
    run = ansible.playbook([play(host, host) for host in hosts[:2]], source=static)

    ids = [run.result(host)["targets"][0]["id"] for host in hosts[:2]]
    assert ids == [entry["id"] for entry in ansible.sandbox.fleet()[:2]]
    assert not (ansible.directory / "rendered").exists()
