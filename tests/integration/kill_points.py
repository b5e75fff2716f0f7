"""Processes that die at the nth step of the send path, for every n: no sleeps, and no step left out.

A step is a moment at which the send path of one target hands over to the event loop, or is given back control: what
an `await` comes to. Between two of them nothing else can have happened outside the process.
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
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.sqlite import Ledger
from ansible_collections.fleetops.environments.plugins.module_utils.providers.registry import (
    AllConversations,
    open_clients,
)
from tests.sandbox.process import Sandbox
from tests.unit.qoder_support import qoder_settings
from tests.unit.support import policy, settings_for

# Of a run that sends to two: it looks up, sends or is told that the connection has gone, and sends.
FEWEST_AWAITS = 6


class Steps:
    """Counts steps, and ends the process without any more ado at the one with a number; 0 is none."""

    def __init__(self, fatal: int) -> None:
        self.count = 0
        self._fatal = fatal

    def next(self) -> None:
        self.count += 1
        if self.count == self._fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def of(self, work: Awaitable[None]) -> Awaitable[None]:
        """The same work, whose steps are counted."""
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
            except BaseException as error:  # noqa: BLE001 - the work is to say what comes of it
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
) -> list[Delivery]:
    """One run of the campaign that is called as its ledger, as `deliver` does it."""
    name, provider = ledger.stem, targets[0].environment.provider
    settings = qoder_settings(sandbox) if provider == "qoder" else settings_for(sandbox)
    async with open_clients({provider: settings}) as clients:
        conversations = AllConversations(clients, concurrency=4, rate=None)
        with Ledger.open(ledger, RunFacts("tester")) as opened_ledger:
            kept = Deliveries(opened_ledger)
            planned = plan_campaign(kept, name, retry, targets)
            once = Campaign(name, kept, planned, conversations.find_message, verify=verify)
            fan_out = FanOut(policy(concurrency=2, max_failures=len(targets)))
            sender = Sender(clients, fan_out, once)
            pairs = [(target, Delivery.of(target)) for target in planned.targets]
            await fan_out.run(pairs, lambda target, delivery: steps.of(sender.send(target, delivery)))
            return [delivery for _target, delivery in pairs]


def forked(sandbox: Sandbox, ledger: Path, targets: Sequence[MessageTarget], fatal: int = 0, **given: Any) -> Any:
    """What a run in a process of its own did: `{steps, statuses}`, None where it died at its fatal step."""
    return begun(sandbox, ledger, targets, fatal, **given)()


def begun(
    sandbox: Sandbox, ledger: Path, targets: Sequence[MessageTarget], fatal: int = 0, **given: Any
) -> Callable[[], Any]:
    """Begin a run in a process of its own; what waits for its end returns what it did, as `forked` has it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            steps = Steps(fatal)
            done = asyncio.run(run(sandbox, ledger, targets, steps, **given))
            statuses = [delivery.status for delivery in done]
            os.write(writer, json.dumps({"steps": steps.count, "statuses": statuses}).encode())
        except BaseException:  # noqa: BLE001 - nothing of the test process may run on in the child
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
    ledger = Ledger.read(path)
    assert ledger is not None
    with ledger:
        return Deliveries(ledger).entries(path.stem)


def each_step(
    directory: Path, kill: Callable[[Path, int], dict[str, Any] | None], complete: Callable[[Path], None]
) -> None:
    """Let runs die at their first step, their second, and so on until one survives, and complete each.

    Each has a ledger, and so a campaign, of its own.
    """
    for step in range(1, 500):
        ledger = directory / f"{step}.sqlite"
        survived = kill(ledger, step)
        complete(ledger)
        if survived is not None:
            # How the answers come in makes a step more or less.
            assert step > max(survived["steps"], 2 * FEWEST_AWAITS)
            return
    raise AssertionError("it never came to its end")
