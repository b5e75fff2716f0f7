"""send_message with targets: one task for many environments."""

from __future__ import annotations

import csv
import itertools
import json

import pytest
import yaml

from .conftest import AGENT, Ansible, awake, messages_of, step


def _names(entries: list[dict[str, object]]) -> list[str]:
    return [str(entry["name"]) for entry in entries]


@pytest.mark.covers("send_message", "targets", "content", "agent_id", "conversation_id", "client_message_id")
def test_an_entry_of_targets_overrides_host_variables_and_they_override_options(ansible: Ansible) -> None:
    bare, whole, variables, partial = awake(ansible.sandbox)[:4]
    own = {"letta_agent_id": "agent-host", "letta_conversation_id": "conv-host"}
    for entry in (whole, variables):
        ansible.file(f"host_vars/{entry['name']}.yml", yaml.safe_dump(own))
    given = {
        "content": "own content",
        "agent_id": "agent-entry",
        "conversation_id": "conv-entry",
        "client_message_id": "message-entry",
    }
    # Not in the order of the inventory.
    targets = [
        {"host": partial["name"], "agent_id": "", "conversation_id": "new"},
        variables["name"],
        {"host": whole["name"], **given},
        bare["name"],
    ]

    run = ansible.task(
        "send_message",
        targets=targets,
        content="common content",
        agent_id="agent-option",
        conversation_id="conv-option",
        client_message_id="message-option",
    )

    run.assert_quiet()
    wire = {
        entry["name"]: {key: value for key, value in messages_of(ansible.sandbox, entry)[0].items() if key != "otid"}
        for entry in (bare, whole, variables, partial)
    }
    made = wire[partial["name"]].pop("conversationId")
    assert made.startswith("conv-")
    assert made not in ("conv-host", "conv-option", "conv-entry")
    common = {"content": "common content", "client_message_id": "message-option"}
    assert wire == {
        bare["name"]: {**common, "agentId": "agent-option", "conversationId": "conv-option"},
        variables["name"]: {**common, "agentId": "agent-host", "conversationId": "conv-host"},
        partial["name"]: {**common, "agentId": "agent-option"},
        whole["name"]: {
            "content": "own content",
            "client_message_id": "message-entry",
            "agentId": "agent-entry",
            "conversationId": "conv-entry",
        },
    }
    result = run.result("it")
    assert [target["host"] for target in result["targets"]] == _names([partial, variables, whole, bare])
    assert [target["conversation_id"] for target in result["targets"]] == [
        made, "conv-host", "conv-entry", "conv-option",
    ]  # fmt: skip
    assert (result["changed"], result["failed_hosts"], result["max_failures_exceeded"]) == (True, [], False)
    assert result["counts"] == {
        "sent": 4, "already_sent": 0, "offline": 0, "skipped": 0, "not_attempted": 0, "failed": 0, "unknown": 0,
    }  # fmt: skip
    assert result["msg"] == "4 targets: 4 sent"


@pytest.mark.covers("send_message", "agent_id", "conversation_id", "targets")
def test_variables_of_files_and_roles_can_name_agent_and_conversation_for_every_target(ansible: Ansible) -> None:
    """For the current host and with `targets`; a host's own variables override role defaults only, as in Ansible."""
    plain, named = entries = awake(ansible.sandbox)[:2]

    def variables(whose: str) -> str:
        return yaml.safe_dump({"letta_agent_id": f"agent-{whose}", "letta_conversation_id": f"conv-{whose}"})

    everyone = "{{ ansible_play_batch }}"
    own, targets = (
        step("own", "send_message", content="own"),
        {**step("targets", "send_message", content="targets", targets=everyone), "run_once": True},
    )
    ansible.file(f"host_vars/{named['name']}.yml", variables("host"))
    for name in ("vars_files", "include_vars"):
        ansible.file(f"{name}.yml", variables(name))
    for name in ("vars", "defaults"):
        ansible.file(f"roles/{name}/{name}/main.yml", variables(name))
        ansible.file(f"roles/{name}/tasks/main.yml", yaml.safe_dump([own, targets]))
    common = {"hosts": ",".join(_names(entries)), "gather_facts": False}

    run = ansible.playbook(
        [
            {**common, "tasks": [own, targets]},
            {**common, "vars_files": ["vars_files.yml"], "tasks": [own, targets]},
            {**common, "roles": ["vars"]},
            {**common, "roles": ["defaults"]},
            {**common, "tasks": [{"ansible.builtin.include_vars": "include_vars.yml"}, own, targets]},
        ]
    )

    assert run.returncode == 0, run.output
    wanted = {
        plain["name"]: [None, "vars_files", "vars", "defaults", "include_vars"],
        named["name"]: ["host", "vars_files", "vars", "host", "include_vars"],
    }
    for entry in entries:
        sent = [
            (message["content"], message["agentId"], message["conversationId"])
            for message in messages_of(ansible.sandbox, entry)
        ]
        assert sent == [
            (content, whose and f"agent-{whose}", whose and f"conv-{whose}")
            for whose in wanted[entry["name"]]
            for content in ("own", "targets")
        ]


