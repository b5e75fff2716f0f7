"""Devices that describe themselves with harmful values: usable, unique, harmless hosts, here and in AWX."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.sandbox.process import Sandbox

from . import awx
from .conftest import FROM_CORE, Ansible, Run, plain
from .hostile import TEMPLATE, become_hostile

NO_LOGIN = "this-host-has-no-login.write-gather_facts-false.or-connection-relay-in-its-source"

USABLE = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9._-]{0,254}")
STATIC = {"web": {"hosts": {"web1": {"role": "real"}, "site.example.com": {"role": "real"}}}}
CONSTRUCTED: dict[str, Any] = {
    "groups": {"builders": "letta_metadata.machine is defined"},
    "keyed_groups": [{"key": "letta_git_branch | default('none', true)", "prefix": "branch"}],
    "compose": {"said": "letta_git_branch"},
}


@pytest.fixture
def hostile(ansible: Ansible) -> dict[str, str]:
    """A fleet of hostile devices only: id → its name."""
    return become_hostile(ansible.sandbox)


def _source(ansible: Ansible, **options: Any) -> Path:
    return ansible.source(**CONSTRUCTED, group_by=["mode", "os", "version", "status", "command"], **options)


def _static(ansible: Ansible) -> Path:
    path = ansible.directory / "static.yaml"
    path.write_text(yaml.safe_dump(STATIC))
    return path


def _assert_nothing_ran(ansible: Ansible) -> None:
    assert list(ansible.directory.rglob("PWNED")) == []


def _plays(*names: str) -> list[dict[str, Any]]:
    """Tasks that users write to look at hosts; the next task runs even if one fails."""
    looks: list[dict[str, Any]] = [
        {"var": "hostvars[inventory_hostname]"},
        {"msg": "{{ letta_connection_name }}"},
        {"var": "{{ letta_connection_name }}"},
    ]
    deeper: list[dict[str, Any]] = [
        {"msg": "{{ letta_metadata }} {{ letta_extra }} {{ fleetops_environment }} {{ said | default('') }}"},
        {"msg": "{{ group_names }} {{ groups }}"},
        {"msg": "{{ letta_metadata | dict2items | map(attribute='key') | join(' ') }}"},
        *({"var": "{{ " + name + " }}"} for name in names),
    ]

    def play(hosts: str, start: str, tasks: list[dict[str, Any]]) -> dict[str, Any]:
        looked = [
            {"name": f"{start} {index}", "debug": look, "ignore_errors": True} for index, look in enumerate(tasks)
        ]
        return {"hosts": hosts, "gather_facts": False, "tasks": looked}

    return [play("letta", "look", looks), play("letta[-4:]", "deeper look", deeper)]


INDIRECT = ("letta_git_branch", "letta_mode", "letta_supported_commands[1]", "letta_id")


def test_devices_with_any_names_are_usable_unique_harmless_hosts(ansible: Ansible, hostile: dict[str, str]) -> None:
    run = ansible.inventory("-i", str(_source(ansible)), "--list", source=_static(ansible))

    run.assert_warning("on_duplicate: host names that are taken or come twice", "site.example.com (", "web1 (")
    listing = json.loads(run.stdout)
    hosts = {name: host for name, host in plain(listing["_meta"]["hostvars"]).items() if "letta_id" in host}
    assert {host["letta_id"]: host["letta_connection_name"] for host in hosts.values()} == hostile
    groups = {child for entry in listing.values() for child in entry.get("children", [])} | {"all"}
    assert not hosts.keys() & (groups | {"localhost", "127.0.0.1", "::1", "_meta", "web1", "site.example.com"})
    assert not {name.casefold() for name in hosts} & {"localhost", "all", "ungrouped"}
    for name, host in hosts.items():
        assert USABLE.fullmatch(name), name
        assert re.search("[A-Za-z0-9]", name), name
        assert ".." not in Path(name).parts
        assert re.fullmatch(rf"{NO_LOGIN}\.[A-Za-z0-9-]{{1,63}}\.letta\.invalid", host["ansible_host"])
    assert len({host["ansible_host"] for host in hosts.values()}) == len(hosts)
    assert all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", group) for group in groups)
    # The hosts of the other source are unchanged.
    static = {name: variables | FROM_CORE for name, variables in STATIC["web"]["hosts"].items()}
    assert {name: listing["_meta"]["hostvars"][name] for name in static} == static
    assert sorted(listing["web"]["hosts"]) == sorted(STATIC["web"]["hosts"])
    assert hosts["twin-" + _suffix(hosts, "twin")]["letta_connection_name"] == "twin"
    _assert_nothing_ran(ansible)


def _suffix(hosts: dict[str, Any], start: str) -> str:
    return next(name.removeprefix(f"{start}-") for name in hosts if re.fullmatch(rf"{start}-[0-9a-f]{{8}}", name))


def test_no_code_of_a_device_runs_in_a_play(ansible: Ansible, hostile: dict[str, str]) -> None:
    run = ansible.playbook(_plays(*INDIRECT), source=_source(ansible))

    assert run.returncode == 0, run.output
    _assert_nothing_ran(ansible)
    shown = [entry["result"]["msg"] for entry in run.results if entry["task"] == "look 1"]
    assert sorted(shown) == sorted(hostile.values())


def test_no_connection_is_opened_to_a_name_that_a_device_chose(ansible: Ansible) -> None:
    added = ansible.sandbox.add_environment(connectionName="localhost")

    play = {"hosts": "localhost-*", "gather_facts": False, "tasks": [{"name": "dial", "ansible.builtin.ping": {}}]}
    run = ansible.playbook([play])

    assert run.returncode == 4, run.output
    (entry,) = run.results
    assert entry["outcome"] == "unreachable"
    # OpenSSH shows the first hundred characters.
    assert f"{NO_LOGIN}.{added['id']}.letta.invalid"[:100] in entry["result"]["msg"]


def test_a_device_cannot_make_itself_a_host_of_another_letta_source(ansible: Ansible, other_sandbox: Sandbox) -> None:
    victim = other_sandbox.fleet()[0]
    impostor = ansible.sandbox.add_environment(connectionName=victim["name"])
    first = ansible.source("first.yml", base_url=other_sandbox.url)

    run = ansible.inventory("-i", str(ansible.source("second.yml")), "--list", source=first)

    run.assert_warning("on_duplicate", victim["name"], impostor["id"])
    hosts = json.loads(run.stdout)["_meta"]["hostvars"]
    assert hosts[victim["name"]]["letta_id"] == victim["id"]
    assert hosts[victim["name"]]["fleetops_environment"]["base_url"] == other_sandbox.url
    (other,) = (name for name, host in hosts.items() if host["letta_id"] == impostor["id"])
    assert re.fullmatch(rf"{victim['name']}-[0-9a-f]{{8}}", other)


@pytest.mark.covers("letta", "on_duplicate", "keyed_groups", "groups")
@pytest.mark.parametrize("name", ["architecture_x64", "builders", "mode_standard", "version_0_34", "fleet"])
def test_a_device_named_like_a_group_gets_a_suffix(ansible: Ansible, name: str) -> None:
    added = ansible.sandbox.add_environment(connectionName=name, metadata={"machine": {"architecture": "x64"}})
    options: dict[str, Any] = {
        "keyed_groups": [
            {
                "key": "letta_metadata.machine.architecture | default('none')",
                "prefix": "architecture",
                "parent_group": "fleet",
            }
        ],
        "groups": {"builders": "letta_os == 'linux'"},
    }

    run = ansible.inventory("--list", source=ansible.source(**options))

    run.assert_warning("on_duplicate", name, added["id"])
    hosts = json.loads(run.stdout)["_meta"]["hostvars"]
    (host,) = (host for host, variables in hosts.items() if variables["letta_id"] == added["id"])
    assert re.fullmatch(rf"{name}-[0-9a-f]{{8}}", host)
    assert len(hosts) == len(ansible.sandbox.fleet())


def test_a_device_cannot_replace_a_group_that_currently_has_no_host(ansible: Ansible) -> None:
    # A play for `mode_plan` selects the devices in that mode, and no host when there are none.
    plan = next(entry for entry in ansible.sandbox.fleet() if entry["row"].get("currentMode") == "plan")
    ansible.sandbox.remove(plan["id"])
    names = ["mode_plan", "os_plan9", "version_9_9", "offline"]
    for name in names:
        ansible.sandbox.add_environment(connectionName=name)
    for entry in ansible.sandbox.fleet():
        if not entry["online"]:
            ansible.sandbox.remove(entry["id"])

    run = ansible.inventory("--list")

    run.assert_warning("on_duplicate", *names)
    hosts = json.loads(run.stdout)["_meta"]["hostvars"]
    assert not hosts.keys() & set(names)
    assert {host["letta_connection_name"] for host in hosts.values()} >= set(names)


TRUSTED = {"__ansible_type": "_AnsibleTaggedStr", "value": TEMPLATE, "tags": [{"__ansible_type": "TrustedAsTemplate"}]}
MARKED: dict[str, dict[str, Any]] = {
    # the marks of values in Ansible's own JSON
    "trusted": TRUSTED,
    "unsafe": {"__ansible_unsafe": TEMPLATE},
    "vault": {"__ansible_vault": "$ANSIBLE_VAULT;1.1;AES256\n3030"},
}


def test_metadata_that_looks_like_ansibles_own_marks_is_data(ansible: Ansible, subtests: pytest.Subtests) -> None:
    sandbox = ansible.sandbox
    for entry in sandbox.fleet():
        sandbox.remove(entry["id"])
    for kind, mark in MARKED.items():
        sandbox.add_environment(connectionName=kind, metadata={"evil": mark, "machine": {"evil": mark}}, evil=mark)
    cache = {"cache_plugin": "ansible.builtin.jsonfile", "cache_connection": str(ansible.directory / "cache")}
    plays = _plays("letta_metadata.evil", "letta_metadata.machine.evil")

    def check(run: Run) -> None:
        ran = list(ansible.directory.rglob("PWNED"))
        for path in ran:
            path.unlink()
        assert ran == []
        assert run.returncode == 0, run.output
        assert {entry["host"] for entry in run.results} == MARKED.keys()

    with subtests.test("fresh"):
        check(ansible.playbook(plays, source=ansible.source(cache=True, **cache)))
    sandbox.clear_requests()
    with subtests.test("from the cache"):
        check(ansible.playbook(plays, source=ansible.source(cache=True, **cache)))
        assert sandbox.requests() == []
    exported = ansible.inventory("--list", "--export")
    with subtests.test("in a job of AWX"):
        check(_as_awx_runs_it(ansible, exported, plays))


@pytest.mark.parametrize("depth", [200, 800])
def test_deeply_nested_metadata_breaks_no_listing(ansible: Ansible, depth: int) -> None:
    names = {entry["name"] for entry in ansible.sandbox.fleet()}
    deep: dict[str, Any] = {}
    for _level in range(depth):
        deep = {"deeper": deep}
    ansible.sandbox.add_environment(metadata={"deep": deep})

    run = ansible.inventory("--list", "--export")

    assert run.returncode == 0, run.output[-2000:]
    assert json.loads(run.stdout)["_meta"]["hostvars"].keys() >= names


def test_half_a_character_breaks_no_listing(ansible: Ansible) -> None:
    # A lone surrogate: JavaScript sends it as an escape, and no file or terminal can hold it.
    names = {entry["name"] for entry in ansible.sandbox.fleet()}
    identity = next(iter(ansible.sandbox.fleet()))["id"]
    _patch_with_surrogates(ansible.sandbox, identity)
    cache = {"cache_plugin": "ansible.builtin.jsonfile", "cache_connection": str(ansible.directory / "cache")}

    runs = [
        ansible.inventory("--list", "--export", "--output", "x.json"),
        ansible.inventory("--list", source=ansible.source(group_by=["git_branch"])),
        *(ansible.inventory("--list", source=ansible.source(cache=True, **cache)) for _run in range(2)),
    ]

    for run in runs:
        run.assert_quiet()
    hosts = json.loads((ansible.directory / "x.json").read_text())["_meta"]["hostvars"]
    assert len(hosts) == len(names)


def _patch_with_surrogates(sandbox: Sandbox, identity: str) -> None:
    # The sandbox accepts the row and then cannot print it; the API's answer is escaped, as JSON may be.
    content = json.dumps({"connectionName": "half\ud800", "metadata": {"gitBranch": "half\udc00", "\ud800": "\ud800"}})
    sandbox.control.request("PATCH", f"/_sandbox/environments/{identity}", content=content)


@pytest.mark.covers("letta", "hostnames")
def test_awx_imports_a_hostile_fleet_and_runs_a_job_over_it(ansible: Ansible, hostile: dict[str, str]) -> None:
    run = awx.run_inventory(ansible, _source(ansible, hostnames=["id"]), ansible.directory / "x.json")

    run.assert_warning("on_duplicate", "localhost (localhost)")
    assert run.stdout == ""
    assert ansible.sandbox.api_key not in run.output
    text = (ansible.directory / "x.json").read_text()
    assert ansible.sandbox.api_key not in text
    listing = json.loads(text)
    hosts = listing["_meta"]["hostvars"]
    assert {plain(host["letta_id"]) for host in hosts.values()} == hostile.keys()
    for name, host in hosts.items():
        assert USABLE.fullmatch(name)
        assert len(name) <= 512
        assert host["letta_online"] is True
        assert isinstance(host["letta_id"], str) or not re.fullmatch("[A-Za-z0-9._:/@+-]+", plain(host["letta_id"]))
    assert {name for name in hosts if name.startswith("environment-")} >= {
        identity for identity in hostile if identity.startswith("environment-")
    }
    assert r"\u0000" not in json.dumps(list(hosts))
    _assert_nothing_ran(ansible)

    job = _as_awx_runs_it(ansible, run, _plays(*INDIRECT), text)

    assert job.returncode == 0, job.output
    _assert_nothing_ran(ansible)


def _as_awx_runs_it(ansible: Ansible, exported: Run, plays: list[dict[str, Any]], text: str | None = None) -> Run:
    """AWX stores the export and gives it to the job as an inventory script that prints it."""
    stored = ansible.directory / "stored.json"
    stored.write_text(exported.stdout if text is None else text)
    script = ansible.directory / "inventory.sh"
    script.write_text(f"#!/bin/sh\ncat '{stored}'\n")
    script.chmod(0o755)
    return ansible.playbook(plays, source=script, env={"ANSIBLE_INVENTORY_ENABLED": "script"})


def test_awx_gets_an_error_and_no_file_when_the_listing_fails(ansible: Ansible) -> None:
    ansible.sandbox.add_fault("html_200", route="list", nth=2)

    run = awx.run_inventory(ansible, ansible.source(page_size=5), ansible.directory / "x.json")

    run.assert_inventory_error("HTML page")
    assert not (ansible.directory / "x.json").exists()
