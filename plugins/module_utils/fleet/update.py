# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Updates of Letta Code on devices. An update counts when the same row is back online on a newer version.

Source of the rules: `handleUpgradeLettaCodeCommand` of Letta Code 0.34. The device answers "Updated to <version>. ...",
restarts a second later and registers again; any other answer means that nothing was installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

from ..environment import Environment, EnvironmentReference, describe_state, is_updatable
from ..errors import ApiError
from ..providers.base import find_online
from ..providers.letta import manual_command
from ..providers.letta.client import Client
from ..providers.letta.relay import Relay
from ..providers.message import Message
from ..text import format_now, one_line
from ..versions import explain_incomparable, is_at_least, parse_version, show_version
from .command import Command, execute_command
from .delivery import Delivery, MessageTarget, Sender
from .drain import Drain
from .fan_out import Outcome, ProviderRun, Target
from .jobs import on_each

COMMAND = "upgrade-letta-code"
# The code of a device that was told to update, and is not back on the version wanted.
NOT_UPDATED = "not_updated"
_UPDATED = "Updated to "
_LONGEST_PAUSE = 5.0
# Seconds after its answer within which the process that was told has ended. Observed: one.
_OLD_PROCESS_ENDS = 5.0


@dataclass(frozen=True, slots=True)
class Update:
    """What to update to, and how.

    target_version: the least version; None for the version that the device is offered.
    method: `command` (over the relay), `message` (to an agent), or `auto`, the first of them that is possible.
    within: seconds in which the device must be back after it was told to update.
    any_manual_command: whether an agent may run a manual command that no known installer has.
    drain: what happens to a device on which something is under way.
    """

    target_version: str | None
    method: str
    within: float
    any_manual_command: bool
    drain: Drain = field(default_factory=Drain)

    @property
    def wanted(self) -> str:
        """The version wanted, in words."""
        return f"version {self.target_version} or newer" if self.target_version else "a newer version"

    def is_reached(self, version: str | None, previous: str | None) -> bool:
        """Whether a device that had the version `previous` is up to date with `version`."""
        if self.target_version is not None:
            return is_at_least(version, self.target_version)
        found, before = parse_version(version), parse_version(previous)
        return found is not None and (before is None or bool(found > before))


class UpdateProgress(Protocol):
    """What a rollout's ledger stores of each device. Every call except `find_told` raises ApiError if storing fails."""

    def find_told(self, environment: EnvironmentReference) -> tuple[str, bool] | None:
        """When a device was told to update itself, if the result is still unknown, and whether it has installed it.

        It may have been told as another environment, unless it has installed the update then. None for any other one.
        """

    def tell(self, environment_id: str, installed: str | None = None) -> None:
        """Record that a device is about to be told, or says that it has installed a version, and restarts."""

    def forget(self, environment_id: str) -> None:
        """Record that a device has not been updated, and is not going to be."""

    def done(self, environment_id: str, version: str | None, updated_at: str | None) -> None:
        """Record that a device is back on the version."""


@dataclass(slots=True, kw_only=True)
class UpdateOutcome(Outcome):
    """What happened to the update of one device.

    status: `changed` when the device is back on the version wanted, `ok` when it had that version already.
    method: how it was updated, None if it was not. previous_version: the version before.
    updated_at: when the device was found back on the version wanted, ISO 8601 in UTC.
    output: the device's answer to the command.
    agent_id, conversation_id, client_message_id: those of the message to the agent.
    """

    method: str | None = None
    previous_version: str | None = None
    version: str | None = None
    connection_id: str | None = None
    updated_at: str | None = None
    output: str | None = None
    agent_id: str | None = None
    conversation_id: str | None = None
    client_message_id: str | None = None

    def note(self, environment: Environment) -> None:
        """Record the device's present version and connection."""
        self.version, self.connection_id = environment.fields["version"], environment.connection_id


async def update_environments(
    run: ProviderRun, update: Update, progress: UpdateProgress | None = None
) -> list[UpdateOutcome]:
    """Update every target; one outcome each, in the same order. Nothing is sent in check mode.

    A target is under way until its device is back. So `concurrency` is how many devices restart at a time, and a device
    that does not come back counts as failed before the next one starts. Environments of one device are one
    installation, which two installers at once break. So they are updated one after the other.
    """
    devices: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
    in_doubt = update.drain.in_doubt

    async def job(client: Client, target: Target, outcome: UpdateOutcome) -> None:
        device = target.environment.device_id or target.environment.id
        async with devices[device]:
            if run.fan_out.is_closed:
                return
            if device in in_doubt:
                doubt = f"its device was told to update as {in_doubt[device]}, and may still be installing"
                raise ApiError(doubt, code="busy")
            try:
                await _UpdateJob(client, run, update, progress, target, outcome).run()
            except ApiError as error:
                if error.may_be_accepted or error.code == NOT_UPDATED:
                    in_doubt[device] = target.host
                raise

    return await on_each(run, UpdateOutcome.make, job)


