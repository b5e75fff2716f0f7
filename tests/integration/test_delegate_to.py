"""delegate_to: an environment of the inventory is acted on, with its own variables, in place of the play's host."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.sandbox.process import Sandbox

from .conftest import AGENT, CHECKOUT, Ansible, Run, messages_of, step
from .test_every_module_on_targets import TOLD

# The options of each module on a current host.
ON_A_HOST: dict[str, dict[str, Any]] = {
    **TOLD,
    "send_message": {"content": "Hello", "agent_id": AGENT},
    "reply_info": {"client_message_id": "message-1", "agent_id": AGENT},
    "environment_outcome": {"outcomes": "outcomes"},
}
# The options of each module that acts on no host.
ON_NO_HOST: dict[str, dict[str, Any]] = {
    "environment_info": {"limit": 1},
    "check_variables": {"name": "audit"},
    "campaign_info": {"campaign": "c", "ledger": "ledger.sqlite"},
    "campaign_control": {"campaign": "c", "ledger": "ledger.sqlite", "state": "paused"},
    "fleet_report": {"path": "report.html"},
    "rollout": {"name": "r", "version": "0.1.0", "ledger": "ledger.sqlite", "targets": []},
}
METADATA = {"lettaCodeVersion": "0.34.12", "supported_commands": ["reload"]}
NOT_FOUND = "; give a host that is an environment, or localhost to act on the play's host"


@pytest.fixture
def devices(ansible: Ansible) -> dict[str, dict[str, Any]]:
    """Host → row of three simulated devices."""
    names = ("here", "there", "beyond")
    return {name: ansible.sandbox.add_environment(connectionName=name, metadata=METADATA) for name in names}


def _delegate(task: dict[str, Any], host: str, **keywords: Any) -> dict[str, Any]:
    return {**task, "delegate_to": host, **keywords}


def _list_texts(ansible: Ansible, device: dict[str, Any]) -> list[str]:
    """The texts of the messages that reached a device."""
    return [message["content"] for message in messages_of(ansible.sandbox, device)]


def test_every_module_has_a_case_here() -> None:
    modules = [path.stem for path in (CHECKOUT / "plugins/modules").glob("*.py")]

    assert sorted([*ON_A_HOST, *ON_NO_HOST]) == sorted(modules)


@pytest.mark.parametrize("arguments", [(), ("--check",)], ids=["", "check mode"])
def test_every_action_on_a_current_host_acts_on_the_delegate(
    ansible: Ansible, devices: dict[str, dict[str, Any]], arguments: tuple[str, ...]
) -> None:
    run = ansible.steps(
        *(_delegate(step(module, module, **told), "there") for module, told in ON_A_HOST.items()),
        hosts="here",
        vars={"outcomes": {"here": "", "there": "there: failed: it was so"}},
        arguments=arguments,
    )

    results = {module: run.result(module, "here") for module in ON_A_HOST}
    assert {module: result["host"] for module, result in results.items()} == dict.fromkeys(ON_A_HOST, "there")
    assert {module: results[module]["id"] for module in (*TOLD, "send_message")} == dict.fromkeys(
        (*TOLD, "send_message"), devices["there"]["id"]
    )
    [reply] = results["reply_info"]["replies"]
    assert (reply["host"], reply["id"]) == ("there", devices["there"]["id"])
    assert results["environment_outcome"]["msg"] == "there: failed: it was so"
    outcomes = {entry["task"]: entry["outcome"] for entry in run.results}
    assert outcomes["environment_outcome"] == "failed"
    received = ansible.sandbox.received()
    assert devices["here"]["id"] not in received
    if not arguments:
        assert received[devices["there"]["id"]]["turns"] == 1
        assert [one["command_id"] for one in received[devices["there"]["id"]]["commands"]] == ["reload"]


def test_a_loop_over_delegates_reaches_each_one_with_its_own_variables(
    ansible: Ansible, devices: dict[str, dict[str, Any]]
) -> None:
    for host in devices:
        ansible.file(f"host_vars/{host}.yml", yaml.safe_dump({"letta_agent_id": f"agent-of-{host}", "rack": host}))
    ansible.file(
        "templates/text.j2", "{{ inventory_hostname }} {{ letta_connection_name }} {{ rack }} {{ item }} {{ n }}"
    )
    loop = {"loop": ["there", "beyond", "there"], "loop_control": {"index_var": "n"}}

    run = ansible.steps(
        _delegate(step("template", "send_message", content_template="text.j2", agent_id="other"), "{{ item }}", **loop),
        _delegate(
            step("content", "send_message", content="of {{ rack | default('none') }}: {{ item }}"), "{{ item }}", **loop
        ),
        _delegate(step("once", "send_message", content="once"), "{{ item }}", run_once=True, **loop),
        hosts="here,localhost",
    )
    told = ansible.steps(
        _delegate(step("one", "send_message", content="later"), "beyond", run_once=True, delegate_facts=True),
        hosts="here",
    )

    told.assert_quiet()
    assert _list_texts(ansible, devices["here"]) == []
    there, beyond = (messages_of(ansible.sandbox, devices[host]) for host in ("there", "beyond"))
    assert {message["agentId"] for message in there} == {"agent-of-there"}
    assert {message["agentId"] for message in beyond} == {"agent-of-beyond"}
    # Both hosts of the play have the loop. Core renders the arguments of a task for them, and not for the delegate.
    assert sorted(message["content"] for message in beyond) == [
        *["beyond beyond beyond beyond 1"] * 2, "later", "of here: beyond", "of none: beyond", "once",
    ]  # fmt: skip
    assert sorted(message["content"] for message in there) == [
        *["of here: there"] * 2, *["of none: there"] * 2, *["once"] * 2,
        *["there there there there 0"] * 2, *["there there there there 2"] * 2,
    ]  # fmt: skip
    results = run.result("template", "here")["results"]
    assert [result["host"] for result in results] == ["there", "beyond", "there"]


def test_a_rescue_tells_a_delegate_of_the_failure(ansible: Ansible, devices: dict[str, dict[str, Any]]) -> None:
    ansible.file("templates/failure.j2", "{{ ansible_failed_task.name }}: {{ ansible_failed_result.msg }}")
    told = _delegate(step("it", "send_message", content_template="failure.j2", agent_id=AGENT), "there")
    several = step("several", "send_message", content_template="failure.j2", agent_id=AGENT, targets=["there"])

    run = ansible.steps(
        {"block": [{"name": "copy", "ansible.builtin.fail": {"msg": "disk full"}}], "rescue": [told, several]},
        hosts="here",
    )

    assert run.result("it")["host"] == "there"
    assert _list_texts(ansible, devices["there"]) == ["copy: disk full"] * 2


def test_the_connection_options_are_those_of_the_delegate(
    ansible: Ansible, devices: dict[str, dict[str, Any]], other_sandbox: Sandbox
) -> None:
    far = other_sandbox.add_environment(connectionName="far", metadata=METADATA)
    nowhere = {"letta_base_url": "http://127.0.0.1:9", "letta_api_key": "key-of-here"}
    ansible.file("both/host_vars/here.yml", yaml.safe_dump(nowhere))
    ansible.source("both/1.yml")
    ansible.source("both/2.yml", base_url=other_sandbox.url)

    run = ansible.steps(
        _delegate(step("listed", "send_message", content="Hello", agent_id=AGENT), "far"),
        _delegate(step("info", "environment_info", filters="connection_name == 'there'"), "there"),
        step("here", "send_message", content="Hello", agent_id=AGENT, retries=0),
        hosts="here",
        source=ansible.directory / "both",
    )

    assert (run.result("listed")["status"], run.result("listed")["host"]) == ("sent", "far")
    assert other_sandbox.received()[far["id"]]["turns"] == 1
    assert len(run.result("info")["environments"]) == 1
    assert "127.0.0.1:9" in run.result("here")["msg"]
    assert ansible.sandbox.received() == {}


def test_the_keys_of_host_and_delegate_are_not_shown(ansible: Ansible, devices: dict[str, dict[str, Any]]) -> None:
    for host in ("here", "there"):
        ansible.file(f"host_vars/{host}.yml", f"letta_api_key: key-of-{host}")
    text = "{{ letta_api_key }} {{ hostvars['there'].letta_api_key }}"

    run = ansible.task(
        "send_message",
        "--check",
        content=text,
        agent_id=AGENT,
        play={"hosts": "here"},
        keywords={"delegate_to": "there"},
    )

    assert "would_send" in run.result("it")
    assert "key-of-" not in run.output + str(run.results)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", "here", "{{ omit }}"])
def test_the_names_of_the_controller_mean_the_host_of_the_play(
    ansible: Ansible, devices: dict[str, dict[str, Any]], name: str
) -> None:
    ansible.file("host_vars/here.yml", "letta_agent_id: agent-of-here")

    run = ansible.task("send_message", content="Hello", play={"hosts": "here"}, keywords={"delegate_to": name})

    run.assert_quiet()
    assert (run.result("it")["host"], run.result("it")["agent_id"]) == ("here", "agent-of-here")
    assert _list_texts(ansible, devices["here"]) == ["Hello"]


def test_a_delegate_that_is_no_environment_is_an_error_of_every_module(
    ansible: Ansible, devices: dict[str, dict[str, Any]]
) -> None:
    every = {**ON_A_HOST, **ON_NO_HOST}
    add = {"name": "add", "ansible.builtin.add_host": {"name": "bastion"}}

    run = ansible.steps(
        add,
        *(_delegate(step(f"nobody {module}", module, **told), "nobody") for module, told in every.items()),
        *(_delegate(step(f"bastion {module}", module, **told), "bastion") for module, told in every.items()),
        _delegate(step("address", "send_message", **ON_A_HOST["send_message"]), "{{ hostvars.there.ansible_host }}"),
        hosts="here",
        vars={"outcomes": {"here": "", "there": ""}},
    )

    for module in every:
        nobody, bastion = run.result(f"nobody {module}"), run.result(f"bastion {module}")
        assert nobody["msg"] == f"delegate_to: 'nobody' is no host of the inventory{NOT_FOUND}"
        assert bastion["msg"] == f"delegate_to: 'bastion' is no environment{NOT_FOUND}"
    assert run.result("address")["msg"].startswith("delegate_to: ")
    assert {entry["outcome"] for entry in run.results if entry["task"] != "add"} == {"failed"}
    _assert_untouched(ansible, run)


def test_targets_and_a_delegate_that_is_an_environment_are_refused(
    ansible: Ansible, devices: dict[str, dict[str, Any]]
) -> None:
    with_targets = {**TOLD, "send_message": ON_A_HOST["send_message"], "rollout": ON_NO_HOST["rollout"]}

    run = ansible.steps(
        *(
            _delegate(step(name, name, **{**told, "targets": ["beyond"]}), "there")
            for name, told in with_targets.items()
        ),
        hosts="here",
    )

    for module in with_targets:
        said = run.result(module)["msg"]
        assert said == "delegate_to: 'there' cannot go with targets, which name the hosts to act on"
    _assert_untouched(ansible, run)


def test_replies_of_other_hosts_than_the_delegate_are_refused(
    ansible: Ansible, devices: dict[str, dict[str, Any]]
) -> None:
    send = step("send", "send_message", content="Hello", agent_id=AGENT, targets=["there", "beyond"])

    run = ansible.steps(
        {**send, "register": "sent"},
        _delegate(step("both", "reply_info", replies="{{ sent.targets }}"), "there"),
        _delegate(step("own", "reply_info", replies="{{ sent.targets[:1] }}"), "there"),
        hosts="here",
    )

    assert run.result("both")["msg"] == "delegate_to: 'there' cannot go with replies, which are of other hosts"
    assert [reply["host"] for reply in run.result("own")["replies"]] == ["there"]


def test_targets_and_the_controller_as_delegate_go_together(
    ansible: Ansible, devices: dict[str, dict[str, Any]]
) -> None:
    run = ansible.task(
        "send_message",
        content="Hello",
        agent_id=AGENT,
        targets=["there"],
        play={"hosts": "here"},
        keywords={"delegate_to": "localhost"},
    )

    run.assert_quiet()
    assert _list_texts(ansible, devices["there"]) == ["Hello"]


def _assert_untouched(ansible: Ansible, run: Run) -> None:
    """Assert that nothing was asked besides the listing, and nothing written."""
    assert "Traceback" not in run.output
    assert {entry["route"] for entry in ansible.sandbox.requests()} == {"list"}
    assert not (ansible.directory / "report.html").exists()
    assert not (ansible.directory / "ledger.sqlite").exists()
