"""Updates of real devices, from an older version to a newer one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.integration.conftest import Ansible, step
from tests.sandbox.process import Sandbox

from .device import PATIENCE, VERSION
from .npm_install import FAILS, OLDER, npm_device


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


def test_a_device_installed_as_a_python_package_is_not_updated_and_says_how_to_update(ansible: Ansible) -> None:
    run = ansible.task("self_update", targets=["alpha"], target_version="99.0.0")

    run.assert_error("alpha: failed", "Upgrade with your installer: uv tool upgrade letta")
    assert ansible.sandbox.received() == {}