@pytest.mark.covers("send_message", "targets", "content_template", "messages", "self_update", "conversation_id")
def test_content_is_rendered_for_each_target_with_its_own_variables(ansible: Ansible) -> None:
    first, second, third = entries = awake(ansible.sandbox)[:3]
    ansible.file(f"host_vars/{second['name']}.yml", "nick: Sam")
    ansible.file("group_vars/letta.yml", "nick: nobody")
    ansible.file(
        "templates/text.j2",
        "{{ inventory_hostname }} {{ nick }} {{ play_var }} {{ task_var }} {{ extra }} {{ fact | default('-') }} "
        "{{ letta_connection_id }}",
    )
    fact = {"name": "fact", "ansible.builtin.set_fact": {"fact": "of {{ inventory_hostname }}"}}
    template = step(
        "template", "send_message", targets="{{ ansible_play_batch }}", content_template="text.j2", agent_id=AGENT
    )

    run = ansible.steps(
        fact,
        {**template, "run_once": True, "vars": {"task_var": "task"}},
        {
            **step(
                "messages",
                "send_message",
                targets="{{ ansible_play_batch }}",
                messages=[{"content": "a"}, {"content": "b"}],
                agent_id=AGENT,
                conversation_id="new",
            ),
            "run_once": True,
        },
        {
            **step("update", "send_message", targets="{{ ansible_play_batch }}", self_update=True, agent_id=AGENT),
            "run_once": True,
        },
        hosts=",".join(_names(entries)),
        vars={"play_var": "play"},
        arguments=("-e", "extra=out"),
    )

    run.assert_quiet()
    wanted = {entry["name"]: "Sam" if entry is second else "nobody" for entry in entries}
    for entry in entries:
        template_message, *pair = messages_of(ansible.sandbox, entry)
        name = entry["name"]
        assert template_message["content"] == (
            f"{name} {wanted[name]} play task out of {name} {entry['row']['connectionId']}"
        )
        assert [message["content"] for message in pair[:2]] == ["a", "b"]
        assert ansible.sandbox.received()[entry["id"]]["posts"] == 2 + len(pair[2:])
    ids = [m["client_message_id"] for entry in entries for m in messages_of(ansible.sandbox, entry)]
    assert len(set(ids)) == len(ids)
    conversations = [messages_of(ansible.sandbox, entry)[1]["conversationId"] for entry in entries]
    assert len(set(conversations)) == 3

    by_host = {target["host"]: target for target in run.result("update", first["name"])["targets"]}
    for entry in (first, second, third):
        said = entry["row"]["metadata"]["self_update"]
        target = by_host[entry["name"]]
        if said["supported"]:
            assert target["status"] == "sent"
            assert said["manual_command"] in messages_of(ansible.sandbox, entry)[-1]["content"]
        else:
            assert (target["status"], said["reason"] in target["reason"]) == ("skipped", True)
            assert len(messages_of(ansible.sandbox, entry)) == 3
    assert {target["status"] for target in by_host.values()} == {"sent", "skipped"}


