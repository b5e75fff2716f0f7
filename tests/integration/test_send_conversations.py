"""The conversations that send_message sends in: standing ones where targets share an agent, else the default one."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from .conftest import AGENT, Ansible, Run, messages_of, step

NAMES = ["talk-0", "talk-1", "talk-2"]
SEND: dict[str, Any] = {"content": "Hello", "agent_id": AGENT}


@pytest.fixture
def entries(ansible: Ansible) -> dict[str, dict[str, Any]]:
    """Three online environments, by name."""
    for name in NAMES:
        ansible.sandbox.add_environment(connectionName=name)
    return {entry["name"]: entry for entry in ansible.sandbox.fleet() if entry["name"] in NAMES}


def used(run: Run, task: str = "it") -> dict[str, str | None]:
    """Host → the conversation that a task with `targets` says it sent in."""
    return {target["host"]: target["conversation_id"] for target in run.result(task)["targets"]}


def received(ansible: Ansible, entries: dict[str, dict[str, Any]]) -> dict[str, list[str | None]]:
    """Host → the conversations of the messages that its device received; None is the agent's default one."""
    return {
        name: [message["conversationId"] for message in messages_of(ansible.sandbox, entry)]
        for name, entry in entries.items()
    }


def made(ansible: Ansible, agent_id: str = AGENT) -> dict[str, str]:
    """Summary → id of the conversations that were made with an agent."""
    return {row["summary"]: row["id"] for row in ansible.sandbox.conversations(agent_id)}


@pytest.mark.covers("send_message", "conversation_id", "targets")
def test_targets_that_share_an_agent_have_a_conversation_each_in_every_run(
    ansible: Ansible, entries: dict[str, dict[str, Any]]
) -> None:
    first = ansible.task("send_message", targets=NAMES, **SEND, wait_for_reply=True)
    again = ansible.task("send_message", targets=NAMES[::-1], **SEND)

    first.assert_quiet()
    again.assert_quiet()
    # Each run lists what was made with the agent once.
    assert len(ansible.sandbox.requests("conversation_list")) == 2
    assert used(first) == used(again)
    assert len({*used(first).values()}) == 3
    assert received(ansible, entries) == {name: [own, own] for name, own in used(first).items()}
    assert made(ansible) == {
        f"fleetops.environments standing conversation of {entries[name]['id']}": own
        for name, own in used(first).items()
    }
    assert {target["reply"]["state"] for target in first.result("it")["targets"]} == {"replied"}


@pytest.mark.parametrize("left", NAMES[1:])
def test_a_run_that_is_limited_to_one_host_keeps_to_the_rule_of_all(
    ansible: Ansible, entries: dict[str, dict[str, Any]], left: str
) -> None:
    """talk-1 has had a message, talk-2 was offline and has had none."""
    ansible.sandbox.offline(entries["talk-2"]["id"])
    play = [
        {
            "hosts": ",".join(NAMES),
            "gather_facts": False,
            "tasks": [{**step("it", "send_message", targets="{{ ansible_play_batch }}", **SEND), "run_once": True}],
        }
    ]
    first = ansible.playbook(play)
    ansible.sandbox.online(entries["talk-2"]["id"])

    limited = ansible.playbook(play, "--limit", left)
    whole = ansible.playbook(play)

    for run in (first, limited, whole):
        run.assert_quiet()
    assert used(whole)[left] is not None
    assert used(limited)[left] == used(whole)[left]
    assert used(first)["talk-2"] is None
    assert {name: own for name, own in used(first).items() if own} == {
        name: used(whole)[name] for name in ("talk-0", "talk-1")
    }


def test_a_target_that_has_its_agent_to_itself_keeps_the_agents_default_conversation(
    ansible: Ansible, entries: dict[str, dict[str, Any]]
) -> None:
    own = [{"host": name, "agent_id": f"agent-{name}"} for name in NAMES]

    run = ansible.task("send_message", targets=own, content="Hello")

    run.assert_quiet()
    assert used(run) == dict.fromkeys(NAMES)
    assert received(ansible, entries) == {name: [None] for name in NAMES}
    assert ansible.sandbox.requests("conversations") == []


