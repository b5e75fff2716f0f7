# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTTP policy for every provider: authentication, TLS, proxies, time-outs, retries, errors."""

from __future__ import annotations

import asyncio
import functools
import json
import ssl
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Self

from ._deps import httpx, tenacity
from .errors import ApiError, OptionError, one_line

USER_AGENT = "fleetops.environments"
MAX_RETRY_AFTER = 60.0
# Shorter keys are dummies for local servers, and may be part of an innocent word.
_SHORTEST_SECRET = 8
_REDACTED = "********"


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """The connection options of a provider, validated.

    timeout: seconds for connecting and for each read and write of one request.
    deadline: seconds for one call with all its retries.
    """

    base_url: str
    api_key: str = field(repr=False)
    timeout: float = 30.0
    retries: int = 5
    deadline: float = 120.0
    validate_certs: bool = True
    ca_path: str | None = None
    client_cert: str | None = None
    client_key: str | None = None

    @classmethod
    def from_options(cls, options: Mapping[str, Any], *, api_key_help: str) -> HttpSettings:
        """Options as a plugin read them, blanks already removed.

        api_key_help: how the user gives a key, for the error when there is none.
        Raises OptionError.
        """
        for name in ("timeout", "deadline"):
            if not 0 < options[name] <= 86400:
                raise OptionError(name, f"must be between 0 and 86400 seconds, got {options[name]}")
        if options["retries"] < 0:
            raise OptionError("retries", f"must be 0 or more, got {options['retries']}")
        if options.get("client_key") and not options.get("client_cert"):
            raise OptionError("client_key", "needs client_cert")
        settings = cls(
            base_url=_checked_base_url(options["base_url"]),
            api_key=_checked_key(options, api_key_help),
            timeout=float(options["timeout"]),
            retries=int(options["retries"]),
            deadline=float(options["deadline"]),
            validate_certs=bool(options["validate_certs"]),
            ca_path=options.get("ca_path"),
            client_cert=options.get("client_cert"),
            client_key=options.get("client_key"),
        )
        _tls_context(settings.validate_certs, settings.ca_path, settings.client_cert, settings.client_key)
        return settings


def _checked_base_url(value: str) -> str:
    try:
        parts = urllib.parse.urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or any(character.isspace() or not character.isprintable() for character in value):
        raise OptionError("base_url", f"must be an http or https URL such as https://api.letta.com, got {value!r}")
    if parts.username or parts.password:
        raise OptionError("base_url", "must not hold a user name or password; give the key with api_key")
    if parts.query or parts.fragment:
        raise OptionError("base_url", f"must end before '?' and '#', got {value!r}")
    return value.rstrip("/")


def _checked_key(options: Mapping[str, Any], api_key_help: str) -> str:
    key = options.get("api_key")
    source = "api_key"
    path = options.get("api_key_file")
    if not key and path:
        source = "api_key_file"
        try:
            key = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise OptionError(source, f"cannot read {path!r}: {one_line(error)}") from None
        if not key:
            raise OptionError(source, f"{path!r} is empty")
    if not key:
        raise OptionError(source, f"no key was given; {api_key_help}")
    key = str(key)
    if not key.isascii() or not key.isprintable() or " " in key:
        # The value is not shown: it is a secret even when it is malformed.
        raise OptionError(source, "the key has characters that no key has (white space, control or non-ASCII ones)")
    return key


@functools.lru_cache(maxsize=8)
def _tls_context(
    validate: bool, ca_path: str | None, client_cert: str | None, client_key: str | None
) -> ssl.SSLContext:
    if not validate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca_path is None:
        context = httpx.create_ssl_context()
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            kind = "capath" if Path(ca_path).is_dir() else "cafile"
            context.load_verify_locations(**{kind: ca_path})
        except (OSError, ssl.SSLError) as error:
            raise OptionError("ca_path", f"cannot load {ca_path!r}: {one_line(error)}") from None
    if client_cert:
        try:
            context.load_cert_chain(client_cert, client_key)
        except (OSError, ssl.SSLError) as error:
            raise OptionError(
                "client_cert", f"cannot load {client_cert!r} with client_key {client_key!r}: {one_line(error)}"
            ) from None
    return context


# Made before Ansible forks its workers: it costs more than a request.
_tls_context(True, None, None, None)


