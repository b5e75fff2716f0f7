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
      - V(suffix) gives every environment of the colliding set a short hash of its id.
      - V(fail) fails the listing.
    type: str
    choices: [suffix, fail]
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
  on_invalid:
    description: Whether a row that is not as the API promises is skipped with a warning or fails the listing.
    type: str
    choices: [warn, fail]
    default: warn
  fail_on_empty:
    description: Whether an inventory without any host is an error.
    type: bool
    default: false
"""
