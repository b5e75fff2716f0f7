"""send_message without targets: to the play's current host."""

from __future__ import annotations

import threading
import time

import pytest
import yaml

from tests.sandbox.process import Sandbox

from .conftest import AGENT, Ansible, awake, messages_of, step


def _hosts(sandbox: Sandbox, count: int) -> tuple[list[dict[str, object]], str]:
    """This number of environments, and the pattern that selects exactly them."""
    chosen = awake(sandbox)[:count]
    return chosen, ",".join(str(entry["name"]) for entry in chosen)


@pytest.mark.covers("send_message", "content", "agent_id")
def test_each_host_gets_one_message_each_time_and_none_in_check_mode(ansible: Ansible) -> None:
    chosen, pattern = _hosts(ansible.sandbox, 3)
    play = [
        {
            "hosts": pattern,
            "gather_facts": False,
            "tasks": [
                {
                    "name": "send",
                    "fleetops.environments.send_message": {
                        "content": "Report, {{ inventory_hostname }}.",
                        "agent_id": AGENT,
                    },
                }
            ],
        }
    ]

    checked = ansible.playbook(play, "--check")
    checked.assert_quiet()
    assert ansible.sandbox.received() == {}
    assert ansible.sandbox.requests("messages") == []
    for entry in chosen:
        result = checked.result("send", entry["name"])
        assert result["changed"] is True
        assert result["status"] == "not_attempted"
        assert [would["messages"][0]["content"] for would in result["would_send"]] == [f"Report, {entry['name']}."]

    for time_ in (1, 2):
        run = ansible.playbook(play)
        run.assert_quiet()
        received = ansible.sandbox.received()
        assert {id_: device["turns"] for id_, device in received.items()} == {entry["id"]: time_ for entry in chosen}
        for entry in chosen:
            result, message = run.result("send", entry["name"]), received[entry["id"]]["messages"][-1]
            assert (result["changed"], result["status"], result["attempts"]) == (True, "sent", 1)
            assert result["client_message_id"] == message["client_message_id"] == message["otid"]
            assert message["content"] == f"Report, {entry['name']}."
            assert (message["agentId"], result["agent_id"]) == (AGENT, AGENT)
            assert (result["id"], result["connection_id"]) == (entry["id"], entry["row"]["connectionId"])
            assert result["response_message"] == "Message sent to environment"


@pytest.mark.covers("send_message", "when_offline", "offline_timeout")
def test_when_offline_decides_whether_an_offline_host_is_skipped_or_fails(ansible: Ansible) -> None:
    entry = next(entry for entry in ansible.sandbox.fleet() if not entry["online"])
    say = {"content": "Hello", "agent_id": AGENT}

    run = ansible.steps(
        step("default", "send_message", **say),
        step("skip", "send_message", **say, when_offline="skip"),
        step("fail", "send_message", **say, when_offline="fail"),
        step("wait", "send_message", **say, when_offline="wait", offline_timeout=1.5),
        hosts=entry["name"],
    )

    assert ansible.sandbox.requests("messages") == []
    assert [entry["outcome"] for entry in run.results] == ["skipped", "skipped", "failed", "failed"]
    for name in ("default", "skip", "fail", "wait"):
        result = run.result(name)
        assert (result["status"], result["changed"], result["error"]["code"]) == ("offline", False, "offline")
        assert result["msg"] == f"{entry['name']}: offline: the environment is offline"
    # Each is looked up once; only the waiting one is looked up again and again.
    lookups = ansible.sandbox.requests("retrieve")
    assert len(lookups) >= 3 + 2
    assert 1.2 <= lookups[-1]["at"] - lookups[3]["at"] <= 3


@pytest.mark.covers("send_message", "when_offline")
def test_a_host_that_comes_online_during_the_wait_gets_the_message_once(ansible: Ansible) -> None:
    entry = next(entry for entry in ansible.sandbox.fleet() if not entry["online"])
    stop = threading.Event()

    def come_online_after_the_first_look() -> None:
        while not stop.is_set():
            if ansible.sandbox.requests("retrieve"):
                ansible.sandbox.online(entry["id"])
                return
            time.sleep(0.1)

    thread = threading.Thread(target=come_online_after_the_first_look)
    thread.start()
    try:
        run = ansible.task(
            "send_message", play={"hosts": entry["name"]}, content="Hello", agent_id=AGENT, when_offline="wait"
        )
    finally:
        stop.set()
        thread.join()

    run.assert_quiet()
    result = run.result("it")
    assert (result["status"], result["changed"], result["error"]) == ("sent", True, None)
    assert len(messages_of(ansible.sandbox, entry)) == 1
    assert result["connection_id"] == {e["id"]: e for e in ansible.sandbox.fleet()}[entry["id"]]["row"]["connectionId"]


