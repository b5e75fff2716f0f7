"""The boundary to a provider: a third one is a folder and an inventory plugin, and nothing else changes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import CHECKOUT

ACME = Path(__file__).parent / "acme"
MACHINES = [{"id": "m-1", "name": "one", "awake": True}, {"id": "m-2", "name": "two", "awake": False}]
KEY = "key-of-acme-alone"


class Machines(BaseHTTPRequestHandler):
    """Acme's API, which keeps the received messages at `server.inbox`."""

    protocol_version = "HTTP/1.1"
    inbox: list[tuple[str, str | None, Any]]

    def do_GET(self) -> None:
        self._answer({"machines": MACHINES})

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"]))
        self.inbox.append((self.path, self.headers["Authorization"], json.loads(text)))
        self._answer({})

    def log_message(self, *_arguments: object) -> None:
        """Stay silent."""

    def _answer(self, body: Any) -> None:
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@pytest.fixture
def machines() -> Iterator[tuple[str, list[tuple[str, str | None, Any]]]]:
    """Acme's server: its URL, and the messages that it received."""
    inbox: list[tuple[str, str | None, Any]] = []
    handler = type("Handler", (Machines,), {"inbox": inbox})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", inbox
        finally:
            server.shutdown()
            serving.join()


@pytest.fixture
def collections(tmp_path: Path) -> Path:
    """A copy of the collection with two more files."""
    place = tmp_path / "collections" / "ansible_collections" / "fleetops" / "environments"
    for name in ("plugins", "meta"):
        shutil.copytree(CHECKOUT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "galaxy.yml", place)
    folder = place / "plugins/module_utils/providers/acme"
    folder.mkdir()
    shutil.copy(ACME / "provider.py", folder)
    shutil.copy(ACME / "inventory.py", place / "plugins/inventory/acme.py")
    return tmp_path / "collections"


def test_a_third_provider_needs_two_files_to_list_and_send(
    tmp_path: Path, collections: Path, machines: tuple[str, list[tuple[str, str | None, Any]]]
) -> None:
    url, inbox = machines
    send = {
        "fleetops.environments.send_message": {
            "targets": "{{ ansible_play_batch }}",
            "content": "Hello",
            "agent_id": "a",
        }
        | {"campaign": "greeting", "ledger": str(tmp_path / "ledger.sqlite")},
        "run_once": True,
        "register": "sent",
    }
    show = {"ansible.builtin.debug": {"msg": "{{ sent.counts | to_json }}"}, "run_once": True}
    play = [{"hosts": "acme", "gather_facts": False, "tasks": [send, show]}]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(play))
    (tmp_path / "fleet.acme.yml").write_text("plugin: fleetops.environments.acme\n")
    environment = {
        **os.environ,
        "ACME_API_KEY": KEY,
        "ACME_BASE_URL": url,
        "ANSIBLE_COLLECTIONS_PATH": str(collections),
        "ANSIBLE_INVENTORY_ENABLED": "fleetops.environments.acme",
    }

    def run_command(*command: str) -> str:
        process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert (process.returncode, process.stderr) == (0, ""), process.stdout + process.stderr
        return process.stdout

    listed = json.loads(run_command("ansible-inventory", "-i", "fleet.acme.yml", "--list"))
    assert listed["awake"]["hosts"] == ["acme-one"]
    assert listed["asleep"]["hosts"] == ["acme-two"]
    assert listed["_meta"]["hostvars"]["acme-one"]["acme_name"] == "one"
    address = listed["_meta"]["hostvars"]["acme-one"]["ansible_host"]
    assert address == "this-host-has-no-login.write-gather_facts-false.m-1.acme.invalid"

    output = run_command("ansible-playbook", "-i", "fleet.acme.yml", "play.yml")
    assert '\\"sent\\": 1, \\"already_sent\\": 0, \\"offline\\": 1' in output
    again = run_command("ansible-playbook", "-i", "fleet.acme.yml", "play.yml")
    assert '\\"sent\\": 0, \\"already_sent\\": 1, \\"offline\\": 1' in again
    assert inbox == [("/machines/m-1/inbox", f"Bearer {KEY}", {"text": "Hello"})]
