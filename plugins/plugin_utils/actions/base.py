# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The base of the action plugins: from options to a result, in the process of the controller."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from ansible import constants
from ansible.errors import AnsibleError
from ansible.module_utils.common.parameters import remove_values
from ansible.plugins.action import ActionBase

from ...module_utils import _deps
from ...module_utils.environment import EnvironmentReference
from ...module_utils.errors import FleetError, OptionError
from ...module_utils.http.settings import HttpSettings
from ...module_utils.ledger.url import find_secrets
from ...module_utils.options import SETTINGS_SPEC, drop_blanks, is_blank
from ...module_utils.providers.base import Provider, connection_settings
from ...module_utils.providers.conversation import NEW_CONVERSATION, TO_BE_OPENED
from ...module_utils.providers.registry import find_provider, list_providers
from ...module_utils.stop import Stop
from ...module_utils.text import one_line
from ..core_internals import drop_facts, find_current_host, hide_source, without_facts
from ..hosts import HostVariables, find_environment
from ..options import explain_templates, read_specification, validate_arguments
from ..variables import find_variables, is_of_collection
from .signals import stop_on_signals
from .targets import Item, find_listing_url

# Providers are imported before Ansible forks its workers: models and TLS cost more than a request.
for _known in list_providers():
    find_provider(_known)

# Ansible imports this before it forks its workers, which have no terminal.
ON_A_TERMINAL = sys.stdout.isatty()
# The callbacks whose standard output is for people. That of another one may be JSON.
_FOR_PEOPLE = frozenset({"awx_display", "debug", "default", "minimal", "oneline", "yaml"})
_GROUP = "group/fleetops.environments.{}"
# Options that only one provider can have.
_OF_ONE_PROVIDER = ("api_key", "api_key_file", "base_url")
_STRATEGIES_WITHOUT_RUN_ONCE = ("free", "host_pinned")
Value = TypeVar("Value")


