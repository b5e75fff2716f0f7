# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages for agents, whatever the provider. A provider's client writes them in the form of its API."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .._deps import pydantic
from ..errors import OptionError, find_first_problem
from ..text import one_line


def _make_id() -> str:
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True)
class Message:
    """A text from the user, or answers to tool calls that wait.

    content: a text, or the texts of its parts; empty for answers.
    client_message_id: the id by which a receiver drops repetitions. otid: the id in the agent's history. Both are None
        for answers.
    approvals: the answers, each in the form of the option `approvals`.
    """

    content: str | tuple[str, ...] = ""
    client_message_id: str | None = None
    otid: str | None = None
    approvals: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def from_user(cls, content: str) -> Message:
        """A text from the user, under a new id."""
        new_id = _make_id()
        return cls(content, new_id, new_id)

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of its parts; a content without parts is one."""
        return (self.content,) if isinstance(self.content, str) else self.content

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.texts)

    @property
    def content_option(self) -> str | list[dict[str, str]]:
        """The content in the form of the option `content`. Ledgers store a hash of it, so it never changes."""
        if isinstance(self.content, str):
            return self.content
        return [{"type": "text", "text": text} for text in self.content]

    def as_option(self) -> dict[str, Any]:
        """The message in the form of an entry of the option `messages`."""
        if self.approvals:
            return {"type": "approval", "approvals": list(self.approvals)}
        ids = {"client_message_id": self.client_message_id, "otid": self.otid}
        return {"role": "user", "content": self.content_option, **ids}


class _Given(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")


class _TextPart(_Given):
    type: Literal["text"] = "text"
    text: str


class _UserMessage(_Given):
    role: Literal["user"] = "user"
    content: str | list[_TextPart]
    client_message_id: str = pydantic.Field(min_length=1, default_factory=_make_id)
    otid: str | None = None


class _ToolReturn(_Given):
    """The result of a tool that ran on the client's side."""

    type: Literal["tool"] = "tool"
    tool_call_id: str
    status: Literal["success", "error"]
    tool_return: str | list[_TextPart]
    stdout: list[str] | None = None
    stderr: list[str] | None = None


class _Decision(_Given):
    type: Literal["approval"] = "approval"
    tool_call_id: str
    approve: bool
    reason: str | None = None
    updated_input: dict[str, Any] | None = None


class _ApprovalMessage(_Given):
    type: Literal["approval"] = "approval"
    approvals: list[_Decision | _ToolReturn] = pydantic.Field(min_length=1)


def parse_messages(option: str, entries: Sequence[Any]) -> list[Message]:
    """The messages that an option gives, with new ids where it gives none. Raises OptionError for `option`.

    Each entry is a user message (`role`, `content`, `client_message_id`, `otid`) or an approval message (`type`,
    `approvals`).
    """
    if not entries:
        raise OptionError(option, "must have at least one message")
    messages = [parse_message(f"{option}[{index}]", entry) for index, entry in enumerate(entries)]
    ids = [message.client_message_id for message in messages if not message.approvals]
    if len(set(ids)) < len(ids):
        raise OptionError(option, "the same client_message_id comes twice, so that a device would drop one message")
    calls = [answer["tool_call_id"] for message in messages for answer in message.approvals]
    if len(set(calls)) < len(calls):
        raise OptionError(option, "the same tool_call_id comes twice, and a tool call takes one answer")
    return messages


def parse_message(where: str, entry: Any) -> Message:
    """One message as `parse_messages` reads it. Raises OptionError for `where`."""
    if not isinstance(entry, Mapping):
        raise OptionError(where, f"must be a dictionary, got {one_line(repr(entry), 60)}")
    try:
        if "approvals" in entry or entry.get("type") == "approval":
            answers = _ApprovalMessage.model_validate(dict(entry)).model_dump(exclude_none=True)["approvals"]
            json.dumps(answers, allow_nan=False)
            return Message(approvals=tuple(answers))
        given = _UserMessage.model_validate(dict(entry))
    except pydantic.ValidationError as error:
        raise OptionError(where, find_first_problem(error)) from None
    except (TypeError, ValueError) as error:
        raise OptionError(where, f"holds what JSON cannot: {one_line(error)}") from None
    if not given.content:
        raise OptionError(where, "content is empty")
    # Validating copies a text for each target. An interned text exists once, however many targets get it.
    content: str | tuple[str, ...]
    if isinstance(given.content, str):
        content = sys.intern(given.content)
    else:
        content = tuple(sys.intern(part.text) for part in given.content)
    otid = given.otid if given.otid is not None else given.client_message_id
    return Message(content, given.client_message_id, otid)
