# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What to list: Letta's parameters, and filters for any provider; the same for the inventory and for modules."""

from __future__ import annotations


class ModuleDocFragment:
    """The options that select environments."""

    DOCUMENTATION = r"""
options:
  online_only:
    description:
      - Only environments that are online, which is a connection and a heartbeat younger than 120 s. Letta only.
    type: bool
    default: false
  source:
    description: Only environments of this source, as the API's parameter C(source). Letta only.
    type: str
    choices: [local, remote]
  user_id:
    description: Only environments of this user, as the API's parameter C(userId). Letta only.
    type: str
"""

    FILTERS = r"""
options:
  filters:
    description:
      - JMESPath expressions over an environment's fields, which are the inventory's variables without their prefix. An
        environment counts when all of them hold.
      - Besides JMESPath's own functions there are V(semver(version, '<0.34'\)) (ranges such as V(>=0.34.2,<0.36); what
        is no version is in none), V(older_than(last_seen_at, '7d'\)) (units V(s), V(m), V(h), V(d) and V(w)), and
        V(short(id\)) (eight hexadecimal digits).
      - A name that no environment can have is an error.
    type: raw
  max_dropped_rows:
    description:
      - How many rows of the listing may be dropped, as a number or a percentage of all rows. With more the listing
        fails.
      - A row is dropped only where its id is missing or cannot be used. An id with characters that cannot be read
        (bytes that are no UTF-8, half characters) cannot be used, as it may be that of another row.
      - Of any other row each field is read on its own. One that is malformed is null, the list C(invalid) names it,
        and C(metadata) has what the API sent, under the API's key, of a long value the beginning.
    type: str
    default: 10%
"""
