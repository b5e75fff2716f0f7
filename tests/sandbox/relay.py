"""The relay: which clients listen to which connection, and the frames that they get.

Every frame of a device goes to the clients of its connection with the client's own number, to be acknowledged. A
client that does not acknowledge gets only a window full of frames, so its mistake is noticed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from .faults import Rule
from .sockets import Frame, Socket

WINDOW = 64
"""The largest number of frames without an acknowledgement."""
DEVICE_GONE = (1001, "Environment disconnected")

Scope = tuple[str | None, str]
"""Agent and conversation."""


@dataclass
class Client:
    """One client's end of the relay."""

    socket: Socket
    scope: Scope
    fault: Rule | None = None
    command: Frame = field(default_factory=dict)
    """The command whose answer a fault waits for."""
    commands: int = 0
    _outbox: deque[Frame] = field(default_factory=deque)
    _sent: int = 0
    _acknowledged: int = 0
    _closing: tuple[int, str] | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def fault_now(self) -> str | None:
        """The fault, once the client has reached its command."""
        if self.fault is None or max(self.commands, 1) < self.fault.command:
            return None
        return self.fault.fault

    def push(self, frame: Frame) -> None:
        """Send a frame as soon as there is room for it."""
        self._outbox.append(frame)
        self._changed.set()

    def acknowledge(self, number: Any) -> None:
        if isinstance(number, int):
            self._acknowledged = max(self._acknowledged, min(number, self._sent))
            self._changed.set()

    def close(self, code: int, reason: str) -> None:
        """Close the socket once everything that has room is sent."""
        self._closing = (code, reason)
        self._changed.set()

    async def write(self, ping_after: float) -> None:
        """Send waiting frames, until the socket is closed or this task is cancelled."""
        while True:
            if self._outbox and self._sent - self._acknowledged < WINDOW:
                await self._write(self._outbox.popleft())
                continue
            if self._closing is not None:
                await self.socket.close(*self._closing)
                return
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), ping_after)
            except TimeoutError:
                await self.socket.send({"type": "ping"})

    async def _write(self, frame: Frame) -> None:
        self._sent += 1
        numbered = {**frame, "seq": self._sent}
        if self.fault_now == "relay_cut_during" and self._answers(frame):
            self.socket.cut(half_of=numbered)
            return
        await self.socket.send(numbered)

    def _answers(self, frame: Frame) -> bool:
        """Whether a frame is the answer to the command: not every answer repeats the command's id."""
        request_id = self.command.get("request_id")
        if request_id is not None and frame.get("request_id") == request_id:
            return True
        ends_old_command = (frame.get("delta") or {}).get("message_type") == "slash_command_end"
        command, kind = str(self.command.get("type")), str(frame.get("type"))
        changes_state = command == "change_device_state" and kind == "update_device_status"
        shows_terminal = command.startswith("terminal_") and kind == "terminal_output"
        return ends_old_command or changes_state or shows_terminal


class Relay:
    """The clients of all connections."""

    def __init__(self) -> None:
        self._clients: dict[str, list[Client]] = {}

    def join(self, connection_id: str, client: Client) -> None:
        self._clients.setdefault(connection_id, []).append(client)

    def leave(self, connection_id: str, client: Client) -> None:
        clients = self._clients.get(connection_id, [])
        if client in clients:
            clients.remove(client)
        if not clients:
            self._clients.pop(connection_id, None)

    def publish(self, connection_id: str | None, frame: Frame) -> None:
        """Send a device's frame to every client in its scope."""
        runtime = frame.get("runtime")
        for client in self._clients.get(connection_id or "", []):
            if client.fault_now != "relay_silent" and (
                not isinstance(runtime, dict) or scope_of(runtime) == client.scope
            ):
                client.push(frame)

    def close(self, connection_id: str | None) -> None:
        """Remove the clients of a connection that has ended."""
        for client in self._clients.pop(connection_id or "", []):
            client.close(*DEVICE_GONE)


def scope_of(runtime: dict[str, Any]) -> Scope:
    return runtime.get("agent_id"), runtime.get("conversation_id") or "default"