def test_a_template_knows_the_item_of_a_loop_for_every_target(ansible: Ansible) -> None:
    entries = awake(ansible.sandbox)[:2]
    ansible.file("templates/text.j2", "{{ item }} for {{ inventory_hostname }}")
    send = step("send", "send_message", targets="{{ ansible_play_batch }}", content_template="text.j2", agent_id=AGENT)

    run = ansible.steps({**send, "run_once": True, "loop": ["a"]}, hosts=",".join(_names(entries)))

    assert run.returncode == 0, run.output
    for entry in entries:
        assert [m["content"] for m in messages_of(ansible.sandbox, entry)] == [f"a for {entry['name']}"], run.output


@pytest.mark.covers("send_message", "targets")
def test_targets_in_a_play_of_several_hosts_need_run_once(ansible: Ansible) -> None:
    first, second = awake(ansible.sandbox)[:2]
    play = [
        {
            "hosts": f"{first['name']},{second['name']}",
            "gather_facts": False,
            "tasks": [
                {
                    "name": "send",
                    "fleetops.environments.send_message": {
                        "targets": "{{ ansible_play_batch }}",
                        "content": "Hello",
                        "agent_id": AGENT,
                    },
                }
            ],
        }
    ]

    refused = ansible.playbook(play)
    refused.assert_error("targets", "run_once: true")
    assert ansible.sandbox.requests("messages") == []

    ansible.playbook(play, "--limit", second["name"]).assert_quiet()
    assert set(ansible.sandbox.received()) == {second["id"]}

    ansible.sandbox.clear_received()
    play[0]["tasks"][0]["run_once"] = True  # type: ignore[index]
    ansible.playbook(play).assert_quiet()
    turns = {id_: device["turns"] for id_, device in ansible.sandbox.received().items()}
    assert turns == {first["id"]: 1, second["id"]: 1}


def test_a_strategy_without_run_once_sends_no_more_either(ansible: Ansible) -> None:
    """Ansible runs such a task on every host, with a warning, when the strategy is `free`."""
    entries = awake(ansible.sandbox)[:3]
    send = step("send", "send_message", targets="{{ ansible_play_hosts_all }}", content="Hello", agent_id=AGENT)

    ansible.steps({**send, "run_once": True}, hosts=",".join(_names(entries)), strategy="free")

    turns = {id_: device["turns"] for id_, device in ansible.sandbox.received().items()}
    assert turns in ({}, {entry["id"]: 1 for entry in entries})


@pytest.mark.covers("send_message", "targets", "when_offline", "offline_timeout")
def test_when_offline_decides_how_offline_targets_count(ansible: Ansible) -> None:
    offline = next(entry for entry in ansible.sandbox.fleet() if not entry["online"])
    online = awake(ansible.sandbox)[0]
    say = {"targets": [offline["name"], online["name"]], "content": "Hello", "agent_id": AGENT}

    run = ansible.steps(
        step("skip", "send_message", **say),
        step("fail", "send_message", **say, when_offline="fail", max_failures=1),
        step("wait", "send_message", **say, when_offline="wait", offline_timeout=1),
    )

    assert [entry["outcome"] for entry in run.results] == ["ok", "ok", "failed"]
    for name, failed in (("skip", []), ("fail", [offline["name"]]), ("wait", [offline["name"]])):
        result = run.result(name)
        assert [target["status"] for target in result["targets"]] == ["offline", "sent"]
        assert result["failed_hosts"] == failed
        assert (result["changed"], result["counts"]["offline"]) == (True, 1)
    assert ansible.sandbox.received()[online["id"]]["turns"] == 3
    assert offline["id"] not in ansible.sandbox.received()


