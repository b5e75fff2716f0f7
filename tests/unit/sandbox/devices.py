"""A real device as the sandbox sees it: registered over HTTP, on WebSockets that the tests hold themselves."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.sandbox.process import Sandbox

METADATA = {
    "lettaCodeVersion": "0.34.12",
    "environmentMessageProtocol": "v2-input",
    "supportsPairedListenerGenerations": True,
}


@dataclass
class FakeDevice:
    """A device's end of its sockets."""

    environment_id: str
    connection_id: str
    control: ClientConnection
    stream: ClientConnection | None = None
    ready: list[dict[str, Any]] = field(default_factory=list)
    """The greeting of each socket of a pair."""


def receive(socket: ClientConnection) -> Any:
    """The next frame within five seconds."""
    return json.loads(socket.recv(timeout=5))


def send(socket: ClientConnection, **frame: Any) -> None:
    socket.send(json.dumps(frame))


def read_close(socket: ClientConnection) -> tuple[int | None, str]:
    """Read until the other side closes; returns its code and reason."""
    try:
        while True:
            socket.recv(timeout=5)
    except ConnectionClosed as closed:
        return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (None, "")


def open_socket(url: str, key: str, **query: str) -> ClientConnection:
    """A WebSocket with the key in its header; close it, or use it in a with statement."""
    full = f"{url.replace('http', 'ws', 1)}?{urlencode(query)}"
    return connect(full, additional_headers={"Authorization": f"Bearer {key}"}, proxy=None)


def registration(name: str = "alpha", **changes: Any) -> dict[str, Any]:
    body = {"deviceId": "device-1", "listenerInstanceId": f"server-{name}", "connectionName": name}
    return {**body, "metadata": METADATA, **changes}


@contextmanager
def device(sandbox: Sandbox, http: httpx.Client, **changes: Any) -> Iterator[FakeDevice]:
    """A device that registers and opens the sockets that the sandbox names."""
    reply = http.post("/v1/environments/register", json=registration(**changes)).json()
    with ExitStack() as stack:
        ready = []

        def channel(**query: str) -> ClientConnection:
            named = {"deviceId": "device-1", "connectionName": "alpha", **query}
            socket = stack.enter_context(open_socket(reply["wsUrl"], sandbox.api_key, **named))
            if "channel" in query:
                ready.append(receive(socket))
            return socket

        pair = {"connectionGeneration": "generation-1", "connectionAttempt": "1"}
        if reply["supportsPairedListenerGenerations"]:
            control, stream = channel(channel="control", **pair), channel(channel="stream", **pair)
        else:
            control, stream = channel(), None
        # The answer to a ping proves that the sandbox has processed all earlier frames.
        send(control, type="ping")
        assert receive(control) == {"type": "pong"}
        row = row_of(sandbox, reply["connectionId"])
        yield FakeDevice(row["id"], reply["connectionId"], control, stream, ready)


def row_of(sandbox: Sandbox, connection_id: str) -> dict[str, Any]:
    row: dict[str, Any] = next(e["row"] for e in sandbox.fleet() if e["row"]["connectionId"] == connection_id)
    return row


@contextmanager
def play_device(sandbox: Sandbox, **answers: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A device that answers each type of frame with these frames; yields its row.

    then_sync: how it answers a sync after a mode was set.
    """
    key = {"Authorization": f"Bearer {sandbox.api_key}"}
    over = threading.Event()

    def play(alpha: FakeDevice) -> None:
        while not over.is_set():
            try:
                asked = receive(alpha.control)
            except TimeoutError:
                continue
            frames = answers.get(asked["type"], ())
            if asked["type"] == "change_device_state" and "then_sync" in answers:
                answers["sync"] = answers["then_sync"]
            for frame in frames:
                about = {"runtime": asked["runtime"], "request_id": asked.get("request_id")}
                send(alpha.control, **{**about, **frame})

    with (
        httpx.Client(base_url=sandbox.url, headers=key, trust_env=False) as http,
        device(sandbox, http) as alpha,
    ):
        player = threading.Thread(target=play, args=(alpha,))
        player.start()
        try:
            yield row_of(sandbox, alpha.connection_id)
        finally:
            over.set()
            send(alpha.control, type="ping")
            player.join()
