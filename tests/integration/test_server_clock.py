"""A server whose Date is wrong: which devices are online, and what the user is told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from .conftest import Ansible

FUTURE = ["Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"]
UNREADABLE = ["Fri, 31 Dec 9999 23:59:59 -2300", "soon"]


def _rows() -> list[dict[str, Any]]:
    """A device with a heartbeat of now, and one that was last heard an hour ago."""
    now = int(time.time() * 1000)
    times = {"live": now, "dead": now - 3_600_000}
    return [
        {
            "id": name, "deviceId": name, "connectionId": name, "connectionName": name, "organizationId": "o",
            "podId": "p", "connectedAt": at, "lastHeartbeat": at, "firstSeenAt": at, "lastSeenAt": at,
        }
        for name, at in times.items()
    ]  # fmt: skip


@contextmanager
def _server(date: str) -> Iterator[str]:
    """A control plane of both providers with such a Date; yields its URL."""
    letta = {"connections": _rows(), "hasNextPage": False}
    qoder = {"data": [{"id": "env_1", "name": "one"}], "has_more": False}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(letta if "/v1/" in self.path else qoder).encode()
            self.send_response_only(200)
            self.send_header("Date", date)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("date", FUTURE)
def test_a_date_in_the_future_makes_no_device_offline(ansible: Ansible, date: str) -> None:
    with _server(date) as url:
        run = ansible.inventory("--list", source=ansible.source(base_url=url))
        qoder = ansible.inventory("--list", source=ansible.source(base_url=url, plugin="fleetops.environments.qoder"))
        looked = ansible.task("environment_info", base_url=url)
        query = f"query('fleetops.environments.environments', 'online', base_url='{url}') | map(attribute='id')"
        lookup = ansible.steps({"name": "it", "ansible.builtin.debug": {"msg": "{{ " + query + " }}"}})

    run.assert_warning(url, "clock", "min")
    qoder.assert_warning(url, "clock", "min")
    hosts = json.loads(run.stdout)["_meta"]["hostvars"]
    assert {name: host["letta_online"] for name, host in hosts.items()} == {"live": True, "dead": False}
    found = looked.result("it")["environments"]
    assert {row["id"]: row["online"] for row in found} == {"live": True, "dead": False}
    assert lookup.result("it")["msg"] == ["live"]
    for task in (looked, lookup):
        assert task.returncode == 0, task.output
        assert task.stderr.count(f"[WARNING]: {url}") == 1, task.output


@pytest.mark.parametrize("date", UNREADABLE)
def test_an_unreadable_date_counts_as_none(ansible: Ansible, date: str) -> None:
    with _server(date) as url:
        hosts = ansible.hosts(base_url=url)

    assert {name: host["letta_online"] for name, host in hosts.items()} == {"live": True, "dead": False}


def test_a_date_of_an_hour_ago_is_that_of_the_heartbeats(ansible: Ansible) -> None:
    """The server's clock is behind, and so are the heartbeats that it writes."""
    with _server(formatdate(time.time() - 3600, usegmt=True)) as url:
        run = ansible.inventory("--list", source=ansible.source(base_url=url))

    run.assert_warning(url, "clock", "60 min")
    hosts = json.loads(run.stdout)["_meta"]["hostvars"]
    assert hosts["dead"]["letta_online"] is True
