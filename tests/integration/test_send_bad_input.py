"""The errors of send_message for invalid options, before anything is sent."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.process import Sandbox

from .conftest import AGENT, Ansible, Run, awake, step


@dataclass(frozen=True)
class Bad:
    """Wrong options, and what the one line about them has to contain. HOST stands for a host's name."""

    options: dict[str, Any]
    says: tuple[str, ...]
    # These replace the valid content and agent.
    base: dict[str, Any] = field(default_factory=lambda: {"content": "Hello", "agent_id": AGENT})


HOST = "HOST"
NONE: dict[str, Any] = {"agent_id": AGENT}
APPROVED = {"tool_call_id": "c", "approve": True}

BAD = {
    "content and messages": Bad({"messages": [{"content": "x"}]}, ("content", "messages", "cannot go with")),
    "content and self_update": Bad({"self_update": True}, ("self_update", "content")),
    "file and template": Bad(
        {"content_file": "a.txt", "content_template": "b.j2"}, ("content_template", "content_file"), NONE
    ),
    "nothing to send": Bad({}, ("content", "nothing to send"), NONE),
    "nothing to send to targets": Bad({"targets": [HOST]}, ("content", "nothing to send", HOST), NONE),
    "nothing to send to one of targets": Bad(
        {"targets": [{"host": HOST, "content": "x"}, "OTHER"]}, ("content", "nothing to send", "OTHER"), NONE
    ),
    "a number as content": Bad({"content": 42}, ("content", "42")),
    "no parts": Bad({"content": []}, ("content", "empty")),
    "a part that is no text": Bad({"content": [{"type": "image", "url": "x"}]}, ("content", "image")),
    "no messages": Bad({"messages": []}, ("messages", "at least one"), NONE),
    "a message with an unknown key": Bad(
        {"messages": [{"content": "x", "contents": "y"}]}, ("messages", "contents"), NONE
    ),
    "a message without content": Bad({"messages": [{"role": "user"}]}, ("messages", "content"), NONE),
    "a message of the agent": Bad(
        {"messages": [{"role": "assistant", "content": "x"}]}, ("messages", "role", "assistant"), NONE
    ),
    "a message with a blank id": Bad(
        {"messages": [{"content": "x", "client_message_id": ""}]}, ("messages", "client_message_id"), NONE
    ),
    "no approvals": Bad({"approvals": []}, ("approvals", "at least"), NONE),
    "an approval that says nothing": Bad({"approvals": [{"tool_call_id": "c"}]}, ("approvals",), NONE),
    "an approval without a tool call": Bad({"approvals": [{"approve": True}]}, ("approvals", "tool_call_id"), NONE),
    "an approval with an unknown status": Bad(
        {"approvals": [{"tool_call_id": "c", "status": "fine"}]}, ("status", "fine", "approvals"), NONE
    ),
    "an approval with a number that is none": Bad(
        {"approvals": [{**APPROVED, "updated_input": {"a": [float("nan")]}}]}, ("approvals[0]", "JSON"), NONE
    ),
    "an approval with a date": Bad(
        {"approvals": [{**APPROVED, "updated_input": {"day": date(2026, 1, 31)}}]}, ("approvals[0]", "JSON"), NONE
    ),
    "messages with a number that is none": Bad(
        {"messages": [{"content": "x"}, {"approvals": [{**APPROVED, "updated_input": {"a": float("nan")}}]}]},
        ("messages[1]", "JSON"),
        NONE,
    ),
    "messages with a date": Bad(
        {"messages": [{"approvals": [{**APPROVED, "updated_input": {"day": date(2026, 1, 31)}}]}]},
        ("messages[0]", "JSON"),
        NONE,
    ),
    "one id for messages": Bad(
        {"messages": [{"content": "x"}], "client_message_id": "cm"}, ("client_message_id", "messages"), NONE
    ),
    "a file that is not there": Bad(
        {"content_file": "absent.txt"}, ("content_file", "cannot find 'absent.txt'", "nor in '/"), NONE
    ),
    "a file that is a directory": Bad({"content_file": "/"}, ("content_file", "/"), NONE),
    "a file that is no text": Bad({"content_file": "binary.txt"}, ("content_file", "binary.txt"), NONE),
    "a template that is not there": Bad({"content_template": "absent.j2"}, ("content_template", "absent.j2"), NONE),
    "a template that does not parse": Bad({"content_template": "broken.j2"}, ("content_template", "broken.j2"), NONE),
    "a template with an unknown name": Bad(
        {"content_template": "undefined.j2"}, ("content_template", "undefined.j2", "nosuchname"), NONE
    ),
    "a template that renders to nothing": Bad({"content_template": "empty.j2"}, ("content_template", "empty"), NONE),
    "new without an agent": Bad(
        {"content": "x", "conversation_id": "new"}, ("conversation_id", "'new'", "agent_id", HOST), {}
    ),
    "a target that is no host": Bad({"targets": ["nobody"]}, ("targets[0]", "'nobody'")),
    "a target that is no environment": Bad({"targets": [HOST, "localhost"]}, ("localhost", "no environment")),
    "a target without a host": Bad({"targets": [{"content": "x"}]}, ("targets[0]", "host")),
    "a target with an unknown key": Bad({"targets": [{"host": HOST, "contents": "x"}]}, ("targets[0]", "contents")),
    "a target that is a number": Bad({"targets": [7]}, ("targets[0]", "7")),
    "a target that comes twice": Bad({"targets": [HOST, {"host": HOST}]}, ("targets[1]", HOST)),
    "a target with bad content": Bad({"targets": [{"host": HOST, "content": 42}]}, ("content", "42")),
    "more than max_targets": Bad({"targets": [HOST, "OTHER"], "max_targets": 1}, ("max_targets", "2", "1")),
    "a max_targets that is no number": Bad({"targets": [HOST], "max_targets": "many"}, ("max_targets", "many")),
    "max_targets without targets": Bad({"max_targets": 1}, ("max_targets", "targets")),
    "retry_file without targets": Bad({"retry_file": "again.txt"}, ("retry_file", "targets")),
    "result_file without targets": Bad({"result_file": "results.jsonl"}, ("result_file", "targets")),
    "rate without targets": Bad({"rate": 1}, ("rate", "targets")),
    "an unknown when_offline": Bad({"when_offline": "sometimes"}, ("when_offline", "sometimes", "skip, fail, wait")),
    "an offline_timeout that is no number": Bad({"offline_timeout": "soon"}, ("offline_timeout", "soon")),
    "an offline_timeout below nothing": Bad({"offline_timeout": -1, "when_offline": "wait"}, ("offline_timeout", "-1")),
    "a concurrency of nothing": Bad({"concurrency": 0}, ("concurrency", "0")),
    "a rate of nothing": Bad({"targets": [HOST], "rate": 0}, ("rate", "0")),
    "a rate that is no number": Bad({"targets": [HOST], "rate": "nan"}, ("rate", "nan")),
    "max_failures in words": Bad({"targets": [HOST], "max_failures": "few"}, ("max_failures", "few")),
    "max_failures below nothing": Bad({"targets": [HOST], "max_failures": -1}, ("max_failures", "-1")),
    "max_failures of more than all": Bad({"targets": [HOST], "max_failures": "101%"}, ("max_failures", "101%")),
    "max_failures without targets": Bad({"max_failures": "few"}, ("max_failures", "few")),
    "a result_file of another kind": Bad({"targets": [HOST], "result_file": "r.txt"}, ("result_file", "r.txt")),
    "a result_file in no directory": Bad(
        {"targets": [HOST], "result_file": "/nonexistent/r.csv"}, ("result_file", "/nonexistent/r.csv")
    ),
    "a retry_file in no directory": Bad(
        {"targets": [HOST], "retry_file": "/nonexistent/again.txt"}, ("retry_file", "/nonexistent/again.txt")
    ),
    "a retry_file that is a directory": Bad({"targets": [HOST], "retry_file": "/tmp"}, ("retry_file", "/tmp")),
    "an unwritable result_file": Bad({"targets": [HOST], "result_file": "/proc/r.csv"}, ("result_file", "/proc/r.csv")),
    "an unknown option": Bad({"contnet": "x"}, ("contnet",)),
    "a timeout in words": Bad({"timeout": "long"}, ("timeout", "long")),
    "a timeout of nothing": Bad({"timeout": 0}, ("timeout", "0")),
    "a deadline below nothing": Bad({"deadline": -2}, ("deadline", "-2")),
    "retries below nothing": Bad({"retries": -1}, ("retries", "-1")),
    "a validate_certs in words": Bad({"validate_certs": "perhaps"}, ("validate_certs", "perhaps")),
    "a base_url without a scheme": Bad({"base_url": "api.letta.com"}, ("base_url", "api.letta.com")),
    "a base_url with a password": Bad({"base_url": "https://me:pass-word@127.0.0.1"}, ("base_url", "password")),
    "a ca_path that is not there": Bad({"ca_path": "/nonexistent/ca.pem"}, ("ca_path", "/nonexistent/ca.pem")),
    "a client_cert that is not there": Bad({"client_cert": "/nonexistent/me"}, ("client_cert", "/nonexistent/me")),
    "a client_key alone": Bad({"client_key": "/nonexistent/me.key"}, ("client_key", "client_cert")),
    "an api_key_file that is not there": Bad(
        {"api_key_file": "/nonexistent/letta.key"}, ("api_key_file", "/nonexistent/letta.key")
    ),
    "an api_key_file that is empty": Bad({"api_key_file": "EMPTY"}, ("api_key_file", "empty.key")),
}  # fmt: skip


