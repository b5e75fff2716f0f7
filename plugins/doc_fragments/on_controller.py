# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is true of every module of this collection: it runs in the controller's own process."""

from __future__ import annotations


class ModuleDocFragment:
    """Attributes of the action plugins."""

    DOCUMENTATION = r"""
options: {}
attributes:
  action:
    description: Runs on the controller, in Ansible's own process; no connection to the host is made.
    support: full
  async:
    description: Does not run in the background.
    support: none
  check_mode:
    support: full
  diff_mode:
    description: Returns no difference.
    support: none
  platform:
    description: Where the controller runs.
    platforms: posix
    support: full
notes:
  - With C(delegate_to) the host that it names takes the place of the play's host, with its connection options, agent,
    conversation and variables. The result names it as C(host). It must be an environment of the inventory. Any other
    name is an error, except those that Ansible has for the controller (V(localhost), V(127.0.0.1), V(::1)), which mean
    the play's host. Ansible renders the options of the task for the play's host, so C(inventory_hostname) in them is
    that one.
"""
