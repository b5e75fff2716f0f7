"""Benchmarks at the smallest size: each one checks that the measured command did its work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import campaign, refresh
from tests.benchmarks.harness import Scale
from tests.benchmarks.inventory import check_same

TINY = Scale(runs=1, listed=120, targets=4, delay=0.01)


@pytest.mark.parametrize("subject", [refresh, campaign])
def test_a_benchmark_measures_at_the_smallest_size(
    subject: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if subject is campaign:
        # It is skipped where PostgreSQL's server is missing.
        request.getfixturevalue("postgresql_process")
    rows = subject.run(TINY, tmp_path)

    assert all(figure > 0 for row in rows for figure in [*row.ours, *row.theirs])


def test_inventories_are_compared_by_groups_and_variables(tmp_path: Path) -> None:
    """The parent of a group does not matter, but its hosts do."""
    hosts = {"a": {"letta_os": {"__ansible_unsafe": "x y"}, "letta_listed_at": "now"}, "b": {}}
    listing = {"_meta": {"hostvars": hosts}, "one": {"children": ["two"]}, "two": {"hosts": ["a", "b"]}}
    same = {**listing, "one": {"hosts": ["b", "a"]}, "_meta": {"hostvars": {"a": {"letta_os": "x y"}, "b": {}}}}
    fewer = {**listing, "two": {"hosts": ["a"]}}
    others = {**listing, "_meta": {"hostvars": {**hosts, "b": {"letta_os": "linux"}}}}
    paths = []
    for number, content in enumerate((listing, same, fewer, others)):
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_text(json.dumps(content))

    check_same("the same", paths[1], paths[0])
    for path in paths[2:]:
        with pytest.raises(RuntimeError, match=r"^other does not make what it is compared with"):
            check_same("other", path, paths[0])
