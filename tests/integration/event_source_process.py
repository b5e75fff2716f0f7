"""One listing of the event source, as Event-Driven Ansible runs it, in a process that may be killed at any step.

python -m tests.integration.event_source_process SOURCE ARGUMENTS_JSON QUEUED NTH

Queued events are appended to the file QUEUED. At the NTH step (before and after each event is queued, and before and
after each device is recorded) the process is killed (SIGKILL); 0 is never. Ends where the source would sleep.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import runpy
import signal
import sys
import types
from pathlib import Path
from typing import Any, NoReturn

from ansible_collections.fleetops.environments.plugins.module_utils.fleet.changes import ReportedStates


class Steps:
    """Ends the process at the nth step."""

    def __init__(self, nth: int) -> None:
        self._left = nth

    def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class Queue:
    """A queue whose entries are kept when the process is killed."""

    def __init__(self, path: Path, step: Steps) -> None:
        self._path, self._step = path, step

    async def put(self, event: Any) -> None:
        self._step()
        with self._path.open("a") as file:
            file.write(json.dumps(event) + "\n")
        self._step()


async def _end(_seconds: float) -> NoReturn:
    raise asyncio.CancelledError


def main() -> None:
    source, arguments, queued, nth = sys.argv[1:]
    step, record = Steps(int(nth)), ReportedStates.record

    def stepwise(state: ReportedStates, devices: Any) -> None:
        step()
        record(state, devices)
        step()

    ReportedStates.record = stepwise  # type: ignore[method-assign]
    loaded = runpy.run_path(source)
    # The functions of a module that runpy has run use this dictionary for their global names.
    names = loaded["main"].__globals__
    names["asyncio"] = types.SimpleNamespace(**{**vars(asyncio), "sleep": _end})
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(loaded["main"](Queue(Path(queued), step), json.loads(arguments)))


if __name__ == "__main__":
    main()