@pytest.mark.covers("send_message", "agent_id", "conversation_id", "client_message_id")
def test_host_variables_override_the_options_for_agent_and_conversation(ansible: Ansible) -> None:
    (named, plain), pattern = _hosts(ansible.sandbox, 2)
    own = {"letta_agent_id": "agent-of-host", "letta_conversation_id": "conv-of-host"}
    ansible.file(f"host_vars/{named['name']}.yml", yaml.safe_dump(own))

    run = ansible.steps(
        step("options", "send_message", content="1", agent_id="agent-option", conversation_id="conv-option"),
        step("none", "send_message", content="2"),
        step("new", "send_message", content="3", agent_id="agent-option", conversation_id="new"),
        step("repeat", "send_message", content="4", agent_id=AGENT, client_message_id="message-7"),
        step("repeat again", "send_message", content="4", agent_id=AGENT, client_message_id="message-7"),
        hosts=pattern,
    )

    run.assert_quiet()
    sent = {entry["name"]: messages_of(ansible.sandbox, entry) for entry in (named, plain)}
    wire = {
        name: [(message["agentId"], message["conversationId"]) for message in got[:2]] for name, got in sent.items()
    }
    assert wire == {
        named["name"]: [("agent-of-host", "conv-of-host")] * 2,
        plain["name"]: [("agent-option", "conv-option"), (None, None)],
    }
    assert run.result("none", named["name"])["reason"] is None
    undecided = run.result("none", plain["name"])
    assert (undecided["status"], undecided["agent_id"], undecided["conversation_id"]) == ("sent", None, None)
    assert undecided["reason"] == "no agent_id: the environment decides who answers"
    assert undecided["reason"] in undecided["msg"]

    assert sent[named["name"]][2]["conversationId"] == "conv-of-host"
    made = sent[plain["name"]][2]["conversationId"]
    assert made.startswith("conv-")
    assert made == run.result("new", plain["name"])["conversation_id"]
    assert [request["query"] for request in ansible.sandbox.requests("conversations")] == [{"agent_id": "agent-option"}]

    for entry in (named, plain):
        assert run.result("repeat again", entry["name"])["client_message_id"] == "message-7"
        received = ansible.sandbox.received()[entry["id"]]
        assert (received["posts"], received["turns"], received["duplicates"]) == (5, 4, 1)
        assert [message["client_message_id"] for message in received["messages"][3:]] == ["message-7"]


@pytest.mark.covers("send_message", "agent_id")
def test_variables_of_play_and_task_and_facts_can_name_the_agent(ansible: Ansible) -> None:
    (entry,), pattern = _hosts(ansible.sandbox, 1)
    fact = {"name": "fact", "ansible.builtin.set_fact": {"letta_agent_id": "agent-of-fact"}}

    run = ansible.steps(
        step("play", "send_message", content="1", agent_id="agent-option"),
        {
            **step("task", "send_message", content="2", agent_id="agent-option"),
            "vars": {"letta_agent_id": "agent-of-task"},
        },
        fact,
        step("fact", "send_message", content="3", agent_id="agent-option"),
        hosts=pattern,
        vars={"letta_agent_id": "agent-of-play"},
    )

    run.assert_quiet()
    agents = [message["agentId"] for message in messages_of(ansible.sandbox, entry)]
    assert agents == ["agent-of-play", "agent-of-task", "agent-of-fact"]


