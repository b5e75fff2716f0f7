"""A cheap network with the API behind it: only the client is measured, so nothing here may wait.

It answers what a listing, a message and the look-up of a campaign ask for, and knows no faults: the sandbox does that,
and answers a fifth as fast. It has a process of its own: ``with start_network(5000, online=True) as network: ...``
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.sandbox.fleet import Environment, Fleet
from tests.sandbox.seeded import seeded_fleet

CHECKOUT = Path(__file__).resolve().parents[2]
SENT = b'{"message": "Message sent to environment", "success": true}'
_END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True)
class Network:
    """A running network. It accepts any key, but every client needs one."""

    url: str
    api_key: str = "key-of-the-benchmarks"

    def taken(self) -> dict[str, int]:
        """The number of messages since the last call, and of the environments' connections that they used."""
        with _opener().open(f"{self.url}/_taken", timeout=30) as response:
            taken: dict[str, int] = json.load(response)
        return taken

    def connections(self) -> list[str]:
        """The connection id of every environment that has one."""
        with _opener().open(f"{self.url}/v1/environments?limit=1000000", timeout=300) as response:
            rows = json.load(response)["connections"]
        return [row["connectionId"] for row in rows if row["connectionId"]]


def _opener() -> urllib.request.OpenerDirector:
    # No proxy of the environment may be used.
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


@contextmanager
def start_network(environments: int, *, online: bool = False, delay: float = 0.0) -> Iterator[Network]:
    """Start a network with this many environments, all online or as the seed has them.

    delay: seconds for each answer.
    """
    command = [sys.executable, "-m", "tests.benchmarks.network", f"--environments={environments}", f"--delay={delay}"]
    with subprocess.Popen(
        [*command, *(["--online"] if online else [])],
        cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            yield Network(json.loads(process.stdout.readline())["url"])
        finally:
            process.terminate()


def fleet_of(environments: int, *, online: bool) -> list[Environment]:
    """The beginning of the sandbox's seeded fleet."""
    fleet = Fleet(itertools.islice(seeded_fleet(environments, seed=1), environments))
    for environment in fleet if online else ():
        fleet.online(environment)
    return list(fleet)


class Api:
    """The API's answers."""

    def __init__(self, environments: list[Environment]) -> None:
        self._environments = environments
        self._places = {environment.id: place for place, environment in enumerate(environments)}
        self._messages = 0
        self._connections: set[bytes] = set()

    def answer(self, method: bytes, path: bytes) -> bytes:
        """The JSON answer to a request."""
        if method == b"POST":
            self._messages += 1
            self._connections.add(path)
            return SENT
        parts = urlsplit(path.decode())
        if parts.path == "/v1/environments":
            return self._page({name: values[0] for name, values in parse_qs(parts.query).items()})
        if parts.path == "/_taken":
            taken = {"messages": self._messages, "connections": len(self._connections)}
            self._messages, self._connections = 0, set()
            return json.dumps(taken).encode()
        # An empty conversation.
        return b"[]"

    def _page(self, query: dict[str, str]) -> bytes:
        start = self._places[query["after"]] + 1 if "after" in query else 0
        end = start + int(query["limit"])
        now = time.time()
        page = [environment.wire(now) for environment in self._environments[start:end]]
        return json.dumps({"connections": page, "hasNextPage": end < len(self._environments)}).encode()


class Connection(asyncio.Protocol):
    """HTTP/1.1 for clients that wait for each answer: a request with its length, an answer with its length."""

    def __init__(self, api: Api, delay: float) -> None:
        self._api = api
        self._delay = delay
        self._received = bytearray()
        self._wanted = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._wanted:
            head_end = self._received.find(_END_OF_HEAD)
            if head_end < 0:
                return
            self._wanted = head_end + len(_END_OF_HEAD) + _length(bytes(self._received[:head_end]))
        if len(self._received) < self._wanted:
            return
        method, path = bytes(self._received[: self._received.index(b"\r")]).split(b" ")[:2]
        self._received, self._wanted = bytearray(), 0
        answer = self._api.answer(method, path)
        head = f"HTTP/1.1 200 OK\r\nDate: {formatdate(usegmt=True)}\r\nContent-Type: application/json\r\n"
        whole = head.encode() + b"Content-Length: %d\r\n\r\n" % len(answer) + answer
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._transport.write, whole)
        else:
            self._transport.write(whole)


def _length(head: bytes) -> int:
    """The length of a request's body. Raises ValueError if the headers do not have it."""
    headers = head.lower()
    if b"\r\ntransfer-encoding:" in headers:
        raise ValueError("a body in chunks is not understood here")
    _before, found, rest = headers.partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r")[0]) if found else 0


async def serve(environments: list[Environment], delay: float) -> None:
    """Serve until standard input ends, as it does with the parent process; print the address on standard output."""
    api, loop = Api(environments), asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(api, delay), "127.0.0.1", 0, backlog=1000)
    sys.stdout.write(json.dumps({"url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"}) + "\n")
    sys.stdout.flush()
    await until_parent_ends()


async def until_parent_ends() -> None:
    """Wait for the end of standard input, which comes with the end of the parent process."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()

    def read() -> None:
        while os.read(0, 1024):
            pass
        loop.call_soon_threadsafe(over.set)

    threading.Thread(target=read, daemon=True).start()
    await over.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.network", description=__doc__)
    parser.add_argument("--environments", type=int, required=True, metavar="N")
    parser.add_argument("--online", action="store_true", help="all of them are online")
    parser.add_argument("--delay", type=float, default=0.0, metavar="SECONDS", help="how long each answer takes")
    options = parser.parse_args()
    asyncio.run(serve(fleet_of(options.environments, online=options.online), options.delay))


if __name__ == "__main__":
    main()
