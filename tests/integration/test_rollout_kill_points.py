"""A run of a rollout that dies at any of its steps: the next one completes it, and no device is told twice.

A step is a call that something outside the process can see: a change of the ledger, a command or a message. A run dies
just before each one, and once all are done. Between two of them it only looks.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.action.rollout import ActionModule
from ansible_collections.fleetops.environments.plugins.module_utils.environment import Environment
from ansible_collections.fleetops.environments.plugins.module_utils.fleet import update as update_module
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.drain import Drain
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.fan_out import Policy, ProviderRun, Target
from ansible_collections.fleetops.environments.plugins.module_utils.ledger import rollouts as ledger_module
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.rollouts import (
    RolloutUpdates,
    find_rollout,
)
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.schema import RunFacts
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.store import Ledger, open_ledger
from ansible_collections.fleetops.environments.plugins.module_utils.providers.conversation import NEW_CONVERSATION
from ansible_collections.fleetops.environments.plugins.module_utils.rollouts import run as run_module
from ansible_collections.fleetops.environments.plugins.module_utils.rollouts.preflight import find_preflights
from ansible_collections.fleetops.environments.plugins.module_utils.rollouts.run import RolloutRun
from ansible_collections.fleetops.environments.plugins.module_utils.rollouts.waves import plan_rollout
from ansible_collections.fleetops.environments.plugins.module_utils.text import format_now
from tests.sandbox.process import Sandbox
from tests.unit.support import environment_of, policy, settings_for

VERSION = "0.34.12"
FACTS = RunFacts("tester")
# A device that was recorded and not told is waited for as long as this.
OPTIONS = {
    **{name: rules.get("default") for name, rules in ActionModule.SPEC.items()},
    "version": VERSION,
    "update_timeout": 2.0,
    "soak": 0.1,
    "soak_grace": 5.0,
    "poll_interval": 0.05,
    "probe_agent_id": "agent-probe",
    "probe_timeout": 20.0,
}


class Steps:
    """Names the steps of a run, and ends the process at once at the step with this name."""

    def __init__(self, fatal: str | None) -> None:
        self.names: list[str] = []
        self._fatal = fatal
        self._calls: Counter[str] = Counter()

    def reach(self, name: str) -> None:
        self.names.append(name)
        if name == self._fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: Any, attribute: str) -> None:
        """Make each call of a function a step."""
        original = getattr(owner, attribute)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._calls[attribute] += 1
            self.reach(f"{attribute} {self._calls[attribute]}")
            return original(*args, **kwargs)

        # The process ends with the run, so nothing is set back.
        setattr(owner, attribute, call)

    def around_all(self) -> None:
        """Count everything that a run does, apart from looks."""
        self.around(ledger_module, "add_rollout")
        self.around(RolloutUpdates, "tell")
        self.around(RolloutUpdates, "done")
        self.around(update_module, "execute_command")
        for function in ("record_changes", "wait_for_environments", "deliver", "wait_for_replies"):
            self.around(run_module, function)


async def _plan(sandbox: Sandbox, ledger: Ledger, name: str, targets: Sequence[Target], waves: Sequence[str]) -> None:
    run = ProviderRun(settings_for(sandbox), targets, Policy(4, rate=None, max_failures=0))
    found = await find_preflights(run, VERSION, drain=Drain())
    ledger_module.add_rollout(ledger, plan_rollout(name, VERSION, waves, found, format_now()))


def _run(sandbox: Sandbox, path: Path, targets: Sequence[Target], steps: Steps, waves: Sequence[str]) -> dict[str, Any]:
    """A run as the action `rollout` does it; the names of its steps, and the states of its waves."""
    name = path.stem
    with open_ledger(path, FACTS) as ledger, ledger.hold_rollout(name):
        if find_rollout(ledger, name) is None:
            asyncio.run(_plan(sandbox, ledger, name, targets, waves))
        rollout = find_rollout(ledger, name)
        assert rollout is not None
        mine = {target.environment.id: target for target in targets}
        waits = policy(when_offline="wait", offline_timeout=10.0)
        asyncio.run(RolloutRun(ledger, rollout, settings_for(sandbox), mine, waits, 30.0, OPTIONS, Drain()).run())
        steps.reach("end")
        ended = find_rollout(ledger, name)
        assert ended is not None
        return {"steps": steps.names, "waves": [wave.state for wave in ended.waves]}


def _run_forked(
    sandbox: Sandbox,
    path: Path,
    targets: Sequence[Target],
    fatal: str | None = None,
    waves: Sequence[str] = ("1", "100%"),
) -> Any:
    """The result of a run in its own process, None if it died at its fatal step."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            steps = Steps(fatal)
            steps.around_all()
            os.write(writer, json.dumps(_run(sandbox, path, targets, steps, waves)).encode())
        except BaseException:  # noqa: BLE001 - the child must not continue the test process
            traceback.print_exc(file=sys.__stderr__)
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as said:
        text = said.read()
    _pid, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert (os.WTERMSIG(status), fatal is not None) == (signal.SIGKILL, True)
        return None
    assert os.WEXITSTATUS(status) == 0
    return json.loads(text)


