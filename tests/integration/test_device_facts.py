"""Facts, which a module on a device returns, replace nothing that the operator has set, and set nothing of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import yaml

from tests.sandbox.process import Sandbox
from tests.sandbox.turns import ApprovalTurn

from .conftest import Ansible, Run, awake, messages_of, recap_of, step

# A module as a device that lies would run it: it returns the facts that it is given.
LYING = """
from ansible.module_utils.basic import AnsibleModule

module = AnsibleModule({"facts": {"type": "dict"}})
module.exit_json(ansible_facts=module.params["facts"])
"""
LATER = {"ANSIBLE_CACHE_PLUGIN": "jsonfile", "ANSIBLE_CACHE_PLUGIN_CONNECTION": "facts"}


@pytest.fixture(autouse=True)
def facts_are_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by default, and unlike in the checkout's ansible.cfg."""
    monkeypatch.setenv("ANSIBLE_INJECT_FACT_VARS", "true")


@pytest.fixture
def names(ansible: Ansible) -> list[str]:
    """The names of the hosts that accept messages."""
    ansible.file("library/lie.py", LYING)
    return [entry["name"] for entry in awake(ansible.sandbox)]


def lie(host: str, **facts: Any) -> dict[str, Any]:
    """A play in which a host returns these facts."""
    task = {"name": "lie", "lie": {"facts": facts}}
    here = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    return {"hosts": host, "gather_facts": False, "vars": here, "tasks": [task]}


def play(hosts: str, *tasks: Mapping[str, Any], **keywords: Any) -> dict[str, Any]:
    return {"hosts": hosts, "gather_facts": False, **keywords, "tasks": [dict(task) for task in tasks]}


def send(**options: Any) -> dict[str, Any]:
    return step("it", "send_message", content="Hello", agent_id="agent-option", **options)


def beside(ansible: Ansible, **variables: Any) -> None:
    """Set variables for all hosts, in a file beside the playbook."""
    ansible.file("group_vars/all.yml", yaml.safe_dump(variables))


def received(ansible: Ansible, name: str) -> list[dict[str, Any]]:
    [entry] = [entry for entry in ansible.sandbox.fleet() if entry["name"] == name]
    return messages_of(ansible.sandbox, entry)


def facts_of_an_attacker(attacker: Sandbox, ansible: Ansible) -> dict[str, dict[str, Any]]:
    """Facts with which a device would have the key, another file of the controller, or the messages."""
    secret = ansible.file("secret-of-the-controller", "secret-of-the-controller\n")
    return {
        "url": {"letta_base_url": attacker.url},
        "file": {"letta_api_key_file": str(secret)},
        "key": {"letta_api_key": "key-of-the-device"},
        "retries": {"letta_timeout": "0.001"},
        "part of a template": {"fleet_url": attacker.url},
        "names of loops": {"ansible_loop_var": "letta_agent_id", "letta_base_url": attacker.url},
    }


@pytest.mark.parametrize("cached", [False, True], ids=["in the run", "from the cache"])
def test_facts_of_the_host_steer_no_connection(
    ansible: Ansible, other_sandbox: Sandbox, names: list[str], cached: bool
) -> None:
    attacks = facts_of_an_attacker(other_sandbox, ansible)
    hosts = dict(zip(attacks, names, strict=False))
    beside(ansible, fleet_url=ansible.sandbox.url, letta_base_url="{{ fleet_url }}")
    lies = [lie(hosts[attack], **facts) for attack, facts in attacks.items()]
    tasks = [play(host, send(), step(f"fleet {attack}", "environment_info")) for attack, host in hosts.items()]

    if cached:
        ansible.playbook(lies, env=LATER).assert_quiet()
        run = ansible.playbook(tasks, env=LATER)
    else:
        run = ansible.playbook([*lies, *tasks])

    run.assert_quiet()
    assert {attack: len(received(ansible, host)) for attack, host in hosts.items()} == dict.fromkeys(attacks, 1)
    found = {attack: len(run.result(f"fleet {attack}")["environments"]) for attack in attacks}
    assert found == dict.fromkeys(attacks, len(ansible.sandbox.fleet()))
    assert other_sandbox.requests() == []
    assert "secret-of-the-controller" not in run.output + json.dumps(ansible.sandbox.requests())


