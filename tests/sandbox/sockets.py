"""WebSockets: the checks before them, and JSON frames through them."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import unquote

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from .api import ApiError, Call, DropError, Reply
from .endpoint import Gate, Provider, abort, bearer
from .faults import Rule, spoil

Frame = dict[str, Any]

REPLACED = (1000, "Replaced by new connection")
"""The close code for a device that continues on another socket: it ends."""
REGISTER_AGAIN = (1008, "Environment not found")
"""The close code for a device that must register again."""


class Socket:
    """A WebSocket that carries JSON objects."""

    def __init__(self, raw: WebSocket) -> None:
        self._raw = raw

    async def accept(self) -> None:
        await self._raw.accept()

    async def send(self, frame: Frame | str) -> bool:
        """Send a frame (a text is sent as it is); return False if the other side is gone."""
        try:
            await self._raw.send_text(frame if isinstance(frame, str) else json.dumps(frame))
        except (WebSocketDisconnect, RuntimeError):
            return False
        return True

    async def frames(self) -> AsyncIterator[Frame]:
        """Yield the frames until either side ends the connection; a frame that is not a JSON object is left out."""
        while True:
            message = await self._raw.receive()
            if message["type"] == "websocket.disconnect":
                return
            frame = _parsed(message.get("text") or "")
            if frame is not None:
                yield frame

    async def close(self, code: int = 1000, reason: str = "") -> None:
        try:
            await self._raw.close(code, reason)
        except (WebSocketDisconnect, RuntimeError):
            return

    def cut(self, half_of: Frame | None = None) -> None:
        """End the connection without a close frame, or in the middle of this frame."""
        if half_of is None:
            abort(self._raw.scope)
            return
        transport: asyncio.Transport = self._raw.scope["state"]["transport"]
        payload = json.dumps(half_of).encode()
        # 0x81 is a whole text frame; 126 means that two bytes of length follow.
        transport.write(struct.pack("!BBH", 0x81, 126, len(payload)) + payload[: len(payload) // 2])
        transport.close()


SocketHandler = Callable[[Call, Socket, Rule | None], Awaitable[None]]
"""Accepts the socket and serves it until it ends; an ApiError before that refuses the upgrade."""


class SocketEndpoint:
    """One WebSocket route as an ASGI application: log, bearer key, fault rules, handler."""

    def __init__(self, route: str, handler: SocketHandler, provider: Provider, gate: Gate) -> None:
        self.route, self.handler, self.provider, self.gate = route, handler, provider, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw = WebSocket(scope, receive, send)
        entry = self.gate.log.begin(raw, self.route)
        # An open socket is not a request under way.
        self.gate.log.end(entry)
        call = Call(
            route=self.route,
            target=unquote(next(iter(raw.path_params.values()), "")),
            query=dict(raw.query_params),
            body=b"",
            bearer=bearer(raw),
        )
        try:
            refusal = await self._open(call, raw, entry)
        except DropError as drop:
            entry["status"] = "dropped"
            await _drop(raw, drop)
            return
        if refusal is not None:
            entry["status"] = refusal.status
            await raw.send_denial_response(
                Response(refusal.content(), refusal.status, refusal.headers, refusal.media_type)
            )

    async def _open(self, call: Call, raw: WebSocket, entry: dict[str, Any]) -> Reply | None:
        """Let the handler serve the socket, or return why it is refused."""
        try:
            call.account = entry["account"] = self.provider.admit(call.bearer)
            rule = self._fault(call, entry)
            refusal = await spoil(rule, call, None, self.provider.refusal) if rule else None
            if refusal is None:
                entry["status"] = 101
                await self.handler(call, Socket(raw), rule)
        except ApiError as error:
            return self.provider.refusal(error)
        return refusal

    def _fault(self, call: Call, entry: dict[str, Any]) -> Rule | None:
        if not self.gate.faults.rules:
            return None
        call.subjects = self.provider.subjects(call)
        rule = self.gate.faults.choose(call)
        entry["fault"] = rule.fault if rule else None
        return rule


def _parsed(text: str) -> Frame | None:
    try:
        frame = json.loads(text)
    except ValueError:
        return None
    return frame if isinstance(frame, dict) else None


async def _drop(raw: WebSocket, drop: DropError) -> None:
    abort(raw.scope, reset=drop.reset)
    # If this returned before the server noticed, the server would report an application without an answer.
    while (await raw.receive())["type"] != "websocket.disconnect":
        pass
