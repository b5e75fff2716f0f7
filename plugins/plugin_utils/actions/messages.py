# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a target is to get: the messages that the options of send_message stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ansible.template import trust_as_template

from ...module_utils.environment import updatable
from ...module_utils.errors import OptionError
from ...module_utils.providers.letta.manual_command import instruction, manual_command, why_not_updatable
from ...module_utils.providers.message import Message, parse_message, parse_messages
from ...module_utils.text import one_line
from .targets import Item

SOURCES = ("content", "content_file", "content_template", "messages", "approvals", "self_update")


@dataclass(frozen=True, slots=True)
class Content:
    """The messages for one target, or why it gets none."""

    messages: list[Message]
    skip: str | None = None


def chosen_source(options: Mapping[str, Any]) -> str | None:
    """Which of the options says what to send; None when only the targets' own entries can. Raises OptionError."""
    chosen = [name for name in SOURCES if options[name] not in (None, False)]
    if len(chosen) > 1:
        raise OptionError(chosen[1], f"cannot go with {chosen[0]}; give one of {', '.join(SOURCES)}")
    if chosen and options["client_message_id"] and chosen[0] in ("messages", "approvals"):
        raise OptionError("client_message_id", f"cannot go with {chosen[0]}")
    return chosen[0] if chosen else None


def content_of(
    item: Item, source: str | None, options: Mapping[str, Any], text_of: Callable[[str, Item], str]
) -> Content:
    """The messages for a target. text_of: option and target → text of the file or rendered template.

    Raises OptionError.
    """
    if "content" in item.given:
        return Content(_user_message("content", item.given["content"], item, options))
    if source is None:
        raise OptionError("content", f"nothing to send to {item.host}; give one of {', '.join(SOURCES)}")
    if source == "self_update":
        return _self_update(item, options)
    if source in ("messages", "approvals") and "client_message_id" in item.given:
        raise OptionError("client_message_id", f"that of {item.host} cannot go with {source}")
    if source == "messages":
        return Content(parse_messages("messages", options["messages"]))
    if source == "approvals":
        approvals = [
            {key: value for key, value in entry.items() if value is not None} for entry in options["approvals"]
        ]
        return Content(parse_messages("approvals", [{"type": "approval", "approvals": approvals}]))
    if source in ("content_file", "content_template"):
        return Content(_user_message(source, text_of(source, item), item, options))
    return Content(_user_message("content", options["content"], item, options))


def _user_message(option: str, content: Any, item: Item, options: Mapping[str, Any]) -> list[Message]:
    if not isinstance(content, (str, list)):
        raise OptionError(option, f"must be a text or a list of text parts, got {one_line(repr(content), 60)}")
    message: dict[str, Any] = {"role": "user", "content": content}
    client_message_id = item.given.get("client_message_id") or options["client_message_id"]
    if client_message_id:
        message["client_message_id"] = client_message_id
    return [parse_message(option, message)]


def _self_update(item: Item, options: Mapping[str, Any]) -> Content:
    said = item.environment.self_update
    command = manual_command(said)
    if updatable(said) and command is not None:
        return Content(_user_message("self_update", instruction(command), item, options))
    return Content([], skip=why_not_updatable(said))


def share_content(message: Message, contents: dict[Any, Any]) -> Message:
    """The same message; contents that are equal exist once in memory. contents: those so far, each by itself.

    Validating makes a copy of a text for each target.
    """
    return replace(message, content=contents.setdefault(message.content, message.content))


def read_text(option: str, path: str) -> str:
    """The text of a file. Raises OptionError."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(option, f"cannot read {path!r}: {one_line(error)}") from None


def rendered(template: str, path: str, templar: Any, variables: Mapping[str, Any], search: Sequence[str]) -> str:
    """A template's text for one target. Only the template itself is trusted, never what its variables hold.

    Raises OptionError.
    """
    folders = [str(Path(folder, name)) for folder in (*search, str(Path(path).parent)) for name in ("templates", "")]
    own = templar.copy_with_new_env(searchpath=folders, available_variables=variables)
    try:
        # A template that renders to nothing gives None.
        return str(own.template(trust_as_template(template), escape_backslashes=False) or "")
    except Exception as error:  # noqa: BLE001 - Jinja and Ansible raise many kinds, all meaning the template
        raise OptionError("content_template", f"cannot render {path!r}: {one_line(error)}") from None