def _proxy_for(base_url: str) -> str | None:
    """The proxy that the environment names; the system's own look-up on macOS is not fork-safe."""
    parts = urllib.parse.urlsplit(base_url)
    if urllib.request.proxy_bypass_environment(parts.netloc):  # type: ignore[attr-defined]
        return None
    proxies = urllib.request.getproxies_environment()
    return proxies.get(parts.scheme) or proxies.get("all")


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
    except (TypeError, ValueError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


@dataclass(frozen=True, slots=True)
class Reply:
    """A successful answer: the decoded JSON, when the server gave it (its Date, else our clock), on which attempt."""

    data: Any
    date: datetime
    attempts: int = 1


class HttpClient:
    """Sends requests to one base URL with one key. Use as an async context manager.

    `get` and `post` return a Reply or raise ApiError.
    """

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._http = httpx.AsyncClient(
            headers={
                "Authorization": f"Bearer {settings.api_key}",
                "Accept": "application/json",
                "User-Agent": USER_AGENT,
            },
            verify=_tls_context(settings.validate_certs, settings.ca_path, settings.client_cert, settings.client_key),
            timeout=settings.timeout,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=100),
            proxy=_proxy_for(settings.base_url),
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
        settings = self._settings
        url = settings.base_url + "".join("/" + _encoded(segment) for segment in segments)
        deadline = time.monotonic() + settings.deadline
        unclear = False

        def again(error: BaseException) -> bool:
            nonlocal unclear
            if not isinstance(error, ApiError):
                return False
            unclear = unclear or error.may_be_accepted
            if not error.transient or error.status in final:
                return False
            if (error.retry_after or 0) > min(MAX_RETRY_AFTER, deadline - time.monotonic()):
                return False
            return repeatable or not error.may_be_accepted

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(again),
            wait=_wait,
            stop=tenacity.stop_after_attempt(settings.retries + 1) | tenacity.stop_before_delay(settings.deadline),
            reraise=True,
        )
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + settings.deadline):
                reply: Reply = await retrying(self._once, method, url, params, body)
                return replace(reply, attempts=_attempts(retrying))
        except TimeoutError:
            message = f"{method} {url}: no answer within the deadline of {settings.deadline:g} s"
            raise ApiError(message, code="timeout", may_be_accepted=True, attempts=_attempts(retrying)) from None
        except ApiError as error:
            error.may_be_accepted = unclear
            error.attempts = _attempts(retrying)
            raise

    async def _once(self, method: str, url: str, params: Mapping[str, str] | None, body: Any) -> Reply:
        where = f"{method} {url}"
        sending = method != "GET"
        try:
            response = await self._http.request(method, url, params=params, json=body)
        except httpx.HTTPError as error:
            raise _transport_error(where, error, sending, self._settings.timeout) from None
        text = response.text
        if len(self._settings.api_key) >= _SHORTEST_SECRET:
            # A server that repeats the key must not carry it into host variables, caches or errors.
            text = text.replace(self._settings.api_key, _REDACTED)
        if response.is_redirect:
            location = _without_secrets(response.headers.get("location", ""))
            raise ApiError(
                f"{where}: redirected to {location}, which is not followed so that the key reaches no other host; "
                "set base_url to the address meant",
                code="redirect",
                status=response.status_code,
            )
        now = datetime.now(UTC)
        if not response.is_success:
            raise _status_error(where, response, text, sending, now)
        try:
            data = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            raise ApiError(
                f"{where}: answered {response.status_code} with {_described(text)} instead of JSON",
                code="not_json",
                status=response.status_code,
                may_be_accepted=sending,
            ) from None
        return Reply(data, _date_of(response, now))


def _attempts(retrying: Any) -> int:
    return int(retrying.statistics.get("attempt_number", 1))


def _wait(state: Any) -> float:
    error = state.outcome.exception()
    if error.retry_after is not None:
        return float(error.retry_after)
    return float(tenacity.wait_exponential_jitter(initial=0.2, max=15, jitter=0.2)(state))


def _encoded(segment: str) -> str:
    # "." and ".." would be resolved away on the wire, encoded or not.
    if segment in (".", ".."):
        raise ApiError(f"{segment!r} cannot be part of an address", code="invalid")
    return urllib.parse.quote(segment, safe="")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _date_of(response: Any, now: datetime) -> datetime:
    try:
        date = parsedate_to_datetime(response.headers["date"])
    except (KeyError, TypeError, ValueError):
        return now
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _transport_error(where: str, error: Exception, sending: bool, timeout: float) -> ApiError:
    before_sending = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError))
    accepted = sending and not before_sending
    tls = _tls_cause(error)
    if tls is not None:
        reason = getattr(tls, "verify_message", "") or getattr(tls, "reason", "") or tls
        return ApiError(f"{where}: TLS failure: {one_line(reason)} (see ca_path and client_cert)", code="tls")
    if isinstance(error, httpx.TimeoutException):
        phase = "connection" if before_sending else "answer"
        message = f"{where}: no {phase} within the timeout of {timeout:g} s"
        return ApiError(message, code="timeout", may_be_accepted=accepted, transient=True)
    if before_sending:
        return ApiError(f"{where}: cannot connect: {one_line(error)}", code="connect", transient=True)
    if isinstance(error, (httpx.InvalidURL, httpx.UnsupportedProtocol)):
        return ApiError(f"{where}: {one_line(error)}", code="invalid")
    message = f"{where}: the connection was dropped: {one_line(error) or type(error).__name__}"
    return ApiError(message, code="dropped", may_be_accepted=accepted, transient=True)


def _tls_cause(error: BaseException | None) -> ssl.SSLError | None:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _status_error(where: str, response: Any, text: str, sending: bool, now: datetime) -> ApiError:
    status = response.status_code
    retry_after = retry_after_seconds(response.headers.get("retry-after"), now)
    message = f"{where}: {status} {response.reason_phrase}".rstrip() + f": {_server_message(text)}"
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


def _server_message(text: str) -> str:
    """The message of an error envelope: `{errorCode, message}` or `{error, errorCode}`."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return _described(text)
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
