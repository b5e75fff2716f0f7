# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module campaign_info: its documentation, from which the action of its name has its options."""

DOCUMENTATION = r"""
module: campaign_info
short_description: Show which environments a campaign has reached
version_added: 0.1.0
author:
  - fleetops.environments authors (@fleetops)
description:
  - Reads what M(fleetops.environments.send_message) kept of a campaign in its ledger, while runs go on or after them.
    Nothing is changed, and no server is asked.
  - Targets that no run has got to, because they were offline or others failed before, are not in the ledger.
options:
  campaign:
    description: The name of the campaign. One that the ledger does not have has reached nobody.
    type: str
    required: true
  ledger:
    description:
      - The ledger's file, or a C(postgresql://) URL as in O(fleetops.environments.send_message#module:ledger).
      - By default E(FLEETOPS_LEDGER), else C(fleetops/ledger.sqlite) below E(XDG_STATE_HOME) or C(~/.local/state), and
        where there is none yet, nobody was reached. One that is given must be there, except in check mode, in which a
        task before would not have made it.
    type: str
  include_deliveries:
    description: Whether to return each delivery as well.
    type: bool
    default: false
extends_documentation_fragment:
  - fleetops.environments.on_controller
attributes:
  check_mode:
    description: Reads the ledger as ever. One that is given may be missing.
seealso:
  - module: fleetops.environments.campaign_control
  - module: fleetops.environments.send_message
"""

EXAMPLES = r"""
- name: Look at a campaign
  fleetops.environments.campaign_info:
    campaign: rotate-2026-01
    ledger: /var/lib/fleetops/ledger.sqlite
    include_deliveries: true
  run_once: true
  register: rotation

- name: Show which environments it may have reached without a proof
  ansible.builtin.debug:
    msg: "{{ rotation.deliveries | selectattr('status', 'in', ['interrupted', 'unknown']) | map(attribute='host') }}"
  run_once: true
"""

RETURN = r"""
msg:
  description: A summary.
  returned: always
  type: str
  sample: "campaign 'rotate-2026-01': 3 deliveries: 2 sent, 1 unknown"
state:
  description: V(active), V(paused) or V(cancelled), as M(fleetops.environments.campaign_control) set it.
  returned: always
  type: str
  sample: active
counts:
  description:
    - How many deliveries are in each status, which is V(sent), V(unknown), V(failed), V(offline), V(in_flight) while a
      run is about it, or V(interrupted) where that run ended before it knew.
  returned: always
  type: dict
  sample: {sent: 2, unknown: 1, failed: 0, offline: 0, in_flight: 0, interrupted: 0}
replies:
  description: How many turns ended in each state, of the deliveries whose replies were waited for.
  returned: always
  type: dict
  sample: {replied: 1, waiting: 0, needs_approval: 0, failed: 1, lost: 0}
deliveries:
  description: Each delivery, in the order of the hosts' names.
  returned: with O(include_deliveries)
  type: list
  elements: dict
  contains:
    campaign:
      description: The name of the campaign.
      type: str
      sample: rotate-2026-01
    environment_id:
      description: The environment's id.
      type: str
      sample: environment-1
    host:
      description: Its name in the inventory.
      type: str
      sample: alpha
    attempt:
      description: How often it was sent on purpose, from 1.
      type: int
      sample: 1
    client_message_id:
      description: The id of the message.
      type: str
      sample: 794d9ae4-1c81-5e04-bd91-4ca96d6401b5
    content_hash:
      description: The SHA-256 of the messages without their ids.
      type: str
    status:
      description: One of those in RV(counts).
      type: str
      sample: sent
    repeat:
      description: The repeat to all in which it was sent, from 1; 0 where it was not sent in one.
      type: int
      sample: 0
    agent_id:
      description: The agent, where one is known.
      type: str
      sample: agent-1234
    conversation_id:
      description:
        - The conversation, or the session of Qoder. Null stands for the agent's default conversation.
        - V(standing), V(new) and V(standing or default) are those of a message that was not sent yet.
      type: str
    session_key:
      description: The idempotency key with which a session of Qoder is made for it; none for Letta.
      type: str
    message_key:
      description: The idempotency key with which it is sent in the session; none for Letta.
      type: str
    otid:
      description: The id by which the message, or the last of several, is found in its conversation, once it is known.
      type: str
      sample: 794d9ae4-1c81-5e04-bd91-4ca96d6401b5
    began_at:
      description: When this attempt was begun first, in UTC.
      type: str
      sample: "2026-01-31T12:00:00.000Z"
    claimed_at:
      description: When a run began to deliver it last, in UTC.
      type: str
      sample: "2026-01-31T12:00:00.000Z"
    sent_at:
      description: When it was accepted, in UTC.
      type: str
      sample: "2026-01-31T12:00:00.100Z"
    ended_at:
      description: When its end was known, in UTC.
      type: str
      sample: "2026-01-31T12:00:00.101Z"
    outcome:
      description: The code of its error, or that it was found in the conversation.
      type: str
      sample: http_400
    reply_state:
      description: What came of its turn, where that was waited for; one of those in RV(replies).
      type: str
      sample: replied
    run_id:
      description: The run of the task that delivered it.
      type: str
      sample: 0f2b7c1e-5b0c-4a53-9d2c-1a0a4ad3f6a1
    os_user:
      description: Who ran that.
      type: str
      sample: ansible
    awx_job_id:
      description: Its job, where AWX ran it.
      type: str
      sample: "42"
    awx_user:
      description: Who launched that job.
      type: str
      sample: alice
    playbook:
      description: The file of the play.
      type: str
      sample: /playbooks/rotate.yml
"""
