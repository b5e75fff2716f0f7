"""The endpoints with which tests control Qoder's side of the sandbox, under ``/_sandbox/qoder/``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.routing import Route

from .fleet import Row
from .qoder import Qoder
from .qoder_fleet import Account, CloudEnvironment
from .qoder_seeded import seeded_environments
from .qoder_turns import QoderScript
from .steering import route


class NewAccount(BaseModel):
    """The body of ``PUT /_sandbox/qoder/accounts/{name}``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    key: str
    environments: int = 0
    seed: int = 1
    hostile: bool = False
    forbidden: bool = False


@dataclass
class QoderControl:
    qoder: Qoder

    def routes(self) -> list[Route]:
        account = "qoder/accounts/{account}"
        return [
            route("PUT", account, self.put_account),
            route("GET", f"{account}/environments", self.list_environments),
            route("POST", f"{account}/environments", self.add_environment),
            route("PATCH", f"{account}/environments/{{id}}", self.patch_environment),
            route("DELETE", f"{account}/environments/{{id}}", self.remove_environment),
            route("POST", "qoder/agents/{id}/script", self.script_agent),
            route("DELETE", "qoder/agents/{id}", self.remove_agent),
            route("GET", "qoder/sessions", self.list_sessions),
            route("POST", "qoder/clock", self.pass_time),
        ]

    async def put_account(self, request: Request) -> None:
        """Create an account with its own fleet, in place of the account of this name."""
        name, new = request.path_params["account"], NewAccount.model_validate(await request.json())
        if any(account.key == new.key for account in self.qoder.accounts.values() if account.name != name):
            raise ValueError("this key belongs to another account")
        account = Account(name, new.key, new.forbidden)
        account.replace(seeded_environments(new.environments, new.seed, hostile=new.hostile))
        self.qoder.accounts[name] = account

    async def list_environments(self, request: Request) -> list[dict[str, Any]]:
        """Return all environments, oldest first, without the filters of the API."""
        generation = self.qoder.generation
        return [
            {"id": each.id, "archived": each.archived(generation), "row": each.wire(generation)}
            for each in self._account(request).environments.values()
            if each.exists_in(generation)
        ]

    async def add_environment(self, request: Request) -> Row:
        environment = self.qoder.add(self._account(request), await request.json())
        return environment.wire(self.qoder.generation)

    async def patch_environment(self, request: Request) -> Row:
        environment = self._environment(request)
        environment.patch(await request.json())
        return environment.wire(self.qoder.generation)

    async def remove_environment(self, request: Request) -> None:
        del self._account(request).environments[self._environment(request).id]

    async def script_agent(self, request: Request) -> None:
        script = QoderScript.model_validate(await request.json())
        self.qoder.sessions.script(unquote(request.path_params["id"]), script)

    async def remove_agent(self, request: Request) -> None:
        self.qoder.sessions.removed_agents.add(unquote(request.path_params["id"]))

    async def list_sessions(self, request: Request) -> list[Row]:
        return [session.truth() for session in self.qoder.sessions.all.values()]

    async def pass_time(self, request: Request) -> None:
        """Move the clock forward by this many seconds."""
        seconds = float((await request.json())["seconds"])
        if seconds < 0:
            raise ValueError("time does not go back")
        self.qoder.clock.ahead += seconds

    def _account(self, request: Request) -> Account:
        name = request.path_params["account"]
        if name not in self.qoder.accounts:
            raise LookupError(f"no account {name!r}")
        return self.qoder.accounts[name]

    def _environment(self, request: Request) -> CloudEnvironment:
        environment_id = unquote(request.path_params["id"])
        environment = self._account(request).environments.get(environment_id)
        if environment is None:
            raise LookupError(f"no environment with the id {environment_id!r}")
        return environment
