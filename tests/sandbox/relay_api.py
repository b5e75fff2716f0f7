"""``WS /v1/environments/{connectionId}/status/ws``: how a client talks to a device."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from .api import ApiError, Call
from .faults import Rule
from .fleet import Environment, Fleet
from .relay import Client, Relay
from .settings import Settings
from .sockets import Frame, Socket

HandOver = Callable[[Environment, Frame], Awaitable[None]]
"""Delivers a frame to a device."""

NO_COMMANDS = {"sync", "agent_retrieve", "conversation_retrieve", "get_cwd_map", None}
"""Types of frames that only read from a device."""


class RelayApi:
    def __init__(self, fleet: Fleet, relay: Relay, settings: Settings, hand_over: HandOver) -> None:
        self._fleet, self._relay, self._settings, self._hand_over = fleet, relay, settings, hand_over

    async def connect(self, call: Call, socket: Socket, fault: Rule | None) -> None:
        """Serve a client until the client or the device leaves."""
        environment = self._fleet.by_connection(call.target)
        if environment is None or not environment.online(time.time()):
            raise ApiError(404, "NOT_FOUND", f"Environment connection {call.target!r} is not connected")
        await socket.accept()
        if fault is not None and fault.fault == "relay_close":
            await socket.close(fault.code, "The sandbox was told to close")
            return
        if fault is not None and fault.fault == "relay_not_json":
            await socket.send("upstream says: ok")
        scope = (call.query.get("agentId") or None, call.query.get("conversationId") or "default")
        client = Client(socket, scope, fault)
        self._relay.join(call.target, client)
        writer = asyncio.create_task(client.write(self._settings.relay_ping))
        try:
            async for frame in socket.frames():
                if not await self._take(environment, client, frame):
                    client.socket.cut()
                    break
        finally:
            self._relay.leave(call.target, client)
            writer.cancel()

    async def _take(self, environment: Environment, client: Client, frame: Frame) -> bool:
        """Take an acknowledgement, the answer to a ping, or a frame for the device; False to cut the connection."""
        if frame.get("type") == "ack":
            client.acknowledge(frame.get("seq"))
            return True
        if frame.get("type") == "pong":
            return True
        command = frame.get("type") not in NO_COMMANDS
        if command:
            client.command = frame
            client.commands += 1
        fault = client.fault_now
        if not (fault == "relay_silent" or (fault == "relay_cut_before" and command)):
            await self._hand_over(environment, frame)
        return not (command and fault in ("relay_cut_before", "relay_cut_after"))
