# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The base of the inventory plugins: options, then the listing, then hosts, groups and variables."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date
from pathlib import Path
from typing import Any, ClassVar

import yaml
from ansible import constants
from ansible.errors import AnsibleParserError
from ansible.module_utils.common.yaml import SafeLoader
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable

from ...module_utils.environment import CONTRACT, DROPPED, Environment, Listing, check_dropped, note_invalid
from ...module_utils.errors import FleetError, OptionError
from ...module_utils.filters import Expressions
from ...module_utils.http.settings import HttpSettings
from ...module_utils.options import convert_value, drop_blanks
from ...module_utils.providers.base import Provider, connection_settings
from ...module_utils.providers.registry import fetch_listing, list_providers
from ...module_utils.text import find_nearest, hash_text
from ..options import check_numbers, explain_templates, forget_blank_environment, raise_as
from . import names as host_names
from .groups import Dimension, check_group_name, group_rows, reads_as_group
from .source_cache import SourceCache
from .trust import mark_trusted, trust_own_text

_COLLECTION = "fleetops.environments"
# Options whose texts are expressions, which core renders for each host.
_EXPRESSIONS = {"compose", "groups", "keyed_groups"}
# What a user should do where something tries to log in to a host, as labels of its address.
_NO_LOGIN = "this-host-has-no-login.write-gather_facts-false."


@dataclass(frozen=True, slots=True)
class _Rules:
    """The options about hosts: which there are, and their names, groups and variables."""

    filters: Expressions
    hostnames: Expressions
    variable_prefix: str
    dimensions: Sequence[Dimension]
    group_prefix: str
    root_group: str


@dataclass(frozen=True, slots=True)
class _Host:
    """An environment under its name in the inventory."""

    name: str
    environment: Environment
    groups: Sequence[str]


