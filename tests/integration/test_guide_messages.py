"""docs/guide/troubleshooting.md: every message that it explains is printed by the collection."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
from markdown_it import MarkdownIt
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.sandbox.process import Sandbox
from tests.sandbox.turns import ApprovalTurn, ErrorTurn, LongTurn
from tests.unit.sandbox.devices import device, send

from .conftest import AGENT, CHECKOUT, Ansible, awake, step

PAGE = CHECKOUT / "docs/guide/troubleshooting.md"


def _list_explained() -> list[str]:
    """The code in the first column of the page's tables."""
    tokens = MarkdownIt().enable("table").parse(PAGE.read_text(encoding="utf-8"))
    cells = [tokens[at + 2].content for at, token in enumerate(tokens[:-2]) if token.type == "tr_open"]
    return [cell.strip("`") for cell in cells if cell.startswith("`")]


def _once(module: str, **options: Any) -> dict[str, Any]:
    return {**step(module, module, **options), "run_once": True}


class _LongAnswer(BaseHTTPRequestHandler):
    """Answers with JSON that is longer than an answer of the API."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        with suppress(ConnectionError):
            for _megabyte in range(40):
                self.wfile.write(b" " * 1024**2)

    def log_message(self, *_said: Any) -> None:
        """Say nothing."""


@contextmanager
def _long_answers() -> Iterator[str]:
    """The URL of a server of long answers."""
    with HTTPServer(("127.0.0.1", 0), _LongAnswer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _print_on(control: ClientConnection) -> None:
    """Act as a device with a shell of ours, in which each command prints two megabytes."""
    terminal, mark = "", ""

    def show(data: str) -> None:
        send(control, type="terminal_output", terminal_id=terminal, data=data)

    with suppress(ConnectionClosed):
        for frame in map(json.loads, control):
            typed = frame.get("data", "")
            terminal = frame.get("terminal_id", terminal)
            if begun := re.findall("n=([0-9a-f]+);", typed):
                [mark] = begun
                show(f"<{mark} ready>")
            elif typed.startswith("run "):
                show(f"<{mark} running><{mark} out ->")
                for _megabyte in range(2):
                    show("A" * (1024**2 // 3 * 4))


@contextmanager
def _talkative_device(sandbox: Sandbox) -> Iterator[str]:
    """The name of a device on which each command prints much."""
    headers = {"Authorization": f"Bearer {sandbox.api_key}"}
    with (
        httpx.Client(base_url=sandbox.url, headers=headers, trust_env=False) as http,
        device(sandbox, http, connectionName="talkative") as found,
    ):
        sandbox.patch(found.environment_id, currentMode="unrestricted")
        thread = threading.Thread(target=_print_on, args=[found.control])
        thread.start()
        try:
            yield "talkative"
        finally:
            found.control.close()
            thread.join()


def _of_the_inventory(ansible: Ansible) -> str:
    """The errors of inventories that cannot be read, for many reasons."""
    with _long_answers() as long_answers:
        return _of_sources(ansible, long_answers)


def _of_sources(ansible: Ansible, long_answers: str) -> str:
    key = {"api_key": ansible.sandbox.api_key}
    sources = [
        {},
        {**key, "base_url": long_answers},
        {**key, "base_url": "http://192.0.2.1"},
        {"api_key_file": "sk-let-0123456789abcdef0123456789abcdef"},
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


def _of_variables(ansible: Ansible) -> str:
    """The errors of a playbook whose variables cannot be used, or leave no host."""
    wrong = ("instruct_hosts=mode_nosuch", "instruct_host=online", '{"__instruct_targets": []}')
    printed = [ansible.playbook("fleetops.environments.instruct", "-e", given).output for given in wrong]
    of_inventory = ansible.file("group_vars/all.yml", "instruct_hosts: online\n")
    printed.append(ansible.playbook("fleetops.environments.instruct").output)
    of_inventory.unlink()
    return "".join(printed)


def _of_a_command(ansible: Ansible) -> str:
    variables = {"ansible_connection": "fleetops.environments.letta", "letta_max_output": 1}
    with _talkative_device(ansible.sandbox) as name:
        return ansible.steps({"ansible.builtin.raw": "true"}, hosts=name, vars=variables).output


def _of_tasks(ansible: Ansible) -> str:
    """The errors of tasks that are refused or fail, for many reasons."""
    sandbox = ansible.sandbox
    one, two, busy, silent = (entry["name"] for entry in awake(sandbox)[:4])
    offline = next(entry["name"] for entry in sandbox.fleet() if not entry["online"])
    dropped, throttled = (entry["id"] for entry in awake(sandbox)[:2])
    sandbox.add_fault("drop_after", route="messages", target=dropped, times=1)
    sandbox.add_fault("status", route="messages", target=throttled, status=429, retry_after=3600, times=1)
    sandbox.add_fault("relay_silent", target=awake(sandbox)[3]["id"])
    sandbox.add_fault("status", route="conversations", status=403, times=1)
    sandbox.script("agent-asking", then=ApprovalTurn())
    sandbox.script("agent-busy", then=LongTurn(seconds=600))
    sandbox.script("agent-broken", then=ErrorTurn(message="no credit"))
    sandbox.remove_agent("agent-gone")
    by_hand = {
        name: sandbox.add_environment(
            connectionName=name,
            metadata={
                "lettaCodeVersion": "0.34.12",
                "self_update": {"supported": True, "writable": True, "manual_command": command},
            },
        )["connectionName"]
        for name, command in {"prose": "Ask the owner.", "older": "npm install -g @letta-ai/letta-code@0.1.0"}.items()
    }
    for provider in ("letta", "qoder"):
        ansible.file(f"fleet/fleet.{provider}.yml", f"plugin: fleetops.environments.{provider}\n")
    sent: dict[str, Any] = {"content": "Report.", "agent_id": AGENT, "retries": 0}
    campaign = {**sent, "campaign": "report", "ledger": "ledger.sqlite"}
    asked = {"content": "Report.", "wait_for_reply": True}
    impatient = {**asked, "agent_id": "agent-busy", "reply_timeout": 1}
    long_ago = (datetime.now(UTC) - timedelta(seconds=90)).isoformat()
    dropped_one = {"host": one, "agent_id": AGENT, "client_message_id": "nowhere", "sent_at": long_ago}
    sandbox.patch(dropped, connectedAt=0)
    planned = {"name": "rollout", "targets": [one], "ledger": "ledger.sqlite"}
    tasks = [
        _once("send_message", targets=[one, two], max_targets=1, **sent),
        step("send_message", "send_message", targets=[one], **sent),
        _once("send_message", targets=["localhost"], **sent),
        _once("send_message", targets=[one], **asked),
        _once("send_message", targets=[one], content_file="absent.txt"),
        _once("send_message", targets=[one], conversation_id="standing", **sent),
        _once("send_message", targets=[one], **sent),
        _once("send_message", targets=[two], **sent),
        _once("send_message", targets=[offline], when_offline="fail", **sent),
        _once("send_message", targets=[busy], **campaign),
        _once("send_message", targets=[busy], **{**campaign, "content": "Something else."}),
        _once("campaign_control", campaign="report", ledger="ledger.sqlite", state="paused"),
        {**_once("send_message", targets=[two], **campaign), "register": "paused"},
        {"ansible.builtin.debug": {"var": "paused.targets[0].reason"}, "run_once": True},
        {**_once("send_message", targets=list(by_hand), self_update=True, agent_id=AGENT), "register": "by_hand"},
        {"ansible.builtin.debug": {"msg": "{{ by_hand.targets | map(attribute='reason') }}"}, "run_once": True},
        _once("send_message", targets=[one], **{**campaign, "ledger": "play.yml"}),
        _once("send_message", targets=[one], **{**campaign, "ledger": "postgresql://fleet@127.0.0.1:1/fleetops"}),
        _once("rollout", version="0.40.0", **planned),
        _once("rollout", version="0.41.0", **planned),
        _once("self_update", targets=[two], target_version="0.40.0", method="command"),
        _once("environment_command", targets=[one], command="dance"),
        _once("environment_command", targets=[one], command="toolset"),
        _once("environment_command", targets=[silent], command="reload", relay_timeout=0.3),
        _once("environment_turn", targets="{{ groups['qoder'][:1] }}", state="aborted", agent_id=AGENT),
        _once("send_message", targets=[one], agent_id="agent-asking", **asked),
        _once("send_message", targets=[one], agent_id="agent-broken", **asked),
        _once("send_message", targets=[one], agent_id="agent-gone", **asked),
        _once("send_message", targets=[busy], **impatient),
        _once("send_message", targets=[busy], **impatient),
        {**_once("reply_info", replies=[dropped_one]), "register": "later"},
        {"ansible.builtin.debug": {"var": "later.replies[0].error.message"}, "run_once": True},
        {"ansible.builtin.ping": {}, "run_once": True, "ignore_unreachable": True},
    ]
    return ansible.steps(*tasks, hosts="letta", source=ansible.directory / "fleet").output


def test_every_explained_message_is_printed(ansible: Ansible) -> None:
    printed = "".join(run(ansible) for run in (_of_the_inventory, _of_variables, _of_tasks, _of_a_command))
    explained = {message: ".*".join(map(re.escape, message.split("..."))) for message in _list_explained()}

    assert len(explained) > 20
    assert [message for message, pattern in explained.items() if not re.search(pattern, printed)] == [], printed
