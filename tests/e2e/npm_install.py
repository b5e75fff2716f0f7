"""A real device that was installed with npm and updates itself, with stand-ins for npm and for npm's registry.

The app of an older wheel is where npm would install it, the registry names a newer one as the latest, and
`npm install` swaps the two. Everything else is the real client.
"""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.sandbox.process import Sandbox

from .device import PATIENCE, VERSION, Device, wheel

OLDER = "0.34.11"
_NPM = """\
#!{python}
import os, shutil, sys, time
match sys.argv[1:]:
    case ["prefix", "-g"]:
        print({prefix!r})
    case ["install", "-g", "@letta-ai/letta-code@latest"]:
        {install}
    case other:
        sys.exit(f"npm: what is {{other}}?")
"""
SWAPS = "os.rename({package!r}, {package!r} + '.old'); shutil.copytree({newer!r}, {package!r}, copy_function=os.link)"
# The new version is installed and does not start.
BREAKS = f"{SWAPS}; os.unlink({{package!r}} + '/letta.js')"
# The new version goes elsewhere, as where npm's prefix is another one than the device's.
ELSEWHERE = "pass"
# As npm, two of these at once are in each other's way. An installation that is there is replaced.
ALONE = (
    "os.mkdir({package!r} + '.lock'); time.sleep(2); shutil.rmtree({package!r} + '.old', ignore_errors=True); "
    f"{SWAPS}; os.rmdir({{package!r}} + '.lock')"
)
FAILS = "sys.stderr.write('npm error code EACCES'); sys.exit(243)"


@contextmanager
def npm_device(sandbox: Sandbox, name: str, home: Path, install: str = SWAPS) -> Iterator[Device]:
    """A device of the older version, which npm can update. install: the effect of `npm install`."""
    with npm_devices(sandbox, [name], home, install) as (device,):
        yield device


@contextmanager
def npm_devices(sandbox: Sandbox, names: Sequence[str], home: Path, install: str = SWAPS) -> Iterator[list[Device]]:
    """Listeners of one installation of the older version, under these names: environments of one device."""
    prefix = home / "prefix"
    package = prefix / "lib/node_modules/@letta-ai/letta-code"
    shutil.copytree(_payload(OLDER) / "app", package, copy_function=os.link)
    node, npm = prefix / "bin/node", prefix / "bin/npm"
    node.parent.mkdir()
    shutil.copy(_payload(OLDER) / "bin/node", node)
    steps = install.format(package=str(package), newer=str(_payload(VERSION) / "app"))
    npm.write_text(_NPM.format(python=sys.executable, prefix=str(prefix), install=steps))
    for program in (node, npm):
        program.chmod(0o755)
    command = [str(node), str(package / "letta.js")]
    with _registry(VERSION) as url:
        settings = {"PATH": f"{node.parent}:{os.defpath}", "LETTA_UPDATE_REGISTRY_BASE_URL": url}
        try:
            with ExitStack() as running:
                yield [
                    running.enter_context(Device.start(sandbox, name, home, command=command, **settings))
                    for name in names
                ]
        finally:
            for pid in _successors(home):
                _end(pid)


def _payload(version: str) -> Path:
    return wheel(version) / "letta_code/_payload"


@contextmanager
def _registry(latest: str) -> Iterator[str]:
    """The registry that Letta Code asks for the latest version; yields its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"version": latest}).encode()
            self.send_response(200 if self.path == "/@letta-ai/letta-code/latest" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Log nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def _successors(home: Path) -> list[int]:
    """The processes that updates left running: they have no parent, and their locks hold their pids."""
    locks = (home / ".letta/listeners").glob("manual-*.lock")
    return [int(json.loads(lock.read_text())["pid"]) for lock in locks]


def _end(pid: int) -> None:
    until = time.monotonic() + PATIENCE
    with_force = time.monotonic() + 10
    try:
        os.kill(pid, signal.SIGTERM)
        while time.monotonic() < until:
            os.kill(pid, 0 if time.monotonic() < with_force else signal.SIGKILL)
            time.sleep(0.1)
    except ProcessLookupError:
        return
