"""A simulated device's reports: its own state, and that of its agent's conversation."""

from __future__ import annotations

import json
from typing import Any

from .commands import metadata_of
from .conversations import Conversation
from .fleet import Environment
from .turns import GiveUpTurn


def device(
    environment: Environment, conversation: Conversation | None, mode: str, background: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the device_status of an update_device_status."""
    row, metadata = environment.row, metadata_of(environment)
    return {
        "current_connection_id": row.get("connectionId"),
        "connection_name": row.get("connectionName"),
        "is_online": True,
        "is_processing": _is_active(environment, conversation),
        "current_permission_mode": mode,
        "current_working_directory": metadata.get("workingDirectory"),
        "letta_code_version": metadata.get("lettaCodeVersion"),
        "pending_control_requests": pending(environment, conversation),
        "background_processes": background,
        "supported_commands": metadata.get("supported_commands", []),
    }


def loop(environment: Environment, conversation: Conversation | None) -> dict[str, Any]:
    """Return the loop_status of an update_loop_status."""
    active = conversation.active if conversation is not None else None
    if active is None or not _is_active(environment, conversation):
        return {"status": "WAITING_ON_INPUT", "active_run_ids": [], "executing_tool_call_ids": []}
    if isinstance(active.turn, GiveUpTurn):
        return {"status": "RETRYING_API_REQUEST", "active_run_ids": [], "executing_tool_call_ids": []}
    status = "WAITING_ON_APPROVAL" if active.request is not None else "PROCESSING_API_RESPONSE"
    return {"status": status, "active_run_ids": [active.run.id], "executing_tool_call_ids": []}


def queue(environment: Environment, conversation: Conversation | None) -> list[dict[str, Any]]:
    """Return the queue of an update_queue: messages that wait for the end of the turn, or are paused after an abort."""
    if conversation is None:
        return []
    paused = {"paused": True} if environment.id in conversation.paused else {}
    return [
        {"id": f"q-{number}", "client_message_id": message["otid"], "kind": "message", "source": "user", **paused}
        | {"content": message["content"]}
        for number, message in enumerate(conversation.queue.get(environment.id, []), start=1)
    ]


def pending(environment: Environment, conversation: Conversation | None) -> list[dict[str, Any]]:
    """Return the tool calls that wait for approval on this device."""
    active = conversation.active if conversation is not None else None
    if active is None or active.request is None or not _is_active(environment, conversation):
        return []
    call = active.request["tool_call"]
    request = {
        "subtype": "can_use_tool",
        "tool_name": call["name"],
        "input": json.loads(call["arguments"]),
        "tool_call_id": call["tool_call_id"],
        "permission_suggestions": [],
        "blocked_path": None,
    }
    return [{"request_id": f"perm-{call['tool_call_id']}", "request": request}]


def _is_active(environment: Environment, conversation: Conversation | None) -> bool:
    active = conversation.active if conversation is not None else None
    return active is not None and active.device == environment.id
