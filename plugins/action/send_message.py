# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action send_message: send a message to the current host, or to all of `targets`."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError

from ..module_utils.campaigns.campaign import Campaign, choose_conversation, mark_delivered, mark_inactive
from ..module_utils.campaigns.plan import CampaignPlan, find_failed_turns, plan_campaign
from ..module_utils.errors import ApiError, OptionError
from ..module_utils.fleet.delivery import STATUSES, Delivery, MessageTarget, Retry, deliver, wait_for_replies
from ..module_utils.fleet.fan_out import Target, count_each
from ..module_utils.ledger.audit_log import AuditLog
from ..module_utils.ledger.deliveries import Deliveries
from ..module_utils.ledger.schema import ACTIVE
from ..module_utils.ledger.store import find_location, read_ledger
from ..module_utils.options import drop_blanks
from ..module_utils.providers.base import Client, Provider
from ..module_utils.providers.conversation import MADE_CONVERSATIONS, NEW_CONVERSATION, STATES, TO_BE_OPENED
from ..module_utils.providers.message import Message
from ..module_utils.providers.registry import AllConversations, find_provider, open_clients
from ..module_utils.text import hash_text
from ..plugin_utils.actions.messages import (
    Content,
    choose_source,
    find_source,
    make_content,
    read_text,
    render_template,
)
from ..plugin_utils.actions.on_targets import TargetsAction, TaskRun
from ..plugin_utils.actions.run_facts import open_ledger_for
from ..plugin_utils.actions.targets import Item
from ..plugin_utils.hosts import read_fields

_MOST_RENDERED = 5
_OF_A_CAMPAIGN = ("ledger", "verify", "retry", "audit_log", "audit_content")
# The folder of a role, or beside the playbook, in which an option's file is looked for.
_FOLDERS = {"content_file": "files", "content_template": "templates"}
_NO_AGENT = "no agent_id: the environment decides who answers"


