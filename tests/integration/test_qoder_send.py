"""send_message and reply_info to environments of Qoder, alone and together with Letta's, each with its own server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.sandbox.process import Sandbox
from tests.sandbox.qoder_process import QoderSandbox
from tests.sandbox.qoder_turns import QoderTurn

from .conftest import AGENT, Ansible, Run, awake, messages_of, step

QODER_AGENT = "agent_q"
QODER_KEY = "the-key-of-qoder-and-of-nobody-else"
ENDINGS = ("end_turn", "requires_action", "cancelled", "error", "terminated", "deleted")
ARCHIVED = {"status": "archived", "archived": True, "archived_at": "2026-01-01T00:00:00Z"}
ACTIVE = {"status": "active", "archived": False, "archived_at": None}


@dataclass(frozen=True)
class Fleet:
    """An inventory of both providers. server: the one with Qoder's environments."""

    ansible: Ansible
    server: Sandbox

    @property
    def qoder(self) -> QoderSandbox:
        return self.server.qoder

    @property
    def source(self) -> Path:
        return self.ansible.directory / "inventory"

    @property
    def env(self) -> dict[str, str]:
        return {"QODER_ACCESS_TOKEN": QODER_KEY, "QODER_MANAGED_BASE_URL": self.qoder.url}

    def add(self, *names: str, **row: Any) -> list[str]:
        """Environments that become these hosts, whose names begin with `q-`; return their ids."""
        return [str(self.qoder.add_environment(name=name.removeprefix("q-"), **row)["id"]) for name in names]

    def steps(self, *steps: Mapping[str, Any], **given: Any) -> Run:
        return self.ansible.steps(*steps, source=self.source, env=self.env | given.pop("env", {}), **given)

    def task(self, module: str, *arguments: str, **given: Any) -> Run:
        env = self.env | given.pop("env", {})
        return self.ansible.task(module, *arguments, source=self.source, env=env, **given)

    def sessions(self) -> dict[str, list[dict[str, Any]]]:
        """The sessions of each environment, by its host."""
        names = {entry["id"]: f"q-{entry['row']['name']}" for entry in self.qoder.environments()}
        found: dict[str, list[dict[str, Any]]] = {}
        for session in self.qoder.sessions():
            found.setdefault(names[session["environment_id"]], []).append(session)
        return found

    def asked(self) -> list[str]:
        """The routes of Qoder's API that were used, besides the listing of the inventory."""
        return [entry["route"] for entry in self.server.requests() if entry["route"] != "qoder_list"]


@pytest.fixture
def fleet(ansible: Ansible, other_sandbox: Sandbox) -> Fleet:
    other_sandbox.qoder.account("default", QODER_KEY)
    ansible.file("inventory/fleet.letta.yml", yaml.safe_dump({"plugin": "fleetops.environments.letta"}))
    options = {"plugin": "fleetops.environments.qoder", "include_archived": True, "hostname_prefix": "q-"}
    ansible.file("inventory/fleet.qoder.yml", yaml.safe_dump(options))
    return Fleet(ansible, other_sandbox)


def errors(run: Run) -> dict[str, str]:
    """Task → its error, for the tasks that failed; each error is one line."""
    found = {entry["task"]: entry["result"]["msg"] for entry in run.results if entry["outcome"] == "failed"}
    assert all("\n" not in message for message in found.values())
    return found


def test_the_current_host_gets_the_message_in_a_session_of_its_own(fleet: Fleet) -> None:
    ids = fleet.add("q-alpha", "q-beta")

    run = fleet.task("send_message", play={"hosts": "q-alpha,q-beta"}, content="hello", agent=QODER_AGENT)

    run.assert_quiet()
    for name, identity in zip(("q-alpha", "q-beta"), ids, strict=True):
        [session] = fleet.sessions()[name]
        assert (session["agent_id"], session["messages"], session["turns"]) == (QODER_AGENT, ["hello"], 1)
        result = run.result("it", name)
        assert (result["status"], result["changed"], result["id"], result["via"]) == ("sent", True, identity, "rest")
        assert (result["session_id"], result["conversation_id"]) == (session["id"], session["id"])
        assert (result["agent_id"], result["connection_id"], result["attempts"]) == (QODER_AGENT, None, 1)
        assert result["otid"].startswith("evt_")
        assert (result["reason"], result["error"]) == (None, None)