@pytest.mark.parametrize("by", ["operator", "nobody"])
def test_facts_complete_no_default_of_an_action_group(
    ansible: Ansible, other_sandbox: Sandbox, names: list[str], by: str
) -> None:
    if by == "operator":
        beside(ansible, fleet_url=ansible.sandbox.url)
    defaults = {"group/fleetops.environments.letta": {"base_url": "{{ fleet_url }}"}}
    tasks = play(names[0], send(), step("fleet", "environment_info"), module_defaults=defaults)

    run = ansible.playbook([lie(names[0], fleet_url=other_sandbox.url), tasks])

    assert other_sandbox.requests() == []
    assert len(received(ansible, names[0])) == (1 if by == "operator" else 0)
    if by == "nobody":
        error = "base_url: the action group's default cannot be read without facts: 'fleet_url' is undefined"
        assert [run.result(name)["msg"] for name in ("it", "fleet")] == [error] * 2


# Option → what the operator sets it to, and what a device says.
OPTIONS: dict[str, tuple[Any, Any]] = {
    "timeout": (30, -1),
    "retries": (1, -1),
    "deadline": (60, "soon"),
    "validate_certs": (True, "maybe"),
    "ca_path": ("", "secret.pem"),
    "client_cert": ("", "secret.pem"),
    "client_key": ("", "secret.pem"),
    "allow_http": (False, "perhaps"),
}


def test_facts_change_no_option_of_the_connection_in_a_default_of_an_action_group(
    ansible: Ansible, names: list[str]
) -> None:
    beside(ansible, **{f"fleet_{option}": ours for option, (ours, _lie) in OPTIONS.items()})
    lies = {f"fleet_{option}": lie_about_it for option, (_ours, lie_about_it) in OPTIONS.items()}
    to = {"targets": "{{ ansible_play_batch }}", "agent_id": "agent-option"}
    fan_outs = [
        play(
            f"{names[0]},{names[1]}",
            {**step(option, "send_message", content=option, **to), "run_once": True},
            module_defaults={"group/fleetops.environments.letta": {option: f"{{{{ fleet_{option} }}}}"}},
        )
        for option in OPTIONS
    ]

    run = ansible.playbook([lie(names[0], **lies), *fan_outs])

    run.assert_quiet()
    for name in names[:2]:
        assert [message["content"] for message in received(ansible, name)] == list(OPTIONS)


def test_facts_are_no_defaults_of_an_action_group(ansible: Ansible, other_sandbox: Sandbox, names: list[str]) -> None:
    beside(ansible, fleet_defaults={"base_url": ansible.sandbox.url})
    defaults = {"group/fleetops.environments.letta": "{{ fleet_defaults }}"}
    tasks = play(names[0], send(), step("fleet", "environment_info"), module_defaults=defaults)

    run = ansible.playbook([lie(names[0], fleet_defaults={"base_url": other_sandbox.url}), tasks])

    run.assert_quiet()
    assert other_sandbox.requests() == []
    assert len(received(ansible, names[0])) == 1


def test_facts_of_the_first_host_steer_no_fan_out(ansible: Ansible, other_sandbox: Sandbox, names: list[str]) -> None:
    facts = {"letta_base_url": other_sandbox.url, "letta_agent_id": "agent-of-the-device", "fleet_agent": "agent-fact"}
    beside(ansible, letta_agent_id="{{ fleet_agent }}-{{ inventory_hostname }}", fleet_agent="agent")
    fan_out = {**send(targets="{{ ansible_play_batch }}"), "run_once": True}

    run = ansible.playbook([lie(names[0], **facts), play(",".join(names[:3]), fan_out)])

    run.assert_quiet()
    assert other_sandbox.requests() == []
    for name in names[:3]:
        assert [message["agentId"] for message in received(ansible, name)] == [f"agent-{name}"]


@pytest.mark.parametrize("where", ["inventory", "play", "nowhere"])
def test_each_target_keeps_the_agent_that_the_operator_gives_it(ansible: Ansible, names: list[str], where: str) -> None:
    agents = {"letta_agent_id": "agent-{{ inventory_hostname }}", "letta_conversation_id": "conversation-1"}
    if where == "inventory":
        beside(ansible, **agents)
    lies = {"letta_agent_id": "agent-of-the-device", "letta_conversation_id": "conversation-of-the-device"}
    fan_out = {**send(targets=names[:2]), "run_once": True}

    run = ansible.playbook(
        [lie(names[1], **lies), play("localhost", fan_out, **({"vars": agents} if where == "play" else {}))]
    )

    run.assert_quiet()
    expected = "agent-option" if where == "nowhere" else f"agent-{names[1]}"
    [message] = received(ansible, names[1])
    assert message["agentId"] == expected
    if where == "nowhere":
        # The targets share the agent of the option, so each has a standing conversation.
        assert message["conversationId"].startswith("conv-")
    else:
        assert message["conversationId"] == "conversation-1"


