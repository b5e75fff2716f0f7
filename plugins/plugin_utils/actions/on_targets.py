# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The base of the actions on environments: the play's current host, or in one task all of `targets`."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar

from ...module_utils.errors import FleetError, OptionError
from ...module_utils.files import check_writable
from ...module_utils.fleet.fan_out import Outcome, Policy, ProviderRun, Target, count_each
from ...module_utils.fleet.result_files import write_hosts, write_results
from ...module_utils.http.settings import HttpSettings
from ...module_utils.options import parse_share
from ...module_utils.providers.conversation import Address, Reply
from ...module_utils.providers.registry import find_provider
from ...module_utils.text import join_first
from ..core_internals import is_included_once, share_between_attempts, share_between_hosts
from ..hosts import HostVariables, find_environment
from .base import ON_A_TERMINAL, EnvironmentAction
from .conversations import choose_conversations, count_addresses, explain_crowded
from .signals import stop_on_signals
from .targets import Item, read_current_host, read_targets

_MOST_FAILURES_SHOWN = 20
_OF_A_FAN_OUT = ("retry_file", "result_file", "rate", "max_targets")


@dataclass(frozen=True, slots=True)
class TaskRun:
    """What one task does with which targets, and how.

    connections: how to reach each provider that the targets are of, by its name. fans_out: whether `targets` was given.
    earlier: by host, what came of the task's attempts before this one. settled: the targets that need no other attempt.
    """

    connections: Mapping[str, HttpSettings]
    options: Mapping[str, Any]
    targets: Sequence[Any]
    policy: Policy
    fans_out: bool
    check_mode: bool
    earlier: dict[str, Any] = field(default_factory=dict)
    settled: Sequence[tuple[Any, Any]] = ()

    @property
    def provider_run(self) -> ProviderRun:
        """The run of an action that works with one provider alone."""
        [settings] = self.connections.values()
        return ProviderRun(settings, self.targets, self.policy, self.check_mode)


