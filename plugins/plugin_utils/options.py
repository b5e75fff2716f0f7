# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What options mean everywhere: blank is unset, and the nearest source of a key counts."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.errors import UnsupportedError

from ..module_utils.arguments import CONNECTION_SPEC
from ..module_utils.errors import FleetError, OptionError, one_line


def blank(value: Any) -> bool:
    """Whether a value is the same as no value. AWX gives an optional field that was left empty as an empty string."""
    return value is None or (isinstance(value, str) and not value.strip())


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are not blank."""
    return {name: value for name, value in options.items() if not blank(value)}


def forget_blank_environment(names: Iterable[str]) -> None:
    """Unset environment variables that are set to nothing: Ansible would read `LETTA_VALIDATE_CERTS=` as false."""
    for name in names:
        if name in os.environ and blank(os.environ[name]):
            del os.environ[name]


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


def validated(spec: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as a specification has them. Raises FleetError."""
    for name, rules in spec.items():
        if rules["type"] == "float" and name in parameters:
            _check_number(name, parameters[name])
    found = ArgumentSpecValidator(spec).validate(parameters)
    if found.error_messages:
        raise FleetError("; ".join(_problem(error) for error in found.errors))
    options: dict[str, Any] = found.validated_parameters
    return options


def _check_number(option: str, value: Any) -> None:
    """Core takes `nan` for a number, and does not show what is none."""
    try:
        finite = math.isfinite(float(value))
    except (TypeError, ValueError):
        finite = False
    if not finite:
        raise OptionError(option, f"must be a number, got {one_line(repr(value), 60)}")


def _problem(error: Exception) -> str:
    message = one_line(error, 1000)
    return f"unsupported option: {message}" if isinstance(error, UnsupportedError) else message
