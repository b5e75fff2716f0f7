"""The connection options of both modules: as task options, variables and in the environment."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from tests.sandbox.process import Sandbox

from .conftest import AGENT, Ansible, awake, step

CONNECTION = (
    "base_url", "api_key", "api_key_file", "timeout", "retries", "deadline", "validate_certs", "ca_path",
    "client_cert", "client_key",
)  # fmt: skip
NOWHERE = "http://127.0.0.1:9"


def _both(name: str, host: str, variables: dict[str, Any] | None = None, **options: Any) -> list[dict[str, Any]]:
    """The same connection options on a task of each module: one looks up all devices, the other sends to one."""
    send = {"targets": [host], "content": "Hello", "agent_id": AGENT, "conversation_id": "default"}
    return [
        {**step(f"{name}: info", "environment_info", **options), "vars": variables or {}},
        {**step(f"{name}: send", "send_message", **send, **options), "vars": variables or {}},
    ]


def _contract(entry: dict[str, Any], base_url: str) -> dict[str, Any]:
    """A host's variables as the inventory plugin sets them."""
    return {
        "fleetops_environment": {
            "provider": "letta",
            "id": entry["id"],
            "device_id": entry["row"]["deviceId"],
            "connection_id": entry["row"]["connectionId"],
            "base_url": base_url,
            "self_update": None,
            "status": "online" if entry["online"] else "offline",
        }
    }


@pytest.mark.covers("send_message", "base_url", "api_key", "timeout", "retries", "deadline")
@pytest.mark.covers("environment_info", "base_url", "api_key", "timeout", "retries", "deadline")
def test_blank_options_and_variables_count_as_unset_and_the_nearest_is_used(ansible: Ansible) -> None:
    sandbox = ansible.sandbox
    slow, broken, fine = [entry["name"] for entry in awake(sandbox)[:3]]
    devices = {entry["name"]: entry["row"]["deviceId"] for entry in sandbox.fleet()}
    for route in ("retrieve", "messages"):
        sandbox.add_fault("slow", route=route, target=devices[slow], seconds=2)
        sandbox.add_fault("status", route=route, target=devices[broken], status=500)

    def both(name: str, host: str, variables: dict[str, Any] | None = None, **options: Any) -> list[dict[str, Any]]:
        info, send = _both(name, host, variables, **options)
        info["fleetops.environments.environment_info"]["device_id"] = devices[host]
        return [info, send]

    blank = {"letta_retries": "", "letta_timeout": " ", "letta_base_url": "", "letta_api_key": ""}
    run = ansible.steps(
        *both("timeout", slow, timeout=0.5),
        *both("deadline", slow, deadline=0.7),
        *both("retries", broken, retries=1, variables={"letta_retries": 2}),
        *both("variable", broken, variables={"letta_retries": 2}),
        *both("environment", broken),
        *both("blank", broken, variables=blank, retries="", timeout="", deadline="", api_key="", base_url=""),
        *both("blank and fine", fine, variables=blank, api_key_file="", validate_certs="", ca_path=""),
        env={"LETTA_RETRIES": "0", "LETTA_TIMEOUT": "", "LETTA_DEADLINE": " ", "LETTA_VALIDATE_CERTS": ""},
    )

    def error(name: str) -> tuple[str, str]:
        send = run.result(f"{name}: send")
        return run.result(f"{name}: info")["msg"], send["targets"][0]["error"]["message"]

    for said in error("timeout"):
        assert "no answer within the timeout of 0.5 s" in said
    for said in error("deadline"):
        assert "no answer within the deadline of 0.7 s" in said
    attempts = {"retries": 2, "variable": 3, "environment": 1, "blank": 1}
    for name in attempts:
        for said in error(name):
            assert "500 Internal Server Error" in said
    assert {name: run.result(f"{name}: send")["targets"][0]["attempts"] for name in attempts} == attempts
    looked_up = [r for r in sandbox.requests("retrieve") if r["path"].endswith(devices[broken])]
    assert len(looked_up) == sum(attempts.values())
    assert run.result("blank and fine: send")["counts"]["sent"] == 1
    assert len(run.result("blank and fine: info")["environments"]) == 1


