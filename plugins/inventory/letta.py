# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inventory plugin: Letta environment connections as hosts."""

from __future__ import annotations

DOCUMENTATION = r"""
name: letta
short_description: Letta environments as inventory hosts
version_added: 0.1.0
author:
  - fleetops.environments authors (@fleetops)
description:
  - Lists the environment connections of a Letta organization (the machines on which Letta Code runs) as hosts, in
    groups by mode, OS, version and status.
  - The source is a YAML file with C(plugin=fleetops.environments.letta) and any name that ends in C(.yml) or C(.yaml).
  - A listing that fails half-way fails as a whole; there is never a partial inventory.
  - C(letta_metadata) has what a device says of itself beyond what has a variable of its own, C(letta_extra) what the
    API says of it beyond that. C(letta_invalid) is a list of the variables, without the prefix, that are null because
    what was sent is malformed; that is in C(letta_metadata) as it was sent.
  - C(letta_effective_mode) is C(letta_mode) in the present words, V(standard) for V(default), and V(unrestricted) for
    V(bypassPermissions) and V(fullAccess). Filter by it.
  - With O(cache) the ids of the rows that the pages began after are kept beside the cached rows, and do not expire. A
    refresh, be it after O(cache_timeout) or with C(--flush-cache), then asks for all pages at once, 20 at a time,
    instead of for one after the other. The hosts are the same either way.
  - Sources are read in order, and a source that is read later can still give its variables to a host of this one, as
    can files in C(host_vars) and C(group_vars). Put this source last, or give its hosts a O(hostname_prefix) that
    nothing else has, where devices that you do not trust can name themselves.
  - No host is dialled by a name that a device chose. C(ansible_host) is C(<id>.letta.invalid), so SSH ends
    unreachable. Without V(relay) as O(connection) the address begins with advice, which OpenSSH's error shows,
    C(this-host-has-no-login.write-gather_facts-false.or-connection-relay-in-its-source.).
options:
  connection:
    description:
      - How modules that work on the host itself reach it, as V(relay) over
        P(fleetops.environments.letta#connection), which has what that means.
      - With V(none) they do not. The modules of this collection need no connection.
    type: str
    choices: [none, relay]
    default: none
  plugin:
    description: Says that this file is for this plugin.
    type: str
    required: true
    choices: [fleetops.environments.letta]
  page_size:
    description: How many rows to ask for at a time, as the API's parameter C(limit).
    type: int
    default: 100
  hostnames:
    description:
      - JMESPath expressions; the first that gives a usable text names the host.
      - Characters other than letters, digits, C(.), C(_) and C(-) become C(_).
      - For AWX, where the host's name is its identity, use V([id]).
    type: raw
    default: [connection_name, device_id]
  hostname_prefix:
    description: Put before every host name, for example to keep devices apart from servers of the same name.
    type: str
    default: ""
  hostvars_prefix:
    description: Put before the name of every variable. May not begin with C(ansible).
    type: str
    default: letta_
  group_by:
    description:
      - What to make groups of. Every host is in exactly one group of each, C(mode_unknown) and the like where the value
        is missing; V(command) makes a group of each supported command.
      - The group of an older word for a mode is in that of the present word, such as C(mode_default) in
        C(mode_standard).
      - V(version) makes C(version_0_34_12) inside C(version_0_34); V(status) makes C(online) and C(offline);
        V(updatable) makes C(updatable) and C(not_updatable).
      - Groups keep the API's own words; a character that Ansible does not allow becomes C(_). Where that would make
        different values share a group, or a text read as a version that it is not, a short hash tells them apart.
    type: list
    elements: str
    choices: [mode, os, version, status, node_version, git_branch, user, updatable, command]
    default: [mode, os, version, status]
  root_group:
    description: The group that every host is in.
    type: str
    default: letta
extends_documentation_fragment:
  - fleetops.environments.letta.plugins
  - fleetops.environments.listing
  - fleetops.environments.listing.filters
  - fleetops.environments.inventory
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
seealso:
  - plugin: fleetops.environments.send_message
    plugin_type: module
"""

EXAMPLES = r"""
# fleet.letta.yml: with the API key in LETTA_API_KEY this is a whole inventory.
plugin: fleetops.environments.letta

---
# Linux devices in standard mode that are online and older than 0.34.
plugin: fleetops.environments.letta
online_only: true
filters:
  - effective_mode == 'standard'
  - os == 'linux'
  - semver(version, '<0.34')

---
# Devices that were not seen for a week, named by device and a short id.
plugin: fleetops.environments.letta
filters:
  - older_than(last_seen_at, '7d')
hostnames:
  - join('-', [connection_name, short(id)])

---
# For AWX: the id is the host's name, and an empty answer is an error.
plugin: fleetops.environments.letta
hostnames: [id]
fail_on_empty: true

---
# The key from a vaulted file, a cache of ten minutes, and groups of one's own.
plugin: fleetops.environments.letta
api_key: "{{ lookup('ansible.builtin.unvault', '/etc/fleet/letta.key') | trim }}"
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/fleet
cache_timeout: 600
groups:
  builders: letta_git_branch == 'main'
keyed_groups:
  - key: letta_metadata.machine.architecture | default('unknown')
    prefix: architecture
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from ..module_utils.providers.letta.client import Query
from ..module_utils.providers.letta.models import RENAMED_MODES
from ..module_utils.providers.letta.provider import PROVIDER
from ..plugin_utils.inventory.base import EnvironmentInventory
from ..plugin_utils.inventory.groups import Dimension


class InventoryModule(EnvironmentInventory):
    NAME = "fleetops.environments.letta"
    PROVIDER = PROVIDER
    DIMENSIONS: ClassVar[Sequence[Dimension]] = (
        Dimension("mode", "mode", renamed=RENAMED_MODES),
        Dimension("os", "os"),
        Dimension("version", "version", versions=True, in_series=True),
        Dimension("status", "status", names={"online": "online", "offline": "offline"}),
        Dimension("node_version", "node_version", versions=True),
        Dimension("git_branch", "git_branch"),
        Dimension("user", "user_id"),
        Dimension("updatable", "updatable", names={True: "updatable", False: "not_updatable"}),
        Dimension("command", "supported_commands"),
    )

    def query(self) -> Query:
        """The listing's own parameters. The API's `limit` is the option `page_size`."""
        return replace(super().query(), limit=self.get_option("page_size"))
