# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin environment_info; its documentation is with the module of that name."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from typing import Any

from ..module_utils.environment import Environment, describe_invalid
from ..module_utils.errors import ApiError, FleetError, OptionError
from ..module_utils.filters import Expressions
from ..module_utils.http.settings import HttpSettings
from ..module_utils.options import CONNECTION_SPEC, drop_blanks
from ..module_utils.providers.base import Provider
from ..module_utils.providers.registry import find_provider
from ..modules.environment_info import SPEC
from ..plugin_utils.actions.base import EnvironmentAction

_OF_ALL = frozenset({"provider", "missing_ok", "filters", *CONNECTION_SPEC})


class ActionModule(EnvironmentAction):
    """Look up environments."""

    SPEC = SPEC

    def execute(self, options: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Return `environments`, `has_next_page` and `next_after`."""
        provider = find_provider(options["provider"])
        self._check(provider, options)
        filters = Expressions("filters", options["filters"] or [], provider.fields)
        settings = self._settings(provider, task_vars)
        if options[provider.looked_up_by]:
            found, next_after = asyncio.run(_retrieve(provider, settings, options)), None
        else:
            found, next_after = asyncio.run(self._list(provider, settings, options, filters))
        return {
            "changed": False,
            "environments": [dict(environment.fields) for environment in found],
            "has_next_page": next_after is not None,
            "next_after": next_after,
        }

    def _check(self, provider: Provider, options: Mapping[str, Any]) -> None:
        of_a_list = _read_parameters(provider)
        own = (provider.looked_up_by, *of_a_list)
        foreign = next((name for name in drop_blanks(self._task.args) if name not in _OF_ALL.union(own)), None)
        if foreign:
            raise OptionError(foreign, f"is not for environments of {provider.name}, which take {', '.join(own)}")
        if options["limit"] < 1:
            raise OptionError("limit", f"must be 1 or more, got {options['limit']}")
        if options[provider.looked_up_by]:
            alone = next((name for name in drop_blanks(self._task.args) if name in (*of_a_list, "filters")), None)
            if alone:
                raise OptionError(alone, f"is for a list and cannot go with {provider.looked_up_by}")
        elif options["missing_ok"]:
            raise OptionError("missing_ok", f"needs {provider.looked_up_by}")

    async def _list(
        self, provider: Provider, settings: HttpSettings, options: Mapping[str, Any], filters: Expressions
    ) -> tuple[list[Environment], str | None]:
        query = provider.query(**{name: options[name] for name in _read_parameters(provider)})
        async with provider.client(settings) as client:
            listing = await client.list(query)
        found, invalid = provider.environments(listing, settings.base_url, query)
        if invalid:
            self._display.warning(f"skipped rows that are {describe_invalid(invalid)}")
        return [item for item in found if filters.all_hold(item.fields, listing.fetched_at)], listing.next_after


def _read_parameters(provider: Provider) -> list[str]:
    """The options that say what to list."""
    return [name for name in (field.name for field in dataclasses.fields(provider.query)) if name in SPEC]


async def _retrieve(provider: Provider, settings: HttpSettings, options: Mapping[str, Any]) -> list[Environment]:
    identity = options[provider.looked_up_by]
    async with provider.client(settings) as client:
        try:
            return [await client.retrieve(identity)]
        except ApiError as error:
            if error.status != 404:
                raise
    if options["missing_ok"]:
        return []
    raise FleetError(f"{provider.looked_up_by}: there is no environment {identity!r}")