@pytest.mark.covers("send_message", "agent", "session_id")
def test_an_entry_overrides_host_variables_and_they_override_options(fleet: Fleet) -> None:
    fleet.add("q-bare", "q-variables", "q-whole")
    fleet.ansible.file("host_vars/q-variables.yml", yaml.safe_dump({"qoder_agent": "agent_host"}))
    fleet.ansible.file("host_vars/q-whole.yml", yaml.safe_dump({"qoder_agent": "agent_host"}))
    agent = {"id": "agent_entry", "type": "agent", "version": 3}
    targets = ["q-bare", "q-variables", {"host": "q-whole", "agent": agent}]

    made = fleet.task("send_message", targets=targets, content="first", agent="agent_option")

    made.assert_quiet()
    own = {name: sessions[0]["id"] for name, sessions in fleet.sessions().items()}
    assert {entry["host"]: entry["session_id"] for entry in made.result("it")["targets"]} == own
    assert {name: sessions[0]["agent_id"] for name, sessions in fleet.sessions().items()} == {
        "q-bare": "agent_option", "q-variables": "agent_host", "q-whole": "agent_entry",
    }  # fmt: skip
    assert fleet.sessions()["q-whole"][0]["agent_version"] == 3

    fleet.ansible.file("host_vars/q-variables.yml", yaml.safe_dump({"qoder_session_id": own["q-variables"]}))
    fleet.ansible.file("host_vars/q-whole.yml", yaml.safe_dump({"qoder_session_id": own["q-variables"]}))
    targets = ["q-bare", "q-variables", {"host": "q-whole", "session_id": own["q-whole"]}]
    given = fleet.task("send_message", targets=targets, content="second", session_id=own["q-bare"])

    given.assert_quiet()
    assert [entry["session_id"] for entry in given.result("it")["targets"]] == [own[name] for name in own]
    assert [session["messages"] for session in fleet.qoder.sessions()] == [["first", "second"]] * 3


def test_the_agent_must_be_known(fleet: Fleet) -> None:
    fleet.add("q-alpha", "q-beta")

    run = fleet.steps(
        step("none", "send_message", targets=[{"host": "q-alpha", "agent": "agent_a"}, "q-beta"], content="hello"),
        step("list", "send_message", targets=["q-alpha"], content="hello", agent=[]),
        step("agent_id", "send_message", targets=["q-alpha"], content="hello", agent_id="agent_a"),
        step("new", "send_message", targets=["q-alpha"], content="hello", session_id="new"),
        step("other", "send_message", targets=["q-alpha"], content="hello", agent=["agent_a"]),
    )

    way_out = "give it with the task, its entry of targets or its qoder_agent, or give a session_id"
    assert errors(run) == {
        "none": f"agent: q-beta has none, and a session needs one; {way_out}",
        "list": f"agent: q-alpha has none, and a session needs one; {way_out}",
        "agent_id": f"agent: q-alpha has none, and a session needs one; {way_out}",
        "new": f"agent: q-alpha has none, and a session needs one; {way_out}",
        "other": "agent: that of q-alpha must be an id or a dictionary, got ['agent_a']",
    }
    assert fleet.asked() == []