@pytest.mark.covers("send_message", "max_failures", "concurrency", "result_file", "retry_file")
def test_above_max_failures_no_new_send_starts_and_the_rest_is_reported_as_not_attempted(ansible: Ansible) -> None:
    """One failure is allowed in each second case; every bad target is refused with a 400."""
    bad_1, good_1, bad_2, good_2 = entries = awake(ansible.sandbox)[:4]
    for entry in (bad_1, bad_2):
        ansible.sandbox.add_fault("status", route="messages", target=entry["id"], status=400)
    directory = ansible.directory

    def send(name: str, **options: object) -> dict[str, object]:
        return step(
            name,
            "send_message",
            targets=_names(entries),
            content="Hello",
            agent_id=AGENT,
            concurrency=1,
            result_file=str(directory / f"{name}.jsonl"),
            retry_file=str(directory / f"{name}.txt"),
            **options,
        )

    run = ansible.steps(
        send("none"),
        send("one", max_failures=1),
        send("two", max_failures=2),
        send("below", max_failures="49%"),
        send("half", max_failures="50%"),
        send("all", max_failures="100 %"),
    )

    expected = {
        "none": ["failed", "not_attempted", "not_attempted", "not_attempted"],
        "one": ["failed", "sent", "failed", "not_attempted"],
        "two": ["failed", "sent", "failed", "sent"],
        "below": ["failed", "sent", "failed", "not_attempted"],
        "half": ["failed", "sent", "failed", "sent"],
        "all": ["failed", "sent", "failed", "sent"],
    }
    exceeded = {"none", "one", "below"}
    for name, statuses in expected.items():
        result = run.result(name)
        assert [target["status"] for target in result["targets"]] == statuses, name
        assert result["failed_hosts"] == [
            target["host"] for target in result["targets"] if target["status"] == "failed"
        ], name
        assert result["max_failures_exceeded"] == (name in exceeded), name
        assert sum(result["counts"].values()) == 4
        assert {status: count for status, count in result["counts"].items() if count} == {
            status: statuses.count(status) for status in statuses
        }, name
        assert result["changed"] == ("sent" in statuses), name
        assert "400 Bad Request: SANDBOX_FAULT" in result["msg"]
        lines = [json.loads(line) for line in (directory / f"{name}.jsonl").read_text().splitlines()]
        assert lines == result["targets"], name
        again = [host for host, status in zip(_names(entries), statuses, strict=True) if status != "sent"]
        assert (directory / f"{name}.txt").read_text() == "".join(f"{host}\n" for host in again), name
    assert [outcome["outcome"] == "failed" for outcome in run.results] == [name in exceeded for name in expected]
    received = {id_: device["turns"] for id_, device in ansible.sandbox.received().items()}
    assert received == {good_1["id"]: 5, good_2["id"]: 3}


@pytest.mark.covers("send_message", "max_failures", "concurrency")
def test_running_sends_finish_when_the_budget_is_exceeded(ansible: Ansible) -> None:
    slow, bad, *_rest = entries = awake(ansible.sandbox)[:5]
    ansible.sandbox.add_fault("slow", route="messages", target=slow["id"], seconds=1.0)
    ansible.sandbox.add_fault("status", route="messages", target=bad["id"], status=400)

    run = ansible.task("send_message", targets=_names(entries), content="Hello", agent_id=AGENT, concurrency=2)

    run.assert_error("5 targets: 1 sent, 3 not_attempted, 1 failed", bad["name"])
    result = run.result("it")
    assert [target["status"] for target in result["targets"]] == ["sent", "failed", *["not_attempted"] * 3]
    assert result["targets"][0]["duration"] >= 1
    assert set(ansible.sandbox.received()) == {slow["id"]}


def test_twenty_failures_are_named_in_the_message_and_the_result_has_all(ansible: Ansible) -> None:
    added = [ansible.sandbox.add_environment(connectionName=f"more-{number:02d}") for number in range(25)]
    ansible.sandbox.add_fault("status", route="messages", status=400, body="html")

    run = ansible.task(
        "send_message",
        targets=[row["connectionName"] for row in added],
        content="Hello",
        agent_id=AGENT,
        max_failures="99%",
        concurrency=1,
    )

    run.assert_error("25 targets: 25 failed", "and 5 more")
    result = run.result("it")
    named = [row["connectionName"] for row in added if f"{row['connectionName']}: failed" in result["msg"]]
    assert len(named) == 20
    assert "\n" not in result["msg"]
    assert [target["host"] for target in result["targets"]] == [row["connectionName"] for row in added]
    assert len(result["failed_hosts"]) == 25