@pytest.mark.covers("send_message", "base_url")
@pytest.mark.covers("environment_info", "base_url")
def test_the_url_of_the_task_overrides_the_variable_the_inventory_and_the_environment(ansible: Ansible) -> None:
    host = awake(ansible.sandbox)[0]["name"]
    variable = {"letta_base_url": f"{NOWHERE}/variable"}

    run = ansible.steps(
        *_both("none", host),
        *_both("blank", host, {"letta_base_url": ""}, base_url=""),
        *_both("variable", host, variable),
        *_both("task", host, variable, base_url=f"{NOWHERE}/task/"),
        *_both("right", host, variable, base_url=f"{ansible.sandbox.url}/"),
        source=ansible.source(base_url=ansible.sandbox.url),
        env={"LETTA_BASE_URL": f"{NOWHERE}/environment", "LETTA_RETRIES": "0"},
    )

    for name in ("none", "blank"):
        assert f"GET {NOWHERE}/environment/v1/environments: cannot connect" in run.result(f"{name}: info")["msg"]
        assert run.result(f"{name}: send")["counts"]["sent"] == 1
    for name in ("variable", "task"):
        assert f"GET {NOWHERE}/{name}/v1/environments: cannot connect" in run.result(f"{name}: info")["msg"]
        (target,) = run.result(f"{name}: send")["targets"]
        assert (target["status"], target["error"]["code"]) == ("failed", "connect")
        assert f"POST {NOWHERE}/{name}/v1/environments/" in target["error"]["message"]
    assert run.result("right: info")["environments"]
    assert run.result("right: send")["counts"]["sent"] == 1
    assert len(ansible.sandbox.requests("messages")) == 3


@pytest.mark.covers("send_message", "base_url", "api_key")
def test_targets_of_several_urls_are_refused_before_anything_is_sent(ansible: Ansible) -> None:
    first, second = awake(ansible.sandbox)[:2]
    hosts = {
        first["name"]: _contract(first, ansible.sandbox.url),
        second["name"]: _contract(second, f"{ansible.sandbox.url}/other"),
    }
    source = ansible.file("static.yaml", yaml.safe_dump({"all": {"hosts": hosts}}))

    run = ansible.task("send_message", source=source, targets=list(hosts), content="Hello", agent_id=AGENT)

    run.assert_error("targets", ansible.sandbox.url, f"{ansible.sandbox.url}/other")
    assert ansible.sandbox.requests("messages") == []


def test_without_url_or_key_the_official_api_is_asked_and_the_error_says_how_to_give_a_key(ansible: Ansible) -> None:
    run = ansible.steps(
        step("url", "environment_info", api_key="key-for-nobody", retries=0),
        step("key", "environment_info", api_key=" "),
        {**step("send", "send_message", content="Hello"), "ignore_errors": False},
        source=ansible.file(
            "static.yaml",
            yaml.safe_dump({"all": {"hosts": {"localhost": _contract(awake(ansible.sandbox)[0], NOWHERE)}}}),
        ),
        env={
            "LETTA_BASE_URL": "",
            "LETTA_API_KEY": "",
            "LETTA_API_KEY_FILE": " ",
            # A closed port: nothing in this test leaves the machine.
            "HTTPS_PROXY": NOWHERE,
        },
    )

    assert "GET https://api.letta.com/v1/environments: cannot connect" in run.result("url")["msg"]
    run.assert_error("api_key", "letta_api_key", "LETTA_API_KEY", "api_key_file")
    assert run.result("key")["msg"] == run.result("send")["msg"]
    assert "\n" not in run.result("key")["msg"]


