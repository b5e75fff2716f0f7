# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module rollout: documentation and argument specification."""

DOCUMENTATION = r"""
module: rollout
short_description: Plan the waves in which environments are updated, or take a plan up again
version_added: 0.1.0
author:
  - fleetops.environments authors (@fleetops)
description:
  - The first time it looks every target up, finds out who is on O(version) already, who can update itself, who cannot
    and who is offline, and puts those that can into waves. This plan is kept in the ledger.
  - A later task with the same O(name) asks no server. It returns the plan that was kept, with what became of each wave
    since, whatever has changed in the fleet. So an interrupted rollout goes on with the same targets and version.
  - A rollout is one run's at a time, from this task until its C(ansible-playbook) has ended, however it ends. Where
    another run has it, this waits ten seconds and then fails.
  - It updates nothing. M(fleetops.environments.rollout_wave) begins and judges the waves that it returns in RV(to_run);
    the role P(fleetops.environments.self_update#role) does all of it.
  - In a play of several hosts the task needs C(run_once=true).
options:
  name:
    description: The name of the rollout, by which a later task takes it up again.
    type: str
    required: true
  version:
    description: The version that is wanted at least, a semantic version such as V(0.34.12).
    type: str
    required: true
  targets:
    description:
      - The hosts to update, as a list of inventory names. C(ansible_play_hosts) is the list that heeds C(--limit);
        C(groups[...]) does not.
      - When a rollout is taken up again, the hosts of its waves that are not in this list are left out, and those in it
        that are new have no part in it.
    type: list
    elements: str
    required: true
  max_targets:
    description: More targets than this are an error before anything is done. No limit by default.
    type: int
  waves:
    description:
      - How many of the targets that can be updated have been by the end of each wave, as counts or percentages. A
        percentage is rounded down, and each wave has at least one target more than those before it.
      - The last one must be V(100%).
    type: list
    elements: str
    default: ["1", "5%", "25%", "100%"]
  ledger:
    description:
      - The ledger's file. By default E(FLEETOPS_LEDGER), else C(fleetops/ledger.sqlite) below E(XDG_STATE_HOME) or
        C(~/.local/state).
    type: path
  concurrency:
    description: How many targets may be looked up at a time.
    type: int
    default: 20
extends_documentation_fragment:
  - fleetops.environments.letta
  - fleetops.environments.on_controller
attributes:
  check_mode:
    description:
      - Returns the plan that would be kept, or that is kept already, also while another run has it. No file is written.
seealso:
  - module: fleetops.environments.rollout_wave
  - module: fleetops.environments.self_update
"""

EXAMPLES = r"""
- name: Plan the update of all devices of the play, two at first
  fleetops.environments.rollout:
    name: letta-code-0.34.12
    version: 0.34.12
    targets: "{{ ansible_play_hosts }}"
    waves: ["2", "10%", "100%"]
  run_once: true
  register: plan

- name: Show who cannot update itself, and why
  ansible.builtin.debug:
    msg: "{{ plan.not_updatable }}"
  run_once: true
"""

