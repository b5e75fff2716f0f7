"""Faults in the answers of Qoder's API: inconsistent pages, and fields that no client should trust."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

from .api import Call, Reply
from .faults import ONLY_ON, QoderDamage, Rule, positions
from .fleet import Row

CURSORS = ("next_page", "first_id", "last_id")
"""The cursors of a page."""


def spoil(rule: Rule, call: Call, reply: Reply | None, list_page: Callable[[Call], Row]) -> Reply | None:
    """Return a reply with the fault in it. An error is unchanged.

    ``list_page`` answers a list call.
    """
    if rule.fault not in ONLY_ON or reply is None or reply.status >= 400:
        return reply
    # The reply may be kept under an idempotency key, and its rows belong to the fleet.
    body = dict(reply.body)
    match rule.fault:
        case "repeat_cursor":
            _repeat_cursor(body, call)
        case "cursor_cycle":
            first = list_page(replace(call, query=_without_cursor(call.query)))
            body |= {"has_more": True, **{name: first[name] for name in CURSORS if name in body}}
        case "no_cursor":
            body |= {"has_more": True, "last_id": None, "first_id": None}
            body.pop("next_page", None)
        case "no_next_page":
            # last_id is still there, and a client can continue with it.
            body.pop("next_page", None)
        case "no_has_more":
            del body["has_more"]
        case "no_data":
            del body["data"]
        case "next_page_after_empty":
            body |= {"data": [], "has_more": True}
        case "invalid_rows":
            body["data"] = _damage_rows(rule, body["data"])
        case "without_id":
            body.pop("id", None)
            if "data" in body:
                body["data"] = [_damage_row(row, "no_id") for row in body["data"]]
    return Reply(reply.status, body, reply.media_type, dict(reply.headers))


def _without_cursor(query: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in query.items() if name not in ("page", "after_id", "before_id")}


def _repeat_cursor(page: Row, call: Call) -> None:
    """Let the page lead to itself; the first page leads to the next one as it should."""
    page["has_more"] = True
    if "next_page" in page:
        page["next_page"] = call.query.get("page", page["next_page"])
    page["last_id"] = call.query.get("after_id", page["last_id"])
    page["first_id"] = call.query.get("before_id", page["first_id"])


def _damage_rows(rule: Rule, rows: list[Row]) -> list[Any]:
    damaged: list[Any] = list(rows)
    kinds: tuple[str, ...] = (rule.damage,) if rule.damage else get_args(QoderDamage)
    for number, position in enumerate(positions(rule, rows)):
        damaged[position] = _damage_row(rows[position], kinds[number % len(kinds)])
    return damaged


def _damage_row(row: Row, damage: str) -> Any:
    if damage == "not_an_object":
        return "environment"
    if damage == "no_id":
        return {key: value for key, value in row.items() if key != "id"}
    # A rule for every route may name fields that only Letta's rows can have.
    return {**row, **CHANGES.get(damage, {})}


CHANGES: dict[str, Row] = {
    "id_number": {"id": 17},
    "id_empty": {"id": ""},
    "name_null": {"name": None},
    "name_template": {"name": "{{ lookup('pipe', 'id') }}"},
    "name_markup": {"name": "<script>alert(1)</script>"},
    "name_huge": {"name": "x" * 1_000_000},
    "config_text": {"config": "{{ cloud }}"},
    "networking_list": {"config": {"type": "cloud", "networking": ["limited"]}},
    "packages_text": {"config": {"type": "cloud", "packages": "curl"}},
    "metadata_list": {"metadata": ["linux"]},
    "archived_text": {"archived": "yes", "archived_at": 17, "status": ["archived"]},
    "type_number": {"type": 5},
    "content_text": {"content": "{{ hello }}"},
    "stop_reason_text": {"stop_reason": "end_turn"},
}
"""The values of a row for each kind of damage; the last ones are for events."""
