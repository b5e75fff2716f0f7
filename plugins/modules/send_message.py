# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module send_message: its documentation, from which the action of its name has its options."""

DOCUMENTATION = r"""
module: send_message
short_description: Send a message to environments of Letta and Qoder
version_added: 0.1.0
author:
  - fleetops.environments authors (@fleetops)
description:
  - Sends a message to the agent on the play's current host, or in one task to all of O(targets).
  - For an environment of Qoder a session is made, unless O(session_id) names one, and the message is an event of it.
    The targets of a task may be of both, each reached with the credentials of its own provider.
  - What is sent is one of O(content), O(content_file), O(content_template), O(messages), O(approvals) and
    O(self_update).
  - A connection that has gone since the inventory was listed is looked up again by its device, and the message tried
    once more under the same C(client_message_id).
  - Only what cannot have been accepted, or goes out under the same C(client_message_id) or idempotency key, is ever
    sent again. A session that is busy is waited for until O(deadline).
  - The attempts of a task with C(until) have the same messages under the same ids. One that ended
    C(unknown) is looked up in its agent's conversation first, and is not sent again if it is there. O(approvals) that
    ended C(unknown) are not sent again. With O(wait_for_reply) an attempt waits anew for the replies that are missing.
options:
  content:
    description: The message, a text or a list of text parts (dictionaries with C(type) and C(text)).
    type: raw
  content_file:
    description:
      - A file with the text of the message, sent as it is. Looked for like the files of a role or playbook, then where
        the command is run.
    type: path
  content_template:
    description:
      - A Jinja template for the text of the message, rendered for each target with its own variables.
      - Looked for like the templates of a role or playbook, then where the command is run. What a device says of itself
        is never taken as a template.
    type: path
  messages:
    description:
      - Several messages in one request, in the API's own shapes, which are C({role, content, client_message_id, otid})
        and C({type, approvals}).
      - A C(client_message_id) that is left out is made up; C(otid) is the same unless given.
    type: list
    elements: dict
  approvals:
    description:
      - Answers to tool calls that wait. Those with O(approvals[].approve) allow or deny one, those with
        O(approvals[].status) bring the result of a tool that ran elsewhere.
      - They carry no id, so they are not sent again after an unclear failure.
      - Where the device waits for a decision about the tool call, it gets it over the relay, as devices refuse it among
        messages; otherwise, and with the result of a tool, the API gets it. RV(targets[].via) says which.
    type: list
    elements: dict
    suboptions:
      tool_call_id:
        description: The tool call that is answered.
        type: str
        required: true
      approve:
        description: Whether the tool call is allowed.
        type: bool
      reason:
        description: Why, for the agent.
        type: str
      updated_input:
        description: The arguments to call the tool with instead.
        type: dict
      status:
        description: How the tool ended.
        type: str
        choices: [success, error]
      tool_return:
        description: What the tool returned, a text or a list of text parts.
        type: raw
      stdout:
        description: Lines that the tool wrote to its standard output.
        type: list
        elements: str
      stderr:
        description: Lines that the tool wrote to its standard error.
        type: list
        elements: str
      type:
        description: The shape, which also shows from the other keys.
        type: str
        choices: [approval, tool]
  self_update:
    description:
      - Instruct the agent to update Letta Code on its machine, with the C(manual_command) that the environment itself
        reports.
      - As with M(fleetops.environments.self_update), only the command of a known installer goes out. A target with
        another one is skipped, and the text shown. See O(allow_any_manual_command).
      - A target that is not updatable is skipped, with its C(reason) and C(install_path).
    type: bool
    default: false
  allow_any_manual_command:
    description:
      - With O(self_update), have the agent do whatever the device reports as its C(manual_command). By default only
        those go out that are command lines of the known installers (npm, pnpm, bun, yarn, pip, pipx, uv, brew) for
        Letta Code and name no older version than the inventory has of the device, since an agent does what it is told.
    type: bool
    default: false
  agent_id:
    description:
      - The agent that is to answer.
      - The C(agent_id) of the target's own entry goes before its host variable C(letta_agent_id), and that before this.
      - Without one the message is sent without an agent and the environment decides who answers. A device may drop
        such a message silently.
  conversation_id:
    description:
      - The conversation to send to. V(default) is the agent's default one, V(standing) the standing one for the agent
        and the environment, and V(new) makes one for each target. The last two need an agent.
      - A conversation has one turn at a time. A device that finds it busy, perhaps with the turn of another device,
        tries for about 70 seconds and then drops its message. Several targets in one conversation are a warning.
      - So without a conversation, targets that share an agent have a standing one each. It is made once, with a
        C(summary) that names the environment. It is found again by that summary, so the next run goes on in it.
        Where it was archived, removed or renamed, another one is made.
      - Targets share an agent if several of the task have it. For a task for each host the other hosts of the play
        count, those of all batches of C(serial) too. Their variables are read once a task. An O(agent_id) of the task
        that a template makes counts as shared. A loop with C(delegate_to) over hosts that are not in the play is no
        fan-out.
      - A target that has its agent to itself keeps the agent's default conversation, unless the agent has a standing
        conversation with any environment. So a run that C(--limit) leaves one host goes on where the run for all was.
      - O(approvals) go to the same conversation, but make none. Where there is none, they go to the default one.
        V(new) cannot go with them.
      - Where an API does not search by summary and lists more than 20,000 conversations of an agent, it is not known
        which exist. Then a target alone with its agent gets the default one, and others have one made in each run.
      - The C(conversation_id) of the target's own entry goes before its host variable C(letta_conversation_id), and
        that before this.
  agent:
    description:
      - For environments of Qoder, the agent of the session that is made; an id, or a dictionary with C(id), C(type) and
        C(version).
      - Required for them, unless O(session_id) is given.
      - The C(agent) of the target's own entry goes before its host variable C(qoder_agent), and that before this.
    type: raw
  session_id:
    description:
      - For environments of Qoder, the session to send to, instead of one that is made for each target.
      - The C(session_id) of the target's own entry goes before its host variable C(qoder_session_id), and that before
        this.
    type: str
  client_message_id:
    description:
      - The id of the message; a device drops one that it has seen in the same conversation.
      - Made up where it is left out. With O(content), O(content_file), O(content_template) and O(self_update)
        only.
      - A task that is repeated with the same one makes no second turn if the conversation is the same. O(campaign)
        looks in the others too.
      - Qoder is given none. Its idempotency keys follow from it and the environment, with which a session is made, and
        the message sent, once within 24 hours; with another agent, session or content the task fails.
    type: str
  campaign:
    description:
      - The name of a campaign, which delivers its messages to each environment once. Each has one
        C(client_message_id), which follows from the campaign and the environment. O(ledger) has what happened to it.
      - A blank one is none, as with every option, and then nothing is kept.
      - The same task run again sends nothing to a target that has the message, which is V(already_sent), and goes on
        with the others, whether the run before ended or was killed. V(already_sent) speaks of the delivery alone. Its
        turn may have failed since, or its device may have dropped it. O(wait_for_reply), O(retry=failed_turns) and
        M(fleetops.environments.reply_info) look at that. Runs at the same time that share a ledger do not
        send the same message twice; what another one has in flight stays V(not_attempted).
      - The content stays the same as long as the campaign, or the task fails before anything is sent. That is judged by
        what each target got, and with O(targets) also by what they share, which is the text of O(content),
        O(content_file) or O(content_template), or the O(messages).
      - Cannot go with O(approvals) or with ids of messages that are given, as what was delivered could not be looked
        up.
      - The conversation that is opened for a target, or its session, is recorded before the message is sent in it. So a
        killed run leaves at most one without a message. Of a target of Qoder both idempotency keys are kept too.
    type: str
  ledger:
    description:
      - The SQLite file that keeps what O(campaign) delivered, made for the user alone. It belongs on a local
        disk and has one name. For a container its directory is mounted, not the file alone.
      - Or a database of PostgreSQL, which several machines share, as
        C(postgresql://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full). The URL is read as libpq reads it, so the
        password may also be in E(PGPASSWORD), in C(.pgpass) or in a service file. It needs psycopg on the controller
        (C(requirements-postgresql.txt)). The tables are made in a schema C(fleetops). No output has the URL or its
        password; only Ansible itself shows what stands in the command, as with C(-e), at C(-vvvv).
      - By default E(FLEETOPS_LEDGER), else C(fleetops/ledger.sqlite) below E(XDG_STATE_HOME) or C(~/.local/state).
      - One that cannot be used, or that another process keeps locked for 5 seconds, fails the task before anything is
        sent; later it is waited for 30 seconds. For so long a lost connection is tried again.
      - It survives the end of a run, however it comes. After the end of the machine the latest entries may be missing,
        which O(verify) makes up for.
    type: str
  verify:
    description:
      - What to do with a message of O(campaign) that O(ledger) does not have as delivered. It may have been all the
        same, as its run was killed, its end was unclear, the machine went down, or the ledger that had it was lost.
      - V(history) looks for it in the whole of each conversation that may have it, and sends only what is not there.
        These are the one that it is to be sent in, the agent's default one, the standing ones of agent and
        environment, and those that were made for the message, archived ones too. A conversation that was given by its
        id, in a run whose ledger was lost, has to be given again.
      - A conversation is read once for all targets that share it. What is not among the latest 50,000 messages of a
        longer one, or cannot be looked up, is not sent and ends V(unknown). So does what was not found where an API
        does not search and lists more than 20,000 conversations of the agent. Where no agent is known, there is nowhere
        to look.
      - V(none) sends it under the same C(client_message_id), which a device drops unless it restarted meanwhile.
      - At Qoder the events of the session are looked through for its text. With V(none) that is done only once the
        idempotency key, which Qoder keeps for 24 hours, no longer protects. A ledger that is lost for longer than that
        leaves nothing to look the session up by, nor tells in a session that is given what of the same text was whose.
    type: str
    choices: [history, none]
    default: history
  retry:
    description:
      - Which targets of O(campaign) get the message again. V(undelivered) is none to which it was delivered.
        V(failed_turns) is also those whose turn failed. V(all) is all of them.
      - With V(failed_turns) each message whose end O(ledger) does not have is looked at once, before anything is sent.
        It is sent again where its turn has failed, or where its device has dropped it, as a device does if another
        device's turn keeps the conversation busy for 70 seconds. What its device has, is sending or may have is not
        sent again. A device that has connected again since then may have been restarted, and may have the message on
        its disk, where nothing shows it.
      - What was delivered is sent again as a new attempt, under another C(client_message_id).
      - A repeat with V(all) that was cut off is continued by the next one, until all targets of O(ledger) and of the
        task have the message. Only then another one begins. Where a target can never have it, as its environment is
        gone, a campaign of another name sends to all again.
      - Where the ledger was lost there is nothing to repeat. The first run finds what was delivered before and sends it
        to nobody again, with V(all) either; the next one does.
    type: str
    choices: [undelivered, failed_turns, all]
    default: undelivered
  audit_log:
    description:
      - Append a line of JSON to this file each time that the end of a delivery of O(campaign), or what came of its
        turn, becomes known. It has the keys that M(fleetops.environments.campaign_info) returns in C(deliveries).
      - It is a regular file, made for the user alone. Runs at the same time may share it.
      - Once a delivery, or its end, could not be recorded, here or in O(ledger), no other starts, and the task fails.
    type: path
  audit_content:
    description: Whether the lines of O(audit_log) have the texts of the messages too, as C(content), a list.
    type: bool
    default: false
  wait_for_reply:
    description:
      - After everything is sent, wait for what the agents reply, and return it as C(reply). Every target needs an
        agent, or a session. With several O(messages) it is the reply to the last one, with O(approvals) the end of
        their turn.
      - The conversations are read by at most O(rate) requests a second, O(concurrency) at a time, more rarely as time
        passes, every 15 seconds in the end.
      - A message that its device drops is not waited for any longer. It is V(failed) with the device's words if the
        task has heard them. A device says them once, to those who listen at that moment, and the task listens from
        about ten seconds after sending, to O(concurrency) devices at a time. Otherwise the message is V(lost) with the
        code V(reply_dropped), at the earliest 80 seconds after it was sent.
      - A turn that failed, waits for approval or did not end within O(reply_timeout) counts as failed, with that as its
        C(error). The message was delivered all the same, so C(status) stays V(sent) and the host is not written to
        O(retry_file). M(fleetops.environments.reply_info) collects the reply later.
    type: bool
    default: false
  reply_timeout:
    description: Seconds to wait for the reply, from when the target's message was sent. With O(wait_for_reply).
    type: float
    default: 600
  targets:
    description:
      - The hosts to send to in one task, as a list of inventory names or of dictionaries with C(host) and any of
        C(content), C(approvals), C(agent_id), C(conversation_id), C(agent), C(session_id) and C(client_message_id).
      - In a play of several hosts the task needs C(run_once=true). C(ansible_play_batch) is the list that heeds
        C(--limit); C(groups[...]) does not.
      - Without it the message goes to the play's current host.
extends_documentation_fragment:
  - fleetops.environments.letta
  - fleetops.environments.qoder
  - fleetops.environments.targets
  - fleetops.environments.targets.agent
  - fleetops.environments.targets.relay
  - fleetops.environments.targets.once
  - fleetops.environments.on_controller
attributes:
  check_mode:
    description:
      - Sends nothing, and shows in RV(would_send) what the first targets would get. With O(campaign) the ledger is
        read, and nothing is kept in it.
seealso:
  - module: fleetops.environments.environment_info
  - module: fleetops.environments.reply_info
  - plugin: fleetops.environments.letta
    plugin_type: inventory
"""

