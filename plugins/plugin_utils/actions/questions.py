# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the messages whose replies a task wants from the results of send_message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ...module_utils.errors import OptionError
from ...module_utils.fleet.replies import SentMessage
from ...module_utils.providers.conversation import Question
from ...module_utils.providers.letta.provider import PROVIDER as LETTA
from ...module_utils.providers.registry import find_provider
from ...module_utils.text import one_line
from ..hosts import find_environment

_DELIVERED = ("sent", "already_sent", "unknown")


def read_sent_message(where: str, entry: Mapping[str, Any], task_vars: Mapping[str, Any]) -> SentMessage:
    """The message of one result of send_message. Raises OptionError for `where`."""
    host, client_message_id, agent_id = (
        _read_text(where, entry, key) for key in ("host", "client_message_id", "agent_id")
    )
    if host is None:
        raise OptionError(where, "has no host")
    environment_id = _read_text(where, entry, "id")
    environment = find_environment(host, task_vars["hostvars"])
    if environment is not None and environment_id not in (None, environment.id):
        environment = None
    provider = find_provider(
        environment.provider if environment else _read_text(where, entry, "provider") or LETTA.name
    )
    conversation_id = _read_text(where, entry, provider.conversation)
    skip = _explain_skip(where, entry, provider.reply_keys)
    if skip is not None:
        return SentMessage(host, environment_id, client_message_id, None, skip=skip)
    sent_at = _read_time(where, entry)
    question = Question(
        provider=provider.name,
        agent_id=agent_id or "",
        conversation_id=conversation_id,
        otid=_read_text(where, entry, "otid") or provider.history_id(client_message_id),
        client_message_id=client_message_id,
        environment=environment,
        since=sent_at.isoformat() if sent_at is not None else None,
    )
    environment_id = environment_id or (environment.id if environment else None)
    return SentMessage(host, environment_id, client_message_id, question, sent_at)


def _explain_skip(where: str, entry: Mapping[str, Any], needed: Sequence[str]) -> str | None:
    status = entry.get("status")
    if status not in (None, *_DELIVERED):
        return f"it was not sent: {one_line(status, 40)}"
    missing = next((key for key in needed if _read_text(where, entry, key) is None), None)
    if missing and status is None:
        raise OptionError(where, f"has no {missing}")
    return f"it was sent without {missing}, so its reply cannot be told from others" if missing else None


def _read_text(where: str, entry: Mapping[str, Any], key: str) -> str | None:
    value = entry.get(key)
    if value is not None and not isinstance(value, str):
        raise OptionError(where, f"{key} must be a text, got {one_line(repr(value), 60)}")
    return value or None


def _read_time(where: str, entry: Mapping[str, Any]) -> datetime | None:
    text = _read_text(where, entry, "sent_at")
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise OptionError(where, f"sent_at is no time in ISO 8601: {one_line(text, 60)!r}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
