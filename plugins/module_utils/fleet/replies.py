# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replies: wait for them while a message is sent, or collect them later."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from ..errors import ApiError, OptionError
from ..files import differs_from, make_directory, name_file, write_text
from ..providers.conversation import Look, Question, Reply
from ..providers.registry import find_provider
from ..text import one_line

_FIRST_PAUSE, _LONGEST_PAUSE, _LONGER_BY = 0.5, 15.0, 1.5
# The state of a message without a question.
SKIPPED = "skipped"
# No look succeeds until the address or the key is mended.
_HOPELESS_CODES = ("tls", "redirect", "http_401", "http_403")
# The same look never succeeds; a look at another message may.
_FINAL_CODES = (*_HOPELESS_CODES, "http_400", "http_422", "internal")


async def wait_for_reply(look: Look, sent_at: datetime, within: float) -> Reply:
    """Look until the turn is over, needs approval, or `within` seconds have passed since `sent_at`.

    The pauses between looks grow from 0.5 to 15 s, with jitter. A look that fails is repeated if that may help.
    """
    pause = _FIRST_PAUSE
    while True:
        left = within - (datetime.now(UTC) - sent_at).total_seconds()
        last = left <= pause
        slept = max(0.0, left if last else min(left, pause * random.uniform(0.8, 1.2)))  # noqa: S311 - only spreads the requests
        reply = await _look(look, slept)
        if reply.state != "waiting" or reply.code in _FINAL_CODES:
            return reply
        if last:
            return _end_waiting(reply, within)
        pause = min(pause * _LONGER_BY, _LONGEST_PAUSE)


async def _look(look: Look, seconds: float) -> Reply:
    try:
        return await look(seconds)
    except ApiError as error:
        return Reply().end("waiting", error.code, str(error))
    except Exception as error:  # noqa: BLE001 - a fault of ours with one message must not lose the others' replies
        return Reply().end("waiting", "internal", f"{type(error).__name__}: {one_line(error)}")


def _end_waiting(reply: Reply, within: float) -> Reply:
    trouble = f"; the last look failed: {reply.error['message']}" if reply.error else ""
    code, timeout = "reply_timeout", f"within the reply_timeout of {within:g} s"
    if reply.found or trouble:
        return reply.end("waiting", code, f"no reply {timeout}; the turn may go on{trouble}")
    message = f"the message did not reach the agent's conversation {timeout}; it may wait on its device"
    return reply.end("lost", code, message)


@dataclass(frozen=True, slots=True)
class SentMessage:
    """A message whose reply is collected.

    id: the environment's. question: None if there is no reply to look for, and skip is the reason.
    """

    host: str
    id: str | None
    client_message_id: str | None
    question: Question | None
    sent_at: datetime | None = None
    skip: str | None = None


async def collect_replies(
    messages: Sequence[SentMessage], search_reply: Callable[[Question], Look], lost_after: float
) -> list[Reply]:
    """Look once for the reply to each message; a reply each, in the same order.

    The state is `skipped` for a message without a question. After a look that failed it is `waiting`, with an error.
    lost_after: seconds after which a message that is not in the history is lost; a message without a time is never.
    Raises ApiError if no look can succeed.
    """

    async def look(one: SentMessage) -> Reply:
        if one.question is None:
            return Reply(state=SKIPPED)
        reply = await _look(search_reply(one.question), 0.0)
        if reply.error and reply.code in _HOPELESS_CODES:
            raise ApiError(reply.error["message"], code=reply.error["code"])
        age = (datetime.now(UTC) - one.sent_at).total_seconds() if one.sent_at is not None else 0.0
        if reply.state == "waiting" and not reply.error and not reply.found and age > lost_after:
            message = f"the message is not in the agent's conversation, {age:.0f} s after it was sent"
            return reply.end("lost", "reply_lost", message)
        return reply

    return list(await asyncio.gather(*(look(one) for one in messages)))


def describe_replies(messages: Sequence[SentMessage], replies: Sequence[Reply]) -> list[dict[str, Any]]:
    """The result of reply_info for each message."""
    return [
        {
            "host": one.host,
            "id": one.id,
            "client_message_id": one.client_message_id,
            "agent_id": (one.question.agent_id or None) if one.question else None,
            "conversation_id": one.question.conversation_id if one.question else None,
            "session_id": _find_session(one.question),
            **asdict(reply),
            "reason": one.skip,
        }
        for one, reply in zip(messages, replies, strict=True)
    ]


def _find_session(question: Question | None) -> str | None:
    return find_provider(question.provider).session_of(question.conversation_id) if question is not None else None


def write_replies(
    directory: str, messages: Sequence[SentMessage], replies: Sequence[Reply], *, check_mode: bool
) -> bool:
    """Write `<host>.txt` for each answer. Returns whether one is new or differs. Check mode writes nothing.

    The directory is made if its parent exists. Raises OptionError.
    """
    if not check_mode:
        make_directory("reply_dir", directory)
    changed = False
    for one, reply in zip(messages, replies, strict=True):
        path, text = name_file(directory, one.host, ".txt"), f"{(reply.text or '').rstrip()}\n"
        if reply.state == "replied" and differs_from(path, text):
            changed = True
            if not check_mode:
                write_text("reply_dir", path, text)
    return changed


def require_one_each(messages: Sequence[SentMessage]) -> None:
    """Raise OptionError if two answers would go into one file."""
    hosts = Counter(message.host for message in messages if message.question is not None)
    twice = next((host for host, count in hosts.items() if count > 1), None)
    if twice is not None:
        raise OptionError("reply_dir", f"{twice!r} is in replies more than once, and there is one file for each host")
