"""The work of operators with real devices: list them, instruct them, run a command, and see them come back."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.conftest import Ansible
from tests.sandbox.process import Sandbox

from .conftest import SIMULATED, Fleet
from .device import VERSION, Device, wheel


def test_real_devices_are_in_the_inventory_with_the_data_they_sent(ansible: Ansible, fleet: Fleet) -> None:
    listing = ansible.listing()
    hosts = listing["_meta"]["hostvars"]

    assert len(hosts) == SIMULATED + 2
    for device in (fleet.alpha, fleet.beta):
        host = hosts[device.name]
        assert (host["letta_version"], host["letta_os"], host["letta_status"]) == (VERSION, "linux", "online")
        assert host["letta_updatable"] is False
        assert "Python package installer" in json.dumps(host["letta_self_update"]["reason"])
        assert {"reload", "compact", "upgrade-letta-code"} <= set(host["letta_supported_commands"])
        assert device.name in listing["version_0_34_12"]["hosts"]
        assert device.name in listing["online"]["hosts"]
    assert hosts["alpha"]["letta_device_id"] != hosts["beta"]["letta_device_id"]


def test_a_command_runs_on_the_devices_and_its_output_comes_back(ansible: Ansible) -> None:
    run = ansible.task("environment_command", targets=["alpha", "beta"], command="reload")

    run.assert_quiet()
    for target in run.result("it")["targets"]:
        assert target["status"] == "changed", target
        assert target["output"], target
        assert target["version"] == VERSION


def test_an_impossible_update_is_refused_with_the_reason_of_the_device(ansible: Ansible) -> None:
    run = ansible.task("environment_command", targets=["alpha"], command="upgrade-letta-code")

    run.assert_error("alpha: failed", "Upgrade with your installer: uv tool upgrade letta")
    assert run.result("it")["targets"][0]["error"]["code"] == "command_failed"


def test_a_command_that_a_device_does_not_list_is_refused_before_anything_is_sent(ansible: Ansible) -> None:
    run = ansible.task("environment_command", targets=["alpha"], command="dance")

    run.assert_error("command: the device does not support 'dance'; its supported_commands are ", "reload")
    assert ansible.sandbox.requests("relay") == []


def _who(sandbox: Sandbox) -> list[tuple[str, str, bool]]:
    return sorted((entry["id"], entry["row"]["deviceId"], entry["online"]) for entry in sandbox.fleet())


def test_a_wheel_that_cannot_be_downloaded_is_an_error_with_the_message_of_pip() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)^letta==0\.0\.0 cannot be installed, .*No matching distribution"):
        wheel("0.0.0")


def test_every_device_is_back_after_the_server_restarted(letta: None, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    names = ("gamma", "delta")

    with ExitStack() as running:
        with Sandbox.start(devices=0, port=port) as sandbox:
            devices = [running.enter_context(Device.start(sandbox, name, tmp_path / name)) for name in names]
            before = _who(sandbox)
        for device in devices:
            device.wait_for("reconnecting")
        with Sandbox.start(devices=0, port=port) as sandbox:
            for device in devices:
                device.wait_for("idle")
            assert _who(sandbox) == before
            assert [online for _id, _device, online in before] == [True, True]
            running.close()