def test_the_content_may_come_from_any_source(fleet: Fleet) -> None:
    fleet.add("q-alpha")
    fleet.ansible.file("said.txt", "from a file {{ 1 + 1 }}\n")
    fleet.ansible.file("said.j2", "to {{ inventory_hostname }}, {{ qoder_config_type }}")
    to = {"targets": ["q-alpha"], "agent": QODER_AGENT}
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]

    run = fleet.steps(
        step("parts", "send_message", **to, content=parts),
        step("entry", "send_message", **to | {"targets": [{"host": "q-alpha", "content": "its own"}]}),
        step("file", "send_message", **to, content_file="said.txt"),
        step("template", "send_message", **to, content_template="said.j2"),
        step("messages", "send_message", **to, messages=[{"content": "a"}, {"content": "b"}]),
    )

    run.assert_quiet()
    assert [session["messages"] for session in fleet.sessions()["q-alpha"]] == [
        ["one\ntwo"], ["its own"], ["from a file {{ 1 + 1 }}\n"], ["to q-alpha, cloud"], ["a", "b"],
    ]  # fmt: skip
    assert [session["turns"] for session in fleet.sessions()["q-alpha"]] == [1] * 5


def test_unsupported_options_are_refused_before_anything_is_sent(fleet: Fleet) -> None:
    fleet.add("q-alpha", "q-beta")
    letta = str(awake(fleet.ansible.sandbox)[0]["name"])
    to = {"targets": [letta, "q-alpha"], "agent": QODER_AGENT, "agent_id": AGENT}
    only = "q-alpha is an environment of qoder, and {} works with letta only"
    approval = {"type": "approval", "approvals": [{"tool_call_id": "call-1", "approve": True}]}

    run = fleet.steps(
        step("approvals", "send_message", **to, approvals=[{"tool_call_id": "call-1", "approve": True}]),
        step("messages", "send_message", **to, messages=[{"content": "a"}, approval]),
        step("self_update", "send_message", **to, self_update=True),
        step("environment_command", "environment_command", targets=["q-alpha"], command="reload", agent_id=AGENT),
        step("environment_turn", "environment_turn", targets=["q-alpha"], state="aborted", agent_id=AGENT),
        step("environment_mode", "environment_mode", targets=["q-alpha"], mode="acceptEdits", agent_id=AGENT),
        step("the module", "self_update", targets=["q-alpha"], target_version="0.1.0", agent_id=AGENT),
        step("wait_for_environment", "wait_for_environment", targets=["q-alpha"]),
    )

    no_approval = "an approval is not sent to an environment of Qoder by this collection; answer it in the session"
    nothing_to_update = "an environment of Qoder is a template, which has nothing to update"
    assert errors(run) == {
        "approvals": f"approvals: cannot be sent to q-alpha: {no_approval}",
        "messages": f"messages: cannot be sent to q-alpha: {no_approval}",
        "self_update": f"self_update: cannot be sent to q-alpha: {nothing_to_update}",
        "the module": only.format("self_update"),
        **{
            name: only.format(name)
            for name in ("environment_command", "environment_turn", "environment_mode", "wait_for_environment")
        },
    }
    assert fleet.asked() == []
    assert fleet.ansible.sandbox.received() == {}


def test_check_mode_creates_nothing(fleet: Fleet) -> None:
    fleet.add("q-alpha")
    fleet.add("q-beta", **ARCHIVED)
    to = {"targets": ["q-alpha", "q-beta"], "content": "hello", "agent": QODER_AGENT, "when_offline": "skip"}

    run = fleet.steps(
        step("plain", "send_message", **to),
        step("campaign", "send_message", **to, campaign="c", ledger="ledger.sqlite", wait_for_reply=True),
        arguments=("--check",),
    )

    run.assert_quiet()
    for task in ("plain", "campaign"):
        result = run.result(task)
        assert (result["changed"], result["msg"]) == (True, "would send to 2 of 2 targets, 1 of them listed as offline")
        assert result["would_send"][0]["agent_id"] == QODER_AGENT
    assert fleet.asked() == []
    assert not (fleet.ansible.directory / "ledger.sqlite").exists()


