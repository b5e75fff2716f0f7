"""Environments of Qoder as both generations of its API list them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.sandbox.process import Sandbox

from .qoder import active, error, list_ids

BAD_REQUEST = (400, "invalid_request_error")


@pytest.fixture(params=["seed", "new"])
def generation(request: pytest.FixtureRequest, sandbox: Sandbox) -> str:
    name: str = request.param
    sandbox.settings(qoder_generation=name)
    return name


@pytest.fixture
def seed_api(sandbox: Sandbox, qoder: httpx.Client) -> httpx.Client:
    sandbox.settings(qoder_generation="seed")
    return qoder


class TestBothGenerations:
    @pytest.mark.parametrize("limit", [1, 3, 100])
    def test_pages_hold_every_environment_once_with_the_newest_first(
        self, sandbox: Sandbox, qoder: httpx.Client, generation: str, limit: int
    ) -> None:
        ids = list_ids(qoder, limit=limit)

        assert ids == active(sandbox)
        assert ids == sorted(ids, reverse=True)
        assert len(sandbox.requests("qoder_list")) == -(-len(ids) // limit)

    def test_archived_ones_are_listed_when_asked_for(
        self, sandbox: Sandbox, qoder: httpx.Client, generation: str
    ) -> None:
        everything = [entry["id"] for entry in reversed(sandbox.qoder.environments())]

        assert list_ids(qoder, include_archived="true", limit=4) == everything
        assert list_ids(qoder, include_archived="false") == active(sandbox)
        assert len(everything) - len(active(sandbox)) == (4 if generation == "seed" else 5)

    def test_default_limit_and_the_ids_of_a_page(self, sandbox: Sandbox, qoder: httpx.Client, generation: str) -> None:
        for _number in range(20):
            sandbox.qoder.add_environment()

        page = qoder.get("/environments").json()

        assert len(page["data"]) == 20
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
        assert page["has_more"] is True

    def test_empty_page(self, sandbox: Sandbox, qoder: httpx.Client, generation: str) -> None:
        page = qoder.get("/environments", params={"created_at[gte]": "2050-01-01T00:00:00Z"}).json()

        page.pop("next_page", None)
        assert page == {"data": [], "first_id": None, "last_id": None, "has_more": False}

    def test_before_id_walks_back(self, sandbox: Sandbox, qoder: httpx.Client, generation: str) -> None:
        whole = active(sandbox)
        page = qoder.get("/environments", params={"before_id": whole[5], "limit": 3}).json()

        assert [row["id"] for row in page["data"]] == whole[2:5]
        assert page["has_more"] is True
        cursor = {"page": page["next_page"]} if generation == "new" else {"before_id": page["first_id"]}
        rest = qoder.get("/environments", params={**cursor, "limit": 3}).json()
        assert [row["id"] for row in rest["data"]] == whole[:2]
        assert rest["has_more"] is False

    def test_a_cursor_outlives_its_environment(self, sandbox: Sandbox, qoder: httpx.Client, generation: str) -> None:
        whole = active(sandbox)
        sandbox.qoder.remove(whole[3])

        page = qoder.get("/environments", params={"after_id": whole[3], "limit": 2}).json()

        assert [row["id"] for row in page["data"]] == whole[4:6]

    def test_created_at(self, sandbox: Sandbox, qoder: httpx.Client, generation: str) -> None:
        times = [e["row"]["created_at"] for e in sandbox.qoder.environments() if "created_at" in e["row"]]
        since, until = times[3], times[9].replace("Z", "+00:00")

        ids = list_ids(qoder, include_archived="true", **{"created_at[gte]": since, "created_at[lte]": until})

        expected = {e["id"] for e in sandbox.qoder.environments() if e["row"].get("created_at") in times[3:10]}
        assert set(ids) == expected
        assert len(expected) == 7

    @pytest.mark.parametrize(
        "moment",
        [
            "2026-01-05t08:00:00z",
            "2026-01-05 10:00:00+02:00",
            "2016-12-31T23:59:60Z",
            "2026-01-05T08:00:00.123456789-00:00",
        ],
    )
    def test_every_form_of_a_time(self, qoder: httpx.Client, generation: str, moment: str) -> None:
        assert qoder.get("/environments", params={"created_at[gte]": moment}).json()["data"]

    @pytest.mark.parametrize(
        ("query", "param"),
        [
            ("limit=0", "limit"),
            ("limit=-1", "limit"),
            ("limit=ten", "limit"),
            ("limit=", "limit"),
            ("after_id=env_a&before_id=env_b", "before_id"),
            ("after_id=", "after_id"),
            ("created_at[gte]=yesterday", "created_at[gte]"),
            ("created_at[lte]=2026-05-18", "created_at[lte]"),
            ("created_at[lte]=2026-05-18T15:28:07", "created_at[lte]"),
            ("created_at[lte]=2026-13-18T15:28:07Z", "created_at[lte]"),
            ("include_archived=yes", "include_archived"),
        ],
    )
    def test_bad_query(self, qoder: httpx.Client, generation: str, query: str, param: str) -> None:
        assert error(qoder.get(f"/environments?{query}")) == (*BAD_REQUEST, param)

    def test_retrieve(self, sandbox: Sandbox, qoder: httpx.Client, generation: str) -> None:
        entry = sandbox.qoder.environments()[-1]

        assert qoder.get(f"/environments/{entry['id']}").json() == entry["row"]
        assert error(qoder.get("/environments/env_nowhere")) == (404, "not_found_error", None)

    def test_unknown_route(self, qoder: httpx.Client, generation: str) -> None:
        assert error(qoder.delete("/environments")) == (404, "not_found_error", None)


class TestSeedGeneration:
    def test_limit_above_a_hundred_is_capped(self, sandbox: Sandbox, seed_api: httpx.Client) -> None:
        for _number in range(101):
            sandbox.qoder.add_environment()

        assert len(seed_api.get("/environments?limit=5000").json()["data"]) == 100

    def test_page_is_an_unknown_parameter(self, seed_api: httpx.Client) -> None:
        page = seed_api.get("/environments?limit=2").json()

        assert "next_page" not in page
        assert seed_api.get("/environments?limit=2&page=anything").json() == page

    def test_fields(self, sandbox: Sandbox, seed_api: httpx.Client) -> None:
        rows = [entry["row"] for entry in sandbox.qoder.environments()]

        assert {row["config"].get("type") for row in rows if "config" in row} == {"cloud", "edge", None}
        assert all(row.get("config", {}).get("networking", {}).keys() <= {"type"} for row in rows)
        assert all(row.get("config", {}).get("packages", {}).keys() <= {"apt", "pip", "npm"} for row in rows)
        assert {row.get("status") for row in rows} == {"ready", "building", "failed", "archived", None}

    def test_each_form_of_an_archived_environment_occurs_alone(self, sandbox: Sandbox, seed_api: httpx.Client) -> None:
        rows = [entry["row"] for entry in sandbox.qoder.environments() if entry["archived"]]

        ways = {(row["archived_at"] is not None, row["archived"], row["status"]) for row in rows}
        assert ways == {
            (True, True, "archived"),
            (True, False, "ready"),
            (False, True, "ready"),
            (False, False, "archived"),
        }

    def test_the_older_generation_has_no_workers(self, sandbox: Sandbox, seed_api: httpx.Client) -> None:
        assert error(seed_api.get(f"/environments/{active(sandbox)[0]}/work/stats"))[0] == 404


class TestNewGeneration:
    def test_limit_above_a_hundred_is_refused(self, qoder: httpx.Client) -> None:
        assert error(qoder.get("/environments?limit=101")) == (*BAD_REQUEST, "limit")

    @pytest.mark.parametrize("other", ["after_id", "before_id"])
    def test_cursors_are_mutually_exclusive(self, qoder: httpx.Client, other: str) -> None:
        page = qoder.get("/environments?limit=2").json()

        response = qoder.get("/environments", params={other: page["last_id"], "page": page["next_page"]})

        assert error(response) == (*BAD_REQUEST, "page")

    @pytest.mark.parametrize("page", ["", "env_1", "page_", "page_%25%25", "page_PmVudl8="])
    def test_a_made_up_cursor(self, qoder: httpx.Client, page: str) -> None:
        assert error(qoder.get(f"/environments?page={page}")) == (*BAD_REQUEST, "page")

    def test_next_page_is_null_at_the_end(self, qoder: httpx.Client) -> None:
        assert qoder.get("/environments?limit=100").json()["next_page"] is None

    def test_fields(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        rows = [entry["row"] for entry in sandbox.qoder.environments()]
        configs: list[dict[str, Any]] = [row["config"] for row in rows if "config" in row]

        assert not any({"status", "archived"} & row.keys() for row in rows)
        assert {config.get("type") for config in configs} == {"cloud", "self_hosted", "edge", None}
        networking = [config["networking"] for config in configs if "networking" in config]
        assert {each["type"] for each in networking} == {"limited", "unrestricted", "mesh"}
        limited = next(each for each in networking if each["type"] == "limited")
        assert limited.keys() == {"type", "allowed_hosts", "allow_package_managers", "allow_mcp_servers"}
        packages = max((config["packages"] for config in configs if "packages" in config), key=len)
        assert packages.keys() == {"type", "apt", "pip", "npm", "cargo", "gem", "go"}
        assert packages["type"] == "packages"

    def test_every_optional_key_is_missing_somewhere(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        rows = [entry["row"] for entry in sandbox.qoder.environments()]

        keys = set().union(*rows)
        assert {key for key in keys if any(key not in row for row in rows)} == keys - {"id"}

    def test_names_are_not_unique(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        for _number in range(2):
            sandbox.qoder.add_environment(name="twin")

        names = [entry["row"].get("name") for entry in sandbox.qoder.environments()]
        assert names.count("twin") == 2

    def test_workers_of_a_self_hosted_environment(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        row = sandbox.qoder.add_environment(config={"type": "self_hosted"}, **{"$workers": 3})

        assert qoder.get(f"/environments/{row['id']}/work/stats").json() == {
            "type": "work_queue_stats",
            "depth": 0,
            "pending": 0,
            "oldest_queued_at": None,
            "workers_polling": 3,
        }
        cloud = sandbox.qoder.add_environment()["id"]
        assert error(qoder.get(f"/environments/{cloud}/work/stats"))[:2] == BAD_REQUEST
        assert error(qoder.get("/environments/env_nowhere/work/stats"))[0] == 404


class TestAccounts:
    @pytest.mark.parametrize(
        "headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic Zm9v"}, {"x-api-key": "wrong"}]
    )
    def test_only_a_bearer_token_opens(self, sandbox: Sandbox, headers: dict[str, str]) -> None:
        response = httpx.get(f"{sandbox.qoder.url}/environments", headers=headers, trust_env=False)

        assert error(response) == (401, "authentication_error", None)
        assert sandbox.requests()[-1]["account"] is None

    def test_keys_of_one_provider_do_not_open_the_other(self, sandbox: Sandbox) -> None:
        for url, key in [(sandbox.qoder.url, sandbox.api_key), (f"{sandbox.url}/v1", sandbox.qoder.key)]:
            headers = {"Authorization": f"Bearer {key}"}
            assert httpx.get(f"{url}/environments", headers=headers, trust_env=False).status_code == 401

    def test_each_account_sees_its_own(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        sandbox.qoder.account("second", "key-of-the-second", environments=3, seed=99)

        second = {"Authorization": "Bearer key-of-the-second"}
        rows = qoder.get("/environments", headers=second).json()["data"]

        assert {row["id"] for row in rows} == {entry["id"] for entry in sandbox.qoder.environments("second")}
        assert {row["id"] for row in rows}.isdisjoint(list_ids(qoder))
        assert error(qoder.get(f"/environments/{active(sandbox)[0]}", headers=second))[0] == 404
        assert {entry["account"] for entry in sandbox.requests("qoder_list")} == {"default", "second"}
        assert "key-of-the-second" not in str(sandbox.requests())

    def test_forbidden(self, sandbox: Sandbox, qoder: httpx.Client) -> None:
        sandbox.qoder.account("guest", "key-of-a-guest", forbidden=True)

        response = qoder.get("/environments", headers={"Authorization": "Bearer key-of-a-guest"})

        assert error(response) == (403, "permission_error", None)

    def test_a_key_belongs_to_one_account(self, sandbox: Sandbox) -> None:
        with pytest.raises(RuntimeError, match="another account"):
            sandbox.qoder.account("second", sandbox.qoder.key)
