# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of hosts and of their variables: usable, unique and harmless, whatever a device calls itself."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ansible import constants

from ...module_utils.environment import CONTRACT, Environment
from ...module_utils.errors import OptionError
from ...module_utils.options import SETTINGS_SPEC
from ...module_utils.providers.base import Provider
from ...module_utils.text import add_hash, join_first, one_line, shorten

MAX_LENGTH = 255
# How many names a message has, where devices may have made up thousands.
MOST_NAMES = 100
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


def assign_names(
    wanted: Mapping[str, str], forbidden: Collection[str], on_duplicate: str, keepers: Collection[str] = ()
) -> dict[str, str]:
    """A host name for each environment id, no two alike and none forbidden.

    wanted: environment id → the name it would have alone.
    forbidden: names of groups and of hosts that other sources gave.
    on_duplicate: `fail` raises OptionError. With every other value the environments of a colliding set get a short
        hash of their ids, so that no environment can take the name of another one.
    keepers: ids of environments that keep a name which others want too.
    """
    counts = Counter(wanted.values())
    free = {
        identity: name
        for identity, name in wanted.items()
        if (counts[name] == 1 or identity in keepers) and _is_free(name, forbidden) and len(name) <= MAX_LENGTH
    }
    colliding = wanted.keys() - free.keys()
    if colliding and on_duplicate == "fail":
        raise OptionError("on_duplicate", describe_rivals(wanted, colliding))
    used = {*forbidden, *free.values()}
    for identity in sorted(colliding):
        free[identity] = find_free_name(wanted[identity], identity, used)
        used.add(free[identity])
    return free


def find_free_name(name: str, environment_id: str, taken: Collection[str]) -> str:
    """The name with the shortest hash of the id that makes it free. Raises OptionError where every one is taken."""
    for candidate in add_hash(name, environment_id, separator="-", longest=MAX_LENGTH):
        if _is_free(candidate, taken):
            return candidate
    raise OptionError(
        "hostname_prefix",
        f"all names for the environment {one_line(environment_id, 60)} are taken, as many sources list it; give each "
        "source its own",
    )


def find_keepers(wanted: Mapping[str, str], ranks: Mapping[str, Any]) -> set[str]:
    """The environments that keep a name which several want: for each name the only one with the lowest rank.

    wanted: as for `assign_names`. ranks: environment id → its rank, None for one that can keep no name.
    """
    ranked: dict[str, list[tuple[Any, str]]] = defaultdict(list)
    for identity, name in wanted.items():
        if ranks[identity] is not None:
            ranked[name].append((ranks[identity], identity))
    in_order = map(sorted, ranked.values())
    return {found[0][1] for found in in_order if len(found) == 1 or found[0][0] < found[1][0]}


def describe_rivals(wanted: Mapping[str, str], rivals: Collection[str], most: int = MOST_NAMES) -> str:
    """Names that are taken or come twice, each with the ids of its environments, as one line, in the order of `wanted`.

    rivals: the ids to describe. most: how many names. Each has its first five ids.
    """
    ids: dict[str, list[str]] = defaultdict(list)
    for identity, name in wanted.items():
        if identity in rivals:
            ids[name].append(one_line(identity, 60))
    listed = [f"{one_line(name, 60)} ({join_first(found, 5, ', ')})" for name, found in ids.items()]
    return f"host names that are taken or come twice, with their environments: {join_first(listed, most)}"


def _is_free(name: str, forbidden: Collection[str]) -> bool:
    return name not in forbidden and name.casefold() not in RESERVED


def make_host_address(environment: Environment, advice: str = "") -> str:
    """A name that leads nowhere, for connections that look one up: the id as one label of it, or a hash of the id.

    advice: labels before it, each with a dot, for the user of OpenSSH, whose error shows 100 characters of the name.
    """
    identity = environment.id
    label = identity if _HOST_LABEL.fullmatch(identity) else shorten(identity)
    return f"{advice}{label}.{environment.provider}.invalid"


def check_variable_prefix(prefix: str, provider: Provider) -> str:
    """What the variables of the fields may begin with. Raises OptionError for what would replace other variables."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", prefix):
        raise OptionError("hostvars_prefix", f"must be letters, digits and '_', got {prefix!r}")
    if prefix.casefold().startswith("ansible"):
        raise OptionError("hostvars_prefix", f"must not begin with 'ansible', got {prefix!r}")
    options = (*SETTINGS_SPEC, provider.agent, provider.conversation)
    taken = {CONTRACT, *map(provider.variable_of, options)}
    for name in provider.fields:
        if prefix + name in taken:
            raise OptionError("hostvars_prefix", f"{prefix!r} makes {prefix + name!r}, which is an option's variable")
    return prefix
