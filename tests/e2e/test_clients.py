"""Independent clients see the same fleet as our inventory, row by row."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

from letta_client import AsyncLetta, Letta

from tests.integration.conftest import Ansible

from .conftest import Fleet
from .device import environment_of


def _identities(rows: Any) -> list[tuple[str, str | None, str]]:
    """Device, connection and name of rows as the SDK returns them."""
    return sorted((row.device_id, row.connection_id, row.connection_name) for row in rows)


def _inventory(ansible: Ansible, **options: Any) -> list[tuple[str, str | None, str]]:
    hosts = ansible.hosts(**options).values()
    return sorted(
        (host["letta_device_id"], host["letta_connection_id"], host["letta_connection_name"]) for host in hosts
    )


def test_the_official_sdk_lists_what_the_inventory_lists(ansible: Ansible) -> None:
    known = {"base_url": ansible.sandbox.url, "api_key": ansible.sandbox.api_key}
    with Letta(**known) as client:
        page = client.environments.list(limit="100")

    async def listed() -> Any:
        async with AsyncLetta(**known) as client:
            return (await client.environments.list(limit="100")).connections

    expected = _inventory(ansible)
    assert _identities(page.connections) == expected
    assert _identities(asyncio.run(listed())) == expected


def test_letta_codes_own_list_of_computers_is_the_inventory_of_those_online(ansible: Ansible, fleet: Fleet) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import letta_code; letta_code.main()", "computers", "list", "--online-only"],
        env=environment_of(ansible.sandbox, fleet.alpha.home), cwd=fleet.alpha.home,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
    )  # fmt: skip

    rows = json.loads(done.stdout)["connections"]
    listed = sorted((row["deviceId"], row["connectionId"], row["connectionName"]) for row in rows)
    assert listed == _inventory(ansible, online_only=True)
    assert {"alpha", "beta"} <= {name for _device, _connection, name in listed}
