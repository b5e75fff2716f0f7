# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTTP policy for every provider: authentication, time-outs, retries, redirects, errors."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from .._deps import httpx, pydantic
from ..errors import ApiError, find_first_problem
from ..text import one_line
from . import problems
from .gate import parse_date
from .retry import call_with_retries
from .sanitize import parse_json, sanitize
from .settings import HttpSettings
from .transport import AiohttpTransport

T = TypeVar("T")
_NOT_JSON = object()
_encode_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
# The statuses of a whole answer: 206 has a part of one, 203 one that a proxy changed.
_SUCCESS = (200, 201, 202, 204)
# Ansible's own log takes what is logged at INFO, also of tasks with no_log, and httpx logs each request there.
logging.getLogger("httpx").setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer.

    data: the decoded JSON. date: when the server gave it (its Date; our clock if that is absent or earlier, see
    `_read_date`). attempts: how many requests it took. unclear: whether one of those before may have been accepted.
    size: bytes of the body. where: names the call in errors.
    """

    data: Any
    date: datetime
    attempts: int = 1
    unclear: bool = False
    size: int = 0
    where: str = ""

    def read_as(self, read: Callable[[Any], T], *, may_be_accepted: bool = False) -> T:
        """The data as a pydantic model's `model_validate` reads them. Raises ApiError."""
        try:
            return read(self.data)
        except pydantic.ValidationError as error:
            message, attempts = f"{self.where}: unexpected answer: {find_first_problem(error)}", self.attempts
            raise ApiError(message, code="invalid", may_be_accepted=may_be_accepted, attempts=attempts) from None


class _NoCookies(httpx.Cookies):
    def extract_cookies(self, response: httpx.Response) -> None:
        """Keep no cookie: what one answer sets must not go out with the next request."""


class _AsyncClient(httpx.AsyncClient):
    cookies: Any = _NoCookies()


