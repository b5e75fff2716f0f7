"""Processes that die at the nth step of the send path, for every n: no sleeps, and no step is left out.

At a step, the send path of one target gives control to the event loop, or gets it back: an `await` has two such
steps. Between two steps nothing else can happen outside the process.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.fleetops.environments.plugins.module_utils.campaigns.campaign import Campaign
from ansible_collections.fleetops.environments.plugins.module_utils.campaigns.plan import plan_campaign
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.delivery import (
    Delivery,
    MessageTarget,
    Sender,
)
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.fan_out import FanOut
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.deliveries import Deliveries
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.schema import Entry, RunFacts
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.store import (
    find_location,
    open_ledger,
    read_ledger,
)
from ansible_collections.fleetops.environments.plugins.module_utils.providers.registry import (
    AllConversations,
    open_clients,
)
from tests.sandbox.process import Sandbox
from tests.unit.qoder_support import qoder_settings
from tests.unit.support import policy, settings_for

# The requests of a run that sends to two: a look-up, a send that fails for a lost connection, and a second send.
FEWEST_AWAITS = 6


class Steps:
    """Counts steps, and ends the process at once, without cleanup, at the step with this number; 0 never ends it."""

    def __init__(self, fatal: int) -> None:
        self.count = 0
        self._fatal = fatal

    def next(self) -> None:
        self.count += 1
        if self.count == self._fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def of(self, work: Awaitable[None]) -> Awaitable[None]:
        """The same work with counted steps."""
        return _Counted(work, self)


class _Counted:
    def __init__(self, work: Awaitable[None], steps: Steps) -> None:
        self._work, self._steps = work, steps

    def __await__(self) -> Generator[Any, Any, None]:
        inner: Any = self._work.__await__()
        thrown: BaseException | None = None
        while True:
            try:
                waits_for = next(inner) if thrown is None else inner.throw(thrown)
            except StopIteration:
                return
            self._steps.next()
            thrown = None
            try:
                yield waits_for
            except BaseException as error:  # noqa: BLE001 - the work handles the error
                thrown = error
            self._steps.next()


async def run(
    sandbox: Sandbox,
    ledger: Path,
    targets: Sequence[MessageTarget],
    steps: Steps,
    *,
    retry: str = "undelivered",
    verify: bool = True,
    url: str | None = None,
    concurrency: int = 2,
) -> list[Delivery]:
    """One run of the campaign that has the name of its ledger, as `deliver` does it. url: of the ledger instead."""
    name, provider = ledger.stem, targets[0].environment.provider
    settings = qoder_settings(sandbox) if provider == "qoder" else settings_for(sandbox)
    async with open_clients({provider: settings}) as clients:
        conversations = AllConversations(clients, concurrency=4, rate=None)
        with open_ledger(find_location(url or str(ledger)), RunFacts("tester")) as opened_ledger:
            kept = Deliveries(opened_ledger)
            planned = plan_campaign(kept, name, retry, targets)
            once = Campaign(name, kept, planned, conversations.find_message, verify=verify)
            fan_out = FanOut(policy(concurrency=concurrency, max_failures=len(targets)))
            sender = Sender(clients, fan_out, once)
            pairs = [(target, Delivery.of(target)) for target in planned.targets]
            await fan_out.run(pairs, lambda target, delivery: steps.of(sender.send(target, delivery)))
            return [delivery for _target, delivery in pairs]


def run_forked(sandbox: Sandbox, ledger: Path, targets: Sequence[MessageTarget], fatal: int = 0, **given: Any) -> Any:
    """The result of a run in its own process: `{steps, statuses}`, None if it died at its fatal step."""
    return begin_run(sandbox, ledger, targets, fatal, **given)()


def begin_run(
    sandbox: Sandbox, ledger: Path, targets: Sequence[MessageTarget], fatal: int = 0, **given: Any
) -> Callable[[], Any]:
    """Begin a run in its own process; return a function that waits for its end and returns what `run_forked` does."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            steps = Steps(fatal)
            done = asyncio.run(run(sandbox, ledger, targets, steps, **given))
            statuses = [delivery.status for delivery in done]
            os.write(writer, json.dumps({"steps": steps.count, "statuses": statuses}).encode())
        except BaseException:  # noqa: BLE001 - the child must not continue the test process
            traceback.print_exc(file=sys.__stderr__)
            os._exit(1)
        os._exit(0)
    os.close(writer)

    def end() -> Any:
        with os.fdopen(reader, "rb") as said:
            text = said.read()
        _pid, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            assert fatal
            return None
        assert os.WEXITSTATUS(status) == 0
        return json.loads(text)

    return end


def entries(path: Path) -> dict[str, Entry]:
    with read_ledger(path) as ledger:
        return Deliveries(ledger).entries(path.stem)


def each_step(
    directory: Path, kill: Callable[[Path, int], dict[str, Any] | None], complete: Callable[[Path], None]
) -> None:
    """Let runs die at their first step, their second, and so on until one survives, and complete each of them.

    Each run has its own ledger, and so its own campaign.
    """
    for step in range(1, 500):
        ledger = directory / f"{step}.sqlite"
        survived = kill(ledger, step)
        complete(ledger)
        if survived is not None:
            # The order of the answers can add or remove a step.
            assert step > max(survived["steps"], 2 * FEWEST_AWAITS)
            return
    raise AssertionError("it never came to its end")
