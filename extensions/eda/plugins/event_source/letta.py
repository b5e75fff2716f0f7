# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Event source: what changes in a fleet of Letta environments."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# Event-Driven Ansible runs this file without Ansible's own way to find collections.
_ROOT = str(Path(__file__).absolute().parents[7])
if _ROOT not in sys.path:
    sys.path.append(_ROOT)

from ansible_collections.fleetops.environments.plugins.module_utils import _deps
from ansible_collections.fleetops.environments.plugins.module_utils.environment import (
    Environment,
    check_dropped,
    note_invalid,
)
from ansible_collections.fleetops.environments.plugins.module_utils.errors import FleetError, OptionError
from ansible_collections.fleetops.environments.plugins.module_utils.fleet import changes
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.changes import ReportedStates
from ansible_collections.fleetops.environments.plugins.module_utils.options import (
    CONNECTION_SPEC,
    ROWS_SPEC,
    convert_value,
    drop_blanks,
    parse_share,
)
from ansible_collections.fleetops.environments.plugins.module_utils.providers.base import connection_settings
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.client import Query
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.models import get_effective_mode
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.provider import PROVIDER
from ansible_collections.fleetops.environments.plugins.module_utils.text import one_line

DOCUMENTATION = r"""
---
short_description: What changes in a fleet of Letta environments
description:
  - Lists the environments every so often, and has an event for each difference to what was reported before. An event is
    C(letta), a dictionary with C(type), C(provider), the device's C(id), C(device_id), C(connection_id),
    C(connection_name), C(mode), C(effective_mode), C(os), C(version) and C(status), what it was C(previous)ly, and the
    time C(at), by the server's clock.
  - A device that goes offline and comes back between two listings has no event, and one that is updated twice has one;
    what counts is the net change.
  - Texts have only letters, digits and C(._:/@+-), since extra variables of a playbook are templates; all else is C(_).
  - An error of the API or of the network is logged, and the next listing makes up for the one that failed.
options:
  interval:
    description: Seconds between two listings.
    type: float
    default: 60
  jitter:
    description: Seconds that are added to the interval at most, by chance.
    type: float
    default: 10
  state_file:
    description:
      - A file that keeps what was reported. With it, what changed while nobody listened is reported at the next start.
        After a crash the events of one device may come once more; an event that ansible-rulebook had taken and not yet
        acted on is lost with it.
      - Without it, each start begins with the fleet as it is then.
    type: str
  forget_after:
    description:
      - Seconds after which a device that is missing from the list is forgotten, so that the state does not keep every
        container that ever was. It is reported as C(offline) when it is first missing, and as a C(new_device) where it
        comes back later than this.
      - A device that is listed is never forgotten, however long it is offline.
    type: float
    default: 86400
  max_dropped_rows:
    description:
      - How many rows of a listing may have no id that can be used, as a count or as a percentage of all rows. Above it
        the listing counts as failed, and there are no events. Up to it such a device counts as missing from the list.
    type: str
    default: 10%
  types:
    description: The events that are wanted.
    type: list
    elements: str
    choices: [new_device, online, offline, version, mode]
    default: [new_device, online, offline, version, mode]
  base_url:
    description: Where the API is, by default E(LETTA_BASE_URL), then V(https://api.letta.com).
    type: str
  api_key:
    description: The API key, by default E(LETTA_API_KEY).
    type: str
  api_key_file:
    description: A file with nothing but the key in it, by default E(LETTA_API_KEY_FILE).
    type: str
  allow_http:
    description:
      - Whether the key may be sent in clear text, over C(http://) to another machine, by default E(LETTA_ALLOW_HTTP).
    type: bool
    default: false
notes:
  - The other options of a connection (timeout, retries, deadline, validate_certs, ca_path, client_cert and client_key)
    are as in the inventory plugin, with its environment variables.
"""

EXAMPLES = r"""
- fleetops.environments.letta:
    interval: 60
    state_file: /var/lib/fleetops/events.sqlite
    types: [online, version]
"""

logger = logging.getLogger(__name__)


