# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lookup plugin: the environments for which all terms hold, where there is no inventory of them."""

from __future__ import annotations

DOCUMENTATION = r"""
name: environments
short_description: Look up environments of Letta or Qoder
version_added: 0.1.0
author:
  - fleetops.environments authors (@fleetops)
description:
  - Returns environments with everything that the API says of them, for use in templates and ad hoc. In a playbook with
    an inventory of the fleet, its host variables have the same; in one without,
    M(fleetops.environments.environment_info) has more options.
  - The API is asked each time the lookup is rendered.
  - What it returns is never templated, as devices have a say in it.
  - Connection options come from variables of the task's host, and not from facts, which a device sets. Where a template
    belongs to no task on a host, as in the name of a task, a connection option whose variable has the name of a fact
    is an error. With C(inject_facts_as_vars=false) there is no such error.
options:
  _terms:
    description:
      - JMESPath expressions as in the inventory's option C(filters), all of which must hold. Without any, all
        environments are returned.
    type: list
    elements: str
  provider:
    description: Whose environments to look up, V(letta) or V(qoder).
    type: str
    default: letta
  max_dropped_rows:
    description:
      - How many rows of the listing may have no id that can be used, as a number or a percentage of all rows. With more
        the lookup fails. See O(fleetops.environments.letta#inventory:max_dropped_rows).
    type: str
    default: 10%
extends_documentation_fragment:
  - fleetops.environments.letta
"""

EXAMPLES = r"""
- name: Show which devices are online and not up to date
  ansible.builtin.debug:
    msg: "{{ query('fleetops.environments.environments', 'online', filter) | map(attribute='connection_name') }}"
  vars:
    filter: semver(version, '<0.34.12')

# On the command line: ansible localhost -m debug -a
#   "msg={{ query('fleetops.environments.environments') | length }}"
"""

RETURN = r"""
_raw:
  description:
    - The environments, with the fields that are host variables in the inventory, without a prefix, and with
      C(fleetops_environment), the variable that makes a host an environment.
  type: list
  elements: dict
  sample:
    - id: environment-1
      connection_name: alpha
      mode: standard
      version: 0.34.12
      online: true
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ..module_utils.environment import check_dropped, note_invalid
from ..module_utils.errors import OptionError
from ..module_utils.filters import Expressions
from ..module_utils.options import CONNECTION_SPEC, ROWS_SPEC, drop_blanks
from ..module_utils.providers.base import Provider, connection_settings
from ..module_utils.providers.registry import fetch_listing, find_provider
from ..plugin_utils.core_internals import are_facts_variables, read_own_variables, without_facts
from ..plugin_utils.options import explain_templates, raise_as, validate_arguments

SPEC = {"provider": {"type": "str", "default": "letta"}, **ROWS_SPEC, **CONNECTION_SPEC}


class LookupModule(LookupBase):
    def run(self, terms: Sequence[Any], variables: Mapping[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        """Return a list of rows. Raises AnsibleLookupError."""
        with raise_as(AnsibleLookupError):
            options = validate_arguments(SPEC, drop_blanks(kwargs))
            provider = find_provider(options["provider"])
            filters = Expressions("terms", list(terms), provider.fields)
            rendered = self._render(provider, variables or {})
            settings = connection_settings(provider, kwargs, rendered)
            query = provider.query()
            listing = fetch_listing(provider, settings, query)
            found, invalid = provider.environments(listing, settings.base_url, query)
            check_dropped(invalid, len(listing.rows), options["max_dropped_rows"])
            rows = [item.row() for item in found if filters.all_hold(item.fields, listing.fetched_at)]
        for note in (*settings.notes, *note_invalid(invalid)):
            self._display.warning(note)
        return rows

    def _render(self, provider: Provider, variables: Mapping[str, Any]) -> dict[str, Any]:
        """The connection options that variables give, as no fact sets them. Raises OptionError.

        Outside of a task variables cannot be told from facts, and those of the same name are refused.
        """
        facts = (variables.get("ansible_facts") or {}) if are_facts_variables() else {}
        own = read_own_variables() if facts else variables
        if own is None:
            for option in provider.options_in_variables({name: None for name in facts if name in variables}):
                problem = f"cannot be told from a fact here; give the lookup the option {option}"
                raise OptionError(provider.variable_of(option), problem)
            own = {name: value for name, value in variables.items() if name not in facts}
        templar, rendered = self._templar.copy_with_new_env(available_variables=own), {}
        problem = "cannot be read without facts" if facts else "cannot be read"
        for option, value in provider.options_in_variables(own).items():
            with explain_templates(provider.variable_of(option), problem), without_facts():
                rendered[option] = templar.template(value)
        return rendered
