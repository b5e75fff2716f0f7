# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module check_variables: its documentation, from which the action of its name has its options."""

DOCUMENTATION = r"""
module: check_variables
short_description: Refuse variables that a playbook or role of this collection does not have
version_added: 0.1.0
author:
  - fleetops.environments authors (@fleetops)
description:
  - The first task of each playbook and role of this collection. It fails before anything is done where a variable is
    misspelt, so that C(instruct_host) does not mean the whole fleet, and where a value cannot be used.
  - A variable of the run is an extra variable, a parameter of the role, or a variable of the play, of its
    C(vars_files), or of a block or task around the role. If its name begins with O(name) and C(_), it must be a
    variable of the playbook or role. A name that begins with C(__), O(name) and C(_) is internal, and cannot be set.
  - Where the inventory, C(include_vars) or C(set_fact) sets a variable, it may be another role's. So only a name with
    the beginning that is nearly the name of a variable which is not set is refused. The same holds for a variable of
    the run with another beginning. What begins with the name of another role of the play is that role's.
  - No fact of a host is a variable of a playbook. The tasks of a role read its variables themselves, so a host with a
    fact of such a name is refused where that would count. RV(refused) has these hosts, and the others go on. Where a
    role is included with C(run_once), all is done for one host, so the task fails for a fact of that host.
  - The pattern of hosts of a playbook, such as C(instruct_hosts), must be a variable of the run, as Ansible chooses the
    hosts of a play before it reads the variables of hosts. A role has it only where its play chooses its hosts by it.
  - Capitals make no other name.
  - C(meta/argument_specs.yml) of the collection has the variables of the playbooks, with type, default and meaning, and
    C(roles/NAME/meta/argument_specs.yml) has those of the roles.
options:
  name:
    description: The name of the playbook or role, such as V(stop).
    type: str
    required: true
extends_documentation_fragment:
  - fleetops.environments.on_controller
attributes:
  check_mode:
    description: Does the same, as it changes nothing.
"""

EXAMPLES = r"""
- name: Check the variables
  fleetops.environments.check_variables:
    name: stop
  run_once: true
  tags: always
  register: __stop_checked

- name: Show how many devices are asked at a time
  ansible.builtin.debug:
    msg: "{{ __stop_checked.variables.stop_concurrency }}"
"""

RETURN = r"""
hosts:
  description: The hosts that the playbook acts on, or those of the play's batch in a role.
  returned: success
  type: list
  elements: str
  sample: [alpha, beta]
refused:
  description:
    - Those of RV(hosts) that have a fact which templates of the playbook or its role would take for a variable, with
      why.
    - The playbook or role ends each of them in its own name, and goes on with the others.
  returned: success
  type: dict
  sample: {}
variables:
  description:
    - Each variable that is set or has a default, with its value in the type of the variable. A list may be given as one
      text, V(a,b) or V(["a","b"]).
    - The values are those of the first host that a playbook acts on, or of the current host of a role, refused hosts
      aside.
  returned: success
  type: dict
  sample:
    stop_campaigns: [rotate-2026-01]
    stop_concurrency: 50
dropped_rows:
  description: How many rows of the listings of Letta's environments are no hosts, whatever the pattern of hosts is.
  returned: for the playbook audit
  type: int
"""
