# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter select_environments: which of some hosts are environments for which expressions hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils.options import is_blank
from ..plugin_utils.core_internals import without_facts
from ..plugin_utils.hosts import compile_expressions, find_environments, fulfills, read_host_environments
from ..plugin_utils.options import raise_as

DOCUMENTATION = r"""
name: select_environments
short_description: Keep the hosts that are environments for which expressions hold
version_added: 0.1.0
author:
  - fleetops.environments authors (@fleetops)
description:
  - Returns the names of those hosts that the inventory plugins of this collection listed and for which all of
    O(filters) hold, in the order given. Other hosts are left out.
positional: hostvars, filters
options:
  _input:
    description: Names of hosts.
    type: list
    elements: str
    required: true
  hostvars:
    description: The variables of the hosts, which are in C(hostvars).
    type: dict
    required: true
  filters:
    description:
      - JMESPath expressions as in the option C(filters) of the inventory plugins, with C(semver), C(older_than) and
        C(short). They see what the inventory has of an environment. Ages count from when it was listed, from now where
        the inventory leaves that out.
      - An expression that reads what the inventory leaves out, as with the option C(volatile_variables) of its source,
        is an error.
    type: raw
    default: []
  prefix:
    description:
      - What the names of the environments' variables begin with, the C(hostvars_prefix) of the inventory.
      - By default the provider's usual one, such as V(letta_).
    type: str
  provider:
    description: Only environments of this provider, V(letta) or V(qoder).
    type: str
  variable:
    description: Only hosts for which this variable is set to more than an empty text. A fact does not set it.
    type: str
  option:
    description: What an error calls O(filters), such as the name of the variable that has them.
    type: str
    default: filters
"""

EXAMPLES = r"""
- name: Instruct those hosts of the play that run an old version and can update themselves
  fleetops.environments.send_message:
    targets: "{{ ansible_play_batch | fleetops.environments.select_environments(hostvars, filters) }}"
    content: Update Letta Code on this machine.
    agent_id: agent-1234
  vars:
    filters:
      - updatable
      - semver(version, '<0.34.12')
  run_once: true
"""

RETURN = r"""
_value:
  description: The names of the hosts that are left.
  type: list
  elements: str
"""


def select_environments(
    hosts: Sequence[str],
    hostvars: Mapping[str, Any],
    filters: Any = (),
    prefix: str | None = None,
    *,
    provider: str | None = None,
    variable: str | None = None,
    option: str = "filters",
) -> list[str]:
    """Return the hosts that are environments for which all filters hold."""
    with raise_as(AnsibleFilterError):
        if variable is not None:
            with without_facts():
                hosts = [host for host in hosts if host in hostvars and not is_blank(hostvars[host].get(variable))]
        if not filters:
            found = find_environments(hosts, hostvars)
            return [host for host, environment in found if provider in (None, environment.provider)]
        environments = read_host_environments(hosts, hostvars, prefix, provider)
        expressions = compile_expressions(option, filters, (environment for _host, environment in environments))
        return [host for host, environment in environments if fulfills(expressions, environment)]


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"select_environments": select_environments}
