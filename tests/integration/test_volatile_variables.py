"""`volatile_variables: false`: hosts without the variables that change while nothing happens."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import AGENT, Ansible, plain

VOLATILE = {"letta_listed_at", "letta_last_heartbeat", "letta_last_seen_at"}
DAY = 86_400_000


def export(ansible: Ansible, source: Path) -> str:
    """What AWX reads of a source."""
    run = ansible.inventory("--list", "--export", source=source)
    assert run.returncode == 0, run.output
    return run.stdout


def move_heartbeats(ansible: Ansible) -> None:
    """Let each device that is online have been seen at another time."""
    for number, entry in enumerate(ansible.sandbox.fleet()):
        if entry["online"]:
            ansible.sandbox.age(entry["id"], 10 + number)


@pytest.mark.covers("letta", "volatile_variables")
def test_an_unchanged_fleet_is_exported_as_the_same_bytes(ansible: Ansible) -> None:
    lasting, usual = ansible.source("lasting.yml", volatile_variables=False), ansible.source("usual.yml")
    row, _other = (ansible.sandbox.add_environment() for _number in range(2))
    first, first_usual = export(ansible, lasting), export(ansible, usual)

    # The server lists this device after the other one now.
    ansible.sandbox.remove(row["id"])
    ansible.sandbox.add_environment(**row)
    move_heartbeats(ansible)
    second, second_usual = export(ansible, lasting), export(ansible, usual)

    assert second == first
    assert second_usual != first_usual
    hosts, all_of = (json.loads(text)["_meta"]["hostvars"] for text in (first, first_usual))
    assert hosts.keys() == all_of.keys()
    for name, host in hosts.items():
        assert all_of[name].keys() - host.keys() == VOLATILE
        assert {key: all_of[name][key] for key in host} == host


def test_a_change_of_the_fleet_is_exported(ansible: Ansible) -> None:
    source = ansible.source(volatile_variables=False)
    before = export(ansible, source)
    entry = next(entry for entry in ansible.sandbox.fleet() if entry["online"])

    ansible.sandbox.offline(entry["id"])

    assert export(ansible, source) != before


def test_a_malformed_time_that_moves_is_left_out_too(ansible: Ansible) -> None:
    source = ansible.source(volatile_variables=False, hostnames=["id"])
    exported = []
    entry = ansible.sandbox.fleet()[0]

    for moment in ("now", "a moment later"):
        ansible.sandbox.patch(entry["id"], lastHeartbeat=moment, metadata={"lastSeenAt": "kept"})
        exported.append(export(ansible, source))

    assert exported[0] == exported[1]
    host = plain(json.loads(exported[0])["_meta"]["hostvars"][entry["id"]])
    assert host["letta_invalid"] == ["last_heartbeat"]
    assert "lastHeartbeat" not in host["letta_metadata"]
    assert host["letta_metadata"]["lastSeenAt"] == "kept"


@pytest.mark.covers("qoder", "volatile_variables")
def test_the_update_of_a_qoder_environment_is_left_out(qoder: Ansible) -> None:
    source = qoder.source(volatile_variables=False, hostnames=["id"], filters="updated_at")
    hosts = json.loads(export(qoder, source))["_meta"]["hostvars"]

    assert hosts
    assert export(qoder, source) == export(qoder, source)
    assert all({"qoder_created_at", "qoder_status"} <= host.keys() for host in hosts.values())
    assert not any("qoder_updated_at" in host for host in hosts.values())


def test_expressions_of_the_source_see_what_the_hosts_do_not_have(ansible: Ansible) -> None:
    long_ago = int(time.time() * 1000) - 30 * DAY
    times = {"lastSeenAt": long_ago, "lastHeartbeat": long_ago}
    away = ansible.sandbox.add_environment(connectionName="away", connectionId=None, **times)
    listed = ansible.listing(
        volatile_variables=False,
        filters=["older_than(last_seen_at, '7d')"],
        hostnames=["join('-', [connection_name, short(last_seen_at)])"],
        compose={"seen_in": "letta_last_seen_at[:4]"},
        groups={"known_to_beat": "letta_last_heartbeat is not none"},
        keyed_groups=[{"prefix": "listed", "key": "letta_listed_at[:4]"}],
        strict=True,
    )

    hosts = listed["_meta"]["hostvars"]
    [(name, host)] = [(name, host) for name, host in hosts.items() if host["letta_id"] == away["id"]]

    assert name.startswith("away-")
    assert not any(host["letta_online"] for host in hosts.values())
    assert not VOLATILE & host.keys()
    assert plain(host["seen_in"]) == time.strftime("%Y", time.gmtime(long_ago / 1000))
    assert name in listed["known_to_beat"]["hosts"]
    assert [group for group in listed if group.startswith("listed_2")]


def test_hosts_are_not_chosen_by_what_the_inventory_leaves_out(ansible: Ansible) -> None:
    """A missing time is older than nothing, so the negation of the filter would be true of every host."""
    told: dict[str, Any] = {"instruct_content": "Report.", "instruct_agent_id": AGENT}
    told["instruct_filters"] = ["!older_than(last_seen_at, '7d')"]
    source = ansible.source(volatile_variables=False)

    run = ansible.playbook("fleetops.environments.instruct", "-e", json.dumps(told), source=source)

    run.assert_error(
        "instruct_filters: ", "reads last_seen_at, which the inventory leaves out (volatile_variables: false)"
    )
    assert ansible.sandbox.received() == {}


def test_hosts_are_chosen_by_what_the_inventory_has_under_any_prefix(ansible: Ansible) -> None:
    run = ansible.steps(
        {
            "name": "it",
            "ansible.builtin.debug": {
                "msg": "{{ groups.letta | fleetops.environments.select_environments(hostvars, 'online', 'my_') }}"
            },
        },
        source=ansible.source(volatile_variables=False, hostvars_prefix="my_"),
    )

    run.assert_quiet()
    assert sorted(run.result("it")["msg"]) == sorted(e["name"] for e in ansible.sandbox.fleet() if e["online"])


def test_the_audit_says_that_it_did_not_look_for_stale_devices(ansible: Ansible) -> None:
    devices = len(ansible.sandbox.fleet())
    told = {"audit_forbidden_modes": [], "audit_rules": {"never beat": "!last_heartbeat"}}
    source = ansible.source(volatile_variables=False)

    run = ansible.playbook("fleetops.environments.audit", "-e", json.dumps(told), source=source)

    run.assert_quiet()
    assert run.result("Summarise")["msg"] == (
        f"{devices} environments: 0 break the rules; {devices} not looked at for stale; {devices} not looked at for "
        "never beat (volatile_variables of the inventory is false)"
    )


def test_a_host_that_breaks_a_rule_fails_without_the_time_at_which_it_was_seen(ansible: Ansible) -> None:
    entry = ansible.sandbox.add_environment(connectionName="risky", currentMode="unrestricted")
    source = ansible.source(volatile_variables=False)

    run = ansible.playbook("fleetops.environments.audit", "--limit", "risky", source=source)

    assert entry["connectionName"] == "risky"
    run.assert_error("risky: forbidden mode (online, mode unrestricted, version ", ", last seen not looked at)")


def test_the_report_says_that_it_did_not_look_when_devices_were_seen(ansible: Ansible) -> None:
    source = ansible.source(volatile_variables=False, hostvars_prefix="own_")
    play = {"hosts": "letta"}
    files = {"json_path": "fleet.json", "path": "fleet.html"}

    run = ansible.task("fleet_report", play=play, keywords={"run_once": True}, source=source, **files)

    run.assert_quiet()
    note = "; last_seen_at and listed_at not looked at (volatile_variables of the inventory is false)"
    assert run.result("it")["msg"].endswith(note)
    data = json.loads((ansible.directory / "fleet.json").read_text())
    assert data["fleet"]["not_looked_at"] == ["last_seen_at", "listed_at"]
    assert data["fleet"]["listed_at"] is None
    assert {row["last_seen_at"] for row in data["environments"]} == {None}
    assert data["fleet"]["counts"]["version"].keys() != {"unknown"}
