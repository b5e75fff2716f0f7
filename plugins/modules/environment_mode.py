# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module environment_mode: its documentation, from which the action of its name has its options."""

DOCUMENTATION = r"""
module: environment_mode
short_description: Set what an agent may do on environments without asking
version_added: 0.1.0
author:
  - fleetops.environments authors (@fleetops)
description:
  - Sets the mode of an agent's conversation on the play's current host, or in one task on all of O(targets). An agent
    must be known for each target. It goes over the relay.
  - The mode belongs to the conversation on that device. Other conversations and other devices keep theirs, and the
    device keeps it when it restarts. It is set in the conversation that messages go to, see O(conversation_id).
    M(fleetops.environments.environment_turn) sets it in every conversation of a device, with
    O(fleetops.environments.environment_turn#module:all_conversations).
  - A device that was restarted in the middle of a turn goes on with it once it gets another mode. It is asked for that
    after the change, and RV(targets[].work_started) and RV(targets[].reason) say what it began. To set a mode and leave
    nothing under way, use O(fleetops.environments.environment_turn#module:mode) of
    M(fleetops.environments.environment_turn).
  - A mode is changed only when the device confirmed it. Where the confirmation is lost the device is asked once more.
options:
  mode:
    description:
      - The mode, in the API's words, which devices read as V(standard) for V(default), and V(unrestricted) for
        V(bypassPermissions). A device that has the mode under its other name is not changed.
      - It is sent as it is given, since older devices know the older words alone.
    type: str
    choices: [default, standard, acceptEdits, bypassPermissions, unrestricted, strict]
    required: true
  conversation_id:
    description:
      - The agent's conversation whose mode is set. V(default) is the agent's default one. V(standing) is the
        standing one for the agent and the environment, in which M(fleetops.environments.send_message) sends to targets
        that share an agent. Where there is no standing one, it is the default one; no conversation is made.
      - Without one it is the conversation that M(fleetops.environments.send_message) would send to now. Targets that
        share an agent mean their standing ones. A target that has its agent to itself means its standing one if there
        is one, else the default one.
      - The C(conversation_id) of the target's own entry goes before its host variable C(letta_conversation_id), and
        that before this. A variable V(new) is ignored.
    type: str
  answer_timeout:
    description: Seconds to wait for a device's confirmation, which comes at once.
    type: float
    default: 15
extends_documentation_fragment:
  - fleetops.environments.letta
  - fleetops.environments.targets
  - fleetops.environments.targets.agent
  - fleetops.environments.targets.relay
  - fleetops.environments.on_controller
attributes:
  check_mode:
    description: Asks each device for its mode and for what the change would begin, and sets nothing.
  diff_mode:
    description: Shows the modes before and after.
    support: full
seealso:
  - module: fleetops.environments.environment_turn
"""

EXAMPLES = r"""
- name: Have the agent ask before it changes anything, on every host of the play
  fleetops.environments.environment_mode:
    targets: "{{ ansible_play_batch }}"
    mode: standard
    agent_id: agent-1234
  run_once: true

- name: Let one conversation on the current host edit files
  fleetops.environments.environment_mode:
    mode: acceptEdits
    agent_id: agent-1234
    conversation_id: conv-5678
"""

RETURN = r"""
msg:
  description: A summary, and up to 20 of the targets that failed.
  returned: always
  type: str
  sample: "3 targets: 2 changed, 1 ok"
targets:
  description: What happened to each target, in the order given. Without O(targets) these keys are at the top.
  returned: with O(targets)
  type: list
  elements: dict
  contains:
    host:
      description: The host's name in the inventory.
      type: str
      sample: alpha
    id:
      description: The environment's id.
      type: str
      sample: environment-1
    agent_id:
      description: The agent that was meant.
      type: str
      sample: agent-1234
    conversation_id:
      description: The conversation that was meant; null for the agent's default one, and where none was looked for.
      type: str
      sample: conv-5678
    status:
      description:
        - V(changed) for a mode that was set, V(ok) where the device had it, V(offline), V(skipped), V(not_attempted),
          V(failed), or V(unknown) where it may have been set.
      type: str
      sample: changed
    mode:
      description: The mode in the device's own word; null where it is not known.
      type: str
      sample: standard
    previous_mode:
      description: The mode that it had.
      type: str
      sample: unrestricted
    work_started:
      description:
        - Whether the device began work that waited there since a restart. Null where it did not say.
      type: bool
      sample: false
    connection_id:
      description: The connection of the device.
      type: str
      sample: connection-7
    duration:
      description: Seconds that it took.
      type: float
      sample: 0.11
    reason:
      description: Why nothing was done, or which work the device began.
      type: str
      sample: 1 message goes on, which waited on the device
    error:
      description: What went wrong, as C(code) and C(message).
      type: dict
      sample: {code: refused, message: "the device refused the mode: Unsupported permission mode: strict"}
counts:
  description: How many targets ended in each status.
  returned: with O(targets)
  type: dict
  sample: {changed: 2, ok: 1, offline: 0, skipped: 0, not_attempted: 0, failed: 0, unknown: 0}
max_failures_exceeded:
  description: Whether more targets failed than O(max_failures) allows, which is when the task fails.
  returned: with O(targets)
  type: bool
  sample: false
failed_hosts:
  description: The hosts that failed or ended V(unknown), and those offline unless O(when_offline=skip).
  returned: with O(targets)
  type: list
  elements: str
  sample: []
previous_mode:
  description: Without O(targets) the keys of RV(targets) are returned at the top; this is one of them.
  returned: without O(targets)
  type: str
  sample: unrestricted
"""
