"""Letta's API for environments: list, retrieve, send messages."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from starlette.routing import BaseRoute, Route, WebSocketRoute

from . import letta_faults
from .agent_api import AgentApi
from .agents import Agents
from .api import ApiError, Call, Reply, bad_request, positive
from .device import Devices
from .endpoint import Endpoint, Gate
from .faults import Rule
from .fleet import Environment, Fleet, Row
from .listeners import Listeners
from .messages import SendMessageBody, describe
from .relay import Relay
from .relay_api import RelayApi
from .settings import Settings
from .simulated import SimulatedDevices
from .sockets import Frame, SocketEndpoint

DEFAULT_PAGE = 50


@dataclass
class Keys:
    right: str
    forbidden: str | None = None
    """A key that gets 403."""


@dataclass
class Letta:
    """The state behind the API."""

    fleet: Fleet
    keys: Keys
    settings: Settings = field(default_factory=Settings)
    devices: Devices = field(default_factory=Devices)
    agents: Agents = field(default_factory=Agents)
    relay: Relay = field(default_factory=Relay)

    def __post_init__(self) -> None:
        self.listeners = Listeners(self.fleet, self.settings, self.relay)
        self.simulated = SimulatedDevices(self.fleet, self.agents, self.devices, self.relay)

    def routes(self, gate: Gate) -> list[BaseRoute]:
        def route(name: str, method: str, path: str, handler: Any) -> Route:
            return Route(path, Endpoint(name, handler, self, gate), methods=[method])

        def socket(name: str, path: str, handler: Any) -> WebSocketRoute:
            return WebSocketRoute(path, SocketEndpoint(name, handler, self, gate))

        relay = RelayApi(self.fleet, self.relay, self.settings, self.hand_over)
        return [
            socket("relay", "/v1/environments/{connection_id}/status/ws", relay.connect),
            route("register", "POST", "/v1/environments/register", self.listeners.register),
            socket("device", "/v1/environments/{connection_id}/ws", self.listeners.connect),
            route("list", "GET", "/v1/environments", self.list_environments),
            route("retrieve", "GET", "/v1/environments/{device_id}", self.retrieve_environment),
            route("messages", "POST", "/v1/environments/{connection_id}/messages", self.send_message),
            *AgentApi(self.agents, self.settings).routes(route),
        ]

    def admit(self, bearer: str) -> str:
        if self.keys.forbidden is not None and bearer == self.keys.forbidden:
            raise ApiError(403, "FORBIDDEN", "This key may not use environments")
        if bearer != self.keys.right:
            raise ApiError(401, "UNAUTHORIZED", "A valid API key is required")
        return "letta"

    async def list_environments(self, call: Call) -> Reply:
        """Answer ``{connections: [row, ...], hasNextPage: bool}``."""
        following = list(self.fleet)
        if "after" in call.query:
            following = self._split(call)[1]
        selected = _select(call, following)
        limit = positive(call, "limit", DEFAULT_PAGE)
        now = time.time()
        page = [environment.wire(now) for environment in selected[:limit]]
        return Reply(200, {"connections": page, "hasNextPage": len(selected) > limit})

    async def retrieve_environment(self, call: Call) -> Reply:
        """Answer one row; for a device with several, the row that was active last."""
        now = time.time()
        environments = self.fleet.by_device(call.target, now)
        if not environments:
            raise ApiError(404, "NOT_FOUND", f"No environment with device id {call.target!r}")
        return Reply(200, environments[0].wire(now))

    async def send_message(self, call: Call) -> Reply:
        """Hand the messages to the device; answer ``{message, success}``."""
        try:
            body = SendMessageBody.model_validate_json(call.body)
        except ValidationError as error:
            raise bad_request(describe(error)) from None
        environment = self.fleet.by_connection(call.target)
        if environment is None or not environment.online(time.time()):
            raise self._not_connected(call.target)
        listener = self.listeners.get(environment)
        if listener is None:
            self.simulated.deliver(environment, body)
        elif await listener.deliver(body):
            self.devices.deliver(environment, body)
        else:
            raise self._not_connected(call.target)
        return Reply(200, {"message": "Message sent to environment", "success": True})

    async def hand_over(self, environment: Environment, frame: Frame) -> None:
        """Deliver a client's frame to a device."""
        if frame.get("type") == "execute_command":
            self.devices.count_command(environment, frame)
        listener = self.listeners.get(environment)
        if listener is None:
            self.simulated.receive(environment, frame)
        else:
            await listener.send(frame)

    def subjects(self, call: Call) -> list[str]:
        if call.route == "retrieve":
            found = self.fleet.by_device(call.target, time.time())
            return [call.target, *(str(id_) for e in found for id_ in (e.id, e.row.get("connectionId")))]
        if call.route in ("messages", "relay"):
            environment = self.fleet.by_connection(call.target)
            return [environment.id, call.target, str(environment.row.get("deviceId"))] if environment else [call.target]
        # The agent of a run or a conversation is not looked up.
        return [name for name in (call.query.get("agent_id"), call.target) if name]

    def refusal(self, error: ApiError) -> Reply:
        return Reply(error.status, {"errorCode": error.code, "message": error.message})

    def spoil(self, rule: Rule, call: Call, reply: Reply | None) -> Reply | None:
        return letta_faults.spoil(rule, reply, lambda: self._page_before(call))

    def _not_connected(self, connection_id: str) -> ApiError:
        status = self.settings.offline_status
        code = "NOT_FOUND" if status == 404 else "SERVICE_UNAVAILABLE"
        return ApiError(status, code, f"Environment connection {connection_id!r} is not connected")

    def _split(self, call: Call) -> tuple[list[Environment], list[Environment]]:
        try:
            return self.fleet.split_after(call.query["after"])
        except KeyError:
            raise bad_request(f"after: no environment {call.query['after']!r}") from None

    def _page_before(self, call: Call) -> list[Row]:
        """Return the page that ends with the cursor of a list call, or no rows if the cursor does not exist."""
        before = _select(call, self._split(call)[0]) if "after" in call.query else []
        now = time.time()
        return [environment.wire(now) for environment in before[-positive(call, "limit", DEFAULT_PAGE) :]]


def _select(call: Call, environments: list[Environment]) -> list[Environment]:
    """Return the environments that the query of a list call selects."""
    online_only, source, user_id = (call.query.get(name) for name in ("onlineOnly", "source", "userId"))
    if online_only not in (None, "true", "false"):
        raise bad_request("onlineOnly must be true or false")
    if source not in (None, "local", "remote"):
        raise bad_request("source must be local or remote")
    return [
        environment
        for environment in environments
        # A connection id is enough for onlineOnly. The docs say that extra records come back, and a client that does
        # not look at the heartbeat again must be caught here.
        if (online_only != "true" or environment.row.get("connectionId"))
        and source in (None, environment.source)
        and user_id in (None, environment.row.get("userId"))
    ]
