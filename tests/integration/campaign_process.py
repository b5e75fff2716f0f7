"""A run of a campaign in its own process, which a test can kill at any step of a delivery.

python -m tests.integration.campaign_process '{"url": ..., "api_key": ..., "ledger": ..., "die_at": "sent", ...}'
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible_collections.fleetops.environments.plugins.module_utils.campaigns.campaign import Campaign
from ansible_collections.fleetops.environments.plugins.module_utils.campaigns.plan import plan_campaign
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.delivery import (
    Delivery,
    MessageTarget,
    deliver,
)
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.fan_out import Policy
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.deliveries import Deliveries
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.schema import Entry, RunFacts
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.store import open_ledger
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.client import Client, Query
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.models import read_environments
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.replies import Conversations
from ansible_collections.fleetops.environments.plugins.module_utils.providers.message import parse_messages
from tests.sandbox.process import CHECKOUT, Sandbox
from tests.unit.support import settings_for

# The steps of a delivery; a process may end between two of them.
STEPS = ("begun", "claimed", "looked_up", "sending", "sent", "recorded")


class Death:
    """Ends the process at once, without cleanup, when a step is reached for the nth time."""

    def __init__(self, step: str | None, nth: int) -> None:
        self._step, self._left = step, nth

    def at(self, step: str) -> None:
        if step != self._step:
            return
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


async def run(given: dict[str, Any]) -> list[Delivery]:
    """Send "hello" to the environments as one run of the campaign."""
    death = Death(given["die_at"], given["nth"])

    class DyingDeliveries(Deliveries):
        async def replace(self, seen: Entry | None, entry: Entry) -> bool:
            death.at("begun" if entry.status == "in_flight" else "none")
            if given["full_at"] == ("claim" if entry.status == "in_flight" else "record"):
                self.ledger.change("PRAGMA max_page_count = 1")
                entry = replace(entry, host="x" * 100_000)
            replaced = await super().replace(seen, entry)
            death.at("claimed" if entry.status == "in_flight" else "recorded")
            return replaced

    class DyingClient(Client):
        async def send(self, target: Any, messages: Any, to: Any, final: Any = ()) -> Any:
            death.at("sending")
            accepted = await super().send(target, messages, to, final)
            death.at("sent")
            return accepted

    async def looked_up(question: Any, fresh: bool) -> bool:
        arrived = await conversations.find_message(question, fresh)
        death.at("looked_up")
        return arrived

    settings = settings_for(given["url"], api_key=given["api_key"])
    async with DyingClient(settings) as client:
        listed = {item.id: item for item in read_environments(await client.list(Query()), settings.base_url)[0]}
        targets = [
            MessageTarget(
                name,
                listed[name],
                given["agent_id"] or f"agent-{name}",
                messages=parse_messages("messages", given["messages"]),
            )
            for name in given["environments"]
        ]
        conversations = Conversations(client, concurrency=4, rate=None)
        with open_ledger(Path(given["ledger"]), RunFacts("tester")) as ledger:
            deliveries = DyingDeliveries(ledger)
            planned = plan_campaign(deliveries, "c", given["retry"], targets)
            once = Campaign("c", deliveries, planned, looked_up, verify=given["verify"])
            return await deliver(
                {"letta": client}, planned.targets, Policy(given["concurrency"], None, given["max_failures"]), once
            )


def start(sandbox: Sandbox, ledger: Path, names: Sequence[str], **changes: Any) -> subprocess.Popen[str]:
    """Start a run."""
    standard: dict[str, Any] = {"die_at": None, "nth": 1, "retry": "undelivered", "verify": True, "concurrency": 2}
    standard |= {"max_failures": 0}
    standard |= {"messages": [{"content": "hello"}], "agent_id": None, "full_at": None}
    given = {"url": sandbox.url, "api_key": sandbox.api_key, "ledger": str(ledger), "environments": names}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.integration.campaign_process", json.dumps(given | standard | changes)],
        cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT}/.build/collections"},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_end(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """What happened to each target, once a run has ended."""
    with process:
        said, _nothing = process.communicate(timeout=60)
    assert process.returncode == 0, said
    deliveries: list[dict[str, Any]] = json.loads(said)
    return deliveries


if __name__ == "__main__":
    done = asyncio.run(run(json.loads(sys.argv[1])))
    names = ("status", "reason", "error", "attempts", "client_message_id")
    sys.stdout.write(json.dumps([{name: getattr(delivery, name) for name in names} for delivery in done]))
