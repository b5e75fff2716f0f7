# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What went wrong with a request, as an ApiError of one line."""

from __future__ import annotations

import ssl
import urllib.parse
from datetime import datetime
from typing import Any

from .._deps import aiohttp, httpx
from ..errors import ApiError
from ..text import one_line
from .gate import retry_after_seconds


def _transport_error(where: str, error: Exception, accepted: bool, timeout: float) -> ApiError:
    tls = _tls_cause(error)
    if tls is not None:
        return tls_error(where, tls)
    if isinstance(error, TimeoutError):
        phase = "connection" if isinstance(error, aiohttp.ConnectionTimeoutError) else "answer"
        message = f"{where}: no {phase} within the timeout of {timeout:g} s"
        return ApiError(message, code="timeout", may_be_accepted=accepted, transient=True)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        # Its own text has the proxy's password.
        reason = f"the proxy answered {error.status} {error.message}"
        return ApiError(f"{where}: cannot connect: {one_line(reason)}", code="connect", transient=True)
    if isinstance(error, aiohttp.ClientConnectorError):
        reason = f"{error.host}:{error.port}: {error.os_error}"
        return ApiError(f"{where}: cannot connect: {one_line(reason)}", code="connect", transient=True)
    if isinstance(error, (httpx.InvalidURL, ValueError, TypeError)):
        return ApiError(f"{where}: {one_line(error)}", code="invalid")
    reason = one_line(getattr(error, "message", error)) or type(error).__name__
    message = f"{where}: the connection was dropped: {reason}"
    return ApiError(message, code="dropped", may_be_accepted=accepted, transient=True)


def tls_error(where: str, cause: BaseException) -> ApiError:
    """The error of a connection that TLS did not let come about."""
    reason = getattr(cause, "verify_message", "") or getattr(cause, "reason", "") or cause
    return ApiError(f"{where}: TLS failure: {one_line(reason)} (see ca_path and client_cert)", code="tls")


def _tls_cause(error: BaseException | None) -> ssl.SSLError | None:
    """The TLS error behind an error; a peer that just hung up is none, nor what aiohttp makes of one."""
    others = (ssl.SSLEOFError, ssl.SSLZeroReturnError, aiohttp.ClientError)
    while error is not None:
        if isinstance(error, ssl.SSLError) and not isinstance(error, others):
            return error
        error = error.__cause__ or error.__context__
    return None


def _status_error(message: str, response: Any, param: str | None, sending: bool, now: datetime) -> ApiError:
    status = response.status
    retry_after = retry_after_seconds(response.headers.get("retry-after"), now)
    if status in (401, 403):
        message += " (the server refused the key given with api_key)"
    if retry_after is not None:
        message += f" (the server asked to wait {retry_after:.0f} s)"
    return ApiError(
        message,
        code=f"http_{status}",
        status=status,
        param=param,
        retry_after=retry_after,
        # Not 503: Letta answers it, like 404, for a connection that is gone, and gateways before they ask anybody.
        may_be_accepted=sending and (status == 408 or (status >= 500 and status != 503)),
        transient=status in (408, 429) or status >= 500,
    )


def _server_message(body: Any, text: str) -> str:
    """The message of an error envelope: `{errorCode, message}`, `{error, errorCode}`, or `{error, request_id}`."""
    if not isinstance(body, dict):
        return _described(text)
    if isinstance(body.get("error"), dict):
        return _nested_message(body["error"], body.get("request_id")) or _described(text)
    parts = [body.get("errorCode"), body.get("message") or body.get("error")]
    return one_line(": ".join(part for part in parts if isinstance(part, str) and part)) or _described(text)


def _blamed(body: Any) -> str | None:
    """The `param` of an error `{type, message, param}`."""
    error = body.get("error") if isinstance(body, dict) else None
    param = error.get("param") if isinstance(error, dict) else None
    return param if isinstance(param, str) else None


def _nested_message(error: dict[str, Any], request_id: Any) -> str:
    """What an error `{type, message, param}` says, with the request's id for the provider's support."""
    parts = [error.get("type"), error.get("message")]
    said = one_line(": ".join(part for part in parts if isinstance(part, str) and part))
    about = {"param": error.get("param"), "request_id": request_id}
    named = ", ".join(
        f"{name} {one_line(value, 80)}" for name, value in about.items() if isinstance(value, str) and value
    )
    return f"{said} ({named})" if named else said


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
