"""The lookup `environments`, without an inventory."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Ansible, Run

NAME = "fleetops.environments.environments"


def looked_up(ansible: Ansible, *lookups: str, env: dict[str, str] | None = None, **play: Any) -> Run:
    """A play that shows the value of each of these lookups."""
    tasks = [
        {"name": f"{number}", "ansible.builtin.debug": {"msg": f"{{{{ {text} }}}}"}, "ignore_errors": True}
        for number, text in enumerate(lookups)
    ]
    return ansible.steps(*tasks, source="localhost,", env=env, connection="local", **play)


@pytest.mark.covers("environments", "_terms", "provider")
def test_the_lookup_returns_the_environments_that_match_all_terms(ansible: Ansible) -> None:
    hostile = "{{ 'tem' ~ 'plated' }}"
    ansible.sandbox.patch(ansible.sandbox.fleet()[0]["id"], connectionName=hostile)
    fleet = ansible.sandbox.fleet()
    standard = {entry["id"] for entry in fleet if entry["online"] and entry["row"].get("currentMode") == "standard"}
    assert standard

    run = looked_up(
        ansible,
        f"query('{NAME}')",
        f"query('{NAME}', 'online', \"mode == 'standard'\") | map(attribute='id') | list",
        f"query('{NAME}', provider='qoder') | map(attribute='config_type') | list",
    )

    run.assert_quiet()
    everything = run.result("0")["msg"]
    assert {row["id"] for row in everything} == {entry["id"] for entry in fleet}
    assert hostile in {row["connection_name"] for row in everything}
    assert "templated" not in run.output
    assert set(run.result("1")["msg"]) == standard
    assert len(run.result("2")["msg"]) > 0


@pytest.mark.covers("environments", "max_dropped_rows")
def test_too_many_rows_without_an_id_are_an_error(ansible: Ansible) -> None:
    ansible.sandbox.add_fault("invalid_rows", damage="no_id")

    run = looked_up(ansible, f"query('{NAME}') | length", f"query('{NAME}', max_dropped_rows=0)")

    assert run.result("0")["msg"] == len(ansible.sandbox.fleet()) - 1
    assert "environment number 1 (dropped): id: " in " ".join(run.output.split())
    count = len(ansible.sandbox.fleet())
    assert (
        f"max_dropped_rows: 1 of {count} rows have no id that can be used, and 0 may be dropped"
        in run.result("1")["msg"]
    )


@pytest.mark.covers("environments", "base_url", "api_key", "api_key_file", "timeout", "retries", "deadline")
@pytest.mark.covers("environments", "validate_certs", "ca_path", "client_cert", "client_key")
def test_an_option_that_cannot_be_used_is_one_line(ansible: Ansible) -> None:
    wrong = {
        "base_url='ftp://x'": "base_url: must be an http or https URL",
        "api_key='a key'": "api_key: the key has characters that no key has",
        "api_key='', api_key_file='/nowhere'": "api_key_file: cannot read '/nowhere'",
        "timeout=0": "timeout: must be between 0 and 86400",
        "retries=-1": "retries: must be 0 or more",
        "deadline='soon'": "deadline: must be a number",
        "validate_certs='maybe'": "validate_certs",
        "ca_path='/nowhere'": "ca_path: cannot load '/nowhere'",
        "client_cert='/nowhere'": "client_cert: cannot load '/nowhere'",
        "client_key='/nowhere'": "client_key: needs client_cert",
        "colour='red'": "unsupported option: colour",
        "provider='acme'": "there is no provider 'acme'",
    }

    run = looked_up(ansible, *(f"query('{NAME}', {option})" for option in wrong), f"query('{NAME}', \"moed == 'x'\")")

    for number, problem in enumerate(
        [*wrong.values(), "terms: \"moed == 'x'\" names 'moed', which no environment has"]
    ):
        message = run.result(str(number))["msg"]
        assert problem in message, message
    assert "Traceback" not in run.output
    assert ansible.sandbox.api_key not in run.output


def test_options_override_variables_and_variables_override_the_environment(ansible: Ansible) -> None:
    lookup = f"query('{NAME}') | length"
    key = ansible.file("key", ansible.sandbox.api_key)
    wrong = {"LETTA_API_KEY": "wrong-key-for-loopback"}
    expected = len(ansible.sandbox.fleet())

    of_the_task = looked_up(ansible, f"query('{NAME}', api_key_file='{key}') | length", env=wrong)
    of_a_variable = looked_up(ansible, lookup, env=wrong, vars={"letta_api_key_file": str(key)})
    of_the_environment = looked_up(ansible, lookup, env=wrong)

    assert (of_the_task.result("0")["msg"], of_a_variable.result("0")["msg"]) == (expected, expected)
    assert "401" in of_the_environment.result("0")["msg"]
