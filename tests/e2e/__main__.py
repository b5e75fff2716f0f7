"""Real devices of an older version that join a sandbox's fleet and can update themselves, until SIGTERM or Ctrl-C.

python -m tests.e2e --url http://127.0.0.1:40217 alpha beta
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import tempfile
from pathlib import Path

import httpx

from tests.sandbox.process import Sandbox
from tests.sandbox.server import DEFAULT_API_KEY

from .npm_install import npm_device


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e", description=__doc__)
    parser.add_argument("--url", required=True, help="where the sandbox is")
    parser.add_argument("names", nargs="+", metavar="NAME", help="the devices' names")
    arguments = parser.parse_args()
    # The signal to end may come while devices still start.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        contextlib.suppress(KeyboardInterrupt),
        tempfile.TemporaryDirectory(prefix="devices-", ignore_cleanup_errors=True) as homes,
        httpx.Client() as control,
        contextlib.ExitStack() as devices,
    ):
        # The sandbox belongs to another process, and devices need nothing more from it.
        sandbox = Sandbox(arguments.url, DEFAULT_API_KEY, pid=0, control=control)
        for name in arguments.names:
            devices.enter_context(npm_device(sandbox, name, Path(homes) / name))
        signal.pause()


if __name__ == "__main__":
    main()