def test_every_outcome_of_a_turn_is_distinguished_at_once_and_later(fleet: Fleet) -> None:
    hosts = [f"q-{ends}" for ends in (*ENDINGS, "long")]
    fleet.add(*hosts)
    for ends in ENDINGS:
        fleet.qoder.script(f"agent_{ends}", QoderTurn(ends=ends, texts=[f"It is {ends}."]))
    fleet.qoder.script("agent_long", QoderTurn(polls=1000))
    targets = [{"host": host, "agent": f"agent_{host.removeprefix('q-')}"} for host in hosts]

    asked = {"targets": targets, "content": "hello", "wait_for_reply": True, "max_failures": "100%"}
    run = fleet.steps(
        step("ask", "send_message", **asked, reply_timeout=3) | {"register": "asked"},
        step("look", "reply_info", replies="{{ asked.targets }}"),
    )

    run.assert_quiet()
    sent, found = run.result("ask"), run.result("look")
    states = ["replied", "needs_approval", "failed", "failed", "failed", "lost", "waiting"]
    assert [entry["status"] for entry in sent["targets"]] == ["sent"] * 7
    assert sent["replies"] == {"replied": 1, "waiting": 1, "needs_approval": 1, "failed": 3, "lost": 1}
    for replies in ([entry["reply"] for entry in sent["targets"]], found["replies"]):
        assert [reply["state"] for reply in replies] == states
        assert [reply["stop_reason"] for reply in replies] == [*ENDINGS, None]
        assert [reply["text"] for reply in replies[:6]] == [f"It is {ends}." for ends in ENDINGS]
        assert [reply["error"] and reply["error"]["code"] for reply in replies[:6]] == [
            None, "needs_approval", "reply_failed", "reply_failed", "reply_failed", "reply_lost",
        ]  # fmt: skip
        assert [reply["event_id"] for reply in replies] == [entry["otid"] for entry in sent["targets"]]
        [pending] = replies[1]["pending_approvals"]
        assert (pending["tool_name"], pending["arguments"]) == ("Bash", {"command": "true"})
    assert sent["targets"][6]["error"]["code"] == "reply_timeout"
    assert [reply["session_id"] for reply in found["replies"]] == [entry["session_id"] for entry in sent["targets"]]
    assert sent["failed_hosts"] == hosts[1:]


@pytest.mark.covers("reply_info", "session_id")
def test_a_reply_is_found_by_its_session(fleet: Fleet) -> None:
    fleet.add("q-alpha", "q-beta")
    fleet.qoder.script(QODER_AGENT, "one", "two")
    sent = fleet.task("send_message", targets=["q-alpha", "q-beta"], content="hello", agent=QODER_AGENT, concurrency=1)
    of = {entry["host"]: entry for entry in sent.result("it")["targets"]}
    gone = {**of["q-beta"], "host": "was-removed", "id": None}

    fleet.ansible.file("host_vars/q-beta.yml", yaml.safe_dump({"qoder_session_id": of["q-beta"]["session_id"]}))
    known = {"client_message_id": of["q-alpha"]["client_message_id"]}
    option = fleet.task("reply_info", play={"hosts": "q-alpha"}, session_id=of["q-alpha"]["session_id"], **known)
    variable = fleet.task("reply_info", play={"hosts": "q-beta"}, session_id=of["q-alpha"]["session_id"], **known)
    alone = fleet.steps(
        step("without an id", "reply_info", session_id=of["q-alpha"]["session_id"]),
        step("no session", "reply_info", **known),
        step("gone", "reply_info", replies=[gone]),
        hosts="q-alpha",
    )

    for run, text in ((option, "one"), (variable, "two")):
        run.assert_quiet()
        [reply] = run.result("it")["replies"]
        assert (reply["state"], reply["text"]) == ("replied", text)
    [reply] = alone.result("without an id")["replies"]
    assert (reply["text"], reply["agent_id"], reply["client_message_id"]) == ("one", None, None)
    assert alone.result("gone")["replies"][0]["text"] == "two"
    assert errors(alone) == {"no session": "reply_info: has no session_id"}


