"""The guide's page about modules on devices, on two real devices."""

from __future__ import annotations

from pathlib import Path

from tests.integration.test_guide import ON_REAL_DEVICES, check_page, environment, install_checkout
from tests.sandbox.process import Sandbox

from .device import Device


def test_the_commands_of_the_page_print_what_it_shows(letta: None, lone_sandbox: Sandbox, tmp_path: Path) -> None:
    [page] = ON_REAL_DEVICES
    directory = tmp_path / "home/fleet"
    directory.mkdir(parents=True)
    install_checkout(tmp_path / "home")
    env = environment(tmp_path / "home", lone_sandbox) | {"ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3"}

    with (
        Device.start(lone_sandbox, "alpha", tmp_path / "alpha"),
        Device.start(lone_sandbox, "beta", tmp_path / "beta"),
    ):
        for entry in lone_sandbox.fleet():
            lone_sandbox.patch(entry["id"], currentMode="unrestricted")
        check_page(page, directory, env)
