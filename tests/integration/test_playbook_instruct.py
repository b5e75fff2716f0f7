"""playbooks/instruct.yml: by path and by its name in the collection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.process import Sandbox

from .conftest import AGENT, CHECKOUT, Ansible, Run, awake

NAME = "fleetops.environments.instruct"
PATH = str(CHECKOUT / "playbooks/instruct.yml")


def _instruct(ansible: Ansible, *arguments: str, playbook: str = NAME, source: Any = None, **variables: Any) -> Run:
    given = {"instruct_content": "Report.", "instruct_agent_id": AGENT, **variables}
    return ansible.playbook(playbook, "-e", json.dumps(given), *arguments, source=source)


def _lines(run: Run) -> list[list[str]]:
    """What the playbook shows of each target: host, status, message id, reason."""
    shown = [entry["result"]["msg"] for entry in run.results if entry["task"] == "Show what became of each target"]
    assert len(shown) == 1
    # Read from the output as well, which is where a user reads it.
    assert all(line in run.stdout for line in shown[0])
    return [line.split("  ") for line in shown[0]]


def _standard(sandbox: Sandbox) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in sandbox.fleet() if entry["row"].get("currentMode") == "standard"}


@pytest.mark.parametrize("playbook", [NAME, PATH], ids=["by name", "by path"])
def test_it_instructs_a_group_each_time_and_not_in_check_mode(ansible: Ansible, playbook: str) -> None:
    standard = _standard(ansible.sandbox)
    online = {name: entry for name, entry in standard.items() if entry["online"]}
    assert 0 < len(online) < len(standard)

    checked = _instruct(ansible, "--check", playbook=playbook, instruct_hosts="mode_standard")
    checked.assert_quiet()
    assert ansible.sandbox.received() == {}
    assert {(host, status) for host, status, _id, _why in _lines(checked)} == {
        (name, "not_attempted") for name in standard
    }
    would = checked.result("Show what the first targets would get")["instruct_result.would_send"]
    assert [(item["host"], item["messages"][0]["content"]) for item in would] == [
        (name, "Report.") for name in sorted(standard)[:5]
    ]

    for turns in (1, 2):
        run = _instruct(ansible, playbook=playbook, instruct_hosts="mode_standard")
        run.assert_quiet()
        received = ansible.sandbox.received()
        assert {id_: device["turns"] for id_, device in received.items()} == {
            entry["id"]: turns for entry in online.values()
        }
        lines = {host: (status, id_, why) for host, status, id_, why in _lines(run)}
        assert lines.keys() == standard.keys()
        for name, entry in standard.items():
            status, id_, why = lines[name]
            if name in online:
                message = received[entry["id"]]["messages"][-1]
                assert (status, id_, why) == ("sent", message["client_message_id"], "-")
                assert (message["content"], message["agentId"]) == ("Report.", AGENT)
            else:
                assert (status, why) == ("offline", "the environment is offline")
        assert f"{len(standard)} targets: {len(online)} sent, {len(standard) - len(online)} offline" in run.stdout


@pytest.fixture
def fifty(tmp_path: Path) -> Iterator[Ansible]:
    with Sandbox.start(devices=50) as sandbox:
        yield Ansible(tmp_path, sandbox)


def test_a_limit_of_two_hosts_of_fifty_is_two_deliveries(fifty: Ansible) -> None:
    first, second = awake(fifty.sandbox)[3], awake(fifty.sandbox)[20]
    assert len(fifty.sandbox.fleet()) > 50

    run = _instruct(fifty, "--limit", f"{first['name']},{second['name']}")

    run.assert_quiet()
    turns = {id_: device["turns"] for id_, device in fifty.sandbox.received().items()}
    assert turns == {first["id"]: 1, second["id"]: 1}
    assert len(fifty.sandbox.requests("messages")) == 2
    assert [host for host, *_rest in _lines(run)] == sorted([first["name"], second["name"]])


@pytest.mark.parametrize("empty", ["pattern", "inventory", "limit"])
def test_no_target_is_an_error_of_its_own_unless_allowed(ansible: Ansible, empty: str) -> None:
    source, arguments, variables = None, [], {}
    match empty:
        case "pattern":
            variables = {"instruct_hosts": "mode_nosuch"}
        case "inventory":
            source = ansible.source(filters=["id == 'nothing'"])
        case "limit":
            variables, arguments = {"instruct_hosts": "mode_standard"}, ["--limit", "mode_acceptEdits"]

    refused = _instruct(ansible, *arguments, source=source, **variables)
    pattern = variables.get("instruct_hosts", "letta")
    refused.assert_error("no target", f"instruct_hosts={pattern}", "allow_empty")
    assert refused.returncode == 2

    allowed = _instruct(ansible, *arguments, source=source, allow_empty=True, **variables)
    assert allowed.returncode == 0, allowed.output
    assert "ERROR" not in allowed.output
    # Of a pattern that no host and no group has Ansible itself warns.
    assert ("WARNING" in allowed.output) == (empty == "pattern")
    assert _lines(allowed) == []
    assert ansible.sandbox.requests("messages") == []


def test_above_max_failures_every_line_is_shown_and_then_it_fails(ansible: Ansible) -> None:
    bad, good = awake(ansible.sandbox)[:2]
    ansible.sandbox.add_fault("status", route="messages", target=bad["id"], status=422, message="Not like this")
    limit = ("--limit", f"{bad['name']},{good['name']}")

    failed = _instruct(ansible, *limit, instruct_concurrency=1, instruct_max_failures=0)

    assert failed.returncode == 2
    names = sorted([bad["name"], good["name"]])
    lines = {host: (status, why) for host, status, _id, why in _lines(failed)}
    assert list(lines) == names
    assert lines[bad["name"]][0] == "failed"
    assert "422 Unprocessable" in lines[bad["name"]][1]
    assert "Not like this" in lines[bad["name"]][1]
    assert lines[good["name"]] == (("not_attempted", "-") if names[0] == bad["name"] else ("sent", "-"))
    failed.assert_error("2 targets: ", f"{bad['name']}: failed")

    allowed = _instruct(ansible, *limit, instruct_max_failures="50%")

    allowed.assert_quiet()
    assert {host: status for host, status, _id, _why in _lines(allowed)} == {
        bad["name"]: "failed", good["name"]: "sent",
    }  # fmt: skip


def test_a_wrong_option_is_shown_and_nothing_is_sent(ansible: Ansible) -> None:
    run = _instruct(ansible, instruct_hosts="mode_standard", instruct_max_targets=2)

    run.assert_error("max_targets", "more than the 2 allowed")
    assert run.returncode == 2
    assert "instruct_result" not in run.output
    assert ansible.sandbox.received() == {}


def test_its_variables_are_the_options_of_send_message(ansible: Ansible) -> None:
    sandbox = ansible.sandbox
    first, second = awake(sandbox)[:2]
    offline = next(entry for entry in sandbox.fleet() if not entry["online"])
    template = ansible.file("elsewhere/text.j2", "For {{ inventory_hostname }}")
    text = ansible.file("elsewhere/text.txt", "{{ raw }}")
    files = {
        "instruct_result_file": str(ansible.directory / "r.csv"),
        "instruct_retry_file": str(ansible.directory / "t"),
    }
    limit = ("--limit", ",".join(entry["name"] for entry in (first, second, offline)))

    run = ansible.playbook(
        NAME,
        "-e",
        json.dumps(
            {
                "instruct_content_template": str(template),
                "instruct_agent_id": "agent-9",
                "instruct_conversation_id": "new",
                "instruct_client_message_id": "message-9",
                "instruct_max_targets": 3,
                "instruct_max_failures": "34%",
                "instruct_when_offline": "wait",
                "instruct_offline_timeout": 1,
                "instruct_concurrency": 1,
                "instruct_rate": 2,
                **files,
            }
        ),
        *limit,
    )

    run.assert_quiet()
    received = sandbox.received()
    assert set(received) == {first["id"], second["id"]}
    for entry in (first, second):
        (message,) = received[entry["id"]]["messages"]
        assert message["content"] == f"For {entry['name']}"
        assert (message["agentId"], message["client_message_id"]) == ("agent-9", "message-9")
        assert message["conversationId"].startswith("conv-")
    requests = sandbox.requests("messages")
    assert requests[1]["at"] - requests[0]["at"] >= 0.4
    assert {request["under_way"] for request in requests} == {1}
    assert len(sandbox.requests("retrieve")) >= 2
    assert Path(files["instruct_retry_file"]).read_text() == f"{offline['name']}\n"
    assert len(Path(files["instruct_result_file"]).read_text().splitlines()) == 4

    run = ansible.playbook(
        NAME, "-e", json.dumps({"instruct_content_file": str(text), "letta_agent_id": "agent-8"}), *limit
    )
    run.assert_quiet()
    for entry in (first, second):
        message = sandbox.received()[entry["id"]]["messages"][1]
        assert (message["content"], message["agentId"]) == ("{{ raw }}", "agent-8")


def test_hosts_that_are_no_environments_are_left_alone(ansible: Ansible) -> None:
    entry = awake(ansible.sandbox)[0]
    ansible.file("inventory/servers.yaml", "all: {hosts: {web-1: {}, web-2: {}}}\n")
    source = ansible.source("inventory/fleet.letta.yml")

    run = _instruct(ansible, "--limit", f"web-1,web-2,{entry['name']}", source=source.parent)

    run.assert_quiet()
    assert set(ansible.sandbox.received()) == {entry["id"]}
    assert [host for host, *_rest in _lines(run)] == [entry["name"]]
