# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module fleet_report: its documentation, from which the action of its name has its options."""

DOCUMENTATION = r"""
module: fleet_report
short_description: Write a report on a fleet as HTML, JSON and metrics
version_added: 0.1.0
author:
  - fleetops.environments authors (@fleetops)
description:
  - Writes what the inventory knows of the environments, and what the ledger knows of a rollout and of campaigns, to
    files. No server is asked.
  - The environments are counted by provider, status, mode, operating system, version, type of configuration and
    networking, as far as their provider has such things. Environments of Letta and of Qoder may be in one report.
  - Each file is replaced at once, so that no reader sees half of it, and keeps its permissions.
options:
  path:
    description:
      - Write the report to this file as one HTML page, with charts and a table to search, filter and sort. It loads
        nothing from anywhere, and shows names of devices as text, whatever they are.
      - One of O(path), O(json_path) and O(metrics_path) is needed. A new file is for its owner alone.
    type: path
  json_path:
    description: Write the same as JSON to this file. A new file is for its owner alone.
    type: path
  metrics_path:
    description:
      - Write the numbers of the report to this file, whose name ends in C(.prom), for the textfile collector of
        Prometheus' node exporter. A new file may be read by everybody, as the exporter needs.
      - No number is of one environment alone. Of values that devices choose, such as their versions, the 20 most
        frequent have a number of their own, and the rest is counted as V(other).
    type: path
  hosts:
    description:
      - The hosts that the report is about, as names of the inventory. By default those of the play, also where they
        have failed. Hosts that are no environments are left out.
    type: list
    elements: str
  rollout:
    description:
      - A rollout of M(fleetops.environments.rollout) to report on, by name, with its waves on a time line. Targets that
        are none of the report's hosts are shown with it.
    type: str
  campaigns:
    description: Campaigns of M(fleetops.environments.send_message) to report on, by name.
    type: list
    elements: str
    default: []
  ledger:
    description:
      - The ledger's file, or a C(postgresql://) URL as in O(fleetops.environments.send_message#module:ledger).
      - By default E(FLEETOPS_LEDGER), else C(fleetops/ledger.sqlite) below E(XDG_STATE_HOME) or C(~/.local/state). One
        that is given must be there, except in check mode.
    type: str
  allow_empty:
    description: Whether a report on no environment at all is written. Otherwise that is an error, and nothing is.
    type: bool
    default: false
extends_documentation_fragment:
  - fleetops.environments.on_controller
attributes:
  check_mode:
    description: Writes nothing, and says whether a file would change.
notes:
  - In a play of several hosts the task needs C(run_once=true).
  - Where the source of the inventory leaves out the times of the listing and of when environments were last seen
    (C(volatile_variables)), the message and the page say that these were not looked at, and C(fleet.not_looked_at) of
    the JSON names them.
  - The files are written each time, as the time of the report stands in them. That alone does not count as changed.
seealso:
  - module: fleetops.environments.campaign_info
  - module: fleetops.environments.rollout
  - module: fleetops.environments.send_message
"""

EXAMPLES = r"""
- name: Write a page on the environments of the play
  fleetops.environments.fleet_report:
    path: /var/www/html/fleet.html
  run_once: true

- name: Write a page and the same as JSON, with the state of a campaign
  fleetops.environments.fleet_report:
    path: fleet.html
    json_path: fleet.json
    campaigns: [rotate-2026-01]
    ledger: /var/lib/fleetops/ledger.sqlite
  run_once: true

- name: Write a page on a rollout
  fleetops.environments.fleet_report:
    path: rollout.html
    rollout: self_update-0.34.12
  run_once: true

- name: Give the numbers to Prometheus
  fleetops.environments.fleet_report:
    metrics_path: /var/lib/prometheus/node-exporter/fleetops.prom
    hosts: "{{ ansible_play_hosts_all | intersect(groups['letta']) }}"
  run_once: true
"""

RETURN = r"""
msg:
  description: A summary.
  returned: success
  type: str
  sample: "3 environments: 2 online, 1 offline"
total:
  description: How many environments the report is about.
  returned: success
  type: int
  sample: 3
counts:
  description: How many environments have each value, by what they are counted by; the most frequent first.
  returned: success
  type: dict
  sample: {provider: {letta: 3}, status: {online: 2, offline: 1}, mode: {standard: 3}}
files:
  description: Each file that was written, or in check mode would be.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: Its path.
      type: str
      sample: /var/www/html/fleet.html
    changed:
      description: Whether it is new, or anything but the time of the report is another.
      type: bool
      sample: true
"""
