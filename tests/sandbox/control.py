"""The endpoints with which tests control the sandbox, under ``/_sandbox/``. They need no key: loopback only."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.routing import Route

from .commands import Command, Upgrade
from .endpoint import Gate
from .faults import Rule
from .fleet import Environment
from .letta import Letta
from .listeners import Listener
from .qoder import Qoder
from .seeded import new_environment, seeded_fleet
from .sockets import REGISTER_AGAIN, REPLACED
from .steering import route
from .turns import Script


@dataclass
class Control:
    """The control endpoints, and the numbers that the fleet was made from."""

    letta: Letta
    qoder: Qoder
    gate: Gate
    devices: int
    seed: int

    def __post_init__(self) -> None:
        self._added = 0
        self._settings = self.letta.settings.model_copy()

    def routes(self) -> list[Route]:
        return [
            route("POST", "faults", self.add_fault),
            route("GET", "faults", self.list_faults),
            route("DELETE", "faults", self.clear_faults),
            route("GET", "requests", self.list_requests),
            route("DELETE", "requests", self.clear_requests),
            route("GET", "received", self.list_received),
            route("DELETE", "received", self.clear_received),
            route("GET", "fleet", self.list_fleet),
            route("POST", "environments", self.add_environment),
            route("PATCH", "environments/{id}", self.patch_environment),
            route("DELETE", "environments/{id}", self.remove_environment),
            route("POST", "environments/{id}/commands", self.set_command),
            route("POST", "environments/{id}/background", self.set_background),
            route("POST", "upgrade", self.set_upgrade),
            route("POST", "environments/{id}/{event}", self.environment_event),
            route("POST", "agents/{id}/script", self.script_agent),
            route("POST", "agents/{id}/name", self.name_agent),
            route("DELETE", "agents/{id}", self.remove_agent),
            route("GET", "settings", self.get_settings),
            route("POST", "settings", self.change_settings),
            route("POST", "restart", self.restart),
            route("POST", "reset", self.reset),
        ]

    async def add_fault(self, request: Request) -> dict[str, Any]:
        rule = Rule.model_validate(await request.json())
        self.gate.faults.rules.append(rule)
        return rule.state()

    async def list_faults(self, request: Request) -> list[dict[str, Any]]:
        return [rule.state() for rule in self.gate.faults.rules]

    async def clear_faults(self, request: Request) -> None:
        self.gate.faults.rules.clear()

    async def list_requests(self, request: Request) -> list[dict[str, Any]]:
        return self.gate.log.entries

    async def clear_requests(self, request: Request) -> None:
        self.gate.log.clear()

    async def list_received(self, request: Request) -> dict[str, Any]:
        return self.letta.devices.received()

    async def clear_received(self, request: Request) -> None:
        self.letta.devices.clear_received()

    async def list_fleet(self, request: Request) -> list[dict[str, Any]]:
        now = time.time()
        return [_truth(environment, now) for environment in self.letta.fleet]

    async def add_environment(self, request: Request) -> dict[str, Any]:
        self._added += 1
        environment = new_environment(self.seed, self._added)
        fields = await request.json()
        environment.source = fields.pop("$source", environment.source)
        # The row has the id from the beginning, so the id is not a change.
        environment.row["id"] = fields.get("id", environment.id)
        self.letta.fleet.patch(environment, fields)
        self.letta.fleet.add(environment)
        return environment.wire(time.time())

    async def patch_environment(self, request: Request) -> dict[str, Any]:
        environment = self._environment(request)
        fields = await request.json()
        environment.source = fields.pop("$source", environment.source)
        self.letta.fleet.patch(environment, fields)
        return environment.wire(time.time())

    async def remove_environment(self, request: Request) -> None:
        """Remove the row; a real device ends."""
        environment = self._environment(request)
        listener = self.letta.listeners.get(environment)
        self.letta.fleet.remove(environment)
        if listener is not None:
            await listener.close(*REPLACED)

    async def environment_event(self, request: Request) -> dict[str, Any]:
        """Cause an event of an environment: rotate (with restart: true), interrupt, offline, online, age (seconds).

        To interrupt is to restart in the middle of turns.

        A real device can be asked to rotate, or be cut off with offline; its reaction is its own.
        """
        environment = self._environment(request)
        body = await request.json() if await request.body() else {}
        listener = self.letta.listeners.get(environment)
        if listener is not None:
            await _real_event(listener, request.path_params["event"])
            return environment.wire(time.time())
        fleet, connection = self.letta.fleet, environment.row.get("connectionId")
        match request.path_params["event"]:
            case "rotate":
                if body.get("restart"):
                    self.letta.devices.restart(environment)
                fleet.rotate(environment)
            case "interrupt":
                self.letta.agents.restart(environment.id, time.time())
                self.letta.devices.restart(environment)
                fleet.rotate(environment)
            case "offline":
                fleet.offline(environment)
            case "online":
                fleet.online(environment)
            case "age":
                fleet.age(environment, float(body["seconds"]))
            case event:
                raise ValueError(f"there is no event {event}: rotate, interrupt, offline, online, age")
        if environment.row.get("connectionId") != connection:
            self.letta.relay.close(connection)
        return environment.wire(time.time())

    async def set_command(self, request: Request) -> None:
        self.letta.simulated.set_command(self._environment(request), Command.model_validate(await request.json()))

    async def set_background(self, request: Request) -> None:
        """Let processes go on in the background of a conversation: {agent_id, conversation_id, processes}."""
        body = await request.json()
        scope = (body["agent_id"], body["conversation_id"])
        self.letta.simulated.background[self._environment(request).id, scope] = body["processes"]

    async def set_upgrade(self, request: Request) -> None:
        self.letta.simulated.upgrade = Upgrade.model_validate(await request.json())

    async def script_agent(self, request: Request) -> None:
        script = Script.model_validate(await request.json())
        self.letta.agents.script(unquote(request.path_params["id"]), script)

    async def name_agent(self, request: Request) -> None:
        self.letta.agents.rename(unquote(request.path_params["id"]), str((await request.json())["name"]))

    async def remove_agent(self, request: Request) -> None:
        self.letta.agents.remove(unquote(request.path_params["id"]))

    async def get_settings(self, request: Request) -> dict[str, Any]:
        return {**self.letta.settings.model_dump(), "devices": self.devices, "seed": self.seed}

    async def change_settings(self, request: Request) -> dict[str, Any]:
        self.letta.settings.change(await request.json())
        return await self.get_settings(request)

    async def restart(self, request: Request) -> None:
        """Let all online simulated devices register again, without a record of the messages they received."""
        now = time.time()
        for environment in self.letta.fleet:
            if environment.online(now) and self.letta.listeners.get(environment) is None:
                self.letta.devices.restart(environment)
                self.letta.relay.close(environment.row["connectionId"])
                self.letta.fleet.rotate(environment)

    async def reset(self, request: Request) -> None:
        """Return to the fleet of the command line, without faults, settings or received messages.

        Connected real devices stay, because they do not belong to the sandbox.
        """
        self._added = 0
        self.letta.fleet.replace([*seeded_fleet(self.devices, self.seed), *self.letta.listeners.connected()])
        self.letta.devices.reset()
        self.letta.agents.reset()
        self.letta.simulated.reset()
        self.qoder.reset()
        self.letta.settings.change(self._settings.model_dump())
        self.gate.faults.rules.clear()
        self.gate.log.clear()

    def _environment(self, request: Request) -> Environment:
        environment_id = unquote(request.path_params["id"])
        environment = self.letta.fleet.get(environment_id)
        if environment is None:
            raise LookupError(f"no environment with the id {environment_id!r}")
        return environment


async def _real_event(listener: Listener, event: str) -> None:
    match event:
        case "rotate":
            await listener.close(*REGISTER_AGAIN)
        case "offline":
            await listener.close(1001, "Going away")
        case _:
            raise ValueError(f"a real device knows no event {event}: rotate, offline")


def _truth(environment: Environment, now: float) -> dict[str, Any]:
    return {
        "id": environment.id,
        "name": environment.row.get("connectionName"),
        "online": environment.online(now),
        "source": environment.source,
        "row": environment.wire(now),
    }
