"""playbooks/audit.yml: which hosts break the rules, and the exit code."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from .conftest import Ansible, Run, recap_of

NAME = "fleetops.environments.audit"
DAY = 86_400_000
# Name → fields of the row.
FLEET: dict[str, dict[str, Any]] = {
    "good": {"currentMode": "standard"},
    "risky": {"currentMode": "bypassPermissions"},
    "old": {"currentMode": "standard", "metadata": {"lettaCodeVersion": "0.33.1", "os": "linux"}},
    "odd": {"currentMode": "standard", "metadata": {"lettaCodeVersion": "{{ 1 + 1 }}", "os": "linux"}},
}


@pytest.fixture
def fleet(ansible: Ansible) -> dict[str, dict[str, Any]]:
    """Devices that each break one rule, and one that was last seen 30 days ago."""
    found = {name: ansible.sandbox.add_environment(connectionName=name, **row) for name, row in FLEET.items()}
    long_ago = int(time.time() * 1000) - 30 * DAY
    found["away"] = ansible.sandbox.add_environment(
        connectionName="away", currentMode="standard", lastSeenAt=long_ago, lastHeartbeat=long_ago, connectionId=None
    )
    return found


def _audit(ansible: Ansible, *arguments: str, limit: str = ",".join([*FLEET, "away"]), **variables: Any) -> Run:
    return ansible.playbook(NAME, "--limit", limit, "-e", json.dumps(variables), *arguments)


def _list_failed(run: Run) -> list[str]:
    return sorted(host for host, counts in recap_of(run).items() if counts["failed"])


def test_a_host_that_breaks_the_rules_fails_under_its_own_name(
    ansible: Ansible, fleet: dict[str, dict[str, Any]]
) -> None:
    before = ansible.sandbox.fleet()

    for arguments in ((), (), ("--check",)):
        run = _audit(
            ansible, *arguments, audit_min_version="0.34", audit_rules={"odd name": "starts_with(connection_name, 'o')"}
        )

        assert run.returncode == 2
        assert "WARNING" not in run.output
        assert _list_failed(run) == ["away", "odd", "old", "risky"]
        run.assert_error("risky: forbidden mode (online, mode bypassPermissions, version ")
        run.assert_error("old: old version, odd name (online, mode standard, version 0.33.1, last seen at ")
        run.assert_error("odd: old version, odd name (online, mode standard, version {{ 1 + 1 }}, last seen at ")
        run.assert_error("away: stale (offline, mode standard, version ")
        assert run.result("Summarise")["msg"] == (
            "5 environments: 4 break the rules; 1 stale; 2 old version; 2 odd name; 1 forbidden mode"
        )
        shown = run.result("Show the fleet")["msg"]
        assert {"status  online  4", "status  offline  1", "mode  standard  4", "version  {{ 1 + 1 }}  1"} <= {*shown}
    assert {entry["route"] for entry in ansible.sandbox.requests()} == {"list"}
    assert [entry["row"]["currentMode"] for entry in ansible.sandbox.fleet() if entry["name"] in fleet] == [
        entry["row"]["currentMode"] for entry in before if entry["name"] in fleet
    ]


def test_a_fleet_that_follows_the_rules_ends_with_exit_code_0(
    ansible: Ansible, fleet: dict[str, dict[str, Any]]
) -> None:
    run = _audit(ansible, limit="good,old,odd")
    lenient = _audit(ansible, audit_forbidden_modes=[], audit_stale_after="52w")
    without_age = _audit(ansible, limit="away", audit_stale_after="")

    for each, count in ((run, 3), (lenient, 5), (without_age, 1)):
        each.assert_quiet()
        assert each.result("Summarise")["msg"] == f"{count} environments: 0 break the rules"


def test_a_device_with_a_malformed_field_fails_and_the_field_is_named(
    ansible: Ansible, fleet: dict[str, dict[str, Any]]
) -> None:
    ansible.sandbox.patch(fleet["good"]["id"], metadata={"os": 17, "lettaCodeVersion": ["0.34"]})

    run = _audit(ansible, limit="good,old")

    assert run.returncode == 2
    assert _list_failed(run) == ["good"]
    run.assert_error("good: malformed (online, mode standard, version unknown, ", ", malformed os and version)")
    assert run.result("Summarise")["msg"] == "2 environments: 1 break the rules; 1 malformed"


def test_rows_that_were_dropped_fail_the_audit(ansible: Ansible, fleet: dict[str, dict[str, Any]]) -> None:
    ansible.sandbox.add_fault("invalid_rows", damage="no_id", rows=[0, 1])

    run = _audit(ansible, limit="good,old")

    assert run.returncode == 2
    run.assert_error("2 rows of the listing have no id that can be used")
    assert run.result("Summarise")["msg"] == "2 environments: 0 break the rules; 2 rows were dropped"


def test_rows_that_were_dropped_fail_the_audit_of_a_pattern_that_matches_no_host(
    ansible: Ansible, fleet: dict[str, dict[str, Any]]
) -> None:
    ansible.sandbox.add_fault("invalid_rows", damage="no_id", rows=[0, 1])

    run = _audit(ansible, audit_hosts="nobody", audit_allow_empty=True)

    assert run.returncode == 2
    run.assert_error("2 rows of the listing have no id that can be used")


@pytest.mark.parametrize("mode", ["unrestricted", "bypassPermissions", "fullAccess"])
def test_an_older_word_for_a_forbidden_mode_is_forbidden_too(
    ansible: Ansible, fleet: dict[str, dict[str, Any]], mode: str
) -> None:
    ansible.sandbox.patch(fleet["good"]["id"], currentMode=mode)

    for variables in ({}, {"audit_forbidden_modes": ["unrestricted"]}, {"audit_forbidden_modes": [mode]}):
        assert _list_failed(_audit(ansible, limit="good,old", **variables)) == ["good"]


def test_another_prefix_and_environments_of_another_provider(
    ansible: Ansible, fleet: dict[str, dict[str, Any]]
) -> None:
    qoder = ansible.sandbox.qoder
    qoder.add_environment(name="cloud")
    cloud = ansible.file("cloud.qoder.yml", "plugin: fleetops.environments.qoder\n")
    told = {"audit_hosts": "good,risky,qoder-cloud", "audit_hostvars_prefix": "my_", "audit_min_version": 0.1}

    run = ansible.playbook(
        NAME, "-i", str(cloud), "-e", json.dumps(told),
        source=ansible.source(hostvars_prefix="my_"),
        env={"QODER_MANAGED_BASE_URL": qoder.url, "QODER_ACCESS_TOKEN": qoder.key},
    )  # fmt: skip

    assert _list_failed(run) == ["risky"]
    assert run.result("Summarise")["msg"] == "2 environments: 1 break the rules; 1 forbidden mode"


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"audit_forbidden_modes": {"a": 1}}, "audit_forbidden_modes: must be a list, got {'a': 1}"),
        ({"audit_rules": ["online"]}, "audit_rules: must be a dict, got ['online']"),
        ({"audit_min_version": "new'"}, 'audit_min_version must be a version such as 0.34.12, got "new\'"'),
        ({"audit_stale_after": "a week"}, 'audit_stale_after must be an age such as 12h or 7d, got "a week"'),
        ({"audit_rules": {"typo": "moed"}}, "audit_rules: 'moed' names 'moed', which no environment has"),
        ({"audit_hosts": "nobody"}, "no target: audit_hosts=nobody matches no host"),
    ],
)
def test_an_error_is_one_line(
    ansible: Ansible, fleet: dict[str, dict[str, Any]], wrong: dict[str, Any], part: str
) -> None:
    run = _audit(ansible, **wrong)

    run.assert_error(part)
    assert run.returncode == 2
