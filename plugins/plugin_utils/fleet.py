# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The environments that hosts of the inventory are, with what the inventory knows of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..module_utils.environment import Environment, without_unsafe
from ..module_utils.errors import OptionError, one_line
from ..module_utils.provider import provider_named
from .host_variables import all_as_listed
from .targets import environment_of


def fleet(
    option: str, hosts: Iterable[Any], wanted: Sequence[str], task_vars: Mapping[str, Any]
) -> dict[str, Environment]:
    """Host → environment, its `fields` being those of `wanted` that its provider has, as its inventory says.

    Hosts that are no environments are left out. Raises OptionError for `option` for a name that is no host of the
    inventory, and FleetError for an environment whose variables were tampered with.
    """
    hostvars = task_vars["hostvars"]
    found: dict[str, Environment] = {}
    for host in hosts:
        if not isinstance(host, str) or host not in hostvars:
            raise OptionError(option, f"{one_line(host, 80)!r} is no host of the inventory")
        if environment := environment_of(host, task_vars):
            fields = _fields(environment.provider, wanted, all_as_listed(hostvars, host))
            found[host] = replace(environment, fields=fields)
    return found


def _fields(provider: str, wanted: Sequence[str], variables: Mapping[str, Any]) -> dict[str, Any]:
    """What the variables say, whatever their prefix; nothing where there are no such variables."""
    names = provider_named(provider).fields
    longest = max(names, key=len)
    others = (name.removesuffix(longest) for name in variables if name.endswith(longest))
    for prefix in (f"{provider}_", *others):
        if all(prefix + name in variables for name in names):
            return {name: without_unsafe(variables[prefix + name]) for name in names if name in wanted}
    return {}