class ActionModule(TargetsAction):
    STATUSES = STATUSES
    CHANGED = frozenset({"sent", "unknown"})
    SETTLED = frozenset({"sent", "already_sent"})
    ITEM_KEYS = ("content", "approvals", "agent_id", "conversation_id", "agent", "session_id", "client_message_id")
    OPENS = MADE_CONVERSATIONS

    def check_options(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> None:
        super().check_options(options, task_vars)
        choose_source(options)
        # Why the ledger or the audit log does not have all that a campaign did; None while they do.
        self._unrecorded: str | None = None
        alone = next((name for name in _OF_A_CAMPAIGN if name in drop_blanks(self._task.args)), None)
        if not options["campaign"] and alone:
            raise OptionError(alone, "needs campaign")
        if options["audit_content"] and not options["audit_log"]:
            raise OptionError("audit_content", "needs audit_log")

    def make_target(self, item: Item, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> MessageTarget:
        """The messages for one host."""
        provider = find_provider(item.environment.provider)
        content = self._content(item, provider, options, task_vars)
        to = super().make_target(item, options, task_vars)
        if provider.makes_session(to.conversation_id):
            to = replace(to, conversation_id=NEW_CONVERSATION)
        if content.skip is None:
            _check_agent(to, provider, options)
            if to.conversation_id == NEW_CONVERSATION and any(message.approvals for message in content.messages):
                problem = f"'new' cannot go with approvals, and {to.host} has it; give its entry of targets the id of"
                raise OptionError(provider.conversation, f"{problem} the conversation in which the tool call waits")
        if options["campaign"]:
            self._check_campaign(item, content.messages, options)
        return MessageTarget(
            item.host, item.environment, to.agent_id, to.conversation_id, content.skip, messages=content.messages
        )

    def _content(
        self, item: Item, provider: Provider, options: Mapping[str, Any], task_vars: Mapping[str, Any]
    ) -> Content:
        source = find_source(item, options)
        value = item.given.get(source, options[source])
        if source in _FOLDERS:
            path = self._find_path(source, options)
            value = read_text(source, path)
            if source == "content_template":
                search = task_vars.get("ansible_search_path") or []
                variables = self._host_variables.read_all(item.host)
                value = render_template(value, path, self._templar, variables, search)
        installed = None
        if source == "self_update":
            installed = read_fields(item.host, item.environment, task_vars["hostvars"]).get("version")
        content = make_content(item, source, value, options, installed)
        answers = any(message.approvals for message in content.messages)
        refusal = provider.refused.get("approvals" if answers else source)
        if refusal is not None:
            raise OptionError(source, f"cannot be sent to {item.host}: {refusal}")
        return content

    def _warn_of_crowd(self, run: TaskRun, targets: Sequence[Any]) -> None:
        # An answer begins no turn of its own.
        super()._warn_of_crowd(run, [one for one in targets if not any(message.approvals for message in one.messages)])

    def is_settled(self, target: MessageTarget, outcome: Delivery) -> bool:
        """Also approvals that may have been accepted, as a device does not recognize them if they come again."""
        if outcome.status == "unknown":
            return any(message.approvals for message in target.messages)
        # A campaign looks up what it could not record.
        is_unrecorded = outcome.error is not None and outcome.reply is None
        return super().is_settled(target, outcome) and not is_unrecorded

    async def run_on_targets(self, run: TaskRun) -> Sequence[Delivery]:
        name = run.options["campaign"]
        async with open_clients(run.connections) as clients:
            conversations = AllConversations(clients, concurrency=run.policy.concurrency, rate=run.policy.rate)
            if not name:
                self._warn_of_crowd(run, run.targets)
                return await _deliver(run, clients, conversations, run.targets)
            location, variables = find_location(run.options["ledger"]), self._templar.available_variables
            with open_ledger_for(location, self._task, variables) as ledger, _open_audit_log(run) as audit:
                kept, retry = Deliveries(ledger), run.options["retry"]
                planned = plan_campaign(kept, name, retry, run.targets, self._source_hash(run))
                if retry == "failed_turns":
                    looks = find_failed_turns(planned, conversations.search_reply)
                    failed = await run.policy.stop.run(looks, grace=0) or ()
                    planned = plan_campaign(kept, name, retry, run.targets, planned.source_hash, failed=failed)
                self._warn_of_crowd(run, [one for one in planned.targets if one.environment.id not in planned.settled])
                verify = run.options["verify"] == "history"
                campaign = Campaign(name, kept, planned, conversations.find_message, audit, verify=verify)
                deliveries = await _deliver(run, clients, conversations, planned.targets, campaign)
                self._unrecorded = campaign.problem
                return deliveries

    def make_result(self, run: TaskRun, outcomes: Sequence[Any]) -> dict[str, Any]:
        """The task's result, with how many replies are in each state. It is failed if not all was recorded."""
        result = super().make_result(run, outcomes)
        if run.fans_out and run.options["wait_for_reply"]:
            result["replies"] = _count_replies(outcomes)
        if self._unrecorded is not None:
            result.update(failed=True, msg=f"{result['msg']}; {self._unrecorded}")
        return result

    def summarize_more(self, outcomes: Sequence[Any]) -> str:
        states = ", ".join(f"{count} {state}" for state, count in _count_replies(outcomes).items() if count)
        return f"; replies: {states}" if states else ""

    def run_in_check_mode(self, run: TaskRun) -> dict[str, Any]:
        """The result of check mode: nothing is sent, and the first targets' messages are shown."""
        planned = _plan_from_ledger(run, self._source_hash(run))
        deliveries = [Delivery.of(target) for target in planned.targets]
        wanted = []
        for target, delivery in zip(planned.targets, deliveries, strict=True):
            if entry := planned.settled.get(delivery.id):
                mark_delivered(delivery, entry)
            elif target.skip is None and not mark_inactive(delivery, planned.state):
                wanted.append(target)
        self._warn_of_crowd(run, wanted)
        offline = sum(target.environment.status != "online" for target in wanted)
        expected = len(wanted) - offline if run.options["when_offline"] == "skip" else len(wanted)
        return {
            **self.make_result(run, deliveries),
            "changed": expected > 0,
            "msg": f"would send to {len(wanted)} of {len(run.targets)} targets"
            + (f", {offline} of them listed as offline" if offline else "")
            + (f"; {len(planned.settled)} have it already" if planned.settled else "")
            + (f"; the campaign is {planned.state}" if planned.state != ACTIVE else ""),
            "would_send": asyncio.run(_describe_first(run, wanted[:_MOST_RENDERED])),
        }

    def _check_campaign(self, item: Item, messages: Sequence[Message], options: Mapping[str, Any]) -> None:
        """Refuse messages that could not be looked up later, or that have ids of their own."""
        if any(message.approvals for message in messages):
            raise OptionError("campaign", "cannot go with approvals, which carry no id to be looked up by")
        own = ("client_message_id", "otid")
        given_ids = [*(options["messages"] or []), item.given, options]
        if any(message.get(name) for message in given_ids for name in own):
            raise OptionError("campaign", "cannot go with a client_message_id or otid, as it makes those itself")

    def _source_hash(self, run: TaskRun) -> str | None:
        """A hash of the content that all targets share, None if each may have its own.

        Without `targets` each host has a task of its own, for which Ansible has rendered the options.
        """
        source = choose_source(run.options)
        if not run.fans_out or source in (None, "self_update"):
            return None
        in_file = source in _FOLDERS
        value = read_text(source, self._find_path(source, run.options)) if in_file else run.options[source]
        return hash_text(json.dumps(value, sort_keys=True))

    def _find_path(self, option: str, options: Mapping[str, Any]) -> str:
        try:
            path: str = self._find_needle(_FOLDERS[option], options[option])
        except AnsibleError:
            # The files of a user are not beside a playbook of the collection.
            here = Path(options[option]).absolute()
            if here.is_file():
                return str(here)
            raise OptionError(
                option,
                f"cannot find {options[option]!r} among the {_FOLDERS[option]} of the role or playbook, nor in "
                f"{str(Path.cwd())!r}",
            ) from None
        return path


def _check_agent(to: Target, provider: Provider, options: Mapping[str, Any]) -> None:
    """Refuse a target without an agent if its agent must be known."""
    if to.agent_id is not None:
        return
    if provider.makes_session(to.conversation_id):
        variable = provider.variable_of(provider.agent)
        raise OptionError(
            provider.agent,
            f"{to.host} has none, and a session needs one; give it with the task, its entry of targets or its "
            f"{variable}, or give a {provider.conversation}",
        )
    if to.conversation_id in TO_BE_OPENED:
        needs = f"{to.conversation_id!r} needs an {provider.agent}"
        raise OptionError(provider.conversation, f"{needs}, and {to.host} has none")
    if options["wait_for_reply"] and not provider.knows_who_answers(to.agent_id):
        raise OptionError("wait_for_reply", f"needs an {provider.agent}, and {to.host} has none")


async def _deliver(
    run: TaskRun,
    clients: Mapping[str, Client],
    conversations: AllConversations,
    targets: Sequence[MessageTarget],
    campaign: Campaign | None = None,
) -> Sequence[Delivery]:
    once = campaign or Retry(run.earlier, conversations.find_message)
    deliveries = await deliver(clients, targets, run.policy, once)
    for delivery in deliveries:
        before = run.earlier.get(delivery.host)
        if delivery.status == "already_sent" and before is not None and before.status in ActionModule.CHANGED:
            # An earlier attempt of this task has sent it.
            delivery.status = "sent"
    if run.options["wait_for_reply"]:
        within = run.options["reply_timeout"]
        pairs = [*zip(targets, deliveries, strict=True), *run.settled]
        waiting = wait_for_replies(pairs, conversations.search_reply, within, run.policy.report)
        await run.policy.stop.run(waiting, grace=0)
        if campaign is not None:
            await asyncio.gather(*(campaign.record(target, delivery) for target, delivery in pairs))
    for target, delivery in zip(targets, deliveries, strict=True):
        if delivery.status == "sent" and not target.provider.knows_who_answers(delivery.agent_id):
            delivery.reason = _NO_AGENT
    return deliveries


async def _describe_first(run: TaskRun, targets: Sequence[MessageTarget]) -> list[dict[str, Any]]:
    async with open_clients(run.connections) as clients:
        return [
            {
                "host": target.host,
                "agent_id": target.agent_id,
                "conversation_id": await _find_conversation(clients, target),
                "messages": [message.as_option() for message in target.messages],
            }
            for target in targets
        ]


async def _find_conversation(clients: Mapping[str, Client], target: MessageTarget) -> str | None:
    """Where a target's message would go now: a word for what would be made, or if that cannot be asked."""
    kind = target.conversation_id
    if kind in TO_BE_OPENED and kind != NEW_CONVERSATION:
        with contextlib.suppress(ApiError):
            client, agent_id = clients[target.environment.provider], str(target.agent_id)
            place = await client.open_conversation(target.environment, agent_id, None, kind, look=False)
            return place.conversation_id
    return kind


def _open_audit_log(run: TaskRun) -> AbstractContextManager[AuditLog | None]:
    path = run.options["audit_log"]
    return AuditLog(path, with_content=run.options["audit_content"]) if path else nullcontext()


def _plan_from_ledger(run: TaskRun, source_hash: str | None) -> CampaignPlan:
    """The plan of what would be sent, from a ledger that is only read."""
    name = run.options["campaign"]
    if not name:
        return CampaignPlan(run.targets, {}, {})
    with read_ledger(find_location(run.options["ledger"])) as ledger:
        planned = plan_campaign(Deliveries(ledger), name, run.options["retry"], run.targets, source_hash)
    rows = {key: row for key, row in planned.rows.items() if row.status != "sent"}
    # What may have been sent stays in its conversation.
    targets = [
        replace(one, conversation_id=choose_conversation(one, rows.get(one.environment.id)) or one.conversation_id)
        for one in planned.targets
    ]
    return replace(planned, targets=targets)


def _count_replies(deliveries: Sequence[Delivery]) -> dict[str, int]:
    return count_each((delivery.reply.state for delivery in deliveries if delivery.reply is not None), STATES)