def test_a_device_cannot_be_another_host(ansible: Ansible, names: list[str]) -> None:
    contract = ansible.hosts()[names[1]]["fleetops_environment"]
    lies = {"inventory_hostname": names[1], "fleetops_environment": contract, "letta_id": contract["id"]}
    outcomes = {"outcomes": {names[0]: "not well", names[1]: ""}}
    end = {"name": "end", "fleetops.environments.environment_outcome": {"outcomes": "outcomes"}}

    run = ansible.playbook([lie(names[0], **lies), play(names[0], send(), end, vars=outcomes)])

    assert len(received(ansible, names[0])) == 1
    assert received(ansible, names[1]) == []
    assert run.result("it")["host"] == names[0]
    assert run.result("end")["msg"] == "not well"


def test_facts_of_a_delegate_steer_nothing(ansible: Ansible, other_sandbox: Sandbox, names: list[str]) -> None:
    lies = {"letta_base_url": other_sandbox.url, "letta_agent_id": "lie", "inventory_hostname": names[2]}

    run = ansible.playbook([lie(names[0], **lies), play(names[1], {**send(), "delegate_to": names[0]})])

    run.assert_quiet()
    assert other_sandbox.requests() == []
    assert [message["agentId"] for message in received(ansible, names[0])] == ["agent-option"]


def test_a_host_of_another_inventory_cannot_become_an_environment(ansible: Ansible, names: list[str]) -> None:
    contract = ansible.hosts()[names[0]]["fleetops_environment"]
    selected = "{{ ['server'] | fleetops.environments.select_environments(hostvars) }}"
    show = {"name": "selected", "ansible.builtin.debug": {"msg": selected}}

    run = ansible.playbook(
        [lie("server", fleetops_environment=contract), play("server", show, send())], source="server,"
    )

    assert run.result("selected")["msg"] == []
    assert "server is no environment" in run.result("it")["msg"]
    assert received(ansible, names[0]) == []


def test_the_token_of_another_provider_stays_with_its_server(qoder: Ansible, other_sandbox: Sandbox) -> None:
    qoder.file("library/lie.py", LYING)
    name = min(qoder.hosts())
    facts = {"qoder_base_url": other_sandbox.url, "qoder_agent": "agent-of-the-device"}

    run = qoder.playbook([lie(name, **facts), play(name, step("fleet", "environment_info", provider="qoder"))])

    run.assert_quiet()
    assert len(run.result("fleet")["environments"]) > 0
    assert other_sandbox.requests() == []


def test_facts_do_not_say_who_started_a_campaign(ansible: Ansible, names: list[str]) -> None:
    campaign = {"campaign": "one", "ledger": str(ansible.directory / "ledger")}
    info = step("info", "campaign_info", include_deliveries=True, **campaign)
    told = play(names[1], send(**campaign), info)
    lied = play(names[0], send(**campaign), info)

    assert "the boss" in json.dumps(ansible.playbook([told], "-e", "awx_user_name='the boss'").result("info"))
    run = ansible.playbook([lie(names[0], awx_user_name="the liar", awx_job_id="7"), lied])

    run.assert_quiet()
    assert "the boss" in json.dumps(run.result("info"))
    assert "the liar" not in json.dumps(run.result("info"))


def test_a_content_template_may_show_facts(ansible: Ansible, names: list[str]) -> None:
    template = ansible.file("said.j2", "{{ disk }} {{ ansible_facts.disk }}")
    task = step("it", "send_message", content_template=str(template), agent_id="agent-1")
    fan_out = {**step("all", "send_message", targets=names[:2], content_template=str(template), agent_id="agent-1")}

    run = ansible.playbook(
        [
            *(lie(name, disk=f"full on {name}") for name in names[:2]),
            play(names[0], task),
            play("localhost", fan_out),
        ]
    )

    run.assert_quiet()
    said = [message["content"] for message in received(ansible, names[0])]
    assert said == [f"full on {names[0]} full on {names[0]}"] * 2
    assert [message["content"] for message in received(ansible, names[1])] == [f"full on {names[1]} full on {names[1]}"]