EXAMPLES = r"""
- name: Ask every host of the play for a report, in one task for all of them
  fleetops.environments.send_message:
    targets: "{{ ansible_play_batch }}"
    content: Report the state of your working directory.
    agent_id: agent-1234
    max_failures: 5%
    result_file: report.jsonl
    retry_file: again.txt
  run_once: true

- name: Send to the current host
  fleetops.environments.send_message:
    content: "Pull the latest changes of {{ letta_git_branch }}."
    agent_id: agent-1234

- name: A message for each, in a conversation that is made for it
  fleetops.environments.send_message:
    targets:
      - host: alpha
        content: Rotate the logs.
      - host: beta
        content: Report the disk usage.
        agent_id: agent-5678
    agent_id: agent-1234
    conversation_id: new
  run_once: true

- name: A text rendered for each target from templates/maintenance.j2
  fleetops.environments.send_message:
    targets: "{{ ansible_play_batch }}"
    content_template: maintenance.j2
    agent_id: agent-1234
  run_once: true

- name: Have those update themselves that can
  fleetops.environments.send_message:
    targets: "{{ ansible_play_batch }}"
    self_update: true
    agent_id: agent-1234
  run_once: true

- name: Send once, however often this is run, and to those again whose turn failed
  fleetops.environments.send_message:
    targets: "{{ ansible_play_batch }}"
    content: Rotate your credentials.
    agent_id: agent-1234
    campaign: rotate-2026-01
    ledger: /var/lib/fleetops/ledger.sqlite
    wait_for_reply: true
    retry: failed_turns
  run_once: true

- name: Ask, and wait up to five minutes for the answers
  fleetops.environments.send_message:
    targets: "{{ ansible_play_batch }}"
    content: Which services failed since yesterday?
    agent_id: agent-1234
    wait_for_reply: true
    reply_timeout: 300
    max_failures: 100%
  run_once: true
  register: asked

- name: Show the answers
  ansible.builtin.debug:
    msg: "{{ item.reply.text if item.reply else item.status }}"
  loop: "{{ asked.targets }}"
  loop_control:
    label: "{{ item.host }}"
  run_once: true

- name: Deny a tool call that waits
  fleetops.environments.send_message:
    approvals:
      - tool_call_id: call-1
        approve: false
        reason: Not on this machine.
    agent_id: agent-1234

- name: Instruct everything there is, of both providers, once
  fleetops.environments.send_message:
    targets: "{{ ansible_play_batch }}"
    content: Report which packages have known vulnerabilities.
    agent_id: agent-1234
    agent: agent_019e3bb39b67
    campaign: vulnerabilities-2026-05
    wait_for_reply: true
  run_once: true
"""

