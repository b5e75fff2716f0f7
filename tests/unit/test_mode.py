"""Modes: which names mean the same, what is set, and what the result says if a confirmation is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.fleet.fan_out import ProviderRun, Target
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.mode import ModeOutcome, set_mode
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.models import is_same_mode
from tests.sandbox.process import Sandbox
from tests.sandbox.turns import LongTurn

from .sandbox.devices import play_device
from .support import environment_of, policy, settings_for

AGENT = "agent-1"


@pytest.fixture
def device(sandbox: Sandbox) -> dict[str, Any]:
    """A simulated device whose conversations begin in the mode `standard`."""
    return sandbox.add_environment(connectionName="one", currentMode="standard")


def set_on(
    sandbox: Sandbox,
    *devices: dict[str, Any],
    mode: str = "acceptEdits",
    within: float = 5.0,
    check_mode: bool = False,
    agent_id: str = AGENT,
    conversation_id: str | None = None,
    **settings: Any,
) -> Sequence[ModeOutcome]:
    """What happened to the devices as listed."""
    targets = [
        Target(device["connectionName"], environment_of(device, sandbox.url), agent_id, conversation_id)
        for device in devices
    ]
    run = ProviderRun(settings_for(sandbox, **settings), targets, policy(), check_mode)
    return asyncio.run(set_mode(run, mode, within))


def one(*arguments: Any, **options: Any) -> ModeOutcome:
    [outcome] = set_on(*arguments, **options)
    return outcome


def present(sandbox: Sandbox, device: dict[str, Any], **whose: Any) -> str | None:
    """The mode of the device, as check mode reports it."""
    return one(sandbox, device, mode="strict", check_mode=True, **whose).previous_mode


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("standard", "default", True),
        ("bypassPermissions", "unrestricted", True),
        ("fullAccess", "bypassPermissions", True),
        ("acceptEdits", "acceptEdits", True),
        ("standard", "strict", False),
        ("plan", "standard", False),
        (None, "standard", False),
    ],
)
def test_modes_are_compared_by_meaning(first: str | None, second: str, same: bool) -> None:
    assert is_same_mode(first, second) is same


def test_a_mode_is_set_once(sandbox: Sandbox, device: dict[str, Any]) -> None:
    first, second = (one(sandbox, device) for _number in range(2))

    assert (first.status, first.previous_mode, first.mode, first.error) == ("changed", "standard", "acceptEdits", None)
    assert (second.status, second.previous_mode, second.mode) == ("ok", "acceptEdits", "acceptEdits")
    assert (first.agent_id, first.conversation_id, first.connection_id) == (AGENT, None, device["connectionId"])


def test_the_same_mode_under_another_name_is_ok(sandbox: Sandbox, device: dict[str, Any]) -> None:
    outcome = one(sandbox, device, mode="default")

    assert (outcome.status, outcome.mode) == ("ok", "standard")


def test_the_mode_is_returned_in_the_devices_word(sandbox: Sandbox, device: dict[str, Any]) -> None:
    outcome = one(sandbox, device, mode="bypassPermissions")

    assert (outcome.status, outcome.mode) == ("changed", "unrestricted")


def test_other_conversations_keep_their_mode(sandbox: Sandbox, device: dict[str, Any]) -> None:
    key = {"Authorization": f"Bearer {sandbox.api_key}"}
    made = sandbox.control.post(f"/v1/conversations/?agent_id={AGENT}", headers=key, json={}).json()["id"]

    assert one(sandbox, device, conversation_id=made).status == "changed"

    assert present(sandbox, device, conversation_id=made) == "acceptEdits"
    assert present(sandbox, device) == present(sandbox, device, agent_id="agent-2") == "standard"


def test_a_mode_is_set_in_the_middle_of_a_turn(sandbox: Sandbox, device: dict[str, Any]) -> None:
    sandbox.script(AGENT, LongTurn(seconds=3600))
    body = {"agentId": AGENT, "messages": [{"role": "user", "content": "work", "client_message_id": "m-1"}]}
    url = f"/v1/environments/{device['connectionId']}/messages"
    sandbox.control.post(url, headers={"Authorization": f"Bearer {sandbox.api_key}"}, json=body).raise_for_status()

    assert one(sandbox, device).status == "changed"


def test_work_that_the_mode_began_on_a_restarted_device_is_named(sandbox: Sandbox, device: dict[str, Any]) -> None:
    sandbox.script(AGENT, LongTurn(seconds=3600), LongTurn(seconds=3600))
    body = {"agentId": AGENT, "messages": [{"role": "user", "content": "work", "client_message_id": "m-1"}]}
    url = f"/v1/environments/{device['connectionId']}/messages"
    sandbox.control.post(url, headers={"Authorization": f"Bearer {sandbox.api_key}"}, json=body).raise_for_status()
    device = sandbox.interrupt(device["id"])

    would, did, again = one(sandbox, device, check_mode=True), one(sandbox, device), one(sandbox, device, mode="strict")

    assert (would.work_started, would.reason) == (True, "1 message would go on, which waited on the device")
    assert (did.status, did.work_started) == ("changed", True)
    assert did.reason == "1 message goes on, which waited on the device"
    assert (again.status, again.work_started, again.reason) == ("changed", False, None)


def test_check_mode_sets_nothing(sandbox: Sandbox, device: dict[str, Any]) -> None:
    outcome = one(sandbox, device, check_mode=True)

    assert (outcome.status, outcome.previous_mode, outcome.mode) == ("changed", "standard", "acceptEdits")
    assert one(sandbox, device, mode="standard", check_mode=True).status == "ok"
    assert present(sandbox, device) == "standard"


def test_a_mode_that_the_device_does_not_know_is_refused_in_its_words(sandbox: Sandbox, device: dict[str, Any]) -> None:
    outcome = one(sandbox, device, mode="plan")

    assert (outcome.status, outcome.mode) == ("failed", "standard")
    assert outcome.error == {
        "code": "refused",
        "message": "the device refused the mode: Unsupported permission mode: plan; the mode is still 'standard'",
    }


@pytest.mark.parametrize("mode", ["acceptEdits", "standard"])
def test_an_unknown_agent_gets_no_mode(sandbox: Sandbox, device: dict[str, Any], mode: str) -> None:
    sandbox.remove_agent(AGENT)

    outcome = one(sandbox, device, mode=mode)

    assert (outcome.status, (outcome.error or {})["code"]) == ("failed", "no_agent")


@pytest.mark.parametrize(
    ("fault", "status", "mode"),
    [
        ("relay_cut_before", "failed", "standard"),
        ("relay_cut_after", "changed", "acceptEdits"),
        ("relay_cut_during", "changed", "acceptEdits"),
    ],
)
def test_the_mode_is_read_again_if_the_confirmation_is_lost(
    sandbox: Sandbox, device: dict[str, Any], fault: str, status: str, mode: str
) -> None:
    sandbox.add_fault(fault)

    outcome = one(sandbox, device)

    assert (outcome.status, outcome.previous_mode, outcome.mode) == (status, "standard", mode)
    assert len(sandbox.requests("relay")) == 2
    if status == "failed":
        assert outcome.error is not None
        assert outcome.error["message"].endswith("the mode is still 'standard'")
    sandbox.clear_faults()
    assert present(sandbox, device) == mode


def test_the_outcome_is_unknown_if_the_mode_cannot_be_read_again(sandbox: Sandbox, device: dict[str, Any]) -> None:
    sandbox.add_fault("relay_cut_after", nth=1)
    sandbox.add_fault("status", route="relay", status=403, nth=2)

    outcome = one(sandbox, device)

    assert (outcome.status, outcome.mode) == ("unknown", None)
    assert outcome.error is not None
    assert "no answer to change_device_state" in outcome.error["message"]


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ({"fault": "relay_close"}, "failed"),
        ({"fault": "relay_silent"}, "failed"),
        ({"fault": "relay_not_json"}, "changed"),
        ({"fault": "status", "route": "relay", "status": 404}, "offline"),
    ],
    ids=lambda value: value["fault"] if isinstance(value, dict) else "",
)
def test_an_unusable_relay_is_an_error(
    sandbox: Sandbox, device: dict[str, Any], fault: dict[str, Any], status: str
) -> None:
    sandbox.add_fault(**fault)

    assert one(sandbox, device, retries=0, timeout=0.5).status == status


def test_a_device_that_is_offline_is_reported(sandbox: Sandbox, device: dict[str, Any]) -> None:
    sandbox.offline(device["id"])

    assert one(sandbox, device).status == "offline"


# Devices that behave differently from simulated ones


def state(mode: str) -> dict[str, Any]:
    return {"type": "update_device_status", "device_status": {"current_permission_mode": mode}}


ANSWERED = {"type": "sync_response", "success": True}
FOUND = {"agent_retrieve": [{"type": "agent_retrieve_response", "success": True}]}
NOTICE = {"type": "stream_delta", "delta": {"message_type": "loop_error", "message": "no credit", "is_terminal": True}}


def test_a_device_that_ignores_the_mode_has_failed(sandbox: Sandbox) -> None:
    with play_device(sandbox, sync=[state("standard"), ANSWERED], **FOUND) as device:
        outcome = one(sandbox, device, within=0.2)

    assert (outcome.status, outcome.mode) == ("failed", "standard")
    assert outcome.error is not None
    assert outcome.error["message"].endswith(
        "no answer to change_device_state within 0.2 s; the mode is still 'standard'"
    )


def test_an_error_of_the_turn_under_way_is_no_refusal(sandbox: Sandbox) -> None:
    with play_device(
        sandbox,
        sync=[state("standard"), ANSWERED],
        change_device_state=[NOTICE],
        then_sync=[state("acceptEdits"), ANSWERED],
        **FOUND,
    ) as device:
        outcome = one(sandbox, device)

    assert (outcome.status, outcome.mode, outcome.error) == ("changed", "acceptEdits", None)


def test_an_error_in_another_conversation_is_ignored(sandbox: Sandbox) -> None:
    notice = {**NOTICE, "runtime": {"agent_id": "agent-other", "conversation_id": "default"}}
    with play_device(
        sandbox, sync=[state("standard"), ANSWERED], change_device_state=[notice, state("acceptEdits")], **FOUND
    ) as device:
        outcome = one(sandbox, device)

    assert (outcome.status, outcome.mode) == ("changed", "acceptEdits")


def test_a_device_without_a_mode_is_reported(sandbox: Sandbox) -> None:
    with play_device(sandbox, sync=[ANSWERED]) as device:
        outcome = one(sandbox, device)

    assert (outcome.status, outcome.error) == (
        "failed",
        {"code": "invalid", "message": "the device does not say its mode"},
    )


def test_an_old_device_that_cannot_be_asked_about_agents_is_set(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.relay._LOOK_UP_WITHIN", 0.1
    )
    with play_device(sandbox, sync=[state("default"), ANSWERED], change_device_state=[state("acceptEdits")]) as device:
        outcome = one(sandbox, device)

    assert (outcome.status, outcome.previous_mode, outcome.mode) == ("changed", "default", "acceptEdits")