def test_a_fact_shows_a_template_nothing_of_another_host(ansible: Ansible, names: list[str]) -> None:
    template = ansible.file("told.j2", "{{ tokens[inventory_hostname] }} {{ inventory_hostname_short }} {{ disk }}")
    tokens = {"tokens": {name: f"token-of-{name}" for name in names[:2]}}
    lies = {"inventory_hostname": names[0], "inventory_hostname_short": "lie", "disk": "full"}
    options = {"content_template": str(template), "agent_id": "agent-1"}
    fan_out = step("all", "send_message", targets=[names[1]], **options)

    run = ansible.playbook(
        [
            lie(names[1], **lies),
            play("localhost", fan_out, vars=tokens),
            play(names[1], step("it", "send_message", **options), vars=tokens),
        ]
    )

    run.assert_quiet()
    assert [message["content"] for message in received(ansible, names[1])] == [
        f"token-of-{names[1]} {names[1]} full"
    ] * 2


def test_a_template_may_name_facts_as_facts(ansible: Ansible, names: list[str]) -> None:
    beside(ansible, letta_agent_id="agent-{{ ansible_facts.role }}-{{ ansible_system }}")

    run = ansible.playbook([lie(names[0], role="web", ansible_system="Linux"), play(names[0], send())])

    run.assert_quiet()
    assert [message["agentId"] for message in received(ansible, names[0])] == ["agent-web-Linux"]


def test_a_loop_keeps_its_item(ansible: Ansible, names: list[str]) -> None:
    loop = {**send(), "loop": ["one", "two"], "vars": {"letta_agent_id": "agent-{{ item }}"}}

    ansible.playbook([lie(names[0], item="lie", letta_agent_id="lie"), play(names[0], loop)])

    assert [message["agentId"] for message in received(ansible, names[0])] == ["agent-one", "agent-two"]


@pytest.mark.parametrize("delegated", [False, True])
def test_a_loop_over_the_relay_keeps_its_item(ansible: Ansible, names: list[str], delegated: bool) -> None:
    beside(ansible, letta_timeout="{{ item }}")
    loop = {"name": "it", "ansible.builtin.raw": "true", "loop": [-3, -4]}
    there = {**loop, "delegate_to": names[0]}

    run = ansible.playbook(
        [lie(names[0], packages={"a": 1}, item=5), play(names[1], there) if delegated else play(names[0], loop)],
        source=ansible.source(connection="relay"),
    )

    for item in (-3, -4):
        run.assert_error(f"timeout: must be between 0 and 86400 seconds, got {item}")


def test_a_connection_names_the_variable_that_nothing_but_a_fact_could_complete(
    ansible: Ansible, names: list[str]
) -> None:
    beside(ansible, letta_base_url="{{ fleet_url }}")
    command = {"name": "it", "ansible.builtin.raw": "true"}

    run = ansible.playbook(
        [lie(names[0], fleet_url=ansible.sandbox.url), play(names[0], command)],
        source=ansible.source(connection="relay", base_url=ansible.sandbox.url),
    )

    run.assert_error("letta_base_url: cannot be read without facts: 'fleet_url' is undefined")


LOOKUP = "{{ query('fleetops.environments.environments') | length }}"


def looked_up(ansible: Ansible, name: str, facts: dict[str, Any], **env: str) -> Run:
    show = {"name": "it", "ansible.builtin.debug": {"msg": LOOKUP}}
    return ansible.playbook([lie(name, **facts), play(name, show)], env=env)


def test_a_fact_does_not_choose_the_server_of_a_lookup(
    ansible: Ansible, other_sandbox: Sandbox, names: list[str]
) -> None:
    attacks = [("letta_base_url",), ("letta_base_url", "ansible_letta_base_url"), ("fleet_url",)]
    beside(ansible, fleet_url=ansible.sandbox.url, letta_base_url="{{ fleet_url }}")
    hosts = dict(zip(attacks, names, strict=False))
    show = {"name": "it", "ansible.builtin.debug": {"msg": LOOKUP}}

    run = ansible.playbook(
        [
            *(lie(host, **dict.fromkeys(attack, other_sandbox.url)) for attack, host in hosts.items()),
            play(",".join(hosts.values()), show),
        ]
    )

    run.assert_quiet()
    found = {attack: run.result("it", host)["msg"] for attack, host in hosts.items()}
    assert found == dict.fromkeys(attacks, len(ansible.sandbox.fleet()))
    assert other_sandbox.requests() == []


