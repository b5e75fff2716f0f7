# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turns the options of send_message into the messages for a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.template import trust_as_template

from ...module_utils.environment import is_updatable
from ...module_utils.errors import OptionError
from ...module_utils.providers.letta import manual_command
from ...module_utils.providers.message import Message, parse_message, parse_messages
from ...module_utils.text import one_line
from .targets import Item

SOURCES = ("content", "content_file", "content_template", "messages", "approvals", "self_update")


@dataclass(frozen=True, slots=True)
class Content:
    """The messages for one target, or why it gets none."""

    messages: list[Message]
    skip: str | None = None


def choose_source(options: Mapping[str, Any]) -> str | None:
    """The option that says what to send; None if only the targets' own entries can. Raises OptionError for several."""
    chosen = [name for name in SOURCES if options[name] not in (None, False)]
    if len(chosen) > 1:
        raise OptionError(chosen[1], f"cannot go with {chosen[0]}; give one of {', '.join(SOURCES)}")
    if chosen and options["client_message_id"] and chosen[0] in ("messages", "approvals"):
        raise OptionError("client_message_id", f"cannot go with {chosen[0]}")
    return chosen[0] if chosen else None


def find_source(item: Item, options: Mapping[str, Any]) -> str:
    """The option that says what a target gets, that of its own entry or else of the task. Raises OptionError."""
    given = [name for name in ("content", "approvals") if name in item.given]
    if len(given) > 1:
        raise OptionError("approvals", f"cannot go with content in the entry of {item.host}")
    source = given[0] if given else choose_source(options)
    if source is None:
        raise OptionError("content", f"nothing to send to {item.host}; give one of {', '.join(SOURCES)}")
    return source


def make_content(
    item: Item, source: str, value: Any, options: Mapping[str, Any], installed: str | None = None
) -> Content:
    """The messages for a target.

    value: of the option `source`, or the text of the file or template that it names. installed: the version that the
    inventory has of the target. Raises OptionError.
    """
    if source == "self_update":
        return _make_self_update(item, options, installed)
    if source not in ("messages", "approvals"):
        return Content(_make_user_message(source, value, item, options))
    if "client_message_id" in item.given:
        raise OptionError("client_message_id", f"that of {item.host} cannot go with {source}")
    if source == "approvals":
        entries = value if isinstance(value, list) else [value]
        # What the module's specification adds is null.
        approvals = [
            {key: said for key, said in entry.items() if said is not None} if isinstance(entry, Mapping) else entry
            for entry in entries
        ]
        value = [{"type": "approval", "approvals": approvals}]
    return Content(parse_messages(source, value))


def _make_user_message(option: str, content: Any, item: Item, options: Mapping[str, Any]) -> list[Message]:
    if not isinstance(content, (str, list)):
        raise OptionError(option, f"must be a text or a list of text parts, got {one_line(repr(content), 60)}")
    message: dict[str, Any] = {"role": "user", "content": content}
    client_message_id = item.given.get("client_message_id") or options["client_message_id"]
    if client_message_id:
        message["client_message_id"] = client_message_id
    return [parse_message(option, message)]


def _make_self_update(item: Item, options: Mapping[str, Any], installed: str | None) -> Content:
    said = item.environment.self_update
    command = manual_command.find_manual_command(said)
    if not is_updatable(said) or command is None:
        return Content([], skip=manual_command.explain_not_updatable(said))
    refusal = manual_command.explain_refusal(said, installed, any_command=options["allow_any_manual_command"])
    text = manual_command.write_instruction(command)
    return Content([] if refusal else _make_user_message("self_update", text, item, options), skip=refusal)


def read_text(option: str, path: str) -> str:
    """The text of a file. Raises OptionError."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(option, f"cannot read {path!r}: {one_line(error)}") from None


def render_template(template: str, path: str, templar: Any, variables: Mapping[str, Any], search: Sequence[str]) -> str:
    """A template's text for one target. Only the template itself is trusted, never the values of its variables.

    Raises OptionError.
    """
    folders = [str(Path(folder, name)) for folder in (*search, str(Path(path).parent)) for name in ("templates", "")]
    own = templar.copy_with_new_env(searchpath=folders, available_variables=variables)
    try:
        # A template that renders to nothing gives None.
        return str(own.template(trust_as_template(template), escape_backslashes=False) or "")
    except Exception as error:  # noqa: BLE001 - Jinja and Ansible raise many kinds, all meaning the template
        raise OptionError("content_template", f"cannot render {path!r}: {one_line(error)}") from None
