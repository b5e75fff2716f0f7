# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin send_message; its documentation is with the module of that name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleError

from ..module_utils.delivery import NEW_CONVERSATION, STATUSES, Delivery, MessageTarget, await_replies, deliver
from ..module_utils.errors import OptionError, one_line
from ..module_utils.letta import DEFAULT_BASE_URL, Client
from ..module_utils.letta_models import PROVIDER
from ..module_utils.letta_replies import Reader, Watch
from ..module_utils.replies import counts_by_state
from ..modules.send_message import SPEC
from ..plugin_utils.content import chosen_source, content_of, read_text, rendered, sharing
from ..plugin_utils.targets import Item
from ..plugin_utils.targets_action import Run, TargetsAction

_MOST_RENDERED = 5
_NO_AGENT = "no agent_id: the environment decides who answers"


class ActionModule(TargetsAction):
    """Send a message to the current host, or to all of `targets`."""

    SPEC = SPEC
    PROVIDER = PROVIDER
    DEFAULT_BASE_URL = DEFAULT_BASE_URL
    STATUSES = STATUSES
    CHANGED = frozenset({"sent", "unknown"})
    ITEM_KEYS = ("content", "agent_id", "conversation_id", "client_message_id")
    MAKES_CONVERSATIONS = True
    POSITIVE = ("reply_timeout",)

    def check(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> None:
        """Refuse options that cannot be meant."""
        super().check(options, task_vars)
        chosen_source(options)
        self._texts: dict[str, str] = {}

    def target(self, item: Item, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> MessageTarget:
        """The messages for one host."""
        content = content_of(
            item, chosen_source(options), options, lambda option, to: self._text(option, to, options, task_vars)
        )
        to = super().target(item, options, task_vars)
        if to.conversation_id == NEW_CONVERSATION and to.agent_id is None and content.skip is None:
            raise OptionError("conversation_id", f"'new' needs an agent_id, and {item.host} has none")
        if options["wait_for_reply"] and to.agent_id is None and content.skip is None:
            raise OptionError("wait_for_reply", f"needs an agent_id, and {item.host} has none")
        messages = sharing(content.messages, self._texts)
        return MessageTarget(
            item.host, item.environment, to.agent_id, to.conversation_id, content.skip, messages=messages
        )

    async def outcomes(self, run: Run) -> Sequence[Delivery]:
        """Send to every target."""
        async with Client(run.settings) as client:
            deliveries = await deliver(client, run.targets, run.policy)
            if run.options["wait_for_reply"]:
                reader = Reader(run.settings, client, concurrency=run.policy.concurrency, rate=run.policy.rate)
                within = run.options["reply_timeout"]
                waiting = await_replies(run.targets, deliveries, lambda question: Watch(reader, question).look, within)
                await run.policy.stop.cut(waiting, 0)
        for delivery in deliveries:
            if delivery.agent_id is None and delivery.status == "sent":
                delivery.reason = _NO_AGENT
        return deliveries

    def result(self, run: Run, outcomes: Sequence[Any]) -> dict[str, Any]:
        """The task's result, with how many replies are in each state."""
        result = super().result(run, outcomes)
        if run.fans_out and run.options["wait_for_reply"]:
            result["replies"] = _replies_in(outcomes)
        return result

    def more_of(self, outcomes: Sequence[Any]) -> str:
        """How many replies are in each state, where they were waited for."""
        states = ", ".join(f"{count} {state}" for state, count in _replies_in(outcomes).items() if count)
        return f"; replies: {states}" if states else ""

    def checked(self, run: Run) -> dict[str, Any]:
        """The result of check mode: nothing is attempted, and the first targets' messages are shown."""
        wanted = [target for target in run.targets if target.skip is None]
        offline = sum(target.environment.status != "online" for target in wanted)
        expected = len(wanted) - offline if run.options["when_offline"] == "skip" else len(wanted)
        return {
            **self.result(run, [Delivery.of(target) for target in run.targets]),
            "changed": expected > 0,
            "msg": f"would send to {len(wanted)} of {len(run.targets)} targets"
            + (f", {offline} of them listed as offline" if offline else ""),
            "would_send": [
                {
                    "host": target.host,
                    "agent_id": target.agent_id,
                    "conversation_id": target.conversation_id,
                    "messages": list(target.messages),
                }
                for target in wanted[:_MOST_RENDERED]
            ],
        }

    def _text(self, option: str, item: Item, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> str:
        """The text of `content_file`, or of `content_template` rendered with the target's variables."""
        folder = "files" if option == "content_file" else "templates"
        try:
            path = self._find_needle(folder, options[option])
        except AnsibleError as error:
            raise OptionError(option, f"cannot find {options[option]!r}: {one_line(error)}") from None
        text = read_text(option, path)
        if option == "content_file":
            return text
        search = task_vars.get("ansible_search_path") or []
        return rendered(text, path, self._templar, self._variables_of(item, task_vars), search)


def _replies_in(deliveries: Sequence[Delivery]) -> dict[str, int]:
    return counts_by_state([delivery.reply for delivery in deliveries if delivery.reply is not None])
