# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module environment_turn: its documentation, from which the action of its name has its options."""

DOCUMENTATION = r"""
module: environment_turn
short_description: Stop what an agent does on environments, or let it go on
version_added: 0.1.0
author:
  - fleetops.environments authors (@fleetops)
description:
  - Aborts the turn that an agent has in its conversation, or resumes what an abort left waiting, on the play's current
    host or in one task on all of O(targets). An agent must be known for each target.
  - An abort goes over the relay. Where the relay or the device is gone, the server is told over REST to cancel what it
    runs in the conversation, also where another device began it, but not with O(all_conversations). RV(targets[].via)
    says which way it went. A tool that
    runs or waits for approval on the device cannot be ended that way; the target then ends V(offline) or V(failed).
  - Messages that wait on the device for the turn's end are paused by an abort over the relay. They go on with
    O(state=resumed), or when the device gets another message for the conversation.
  - A device that was restarted in the middle of a turn has the messages of that turn in its queue. It begins them when
    it is told to resume, gets another message, or gets another mode. RV(targets[].reason) says how many wait, and with
    O(state=resumed) how many it began.
  - Background processes, such as a command that the agent left running, go on after an abort, and the agent has another
    turn when they end. RV(targets[].background_processes) names them.
  - After an abort the device is asked again what is under way. A turn that has begun meanwhile is aborted, too.
  - Without O(all_conversations) and O(conversation_id) the agent's default conversation alone is meant. Messages to
    targets that share an agent go to their standing conversations, which O(all_conversations) has.
  - Aborting and resuming are safe to repeat, so where an answer is lost the device is asked once more.
options:
  state:
    description:
      - V(aborted) ends the turn that is under way, or that waits for approval.
      - V(resumed) lets the paused messages go on; the next turn begins with them.
    type: str
    choices: [aborted, resumed]
    required: true
  run_id:
    description: Abort the turn only if it is this run. With O(state=aborted) only.
    type: str
  mode:
    description:
      - The mode that the conversation gets before the turn is aborted, as in M(fleetops.environments.environment_mode).
        With O(state=aborted) only. By default it is left as it is.
      - Another mode may begin a turn on a device that was restarted, so the abort comes last. A mode that cannot be set
        keeps no turn from being aborted; RV(targets[].mode) says what happened.
    type: str
    choices: [default, standard, acceptEdits, bypassPermissions, unrestricted, strict]
  end_background:
    description:
      - Whether background processes are ended. A device offers that for monitors alone; other processes go on. With
        O(state=aborted) only.
    type: bool
    default: false
  answer_timeout:
    description:
      - Seconds to wait for a device's answer, which comes at once and not only when a turn is over.
    type: float
    default: 15
extends_documentation_fragment:
  - fleetops.environments.letta
  - fleetops.environments.targets
  - fleetops.environments.targets.agent
  - fleetops.environments.targets.relay
  - fleetops.environments.targets.conversations
  - fleetops.environments.on_controller
attributes:
  check_mode:
    description:
      - Asks each device whether a turn is under way or a message waits, and for its mode. Where the relay is gone it
        says that something would be changed, since only cancelling shows whether the server runs anything.
seealso:
  - module: fleetops.environments.environment_mode
  - module: fleetops.environments.send_message
"""

EXAMPLES = r"""
- name: Stop the agent on every host of the play
  fleetops.environments.environment_turn:
    targets: "{{ ansible_play_batch }}"
    state: aborted
    agent_id: agent-1234
  run_once: true
  register: stopped

- name: Stop it, have it ask from now on, and end its monitors
  fleetops.environments.environment_turn:
    targets: "{{ ansible_play_batch }}"
    state: aborted
    mode: standard
    end_background: true
    agent_id: agent-1234
  run_once: true

- name: Let go on what was waiting for the stopped turns
  fleetops.environments.environment_turn:
    targets: "{{ stopped.targets | selectattr('queue_paused') | map(attribute='host') }}"
    state: resumed
    agent_id: agent-1234
  run_once: true

- name: Stop one run on the current host, and nothing that came after it
  fleetops.environments.environment_turn:
    state: aborted
    agent_id: agent-1234
    run_id: run-5678
"""

RETURN = r"""
msg:
  description: A summary, and up to 20 of the targets that failed.
  returned: always
  type: str
  sample: "3 targets: 2 changed, 1 ok"
targets:
  description:
    - The result of each target, in the order given. Without O(targets) these keys are at the top. With
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
      description:
        - V(changed) for a turn that was aborted or messages that go on, V(ok) where there was nothing to do,
          V(offline), V(skipped), V(not_attempted), V(failed), or V(unknown) where the answer was lost.
      type: str
      sample: changed
    via:
      description: The way it went, V(relay) or V(rest); null where neither answered.
      type: str
      sample: relay
    run_ids:
      description: The runs that were aborted, or with O(state=resumed) those that go on, as far as they are known.
      type: list
      elements: str
      sample: [run-5678]
    queue_paused:
      description:
        - Whether messages wait on the device until O(state=resumed) or another message. Null where the device did not
          say, as over REST.
      type: bool
      sample: true
    under_way:
      description: Whether a turn was under way at the last look at the device. Null where it was not looked at.
      type: bool
      sample: false
    background_processes:
      description:
        - The background processes of the conversation that had not ended at the last look, as C(process_id), C(kind),
          C(command) and C(status), in the device's words. The command of a monitor or of a sub-agent is its
          description.
      type: list
      elements: dict
      sample: [{process_id: bash_1, kind: bash, command: sleep 600, status: running}]
    mode:
      description:
        - With O(mode) what happened to it, as C(status), C(mode), C(previous_mode) and C(error), as
          M(fleetops.environments.environment_mode) returns them. Else null.
      type: dict
      sample: {status: changed, mode: standard, previous_mode: unrestricted, error: null}
    connection_id:
      description: The connection of the device.
      type: str
      sample: connection-7
    duration:
      description: Seconds that it took.
      type: float
      sample: 0.11
    reason:
      description: Why nothing was done, what waits or goes on on the device, and why it went over REST.
      type: str
      sample: 1 message waits on the device, paused until state=resumed or another message
    error:
      description: What went wrong, as C(code) and C(message).
      type: dict
      sample: {code: no_agent, message: "agent_id: the device does not find 'agent-1234': 404 Not Found"}
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
queue_paused:
  description: Without O(targets) the keys of RV(targets) are returned at the top; this is one of them.
  returned: without O(targets)
  type: bool
  sample: true
"""
