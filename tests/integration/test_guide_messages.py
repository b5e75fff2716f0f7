"""docs/guide/troubleshooting.md: every message that it explains is printed by the collection."""

from __future__ import annotations

import re
from typing import Any

from markdown_it import MarkdownIt

from tests.sandbox.turns import ApprovalTurn, ErrorTurn, LongTurn

from .conftest import AGENT, CHECKOUT, Ansible, awake, step

PAGE = CHECKOUT / "docs/guide/troubleshooting.md"


def _list_explained() -> list[str]:
    """The code in the first column of the page's tables."""
    tokens = MarkdownIt().enable("table").parse(PAGE.read_text(encoding="utf-8"))
    cells = [tokens[at + 2].content for at, token in enumerate(tokens[:-2]) if token.type == "tr_open"]
    return [cell.strip("`") for cell in cells if cell.startswith("`")]


def _once(module: str, **options: Any) -> dict[str, Any]:
    return {**step(module, module, **options), "run_once": True}


def _of_the_inventory(ansible: Ansible) -> str:
    """The errors of inventories that cannot be read, for many reasons."""
    key = {"api_key": ansible.sandbox.api_key}
    sources = [
        {},
        {"api_key": "wrong"},
        {"api_key": "forbidden-key-for-loopback-only"},
        {"api_key": "{{ lookup('ansible.builtin.unvault', 'absent') }}"},
        {**key, "base_url": "http://127.0.0.1:1", "retries": 0},
        {**key, "base_url": ansible.sandbox.url.replace("http:", "https:"), "retries": 0},
        {**key, "filters": ["versoin == '1'"]},
        {**key, "filters": ["mode = 'standard'"]},
        {**key, "page_sise": 10},
        {**key, "filters": ["id == 'none'"], "fail_on_empty": True},
    ]
    return ansible.sources(sources, env={"LETTA_API_KEY": ""}).output


def _of_an_empty_pattern(ansible: Ansible) -> str:
    return ansible.playbook("fleetops.environments.instruct", "-e", "instruct_hosts=mode_nosuch").output


def _of_tasks(ansible: Ansible) -> str:
    """The errors of tasks that are refused or fail, for many reasons."""
    sandbox = ansible.sandbox
    one, two, busy = (entry["name"] for entry in awake(sandbox)[:3])
    offline = next(entry["name"] for entry in sandbox.fleet() if not entry["online"])
    dropped, throttled = (entry["id"] for entry in awake(sandbox)[:2])
    sandbox.add_fault("drop_after", route="messages", target=dropped, times=1)
    sandbox.add_fault("status", route="messages", target=throttled, status=429, retry_after=3600, times=1)
    sandbox.script("agent-asking", then=ApprovalTurn())
    sandbox.script("agent-busy", then=LongTurn(seconds=600))
    sandbox.script("agent-broken", then=ErrorTurn(message="no credit"))
    sandbox.remove_agent("agent-gone")
    for provider in ("letta", "qoder"):
        ansible.file(f"fleet/fleet.{provider}.yml", f"plugin: fleetops.environments.{provider}\n")
    sent: dict[str, Any] = {"content": "Report.", "agent_id": AGENT, "retries": 0}
    campaign = {**sent, "campaign": "report", "ledger": "ledger.sqlite"}
    asked = {"content": "Report.", "wait_for_reply": True}
    impatient = {**asked, "agent_id": "agent-busy", "reply_timeout": 1}
    planned = {"name": "rollout", "targets": [one], "ledger": "ledger.sqlite"}
    tasks = [
        _once("send_message", targets=[one, two], max_targets=1, **sent),
        step("send_message", "send_message", targets=[one], **sent),
        _once("send_message", targets=["localhost"], **sent),
        _once("send_message", targets=[one], **asked),
        _once("send_message", targets=[one], content_file="absent.txt"),
        _once("send_message", targets=[one], **sent),
        _once("send_message", targets=[two], **sent),
        _once("send_message", targets=[offline], when_offline="fail", **sent),
        _once("send_message", targets=[busy], **campaign),
        _once("send_message", targets=[busy], **{**campaign, "content": "Something else."}),
        _once("campaign_control", campaign="report", ledger="ledger.sqlite", state="paused"),
        {**_once("send_message", targets=[two], **campaign), "register": "paused"},
        {"ansible.builtin.debug": {"var": "paused.targets[0].reason"}, "run_once": True},
        _once("send_message", targets=[one], **{**campaign, "ledger": "play.yml"}),
        _once("rollout", version="0.40.0", **planned),
        _once("rollout", version="0.41.0", **planned),
        _once("self_update", targets=[two], target_version="0.40.0", method="command"),
        _once("environment_command", targets=[one], command="dance"),
        _once("environment_turn", targets="{{ groups['qoder'][:1] }}", state="aborted", agent_id=AGENT),
        _once("send_message", targets=[one], agent_id="agent-asking", **asked),
        _once("send_message", targets=[one], agent_id="agent-broken", **asked),
        _once("send_message", targets=[one], agent_id="agent-gone", **asked),
        _once("send_message", targets=[busy], **impatient),
        _once("send_message", targets=[busy], **impatient),
        {"ansible.builtin.ping": {}, "run_once": True, "ignore_unreachable": True},
    ]
    return ansible.steps(*tasks, hosts="letta", source=ansible.directory / "fleet").output


def test_every_explained_message_is_printed(ansible: Ansible) -> None:
    printed = "".join(run(ansible) for run in (_of_the_inventory, _of_an_empty_pattern, _of_tasks))
    explained = {message: ".*".join(map(re.escape, message.split("..."))) for message in _list_explained()}

    assert len(explained) > 20
    assert [message for message, pattern in explained.items() if not re.search(pattern, printed)] == [], printed
