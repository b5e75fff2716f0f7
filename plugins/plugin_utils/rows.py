# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The environments among hosts as rows that filters see, read back from the variables that the inventory set."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..module_utils.environment import CONTRACT, Environment
from ..module_utils.errors import FleetError, one_line
from ..module_utils.filters import Expressions
from ..module_utils.provider import Provider, known_providers, provider_named


@dataclass(frozen=True, slots=True)
class Row:
    """A host of the inventory that is an environment. fields: as in `Environment`. seen_at: when they were listed."""

    host: str
    provider: str
    fields: Mapping[str, Any]
    seen_at: datetime


def environments_among(hosts: Sequence[str], hostvars: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Those of the hosts that the inventory plugins listed, with their variables, which Ansible makes at each look."""
    known = ((host, hostvars[host]) for host in hosts if host in hostvars)
    return ((host, variables) for host, variables in known if CONTRACT in variables)


def rows_of(
    hosts: Sequence[str], hostvars: Mapping[str, Any], prefix: str | None = None, provider: str | None = None
) -> list[Row]:
    """The environments among hosts, in the same order; other hosts are left out.

    prefix: of the variables, the provider's usual one (`letta_`) unless given. provider: only environments of this one.
    Raises FleetError where an environment has no variable of that prefix.
    """
    rows = []
    for host, variables in environments_among(hosts, hostvars):
        found = Environment.from_contract(variables[CONTRACT]).provider
        if provider in (None, found):
            rows.append(_row(host, variables, provider_named(found), prefix))
    return rows


def expressions_for(option: str, expressions: Any, rows: Sequence[Row]) -> Expressions:
    """Compiled expressions that may name what an environment of any of the rows' providers has. Raises OptionError."""
    providers = sorted({row.provider for row in rows}) or known_providers()
    return Expressions(option, expressions, [name for one in providers for name in provider_named(one).fields])


def _row(host: str, variables: Mapping[str, Any], provider: Provider, prefix: str | None) -> Row:
    prefix = provider.variable_of("") if prefix is None else prefix
    found = {name: variables[f"{prefix}{name}"] for name in provider.fields if f"{prefix}{name}" in variables}
    if not found:
        raise FleetError(
            f"{host} has no variables that begin with {one_line(repr(prefix), 60)}, as the inventory's hostvars_prefix "
            "is another one; give that as the prefix"
        )
    # JMESPath takes plain values only, and not what Ansible has made of them.
    fields = json.loads(json.dumps(dict.fromkeys(provider.fields) | found))
    return Row(host, provider.name, fields, _moment(fields.get("listed_at")))


def _moment(listed_at: Any) -> datetime:
    """When a row was listed: ages count from then, as in the inventory; from now where it does not say."""
    try:
        return datetime.fromisoformat(listed_at)
    except (TypeError, ValueError):
        return datetime.now(UTC)
