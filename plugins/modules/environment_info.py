# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module environment_info: its documentation, from which the action of its name has its options."""

DOCUMENTATION = r"""
module: environment_info
short_description: Look up environments of Letta or Qoder
version_added: 0.1.0
author:
  - fleetops.environments authors (@fleetops)
description:
  - Returns one environment, or a list of environments, with everything that the API says of them.
  - Needs no inventory.
options:
  provider:
    description: Whose environments to look up, V(letta) or V(qoder).
    type: str
    default: letta
  device_id:
    description:
      - Return the environment of this device only.
      - Where a device has several, the API answers with the newest.
      - Letta only.
    type: str
  environment_id:
    description: Return this environment only. Qoder only.
    type: str
  name:
    description:
      - Return only the environments with this C(connection_name), of Qoder with this C(name).
      - Names are not unique, since each device chooses its own, and a device that registers anew may leave a row with
        its name behind. All that have the name are returned, in the order of the API, so look at their number and at
        their C(device_id) before you act on one.
      - What the other options leave is searched. If nothing there has the name, the task fails. See O(missing_ok).
      - Cannot go with O(device_id) or O(environment_id).
    type: str
  missing_ok:
    description:
      - With O(device_id), O(environment_id) or O(name), return an empty list instead of failing when there is no such
        environment.
    type: bool
    default: false
  after:
    description: List what comes after the environment with this id, as the API's parameter C(after). Letta only.
    type: str
  after_id:
    description: List only what comes after the environment with this id, which is what is older. Qoder only.
    type: str
  before_id:
    description:
      - List only what comes before the environment with this id, which is what is newer. Qoder only.
      - Cannot go with O(after_id).
    type: str
  include_archived:
    description: Whether archived environments are listed too. Qoder only.
    type: bool
    default: false
  created_at_gte:
    description:
      - Only environments made at this time or later; RFC 3339, as V(2026-01-31T12:00:00Z). Qoder only.
    type: str
  created_at_lte:
    description: Only environments made at this time or earlier; RFC 3339. Qoder only.
    type: str
  limit:
    description:
      - How many rows to ask for at a time, as the API's parameter C(limit). Of Qoder more than 100 counts as 100.
    type: int
    default: 100
  all_pages:
    description: Whether to go on to the last page. Otherwise one page is returned.
    type: bool
    default: true
extends_documentation_fragment:
  - fleetops.environments.letta
  - fleetops.environments.qoder
  - fleetops.environments.listing
  - fleetops.environments.listing.filters
  - fleetops.environments.on_controller
attributes:
  check_mode:
    description: Reads only, also without check mode.
"""

EXAMPLES = r"""
- name: Look up one device
  fleetops.environments.environment_info:
    device_id: 48936f3f-1459-40a8-8f52-2111aa878939
  register: laptop

- name: Show its mode and version
  ansible.builtin.debug:
    msg: "{{ laptop.environments[0].mode }} on {{ laptop.environments[0].version }}"

# Nothing but the API is needed for the next play to have the devices as hosts. Their ids are the API's, while their
# names are the devices' own, and one of them could take the name of another host.
- name: Find the devices of a team
  fleetops.environments.environment_info:
    online_only: true
    filters: starts_with(connection_name, 'team-a-')
  register: team

- name: Make hosts of them
  ansible.builtin.add_host:
    name: "{{ item.id }}"
    groups: team
    fleetops_environment: "{{ item.fleetops_environment }}"
  loop: "{{ team.environments }}"
  loop_control:
    label: "{{ item.id }}"

- name: Find devices that run an old version and can update themselves
  fleetops.environments.environment_info:
    online_only: true
    filters:
      - updatable
      - semver(version, '<0.34.12')
  register: outdated

- name: Take one page at a time
  fleetops.environments.environment_info:
    limit: 50
    all_pages: false
  register: page

- name: Look up one environment of Qoder
  fleetops.environments.environment_info:
    provider: qoder
    environment_id: env_019e3bb39b6774d8878cd0b9d237574b
  register: builder

- name: Find environments of Qoder that reach every network
  fleetops.environments.environment_info:
    provider: qoder
    filters: networking_type == 'unrestricted'
  register: open
"""

RETURN = r"""
environments:
  description:
    - The environments, with the fields that are host variables in the inventory, without a prefix.
    - Times are ISO 8601 in UTC.
    - C(fleetops_environment) is the host variable that makes a host a target. M(ansible.builtin.add_host) takes it as
      it is.
  returned: success
  type: list
  elements: dict
  sample:
    - id: environment-1
      device_id: 48936f3f-1459-40a8-8f52-2111aa878939
      connection_id: connection-7
      connection_name: alpha
      mode: standard
      os: linux
      version: 0.34.12
      status: online
      online: true
      updatable: false
      last_seen_at: "2026-01-31T12:00:00.000Z"
      fleetops_environment:
        provider: letta
        id: environment-1
        device_id: 48936f3f-1459-40a8-8f52-2111aa878939
        connection_id: connection-7
        base_url: https://api.letta.com
        status: online
        self_update:
dropped_rows:
  description: How many rows are no environments, as their id is missing or cannot be used.
  returned: success
  type: int
  sample: 0
has_next_page:
  description: Whether the API has more than was returned; only with O(all_pages=false).
  returned: success
  type: bool
  sample: false
next_after:
  description: The value of O(after), O(after_id) or O(before_id) for the next page.
  returned: success
  type: str
  sample: environment-1
"""
