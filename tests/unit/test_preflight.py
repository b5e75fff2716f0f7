"""The preflight of a rollout: the state of each device, and no plan if a device cannot be looked up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.environment import Environment
from ansible_collections.fleetops.environments.plugins.module_utils.errors import FleetError
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.drain import Drain
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.fan_out import Policy, ProviderRun, Target
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.schema import RolloutTarget
from ansible_collections.fleetops.environments.plugins.module_utils.rollouts.preflight import find_preflights
from tests.sandbox.process import Sandbox
from tests.sandbox.turns import LongTurn

from .support import begin_turn, environment_of, settings_for

UNABLE = {
    "supported": False,
    "writable": False,
    "reason": "Managed by\nthe image.",
    "install_path": "/opt/letta",
    "manual_command": "Ask whoever\nruns this.",
}


def add(sandbox: Sandbox, version: Any = "0.33.9", **metadata: Any) -> Environment:
    row = sandbox.add_environment(metadata={"lettaCodeVersion": version, **metadata})
    return environment_of(row, sandbox.url)


def find_states(
    sandbox: Sandbox, *environments: Environment, agent_id: str | None = None, **options: Any
) -> list[RolloutTarget]:
    targets = [Target(environment.id, environment, agent_id) for environment in environments]
    run = ProviderRun(settings_for(sandbox, retries=0), targets, Policy(4, rate=None, max_failures=0))
    return asyncio.run(find_preflights(run, "0.34.12", **options, drain=Drain()))


def test_each_device_is_looked_up_in_its_current_state(sandbox: Sandbox) -> None:
    able, current, newer, asleep, gone = (
        add(sandbox), add(sandbox, "0.34.12"), add(sandbox, "0.35.0"), add(sandbox), add(sandbox),
    )  # fmt: skip
    unable, mute, dev, silent = (
        add(sandbox, self_update=UNABLE), add(sandbox, supported_commands=["reload"]), add(sandbox, "dev"),
        add(sandbox, None),
    )  # fmt: skip
    sandbox.offline(asleep.id)
    sandbox.remove(gone.id)

    found = find_states(sandbox, able, current, newer, asleep, gone, unable, mute, dev, silent)

    assert [(one.preflight, one.from_version) for one in found] == [
        ("updatable", "0.33.9"),
        ("current", "0.34.12"),
        ("current", "0.35.0"),
        ("offline", "0.33.9"),
        ("offline", None),
        ("not_updatable", "0.33.9"),
        ("not_updatable", "0.33.9"),
        ("not_updatable", "dev"),
        ("not_updatable", None),
    ]
    assert [one.reason for one in found[1:3]] == [None] * 2
    assert (found[3].reason or "").startswith("offline (last seen at ")
    assert [one.reason for one in found[4:]] == [
        "no longer there",
        "not updatable: Managed by the image.; installed in /opt/letta",
        "the device does not list upgrade-letta-code in its supported_commands",
        "reports 'dev' as its version, which cannot be compared with 0.34.12",
        "reports no version that can be compared with 0.34.12",
    ]
    assert (found[5].manual_command, found[5].install_path) == ("Ask whoever runs this.", "/opt/letta")
    assert {(one.manual_command, one.install_path) for one in found[:5]} == {(None, None)}
    assert {one.wave for one in found} == {None}
    assert sandbox.received() == {}


def test_an_offline_device_on_the_version_needs_nothing(sandbox: Sandbox) -> None:
    environment = add(sandbox, "0.34.12")
    sandbox.offline(environment.id)

    assert find_states(sandbox, environment)[0].preflight == "current"


def test_many_look_ups_share_a_listing(sandbox: Sandbox) -> None:
    found = find_states(sandbox, *(add(sandbox) for _number in range(30)))

    assert {one.preflight for one in found} == {"updatable"}
    assert {entry["route"] for entry in sandbox.requests()} == {"list"}


def test_nothing_is_planned_if_a_device_cannot_be_looked_up(sandbox: Sandbox) -> None:
    one, two = add(sandbox), add(sandbox)
    sandbox.add_fault("status", route="retrieve", status=401, target=two.id)

    with pytest.raises(FleetError, match=rf"^nothing was planned, as targets cannot be looked up: {two.id}: .*401"):
        find_states(sandbox, one, two)


def test_devices_in_containers_are_at_risk_or_left_to_be_updated_by_hand(sandbox: Sandbox) -> None:
    machine = {"machine": {"model": "Container"}}
    able, unable, current = (
        add(sandbox, **machine),
        add(sandbox, self_update=UNABLE, **machine),
        add(sandbox, "0.34.12"),
    )

    last = find_states(sandbox, able, unable, current)
    skipped = find_states(sandbox, able, unable, current, containers="skip")

    assert [one.preflight for one in last] == ["at_risk", "not_updatable", "current"]
    assert [one.preflight for one in skipped] == ["not_updatable", "not_updatable", "current"]
    assert skipped[0].reason == "it is in a container, where an update may be its end, and containers are left out"
    assert skipped[1].reason == last[1].reason


@pytest.mark.parametrize("machine", [None, [], "Container", {"model": None}, {"model": ["Container"]}])
def test_a_malformed_machine_is_no_container(sandbox: Sandbox, machine: Any) -> None:
    assert find_states(sandbox, add(sandbox, machine=machine))[0].preflight == "updatable"


def test_what_is_under_way_on_a_device_is_in_the_plan(sandbox: Sandbox) -> None:
    busy, silent, idle, unable = add(sandbox), add(sandbox), add(sandbox), add(sandbox, self_update=UNABLE)
    sandbox.add_fault("relay_close", target=silent.id)
    begin_turn(sandbox, busy, "agent-1", LongTurn(seconds=3600))

    found = find_states(sandbox, busy, silent, idle, unable, agent_id="agent-1")

    assert (found[0].reason, found[2].reason) == ("busy: a turn of agent-1", None)
    # What cannot be found out is found out before it is told.
    assert (found[1].reason or "").startswith("not looked at: ")
    assert [one.preflight for one in found] == ["updatable", "updatable", "updatable", "not_updatable"]
    assert (found[3].reason or "").startswith("not updatable: ")
    [unknown] = find_states(sandbox, busy)
    assert (unknown.reason or "").startswith("not looked at: no agent is known whose turns would end there; ")