@pytest.mark.covers("send_message", "conversation_id")
def test_a_conversation_that_is_named_is_used_and_a_crowd_in_it_is_one_warning(
    ansible: Ansible, entries: dict[str, dict[str, Any]]
) -> None:
    def send(conversation_id: str, targets: list[str]) -> Run:
        return ansible.task("send_message", targets=targets, **SEND, conversation_id=conversation_id)

    default, named = send("default", NAMES), send("conv-7", NAMES[:2])
    alone, standing, new = send("default", NAMES[:1]), send("standing", NAMES[:1]), send("new", NAMES[:2])

    what_happens = (
        "A conversation has one turn at a time, and a device that finds it busy for a minute drops its message."
    )
    default.assert_warning(f"conversation_id: 3 targets share default of {AGENT}", what_happens)
    named.assert_warning(f"conversation_id: 2 targets share conv-7 of {AGENT}", what_happens)
    for run in (alone, standing, new):
        run.assert_quiet()
    assert used(default) == dict.fromkeys(NAMES, "default")
    assert used(named) == dict.fromkeys(NAMES[:2], "conv-7")
    assert used(alone) == {"talk-0": "default"}
    rows = {row["id"]: row["summary"] for row in ansible.sandbox.conversations(AGENT)}
    assert rows[str(used(standing)["talk-0"])] == write_standing(entries["talk-0"])
    assert [rows[str(own)].startswith("fleetops.environments message ") for own in used(new).values()] == [True, True]
    assert len(rows) == 3


def write_standing(entry: dict[str, Any]) -> str:
    return f"fleetops.environments standing conversation of {entry['id']}"


@pytest.mark.covers("send_message", "conversation_id", "agent_id")
@pytest.mark.parametrize(
    ("variables", "agent_id", "shared"),
    [
        ({}, AGENT, {"talk-0", "talk-1", "talk-2"}),
        (dict.fromkeys(NAMES, AGENT), None, {"talk-0", "talk-1", "talk-2"}),
        ({"talk-0": AGENT, "talk-1": "agent-2", "talk-2": AGENT}, None, {"talk-0", "talk-2"}),
        ({"talk-0": "agent-2"}, AGENT, {"talk-1", "talk-2"}),
        (dict.fromkeys(NAMES, "agent-{{ inventory_hostname }}"), None, set()),
        ({"talk-1": "{{ missing }}", "talk-2": "agent-2"}, AGENT, set()),
    ],
)
def test_a_task_for_each_host_is_the_same_fan_out(
    ansible: Ansible,
    entries: dict[str, dict[str, Any]],
    variables: dict[str, str],
    agent_id: str | None,
    shared: set[str],
) -> None:
    for name, own in variables.items():
        ansible.file(f"host_vars/{name}.yml", yaml.safe_dump({"letta_agent_id": own}))
    given = {"content": "Hello", **({"agent_id": agent_id} if agent_id else {})}

    run = ansible.steps(step("it", "send_message", **given), hosts=",".join([*NAMES, "localhost"]))

    assert run.returncode == 0, run.output
    found = {name: run.result("it", name) for name in NAMES}
    sent = [name for name in NAMES if found[name].get("status") == "sent"]
    assert [name for name in NAMES if name not in sent] == [
        name for name in NAMES if "missing" in variables.get(name, "")
    ]
    assert {name for name in sent if found[name]["conversation_id"]} == shared
    assert len(ansible.sandbox.requests("conversation_list")) == len(sent)
    assert len({found[name]["conversation_id"] for name in shared}) == len(shared)
    assert {name: received(ansible, entries)[name] for name in sent} == {
        name: [found[name]["conversation_id"]] for name in sent
    }