@pytest.mark.covers("send_message", "concurrency", "rate")
def test_concurrency_and_rate_limit_the_sends(ansible: Ansible) -> None:
    entries = awake(ansible.sandbox)[:12]
    ansible.sandbox.add_fault("slow", route="messages", seconds=0.3)
    say = {"content": "Hello", "agent_id": AGENT}

    ansible.steps(
        step("three", "send_message", **say, targets=_names(entries), concurrency=3),
        step("default", "send_message", **say, targets=_names(entries)),
        step("rate", "send_message", **say, targets=_names(entries[:6]), rate=4),
    ).assert_quiet()

    requests = ansible.sandbox.requests("messages")
    three, default, paced = requests[:12], requests[12:24], requests[24:]
    assert len(paced) == 6
    assert max(request["under_way"] for request in three) == 3
    assert max(request["under_way"] for request in default) > 6
    gaps = [later["at"] - earlier["at"] for earlier, later in itertools.pairwise(paced)]
    assert paced[-1]["at"] - paced[0]["at"] >= 5 / 4 - 0.1, gaps
    assert default[-1]["at"] - default[0]["at"] < 1


@pytest.mark.covers("send_message", "retry_file", "result_file", "targets")
def test_the_retry_file_is_a_limit_without_targets_whose_message_may_have_arrived(ansible: Ansible) -> None:
    failed, unclear, sent, offline = (*awake(ansible.sandbox)[:3], ansible.sandbox.fleet()[9])
    assert not offline["online"]
    ansible.sandbox.add_fault("status", route="messages", target=failed["id"], status=400, times=1)
    ansible.sandbox.add_fault("html_200", route="messages", target=unclear["id"], accepted=True)
    retry, result_file = ansible.directory / "again.txt", ansible.directory / "results.csv"
    play = [
        {
            "hosts": ",".join(_names([failed, unclear, sent, offline])),
            "gather_facts": False,
            "tasks": [
                {
                    "name": "send",
                    "run_once": True,
                    "fleetops.environments.send_message": {
                        "targets": "{{ ansible_play_batch }}",
                        "content": "Hello",
                        "agent_id": AGENT,
                        "max_failures": 1,
                        "retry_file": str(retry),
                        "result_file": str(result_file),
                    },
                }
            ],
        }
    ]

    first = ansible.playbook(play)

    assert first.returncode == 2
    result = next(entry["result"] for entry in first.results)
    statuses = {target["host"]: target["status"] for target in result["targets"]}
    assert statuses == {
        failed["name"]: "failed", unclear["name"]: "unknown", sent["name"]: "sent", offline["name"]: "offline",
    }  # fmt: skip
    assert result["failed_hosts"] == [host for host, status in statuses.items() if status in ("failed", "unknown")]
    assert retry.read_text() == f"{failed['name']}\n"
    with result_file.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["host"]: row["status"] for row in rows} == statuses
    codes = {row["host"]: row["error_code"] for row in rows}
    assert codes[failed["name"]] == "http_400"
    assert codes[sent["name"]] == ""

    second = ansible.playbook(play, "--limit", f"@{retry}")

    second.assert_quiet()
    assert [target["host"] for target in second.result("send")["targets"]] == [failed["name"]]
    assert not retry.exists()
    turns = {id_: device["turns"] for id_, device in ansible.sandbox.received().items()}
    assert turns == {failed["id"]: 1, unclear["id"]: 1, sent["id"]: 1}


@pytest.mark.covers("send_message", "retry_file")
@pytest.mark.parametrize("unclear", [False, True])
def test_no_retry_file_is_left_when_no_target_is_to_be_tried_again(ansible: Ansible, unclear: bool) -> None:
    """Ansible treats an empty file after `--limit` as no limit at all."""
    entries = awake(ansible.sandbox)[:3]
    if unclear:
        ansible.sandbox.add_fault("html_200", route="messages", target=entries[0]["id"], accepted=True)
    stale = ansible.file("again.txt", f"{entries[2]['name']}\n")
    say = {"targets": "{{ ansible_play_batch }}", "content": "Hello", "agent_id": AGENT, "max_failures": 1}
    send = {**step("send", "send_message", **say, retry_file="again.txt"), "run_once": True}

    first = ansible.steps(send, hosts=",".join(_names(entries)))
    assert first.returncode == 0, first.output
    assert first.result("send")["counts"]["unknown"] == int(unclear)
    assert not stale.exists()

    ansible.sandbox.clear_received()
    second = ansible.steps(send, hosts=",".join(_names(entries)), arguments=("--limit", "@again.txt"))
    second.assert_error("again.txt")
    assert ansible.sandbox.received() == {}


