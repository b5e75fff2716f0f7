# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which environments to act on, how many at a time, and what happens when some fail."""

from __future__ import annotations


class ModuleDocFragment:
    """The options of modules that act on the current host or on `targets`."""

    DOCUMENTATION = r"""
options:
  targets:
    description:
      - The hosts to act on in one task, as a list of inventory names or of dictionaries with C(host) and any of
        C(agent_id) and C(conversation_id).
      - In a play of several hosts the task needs C(run_once=true). C(ansible_play_batch) is the list that heeds
        C(--limit); C(groups[...]) does not.
      - Without it the task acts on the play's current host, or on the host of C(delegate_to). Where that is an
        environment, it cannot go with O(targets).
    type: list
    elements: raw
  max_targets:
    description: More targets than this are an error before anything is done. No limit by default.
    type: int
  concurrency:
    description: How many targets may be under way at a time. With O(targets) only.
    type: int
    default: 20
  rate:
    description: How many targets may start in a second. No limit by default. With O(targets) only.
    type: float
  max_failures:
    description:
      - How many targets may fail, as a count or a percentage of all. Above it no new one starts, those under way
        finish, the rest is C(not_attempted), and the task fails. With O(targets) only.
    type: str
    default: "0"
  retry_file:
    description:
      - Write the hosts to try again to this file, one a line, for C(--limit @file). These are the ones that failed or
        were not attempted. Those that ended C(unknown) may have been reached and are left out.
      - When there are none, a file of that name is removed, since Ansible takes an empty one for no limit at all.
      - With O(targets) only.
    type: path
  result_file:
    description:
      - Write a line for each target to this file, JSON Lines where the name ends in C(.jsonl), CSV where it ends in
        C(.csv). With O(targets) only.
    type: path
notes:
  - A SIGINT (Ctrl-C), a SIGTERM, and the end of the time that the task keyword C(timeout) or
    E(ANSIBLE_TASK_TIMEOUT) sets, let no further target start and give those under way 5 s. What is cut off then is
    C(unknown). Ansible takes no result any more, so O(result_file) and O(retry_file) are the report.
  - With O(targets), a terminal shows once a second how many are done and how long the rest takes.
"""

    # For what must not happen twice.
    ONCE = r"""
options: {}
notes:
  - With the task keywords C(until) and C(retries) all attempts of a task are one. A target that has had the effect is
    left alone. One that ended C(failed), C(offline) or C(not_attempted) is tried again. The result of each attempt, and
    the files, have all targets. Another item of a loop is another task.
  - What stays C(unknown) or failed counts against O(max_failures) in each attempt. Above it nothing new starts.
"""

    # For what is done in every conversation of an agent on a device.
    CONVERSATIONS = r"""
options:
  all_conversations:
    description:
      - Whether every conversation of the agent is meant that belongs to the target's device, and not O(conversation_id)
        or the default one alone. These are the conversations that O(ledger) or O(earlier_results) has for the device,
        those that this collection made for it, which their summaries say, and those that the device names itself.
      - A conversation of another device that shares the agent is left alone. One with a turn or an open tool call that
        belongs to no known device is named, as nobody can say which device is at work in it. One that the device names
        and that is another agent's is C(skipped).
      - The device alone is asked, over the relay, as the server would end the turns of other devices, too. One that
        cannot be reached has an entry for O(conversation_id) or the default conversation alone.
      - An agent's conversations are listed once. At most 200 conversations of a device are looked at, one after the
        other.
      - O(max_failures) counts targets. One of them has failed if one of its conversations has.
    type: bool
    default: false
  ledger:
    description:
      - The ledger of the campaigns whose conversations are looked at, a file or a C(postgresql://) URL as in
        O(fleetops.environments.send_message#module:ledger).
        With O(all_conversations) only.
      - By default E(FLEETOPS_LEDGER), else C(fleetops/ledger.sqlite) below E(XDG_STATE_HOME) or C(~/.local/state), if
        it is there.
    type: str
  earlier_results:
    description:
      - A file that O(fleetops.environments.send_message#module:result_file) has written. The conversations of its
        targets are looked at, too. With O(all_conversations) only.
    type: path
"""

    # For what is done on an agent's behalf, and needs an environment that is online.
    AGENT = r"""
options:
  agent_id:
    description:
      - The agent that is meant.
      - The C(agent_id) of the target's own entry goes before its host variable C(letta_agent_id), and that before this.
    type: str
  agent_name:
    description:
      - The name of the agent of Letta that is meant, instead of O(agent_id). It is looked up once a task.
      - It goes before the host variable C(letta_agent_id). The C(agent_id) of a target's own entry goes before it.
      - It is an error if no agent or several agents have the name, and where no target is of Letta.
    type: str
  conversation_id:
    description:
      - The agent's conversation that is meant; its default conversation unless given.
      - The C(conversation_id) of the target's own entry goes before its host variable C(letta_conversation_id), and
        that before this.
      - Only what sends messages makes a conversation. Elsewhere a variable V(new) is ignored, and so is V(standing)
        where the module does not name it.
    type: str
  when_offline:
    description:
      - What to do with a target that is offline. V(skip) reports it, V(fail) counts it as failed, V(wait) waits up to
        O(offline_timeout) for it and then counts it as failed.
    type: str
    choices: [skip, fail, wait]
    default: skip
  offline_timeout:
    description: Seconds to wait for targets that are offline, from the start of the task, with O(when_offline=wait).
    type: float
    default: 300
"""

    # For what asks a device over the relay.
    RELAY = r"""
options:
  relay_timeout:
    description:
      - Seconds in which a Letta device must give its first answer over the relay. After that it is not asked again.
      - Unset, the variable C(letta_relay_timeout) counts, then the environment variable E(LETTA_RELAY_TIMEOUT).
    type: float
    default: 10
"""