def test_an_agent_given_as_a_dictionary_is_the_same_text_in_send_and_reply(fleet: Fleet) -> None:
    fleet.add("q-alpha")
    agent = {"type": "agent", "id": QODER_AGENT, "version": 3}
    fleet.ansible.file("host_vars/q-alpha.yml", yaml.safe_dump({"qoder_agent": agent}))

    run = fleet.steps(
        step("ask", "send_message", content="hello") | {"register": "asked"},
        step("look", "reply_info", session_id="{{ asked.session_id }}"),
        hosts="q-alpha",
    )

    run.assert_quiet()
    [reply] = run.result("look")["replies"]
    assert reply["agent_id"] == run.result("ask")["agent_id"] == json.dumps(agent, sort_keys=True)


@pytest.mark.parametrize(("when_offline", "outcome"), [("skip", "ok"), ("fail", "failed")])
def test_an_archived_environment_is_offline(fleet: Fleet, when_offline: str, outcome: str) -> None:
    fleet.add("q-alpha")
    fleet.add("q-beta", **ARCHIVED)
    to = {"targets": ["q-alpha", "q-beta"], "content": "hello", "agent": QODER_AGENT, "when_offline": when_offline}

    run = fleet.task("send_message", **to)

    result = run.result("it")
    assert [entry["status"] for entry in result["targets"]] == ["sent", "offline"]
    assert result["targets"][1]["error"] == {"code": "offline", "message": "the environment is archived"}
    assert run.results[0]["outcome"] == outcome
    assert list(fleet.sessions()) == ["q-alpha"]


def test_an_environment_that_is_no_longer_archived_gets_the_message_if_it_is_waited_for(fleet: Fleet) -> None:
    [identity] = fleet.add("q-alpha", **ARCHIVED)

    def bring_back() -> None:
        deadline = time.monotonic() + 60
        while "qoder_environment" not in fleet.asked() and time.monotonic() < deadline:
            time.sleep(0.2)
        fleet.qoder.patch(identity, **ACTIVE)

    bringing_back = threading.Thread(target=bring_back)
    bringing_back.start()
    run = fleet.task("send_message", targets=["q-alpha"], content="hello", agent=QODER_AGENT, when_offline="wait")
    bringing_back.join()

    run.assert_quiet()
    assert [entry["status"] for entry in run.result("it")["targets"]] == ["sent"]
    assert fleet.sessions()["q-alpha"][0]["turns"] == 1


def test_one_task_serves_both_providers_with_their_own_keys(fleet: Fleet) -> None:
    fleet.add("q-alpha", "q-beta")
    letta = awake(fleet.ansible.sandbox)[:2]
    names = ["q-alpha", letta[0]["name"], "q-beta", letta[1]["name"]]
    asked = {"targets": names, "content": "hello", "agent": QODER_AGENT, "agent_id": AGENT, "wait_for_reply": True}

    run = fleet.steps(
        step("ask", "send_message", **asked) | {"register": "asked"},
        step("look", "reply_info", replies="{{ asked.targets }}", reply_dir="answers"),
        arguments=("-vvvv",),
    )

    assert run.returncode == 0
    result = run.result("ask")
    assert [(entry["host"], entry["status"]) for entry in result["targets"]] == [(name, "sent") for name in names]
    assert [entry["agent_id"] for entry in result["targets"]] == [QODER_AGENT, AGENT] * 2
    assert [bool(entry["session_id"]) for entry in result["targets"]] == [True, False] * 2
    assert run.result("look")["counts"]["replied"] == 4
    assert len(list((fleet.ansible.directory / "answers").iterdir())) == 4
    assert [session["messages"] for session in fleet.qoder.sessions()] == [["hello"]] * 2
    assert [len(messages_of(fleet.ansible.sandbox, entry)) for entry in letta] == [1, 1]
    # Each server knows only its own key, and refused no request.
    for server, of_qoder in ((fleet.ansible.sandbox, False), (fleet.server, True)):
        log = server.requests()
        assert {entry["route"].startswith("qoder_") for entry in log} == {of_qoder}
        assert not [entry for entry in log if entry["account"] is None or entry["status"] >= 400]
    for key in (QODER_KEY, fleet.ansible.sandbox.api_key):
        assert key not in run.output
        assert key not in json.dumps(run.results)


