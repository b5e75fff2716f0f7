"""until and retries: what must not happen twice happens once for each target, however many attempts a task has."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.sandbox.turns import ErrorTurn, LongTurn

from .conftest import AGENT, Ansible, Run, messages_of, step

METADATA = {"lettaCodeVersion": "0.33.9", "supported_commands": ["reload", "upgrade-letta-code"]}
UNTIL = {"register": "r", "until": "r is success", "retries": 3, "delay": 0}
ATTEMPTS = 4
SEND = {"content": "Hello", "agent_id": AGENT}
# The module's own repetitions of a request are switched off, so that each attempt is one request.
ONE_REQUEST = {"retries": 0, "timeout": 2}


@pytest.fixture
def devices(ansible: Ansible) -> dict[str, dict[str, Any]]:
    """Host → row of three simulated devices."""
    names = ("one", "two", "three")
    return {name: ansible.sandbox.add_environment(connectionName=name, metadata=METADATA) for name in names}


def _refuse(ansible: Ansible, device: dict[str, Any], **rule: Any) -> None:
    """Let the API refuse messages to a device, which then has not got them."""
    ansible.sandbox.add_fault("status", route="messages", status=400, target=device["id"], **rule)


def _count_turns(ansible: Ansible, devices: dict[str, dict[str, Any]]) -> dict[str, int]:
    received = ansible.sandbox.received()
    return {name: received.get(row["id"], {}).get("turns", 0) for name, row in devices.items()}


def _count_posts(ansible: Ansible, device: dict[str, Any]) -> int:
    """The message requests for a device, whatever their answer."""
    return sum(device["connectionId"] in request["path"] for request in ansible.sandbox.requests("messages"))


def _count_commands(ansible: Ansible, devices: dict[str, dict[str, Any]]) -> dict[str, int]:
    received = ansible.sandbox.received()
    return {name: len(received.get(row["id"], {}).get("commands", [])) for name, row in devices.items()}


def _statuses(result: dict[str, Any]) -> dict[str, str]:
    return {target["host"]: target["status"] for target in result["targets"]}


def _run(ansible: Ansible, module: str, *arguments: str, hosts: str = "localhost", **options: Any) -> Run:
    """One task that has up to four attempts."""
    return ansible.task(module, *arguments, play={"hosts": hosts}, keywords=UNTIL, **options)


@pytest.mark.covers("send_message", "result_file", "retry_file")
def test_a_fan_out_is_repeated_only_for_those_that_do_not_have_the_message(
    ansible: Ansible, devices: dict[str, dict[str, Any]]
) -> None:
    _refuse(ansible, devices["two"])
    files = {"result_file": "report.jsonl", "retry_file": "again.txt"}

    run = _run(ansible, "send_message", **SEND, targets=[*devices], **files)

    result = run.result("it")
    assert run.returncode == 2
    assert (result["changed"], result["attempts"]) == (True, ATTEMPTS - 1)
    assert _statuses(result) == {"one": "sent", "two": "failed", "three": "sent"}
    assert _count_turns(ansible, devices) == {"one": 1, "two": 0, "three": 1}
    assert _count_posts(ansible, devices["two"]) == ATTEMPTS
    lines = [json.loads(line) for line in (ansible.directory / "report.jsonl").read_text().splitlines()]
    assert [line["host"] for line in lines] == [*devices]
    assert (ansible.directory / "again.txt").read_text().split() == ["two"]


def test_an_attempt_that_succeeds_ends_the_task_with_all_targets(
    ansible: Ansible, devices: dict[str, dict[str, Any]]
) -> None:
    _refuse(ansible, devices["two"], times=2)

    run = _run(ansible, "send_message", **SEND, targets=[*devices], max_failures=0, concurrency=1)

    run.assert_quiet()
    result = run.result("it")
    assert (result["attempts"], result["changed"], result["msg"]) == (3, True, "3 targets: 3 sent")
    assert _count_turns(ansible, devices) == dict.fromkeys(devices, 1)
    wire = {name: messages_of(ansible.sandbox, row)[0]["client_message_id"] for name, row in devices.items()}
    assert {target["host"]: target["client_message_id"] for target in result["targets"]} == wire


@pytest.mark.parametrize("agent", [AGENT, ""], ids=["with an agent", "without an agent"])
@pytest.mark.parametrize("fault", ["drop_before", "drop_after"])
def test_a_message_that_may_have_been_accepted_arrives_once_under_one_id(
    ansible: Ansible, devices: dict[str, dict[str, Any]], fault: str, agent: str
) -> None:
    ansible.sandbox.add_fault(fault, route="messages", target=devices["one"]["id"], times=1)

    run = _run(ansible, "send_message", hosts="one", content="Hello", agent_id=agent, **ONE_REQUEST)

    run.assert_quiet()
    result = run.result("it")
    assert (result["status"], result["changed"], result["attempts"]) == ("sent", True, 2)
    [message] = messages_of(ansible.sandbox, devices["one"])
    assert result["client_message_id"] == message["client_message_id"]
    # What is found in the agent's conversation is not sent again.
    again = fault == "drop_before" or not agent
    assert _count_posts(ansible, devices["one"]) == 1 + again


def test_what_was_unclear_once_stays_unknown_until_it_is_found(
    ansible: Ansible, devices: dict[str, dict[str, Any]]
) -> None:
    ansible.sandbox.add_fault("drop_before", route="messages", target=devices["one"]["id"], times=1)
    _refuse(ansible, devices["one"])

    run = _run(ansible, "send_message", **SEND, targets=["one"], retry_file="again.txt", **ONE_REQUEST)

    assert _statuses(run.result("it")) == {"one": "unknown"}
    assert not (ansible.directory / "again.txt").exists()


def test_approvals_that_may_have_been_accepted_are_not_sent_again(
    ansible: Ansible, devices: dict[str, dict[str, Any]]
) -> None:
    ansible.sandbox.add_fault("drop_after", route="messages", target=devices["one"]["id"], times=1)
    approvals = [{"tool_call_id": "call-1", "approve": True}]

    run = _run(ansible, "send_message", hosts="one", approvals=approvals, agent_id=AGENT, **ONE_REQUEST)

    assert run.returncode == 2
    assert run.result("it")["status"] == "unknown"
    assert _count_posts(ansible, devices["one"]) == 1


@pytest.mark.parametrize("hosts", ["localhost", "one"], ids=["fan-out", "single host"])
def test_a_reply_is_waited_for_again_and_its_message_not_sent_again(
    ansible: Ansible, devices: dict[str, dict[str, Any]], hosts: str
) -> None:
    ansible.sandbox.script(AGENT, LongTurn(seconds=2.5, text="Fine."))
    targets = {"targets": ["one"]} if hosts == "localhost" else {}

    run = _run(ansible, "send_message", hosts=hosts, **SEND, **targets, wait_for_reply=True, reply_timeout=1)

    run.assert_quiet()
    result = run.result("it")
    assert (result["attempts"], result["changed"]) == (3, True)
    [told] = result["targets"] if targets else [result]
    assert (told["status"], told["reply"]["text"], told["error"]) == ("sent", "Fine.", None)
    assert _count_turns(ansible, devices)["one"] == 1
    assert len(ansible.sandbox.requests("messages")) == 1


def test_another_item_of_a_loop_is_no_other_attempt(ansible: Ansible, devices: dict[str, dict[str, Any]]) -> None:
    _refuse(ansible, devices["one"], times=1)
    loop = {"loop": ["same", "same", "other"]}

    run = ansible.steps(
        {**step("one", "send_message", content="{{ item }}", agent_id=AGENT), **loop, **UNTIL},
        {**step("many", "send_message", content="{{ item }}", agent_id=AGENT, targets=["two"]), **loop, **UNTIL},
        {**step("again", "send_message", content="same", agent_id=AGENT, targets=["two"]), **UNTIL},
        hosts="one",
    )

    run.assert_quiet()
    assert [result["attempts"] for result in run.result("one")["results"]] == [2, 1, 1]
    texts = {name: [message["content"] for message in messages_of(ansible.sandbox, devices[name])] for name in devices}
    assert texts == {"one": ["same", "same", "other"], "two": ["same", "same", "other", "same"], "three": []}


def test_a_conversation_is_made_once_for_all_attempts(ansible: Ansible, devices: dict[str, dict[str, Any]]) -> None:
    _refuse(ansible, devices["one"], times=2)

    run = _run(ansible, "send_message", hosts="one", **SEND, conversation_id="new")

    run.assert_quiet()
    assert len(ansible.sandbox.requests("conversations")) == 1
    [message] = messages_of(ansible.sandbox, devices["one"])
    assert message["conversationId"] == run.result("it")["conversation_id"]


def test_a_template_is_rendered_for_the_first_attempt(ansible: Ansible, devices: dict[str, dict[str, Any]]) -> None:
    _refuse(ansible, devices["one"], times=1)
    ansible.file("templates/text.j2", "{{ lookup('pipe', 'echo >> times; wc -l < times') }}")

    run = _run(ansible, "send_message", hosts="one", content_template="text.j2", agent_id=AGENT)

    run.assert_quiet()
    assert _count_posts(ansible, devices["one"]) == 2
    assert messages_of(ansible.sandbox, devices["one"])[0]["content"] == "1"


@pytest.mark.parametrize("retry", ["undelivered", "failed_turns", "all"])
def test_the_attempts_of_a_campaign_send_once_and_record_the_replies(
    ansible: Ansible, devices: dict[str, dict[str, Any]], retry: str
) -> None:
    _refuse(ansible, devices["two"], times=1)
    ansible.sandbox.script("agent-of-three", ErrorTurn(), then=ErrorTurn())
    targets = ["one", "two", {"host": "three", "agent_id": "agent-of-three"}]
    campaign = {"campaign": "c", "ledger": "ledger.sqlite", "retry": retry, "wait_for_reply": True}

    run = _run(ansible, "send_message", **SEND, targets=targets, **campaign, max_failures=1)
    info = ansible.task("campaign_info", campaign="c", ledger="ledger.sqlite", include_deliveries=True)

    result = run.result("it")
    assert _count_turns(ansible, devices) == dict.fromkeys(devices, 1)
    assert _statuses(result) == dict.fromkeys(devices, "sent")
    assert result["changed"] is True
    assert [target["reply"]["state"] for target in result["targets"]] == ["replied", "replied", "failed"]
    recorded = {entry["host"]: (entry["status"], entry["reply_state"]) for entry in info.result("it")["deliveries"]}
    assert recorded == {"one": ("sent", "replied"), "two": ("sent", "replied"), "three": ("sent", "failed")}


def test_a_campaign_looks_up_what_an_attempt_may_have_delivered(
    ansible: Ansible, devices: dict[str, dict[str, Any]]
) -> None:
    ansible.sandbox.add_fault("drop_after", route="messages", target=devices["one"]["id"], times=1)

    run = _run(ansible, "send_message", **SEND, targets=["one"], campaign="c", ledger="ledger.sqlite", **ONE_REQUEST)

    run.assert_quiet()
    assert (_statuses(run.result("it")), run.result("it")["changed"]) == ({"one": "sent"}, True)
    assert _count_posts(ansible, devices["one"]) == 1


def test_a_command_runs_once_unless_it_fails(ansible: Ansible, devices: dict[str, dict[str, Any]]) -> None:
    ansible.sandbox.command(devices["two"]["id"], "reload", output="late", seconds=3)
    ansible.sandbox.command(devices["three"]["id"], "reload", output="no", success=False)

    run = _run(
        ansible, "environment_command", command="reload", command_timeout=1, targets=[*devices], max_failures="100%"
    )
    strict = _run(ansible, "environment_command", command="reload", command_timeout=1, targets=[*devices])

    run.assert_quiet()
    assert run.result("it")["attempts"] == 1
    result = strict.result("it")
    assert _statuses(result) == {"one": "changed", "two": "unknown", "three": "failed"}
    assert (strict.returncode, result["changed"]) == (2, True)
    # That `two` is unknown stays a failure, above which no other attempt starts anything.
    assert _count_commands(ansible, devices) == {"one": 2, "two": 2, "three": 2}


def test_a_single_host_has_a_command_again_only_if_it_failed(
    ansible: Ansible, devices: dict[str, dict[str, Any]]
) -> None:
    ansible.sandbox.command(devices["two"]["id"], "reload", output="late", seconds=3)
    ansible.sandbox.command(devices["three"]["id"], "reload", output="no", success=False)

    run = _run(ansible, "environment_command", hosts=",".join(devices), command="reload", command_timeout=1)

    assert [run.result("it", name)["status"] for name in devices] == ["changed", "unknown", "failed"]
    assert _count_commands(ansible, devices) == {"one": 1, "two": 1, "three": ATTEMPTS}


def test_a_device_is_told_once_to_update_itself(ansible: Ansible, devices: dict[str, dict[str, Any]]) -> None:
    ansible.sandbox.upgrade_to("0.34.12", comes_back=False)
    ansible.sandbox.patch(devices["two"]["id"], metadata={**METADATA, "lettaCodeVersion": "0.34.12"})
    ansible.sandbox.patch(devices["three"]["id"], metadata={**METADATA, "self_update": {"supported": False}})

    run = _run(
        ansible, "self_update", targets=[*devices], target_version="0.34.12", update_timeout=1, max_failures="50%"
    )
    single = _run(ansible, "self_update", hosts="one", target_version="0.34.12", update_timeout=1)

    result = run.result("it")
    assert _statuses(result) == {"one": "failed", "two": "ok", "three": "failed"}
    assert result["targets"][0]["error"]["code"] == "not_updated"
    assert single.result("it")["status"] == "offline"
    assert _count_commands(ansible, devices) == {"one": 1, "two": 0, "three": 0}


def test_check_mode_does_nothing_in_any_attempt(ansible: Ansible, devices: dict[str, dict[str, Any]]) -> None:
    run = ansible.steps(
        {**step("send", "send_message", **SEND, targets=[*devices]), **UNTIL, "until": "false"},
        {**step("run", "environment_command", command="reload", targets=[*devices]), **UNTIL, "until": "false"},
        arguments=("--check",),
    )

    assert [run.result(task)["attempts"] for task in ("send", "run")] == [ATTEMPTS - 1] * 2
    assert run.result("send")["msg"] == "would send to 3 of 3 targets"
    assert ansible.sandbox.received() == {}


def test_what_does_no_harm_twice_is_done_again(ansible: Ansible, devices: dict[str, dict[str, Any]]) -> None:
    run = ansible.task("approval_info", agent_id=AGENT, targets=["one"], keywords={**UNTIL, "until": "r.attempts == 3"})

    run.assert_quiet()
    assert len(ansible.sandbox.requests("relay")) == 3
