# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts, groups and variables look like: the same for every inventory plugin."""

from __future__ import annotations


class ModuleDocFragment:
    """The options that inventory plugins share."""

    DOCUMENTATION = r"""
options:
  on_duplicate:
    description:
      - What happens when environments would have the same host name, or the name of a group, of a host that another
        source gave, or one with a meaning of its own such as V(localhost).
      - V(suffix) gives every environment of the colliding set a short hash of its id. A device that calls itself like
        another one takes the name from both, and gets none of what is set for the name.
      - V(first_seen) lets the one of the listed environments keep the name that the provider has known longest, online
        or not (C(first_seen_at), for Qoder C(created_at)), and gives the others the hash. A new device cannot take a
        name, since the time is the provider's. A device that was there before can, by calling itself so later; and when
        the oldest row is removed, the next one has the name.
      - V(online) lets the only one that is online keep the name (for Qoder, the only one that is not archived), and
        gives the others the hash. A device takes the name, and what is set for it, as soon as the other one is offline.
      - V(fail) fails the listing. One device that calls itself like another one stops every run.
      - Except with V(fail), a warning names the environments, 100 names with five ids each, and first those that the
        provider has known longest. C(-vvv) shows every name. A name that a group, another source or Ansible has is kept
        by none of them.
      - No choice protects by name what a device must not decide. Where C(host_vars), C(--limit) or a pattern with a
        host's name keeps something off a device, use O(hostnames) with V([id]).
    type: str
    choices: [suffix, first_seen, online, fail]
    default: suffix
  group_prefix:
    description: Put before the name of every group of O(group_by).
    type: str
    default: ""
  trust:
    description:
      - Which of the API's texts Ansible may treat as its own, as opposed to exporting them marked unsafe.
      - V(plain) trusts texts of letters, digits and C(._:/@+-) only, V(identifiers) of these only ids, mode, OS,
        versions, status, commands and types, V(none) nothing.
      - Whatever this is, no text from the API is ever run as a template. A trusted text that a play itself hands to
        something that evaluates it, such as C(var) of M(ansible.builtin.debug), can still name a variable; with V(none)
        it cannot.
    type: str
    choices: [plain, identifiers, none]
    default: plain
  volatile_variables:
    description:
      - Whether hosts have the variables that change while nothing happens to an environment. These are when it was
        listed (C(listed_at)), its last heartbeat (C(last_heartbeat)) and when it was last seen (C(last_seen_at)), for
        Qoder when it was updated (C(updated_at)), each after the O(hostvars_prefix).
      - With V(false) a fleet in which nothing has changed is exported as the same bytes each time, its hosts in the
        order of their ids. AWX then writes no host again.
      - O(filters), O(hostnames), O(compose), O(groups) and O(keyed_groups) see the values either way.
      - What a play reads of them is then missing. A rule of P(fleetops.environments.environment_findings#filter) and of
        the playbook C(audit) is not looked at, which their results say, as does that of
        M(fleetops.environments.fleet_report). An expression for
        P(fleetops.environments.select_environments#filter) or the role P(fleetops.environments.instruct#role) is an
        error. Ages in other rules count from when they are evaluated.
    type: bool
    default: true
  on_invalid:
    description:
      - Whether rows that are not as the API promises are a warning or fail the listing, be they dropped or hosts of
        which a field is malformed.
      - With V(warn) the variable C(dropped_rows) of the group O(root_group), after the O(hostvars_prefix), counts the
        rows that are dropped (see O(max_dropped_rows)), if there are any. Hosts of which a field is malformed are in
        the group C(invalid), after the O(group_prefix), and their variable C(invalid) names these fields.
    type: str
    choices: [warn, fail]
    default: warn
  fail_on_empty:
    description: Whether an inventory without any host is an error.
    type: bool
    default: false
notes:
  - Every option may be a template of extra variables and lookups, in lists too, and a vaulted value. In O(compose),
    O(groups) and O(keyed_groups) texts are expressions, which are evaluated for each host.
  - A damaged entry of the cache is listed again, with a warning.
  - An environment is online or not by the clock of the server (its C(Date)). Where that and the clock of the controller
    differ by more than a minute, the earlier one counts, and a warning says so.
"""
