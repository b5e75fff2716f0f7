"""Both sources in one inventory directory: one fleet, in which no two environments are merged."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from .conftest import Ansible, awake, messages_of, plain, step

CONTRACT = "fleetops_environment"


def directory(ansible: Ansible, letta: dict[str, Any] | None = None, qoder: dict[str, Any] | None = None) -> Path:
    """An inventory directory with a source of each provider, each with these options."""
    folder = ansible.directory / "inventory"
    folder.mkdir()
    ansible.source("inventory/1.yml", **(letta or {}))
    ansible.source("inventory/2.yml", plugin="fleetops.environments.qoder", **(qoder or {}))
    return folder


def of(hosts: dict[str, dict[str, Any]], provider: str) -> dict[str, str]:
    """Id → host name, of one provider's hosts."""
    return {host[CONTRACT]["id"]: name for name, host in hosts.items() if host[CONTRACT]["provider"] == provider}


def test_a_directory_with_both_sources_is_one_fleet(ansible: Ansible) -> None:
    sandbox = ansible.sandbox

    listing = ansible.listing(directory(ansible))

    hosts = plain(listing["_meta"]["hostvars"])
    devices = {entry["id"] for entry in sandbox.fleet()}
    environments = {entry["id"] for entry in sandbox.qoder.environments() if not entry["archived"]}
    assert of(hosts, "letta").keys() == devices
    assert of(hosts, "qoder").keys() == environments
    assert len(hosts) == len(devices) + len(environments)
    assert set(listing["letta"]["hosts"]) == set(of(hosts, "letta").values())
    assert set(listing["qoder"]["hosts"]) == set(of(hosts, "qoder").values())
    for host in hosts.values():
        # No host has a variable of the other provider.
        provider = host[CONTRACT]["provider"]
        assert {name.partition("_")[0] for name in host} == {provider, "ansible", "fleetops"}
        url = sandbox.url if provider == "letta" else sandbox.qoder.url
        assert host[CONTRACT]["base_url"] == url


def test_hosts_of_the_same_name_are_not_merged(ansible: Ansible) -> None:
    device = ansible.sandbox.fleet()[0]
    twin = ansible.sandbox.qoder.add_environment(name=device["name"])
    like_a_group = ansible.sandbox.qoder.add_environment(name="letta")

    run = ansible.inventory("--list", source=directory(ansible, qoder={"hostname_prefix": ""}))

    run.assert_warning("on_duplicate", f"{device['name']} ({twin['id']})", f"letta ({like_a_group['id']})")
    hosts = plain(json.loads(run.stdout)["_meta"]["hostvars"])
    assert of(hosts, "letta")[device["id"]] == device["name"]
    assert re.fullmatch(rf"{device['name']}-[0-9a-f]{{8}}", of(hosts, "qoder")[twin["id"]])
    assert re.fullmatch(r"letta-[0-9a-f]{8}", of(hosts, "qoder")[like_a_group["id"]])
    assert len(hosts) == len(ansible.sandbox.fleet()) + len(of(hosts, "qoder"))


def test_a_device_named_like_a_group_of_the_other_source_gets_another_name(ansible: Ansible) -> None:
    """Otherwise it would get what is meant for the group."""
    named = {name: ansible.sandbox.add_environment(connectionName=name)["id"] for name in ("qoder", "not_archived")}

    run = ansible.inventory("--list", source=directory(ansible))

    assert run.stderr.count("[WARNING]: on_duplicate") == len(named), run.stderr
    assert all(f"{name} ({id_})" in run.stderr for name, id_ in named.items())
    listing = json.loads(run.stdout)
    devices = of(plain(listing["_meta"]["hostvars"]), "letta")
    for name, id_ in named.items():
        assert re.fullmatch(rf"{name}-[0-9a-f]{{8}}", devices[id_])
        assert devices[id_] in listing["letta"]["hosts"]
        assert name not in listing["_meta"]["hostvars"]
    assert not set(devices.values()) & {*listing["qoder"]["hosts"], *listing["not_archived"]["hosts"]}


