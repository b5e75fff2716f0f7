"""The cache: a second run asks nothing and shows the same, and no other user can read it."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.process import Sandbox

from .conftest import CHECKOUT, Ansible

FORBIDDEN = "forbidden-key-for-loopback-only"


@pytest.fixture
def cached(ansible: Ansible) -> dict[str, Any]:
    """The options of a source with a cache on disk."""
    return {
        "cache": True,
        "cache_plugin": "ansible.builtin.jsonfile",
        "cache_connection": str(ansible.directory / "cache"),
        "cache_prefix": "fleet_",
    }


def _files(ansible: Ansible) -> list[Path]:
    return [path for path in (ansible.directory / "cache").rglob("*") if path.is_file()]


@pytest.mark.covers("letta", "cache", "cache_plugin", "cache_connection", "cache_prefix")
def test_a_second_run_asks_nothing_and_shows_the_same(ansible: Ansible, cached: dict[str, Any]) -> None:
    first = ansible.inventory("--list", source=ansible.source(**cached))
    ansible.sandbox.clear_requests()

    second = ansible.inventory("--list", source=ansible.source(**cached))
    filtered = ansible.listing(**cached, filters=["os == 'linux'"], group_by=["user"])

    first.assert_quiet()
    second.assert_quiet()
    assert ansible.sandbox.requests() == []
    assert second.stdout == first.stdout
    # Filters and groups are computed from the rows, so they may change without another request.
    systems = {entry["name"]: (entry["row"].get("metadata") or {}).get("os") for entry in ansible.sandbox.fleet()}
    assert filtered["_meta"]["hostvars"].keys() == {name for name, system in systems.items() if system == "linux"}
    assert [path.name.startswith("fleet_") for path in _files(ansible)] == [True]


@pytest.mark.covers("letta", "cache")
def test_nothing_is_cached_by_default(ansible: Ansible, cached: dict[str, Any]) -> None:
    ansible.hosts(**cached | {"cache": False})
    ansible.hosts(**cached | {"cache": False})

    assert len(ansible.sandbox.requests("list")) == 2
    assert _files(ansible) == []


@pytest.mark.covers("letta", "cache_timeout")
def test_the_cache_is_used_only_for_its_timeout(ansible: Ansible, cached: dict[str, Any]) -> None:
    ansible.hosts(**cached, cache_timeout=1)
    time.sleep(1.2)
    ansible.hosts(**cached, cache_timeout=1)

    assert len(ansible.sandbox.requests("list")) == 2


def test_blank_environment_variables_of_the_cache_count_as_unset(ansible: Ansible) -> None:
    """The cache is set up in ansible.cfg, and a scheduler leaves its variables empty."""
    config = (CHECKOUT / "ansible.cfg").read_text()
    ours = "\n".join(["cache = true", "cache_plugin = jsonfile", f"cache_connection = {ansible.directory}/cache"])
    path = ansible.file("ansible.cfg", config.replace("[inventory]\n", f"[inventory]\n{ours}\n"))
    names = ("CACHE", "CACHE_PLUGIN", "CACHE_CONNECTION", "CACHE_TIMEOUT", "CACHE_PLUGIN_PREFIX", "USE_EXTRA_VARS")
    env = {"ANSIBLE_CONFIG": str(path), **{f"ANSIBLE_INVENTORY_{name}": "" for name in names}}

    first = ansible.listing(env=env)
    second = ansible.listing(env=env)

    assert len(ansible.sandbox.requests("list")) == 1
    assert _files(ansible)
    assert second == first


def test_no_file_of_the_cache_holds_the_key(ansible: Ansible, cached: dict[str, Any]) -> None:
    # A server that repeats the key in a row must not get it into the cache.
    entry = ansible.sandbox.fleet()[0]
    ansible.sandbox.patch(entry["id"], metadata={"gitBranch": f"x {ansible.sandbox.api_key} y"})

    host = ansible.hosts(**cached)[entry["name"]]

    assert ansible.sandbox.api_key not in json.dumps(host)
    assert _files(ansible)
    for path in _files(ansible):
        assert ansible.sandbox.api_key not in path.read_text()
        assert ansible.sandbox.api_key not in str(path)


def test_flush_cache_or_another_url_query_or_key_does_not_use_the_cache(
    ansible: Ansible, cached: dict[str, Any], other_sandbox: Sandbox
) -> None:
    whole = ansible.hosts(**cached)
    remote = ansible.hosts(source=ansible.source(**cached, source="remote"))
    online = ansible.hosts(**cached, online_only=True)
    other = ansible.hosts(**cached, base_url=other_sandbox.url)
    refused = ansible.inventory("--list", source=ansible.source(**cached), env={"LETTA_API_KEY": FORBIDDEN})
    ansible.sandbox.clear_requests()
    added = ansible.sandbox.add_environment()
    flushed = ansible.inventory("--list", "--flush-cache", source=ansible.source(**cached))
    after = ansible.hosts(**cached)

    assert len(remote) < len(whole)
    assert len(online) < len(whole)
    assert other.keys() == {entry["name"] for entry in other_sandbox.fleet()}
    refused.assert_inventory_error("403", "api_key")
    flushed.assert_quiet()
    hosts = json.loads(flushed.stdout)["_meta"]["hostvars"]
    assert hosts.keys() == {*whole, added["connectionName"]}
    # The run after it reads what the flushing run wrote.
    assert after.keys() == hosts.keys()
    assert len(ansible.sandbox.requests("list")) == 1


def test_the_online_state_is_that_of_the_time_of_the_listing(ansible: Ansible, cached: dict[str, Any]) -> None:
    entry = next(entry for entry in ansible.sandbox.fleet() if entry["online"])
    start = time.monotonic()
    ansible.sandbox.age(entry["id"], 114)

    fresh = ansible.hosts(**cached, online_only=True)
    time.sleep(max(0.0, start + 6.5 - time.monotonic()))
    kept = ansible.hosts(**cached, online_only=True)
    listed = ansible.hosts(online_only=True)

    assert fresh[entry["name"]]["letta_online"] is True
    assert kept == fresh
    assert entry["name"] not in listed


def _payload(value: Any) -> str:
    return json.dumps({"__payload__": json.dumps(value)})


CORRUPT = {
    "empty": "",
    "another cache's list": "[]",
    "a list": _payload(["spruce"]),
    "a text": _payload("spruce"),
    "no rows": _payload({"rows": 7, "fetched_at": "2026-01-01T00:00:00Z"}),
    "a moment that is none": _payload({"rows": [{"id": "x"}], "fetched_at": "soon"}),
    "another plugin's inventory": _payload({"hosts": {"a": {}}, "_meta": {}}),
    "a text that is no JSON": _payload("{"),
    "a text of a list": _payload("[]"),
    "a text without rows": _payload('{"fetched_at": "2026-01-01T00:00:00Z"}'),
    "a text without a moment": _payload('{"rows": []}'),
    "a text with another moment": _payload('{"rows": [], "fetched_at": 7}'),
    "a text with a moment that UTC does not have": _payload('{"rows": [], "fetched_at": "9999-12-31T23:59:59-23:00"}'),
    "a text with rows that are none": _payload('{"rows": "spruce", "fetched_at": "2026-01-01T00:00:00Z"}'),
    "a text nested beyond what Python reads": _payload("[" * 100_000 + "]" * 100_000),
    "a file nested beyond what Python reads": "[" * 100_000 + "]" * 100_000,
}


def _nested(whole: str, depth: int) -> str:
    """An entry whose first row has metadata nested so deep."""
    entry = json.loads(json.loads(json.loads(whole)["__payload__"]))
    for _level in range(depth):
        entry["rows"][0]["metadata"] = {"deeper": entry["rows"][0]["metadata"]}
    return _payload(json.dumps(entry))


def test_a_corrupt_or_foreign_entry_counts_as_absent(ansible: Ansible, cached: dict[str, Any]) -> None:
    """One source for each kind of damage, all in one process: each of them has to ask the API again."""
    depths = (100, 300, 600, 900)
    count = len(CORRUPT) + 2 + len(depths)
    sources = [{**cached, "hostname_prefix": f"{number or ''}"} for number in range(count)]
    assert ansible.sources(sources).returncode == 0
    files = _files(ansible)
    whole = files[0].read_text()
    # A time without a zone cannot be compared with one that has a zone.
    naive = re.sub(r"(fetched_at\W+[\d:.T-]+)Z", r"\1", whole)
    assert naive != whole
    deep = [_nested(whole, depth) for depth in depths]
    for file, text in zip(files, [whole[: len(whole) // 2], naive, *deep, *CORRUPT.values()], strict=True):
        file.write_text(text)
    ansible.sandbox.clear_requests()

    run = ansible.sources(sources)

    assert run.returncode == 0, run.output
    assert {entry["name"] for entry in ansible.sandbox.fleet()} <= json.loads(run.stdout)["_meta"]["hostvars"].keys()
    assert len(ansible.sandbox.requests("list")) == len(sources)
    assert run.stderr.count("[WARNING]: the cache entry ") == len(sources)
    assert "Traceback" not in run.output
