# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that Ansible reads: blank environment variables forgotten, values as their specification has them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.errors import UnsupportedError
from ansible.module_utils.parsing.convert_bool import boolean

from ..module_utils.errors import FleetError, OptionError
from ..module_utils.options import blank
from ..module_utils.text import one_line


def forget_blank_environment(names: Iterable[str]) -> None:
    """Unset environment variables that are set to nothing: Ansible would read `LETTA_VALIDATE_CERTS=` as false."""
    for name in names:
        if name in os.environ and blank(os.environ[name]):
            del os.environ[name]


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


def check_type(option: str, kind: str | None, values: Sequence[Any]) -> None:
    """Refuse what core would take for something else: any word as a boolean, and a list as a text."""
    for value in values:
        if value is None:
            continue
        if kind == "bool":
            try:
                boolean(value)
            except TypeError:
                raise OptionError(option, f"must be true or false, got {one_line(repr(value), 60)}") from None
        elif kind in ("str", "path") and isinstance(value, (Mapping, list)):
            # The value is not shown: it may be a key in the wrong shape.
            raise OptionError(option, "must be a text, not a list or dictionary")