def explain_no_command(environment: Environment) -> str | None:
    """Why a device cannot be told to update itself; None when it can."""
    if not is_updatable(environment.self_update):
        return manual_command.explain_not_updatable(environment.self_update)
    if COMMAND not in (environment.fields["supported_commands"] or []):
        return f"the device does not list {COMMAND} in its supported_commands"
    return None


@dataclass(frozen=True, slots=True)
class _UpdateJob:
    """The update of one device. Every call raises ApiError."""

    client: Client
    of_all: ProviderRun
    update: Update
    progress: UpdateProgress | None
    target: Target
    outcome: UpdateOutcome

    async def run(self) -> None:
        """Update the device, unless it is up to date."""
        outcome, self.outcome.reason = self.outcome, None
        was_told = await self._wait_for_earlier_run()
        before = await find_online(self.client, self.target.environment)
        outcome.note(before)
        outcome.previous_version = outcome.version
        if self._is_up_to_date():
            if was_told:
                outcome.status, outcome.updated_at = "changed", format_now()
                outcome.reason = f"an earlier run told it to update itself, and it is back on {outcome.version}"
                self._record()
            return
        method = self._choose_method(before)
        if not self.of_all.check_mode and await self.update.drain.holds_back(self.client, self.target, before, outcome):
            return
        if self.progress is not None:
            self.progress.tell(before.id)
        try:
            await self._update(before, method)
        except ApiError as error:
            if not error.may_be_accepted:
                self._record()
            raise
        self._record()

    async def _wait_for_earlier_run(self) -> bool:
        """Whether an earlier run told the device to update; it then gets the rest of its time to come back."""
        listed = self.target.environment
        told = self.progress.find_told(listed) if self.progress is not None else None
        if told is None:
            return False
        told_at, has_installed = told
        elapsed = max(0.0, (datetime.now(UTC) - datetime.fromisoformat(told_at)).total_seconds())
        until = time.monotonic() + self.update.within - elapsed
        before = await self.client.resolve(listed)
        if before is not None and not self.update.is_reached(before.fields["version"], None):
            if has_installed:
                # The process that was told has ended, or is about to. So a device that answers later is another one.
                before = replace(before, connection_id=None)
            await self._wait_until_back(before, until, time.monotonic() if has_installed else None)
        return True

    def _record(self) -> None:
        """Record that the device is updated, or that it is neither updated nor told to be."""
        outcome = self.outcome
        if self.progress is None:
            return
        if outcome.status == "changed":
            self.progress.done(outcome.id, outcome.version, outcome.updated_at)
        else:
            self.progress.forget(outcome.id)

    def _is_up_to_date(self) -> bool:
        outcome, wanted = self.outcome, self.update.target_version
        if wanted is None:
            return False
        found = parse_version(outcome.version)
        if found is None:
            problem = explain_incomparable(outcome.version, wanted)
            raise ApiError(f"target_version: the device {problem}", code="no_version")
        if not is_at_least(outcome.version, wanted):
            return False
        outcome.status = "ok"
        outcome.reason = f"{outcome.version} is newer than {wanted}" if found > parse_version(wanted) else None
        return True

    def _choose_method(self, before: Environment) -> str:
        """How to update the device. Once this method has begun, no other one is tried."""
        problem = explain_no_command(before)
        if self.update.method != "message" and problem is None:
            return "command"
        if self.update.method == "command":
            raise ApiError(str(problem), code="not_updatable")
        if self.target.agent_id is None:
            by_hand = one_line(manual_command.find_manual_command(before.self_update) or "the device does not say how")
            why = f"{problem}; " if problem else ""
            message = f"{why}there is no agent_id to send a message to; to update by hand: {by_hand}"
            raise ApiError(message, code="no_method")
        return "message"

    async def _update(self, before: Environment, method: str) -> None:
        """Tell the device to update, or its agent to update it, and wait until the device is back."""
        tell, doubt = self._run_command, "the update may be under way"
        if method == "message":
            tell, doubt = self._send_message, "the message may have been delivered"
        until = time.monotonic() + self.update.within
        try:
            how, unclear = await tell(before), False
        except ApiError as error:
            if not error.may_be_accepted:
                raise
            how, unclear = f"{error}; {doubt}", True
        if how is not None:
            await self._prove(before, until, how, unclear=unclear)

    async def _run_command(self, before: Environment) -> str | None:
        """Tell the device to update; returns what it said, None if no update follows and the outcome says why."""
        outcome = self.outcome
        outcome.method = "command"
        if self.of_all.check_mode:
            outcome.status, outcome.reason = "changed", f"would run {COMMAND}"
            return None
        relay = Relay(self.client.settings, before.connection_id)
        command = Command(COMMAND, self.update.within)
        outcome.output, success = await execute_command(relay, command, outcome.previous_version)
        answer = one_line(outcome.output) or "nothing"
        if not success:
            raise ApiError(f"the device did not update; it said: {answer}", code="command_failed")
        if outcome.output.startswith(_UPDATED):
            if self.progress is not None:
                self.progress.tell(before.id, answer.removeprefix(_UPDATED).partition(" ")[0].rstrip("."))
            return f"the device said: {answer}"
        if self.update.target_version is not None:
            raise ApiError(f"the device is not offered {self.update.wanted}; it said: {answer}", code="not_offered")
        outcome.status, outcome.reason = "ok", answer
        return None

    async def _send_message(self, before: Environment) -> str | None:
        """Have the agent update its device; returns what was done, None as `_run_command`."""
        target, outcome = self.target, self.outcome
        said, any_command = before.self_update, self.update.any_manual_command
        refusal = manual_command.explain_refusal(said, outcome.previous_version, any_command=any_command)
        if refusal is not None:
            why = "" if is_updatable(said) else f"{manual_command.explain_not_updatable(said)}; "
            outcome.status, outcome.reason = "skipped", f"{why}{refusal}"
            return None
        command = str(manual_command.find_manual_command(said))
        outcome.method, outcome.agent_id = "message", target.agent_id
        if self.of_all.check_mode:
            outcome.status, outcome.reason = "changed", f"would have {target.agent_id} do this: {one_line(command)}"
            return None
        message = Message.from_user(manual_command.write_instruction(command))
        to = MessageTarget(target.host, before, target.agent_id, target.conversation_id, messages=[message])
        delivery = Delivery.of(to)
        try:
            await Sender({before.provider: self.client}, self.of_all.fan_out).send_now(to, before, delivery)
        finally:
            outcome.client_message_id, outcome.conversation_id = delivery.client_message_id, delivery.conversation_id
        return "the message was delivered"

    async def _prove(self, before: Environment, until: float, how: str, *, unclear: bool) -> None:
        """Wait until the device is back on the version wanted. Raises ApiError for one that is not.

        how: what was done to update it, for the error. unclear: whether it is unknown that this was done.
        """
        outcome = self.outcome
        answered_at = time.monotonic() if outcome.method == "command" and not unclear else None
        try:
            now = await self._wait_until_back(before, until, answered_at)
        except ApiError as error:
            raise ApiError(f"{how}; then {error}", code=error.code, may_be_accepted=True) from None
        if _is_back(before, now) and self.update.is_reached(outcome.version, outcome.previous_version):
            outcome.status, outcome.updated_at = "changed", format_now()
            outcome.reason = f"updated from {show_version(outcome.previous_version)} to {outcome.version}"
            return
        within = f" within {self.update.within:g} s" if time.monotonic() > until else ""
        is_now = f"it {'reconnected and ' if _is_back(before, now) else ''}is {describe_state(now)}"
        where = await self._find_elsewhere(before)
        message = f"not back on {self.update.wanted}{within}: {is_now}{where}; {how}"
        raise ApiError(message, code=NOT_UPDATED, may_be_accepted=unclear)

    async def _wait_until_back(
        self, before: Environment, until: float, answered_at: float | None = None
    ) -> Environment | None:
        """The same row when its device has restarted, or when the time is over; None for a row that is gone.

        answered_at: when the device said that it restarts.
        """
        pause = 0.5
        while True:
            try:
                now = await self.client.resolve(before)
            except ApiError as error:
                if not error.transient or time.monotonic() > until:
                    raise
            else:
                if now is not None:
                    self.outcome.note(now)
                if time.monotonic() > until or await self._has_restarted(before, now, answered_at):
                    return now
            await asyncio.sleep(max(0.0, min(pause, until - time.monotonic())))
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    async def _has_restarted(self, before: Environment, now: Environment | None, answered_at: float | None) -> bool:
        """Whether a row shows another process. On its old version a device may as well have reconnected only."""
        if now is None or not _is_back(before, now):
            return False
        if now.fields["version"] != before.fields["version"]:
            return True
        if answered_at is None or time.monotonic() < answered_at + _OLD_PROCESS_ENDS:
            return False
        # A row may outlast its process, which then answers no more.
        with contextlib.suppress(ApiError, TimeoutError):
            settings = self.client.settings
            async with asyncio.timeout(settings.relay_timeout), Relay(settings, now.connection_id):
                return True
        return False

    async def _find_elsewhere(self, before: Environment) -> str:
        """For the error: the other row that the device now answers as; empty where there is none."""
        if before.device_id is None:
            return ""
        try:
            found = await self.client.retrieve(before.device_id)
        except ApiError:
            return ""
        if found.id == before.id or found.status != "online":
            return ""
        return one_line(f"; its device is there as another environment, {found.id}: {describe_state(found)}")


def _is_back(before: Environment, now: Environment | None) -> bool:
    return now is not None and now.status == "online" and now.connection_id not in (None, before.connection_id)