@pytest.mark.covers("send_message", "api_key", "api_key_file")
@pytest.mark.covers("environment_info", "api_key", "api_key_file")
def test_a_key_is_taken_from_the_nearest_place_that_has_one(ansible: Ansible) -> None:
    host = awake(ansible.sandbox)[0]["name"]
    right, wrong = ansible.sandbox.api_key, "wrong-key-123456"
    right_file = str(ansible.file("right.key", f"  {right}\n"))
    wrong_file = str(ansible.file("wrong.key", wrong))
    works: dict[str, dict[str, Any]] = {
        "option": {"api_key": right},
        "option before variable": {"api_key": right, "variables": {"letta_api_key": wrong}},
        "option before file": {"api_key": right, "api_key_file": wrong_file},
        "blank option": {"api_key": "", "variables": {"letta_api_key": right}},
        "variable": {"variables": {"letta_api_key": "{{ 'sandbox-' ~ rest_of_key }}"}},
        "file": {"api_key_file": right_file},
        "file before variable": {"api_key_file": right_file, "variables": {"letta_api_key": wrong}},
        "file of a variable": {"variables": {"letta_api_key_file": right_file}},
    }
    fails: dict[str, dict[str, Any]] = {
        "environment": {},
        "wrong option": {"api_key": wrong, "variables": {"letta_api_key": right}},
        "wrong file": {"api_key_file": wrong_file, "variables": {"letta_api_key": right}},
        "wrong variable": {"variables": {"letta_api_key": wrong, "letta_api_key_file": right_file}},
    }

    run = ansible.steps(
        *(task for name, options in (works | fails).items() for task in _both(name, host, **options)),
        source=ansible.source(api_key=right),
        vars={"rest_of_key": right.removeprefix("sandbox-")},
        env={"LETTA_API_KEY": wrong},
    )

    for name in works:
        assert run.result(f"{name}: info").get("environments"), name
        assert run.result(f"{name}: send")["counts"]["sent"] == 1, name
    for name in fails:
        assert "401 Unauthorized" in run.result(f"{name}: info")["msg"], name
        assert "401 Unauthorized" in run.result(f"{name}: send")["targets"][0]["error"]["message"], name
    assert len(ansible.sandbox.received()) == 1


@pytest.mark.covers("send_message", "base_url", "api_key")
@pytest.mark.covers("environment_info", "base_url", "api_key")
def test_module_defaults_of_the_action_group_apply_to_both_modules(ansible: Ansible) -> None:
    host = awake(ansible.sandbox)[0]["name"]
    defaults = {"base_url": ansible.sandbox.url, "api_key": ansible.sandbox.api_key}

    run = ansible.steps(
        *_both("both", host),
        *_both("own", host, api_key="another-key-123"),
        module_defaults={"group/fleetops.environments.letta": defaults},
        source=ansible.source(**defaults),
        env={"LETTA_BASE_URL": "", "LETTA_API_KEY": ""},
    )

    assert run.result("both: info")["environments"]
    assert run.result("both: send")["counts"]["sent"] == 1
    assert "401" in run.result("own: info")["msg"]
    assert run.result("own: send")["counts"]["failed"] == 1


def test_a_redirect_to_another_server_is_not_followed(ansible: Ansible, other_sandbox: Sandbox) -> None:
    host = awake(ansible.sandbox)[0]["name"]
    for status in (301, 307, 308):
        for route in ("retrieve", "messages"):
            ansible.sandbox.add_fault("redirect", route=route, status=status, times=1, location=other_sandbox.url)
    info, send = _both("redirect", host)
    info["fleetops.environments.environment_info"]["device_id"] = "device"

    run = ansible.steps(
        *({**task, "name": f"{number} {task['name']}"} for number in (1, 2, 3) for task in (info, send))
    )

    assert other_sandbox.requests() == []
    assert len(ansible.sandbox.requests("retrieve")) == len(ansible.sandbox.requests("messages")) == 3
    assert {entry["outcome"] for entry in run.results} == {"failed"}
    for entry in run.results:
        assert ansible.sandbox.url in entry["result"]["msg"]
        assert f"redirected to {other_sandbox.url}" in entry["result"]["msg"]


@dataclass(frozen=True)
class Tls:
    """A sandbox that requires client certificates, and the files to connect to it."""

    sandbox: Sandbox
    ca: str
    certificate: str
    key: str
    both: str
    other_key: str
    encrypted_key: str


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[Tls]:
    authority = trustme.CA()
    server, client, other = (authority.issue_cert(name) for name in ("127.0.0.1", "client", "other"))
    names = ("ca", "server", "server-key", "cert", "key", "both", "other", "encrypted")
    paths = {name: tmp_path / f"{name}.pem" for name in names}
    authority.cert_pem.write_to_path(str(paths["ca"]))
    server.cert_chain_pems[0].write_to_path(str(paths["server"]))
    server.private_key_pem.write_to_path(str(paths["server-key"]))
    client.cert_chain_pems[0].write_to_path(str(paths["cert"]))
    client.private_key_pem.write_to_path(str(paths["key"]))
    client.private_key_and_cert_chain_pem.write_to_path(str(paths["both"]))
    other.private_key_pem.write_to_path(str(paths["other"]))
    paths["encrypted"].write_bytes(
        load_pem_private_key(client.private_key_pem.bytes(), None).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pass phrase")
        )
    )
    context = ssl.create_default_context(cafile=str(paths["ca"]))
    context.load_cert_chain(str(paths["both"]))
    with Sandbox.start(
        devices=2,
        ssl_context=context,
        tls_cert=paths["server"],
        tls_key=paths["server-key"],
        tls_client_ca=paths["ca"],
    ) as sandbox:
        yield Tls(sandbox, *(str(paths[name]) for name in ("ca", "cert", "key", "both", "other", "encrypted")))