@pytest.mark.covers("send_message", "content", "content_file", "content_template", "messages", "approvals")
def test_every_kind_of_content_reaches_the_device_unchanged(ansible: Ansible) -> None:
    (entry,), pattern = _hosts(ansible.sandbox, 1)
    raw = "Not a template: {{ inventory_hostname }} ünïcödé\nsecond line\n"
    ansible.file("files/plain.txt", raw)
    ansible.file("templates/part.j2", "the part for {{ inventory_hostname }}")
    ansible.file(
        "templates/text.j2",
        "{% for word in words %}\n{{ word }}\n{% endfor %}\n{{ extra }} {{ letta_os }} {% include 'part.j2' %}\n",
    )
    parts = [{"type": "text", "text": "one {{ 1 + 1 }}"}, {"text": "two"}]
    messages = [
        {"role": "user", "content": "first", "client_message_id": "cm-1"},
        {"role": "user", "content": [{"type": "text", "text": "second"}], "client_message_id": "cm-2", "otid": "o-2"},
        {"content": "third"},
        {"type": "approval", "approvals": [{"tool_call_id": "call-0", "approve": True}]},
    ]
    approvals = [
        {"tool_call_id": "call-1", "approve": False, "reason": "Not here", "updated_input": {"path": "/tmp"}},
        {
            "tool_call_id": "call-2",
            "status": "error",
            "tool_return": "it failed",
            "stdout": ["a line"],
            "stderr": ["another"],
            "type": "tool",
        },
        {"tool_call_id": "call-3", "status": "success", "tool_return": [{"type": "text", "text": "done"}]},
        {"tool_call_id": "call-4", "approve": True, "type": "approval"},
    ]

    run = ansible.steps(
        step("text", "send_message", agent_id=AGENT, content="Hello {{ letta_connection_name }}"),
        step("parts", "send_message", agent_id=AGENT, content=parts),
        step("file", "send_message", agent_id=AGENT, content_file="plain.txt"),
        step("template", "send_message", agent_id=AGENT, content_template="text.j2"),
        step("messages", "send_message", agent_id=AGENT, messages=messages),
        step("approvals", "send_message", agent_id=AGENT, approvals=approvals),
        hosts=pattern,
        vars={"words": ["a", "b"]},
        arguments=("-e", "extra=out"),
    )

    run.assert_quiet()
    received = ansible.sandbox.received()[entry["id"]]
    contents = [message["content"] for message in received["messages"]]
    assert contents == [
        f"Hello {entry['name']}",
        [{"type": "text", "text": "one 2"}, {"type": "text", "text": "two"}],
        raw,
        f"a\nb\nout {entry['row']['metadata']['os']} the part for {entry['name']}\n",
        "first",
        [{"type": "text", "text": "second"}],
        "third",
    ]
    assert (received["posts"], received["turns"]) == (6, 5)
    first, second, third = received["messages"][4:]
    assert (first["client_message_id"], first["otid"]) == ("cm-1", "cm-1")
    assert (second["client_message_id"], second["otid"]) == ("cm-2", "o-2")
    assert third["client_message_id"]
    assert third["client_message_id"] == third["otid"]
    assert run.result("messages")["client_message_id"] == "cm-1"

    arrived = [
        {key: value for key, value in approval.items() if key not in ("agentId", "conversationId")}
        for approval in received["approvals"]
    ]
    assert arrived == [
        {"type": "approval", "tool_call_id": "call-0", "approve": True},
        {"type": "approval", **approvals[0]},
        approvals[1],
        {"type": "tool", **approvals[2]},
        approvals[3],
    ]
    assert run.result("approvals")["client_message_id"] is None


def test_files_and_templates_are_found_in_the_role_that_sends_them(ansible: Ansible) -> None:
    (entry,), pattern = _hosts(ansible.sandbox, 1)
    ansible.file("files/text.txt", "of the playbook")
    ansible.file("templates/text.j2", "of the playbook")
    ansible.file("roles/instruct/files/text.txt", "of the role")
    ansible.file("roles/instruct/templates/text.j2", "{{ whose }} of the role")
    ansible.file("roles/instruct/defaults/main.yml", "whose: default")
    tasks = [
        step("file", "send_message", agent_id=AGENT, content_file="text.txt"),
        step("template", "send_message", agent_id=AGENT, content_template="text.j2"),
    ]
    ansible.file("roles/instruct/tasks/main.yml", yaml.safe_dump(tasks))

    run = ansible.playbook(
        [{"hosts": pattern, "gather_facts": False, "roles": ["instruct"], "tasks": [{**tasks[0], "name": "own"}]}]
    )

    run.assert_quiet()
    contents = [message["content"] for message in messages_of(ansible.sandbox, entry)]
    assert contents == ["of the role", "default of the role", "of the playbook"]