class EnvironmentInventory(BaseInventoryPlugin, Constructable, Cacheable):  # type: ignore[misc]
    """An inventory plugin for one provider.

    A subclass has the provider and its dimensions. The rules for names, groups, trust, the cache and filters are the
    same for all providers.
    """

    PROVIDER: ClassVar[Provider]
    # The values of `group_by`, in the order of the documentation.
    DIMENSIONS: ClassVar[Sequence[Dimension]]

    def query(self) -> Any:
        """The listing's own parameters, from the plugin's options of the same names. Raises OptionError."""
        names = (field.name for field in fields(self.PROVIDER.query))
        return self.PROVIDER.query(**{name: self.get_option(name) for name in names if self.has_option(name)})

    def verify_file(self, path: str) -> bool:
        """Whether a file is a source for this plugin. The `plugin` key decides: users of AWX choose the file name.

        A file without the key is for the first enabled plugin of this collection, so that only one reports an error.
        The key of a vaulted file is known only when it is parsed.
        """
        if not super().verify_file(path) or not path.endswith((".yml", ".yaml")):
            return False
        try:
            text = Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return True
        named = _find_plugin(text)
        if named == self.NAME or text.startswith("$ANSIBLE_VAULT"):
            return True
        ours = [f"{_COLLECTION}.{provider}" for provider in list_providers()]
        if named in ours or ("." in named and not named.startswith(f"{_COLLECTION}.")):
            return False
        enabled: list[str] = [name for name in constants.INVENTORY_ENABLED if name in ours]
        return not enabled or enabled[0] == self.NAME

    def set_options(self, task_keys: Any = None, var_options: Any = None, direct: Any = None) -> None:
        """Read the options: no blanks, templates rendered. Raises OptionError for mistakes that core lets pass."""
        known = constants.config.get_configuration_definitions("inventory", self._load_name)
        forget_blank_environment(place["name"] for option in known.values() for place in option.get("env", ()))
        for name in direct or {}:
            if name not in known and name != "plugin":
                near = find_nearest(name, known)
                raise OptionError(str(name), "there is no such option" + (f"; {near!r} is nearest" if near else ""))
        of_variables = {place["name"] for option in known.values() for place in option.get("vars", ())}
        variables = self._render(var_options or {}, of_variables)
        # YAML makes a time of a text without quotes, and core takes a time for no text.
        given = {
            name: value.isoformat() if isinstance(value, date) else value for name, value in (direct or {}).items()
        }
        options = self._render(given, known.keys() - _EXPRESSIONS)
        for name, definition in known.items():
            places = [options.get(name)]
            places += [variables.get(place["name"]) for place in definition.get("vars", ())]
            places += [os.environ.get(place["name"]) for place in definition.get("env", ())]
            for value in places:
                check_numbers({name: convert_value(name, value, definition.get("type", ""))})
        self._layers = options, self.PROVIDER.options_in_variables(variables)
        super().set_options(task_keys=task_keys, var_options=variables, direct=options)

    def _render(self, options: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
        """The options without blanks; those in `names` without templates and vaulted values. Raises OptionError."""
        self.templar.available_variables = self._vars or {}
        rendered = dict(options)
        for name in options.keys() & names:
            with explain_templates(name, "its template cannot be rendered"):
                rendered[name] = self.templar.template(options[name])
        # An empty prefix is a value.
        empty = {"hostname_prefix": ""} if rendered.get("hostname_prefix") == "" else {}
        return drop_blanks(rendered) | empty

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """List the environments, or read them from the cache, and fill the inventory. Raises AnsibleParserError."""
        super().parse(inventory, loader, path, cache)
        with raise_as(AnsibleParserError):
            self._read_source(path)
            settings = connection_settings(self.PROVIDER, *self._layers)
            query = self.query()
            rules = self._read_rules()
            listing = self._list(settings, query, path, read_cache=cache)
            for note in settings.notes:
                self.display.warning(note)
            selected, dropped = self._select(listing, settings.base_url, query, rules)
            self._fill(selected, rules)
            if dropped:
                self._count_dropped(dropped, rules)

    def _read_source(self, path: str) -> None:
        try:
            self._read_config_data(path)
        except AttributeError:
            # Core looks for the plugin's name in a source that is no dictionary.
            raise FleetError(f"{path} is not a dictionary of options") from None

    def _read_rules(self) -> _Rules:
        """The options about hosts, checked before a request is sent. Raises OptionError."""
        known = {dimension.name: dimension for dimension in self.DIMENSIONS}
        dimensions = [known[name] for name in dict.fromkeys(self.get_option("group_by"))]
        group_prefix = self.get_option("group_prefix") or ""
        root_group = check_group_name("root_group", self.get_option("root_group"))
        if reads_as_group(root_group, dimensions, group_prefix):
            raise OptionError("root_group", f"{root_group!r} can also be the name of a group of group_by")
        return _Rules(
            filters=Expressions("filters", self.get_option("filters") or [], self.PROVIDER.fields),
            hostnames=Expressions("hostnames", self.get_option("hostnames"), self.PROVIDER.fields),
            variable_prefix=host_names.check_variable_prefix(str(self.get_option("hostvars_prefix")), self.PROVIDER),
            dimensions=dimensions,
            group_prefix=check_group_name("group_prefix", group_prefix) if group_prefix else "",
            root_group=root_group,
        )

    def _list(self, settings: HttpSettings, query: Any, path: str, *, read_cache: bool) -> Listing:
        """The listing of the provider, from the cache where that has it and may be read. Raises ApiError."""
        self.load_cache_plugin()
        if not self.get_option("cache"):
            return fetch_listing(self.PROVIDER, settings, query)
        listed = hash_text(repr((settings.base_url, query, settings.api_key)))[:32]
        cache = SourceCache(
            self._cache,
            f"{self.get_cache_key(path)}_{listed}",
            self.get_option("cache_plugin"),
            {"_uri": self.get_option("cache_connection"), "_prefix": self.get_option("cache_prefix")},
            self.display.warning,
        )
        listing = cache.read() if read_cache else None
        if listing is None:
            listing = fetch_listing(self.PROVIDER, settings, query, cache.starts)
            cache.write(listing)
        return listing

    def _select(self, listing: Listing, base_url: str, query: Any, rules: _Rules) -> tuple[list[Environment], int]:
        """The environments for which all filters hold, and how many rows are dropped. Raises OptionError."""
        found, invalid = self.PROVIDER.environments(listing, base_url, query)
        notes = note_invalid(invalid)
        if notes and self.get_option("on_invalid") == "fail":
            raise OptionError("on_invalid", *notes)
        rows = len(listing.rows)
        dropped = check_dropped(invalid, rows, self.get_option("max_dropped_rows"))
        for note in notes:
            self.display.warning(note)
        selected = [item for item in found if rules.filters.all_hold(item.fields, listing.fetched_at)]
        if not selected and self.get_option("fail_on_empty"):
            raise OptionError("fail_on_empty", f"no environment is left of {rows} listed by {base_url}")
        return selected, dropped

    def _count_dropped(self, dropped: int, rules: _Rules) -> None:
        """Add the rows that are dropped to the count of the root group, which sources may share."""
        group, name = self.inventory.groups[rules.root_group], rules.variable_prefix + DROPPED
        before = group.vars.get(name)
        group.set_variable(name, dropped + (before if isinstance(before, int) else 0))

    def _fill(self, environments: Sequence[Environment], rules: _Rules) -> None:
        if self._left_out:
            # The order of the rows may follow the heartbeats.
            environments = sorted(environments, key=lambda environment: environment.id)
        rows = [environment.fields for environment in environments]
        groups = group_rows(rows, rules.dimensions, rules.group_prefix)
        group_names = dict.fromkeys([rules.root_group, *groups.members, *groups.parents.values()])
        for group in group_names:
            if group in self.inventory.hosts:
                self._rename_environment(self.inventory.get_host(group), group_names)
            self.inventory.add_group(group)
        for group, parent in groups.parents.items():
            self.inventory.add_child(parent, group)

        named = {self._sanitize_group_name(name) for name in self.get_option("groups")}
        name_prefix = self.get_option("hostname_prefix") or ""
        wanted = {
            one.id: host_names.choose_name(rules.hostnames.values(one.fields), name_prefix, one.id)
            for one in sorted(environments, key=self._find_age)
        }
        like_groups = {name for name in wanted.values() if reads_as_group(name, rules.dimensions, rules.group_prefix)}
        keepers = host_names.find_keepers(wanted, {one.id: self._rank(one) for one in environments})
        names = self._assign_names(wanted, named | like_groups, keepers)
        memberships = groups.of_rows(len(environments))
        hosts = [
            _Host(names[environment.id], environment, [rules.root_group, *memberships[index]])
            for index, environment in enumerate(environments)
        ]
        self._add(hosts, rules.variable_prefix)
        self._rename_hosts_like_groups(hosts, rules.variable_prefix)

    def _find_age(self, environment: Environment) -> str:
        """Sorts the environment that the provider has known longest first: a new device cannot come before it."""
        return environment.fields.get(self.PROVIDER.first_seen) or "~"

    def _rank(self, environment: Environment) -> Any:
        """The place of an environment among those that want its name; None if it gets no name that others want."""
        rule = self.get_option("on_duplicate")
        if rule == "first_seen":
            return environment.fields.get(self.PROVIDER.first_seen)
        return 0 if rule == "online" and environment.status == "online" else None

    def _assign_names(
        self, wanted: Mapping[str, str], forbidden: set[str], keepers: Collection[str] = ()
    ) -> dict[str, str]:
        taken = forbidden | set(self.inventory.hosts) | set(self.inventory.groups)
        names = host_names.assign_names(wanted, taken, self.get_option("on_duplicate"), keepers)
        self._warn_of_renamed(wanted, names)
        return names

    def _warn_of_renamed(self, wanted: Mapping[str, str], names: Mapping[str, str]) -> None:
        contested = {name for identity, name in wanted.items() if names[identity] != name}
        if rivals := {identity for identity, name in wanted.items() if name in contested}:
            advice = "host_vars and --limit by name may miss them; with hostnames: [id] no device chooses a name"
            line = host_names.describe_rivals(wanted, rivals)
            whole = host_names.describe_rivals(wanted, rivals, len(rivals))
            if line != whole:
                advice = f"-vvv shows all; {advice}"
                self.display.vvv(whole)
            self.display.warning(f"on_duplicate: {line}; {advice}")

    def _rename_environment(self, host: Any, group_names: Collection[str]) -> None:
        """Rename a host of an earlier source of this collection that has the name of a group of this one.

        The owner of a device chooses its name, and would receive what is meant for the group. Raises OptionError for a
        host of another plugin.
        """
        contract = host.vars.get(CONTRACT)
        if not isinstance(contract, Mapping):
            raise OptionError(
                "root_group" if host.name == self.get_option("root_group") else "group_prefix",
                f"{host.name!r} would be a group, and is a host of another source; choose another name for one of them",
            )
        taken = {*self.inventory.hosts, *self.inventory.groups, *group_names}
        identity = str(contract.get("id"))
        name = host_names.find_free_name(host.name, identity, taken)
        self._warn_of_renamed({identity: host.name}, {identity: name})
        groups = [group.name for group in host.groups if group.name != "all"]
        self.inventory.remove_host(host)
        for group in groups or ["all"]:
            self.inventory.add_host(name, group=group)
        for variable, value in host.vars.items():
            self.inventory.get_host(name).set_variable(variable, value)

    def _rename_hosts_like_groups(self, hosts: Sequence[_Host], variable_prefix: str) -> None:
        """Rename hosts that have the name of a group. Only `keyed_groups` can have made such a group by now."""
        clashing = [host for host in hosts if host.name in self.inventory.groups]
        clashing.sort(key=lambda host: self._find_age(host.environment))
        names = self._assign_names({host.environment.id: host.name for host in clashing}, set())
        for host in clashing:
            self.inventory.remove_host(self.inventory.get_host(host.name))
        renamed = [replace(host, name=names[host.environment.id]) for host in clashing]
        self._add(renamed, variable_prefix)
        for host in renamed:
            if host.name in self.inventory.groups:
                raise OptionError(
                    "keyed_groups", f"makes a group with the name of host {host.name!r}; give it a prefix"
                )

    def _add(self, hosts: Sequence[_Host], variable_prefix: str) -> None:
        for host in hosts:
            for group in host.groups:
                self.inventory.add_host(host.name, group=group)
            # The inventory's own set_variable copies each value to note its file, which takes a fifth of the whole
            # command for 10,000 hosts. These are JSON values that nothing else refers to.
            added = self.inventory.get_host(host.name)
            for name, value in self._variables(host.environment, variable_prefix).items():
                added.set_variable(name, value)
        self._construct(hosts, variable_prefix)

    def _variables(self, environment: Environment, prefix: str) -> dict[str, Any]:
        trust = self.get_option("trust")
        fields = self._list_lasting(environment.fields) if self._left_out else environment.fields
        variables = {prefix + name: mark_trusted(name, value, trust) for name, value in fields.items()}
        contract = {name: mark_trusted(name, value, trust) for name, value in environment.contract().items()}
        # The URL comes from this source, and not from a row.
        contract["base_url"] = trust_own_text(environment.base_url)
        variables[CONTRACT] = contract
        has_relay = self.has_option("connection")
        over_relay = has_relay and self.get_option("connection") == "relay"
        advice = "" if over_relay else _NO_LOGIN + ("or-connection-relay-in-its-source." if has_relay else "")
        variables["ansible_host"] = trust_own_text(host_names.make_host_address(environment, advice))
        if over_relay:
            variables["ansible_connection"] = trust_own_text(self.NAME)
        return variables

    @property
    def _left_out(self) -> Mapping[str, str | None]:
        """The fields of which hosts have no variable, and the API's keys of these."""
        return {} if self.get_option("volatile_variables") else self.PROVIDER.volatile

    def _list_lasting(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Fields without those that are left out, which are in the metadata as well where they are malformed."""
        malformed = {self.PROVIDER.volatile.get(name) for name in fields.get("invalid", ())}
        lasting = {name: value for name, value in fields.items() if name not in self.PROVIDER.volatile}
        if malformed:
            lasting["metadata"] = {key: value for key, value in fields["metadata"].items() if key not in malformed}
        return lasting

    def _construct(self, hosts: Sequence[_Host], prefix: str) -> None:
        """Apply the user's own expressions: `compose`, `groups` and `keyed_groups`. They see volatile fields, too."""
        compose, groups, keyed_groups = (self.get_option(name) for name in ("compose", "groups", "keyed_groups"))
        if not (compose or groups or keyed_groups):
            return
        strict, trust, left_out = self.get_option("strict"), self.get_option("trust"), self._left_out
        for host in hosts:
            fields = host.environment.fields
            volatile = {prefix + name: mark_trusted(name, fields[name], trust) for name in left_out}
            variables = volatile | self.inventory.get_host(host.name).get_vars()
            self._set_composite_vars(compose, variables, host.name, strict)
            self._add_host_to_composed_groups(groups, volatile, host.name, strict)
            self._add_host_to_keyed_groups(keyed_groups, volatile, host.name, strict)


def _find_plugin(text: str) -> str:
    """The key `plugin` at the top of a source in YAML; empty if there is none before the source's first error."""
    depth, key, is_value = 0, "", False
    with contextlib.suppress(yaml.YAMLError):
        for event in yaml.parse(text, SafeLoader) if "plugin" in text else ():
            if isinstance(event, yaml.NodeEvent) and depth == 1:
                word = getattr(event, "value", "")
                if is_value and key == "plugin":
                    return str(word)
                key, is_value = word, not is_value
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
    return ""
