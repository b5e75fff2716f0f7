# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Marks the texts of the API that Ansible may treat as trusted.

Since ansible-core 2.19 a text is templated only when it is trusted, and an untrusted one is exported as
`{"__ansible_unsafe": ...}`, which AWX stores like that. Trust goes to a text only when the whole of it matches a
pattern too narrow for a template, an expression or a call; all else, dictionary keys included, stays untrusted.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from ansible.template import trust_as_template

_PLAIN = re.compile(r"[A-Za-z0-9._:/@+-]+")
# The fields of `trust: identifiers`: ids, mode, OS, versions, status, commands and types.
_IDENTIFIERS = frozenset((
    "id", "device_id", "connection_id", "listener_instance_id", "organization_id", "user_id", "pod_id", "provider",
    "mode", "effective_mode", "os", "version", "node_version", "status", "type", "config_type", "networking_type",
    "supported_commands",
))  # fmt: skip


def trust_own_text(text: str) -> str:
    """A text of the collection itself, marked as trusted."""
    trusted: str = trust_as_template(text)
    return trusted


def mark_trusted(name: str, value: Any, trust: str) -> Any:
    """A row's value with its plain texts marked as trusted. trust: `plain`, `identifiers` or `none`."""
    if trust == "none" or (trust == "identifiers" and name not in _IDENTIFIERS):
        return value
    return _trust_plain_texts(value)


def _trust_plain_texts(value: Any) -> Any:
    if isinstance(value, str):
        return _trust_plain_text(value)
    if isinstance(value, dict):
        return {key: _trust_plain_texts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_trust_plain_texts(item) for item in value]
    return value


# A fleet has few different commands, versions and modes.
@functools.lru_cache(maxsize=1024)
def _trust_plain_text(text: str) -> str:
    return trust_own_text(text) if _PLAIN.fullmatch(text) else text
