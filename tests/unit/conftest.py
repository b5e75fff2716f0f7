"""What the unit tests share: one sandbox for each worker process, and an environment without proxies or settings."""

from __future__ import annotations

import os
from collections.abc import Iterator

import hypothesis
import pytest

from tests.sandbox.process import Sandbox

DEVICES = 20

# The same examples in every run: a failed run can be repeated, and no example has a time limit.
hypothesis.settings.register_profile("unit", derandomize=True, deadline=None, max_examples=40)
hypothesis.settings.load_profile("unit")


@pytest.fixture(scope="session", autouse=True)
def bare_environment() -> Iterator[None]:
    """Remove the proxies and settings of the user who runs the tests."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in list(os.environ):
            if name.lower().endswith("_proxy") or name.startswith("LETTA_"):
                monkeypatch.delenv(name)
        yield


@pytest.fixture(scope="session")
def unit_sandbox_process() -> Iterator[Sandbox]:
    with Sandbox.start(devices=DEVICES, seed=1, forbidden_key="forbidden-key-for-loopback-only") as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(unit_sandbox_process: Sandbox) -> Sandbox:
    """The sandbox with its seeded fleet, nothing received and no faults."""
    unit_sandbox_process.reset()
    return unit_sandbox_process
