"""A refresh requests all pages at once, and shows the rows that a walk from page to page would."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.process import Sandbox

from .conftest import DEVICES, Ansible

# In small pages, and as many at a time as the plugin requests.
PAGE = 2
AT_ONCE = 20


@pytest.fixture
def cached(tmp_path: Path) -> dict[str, Any]:
    """The options of a source with small pages and a cache on disk."""
    return {
        "page_size": PAGE,
        "cache": True,
        "cache_plugin": "ansible.builtin.jsonfile",
        "cache_connection": str(tmp_path / "cache"),
    }


def refresh(ansible: Ansible, options: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The list of a run with --flush-cache, and the requests that it made."""
    ansible.sandbox.clear_requests()
    run = ansible.inventory("--list", "--flush-cache", source=ansible.source(**options))
    run.assert_quiet()
    return json.loads(run.stdout), ansible.sandbox.requests("list")


def comparable(listing: Mapping[str, Any]) -> dict[str, Any]:
    """A listing without its times, which differ from run to run."""
    moments = {"letta_listed_at", "letta_last_heartbeat", "letta_last_seen_at"}
    hosts = listing["_meta"]["hostvars"]
    kept = {name: {key: host[key] for key in host.keys() - moments} for name, host in hosts.items()}
    return {**listing, "_meta": {"hostvars": kept}}


def most_under_way(requests: list[dict[str, Any]]) -> int:
    return max(request["under_way"] for request in requests)


@pytest.mark.covers("letta", "cache")
def test_a_refresh_of_a_large_fleet_asks_for_many_pages_at_once(tmp_path: Path, cached: dict[str, Any]) -> None:
    """500 rows over an API that takes 0.1 s a page; the last row of a page is removed before the third listing."""
    with Sandbox.start(devices=475, seed=3) as sandbox:
        fleet = sandbox.fleet()
        for _number in range(500 - len(fleet)):
            sandbox.add_environment()
        sandbox.add_fault("slow", route="list", seconds=0.1)
        large = Ansible(tmp_path, sandbox)
        options = cached | {"page_size": 20}

        first, walk = refresh(large, options)
        second, at_once = refresh(large, options)
        sandbox.remove(fleet[39]["id"])
        third, without = refresh(large, options)
        walked = large.listing(page_size=20)

    assert len(first["_meta"]["hostvars"]) == 500 == len(third["_meta"]["hostvars"]) + 1
    assert (len(walk), most_under_way(walk)) == (25, 1)
    assert (len(at_once), most_under_way(at_once)) == (25, AT_ONCE)
    assert comparable(second) == comparable(first)
    assert most_under_way(without) == AT_ONCE
    assert [request["status"] for request in without].count(400) == 1
    assert comparable(third) == comparable(walked)


def test_the_pages_are_remembered_when_the_rows_have_expired(ansible: Ansible, cached: dict[str, Any]) -> None:
    ansible.sandbox.add_fault("slow", route="list", seconds=0.05)
    ansible.hosts(**cached)
    ansible.sandbox.clear_requests()
    ansible.hosts(**cached)
    assert ansible.sandbox.requests() == []

    # A timeout of one second, which is over before Ansible has started.
    hosts = ansible.hosts(**cached, cache_timeout=1)

    assert hosts.keys() == {entry["name"] for entry in ansible.sandbox.fleet()}
    assert most_under_way(ansible.sandbox.requests("list")) > 1


@pytest.mark.covers("letta", "cache")
def test_without_a_cache_every_listing_walks(ansible: Ansible, cached: dict[str, Any]) -> None:
    ansible.sandbox.add_fault("slow", route="list", seconds=0.05)
    pages = len(ansible.sandbox.fleet()) // PAGE + 1
    refresh(ansible, cached)

    for _number in range(2):
        _listing, requests = refresh(ansible, cached | {"cache": False})
        assert (len(requests), most_under_way(requests)) == (pages, 1)


def test_a_refresh_lists_added_and_removed_rows_as_a_walk_does(ansible: Ansible, cached: dict[str, Any]) -> None:
    """Among the removed rows: two after which pages began, and the last row of all."""
    refresh(ansible, cached)
    fleet = ansible.sandbox.fleet()
    for position in (1, 4, 9, -1):
        ansible.sandbox.remove(fleet[position]["id"])
    for _number in range(5):
        ansible.sandbox.add_environment()

    again, requests = refresh(ansible, cached)
    walked = ansible.listing(page_size=PAGE)
    _third, at_once = refresh(ansible, cached)

    assert comparable(again) == comparable(walked)
    names = {entry["name"] for entry in ansible.sandbox.fleet()}
    assert again["_meta"]["hostvars"].keys() == names
    assert [request["status"] for request in requests].count(400) == 2
    # The pages that are remembered then are those of the current fleet.
    assert [request["status"] for request in at_once] == [200] * -(-len(names) // PAGE)


def test_a_refresh_that_fails_on_one_page_fails_as_a_whole(ansible: Ansible, cached: dict[str, Any]) -> None:
    refresh(ansible, cached)
    ansible.sandbox.add_fault("status", route="list", status=500, nth=7)

    run = ansible.inventory("--list", "--flush-cache", source=ansible.source(**cached, retries=0))

    run.assert_inventory_error("500")


def test_a_server_that_throttles_is_waited_for(ansible: Ansible, cached: dict[str, Any]) -> None:
    refresh(ansible, cached)
    ansible.sandbox.add_fault("status", route="list", status=429, retry_after=1, nth=[2, 4, 6, 8, 10])

    listing, requests = refresh(ansible, cached)

    assert listing["_meta"]["hostvars"].keys() == {entry["name"] for entry in ansible.sandbox.fleet()}
    assert [request["status"] for request in requests].count(429) == 5


def _payload(value: Any) -> str:
    return json.dumps({"__payload__": json.dumps(value)})


UNREADABLE = ["", "[]", _payload(7), _payload("{"), _payload("[7]"), _payload('{"a": 1}'), _payload('["gone"]')]


def test_unreadable_starts_count_as_absent(ansible: Ansible, cached: dict[str, Any]) -> None:
    """One source for each kind of damage, and one without damage, all in one process."""
    sources = [cached] * (len(UNREADABLE) + 1)
    assert ansible.sources(sources).returncode == 0
    files = sorted((ansible.directory / "cache").glob("*_starts"))
    row_ids = {entry["id"] for entry in ansible.sandbox.fleet()}
    kept = json.loads(json.loads(json.loads(files[0].read_text())["__payload__"]))
    assert set(kept) < row_ids
    assert len(kept) == len(row_ids) // PAGE
    for file, text in zip(files[1:], UNREADABLE, strict=True):
        file.write_text(text)
    ansible.sandbox.add_fault("slow", route="list", seconds=0.05)
    ansible.sandbox.clear_requests()

    run = ansible.sources(sources, "--flush-cache")

    assert run.returncode == 0, run.output
    assert len(json.loads(run.stdout)["_meta"]["hostvars"]) >= DEVICES
    firsts = [request for request in ansible.sandbox.requests("list") if "after" not in request["query"]]
    assert len(firsts) == len(sources)
    statuses = [request["status"] for request in ansible.sandbox.requests("list")]
    assert (statuses.count(400), set(statuses)) == (1, {200, 400})
