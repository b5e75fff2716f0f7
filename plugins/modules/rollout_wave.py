# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module rollout_wave: documentation and argument specification."""

DOCUMENTATION = r"""
module: rollout_wave
short_description: Begin a wave of a rollout, and judge it
version_added: 0.1.0
author:
  - fleetops.environments authors (@fleetops)
description:
  - Puts down in the ledger that a wave of a rollout begins, and later what became of each of its targets, and whether
    it has passed.
  - It updates nothing and asks no server. It judges by what M(fleetops.environments.self_update),
    M(fleetops.environments.wait_for_environment) and M(fleetops.environments.send_message) returned.
  - A rollout is one run's at a time. Where another run has it, this waits ten seconds and then fails.
options:
  name:
    description: The name of a rollout that M(fleetops.environments.rollout) planned.
    type: str
    required: true
  wave:
    description: The number of the wave.
    type: int
    required: true
  state:
    description:
      - V(started) begins it, before anything is updated. All waves before it must have passed.
      - V(ended) judges it. It must have been begun.
    type: str
    choices: [started, ended]
    required: true
  max_failures:
    description:
      - How many of its targets may fail, as a count or a percentage rounded down, for the wave to pass. It is kept when
        the wave begins, so with O(state=started).
    type: str
    default: "0"
  updated:
    description:
      - What M(fleetops.environments.self_update) returned in C(targets). Only V(changed) and V(ok) are good ends.
      - A target that is not in it has the end that it had before, and where it had none, the wave cannot pass yet.
      - With O(state=ended), where it is required.
    type: list
    elements: dict
  waited:
    description:
      - What M(fleetops.environments.wait_for_environment) returned in C(targets), afterwards. A target without V(ok) in
        it has failed.
      - With O(state=ended). Without it an update is enough.
    type: list
    elements: dict
  probed:
    description:
      - What M(fleetops.environments.send_message) returned in C(targets), with C(wait_for_reply). A target without a
        reply in it has failed.
      - With O(state=ended). Without it nobody needs to have answered.
    type: list
    elements: dict
  ledger:
    description:
      - The ledger's file. By default E(FLEETOPS_LEDGER), else C(fleetops/ledger.sqlite) below E(XDG_STATE_HOME) or
        C(~/.local/state).
    type: path
extends_documentation_fragment:
  - fleetops.environments.on_controller
attributes:
  check_mode:
    description: Returns what it would, and keeps nothing.
seealso:
  - module: fleetops.environments.rollout
  - module: fleetops.environments.self_update
  - module: fleetops.environments.wait_for_environment
"""

EXAMPLES = r"""
- name: Begin the second wave, in which every twentieth may fail
  fleetops.environments.rollout_wave:
    name: letta-code-0.34.12
    wave: 2
    state: started
    max_failures: 5%
  run_once: true

- name: Update it
  fleetops.environments.self_update:
    targets: "{{ plan.to_run[0].hosts }}"
    target_version: 0.34.12
    max_failures: 100%
  run_once: true
  register: updates

- name: Judge it
  fleetops.environments.rollout_wave:
    name: letta-code-0.34.12
    wave: 2
    state: ended
    updated: "{{ updates.targets }}"
  run_once: true
  register: wave
  failed_when: not wave.passed
"""

RETURN = r"""
msg:
  description: How the wave stands.
  returned: always
  type: str
  sample: "wave 2 of rollout 'letta-code-0.34.12' failed: 2 of its 10 targets failed, 0 may"
state:
  description: V(running), V(passed) or V(failed). It is still V(running) where targets were left out.
  returned: always
  type: str
  sample: failed
passed:
  description: Whether it has passed.
  returned: always
  type: bool
  sample: false
max_failures:
  description: How many may fail, as a count.
  returned: always
  type: int
  sample: 0
reason:
  description: Why it has not passed, none for one that has or has just begun.
  returned: always
  type: str
  sample: 2 of its 10 targets failed, 0 may
failed_hosts:
  description: The hosts in it that failed.
  returned: always
  type: list
  elements: str
  sample: [bravo, charlie]
reasons:
  description: Host name to why it failed.
  returned: always
  type: dict
  sample:
    bravo: "after the update: not online, steady for 300 s after 600 s: it is offline"
    charlie: not back on version 0.34.12 or newer within 300 s
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.options import ON_CONTROLLER

SPEC = {
    "name": {"type": "str", "required": True},
    "wave": {"type": "int", "required": True},
    "state": {"type": "str", "choices": ["started", "ended"], "required": True},
    "max_failures": {"type": "str", "default": "0"},
    "updated": {"type": "list", "elements": "dict"},
    "waited": {"type": "list", "elements": "dict"},
    "probed": {"type": "list", "elements": "dict"},
    "ledger": {"type": "path"},
}


def main() -> None:
    AnsibleModule(SPEC, supports_check_mode=True).fail_json(msg=ON_CONTROLLER.format(name="rollout_wave"))


if __name__ == "__main__":
    main()
