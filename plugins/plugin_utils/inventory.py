# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The base of the inventory plugins: from a provider's listing to hosts, groups and variables."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from ansible import constants
from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable

from ..module_utils import _deps
from ..module_utils.arguments import CONNECTION_SPEC
from ..module_utils.environment import CONTRACT, Environment, InvalidRow, Listing, described, digest, iso_utc, short
from ..module_utils.errors import FleetError, OptionError
from ..module_utils.filters import Expressions
from ..module_utils.http_settings import HttpSettings
from .grouping import checked_group_name, group_rows
from .naming import assign, wanted_name
from .options import (
    environment_variable_of,
    forget_blank_environment,
    given,
    key_help,
    layered,
    variable_of,
)
from .trust import marked, own

_HOST_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class _Rules:
    """What hosts are to look like, as the options say."""

    filters: Expressions
    hostnames: Expressions
    variable_prefix: str
    group_prefix: str
    root_group: str


class EnvironmentInventory(BaseInventoryPlugin, Constructable, Cacheable):  # type: ignore[misc]
    """An inventory plugin for one provider.

    A subclass names the provider and says how to list it (`query`, `fetch`, `environments`); everything else, the
    naming, grouping, trust, cache and filter rules, is here.
    """

    PROVIDER: ClassVar[str]
    # Every name that the fields of a row have, in the order of the documentation.
    FIELDS: ClassVar[Sequence[str]]

    def query(self) -> Any:
        """The listing's own parameters, from the plugin's options. Raises OptionError."""
        raise NotImplementedError

    def fetch(self, settings: HttpSettings, query: Any) -> Listing:
        """Ask the API. Raises ApiError; never a part of the listing."""
        raise NotImplementedError

    def environments(self, listing: Listing, base_url: str, query: Any) -> tuple[list[Environment], list[InvalidRow]]:
        """The rows as environments, and those that do not validate."""
        raise NotImplementedError

    def verify_file(self, path: str) -> bool:
        """Any YAML file: what AWX calls an inventory source is up to its user, and the `plugin` key decides."""
        return bool(super().verify_file(path)) and path.endswith((".yml", ".yaml"))

    def set_options(self, task_keys: Any = None, var_options: Any = None, direct: Any = None) -> None:
        """Read the options with blank ones left out; an option that does not exist is an error."""
        known = constants.config.get_configuration_definitions("inventory", self._load_name)
        forget_blank_environment(environment_variable_of(self.PROVIDER, option) for option in CONNECTION_SPEC)
        for name in direct or {}:
            if name not in known and name != "plugin":
                near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)[0]
                raise AnsibleParserError(f"{name}: there is no such option; {near!r} is nearest")
        super().set_options(
            task_keys=task_keys,
            var_options=self._templated(given(var_options or {})),
            direct=self._templated(given(direct or {})),
        )

    def _templated(self, options: dict[str, Any]) -> dict[str, Any]:
        """Connection options may be templates or vault values, in the source and in extra variables."""
        names = {*CONNECTION_SPEC, *(variable_of(self.PROVIDER, option) for option in CONNECTION_SPEC)}
        self.templar.available_variables = self._vars or {}
        return {
            name: self.templar.template(value) if name in names and isinstance(value, str) else value
            for name, value in options.items()
        }

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """List the provider, or take the listing from the cache, and fill the inventory."""
        super().parse(inventory, loader, path, cache)
        try:
            _deps.require()
            self._read_config_data(path)
            settings = self._settings()
            query = self.query()
            rules = self._rules()
            listing = self._listing(settings, query, path, read_cache=cache)
            self._fill(self._selected(listing, settings.base_url, query, rules), rules)
        except FleetError as error:
            raise AnsibleParserError(str(error)) from None

    def _rules(self) -> _Rules:
        """The options that say what hosts look like, checked before anything is asked of the API."""
        group_prefix = self.get_option("group_prefix") or ""
        return _Rules(
            filters=Expressions("filters", self.get_option("filters") or [], self.FIELDS),
            hostnames=Expressions("hostnames", self.get_option("hostnames"), self.FIELDS),
            variable_prefix=self._variable_prefix(),
            group_prefix=checked_group_name("group_prefix", group_prefix) if group_prefix else "",
            root_group=checked_group_name("root_group", self.get_option("root_group")),
        )

    def _settings(self) -> HttpSettings:
        layers: dict[str, dict[str, Any]] = {"Direct": {}, "var": {}, "env": {}, "default": {}}
        for option in CONNECTION_SPEC:
            value, origin = self.get_option_and_origin(option)
            layers[str(origin).partition(":")[0].strip()][option] = value
        options = layered(layers.values())
        return HttpSettings.from_options(options, api_key_help=key_help(self.PROVIDER))

    # The listing and its cache

    def get_cache_key(self, path: str) -> str:
        """The key of a listing: another URL, query or API key never sees it."""
        return f"{super().get_cache_key(path)}_{self._fingerprint}"

    def _listing(self, settings: HttpSettings, query: Any, path: str, *, read_cache: bool) -> Listing:
        self.load_cache_plugin()
        self._fingerprint = digest(repr((settings.base_url, query, settings.api_key)))[:32]
        use_cache = self.get_option("cache")
        key = self.get_cache_key(path)
        if use_cache and read_cache:
            listing = _from_cache(self._cache.get(key))
            if listing is not None:
                return listing
        listing = self.fetch(settings, query)
        if use_cache:
            self._cache[key] = {"fetched_at": iso_utc(listing.fetched_at), "rows": list(listing.rows)}
        return listing

    def _selected(self, listing: Listing, base_url: str, query: Any, rules: _Rules) -> list[Environment]:
        """The environments that validate and that every filter wants."""
        found, invalid = self.environments(listing, base_url, query)
        if invalid and self.get_option("on_invalid") == "fail":
            raise OptionError("on_invalid", f"rows are {described(invalid)}")
        if invalid:
            self.display.warning(f"skipped rows that are {described(invalid)}")
        selected = [item for item in found if rules.filters.all_hold(item.fields, listing.fetched_at)]
        if not selected and self.get_option("fail_on_empty"):
            raise OptionError("fail_on_empty", f"no environment is left of {len(listing.rows)} listed by {base_url}")
        return selected

    # Hosts, groups and variables

    def _fill(self, environments: Sequence[Environment], rules: _Rules) -> None:
        inventory = self.inventory
        rows = [environment.fields for environment in environments]
        dimensions = list(dict.fromkeys(self.get_option("group_by")))
        groups = group_rows(rows, dimensions, rules.group_prefix)
        own_groups = {*groups.members, *groups.parents.values()}
        if rules.root_group in own_groups:
            raise OptionError("root_group", f"{rules.root_group!r} is also the name of a group of group_by")
        named = {self._sanitize_group_name(name) for name in self.get_option("groups")}
        hosts = self._host_names(environments, rules, {*inventory.groups, *own_groups, *named, rules.root_group})

        inventory.add_group(rules.root_group)
        for host, environment in zip(hosts, environments, strict=True):
            inventory.add_host(host, group=rules.root_group)
            for name, value in self._variables(environment, rules.variable_prefix).items():
                inventory.set_variable(host, name, value)
        for group, indices in groups.members.items():
            inventory.add_group(group)
            for index in indices:
                inventory.add_host(hosts[index], group=group)
        for group, parent in groups.parents.items():
            inventory.add_group(parent)
            inventory.add_child(parent, group)
        self._construct(hosts)

    def _host_names(self, environments: Sequence[Environment], rules: _Rules, groups: set[str]) -> list[str]:
        prefix = self.get_option("hostname_prefix") or ""
        wanted = {
            environment.id: wanted_name(rules.hostnames.values(environment.fields), prefix, environment.id)
            for environment in environments
        }
        names = assign(wanted, groups | set(self.inventory.hosts), self.get_option("on_duplicate"))
        return [names[environment.id] for environment in environments]

    def _variables(self, environment: Environment, prefix: str) -> dict[str, Any]:
        trust = self.get_option("trust")
        variables = {prefix + name: marked(name, value, trust) for name, value in environment.fields.items()}
        contract = {name: marked(name, value, trust) for name, value in environment.contract().items()}
        # Not a row's value but ours: the URL that this source was listed from.
        contract["base_url"] = own(environment.base_url)
        variables[CONTRACT] = contract
        variables["ansible_host"] = own(f"{_label(environment.id)}.{self.PROVIDER}.invalid")
        return variables

    def _variable_prefix(self) -> str:
        prefix = str(self.get_option("hostvars_prefix"))
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", prefix):
            raise OptionError("hostvars_prefix", f"must be letters, digits and '_', got {prefix!r}")
        if prefix.casefold().startswith("ansible"):
            raise OptionError("hostvars_prefix", f"must not begin with 'ansible', got {prefix!r}")
        options = {variable_of(self.PROVIDER, option) for option in (*CONNECTION_SPEC, "agent_id", "conversation_id")}
        for name in self.FIELDS:
            if prefix + name in options | {CONTRACT}:
                raise OptionError(
                    "hostvars_prefix", f"{prefix!r} makes {prefix + name!r}, which is an option's variable"
                )
        return prefix

    def _construct(self, hosts: Sequence[str]) -> None:
        """Apply the user's own Jinja (`compose`, `groups`, `keyed_groups`) where there is any."""
        compose, groups, keyed_groups = (self.get_option(name) for name in ("compose", "groups", "keyed_groups"))
        if not (compose or groups or keyed_groups):
            return
        strict = self.get_option("strict")
        for host in hosts:
            variables = self.inventory.get_host(host).get_vars()
            self._set_composite_vars(compose, variables, host, strict)
            self._add_host_to_composed_groups(groups, {}, host, strict)
            self._add_host_to_keyed_groups(keyed_groups, {}, host, strict)
        for host in hosts:
            if host in self.inventory.groups:
                raise OptionError(
                    "keyed_groups",
                    f"makes a group with the name of host {host!r}; give it a prefix, or set hostname_prefix",
                )


def _label(identity: str) -> str:
    """An id as one label of a host name, so that it can be no other name; a hash of it where it cannot be a label."""
    return identity if _HOST_LABEL.fullmatch(identity) else short(identity)


def _from_cache(entry: Any) -> Listing | None:
    """A listing from a cache entry; None for one that is absent or is not ours."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("rows"), list):
        return None
    try:
        return Listing(entry["rows"], datetime.fromisoformat(entry["fetched_at"]))
    except (KeyError, TypeError, ValueError):
        return None
