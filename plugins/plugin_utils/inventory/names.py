# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of hosts and of their variables: usable, unique and harmless, whatever a device calls itself."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ansible import constants

from ...module_utils.environment import CONTRACT, Environment
from ...module_utils.errors import OptionError
from ...module_utils.options import CONNECTION_SPEC
from ...module_utils.providers.base import Provider
from ...module_utils.text import add_hash, one_line, shorten

MAX_LENGTH = 255
# Names that have a meaning for Ansible.
RESERVED = frozenset(name.casefold() for name in constants.LOCALHOST) | {"all", "ungrouped", "_meta"}

_HOST_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")


def to_host_name(value: Any) -> str | None:
    """A value as a host name of letters, digits, `.`, `_` and `-`; None without any letter or digit."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    # A leading "-" is a command-line option; a leading "." hides a file or leads out of a directory.
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", str(value)).lstrip("-.")[:MAX_LENGTH]
    return name if re.search(r"[A-Za-z0-9]", name) else None


def choose_name(values: Iterable[Any], prefix: str, environment_id: str) -> str:
    """The first value that can be a host name, after the prefix; a hash of the id where none can."""
    names = (name for name in (to_host_name(value) for value in values) if name is not None)
    return (to_host_name(prefix) or "") + next(names, f"environment-{shorten(environment_id)}")


def assign_names(wanted: Mapping[str, str], forbidden: Collection[str], on_duplicate: str) -> dict[str, str]:
    """A host name for each environment id, no two alike and none forbidden.

    wanted: environment id → the name it would have alone.
    forbidden: names of groups and of hosts that other sources gave.
    on_duplicate: `suffix` gives every environment of a colliding set a short hash of its id, so that no environment
        can take the name of another one; `fail` raises OptionError.
    """
    counts = Counter(wanted.values())
    free = {
        identity: name
        for identity, name in wanted.items()
        if counts[name] == 1 and _is_free(name, forbidden) and len(name) <= MAX_LENGTH
    }
    colliding = sorted(wanted.keys() - free.keys())
    if colliding and on_duplicate == "fail":
        listed = "; ".join(f"{one_line(wanted[identity], 60)} ({one_line(identity, 60)})" for identity in colliding[:5])
        raise OptionError("on_duplicate", f"host names that are taken or come twice, with their environments: {listed}")
    used = set(free.values())
    for identity in colliding:
        candidates = add_hash(wanted[identity], identity, separator="-", longest=MAX_LENGTH)
        free[identity] = next(name for name in candidates if name not in used and _is_free(name, forbidden))
        used.add(free[identity])
    return free


def _is_free(name: str, forbidden: Collection[str]) -> bool:
    return name not in forbidden and name.casefold() not in RESERVED


def make_host_address(environment: Environment) -> str:
    """A name that leads nowhere, for connections that look one up: the id as one label of it, or a hash of the id."""
    identity = environment.id
    label = identity if _HOST_LABEL.fullmatch(identity) else shorten(identity)
    return f"{label}.{environment.provider}.invalid"


def check_variable_prefix(prefix: str, provider: Provider) -> str:
    """What the variables of the fields may begin with. Raises OptionError for what would replace other variables."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", prefix):
        raise OptionError("hostvars_prefix", f"must be letters, digits and '_', got {prefix!r}")
    if prefix.casefold().startswith("ansible"):
        raise OptionError("hostvars_prefix", f"must not begin with 'ansible', got {prefix!r}")
    options = (*CONNECTION_SPEC, provider.agent, provider.conversation)
    taken = {CONTRACT, *map(provider.variable_of, options)}
    for name in provider.fields:
        if prefix + name in taken:
            raise OptionError("hostvars_prefix", f"{prefix!r} makes {prefix + name!r}, which is an option's variable")
    return prefix