@pytest.mark.parametrize("left", ["talk-00", "talk-35"])
def test_hosts_that_share_an_agent_are_found_wherever_they_are_in_the_play(ansible: Ansible, left: str) -> None:
    """The agents of all hosts but two are made by one template."""
    names = [f"talk-{number:02}" for number in range(36)]
    for name in names:
        ansible.sandbox.add_environment(connectionName=name)
    ansible.file("group_vars/letta.yml", yaml.safe_dump({"letta_agent_id": "agent-{{ inventory_hostname }}"}))
    for name in ("talk-00", "talk-35"):
        ansible.file(f"host_vars/{name}.yml", yaml.safe_dump({"letta_agent_id": AGENT}))

    run = ansible.steps(
        step("it", "send_message", content="Hello") | {"when": f"inventory_hostname in ['{left}', 'talk-07']"},
        hosts=",".join(names),
    )

    assert run.returncode == 0, run.output
    used_by = {name: run.result("it", name)["conversation_id"] for name in (left, "talk-07")}
    assert list(made(ansible).values()) == [used_by[left]]
    assert used_by["talk-07"] is None


@pytest.mark.covers("send_message", "conversation_id")
@pytest.mark.parametrize(
    ("variables", "given", "crowd"),
    [
        ({}, {"conversation_id": "default"}, f"3 targets share default of {AGENT}"),
        ({"talk-0": "conv-7", "talk-2": "conv-7"}, {}, f"2 targets share conv-7 of {AGENT}"),
        ({}, {"conversation_id": "conv-{{ inventory_hostname }}"}, None),
        ({name: f"conv-{name}" for name in NAMES}, {}, None),
        ({}, {}, None),
    ],
)
def test_a_crowd_of_hosts_with_a_task_each_is_one_warning(
    ansible: Ansible,
    entries: dict[str, dict[str, Any]],
    variables: dict[str, str],
    given: dict[str, str],
    crowd: str | None,
) -> None:
    for name, own in variables.items():
        ansible.file(f"host_vars/{name}.yml", yaml.safe_dump({"letta_conversation_id": own}))

    run = ansible.steps(step("it", "send_message", **SEND, **given), hosts=",".join(NAMES))

    if crowd is None:
        run.assert_quiet()
    else:
        run.assert_warning(f"conversation_id: {crowd}.")
        assert run.output.count("targets share") == 1


def test_a_crowd_to_which_no_message_goes_is_no_warning(ansible: Ansible, entries: dict[str, dict[str, Any]]) -> None:
    to = {"agent_id": AGENT, "conversation_id": "default"}
    crowd = {"targets": NAMES, **to}
    campaign = {"content": "Hello", "campaign": "c", "ledger": "ledger.sqlite"}
    answer = [{"tool_call_id": "call-1", "approve": True}]

    first = ansible.task("send_message", **crowd, **campaign)
    quiet = ansible.steps(
        step("settled", "send_message", **crowd, **campaign),
        step("answer", "send_message", **crowd, approvals=answer),
        step("mode", "environment_mode", **crowd, mode="acceptEdits"),
        step("own", "send_message", targets=[{"host": name, "approvals": answer} for name in NAMES], **to),
        step("update", "self_update", **crowd, method="command", target_version="0.1.0"),
        step("auto", "self_update", **crowd, method="auto", target_version="0.1.0"),
    )

    first.assert_warning("3 targets share default")
    assert quiet.result("settled")["counts"]["already_sent"] == 3
    assert "targets share" not in quiet.output


def test_a_task_for_one_host_of_many_is_no_fan_out(ansible: Ansible, entries: dict[str, dict[str, Any]]) -> None:
    once = {**step("it", "send_message", **SEND), "run_once": True}

    ansible.steps(once, hosts=",".join(NAMES)).assert_quiet()

    assert received(ansible, entries) == {"talk-0": [None], "talk-1": [], "talk-2": []}


def test_an_answer_to_a_tool_call_goes_to_the_conversation_of_its_target(
    ansible: Ansible, entries: dict[str, dict[str, Any]]
) -> None:
    ansible.task("send_message", targets=NAMES[:2], **SEND).assert_quiet()
    answer = [{"tool_call_id": "call-1", "approve": True}]

    run = ansible.task("send_message", targets=NAMES, approvals=answer, agent_id=AGENT)

    own = {name: received(ansible, entries)[name][0] for name in NAMES[:2]}
    assert used(run) == {**own, "talk-2": None}
    assert len(made(ansible)) == 2