def test_a_fact_of_another_host_does_not_choose_the_server_of_a_lookup(
    ansible: Ansible, other_sandbox: Sandbox, names: list[str]
) -> None:
    beside(ansible, letta_base_url=ansible.sandbox.url, fleet_size=LOOKUP)
    show = {"name": "it", "ansible.builtin.debug": {"msg": "{{ hostvars[other].fleet_size }}"}}

    run = ansible.playbook(
        [lie(names[1], letta_base_url=other_sandbox.url), play(names[0], show, vars={"other": names[1]})]
    )

    run.assert_quiet()
    assert run.result("it")["msg"] == len(ansible.sandbox.fleet())
    assert other_sandbox.requests() == []


def test_a_lookup_takes_what_an_earlier_task_set_as_a_fact_and_a_variable(ansible: Ansible, names: list[str]) -> None:
    beside(ansible, letta_base_url="{{ fleet_url }}")
    keep = {"name": "keep", "ansible.builtin.set_fact": {"fleet_url": ansible.sandbox.url, "cacheable": True}}

    run = ansible.playbook([play(names[0], keep, {"name": "it", "ansible.builtin.debug": {"msg": LOOKUP}})])

    run.assert_quiet()
    assert run.result("it")["msg"] == len(ansible.sandbox.fleet())


def test_a_lookup_names_the_variable_that_nothing_but_a_fact_could_complete(ansible: Ansible, names: list[str]) -> None:
    beside(ansible, letta_base_url="{{ fleet_url }}")

    run = looked_up(ansible, names[0], {"fleet_url": ansible.sandbox.url})

    assert run.returncode == 2
    run.assert_error("letta_base_url: cannot be read without facts: 'fleet_url' is undefined")


def test_a_lookup_reads_variables_where_facts_are_none(
    ansible: Ansible, other_sandbox: Sandbox, names: list[str]
) -> None:
    run = looked_up(ansible, names[0], {"letta_base_url": other_sandbox.url}, ANSIBLE_INJECT_FACT_VARS="false")

    run.assert_quiet()
    assert run.result("it")["msg"] == len(ansible.sandbox.fleet())


def test_what_a_device_says_sets_no_statistics_and_no_facts(ansible: Ansible) -> None:
    """AWX hands statistics to the next job of a workflow as extra variables."""
    said = {"ansible_stats": {"data": {"approvals_allow": ["*"]}}, "ansible_facts": {"lie": 1}}
    metadata = {"lettaCodeVersion": "0.34.12", "supported_commands": ["reload"], **said}
    device = ansible.sandbox.add_environment(connectionName="one", metadata=metadata, **said)
    ansible.sandbox.command(device["id"], "reload", output=json.dumps(said))
    tasks = [
        step("command", "environment_command", command="reload", agent_id="agent-1"),
        step("info", "environment_info", device_id=device["deviceId"]),
    ]

    run = ansible.playbook([play("one", *tasks)], env={"ANSIBLE_SHOW_CUSTOM_STATS": "true"})

    run.assert_quiet()
    assert run.result("command")["output"] == json.dumps(said)
    assert "CUSTOM STATS" not in run.output
    assert all(not said.keys() & entry["result"].keys() for entry in run.results)


# Facts of an earlier run, with which a device would decide for a playbook.
LIES = {
    "approvals_allow": ["*"],
    "audit_forbidden_modes": [],
    "stop_turns": False,
    "stop_hosts": "nobody",
    "letta_agent_id": "agent-of-the-device",
    "fleetops_environment": {"provider": "qoder"},
}


@pytest.fixture
def lying(ansible: Ansible, names: list[str]) -> str:
    """A pattern of two hosts that have lied in an earlier run; only the second one has an agent."""
    first, second = sorted(names)[:2]
    ansible.file(f"host_vars/{second}.yml", yaml.safe_dump({"letta_agent_id": "agent-1"}))
    ansible.playbook([lie(f"{first},{second}", **LIES)], env=LATER).assert_quiet()
    return f"{first},{second}"


