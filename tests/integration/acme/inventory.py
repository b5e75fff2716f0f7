# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Acme's machines: as `plugins/inventory/acme.py` this is the inventory plugin of a third provider."""

from __future__ import annotations

DOCUMENTATION = r"""
name: acme
short_description: Machines of Acme as inventory hosts
author: Acme
description: Lists the machines of Acme.
options:
  plugin:
    description: Says that this file is for this plugin.
    type: str
    required: true
    choices: [fleetops.environments.acme]
  hostnames:
    description: Expressions that name a host.
    type: raw
    default: [name, id]
  hostname_prefix:
    description: Put before every host name.
    type: str
    default: acme-
  hostvars_prefix:
    description: Put before the name of every variable.
    type: str
    default: acme_
  group_by:
    description: What to make groups of.
    type: list
    elements: str
    choices: [awake]
    default: [awake]
  root_group:
    description: The group that every host is in.
    type: str
    default: acme
  base_url:
    description: As everywhere.
    type: str
    default: https://machines.acme.example
    env: [{name: ACME_BASE_URL}]
    vars: [{name: acme_base_url}]
  api_key:
    description: As everywhere.
    type: str
    env: [{name: ACME_API_KEY}]
    vars: [{name: acme_api_key}]
  api_key_file:
    description: As everywhere.
    type: path
    env: [{name: ACME_API_KEY_FILE}]
    vars: [{name: acme_api_key_file}]
  allow_http:
    description: As everywhere.
    type: bool
    default: false
    env: [{name: ACME_ALLOW_HTTP}]
    vars: [{name: acme_allow_http}]
  timeout:
    description: As everywhere.
    type: float
    default: 30
    env: [{name: ACME_TIMEOUT}]
    vars: [{name: acme_timeout}]
  retries:
    description: As everywhere.
    type: int
    default: 5
    env: [{name: ACME_RETRIES}]
    vars: [{name: acme_retries}]
  deadline:
    description: As everywhere.
    type: float
    default: 120
    env: [{name: ACME_DEADLINE}]
    vars: [{name: acme_deadline}]
  validate_certs:
    description: As everywhere.
    type: bool
    default: true
    env: [{name: ACME_VALIDATE_CERTS}]
    vars: [{name: acme_validate_certs}]
  ca_path:
    description: As everywhere.
    type: path
    env: [{name: ACME_CA_PATH}]
    vars: [{name: acme_ca_path}]
  client_cert:
    description: As everywhere.
    type: path
    env: [{name: ACME_CLIENT_CERT}]
    vars: [{name: acme_client_cert}]
  client_key:
    description: As everywhere.
    type: path
    env: [{name: ACME_CLIENT_KEY}]
    vars: [{name: acme_client_key}]
extends_documentation_fragment:
  - fleetops.environments.listing.filters
  - fleetops.environments.inventory
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
"""

from collections.abc import Sequence
from typing import ClassVar

from ..module_utils.providers.acme.provider import PROVIDER, Query
from ..plugin_utils.inventory.base import EnvironmentInventory
from ..plugin_utils.inventory.groups import Dimension


class InventoryModule(EnvironmentInventory):
    """Machines of Acme as hosts."""

    NAME = "fleetops.environments.acme"
    PROVIDER = PROVIDER
    DIMENSIONS: ClassVar[Sequence[Dimension]] = (Dimension("awake", "awake", names={True: "awake", False: "asleep"}),)

    def query(self) -> Query:
        """Every machine."""
        return Query()