@pytest.mark.covers("send_message", "conversation_id", "approvals")
def test_what_is_no_place_for_a_message_is_refused_with_the_way_out(
    ansible: Ansible, entries: dict[str, dict[str, Any]]
) -> None:
    ansible.file("host_vars/talk-1.yml", "letta_conversation_id: standing or default\n")
    answer = {"approvals": [{"tool_call_id": "call-1", "approve": True}], "agent_id": AGENT}
    in_messages = {"messages": [{"type": "approval", "approvals": answer["approvals"]}], "agent_id": AGENT}

    run = ansible.steps(
        step("answer", "send_message", targets=NAMES[:1], **answer, conversation_id="new"),
        step("messages", "send_message", targets=NAMES[:1], **in_messages, conversation_id="new"),
        step("option", "send_message", targets=NAMES[:1], **SEND, conversation_id="standing or default"),
        step("variable", "send_message", targets=NAMES[1:2], **SEND),
    )

    said = {name: run.result(name)["msg"] for name in ("answer", "messages", "option", "variable")}
    refused = (
        "conversation_id: 'new' cannot go with approvals, and talk-0 has it; give its entry of targets the id of the "
        "conversation in which the tool call waits"
    )
    internal = "conversation_id: must be one that exists, got 'standing or default' for"
    assert said == {
        "answer": refused, "messages": refused, "option": f"{internal} talk-0", "variable": f"{internal} talk-1"
    }  # fmt: skip
    assert made(ansible) == {}
    assert ansible.sandbox.received() == {}


def test_check_mode_of_a_campaign_shows_where_a_message_in_doubt_stays(
    ansible: Ansible, entries: dict[str, dict[str, Any]]
) -> None:
    campaign = {**SEND, "campaign": "c", "ledger": "ledger.sqlite", "targets": NAMES[:2]}
    for name in NAMES[:2]:
        ansible.sandbox.add_fault("drop_after", route="messages", target=entries[name]["id"])
    first = ansible.task("send_message", **campaign, conversation_id="new", retries=0, max_failures=2)
    ansible.sandbox.clear_faults()

    run = ansible.task("send_message", "--check", **campaign)

    would_send = {entry["host"]: entry["conversation_id"] for entry in run.result("it")["would_send"]}
    assert first.result("it")["counts"]["unknown"] == 2
    assert None not in used(first).values()
    assert would_send == used(first)


@pytest.mark.covers("send_message", "conversation_id", "agent_name")
def test_check_mode_shows_the_conversations_and_makes_none(
    ansible: Ansible, entries: dict[str, dict[str, Any]]
) -> None:
    def would_use(targets: list[Any], **given: Any) -> list[str | None]:
        run = ansible.task("send_message", "--check", targets=targets, **{**SEND, **given})
        run.assert_quiet()
        return [entry["conversation_id"] for entry in run.result("it")["would_send"]]

    before = would_use(NAMES), would_use(NAMES[:1]), would_use(NAMES[:2], conversation_id="new")
    assert before == (["standing"] * 3, [None], ["new"] * 2)
    assert made(ansible) == {}

    sent = used(ansible.task("send_message", targets=NAMES[:2], **SEND))
    assert would_use(NAMES) == [sent["talk-0"], sent["talk-1"], "standing"]
    assert would_use(["talk-1"]) == [sent["talk-1"]]
    ansible.sandbox.add_fault("html_200", route="conversation_list")
    assert would_use(["talk-1"]) == ["standing or default"]
    ansible.sandbox.clear_faults()
    assert len(made(ansible)) == 2