def test_facts_allow_no_tool_call(ansible: Ansible, lying: str) -> None:
    ansible.sandbox.script("agent-1", ApprovalTurn(tool_name="Bash", arguments={}))
    second = lying.partition(",")[2]
    ask = step("ask", "send_message", targets=[{"host": second, "agent_id": "agent-1"}], content="work")
    ansible.steps({**ask, "run_once": True}, hosts="localhost").assert_quiet()

    run = ansible.playbook("fleetops.environments.approvals", "--limit", lying, env=LATER)

    assert run.result("Summarise")["msg"] == "1 tool calls waited, 0 answered, 1 wait now; 1 conversations looked at"


def test_facts_loosen_no_rule_of_the_audit(ansible: Ansible, lying: str) -> None:
    first = lying.partition(",")[0]
    [entry] = [entry for entry in ansible.sandbox.fleet() if entry["name"] == first]
    ansible.sandbox.patch(entry["id"], currentMode="unrestricted")

    run = ansible.playbook("fleetops.environments.audit", "--limit", lying, env=LATER)

    assert run.returncode == 2
    run.assert_error(f"{first}: forbidden mode")


def test_facts_keep_nobody_from_being_stopped(ansible: Ansible, lying: str) -> None:
    first, _comma, second = lying.partition(",")
    run = ansible.playbook("fleetops.environments.stop", "--limit", lying, env=LATER)

    run.assert_error(f"{first}: no agent is known whose turn is to be stopped")
    lines = run.result("Show the result of each host")["msg"]
    assert [line.split("  ")[:2] for line in lines] == [[second, "turn"]]


def test_a_role_refuses_facts_that_are_variables_of_it(ansible: Ansible, names: list[str]) -> None:
    facts = ["instruct_content", "instruct_agent_id", "__instruct_targets", "omit"]
    *liars, last = sorted(names)[: len(facts) + 1]
    said = dict(zip(facts, liars, strict=True))
    ansible.playbook([lie(liar, **{fact: "lie"}) for fact, liar in said.items()], env=LATER)
    arguments = ("-e", f"instruct_hosts={','.join([*liars, last])}")
    beside(ansible, instruct_content="Hello", instruct_agent_id="agent-1")

    run = ansible.playbook("fleetops.environments.instruct", *arguments, env=LATER)
    received_at_once = len(received(ansible, last))
    limit = ":".join(f"!{liar}" for liar in liars)
    others = ansible.playbook("fleetops.environments.instruct", *arguments, "--limit", limit, env=LATER)

    for fact, liar in said.items():
        run.assert_error(
            f"{fact}: {liar} has a fact of this name, which a device may set; leave the host out with --limit"
        )
        assert received(ansible, liar) == []
    assert received_at_once == 1
    assert others.returncode == 0, others.output
    assert len(received(ansible, last)) == 2


ROLES: dict[str, dict[str, Any]] = {
    "instruct": {"instruct_content": "Hello", "instruct_agent_id": "agent-1"},
    "self_update": {"self_update_version": "0.0.1", "self_update_soak": 0},
}


def play_of_role(role: str, hosts: list[str], **variables: Any) -> dict[str, Any]:
    parameters = {"role": f"fleetops.environments.{role}", "vars": {**ROLES[role], **variables}}
    return {"hosts": ",".join(hosts), "gather_facts": False, "roles": [parameters]}


@pytest.mark.parametrize(
    ("role", "facts"),
    [
        ("instruct", ["instruct_agent", "__instruct_targets", "omit"]),
        ("self_update", ["self_update_targets", "dict"]),
    ],
)
def test_a_role_ends_the_host_with_such_a_fact_alone(
    ansible: Ansible, names: list[str], role: str, facts: list[str]
) -> None:
    """A play for each fact and each place of its host among the first two of three hosts, which no other play has."""
    cases = [(fact, place) for fact in facts for place in (0, 1)]
    hosts = {case: [f"play-{number}-{letter}" for letter in "abc"] for number, case in enumerate(cases)}
    for name in (name for found in hosts.values() for name in found):
        ansible.sandbox.add_environment(connectionName=name)
    liars = {(fact, place): found[place] for (fact, place), found in hosts.items()}
    ansible.playbook([lie(liar, **{fact: ["lie"]}) for (fact, _place), liar in liars.items()], env=LATER)
    ledgers = [{"self_update_ledger": f"{n}.sqlite"} if role == "self_update" else {} for n in range(len(cases))]

    run = ansible.playbook(
        [play_of_role(role, found, **ledger) for found, ledger in zip(hosts.values(), ledgers, strict=True)], env=LATER
    )

    shown = [entry["result"]["msg"] for entry in run.results if entry["task"] == "Show the rollout"]
    recap = recap_of(run)
    for number, ((fact, place), found) in enumerate(hosts.items()):
        liar = liars[fact, place]
        others = [host for host in found if host != liar]
        run.assert_error(f"{fact}: {liar} has a fact of this name, which a device may set")
        assert [host for host in found if recap[host]["failed"]] == [liar], (fact, place)
        if role == "instruct":
            assert [len(received(ansible, host)) for host in found] == [int(host in others) for host in found]
        else:
            assert f"current: {', '.join(others)}" in shown[number], (fact, place)


