# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter approval_answers: which answers some tool calls that wait get by their tools' names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils.fleet.approvals import decide_approvals
from ..module_utils.text import one_line

DOCUMENTATION = r"""
name: approval_answers
short_description: Answer tool calls that wait by the names of their tools
version_added: 0.1.0
author:
  - fleetops.environments authors (@fleetops)
description:
  - Takes what M(fleetops.environments.approval_info) returned in C(targets), and returns for each host the C(approvals)
    with which M(fleetops.environments.send_message) answers it. Hosts without an answer are left out.
  - A tool call is answered only if O(allow) or O(deny) names its tool. What both name is denied.
  - What the tool is to be called with makes no difference.
options:
  _input:
    description: The C(targets) of M(fleetops.environments.approval_info).
    type: list
    elements: dict
    required: true
  allow:
    description:
      - Names of tools whose calls are allowed, in which V(*), V(?) and V([...]) mean what they mean in a shell.
    type: list
    elements: str
    default: []
  deny:
    description: Names of tools whose calls are denied, in the same form.
    type: list
    elements: str
    default: []
  reason:
    description: Why, for the agent.
    type: str
"""

EXAMPLES = r"""
- name: See what waits
  fleetops.environments.approval_info:
    targets: "{{ ansible_play_batch }}"
    agent_id: agent-1234
  run_once: true
  register: waiting

- name: Let agents read, and nothing else
  fleetops.environments.send_message:
    agent_id: agent-1234
    approvals: "{{ answers[inventory_hostname] }}"
  vars:
    answers: "{{ waiting.targets | fleetops.environments.approval_answers(allow=['Read', 'Glob'], deny=['*']) }}"
  when: inventory_hostname in answers
"""

RETURN = r"""
_value:
  description: For each host the answers, as C(tool_call_id), C(approve) and C(reason).
  type: dict
"""


def approval_answers(
    targets: Sequence[Mapping[str, Any]], allow: Any = (), deny: Any = (), reason: str | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Return the answers of each host that gets any."""
    for name, patterns in (("allow", allow), ("deny", deny)):
        # A text would be taken for a list of its letters, and the `*` in it for everything.
        if not isinstance(patterns, (list, tuple)) or not all(isinstance(pattern, str) for pattern in patterns):
            raise AnsibleFilterError(f"{name}: must be a list of names of tools, got {one_line(repr(patterns), 60)}")
    answers = {
        str(target["host"]): decide_approvals(target["pending_approvals"], allow, deny, reason)
        for target in targets
    }  # fmt: skip
    return {host: given for host, given in answers.items() if given}


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"approval_answers": approval_answers}