def test_missing_certificates_named_in_the_environment_are_one_line_and_needed_by_https_alone(
    ansible: Ansible, tls: Tls
) -> None:
    host = awake(ansible.sandbox)[0]["name"]

    run = ansible.steps(
        *_both("http", host),
        *_both("https", host, base_url=tls.sandbox.url),
        env={"SSL_CERT_FILE": "/nonexistent/ca.pem"},
    )

    assert run.result("http: info")["environments"]
    assert run.result("http: send")["counts"]["sent"] == 1
    for module in ("info", "send"):
        message = run.result(f"https: {module}")["msg"]
        assert message.startswith("cannot load the certificates that SSL_CERT_FILE or SSL_CERT_DIR names: ")
        assert "\n" not in message
    assert "Traceback" not in run.output
    assert tls.sandbox.requests() == []


@pytest.mark.covers("send_message", "validate_certs", "ca_path", "client_cert", "client_key")
@pytest.mark.covers("environment_info", "validate_certs", "ca_path", "client_cert", "client_key")
def test_tls_follows_the_options_and_a_blank_validate_certs_stays_on(tmp_path: Path, tls: Tls) -> None:
    ansible = Ansible(tmp_path, tls.sandbox)
    host = awake(tls.sandbox)[0]["name"]
    pair = {"client_cert": tls.certificate, "client_key": tls.key}
    own = {f"letta_{name}": value for name, value in {"ca_path": tls.ca, **pair}.items()}
    works: dict[str, dict[str, Any]] = {
        "options": {"ca_path": tls.ca, **pair},
        "one file": {"ca_path": tls.ca, "client_cert": tls.both},
        "not validated": {"validate_certs": False, **pair},
        "variables": {"variables": own},
        "not validated by variable": {"variables": {"letta_validate_certs": "no"}, **pair},
    }
    says = {
        "no authority": ({**pair}, "TLS failure", "ca_path"),
        "blank": ({**pair, "validate_certs": "", "variables": {"letta_validate_certs": ""}}, "TLS failure", "ca_path"),
        "validated": (
            {**pair, "validate_certs": True, "variables": {"letta_validate_certs": False}}, "TLS failure", "ca_path"
        ),
        # The sandbox ends the connection without an alert that gives the reason.
        "no certificate": ({"ca_path": tls.ca}, tls.sandbox.url),
        "no key": ({"ca_path": tls.ca, "client_cert": tls.certificate}, "client_cert", tls.certificate),
        "another key": ({"ca_path": tls.ca, **pair, "client_key": tls.other_key}, "client_key", tls.other_key),
        "encrypted key": ({"ca_path": tls.ca, **pair, "client_key": tls.encrypted_key}, "client_key", "is encrypted"),
    }  # fmt: skip
    cases = works | {name: options for name, (options, *_parts) in says.items()}

    run = ansible.steps(
        *(task for name, options in cases.items() for task in _both(name, host, **options)),
        source=ansible.source(ca_path=tls.ca, **pair),
        env={"LETTA_VALIDATE_CERTS": "", "LETTA_RETRIES": "0"},
    )

    for name in works:
        assert run.result(f"{name}: info").get("environments"), run.result(f"{name}: info")
        assert run.result(f"{name}: send")["counts"]["sent"] == 1, name
    for name, (_options, *parts) in says.items():
        for module in ("info", "send"):
            message = run.result(f"{name}: {module}")["msg"]
            assert all(part in message for part in parts), message
            assert "\n" not in message
    assert "Traceback" not in run.output
    turns = [device["turns"] for device in tls.sandbox.received().values()]
    assert turns == [len(works)]

    by_environment = {"LETTA_CA_PATH": tls.ca, "LETTA_CLIENT_CERT": tls.certificate, "LETTA_CLIENT_KEY": tls.key}
    run = ansible.steps(*_both("environment", host), env=by_environment)
    run.assert_quiet()
    assert run.result("environment: send")["counts"]["sent"] == 1
