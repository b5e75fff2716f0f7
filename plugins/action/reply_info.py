# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action reply_info: collect replies to messages that were sent before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ..module_utils.environment import EnvironmentReference
from ..module_utils.errors import OptionError
from ..module_utils.files import check_directory
from ..module_utils.fleet.fan_out import count_each
from ..module_utils.fleet.replies import (
    SKIPPED,
    SentMessage,
    collect_replies,
    describe_replies,
    require_one_each,
    write_replies,
)
from ..module_utils.http.settings import HttpSettings
from ..module_utils.options import drop_blanks
from ..module_utils.providers.conversation import STATES, Question, Reply
from ..module_utils.providers.letta.provider import PROVIDER as LETTA
from ..module_utils.providers.registry import AllConversations, find_provider, open_clients
from ..module_utils.text import one_line
from ..plugin_utils.actions.base import EnvironmentAction
from ..plugin_utils.hosts import HostVariables, find_environment

_DELIVERED = ("sent", "already_sent", "unknown")
_OF_ONE = ("client_message_id", "agent_id", "agent_name", "conversation_id", "session_id")


class ActionModule(EnvironmentAction):
    NEEDS_CONVERSATION = True

    def execute(self, options: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        self._check(options)
        messages = self._read_messages(options, task_vars)
        if options["reply_dir"]:
            require_one_each(messages)
        listed: dict[str, list[EnvironmentReference]] = {}
        for question in (one.question for one in messages if one.question is not None):
            of_provider = listed.setdefault(question.provider, [])
            of_provider += [question.environment] if question.environment is not None else []
        connections = self._connections("replies", listed)
        replies = self._wait_for(_collect(connections, options, messages))
        found = count_each((reply.state for reply in replies), (*STATES, SKIPPED))
        states = ", ".join(f"{count} {state}" for state, count in found.items() if count)
        result = {
            "changed": False,
            "msg": f"{len(replies)} messages: {states or 'nothing to do'}",
            "replies": describe_replies(messages, replies),
            "counts": found,
        }
        if options["reply_dir"]:
            try:
                result["changed"] = write_replies(
                    options["reply_dir"], messages, replies, check_mode=bool(self._task.check_mode)
                )
            except OptionError as error:
                # The replies are returned also if they cannot be written.
                result.update(failed=True, msg=f"{result['msg']}; {error}")
        return result

    def _check(self, options: Mapping[str, Any]) -> None:
        of_one = [name for name in _OF_ONE if name in drop_blanks(self._task.args)]
        if options["replies"] is not None and of_one:
            raise OptionError(of_one[0], "cannot go with replies, whose entries have their own")
        if options["reply_dir"]:
            check_directory("reply_dir", options["reply_dir"])

    def _read_messages(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> list[SentMessage]:
        host = str(task_vars["inventory_hostname"])
        if options["replies"] is None:
            environment = find_environment(host, task_vars["hostvars"])
            provider = find_provider(environment.provider) if environment is not None else LETTA
            if "client_message_id" in provider.reply_keys and not options["client_message_id"]:
                raise OptionError("replies", "needs what send_message returned in targets; or give client_message_id")
            self._host_variables = HostVariables(self._task, task_vars, self._templar, [host])
            of_host = {provider.name: [environment] if environment else []}
            named = self._find_named_agent(options, self._connections("replies", of_host))
            entry = {
                "host": host,
                "client_message_id": options["client_message_id"],
                "agent_id": self._find_address(provider, provider.agent, host, named, options),
                provider.conversation: self._find_address(provider, provider.conversation, host, {}, options),
            }
            return [_read_sent_message("reply_info", entry, task_vars)]
        messages = [
            _read_sent_message(f"replies[{place}]", entry, task_vars) for place, entry in enumerate(options["replies"])
        ]
        if any(one.host != host for one in messages):
            if host == self._task.delegate_to:
                raise OptionError("delegate_to", f"{host!r} cannot go with replies, which are of other hosts")
            self._require_run_once("replies", task_vars, "collect all of them")
        return messages


def _read_sent_message(where: str, entry: Mapping[str, Any], task_vars: Mapping[str, Any]) -> SentMessage:
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


async def _collect(
    connections: Mapping[str, HttpSettings], options: Mapping[str, Any], messages: Sequence[SentMessage]
) -> list[Reply]:
    async with open_clients(connections) as clients:
        conversations = AllConversations(clients, concurrency=options["concurrency"], rate=options["rate"])
        return await collect_replies(messages, conversations.search_reply, options["lost_after"])
