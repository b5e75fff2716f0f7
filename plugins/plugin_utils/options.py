# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What core gets wrong about options: blank environment variables, `nan`, and errors of several lines."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.errors import UnsupportedError

from ..module_utils.errors import FleetError
from ..module_utils.options import convert_value, is_blank
from ..module_utils.text import one_line


def forget_blank_environment(names: Iterable[str]) -> None:
    """Unset environment variables that are blank. Core reads `LETTA_VALIDATE_CERTS=` as false."""
    for name in names:
        if name in os.environ and is_blank(os.environ[name]):
            del os.environ[name]


def validate_arguments(spec: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A task's arguments as a specification has them, with its defaults. Raises FleetError."""
    for name, rules in spec.items():
        # Core takes `nan` for a number, and its error does not show a value that is no number.
        if rules["type"] == "float" and name in parameters:
            convert_value(name, parameters[name], "float")
    found = ArgumentSpecValidator(spec).validate(parameters)
    if found.error_messages:
        raise FleetError("; ".join(_describe_problem(error) for error in found.errors))
    options: dict[str, Any] = found.validated_parameters
    return options


def _describe_problem(error: Exception) -> str:
    message = one_line(error, 1000)
    return f"unsupported option: {message}" if isinstance(error, UnsupportedError) else message
