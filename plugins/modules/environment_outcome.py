# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module environment_outcome: its documentation, from which the action of its name has its options."""

DOCUMENTATION = r"""
module: environment_outcome
short_description: End each host of a play as its environment did in a task for all
version_added: 0.1.0
author:
  - fleetops.environments authors (@fleetops)
description:
  - A task with C(run_once=true) ends for one host alone, whatever it did for all. After it, this ends each host in its
    own name, so that the recap, the exit code and "relaunch on failed hosts" of AWX are true.
  - M(ansible.builtin.assert) can do it as well. But Ansible goes through all of a dictionary whenever a template names
    it, for each host anew, and here it is only looked up.
options:
  outcomes:
    description:
      - The name of a variable with a dictionary, such as M(ansible.builtin.set_fact) sets. It has the name of each
        host, with why it failed, or an empty text where it did not.
      - V(NAME.KEY) is the dictionary with that key in the variable, such as a part of a result.
      - A host that is not in it is skipped.
    type: str
    required: true
extends_documentation_fragment:
  - fleetops.environments.on_controller
attributes:
  check_mode:
    description: Does the same, as it changes nothing.
seealso:
  - module: ansible.builtin.assert
"""

EXAMPLES = r"""
- name: Update all devices of the play
  fleetops.environments.self_update:
    targets: "{{ ansible_play_batch }}"
    max_failures: 100%
  run_once: true
  register: updated

- name: Find out how each host ends
  ansible.builtin.set_fact:
    update_outcomes: >-
      {{ dict(ansible_play_batch | product(['']))
         | combine(dict(updated.failed_hosts | product(['it was not updated']))) }}
  run_once: true

- name: End each host in its own name
  fleetops.environments.environment_outcome:
    outcomes: update_outcomes
"""

RETURN = r"""
host:
  description: The environment in the place of the play's host.
  returned: with C(delegate_to) an environment
  type: str
  sample: alpha
msg:
  description: Why the host failed, or that it is not among the outcomes.
  returned: when it failed or is skipped
  type: str
  sample: "alpha: failed: not back on version 0.34.12 or newer within 300 s"
"""
