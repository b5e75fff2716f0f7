"""Wrong sources, and every failure of the list call: recovered, or failed as a whole."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from .conftest import Ansible, plain

WRONG_OPTIONS: list[tuple[dict[str, Any], list[str]]] = [
    # an unknown option, with the nearest name
    ({"onlineonly": True}, ["onlineonly", "online_only"]),
    # invalid values
    ({"online_only": "perhaps"}, ["online_only", "perhaps"]),
    ({"source": "everywhere"}, ["source", "everywhere"]),
    ({"page_size": 0}, ["page_size", "0"]),
    ({"page_size": "many"}, ["page_size", "many"]),
    ({"on_duplicate": "merge"}, ["on_duplicate", "merge"]),
    ({"on_invalid": "ignore"}, ["on_invalid", "ignore"]),
    ({"trust": "all"}, ["trust", "all"]),
    ({"fail_on_empty": "perhaps"}, ["fail_on_empty", "perhaps"]),
    ({"group_by": ["mode", "colour"]}, ["group_by", "colour"]),
    ({"group_prefix": "a-b"}, ["group_prefix", "a-b"]),
    ({"root_group": "all"}, ["root_group", "all"]),
    ({"root_group": "my fleet"}, ["root_group", "my fleet"]),
    ({"root_group": "online"}, ["root_group", "online"]),
    ({"hostvars_prefix": "ansible_"}, ["hostvars_prefix", "ansible_"]),
    ({"hostvars_prefix": "Ansible_x"}, ["hostvars_prefix", "Ansible_x"]),
    ({"hostvars_prefix": "a-b"}, ["hostvars_prefix", "a-b"]),
    ({"timeout": 0}, ["timeout", "0"]),
    ({"timeout": "soon"}, ["timeout", "soon"]),
    ({"deadline": -1}, ["deadline", "-1"]),
    ({"retries": -1}, ["retries", "-1"]),
    ({"validate_certs": "perhaps"}, ["validate_certs", "perhaps"]),
    ({"base_url": "api.letta.com"}, ["base_url", "api.letta.com"]),
    ({"base_url": "ftp://api.letta.com"}, ["base_url", "ftp://api.letta.com"]),
    ({"base_url": "{{ nothing }}"}, ["base_url", "nothing"]),
    # invalid expressions, and names that no row has
    ({"filters": ["mode =="]}, ["filters", "mode =="]),
    ({"filters": ["moed == 'standard'"]}, ["filters", "moed", "'mode'"]),
    ({"filters": ["semver(versoin, '<1')"]}, ["filters", "versoin", "'version'"]),
    ({"filters": ["mode == 'x' && !(onlin)"]}, ["filters", "onlin", "'online'"]),
    ({"filters": ["semver(version, 'young')"]}, ["filters", "young"]),
    ({"filters": ["older_than(last_seen_at, 'long')"]}, ["filters", "long"]),
    ({"filters": ["newer_than(last_seen_at, '7d')"]}, ["filters", "newer_than"]),
    ({"filters": ["length(online)"]}, ["filters", "length(online)"]),
    ({"filters": ["[?mode=='standard']"]}, ["filters", "[?mode=='standard']", "status == 'online'"]),
    ({"filters": {"mode": "standard"}}, ["filters", "standard"]),
    ({"hostnames": ["conection_name"]}, ["hostnames", "conection_name", "'connection_name'"]),
    ({"hostnames": ["join('-', "]}, ["hostnames", "join('-', "]),
    ({"hostnames": 7}, ["hostnames", "7"]),
]


@pytest.mark.covers("letta", "hostvars_prefix", "group_prefix", "root_group")
def test_a_wrong_option_is_named_with_its_value(ansible: Ansible, subtests: pytest.Subtests) -> None:
    run = ansible.sources(options for options, _parts in WRONG_OPTIONS)

    errors = run.inventory_errors()
    assert "Traceback" not in run.output
    for number, (options, parts) in enumerate(WRONG_OPTIONS):
        with subtests.test(json.dumps(options)):
            message = errors[f"{number}.yml"].partition("\n\n")[0]
            assert "\n" not in message
            assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("options", "parts"),
    [({"trust": "all"}, ["trust", "all"]), ({"filters": ["moed == 'x'"]}, ["filters", "moed", "mode"])],
)
def test_a_wrong_option_ends_the_run_before_anything_is_asked(
    ansible: Ansible, options: dict[str, Any], parts: list[str]
) -> None:
    run = ansible.inventory("--list", source=ansible.source(**options))

    run.assert_inventory_error(*parts)
    assert ansible.sandbox.requests() == []


def test_a_wrong_range_or_age_is_an_error_for_any_rows(ansible: Ansible, subtests: pytest.Subtests) -> None:
    expressions = ["semver(version, 'young')", "older_than(last_seen_at, 'long')", "mode == 'x' && semver(os, 'young')"]

    run = ansible.sources({"filters": ["id == 'none'", expression]} for expression in expressions)

    errors = run.inventory_errors()
    for number, expression in enumerate(expressions):
        with subtests.test(expression):
            assert errors[f"{number}.yml"].startswith(f'filters: "{expression}": ')


@pytest.mark.covers("letta", "plugin")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fleet.yml", ""),
        ("fleet.yml", "- plugin: fleetops.environments.letta\n"),
        ("fleet.yml", "plugin: fleetops.environments.letta\n  indented: wrongly\n"),
        ("fleet.yml", "plugin: fleetops.environments.nothing\n"),
    ],
)
def test_an_invalid_source_is_one_line(ansible: Ansible, name: str, text: str) -> None:
    path = ansible.directory / name
    path.write_text(text)

    run = ansible.inventory("--list", source=path)

    run.assert_inventory_error()
    assert "Traceback" not in run.output
    assert "object has no attribute" not in run.output


@pytest.mark.parametrize("name", ["fleet.yml", "anything at all.yaml"])
def test_a_source_may_have_any_name_that_ends_like_yaml(ansible: Ansible, name: str) -> None:
    assert ansible.hosts(name=name)


def test_a_failed_listing_leaves_no_hosts_if_ansible_continues(ansible: Ansible) -> None:
    ansible.sandbox.add_fault("html_200", route="list", nth=3)

    run = ansible.inventory(
        "--list",
        source=ansible.source(page_size=5),
        env={"ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "false"},
    )

    assert run.returncode == 0
    assert json.loads(run.stdout)["_meta"]["hostvars"] == {}
    assert len(ansible.sandbox.requests("list")) == 3


PASSING: dict[str, list[dict[str, Any]]] = {
    "statuses": [{"fault": "status", "status": status} for status in (408, 429, 500, 502, 503, 504)],
    "bodies and Retry-After": [
        {"fault": "status", "status": 502, "body": "error_envelope"},
        {"fault": "status", "status": 502, "body": "html"},
        {"fault": "status", "status": 502, "body": "empty"},
        {"fault": "status", "status": 429, "retry_after": 1},
        {"fault": "status", "status": 503, "retry_after_date": 2},
        {"fault": "status", "status": 429, "retry_after": "some day"},
    ],
    "connections": [
        *({"fault": f"drop_{when}", "reset": reset} for when in ("before", "after", "during") for reset in (0, 1)),
        {"fault": "slow", "seconds": 5},
    ],
}


@pytest.mark.parametrize("kind", PASSING)
def test_temporary_faults_are_recovered_from_silently(ansible: Ansible, kind: str) -> None:
    # One fault for each page: no row may be lost or repeated.
    names = {entry["name"] for entry in ansible.sandbox.fleet()}
    for number, rule in enumerate(PASSING[kind]):
        ansible.sandbox.add_fault(**rule, route="list", nth=2 * number + 1)
    start = time.monotonic()

    hosts = ansible.hosts(page_size=3, timeout=1)

    assert hosts.keys() == names
    assert [rule["fired"] for rule in ansible.sandbox.faults()] == [1] * len(PASSING[kind])
    assert len(ansible.sandbox.requests("list")) == 7 + len(PASSING[kind])
    if kind == "bodies and Retry-After":
        assert time.monotonic() - start > 2


def test_a_fault_may_occur_as_often_as_retries_allows(ansible: Ansible) -> None:
    ansible.sandbox.add_fault("status", route="list", status=500, times=3)

    assert len(ansible.hosts(retries=3)) == len(ansible.sandbox.fleet())


LASTING: list[tuple[dict[str, Any], list[str], int]] = [
    # the fault, the error, and the number of requests with one retry
    ({"fault": "status", "status": 429}, ["429", "The sandbox was told to fail"], 2),
    ({"fault": "status", "status": 500, "body": "error_envelope"}, ["500", "SANDBOX_FAULT: The sandbox was told"], 2),
    ({"fault": "status", "status": 502, "body": "html"}, ["502", "HTML page"], 2),
    ({"fault": "status", "status": 503, "body": "empty"}, ["503", "empty body"], 2),
    ({"fault": "status", "status": 429, "retry_after": 3600}, ["429", "wait 3600 s"], 1),
    ({"fault": "status", "status": 503, "retry_after_date": 3600}, ["503", "wait 3", "s)"], 1),
    ({"fault": "status", "status": 400}, ["400", "The sandbox was told to fail"], 1),
    ({"fault": "status", "status": 404, "body": "html"}, ["404", "HTML page"], 1),
    ({"fault": "html_200"}, ["200", "HTML page", "JSON"], 1),
    ({"fault": "not_json"}, ["200", "upstream says: ok", "JSON"], 1),
    ({"fault": "truncated_json"}, ["200", "JSON"], 1),
    ({"fault": "nan"}, ["200", "JSON"], 1),
    ({"fault": "redirect"}, ["redirect", "https://elsewhere.invalid/"], 1),
    ({"fault": "redirect", "status": 301, "location": "/v1/environments"}, ["redirect", "/v1/environments"], 1),
    ({"fault": "slow", "seconds": 5}, ["timeout of 0.5 s"], 2),
    ({"fault": "drop_before"}, ["dropped"], 2),
    ({"fault": "drop_after", "reset": True}, ["dropped"], 2),
    ({"fault": "drop_during"}, ["dropped"], 2),
    ({"fault": "repeat_cursor"}, ["cursor"], 1),
    ({"fault": "no_has_next_page"}, ["hasNextPage"], 1),
    ({"fault": "no_connections"}, ["connections"], 1),
    ({"fault": "next_page_after_empty"}, ["hasNextPage", "empty page"], 1),
]


def test_a_permanent_fault_fails_the_listing_as_a_whole(ansible: Ansible, subtests: pytest.Subtests) -> None:
    call = 1
    for rule, _parts, requests in LASTING:
        # The first page succeeds, the second never does.
        ansible.sandbox.add_fault(**rule, route="list", nth=list(range(call + 1, call + 1 + requests)))
        call += 1 + requests

    run = ansible.sources({"page_size": 8, "retries": 1, "timeout": 0.5} for _rule in LASTING)

    assert json.loads(run.stdout)["_meta"]["hostvars"] == {}
    assert "Traceback" not in run.output
    errors = run.inventory_errors()
    for number, ((rule, parts, requests), state) in enumerate(zip(LASTING, ansible.sandbox.faults(), strict=True)):
        with subtests.test(" ".join(str(value) for value in rule.values())):
            message = errors[f"{number}.yml"].partition("\n\n")[0]
            assert "\n" not in message
            assert f"GET {ansible.sandbox.url}/v1/environments: " in message
            assert all(part in message for part in parts), message
            assert state["fired"] == requests
    assert len(ansible.sandbox.requests("list")) == call - 1


DAMAGES = {
    # the damage of a row, and the field that the warning names, if the row is a host all the same
    "no_id": "",
    "id_number": "",
    "not_an_object": "",
    "name_null": "connection_name",
    "device_missing": "device_id",
    "heartbeat_text": "last_heartbeat",
    "metadata_list": "metadata",
    "version_number": "version",
}


@pytest.mark.covers("letta", "on_invalid")
@pytest.mark.parametrize("damages", [list(DAMAGES)[:4], list(DAMAGES)[4:]], ids=" ".join)
def test_damaged_rows_are_a_warning_and_only_those_without_an_id_are_dropped(
    ansible: Ansible, damages: list[str]
) -> None:
    ids = {number: entry["id"] for number, entry in enumerate(ansible.sandbox.fleet())}
    for number, damage in enumerate(damages):
        ansible.sandbox.add_fault("invalid_rows", damage=damage, nth=number + 1)

    run = ansible.inventory("--list", source=ansible.source(page_size=3, max_dropped_rows="50%"))

    assert run.returncode == 0, run.output
    (warning,) = run.stderr.strip().splitlines()
    assert warning.startswith("[WARNING]: rows are not as the API promises: ")
    for number, damage in enumerate(damages):
        kept = DAMAGES[damage]
        broken = ids[3 * number] if kept else ids.pop(3 * number)
        assert (f"environment {broken}: " if kept else f"environment number {3 * number + 1} (dropped): ") in warning
        assert kept in warning
    hosts = json.loads(run.stdout)["_meta"]["hostvars"].values()
    assert {plain(host["letta_id"]) for host in hosts} == set(ids.values())