def test_the_name_of_a_host_of_another_source_is_not_used_for_a_group(ansible: Ansible) -> None:
    folder = directory(ansible)
    (folder / "0.yaml").write_text("all: {hosts: {qoder: {}}}\n")

    run = ansible.inventory("--list", source=folder)

    run.assert_inventory_error("root_group: 'qoder' would be a group, and is a host of another source")


@pytest.mark.covers("qoder", "on_duplicate")
def test_a_name_used_by_the_other_source_fails_the_source_on_demand(ansible: Ansible) -> None:
    device = ansible.sandbox.fleet()[0]
    twin = ansible.sandbox.qoder.add_environment(name=device["name"])
    unique = {"hostnames": ["id"], "hostname_prefix": ""}

    source = directory(ansible, qoder={"hostname_prefix": "", "on_duplicate": "fail"})
    run = ansible.inventory("--list", source=source)
    ansible.source("inventory/2.yml", plugin="fleetops.environments.qoder", **unique, on_duplicate="fail")
    by_id = ansible.listing(source)

    run.assert_inventory_error("on_duplicate", device["name"], twin["id"])
    assert "plugins.inventory.letta" not in run.output
    assert of(plain(by_id["_meta"]["hostvars"]), "qoder")[twin["id"]] == twin["id"]


@pytest.mark.parametrize(("route", "blamed", "spared"), [("list", "letta", "qoder"), ("qoder_list", "qoder", "letta")])
def test_an_error_of_one_source_names_only_that_source(ansible: Ansible, route: str, blamed: str, spared: str) -> None:
    ansible.sandbox.add_fault("status", route=route, status=400)

    run = ansible.inventory("--list", source=directory(ansible))

    run.assert_inventory_error("400 Bad Request", "The sandbox was told to fail")
    assert f"plugins.inventory.{blamed}" in run.output
    assert f"plugins.inventory.{spared}" not in run.output


def test_one_play_addresses_both_sources(ansible: Ansible) -> None:
    sandbox = ansible.sandbox
    device = awake(sandbox)[0]
    environment = next(entry for entry in sandbox.qoder.environments() if not entry["archived"])
    send = {
        **step("instruct", "send_message", targets="{{ ansible_play_batch }}", content="hello", agent="agent_1"),
        "run_once": True,
    }
    which = {"name": "which", "ansible.builtin.debug": {"msg": "{{ fleetops_environment.provider }}"}}

    run = ansible.steps(
        which, send, hosts=f"{device['name']}:config_type_cloud", source=directory(ansible, qoder={"hostnames": "id"}),
        arguments=("--limit", f"{device['name']}:qoder-{environment['id']}"),
    )  # fmt: skip

    run.assert_quiet()
    providers = {entry["host"]: entry["result"]["msg"] for entry in run.results if entry["task"] == "which"}
    assert providers == {device["name"]: "letta", f"qoder-{environment['id']}": "qoder"}
    assert len(messages_of(sandbox, device)) == 1
    assert [(each["environment_id"], each["messages"]) for each in sandbox.qoder.sessions()] == [
        (environment["id"], ["hello"])
    ]


@pytest.mark.covers("send_message", "agent_name", "agent")
def test_a_name_finds_no_agent_of_qoder(ansible: Ansible) -> None:
    ansible.sandbox.name_agent("agent-7", "ops")
    device = awake(ansible.sandbox)[0]
    environment = next(entry for entry in ansible.sandbox.qoder.environments() if not entry["archived"])
    cloud = f"qoder-{environment['id']}"
    named = {"content": "hello", "agent_name": "ops"}

    run = ansible.steps(
        step("qoder", "send_message", targets=[cloud], **named),
        step("with its own", "send_message", targets=[cloud], **named, agent="agent_1"),
        step("both", "send_message", targets=[cloud, device["name"]], **named, agent="agent_1"),
        source=directory(ansible, qoder={"hostnames": "id"}),
    )

    assert run.result("qoder")["msg"] == "agent_name: agents of qoder have no names; give agent"
    assert run.result("with its own")["counts"]["sent"] == 1
    assert run.result("both")["counts"]["sent"] == 2
    assert run.result("both")["targets"][1]["agent_id"] == "agent-7"
