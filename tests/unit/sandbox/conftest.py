from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from letta_client import Letta

from tests.sandbox.process import Sandbox


@pytest.fixture(scope="session")
def process() -> Iterator[Sandbox]:
    with Sandbox.start(devices=40, seed=7, forbidden_key="a-key-without-rights") as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(process: Sandbox) -> Sandbox:
    process.reset()
    return process


@pytest.fixture
def letta(sandbox: Sandbox) -> Iterator[Letta]:
    """The official SDK, without its two default retries."""
    with Letta(base_url=sandbox.url, api_key=sandbox.api_key, max_retries=0) as client:
        yield client


@pytest.fixture
def http(sandbox: Sandbox) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {sandbox.api_key}"}
    with httpx.Client(base_url=sandbox.url, headers=headers, trust_env=False) as client:
        yield client


@pytest.fixture
def qoder(sandbox: Sandbox) -> Iterator[httpx.Client]:
    """Qoder's API with the key of the first account."""
    headers = {"Authorization": f"Bearer {sandbox.qoder.key}"}
    with httpx.Client(base_url=sandbox.qoder.url, headers=headers, trust_env=False) as client:
        yield client