async def main(queue: asyncio.Queue[Any], args: dict[str, Any]) -> None:
    """Put `{"letta": event}` on the queue for each change. Raises FleetError for an option that cannot be used."""
    _deps.require_packages()
    options = _Options(args)
    with ReportedStates(options.state_file, options.settings.base_url) as state:
        while True:
            try:
                await _report(queue, options, state)
            except FleetError as error:
                logger.warning("the fleet was not listed: %s", error)
            except Exception as error:  # noqa: BLE001 - whatever is raised here ends the whole activation
                logger.warning("the fleet was not reported: %s: %s", type(error).__name__, one_line(error))
            await asyncio.sleep(options.interval + random.uniform(0, options.jitter))  # noqa: S311 - no secret


class _Options:
    """The source's options. Raises OptionError for those that cannot be used."""

    def __init__(self, args: Mapping[str, Any]) -> None:
        own = drop_blanks(args)
        known = ("interval", "jitter", "state_file", "forget_after", "types", *ROWS_SPEC, *CONNECTION_SPEC)
        unknown = next((name for name in own if name not in known), None)
        if unknown:
            raise OptionError(unknown, f"there is no such option; there are {', '.join(known)}")
        self.interval = _read_seconds("interval", own.get("interval", 60), least=1)
        self.jitter = _read_seconds("jitter", own.get("jitter", 10), least=0)
        self.forget_after = _read_seconds("forget_after", own.get("forget_after", 86400), least=0, most=10**9)
        self.state_file = convert_value("state_file", own.get("state_file"), "path")
        self.max_dropped_rows = str(own.get("max_dropped_rows", ROWS_SPEC["max_dropped_rows"]["default"]))
        parse_share("max_dropped_rows", self.max_dropped_rows, 0)
        self.types = own.get("types", list(changes.TYPES))
        if not isinstance(self.types, list) or any(item not in changes.TYPES for item in self.types):
            raise OptionError("types", f"must be a list of {', '.join(changes.TYPES)}, got {self.types!r}")
        self.settings = connection_settings(PROVIDER, own)
        self._warned: Sequence[str] = ()

    def warn(self, notes: Sequence[str]) -> None:
        """Log what the user should know of a listing, unless it was so of the one before."""
        for note in notes:
            if note not in self._warned:
                logger.warning("%s", note)
        self._warned = notes


def _read_seconds(name: str, value: Any, *, least: float, most: float = 86400) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not least <= number <= most:
        raise OptionError(name, f"must be between {least} and {most} seconds, got {value!r}")
    return number


async def _report(queue: asyncio.Queue[Any], options: _Options, state: ReportedStates) -> None:
    """List the fleet once and queue what has changed, device by device."""
    async with PROVIDER.client(options.settings) as client:
        listing = await client.list(Query())
    listed, invalid = PROVIDER.environments(listing, options.settings.base_url, Query())
    # Devices whose rows are dropped would count as offline.
    check_dropped(invalid, len(listing.rows), options.max_dropped_rows)
    options.warn([*options.settings.notes, *note_invalid(invalid)])
    reported = state.reported()
    if reported is None:
        # The fleet of the very first start is no change.
        _record(state, {environment.id: changes.ReportedState.of(environment) for environment in listed})
        return
    for environment in listed:
        before = reported.get(environment.id)
        await _queue(queue, options, changes.find_events(before, environment, listing.fetched_at))
        after = changes.ReportedState.of(environment)
        if after != before:
            _record(state, {environment.id: after})
    rows = [*(environment.id for environment in listed), *(str(row.id) for row in invalid)]
    for id_, after in changes.find_gone(reported, rows).items():
        fields = {"id": id_, "mode": after.mode, "effective_mode": get_effective_mode(after.mode)}
        missing = Environment("letta", id_, id_, None, "", "offline", None, fields)
        await _queue(queue, options, changes.find_events(reported[id_], missing, listing.fetched_at))
        _record(state, {id_: after})
    with _go_on_unrecorded():
        state.forget_missing(reported.keys() - set(rows), listing.fetched_at, options.forget_after)


def _record(state: ReportedStates, devices: Mapping[str, changes.ReportedState]) -> None:
    with _go_on_unrecorded():
        state.record(devices)


@contextlib.contextmanager
def _go_on_unrecorded() -> Iterator[None]:
    """Warn of what cannot be recorded. On a full disk the source goes on without the record."""
    try:
        yield
    except OptionError as error:
        logger.warning("after a restart events may come once more: %s", error)


async def _queue(queue: asyncio.Queue[Any], options: _Options, events: list[dict[str, Any]]) -> None:
    for event in events:
        if event["type"] in options.types:
            await queue.put({"letta": event})