@pytest.mark.covers("send_message", "self_update", "allow_any_manual_command")
def test_updatable_hosts_are_asked_to_update_with_their_own_command(ansible: Ansible) -> None:
    entries, pattern = _hosts(ansible.sandbox, 6)
    updatable, prose, locked, silent, hostile, older = entries
    command = "npm install -g @letta-ai/letta-code@latest"
    said = {"supported": True, "writable": True, "manual_command": command}
    ansible.sandbox.patch(updatable["id"], metadata={"self_update": said})
    ansible.sandbox.patch(prose["id"], metadata={"self_update": {"supported": False, "reason": "Managed by pip."}})
    ansible.sandbox.patch(
        locked["id"],
        metadata={"self_update": {**said, "writable": False, "reason": "Not writable.", "install_path": "/opt/letta"}},
    )
    ansible.sandbox.patch(silent["id"], **{"$delete": ["metadata.self_update"]})
    injected = "{{ lookup('pipe', 'touch PWNED') }}"
    ansible.sandbox.patch(hostile["id"], metadata={"self_update": {**said, "manual_command": injected}})

    downgrade = f"{command.removesuffix('latest')}0.1.0"
    ansible.sandbox.patch(
        older["id"], metadata={"lettaCodeVersion": "0.34.12", "self_update": {**said, "manual_command": downgrade}}
    )

    run = ansible.steps(step("update", "send_message", self_update=True, agent_id=AGENT), hosts=pattern)
    strict = set(ansible.sandbox.received())
    told = {"self_update": True, "agent_id": AGENT, "allow_any_manual_command": True}
    any_command = ansible.steps(step("any", "send_message", **told), hosts=f"{hostile['name']},{older['name']}")

    run.assert_quiet()
    assert strict == {updatable["id"]}
    (text,) = [message["content"] for message in messages_of(ansible.sandbox, updatable)]
    assert f"\n{command}\n" in text
    any_command.assert_quiet()
    for entry, allowed in ((hostile, injected), (older, downgrade)):
        (text,) = [message["content"] for message in messages_of(ansible.sandbox, entry)]
        assert f"\n{allowed}\n" in text
    assert not (ansible.directory / "PWNED").exists()
    outcomes = {result["host"]: result["outcome"] for result in run.results}
    skipped = {host for host, outcome in outcomes.items() if outcome == "skipped"}
    assert skipped == {entry["name"] for entry in entries} - {updatable["name"]}
    unknown = "is no installer's command known here"
    too_old = "names 0.1.0, which is not known to be at least the version of the device (0.34.12)"
    for entry, problem, refused in ((hostile, unknown, injected), (older, too_old, downgrade)):
        assert run.result("update", entry["name"])["reason"] == (
            f"manual_command {problem} (see allow_any_manual_command): {refused}"
        )
    assert "Managed by pip." in run.result("update", prose["name"])["reason"]
    assert "Not writable." in run.result("update", locked["name"])["reason"]
    assert "/opt/letta" in run.result("update", locked["name"])["reason"]
    assert run.result("update", silent["name"])["status"] == "skipped"
    assert run.result("update", silent["name"])["reason"]


def test_text_from_a_device_is_never_run_as_a_template(ansible: Ansible) -> None:
    (entry,), _pattern = _hosts(ansible.sandbox, 1)
    hostile = "{{ lookup('pipe', 'touch PWNED') }}"
    ansible.sandbox.patch(
        entry["id"],
        connectionName=hostile,
        metadata={"gitBranch": hostile, "workingDirectory": "{% include '/etc/passwd' %}", "extra": {hostile: hostile}},
    )
    ansible.file("templates/text.j2", "{{ letta_git_branch }}|{{ letta_working_directory }}|{{ letta_metadata.extra }}")
    text = "{{ letta_git_branch }}|{{ letta_working_directory }}|{{ letta_metadata.extra }}"
    expected = f"{hostile}|{{% include '/etc/passwd' %}}|" + str({hostile: hostile})

    source = ansible.source(hostnames=["id"])
    run = ansible.steps(
        step("content", "send_message", agent_id=AGENT, content=text),
        step("template", "send_message", agent_id=AGENT, content_template="text.j2"),
        step("targets", "send_message", agent_id=AGENT, targets=[entry["id"]], content_template="text.j2"),
        step(
            "entry",
            "send_message",
            agent_id=AGENT,
            targets=[{"host": entry["id"], "content": "{{ letta_git_branch }} and {{ letta_connection_name }}"}],
        ),
        {
            "name": "show",
            "ansible.builtin.debug": {"msg": "{{ letta_git_branch }} {{ fleetops_environment.self_update }}"},
        },
        hosts=entry["id"],
        source=source,
    )

    assert run.returncode == 0, run.output
    assert not (ansible.directory / "PWNED").exists()
    contents = [message["content"] for message in messages_of(ansible.sandbox, entry)]
    assert contents == [expected, expected, expected, f"{hostile} and {hostile}"]


def test_a_host_without_an_environment_is_an_error_of_one_line(ansible: Ansible) -> None:
    run = ansible.task("send_message", content="Hello", agent_id=AGENT)

    run.assert_error("localhost is no environment", "fleetops_environment")
    assert ansible.sandbox.requests("messages") == []


def test_a_changed_connection_of_a_cached_inventory_is_found_again(ansible: Ansible) -> None:
    (entry,), pattern = _hosts(ansible.sandbox, 1)
    source = ansible.source(
        cache=True, cache_plugin="ansible.builtin.jsonfile", cache_connection=str(ansible.directory / "cache")
    )
    send = step("send", "send_message", content="Hello", agent_id=AGENT)

    ansible.steps(send, hosts=pattern, source=source).assert_quiet()
    row = ansible.sandbox.rotate(entry["id"])
    ansible.sandbox.clear_requests()
    run = ansible.steps(send, hosts=pattern, source=source)

    run.assert_quiet()
    assert ansible.sandbox.requests("list") == []
    result = run.result("send")
    assert (result["status"], result["attempts"], result["connection_id"]) == ("sent", 2, row["connectionId"])
    assert ansible.sandbox.received()[entry["id"]]["turns"] == 2
