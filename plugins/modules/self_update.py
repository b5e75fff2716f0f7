# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module self_update: its documentation, from which the action of its name has its options."""

DOCUMENTATION = r"""
module: self_update
short_description: Update Letta Code on environments and prove it
version_added: 0.1.0
author:
  - fleetops.environments authors (@fleetops)
description:
  - Has Letta Code update itself on the play's current host, or in one task on all of O(targets), and waits until the
    device is back.
  - A target counts as changed only when the same environment is back on a new connection with the version wanted.
  - A device that is already on O(target_version), or a newer one, is left alone.
  - An update restarts the device, which ends the turns and the background work that are under way there. So a device
    that is busy is waited for, as O(when_busy) says. There is no way back to the version before.
  - After an update Letta Code runs as C(letta server --computer-name NAME) alone. Its other options, such as
    C(--channels), C(--org), C(--skills), C(--debug) and C(--lifecycle-output), are lost. A device that is the first
    process of a container does not come back by itself.
  - Environments of one device (the same C(device_id)) are one installation. They are updated one after the other,
    whatever O(concurrency) says, also where each host of a play has a task of its own.
  - A device is under way until it is back. So O(concurrency) is how many restart at a time, and one that does not come
    back counts as failed before others start.
  - The attempts of a task with C(until) tell a device once, also one that is not back in time or ended
    C(unknown). M(fleetops.environments.wait_for_environment) waits longer.
options:
  target_version:
    description:
      - The version that is wanted at least, a semantic version. A device always updates to the newest one that it is
        offered.
      - Without it each device updates to whatever it is offered. Give one with O(method=message), where without it
        nothing tells a device that is up to date from one that was not updated.
    type: str
  method:
    description:
      - V(command) has the device run its command C(upgrade-letta-code), for which it must be updatable and list the
        command in its C(supported_commands).
      - V(message) has the agent O(agent_id) run the C(manual_command) that the device reports. Whether the device then
        restarts is the agent's affair; it has to, for the update to count.
      - V(auto) is V(command) where that is possible, else V(message) where an agent is known. A target for which
        neither is possible fails with its manual command. Once one has begun, the other is never tried.
    type: str
    choices: [auto, command, message]
    default: auto
  conversation_id:
    description:
      - The conversation in which the agent is told with V(message), as in M(fleetops.environments.send_message).
        V(default) is the agent's default one, V(standing) the standing one for the agent and the environment, V(new)
        one that is made for the message. Unless given, targets that share an agent have a standing one each.
      - The C(conversation_id) of the target's own entry goes before its host variable C(letta_conversation_id), and
        that before this.
    type: str
  update_timeout:
    description: Seconds, from when a device is told to update itself, until it must be back.
    type: float
    default: 300
  when_busy:
    description:
      - What to do with a device on which a turn is under way, a tool call waits for approval, messages are queued or
        background work runs.
      - V(wait) tells it when none of these is left, and meanwhile tells others. V(skip) leaves it as it is.
        V(interrupt) tells it at once, which ends all of this.
      - A device reports what is under way for each conversation, not as a whole. The conversations looked at are those
        of the agent O(agent_id), and of the agents that campaigns in the ledger have sent to on the device. These are
        its default one, those that campaigns and standing conversations made for the device, and those that the device
        names itself. A device of which no agent is known is told at once.
    type: str
    choices: [wait, skip, interrupt]
    default: wait
  busy_timeout:
    description:
      - Seconds to wait for a device that is busy. One that is busy all the time fails with the code C(busy), and is not
        told.
    type: float
    default: 600
  ledger:
    description:
      - The ledger of the campaigns whose conversations are looked at, a file or a C(postgresql://) URL as in
        O(fleetops.environments.send_message#module:ledger).
      - By default E(FLEETOPS_LEDGER), else C(fleetops/ledger.sqlite) below E(XDG_STATE_HOME) or C(~/.local/state), if
        it is there.
    type: str
  allow_any_manual_command:
    description:
      - Have the agent do whatever the device reports as its C(manual_command). By default only those go out that are
        command lines of the known installers (npm, pnpm, bun, yarn, pip, pipx, uv, brew) for Letta Code and name no
        older version than the device has, since an agent does what it is told. A target with another one is skipped,
        and the text shown.
    type: bool
    default: false
extends_documentation_fragment:
  - fleetops.environments.letta
  - fleetops.environments.targets
  - fleetops.environments.targets.agent
  - fleetops.environments.targets.relay
  - fleetops.environments.targets.once
  - fleetops.environments.on_controller
attributes:
  check_mode:
    description: Asks each device for its version, sends nothing, and says what would be done by which method.
seealso:
  - module: fleetops.environments.rollout
  - module: fleetops.environments.wait_for_environment
  - module: fleetops.environments.send_message
"""

EXAMPLES = r"""
- name: Bring every device of the play to a version, five at a time
  fleetops.environments.self_update:
    targets: "{{ ansible_play_batch }}"
    target_version: 0.34.12
    concurrency: 5
    max_failures: 2
    retry_file: again.txt
  run_once: true

- name: Update the current host to the newest version that it is offered, by itself or not at all
  fleetops.environments.self_update:
    method: command
    update_timeout: 600

- name: Update what is idle now, and leave the rest for another run
  fleetops.environments.self_update:
    targets: "{{ ansible_play_batch }}"
    target_version: 0.34.12
    when_busy: skip
    agent_id: agent-1234
  run_once: true

- name: Have the agent on the current host update it
  fleetops.environments.self_update:
    target_version: 0.34.12
    method: message
    agent_id: agent-1234
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
    status:
      description:
        - V(changed) for a device that is back on the version wanted, V(ok) for one that had it, V(offline), V(skipped),
          V(not_attempted), V(failed), or V(unknown) for one that may have been told to update itself and is not back.
      type: str
      sample: changed
    method:
      description: How it was updated, V(command) or V(message).
      type: str
      sample: command
    previous_version:
      description: The version that the device ran before.
      type: str
      sample: 0.34.11
    version:
      description: The version that it ran at the last look.
      type: str
      sample: 0.34.12
    connection_id:
      description: Its connection at the last look, none while it is offline.
      type: str
      sample: connection-8
    updated_at:
      description: When it was found to be back on the version wanted, in UTC. None unless it was updated.
      type: str
      sample: "2026-01-31T12:00:18.300Z"
    output:
      description: What the device answered to the command.
      type: str
      sample: Updated to 0.34.12. Restart Letta Code to use the new version.
    agent_id:
      description: The agent that was told.
      type: str
      sample: agent-1234
    conversation_id:
      description: The conversation that the message went to, where one was named or made.
      type: str
      sample: conv-1
    client_message_id:
      description: The id of the message.
      type: str
      sample: 0f2b7c1e-5b0c-4a53-9d2c-1a0a4ad3f6a1
    duration:
      description: Seconds that it took.
      type: float
      sample: 18.3
    reason:
      description: What was done, or why nothing was.
      type: str
      sample: updated from 0.34.11 to 0.34.12
    error:
      description: What went wrong, as C(code) and C(message).
      type: dict
      sample:
        code: not_updatable
        message: "not updatable: This Letta Code runtime is managed by a Python package installer."
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
version:
  description: Without O(targets) the keys of RV(targets) are returned at the top; this is one of them.
  returned: without O(targets)
  type: str
  sample: 0.34.12
"""
