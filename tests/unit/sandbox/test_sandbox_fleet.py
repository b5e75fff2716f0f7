"""The simulated fleet: what is in it, and what a test can do to it."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest
from letta_client import APITimeoutError, Letta

from tests.sandbox.process import Sandbox
from tests.sandbox.seeded import seeded_fleet

TIMES = {"connectedAt", "firstSeenAt", "lastHeartbeat", "lastSeenAt"}


def drop_times(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in TIMES}


def rows(devices: int, seed: int) -> list[dict[str, Any]]:
    return [drop_times(environment.row) for environment in seeded_fleet(devices, seed)]


def metadata(entry: dict[str, Any]) -> dict[str, Any]:
    value: dict[str, Any] = entry["row"].get("metadata", {})
    return value


class TestSeededFleet:
    def test_same_size_and_seed_same_fleet(self) -> None:
        assert rows(60, 3) == rows(60, 3)
        assert rows(60, 3)[:20] == rows(19, 3)[:20]
        assert {row["id"] for row in rows(20, 3)}.isdisjoint(row["id"] for row in rows(20, 4))

    def test_two_processes_agree(self, sandbox: Sandbox) -> None:
        assert [drop_times(entry["row"]) for entry in sandbox.fleet()] == rows(40, 7)

    def test_reset_restores_the_fleet(self, sandbox: Sandbox) -> None:
        before = [drop_times(entry["row"]) for entry in sandbox.fleet()]
        sandbox.rotate(before[0]["id"])
        sandbox.remove(before[1]["id"])
        sandbox.patch(before[2]["id"], metadata={"self_update": {"supported": False}, "supported_commands": []})

        sandbox.reset()

        assert [drop_times(entry["row"]) for entry in sandbox.fleet()] == before

    def test_ids_are_unique(self) -> None:
        fleet = rows(500, 1)

        for key in ("id", "listenerInstanceId", "connectionName"):
            assert max(Counter(row[key] for row in fleet).values()) == 1

    def test_twenty_devices_include_every_case(self) -> None:
        now = time.time()
        fleet: list[dict[str, Any]] = [
            {"online": environment.online(now), "source": environment.source, "row": environment.wire(now)}
            for environment in seeded_fleet(20, 1)
        ]

        to_update = [
            entry
            for entry in fleet
            if entry["online"]
            and entry["row"].get("currentMode") == "standard"
            and metadata(entry).get("os") == "linux"
            and metadata(entry).get("lettaCodeVersion", "").startswith("0.33.")
        ]
        assert len(to_update) == 4
        assert sum(entry["row"]["connectionId"] is None for entry in fleet) == 3
        assert sum(entry["row"]["connectionId"] is not None and not entry["online"] for entry in fleet) == 1
        assert max(Counter(entry["row"]["deviceId"] for entry in fleet).values()) == 2
        modes = {entry["row"].get("currentMode") for entry in fleet}
        assert modes == {"default", "standard", "acceptEdits", "bypassPermissions", "unrestricted", "plan", None}
        assert {metadata(entry).get("os") for entry in fleet} == {"linux", "darwin", "win32", None}
        versions = {metadata(entry).get("lettaCodeVersion") for entry in fleet}
        assert versions >= {"0.33.9", "0.34.2", "0.34.12", "0.35.0-rc.1", None}
        supported = {metadata(entry).get("self_update", {}).get("supported") for entry in fleet}
        assert supported == {True, False, None}
        assert {entry["source"] for entry in fleet} == {"local", "remote"}
        assert {"userId" in entry["row"] for entry in fleet} == {True, False}
        assert {"gitBranch" in metadata(entry) for entry in fleet} == {True, False}


class TestChanges:
    @pytest.fixture
    def row(self, sandbox: Sandbox) -> dict[str, Any]:
        return sandbox.add_environment(connectionName="probe")

    def truth(self, sandbox: Sandbox, row: dict[str, Any]) -> dict[str, Any]:
        return next(entry for entry in sandbox.fleet() if entry["id"] == row["id"])

    def test_added(self, sandbox: Sandbox, letta: Letta, row: dict[str, Any]) -> None:
        entry = self.truth(sandbox, row)

        assert (entry["name"], entry["online"]) == ("probe", True)
        assert letta.environments.retrieve(row["deviceId"]).connection_name == "probe"

    def test_hostile_values_are_kept(self, sandbox: Sandbox, letta: Letta) -> None:
        name = "{{ lookup('pipe', 'id') }}\n\u0000../localhost"
        row = sandbox.add_environment(id="e/1 ?", connectionName=name, currentMode=["x"], metadata=None)
        assert sandbox.patch("e/1 ?", extra={"deep": 1})["extra"] == {"deep": 1}

        environment = letta.environments.retrieve(row["deviceId"])

        assert (environment.id, environment.connection_name) == ("e/1 ?", name)

    def test_ids_are_unique(self, sandbox: Sandbox, row: dict[str, Any]) -> None:
        with pytest.raises(RuntimeError, match="already"):
            sandbox.add_environment(id=row["id"])

    def test_heartbeat_continues_by_itself(self, sandbox: Sandbox, row: dict[str, Any]) -> None:
        last = row["lastHeartbeat"]
        while last == row["lastHeartbeat"]:
            last = self.truth(sandbox, row)["row"]["lastHeartbeat"]

        assert last > row["lastHeartbeat"]

    def test_offline_and_online_again(self, sandbox: Sandbox, row: dict[str, Any]) -> None:
        gone = sandbox.offline(row["id"])
        assert gone["connectionId"] is None
        assert not self.truth(sandbox, row)["online"]
        assert self.truth(sandbox, row)["row"]["lastHeartbeat"] == gone["lastHeartbeat"]

        back = sandbox.online(row["id"])
        assert back["connectionId"] not in (None, row["connectionId"])
        assert self.truth(sandbox, row)["online"]

    def test_age(self, sandbox: Sandbox, row: dict[str, Any]) -> None:
        aged = sandbox.age(row["id"], 7 * 24 * 3600)
        assert aged["connectionId"] == row["connectionId"]
        assert row["lastHeartbeat"] - aged["lastHeartbeat"] > 6 * 24 * 3600_000
        assert not self.truth(sandbox, row)["online"]

        assert sandbox.online(row["id"])["connectionId"] == row["connectionId"]
        assert self.truth(sandbox, row)["online"]

    def test_rotate(self, sandbox: Sandbox, row: dict[str, Any]) -> None:
        rotated = [sandbox.rotate(row["id"]) for _number in range(3)]

        assert {each["id"] for each in rotated} == {row["id"]}
        assert len({row["connectionId"], *(each["connectionId"] for each in rotated)}) == 4

    def test_restart(self, sandbox: Sandbox, row: dict[str, Any]) -> None:
        """Every online device has another connection, and no other device has one."""
        gone = sandbox.offline(sandbox.add_environment()["id"])
        before = {entry["id"]: entry for entry in sandbox.fleet()}

        sandbox.restart()

        for entry in sandbox.fleet():
            same = entry["row"].get("connectionId") == before[entry["id"]]["row"].get("connectionId")
            assert (entry["online"], same) == (before[entry["id"]]["online"], not entry["online"])
        assert self.truth(sandbox, row)["online"]
        assert not self.truth(sandbox, gone)["online"]

    def test_patch(self, sandbox: Sandbox, row: dict[str, Any]) -> None:
        patched = sandbox.patch(
            row["id"],
            lastHeartbeat=None,
            metadata={"os": "plan9", "self_update": {"writable": False}},
            **{"$delete": ["currentMode", "metadata.nodeVersion"], "$source": "remote"},
        )

        assert patched["lastHeartbeat"] is None
        assert "currentMode" not in patched
        assert "nodeVersion" not in patched["metadata"]
        assert patched["metadata"]["os"] == "plan9"
        assert patched["metadata"]["self_update"] == {**row["metadata"]["self_update"], "writable": False}
        assert self.truth(sandbox, row)["source"] == "remote"

    def test_remove(self, sandbox: Sandbox, row: dict[str, Any]) -> None:
        sandbox.remove(row["id"])

        with pytest.raises(RuntimeError, match="404"):
            sandbox.rotate(row["id"])


class TestRequestLog:
    def test_the_log_has_header_names_and_no_key(self, sandbox: Sandbox, letta: Letta) -> None:
        letta.environments.list(limit="3")

        [entry] = sandbox.requests()
        assert entry["authorization"] is True
        assert "authorization" in entry["headers"]
        assert (entry["method"], entry["path"], entry["query"]) == ("GET", "/v1/environments", {"limit": "3"})
        assert (entry["route"], entry["status"], entry["fault"]) == ("list", 200, None)
        assert sandbox.api_key not in str(entry)

    def test_clear(self, sandbox: Sandbox, letta: Letta) -> None:
        letta.environments.list()
        sandbox.clear_requests()

        assert sandbox.requests() == []

    def test_a_request_that_is_still_under_way_does_not_count_after_clear(self, sandbox: Sandbox, letta: Letta) -> None:
        sandbox.add_fault("slow", route="list", seconds=30, times=1)
        with pytest.raises(APITimeoutError):
            letta.with_options(timeout=0.5).environments.list()
        assert sandbox.requests()[0]["fault"] == "slow"
        sandbox.clear_requests()

        letta.environments.list()

        assert [entry["under_way"] for entry in sandbox.requests()] == [1]
