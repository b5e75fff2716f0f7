"""Two environments that want one host name: who has it, and what the user is told."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from .conftest import Ansible, Run, plain

DAY = 86_400_000
HASHED = r"-[0-9a-f]{8}"


def _names(run: Run, provider: str) -> dict[str, str]:
    """Id → host name."""
    hosts = plain(json.loads(run.stdout)["_meta"]["hostvars"])
    return {host[f"{provider}_id"]: name for name, host in hosts.items()}


def _three_of_one_name(ansible: Ansible) -> tuple[str, str, str]:
    """The ids of an old row of a device that is gone, of the device as it is now, and of a device that came last."""
    now = int(time.time() * 1000)
    gone, live, last = (
        ansible.sandbox.add_environment(connectionName="build-01", firstSeenAt=now - age)["id"]
        for age in (60 * DAY, 30 * DAY, 0)
    )
    ansible.sandbox.offline(gone)
    return gone, live, last


@pytest.mark.covers("letta", "on_duplicate")
def test_a_device_that_takes_the_name_of_another_is_named_in_a_warning(ansible: Ansible) -> None:
    live = ansible.sandbox.add_environment(connectionName="build-01")["id"]
    ansible.file("host_vars/build-01.yml", "letta_allow_connection: false\n")
    before = ansible.hosts()["build-01"]
    hostile = ansible.sandbox.add_environment(connectionName="build-01")["id"]

    run = ansible.inventory("--list")

    assert before["letta_allow_connection"] is False
    run.assert_warning("on_duplicate", "build-01 (", live, hostile, "host_vars", "hostnames: [id]")
    names = _names(run, "letta")
    assert re.fullmatch(f"build-01{HASHED}", names[live])
    assert re.fullmatch(f"build-01{HASHED}", names[hostile])
    assert "letta_allow_connection" not in run.stdout


def test_a_warning_names_a_few_of_many_rows_of_each_name_and_every_name(ansible: Ansible) -> None:
    """A device that makes up names cannot hide the one that it takes."""
    wanted = ["build-01", *(f"noise-{number:02}" for number in range(30))]
    ids = {name: [ansible.sandbox.add_environment(connectionName=name)["id"] for _row in range(2)] for name in wanted}
    ids["build-01"] += [ansible.sandbox.add_environment(connectionName="build-01")["id"] for _row in range(10)]

    run = ansible.inventory("--list")

    run.assert_warning("on_duplicate", "build-01 (", ", and 7 more)", *wanted)
    assert sum(identity in run.stderr for identity in ids["build-01"]) == 5
    assert all(set(found) <= set(re.findall(r"[\w-]+", run.stderr)) for found in list(ids.values())[1:])


def test_a_flood_of_names_cuts_a_warning_after_the_names_of_old_devices(ansible: Ansible) -> None:
    now = int(time.time() * 1000)
    for name, age in [*((f"noise-{number:03}", 0) for number in range(120)), ("build-01", DAY)]:
        for younger in (0, 1):
            ansible.sandbox.add_environment(connectionName=name, firstSeenAt=now - age + younger)

    run = ansible.inventory("--list")
    all_names = ansible.inventory("--list", "-vvv")

    run.assert_warning("on_duplicate", "environments: build-01 (", "; and 21 more", "-vvv shows all")
    assert len(set(re.findall(r"noise-\d{3} \(", all_names.output))) == 120


@pytest.mark.covers("letta", "on_duplicate")
def test_first_seen_leaves_the_name_with_the_oldest_row_online_or_not(ansible: Ansible) -> None:
    gone, live, last = _three_of_one_name(ansible)

    run = ansible.inventory("--list", source=ansible.source(on_duplicate="first_seen"))
    listed = ansible.inventory("--list", source=ansible.source(on_duplicate="first_seen", online_only=True))

    run.assert_warning("on_duplicate", gone, live, last)
    names = _names(run, "letta")
    assert names[gone] == "build-01"
    assert all(re.fullmatch(f"build-01{HASHED}", names[identity]) for identity in (live, last))
    # A row that is not listed keeps no name.
    assert _names(listed, "letta")[live] == "build-01"


@pytest.mark.covers("letta", "on_duplicate")
def test_online_leaves_the_name_with_the_only_row_that_is_online(ansible: Ansible) -> None:
    gone, live, last = _three_of_one_name(ansible)
    source = ansible.source(on_duplicate="online")

    both = _names(ansible.inventory("--list", source=source), "letta")
    ansible.sandbox.offline(last)
    one = ansible.inventory("--list", source=source)
    ansible.sandbox.offline(live)
    ansible.sandbox.online(last)
    other = _names(ansible.inventory("--list", source=source), "letta")

    assert "build-01" not in both.values()
    one.assert_warning("on_duplicate", gone, live, last)
    assert _names(one, "letta")[live] == "build-01"
    # A device has the name as soon as the other one is offline, as the documentation says.
    assert other[last] == "build-01"


@pytest.mark.parametrize("rule", ["first_seen", "online"])
@pytest.mark.parametrize("name", ["localhost", "online", "mode_standard", "builders"])
def test_a_name_with_another_meaning_is_kept_by_no_row(ansible: Ansible, rule: str, name: str) -> None:
    added = [ansible.sandbox.add_environment(connectionName=name)["id"] for _number in range(2)]
    ansible.sandbox.offline(added[1])
    source = ansible.source(on_duplicate=rule, groups={"builders": "letta_os == 'linux'"})

    run = ansible.inventory("--list", source=source)

    run.assert_warning("on_duplicate", *added)
    assert all(re.fullmatch(f"{name}{HASHED}", _names(run, "letta")[identity]) for identity in added)


@pytest.mark.covers("qoder", "on_duplicate")
def test_environments_of_qoder_keep_a_name_by_the_same_rules(qoder: Ansible) -> None:
    first, second = (qoder.sandbox.qoder.add_environment(name="twin")["id"] for _number in range(2))
    listed: dict[str, Any] = {"include_archived": True}

    run = qoder.inventory("--list", source=qoder.source(on_duplicate="first_seen", **listed))
    both = qoder.inventory("--list", source=qoder.source(on_duplicate="online", **listed))
    qoder.sandbox.qoder.patch(first, archived_at="2026-01-31T12:00:00Z")
    one = qoder.inventory("--list", source=qoder.source(on_duplicate="online", **listed))

    for each in (run, both, one):
        each.assert_warning("on_duplicate", "qoder-twin (", first, second)
    assert _names(run, "qoder")[first] == "qoder-twin"
    assert re.fullmatch(f"qoder-twin{HASHED}", _names(run, "qoder")[second])
    assert "qoder-twin" not in _names(both, "qoder").values()
    assert _names(one, "qoder")[second] == "qoder-twin"


@pytest.mark.covers("letta", "hostnames")
def test_protection_by_name_needs_ids_as_names(ansible: Ansible) -> None:
    live = ansible.sandbox.add_environment(connectionName="build-01")["id"]
    ansible.sandbox.add_environment(connectionName="build-01")
    ansible.file(f"host_vars/{live}.yml", "letta_allow_connection: false\n")

    hosts = ansible.hosts(hostnames=["id"])

    assert hosts[live]["letta_allow_connection"] is False
