"""Qoder's Cloud Agents API: environments, sessions and their events, in either generation."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from starlette.routing import BaseRoute, Route

from . import qoder_faults
from .api import ApiError, Call, Handler, Reply
from .endpoint import Endpoint, Gate
from .faults import Rule
from .fleet import Row
from .qoder_bodies import NewEvents, NewSession, parsed
from .qoder_errors import envelope, refuse
from .qoder_fleet import Account, CloudEnvironment
from .qoder_idempotency import IdempotencyKeys
from .qoder_pages import Generation, page
from .qoder_seeded import new_environment, seeded_environments
from .qoder_sessions import Session, Sessions
from .settings import Settings

BASE = "/api/v1/cloud"
FIRST_ACCOUNT = "default"
DEFAULT_QODER_KEY = "qoder-sandbox-key-for-loopback-only"


@dataclass
class Clock:
    """The clock of idempotency keys and of the times of sessions; a test can move it forward."""

    ahead: float = 0.0

    def now(self) -> float:
        return time.time() + self.ahead


@dataclass
class Qoder:
    """The state behind the API, and the initial state of its first account."""

    key: str
    environments: int
    seed: int
    settings: Settings
    accounts: dict[str, Account] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.idempotency = IdempotencyKeys(self.clock.now)
        self.reset()

    def reset(self) -> None:
        """Return to the seeded fleet of the first account, without sessions, scripts or keys."""
        self.accounts.clear()
        self.accounts[FIRST_ACCOUNT] = Account(FIRST_ACCOUNT, self.key)
        self.accounts[FIRST_ACCOUNT].replace(seeded_environments(self.environments, self.seed))
        self.added = 0
        self.clock.ahead = 0.0
        self.sessions = Sessions(self.clock.now)
        self.idempotency.forget()

    def add(self, account: Account, fields: Row) -> CloudEnvironment:
        """Add an environment, newer than all others, with raw fields overridden."""
        self.added += 1
        environment = new_environment(self.seed, self.added)
        # The row has the id from the beginning, so the id is not a change.
        environment.row["id"] = fields.get("id", environment.id)
        environment.patch(fields)
        account.add(environment)
        return environment

    @property
    def generation(self) -> Generation:
        return self.settings.qoder_generation

    def routes(self, gate: Gate) -> list[BaseRoute]:
        def route(name: str, method: str, path: str, handler: Handler) -> Route:
            return Route(f"{BASE}{path}", Endpoint(name, handler, self, gate), methods=[method])

        def post(name: str, path: str, handler: Handler) -> Route:
            return route(name, "POST", path, self.idempotency.once(handler))

        return [
            route("qoder_list", "GET", "/environments", self.list_environments),
            route("qoder_environment", "GET", "/environments/{environment_id}", self.get_environment),
            route("qoder_work", "GET", "/environments/{environment_id}/work/stats", self.get_work),
            post("qoder_create", "/sessions", self.create_session),
            route("qoder_session", "GET", "/sessions/{session_id}", self.get_session),
            post("qoder_send", "/sessions/{session_id}/events", self.send_events),
            route("qoder_events", "GET", "/sessions/{session_id}/events", self.list_events),
            Route(f"{BASE}/{{path:path}}", Endpoint("other", _no_such_route, self, gate)),
        ]

    async def list_environments(self, call: Call) -> Reply:
        """Answer a page of environments, newest first."""
        return Reply(200, self._page(call))

    async def get_environment(self, call: Call) -> Reply:
        environment = self.accounts[call.account].get(call.target, self.generation)
        return Reply(200, environment.wire(self.generation))

    async def get_work(self, call: Call) -> Reply:
        """Answer the work that waits for a self-hosted environment's workers, and how many of them poll."""
        if self.generation == "seed":
            return await _no_such_route(call)
        environment = self.accounts[call.account].get(call.target, self.generation)
        if environment.config_type != "self_hosted":
            raise refuse(400, f"Environment {call.target!r} is not self_hosted")
        stats: dict[str, Any] = {"type": "work_queue_stats", "depth": 0, "pending": 0, "oldest_queued_at": None}
        return Reply(200, {**stats, "workers_polling": environment.workers})

    async def create_session(self, call: Call) -> Reply:
        body = parsed(call, NewSession)
        environment = self.accounts[call.account].environments.get(body.environment_id)
        if environment is None or not environment.exists_in(self.generation):
            raise refuse(404, f"Environment {body.environment_id!r} not found", "environment_id")
        if environment.archived(self.generation):
            raise refuse(400, f"Environment {body.environment_id!r} is archived", "environment_id")
        return Reply(201, self.sessions.create(call.account, body).wire())

    async def get_session(self, call: Call) -> Reply:
        session = self._session(call)
        session.look()
        return Reply(200, session.wire())

    async def send_events(self, call: Call) -> Reply:
        """Answer the accepted events: ``{data: [event, ...]}``."""
        session, body = self._session(call), parsed(call, NewEvents)
        return Reply(202, {"data": session.take(body)})

    async def list_events(self, call: Call) -> Reply:
        """Answer a page of events, by default the oldest first."""
        session = self.sessions.get(call.account, call.target)
        order = call.query.get("order", "asc")
        if order not in ("asc", "desc"):
            raise refuse(400, "order must be asc or desc", "order")
        session.look()
        return Reply(200, page(call, session.events, self.generation, newest_first=order == "desc"))

    def admit(self, bearer: str) -> str:
        account = next((account for account in self.accounts.values() if account.key == bearer), None)
        if account is None:
            raise refuse(401, "A valid access token is required")
        if account.forbidden:
            raise refuse(403, "This account may not use Cloud Agents")
        return account.name

    def subjects(self, call: Call) -> list[str]:
        if call.route == "qoder_create":
            return [*_find_subjects(call.body), call.account]
        session = self.sessions.all.get(call.target)
        if session is not None:
            return [session.environment_id, session.id, session.agent.id, call.account]
        return [name for name in (call.target, call.account) if name]

    def refusal(self, error: ApiError) -> Reply:
        return envelope(error)

    def spoil(self, rule: Rule, call: Call, reply: Reply | None) -> Reply | None:
        return qoder_faults.spoil(rule, call, reply, self._page)

    def _page(self, call: Call) -> Row:
        rows = self.accounts[call.account].selected(call, self.generation)
        return page(call, rows, self.generation, newest_first=True)

    def _session(self, call: Call) -> Session:
        """Return a session that was not deleted; the events of a deleted one can still be read."""
        session = self.sessions.get(call.account, call.target)
        if session.ended == "deleted":
            raise refuse(404, f"Session {call.target!r} was deleted")
        return session


def _find_subjects(body: bytes) -> list[str]:
    """Return the environment and the agent for a new session."""
    try:
        new = NewSession.model_validate_json(body)
    except ValueError:
        return []
    return [new.environment_id, new.pinned().id]


async def _no_such_route(call: Call) -> Reply:
    raise refuse(404, "There is no such route")
