# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transport of our httpx clients: connections by aiohttp, which takes a fifth of the processor time of httpcore.

A request that went out, as a whole or in part, has the extension `sent`: a server may have acted on it.
"""

from __future__ import annotations

import io
import ssl
import zlib
from typing import Any

from .._deps import aiohttp, httpx, yarl
from ..text import one_line

# Seconds for which a connection is kept without a request.
_KEEP_ALIVE = 5.0
# Most bytes of an answer when it is decompressed. A page of 10,000 rows with all that devices report has 13 MB.
LONGEST_ANSWER = 32 * 1024**2


class AnswerTooLongError(httpx.ReadError):
    """An answer is longer than LONGEST_ANSWER. The rest of it is not read."""


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Sends each request once and reads the whole answer.

    tls: what https servers are verified with. timeout: seconds for connecting, and for each read. proxy: its URL.
    Raises httpx.ConnectError, ConnectTimeout, ProxyError, ReadError, ReadTimeout or InvalidURL; an error of TLS is
    the `__cause__` of a ConnectError. Raises AnswerTooLongError.
    """

    def __init__(self, tls: ssl.SSLContext, *, timeout: float, proxy: str | None) -> None:
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(_mark_as_sent)
        self._session = aiohttp.ClientSession(
            # How many requests go on at a time is decided by the caller.
            connector=aiohttp.TCPConnector(ssl=tls, limit=0, keepalive_timeout=_KEEP_ALIVE),
            timeout=aiohttp.ClientTimeout(total=None, connect=timeout, sock_connect=timeout, sock_read=timeout),
            trace_configs=[trace],
            middlewares=[_send_once],
            proxy=proxy,
            cookie_jar=aiohttp.DummyCookieJar(),
            # httpx sets them; a proxy would get those of the session too.
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            # Neither .netrc nor the system may replace our authorization or proxies.
            trust_env=False,
            # aiohttp has no limit for what comes out of a short body.
            auto_decompress=False,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, whose body is in memory, and read its answer."""
        request.extensions["sent"] = False
        body = request.read()
        try:
            async with self._session.request(
                request.method,
                yarl.URL(str(request.url), encoded=True),
                headers=[(name.decode("ascii"), value.decode("latin-1")) for name, value in request.headers.raw],
                # A stream, since aiohttp warns of long bytes.
                data=io.BytesIO(body) if body else None,
                allow_redirects=False,
                trace_request_ctx=request.extensions,
            ) as response:
                content = await _read_body(response)
        except (aiohttp.ClientError, OSError, ValueError, TypeError, zlib.error) as error:
            raise _make_httpx_error(error) from error
        return httpx.Response(
            response.status,
            # The body is decoded. httpx would decode it again.
            headers=[header for header in response.raw_headers if header[0].lower() != b"content-encoding"],
            content=content,
            extensions={"reason_phrase": (response.reason or "").encode("utf-8", "replace")},
        )

    async def aclose(self) -> None:
        await self._session.close()


async def _read_body(response: Any) -> bytes:
    """The body of an answer, decompressed. One coding is removed. Raises AnswerTooLongError and zlib.error."""
    is_compressed = response.headers.get("Content-Encoding", "").strip().lower() in ("gzip", "deflate")
    # The number is for both codings, each with its header.
    inflate = zlib.decompressobj(32 + zlib.MAX_WBITS) if is_compressed else None
    body = bytearray()
    async for piece in response.content.iter_any():
        body += inflate.decompress(piece, LONGEST_ANSWER + 1 - len(body)) if inflate else piece
        if len(body) > LONGEST_ANSWER:
            raise AnswerTooLongError(f"the answer is longer than {LONGEST_ANSWER // 1024**2} MB")
        if inflate and inflate.unused_data:
            # Not counted above. A second stream is an error too: no server sends one.
            raise zlib.error("bytes follow the end of the compressed answer")
    return bytes(body)


async def _mark_as_sent(_session: Any, context: Any, _params: Any) -> None:
    """Mark a request as sent when its headers go out; a proxy's CONNECT does not count."""
    context.trace_request_ctx["sent"] = True


async def _send_once(request: Any, handler: Any) -> Any:
    """Keep aiohttp from repeating a GET by itself: the repetition would not be counted."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError(one_line(error)) from error


def _make_httpx_error(error: Exception) -> Exception:
    """The httpx exception that means the same; its text is the reason alone."""
    if isinstance(error, TimeoutError):
        kind = httpx.ConnectTimeout if isinstance(error, aiohttp.ConnectionTimeoutError) else httpx.ReadTimeout
        return kind(one_line(error))
    if isinstance(error, aiohttp.ClientHttpProxyError):
        # Its own text has the proxy's password.
        return httpx.ProxyError(f"the proxy answered {error.status} {error.message}")
    if isinstance(error, aiohttp.ClientConnectorError):
        return httpx.ConnectError(f"{error.host}:{error.port}: {error.os_error}")
    if isinstance(error, (ValueError, TypeError)):
        return httpx.InvalidURL(one_line(error))
    return httpx.ReadError(one_line(getattr(error, "message", error)) or type(error).__name__)
