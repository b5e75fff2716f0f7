"""Real devices: how a ``letta server`` registers, and the sockets that it keeps open.

A device registers over HTTP and gets the address to connect to. It opens one socket, or a pair: ``control``, which
commands go to and answers come from, and ``stream``, which carries the agent's output and the device's reports of its
state. It heartbeats on ``control``.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .api import ApiError, Call, Reply
from .faults import Rule
from .fleet import Environment, Fleet, Row, milliseconds
from .messages import SendMessageBody, describe
from .relay import Relay
from .settings import Settings
from .sockets import REGISTER_AGAIN, REPLACED, Frame, Socket

ROW_IDS = uuid.UUID("5a0d7c1e-52f5-4d0e-9a59-9d51b7b0a9f4")


class Registration(BaseModel):
    """The body of ``POST /v1/environments/register``; newer devices may send more."""

    model_config = ConfigDict(strict=True)

    device_id: str = Field(alias="deviceId", min_length=1)
    listener_instance_id: str | None = Field(None, alias="listenerInstanceId")
    connection_name: str = Field(alias="connectionName")
    metadata: dict[str, Any] = {}

    @property
    def environment_id(self) -> str:
        """The same id for the same device and listener at any time, even in another sandbox."""
        return f"environment-{uuid.uuid5(ROW_IDS, f'{self.device_id} {self.listener_instance_id}')}"


@dataclass
class Listener:
    """A registered device and its open sockets."""

    environment: Environment
    connection_id: str
    """The connection id of its last registration: with an older one it must register again."""
    sockets: dict[str, Socket] = field(default_factory=dict)
    """By channel: control, and stream when there is a pair."""

    async def send(self, frame: Frame) -> bool:
        """Send the device a frame; return False if the device is gone."""
        control = self.sockets.get("control")
        return control is not None and await control.send(frame)

    async def deliver(self, body: SendMessageBody) -> bool:
        """Send the device messages as the hosted service passes them on."""
        messages = [message.model_dump(exclude_unset=True) for message in body.messages]
        metadata = self.environment.row.get("metadata") or {}
        if metadata.get("environmentMessageProtocol") != "v2-input":
            old = {"type": "message", "messages": messages}
            names = {"agentId": body.agent_id or None, "conversationId": body.conversation_id}
            return await self.send(old | {name: value for name, value in names.items() if value})
        runtime = {"agent_id": body.agent_id or None, "conversation_id": body.conversation_id or "default"}
        payload = {"kind": "create_message", "messages": messages}
        return await self.send({"type": "input", "runtime": runtime, "payload": payload})

    async def close(self, code: int, reason: str) -> None:
        for socket in list(self.sockets.values()):
            await socket.close(code, reason)


class Listeners:
    """All real devices that registered since the sandbox started, by the id of their row."""

    def __init__(self, fleet: Fleet, settings: Settings, relay: Relay) -> None:
        self._fleet, self._settings, self._relay = fleet, settings, relay
        self._listeners: dict[str, Listener] = {}
        self._by_connection: dict[str, Listener] = {}

    def __iter__(self) -> Iterator[Listener]:
        return iter(self._listeners.values())

    def get(self, environment: Environment) -> Listener | None:
        return self._listeners.get(environment.id)

    def connected(self) -> list[Environment]:
        """Return the rows of the devices that have a socket open: they outlive a reset."""
        return [listener.environment for listener in self if listener.sockets and self._exists(listener)]

    async def register(self, call: Call) -> Reply:
        """Answer ``{connectionId, wsUrl}`` and, for a pair of sockets, that both sides support the pair."""
        try:
            registration = Registration.model_validate_json(call.body)
        except ValidationError as error:
            raise ApiError(400, "BAD_REQUEST", describe(error)) from None
        listener = self._listener(registration)
        await self._replace(listener)
        self._by_connection.pop(listener.connection_id, None)
        listener.connection_id = str(uuid.uuid4())
        self._by_connection[listener.connection_id] = listener
        url = f"{call.base_url.replace('http', 'ws', 1)}/v1/environments/{listener.connection_id}/ws"
        paired = self._settings.paired and registration.metadata.get("supportsPairedListenerGenerations") is True
        capabilities = {"supportsSplitStatusChannels": paired, "supportsPairedListenerGenerations": paired}
        return Reply(200, {"connectionId": listener.connection_id, "wsUrl": url, **capabilities})

    async def connect(self, call: Call, socket: Socket, fault: Rule | None) -> None:
        """Serve one socket of a device until it ends."""
        await socket.accept()
        listener = self._by_connection.get(call.target)
        if listener is None or not self._exists(listener):
            await socket.close(*REGISTER_AGAIN)
            return
        channel = call.query.get("channel", "control")
        before = listener.sockets.get(channel)
        listener.sockets[channel] = socket
        if before is not None:
            await before.close(*REPLACED)
        await self._welcome(listener, socket, call)
        try:
            async for frame in socket.frames():
                await self._take(listener, socket, frame)
        finally:
            # A replaced socket does not end the newer one.
            if listener.sockets.get(channel) is socket:
                del listener.sockets[channel]
                self._disconnect(listener)

    def _exists(self, listener: Listener) -> bool:
        return self._fleet.get(listener.environment.id) is listener.environment

    def _disconnect(self, listener: Listener) -> None:
        self._relay.close(listener.connection_id)
        self._fleet.offline(listener.environment)

    async def _replace(self, listener: Listener) -> None:
        """Close the sockets of an earlier registration."""
        sockets = list(listener.sockets.values())
        listener.sockets.clear()
        self._disconnect(listener)
        for socket in sockets:
            await socket.close(*REPLACED)

    def _listener(self, registration: Registration) -> Listener:
        """Return the device with its new description of itself; its row may be new."""
        environment = self._fleet.get(registration.environment_id)
        if environment is None:
            environment = Environment(_new_row(registration))
            self._fleet.add(environment)
        environment.row |= {"connectionName": registration.connection_name, "metadata": registration.metadata}
        listener = self._listeners.get(environment.id)
        if listener is None or listener.environment is not environment:
            listener = self._listeners[environment.id] = Listener(environment, "")
        return listener

    async def _welcome(self, listener: Listener, socket: Socket, call: Call) -> None:
        generation, attempt = call.query.get("connectionGeneration"), call.query.get("connectionAttempt", "")
        if generation and attempt.isdigit():
            ready = {"connection_generation": generation, "connection_attempt": int(attempt)}
            await socket.send({"type": "listener_ready", **ready})
        # The first socket of a pair is not a connection yet.
        if not generation or listener.sockets.keys() == {"control", "stream"}:
            self._fleet.connected(listener.environment, listener.connection_id)

    async def _take(self, listener: Listener, socket: Socket, frame: Frame) -> None:
        row = listener.environment.row
        if frame.get("type") == "ping":
            row["lastHeartbeat"] = row["lastSeenAt"] = milliseconds(time.time())
            await socket.send({"type": "pong"})
            return
        if frame.get("type") == "update_device_status":
            _take_status(row, frame.get("device_status") or {})
        self._relay.publish(listener.connection_id, frame)


def _new_row(registration: Registration) -> Row:
    now = milliseconds(time.time())
    row: Row = {"id": registration.environment_id, "deviceId": registration.device_id}
    if registration.listener_instance_id is not None:
        row["listenerInstanceId"] = registration.listener_instance_id
    row |= dict.fromkeys(("connectionId", "podId", "connectedAt", "lastHeartbeat"))
    return row | {"organizationId": "org-sandbox", "firstSeenAt": now, "lastSeenAt": now}


def _take_status(row: Row, status: dict[str, Any]) -> None:
    mode, directory = status.get("current_permission_mode"), status.get("current_working_directory")
    if mode:
        row["currentMode"] = mode
    if directory:
        row["metadata"] = {**(row.get("metadata") or {}), "workingDirectory": directory}
