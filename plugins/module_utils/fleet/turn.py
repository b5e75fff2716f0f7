# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Aborting an agent's turn on a device, and resuming its queue.

Source of the rules: Letta Code 0.34, and observations of real devices. An abort ends the turn, and pauses the messages
that wait for its end. They go on when the queue is resumed or another message comes. Aborting or resuming twice does no
harm, so the device is asked once more if an answer is lost. Without the relay the server can cancel its own runs. That
is only a part of a turn: tools run, and wait for approval, on the device. To set a mode or end a monitor may begin a
turn, so the abort comes after these, and the device is looked at again after it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from ..errors import ApiError
from ..providers.letta.client import Client
from ..providers.letta.relay import Relay, describe_refusal
from .device_work import KnownConversations, Work, count_messages, describe_begun, read_work
from .fan_out import ProviderRun, Target, record_error
from .jobs import ConversationOutcome, make_relay, on_each
from .mode import ModeOutcome, apply_mode

# Seconds before each look after an abort. A device may need a moment to end a tool, or to begin what a mode set going.
_LOOK_AFTER = (0.0, 0.3, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class TurnChange:
    """What to do with the turns.

    state: `aborted` or `resumed`. run_id: abort this run alone. within: seconds to wait for a device's answer.
    mode: set before the abort, None to leave it. end_background: whether background processes are ended, where a device
        offers that. over_rest: whether the server is asked where the device cannot be. It ends the turns of all devices
        in a conversation.
    """

    state: str
    run_id: str | None
    within: float
    mode: str | None = None
    end_background: bool = False
    over_rest: bool = True


@dataclass(slots=True, kw_only=True)
class TurnOutcome(ConversationOutcome):
    """What happened to the turn on one device.

    status: `changed` when a turn was aborted or messages were resumed, `ok` when there was nothing to do.
    via: `relay`, `rest`, or None when neither answered.
    run_ids: the runs that were aborted, or that go on after a resume, as far as they are known.
    queue_paused: whether messages wait on the device until the queue is resumed; None if the device did not report it.
    under_way: whether the last look at the device found a turn; None without such a look.
    background_processes: those that the last look found; see `Work`.
    mode: what happened to the mode, as `{status, mode, previous_mode, error}`; None if it was to be left.
    """

    via: str | None = None
    run_ids: list[str] = field(default_factory=list)
    queue_paused: bool | None = None
    under_way: bool | None = None
    background_processes: list[dict[str, Any]] = field(default_factory=list)
    mode: dict[str, Any] | None = None


async def set_turn(run: ProviderRun, wanted: TurnChange, known: KnownConversations | None = None) -> list[TurnOutcome]:
    """Abort or resume on every target; one outcome each, in the same order. Nothing is changed in check mode.

    known: where else the devices are told, with an outcome for each place; None for the targets' own conversations.
    """

    async def change(client: Client, target: Target, outcome: TurnOutcome) -> None:
        turn = _TurnJob(client, wanted, target, outcome, run.check_mode)
        await (turn.abort() if wanted.state == "aborted" else turn.resume())

    on_all = on_each if known is None else known.on_each_place
    return await on_all(run, TurnOutcome.of, change)


@dataclass(slots=True)
class _TurnJob:
    """The turn of one target's agent.

    unsettled: whether there was something to do when an answer was lost.
    idle: whether the device last reported that no turn is under way.
    """

    client: Client
    wanted: TurnChange
    target: Target
    outcome: TurnOutcome
    check_mode: bool
    unsettled: bool = False
    idle: bool = False
    runs: list[str] = field(default_factory=list)

    async def abort(self) -> None:
        """Abort over the relay, or over REST if the relay or the device is gone. Raises ApiError."""
        try:
            relay = await make_relay(self.client, self.target, self.outcome)
        except ApiError as error:
            if error.code != "offline":
                raise
            await self._cancel(error)
            return
        try:
            await self._ask_over_relay(relay, self._abort_on)
        except ApiError as error:
            if error.code in ("no_agent", "busy"):
                raise
            await self._cancel(error)

    async def resume(self) -> None:
        """Resume the queue; only the device can. Raises ApiError."""
        try:
            relay = await make_relay(self.client, self.target, self.outcome)
            await self._ask_over_relay(relay, self._resume_on)
        except ApiError as error:
            if error.code == "no_agent":
                raise
            raise error.but(f"{error}; a queue can be resumed over the relay only") from None

    async def _ask_over_relay(self, relay: Relay, ask: Callable[[Relay], Awaitable[None]]) -> None:
        """Ask the device, and once more if the answer was lost."""
        for was_lost in (False, True):
            try:
                async with relay:
                    await ask(relay)
            except ApiError as error:
                if was_lost:
                    raise error.but(may_be_accepted=True) from None
                if not error.may_be_accepted:
                    raise
            else:
                self.outcome.via = "relay"
                return

    async def _abort_on(self, relay: Relay) -> None:
        before = read_work(relay)
        under_way = aborted = self._concerns(before)
        self.idle = not under_way and before.busy is not None
        stirred = await self._change_mode(relay)
        if not self.check_mode:
            stirred |= await self._end_background(relay, before)
            aborted = await self._request_abort(relay, expected=under_way)
        if not aborted:
            await relay.require_runtime()
        looks = (aborted or stirred) and not self.check_mode
        work = await self._look_again(relay, stirred=stirred) if looks else before
        paused = None
        if work is not None:
            self.outcome.under_way, self.outcome.background_processes = work.busy, work.background
            paused = work.waiting if aborted and self.check_mode else work.paused
        if self._concerns(work) and not self.check_mode:
            raise ApiError(f"a turn is under way again after {len(_LOOK_AFTER) + 1} aborts", code="busy")
        self.outcome.queue_paused = None if paused is None else paused > 0
        waiting = [_describe_waiting(paused) if aborted or paused else None, _describe_ready(work)]
        unseen = self.outcome.under_way is None
        nothing = "the device does not report what is under way" if unseen else "no turn is under way"
        self._end(*waiting, done=aborted, nothing=nothing)

    async def _change_mode(self, relay: Relay) -> bool:
        """Set the mode if that is wanted; whether it may be another one. An error keeps no turn from being aborted."""
        if self.wanted.mode is None:
            return False
        part = ModeOutcome.of(self.target)
        try:
            await apply_mode(relay, part, self.wanted.mode, self.wanted.within, check_mode=self.check_mode)
        except ApiError as error:
            record_error(part, error)
        self.outcome.mode = part.describe()
        return part.status in ("changed", "unknown")

    async def _end_background(self, relay: Relay, work: Work) -> bool:
        """End the monitors if that is wanted; whether there were any. The last look shows which are left."""
        monitors = [process for process in work.background if process["kind"] == "monitor"]
        wanted = monitors if self.wanted.end_background else []
        for process in wanted:
            frame = {"type": "monitor_stop", "process_id": process["process_id"]}
            with contextlib.suppress(ApiError):
                await relay.request(frame, "monitor_stop_response", self.wanted.within)
        return bool(wanted)

    async def _look_again(self, relay: Relay, *, stirred: bool) -> Work | None:
        """What the device reports at last, None if it does not. A turn that is still under way is aborted once more.

        stirred: whether something may begin a turn after the abort.
        """
        work = None
        for number, pause in enumerate(_LOOK_AFTER):
            await asyncio.sleep(pause)
            try:
                await relay.sync()
            except ApiError:
                return None
            work = read_work(relay)
            if self._concerns(work):
                await self._request_abort(relay, expected=True)
            elif number or not stirred:
                break
        return work

    def _concerns(self, work: Work | None) -> bool:
        """Whether there is a turn to abort: one under way, or one that waits for approval."""
        wanted = self.wanted.run_id
        runs = [run for run in work.run_ids if wanted in (None, run)] if work is not None else []
        self.runs += [run for run in runs if run not in self.runs]
        return bool(runs) or (work is not None and wanted is None and bool(work.busy))

    async def _resume_on(self, relay: Relay) -> None:
        before = read_work(relay)
        resumed, begun = before.paused != 0 or before.ready > 0, None
        if self.check_mode:
            waiting = (before.paused or 0) + before.ready
            begun = count_messages(waiting, "would go on", "would go on") if waiting else None
            if before.paused is None:
                begun = "the device does not say whether messages are paused"
        else:
            resumed = await self._request(relay, {"type": "resume_queue"}, "resumed", expected=resumed)
            # The queue is resumed, whether the device reports its work or not.
            with contextlib.suppress(ApiError):
                await relay.sync()
                after = read_work(relay)
                begun = describe_begun(before, after)
                self.runs, self.outcome.under_way = after.run_ids, after.busy
                self.outcome.background_processes = after.background
        if not resumed and begun is None:
            await relay.require_runtime()
        self.outcome.queue_paused = False
        self._end(begun, done=resumed or begun is not None, nothing="no message is paused")

    async def _request_abort(self, relay: Relay, *, expected: bool) -> bool:
        frame = {"type": "abort_message"}
        if self.wanted.run_id is not None:
            frame["run_id"] = self.wanted.run_id
        return await self._request(relay, frame, "aborted", expected=expected)

    async def _request(self, relay: Relay, frame: dict[str, Any], done: str, *, expected: bool) -> bool:
        """Whether the device did something, by the key `done` of its answer. expected: whether it should have."""
        try:
            answer = await relay.request(frame, f"{frame['type']}_response", self.wanted.within)
        except ApiError as error:
            self.unsettled = self.unsettled or (expected and error.may_be_accepted)
            raise
        if answer.get("success") is False:
            raise ApiError(f"the device refused {frame['type']}: {describe_refusal(answer)}", code="refused")
        # The value of `resumed` is the number of messages that were resumed.
        return bool(answer.get(done))

    async def _cancel(self, gone: ApiError) -> None:
        """Have the server cancel the runs that it knows of, if that is wanted. gone: the error of the relay."""
        if self.wanted.mode is not None and self.outcome.mode is None:
            part = ModeOutcome.of(self.target)
            record_error(part, gone)
            self.outcome.mode = part.describe()
        if not self.wanted.over_rest:
            raise gone
        self.outcome.via = "rest"
        if self.check_mode:
            self._end(f"over REST, since {gone}; only cancelling shows whether the server runs anything", done=True)
            return
        agent_id, conversation_id = str(self.target.agent_id), self.target.conversation_id
        try:
            cancelled = await self.client.cancel(agent_id, conversation_id, self.wanted.run_id)
            if not cancelled.run_ids and not self.idle:
                await self._require_no_open_call(agent_id, conversation_id)
        except ApiError as error:
            self.outcome.via = None
            raise ApiError(
                f"{gone}; over REST: {error}",
                # The server does not know the run (404), or has no part in it. Only the device can end it, so the code
                # is that of the device's error.
                code=gone.code if error.status == 404 or error.code == "open_call" else error.code,
                may_be_accepted=gone.may_be_accepted or error.may_be_accepted,
            ) from None
        self.runs = cancelled.run_ids or self.runs
        self.unsettled = self.unsettled or cancelled.unclear
        done, nothing = bool(cancelled.run_ids), "the server has no run under way"
        self._end(f"over REST, since {gone}", done=done, nothing=nothing)

    async def _require_no_open_call(self, agent_id: str, conversation_id: str | None) -> None:
        """Raise ApiError if the conversation ends with a tool call that has no result."""
        run_id = await self.client.find_open_call(agent_id, conversation_id, self.wanted.run_id)
        if run_id is not None:
            open_call = f"a tool call of {run_id} is open, which only the device can end"
            raise ApiError(f"the server has no run under way, but {open_call}", code="open_call")

    def _end(self, *more: str | None, done: bool, nothing: str = "") -> None:
        """Set the outcome. more: what the reason says at its end. nothing: the reason when nothing was done."""
        outcome = self.outcome
        outcome.status = "changed" if done or self.unsettled else "ok"
        outcome.run_ids = self.runs if outcome.status == "changed" else []
        settled = " any more, after a request whose answer was lost" if self.unsettled else ""
        why = None if done else f"{nothing}{settled}"
        outcome.reason = "; ".join(part for part in (why, *more) if part) or None


def _describe_waiting(paused: int | None) -> str | None:
    if paused is None:
        return "the device does not say whether messages wait there, paused until state=resumed or another message"
    if paused == 0:
        return None
    return f"{count_messages(paused, 'waits', 'wait')} on the device, paused until state=resumed or another message"


def _describe_ready(work: Work | None) -> str | None:
    if work is None or not work.ready:
        return None
    waiting = count_messages(work.ready, "waits", "wait")
    return f"{waiting} on the device, which goes on with state=resumed, another message or another mode"