@pytest.mark.covers("send_message", "campaign", "conversation_id")
@pytest.mark.parametrize("conversation_id", [None, "new"])
def test_a_campaign_delivers_once_in_these_conversations(
    ansible: Ansible, entries: dict[str, dict[str, Any]], conversation_id: str | None
) -> None:
    named = {"conversation_id": conversation_id} if conversation_id else {}
    campaign = {**SEND, **named, "targets": NAMES, "campaign": "c", "ledger": "ledger.sqlite"}

    def run() -> Run:
        for entry in entries.values():
            ansible.sandbox.rotate(entry["id"], restart=True)
        done = ansible.task("send_message", **campaign)
        done.assert_quiet()
        return done

    first, again = run(), run()
    for file in ansible.directory.glob("ledger.sqlite*"):
        file.unlink()
    lost = run()
    info = ansible.task("campaign_info", campaign="c", ledger="ledger.sqlite", include_deliveries=True).result("it")

    assert first.result("it")["counts"]["sent"] == 3
    assert [done.result("it")["counts"]["already_sent"] for done in (again, lost)] == [3, 3]
    assert len({*used(first).values()}) == 3
    assert used(first) == used(again) == used(lost)
    assert received(ansible, entries) == {name: [own] for name, own in used(first).items()}
    assert {one["host"]: one["conversation_id"] for one in info["deliveries"]} == used(first)
    assert len(made(ansible)) == 3


def test_a_campaign_that_was_sent_to_the_default_conversation_is_found_there_without_its_ledger(
    ansible: Ansible, entries: dict[str, dict[str, Any]]
) -> None:
    campaign = {**SEND, "campaign": "c", "ledger": "ledger.sqlite"}
    # Alone each has the agent to itself.
    for name in NAMES[:2]:
        ansible.task("send_message", targets=[name], **campaign).assert_quiet()
    for file in ansible.directory.glob("ledger.sqlite*"):
        file.unlink()

    run = ansible.task("send_message", targets=NAMES, **campaign)

    run.assert_quiet()
    assert [target["status"] for target in run.result("it")["targets"]] == ["already_sent", "already_sent", "sent"]
    assert [used(run)[name] for name in NAMES[:2]] == [None, None]
    assert [len(conversations) for conversations in received(ansible, entries).values()] == [1, 1, 1]


@pytest.mark.covers("fragment targets", "agent_name")
@pytest.mark.parametrize(
    ("module", "told"),
    [
        ("send_message", {"content": "Hello"}),
        ("approval_info", {}),
        ("environment_command", {"command": "reload"}),
        ("environment_mode", {"mode": "acceptEdits"}),
        ("environment_turn", {"state": "resumed"}),
        ("self_update", {"target_version": "0.1.0"}),
    ],
)
def test_an_agent_is_found_by_its_name_once_a_task(
    ansible: Ansible, entries: dict[str, dict[str, Any]], module: str, told: dict[str, Any]
) -> None:
    ansible.sandbox.name_agent("agent-7", "ops")
    ansible.sandbox.name_agent("agent-8", "twin")
    ansible.sandbox.name_agent("agent-9", "twin")

    run = ansible.steps(
        step("one", module, **told, targets=NAMES, agent_name="ops"),
        step("several", module, **told, targets=NAMES, agent_name="twin"),
        step("none", module, **told, targets=NAMES, agent_name="opps"),
        step("both", module, **told, targets=NAMES, agent_name="ops", agent_id=AGENT),
    )

    said = {name: run.result(name)["msg"] for name in ("several", "none", "both")}
    twins, way_out = "twin (agent-8), twin (agent-9)", "give the agent_id of one"
    assert said == {
        "several": f"agent_name: there are 2 agents called 'twin'; {way_out}: {twins}",
        "none": f"agent_name: there are no agents called 'opps'; {way_out}: ops (agent-7), {twins}",
        "both": "agent_name: cannot go with agent_id",
    }
    assert len(run.result("one")["targets"]) == 3
    assert len(ansible.sandbox.requests("agent_list")) == 4
    if module not in ("environment_command", "self_update"):
        assert {target["agent_id"] for target in run.result("one")["targets"]} == {"agent-7"}


@pytest.mark.covers("fragment targets", "agent_name")
def test_a_name_goes_before_the_agent_of_a_host_and_the_agent_of_an_entry_before_the_name(
    ansible: Ansible, entries: dict[str, dict[str, Any]]
) -> None:
    ansible.sandbox.name_agent("agent-7", "ops")
    ansible.file("host_vars/talk-0.yml", "letta_agent_id: agent-0\n")
    ansible.file("host_vars/talk-2.yml", "letta_agent_id: agent-2\n")
    targets = ["talk-0", {"host": "talk-1", "agent_id": "agent-1"}, "talk-2"]

    run = ansible.steps(
        step("all", "send_message", content="Hello", agent_name="ops", targets=targets) | {"run_once": True},
        step("each", "send_message", content="Hello", agent_name="ops"),
        hosts="talk-0,talk-2",
    )

    assert [target["agent_id"] for target in run.result("all")["targets"]] == ["agent-7", "agent-1", "agent-7"]
    each = [run.result("each", name) for name in ("talk-0", "talk-2")]
    assert [result["agent_id"] for result in each] == ["agent-7", "agent-7"]
    assert None not in [result["conversation_id"] for result in each]


