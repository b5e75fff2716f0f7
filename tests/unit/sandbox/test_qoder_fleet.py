"""Qoder's seeded environments, and what a test can do to them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sandbox.process import Sandbox
from tests.sandbox.qoder_pages import Generation
from tests.sandbox.qoder_seeded import HOSTILE, seeded_environments

from .qoder import active, error, list_ids

GENERATIONS: tuple[Generation, ...] = ("seed", "new")
SEEDS = st.integers(0, 2**32)


def rows(count: int, seed: int, *, hostile: bool = False) -> list[dict[str, Any]]:
    environments = seeded_environments(count, seed, hostile=hostile)
    return [environment.wire(generation) for environment in environments for generation in GENERATIONS]


class TestSeededEnvironments:
    @given(seed=SEEDS, count=st.integers(0, 50), hostile=st.booleans())
    def test_same_size_and_seed_same_rows(self, seed: int, count: int, hostile: bool) -> None:
        fleet = rows(count, seed, hostile=hostile)

        assert rows(count, seed, hostile=hostile) == fleet
        assert rows(count // 2, seed, hostile=hostile) == fleet[: count // 2 * 2]

    @given(seed=SEEDS)
    def test_ids_are_unique_and_sort_by_age(self, seed: int) -> None:
        fleet = [environment.row for environment in seeded_environments(60, seed)]

        ids = [row["id"] for row in fleet]
        assert ids == sorted(set(ids))
        times = [row["created_at"] for row in fleet if "created_at" in row]
        assert times == sorted(times)
        assert all(len(id_) == 36 for id_ in ids)

    @given(seed=SEEDS)
    def test_another_seed_is_another_fleet(self, seed: int) -> None:
        ids = {row["id"] for row in rows(20, seed)}

        assert ids.isdisjoint(row["id"] for row in rows(20, seed + 1))

    def test_hostile_values_of_every_kind_occur(self) -> None:
        plain, hostile = (seeded_environments(300, 1, hostile=each) for each in (False, True))

        changed = Counter(key for environment in hostile for changes in environment.changes for key in changes)
        assert changed.keys() == HOSTILE.keys()
        assert [environment.id for environment in plain] == [environment.id for environment in hostile]

    def test_two_processes_agree(self, sandbox: Sandbox) -> None:
        expected = [environment.wire("new") for environment in seeded_environments(20, 7)]
        assert [entry["row"] for entry in sandbox.qoder.environments()] == expected

    def test_a_hostile_fleet_is_listed(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        sandbox.qoder.account("default", sandbox.qoder.key, environments=40, seed=5, hostile=True)

        for generation in GENERATIONS:
            sandbox.settings(qoder_generation=generation)
            assert list_ids(qoder, limit=7) == active(sandbox)


class TestChanges:
    @pytest.fixture
    def row(self, sandbox: Sandbox) -> dict[str, Any]:
        return sandbox.qoder.add_environment(name="probe")

    def test_added_is_the_newest(self, sandbox: Sandbox, qoder: httpx.Client, row: dict[str, Any]) -> None:
        assert row["name"] == "probe"
        assert list_ids(qoder)[0] == row["id"]

    def test_ids_are_unique_and_stable(self, sandbox: Sandbox, row: dict[str, Any]) -> None:
        with pytest.raises(RuntimeError, match="already"):
            sandbox.qoder.add_environment(id=row["id"])
        with pytest.raises(RuntimeError, match="never changes"):
            sandbox.qoder.patch(row["id"], id="env_other")

    def test_both_generations_show_a_patch_unchanged(
        self, sandbox: Sandbox, qoder: httpx.Client, row: dict[str, Any]
    ) -> None:
        changes: dict[str, Any] = {"name": "{{ x }}", "status": 5, "config": {"networking": ["a"]}, "extra": {"n": 1}}
        sandbox.qoder.patch(row["id"], **changes, **{"$delete": ["config.packages", "metadata"]})

        for generation in GENERATIONS:
            sandbox.settings(qoder_generation=generation)
            shown = qoder.get(f"/environments/{row['id']}").json()
            assert (shown["name"], shown["status"], shown["extra"]) == ("{{ x }}", 5, {"n": 1})
            assert shown["config"] == {"type": "cloud", "networking": ["a"]}
            assert "metadata" not in shown

    @pytest.mark.parametrize("marker", [{"archived": True}, {"status": "archived"}, {"archived_at": "2026-05-18"}])
    def test_archived_by_hand(
        self, sandbox: Sandbox, qoder: httpx.Client, row: dict[str, Any], marker: dict[str, Any]
    ) -> None:
        sandbox.qoder.patch(row["id"], **marker)

        assert row["id"] not in list_ids(qoder)
        assert row["id"] in list_ids(qoder, include_archived="true")

    def test_remove(self, sandbox: Sandbox, qoder: httpx.Client, row: dict[str, Any]) -> None:
        sandbox.qoder.remove(row["id"])

        assert error(qoder.get(f"/environments/{row['id']}"))[0] == 404
        with pytest.raises(RuntimeError, match="404"):
            sandbox.qoder.remove(row["id"])

    def test_any_id(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        sandbox.qoder.add_environment(id="e/1 ?", name="odd")

        assert qoder.get("/environments/e%2F1%20%3F").json()["name"] == "odd"

    def test_reset(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        before = sandbox.qoder.environments()
        added = sandbox.qoder.add_environment()
        sandbox.qoder.account("second", "key")
        sandbox.settings(qoder_generation="seed")

        sandbox.reset()

        assert sandbox.qoder.environments() == before
        assert sandbox.qoder.add_environment() == added
        with pytest.raises(RuntimeError, match="no account"):
            sandbox.qoder.environments("second")


def test_the_initial_environments_of_a_process() -> None:
    with Sandbox.start(devices=0, qoder_environments=3, qoder_generation="seed", qoder_key="another-key") as sandbox:
        headers = {"Authorization": "Bearer another-key"}
        page = httpx.get(f"{sandbox.qoder.url}/environments", headers=headers, trust_env=False).json()

    assert (sandbox.qoder.key, len(page["data"])) == ("another-key", 3)
    assert "status" in page["data"][0]
