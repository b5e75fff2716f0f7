# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin send_message; its documentation is with the module of that name."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ansible.errors import AnsibleError

from ..module_utils.delivery import (
    NEW_CONVERSATION,
    Delivery,
    Policy,
    Target,
    counts,
    deliver,
    failure_budget,
)
from ..module_utils.errors import FleetError, OptionError, one_line
from ..module_utils.http_settings import HttpSettings
from ..module_utils.letta import DEFAULT_BASE_URL, Client
from ..module_utils.letta_models import PROVIDER
from ..module_utils.result_files import check_writable, write_hosts, write_results
from ..modules.send_message import SPEC
from ..plugin_utils.action import EnvironmentAction
from ..plugin_utils.content import chosen_source, content_of, read_text, rendered
from ..plugin_utils.targets import Item, current_host, listed_hosts

_MOST_FAILURES_SHOWN = 20
_MOST_RENDERED = 5
_OF_A_FAN_OUT = ("retry_file", "result_file", "rate", "max_targets")
_STRATEGIES_WITHOUT_RUN_ONCE = ("free", "host_pinned")
_NO_AGENT = "no agent_id: the environment decides who answers"


class ActionModule(EnvironmentAction):
    """Send a message to the current host, or to all of `targets`."""

    SPEC = SPEC
    PROVIDER = PROVIDER
    DEFAULT_BASE_URL = DEFAULT_BASE_URL

    def execute(self, options: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Send, or in check mode show what would be sent; the result of every target is returned either way."""
        self._check(options, task_vars)
        source = chosen_source(options)
        fans_out = options["targets"] is not None
        items = (
            listed_hosts(options["targets"], options["max_targets"], task_vars) if fans_out else current_host(task_vars)
        )
        settings = self._settings(options, _listed_from(items))
        targets = [self._target(item, source, options, task_vars) for item in items]
        policy = _policy(options, len(targets))
        if self._task.check_mode:
            return _checked(targets, policy, fans_out=fans_out)
        deliveries = asyncio.run(_deliver(settings, targets, policy))
        for delivery in deliveries:
            if delivery.agent_id is None and delivery.status == "sent":
                delivery.reason = _NO_AGENT
        if not fans_out:
            return _single(deliveries[0], policy)
        result = _summary(deliveries, policy)
        self._write_files(options, result)
        return result

    def _check(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> None:
        """Refuse what cannot be meant, before anything is sent."""
        if options["targets"] is None:
            alone = next((name for name in _OF_A_FAN_OUT if options[name] is not None), None)
            if alone:
                raise OptionError(alone, "needs targets")
        elif len(task_vars["ansible_play_hosts_all"]) > 1 and not self._runs_once():
            raise OptionError(
                "targets",
                "in a play of several hosts needs run_once: true, and a strategy that heeds it such as linear, "
                "or each host would send to all of them",
            )
        if options["concurrency"] < 1:
            raise OptionError("concurrency", f"must be 1 or more, got {options['concurrency']}")
        if options["offline_timeout"] < 0:
            raise OptionError("offline_timeout", f"must be 0 or more, got {options['offline_timeout']}")
        if options["rate"] is not None and options["rate"] <= 0:
            raise OptionError("rate", f"must be more than 0, got {options['rate']}")
        for name in ("retry_file", "result_file"):
            if options[name]:
                check_writable(name, options[name])

    def _runs_once(self) -> bool:
        strategy = str(self._task.get_play().strategy).rpartition(".")[2]
        return bool(self._task.run_once) and strategy not in _STRATEGIES_WITHOUT_RUN_ONCE

    def _target(
        self, item: Item, source: str | None, options: Mapping[str, Any], task_vars: Mapping[str, Any]
    ) -> Target:
        if item.environment.provider != PROVIDER:
            raise FleetError(f"{item.host}: send_message does not know the provider {item.environment.provider!r}")
        content = content_of(
            item, source, options, lambda option, target: self._text(option, target, options, task_vars)
        )
        agent_id = self._nearest("agent_id", item, options, task_vars)
        conversation_id = self._nearest("conversation_id", item, options, task_vars)
        if conversation_id == NEW_CONVERSATION and agent_id is None and content.skip is None:
            raise OptionError("conversation_id", f"'new' needs an agent_id, and {item.host} has none")
        return Target(item.host, item.environment, content.messages, agent_id, conversation_id, content.skip)

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

    def _variables_of(self, item: Item, task_vars: Mapping[str, Any]) -> Mapping[str, Any]:
        """The variables that the task would have if it ran on the target."""
        if item.host == task_vars["inventory_hostname"]:
            return task_vars
        hostvars = task_vars["hostvars"]
        manager, inventory = hostvars._variable_manager, hostvars._inventory  # noqa: SLF001 - core has no public way
        found: Mapping[str, Any] = manager.get_vars(
            play=self._task.get_play(), host=inventory.get_host(item.host), task=self._task
        )
        loop_names = (task_vars.get("ansible_loop_var"), task_vars.get("ansible_index_var"), "ansible_loop")
        of_the_loop = {name: task_vars[name] for name in loop_names if name in task_vars}
        return {**found, **of_the_loop, "hostvars": hostvars}

    def _nearest(self, option: str, item: Item, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> str | None:
        """The value of the target's own entry, else the target's variable, else the option."""
        name = f"{PROVIDER}_{option}"
        if name in self._task.get_play().get_vars() or name in self._task.get_vars():
            # `hostvars` does not know the variables of plays and tasks.
            variables = self._variables_of(item, task_vars)
            templar = self._templar.copy_with_new_env(available_variables=variables)
            variable = templar.template(variables[name])
        else:
            variable = item.variables.get(name)
        value = item.given.get(option) or variable or options[option]
        return str(value) if value else None

    def _write_files(self, options: Mapping[str, Any], result: dict[str, Any]) -> None:
        """Write the files; what was sent is reported even where that fails."""
        again = [
            entry["host"]
            for entry in result["targets"]
            if entry["status"] == "not_attempted"
            or (entry["host"] in result["failed_hosts"] and entry["status"] != "unknown")
        ]
        try:
            if options["result_file"]:
                write_results(options["result_file"], result["targets"])
            if options["retry_file"]:
                write_hosts(options["retry_file"], again)
        except OptionError as error:
            result.update(failed=True, msg=f"{result['msg']}; {error}")


async def _deliver(settings: HttpSettings, targets: Sequence[Target], policy: Policy) -> list[Delivery]:
    async with Client(settings) as client:
        return await deliver(client, targets, policy)


def _listed_from(items: Sequence[Item]) -> str | None:
    """The URL that the targets were listed from. Raises OptionError when there are several."""
    urls = sorted({item.environment.base_url for item in items})
    if len(urls) > 1:
        raise OptionError("targets", f"were listed from several URLs ({', '.join(urls)}); send to each in its own task")
    return urls[0] if urls else None


def _policy(options: Mapping[str, Any], targets: int) -> Policy:
    return Policy(
        concurrency=options["concurrency"],
        rate=options["rate"],
        max_failures=failure_budget(options["max_failures"], targets),
        when_offline=options["when_offline"],
        offline_timeout=options["offline_timeout"],
    )


def _checked(targets: Sequence[Target], policy: Policy, *, fans_out: bool) -> dict[str, Any]:
    """The result of check mode: nothing is attempted, and the first targets' messages are shown."""
    deliveries = [Delivery.of(target) for target in targets]
    wanted = [target for target in targets if target.skip is None]
    offline = sum(target.environment.status != "online" for target in wanted)
    result = _summary(deliveries, policy) if fans_out else _single(deliveries[0], policy)
    return {
        **result,
        "changed": bool(wanted),
        "msg": f"would send to {len(wanted)} of {len(targets)} targets"
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


def _single(delivery: Delivery, policy: Policy) -> dict[str, Any]:
    """The result for the current host."""
    failed = policy.is_failure(delivery)
    result = {**asdict(delivery), "changed": delivery.status in ("sent", "unknown"), "failed": failed}
    result["msg"] = _line(delivery)
    if delivery.status == "skipped" or (delivery.status == "offline" and not failed):
        result["skipped"] = True
    return result


def _summary(deliveries: Sequence[Delivery], policy: Policy) -> dict[str, Any]:
    """The result for a fan-out."""
    found = counts(deliveries)
    failures = [delivery for delivery in deliveries if policy.is_failure(delivery)]
    failed = len(failures) > policy.max_failures
    ended = ", ".join(f"{count} {status}" for status, count in found.items() if count)
    message = f"{len(deliveries)} targets: {ended or 'nothing to do'}"
    if failures:
        shown = [_line(delivery) for delivery in failures[:_MOST_FAILURES_SHOWN]]
        more = len(failures) - len(shown)
        message += f"; failed: {'; '.join(shown)}" + (f"; and {more} more" if more else "")
    return {
        "changed": found["sent"] + found["unknown"] > 0,
        "failed": failed,
        "msg": message,
        "targets": [asdict(delivery) for delivery in deliveries],
        "counts": found,
        "failed_hosts": [delivery.host for delivery in failures],
        "max_failures_exceeded": failed,
    }


def _line(delivery: Delivery) -> str:
    why = delivery.error["message"] if delivery.error else delivery.reason
    return f"{delivery.host}: {delivery.status}" + (f": {why}" if why else "")
