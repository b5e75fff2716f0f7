# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mode in which an agent's conversation runs on a device: what it may do without asking.

Source of the rules: Letta Code 0.34. A device confirms a mode by reporting its states again, and answers an unknown
mode with a notice. Reading the mode does no harm, so it is read once more if the confirmation is lost. A device that
was restarted in the middle of a turn goes on with it once a mode is set.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from ..errors import ApiError
from ..providers.letta.client import Client
from ..providers.letta.models import is_same_mode
from ..providers.letta.relay import Frame, Relay, describe_loop_error, find_loop_error
from ..text import one_line
from .device_work import Work, count_messages, describe_begun, read_work
from .fan_out import ProviderRun, Target
from .jobs import ConversationOutcome, make_relay, on_each


@dataclass(slots=True, kw_only=True)
class ModeOutcome(ConversationOutcome):
    """What happened to the mode on one device, in the device's own words.

    status: `changed`, or `ok` when the device had the mode already.
    mode: the present one, or in check mode the one that would be set; None where the device did not report it.
    work_started: whether the device began work that waited there; None where it did not report that.
    """

    mode: str | None = None
    previous_mode: str | None = None
    work_started: bool | None = False

    def describe(self) -> dict[str, Any]:
        """What belongs to the mode alone."""
        return {name: getattr(self, name) for name in ("status", "mode", "previous_mode", "error")}


async def set_mode(run: ProviderRun, mode: str, within: float) -> list[ModeOutcome]:
    """Set the mode on every target; one outcome each, in the same order. Nothing is set in check mode.

    within: seconds to wait for a device's confirmation.
    """

    async def change(client: Client, target: Target, outcome: ModeOutcome) -> None:
        relay = await make_relay(client, target, outcome)
        try:
            async with relay:
                before = read_work(relay)
                await apply_mode(relay, outcome, mode, within, check_mode=run.check_mode)
                if outcome.status == "changed":
                    await _note_begun(relay, outcome, before, check_mode=run.check_mode)
        except ApiError as error:
            if not error.may_be_accepted:
                raise
            await _read_again(relay, outcome, mode, error)
            # What it began meanwhile is not known.
            outcome.work_started = None

    return await on_each(run, ModeOutcome.of, change)


async def apply_mode(relay: Relay, outcome: ModeOutcome, mode: str, within: float, *, check_mode: bool) -> None:
    """Set the mode over an open relay, and set the outcome. Raises ApiError."""
    outcome.previous_mode = outcome.mode = _read_mode(relay)
    await relay.require_runtime()
    if is_same_mode(outcome.mode, mode):
        outcome.status = "ok"
        return
    # The mode is unknown until the device has confirmed it.
    outcome.mode = mode if check_mode else None
    if not check_mode:
        outcome.mode = await _set_mode(relay, mode, within)
    outcome.status = "changed"


async def _note_begun(relay: Relay, outcome: ModeOutcome, before: Work, *, check_mode: bool) -> None:
    """Say in the outcome which work the mode has begun, or in check mode would begin."""
    begun = count_messages(before.ready, "would go on", "would go on") if check_mode and before.ready else None
    if not check_mode:
        outcome.work_started = None
        # The mode is set, whether the device reports its work or not.
        with contextlib.suppress(ApiError):
            await relay.sync()
            begun = describe_begun(before, read_work(relay))
            outcome.work_started = False
    if begun is not None:
        outcome.work_started, outcome.reason = True, f"{begun}, which waited on the device"


async def _set_mode(relay: Relay, mode: str, within: float) -> str:
    def decides(frame: Frame) -> bool:
        if frame.get("type") == "update_device_status":
            return is_same_mode(relay.device_status.get("current_permission_mode"), mode)
        return relay.is_ours(frame) and find_loop_error(frame) is not None

    frame = await relay.exchange({"type": "change_device_state", "payload": {"mode": mode}}, decides, within)
    notice = find_loop_error(frame)
    if notice is not None:
        # The notice may be about a turn that is under way instead.
        problem = f"the device refused the mode: {describe_loop_error(notice)}"
        raise ApiError(problem, code="refused", may_be_accepted=True)
    return str(relay.device_status["current_permission_mode"])


async def _read_again(relay: Relay, outcome: ModeOutcome, mode: str, unclear: ApiError) -> None:
    """Read the mode after a request whose answer was lost, and set the outcome. unclear: the error of that request."""
    try:
        async with relay:
            outcome.mode = _read_mode(relay)
    except ApiError:
        raise unclear from None
    if not is_same_mode(outcome.mode, mode):
        raise ApiError(f"{unclear}; the mode is still {one_line(outcome.mode, 60)!r}", code=unclear.code)
    outcome.status = "changed"


def _read_mode(relay: Relay) -> str:
    mode = relay.device_status.get("current_permission_mode")
    if not isinstance(mode, str):
        raise ApiError("the device does not say its mode", code="invalid")
    return mode
