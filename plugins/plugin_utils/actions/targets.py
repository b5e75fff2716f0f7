# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads which environments a task acts on: the current host, or the hosts in `targets`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...module_utils.environment import EnvironmentReference
from ...module_utils.errors import OptionError
from ...module_utils.options import is_blank
from ...module_utils.text import one_line
from ..hosts import check_host, require_environment


@dataclass(frozen=True, slots=True)
class Item:
    """A target as the task names it. given: what its entry says besides its host."""

    host: str
    environment: EnvironmentReference
    given: Mapping[str, Any]


def read_current_host(task_vars: Mapping[str, Any]) -> list[Item]:
    """The play's current host as the only target. Raises FleetError when it is no environment."""
    host = str(task_vars["inventory_hostname"])
    return [Item(host, require_environment(host, task_vars["hostvars"]), {})]


def read_targets(
    targets: Sequence[Any], item_keys: Sequence[str], max_targets: int | None, task_vars: Mapping[str, Any]
) -> list[Item]:
    """The hosts that `targets` names. item_keys: what an entry may say besides its host.

    Raises OptionError for an entry that is no host of the inventory, for an environment that comes twice, and for more
    than `max_targets`; FleetError for a host that is no environment.
    """
    if max_targets is not None and len(targets) > max_targets:
        raise OptionError("max_targets", f"{len(targets)} targets are more than the {max_targets} allowed")
    items: dict[tuple[str, str], Item] = {}
    for index, target in enumerate(targets):
        item = _read_target(f"targets[{index}]", target, item_keys, task_vars["hostvars"])
        first = items.setdefault((item.environment.base_url, item.environment.id), item)
        if first is not item:
            raise OptionError(f"targets[{index}]", f"{item.host!r} is the same environment as {first.host!r}")
    return list(items.values())


def find_listing_url(option: str, environments: Sequence[EnvironmentReference]) -> str | None:
    """The URL that the inventory listed environments from. Raises OptionError for `option` when there are several."""
    urls = sorted({environment.base_url for environment in environments})
    if len(urls) > 1:
        raise OptionError(
            option, f"were listed from several URLs ({', '.join(urls)}); give those of each to a task of its own"
        )
    return urls[0] if urls else None


def _read_target(where: str, target: Any, item_keys: Sequence[str], hostvars: Mapping[str, Any]) -> Item:
    entry = {"host": target} if isinstance(target, str) else target
    if not isinstance(entry, Mapping):
        raise OptionError(where, f"must be a host name or a dictionary with host, got {one_line(repr(target), 60)}")
    known = ("host", *item_keys)
    unknown = [str(key) for key in entry if key not in known]
    if unknown:
        raise OptionError(where, f"has no key {unknown[0]!r}; it may have {', '.join(known)}")
    host = check_host(where, entry.get("host"), hostvars)
    values = {key: value for key, value in entry.items() if key != "host" and not is_blank(value)}
    return Item(host, require_environment(host, hostvars), values)
