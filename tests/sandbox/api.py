"""What providers, fault rules and the server share: an API call, its reply, and the two ways to end it early."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Call:
    """One API request."""

    route: str
    """What fault rules call it: one of RouteName, or other."""
    target: str
    """The decoded variable part of the path, or an empty string."""
    query: dict[str, str]
    body: bytes
    bearer: str
    base_url: str = ""
    """Where the client found the sandbox."""
    subjects: list[str] = field(default_factory=list)
    """Ids of what the call is about; the first one stays the same for as long as the thing exists."""


@dataclass
class Reply:
    status: int
    body: Any
    """Text and bytes go out as they are, anything else as JSON."""
    media_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)

    def content(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()


class ApiError(Exception):
    """The API refuses the request."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class DropError(Exception):
    """The connection ends here: before any reply, or in the middle of the one given."""

    def __init__(self, *, reset: bool, during: Reply | None = None) -> None:
        super().__init__()
        self.reset, self.during = reset, during


Handler = Callable[[Call], Awaitable[Reply]]
