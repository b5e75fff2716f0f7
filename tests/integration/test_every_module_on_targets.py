"""The options that every module on targets has from its fragments, each tested in each module.

The claim `covers("fragment targets", ...)` is one for every module whose specification has that fragment's options.
"""

from __future__ import annotations

import importlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import CHECKOUT, Ansible, Run, awake, step

# The options of each module besides its targets; send_message has its own tests for all of this.
TOLD: dict[str, dict[str, Any]] = {
    "approval_info": {"agent_id": "agent-1"},
    "environment_command": {"command": "reload", "agent_id": "agent-1", "conversation_id": "default"},
    "environment_mode": {"mode": "acceptEdits", "agent_id": "agent-1", "conversation_id": "default"},
    # Aborting continues if a device is offline: the server can cancel.
    "environment_turn": {"state": "resumed", "agent_id": "agent-1"},
    "self_update": {"target_version": "0.1.0", "agent_id": "agent-1"},
    "wait_for_environment": {"wait_timeout": 10},
}
# Modules with targets and a connection, but without the fan-out and its options.
ONCE: dict[str, dict[str, Any]] = {"rollout": {"name": "r", "version": "0.1.0", "ledger": "ledger.sqlite"}}


def _modules(option: str) -> list[str]:
    """The modules that have an option."""
    names = sorted(path.stem for path in Path(CHECKOUT, "plugins/modules").glob("*.py"))
    package = "ansible_collections.fleetops.environments.plugins.action"
    return [name for name in names if option in importlib.import_module(f"{package}.{name}").ActionModule.SPEC]


every_module = pytest.mark.parametrize("module", TOLD)
# These modules wait for offline targets with their own options.
every_module_for_those_online = pytest.mark.parametrize(
    "module", [module for module in TOLD if module in _modules("when_offline")]
)


def test_every_module_on_targets_has_a_case_here() -> None:
    assert sorted([*TOLD, *ONCE, "send_message"]) == _modules("targets")


def _able(ansible: Ansible, count: int) -> list[dict[str, Any]]:
    """Online environments that support everything that the modules ask for."""
    able = [entry for entry in awake(ansible.sandbox) if "reload" in entry["row"]["metadata"]["supported_commands"]]
    assert len(able) >= count
    return able[:count]


def _names(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["name"] for entry in entries]


def _statuses(run: Run, task: str) -> list[str]:
    return [target["status"] for target in run.result(task)["targets"]]


@every_module
@pytest.mark.covers("fragment targets", "targets", "max_targets", "agent_id", "conversation_id")
def test_errors_in_targets_are_reported_before_anything_is_asked(ansible: Ansible, module: str) -> None:
    names = _names(_able(ansible, 2))
    told = TOLD[module]

    run = ansible.steps(
        step("too many", module, **told, targets=names, max_targets=1),
        step("nobody", module, **told, targets=["nobody"]),
        step("key", module, **told, targets=[{"host": names[0], "colour": "red"}]),
        step("twice", module, **told, targets=[names[0], names[0]]),
        step("concurrency", module, **told, targets=names, concurrency=0),
        step("rate", module, **told, targets=names, rate=0),
        step("max_failures", module, **told, targets=names, max_failures="some"),
        step("result_file", module, **told, targets=names, result_file="report.xml"),
        step("retry_file", module, **told, targets=names, retry_file="/nonexistent/again.txt"),
        {**step("own", module, **told, retry_file="again.txt"), "delegate_to": "localhost"},
    )

    said = {entry["task"]: entry["result"]["msg"] for entry in run.results}
    assert "max_targets: 2 targets are more than the 1 allowed" in said.pop("too many")
    assert "targets[0]: 'nobody' is no host of the inventory" in said.pop("nobody")
    keys = "host, agent_id, conversation_id" if "agent_id" in told else "host"
    assert f"targets[0]: has no key 'colour'; it may have {keys}" in said.pop("key")
    assert "targets[1]: " in said.pop("twice")
    assert "retry_file: needs targets" in said.pop("own")
    for option, message in said.items():
        assert message.startswith(f"{option}: "), message
    assert all(entry["outcome"] == "failed" for entry in run.results)
    assert ansible.sandbox.requests("retrieve") == []


@every_module_for_those_online
@pytest.mark.covers("fragment targets", "when_offline", "offline_timeout")
def test_when_offline_decides_how_an_offline_target_counts(ansible: Ansible, module: str) -> None:
    offline = next(entry for entry in ansible.sandbox.fleet() if not entry["online"])
    told = {**TOLD[module], "targets": [offline["name"]]}

    run = ansible.steps(
        step("skip", module, **told),
        step("fail", module, **told, when_offline="fail"),
        step("wait", module, **told, when_offline="wait", offline_timeout=0.2),
        step("wrong", module, **told, when_offline="wait", offline_timeout=-1),
    )

    assert [entry["outcome"] for entry in run.results] == ["ok", "failed", "failed", "failed"]
    assert run.result("wrong")["msg"] == "offline_timeout: must be 0 or more, got -1.0"
    assert [_statuses(run, task) for task in ("skip", "fail", "wait")] == [["offline"]] * 3
    looked_up = [entry["at"] for entry in ansible.sandbox.requests("retrieve")]
    assert len(looked_up) == 4


