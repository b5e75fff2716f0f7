"""The sandbox as a child process, and the calls with which a test controls it.

with Sandbox.start(devices=50) as sandbox:
    sandbox.add_fault("status", route="messages", status=503, times=2)
    ...
    assert sandbox.received()[environment_id]["turns"] == 1
"""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from .qoder import BASE as QODER_BASE
from .qoder import DEFAULT_QODER_KEY
from .qoder_process import QoderSandbox
from .server import DEFAULT_API_KEY
from .turns import ReplyTurn, Turn

CHECKOUT = Path(__file__).resolve().parents[2]

Json = dict[str, Any]


@dataclass
class Sandbox:
    """A running sandbox."""

    url: str
    api_key: str
    pid: int
    control: httpx.Client
    qoder_key: str = DEFAULT_QODER_KEY

    @classmethod
    @contextmanager
    def start(
        cls,
        *,
        devices: int = 20,
        seed: int = 1,
        api_key: str = DEFAULT_API_KEY,
        qoder_key: str = DEFAULT_QODER_KEY,
        ssl_context: ssl.SSLContext | None = None,
        **options: object,
    ) -> Iterator[Sandbox]:
        """Start a sandbox and stop it at the end of the block.

        Options are those of the command line, with underscores. With TLS, this object itself connects with
        ``ssl_context``.
        """
        options = {"devices": devices, "seed": seed, "api_key": api_key, "qoder_key": qoder_key, **options}
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not None]
        command = [sys.executable, "-m", "tests.sandbox", "--exit-with-stdin", *arguments]
        with tempfile.TemporaryFile("w+") as stderr:
            process = subprocess.Popen(
                command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
            )
            # Leaving the block also closes the pipes, which ends the child even if the signal did not.
            with process:
                try:
                    assert process.stdout is not None
                    line = process.stdout.readline()
                    if not line:
                        process.wait()
                        stderr.seek(0)
                        raise RuntimeError(f"the sandbox did not start:\n{stderr.read()}")
                    ready = json.loads(line)
                    verify = ssl_context if ssl_context is not None else True
                    # No proxy of the environment may be used between a test and the loopback interface.
                    with httpx.Client(base_url=ready["url"], verify=verify, trust_env=False, timeout=30) as control:
                        yield cls(ready["url"], api_key, ready["pid"], control, qoder_key)
                finally:
                    process.terminate()

    @property
    def qoder(self) -> QoderSandbox:
        """The other provider that this sandbox serves."""
        return QoderSandbox(f"{self.url}{QODER_BASE}", self.qoder_key, self._ask)

    def add_fault(self, fault: str, **rule: Any) -> Json:
        """Add a rule; return it with its counts of matching calls (calls) and of faults (fired)."""
        added: Json = self._ask("POST", "faults", {"fault": fault, **rule})
        return added

    def faults(self) -> list[Json]:
        rules: list[Json] = self._ask("GET", "faults")
        return rules

    def clear_faults(self) -> None:
        self._ask("DELETE", "faults")

    def requests(self, route: str | None = None) -> list[Json]:
        """Return the log of API requests, in the order in which they arrived."""
        entries: list[Json] = self._ask("GET", "requests")
        return [entry for entry in entries if route in (None, entry["route"])]

    def clear_requests(self) -> None:
        self._ask("DELETE", "requests")

    def received(self) -> dict[str, Json]:
        """Return what each environment received, by id; environments that received nothing are absent."""
        received: dict[str, Json] = self._ask("GET", "received")
        return received

    def clear_received(self) -> None:
        self._ask("DELETE", "received")

    def fleet(self) -> list[Json]:
        """Return every environment as ``{id, name, online, source, row}``; row is the API's answer."""
        fleet: list[Json] = self._ask("GET", "fleet")
        return fleet

    def add_environment(self, **row: Any) -> Json:
        """Add an online environment, with raw fields overridden; return its row."""
        return self._row("POST", "environments", row)

    def patch(self, environment_id: str, **row: Any) -> Json:
        """Override raw fields of a row; ``**{"$delete": ["currentMode", "metadata.os"]}`` removes keys."""
        return self._row("PATCH", _path(environment_id), row)

    def rotate(self, environment_id: str, *, restart: bool = False) -> Json:
        """Let the device register again; with restart it also forgets which messages it received."""
        return self._row("POST", _path(environment_id, "rotate"), {"restart": restart})

    def interrupt(self, environment_id: str) -> Json:
        """Let a simulated device restart in the middle of its turns, which go on when it is contacted again."""
        return self._row("POST", _path(environment_id, "interrupt"))

    def background(
        self, environment_id: str, agent_id: str, *processes: Json, conversation_id: str = "default"
    ) -> None:
        """Let processes go on in the background of a conversation on a simulated device."""
        body = {"agent_id": agent_id, "conversation_id": conversation_id, "processes": list(processes)}
        self._ask("POST", _path(environment_id, "background"), body)

    def restart(self) -> None:
        """Let all online simulated devices register again, without a record of the messages they received."""
        self._ask("POST", "restart")

    def offline(self, environment_id: str) -> Json:
        return self._row("POST", _path(environment_id, "offline"))

    def online(self, environment_id: str) -> Json:
        return self._row("POST", _path(environment_id, "online"))

    def age(self, environment_id: str, seconds: float) -> Json:
        """Set the age of the last heartbeat in seconds; it ages from then on."""
        return self._row("POST", _path(environment_id, "age"), {"seconds": seconds})

    def remove(self, environment_id: str) -> None:
        self._ask("DELETE", _path(environment_id))

    def script(self, agent_id: str, *turns: Turn | str, then: Turn | str | None = None) -> None:
        """Give an agent these turns, one after the other; a text is a reply.

        ``then`` is the turn when no other is left, in all of the agent's conversations; by default "Done.".
        """
        body = {"turns": [_turn(turn) for turn in turns], "then": _turn(then) if then is not None else None}
        self._ask("POST", f"agents/{quote(agent_id, safe='')}/script", body)

    def name_agent(self, agent_id: str, name: str) -> None:
        """Give an agent a name; without one it is called like its id."""
        self._ask("POST", f"agents/{quote(agent_id, safe='')}/name", {"name": name})

    def conversations(self, agent_id: str) -> list[Json]:
        """Return the conversations of an agent without its default one, oldest first, as the API has them."""
        headers = {"Authorization": f"Bearer {self.api_key}"}
        query = {"agent_id": agent_id, "order": "asc", "limit": "100000"}
        rows: list[Json] = self.control.get("/v1/conversations/", headers=headers, params=query).json()
        return rows

    def archive(self, conversation_id: str) -> None:
        """Archive a conversation, as a user does."""
        headers = {"Authorization": f"Bearer {self.api_key}"}
        path = f"/v1/conversations/{conversation_id}"
        self.control.patch(path, headers=headers, json={"archived": True}).raise_for_status()

    def remove_agent(self, agent_id: str) -> None:
        """Remove an agent; every other agent id exists."""
        self._ask("DELETE", f"agents/{quote(agent_id, safe='')}")

    def command(
        self, environment_id: str, command_id: str, *, output: str = "", success: bool = True, seconds: float = 0
    ) -> None:
        """Set the effect of a command on a simulated device, instead of its default effect."""
        body = {"command_id": command_id, "output": output, "success": success, "seconds": seconds}
        self._ask("POST", _path(environment_id, "commands"), body)

    def upgrade_to(
        self,
        version: str,
        *,
        lingers: float = 0.05,
        seconds: float = 0.2,
        comes_back: bool = True,
        comes_back_at: str | None = None,
        stays: float | None = None,
    ) -> None:
        """Let upgrade-letta-code bring this version to the simulated devices that can update themselves.

        After its answer a device lingers, then it is away for this many seconds, or for ever; ``comes_back_at`` is a
        version that it has instead, and ``stays`` is the number of seconds after which it then dies.
        """
        times = {"lingers": lingers, "seconds": seconds, "stays": stays}
        way_back = {"comes_back": comes_back, "comes_back_at": comes_back_at}
        self._ask("POST", "upgrade", {"version": version, **times, **way_back})

    def settings(self, **changes: Any) -> Json:
        """Return the settings, after changing those given.

        They are ``offline_status``, ``paired``, ``searches``, ``relay_ping`` and ``qoder_generation``.
        """
        return self._row("POST", "settings", changes) if changes else self._row("GET", "settings")

    def reset(self) -> None:
        """Return to the seeded fleet, without faults, settings or received messages."""
        self._ask("POST", "reset")

    def _row(self, method: str, path: str, body: Json | None = None) -> Json:
        row: Json = self._ask(method, path, body)
        return row

    def _ask(self, method: str, path: str, body: Json | None = None) -> Any:
        # Python's own JSON, because httpx refuses the NaN that a test may put into a row.
        content = json.dumps(body) if body is not None else None
        response = self.control.request(method, f"/_sandbox/{path}", content=content)
        if response.is_error:
            raise RuntimeError(f"{method} {path}: {response.status_code} {response.text}")
        return response.json()


def _turn(turn: Turn | str) -> Json:
    return (ReplyTurn(text=turn) if isinstance(turn, str) else turn).model_dump()


def _path(environment_id: str, event: str = "") -> str:
    return f"environments/{quote(environment_id, safe='')}" + (f"/{event}" if event else "")
