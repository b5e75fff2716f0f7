"""Helpers of the sandbox tests for Qoder."""

from __future__ import annotations

from typing import Any

import httpx

from tests.sandbox.process import Sandbox

AGENT = "agent_1"


def list_ids(qoder: httpx.Client, **query: Any) -> list[str]:
    """All ids, page by page, with the cursors of the generation."""
    ids: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = qoder.get("/environments", params={**query, **cursor}).raise_for_status().json()
        ids += [row["id"] for row in page["data"]]
        if not page["has_more"]:
            return ids
        cursor = {"page": page["next_page"]} if "next_page" in page else {"after_id": page["last_id"]}


def active(sandbox: Sandbox) -> list[str]:
    """The ids of the environments that are not archived, newest first as in a listing."""
    return [entry["id"] for entry in reversed(sandbox.qoder.environments()) if not entry["archived"]]


def create(qoder: httpx.Client, environment_id: str, key: str | None = None, **body: Any) -> httpx.Response:
    return qoder.post(
        "/sessions", json={"agent": AGENT, "environment_id": environment_id, **body}, headers=key_header(key)
    )


def new_session(sandbox: Sandbox, qoder: httpx.Client, **body: Any) -> str:
    """A session in the newest environment; returns its id."""
    response = create(qoder, active(sandbox)[0], **body)
    assert response.status_code == 201, response.text
    id_: str = response.json()["id"]
    return id_


def send(qoder: httpx.Client, session_id: str, text: str = "hello", key: str | None = None) -> httpx.Response:
    event = {"type": "user.message", "content": [{"type": "text", "text": text}]}
    return qoder.post(f"/sessions/{session_id}/events", json={"events": [event]}, headers=key_header(key))


def events(qoder: httpx.Client, session_id: str, **query: Any) -> list[dict[str, Any]]:
    response = qoder.get(f"/sessions/{session_id}/events", params=query).raise_for_status()
    rows: list[dict[str, Any]] = response.json()["data"]
    return rows


def key_header(key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": key} if key is not None else {}


def error(response: httpx.Response) -> tuple[int, str, str | None]:
    """Status, type and parameter of an error in Qoder's envelope."""
    body = response.json()
    assert body.keys() == {"type", "request_id", "error"}
    assert (body["type"], body["request_id"]) == ("error", response.headers["x-request-id"])
    assert body["error"]["message"]
    return response.status_code, body["error"]["type"], body["error"].get("param")
