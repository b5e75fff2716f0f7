# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module reply_info: its documentation, from which the action of its name has its options."""

DOCUMENTATION = r"""
module: reply_info
short_description: Collect the replies to messages that were sent before
version_added: 0.1.0
author:
  - fleetops.environments authors (@fleetops)
description:
  - Looks once at what happened to messages that M(fleetops.environments.send_message) sent, on O(replies) or on the
    play's current host. To wait, repeat the task with C(until).
  - A message is found in its agent's conversation by its C(client_message_id), among the latest 2,000 messages.
  - The task does not fail for what happened to a message.
  - A message that its Letta device has dropped is V(lost), from 80 seconds after C(sent_at) on. The device has then
    said that no turn goes on and that the message does not wait there. Why it dropped the message cannot be seen
    afterwards. Where the device is offline, does not say what waits there, or has connected again since C(sent_at), the
    message is V(waiting) until O(lost_after).
options:
  replies:
    description:
      - The messages, as M(fleetops.environments.send_message) returned them in C(targets), or what it returned for one
        host. Of an entry C(host), C(id), C(provider), C(status), C(agent_id), C(conversation_id),
        C(session_id), C(client_message_id), C(otid) and C(sent_at) are read. C(provider) is V(letta) where neither the
        entry nor the inventory says so.
      - What was not sent, or without a C(client_message_id) or agent, is reported as V(skipped). A message to Qoder
        needs neither, but a session.
      - With entries of other hosts the task needs C(run_once=true) in a play of several hosts.
    type: list
    elements: dict
  client_message_id:
    description: The id of one message to the current host, instead of O(replies).
    type: str
  agent_id:
    description:
      - The agent that O(client_message_id) was sent to. The host variable C(letta_agent_id) goes before it.
    type: str
  agent_name:
    description:
      - The name of that agent, instead of O(agent_id). It is looked up, and goes before C(letta_agent_id).
      - It is an error if no agent or several agents have the name.
    type: str
  conversation_id:
    description:
      - The id of the conversation that O(client_message_id) was sent to, as M(fleetops.environments.send_message)
        returned it; the agent's default one unless given. The host variable C(letta_conversation_id) goes before it.
      - A message to a target that shares its agent is in a standing conversation, so it is not found without the id.
        V(standing) and V(new) are refused, as there may be several such conversations. O(replies) has the ids.
    type: str
  session_id:
    description:
      - With Qoder, the session that the message was sent to, with which no O(client_message_id) is needed. The host
        variable C(qoder_session_id) goes before it.
      - The reply is that to the first message of the session. Which of several is meant, only O(replies) can tell.
    type: str
  reply_dir:
    description:
      - Write each answer to a file in this directory, C(<host>.txt), which is replaced if it is there.
      - A directory whose parent exists is made, for the user alone.
    type: path
  lost_after:
    description:
      - How many seconds after C(sent_at) a message that is not in its conversation counts as V(lost). Before that, and
        where C(sent_at) is not known, it is V(waiting).
    type: float
    default: 600
  concurrency:
    description: How many requests may be under way at a time.
    type: int
    default: 20
  rate:
    description: How many requests may start in a second. No limit by default.
    type: float
extends_documentation_fragment:
  - fleetops.environments.targets.relay
  - fleetops.environments.letta
  - fleetops.environments.qoder
  - fleetops.environments.on_controller
attributes:
  check_mode:
    description: Looks for the replies, and writes no files.
seealso:
  - module: fleetops.environments.send_message
"""

EXAMPLES = r"""
- name: Ask everybody, without waiting
  fleetops.environments.send_message:
    targets: "{{ ansible_play_batch }}"
    content: Describe the machine you run on.
    agent_id: agent-1234
  run_once: true
  register: asked

- name: Collect the answers, for up to ten minutes
  fleetops.environments.reply_info:
    replies: "{{ asked.targets }}"
    reply_dir: answers
  run_once: true
  register: collected
  until: collected.counts.waiting == 0
  retries: 20
  delay: 30

- name: Look for one answer on the current host
  fleetops.environments.reply_info:
    client_message_id: 0f2b7c1e-5b0c-4a53-9d2c-1a0a4ad3f6a1
    agent_id: agent-1234
    conversation_id: conv-5678
  register: found

- name: Show it
  ansible.builtin.debug:
    var: found.replies[0].text
"""

RETURN = r"""
host:
  description: The environment in the place of the play's host.
  returned: with C(delegate_to) an environment
  type: str
  sample: alpha
msg:
  description: A summary.
  returned: always
  type: str
  sample: "3 messages: 2 replied, 1 waiting"
replies:
  description: What happened to each message, in the order given.
  returned: always
  type: list
  elements: dict
  contains:
    host:
      description: The host's name in the inventory.
      type: str
      sample: alpha
    id:
      description: The environment's id, where it is known.
      type: str
      sample: environment-1
    client_message_id:
      description: The id of the message.
      type: str
      sample: 0f2b7c1e-5b0c-4a53-9d2c-1a0a4ad3f6a1
    agent_id:
      description: The agent it was sent to.
      type: str
      sample: agent-1234
    conversation_id:
      description: The conversation it was sent to; none is the agent's default one.
      type: str
      sample: conv-1
    session_id:
      description: The session of Qoder that it was sent to.
      type: str
      sample: sess_019e3bb39b6774d8878cd0b9d237574b
    state:
      description:
        - V(replied), V(waiting) while the message is not in the conversation yet or its turn goes on,
          V(needs_approval), V(failed), V(lost) for a message that did not get there in time, that its device has
          dropped, or whose agent or conversation is gone, or V(skipped).
      type: str
      sample: replied
    text:
      description: The last that the agent said in the turn.
      type: str
      sample: A virtual machine with two cores.
    run_id:
      description: The last run of the turn; none with Qoder.
      type: str
      sample: run-1
    event_id:
      description: With Qoder, the event of the session that the message is.
      type: str
      sample: evt_019e3bb39b6774d8878cd0b9d237574c
    stop_reason:
      description:
        - Why that run ended. With Qoder why the turn did, as V(end_turn), V(requires_action), V(cancelled), V(error),
          V(terminated) or V(deleted).
      type: str
      sample: end_turn
    duration:
      description: Seconds from the message to the end of the turn.
      type: float
      sample: 4.2
    pending_approvals:
      description:
        - The tool calls that wait for approval, as C(request_id), C(tool_call_id), C(tool_name) and C(arguments).
          C(request_id) is none where the device could not be asked.
      type: list
      elements: dict
      sample: []
    reason:
      description: Why a message was skipped.
      type: str
    error:
      description: Why there is no reply, as C(code) and C(message).
      type: dict
      sample: {code: reply_failed, message: "the turn failed: no credit left"}
counts:
  description: How many messages are in each state.
  returned: always
  type: dict
  sample: {replied: 2, waiting: 1, needs_approval: 0, failed: 0, lost: 0, skipped: 0}
"""
