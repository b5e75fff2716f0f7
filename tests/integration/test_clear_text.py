"""The key goes out in clear text only where the user allows it, whichever plugin sends it."""

from __future__ import annotations

import asyncio
import runpy
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.errors import OptionError
from tests.sandbox.process import Sandbox

from .conftest import AGENT, Ansible, Run, awake, step
from .test_event_source import SOURCE

# A server that is reached through a proxy of this machine, since nothing in a test leaves it.
FAR = "http://fleet.invalid"
LOOKUP = "{{ query('fleetops.environments.environments') | length }}"
REFUSED = (
    "base_url: http would send the key in clear text to fleet.invalid; use https, or allow it with the option "
    "allow_http, the variable {0}_allow_http, or {1}_ALLOW_HTTP=true"
)
OF_LETTA, OF_QODER = (REFUSED.format(name, name.upper()) for name in ("letta", "qoder"))


@contextmanager
def proxy_to(sandbox: Sandbox) -> Iterator[str]:
    """A proxy at which the sandbox is `fleet.invalid`; its URL."""
    port = int(sandbox.url.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_serve, args=(server, port), daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def _serve(server: socket.socket, port: int) -> None:
    with suppress(OSError):
        while True:
            client, _address = server.accept()
            peer = socket.create_connection(("127.0.0.1", port))
            threading.Thread(target=_pass_on, args=(client, peer, FAR.encode()), daemon=True).start()
            threading.Thread(target=_pass_on, args=(peer, client, b""), daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket, prefix: bytes) -> None:
    """Pass on what comes, and leave out the prefix of the addresses that a proxy is asked for."""
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data.replace(b" " + prefix, b" ", 1) if prefix else data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def far(sandbox: Sandbox) -> Iterator[dict[str, str]]:
    """The environment variables with which the sandbox is far away."""
    with proxy_to(sandbox) as proxy:
        yield {"LETTA_BASE_URL": FAR, "QODER_MANAGED_BASE_URL": f"{FAR}/api/v1/cloud", "HTTP_PROXY": proxy}


def _static(ansible: Ansible) -> Any:
    """An inventory of one device that was listed from a server far away."""
    device = next(entry for entry in awake(ansible.sandbox) if entry["row"]["currentMode"] == "unrestricted")
    row = device["row"]
    contract = {
        "provider": "letta",
        "id": row["id"],
        "device_id": row["deviceId"],
        "connection_id": row["connectionId"],
        "base_url": FAR,
        "status": "online",
        "self_update": None,
    }
    return ansible.static({"_meta": {"hostvars": {"device": {"fleetops_environment": contract}}}})


def _play(ansible: Ansible, env: Mapping[str, str], variables: Mapping[str, Any], **options: Any) -> Run:
    """Whatever asks Letta from a play: modules, the lookup and the relay."""
    message = {"host": "device", "agent_id": AGENT, "client_message_id": "m"}
    relay = {"ansible_connection": "fleetops.environments.letta", "letta_timeout": 20, "letta_retries": 0}
    return ansible.steps(
        step("send", "send_message", content="hello", agent_id=AGENT, **options),
        step("info", "environment_info", limit=1, all_pages=False, **options),
        step("replies", "reply_info", replies=[message], **options),
        step("mode", "environment_mode", mode="acceptEdits", agent_id=AGENT, **options),
        {"name": "lookup", "ansible.builtin.debug": {"msg": LOOKUP}, "ignore_errors": True},
        {"name": "relay", "ansible.builtin.raw": "true", "vars": relay, "ignore_errors": True},
        source=_static(ansible),
        hosts="device",
        vars=dict(variables),
        env=env,
    )


@pytest.mark.covers("letta", "allow_http")
@pytest.mark.covers("qoder", "allow_http")
@pytest.mark.parametrize(("provider", "refused"), [("letta", OF_LETTA), ("qoder", OF_QODER)])
def test_an_inventory_sends_the_key_in_clear_text_only_if_it_is_allowed(
    ansible: Ansible, far: dict[str, str], provider: str, refused: str
) -> None:
    ansible = replace(ansible, provider=provider)
    name = f"{provider}_allow_http"
    blank = ansible.inventory("--list", env={**far, name.upper(): ""})
    overridden = ansible.inventory("--list", source=ansible.source(allow_http=False), env={**far, name.upper(): "1"})
    assert ansible.sandbox.requests() == []

    by_option = ansible.inventory("--list", source=ansible.source(allow_http=True), env=far)
    by_variable = ansible.inventory("--list", "-e", f"{name}=true", env=far)
    by_environment = ansible.inventory("--list", env={**far, name.upper(): "true"})

    for run in (blank, overridden):
        run.assert_inventory_error(refused)
    for run in (by_option, by_variable, by_environment):
        run.assert_quiet()
        assert FAR in run.stdout


@pytest.mark.covers("fragment letta", "allow_http")
@pytest.mark.covers("environment_info", "allow_http")
@pytest.mark.covers("reply_info", "allow_http")
@pytest.mark.covers("environments", "allow_http")
def test_no_task_sends_the_key_in_clear_text_unless_it_is_allowed(ansible: Ansible, far: dict[str, str]) -> None:
    run = _play(ansible, far, {})

    for task in ("send", "info", "replies", "mode", "lookup", "relay"):
        assert OF_LETTA in run.result(task)["msg"], task
    assert ansible.sandbox.requests() == []
    assert "Traceback" not in run.output


@pytest.mark.covers("fragment letta", "allow_http")
@pytest.mark.covers("environment_info", "allow_http")
@pytest.mark.covers("reply_info", "allow_http")
@pytest.mark.covers("environments", "allow_http")
@pytest.mark.parametrize("place", ["option", "variable", "environment"])
def test_every_task_reaches_a_server_far_away_if_it_is_allowed(
    ansible: Ansible, far: dict[str, str], place: str
) -> None:
    options = {"allow_http": True} if place == "option" else {}
    variables = {"letta_allow_http": True} if place == "variable" else {}
    env = far | ({"LETTA_ALLOW_HTTP": "yes"} if place == "environment" else {})

    run = _play(ansible, env, variables, **options)

    assert run.result("send")["status"] == "sent"
    assert len(run.result("info")["environments"]) == 1
    assert run.result("replies")["replies"]
    assert run.result("mode")["status"] == "changed"
    if place != "option":
        assert run.result("lookup")["msg"] == len(ansible.sandbox.fleet())
    # The simulated device has no terminal. That it was asked for one shows that the relay was opened.
    relayed = [entry["task"] for entry in run.results if entry["task"] == "relay"]
    assert relayed == ["relay"]
    assert (OF_LETTA in run.result("relay")["msg"]) is (place == "option")


def test_the_permission_of_one_providers_action_group_is_not_for_another(ansible: Ansible, far: dict[str, str]) -> None:
    tasks = [step(name, "environment_info", provider=name, all_pages=False) for name in ("letta", "qoder")]
    groups = {f"group/fleetops.environments.{name}": {"allow_http": name == "letta"} for name in ("letta", "qoder")}

    both = ansible.steps(*tasks, source="localhost,", env=far, module_defaults=groups)
    groups.pop("group/fleetops.environments.qoder")
    one = ansible.steps(*tasks, source="localhost,", env=far, module_defaults=groups)

    for run in (both, one):
        assert run.result("letta")["environments"]
        assert OF_QODER in run.result("qoder")["msg"]


def test_the_lookup_has_the_option_too(ansible: Ansible, far: dict[str, str]) -> None:
    lookup = LOOKUP.replace("')", "', allow_http=true)")

    run = ansible.steps({"name": "it", "ansible.builtin.debug": {"msg": lookup}}, source="localhost,", env=far)

    assert run.result("it")["msg"] == len(ansible.sandbox.fleet())


def test_the_event_source_sends_no_key_in_clear_text_unless_it_is_allowed(
    sandbox: Sandbox, far: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = runpy.run_path(str(SOURCE))
    for name, value in far.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LETTA_API_KEY", sandbox.api_key)

    with pytest.raises(OptionError, match="LETTA_ALLOW_HTTP=true"):
        asyncio.run(source["main"](asyncio.Queue(), {}))

    assert source["_Options"]({"allow_http": True}).settings.base_url == FAR
    monkeypatch.setenv("LETTA_ALLOW_HTTP", "true")
    assert source["_Options"]({}).settings.base_url == FAR
    assert sandbox.requests() == []
