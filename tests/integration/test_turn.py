"""environment_turn: which turn is aborted or resumed, by which way, and how the task reports it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.sandbox.turns import LongTurn

from .conftest import Ansible, step

NAMES = ("one", "two")


@pytest.fixture
def devices(ansible: Ansible) -> list[dict[str, Any]]:
    """Two simulated devices, each with its own agent (`agent-one`, `agent-two`) to set to work."""
    return [ansible.sandbox.add_environment(connectionName=name) for name in NAMES]


def _at_work(ansible: Ansible, *names: str, queued: bool = False) -> None:
    """Set the agents of the devices to work; queued: let another message wait for the end of that work."""
    for name in names:
        ansible.sandbox.script(f"agent-{name}", LongTurn(seconds=3600))
    messages = ["work", "next"][: 1 + queued]
    sends = [
        step(
            text, "send_message", targets=[{"host": name, "agent_id": f"agent-{name}"} for name in names], content=text
        )
        for text in messages
    ]
    ansible.steps(*sends).assert_quiet()
    ansible.sandbox.clear_requests()


def _list_messages(ansible: Ansible, name: str) -> list[str]:
    """The messages that the agent of a device has received; waiting ones are not included."""
    key = {"Authorization": f"Bearer {ansible.sandbox.api_key}"}
    rows = ansible.sandbox.control.get(f"/v1/agents/agent-{name}/messages?order=asc", headers=key).json()
    return [row["content"] for row in rows if row["message_type"] == "user_message"]


def _targets(*names: str, **more: Any) -> list[dict[str, Any]]:
    return [{"host": name, "agent_id": f"agent-{name}", **more} for name in names]


@pytest.mark.covers("environment_turn", "state", "agent_id")
def test_turns_of_two_agents_are_aborted_and_waiting_messages_continue(
    ansible: Ansible, devices: list[dict[str, Any]]
) -> None:
    _at_work(ansible, "one", queued=True)
    told = {"targets": _targets("one", "two")}

    run = ansible.steps(
        step("check", "environment_turn", **told, state="aborted") | {"check_mode": True},
        step("abort", "environment_turn", **told, state="aborted"),
        step("abort again", "environment_turn", **told, state="aborted"),
        step("check resume", "environment_turn", **told, state="resumed") | {"check_mode": True},
        step("resume", "environment_turn", **told, state="resumed"),
        step("resume again", "environment_turn", **told, state="resumed"),
    )

    run.assert_quiet()
    ended = {
        entry["task"]: ([target["status"] for target in entry["result"]["targets"]], entry["result"]["changed"])
        for entry in run.results
    }
    assert ended == {
        "check": (["changed", "ok"], True),
        "abort": (["changed", "ok"], True),
        "abort again": (["ok", "ok"], False),
        "check resume": (["changed", "ok"], True),
        "resume": (["changed", "ok"], True),
        "resume again": (["ok", "ok"], False),
    }
    one, two = run.result("abort")["targets"]
    assert (one["via"], one["queue_paused"], len(one["run_ids"])) == ("relay", True, 1)
    assert "paused until state=resumed" in one["reason"]
    assert (two["via"], two["queue_paused"], two["run_ids"]) == ("relay", False, [])
    assert (one["agent_id"], one["conversation_id"], two["agent_id"]) == ("agent-one", None, "agent-two")
    assert one["connection_id"] == devices[0]["connectionId"]
    assert run.result("abort")["msg"] == "2 targets: 1 changed, 1 ok"
    assert _list_messages(ansible, "one") == ["work", "next"]


def test_the_current_host_is_the_target_without_targets(ansible: Ansible, devices: list[dict[str, Any]]) -> None:
    _at_work(ansible, *NAMES)
    ansible.file("group_vars/letta.yml", yaml.safe_dump({"letta_agent_id": "agent-{{ inventory_hostname }}"}))

    run = ansible.task("environment_turn", state="aborted", play={"hosts": "one,two"})

    run.assert_quiet()
    assert [run.result("it", name)["status"] for name in NAMES] == ["changed", "changed"]
    assert run.result("it", "two")["agent_id"] == "agent-two"


@pytest.mark.parametrize("kind", ["standing", "new"])
@pytest.mark.covers("environment_turn", "conversation_id", "all_conversations")
def test_a_variable_for_a_conversation_that_messages_open_keeps_nobody_from_stopping(
    ansible: Ansible, devices: list[dict[str, Any]], kind: str
) -> None:
    _at_work(ansible, *NAMES)
    ansible.file("group_vars/letta.yml", yaml.safe_dump({"letta_conversation_id": kind}))
    told = {"targets": _targets(*NAMES), "state": "aborted"}

    run = ansible.steps(
        step("everywhere", "environment_turn", **told, all_conversations=True) | {"check_mode": True},
        step("stop", "environment_turn", **told),
    )

    assert run.result("everywhere")["counts"]["changed"] == len(NAMES)
    assert [target["conversation_id"] for target in run.result("stop")["targets"]] == [None, None]
    assert run.result("stop")["counts"]["changed"] == len(NAMES)


@pytest.mark.covers("environment_turn", "run_id", "conversation_id", "agent_id", "answer_timeout")
def test_invalid_options_are_refused_before_anything_is_asked(ansible: Ansible, devices: list[dict[str, Any]]) -> None:
    told = {"targets": _targets("one"), "state": "aborted"}

    run = ansible.steps(
        step("agent_id", "environment_turn", targets=[*_targets("one"), "two"], state="aborted"),
        step("conversation_id", "environment_turn", **told, conversation_id="new"),
        step("run_id", "environment_turn", **{**told, "state": "resumed"}, run_id="run-1"),
        step("answer_timeout", "environment_turn", **told, answer_timeout=0),
        step("state", "environment_turn", targets=_targets("one"), state="stopped"),
    )

    said = {entry["task"]: entry["result"]["msg"] for entry in run.results}
    assert said["agent_id"] == (
        "agent_id: two has none; give it with the task, its entry of targets or its letta_agent_id"
    )
    assert said["conversation_id"] == "conversation_id: must be one that exists, got 'new' for one"
    assert said["run_id"] == "run_id: needs state=aborted, got state=resumed"
    assert said["answer_timeout"] == "answer_timeout: must be more than 0, got 0.0"
    assert "stopped" in said["state"]
    assert ansible.sandbox.requests("retrieve") == ansible.sandbox.requests("relay") == []


@pytest.mark.covers("environment_turn", "run_id", "conversation_id")
def test_another_run_and_another_conversation_continue(ansible: Ansible, devices: list[dict[str, Any]]) -> None:
    _at_work(ansible, "one")
    key = {"Authorization": f"Bearer {ansible.sandbox.api_key}"}
    made = ansible.sandbox.control.post("/v1/conversations/?agent_id=agent-one", headers=key, json={}).json()["id"]
    told = {"targets": _targets("one"), "state": "aborted"}

    run = ansible.steps(
        step("run", "environment_turn", **told, run_id="run-other"),
        step("conversation", "environment_turn", **told, conversation_id=made),
        step("turn", "environment_turn", **told),
    )

    run.assert_quiet()
    statuses = [run.result(task)["targets"][0]["status"] for task in ("run", "conversation", "turn")]
    assert statuses == ["ok", "ok", "changed"]


@pytest.mark.covers("environment_turn", "mode", "end_background")
def test_a_mode_and_the_end_of_monitors_come_before_the_abort(ansible: Ansible, devices: list[dict[str, Any]]) -> None:
    processes = [
        {"process_id": "bash_1", "kind": "bash", "command": "sleep 60", "status": "running"},
        {"process_id": "mon_1", "kind": "monitor", "description": "{{ 1 + 1 }}", "status": "running"},
    ]
    for device in devices:
        ansible.sandbox.patch(device["id"], currentMode="unrestricted")
    ansible.sandbox.script("agent-one", LongTurn(seconds=3600))
    _at_work(ansible, "one", queued=True)
    device = ansible.sandbox.interrupt(devices[0]["id"])
    ansible.sandbox.background(device["id"], "agent-one", *processes)
    told = {"targets": _targets(*NAMES), "state": "aborted"}

    run = ansible.steps(
        step("left alone", "environment_turn", **told),
        step("check", "environment_turn", **told, mode="strict", end_background=True) | {"check_mode": True},
        step("stop", "environment_turn", **told, mode="strict", end_background=True),
        step("mode", "environment_turn", **{**told, "state": "resumed"}, mode="strict"),
        step("end_background", "environment_turn", **{**told, "state": "resumed"}, end_background=True),
    )

    alone, check, stop = [run.result(task)["targets"] for task in ("left alone", "check", "stop")]
    assert [target["mode"] for target in alone] == [None, None]
    assert [target["mode"]["status"] for target in (*check, *stop)] == ["changed"] * 4
    assert [target["mode"]["previous_mode"] for target in (*check, *stop)] == ["unrestricted"] * 4
    running = [[process["process_id"] for process in targets[0]["background_processes"]] for targets in (check, stop)]
    assert running == [["bash_1", "mon_1"], ["bash_1"]]
    assert alone[0]["background_processes"][1] == {
        "process_id": "mon_1", "kind": "monitor", "command": "{{ 1 + 1 }}", "status": "running",
    }  # fmt: skip
    assert [(target["status"], target["under_way"]) for target in stop] == [("changed", False), ("ok", False)]
    assert _list_messages(ansible, "one") == ["work", "work", "next"]
    for option in ("mode", "end_background"):
        assert run.result(option)["msg"] == f"{option}: needs state=aborted, got state=resumed"


@pytest.mark.covers("environment_turn", "answer_timeout")
def test_a_late_answer_makes_the_server_cancel(ansible: Ansible, devices: list[dict[str, Any]]) -> None:
    _at_work(ansible, *NAMES)

    run = ansible.steps(
        step("short", "environment_turn", targets=_targets("one"), state="aborted", answer_timeout=0.00001),
        step("default", "environment_turn", targets=_targets("two"), state="aborted"),
    )

    run.assert_quiet()
    [short], [default] = run.result("short")["targets"], run.result("default")["targets"]
    assert (short["status"], short["via"], default["status"], default["via"]) == ("changed", "rest", "changed", "relay")
    assert "no answer to abort_message within 1e-05 s" in short["reason"]


@pytest.mark.parametrize(
    ("fault", "via"),
    [
        ("relay_close", "rest"),
        ("relay_cut_before", "rest"),
        ("relay_cut_after", "rest"),
        ("relay_cut_during", "rest"),
        ("relay_not_json", "relay"),
        ("relay_silent", "rest"),
    ],
)
def test_the_turn_is_over_wherever_the_relay_fails(
    ansible: Ansible, devices: list[dict[str, Any]], fault: str, via: str
) -> None:
    _at_work(ansible, *NAMES)
    ansible.sandbox.add_fault(fault, target=devices[0]["id"])
    told = {"targets": _targets(*NAMES), "retries": 1, "timeout": 1}

    run = ansible.steps(
        step("abort", "environment_turn", **told, state="aborted"),
        step("again", "environment_turn", **told, state="aborted"),
    )

    run.assert_quiet()
    one, two = run.result("abort")["targets"]
    assert (one["status"], one["via"], two["status"], two["via"]) == ("changed", via, "changed", "relay")
    assert "\n" not in (one["reason"] or "")
    assert run.result("again")["changed"] is False


def test_the_turn_of_an_offline_device_is_aborted_and_not_resumed(
    ansible: Ansible, devices: list[dict[str, Any]]
) -> None:
    _at_work(ansible, *NAMES)
    ansible.sandbox.offline(devices[0]["id"])
    told = {"targets": _targets(*NAMES), "when_offline": "fail"}

    run = ansible.steps(
        step("abort", "environment_turn", **told, state="aborted"),
        step("resume", "environment_turn", **told, state="resumed"),
    )

    one, two = run.result("abort")["targets"]
    assert (one["status"], one["via"], one["queue_paused"]) == ("changed", "rest", None)
    assert one["reason"] == "over REST, since the environment is offline"
    assert two["via"] == "relay"
    assert [entry["outcome"] for entry in run.results] == ["ok", "failed"]
    assert run.result("resume")["targets"][0]["error"] == {
        "code": "offline",
        "message": "the environment is offline; a queue can be resumed over the relay only",
    }


def test_an_unknown_agent_is_one_line(ansible: Ansible, devices: list[dict[str, Any]]) -> None:
    ansible.sandbox.remove_agent("agent-one")

    run = ansible.task("environment_turn", targets=_targets(*NAMES), state="aborted")

    run.assert_error("one: failed: agent_id: the device does not find 'agent-one': 404 Agent 'agent-one' not found")
    assert [target["status"] for target in run.result("it")["targets"]] == ["failed", "ok"]
