"""A process that asks a hostile peer once, and prints what happened: `python -m tests.unit.bounds_process WIRE URL`.

The last line is JSON: `code` and `error`, None without an error, and `peak`, the largest memory in megabytes.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from ansible_collections.fleetops.environments.plugins.module_utils.errors import ApiError
from ansible_collections.fleetops.environments.plugins.module_utils.http.client import HttpClient
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.relay import Relay
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.terminal import Terminal

from .support import settings_for


async def _get(url: str) -> None:
    async with HttpClient(settings_for(url)) as client:
        await client.get("v1", "environments")


async def _relay(url: str) -> None:
    async with Relay(settings_for(url), "connection"):
        pass


async def _terminal(url: str) -> None:
    shell = Terminal(Relay(settings_for(url), "connection"), timeout=30, max_output=1)
    await shell.open()
    try:
        await shell.run(b"true")
    finally:
        await shell.close()


WIRES: dict[str, Callable[[str], Awaitable[None]]] = {"get": _get, "relay": _relay, "terminal": _terminal}


def main() -> None:
    wire, url = sys.argv[1:]
    code = said = None

    async def ask() -> None:
        await WIRES[wire](url)

    try:
        asyncio.run(ask())
    except ApiError as error:
        code, said = error.code, str(error)
    [peak] = re.findall(r"^VmHWM:\s*([0-9]+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    sys.stdout.write(json.dumps({"code": code, "error": said, "peak": int(peak) // 1024}) + "\n")


if __name__ == "__main__":
    main()