class HttpClient(AbstractAsyncContextManager["HttpClient"]):
    """Sends requests to one base URL with one key. Use as an async context manager.

        async with HttpClient(settings) as client:
            answer = await client.get("v1", "environments", params={"limit": "100"})

    `get` and `post` return an Answer or raise ApiError.
    """

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._client = _AsyncClient(
            transport=AiohttpTransport(settings.tls_context(), timeout=settings.timeout, proxy=settings.proxy),
            headers={**settings.headers(), "Accept": "application/json", "Accept-Encoding": "gzip"},
            timeout=settings.timeout,
            trust_env=False,
            # Before httpx reads the address of a redirect, which it also does if it does not follow it.
            event_hooks={"response": [self._refuse_redirect]},
        )
        self._post_headers = {**self._client.headers, "content-type": "application/json"}

    async def __aexit__(self, *_exc_info: object) -> None:
        await self._client.aclose()

    async def get(self, *segments: str, params: Mapping[str, str] | None = None) -> Answer:
        """GET the path made of `segments`; they are percent-encoded here."""
        return await self._call(self._build_request("GET", segments, params, self._client.headers), repeatable=True)

    async def post(
        self,
        *segments: str,
        body: Any,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool,
        final: Sequence[int] = (),
    ) -> Answer:
        """POST `body` as JSON.

        repeatable: the server (or the device behind it) ignores a repetition, so an unclear failure may be retried;
            otherwise only a request that cannot have been accepted is sent again.
        final: statuses to raise at once although they are transient.
        """
        request = self._build_request("POST", segments, params, {**self._post_headers, **(headers or {})}, body)
        return await self._call(request, repeatable=repeatable, final=final)

    def _build_request(
        self,
        method: str,
        segments: Sequence[str],
        params: Mapping[str, str] | None,
        headers: Mapping[str, str],
        body: Any = None,
    ) -> httpx.Request:
        """The request of all tries of a call; its extension `where` names it in errors. Raises ApiError.

        AsyncClient.build_request would merge URLs, headers and cookies, which takes as long as to send it.
        """
        url = self._settings.url(*segments)
        where = f"{method} {one_line(url)}"
        try:
            return httpx.Request(
                method,
                httpx.URL(url, params=params) if params else url,
                headers=headers,
                # Not `content`, for which httpx works out headers that the transport sets anyway.
                stream=httpx.ByteStream(b"" if method == "GET" else _encode_json(body).encode()),
                extensions={"where": where},
            )
        except (httpx.InvalidURL, ValueError, TypeError) as error:
            raise ApiError(f"{where}: {one_line(error)}", code="invalid") from None

    async def _call(self, request: httpx.Request, *, repeatable: bool, final: Sequence[int] = ()) -> Answer:
        answer, attempts, unclear = await call_with_retries(
            self._settings,
            request.extensions["where"],
            lambda: self._send(request),
            repeatable=repeatable,
            final=final,
            may_be_accepted=lambda: _may_be_accepted(request),
        )
        return replace(answer, attempts=attempts, unclear=unclear)

    async def _send(self, request: httpx.Request) -> Answer:
        where = request.extensions["where"]
        try:
            response = await self._client.send(request)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise problems.make_transport_error(
                where, error, _may_be_accepted(request), self._settings.timeout
            ) from None
        # It refers back to the response: both bodies would be kept until the garbage collector comes.
        del response.stream
        return self._read(where, response, _may_be_accepted(request))

    async def _refuse_redirect(self, response: httpx.Response) -> None:
        if 300 <= response.status_code < 400:
            request = response.request
            location = problems.hide_secrets(self._clean(_read_header(response, "location") or ""))
            status, may_be_accepted = response.status_code, _may_be_accepted(request)
            raise problems.make_redirect_error(request.extensions["where"], location, status, may_be_accepted)

    def _read(self, where: str, response: httpx.Response, may_be_accepted: bool) -> Answer:
        code = response.status_code
        text = self._clean(response.content.decode("utf-8", "replace"))
        try:
            data = parse_json(text, self._settings.api_key)
        except ValueError:
            data = _NOT_JSON
        if code not in _SUCCESS:
            reason = response.extensions["reason_phrase"].decode("utf-8", "replace")
            status = f"{code:03} {one_line(self._clean(reason))}".rstrip()
            message = f"{where}: {status}: {problems.find_server_message(data, text)}"
            wait, param = _read_header(response, "retry-after"), problems.find_param(data)
            raise problems.make_status_error(message, code, wait, param=param, may_be_accepted=may_be_accepted)
        if data is _NOT_JSON:
            message = f"{where}: answered {code} with {problems.describe_body(text)} instead of JSON"
            raise ApiError(message, code="not_json", status=code, may_be_accepted=may_be_accepted)
        return Answer(data, self._read_date(response), size=len(response.content), where=where)

    def _read_date(self, response: httpx.Response) -> datetime:
        """When the server gave an answer: by its clock, or by the earlier one where it and ours differ by a minute.

        A clock that is ahead makes heartbeats look old. One comes each 30 s, and 120 s is too old: less does no harm.
        """
        now = datetime.now(UTC)
        date = parse_date(_read_header(response, "date")) or now
        minutes = abs(date - now) // timedelta(minutes=1)
        if minutes and not self._settings.notes:
            where = self._settings.base_url
            self._settings.notes.append(f"{where}: its clock and ours differ by {minutes} min; the earlier one counts")
        return min(date, now) if minutes else date

    def _clean(self, value: Any) -> Any:
        return sanitize(value, self._settings.api_key)


def _may_be_accepted(request: httpx.Request) -> bool:
    """Whether a server may have acted on a request: it wants something done, and some of it went out."""
    return request.method != "GET" and bool(request.extensions.get("sent"))


def _read_header(response: httpx.Response, name: str) -> str | None:
    """The first value of a header, which httpx joins with later ones; None if it is absent."""
    return next(iter(response.headers.get_list(name)), None)
