"""playbooks/stop.yml: campaigns paused, turns aborted, modes lowered, and hosts that did not confirm."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.sandbox.turns import LongTurn

from .conftest import Ansible, Run, recap_of, step

NAME = "fleetops.environments.stop"
NAMES = ("one", "two")


@pytest.fixture
def devices(ansible: Ansible) -> list[dict[str, Any]]:
    """Two simulated devices in mode unrestricted, each with its own agent (`agent-one`, `agent-two`)."""
    ansible.file("group_vars/letta.yml", "letta_agent_id: agent-{{ inventory_hostname }}\n")
    return [ansible.sandbox.add_environment(connectionName=name, currentMode="unrestricted") for name in NAMES]


def _at_work(ansible: Ansible) -> None:
    for name in NAMES:
        ansible.sandbox.script(f"agent-{name}", LongTurn(seconds=3600))
    targets = [{"host": name, "agent_id": f"agent-{name}"} for name in NAMES]
    ansible.steps(step("work", "send_message", targets=targets, content="work")).assert_quiet()


def _stop(ansible: Ansible, *arguments: str, limit: str = "one,two", **variables: Any) -> Run:
    return ansible.playbook(NAME, "--limit", limit, "-e", json.dumps(variables), *arguments)


def _lines(run: Run) -> list[list[str]]:
    """The lines of the playbook: host, turn or mode, status, reason."""
    return [line.split("  ") for line in run.result("Show the result of each host")["msg"]]


def _statuses(run: Run) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for host, _what, status, _why in _lines(run):
        found.setdefault(host, []).append(status)
    return found


def test_every_turn_is_stopped_once_and_only_asked_about_in_check_mode(
    ansible: Ansible, devices: list[dict[str, Any]]
) -> None:
    _at_work(ansible)
    ledger = str(ansible.directory / "ledger.sqlite")
    told = {"stop_campaigns": ["spring", "autumn"], "stop_ledger": ledger, "stop_mode": "standard"}
    changed, unchanged = [dict.fromkeys(NAMES, [status] * 2) for status in ("changed", "ok")]

    checked, run, again = _stop(ansible, "--check", **told), _stop(ansible, **told), _stop(ansible, **told)

    checked.assert_error("one: a turn is under way")
    ends = [(checked, "0 confirmed, 2 did not: one, two", 1), (run, "2 confirmed", 0), (again, "2 confirmed", 0)]
    for each, said, failed in ends:
        assert each.result("Say who did not confirm")["msg"] == f"2 hosts: {said}; 2 conversations looked at"
        assert [counts["failed"] for counts in recap_of(each).values()] == [failed] * 2
    for each in (run, again):
        each.assert_quiet()
    assert [_statuses(each) for each in (checked, run, again)] == [changed, changed, unchanged]
    assert "paused: campaign 'spring': 0 deliveries" in run.stdout
    sent = ansible.steps(
        step("send", "send_message", targets=["one"], content="x", campaign="autumn", ledger=ledger, agent_id="a-1")
    )
    assert sent.result("send")["targets"][0]["status"] == "not_attempted"


def test_campaigns_are_cancelled_even_without_a_host(ansible: Ansible) -> None:
    ledger = str(ansible.directory / "ledger.sqlite")
    source = ansible.source(filters=["id == 'nothing'"])
    told = {"stop_campaigns": ["spring"], "stop_campaign_state": "cancelled", "stop_ledger": ledger}

    refused = ansible.playbook(NAME, "-e", json.dumps(told), source=source)
    allowed = ansible.playbook(NAME, "-e", json.dumps({**told, "stop_allow_empty": True}), source=source)

    refused.assert_error("no target: stop_hosts=letta matches no host", "stop_allow_empty=true")
    assert refused.returncode == 2
    assert "cancelled: campaign 'spring': 0 deliveries" in refused.stdout
    allowed.assert_quiet()


def test_a_host_that_did_not_confirm_fails_under_its_own_name(ansible: Ansible, devices: list[dict[str, Any]]) -> None:
    _at_work(ansible)
    ansible.sandbox.offline(devices[0]["id"])
    report = ansible.directory / "report.jsonl"

    for _time in (1, 2):
        run = _stop(ansible, stop_mode="strict", stop_result_file=str(report), stop_concurrency=1)

        assert run.returncode == 2
        assert "WARNING" not in run.output
        assert (
            run.result("Say who did not confirm")["msg"]
            == "2 hosts: 1 confirmed, 1 did not: one; 1 conversations looked at"
        )
        run.assert_error("one: mode offline: the environment is offline")
        assert {host: counts["failed"] for host, counts in recap_of(run).items()} == {"one": 1, "two": 0}
        assert [json.loads(line)["host"] for line in report.read_text().splitlines()] == ["one", "two"]
    assert _statuses(run)["two"] == ["ok", "ok"]


def test_a_device_that_does_not_answer_does_not_prevent_other_stops(
    ansible: Ansible, devices: list[dict[str, Any]]
) -> None:
    _at_work(ansible)
    ansible.sandbox.remove_agent("agent-one")
    run = _stop(ansible)
    run.assert_error("one: turn failed: agent_id: the device does not find 'agent-one'")
    assert _statuses(run) == {"one": ["failed"], "two": ["changed"]}
    assert run.returncode == 2


def test_a_host_without_a_known_agent_has_not_confirmed(ansible: Ansible, devices: list[dict[str, Any]]) -> None:
    ansible.file("group_vars/letta.yml", "{}\n")
    ansible.file("host_vars/two.yml", "letta_agent_id: agent-two\n")
    qoder = ansible.sandbox.qoder
    qoder.add_environment(name="cloud")
    source = ansible.file("cloud.qoder.yml", "plugin: fleetops.environments.qoder\n")
    reached = {"QODER_MANAGED_BASE_URL": qoder.url, "QODER_ACCESS_TOKEN": qoder.key}

    run = ansible.playbook(
        NAME, "-i", str(source), "-e", "stop_hosts=one,two,qoder-cloud", "-e", "stop_mode=standard", env=reached
    )
    given = _stop(ansible, stop_agent_id="agent-one", stop_turns=False)
    ansible.sandbox.name_agent("agent-7", "ops")
    named = _stop(ansible, stop_agent_name="ops", stop_mode="standard")

    assert run.returncode == 2
    assert _statuses(run) == {"two": ["ok", "changed"]}
    run.assert_error("one: no agent is known whose turn is to be stopped; give stop_agent_id")
    run.assert_error("qoder-cloud: the turns of environments of qoder cannot be stopped")
    given.assert_quiet()
    assert _lines(given) == []
    assert "1 confirmed" not in given.stdout
    assert "2 confirmed" not in given.stdout
    assert "2 confirmed" in named.stdout
    assert {target["agent_id"] for target in named.result("Stop the turns")["targets"]} == {"agent-7"}


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"stop_campaigns": {"spring": 1}}, "stop_campaigns: must be a list, got {'spring': 1}"),
        ({"stop_campaign_state": "active"}, "stop_campaign_state: must be one of paused, cancelled, got 'active'"),
        ({"stop_mode": "asleep"}, "stop_mode: must be one of default, standard, acceptEdits, strict, got 'asleep'"),
        ({"stop_mode": "unrestricted"}, "stop_mode: must be one of default, standard, acceptEdits, strict, got"),
        ({"stop_answer_timeout": 0}, "answer_timeout: must be more than 0"),
        ({"stop_conversation_id": "new"}, "conversation_id: must be one that exists"),
    ],
)
def test_an_error_is_one_line(
    ansible: Ansible, devices: list[dict[str, Any]], wrong: dict[str, Any], part: str
) -> None:
    run = _stop(ansible, **wrong)

    run.assert_error(part)
    assert run.returncode == 2