@dataclass(frozen=True)
class Refused:
    """One play in which every task is refused."""

    run: Run
    names: dict[str, str]
    posts: list[dict[str, Any]]


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Refused]:
    """The play, on a current host that could get a message."""
    with Sandbox.start(devices=3) as sandbox:
        ansible = Ansible(Path(tmp_path_factory.mktemp("refused")), sandbox)
        first, second = awake(sandbox)[:2]
        (ansible.directory / "files").mkdir()
        (ansible.directory / "files/binary.txt").write_bytes(b"\xff\xfe\x00")
        ansible.file("templates/broken.j2", "{% if %}")
        ansible.file("templates/undefined.j2", "{{ nosuchname }}")
        ansible.file("templates/empty.j2", "{% if false %}nothing{% endif %}")
        empty = str(ansible.file("empty.key", "\n"))
        names = {HOST: first["name"], "OTHER": second["name"], "EMPTY": empty}
        steps = [
            step(name, "send_message", **_fill_names({**bad.base, **bad.options}, names)) for name, bad in BAD.items()
        ]
        run = ansible.steps(*steps, hosts=first["name"])
        yield Refused(run, names, [request for request in sandbox.requests() if request["method"] == "POST"])


def _fill_names(value: Any, names: dict[str, str]) -> Any:
    """The value with the facts that only the running sandbox knows."""
    if isinstance(value, dict):
        return {key: _fill_names(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill_names(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_option_is_named_with_its_value_in_one_line(refused: Refused, name: str) -> None:
    (outcome,) = [entry["outcome"] for entry in refused.run.results if entry["task"] == name]
    result = refused.run.result(name)

    assert outcome == "failed", result
    for part in BAD[name].says:
        assert refused.names.get(part, part) in result["msg"]
    assert "\n" not in result["msg"]
    assert len(result["msg"]) < 700
    # Found before anything is sent, so no target has a result.
    assert not {"targets", "status"} & result.keys()
    assert "pass-word" not in result["msg"]


def test_nothing_is_sent_and_nothing_is_traced_for_any_of_them(refused: Refused) -> None:
    assert refused.posts == []
    assert "Traceback" not in refused.run.output


@pytest.mark.covers("send_message", "max_targets", "targets")
def test_a_wrong_option_ends_the_playbook(ansible: Ansible) -> None:
    names = [entry["name"] for entry in awake(ansible.sandbox)[:2]]

    ansible.task("send_message", content="Hello", targets=names, max_targets=1, agent_id=AGENT).assert_error(
        "max_targets", "2 targets are more than the 1 allowed"
    )
    assert ansible.sandbox.requests("messages") == []

    ansible.task("send_message", content="Hello", targets=names, max_targets=2, agent_id=AGENT).assert_quiet()
    assert len(ansible.sandbox.received()) == 2


@pytest.mark.covers("send_message", "api_key", "api_key_file")
@pytest.mark.covers("environment_info", "api_key", "api_key_file")
def test_a_key_is_never_shown_wherever_it_comes_from(ansible: Ansible) -> None:
    """Each place has its own key that the server refuses, or another option is wrong, or the server repeats the key."""
    keys = {name: f"secret-{name}-3f1b9c" for name in ("option", "variable", "vault", "file", "pathvar", "environment")}
    # Faults apply to requests with the valid key.
    ansible.sandbox.add_fault("status", route="any", status=400, echo_key=True, target="echo")
    ansible.sandbox.add_fault("status", route="messages", status=422, echo_key=True, body="html")
    host = awake(ansible.sandbox)[0]["name"]
    vault_password = ansible.file("vault-password", "pass")
    key_file = ansible.file("letta.key", keys["file"] + "\n")
    variable_file = ansible.file("variable.key", keys["pathvar"] + "\n")
    ansible.file("vault.yml", _write_vaulted("vaulted_key", keys["vault"]))
    # Not in the playbook itself: Ansible shows its lines above a task that fails.
    ansible.file("plain.yml", f"plain_key: {keys['variable']}\nright_key: {ansible.sandbox.api_key}\n")
    given: dict[str, dict[str, Any]] = {
        "option": {"options": {"api_key": keys["option"]}},
        "variable": {"vars": {"letta_api_key": "{{ plain_key }}"}},
        "vault": {"vars": {"letta_api_key": "{{ vaulted_key }}"}},
        "vaulted option": {"options": {"api_key": "{{ vaulted_key }}"}},
        "file": {"options": {"api_key_file": str(key_file)}},
        "pathvar": {"vars": {"letta_api_key_file": str(variable_file)}},
        "environment": {},
    }
    steps = []
    for place, where in given.items():
        options, variables = where.get("options", {}), where.get("vars", {})
        info = step(f"info {place}", "environment_info", device_id="device", **options)
        send = step(f"send {place}", "send_message", content="Hello", agent_id=AGENT, targets=[host], **options)
        wrong = [
            step(f"choice {place}", "send_message", content="Hello", when_offline="sometimes", **options),
            step(f"type {place}", "environment_info", retries="long", **options),
            step(f"unknown {place}", "environment_info", api_kez="x", **options),
            step(f"late {place}", "send_message", content="Hello", targets=["nobody"], concurrency=0, **options),
            step(f"url {place}", "environment_info", base_url="https://a b", **options),
        ]
        steps += [{**task, "vars": variables} for task in (info, send, *wrong)]

    right = {"api_key": "{{ right_key }}"}
    run = ansible.steps(
        *steps,
        step("info echo", "environment_info", device_id="echo", **right),
        step("send echo", "send_message", content="Hello", agent_id=AGENT, targets=[host], **right),
        step("info forbidden", "environment_info", api_key="forbidden-key-for-loopback-only"),
        {"name": "variables", "ansible.builtin.debug": {"var": "hostvars['" + host + "']"}},
        arguments=("-vvvv", "--vault-password-file", str(vault_password)),
        vars_files=["vault.yml", "plain.yml"],
        source=ansible.source(api_key=ansible.sandbox.api_key),
        env={"LETTA_API_KEY": keys["environment"]},
    )

    assert "Traceback" not in run.output
    for name, key in {**keys, "inventory": ansible.sandbox.api_key}.items():
        assert key not in run.output, name
        assert key not in str(run.results), name
    for place in given:
        for kind in ("info", "send"):
            refused = run.result(f"{kind} {place}")["msg"]
            assert "401 Unauthorized: UNAUTHORIZED: A valid API key is required" in refused
            assert "api_key" in refused
        for kind, part in (
            ("choice", "sometimes"), ("type", "long"), ("unknown", "api_kez"), ("late", "concurrency"), ("url", "a b"),
        ):  # fmt: skip
            assert part in run.result(f"{kind} {place}")["msg"]
            assert "\n" not in run.result(f"{kind} {place}")["msg"]
    assert "400 Bad Request: SANDBOX_FAULT" in run.result("info echo")["msg"]
    assert "422" in run.result("send echo")["msg"]
    forbidden = run.result("info forbidden")["msg"]
    assert "403 Forbidden: FORBIDDEN: This key may not use environments" in forbidden
    assert "api_key" in forbidden
    requests = ansible.sandbox.requests()
    # The listing, one look-up and one message for each place, the three tasks after those, and a search for the
    # conversation before the message that the server takes the key for.
    assert len(requests) == 1 + 2 * len(given) + 3 + 1
    assert all(request["authorization"] for request in requests)


LITERAL = "secret-written-down-3f1b9c"
WRITTEN_DOWN: dict[str, dict[str, Any]] = {
    "play variables": {"vars": {"letta_api_key": LITERAL}},
    "module_defaults": {"module_defaults": {"group/fleetops.environments.letta": {"api_key": LITERAL}}},
    "the task": {},
}


@pytest.mark.covers("send_message", "api_key")
@pytest.mark.covers("environment_info", "api_key")
@pytest.mark.parametrize("verbosity", [(), ("-vvvv",)], ids=["quiet", "verbose"])
@pytest.mark.parametrize("place", WRITTEN_DOWN)
def test_a_key_written_into_a_playbook_is_not_shown_by_the_tasks_that_fail(
    ansible: Ansible, place: str, verbosity: tuple[str, ...]
) -> None:
    host = awake(ansible.sandbox)[0]["name"]
    own = {"api_key": LITERAL} if place == "the task" else {}
    undefined = {"letta_agent_id": "{{ nothing }}"}
    refused = [
        step("info", "environment_info", **own),
        step("send", "send_message", content="Hello", agent_id=AGENT, targets=[host], **own),
        step("wrong", "send_message", content="Hello", rate="fast", **own),
        {**step("agent", "send_message", content="Hello", targets=[host], **own), "vars": undefined},
        {**step("url", "environment_info", **own), "vars": {"letta_base_url": "{{ nothing }}"}},
    ]
    says = {
        "info": "401 Unauthorized",
        "send": "401 Unauthorized",
        "wrong": "rate: must be a number",
        "agent": "letta_agent_id: cannot be read: 'nothing' is undefined",
        "url": "letta_base_url: cannot be read: 'nothing' is undefined",
    }

    run = ansible.steps(*refused, arguments=verbosity, **WRITTEN_DOWN[place])

    assert [entry["outcome"] for entry in run.results] == ["failed"] * 5
    for name, said in says.items():
        assert said in run.result(name)["msg"]
        assert said in run.output
    assert LITERAL not in run.output
    assert LITERAL not in str(run.results)


def test_a_task_that_fails_in_a_playbook_without_a_key_is_shown(ansible: Ansible) -> None:
    run = ansible.task("environment_info", limit=0)

    run.assert_error("limit: must be 1 or more, got 0")
    assert f"Origin: {ansible.directory / 'play.yml'}:" in run.output
    assert "- name: it\n" in run.output


def _write_vaulted(name: str, text: str) -> str:
    """A variables file with one encrypted value (password `pass`)."""
    from ansible.parsing.vault import VaultLib, VaultSecret  # noqa: PLC0415 - Ansible is slow to import

    vault = VaultLib([("default", VaultSecret(b"pass"))])
    lines = vault.encrypt(text.encode()).decode().splitlines()
    return f"{name}: !vault |\n" + "".join(f"  {line}\n" for line in lines)


@pytest.mark.parametrize("package", ["httpx", "pydantic", "jmespath", "semantic_version"])
def test_a_missing_package_is_named_with_the_python_that_needs_it(ansible: Ansible, package: str) -> None:
    ansible.file(f"without/{package}.py", f"raise ImportError('No module named {package}')\n")

    run = ansible.steps(
        step("info", "environment_info"),
        {**step("send", "send_message", content="Hello"), "ignore_errors": False},
        source="localhost,",
        env={"PYTHONPATH": str(ansible.directory / "without")},
    )

    run.assert_error(package, sys.executable, "pip install")
    assert run.result("info")["msg"] == run.result("send")["msg"]
    assert "\n" not in run.result("info")["msg"]
    assert ansible.sandbox.requests() == []
