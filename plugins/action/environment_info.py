# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action environment_info: look up environments."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ..module_utils.environment import DROPPED, Environment, check_dropped, note_invalid
from ..module_utils.errors import FleetError, OptionError
from ..module_utils.filters import Expressions
from ..module_utils.http.settings import HttpSettings
from ..module_utils.options import CONNECTION_SPEC, drop_blanks
from ..module_utils.providers.base import Provider, none_if_missing
from ..module_utils.providers.registry import fetch_rows, find_provider
from ..plugin_utils.actions.base import EnvironmentAction

_OF_ALL = frozenset({"provider", "missing_ok", "name", "filters", "max_dropped_rows", *CONNECTION_SPEC})


class ActionModule(EnvironmentAction):
    def execute(self, options: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        provider = find_provider(options["provider"])
        of_a_list = [field.name for field in dataclasses.fields(provider.query) if field.name in self.SPEC]
        self._check(provider, of_a_list, options)
        filters = Expressions("filters", options["filters"] or [], provider.fields)
        settings = self._settings(provider)
        if options[provider.looked_up_by]:
            selected, dropped, next_after = self._wait_for(_retrieve(provider, settings, options)), 0, None
        else:
            query = provider.query(**{name: options[name] for name in of_a_list})
            listing = self._wait_for(fetch_rows(provider, settings, query))
            found, invalid = provider.environments(listing, settings.base_url, query)
            dropped = check_dropped(invalid, len(listing.rows), options["max_dropped_rows"])
            settings.notes.extend(note_invalid(invalid))
            selected = [item for item in found if filters.all_hold(item.fields, listing.fetched_at)]
            next_after = listing.next_after
            if options["name"] is not None:
                selected = [item for item in selected if item.fields.get(provider.called) == options["name"]]
                if not selected and not options["missing_ok"]:
                    raise FleetError(f"name: no environment that was listed is called {options['name']!r}")
        return {
            "changed": False,
            "environments": [environment.row() for environment in selected],
            DROPPED: dropped,
            "has_next_page": next_after is not None,
            "next_after": next_after,
        }

    def _check(self, provider: Provider, of_a_list: Sequence[str], options: Mapping[str, Any]) -> None:
        given = drop_blanks(self._task.args)
        own = (provider.looked_up_by, *of_a_list)
        foreign = next((name for name in given if name not in _OF_ALL.union(own)), None)
        if foreign:
            raise OptionError(foreign, f"is not for environments of {provider.name}, which take {', '.join(own)}")
        if options[provider.looked_up_by]:
            alone = next((name for name in given if name in (*of_a_list, "name", "filters", "max_dropped_rows")), None)
            if alone:
                raise OptionError(alone, f"is for a list and cannot go with {provider.looked_up_by}")
        elif options["missing_ok"] and options["name"] is None:
            raise OptionError("missing_ok", f"needs {provider.looked_up_by} or name")


async def _retrieve(provider: Provider, settings: HttpSettings, options: Mapping[str, Any]) -> list[Environment]:
    identity = options[provider.looked_up_by]
    async with provider.client(settings) as client:
        found = await none_if_missing(client.retrieve(identity))
    if found is None and not options["missing_ok"]:
        raise FleetError(f"{provider.looked_up_by}: there is no environment {identity!r}")
    return [found] if found is not None else []
