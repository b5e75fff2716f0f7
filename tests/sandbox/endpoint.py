"""The path of every API request, for every provider: log, bearer key, fault rules, handler, reply."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import unquote

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from .api import ApiError, Call, DropError, Handler, Reply
from .faults import Faults, Rule, spoil


class Provider(Protocol):
    """What an endpoint needs from its API."""

    def admit(self, bearer: str) -> str:
        """Return the name of the account with this key, or raise ApiError."""

    def subjects(self, call: Call) -> list[str]:
        """Return the ids that match this call when a fault rule names them."""

    def refusal(self, error: ApiError) -> Reply:
        """Return an error in the provider's envelope."""

    def spoil(self, rule: Rule, call: Call, reply: Reply | None) -> Reply | None:
        """Apply the faults that depend on what this provider answers."""


class RequestLog:
    """The log of API requests. Header names only: no key is ever kept."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        # By identity: a request that is never answered outlives the log that it began in.
        self._under_way: dict[int, dict[str, Any]] = {}
        self._started = time.monotonic()

    def begin(self, request: HTTPConnection, route: str) -> dict[str, Any]:
        entry: dict[str, Any] = {
            # A WebSocket begins as a GET; its scope does not say so.
            "method": request.scope.get("method", "GET"),
            "path": raw_path(request.scope),
            "query": dict(request.query_params),
            "route": route,
            "status": None,
            "fault": None,
            "headers": sorted(set(request.headers.keys())),
            "authorization": "authorization" in request.headers,
            "account": None,
            "idempotency_key": request.headers.get("idempotency-key"),
            "at": round(time.monotonic() - self._started, 4),
        }
        self._under_way[id(entry)] = entry
        entry["under_way"] = len(self._under_way)
        self.entries.append(entry)
        return entry

    def end(self, entry: dict[str, Any]) -> None:
        self._under_way.pop(id(entry), None)

    def clear(self) -> None:
        self.entries.clear()
        self._under_way.clear()


@dataclass
class Gate:
    """The common parts of all endpoints."""

    faults: Faults = field(default_factory=Faults)
    log: RequestLog = field(default_factory=RequestLog)


class Endpoint:
    """One route as an ASGI application, which is the only form that can end a connection without a reply."""

    def __init__(self, route: str, handler: Handler, provider: Provider, gate: Gate) -> None:
        self.route, self.handler, self.provider, self.gate = route, handler, provider, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        entry = self.gate.log.begin(request, self.route)
        try:
            reply = await self._answer(request, entry)
            entry["status"] = reply.status
            await _response(reply)(scope, receive, send)
        except DropError as drop:
            entry["status"] = "dropped"
            await _drop(drop, scope, receive, send)
        finally:
            self.gate.log.end(entry)

    async def _answer(self, request: Request, entry: dict[str, Any]) -> Reply:
        call = Call(
            route=self.route,
            target=unquote(next(iter(request.path_params.values()), "")),
            query=dict(request.query_params),
            body=await request.body(),
            bearer=bearer(request),
            headers=request.headers,
            base_url=f"{request.scope['scheme']}://{request.headers.get('host', '')}",
        )
        try:
            call.account = entry["account"] = self.provider.admit(call.bearer)
        except ApiError as error:
            return self.provider.refusal(error)
        if not self.gate.faults.rules:
            return await self._handle(call)
        call.subjects = self.provider.subjects(call)
        rule = self.gate.faults.choose(call)
        if rule is None:
            return await self._handle(call)
        entry["fault"] = rule.fault
        reply = await self._handle(call) if rule.takes_effect else None
        reply = self.provider.spoil(rule, call, reply)
        reply = await spoil(rule, call, reply, self.provider.refusal)
        return reply or await self._handle(call)

    async def _handle(self, call: Call) -> Reply:
        try:
            return await self.handler(call)
        except ApiError as error:
            return self.provider.refusal(error)


def _response(reply: Reply) -> Response:
    if reply.streams:
        return StreamingResponse(reply.body, reply.status, reply.headers, reply.media_type)
    return Response(reply.content(), reply.status, reply.headers, reply.media_type)


def raw_path(scope: Scope) -> str:
    """Return the path as the client sent it, percent-encoded."""
    path: bytes = scope["raw_path"]
    return path.decode("ascii")


def bearer(request: HTTPConnection) -> str:
    """Return the key of an Authorization header, or an empty string."""
    scheme, _space, key = request.headers.get("authorization", "").partition(" ")
    return key if scheme.lower() == "bearer" else ""


def abort(scope: Scope, *, reset: bool = False) -> None:
    """End the connection of a request or a socket without sending another byte."""
    # The server puts the transport there: ASGI itself has no way to send no reply at all.
    transport: asyncio.Transport = scope["state"]["transport"]
    if reset:
        # A socket that lingers for zero seconds ends with a reset.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def _drop(drop: DropError, scope: Scope, receive: Receive, send: Send) -> None:
    if drop.during is not None:
        content = drop.during.content()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": drop.during.status, "headers": headers})
        await send({"type": "http.response.body", "body": content[: len(content) // 2], "more_body": True})
    abort(scope, reset=drop.reset)
    # If this returned before the server noticed, the server would report an application without an answer.
    while (await receive())["type"] != "http.disconnect":
        pass
