# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that plugins share: their specifications, and which source of a value counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def blank(value: Any) -> bool:
    """Whether a value is the same as no value. AWX gives an optional field that was left empty as an empty string."""
    return value is None or (isinstance(value, str) and not value.strip())


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are not blank."""
    return {name: value for name, value in options.items() if not blank(value)}


def layered(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The connection options of several sources, the first source that has one counting.

    A key and a key file are one thing: a key file of an earlier source goes before a key of a later one.
    """
    options: dict[str, Any] = {}
    for layer in layers:
        present = {name: value for name, value in layer.items() if name in CONNECTION_SPEC and not blank(value)}
        if "api_key" in options or "api_key_file" in options:
            present.pop("api_key", None)
            present.pop("api_key_file", None)
        options = present | options
    return options


CONNECTION_SPEC: dict[str, dict[str, Any]] = {
    "base_url": {"type": "str"},
    "api_key": {"type": "str", "no_log": True},
    "api_key_file": {"type": "path", "no_log": False},
    "timeout": {"type": "float", "default": 30},
    "retries": {"type": "int", "default": 5},
    "deadline": {"type": "float", "default": 120},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
    "client_cert": {"type": "path"},
    "client_key": {"type": "path", "no_log": False},
}

LIST_SPEC: dict[str, dict[str, Any]] = {
    "online_only": {"type": "bool", "default": False},
    "source": {"type": "str", "choices": ["local", "remote"]},
    "user_id": {"type": "str"},
    "filters": {"type": "raw"},
}

FAN_OUT_SPEC: dict[str, dict[str, Any]] = {
    "targets": {"type": "list", "elements": "raw"},
    "max_targets": {"type": "int"},
    "concurrency": {"type": "int", "default": 20},
    "rate": {"type": "float"},
    "max_failures": {"type": "str", "default": "0"},
    "retry_file": {"type": "path"},
    "result_file": {"type": "path"},
}

TARGETS_SPEC: dict[str, dict[str, Any]] = {
    **FAN_OUT_SPEC,
    "agent_id": {"type": "str"},
    "conversation_id": {"type": "str"},
    "when_offline": {"type": "str", "choices": ["skip", "fail", "wait"], "default": "skip"},
    "offline_timeout": {"type": "float", "default": 300},
}

ON_CONTROLLER = (
    "this module runs on the controller, by the action plugin of its name; "
    "call it as fleetops.environments.{name} so that Ansible finds that plugin"
)