@pytest.mark.parametrize("groups", [("letta",), ("letta", "qoder"), ("qoder", "letta")], ids=" ".join)
def test_the_defaults_of_an_action_group_apply_to_its_own_provider(fleet: Fleet, groups: tuple[str, ...]) -> None:
    """Otherwise Letta's key would be sent to Qoder's server."""
    fleet.add("q-alpha")
    sandbox = fleet.ansible.sandbox
    letta = str(awake(sandbox)[0]["name"])
    static = fleet.ansible.static(fleet.ansible.listing(source=fleet.source, env=fleet.env))
    keys = {"letta": sandbox.api_key, "qoder": QODER_KEY}
    told = {"content": "hello", "agent": QODER_AGENT, "agent_id": AGENT, "retries": 0}

    run = fleet.ansible.steps(
        step("both", "send_message", **told, targets=["q-alpha", letta]),
        step("one", "send_message", **told, targets=["q-alpha"]),
        step("other", "send_message", **told, targets=[letta]),
        step("info", "environment_info", provider="qoder", base_url=fleet.qoder.url),
        source=static, env={"LETTA_API_KEY": "", "QODER_ACCESS_TOKEN": "" if "qoder" in groups else QODER_KEY},
        module_defaults={f"group/fleetops.environments.{name}": {"api_key": keys[name]} for name in groups},
    )  # fmt: skip

    assert run.result("both")["counts"]["sent"] == 2
    assert run.result("one")["counts"]["sent"] == run.result("other")["counts"]["sent"] == 1
    assert [entry["name"] for entry in run.result("info")["environments"]].count("alpha") == 1
    assert [session["turns"] for session in fleet.qoder.sessions()] == [1, 1]


@pytest.mark.parametrize("fact", ["other", "my_key"])
def test_a_default_that_depends_on_the_host_is_not_sent_to_a_delegate_of_another_provider(
    fleet: Fleet, fact: str
) -> None:
    fleet.add("q-alpha")
    sandbox = fleet.ansible.sandbox
    letta = str(awake(sandbox)[0]["name"])
    static = fleet.ansible.static(fleet.ansible.listing(source=fleet.source, env=fleet.env))

    run = fleet.ansible.steps(
        {"name": "lie", "ansible.builtin.set_fact": {fact: "of-a-fact", "cacheable": True}},
        {**step("it", "send_message", content="hello", agent=QODER_AGENT, retries=0), "delegate_to": "q-alpha"},
        source=static, hosts=letta, env=fleet.env | {"ANSIBLE_INJECT_FACT_VARS": "true"},
        vars={"my_key": f"{{{{ {{{letta!r}: {sandbox.api_key!r}}}[inventory_hostname] | default('other') }}}}"},
        module_defaults={"group/fleetops.environments.letta": {"api_key": "{{ my_key }}"}},
    )  # fmt: skip

    assert run.result("it")["status"] == "sent"
    assert len(fleet.qoder.sessions()) == 1


