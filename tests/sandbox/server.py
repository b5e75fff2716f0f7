"""The application and the HTTP server around it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import ssl
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from .api import ApiError, Call, Reply
from .control import Control
from .endpoint import Endpoint, Gate, raw_path
from .faults import Rule
from .letta import Keys, Letta
from .qoder import DEFAULT_QODER_KEY, Qoder
from .qoder_control import QoderControl
from .qoder_pages import Generation
from .seeded import seeded_fleet
from .settings import Settings
from .sockets import Socket, SocketEndpoint

DEFAULT_API_KEY = "sandbox-key-for-loopback-only"


@dataclass
class Options:
    devices: int = 20
    seed: int = 1
    port: int = 0
    api_key: str = DEFAULT_API_KEY
    forbidden_key: str | None = None
    offline_status: Literal[404, 503] = 404
    qoder_environments: int = 20
    qoder_generation: Generation = "new"
    qoder_key: str = DEFAULT_QODER_KEY
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    exit_with_stdin: bool = False


def build_app(options: Options) -> ASGIApp:
    settings = Settings(offline_status=options.offline_status, qoder_generation=options.qoder_generation)
    letta = Letta(seeded_fleet(options.devices, options.seed), Keys(options.api_key, options.forbidden_key), settings)
    qoder = Qoder(options.qoder_key, options.qoder_environments, options.seed, settings)
    gate = Gate()
    # The control routes of one provider come before the common ones: their paths are more specific.
    control = [*QoderControl(qoder).routes(), *Control(letta, qoder, gate, options.devices, options.seed).routes()]
    other = [
        Route("/{path:path}", Endpoint("other", _no_such_route, letta, gate)),
        WebSocketRoute("/{path:path}", SocketEndpoint("other", _no_such_socket, letta, gate)),
    ]
    app = Starlette(routes=[*control, *letta.routes(gate), *qoder.routes(gate), *other])
    # A client that omits a slash, or adds one, must get an error here.
    app.router.redirect_slashes = False

    async def routed_by_raw_path(scope: Scope, receive: Receive, send: Send) -> None:
        # A device id may hold an encoded slash: routes split the path as it was sent, endpoints decode the parts.
        await app({**scope, "path": raw_path(scope)}, receive, send)

    return routed_by_raw_path


def serve(options: Options) -> None:
    """Serve until SIGTERM or Ctrl-C; print the address on standard output, once it accepts connections."""
    config = uvicorn.Config(
        build_app(options),
        host="127.0.0.1",
        port=options.port,
        http=_Protocol,
        ws="websockets-sansio",
        # Clients and devices have heartbeats of their own.
        ws_ping_interval=None,
        lifespan="off",
        access_log=False,
        log_level="error",
        timeout_graceful_shutdown=0,
        ssl_certfile=options.tls_cert,
        ssl_keyfile=options.tls_key,
        ssl_ca_certs=str(options.tls_client_ca) if options.tls_client_ca else None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if options.tls_client_ca else ssl.CERT_NONE,
    )
    server = _Server(config)
    if options.exit_with_stdin:
        threading.Thread(target=server.exit_with_stdin, daemon=True).start()
    # Ctrl-C ends the server like SIGTERM.
    with contextlib.suppress(KeyboardInterrupt):
        server.run()


class _Protocol(H11Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # Code that ends a connection on purpose finds its transport here, in the state of each request.
        self.app_state = {**self.app_state, "transport": transport}
        super().connection_made(transport)


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        scheme = "https" if self.config.is_ssl else "http"
        port = self.servers[0].sockets[0].getsockname()[1]
        sys.stdout.write(json.dumps({"url": f"{scheme}://127.0.0.1:{port}", "pid": os.getpid()}) + "\n")
        sys.stdout.flush()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Requests under way are cut short here on purpose; uvicorn would report each as an error.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await super().shutdown(sockets)

    def exit_with_stdin(self) -> None:
        """Wait for the end of standard input, which comes with the end of the parent process."""
        while os.read(0, 1024):
            pass
        self.should_exit = True


async def _no_such_route(call: Call) -> Reply:
    raise ApiError(404, "NOT_FOUND", "There is no such route")


async def _no_such_socket(call: Call, socket: Socket, fault: Rule | None) -> None:
    raise ApiError(404, "NOT_FOUND", "There is no such route")