@pytest.mark.covers("environment_mode", "conversation_id")
@pytest.mark.covers("environment_command", "conversation_id")
def test_a_mode_and_a_command_reach_the_conversations_that_messages_go_to(
    ansible: Ansible, entries: dict[str, dict[str, Any]]
) -> None:
    sent = used(ansible.task("send_message", targets=NAMES[:2], **SEND))
    made_before = made(ansible)
    many = {"targets": NAMES, "agent_id": AGENT}
    one = {"targets": ["talk-1"], "agent_id": AGENT}
    mode, command = {"mode": "acceptEdits"}, {"command": "compact"}
    ansible.file("host_vars/talk-2.yml", "letta_conversation_id: new\n")

    run = ansible.steps(
        step("mode of all", "environment_mode", **many, **mode) | {"check_mode": True},
        step("mode of one", "environment_mode", **one, **mode),
        step("mode of the default one", "environment_mode", **one, **mode, conversation_id="default"),
        step("named", "environment_mode", **many, **mode, conversation_id="standing"),
        step("command of all", "environment_command", **many, **command),
        step("command of one", "environment_command", **one, **command, conversation_id="standing"),
        step("new", "environment_mode", **one, **mode, conversation_id="new"),
        step("both", "send_message", **one, content="Hello", conversation_id="standing or default"),
        step("nobody", "environment_command", targets=["talk-1"], command="reload", conversation_id="standing"),
        step("unsaid", "send_message", targets=["talk-1"], content="Hello", conversation_id="standing"),
    )

    ansible.sandbox.add_fault("status", route="conversation_list", status=403)
    refused = ansible.task("environment_mode", targets=NAMES, agent_id=AGENT, mode="strict", conversation_id="standing")
    ansible.sandbox.clear_faults()

    own = {**sent, "talk-2": None}
    assert used(refused) == dict.fromkeys(NAMES)
    assert refused.result("it")["counts"]["changed"] == len(NAMES)
    assert used(run, "mode of all") == used(run, "command of all") == used(run, "named") == own
    assert used(run, "mode of one") == used(run, "command of one") == {"talk-1": sent["talk-1"]}
    assert [target["status"] for target in run.result("named")["targets"]] == ["changed", "ok", "changed"]
    assert run.result("mode of the default one")["counts"]["changed"] == 1
    assert run.result("new")["msg"] == "conversation_id: must be one that exists, got 'new' for talk-1"
    assert run.result("both")["msg"] == (
        "conversation_id: must be one that exists, got 'standing or default' for talk-1"
    )
    assert run.result("nobody")["counts"]["changed"] == 1
    assert run.result("unsaid")["msg"] == "conversation_id: 'standing' needs an agent_id, and talk-1 has none"
    assert made(ansible) == made_before


def test_the_attempts_of_a_task_find_the_agent_and_the_conversation_once(
    ansible: Ansible, entries: dict[str, dict[str, Any]]
) -> None:
    ansible.sandbox.name_agent("agent-7", "ops")
    ansible.sandbox.add_fault("status", route="messages", status=400, target=entries["talk-1"]["id"], times=1)
    again = {"until": "it is success", "retries": 2, "delay": 0, "register": "it"}
    send = step("it", "send_message", content="Hello", agent_name="ops", targets=NAMES[:2])

    run = ansible.steps({**send, **again})

    assert used(run)["talk-1"] == received(ansible, entries)["talk-1"][0]
    assert len(ansible.sandbox.requests("agent_list")) == 1
    assert len(made(ansible, "agent-7")) == 2