def _add(sandbox: Sandbox, **fields: Any) -> list[Target]:
    """Two environments on an old version, as listed now."""
    sandbox.upgrade_to(VERSION, lingers=0.0, seconds=0.1)
    found: list[Environment] = [
        environment_of(sandbox.add_environment(metadata={"lettaCodeVersion": "0.33.9"}, **fields), sandbox.url)
        for _number in range(2)
    ]
    return [
        Target(f"d{number}", environment, "agent-probe", NEW_CONVERSATION) for number, environment in enumerate(found)
    ]


def _told(sandbox: Sandbox, targets: Sequence[Target]) -> list[int]:
    received = sandbox.received()
    return [len(received.get(target.environment.id, {}).get("commands", [])) for target in targets]


def test_a_run_that_is_killed_at_any_step_is_completed_by_the_next(sandbox: Sandbox, tmp_path: Path) -> None:
    targets = _add(sandbox)
    whole = _run_forked(sandbox, tmp_path / "whole.sqlite", targets)
    assert whole["waves"] == ["passed", "passed"]
    assert _told(sandbox, targets) == [1, 1]
    # One device and one wave after the other, so that the steps are the same in each run.
    first = ["add_rollout 1", "record_changes 1", "tell 1", "execute_command 1", "tell 2", "done 1"]
    assert whole["steps"][:6] == first
    assert len(whole["steps"]) == len(set(whole["steps"])) == 20

    for number, fatal in enumerate(whole["steps"]):
        targets = _add(sandbox)
        ledger = tmp_path / f"{number}.sqlite"
        assert _run_forked(sandbox, ledger, targets, fatal) is None, fatal
        done = _run_forked(sandbox, ledger, targets)
        assert done["waves"] == ["passed", "passed"], fatal
        assert _told(sandbox, targets) == [1, 1], fatal
        with open_ledger(ledger, FACTS) as opened:
            rollout = find_rollout(opened, ledger.stem)
        assert rollout is not None
        assert [(one.status, one.told_at) for one in rollout.targets] == [("changed", None)] * 2, fatal


@pytest.mark.parametrize("limited", [False, True], ids=["all targets", "without the one that was told"])
def test_a_device_that_a_killed_run_has_told_is_told_as_another_environment_when_its_time_is_over(
    sandbox: Sandbox, tmp_path: Path, *, limited: bool
) -> None:
    ledger = tmp_path / "r.sqlite"
    targets = _add(sandbox, deviceId="device-pair")
    assert _run_forked(sandbox, ledger, targets, "execute_command 1", waves=["100%"]) is None
    with open_ledger(ledger, FACTS) as opened:
        rollout = find_rollout(opened, "r")
    assert rollout is not None
    told_at = rollout.targets[0].told_at

    # The listing has changed its order since.
    _run_forked(sandbox, ledger, targets[1:] if limited else targets[::-1])

    with open_ledger(ledger, FACTS) as opened:
        rollout = find_rollout(opened, "r")
    assert rollout is not None
    first, second = rollout.targets
    assert (first.status, second.status) == (None if limited else "changed", "changed")
    assert told_at is not None
    assert second.updated_at is not None
    waited = datetime.fromisoformat(second.updated_at) - datetime.fromisoformat(told_at)
    assert waited.total_seconds() > OPTIONS["update_timeout"]
    assert _told(sandbox, targets) == [0 if limited else 1, 1]
