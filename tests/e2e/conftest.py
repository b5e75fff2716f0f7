"""Two real devices and a few simulated ones in one sandbox, and real Ansible processes against them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.relay import Relay
from tests.integration.conftest import Ansible
from tests.sandbox.process import Sandbox
from tests.unit.support import settings_for

from .device import Device, eventually, wheel

SIMULATED = 4


@dataclass(frozen=True)
class Fleet:
    """A sandbox with simulated devices and the real ones `alpha` and `beta`."""

    sandbox: Sandbox
    alpha: Device
    beta: Device

    @property
    def alpha_row(self) -> dict[str, Any]:
        """The row of alpha as the API answers it."""
        return self._row(self.alpha)

    def report_first_mode(self) -> None:
        """Have the rows show the mode that conversations begin in, not that of another test's conversation."""
        for device in (self.alpha, self.beta):
            if self._row(device).get("currentMode") not in (None, "unrestricted"):
                asyncio.run(self._sync(device))
                eventually(lambda device=device: self._row(device)["currentMode"] == "unrestricted")

    def _row(self, device: Device) -> dict[str, Any]:
        [row] = [entry["row"] for entry in self.sandbox.fleet() if entry["name"] == device.name]
        return dict(row)

    async def _sync(self, device: Device) -> None:
        async with Relay(settings_for(self.sandbox), self._row(device)["connectionId"]):
            pass


@pytest.fixture(scope="session")
def letta() -> None:
    """The wheel of the real devices. Without it these tests fail with the reason."""
    try:
        wheel()
    except RuntimeError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def device_processes(letta: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    homes = tmp_path_factory.mktemp("devices")
    with (
        Sandbox.start(devices=SIMULATED, seed=1) as sandbox,
        Device.start(sandbox, "alpha", homes / "alpha") as alpha,
        Device.start(sandbox, "beta", homes / "beta") as beta,
    ):
        yield Fleet(sandbox, alpha, beta)


@pytest.fixture
def fleet(device_processes: Fleet) -> Fleet:
    """The devices, without faults, modes, scripts or received messages of another test."""
    device_processes.sandbox.clear_faults()
    device_processes.sandbox.clear_received()
    device_processes.report_first_mode()
    device_processes.sandbox.clear_requests()
    return device_processes


@pytest.fixture
def lone_sandbox() -> Iterator[Sandbox]:
    """A sandbox for devices that a test itself starts."""
    with Sandbox.start(devices=0) as sandbox:
        yield sandbox


@pytest.fixture
def ansible(tmp_path: Path, fleet: Fleet) -> Ansible:
    """Ansible's commands, in the test's own directory."""
    return Ansible(tmp_path, fleet.sandbox)
