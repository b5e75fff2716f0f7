"""Letta's REST API for agents, as far as devices and clients that wait for replies use it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.routing import Route

from . import events
from .agents import Agents
from .api import ApiError, Call, Handler, Reply, bad_request, json_object, positive
from .conversations import Conversation, Run, iso
from .fleet import Row
from .settings import Settings

DEFAULT_PAGE = 100
MODEL = "anthropic/claude-scripted"
"""Devices choose an agent's tools by its model: with this one they have Bash, Read, Write and Edit."""
CONTEXT_WINDOW = 128_000

MakeRoute = Callable[[str, str, str, Handler], Route]
"""Makes a route from its name, method, path and handler."""


class AgentApi:
    def __init__(self, agents: Agents, settings: Settings) -> None:
        self._agents, self._settings = agents, settings

    def routes(self, route: MakeRoute) -> list[Route]:
        return [
            route("agent_list", "GET", "/v1/agents/", self.list_agents),
            route("agents", "GET", "/v1/agents/{agent_id}", self.get_agent),
            # Devices note on the agent that they work with it.
            route("agents", "PATCH", "/v1/agents/{agent_id}", self.get_agent),
            route("agents", "GET", "/v1/agents/{agent_id}/secrets", self.get_nothing),
            route("agents", "GET", "/v1/agents/{agent_id}/mcp-servers", self.get_nothing),
            route("agents", "GET", "/v1/agents/{agent_id}/repositories", self.get_nothing),
            route("agents", "GET", "/v1/models/", self.list_models),
            route("history", "GET", "/v1/agents/{agent_id}/messages", self.list_agent_messages),
            route("cancel", "POST", "/v1/agents/{agent_id}/messages/cancel", self.cancel_runs),
            route("conversations", "POST", "/v1/conversations/", self.create_conversation),
            route("conversation_list", "GET", "/v1/conversations/", self.list_conversations),
            route("conversations", "GET", "/v1/conversations/{conversation_id}", self.get_conversation),
            route("conversations", "PATCH", "/v1/conversations/{conversation_id}", self.update_conversation),
            route("history", "GET", "/v1/conversations/{conversation_id}/messages", self.list_messages),
            route("turn", "POST", "/v1/conversations/{conversation_id}/messages", self.start_turn),
            route("cancel", "POST", "/v1/conversations/{conversation_id}/cancel", self.cancel_conversation),
            route("runs", "GET", "/v1/runs/", self.list_runs),
            route("runs", "GET", "/v1/runs/{run_id}", self.get_run),
        ]

    async def list_agents(self, call: Call) -> Reply:
        """Answer a list of agents; with name only those of this name."""
        wanted = call.query.get("name") if self._settings.searches else None
        rows = [_agent(agent_id, self._agents.name(agent_id)) for agent_id in self._agents.ids()]
        return _select(call, [row for row in rows if wanted in (None, row["name"])])

    async def get_agent(self, call: Call) -> Reply:
        self._agents.check(call.target)
        return Reply(200, _agent(call.target, self._agents.name(call.target)))

    async def get_nothing(self, call: Call) -> Reply:
        """Answer with an empty list: the agent has none of these."""
        self._agents.check(call.target)
        return Reply(200, [])

    async def list_models(self, call: Call) -> Reply:
        return Reply(200, [{**_llm_config(), "handle": MODEL, "name": "scripted", "display_name": "Scripted"}])

    async def create_conversation(self, call: Call) -> Reply:
        agent_id = call.query.get("agent_id")
        if not agent_id:
            raise bad_request("agent_id is required")
        body = json_object(call)
        chosen = {key: body.get(key) for key in ("description", "model", "context_window_limit")}
        return Reply(200, {**_conversation(self._agents.create_conversation(agent_id, body.get("summary"))), **chosen})

    async def list_conversations(self, call: Call) -> Reply:
        """Answer a list of an agent's conversations, without its default one; the search ignores case."""
        agent_id = call.query.get("agent_id")
        if not agent_id:
            raise bad_request("agent_id is required")
        self._agents.check(agent_id)
        wanted = call.query.get("summary_search", "").lower() if self._settings.searches else ""
        kept = {"unarchived": {False}, "archived": {True}, "all": {False, True}}.get(
            call.query.get("archive_status", "unarchived")
        )
        if kept is None:
            raise bad_request("archive_status must be unarchived, archived or all")
        found = [
            conversation
            for conversation in self._agents.conversations(agent_id)
            if conversation.id != "default" and conversation.archived in kept
            if wanted in (conversation.summary or "").lower()
        ]
        newest_first = call.query.get("order", "desc") == "desc"
        found.sort(key=lambda conversation: conversation.created, reverse=newest_first)
        return _select(call, [_conversation(conversation) for conversation in found])

    async def get_conversation(self, call: Call) -> Reply:
        return Reply(200, _conversation(self._conversation(call)))

    async def update_conversation(self, call: Call) -> Reply:
        """Take `summary` and `archived`."""
        conversation, body = self._conversation(call), json_object(call)
        conversation.summary = body.get("summary", conversation.summary)
        conversation.archived = bool(body.get("archived", conversation.archived))
        return Reply(200, _conversation(conversation))

    async def list_messages(self, call: Call) -> Reply:
        return _page(call, self._conversation(call))

    async def list_agent_messages(self, call: Call) -> Reply:
        return _page(call, self._agents.conversation(call.query.get("conversation_id", "default"), call.target))

    async def start_turn(self, call: Call) -> Reply:
        """Answer a stream of server-sent events, which ends with the turn."""
        body = json_object(call)
        conversation = self._conversation(call, body)
        messages = body.get("messages")
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            raise bad_request("messages must be a list of objects")
        run = conversation.request(messages, time.time())
        return Reply(200, _stream(run), "text/event-stream")

    async def cancel_conversation(self, call: Call) -> Reply:
        """Answer ``{run id: "cancelled"}``."""
        run = self._conversation(call, json_object(call)).cancel(time.time())
        if run is None:
            raise ApiError(409, "CONFLICT", f"No active runs to cancel in conversation {call.target!r}")
        return Reply(200, {run.id: run.status})

    async def cancel_runs(self, call: Call) -> Reply:
        """Cancel the given runs, or all runs of the agent; answer ``{run id: status}``."""
        self._agents.check(call.target)
        wanted = json_object(call).get("run_ids")
        conversations = (
            list(self._agents.conversations(call.target))
            if wanted is None
            else [self._agents.run(run_id).conversation for run_id in wanted if self._is_under_way(run_id)]
        )
        cancelled = [run for conversation in conversations if (run := conversation.cancel(time.time()))]
        if not cancelled:
            raise ApiError(409, "CONFLICT", f"No active runs to cancel for agent {call.target!r}")
        return Reply(200, {run.id: run.status for run in cancelled})

    async def get_run(self, call: Call) -> Reply:
        run = self._agents.run(call.target)
        run.conversation.settle(time.time())
        return Reply(200, run.wire())

    async def list_runs(self, call: Call) -> Reply:
        """Answer a list of an agent's runs, newest first; with active or stop_reason only such runs."""
        agent_id, reason = call.query.get("agent_id", ""), call.query.get("stop_reason")
        self._agents.check(agent_id)
        for conversation in self._agents.conversations(agent_id):
            conversation.settle(time.time())
        found = [
            run.wire()
            for run in self._agents.runs(agent_id)
            if call.query.get("active") != "true" or run.status == "running"
            if reason in (None, run.stop_reason)
        ]
        return _select(call, found[::-1])

    def _conversation(self, call: Call, body: Row | None = None) -> Conversation:
        agent_id = (body or {}).get("agent_id") or call.query.get("agent_id", "")
        return self._agents.conversation(call.target, str(agent_id))

    def _is_under_way(self, run_id: str) -> bool:
        run = self._agents.run(run_id)
        run.conversation.settle(time.time())
        return run.status == "running"


