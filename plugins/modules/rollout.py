# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module rollout: its documentation, from which the action of its name has its options."""

DOCUMENTATION = r"""
module: rollout
short_description: Update environments in waves that are planned once
version_added: 0.1.0
author:
  - fleetops.environments authors (@fleetops)
description:
  - The first time it looks every target up, finds out who is on O(version) already, who can update itself, who cannot
    and who is offline, and puts those that can into waves. This plan is kept in the ledger.
  - A later task with the same O(name) takes it up, whatever has changed in the fleet. So an interrupted rollout goes on
    with the same targets and version.
  - With O(state=planned) it updates nothing, and returns the plan with what has happened to each wave since.
  - With O(state=run) it also runs the waves that have not passed, one after the other. The devices of a wave are told
    to update, must then be steady for the O(soak) and, with O(probe_agent_id), an agent on each must reply. After a
    wave that has not passed nothing more is updated.
  - Devices that failed do not fail the task, since a failed task with C(run_once=true) fails every host. The result
    says how the rollout stands. The role P(fleetops.environments.self_update#role) ends each host in its own name.
  - What a wave does is in the ledger before it is done. After the end of a run, however it ends, the next one runs the
    wave again. Devices that are on the version are then not told again, and a device that may be updating is waited for
    first. The keyword C(timeout) of the task ends a run like a signal.
  - While it runs, the phases of each wave are shown when they begin. Counts are shown each second at a terminal, else
    every 30 seconds. Where the output of the callback is for machines, the lines go to standard error.
  - After an update Letta Code runs as C(letta server --computer-name NAME) alone. Its other options, such as
    C(--channels), C(--org), C(--skills), C(--debug) and C(--lifecycle-output), are lost.
  - A rollout is one task's at a time. Where another one has it, this waits ten seconds and then fails.
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
  state:
    description: Whether to plan the rollout alone, or to run its waves as well.
    type: str
    choices: [planned, run]
    default: planned
  gate:
    description: Whether to end after one wave, for somebody to approve the next one. With O(state=run).
    type: bool
    default: false
  exclude:
    description:
      - A pattern of hosts to leave out, such as V(alpha,group_of_others). C(--limit) does not narrow it. A part that
        matches no environment is an error.
      - In a rollout that has been planned, those that are not updated are recorded as left out, and stay left out in
        later runs. Their waves are judged without them. A host that is no longer in the inventory can be named, too.
      - In a new rollout they are in no wave.
    type: str
  containers:
    description:
      - What to do with devices in a container, where an update may be the end of it. V(last) plans them after all
        others, in a wave of their own. V(skip) leaves them to be updated by hand. It counts when a rollout is planned.
    type: str
    choices: [last, skip]
    default: last
  when_busy:
    description:
      - What to do with a device on which a turn is under way, a tool call waits for approval, messages are queued or
        background work runs. As in M(fleetops.environments.self_update), for O(probe_agent_id) or the agent in the
        variable C(letta_agent_id) of its host, and for the agents that campaigns in O(ledger) have sent to.
      - With V(skip) a busy device has failed its wave.
    type: str
    choices: [wait, skip, interrupt]
    default: wait
  busy_timeout:
    description: Seconds to wait for a device that is busy. One that is busy all the time has failed, and is not told.
    type: float
    default: 600
  canary_max_failures:
    description:
      - How many devices of the first wave may fail for it to pass, as a count or a percentage rounded down. With
        O(state=run), as all options below except for O(ledger) and O(concurrency).
    type: str
    default: "0"
  max_failures:
    description: How many devices of each other wave may fail for it to pass.
    type: str
    default: 5%
  offline_timeout:
    description:
      - Seconds to wait for devices that are offline when their wave begins. One that stays offline has failed.
    type: float
    default: 120
  update_timeout:
    description: Seconds, from when a device is told to update itself, until it must be back.
    type: float
    default: 300
  soak:
    description: Seconds for which a device must stay online on one connection after its update.
    type: float
    default: 300
  soak_grace:
    description: Seconds more that it has for this, since a device that reconnects starts anew.
    type: float
    default: 300
  poll_interval:
    description: Seconds between two looks at the devices during the soak.
    type: float
    default: 15
  probe_agent_id:
    description:
      - An agent that must reply on each device after the soak, in a new conversation each. None by default. A host's
        variables C(letta_agent_id) and C(letta_conversation_id) go before it.
    type: str
  probe_content:
    description: What that agent is told.
    type: str
    default: "Reply with the one word: ready"
  probe_timeout:
    description: Seconds in which it must reply.
    type: float
    default: 300
  ledger:
    description:
      - The ledger's file, or a C(postgresql://) URL as in O(fleetops.environments.send_message#module:ledger).
      - By default E(FLEETOPS_LEDGER), else C(fleetops/ledger.sqlite) below E(XDG_STATE_HOME) or C(~/.local/state).
    type: str
  concurrency:
    description: How many targets may be looked up, or may restart, at a time.
    type: int
    default: 20
extends_documentation_fragment:
  - fleetops.environments.letta
  - fleetops.environments.on_controller
attributes:
  check_mode:
    description:
      - Returns the plan that would be kept, or that is kept already, also while another run has it. Nothing is updated,
        and no file is written.
seealso:
  - module: fleetops.environments.self_update
  - module: fleetops.environments.wait_for_environment
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

- name: Run its waves
  fleetops.environments.rollout:
    name: letta-code-0.34.12
    version: 0.34.12
    targets: "{{ ansible_play_hosts }}"
    waves: ["2", "10%", "100%"]
    state: run
  run_once: true
  register: rollout
  failed_when: rollout is failed or rollout.state == 'failed'
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
    max_failures:
      description: How many of its targets may fail, as a count. None before it has begun.
      type: int
      sample: 0
    reason:
      description: Why it has not passed.
      type: str
      sample: 2 of its 10 targets failed, 0 may
to_run:
  description:
    - The waves to run next, each as C(number) and C(hosts), which are those of O(targets) alone. They are the waves
      that have not passed, up to one that this task has no target of.
    - A wave whose targets have all ended is among them without hosts, to be judged by what may fail now.
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
  description:
    - The hosts on which something was under way when it was planned, at C(planned_at), or that could not be looked at
      then, each with the C(reason).
  returned: always
  type: list
  elements: dict
  contains:
    host:
      description: The host's name in the inventory.
      type: str
      sample: golf
    reason:
      description: What was under way, or why that is not known.
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
excluded:
  description: The hosts in its waves that O(exclude) has left out, in this run or an earlier one.
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
