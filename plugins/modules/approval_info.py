# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module approval_info: its documentation, from which the action of its name has its options."""

DOCUMENTATION = r"""
module: approval_info
short_description: List the tool calls that wait for approval on environments
version_added: 0.1.0
author:
  - fleetops.environments authors (@fleetops)
description:
  - Asks the device of the play's current host, or in one task those of all O(targets), which tool calls of an agent's
    conversation wait for approval. An agent must be known for each target. It goes over the relay.
  - Without O(all_conversations) and O(conversation_id) the agent's default conversation alone is meant. Messages to
    targets that share an agent go to their standing conversations, which O(all_conversations) has.
  - A device asks about one tool call of a turn after the other, so that more may come once these are answered.
  - O(fleetops.environments.send_message#module:approvals) of M(fleetops.environments.send_message) answers them.
options:
  tool_names:
    description:
      - Only tool calls of these tools. Each entry is a tool's name, in which V(*), V(?) and V([...]) mean what they
        mean in a shell. Capitals count.
    type: list
    elements: str
extends_documentation_fragment:
  - fleetops.environments.letta
  - fleetops.environments.targets
  - fleetops.environments.targets.agent
  - fleetops.environments.targets.relay
  - fleetops.environments.targets.conversations
  - fleetops.environments.on_controller
attributes:
  check_mode:
    description: Reads only, also without check mode.
seealso:
  - module: fleetops.environments.send_message
  - module: fleetops.environments.reply_info
"""

EXAMPLES = r"""
- name: See what waits on every host of the play
  fleetops.environments.approval_info:
    targets: "{{ ansible_play_batch }}"
    agent_id: agent-1234
  run_once: true
  register: waiting

- name: Look for commands that wait on the current host
  fleetops.environments.approval_info:
    agent_id: agent-1234
    tool_names: [Bash]
  register: commands

- name: Deny them
  fleetops.environments.send_message:
    agent_id: agent-1234
    approvals:
      - tool_call_id: "{{ item.tool_call_id }}"
        approve: false
        reason: Not on this machine.
  loop: "{{ commands.pending_approvals }}"
  loop_control:
    label: "{{ item.tool_call_id }}"
"""

RETURN = r"""
msg:
  description: A summary, and up to 20 of the targets that failed.
  returned: always
  type: str
  sample: "3 targets: 2 ok, 1 offline; 2 tool calls wait"
targets:
  description:
    - What waits on each target, in the order given. Without O(targets) these keys are at the top. With
      O(all_conversations) there is an entry for each conversation.
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
      description: The conversation that was meant; null for the agent's default conversation.
      type: str
      sample: conv-5678
    status:
      description: V(ok) where the device said what waits, V(offline), V(skipped), V(not_attempted) or V(failed).
      type: str
      sample: ok
    pending_approvals:
      description:
        - The tool calls that wait, as C(request_id), C(tool_call_id), C(tool_name) and C(arguments). All of that is
          what the agent made up.
      type: list
      elements: dict
      sample:
        - request_id: perm-1
          tool_call_id: call-1
          tool_name: Bash
          arguments: {command: uptime}
    connection_id:
      description: The connection of the device.
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
      sample: {code: timeout, message: "no answer to sync within 30 s"}
counts:
  description: How many targets ended in each status.
  returned: with O(targets)
  type: dict
  sample: {ok: 2, offline: 1, skipped: 0, not_attempted: 0, failed: 0, unknown: 0}
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
strays:
  description: The conversations with a turn or an open tool call that belong to no known device, by agent.
  returned: with O(all_conversations)
  type: dict
  sample: {agent-1234: [conv-9]}
problems:
  description:
    - Why there may be other conversations, by what that concerns. It is an agent, a host, or an empty text for all
      targets.
  returned: with O(all_conversations)
  type: dict
  sample: {agent-1234: ["the conversations of agent-1234 cannot be listed: 503 Service Unavailable"]}
pending_approvals:
  description: Without O(targets) the keys of RV(targets) are returned at the top; this is one of them.
  returned: without O(targets)
  type: list
  elements: dict
  sample: []
"""
