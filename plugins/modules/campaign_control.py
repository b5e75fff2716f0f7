# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module campaign_control: its documentation, from which the action of its name has its options."""

DOCUMENTATION = r"""
module: campaign_control
short_description: Pause, cancel or go on with a campaign
version_added: 0.1.0
author:
  - fleetops.environments authors (@fleetops)
description:
  - Sets the state of a campaign of M(fleetops.environments.send_message) in its ledger. Runs look at it each second,
    those under way too, and start nothing more; what they are sending already is still finished.
  - A run that is stopped does not fail, and what was delivered stays delivered.
options:
  campaign:
    description: The name of the campaign. It may be one that nobody has begun.
    type: str
    required: true
  state:
    description:
      - V(active) lets runs deliver. V(paused) leaves targets V(not_attempted), for a later run. V(cancelled) has them
        V(skipped). Each may be set after each.
    type: str
    choices: [active, paused, cancelled]
    required: true
  ledger:
    description:
      - The ledger's file, or a C(postgresql://) URL as in O(fleetops.environments.send_message#module:ledger).
        It is made where there is none.
      - By default E(FLEETOPS_LEDGER), else C(fleetops/ledger.sqlite) below E(XDG_STATE_HOME) or C(~/.local/state).
    type: str
extends_documentation_fragment:
  - fleetops.environments.on_controller
attributes:
  check_mode:
    description: Sets nothing.
seealso:
  - module: fleetops.environments.campaign_info
  - module: fleetops.environments.send_message
"""

EXAMPLES = r"""
- name: Let nobody else have this message for now
  fleetops.environments.campaign_control:
    campaign: rotate-2026-01
    state: paused
    ledger: /var/lib/fleetops/ledger.sqlite
  run_once: true
"""

RETURN = r"""
previous_state:
  description: The state before.
  returned: success
  type: str
  sample: active
"""