def _select(call: Call, rows: list[Row]) -> Reply:
    """Return the page of a list call: the rows after the one that the query names."""
    places = {row["id"]: place for place, row in enumerate(rows)}
    after = call.query.get("after")
    if after is not None and after not in places:
        raise bad_request(f"after: no row {after!r}")
    start = places[after] + 1 if after is not None else 0
    return Reply(200, rows[start : start + positive(call, "limit", DEFAULT_PAGE)])


def _page(call: Call, conversation: Conversation) -> Reply:
    order = call.query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise bad_request("order must be asc or desc")
    conversation.settle(time.time())
    limit = positive(call, "limit", DEFAULT_PAGE)
    after, before = call.query.get("after"), call.query.get("before")
    return Reply(200, conversation.page(newest_first=order == "desc", after=after, before=before, limit=limit))


async def _stream(run: Run) -> AsyncIterator[bytes]:
    """Yield the agent's messages of a run, once each is written."""
    # The client must know the run before it ends, to be able to cancel it.
    yield events.ping(run)
    await run.conversation.until_over(run)
    for row in run.said:
        yield events.event(row)
    yield events.ending(run)


def _agent(agent_id: str, name: str) -> dict[str, Any]:
    """Return an agent in the shape that the official SDK reads."""
    lists = ("blocks", "sources", "tags", "tools", "identities", "secrets", "tool_exec_environment_variables")
    return {
        "id": agent_id,
        "name": name,
        "agent_type": "letta_v1_agent",
        "system": "A scripted agent.",
        "memory": {"blocks": []},
        "model": MODEL,
        "llm_config": _llm_config(),
        "created_at": iso(0),
        **{name: [] for name in lists},
    }


def _llm_config() -> dict[str, Any]:
    return {
        "model": "claude-scripted",
        "model_endpoint_type": "anthropic",
        "provider_type": "anthropic",
        "handle": MODEL,
        "context_window": CONTEXT_WINDOW,
        "max_context_window": CONTEXT_WINDOW,
    }


def _conversation(conversation: Conversation) -> dict[str, Any]:
    """Return a conversation in the shape that the official SDK reads."""
    created = iso(conversation.created)
    return {
        "id": conversation.id,
        "agent_id": conversation.agent_id,
        "created_at": created,
        "updated_at": created,
        "archived": conversation.archived,
        "summary": conversation.summary,
        "in_context_message_ids": [],
    }