def test_a_role_that_is_included_for_one_host_is_kept_back_by_the_facts_of_that_one_only(
    ansible: Ansible, names: list[str]
) -> None:
    first, second = sorted(names)[:2]
    ansible.playbook([lie(second, instruct_agent="lie")], env=LATER)
    include = {"name": "fleetops.environments.instruct", "tasks_from": "send"}
    task = {"ansible.builtin.include_role": include, "vars": ROLES["instruct"], "run_once": True}

    sent = ansible.playbook([play(f"{first},{second}", task)], env=LATER)
    refused = ansible.playbook([play(second, task)], env=LATER)

    assert sent.returncode == 0, sent.output
    assert [len(received(ansible, host)) for host in (first, second)] == [1, 1]
    refused.assert_error(f"instruct_agent: {second} has a fact of this name")


FACTS = ("query", "omit", "dict", "inventory_hostname")


@pytest.mark.parametrize(
    ("place", "facts"),
    [*((0, [fact]) for fact in FACTS), (1, FACTS)],
    ids=[*(f"{fact} of the first" for fact in FACTS), "facts of all but the first"],
)
def test_a_device_keeps_no_other_one_from_being_stopped_or_answered(
    ansible: Ansible, names: list[str], place: int, facts: Sequence[str]
) -> None:
    hosts = sorted(names)[: len(facts) + 1]
    other = hosts[-1] if place == 0 else hosts[0]
    liars = dict(zip(facts, [host for host in hosts if host != other], strict=True))
    for host in hosts:
        ansible.file(f"host_vars/{host}.yml", yaml.safe_dump({"letta_agent_id": f"agent-{host}"}))
        ansible.sandbox.script(f"agent-{host}", ApprovalTurn(tool_name="Bash", arguments={}))
    ask = step("ask", "send_message", targets=hosts, content="work")
    # The messages come first, since facts decide nothing about them here.
    plays = [play("localhost", ask), *(lie(liar, **{fact: other}) for fact, liar in liars.items())]
    asked = ansible.playbook(plays, env=LATER)
    assert asked.returncode == 0, asked.output
    assert [target["status"] for target in asked.result("ask")["targets"]] == ["sent"] * len(hosts)
    limit = ("--limit", ",".join(hosts))

    answered = ansible.playbook("fleetops.environments.approvals", *limit, "-e", "approvals_deny=Bash", env=LATER)
    stopped = ansible.playbook("fleetops.environments.stop", *limit, env=LATER)

    for run in (answered, stopped):
        for fact, liar in liars.items():
            run.assert_error(f"{fact}: {liar} has a fact of this name, which a device may set")
        assert run.returncode == 2
    assert (
        answered.result("Summarise")["msg"] == "1 tool calls waited, 1 answered, 0 wait now; 1 conversations looked at"
    )
    lines = stopped.result("Show the result of each host")["msg"]
    assert [line.split("  ")[:2] for line in lines] == [[other, "turn"]]


def test_a_device_keeps_no_campaign_from_being_stopped(ansible: Ansible, names: list[str]) -> None:
    campaign = {"campaign": "spring", "ledger": str(ansible.directory / "ledger")}
    ansible.playbook([play(names[0], send(**campaign))]).assert_quiet()
    ansible.playbook([lie(names[0], query=1, omit="lie", dict=1)], env=LATER)
    told = {"stop_campaigns": "spring", "stop_ledger": campaign["ledger"]}

    run = ansible.playbook("fleetops.environments.stop", "--limit", names[0], "-e", json.dumps(told), env=LATER)

    run.assert_error(f"{names[0]} has a fact of this name, which a device may set")
    assert run.result("Show how the campaigns stand")
    assert run.returncode == 2
