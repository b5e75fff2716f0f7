"""A port behind which a server is far away: ``with start_delay(5432, 0.002) as port: ...``

What one side sends reaches the other half a round trip later, however much of it is under way.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from .network import CHECKOUT, until_parent_ends


@contextmanager
def start_delay(port: int, round_trip: float) -> Iterator[int]:
    """Start a process that passes connections on to a port of the loopback interface. round_trip: seconds."""
    command = [sys.executable, "-m", "tests.benchmarks.delay", f"--port={port}", f"--round-trip={round_trip}"]
    with subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(json.loads(process.stdout.readline())["port"])
        finally:
            process.terminate()


class Late(asyncio.Protocol):
    """One side of a connection: what it receives is written to the other side after a while."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._under_way: deque[bytes | None] = deque()
        self._other: asyncio.Transport | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._pass_on(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pass_on(None)

    def join(self, other: asyncio.Transport) -> None:
        """Write to the other side from now on, first what has been received."""
        self._other = other
        for _data in tuple(self._under_way):
            self._write_next()

    def _pass_on(self, data: bytes | None) -> None:
        self._under_way.append(data)
        if self._other is not None:
            # Timers of the same moment may come in another order. Each one writes what was received first.
            asyncio.get_running_loop().call_later(self._delay, self._write_next)

    def _write_next(self) -> None:
        assert self._other is not None
        data = self._under_way.popleft()
        if data is None:
            self._other.close()
        else:
            self._other.write(data)


async def serve(port: int, round_trip: float) -> None:
    """Serve until standard input ends; print the port on standard output."""
    loop = asyncio.get_running_loop()
    opening: set[asyncio.Task[None]] = set()

    class Near(Late):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            task = loop.create_task(self._open())
            opening.add(task)
            task.add_done_callback(opening.discard)

        async def _open(self) -> None:
            far = Late(self._delay)
            there, _protocol = await loop.create_connection(lambda: far, "127.0.0.1", port)
            assert self.transport is not None
            far.join(self.transport)
            await asyncio.sleep(2 * self._delay)
            self.join(there)

    server = await loop.create_server(lambda: Near(round_trip / 2), "127.0.0.1", 0)
    sys.stdout.write(json.dumps({"port": server.sockets[0].getsockname()[1]}) + "\n")
    sys.stdout.flush()
    await until_parent_ends()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.delay", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="of the server")
    parser.add_argument("--round-trip", type=float, required=True, metavar="SECONDS")
    options = parser.parse_args()
    asyncio.run(serve(options.port, options.round_trip))


if __name__ == "__main__":
    main()
