"""Updates of real devices, from an older version to a newer one."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.integration.conftest import Ansible, step
from tests.sandbox.process import Sandbox
from tests.sandbox.turns import ApprovalTurn, LongTurn

from .device import PATIENCE, VERSION, eventually
from .npm_install import ALONE, ELSEWHERE, FAILS, OLDER, npm_device, npm_devices


def _row(sandbox: Sandbox) -> dict[str, Any]:
    [entry] = sandbox.fleet()
    row: dict[str, Any] = entry["row"]
    return row


def test_an_update_ends_on_the_newer_version_and_is_not_repeated(
    letta: None, lone_sandbox: Sandbox, tmp_path: Path
) -> None:
    update = {"targets": ["old"], "target_version": VERSION, "update_timeout": PATIENCE}
    with npm_device(lone_sandbox, "old", tmp_path / "old"):
        before = _row(lone_sandbox)
        run = Ansible(tmp_path, lone_sandbox).steps(
            step("update", "self_update", **update),
            step("again", "self_update", **update),
            step("wait", "wait_for_environment", targets=["old"], version=VERSION, wait_timeout=PATIENCE),
        )
        after = _row(lone_sandbox)

    run.assert_quiet()
    updated, again = (run.result(task)["targets"][0] for task in ("update", "again"))
    assert (updated["status"], updated["method"]) == ("changed", "command")
    assert (updated["previous_version"], updated["version"]) == (OLDER, VERSION)
    assert f"Updated to {VERSION}" in updated["output"]
    assert [run.result(task)["changed"] for task in ("update", "again", "wait")] == [True, False, False]
    assert again["status"] == "ok"
    assert (before["id"], before["metadata"]["lettaCodeVersion"]) == (after["id"], OLDER)
    assert after["metadata"]["lettaCodeVersion"] == VERSION
    assert before["connectionId"] != after["connectionId"] == updated["connection_id"]


def test_an_update_that_npm_refuses_fails_with_the_message_of_the_device(
    letta: None, lone_sandbox: Sandbox, tmp_path: Path
) -> None:
    with npm_device(lone_sandbox, "old", tmp_path / "old", FAILS):
        run = Ansible(tmp_path, lone_sandbox).task("self_update", targets=["old"], update_timeout=PATIENCE)
        after = _row(lone_sandbox)

    run.assert_error("old: failed", "EACCES")
    assert run.result("it")["changed"] is False
    assert after["metadata"]["lettaCodeVersion"] == OLDER


def test_a_device_that_comes_back_on_its_old_version_fails_as_soon_as_it_says_so(
    letta: None, lone_sandbox: Sandbox, tmp_path: Path
) -> None:
    with npm_device(lone_sandbox, "old", tmp_path / "old", ELSEWHERE):
        run = Ansible(tmp_path, lone_sandbox).task(
            "self_update", targets=["old"], target_version=VERSION, update_timeout=3600
        )

    # Without "within 3600 s".
    run.assert_error(
        f"old: failed: not back on version {VERSION} or newer: it reconnected and is online, version {OLDER}"
    )
    assert f"Updated to {VERSION}" in run.result("it")["targets"][0]["output"]


def test_two_environments_of_a_device_are_updated_one_after_the_other(
    letta: None, lone_sandbox: Sandbox, tmp_path: Path
) -> None:
    with npm_devices(lone_sandbox, ["one", "two"], tmp_path / "old", ALONE):
        devices = {entry["row"]["deviceId"] for entry in lone_sandbox.fleet()}
        run = Ansible(tmp_path, lone_sandbox).task(
            "self_update", targets=["one", "two"], target_version=VERSION, update_timeout=PATIENCE
        )
        versions = [entry["row"]["metadata"]["lettaCodeVersion"] for entry in lone_sandbox.fleet()]

    assert len(devices) == 1
    run.assert_quiet()
    assert run.result("it")["msg"] == "2 targets: 2 changed"
    assert versions == [VERSION] * 2


def test_a_device_is_told_when_its_turn_and_its_background_work_have_ended(
    letta: None, lone_sandbox: Sandbox, tmp_path: Path
) -> None:
    """The turn begins a command in the background, which waits for this test to write into a pipe."""
    agent, pipe = "agent-busy", tmp_path / "pipe"
    os.mkfifo(pipe)
    command = {"command": f"cat {pipe}", "description": "wait", "run_in_background": True}
    lone_sandbox.script(agent, LongTurn(seconds=3600), ApprovalTurn(tool_name="Bash", arguments=command))
    told: dict[str, Any] = {"targets": ["old"], "agent_id": agent, "target_version": VERSION}
    ansible = Ansible(tmp_path, lone_sandbox)

    def look() -> dict[str, Any]:
        run = ansible.task("self_update", **told, when_busy="skip")
        run.assert_quiet()
        [target] = run.result("it")["targets"]
        assert target["status"] == "skipped"
        return dict(target)

    def tell(content: str) -> None:
        ansible.task("send_message", targets=["old"], agent_id=agent, content=content).assert_quiet()

    with npm_device(lone_sandbox, "old", tmp_path / "old"), ThreadPoolExecutor() as beside:
        tell("work")
        eventually(lambda: look()["reason"].startswith(f"busy: a turn of {agent}"))
        ansible.task("environment_turn", targets=["old"], agent_id=agent, state="aborted").assert_quiet()
        tell("work in the background")
        eventually(lambda: look()["reason"] == f"busy: in the background: cat {pipe}")
        commands = lone_sandbox.received()[_row(lone_sandbox)["id"]]["commands"]
        looks = len(lone_sandbox.requests("relay"))
        updating = beside.submit(ansible.task, "self_update", **told, update_timeout=PATIENCE)
        eventually(lambda: len(lone_sandbox.requests("relay")) >= looks + 2)
        commands += lone_sandbox.received()[_row(lone_sandbox)["id"]]["commands"]
        with pipe.open("w") as end:
            end.write("over")
        run = updating.result()

    run.assert_quiet()
    assert commands == []
    [updated] = run.result("it")["targets"]
    assert (updated["status"], updated["version"]) == ("changed", VERSION)


def test_a_device_installed_as_a_python_package_is_not_updated_and_says_how_to_update(ansible: Ansible) -> None:
    run = ansible.task("self_update", targets=["alpha"], target_version="99.0.0")

    run.assert_error("alpha: failed", "Upgrade with your installer: uv tool upgrade letta")
    assert ansible.sandbox.received() == {}
