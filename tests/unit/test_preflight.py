"""The preflight of a rollout: the state of each device, and no plan if a device cannot be looked up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.environment import Environment
from ansible_collections.fleetops.environments.plugins.module_utils.errors import FleetError
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.fan_out import Target
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.schema import RolloutTarget
from ansible_collections.fleetops.environments.plugins.module_utils.rollouts.preflight import find_preflights
from tests.sandbox.process import Sandbox

from .support import environment_of, settings_for

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


def find_states(sandbox: Sandbox, *environments: Environment, **settings: Any) -> list[RolloutTarget]:
    targets = [Target(environment.id, environment) for environment in environments]
    return asyncio.run(find_preflights(settings_for(sandbox, **settings), targets, 4, "0.34.12"))


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
    assert [one.reason for one in found[:3]] == [None] * 3
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