@every_module
@pytest.mark.covers("fragment targets", "max_failures", "concurrency", "result_file", "retry_file")
def test_above_max_failures_nothing_new_starts_and_every_result_is_recorded(ansible: Ansible, module: str) -> None:
    entries = _able(ansible, 3)
    ansible.sandbox.add_fault("status", route="retrieve", status=400)
    told = {**TOLD[module], "targets": _names(entries), "concurrency": 1}
    files = {"result_file": "report.csv", "retry_file": "again.txt"}

    run = ansible.steps(
        step("none", module, **told, **files),
        step("all", module, **told, max_failures="100%"),
    )

    assert [entry["outcome"] for entry in run.results] == ["failed", "ok"]
    assert _statuses(run, "none") == ["failed", "not_attempted", "not_attempted"]
    assert _statuses(run, "all") == ["failed"] * 3
    header, *lines = (ansible.directory / "report.csv").read_text().splitlines()
    assert header.startswith("host,id,status,")
    assert [line.split(",")[0] for line in lines] == _names(entries)
    assert (ansible.directory / "again.txt").read_text().split() == _names(entries)


@every_module
@pytest.mark.covers("fragment targets", "concurrency", "rate")
def test_concurrency_and_rate_limit_the_targets(ansible: Ansible, module: str) -> None:
    entries = _able(ansible, 4)
    ansible.sandbox.add_fault("slow", route="retrieve", seconds=0.3)
    told = {**TOLD[module], "targets": _names(entries), "max_failures": "100%"}

    ansible.steps(
        step("two", module, **told, concurrency=2),
        step("default", module, **told),
        step("paced", module, **told, rate=4),
    )

    looked_up = ansible.sandbox.requests("retrieve")
    two, default = looked_up[:4], looked_up[4:8]
    assert max(entry["under_way"] for entry in two) == 2
    assert max(entry["under_way"] for entry in default) == 4
    paced = looked_up[8:]
    gaps = [later["at"] - earlier["at"] for earlier, later in itertools.pairwise(paced)]
    # The first request may be late, and without a rate all requests start at once.
    assert paced[-1]["at"] - paced[0]["at"] >= 3 / 4 - 0.3, gaps


@pytest.mark.parametrize("module", [*TOLD, *ONCE])
@pytest.mark.covers("fragment letta", "base_url", "api_key", "api_key_file", "timeout", "retries", "deadline")
@pytest.mark.covers("fragment letta", "validate_certs", "ca_path", "client_cert", "client_key", "relay_timeout")
def test_each_connection_option_has_an_effect(ansible: Ansible, module: str) -> None:
    wrong: dict[str, Any] = {
        "base_url": "ftp://127.0.0.1",
        "api_key": "white space",
        "api_key_file": "/nonexistent/key",
        "timeout": 0,
        "retries": -1,
        "deadline": 0,
        "validate_certs": "perhaps",
        "ca_path": "/nonexistent/ca.pem",
        "client_cert": "/nonexistent/client.pem",
        "client_key": "/nonexistent/client.key",
        "relay_timeout": 0,
    }
    told = {**{**TOLD, **ONCE}[module], "targets": _names(_able(ansible, 1))}

    run = ansible.steps(*(step(option, module, **told, **{option: value}) for option, value in wrong.items()))

    for entry in run.results:
        message = json.dumps(entry["result"]["msg"])
        assert entry["outcome"] == "failed", message
        assert entry["task"] in message, message
    assert len(run.results) == len(wrong)
    assert ansible.sandbox.requests("retrieve") == []


def test_the_defaults_of_the_action_group_apply_to_every_module_that_connects(ansible: Ansible) -> None:
    [name] = _names(_able(ansible, 1))
    on_targets = {**TOLD, **ONCE, "send_message": {"content": "Report.", "agent_id": "agent-1"}}
    sent = {"host": name, "status": "sent", "client_message_id": "message-1", "agent_id": "agent-1"}
    told: dict[str, dict[str, Any]] = {
        **{module: {**own, "targets": [name]} for module, own in on_targets.items()},
        "environment_info": {},
        "reply_info": {"replies": [sent]},
    }
    assert sorted(told) == _modules("api_key")

    run = ansible.steps(
        *(step(module, module, **own) for module, own in told.items()),
        module_defaults={"group/fleetops.environments.letta": {"timeout": 0}},
    )

    for module in told:
        assert "timeout: must be" in run.result(module)["msg"], module