@pytest.mark.covers("send_message", "targets", "result_file")
def test_a_target_whose_address_is_too_long_fails_alone(ansible: Ansible) -> None:
    entries = awake(ansible.sandbox)[:3]
    long = ansible.sandbox.add_environment(deviceId="d" * 70_000, connectionName="long")
    ansible.sandbox.offline(long["id"])
    targets = ["long", *_names(entries)]

    run = ansible.task(
        "send_message",
        targets=targets,
        content="Hello",
        agent_id=AGENT,
        max_failures=1,
        concurrency=1,
        result_file="results.jsonl",
    )

    run.assert_quiet()
    result = run.result("it")
    assert [target["status"] for target in result["targets"]] == ["failed", "sent", "sent", "sent"]
    assert result["targets"][0]["error"]["code"] == "invalid"
    assert len(result["msg"]) < 1000
    assert set(ansible.sandbox.received()) == {entry["id"] for entry in entries}
    lines = (ansible.directory / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result["targets"]


@pytest.mark.covers("send_message", "when_offline")
def test_check_mode_expects_no_change_if_every_target_is_offline_and_skipped(ansible: Ansible) -> None:
    offline = [entry for entry in ansible.sandbox.fleet() if not entry["online"]]
    away = {"targets": _names(offline), "content": "Hello", "agent_id": AGENT}
    mixed = {**away, "targets": _names([*offline, *awake(ansible.sandbox)[:1]])}

    run = ansible.steps(
        step("skip", "send_message", **away),
        step("fail", "send_message", **away, when_offline="fail"),
        step("wait", "send_message", **away, when_offline="wait"),
        step("mixed", "send_message", **mixed),
        arguments=("--check",),
    )

    run.assert_quiet()
    count = len(offline)
    assert {entry["task"]: (entry["result"]["changed"], entry["result"]["msg"]) for entry in run.results} == {
        "skip": (False, f"would send to {count} of {count} targets, {count} of them listed as offline"),
        "fail": (True, f"would send to {count} of {count} targets, {count} of them listed as offline"),
        "wait": (True, f"would send to {count} of {count} targets, {count} of them listed as offline"),
        "mixed": (True, f"would send to {count + 1} of {count + 1} targets, {count} of them listed as offline"),
    }


def test_check_mode_shows_the_first_targets_and_writes_and_sends_nothing(ansible: Ansible) -> None:
    entries = awake(ansible.sandbox)[:7]
    pip = next(entry for entry in entries if not entry["row"]["metadata"]["self_update"]["supported"])
    ansible.file("templates/text.j2", "Hello {{ inventory_hostname }}")
    files = {"retry_file": "again.txt", "result_file": "results.jsonl"}

    run = ansible.steps(
        step(
            "template",
            "send_message",
            targets=_names(entries),
            content_template="text.j2",
            agent_id=AGENT,
            conversation_id="new",
            **files,
        ),
        step("update", "send_message", targets=[pip["name"]], self_update=True, agent_id=AGENT),
        step("none", "send_message", targets=[], content="Hello"),
        arguments=("--check",),
    )

    run.assert_quiet()
    result = run.result("template")
    assert result["changed"] is True
    assert result["msg"] == "would send to 7 of 7 targets"
    assert [would["host"] for would in result["would_send"]] == _names(entries)[:5]
    assert [would["messages"][0]["content"] for would in result["would_send"]] == [
        f"Hello {name}" for name in _names(entries)[:5]
    ]
    assert {(would["agent_id"], would["conversation_id"]) for would in result["would_send"]} == {(AGENT, "new")}
    assert {target["status"] for target in result["targets"]} == {"not_attempted"}
    update = run.result("update")
    assert (update["changed"], update["would_send"], update["targets"][0]["status"]) == (False, [], "skipped")
    assert run.result("none")["changed"] is False
    for name in files.values():
        assert not (ansible.directory / name).exists()
    assert ansible.sandbox.received() == {}
    assert [request for request in ansible.sandbox.requests() if request["method"] == "POST"] == []
