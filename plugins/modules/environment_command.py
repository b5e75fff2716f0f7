# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module environment_command: its documentation, from which the action of its name has its options."""

DOCUMENTATION = r"""
module: environment_command
short_description: Run a command of Letta Code on environments
version_added: 0.1.0
author:
  - fleetops.environments authors (@fleetops)
description:
  - Runs one of the commands that a device lists in its C(supported_commands) on the play's current host, or in one
    task on all of O(targets), and returns its output. It goes over the relay.
  - A command that a device does not list is refused before anything is sent. So are C(browser_device_mcp_oauth),
    C(monitor_stop), C(secret) and C(toolset), which devices list although they do not run as commands.
  - An answer of more than 16 MB ends the connection, and the target ends as C(unknown).
  - A command is never run twice. Where the connection ends between the command and its answer, the target ends as
    C(unknown), since the device may have run it. With C(until) it is then not run again; a command that
    reports a failure is.
options:
  command:
    description: The command's id, as in C(supported_commands), for example V(reload).
    type: str
    required: true
  args:
    description: Everything after the command's name.
    type: str
  conversation_id:
    description:
      - The agent's conversation in which the command runs. V(default) is the agent's default one. V(standing) is the
        standing one for the agent and the environment, in which M(fleetops.environments.send_message) sends to targets
        that share an agent. Where there is no standing one, it is the default one; no conversation is made.
      - Without one it is the conversation that M(fleetops.environments.send_message) would send to now. Targets that
        share an agent mean their standing ones. A target that has its agent to itself means its standing one if there
        is one, else the default one.
      - The C(conversation_id) of the target's own entry goes before its host variable C(letta_conversation_id), and
        that before this. A variable V(new) is ignored.
    type: str
  command_timeout:
    description: Seconds to wait for the device's answer. One that does not come in time ends as C(unknown).
    type: float
    default: 60
extends_documentation_fragment:
  - fleetops.environments.letta
  - fleetops.environments.targets
  - fleetops.environments.targets.agent
  - fleetops.environments.targets.relay
  - fleetops.environments.targets.once
  - fleetops.environments.on_controller
attributes:
  check_mode:
    description: Asks each device whether it supports the command, and runs nothing.
seealso:
  - module: fleetops.environments.send_message
"""

EXAMPLES = r"""
- name: Have every device of the play read its settings again
  fleetops.environments.environment_command:
    targets: "{{ ansible_play_batch }}"
    command: reload
  run_once: true

- name: Summarize the history of an agent's conversation on the current host
  fleetops.environments.environment_command:
    command: compact
    args: all
    agent_id: agent-1234
    command_timeout: 300
  register: compacted

- name: Show what it said
  ansible.builtin.debug:
    var: compacted.output
"""

RETURN = r"""
msg:
  description: A summary, and up to 20 of the targets that failed.
  returned: always
  type: str
  sample: "3 targets: 3 changed"
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
      description: The agent that was meant, if one is known.
      type: str
      sample: agent-1234
    conversation_id:
      description: The conversation that was meant; null for the agent's default one, and where none was looked for.
      type: str
      sample: conv-5678
    status:
      description:
        - V(changed) for a command that ran with success, V(offline), V(skipped), V(not_attempted), V(failed), or
          V(unknown) for one that may have run.
      type: str
      sample: changed
    command:
      description: The command's id.
      type: str
      sample: reload
    output:
      description: What the device answered.
      type: str
      sample: Reloaded
    version:
      description: The version of Letta Code that the device runs.
      type: str
      sample: 0.34.12
    connection_id:
      description: The connection it went over.
      type: str
      sample: connection-7
    duration:
      description: Seconds that it took.
      type: float
      sample: 0.11
    reason:
      description: Why nothing was done.
      type: str
    error:
      description: What went wrong, as C(code) and C(message).
      type: dict
      sample: {code: unsupported, message: "command: the device does not support 'dance'"}
counts:
  description: How many targets ended in each status.
  returned: with O(targets)
  type: dict
  sample: {changed: 3, ok: 0, offline: 0, skipped: 0, not_attempted: 0, failed: 0, unknown: 0}
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
output:
  description: Without O(targets) the keys of RV(targets) are returned at the top; this is one of them.
  returned: without O(targets)
  type: str
  sample: Reloaded
"""