class TargetsAction(EnvironmentAction):
    """An action on environments. A subclass makes the targets (`make_target`), and works on them (`run_on_targets`)."""

    # The statuses of outcomes in the order of the summary, and those that mean a change.
    STATUSES: ClassVar[Sequence[str]] = ("changed", "ok", "offline", "skipped", "not_attempted", "failed", "unknown")
    CHANGED: ClassVar[frozenset[str]] = frozenset({"changed", "unknown"})
    # The statuses of targets that a later attempt of the task leaves alone. Empty: to act twice does no harm.
    SETTLED: ClassVar[frozenset[str]] = frozenset()
    # What an entry of `targets` may say besides its host.
    ITEM_KEYS: ClassVar[Sequence[str]] = ("agent_id", "conversation_id")
    # Whether each target needs an agent.
    NEEDS_AGENT: ClassVar[bool] = False

    def make_target(self, item: Item, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> Target:
        """What is done with one host. Raises FleetError for options that do not fit it, before anything is done."""
        provider = find_provider(item.environment.provider)
        agent_id = self._find_address(provider, provider.agent, item.host, item.given, options)
        conversation_id = self._find_address(provider, provider.conversation, item.host, item.given, options)
        if self.NEEDS_AGENT and agent_id is None:
            variable = provider.variable_of(provider.agent)
            raise OptionError(
                provider.agent, f"{item.host} has none; give it with the task, its entry of targets or its {variable}"
            )
        return Target(item.host, item.environment, agent_id, conversation_id)

    async def run_on_targets(self, run: TaskRun) -> Sequence[Outcome]:
        """Do it, or in check mode find out what would be done. An outcome for each target, in the same order."""
        raise NotImplementedError

    def execute(self, options: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Do it for all targets. The result says what happened to each one, whether the task fails or not."""
        self.check_options(options, task_vars)
        fans_out = options["targets"] is not None
        items = (
            read_targets(options["targets"], self.ITEM_KEYS, options["max_targets"], task_vars)
            if fans_out
            else read_current_host(task_vars)
        )
        is_alone = fans_out or self._runs_once or is_included_once(self._task)
        # The hosts that have a task of their own, this one among them; and the addresses of the others.
        self._batch = [] if is_alone else [str(host) for host in task_vars["ansible_play_hosts_all"]]
        self._others: Counter[Address] = Counter()
        hosts = [*(item.host for item in items), *self._batch]
        self._host_variables = HostVariables(self._task, task_vars, self._templar, hosts)
        connections = self._connections("targets", self._group_by_provider(items))
        earlier: dict[str, Outcome]
        targets, earlier = share_between_attempts(
            self._task, lambda: (self._make_targets(items, options, connections, task_vars), {})
        )
        run = TaskRun(
            connections=connections,
            options=options,
            targets=targets,
            policy=self._make_policy(options, len(items)),
            fans_out=fans_out,
            check_mode=bool(self._task.check_mode),
            earlier=earlier,
        )
        with stop_on_signals(self._stop):
            if run.check_mode:
                return self.run_in_check_mode(run)
            result = self.make_result(run, self._make_attempt(run))
            if fans_out:
                _write_files(options, result)
        return result

    def _make_targets(
        self,
        items: Sequence[Item],
        options: dict[str, Any],
        connections: Mapping[str, HttpSettings],
        task_vars: Mapping[str, Any],
    ) -> list[Target]:
        """The targets, with their agent and conversation. Raises FleetError."""
        named = self._find_named_agent(options, connections)
        items = [replace(item, given={**named, **item.given}) for item in items]
        targets = [self.make_target(item, options, task_vars) for item in items]
        if not self.OPENS:
            return targets
        if items and items[0].host in self._batch:
            hostvars = task_vars["hostvars"]
            # To read all hosts for each of them would take minutes.
            found = share_between_hosts(self._task, lambda: [*Counter(self._list_addresses(hostvars)).items()])
            # A conversation that a template makes may be another one for each host.
            written = self._written.get("conversation_id")
            shared = written if written == options["conversation_id"] else None
            for (own, conversation), count in found:
                agent = named.get("agent_id") or own or options["agent_id"]
                if agent == targets[0].agent_id:
                    self._others[Address(agent, conversation or shared)] += count
            self._others -= count_addresses(targets)
        return choose_conversations(targets, self._others)

    def _list_addresses(self, hostvars: Mapping[str, Any]) -> Iterator[Address]:
        """The addresses that the variables of the batch's hosts give."""
        for host in self._batch:
            # What is wrong with another host fails its own task.
            with contextlib.suppress(FleetError):
                environment = find_environment(host, hostvars)
                if environment is not None and (provider := find_provider(environment.provider)).standing:
                    agent_id = self._find_address(provider, provider.agent, host, {}, {})
                    yield Address(agent_id, self._find_address(provider, provider.conversation, host, {}, {}))

    def _warn_of_crowd(self, run: TaskRun, targets: Sequence[Any]) -> None:
        """Warn once of targets that get a message in the same conversation."""
        wanted = [target for target in targets if target.skip is None and not run.earlier]
        if crowded := explain_crowded(wanted, self._others):
            self._display.warning(crowded)

    def _make_attempt(self, run: TaskRun) -> list[Outcome]:
        """Work on the targets that no earlier attempt has settled; an outcome for each target, in the same order.

        Failures that stay count against the budget of this attempt. What was unknown stays so until it is settled, and
        what is not attempted is as it was.
        """
        if not self.SETTLED:
            return list(asyncio.run(self.run_on_targets(run)))
        earlier = run.earlier
        known = [(target, earlier[target.host]) for target in run.targets if target.host in earlier]
        settled = [pair for pair in known if self.is_settled(*pair)]
        done = {target.host for target, _outcome in settled}
        wanted = [target for target in run.targets if target.host not in done]
        failures = sum(outcome.status in ("failed", "unknown") for _target, outcome in settled)
        policy = replace(run.policy, max_failures=run.policy.max_failures - failures)
        found = asyncio.run(self.run_on_targets(replace(run, targets=wanted, settled=settled, policy=policy)))
        for target, outcome in zip(wanted, found, strict=True):
            before = earlier.get(target.host)
            stays_unknown = before is not None and before.status == "unknown" and not self.is_settled(target, outcome)
            if before is None or not (stays_unknown or outcome.status == "not_attempted"):
                earlier[target.host] = outcome
        return [earlier[target.host] for target in run.targets]

    def is_settled(self, target: Any, outcome: Any) -> bool:
        """Whether a later attempt of the task leaves a target alone."""
        return outcome.status in self.SETTLED

    def check_options(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> None:
        """Raise OptionError for values that no target can be given."""
        if options["targets"] is None:
            alone = next((name for name in _OF_A_FAN_OUT if options[name] is not None), None)
            if alone:
                raise OptionError(alone, "needs targets")
        else:
            self._require_run_once("targets", task_vars, "act on all of them")
        for name in ("retry_file", "result_file"):
            if options[name]:
                check_writable(name, options[name])

    def run_in_check_mode(self, run: TaskRun) -> dict[str, Any]:
        return self.make_result(run, asyncio.run(self.run_on_targets(run)))

    def make_result(self, run: TaskRun, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """The task's result: of the one target at the top, or of all with a summary."""
        if run.fans_out:
            return self._make_summary(outcomes, run.policy)
        return self._make_single_result(outcomes[0], run.policy)

    def summarize_more(self, outcomes: Sequence[Any]) -> str:
        """What the summary says besides how many targets ended in each status."""
        return ""

    def find_display(self) -> Callable[[str], None] | None:
        """Shows the progress at a terminal; None where there is no terminal or the task has `no_log`."""
        return self._display_line if ON_A_TERMINAL and not self._task.no_log else None

    def _make_policy(self, options: Mapping[str, Any], targets: int) -> Policy:
        offline = {name: options[name] for name in ("when_offline", "offline_timeout") if name in options}
        if self._task.check_mode and offline.get("when_offline") == "wait":
            # Nothing is done, so nothing waits for an environment, and an offline one is no failure.
            offline["when_offline"] = "skip"
        return Policy(
            concurrency=options["concurrency"],
            rate=options["rate"],
            max_failures=parse_share("max_failures", options["max_failures"], targets),
            report=self.find_display() if options["targets"] is not None else None,
            stop=self._stop,
            **offline,
        )

    def _make_single_result(self, outcome: Outcome, policy: Policy) -> dict[str, Any]:
        failed = policy.is_failure(outcome)
        result = {**_describe_outcome(outcome), "changed": outcome.status in self.CHANGED, "failed": failed}
        result["msg"] = _write_line(outcome)
        if outcome.status == "skipped" or (outcome.status == "offline" and not failed):
            result["skipped"] = True
        return result

    def _make_summary(self, outcomes: Sequence[Outcome], policy: Policy) -> dict[str, Any]:
        found = count_each((outcome.status for outcome in outcomes), self.STATUSES)
        failures = [outcome for outcome in outcomes if policy.is_failure(outcome)]
        # With several outcomes a target.
        hosts, failed_hosts = ({outcome.host: None for outcome in those} for those in (outcomes, failures))
        failed = len(failed_hosts) > policy.max_failures
        ended = ", ".join(f"{count} {status}" for status, count in found.items() if count)
        several = f"{len(outcomes)} conversations of " if len(outcomes) > len(hosts) else ""
        message = f"{several}{len(hosts)} targets: {ended or 'nothing to do'}{self.summarize_more(outcomes)}"
        if failures:
            message += f"; failed: {join_first([_write_line(one) for one in failures], _MOST_FAILURES_SHOWN)}"
        return {
            "changed": any(outcome.status in self.CHANGED for outcome in outcomes),
            "failed": failed,
            "msg": message,
            "targets": [_describe_outcome(outcome) for outcome in outcomes],
            "counts": found,
            "failed_hosts": list(failed_hosts),
            "max_failures_exceeded": failed,
        }


def _describe_outcome(outcome: Outcome) -> dict[str, Any]:
    """An outcome as the result has it. `asdict` of the whole would copy every value of every target."""
    values = {field.name: getattr(outcome, field.name) for field in fields(outcome)}
    return {name: asdict(value) if isinstance(value, Reply) else value for name, value in values.items()}


def _write_line(outcome: Outcome) -> str:
    why = outcome.error["message"] if outcome.error else outcome.reason
    return f"{outcome.host}: {outcome.status}" + (f": {why}" if why else "")


def _write_files(options: Mapping[str, Any], result: dict[str, Any]) -> None:
    """Write the files. An error fails the task, and the result still says what was done."""
    failed = set(result["failed_hosts"])
    again = [
        entry["host"]
        for entry in result["targets"]
        if entry["status"] == "not_attempted" or (entry["host"] in failed and entry["status"] in ("failed", "offline"))
    ]
    try:
        if options["result_file"]:
            write_results(options["result_file"], result["targets"])
        if options["retry_file"]:
            write_hosts(options["retry_file"], again)
    except OptionError as error:
        result.update(failed=True, msg=f"{result['msg']}; {error}")
