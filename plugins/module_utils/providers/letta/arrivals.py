# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds out which messages have arrived in their conversations."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ...errors import ApiError
from ..conversation import Question
from .reader import Reader

# Whether a message was ever delivered is not answered by reading on for ever: 500 requests are minutes.
_MOST_LOOKED_THROUGH = 50_000


@dataclass(frozen=True, slots=True)
class _UserMessages:
    """The user messages that were read from a conversation. whole: whether these are all that it has."""

    otids: set[str | None]
    whole: bool


class Arrivals:
    """Finds messages in their conversations. A conversation is read once for all that ask. Raises ApiError."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._readings: dict[tuple[str, str | None], asyncio.Task[_UserMessages]] = {}

    async def find_message(self, question: Question, fresh: bool) -> str | None:
        """The message's id if it is anywhere in its conversation, else None. fresh: read the conversation again.

        Raises ApiError if the message is not in what was read, and that is not the whole conversation.
        """
        # Not only back to `question.since`: a run that has just claimed the message does not know who sent it before.
        key = (question.agent_id, question.conversation_id)
        if fresh or key not in self._readings:
            self._readings[key] = asyncio.create_task(self._read_back(question))
        reading = self._readings[key]
        try:
            read = await asyncio.shield(reading)
        except ApiError:
            # The next message has it read again, so that one failure does not fail a whole campaign.
            if self._readings.get(key) is reading:
                del self._readings[key]
            raise
        if question.otid in read.otids:
            return question.otid
        if not read.whole:
            raise ApiError(
                f"it is not among the latest {_MOST_LOOKED_THROUGH:,} messages of the conversation, and older ones are "
                "not read; with verify=none it is sent without a look",
                code="too_long",
            )
        return None

    async def _read_back(self, question: Question) -> _UserMessages:
        otids: set[str | None] = set()
        looked_through = 0
        try:
            async for page in self._reader.read_history(question):
                otids |= {message.otid for message in page if message.message_type == "user_message" and message.otid}
                looked_through += len(page)
                page.clear()
                if looked_through >= _MOST_LOOKED_THROUGH:
                    return _UserMessages(otids, whole=False)
        except ApiError as error:
            # Nothing has arrived in a conversation that is not there.
            if error.status != 404:
                raise
        return _UserMessages(otids, whole=True)
