"""The memory that malformed answers cost."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.sandbox.process import CHECKOUT

PLUGINS = "ansible_collections.fleetops.environments.plugins"
# Prints the peak memory in KiB of a process that reads a list of bad entries.
MEASURE = """
import contextlib, json, resource, sys
import pydantic
from tests.unit.support import NOW
entries = json.loads("[" + ", ".join(["1"] * int(sys.argv[1])) + "]")
{read}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
OF_A_ROW = f"""
from {PLUGINS}.module_utils.providers.letta.models import read_environment
found = read_environment({{"id": "a", "metadata": {{"supported_commands": entries}}}}, "", NOW)
assert "supported_commands" in found.fields["invalid"]
"""
OF_A_LISTING = f"""
from {PLUGINS}.module_utils.environment import Listing
from {PLUGINS}.module_utils.providers.letta.models import read_environments
found, invalid = read_environments(Listing(entries, NOW), "")
assert (found, len(invalid)) == ([], len(entries))
assert all(row.dropped for row in invalid)
"""
OF_AN_EVENT = f"""
from {PLUGINS}.module_utils.providers.qoder.models import Event
with contextlib.suppress(pydantic.ValidationError):
    Event.model_validate({{"type": "agent.message", "content": entries}})
"""
OF_A_HISTORY = f"""
from {PLUGINS}.module_utils.providers.letta.history import History
with contextlib.suppress(pydantic.ValidationError):
    History.model_validate({{"messages": entries}})
"""


def measure_peak(read: str, count: int) -> int:
    """KiB."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE.format(read=read), str(count)],
        cwd=CHECKOUT, env={"PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / '.build/collections'}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(done.stdout)


@pytest.mark.parametrize(
    "read", [OF_A_ROW, OF_A_LISTING, OF_AN_EVENT, OF_A_HISTORY], ids=["row", "listing", "event", "history"]
)
def test_a_million_bad_entries_cost_little_more_than_their_list(read: str) -> None:
    assert measure_peak(read, 1_000_000) < measure_peak(read, 1) + 64 * 1024
