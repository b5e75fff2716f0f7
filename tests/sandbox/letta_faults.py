"""Faults in the answers of Letta's API: inconsistent pages, invalid rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from .api import Reply
from .faults import ONLY_ON, LettaDamage, Rule, positions
from .fleet import Row


def spoil(rule: Rule, reply: Reply | None, page_before: Callable[[], list[Row]]) -> Reply | None:
    """Return the reply with the fault in it. A page fault does not change an error."""
    if rule.fault == "success_false":
        return Reply(200, {"message": "The environment did not take the message", "success": False})
    if rule.fault not in ONLY_ON or reply is None or reply.status != 200:
        return reply
    page = reply.body
    match rule.fault:
        case "repeat_cursor":
            page |= {"connections": page_before() or page["connections"], "hasNextPage": True}
        case "no_has_next_page":
            del page["hasNextPage"]
        case "no_connections":
            del page["connections"]
        case "next_page_after_empty":
            page |= {"connections": [], "hasNextPage": True}
        case "invalid_rows":
            _damage_rows(rule, page["connections"])
        case "nan":
            for position in positions(rule, page["connections"]):
                page["connections"][position]["lastHeartbeat"] = float("nan")
    return reply


def _damage_rows(rule: Rule, rows: list[Any]) -> None:
    kinds: tuple[str, ...] = (rule.damage,) if rule.damage else get_args(LettaDamage)
    for number, position in enumerate(positions(rule, rows)):
        rows[position] = _damage_row(rows[position], kinds[number % len(kinds)])


def _damage_row(row: Row, damage: str) -> Any:
    damaged = dict(row)
    match damage:
        case "no_id":
            del damaged["id"]
        case "id_number":
            damaged["id"] = 17
        case "name_null":
            damaged["connectionName"] = None
        case "device_missing":
            del damaged["deviceId"]
        case "heartbeat_text":
            damaged["lastHeartbeat"] = "a moment ago"
        case "metadata_list":
            damaged["metadata"] = ["linux"]
        case "version_number":
            damaged["metadata"] = {**(row.get("metadata") or {}), "lettaCodeVersion": 0.34}
        case "not_an_object":
            return "environment"
    return damaged
