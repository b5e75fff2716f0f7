"""Qoder's idempotency keys: the same request gets the first reply again while its key is kept."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .api import Call, Handler, Reply
from .qoder_errors import refuse

KEPT = 24 * 3600.0
"""Seconds for which a key is kept, according to the documentation."""


@dataclass
class Kept:
    request: tuple[str, str, Any]
    """Route, target and body."""
    reply: Reply
    at: float


@dataclass
class IdempotencyKeys:
    """The requests of each account by key. A refusal is not kept: the same key may be used again."""

    now: Callable[[], float]
    _kept: dict[tuple[str, str], Kept] = field(default_factory=dict)

    def forget(self) -> None:
        self._kept.clear()

    def once(self, handler: Handler) -> Handler:
        """Return a handler that lets the other one answer a request with a key only once."""

        async def answer(call: Call) -> Reply:
            key = call.headers.get("idempotency-key")
            if key is None:
                return await handler(call)
            _check(key)
            place, request = (call.account, key), (call.route, call.target, _comparable(call.body))
            kept = self._kept.get(place)
            if kept is None or self.now() - kept.at >= KEPT:
                kept = self._kept[place] = Kept(request, await handler(call), self.now())
            if kept.request != request:
                raise refuse(409, "The idempotency key was used for another request", "Idempotency-Key")
            return kept.reply

        return answer


def _check(key: str) -> None:
    try:
        right = uuid.UUID(key).version == 4
    except ValueError:
        right = False
    if not right:
        raise refuse(400, "Idempotency-Key must be a UUID of version 4", "Idempotency-Key")


def _comparable(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body
