"""List once with the collection's client, in its own process: ``listed.py STARTS_FILE``.

Prints ``{seconds, rows}``. Requests all pages at once if the file has the rows that they began after, and writes
the starts for the next listing to it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible_collections.fleetops.environments.plugins.module_utils.http.settings import HttpSettings
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.client import Client, Query


async def listed(settings: HttpSettings, starts: Sequence[str]) -> Any:
    """Every row."""
    async with Client(settings) as client:
        return await client.list(Query(), starts)


def main() -> None:
    """List; the time is that of the listing alone, without the start of the process."""
    kept = Path(sys.argv[1])
    starts = json.loads(kept.read_text()) if kept.exists() else ()
    settings = HttpSettings(base_url=os.environ["LETTA_BASE_URL"], api_key=os.environ["LETTA_API_KEY"])
    started = time.perf_counter()
    listing = asyncio.run(listed(settings, starts))
    seconds = time.perf_counter() - started
    kept.write_text(json.dumps(listing.starts))
    sys.stdout.write(json.dumps({"seconds": seconds, "rows": len(listing.rows)}))


if __name__ == "__main__":
    main()
