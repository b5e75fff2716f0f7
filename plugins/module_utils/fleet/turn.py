# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Aborting an agent's turn on a device, and resuming its queue.

Source of the rules: Letta Code 0.34, and observations of real devices. An abort ends the turn, and pauses the messages
that wait for its end. They go on when the queue is resumed or another message comes. Aborting or resuming twice does no
harm, so the device is asked once more if an answer is lost. Without the relay the server can cancel its own runs. That
is only a part of a turn: tools run, and wait for approval, on the device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import ApiError
from ..http.settings import HttpSettings
from ..providers.letta.client import Client
from ..providers.letta.relay import Relay, describe_refusal
from .fan_out import FanOut, Policy, Target
from .jobs import ConversationOutcome, make_relay, on_each


@dataclass(frozen=True, slots=True)
class TurnChange:
    """What to do with the turns.

    state: `aborted` or `resumed`. run_id: abort this run alone. within: seconds to wait for a device's answer.
    """

    state: str
    run_id: str | None
    within: float


@dataclass(slots=True, kw_only=True)
class TurnOutcome(ConversationOutcome):
    """What happened to the turn on one device.

    status: `changed` when a turn was aborted or messages were resumed, `ok` when there was nothing to do.
    via: `relay`, `rest`, or None when neither answered. run_ids: the runs that were aborted, as far as they are known.
    queue_paused: whether messages wait on the device until the queue is resumed; None if the device did not report it.
    """

    via: str | None = None
    run_ids: list[str] = field(default_factory=list)
    queue_paused: bool | None = None


async def set_turn(
    settings: HttpSettings, targets: Sequence[Target], policy: Policy, wanted: TurnChange, *, check_mode: bool
) -> list[TurnOutcome]:
    """Abort or resume on every target; one outcome each, in the same order. Nothing is changed in check mode."""

    async def change(client: Client, target: Target, outcome: TurnOutcome) -> None:
        turn = _TurnJob(client, wanted, target, outcome, check_mode)
        await (turn.abort() if wanted.state == "aborted" else turn.resume())

    return await on_each(FanOut(policy), settings, targets, TurnOutcome.of, change)


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
            if error.code == "no_agent":
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
        under_way = aborted = self._is_under_way(relay)
        self.idle = not under_way
        if not self.check_mode:
            frame = {"type": "abort_message"}
            if self.wanted.run_id is not None:
                frame["run_id"] = self.wanted.run_id
            aborted = await self._request(relay, frame, "aborted", expected=under_way)
        if not aborted:
            await relay.require_runtime()
        elif not self.check_mode:
            # For the messages that wait now. The turn is aborted whether the device reports them or not.
            with contextlib.suppress(ApiError):
                await relay.sync()
        paused = _count_paused(relay, all_messages=aborted and self.check_mode)
        self.outcome.queue_paused = None if paused is None else paused > 0
        waiting = _describe_waiting(paused) if aborted or paused else None
        self._end(waiting, done=aborted, nothing="no turn is under way")

    def _is_under_way(self, relay: Relay) -> bool:
        """Whether there is a turn to abort: one under way, or one that waits for approval."""
        wanted, active = self.wanted.run_id, relay.loop_status.get("active_run_ids")
        runs = [str(run) for run in active if wanted in (None, str(run))] if isinstance(active, list) else []
        self.runs = self.runs or runs
        status = relay.device_status
        is_busy = bool(status.get("is_processing") or status.get("pending_control_requests"))
        return bool(runs) or (wanted is None and is_busy)

    async def _resume_on(self, relay: Relay) -> None:
        paused = _count_paused(relay)
        resumed = paused != 0
        if not self.check_mode:
            resumed = await self._request(relay, {"type": "resume_queue"}, "resumed", expected=resumed)
        if not resumed:
            await relay.require_runtime()
        self.outcome.queue_paused = False
        unknown = "the device does not say whether messages are paused" if self.check_mode and paused is None else None
        self._end(unknown, done=resumed, nothing="no message is paused")

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
        """Have the server cancel the runs that it knows of. gone: the error of the relay."""
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
        for newest in await self.client.list_messages(agent_id, conversation_id, limit=1, cursor={}):
            if newest.calls and self.wanted.run_id in (None, newest.run_id):
                raise ApiError(
                    f"the server has no run under way, but a tool call of {newest.run_id} is open, "
                    "which only the device can end",
                    code="open_call",
                )

    def _end(self, more: str | None, *, done: bool, nothing: str = "") -> None:
        """Set the outcome. more: what the reason says at its end. nothing: the reason when nothing was done."""
        outcome = self.outcome
        outcome.status = "changed" if done or self.unsettled else "ok"
        outcome.run_ids = self.runs if outcome.status == "changed" else []
        settled = " any more, after a request whose answer was lost" if self.unsettled else ""
        why = None if done else f"{nothing}{settled}"
        outcome.reason = "; ".join(part for part in (why, more) if part) or None


def _count_paused(relay: Relay, *, all_messages: bool = False) -> int | None:
    """How many messages are paused on the device, or with `all_messages` wait there; None if it does not report it."""
    if relay.queue is None:
        return None
    waiting = [item for item in relay.queue if isinstance(item, dict)]
    return sum(all_messages or item.get("paused") is True for item in waiting)


def _describe_waiting(paused: int | None) -> str | None:
    if paused is None:
        return "the device does not say whether messages wait there, paused until state=resumed or another message"
    if paused == 0:
        return None
    waiting = "1 message waits" if paused == 1 else f"{paused} messages wait"
    return f"{waiting} on the device, paused until state=resumed or another message"