RETURN = r"""
msg:
  description: A summary, and up to 20 of the targets that failed.
  returned: always
  type: str
  sample: "3 targets: 2 sent, 1 offline"
targets:
  description: What happened to each target, in the order given. With O(targets).
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
    provider:
      description: Whose environment it is, V(letta) or V(qoder).
      type: str
      sample: letta
    status:
      description:
        - V(sent), V(already_sent) for one that O(campaign) delivered before, V(offline), V(skipped), V(not_attempted),
          V(failed), or V(unknown) for one that may have been accepted. All of them speak of the delivery alone; how the
          turn ended is RV(targets[].reply).
      type: str
      sample: sent
    client_message_id:
      description: The id of the message, of the first one with O(messages); none with O(approvals).
      type: str
      sample: 0f2b7c1e-5b0c-4a53-9d2c-1a0a4ad3f6a1
    otid:
      description: The id by which the message, or the last one of O(messages), and its reply are found.
      type: str
      sample: 0f2b7c1e-5b0c-4a53-9d2c-1a0a4ad3f6a1
    agent_id:
      description: The agent it was sent to. None means that the environment decides who answers.
      type: str
      sample: agent-1234
    conversation_id:
      description: The conversation it was sent to. None is the agent's default one.
      type: str
      sample: conv-1
    session_id:
      description: The session of Qoder that it was sent to, which RV(targets[].conversation_id) is too.
      type: str
      sample: sess_019e3bb39b6774d8878cd0b9d237574b
    connection_id:
      description: The connection it went over; none with Qoder.
      type: str
      sample: connection-7
    response_message:
      description: What the API answered.
      type: str
      sample: Message sent
    via:
      description:
        - V(relay) for an answer to a tool call that the device itself accepted, V(rest) for what the API accepted.
      type: str
      sample: rest
    sent_at:
      description: When it was accepted, in UTC. M(fleetops.environments.reply_info) counts from it.
      type: str
      sample: "2026-01-31T12:00:00.000Z"
    reply:
      description: What came of the message, with O(wait_for_reply). None where it was not delivered.
      type: dict
      contains:
        state:
          description:
            - V(replied), V(failed), V(needs_approval), V(waiting) when the time was over before the turn, or V(lost)
              for a message that did not get to the agent, that its device has dropped, or whose agent or device is
              gone.
          type: str
          sample: replied
        text:
          description: The last that the agent said in the turn.
          type: str
          sample: None failed.
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
            - Why that run ended. With Qoder why the turn did, as V(end_turn), V(requires_action), V(cancelled),
              V(error), V(terminated) or V(deleted).
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
        error:
          description:
            - Why there is no reply, as C(code), which is V(reply_failed), V(needs_approval), V(reply_timeout),
              V(reply_lost), V(reply_dropped) or that of a request that failed, and C(message).
          type: dict
    attempts:
      description: How many requests were made to send it.
      type: int
      sample: 1
    duration:
      description: Seconds that it took.
      type: float
      sample: 0.08
    reason:
      description:
        - Why nothing was sent, when it was delivered before, who answers where no agent is known, or why an answer to a
          tool call went to the API.
      type: str
      sample: "no agent_id: the environment decides who answers"
    error:
      description: What went wrong, as C(code) and C(message).
      type: dict
      sample: {code: http_429, message: 429 Too Many Requests}
counts:
  description: How many targets ended in each status.
  returned: with O(targets)
  type: dict
  sample: {sent: 2, already_sent: 0, offline: 1, skipped: 0, not_attempted: 0, failed: 0, unknown: 0}
replies:
  description: How many replies are in each state.
  returned: with O(targets) and O(wait_for_reply)
  type: dict
  sample: {replied: 2, waiting: 0, needs_approval: 0, failed: 0, lost: 0}
max_failures_exceeded:
  description: Whether more targets failed than O(max_failures) allows, which is when the task fails.
  returned: with O(targets)
  type: bool
  sample: false
failed_hosts:
  description:
    - The hosts that failed or ended V(unknown), those offline unless O(when_offline=skip), and with O(wait_for_reply)
      those that did not reply.
  returned: with O(targets)
  type: list
  elements: str
  sample: []
would_send:
  description:
    - In check mode, what the first five targets would get, as C(host), C(agent_id), C(conversation_id) and
      C(messages).
  returned: in check mode
  type: list
  elements: dict
  sample: [{host: alpha, agent_id: agent-1234, conversation_id: null, messages: [{role: user, content: Hello}]}]
status:
  description: Without O(targets) the keys of RV(targets) are returned at the top; this is one of them.
  returned: without O(targets)
  type: str
  sample: sent
"""
