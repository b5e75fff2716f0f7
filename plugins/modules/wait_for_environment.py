# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module wait_for_environment: its documentation, from which the action of its name has its options."""

DOCUMENTATION = r"""
module: wait_for_environment
short_description: Wait until Letta environments are online, at a version or in a mode
version_added: 0.1.0
author:
  - fleetops.environments authors (@fleetops)
description:
  - Waits until the play's current host, or in one task all of O(targets), is as O(state), O(version) and O(mode) say,
    all of which must hold at once.
  - It only looks, and nothing is ever changed. What cannot be looked up for the moment is looked up again.
  - On a terminal it shows between two looks how it stands.
options:
  state:
    description:
      - V(online) for an environment that has a connection and a heartbeat younger than 120 seconds, V(offline) for one
        that has not. One that was removed is offline, but has no version and no mode.
    type: str
    choices: [online, offline]
    default: online
  version:
    description: The version of Letta Code, a semantic version. A newer one will do.
    type: str
  mode:
    description:
      - The permission mode. Modes compare by what they mean, V(default) being V(standard), and V(bypassPermissions)
        and V(fullAccess) being V(unrestricted).
    type: str
    choices: [standard, acceptEdits, unrestricted, strict, default, bypassPermissions, fullAccess, plan]
  steady_for:
    description:
      - Seconds for which all of it must have held, on one connection. One that reconnects, or dies and comes back,
        starts anew.
      - A device whose process ends is offline at once. One that loses power or its network is offline 120 seconds
        after its last heartbeat, so only a longer time finds that out.
      - Must not be more than O(wait_timeout).
    type: float
    default: 0
  wait_timeout:
    description:
      - Seconds to wait, from the start of the task. A target that is not as wanted by then has failed, and so has one
        that is given up since more than O(max_failures) failed before.
      - The last look is made when the time is over, so V(0) looks once.
    type: float
    default: 300
  poll_interval:
    description: Seconds between two looks. The first pauses are shorter, doubling from 1 second.
    type: float
    default: 15
  targets:
    description:
      - The hosts to wait for in one task, as a list of inventory names.
      - In a play of several hosts the task needs C(run_once=true). C(ansible_play_batch) is the list that heeds
        C(--limit); C(groups[...]) does not.
      - Without it the task waits for the play's current host.
  concurrency:
    description: How many targets may be looked up at a time. With O(targets) only.
  rate:
    description: How many targets may be looked up in a second. No limit by default. With O(targets) only.
  max_failures:
    description:
      - How many targets may fail, as a count or a percentage of all, before the task fails. With O(targets) only.
      - A target that is not as wanted in time is a failure like one that cannot be looked up for good.
extends_documentation_fragment:
  - fleetops.environments.letta
  - fleetops.environments.targets
  - fleetops.environments.on_controller
attributes:
  check_mode:
    description: Looks once, and says of a target that is not as wanted what it would wait for.
seealso:
  - module: fleetops.environments.self_update
  - module: fleetops.environments.environment_info
"""

EXAMPLES = r"""
- name: Wait until every device of the play is online
  fleetops.environments.wait_for_environment:
    targets: "{{ ansible_play_batch }}"
    wait_timeout: 600
    max_failures: 5%
    retry_file: missing.txt
  run_once: true

- name: Wait until the current host runs a version in which nothing is done without asking
  fleetops.environments.wait_for_environment:
    version: 0.34.12
    mode: standard

- name: Wait until every device has been there for five minutes without a break
  fleetops.environments.wait_for_environment:
    targets: "{{ ansible_play_batch }}"
    steady_for: 300
    wait_timeout: 900
  run_once: true

- name: Wait until the current host has gone
  fleetops.environments.wait_for_environment:
    state: offline
    wait_timeout: 60
    poll_interval: 5
"""

RETURN = r"""
msg:
  description: A summary, and up to 20 of the targets that failed.
  returned: always
  type: str
  sample: "3 targets: 3 ok"
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
        - V(ok) for a target that is as wanted, V(failed) for one that is not after O(wait_timeout), V(not_attempted)
          for one that was not looked at since too many failed, and in check mode V(skipped) for one to wait for.
      type: str
      sample: ok
    online:
      description: Whether it was online at the last look.
      type: bool
      sample: true
    version:
      description: The version of Letta Code that was last known.
      type: str
      sample: 0.34.12
    mode:
      description: The mode that was last known, in the device's own word.
      type: str
      sample: standard
    connection_id:
      description: Its connection at the last look, none while it is offline.
      type: str
      sample: connection-7
    last_seen_at:
      description: When the API last saw it, as of the last look.
      type: str
      sample: "2026-01-31T12:00:00.000Z"
    elapsed:
      description: Seconds from the start of the waiting to the last look.
      type: float
      sample: 7.02
    steady:
      description: Seconds, up to the last look, for which it had been as wanted on one connection.
      type: float
      sample: 300.4
    duration:
      description: Seconds that the look-ups took.
      type: float
      sample: 0.05
    reason:
      description: In check mode, what it would wait for.
      type: str
      sample: "would wait until online: it is offline, version 0.34.12, mode standard"
    error:
      description: What went wrong, as C(code) and C(message).
      type: dict
      sample: {code: timeout, message: "not online after 300 s: it is offline, version 0.34.12, mode standard"}
counts:
  description: How many targets ended in each status.
  returned: with O(targets)
  type: dict
  sample: {ok: 3, skipped: 0, not_attempted: 0, failed: 0, unknown: 0}
max_failures_exceeded:
  description: Whether more targets failed than O(max_failures) allows, which is when the task fails.
  returned: with O(targets)
  type: bool
  sample: false
failed_hosts:
  description: The hosts that failed.
  returned: with O(targets)
  type: list
  elements: str
  sample: []
elapsed:
  description: Without O(targets) the keys of RV(targets) are returned at the top; this is one of them.
  returned: without O(targets)
  type: float
  sample: 7.02
"""
