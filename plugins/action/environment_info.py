# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin environment_info; its documentation is with the module of that name."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from ..module_utils.environment import Environment, described
from ..module_utils.errors import ApiError, FleetError, OptionError
from ..module_utils.filters import Expressions
from ..module_utils.http_settings import HttpSettings
from ..module_utils.letta import DEFAULT_BASE_URL, Client, Query
from ..module_utils.letta_models import FIELDS, PROVIDER, environments
from ..modules.environment_info import SPEC
from ..plugin_utils.action import EnvironmentAction
from ..plugin_utils.options import given

_OF_A_LIST = ("after", "limit", "all_pages", "online_only", "source", "user_id", "filters")


class ActionModule(EnvironmentAction):
    """Look up environments."""

    SPEC = SPEC
    PROVIDER = PROVIDER
    DEFAULT_BASE_URL = DEFAULT_BASE_URL

    def execute(self, options: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Return `environments`, `has_next_page` and `next_after`."""
        self._check(options)
        filters = Expressions("filters", options["filters"] or [], FIELDS)
        settings = self._settings(options)
        if options["device_id"]:
            found, next_after = asyncio.run(_one(settings, options)), None
        else:
            found, next_after = asyncio.run(self._list(settings, options, filters))
        return {
            "changed": False,
            "environments": [dict(environment.fields) for environment in found],
            "has_next_page": next_after is not None,
            "next_after": next_after,
        }

    def _check(self, options: Mapping[str, Any]) -> None:
        if options["limit"] < 1:
            raise OptionError("limit", f"must be 1 or more, got {options['limit']}")
        if options["device_id"]:
            of_a_list = [name for name in _OF_A_LIST if name in given(self._task.args)]
            if of_a_list:
                raise OptionError(of_a_list[0], "is for a list and cannot go with device_id")
        elif options["missing_ok"]:
            raise OptionError("missing_ok", "needs device_id")

    async def _list(
        self, settings: HttpSettings, options: Mapping[str, Any], filters: Expressions
    ) -> tuple[list[Environment], str | None]:
        query = Query(**{name: options[name] for name in _OF_A_LIST if name != "filters"})
        async with Client(settings) as client:
            listing = await client.list(query)
        found, invalid = environments(listing, settings.base_url, online_only=query.online_only)
        if invalid:
            self._display.warning(f"skipped rows that are {described(invalid)}")
        return [item for item in found if filters.all_hold(item.fields, listing.fetched_at)], listing.next_after


async def _one(settings: HttpSettings, options: Mapping[str, Any]) -> list[Environment]:
    async with Client(settings) as client:
        try:
            return [await client.retrieve(options["device_id"])]
        except ApiError as error:
            if error.status != 404:
                raise
    if options["missing_ok"]:
        return []
    raise FleetError(f"device_id: there is no environment of device {options['device_id']!r}")
