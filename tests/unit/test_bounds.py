"""What a peer may send: each wire has a limit of bytes, and what is beyond it is not read."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleetops.environments.plugins.module_utils.errors import ApiError
from ansible_collections.fleetops.environments.plugins.module_utils.http import transport
from ansible_collections.fleetops.environments.plugins.module_utils.http.client import Answer
from ansible_collections.fleetops.environments.plugins.module_utils.text import one_line

from .support import http_answer, http_get, http_post, raw_server, settings_for

CHECKOUT = Path(__file__).resolve().parents[2]
MEGABYTE = 1024**2
# Megabytes that a hostile peer may send, far beyond every limit; it does not go on for ever, so that a test ends.
ENDLESS = 400

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def ask_in_process(wire: str, url: str) -> dict[str, Any]:
    """The result of one question in a process of its own, see `bounds_process`."""
    command = [sys.executable, "-m", "tests.unit.bounds_process", wire, url]
    environment = {**os.environ, "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / '.build/collections'}"}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=CHECKOUT, env=environment, stdout=asyncio.subprocess.PIPE
    )
    output, _none = await process.communicate()
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


@asynccontextmanager
async def serving(handle: Handler) -> AsyncIterator[str]:
    """The URL of a server that handles each connection, whose client may leave at any time."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            await handle(reader, writer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def make_bomb(megabytes: int) -> bytes:
    """A gzip stream that becomes so many megabytes of JSON."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    pieces = [compressor.compress(b'{"x": "')]
    pieces += [compressor.compress(b"A" * MEGABYTE) for _number in range(megabytes)]
    return b"".join([*pieces, compressor.compress(b'"}'), compressor.flush()])


async def send_small(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(http_answer(b'{"x": 1}'))


async def send_bomb(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(http_answer(make_bomb(ENDLESS), headers=(b"Content-Encoding: gzip",)))


async def send_endless_body(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _number in range(ENDLESS):
        writer.write(b"%x\r\n" % MEGABYTE + b" " * MEGABYTE + b"\r\n")
        await writer.drain()


async def send_endless_error(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    for _number in range(ENDLESS):
        writer.write(b" " * MEGABYTE)
        await writer.drain()


async def send_endless_tail(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A compressed body of a few bytes, and what never ends after it."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n" + make_bomb(0))
    for _number in range(ENDLESS):
        writer.write(b"A" * MEGABYTE)
        await writer.drain()


async def send_error_of_many_words(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(http_answer(b'{"message": "' + b"ab " * (10 * MEGABYTE) + b'"}', status=b"400 Bad Request"))


async def send_endless_head(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(1_000_000):
        writer.write(b"X-%d: aaaaaaaaaaaaaaaaaaaaaaaa\r\n" % number)
        if number % 1000 == 0:
            await writer.drain()


async def send_interim_answers(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for number in range(200_000):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if number % 500 == 0:
            await writer.drain()
    writer.write(http_answer())


@pytest.mark.parametrize(
    ("send", "code"),
    [
        (send_bomb, "too_long"),
        (send_endless_body, "too_long"),
        (send_endless_error, "too_long"),
        (send_endless_tail, "dropped"),
        (send_endless_head, "dropped"),
        (send_interim_answers, None),
    ],
)
def test_an_answer_takes_no_more_memory_than_its_limit(send: Handler, code: str | None) -> None:
    async def run(handle: Handler) -> dict[str, Any]:
        async with serving(handle) as url:
            return await ask_in_process("get", url)

    usual, found = asyncio.run(run(send_small)), asyncio.run(run(send))

    assert (usual["code"], found["code"]) == (None, code)
    if code == "too_long":
        assert re.fullmatch(r"GET \S+/v1/environments: the answer is longer than 32 MB", found["error"])
    assert found["peak"] - usual["peak"] < 4 * transport.LONGEST_ANSWER // MEGABYTE


def test_an_error_of_many_words_takes_no_memory_for_each_word() -> None:
    async def run(handle: Handler) -> dict[str, Any]:
        async with serving(handle) as url:
            return await ask_in_process("get", url)

    usual, found = asyncio.run(run(send_small)), asyncio.run(run(send_error_of_many_words))

    assert found["code"] == "http_400"
    assert found["error"].endswith(" ab ab ab…")
    assert found["peak"] - usual["peak"] < 8 * transport.LONGEST_ANSWER // MEGABYTE


@given(st.text(alphabet="a \n\x00é", max_size=900), st.integers(60, 80))
def test_a_line_holds_all_words_of_a_text_as_far_as_they_fit(text: str, limit: int) -> None:
    words = " ".join(text.replace("\x00", " ").split())

    assert one_line(text, limit) == (words if len(words) <= limit else f"{words[: limit - 1]}…")


@pytest.mark.parametrize("end", ["", "b"])
def test_a_line_says_that_it_leaves_out_what_is_far_behind_blanks(end: str) -> None:
    assert one_line(" " * 9999 + "a" + " " * 9999 + end) == ("a…" if end else "a")


def get_encoded(body: bytes, coding: bytes, **answer: Any) -> Answer:
    """The result of a GET whose answer is compressed, or of a POST if `answer` says so."""
    raw = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
    if coding in raw:
        compressor = zlib.compressobj(wbits=raw[coding])
        body = compressor.compress(body) + compressor.flush()
    posts = answer.pop("posts", False)
    encoded = http_answer(body, headers=(b"Content-Encoding: " + coding,), **answer)

    async def run() -> Answer:
        async with raw_server(lambda _head: encoded) as (url, received):
            try:
                settings = settings_for(url)
                if posts:
                    return await asyncio.to_thread(http_post, settings, "v1", body={}, repeatable=True)
                return await asyncio.to_thread(http_get, settings, "v1")
            finally:
                assert len(received) == 1

    return asyncio.run(run())


@given(coding=st.sampled_from([b"identity", b"gzip", b"deflate"]), over=st.sampled_from([-100, -1, 0, 1, 100]))
def test_the_limit_holds_for_the_decompressed_body_to_the_byte(coding: bytes, over: int) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(transport, "LONGEST_ANSWER", 2 * MEGABYTE)
        body = b'"%s"' % (b"x" * (2 * MEGABYTE - 2 + over))
        if over <= 0:
            answer = get_encoded(body, coding)
            assert (len(answer.data), answer.size) == (len(body) - 2, len(body))
            return
        with pytest.raises(ApiError, match=r"the answer is longer than 2 MB$") as raised:
            get_encoded(body, coding)
    assert (raised.value.code, raised.value.transient, raised.value.attempts) == ("too_long", False, 1)


def test_a_post_with_too_long_an_answer_may_have_been_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "LONGEST_ANSWER", MEGABYTE)

    with pytest.raises(ApiError, match="longer than 1 MB") as raised:
        get_encoded(b" " * (MEGABYTE + 1), b"gzip", posts=True, status=b"500 Oops")

    assert raised.value.may_be_accepted


@pytest.mark.parametrize("body", [b"no gzip", make_bomb(1)[:-20], make_bomb(0) + b"\n", make_bomb(0) * 2])
def test_a_body_that_cannot_be_decompressed_is_an_error(body: bytes) -> None:
    async def run() -> None:
        answer = http_answer(body, headers=(b"Content-Encoding: gzip",))
        async with raw_server(lambda _head: answer) as (url, _received):
            await asyncio.to_thread(http_get, settings_for(url, retries=0), "v1")

    with pytest.raises(ApiError) as raised:
        asyncio.run(run())
    assert raised.value.code in ("dropped", "not_json")


# The relay


@asynccontextmanager
async def relaying(talk: Callable[[web.WebSocketResponse], Awaitable[None]]) -> AsyncIterator[tuple[str, list[int]]]:
    """The URL of a relay that talks to each client, which may leave at any time; and a list with an entry for each."""
    clients: list[int] = []

    async def handle(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        clients.append(1)
        with suppress(ConnectionError, TypeError):
            await talk(socket)
        return socket

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", clients
    finally:
        await runner.cleanup()


async def send_large_frame(socket: web.WebSocketResponse) -> None:
    await socket.send_str('{"type": "sync_response", "x": "' + "x" * 17 * MEGABYTE + '"}')
    await socket.receive()


async def send_endless_output(socket: web.WebSocketResponse) -> None:
    """Starts a shell, and answers the first operation with output that never ends."""
    terminal = json.loads(await socket.receive_str())["terminal_id"]

    async def show(data: str) -> None:
        await socket.send_json({"type": "terminal_output", "terminal_id": terminal, "data": data})

    [mark] = re.findall("n=([0-9a-f]+);", json.loads(await socket.receive_str())["data"])
    await show(f"<{mark} ready>")
    while not json.loads(await socket.receive_str())["data"].startswith("run "):
        pass
    await show(f"<{mark} running><{mark} out ->")
    for _number in range(ENDLESS):
        await show("A" * MEGABYTE)


@pytest.mark.parametrize(
    ("wire", "talk", "message"),
    [
        ("relay", send_large_frame, "no answer to sync: a frame is longer than 16 MB"),
        ("terminal", send_endless_output, "the command printed more than 1 MB and was ended; raise max_output "),
    ],
)
def test_a_relay_takes_no_more_memory_than_its_limits(
    wire: str, talk: Callable[[web.WebSocketResponse], Awaitable[None]], message: str
) -> None:
    async def run() -> tuple[dict[str, Any], dict[str, Any], int]:
        async with serving(send_small) as url:
            usual = await ask_in_process("get", url)
        async with relaying(talk) as (url, clients):
            return usual, await ask_in_process(wire, url), len(clients)

    usual, found, connections = asyncio.run(run())

    assert (found["code"], connections) == ("too_long", 1)
    assert f"/v1/environments/connection/status/ws: {message}" in found["error"]
    assert found["peak"] - usual["peak"] < 100