RETURN = r"""
msg:
  description: A summary.
  returned: always
  type: str
  sample: "rollout 'letta-code-0.34.12': 20 updatable in 4 waves, 3 current, 1 not updatable, 2 offline"
name:
  description: The name of the rollout.
  returned: always
  type: str
  sample: letta-code-0.34.12
version:
  description: The version that is wanted.
  returned: always
  type: str
  sample: 0.34.12
planned_at:
  description: When it was planned, in UTC.
  returned: always
  type: str
  sample: "2026-01-31T12:00:00.000Z"
state:
  description: V(pending) before its first wave, V(running), V(failed) where a wave has, or V(passed) where all have.
  returned: always
  type: str
  sample: running
waves:
  description: Its waves in their order.
  returned: always
  type: list
  elements: dict
  contains:
    number:
      description: Its number, from 1.
      type: int
      sample: 1
    state:
      description: V(pending), V(running) (also where it was interrupted, or left targets out), V(passed) or V(failed).
      type: str
      sample: passed
    hosts:
      description: All of its hosts.
      type: list
      elements: str
      sample: [alpha]
    started_at:
      description: When it was begun first, in UTC.
      type: str
      sample: "2026-01-31T12:00:01.000Z"
    ended_at:
      description: When it passed or failed, in UTC.
      type: str
      sample: "2026-01-31T12:06:01.000Z"
    reason:
      description: Why it has not passed.
      type: str
      sample: 2 of its 10 targets failed, 0 may
to_run:
  description:
    - The waves to run next, each as C(number) and C(hosts), which are those of O(targets) alone. They are the waves
      that have not passed, up to one that this task has no target of.
    - Where all have passed, the hosts that failed all the same, to be tried again.
  returned: always
  type: list
  elements: dict
  contains:
    number:
      description: The wave's number.
      type: int
      sample: 2
    hosts:
      description: The hosts to update in it.
      type: list
      elements: str
      sample: [bravo]
at_risk:
  description:
    - The hosts in a container that are not updated yet. Where Letta Code is the first process of a container, an update
      may be the end of it. They are in a wave of their own after all others, or in the usual waves where each device of
      the rollout is in a container.
  returned: always
  type: list
  elements: str
  sample: [foxtrot]
busy:
  description: The hosts on which something was under way when it was planned, each with the C(reason).
  returned: always
  type: list
  elements: dict
  contains:
    host:
      description: The host's name in the inventory.
      type: str
      sample: golf
    reason:
      description: What was under way.
      type: str
      sample: "busy: a turn of agent-1234"
current:
  description: The hosts that were on the version, or a newer one, when it was planned.
  returned: always
  type: list
  elements: str
  sample: [charlie]
offline:
  description: The hosts that were offline then, each with the C(reason).
  returned: always
  type: list
  elements: dict
  contains:
    host:
      description: The host's name in the inventory.
      type: str
      sample: delta
    reason:
      description: How it was last seen.
      type: str
      sample: offline (last seen at 2026-01-30T12:00:00.000Z), version 0.34.11, mode standard
not_updatable:
  description: The hosts that could not update themselves then.
  returned: always
  type: list
  elements: dict
  contains:
    host:
      description: The host's name in the inventory.
      type: str
      sample: echo
    reason:
      description: Why not.
      type: str
      sample: "not updatable: This Letta Code runtime is managed by a Python package installer."
    manual_command:
      description: How to update it by hand, in the device's own words.
      type: str
      sample: uv tool upgrade letta
    install_path:
      description: Where it is installed, where it says so.
      type: str
      sample: /usr/lib/node_modules/@letta-ai/letta-code
failed_targets:
  description: What failed in waves that were judged.
  returned: always
  type: list
  elements: dict
  contains:
    host:
      description: The host's name in the inventory.
      type: str
      sample: bravo
    wave:
      description: The number of its wave.
      type: int
      sample: 2
    status:
      description: V(failed), V(unknown), V(offline) or V(skipped).
      type: str
      sample: failed
    reason:
      description: Why.
      type: str
      sample: "after the update: not online, steady for 300 s after 600 s: it is offline"
left_out:
  description: The hosts in its waves that are not in O(targets), and not updated.
  returned: always
  type: list
  elements: str
  sample: []
not_in_rollout:
  description: The hosts in O(targets) that the rollout was not planned for.
  returned: always
  type: list
  elements: str
  sample: []
next_wave:
  description: The number of the first wave that has not passed, none where all have.
  returned: always
  type: int
  sample: 2
done:
  description: Whether all waves have passed.
  returned: always
  type: bool
  sample: false
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.options import CONNECTION_SPEC, ON_CONTROLLER

SPEC = {
    "name": {"type": "str", "required": True},
    "version": {"type": "str", "required": True},
    "targets": {"type": "list", "elements": "str", "required": True},
    "max_targets": {"type": "int"},
    "waves": {"type": "list", "elements": "str", "default": ["1", "5%", "25%", "100%"]},
    "ledger": {"type": "path"},
    "concurrency": {"type": "int", "default": 20},
    **CONNECTION_SPEC,
}


def main() -> None:
    AnsibleModule(SPEC, supports_check_mode=True).fail_json(msg=ON_CONTROLLER.format(name="rollout"))


if __name__ == "__main__":
    main()
