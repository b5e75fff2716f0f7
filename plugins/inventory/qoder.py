# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inventory plugin: Qoder cloud environments as hosts."""

from __future__ import annotations

DOCUMENTATION = r"""
name: qoder
short_description: Qoder cloud environments as inventory hosts
version_added: 0.1.0
author:
  - fleetops.environments authors (@fleetops)
description:
  - Lists the environments of a Qoder account as hosts, in groups by status, kind, networking and whether they are
    archived.
  - An environment is a template of a container and nothing that runs. M(fleetops.environments.send_message) instructs
    one in a session that it makes there.
  - The source is a YAML file with C(plugin=fleetops.environments.qoder) and any name that ends in C(.yml) or C(.yaml).
    In one directory with sources of P(fleetops.environments.letta#inventory) it adds to the same fleet.
  - The variables are C(qoder_id), C(qoder_type), C(qoder_name), C(qoder_description), C(qoder_status), C(qoder_config),
    C(qoder_config_type), C(qoder_networking_type), C(qoder_packages), C(qoder_metadata), C(qoder_archived),
    C(qoder_archived_at), C(qoder_created_at), C(qoder_updated_at), C(qoder_extra) and C(qoder_invalid), null where the
    API does not say. Times are ISO 8601 in UTC. Without a value C(qoder_config), C(qoder_packages) and
    C(qoder_metadata) are empty dictionaries, and C(qoder_archived) is false.
  - C(qoder_extra) has every key of a row that has no variable of its own. C(qoder_invalid) is a list of the variables,
    without the prefix, that have no value because what was sent is malformed; that is in C(qoder_metadata) as it was
    sent.
  - C(qoder_archived) is null, and the host counts as offline and takes no messages, where C(qoder_status),
    C(qoder_archived) or C(qoder_archived_at) is malformed and none of the others says that it is archived.
  - Both generations of the API are read, with either way of paging. The newer one gives no status.
  - A listing that fails half-way fails as a whole; there is never a partial inventory.
  - No host is dialled by a name of the API. C(ansible_host) is
    C(this-host-has-no-login.write-gather_facts-false.<id>.qoder.invalid), so SSH ends unreachable, and shows this.
options:
  plugin:
    description: Says that this file is for this plugin.
    type: str
    required: true
    choices: [fleetops.environments.qoder]
  limit:
    description: How many rows to ask for at a time, as the API's parameter of this name. More than 100 counts as 100.
    type: int
    default: 100
  after_id:
    description: List only what comes after the environment with this id, which is what is older.
    type: str
  before_id:
    description:
      - List only what comes before the environment with this id, which is what is newer.
      - Cannot go with O(after_id).
    type: str
  include_archived:
    description: Whether archived environments are listed too. They take no messages.
    type: bool
    default: false
  created_at_gte:
    description:
      - Only environments made at this time or later, as the API's parameter C(created_at[gte]); RFC 3339, as
        V(2026-01-31T12:00:00Z).
    type: str
  created_at_lte:
    description: Only environments made at this time or earlier, as the API's parameter C(created_at[lte]); RFC 3339.
    type: str
  hostnames:
    description:
      - JMESPath expressions; the first that gives a usable text names the host.
      - Characters other than letters, digits, C(.), C(_) and C(-) become C(_).
      - For AWX, where the host's name is its identity, use V([id]).
    type: raw
    default: [name, id]
  hostname_prefix:
    description:
      - Put before every host name, to keep environments apart from servers and devices of the same name.
      - With V("") there is none, and O(on_duplicate) decides about names that are taken.
    type: str
    default: qoder-
  hostvars_prefix:
    description: Put before the name of every variable. May not begin with C(ansible).
    type: str
    default: qoder_
  group_by:
    description:
      - What to make groups of. Every host is in exactly one group of each, C(status_unknown) and the like where the
        value is missing.
      - V(status) makes C(status_ready) and the like, V(config_type) C(config_type_cloud) and the like,
        V(networking_type) C(networking_type_limited) and the like, V(archived) C(archived), C(not_archived) and
        C(archived_unknown).
      - Groups keep the API's own words; a character that Ansible does not allow becomes C(_). Where that would make
        different values share a group, a short hash tells them apart.
    type: list
    elements: str
    choices: [status, config_type, networking_type, archived]
    default: [status, config_type, networking_type, archived]
  root_group:
    description: The group that every host is in.
    type: str
    default: qoder
extends_documentation_fragment:
  - fleetops.environments.qoder.plugins
  - fleetops.environments.listing.filters
  - fleetops.environments.inventory
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
seealso:
  - plugin: fleetops.environments.send_message
    plugin_type: module
  - plugin: fleetops.environments.letta
    plugin_type: inventory
"""

EXAMPLES = r"""
# fleet.qoder.yml: with the access token in QODER_ACCESS_TOKEN this is a whole inventory.
plugin: fleetops.environments.qoder

---
# Self-hosted environments and those with unrestricted networking, made since the beginning of the year.
plugin: fleetops.environments.qoder
created_at_gte: "2026-01-01T00:00:00Z"
filters:
  - config_type == 'self_hosted' || networking_type == 'unrestricted'

---
# Environments that have a package, by the team that their metadata names.
plugin: fleetops.environments.qoder
filters:
  - contains(packages.pip || `[]`, 'pandas')
keyed_groups:
  - key: qoder_metadata.team | default('nobody')
    prefix: team

---
# For AWX: the id is the host's name, and an empty answer is an error.
plugin: fleetops.environments.qoder
hostnames: [id]
fail_on_empty: true
"""

from collections.abc import Sequence
from typing import ClassVar

from ..module_utils.providers.qoder.provider import PROVIDER
from ..plugin_utils.inventory.base import EnvironmentInventory
from ..plugin_utils.inventory.groups import Dimension


class InventoryModule(EnvironmentInventory):
    NAME = "fleetops.environments.qoder"
    PROVIDER = PROVIDER
    DIMENSIONS: ClassVar[Sequence[Dimension]] = (
        Dimension("status", "status"),
        Dimension("config_type", "config_type"),
        Dimension("networking_type", "networking_type"),
        Dimension("archived", "archived", names={True: "archived", False: "not_archived", None: "archived_unknown"}),
    )
