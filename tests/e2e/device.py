"""Real devices: `letta server` from the published wheel, with their own HOME and directory."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.sandbox.process import Sandbox

CHECKOUT = Path(__file__).resolve().parents[2]
VERSION = "0.34.12"
PIP_INSTALL = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
# Seconds that a device may take for any step, on a machine with other work.
PATIENCE = 180.0


def wheel(version: str = VERSION) -> Path:
    """The content of the `letta` wheel of a version; installed once, into .build/devices.

    Raises RuntimeError with the output of pip if the wheel cannot be downloaded.
    """
    directory = CHECKOUT / ".build" / "devices" / version
    if not (directory / "letta_code").is_dir():
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent) as partial:
            done = subprocess.run(
                [*PIP_INSTALL, "--target", f"{partial}/{version}", f"letta=={version}"],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode != 0:
                raise RuntimeError(f"letta=={version} cannot be installed, and real devices need it:\n{done.stderr}")
            # Another worker process of the tests may have been faster.
            with contextlib.suppress(OSError):
                Path(partial, version).rename(directory)
    return directory


def environment_of(sandbox: Sandbox, home: Path) -> dict[str, str]:
    """The environment variables that connect Letta Code to a sandbox, and to no other server."""
    return {
        "HOME": str(home),
        "PATH": os.defpath,
        "PYTHONPATH": str(wheel()),
        "TMPDIR": str(home),
        "LETTA_BASE_URL": sandbox.url,
        "LETTA_API_KEY": sandbox.api_key,
        "IGNORE_SELF_HOSTED_LISTENER_ERROR": "1",
        "DISABLE_AUTOUPDATER": "1",
        "LETTA_CODE_TELEM": "0",
    }


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds that a device or a browser brings about."""
    until = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.1)


@dataclass
class Device:
    """A running device. home: identifies the device, also when it is started again."""

    name: str
    home: Path
    process: subprocess.Popen[str]
    _states: queue.Queue[str] = field(default_factory=queue.Queue)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @classmethod
    @contextmanager
    def start(
        cls, sandbox: Sandbox, name: str, home: Path, *, command: list[str] | None = None, **environment: str
    ) -> Iterator[Device]:
        """Start a device that joins the sandbox's fleet, wait until it has, and stop it at the end of the block.

        command: what runs instead of the wheel's own entry. environment: additional variables.
        """
        run = command or [sys.executable, "-c", "import letta_code; letta_code.main()"]
        directory = home / "work"
        directory.mkdir(parents=True, exist_ok=True)
        with (home / "stderr.log").open("w") as stderr:
            process = subprocess.Popen(
                [*run, "server", "--computer-name", name, "--lifecycle-output", "jsonl"],
                cwd=directory, env={**environment_of(sandbox, home), **environment},
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True,
            )  # fmt: skip
        device = cls(name, home, process)
        try:
            device.wait_for("idle")
            yield device
        finally:
            device.stop()

    def wait_for(self, state: str) -> None:
        """Wait until the device reports a state: connected, idle, reconnecting, error."""
        until = time.monotonic() + PATIENCE
        seen: list[str] = []
        while state not in seen:
            try:
                seen.append(self._states.get(timeout=max(0.0, until - time.monotonic())))
            except queue.Empty:
                stderr = (self.home / "stderr.log").read_text()[-2000:]
                raise TimeoutError(f"{self.name} was {seen}, not {state}, in {PATIENCE:g} s:\n{stderr}") from None

    def stop(self) -> None:
        """End the device as a service manager would, and wait until it has ended."""
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        finally:
            self.kill()

    def kill(self) -> None:
        """End the device as a power cut would."""
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    self._states.put(str(json.loads(line)["state"]))
        # A process that has ended but was not waited for counts as alive for the process that replaces it.
        self.process.wait()
