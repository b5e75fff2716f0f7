# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTTP policy for every provider: authentication, time-outs, retries, redirects, errors."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Self

from .._deps import aiohttp, httpx, pydantic, yarl
from ..errors import ApiError, first_problem
from ..text import one_line
from .problems import _blamed, _described, _server_message, _status_error, _transport_error, _without_secrets
from .retry import attempted
from .sanitize import harmless, parsed
from .settings import HttpSettings

_NOT_JSON = object()
# Seconds for which a connection is kept without a request.
_KEPT_ALIVE = 5.0
# An address that is sent as it stands: it is not too long, and nothing in it has another spelling.
_PLAIN_ADDRESS = re.compile(r"https?://[a-z0-9.-]+(?::[0-9]{1,5})?(?:/(?:[/\w.~-]|%[0-9A-F]{2}){0,2000})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reply:
    """A successful answer.

    data: the decoded JSON. date: when the server gave it (its Date, else our clock). attempts: how many requests it
    took. unclear: whether one of those before may have been accepted.
    """

    data: Any
    date: datetime
    attempts: int = 1
    unclear: bool = False

    def read_as(self, model: Any, where: str, *, may_be_accepted: bool = False) -> Any:
        """The data as a pydantic model has them. where: names the call in the error. Raises ApiError."""
        try:
            return model.model_validate(self.data)
        except pydantic.ValidationError as error:
            raise ApiError(
                f"{where}: unexpected answer: {first_problem(error)}",
                code="invalid",
                may_be_accepted=may_be_accepted,
                attempts=self.attempts,
            ) from None


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked. headers: besides those that every request carries."""

    method: str
    url: str
    params: Mapping[str, str]
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def sends(self) -> bool:
        """Whether the server is to do something."""
        return self.method != "GET"

    @property
    def where(self) -> str:
        """What it is called in errors."""
        return f"{self.method} {one_line(self.url)}"


class _Progress:
    """How far a request has come: whether any of it went out, which is when it may have been accepted."""

    sending = False

    @staticmethod
    async def note(_session: Any, context: Any, _params: Any) -> None:
        """Note that a request is about to go out; what a proxy is asked to connect to is no part of it."""
        context.trace_request_ctx.sending = True


async def _unrepeated(request: Any, handler: Any) -> Any:
    """Keep aiohttp from repeating a GET by itself, which nobody would count."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError(one_line(error)) from error


class HttpClient:
    """Sends requests to one base URL with one key. Use as an async context manager.

    `get` and `post` return a Reply or raise ApiError.
    """

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        # Not the session's: a proxy would get those too.
        self._headers = {**settings.headers(), "Accept": "application/json"}
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(_Progress.note)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=settings.tls_context(),
                limit=0,  # how many go on at a time is decided by who asks
                keepalive_timeout=_KEPT_ALIVE,
            ),
            timeout=aiohttp.ClientTimeout(
                total=None, connect=settings.timeout, sock_connect=settings.timeout, sock_read=settings.timeout
            ),
            trace_configs=[trace],
            middlewares=[_unrepeated],
            proxy=settings.proxy,
            # What one answer sets must not go out with the next request.
            cookie_jar=aiohttp.DummyCookieJar(),
            # Neither .netrc nor the system may replace our authorization or proxies.
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc_info: object) -> None:
        await self._session.close()

    async def get(self, *segments: str, params: Mapping[str, str] | None = None) -> Reply:
        """GET the path made of `segments`; they are percent-encoded here."""
        return await self._call(_Request("GET", self._settings.url(*segments), params or {}), repeatable=True)

    async def post(
        self,
        *segments: str,
        body: Any,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool,
        final: Sequence[int] = (),
    ) -> Reply:
        """POST `body` as JSON.

        repeatable: the server (or the device behind it) ignores a repetition, so an unclear failure may be retried;
            otherwise only a request that cannot have been accepted is sent again.
        final: statuses to raise at once although they are transient.
        """
        request = _Request("POST", self._settings.url(*segments), params or {}, body, headers or {})
        return await self._call(request, repeatable=repeatable, final=final)

    async def _call(self, request: _Request, *, repeatable: bool, final: Sequence[int] = ()) -> Reply:
        progress, where = _Progress(), request.where
        done = await attempted(
            self._settings,
            where,
            lambda: self._once(request, where, progress),
            repeatable=repeatable,
            final=final,
            may_be_accepted=lambda: request.sends and progress.sending,
        )
        return replace(done.value, attempts=done.attempts, unclear=done.unclear)

    async def _once(self, request: _Request, where: str, progress: _Progress) -> Reply:
        progress.sending, sends = False, request.sends
        try:
            data, kind = (_encoded(request.body), {"Content-Type": "application/json"}) if sends else (None, {})
            async with self._session.request(
                request.method,
                _address(request.url, request.params),
                headers={**self._headers, **request.headers, **kind},
                data=data,
                allow_redirects=False,
                trace_request_ctx=progress,
            ) as response:
                content = await response.read()
        except (aiohttp.ClientError, httpx.InvalidURL, OSError, ValueError, TypeError) as error:
            raise _transport_error(where, error, sends and progress.sending, self._settings.timeout) from None
        return self._read(where, response, content, sends)

    def _read(self, where: str, response: Any, content: bytes, sending: bool) -> Reply:
        text = self._harmless(content.decode("utf-8", "replace"))
        now = datetime.now(UTC)
        if 300 <= response.status < 400:
            location = _without_secrets(self._harmless(response.headers.get("location", "")))
            raise ApiError(
                f"{where}: redirected to {location}, which is not followed so that the key reaches no other host; "
                "set base_url to the address meant",
                code="redirect",
                status=response.status,
                # "See Other" is what a server says once it has acted (RFC 9110, 15.4.4); the others send it elsewhere.
                may_be_accepted=sending and response.status == HTTPStatus.SEE_OTHER,
            )
        try:
            data = parsed(text, self._settings.api_key)
        except ValueError:
            data = _NOT_JSON
        if not response.ok:
            status = f"{response.status} {one_line(self._harmless(response.reason or ''))}".rstrip()
            message = f"{where}: {status}: {_server_message(data, text)}"
            raise _status_error(message, response, _blamed(data), sending, now)
        if data is _NOT_JSON:
            raise ApiError(
                f"{where}: answered {response.status} with {_described(text)} instead of JSON",
                code="not_json",
                status=response.status,
                may_be_accepted=sending,
            )
        return Reply(data, _date_of(response, now))

    def _harmless(self, value: Any) -> Any:
        return harmless(value, self._settings.api_key)


def _address(url: str, params: Mapping[str, str]) -> Any:
    """The address to ask, exactly so: aiohttp alone would undo some of its percent-encoding."""
    if not params and "/." not in url and _PLAIN_ADDRESS.fullmatch(url):
        return yarl.URL(url, encoded=True)
    whole = httpx.URL(url, params=params or None)
    text = f"{whole.scheme}://{whole.netloc.decode('ascii')}{whole.raw_path.decode('ascii')}"
    return yarl.URL(text, encoded=True)


def _encoded(body: Any) -> io.BytesIO:
    """A body as JSON; a stream, since aiohttp warns of long bytes."""
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return io.BytesIO(text.encode())


def _date_of(response: Any, now: datetime) -> datetime:
    try:
        date = parsedate_to_datetime(response.headers["date"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return now
    return date if date.tzinfo else date.replace(tzinfo=UTC)
