"""A real device whose interpreter adds what it likes to the answers of modules."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.conftest import Ansible, Run, step
from tests.sandbox.process import Sandbox

from .conftest import Fleet
from .test_connection import task

# Runs a module, and puts more into what it answers.
INTERPRETER = f"""#!{sys.executable}
import json, subprocess, sys
ran = subprocess.run([{sys.executable!r}, *sys.argv[1:]], stdout=subprocess.PIPE, check=False)
try:
    print(json.dumps({{**json.loads(ran.stdout), **json.load(open(__file__ + ".json"))}}))
except ValueError:
    sys.stdout.buffer.write(ran.stdout)
sys.exit(ran.returncode)
"""
CACHE = {"ANSIBLE_CACHE_PLUGIN": "jsonfile", "ANSIBLE_CACHE_PLUGIN_CONNECTION": "facts"}

Lie = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def facts_are_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by default, and unlike in the checkout's ansible.cfg."""
    monkeypatch.setenv("ANSIBLE_INJECT_FACT_VARS", "true")


@pytest.fixture
def lie(tmp_path: Path) -> Lie:
    """Has alpha's interpreter return facts from now on; returns the variables of a play that uses it."""
    interpreter = tmp_path / "lying-python"
    interpreter.write_text(INTERPRETER)
    interpreter.chmod(0o755)

    def start(**facts: Any) -> dict[str, Any]:
        Path(f"{interpreter}.json").write_text(json.dumps({"ansible_facts": facts}))
        return {"ansible_python_interpreter": str(interpreter)}

    return start


def on_alpha(ansible: Ansible, variables: dict[str, Any], *tasks: dict[str, Any], **options: Any) -> Run:
    source = ansible.source(connection="relay")
    return ansible.steps(*tasks, source=source, hosts="alpha", vars=variables, **options)


WHERE = task("where", "raw", _raw_params="echo $HOME")
SEND = step("send", "send_message", content="Hello", agent_id="agent-1")


@pytest.mark.parametrize("pipelining", [True, False])
def test_facts_do_not_bring_the_key_to_another_server(
    ansible: Ansible, fleet: Fleet, lone_sandbox: Sandbox, lie: Lie, pipelining: bool
) -> None:
    variables = lie(letta_base_url=lone_sandbox.url, fleet_url=lone_sandbox.url)
    everybody = {**step("all", "send_message", content="Hello", targets=["alpha", "beta"], agent_id="agent-1")}
    ansible.file("group_vars/all.yml", yaml.safe_dump({"letta_base_url": "{{ fleet_url }}"}))
    ansible.file("group_vars/letta.yml", yaml.safe_dump({"fleet_url": fleet.sandbox.url}))

    run = on_alpha(
        ansible,
        {**variables, "ansible_pipelining": pipelining},
        task("first", "ping"),
        task("second", "ping"),
        WHERE,
        SEND,
        {**everybody, "run_once": True},
        {**task("delegated", "ping"), "delegate_to": "alpha"},
    )

    run.assert_quiet()
    assert lone_sandbox.requests() == []
    assert run.result("second")["ansible_facts"]["letta_base_url"] == lone_sandbox.url
    assert run.result("where")["stdout_lines"] == [str(fleet.alpha.home)]
    assert run.result("all")["counts"]["sent"] == 2


def test_facts_do_not_read_files_of_the_controller(ansible: Ansible, fleet: Fleet, lie: Lie) -> None:
    secret = ansible.file("of-the-controller", "of-the-controller\n")

    run = on_alpha(ansible, lie(letta_api_key_file=str(secret)), task("first", "ping"), WHERE, SEND)

    run.assert_quiet()
    assert {entry["status"] for entry in fleet.sandbox.requests()} <= {101, 200, 201, 202}


def test_facts_do_not_have_commands_run_on_another_device(ansible: Ansible, fleet: Fleet, lie: Lie) -> None:
    of_beta = ansible.hosts()["beta"]["fleetops_environment"]
    variables = lie(fleetops_environment=of_beta, inventory_hostname="beta", ansible_host="beta")

    run = on_alpha(ansible, variables, task("first", "ping"), WHERE, {**WHERE, "name": "there", "delegate_to": "alpha"})

    for name in ("where", "there"):
        assert run.result(name)["stdout_lines"] == [str(fleet.alpha.home)], run.output


def test_facts_of_an_earlier_run_do_not_allow_a_connection(ansible: Ansible, fleet: Fleet, lie: Lie) -> None:
    variables = lie(letta_allow_connection=True, letta_allow_outside_permission_mode=True)
    on_alpha(ansible, variables, task("first", "ping"), env=CACHE).assert_quiet()
    [cached] = (ansible.directory / "facts").glob("*alpha")
    assert "letta_allow_connection" in cached.read_text()
    ansible.file("host_vars/alpha.yml", yaml.safe_dump({"letta_allow_connection": False}))
    fleet.sandbox.clear_requests()

    run = on_alpha(ansible, variables, task("it", "ping"), env=CACHE)

    assert run.result("it")["msg"] == "Task failed: the variable letta_allow_connection forbids commands on this device"
    assert fleet.sandbox.requests("relay") == []
