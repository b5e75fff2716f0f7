# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the options of modules, and checks them where core does not: blanks, `nan`, small numbers, long errors."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any

from ansible.errors import AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.yaml import yaml_load
from ansible.module_utils.errors import UnsupportedError

from ..module_utils.errors import FleetError, OptionError
from ..module_utils.options import convert_value, is_blank
from ..module_utils.text import one_line

# What the documentation of an option and a specification have under the same names.
_RULES = ("type", "elements", "choices", "required", "default")
# The smallest value of an option, in every plugin that has it; and the options that must be above zero.
_SMALLEST = {
    "concurrency": 1, "limit": 1, "page_size": 1, "busy_timeout": 0, "lost_after": 0, "offline_timeout": 0, "soak": 0,
    "soak_grace": 0, "steady_for": 0, "wait_timeout": 0,
}  # fmt: skip
_ABOVE_ZERO = (
    "answer_timeout", "command_timeout", "poll_interval", "probe_timeout", "rate", "reply_timeout", "update_timeout",
)  # fmt: skip


@contextlib.contextmanager
def explain_templates(name: str, problem: str) -> Iterator[None]:
    """Raise OptionError for an option or variable `name` that is undefined or cannot be rendered.

    Ansible's own message shows the lines around the template, where a key may stand. The cause of a key may show it.
    """
    try:
        yield
    except AnsibleError as error:
        secret = name.endswith("api_key")
        cause = "is a name undefined, or a vault password missing?" if secret else one_line(error.message)
        raise OptionError(name, f"{problem}: {cause}") from None


@contextlib.contextmanager
def raise_as(kind: type[AnsibleError]) -> Iterator[None]:
    """Raise errors of this collection as Ansible's errors of a kind, also for packages that are missing."""
    # The connection plugin imports this file in each worker, and needs none of them before it connects.
    from ..module_utils import _deps  # noqa: PLC0415

    try:
        _deps.require_packages()
        yield
    except FleetError as error:
        raise kind(str(error)) from None


def forget_blank_environment(names: Iterable[str]) -> None:
    """Unset environment variables that are blank. Core reads `LETTA_VALIDATE_CERTS=` as false."""
    for name in names:
        if name in os.environ and is_blank(os.environ[name]):
            del os.environ[name]


def read_specification(module: str) -> dict[str, Any]:
    """The options of a module as an argument specification, from its documentation and the fragments of that."""
    plugins = str(__package__).rpartition(".")[0]
    documentation = yaml_load(import_module(f"{plugins}.modules.{module}").DOCUMENTATION)
    options = documentation["options"]
    for fragment in documentation["extends_documentation_fragment"]:
        name, _dot, part = fragment.removeprefix("fleetops.environments.").partition(".")
        texts = import_module(f"{plugins}.doc_fragments.{name}").ModuleDocFragment
        for option, said in yaml_load(getattr(texts, part.upper() or "DOCUMENTATION"))["options"].items():
            # A module may say something else of it, such as another description.
            options[option] = said | options.get(option, {})
    return _specify(options)


def _specify(options: Mapping[str, Any]) -> dict[str, Any]:
    specification = {}
    for name, said in options.items():
        specification[name] = {rule: said[rule] for rule in _RULES if rule in said}
        if "suboptions" in said:
            specification[name]["options"] = _specify(said["suboptions"])
    return specification


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
    check_numbers(options)
    return options


def check_numbers(options: Mapping[str, Any]) -> None:
    """Raise OptionError for a number that is too small for its option. An option without a value is fine."""
    for name, value in options.items():
        if value is None:
            continue
        if name in _SMALLEST and value < _SMALLEST[name]:
            raise OptionError(name, f"must be {_SMALLEST[name]} or more, got {value}")
        if name in _ABOVE_ZERO and value <= 0:
            raise OptionError(name, f"must be more than 0, got {value}")


def _describe_problem(error: Exception) -> str:
    message = one_line(error, 1000)
    return f"unsupported option: {message}" if isinstance(error, UnsupportedError) else message
