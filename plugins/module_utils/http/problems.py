# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What went wrong with a request, as an ApiError of one line."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from .._deps import httpx, jmespath
from ..errors import ApiError
from ..text import one_line
from .gate import parse_retry_after
from .transport import AnswerTooLongError


def make_transport_error(where: str, error: Exception, may_be_accepted: bool, timeout: float) -> ApiError:
    """The error of a request without an answer.

    where: names the call. error: what httpx raised. timeout: seconds that a connection or an answer may take.
    """
    tls = _find_tls_cause(error)
    if tls is not None:
        return make_tls_error(where, tls)
    if isinstance(error, AnswerTooLongError):
        return ApiError(f"{where}: {error}", code="too_long", may_be_accepted=may_be_accepted)
    if isinstance(error, httpx.TimeoutException):
        phase = "connection" if isinstance(error, httpx.ConnectTimeout) else "answer"
        message = f"{where}: no {phase} within the timeout of {timeout:g} s"
        return ApiError(message, code="timeout", may_be_accepted=may_be_accepted, transient=True)
    if isinstance(error, (httpx.ProxyError, httpx.ConnectError)):
        return ApiError(f"{where}: cannot connect: {one_line(error)}", code="connect", transient=True)
    if isinstance(error, (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError)):
        return ApiError(f"{where}: {one_line(error)}", code="invalid")
    message = f"{where}: the connection was dropped: {one_line(error) or type(error).__name__}"
    return ApiError(message, code="dropped", may_be_accepted=may_be_accepted, transient=True)


def make_redirect_error(where: str, location: str, status: int, may_be_accepted: bool) -> ApiError:
    return ApiError(
        f"{where}: redirected to {location}, which is not followed so that the key reaches no other host; "
        "set base_url to the address meant",
        code="redirect",
        status=status,
        # "See Other" is what a server says once it has acted (RFC 9110, 15.4.4); the others send it elsewhere.
        may_be_accepted=may_be_accepted and status == HTTPStatus.SEE_OTHER,
    )


def make_tls_error(where: str, cause: BaseException) -> ApiError:
    reason = getattr(cause, "verify_message", "") or getattr(cause, "reason", "") or cause
    return ApiError(f"{where}: TLS failure: {one_line(reason)} (see ca_path and client_cert)", code="tls")


def _find_tls_cause(error: BaseException | None) -> ssl.SSLError | None:
    """The TLS error that caused an error; None if the peer only closed the connection."""
    found = None
    while error is not None:
        found = error if isinstance(error, ssl.SSLError) else found
        error = error.__cause__ or error.__context__
    return None if isinstance(found, (ssl.SSLEOFError, ssl.SSLZeroReturnError)) else found


def make_status_error(
    message: str, status: int, wait: str | None, *, param: str | None = None, may_be_accepted: bool = False
) -> ApiError:
    """The error that a status stands for. wait: the Retry-After header. param: the parameter that it blames."""
    retry_after = parse_retry_after(wait, datetime.now(UTC))
    if status in (401, 403):
        message += " (the server refused the key given with api_key)"
    if not 400 <= status < 600:
        message += " (an answer with this status is not used)"
    if retry_after is not None:
        message += f" (the server asked to wait {retry_after:.0f} s)"
    return ApiError(
        message,
        code=f"http_{status}",
        status=status,
        param=param,
        retry_after=retry_after,
        # Not 503: Letta answers it, like 404, for a connection that is gone, and gateways before they ask anybody.
        may_be_accepted=may_be_accepted and (status == 408 or (not 400 <= status < 500 and status != 503)),
        transient=status in (408, 429) or 500 <= status < 600,
    )


def find_server_message(body: Any, text: str) -> str:
    """The message of an error envelope: `{errorCode, message}`, `{error, errorCode}`, or `{error, request_id}`.

    The last one has an error `{type, message, param}`. The request's id is for the provider's support.
    """
    if not isinstance(body, dict):
        return describe_body(text)
    error, about = body.get("error"), {}
    parts = [body.get("errorCode"), body.get("message") or error]
    if isinstance(error, dict):
        parts = [error.get("type"), error.get("message")]
        about = {"param": error.get("param"), "request_id": body.get("request_id")}
    said = one_line(": ".join(part for part in parts if isinstance(part, str) and part))
    named = [f"{name} {one_line(value, 80)}" for name, value in about.items() if isinstance(value, str) and value]
    return (f"{said} ({', '.join(named)})" if named else said) or describe_body(text)


def find_param(body: Any) -> str | None:
    """The `param` of an error `{type, message, param}`."""
    param = jmespath.search("error.param", body)
    return param if isinstance(param, str) else None


def describe_body(text: str) -> str:
    """The beginning of a body that is not as expected, as one line."""
    start = text.strip()
    if not start:
        return "an empty body"
    if start[:1] == "<":
        return f"an HTML page ({one_line(start, 60)})"
    return one_line(start, 80)


def hide_secrets(location: str) -> str:
    """An address as one line, without what may be secret in it: user name, password, query and fragment."""
    try:
        url = httpx.URL(location)
        return one_line(url.copy_with(username=None, password=None, query=None, fragment=None))
    except (httpx.InvalidURL, ValueError):
        return "an unreadable address"