@pytest.mark.parametrize("by", ["task", "module_defaults"])
@pytest.mark.parametrize("option", ["api_key", "api_key_file", "base_url"])
def test_options_of_one_provider_are_not_given_to_another(fleet: Fleet, by: str, option: str) -> None:
    fleet.add("q-alpha")
    letta = str(awake(fleet.ansible.sandbox)[0]["name"])
    fleet.ansible.file("key", f"{QODER_KEY}\n")
    value = {"api_key": QODER_KEY, "api_key_file": "key", "base_url": "http://127.0.0.1:9"}[option]
    own, defaults = {option: value}, {}
    if by == "module_defaults":
        own, defaults = {}, {"fleetops.environments.send_message": own}
    static = fleet.ansible.static(fleet.ansible.listing(source=fleet.source, env=fleet.env))
    told = {"content": "hello", "agent": QODER_AGENT, "agent_id": AGENT, "retries": 0, **own}

    run = fleet.ansible.steps(
        step("both", "send_message", **told, targets=["q-alpha", letta]),
        step("one", "send_message", **told, targets=["q-alpha"]),
        source=static, env={"QODER_ACCESS_TOKEN": QODER_KEY if option == "base_url" else "a-key-that-is-wrong"},
        module_defaults=defaults,
    )  # fmt: skip

    assert errors(run)["both"] == (
        f"{option}: is one provider's, and targets are of letta, qoder; give each its own with "
        f"letta_{option}, qoder_{option}"
    )
    assert fleet.ansible.sandbox.received() == {}
    [one] = run.result("one")["targets"]
    if option == "base_url":
        assert (one["status"], one["error"]["code"]) == ("failed", "connect")
        assert fleet.qoder.sessions() == []
    else:
        assert one["status"] == "sent"
        assert len(fleet.qoder.sessions()) == 1


def test_a_row_of_environment_info_makes_a_target_of_a_host_that_no_inventory_has(fleet: Fleet) -> None:
    [identity] = fleet.add("q-alpha")
    found = {**step("found", "environment_info", provider="qoder", name="alpha"), "register": "found"}
    contract = "{{ found.environments[0].fleetops_environment }}"
    add = {"ansible.builtin.add_host": {"name": "mine", "fleetops_environment": contract}}
    whole = {"hosts": "localhost", "gather_facts": False, "tasks": [found, add]}
    send = step("it", "send_message", content="hello", agent=QODER_AGENT)

    run = fleet.ansible.playbook(
        [whole, {**whole, "hosts": "mine", "tasks": [send]}], source="localhost,", env=fleet.env
    )

    run.assert_quiet()
    assert (run.result("it")["host"], run.result("it")["id"]) == ("mine", identity)
    assert [session["messages"] for [session] in fleet.sessions().values()] == [["hello"]]


@pytest.mark.parametrize("own", [{}, {"timeout": 0}], ids=["the group's alone", "the task's too"])
def test_each_option_of_the_connection_in_a_groups_defaults_is_for_its_own_provider(
    fleet: Fleet, own: dict[str, Any]
) -> None:
    fleet.add("q-alpha")
    letta = str(awake(fleet.ansible.sandbox)[0]["name"])
    static = fleet.ansible.static(fleet.ansible.listing(source=fleet.source, env=fleet.env))
    told = {"content": "hello", "agent": QODER_AGENT, "agent_id": AGENT, "retries": 0, **own}

    run = fleet.ansible.steps(
        step("qoder", "send_message", **told, targets=["q-alpha"]),
        step("letta", "send_message", **told, targets=[letta]),
        source=static, env=fleet.env, module_defaults={"group/fleetops.environments.letta": {"timeout": 0}},
    )  # fmt: skip

    refused = "timeout: must be between 0 and 86400 seconds, got 0.0"
    assert errors(run) == ({"qoder": refused, "letta": refused} if own else {"letta": refused})


@pytest.mark.parametrize(
    ("route", "fault"), [("qoder_send", "drop_before"), ("qoder_send", "drop_after"), ("qoder_create", "drop_after")]
)
def test_the_attempts_of_a_task_make_one_session_with_one_message(fleet: Fleet, route: str, fault: str) -> None:
    fleet.add("q-alpha", "q-beta")
    letta = str(awake(fleet.ansible.sandbox)[0]["name"])
    fleet.server.add_fault(fault, route=route, times=1)
    told = {"targets": ["q-alpha", "q-beta", letta], "content": "hello", "agent": QODER_AGENT, "agent_id": AGENT}
    until = {"register": "told", "until": "told is success", "retries": 3, "delay": 0}

    run = fleet.task("send_message", **told, wait_for_reply=True, retries=0, keywords=until)

    run.assert_quiet()
    assert (run.result("it")["attempts"], run.result("it")["counts"]["sent"]) == (2, 3)
    sessions = fleet.sessions()
    assert [len(sessions[name]) for name in ("q-alpha", "q-beta")] == [1, 1]
    assert [sessions[name][0]["messages"] for name in ("q-alpha", "q-beta")] == [["hello"], ["hello"]]
    assert [device["turns"] for device in fleet.ansible.sandbox.received().values()] == [1]


