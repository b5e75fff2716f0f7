# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTTP policy for every provider: authentication, time-outs, retries, redirects, errors."""

from __future__ import annotations

import ssl
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self

from ._deps import httpx
from .errors import ApiError, one_line
from .harmless import harmless, parsed
from .http_settings import HttpSettings
from .retries import attempted

_NOT_JSON = object()


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """A Retry-After header in seconds; None when absent or unreadable.

    The header is a number of seconds or an HTTP date (RFC 9110, 10.2.3).
    """
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value.strip())
    try:
        moment = parsedate_to_datetime(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


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


class _Progress:
    """How far a request has come: whether any of it went out, which is when it may have been accepted."""

    sending = False

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        # What a proxy is asked to connect to is no part of the request.
        if event.endswith("send_request_headers.started") and info["request"].method != b"CONNECT":
            self.sending = True


class HttpClient:
    """Sends requests to one base URL with one key. Use as an async context manager.

    `get` and `post` return a Reply or raise ApiError.
    """

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._http = httpx.AsyncClient(
            headers={**settings.headers(), "Accept": "application/json"},
            verify=settings.tls_context(),
            timeout=settings.timeout,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=100),
            proxy=settings.proxy(),
            # Neither .netrc nor the system may replace our authorization or proxies.
            trust_env=False,
            follow_redirects=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc_info: object) -> None:
        await self._http.aclose()

    async def get(self, *segments: str, params: Mapping[str, str] | None = None) -> Reply:
        """GET the path made of `segments`; they are percent-encoded here."""
        return await self._call("GET", segments, params, None, repeatable=True, final=())

    async def post(
        self,
        *segments: str,
        body: Any,
        params: Mapping[str, str] | None = None,
        repeatable: bool,
        final: Sequence[int] = (),
    ) -> Reply:
        """POST `body` as JSON.

        repeatable: the server (or the device behind it) ignores a repetition, so an unclear failure may be retried;
            otherwise only a request that cannot have been accepted is sent again.
        final: statuses to raise at once although they are transient.
        """
        return await self._call("POST", segments, params, body, repeatable=repeatable, final=final)

    async def _call(
        self,
        method: str,
        segments: Sequence[str],
        params: Mapping[str, str] | None,
        body: Any,
        *,
        repeatable: bool,
        final: Sequence[int],
    ) -> Reply:
        url = self._settings.url(*segments)
        progress = _Progress()
        done = await attempted(
            self._settings,
            f"{method} {one_line(url)}",
            lambda: self._once(method, url, params, body, progress),
            repeatable=repeatable,
            final=final,
            may_be_accepted=lambda: method != "GET" and progress.sending,
        )
        return replace(done.value, attempts=done.attempts, unclear=done.unclear)

    async def _once(
        self, method: str, url: str, params: Mapping[str, str] | None, body: Any, progress: _Progress
    ) -> Reply:
        where = f"{method} {one_line(url)}"
        sending = method != "GET"
        progress.sending = False
        try:
            response = await self._http.request(
                method, url, params=params, json=body, extensions={"trace": progress.trace}
            )
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, ValueError, TypeError) as error:
            raise _transport_error(where, error, sending and progress.sending, self._settings.timeout) from None
        return self._read(where, response, sending)

    def _read(self, where: str, response: Any, sending: bool) -> Reply:
        text = self._harmless(response.content.decode("utf-8", "replace"))
        now = datetime.now(UTC)
        if response.is_redirect:
            location = _without_secrets(self._harmless(response.headers.get("location", "")))
            raise ApiError(
                f"{where}: redirected to {location}, which is not followed so that the key reaches no other host; "
                "set base_url to the address meant",
                code="redirect",
                status=response.status_code,
            )
        try:
            data = parsed(text, self._settings.api_key)
        except ValueError:
            data = _NOT_JSON
        if not response.is_success:
            status = f"{response.status_code} {self._harmless(response.reason_phrase)}".rstrip()
            raise _status_error(f"{where}: {status}: {_server_message(data, text)}", response, sending, now)
        if data is _NOT_JSON:
            raise ApiError(
                f"{where}: answered {response.status_code} with {_described(text)} instead of JSON",
                code="not_json",
                status=response.status_code,
                may_be_accepted=sending,
            )
        return Reply(data, _date_of(response, now))

    def _harmless(self, value: Any) -> Any:
        return harmless(value, self._settings.api_key)


def _date_of(response: Any, now: datetime) -> datetime:
    try:
        date = parsedate_to_datetime(response.headers["date"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return now
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _transport_error(where: str, error: Exception, accepted: bool, timeout: float) -> ApiError:
    before_sending = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError))
    tls = _tls_cause(error)
    if tls is not None:
        return tls_error(where, tls)
    if isinstance(error, httpx.TimeoutException):
        phase = "connection" if before_sending else "answer"
        message = f"{where}: no {phase} within the timeout of {timeout:g} s"
        return ApiError(message, code="timeout", may_be_accepted=accepted, transient=True)
    if before_sending:
        return ApiError(f"{where}: cannot connect: {one_line(error)}", code="connect", transient=True)
    if isinstance(error, (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError, TypeError)):
        return ApiError(f"{where}: {one_line(error)}", code="invalid")
    message = f"{where}: the connection was dropped: {one_line(error) or type(error).__name__}"
    return ApiError(message, code="dropped", may_be_accepted=accepted, transient=True)


def tls_error(where: str, cause: BaseException) -> ApiError:
    """The error of a connection that TLS did not let come about."""
    reason = getattr(cause, "verify_message", "") or getattr(cause, "reason", "") or cause
    return ApiError(f"{where}: TLS failure: {one_line(reason)} (see ca_path and client_cert)", code="tls")


def _tls_cause(error: BaseException | None) -> ssl.SSLError | None:
    """The TLS error behind an error; a peer that just hung up is none."""
    while error is not None:
        if isinstance(error, ssl.SSLError) and not isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            return error
        error = error.__cause__ or error.__context__
    return None


def _status_error(message: str, response: Any, sending: bool, now: datetime) -> ApiError:
    status = response.status_code
    retry_after = retry_after_seconds(response.headers.get("retry-after"), now)
    if status in (401, 403):
        message += " (the server refused the key given with api_key)"
    if retry_after is not None:
        message += f" (the server asked to wait {retry_after:.0f} s)"
    return ApiError(
        message,
        code=f"http_{status}",
        status=status,
        retry_after=retry_after,
        # Not 503: Letta answers it, like 404, for a connection that is gone.
        may_be_accepted=sending and (status == 408 or (status >= 500 and status != 503)),
        transient=status in (408, 429) or status >= 500,
    )


def _server_message(body: Any, text: str) -> str:
    """The message of an error envelope: `{errorCode, message}` or `{error, errorCode}`."""
    if not isinstance(body, dict):
        return _described(text)
    parts = [body.get("errorCode"), body.get("message") or body.get("error")]
    return one_line(": ".join(part for part in parts if isinstance(part, str) and part)) or _described(text)


def _described(text: str) -> str:
    start = text.strip()
    if not start:
        return "an empty body"
    if start[:1] == "<":
        return f"an HTML page ({one_line(start, 60)})"
    return one_line(start, 80)


def _without_secrets(location: str) -> str:
    try:
        parts = urllib.parse.urlsplit(location)
        return one_line(urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")))
    except ValueError:
        return "an unreadable address"
