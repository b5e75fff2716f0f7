"""Real devices that are stopped: restarted in mid-turn, at work in the background, and in several conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.standing import write_summary
from tests.integration.conftest import Ansible, Run, step
from tests.sandbox.process import Sandbox
from tests.sandbox.turns import ApprovalTurn, LongTurn

from .conftest import Fleet
from .device import Device, eventually


def _ask(sandbox: Sandbox, path: str) -> Any:
    return sandbox.control.get(path, headers={"Authorization": f"Bearer {sandbox.api_key}"}).json()


def _running(sandbox: Sandbox, agent: str) -> set[str]:
    """The conversations with a run under way."""
    runs = _ask(sandbox, f"/v1/runs/?agent_id={agent}&active=true")
    return {run["conversation_id"] or "default" for run in runs}


def _play(ansible: Ansible, name: str, limit: str, **variables: Any) -> Run:
    return ansible.playbook(f"fleetops.environments.{name}", "--limit", limit, "-e", json.dumps(variables))


def test_what_a_device_begins_after_a_restart_in_mid_turn_is_stopped(
    letta: None, lone_sandbox: Sandbox, tmp_path: Path
) -> None:
    ansible, told = Ansible(tmp_path, lone_sandbox), {"targets": ["alpha"], "agent_id": "agent-1"}
    lone_sandbox.script("agent-1", then=LongTurn(seconds=3600))
    with Device.start(lone_sandbox, "alpha", tmp_path / "alpha"):
        ansible.steps(step("work", "send_message", **told, content="work")).assert_quiet()
        eventually(lambda: _running(lone_sandbox, "agent-1") == {"default"})
        ansible.steps(step("next", "send_message", **told, content="next")).assert_quiet()
    with Device.start(lone_sandbox, "alpha", tmp_path / "alpha"):
        mode = step("mode", "environment_mode", **told, mode="standard")
        asked = ansible.steps({**mode, "check_mode": True})
        stopped = _play(ansible, "stop", "alpha", stop_mode="standard", stop_agent_id="agent-1")
        requests = len(lone_sandbox.requests("turn"))
        again = ansible.steps(
            step("looked", "environment_turn", **told, state="aborted") | {"check_mode": True},
            step("resumed", "environment_turn", **told, state="resumed"),
        )

    [target] = asked.result("mode")["targets"]
    assert target["work_started"] is True
    assert target["reason"] == "2 messages would go on, which waited on the device"
    stopped.assert_quiet()
    assert stopped.result("Say who did not confirm")["msg"] == "1 hosts: 1 confirmed; 1 conversations looked at"
    statuses = [line.split("  ")[:3] for line in stopped.result("Show the result of each host")["msg"]]
    assert statuses == [["alpha", "turn", "changed"], ["alpha", "mode", "changed"]]
    assert [again.result(task)["targets"][0]["status"] for task in ("looked", "resumed")] == ["ok", "ok"]
    assert _running(lone_sandbox, "agent-1") == set()
    assert len(lone_sandbox.requests("turn")) == requests


def test_resuming_a_device_that_was_restarted_in_mid_turn_says_what_it_begins(
    letta: None, lone_sandbox: Sandbox, tmp_path: Path
) -> None:
    ansible, told = Ansible(tmp_path, lone_sandbox), {"targets": ["alpha"], "agent_id": "agent-1"}
    lone_sandbox.script("agent-1", then=LongTurn(seconds=3600))
    with Device.start(lone_sandbox, "alpha", tmp_path / "alpha") as device:
        ansible.steps(step("work", "send_message", **told, content="work")).assert_quiet()
        eventually(lambda: _running(lone_sandbox, "agent-1") == {"default"})
        device.kill()
    with Device.start(lone_sandbox, "alpha", tmp_path / "alpha"):
        run = ansible.steps(
            step("aborted", "environment_turn", **told, state="aborted"),
            step("resumed", "environment_turn", **told, state="resumed"),
            step("stopped", "environment_turn", **told, state="aborted"),
        )

    run.assert_quiet()
    aborted, resumed, stopped = [run.result(task)["targets"][0] for task in ("aborted", "resumed", "stopped")]
    assert (aborted["status"], aborted["under_way"]) == ("ok", False)
    assert "1 message waits on the device, which goes on with state=resumed" in aborted["reason"]
    assert (resumed["status"], resumed["under_way"], resumed["reason"]) == ("changed", True, "1 message goes on")
    assert (stopped["status"], stopped["under_way"]) == ("changed", False)


def test_background_work_leaves_a_host_unconfirmed(ansible: Ansible, fleet: Fleet, tmp_path: Path) -> None:
    over = tmp_path / "over"
    command = f"until test -e {over}; do sleep 0.1; done"
    arguments = {"command": command, "description": "x", "run_in_background": True}
    fleet.sandbox.script("agent-background", ApprovalTurn(tool_name="Bash", arguments=arguments, text="It runs."))
    told = {"targets": ["alpha"], "agent_id": "agent-background"}
    try:
        sent = ansible.steps(step("work", "send_message", **told, content="work", wait_for_reply=True))
        stopped = _play(ansible, "stop", "alpha", stop_agent_id="agent-background")
        allowed = _play(ansible, "stop", "alpha", stop_agent_id="agent-background", stop_allow_background=True)
    finally:
        over.touch()

    sent.assert_quiet()
    assert stopped.returncode == 2
    stopped.assert_error(f"alpha: background work goes on: {command}")
    assert stopped.result("Say who did not confirm")["msg"].startswith("1 hosts: 0 confirmed, 1 did not: alpha")
    allowed.assert_quiet()
    assert f"alpha  background  bash  {command}" in allowed.result("Show the result of each host")["msg"]


def test_a_monitor_is_ended_and_so_is_the_turn_that_its_end_begins(ansible: Ansible, fleet: Fleet) -> None:
    agent, told = "agent-monitor", {"targets": ["alpha"], "agent_id": "agent-monitor"}
    arguments = {"command": "sleep 4321", "description": "watch it", "persistent": True}
    fleet.sandbox.script(agent, ApprovalTurn(tool_name="Monitor", arguments=arguments), then=LongTurn(seconds=3600))
    ansible.steps(step("work", "send_message", **told, content="work", wait_for_reply=True)).assert_quiet()
    looked = step("looked", "environment_turn", **told, state="aborted") | {"check_mode": True}

    before = ansible.steps(looked)
    stopped = _play(ansible, "stop", "alpha", stop_agent_id=agent)
    after = ansible.steps(looked)

    [monitor] = before.result("looked")["targets"][0]["background_processes"]
    assert (monitor["kind"], monitor["command"]) == ("monitor", "watch it")
    stopped.assert_quiet()
    [target] = after.result("looked")["targets"]
    assert (target["under_way"], target["background_processes"]) == (False, [])
    assert _running(fleet.sandbox, agent) == set()


def test_three_conversations_of_one_agent_at_work_on_two_devices(ansible: Ansible, fleet: Fleet) -> None:
    agent, sandbox = "agent-three", fleet.sandbox
    environments = {entry["name"]: entry["id"] for entry in sandbox.fleet()}
    of_alpha, of_beta = (_make_standing(sandbox, agent, environments[name]) for name in ("alpha", "beta"))
    ask = {"targets": [{"host": "alpha", "conversation_id": of_alpha}], "agent_id": agent}
    # A device asks about no command that only reads.
    command = f"mkfifo {agent} && cat {agent}"
    sandbox.script(
        agent,
        ApprovalTurn(tool_name="Bash", arguments={"command": command, "description": "x"}),
        then=LongTurn(seconds=3600),
    )
    ansible.steps(
        step("mode", "environment_mode", **ask, mode="standard"),
        step("ask", "send_message", **ask, content="work", wait_for_reply=True, reply_timeout=60, max_failures=1),
    )
    for host, conversation_id in (("alpha", "default"), ("beta", of_beta)):
        target = {"host": host, "conversation_id": conversation_id, "agent_id": agent}
        ansible.steps(step("work", "send_message", targets=[target], content="work")).assert_quiet()
    eventually(lambda: _running(sandbox, agent) == {"default", of_beta})

    waiting = _play(ansible, "approvals", "alpha,beta", approvals_agent_id=agent)
    one = _play(ansible, "stop", "alpha", stop_agent_id=agent)
    left = _running(sandbox, agent)
    both = _play(ansible, "stop", "alpha,beta", stop_agent_id=agent)
    nothing = _play(ansible, "approvals", "alpha,beta", approvals_agent_id=agent)

    for run in (waiting, one, both, nothing):
        run.assert_quiet()
    [line] = waiting.result("Show what waits, by tool")["msg"]
    assert line.split("  ")[:2] == ["Bash", "alpha"]
    assert one.result("Say who did not confirm")["msg"] == "1 hosts: 1 confirmed; 2 conversations looked at"
    lines = [line.split("  ")[:3] for line in one.result("Show the result of each host")["msg"]]
    assert lines == [["alpha", "turn", "changed"], ["alpha", "turn", "changed"]]
    assert left == {of_beta}
    assert both.result("Say who did not confirm")["msg"] == "2 hosts: 2 confirmed; 4 conversations looked at"
    assert _running(sandbox, agent) == set()
    assert (
        nothing.result("Summarise")["msg"] == "0 tool calls waited, 0 answered, 0 wait now; 4 conversations looked at"
    )


def _make_standing(sandbox: Sandbox, agent: str, environment_id: str) -> str:
    key, body = {"Authorization": f"Bearer {sandbox.api_key}"}, {"summary": write_summary(environment_id)}
    return str(sandbox.control.post(f"/v1/conversations/?agent_id={agent}", headers=key, json=body).json()["id"])