def test_a_delegate_of_the_other_provider_is_reached_with_its_own_key(fleet: Fleet) -> None:
    fleet.add("q-alpha")
    letta = str(awake(fleet.ansible.sandbox)[0]["name"])
    fleet.ansible.file("host_vars/q-alpha.yml", yaml.safe_dump({"qoder_agent": QODER_AGENT}))
    delegated = {"play": {"hosts": letta}, "keywords": {"delegate_to": "q-alpha"}}

    run = fleet.task("send_message", content="hello", agent="agent_other", **delegated)

    run.assert_quiet()
    assert (run.result("it")["host"], run.result("it")["provider"]) == ("q-alpha", "qoder")
    [session] = fleet.sessions()["q-alpha"]
    assert (session["agent_id"], session["messages"]) == (QODER_AGENT, ["hello"])
    assert fleet.ansible.sandbox.received() == {}


def test_a_campaign_that_is_run_twice_is_ok_and_sends_nothing(fleet: Fleet) -> None:
    [identity] = fleet.add("q-alpha")
    letta = str(awake(fleet.ansible.sandbox)[0]["name"])
    kept = {"campaign": "c", "ledger": "ledger.sqlite"}
    send = {"targets": ["q-alpha", letta], "content": "hello", "agent": QODER_AGENT, "agent_id": AGENT, **kept}

    runs = [fleet.task("send_message", **send, wait_for_reply=True) for _number in range(2)]
    shown = fleet.steps(
        step("deliveries", "campaign_info", **kept, include_deliveries=True),
        step("other content", "send_message", **send | {"content": "bye"}),
    )

    results = [run.result("it") for run in runs]
    for run, status, changed in zip(runs, ("sent", "already_sent"), (True, False), strict=True):
        run.assert_quiet()
        result = run.result("it")
        assert ([entry["status"] for entry in result["targets"]], result["changed"]) == ([status] * 2, changed)
        assert result["replies"]["replied"] == 2
    [session] = fleet.sessions()["q-alpha"]
    assert session["turns"] == 1
    assert [entry["targets"][0]["session_id"] for entry in results] == [session["id"]] * 2
    assert results[0]["targets"][0]["otid"] == results[1]["targets"][0]["otid"]
    of = {row["environment_id"]: row for row in shown.result("deliveries")["deliveries"]}
    posts = {entry["route"]: entry["idempotency_key"] for entry in fleet.server.requests() if entry["method"] == "POST"}
    row = of.pop(identity)
    assert {"qoder_create": row["session_key"], "qoder_send": row["message_key"]} == posts
    assert (row["conversation_id"], row["otid"]) == (session["id"], results[0]["targets"][0]["otid"])
    assert [(other["session_key"], other["message_key"]) for other in of.values()] == [(None, None)]
    assert errors(shown)["other content"].startswith("campaign: 'c' has had other content for q-alpha since ")


def test_a_common_id_is_used_for_each_environment(fleet: Fleet) -> None:
    fleet.add("q-alpha", "q-beta")
    send = {"targets": ["q-alpha", "q-beta"], "content": "hello", "agent": QODER_AGENT, "client_message_id": "nightly"}

    for _number in range(2):
        run = fleet.task("send_message", **send)
        run.assert_quiet()
        assert [entry["status"] for entry in run.result("it")["targets"]] == ["sent", "sent"]

    assert [session["turns"] for session in fleet.qoder.sessions()] == [1, 1]
