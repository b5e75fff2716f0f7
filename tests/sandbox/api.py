"""The common parts of providers, fault rules and the server: an API call, its reply, and two ways to end it early."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Call:
    """One API request."""

    route: str
    """The name of the call in fault rules: one of RouteName, or other."""
    target: str
    """The decoded variable part of the path, or an empty string."""
    query: dict[str, str]
    body: bytes
    bearer: str
    headers: Mapping[str, str] = field(default_factory=dict)
    """All headers of the client, found by names in any case."""
    account: str = ""
    """The owner of the key, as the provider says."""
    base_url: str = ""
    """The address under which the client reached the sandbox."""
    subjects: list[str] = field(default_factory=list)
    """Ids of the objects of the call; the first id is stable for the lifetime of the object."""


@dataclass
class Reply:
    status: int
    body: Any
    """Text and bytes are sent as they are, a stream part by part, anything else as JSON."""
    media_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def streams(self) -> bool:
        return isinstance(self.body, AsyncIterator)

    def content(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        if self.streams:
            # Only a fault needs a whole stream at once.
            return b""
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()


class ApiError(Exception):
    """The API refuses the request."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param


def bad_request(message: str, param: str | None = None) -> ApiError:
    return ApiError(400, "BAD_REQUEST", message, param)


class DropError(Exception):
    """The connection ends here: before any reply, or in the middle of the given one."""

    def __init__(self, *, reset: bool, during: Reply | None = None) -> None:
        super().__init__()
        self.reset, self.during = reset, during


def positive(call: Call, name: str, default: int) -> int:
    """Return a number from the query."""
    value = call.query.get(name, str(default))
    if not (value.isascii() and value.isdigit() and int(value) > 0):
        raise bad_request(f"{name} must be a positive integer", name)
    return int(value)


def json_object(call: Call) -> dict[str, Any]:
    """Return the body, which may be empty."""
    try:
        body = json.loads(call.body or b"{}")
    except ValueError:
        raise bad_request("the body is not JSON") from None
    if not isinstance(body, dict):
        raise bad_request("the body must be an object")
    return body


Handler = Callable[[Call], Awaitable[Reply]]