class EnvironmentAction(ActionBase):  # type: ignore[misc]
    """An action that talks to a provider. A subclass has an `execute`, and its options from the module of its name."""

    _requires_connection = False

    SPEC: ClassVar[Mapping[str, Any]]
    _templar: Any
    _host_variables: HostVariables
    # The providers that it works with, None for all.
    PROVIDERS: ClassVar[Sequence[Provider] | None] = None
    # The words that a conversation_id may be: NEW_CONVERSATION, STANDING_CONVERSATION.
    OPENS: ClassVar[frozenset[str]] = frozenset()
    # Whether another one of these words in a host variable is an error and not ignored.
    NEEDS_CONVERSATION: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        package, _dot, name = cls.__module__.rpartition(".")
        if package.endswith(".action"):
            cls.SPEC = read_specification(name)

    def execute(self, options: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Do the work and return the result. Raises FleetError."""
        raise NotImplementedError

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Validate the options, do the work, and remove secrets from the result."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables: Mapping[str, Any] = task_vars or {}
        self._secrets: set[str] = set()
        self._used: list[HttpSettings] = []
        self._stop = Stop()
        try:
            _deps.require_packages()
            # What core renders the task's arguments with: the variables of the play's host, with facts.
            self._templar_of_arguments = self._templar
            variables = drop_facts(self._task, find_current_host(variables), variables)
            self._templar = self._templar_of_defaults = self._templar.copy_with_new_env(available_variables=variables)
            self._learn_secrets(variables)
            variables = self._take_place_of_delegate(variables, result)
            # `_settings` reads the options of the connection.
            options = validate_arguments(self.SPEC, self._arguments(None))
            result.update(self.execute(options, variables))
        except FleetError as error:
            result.update(failed=True, msg=f"{error}{self._name_variables(error)}")
        except BaseException:
            # Core's error when the time of the task is over is shown with those lines, too.
            self._hide_source_with_secrets()
            raise
        for note in dict.fromkeys(note for settings in self._used for note in settings.notes):
            self._display.warning(note)
        if result.get("failed"):
            self._hide_source_with_secrets()
        if self._task.retries or (self._task.until and self._task.retries is None):
            # Core's number of the task's own attempts has this name.
            result.pop("attempts", None)
        return dict(remove_values(result, self._secrets))

    def _display_line(self, line: str) -> None:
        """Show a line while the task runs: on standard output, or on standard error where a machine reads the other."""
        callback = str(constants.DEFAULT_STDOUT_CALLBACK).rpartition(".")[2]
        self._display.display(line, stderr=callback not in _FOR_PEOPLE)

    def _take_place_of_delegate(self, task_vars: Mapping[str, Any], result: dict[str, Any]) -> Mapping[str, Any]:
        """The variables of the host to act on: of the environment in `delegate_to`, which the result names.

        A name of the controller means the play's host. Raises FleetError.
        """
        # `ansible_delegated_vars` may have the host of another item of a loop.
        host = self._task.delegate_to
        if host is None or host in constants.LOCALHOST:
            return task_vars
        if find_environment(host, task_vars["hostvars"]) is None:
            what = "no environment" if host in task_vars["hostvars"] else "no host of the inventory"
            way_out = "give a host that is an environment, or localhost to act on the play's host"
            raise OptionError("delegate_to", f"{one_line(repr(host), 80)} is {what}; {way_out}")
        if not is_blank(self._task.args.get("targets")):
            raise OptionError("delegate_to", f"{host!r} cannot go with targets, which name the hosts to act on")
        result["host"] = host
        variables = HostVariables(self._task, task_vars, self._templar, [host]).read_all(host)
        variables = drop_facts(self._task, host, variables)
        self._templar = self._templar.copy_with_new_env(available_variables=variables)
        self._learn_secrets(variables)
        return variables

    def _name_variables(self, error: FleetError) -> str:
        """Which variables of our playbooks and roles the task takes the option from that an error is about."""
        option = re.split(r"\W", getattr(error, "option", ""))[0]
        given = self._written.get(option)
        names = find_variables(given) if given and is_of_collection(self._source) else []
        return f" (set with the variable {' or '.join(names)})" if names else ""

    def _wait_for(self, question: Coroutine[Any, Any, Value]) -> Value:
        """The answer to what only asks. A signal and the end of the task's time cut it off at once."""
        with stop_on_signals(self._stop):
            answer = asyncio.run(self._stop.run(question, grace=0))
        if answer is None:
            # No signal comes when Ansible itself was killed.
            raise FleetError(f"cut off, as {self._stop.why}")
        return answer

    @property
    def _written(self) -> dict[str, Any]:
        """The task's own arguments as they are written: not rendered, and without those of `module_defaults`."""
        found = self._task.get_ds() or {}
        parts = (found.get(self._task.action), found.get("args"))
        return {name: value for part in parts if isinstance(part, Mapping) for name, value in part.items()}

    @property
    def _source(self) -> str:
        """The path of the file that the task stands in. Core's place is "path:line"."""
        return str(self._task.get_path()).rpartition(":")[0]

    def _hide_source_with_secrets(self) -> None:
        """Keep Ansible from showing the lines around the failed task, where a key stands in its file."""
        try:
            source = Path(self._source).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return
        if any(secret in source for secret in self._secrets):
            hide_source(self._task)

    def _learn_secrets(self, task_vars: Mapping[str, Any]) -> None:
        """Collect every key that a message about the task could show, before anything can fail."""
        keys = [self._task.args.get("api_key")]
        for provider in map(find_provider, list_providers()):
            keys += [provider.options_in_environment().get("api_key")]
            with contextlib.suppress(AnsibleError), without_facts():
                keys += [self._templar.template(task_vars.get(provider.variable_of("api_key")))]
        self._secrets.update(str(key) for key in keys if not is_blank(key))
        self._secrets |= find_secrets(self._task.args.get("ledger"))

    def _arguments(self, provider: Provider | None) -> dict[str, Any]:
        """The task's options for a provider; with None those that are for every provider.

        Options of the connection in the `module_defaults` of an action group are for the provider that the group is
        named after: Letta's key in the defaults for group/fleetops.environments.letta is never sent to another
        provider. They count as no fact sets them. Raises OptionError for one that only a fact completes.
        """
        arguments = drop_blanks(self._task.args)
        for option in arguments.keys() & SETTINGS_SPEC.keys() - self._written.keys():
            defaults = []
            for name in list_providers():
                with contextlib.suppress(AnsibleError):
                    defaults.append(self._read_default(name, option, self._templar_of_arguments))
            if arguments[option] in defaults:
                problem = "the action group's default cannot be read without facts"
                with explain_templates(option, problem), without_facts():
                    name = provider.name if provider is not None else ""
                    arguments[option] = self._read_default(name, option, self._templar_of_defaults)
        return drop_blanks(arguments)

    def _read_default(self, provider: str, option: str, templar: Any) -> Any:
        """The default for an option of a provider's action group, rendered; None if there is none."""
        group = _GROUP.format(provider)
        given = [defaults[group] for defaults in self._task.module_defaults or () if group in defaults]
        options = given[-1] if given else {}
        return templar.template((templar.template(options) if isinstance(options, str) else options).get(option))

    def _find_address(
        self, provider: Provider, option: str, host: str, given: Mapping[str, Any], options: Mapping[str, Any]
    ) -> str | None:
        """Who is addressed at a host: as its entry says, else its variable, else the option.

        It is an id, or the JSON of a dictionary; None for a blank value. Raises OptionError.
        """
        name = provider.variable_of(option)
        with explain_templates(name, "cannot be read"):
            value = given.get(option) or self._host_variables.read(host, name) or options.get(option)
        if isinstance(value, Mapping):
            return json.dumps(value, sort_keys=True)
        if isinstance(value, Sequence) and value and not isinstance(value, str):
            raise OptionError(option, f"that of {host} must be an id or a dictionary, got {one_line(repr(value), 60)}")
        opens = self.OPENS if provider.standing else self.OPENS & {NEW_CONVERSATION}
        refused = TO_BE_OPENED - opens if option == provider.conversation else ()
        if value in refused and NEW_CONVERSATION not in self.OPENS and not self.NEEDS_CONVERSATION:
            # The variable says where messages go. The other tasks are not about those alone.
            value = given.get(option) or options.get(option)
        if value in refused:
            raise OptionError(option, f"must be one that exists, got {str(value)!r} for {host}")
        return str(value) if value else None

    def _find_named_agent(self, options: Mapping[str, Any], connections: Mapping[str, HttpSettings]) -> dict[str, str]:
        """The agent that `agent_name` names, as an entry of `targets` has it; empty without. Raises FleetError."""
        if not (name := options.get("agent_name")):
            return {}
        if options["agent_id"]:
            raise OptionError("agent_name", "cannot go with agent_id")
        for provider, settings in connections.items():
            if (find := find_provider(provider).find_agent) is not None:
                return {"agent_id": self._wait_for(find(settings, name))}
        if connections and not options.get("agent"):
            raise OptionError("agent_name", f"agents of {', '.join(connections)} have no names; give agent")
        return {}

    def _settings(self, provider: Provider, listed_from: str | None = None) -> HttpSettings:
        """How to reach a provider: as the task says, then its variables, then the inventory, then the environment.

        listed_from: the URL that the inventory listed the targets from.
        """
        variables = provider.options_in_variables(self._templar.available_variables)
        for option, value in variables.items():
            with explain_templates(provider.variable_of(option), "cannot be read"), without_facts():
                variables[option] = self._templar.template(value)
        settings = connection_settings(provider, self._arguments(provider), variables, {"base_url": listed_from})
        settings.gate.stop = self._stop
        self._secrets.add(settings.api_key)
        self._used.append(settings)
        return settings

    def _group_by_provider(self, items: Sequence[Item]) -> dict[str, list[EnvironmentReference]]:
        """The targets of each provider. Raises FleetError for one that the action does not work with."""
        listed: dict[str, list[EnvironmentReference]] = {provider.name: [] for provider in self.PROVIDERS or ()}
        for item in items:
            if self.PROVIDERS and item.environment.provider not in listed:
                raise FleetError(
                    f"{item.host} is an environment of {item.environment.provider}, and "
                    f"{str(self._task.action).rpartition('.')[2]} works with {', '.join(listed)} only"
                )
            listed.setdefault(item.environment.provider, []).append(item.environment)
        return listed

    def _connections(self, option: str, given: Mapping[str, Sequence[EnvironmentReference]]) -> dict[str, HttpSettings]:
        """How to reach each provider, by its name. given: its environments that `option` names."""
        alone = next((name for name in _OF_ONE_PROVIDER if name in self._arguments(None)), None)
        if len(given) > 1 and alone:
            names = sorted(given)
            variables = ", ".join(find_provider(name).variable_of(alone) for name in names)
            raise OptionError(
                alone, f"is one provider's, and {option} are of {', '.join(names)}; give each its own with {variables}"
            )
        return {
            name: self._settings(find_provider(name), find_listing_url(option, environments))
            for name, environments in given.items()
        }

    @property
    def _runs_once(self) -> bool:
        """Whether the task's `run_once` holds: one host runs it for all."""
        strategy = str(self._task.get_play().strategy).rpartition(".")[2]
        return bool(self._task.run_once) and strategy not in _STRATEGIES_WITHOUT_RUN_ONCE

    def _require_run_once(self, option: str, task_vars: Mapping[str, Any], otherwise: str) -> None:
        """Raise OptionError where each host of the play would do what one host does for all."""
        if len(task_vars["ansible_play_hosts_all"]) > 1 and not self._runs_once:
            raise OptionError(
                option,
                "in a play of several hosts needs run_once: true, and a strategy that heeds it such as linear, "
                f"or each host would {otherwise}",
            )
