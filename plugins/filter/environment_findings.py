# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter environment_findings: which rules hold for which environments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils.environment import Environment
from ..module_utils.errors import OptionError
from ..module_utils.filters import Expressions
from ..module_utils.text import one_line
from ..plugin_utils.hosts import compile_expressions, find_left_out, fulfills, read_host_environments
from ..plugin_utils.options import raise_as

DOCUMENTATION = r"""
name: environment_findings
short_description: Find out which rules hold for which environments
version_added: 0.1.0
author:
  - fleetops.environments authors (@fleetops)
description:
  - Returns an entry for each of those hosts that the inventory plugins of this collection listed, in the order given.
    Other hosts are left out. It reads what the inventory has, and asks nobody.
positional: hostvars, rules
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
  rules:
    description:
      - What is to be found, as names and JMESPath expressions such as those of the option C(filters) of the inventory
        plugins. Ages count from when an environment was listed.
    type: dict
    required: true
  prefix:
    description:
      - What the names of the environments' variables begin with, the C(hostvars_prefix) of the inventory.
      - By default the provider's usual one, such as V(letta_).
    type: str
  option:
    description: What an error calls O(rules), such as the name of the variable that has them.
    type: str
    default: rules
  provider:
    description: Only environments of this provider, V(letta) or V(qoder).
    type: str
"""

EXAMPLES = r"""
- name: Show who may do what it likes, or does not say its version
  ansible.builtin.debug:
    msg: "{{ found | selectattr('findings') | items2dict(key_name='host', value_name='findings') }}"
  vars:
    found: "{{ ansible_play_batch | fleetops.environments.environment_findings(hostvars, rules) }}"
    rules:
      may do all: effective_mode == 'unrestricted'
      no version: "!version"
  run_once: true
"""

RETURN = r"""
_value:
  description:
    - For each environment C(host), C(findings) with the names of the rules that hold for it, and C(status), C(mode),
      C(version), C(os) and C(last_seen_at) as one line each, V(unknown) where the inventory has none.
    - C(not_looked_at) has the names of the rules that read what the inventory leaves out, as with the option
      C(volatile_variables) of its source. They are not among the findings. C(last_seen_at) is V(not looked at) then.
    - C(invalid) is a list of the fields that the API did not send as it promises.
  type: list
  elements: dict
"""

_SHOWN = ("status", "mode", "version", "os", "last_seen_at")


def environment_findings(
    hosts: Sequence[str],
    hostvars: Mapping[str, Any],
    rules: Any,
    prefix: str | None = None,
    provider: str | None = None,
    *,
    option: str = "rules",
) -> list[dict[str, Any]]:
    """Return what was found of each host that is an environment."""
    with raise_as(AnsibleFilterError):
        if not isinstance(rules, Mapping):
            raise OptionError(option, f"must be names and expressions, got {one_line(repr(rules), 60)}")
        environments = read_host_environments(hosts, hostvars, prefix, provider)
        known = [environment for _host, environment in environments]
        compiled = {str(name): compile_expressions(option, [rule], known) for name, rule in rules.items()}
        return [{"host": host, **_apply_rules(compiled, environment)} for host, environment in environments]


def _apply_rules(rules: Mapping[str, Expressions], environment: Environment) -> dict[str, Any]:
    fields, left_out = environment.fields, find_left_out(environment)
    blind = [name for name, rule in rules.items() if rule.names & left_out]
    usual = {name: "not looked at" if name in left_out else "unknown" for name in _SHOWN}
    return {
        "findings": [name for name, rule in rules.items() if name not in blind and fulfills(rule, environment)],
        "not_looked_at": blind,
        # A device may say what a terminal would take for more than text.
        **{name: one_line(fields.get(name) or usual[name], 60) for name in _SHOWN},
        "invalid": [one_line(name, 60) for name in fields.get("invalid") or []],
    }


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"environment_findings": environment_findings}
