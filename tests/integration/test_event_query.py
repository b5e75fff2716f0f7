"""extensions/audit/event_query.yml: AWX applies it with jq to each result, to find the nodes of the task."""

from __future__ import annotations

import re
from typing import Any

import jq
import yaml

from .conftest import AGENT, CHECKOUT, Ansible, awake, step

QUERIES: dict[str, dict[str, str]] = yaml.safe_load((CHECKOUT / "extensions/audit/event_query.yml").read_text())


def nodes(module: str, result: dict[str, Any]) -> list[Any]:
    """The nodes that AWX finds in a task's result: see save_indirect_host_entries in its tasks/host_indirect.py."""
    found: list[Any] = jq.compile(QUERIES[f"fleetops.environments.{module}"]["query"]).input(result).all()
    return found


def test_every_environment_that_a_task_worked_with_is_a_node(ansible: Ansible) -> None:
    entries = awake(ansible.sandbox)[:2]
    names = [entry["name"] for entry in entries]
    wanted = [
        {
            "name": entry["name"],
            "canonical_facts": {"environment_id": entry["id"]},
            "facts": {"device_type": "Agent environment"},
        }
        for entry in entries
    ]

    for_all = ansible.steps(
        step("sent", "send_message", targets=names, content="hello", agent_id=AGENT),
        step("steady", "wait_for_environment", targets=names, wait_timeout=5),
        step("refused", "send_message", targets=names),
    )
    for_each = ansible.steps(step("sent", "send_message", content="hello", agent_id=AGENT), hosts=",".join(names))

    assert nodes("send_message", for_all.result("sent")) == wanted
    assert nodes("wait_for_environment", for_all.result("steady")) == wanted
    assert nodes("send_message", for_all.result("refused")) == []
    assert [nodes("send_message", for_each.result("sent", name)) for name in names] == [[node] for node in wanted]


def test_each_module_that_works_with_environments_has_a_query() -> None:
    working = {
        path.stem
        for path in (CHECKOUT / "plugins/action").glob("*.py")
        if re.search(r"\((Targets|Everywhere)Action\)", path.read_text(encoding="utf-8"))
    }
    # This module only reads.
    working.remove("approval_info")
    assert QUERIES.keys() == {f"fleetops.environments.{module}" for module in working}
