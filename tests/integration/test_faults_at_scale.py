"""A campaign to a thousand devices whose connections have all changed, while a quarter of all requests fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.process import Sandbox

from .conftest import AGENT, Ansible

TARGETS = 1000
# No request fails in the last run.
RUNS = 4

# Every way in which the sandbox lets a request fail, all equally often.
ANYWHERE: list[dict[str, Any]] = [
    {"fault": "status", "status": 408, "body": "error_envelope"},
    {"fault": "status", "status": 429, "retry_after": 0},
    {"fault": "status", "status": 500, "retry_after": 0},
    {"fault": "status", "status": 500, "accepted": True, "body": "html"},
    {"fault": "status", "status": 502, "body": "html"},
    {"fault": "status", "status": 503, "body": "empty"},
    {"fault": "status", "status": 504, "accepted": True, "body": "empty"},
    {"fault": "html_200"},
    {"fault": "html_200", "accepted": True},
    {"fault": "not_json"},
    {"fault": "truncated_json"},
    {"fault": "redirect"},
    {"fault": "redirect", "status": 303, "accepted": True},
    {"fault": "slow", "seconds": 3},
    {"fault": "slow", "seconds": 3, "accepted": False},
    {"fault": "drop_before"},
    {"fault": "drop_before", "reset": True},
    {"fault": "drop_during"},
    {"fault": "drop_during", "reset": True},
    {"fault": "drop_after"},
    {"fault": "drop_after", "reset": True},
]
# Faults for messages only, or for listings only.
MESSAGES: list[dict[str, Any]] = [
    {"fault": "status", "status": 400},
    {"fault": "status", "status": 404},
    {"fault": "success_false"},
]
LISTINGS: list[dict[str, Any]] = [
    {"fault": name}
    for name in ("repeat_cursor", "no_has_next_page", "no_connections", "next_page_after_empty", "invalid_rows", "nan")
]
# These faults delay all requests for a second, so there are only a few.
PAUSES: list[dict[str, Any]] = [
    {"fault": "status", "status": 429, "retry_after": 1, "times": 1, "nth": 150, "route": "messages"},
    {"fault": "status", "status": 503, "retry_after_date": 1, "times": 1, "nth": 600, "route": "messages"},
]
SHARE = 0.25


@pytest.fixture(scope="module")
def fleet() -> Iterator[Sandbox]:
    """A separate sandbox with enough online devices."""
    with Sandbox.start(devices=TARGETS + TARGETS // 2, seed=3) as sandbox:
        yield sandbox


def add_faults(sandbox: Sandbox, *, shared: bool) -> None:
    """Let a share of the requests on each route fail, with all faults of the route equally often."""
    for rule in PAUSES:
        sandbox.add_fault(**rule)
    add_share(sandbox, "messages", [*ANYWHERE, *MESSAGES], SHARE)
    add_share(sandbox, "retrieve", ANYWHERE, SHARE)
    add_share(sandbox, "history", ANYWHERE, SHARE)
    add_share(sandbox, "conversations", ANYWHERE, SHARE)
    # A listing is complete or fails; with a quarter of many pages failing, hardly any listing would succeed.
    add_share(sandbox, "list", [*ANYWHERE, *LISTINGS], SHARE / 5)
    add_share(sandbox, "conversation_list", ANYWHERE, SHARE / 5 if shared else SHARE)


def add_share(sandbox: Sandbox, route: str, rules: list[dict[str, Any]], share: float) -> None:
    each = 1 - (1 - share) ** (1 / len(rules))
    for number, rule in enumerate(rules):
        sandbox.add_fault(**rule, route=route, share=each, seed=number)


def listed_once(ansible: Ansible, *, shared: bool, count: int = TARGETS) -> dict[str, dict[str, Any]]:
    """As many online hosts as requested, as an inventory has them: what an action needs, and one agent, or one each."""
    of_hosts = ansible.listing()["_meta"]["hostvars"]
    online = [name for name, variables in of_hosts.items() if variables["letta_online"]][:count]
    assert len(online) == count
    return {
        name: {
            "fleetops_environment": of_hosts[name]["fleetops_environment"],
            "letta_agent_id": AGENT if shared else f"agent-{of_hosts[name]['letta_id']}",
        }
        for name in online
    }


@pytest.mark.parametrize("shared", [False, True], ids=["own agents", "one agent"])
def test_each_of_a_thousand_devices_has_one_turn_whatever_fails(tmp_path: Path, fleet: Sandbox, shared: bool) -> None:
    fleet.reset()
    ansible = Ansible(tmp_path, fleet)
    hosts = listed_once(ansible, shared=shared)
    source = ansible.file("static.yaml", json.dumps({"all": {"hosts": hosts}}))
    send = {"content": "hello", "campaign": "c", "ledger": "ledger.sqlite", "targets": "{{ groups['all'] }}"}
    patience = {"timeout": 1, "retries": 2, "max_failures": "100%", "concurrency": 100}
    add_faults(fleet, shared=shared)

    rules: list[dict[str, Any]] = []
    for run in range(1, RUNS + 1):
        # No device has the connection that was listed, and no device knows which messages it received.
        fleet.restart()
        if run == RUNS:
            rules = fleet.faults()
            fleet.clear_faults()
        counts = ansible.task("send_message", source=source, **send, **patience).result("it")["counts"]

    assert counts["sent"] + counts["already_sent"] == TARGETS
    turns = {environment_id: received["turns"] for environment_id, received in fleet.received().items()}
    assert turns == {variables["fleetops_environment"]["id"]: 1 for variables in hosts.values()}
    # There are fewer requests on the other routes than rules.
    often = {"messages", "retrieve", *(["conversations"] if shared else ["history", "conversation_list"])}
    assert [rule for rule in rules if not rule["fired"] and rule["route"] in often] == []
    log = [entry for entry in fleet.requests() if entry["route"] != "list"]
    assert sum(entry["fault"] is not None for entry in log) > len(log) / 5
