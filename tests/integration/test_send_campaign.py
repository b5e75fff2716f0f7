"""send_message as a campaign: every message is delivered once, however often and by how many runs it is sent."""

from __future__ import annotations

import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.sandbox.turns import ErrorTurn, GiveUpTurn, LongTurn

from .conftest import AGENT, Ansible, step

SEND = {"content": "hello", "agent_id": AGENT, "campaign": "c", "ledger": "ledger.sqlite"}


@pytest.fixture
def names(ansible: Ansible) -> list[str]:
    """Three online environments, in the order of the targets."""
    names = [f"campaign-{number}" for number in range(3)]
    for name in names:
        ansible.sandbox.add_environment(connectionName=name)
    return names


def _turns(ansible: Ansible) -> dict[str, int]:
    """The number of turns of each environment, by name."""
    received = ansible.sandbox.received()
    return {
        entry["name"]: received[entry["id"]]["turns"] for entry in ansible.sandbox.fleet() if entry["id"] in received
    }


def _restart(ansible: Ansible) -> None:
    for entry in ansible.sandbox.fleet():
        if entry["online"]:
            ansible.sandbox.rotate(entry["id"], restart=True)


def _rows(ansible: Ansible, columns: str, path: str = "ledger.sqlite") -> list[tuple[Any, ...]]:
    query = f"SELECT {columns} FROM deliveries JOIN runs ON run = number ORDER BY host"
    return ansible.ledgers.query(ansible.directory / path, query)


def _statuses(result: dict[str, Any]) -> list[str]:
    return [target["status"] for target in result["targets"]]


@pytest.mark.covers("send_message", "campaign", "ledger")
def test_the_same_play_run_twice_sends_once(ansible: Ansible, names: list[str]) -> None:
    plays = [{**SEND, "targets": names}, {**SEND, "targets": names}]
    first, second = (ansible.task("send_message", *("-e", "awx_user_name=alice"), **play) for play in plays)
    _restart(ansible)
    third = ansible.task("send_message", **SEND, play={"hosts": names[0]})

    for run in (first, second, third):
        run.assert_quiet()
    assert first.result("it")["msg"] == "3 targets: 3 sent"
    result = second.result("it")
    assert (result["changed"], result["msg"], result["failed_hosts"]) == (False, "3 targets: 3 already_sent", [])
    assert [target["client_message_id"] for target in result["targets"]] == [
        target["client_message_id"] for target in first.result("it")["targets"]
    ]
    assert result["targets"][0]["sent_at"] == first.result("it")["targets"][0]["sent_at"]
    single = third.result("it")
    assert (single["status"], single["changed"]) == ("already_sent", False)
    assert _turns(ansible) == dict.fromkeys(names, 1)
    [row, *_others] = _rows(ansible, "campaign, host, status, awx_user, awx_job_id, playbook")
    assert row == ("c", names[0], "sent", "alice", None, str(ansible.directory / "play.yml"))


@pytest.mark.of_the_file
@pytest.mark.covers("send_message", "ledger")
def test_the_task_or_else_the_environment_names_the_ledger(ansible: Ansible, names: list[str]) -> None:
    send = {name: value for name, value in SEND.items() if name != "ledger"}
    state = {"XDG_STATE_HOME": str(ansible.directory / "state"), "JOB_ID": "7", "AWX_HOST": "https://awx.invalid"}
    by_name = state | {"FLEETOPS_LEDGER": str(ansible.directory / "named.sqlite")}
    # The tests may run in a container, where the first file of a directory is a warning.
    ansible.file("state/fleetops/another", "")

    for env in (by_name, state):
        ansible.task("send_message", play={"hosts": names[0]}, env=env, **send).assert_quiet()

    assert len(_rows(ansible, "host", "named.sqlite")) == 1
    assert _rows(ansible, "awx_job_id, outcome", "state/fleetops/ledger.sqlite") == [("7", "found in the conversation")]


@pytest.mark.of_the_file
def test_a_ledger_that_ends_with_its_container_is_a_warning(ansible: Ansible, names: list[str]) -> None:
    options = SEND | {"ledger": "new/ledger.sqlite", "targets": names[:1]}
    first, second = (ansible.task("send_message", env={"container": "oci"}, **options) for _time in range(2))

    first.assert_warning(
        "ledger: ", "/new/ledger.sqlite' is the first file of a directory in a container", "postgresql://"
    )
    second.assert_quiet()


# The extra variables of a job as AWX writes them to a file: texts are marked unsafe.
AWX_STARTED_BY = """
{prefix}_job_id: 42
{prefix}_job_launch_type: !unsafe 'manual'
{prefix}_user_id: 7
{prefix}_user_name: !unsafe 'alice'
{prefix}_user_email: !unsafe 'alice@example.com'
"""
AWX_SCHEDULED = """
{prefix}_job_id: 42
{prefix}_job_launch_type: !unsafe 'scheduled'
{prefix}_schedule_id: 3
{prefix}_schedule_name: !unsafe 'every night'
"""


@pytest.mark.parametrize(("prefix", "user"), [("awx", "alice"), ("tower", "alice"), ("awx", None)])
def test_the_record_has_the_awx_job_and_who_started_it(
    ansible: Ansible, names: list[str], prefix: str, user: str | None
) -> None:
    text = (AWX_STARTED_BY if user else AWX_SCHEDULED).format(prefix=prefix)
    extra = ansible.file("extravars", text)

    ansible.task("send_message", "-e", f"@{extra}", **SEND, targets=names[:1]).assert_quiet()

    assert _rows(ansible, "awx_job_id, awx_user") == [("42", user)]


@pytest.mark.covers("send_message", "campaign")
def test_options_that_conflict_with_a_campaign_are_refused_before_anything_is_sent(
    ansible: Ansible, names: list[str]
) -> None:
    approvals = [{"tool_call_id": "call-1", "approve": True}]
    message = {"content": "hello"}
    wrong: dict[str, dict[str, Any]] = {
        "approvals": {"content": None, "approvals": approvals},
        "approvals among messages": {"content": None, "messages": [{"approvals": approvals}]},
        "id": {"client_message_id": "m"},
        "id of a message": {"content": None, "messages": [message | {"client_message_id": "m"}]},
        "otid of a message": {"content": None, "messages": [message | {"otid": "m"}]},
        "no campaign for verify": {"campaign": "", "ledger": None, "verify": "none"},
        "no campaign for ledger": {"campaign": None},
        "no campaign for retry": {"campaign": None, "ledger": None, "retry": "all"},
        "id of a target": {"targets": [{"host": names[0], "client_message_id": "m"}]},
    }
    steps = [
        step(
            name,
            "send_message",
            **{key: value for key, value in {**SEND, "targets": names, **given}.items() if value is not None},
        )
        for name, given in wrong.items()
    ]

    run = ansible.steps(*steps)

    said = {entry["task"]: entry["result"]["msg"] for entry in run.results}
    own = "campaign: cannot go with a client_message_id or otid, as it makes those itself"
    assert said == {
        "approvals": "campaign: cannot go with approvals, which carry no id to be looked up by",
        "approvals among messages": "campaign: cannot go with approvals, which carry no id to be looked up by",
        "id": own,
        "id of a message": own,
        "otid of a message": own,
        "no campaign for verify": "verify: needs campaign",
        "no campaign for ledger": "ledger: needs campaign",
        "no campaign for retry": "retry: needs campaign",
        "id of a target": own,
    }
    assert ansible.sandbox.received() == {}
    assert not ansible.ledgers.exists(ansible.directory / "ledger.sqlite")


@pytest.mark.covers("send_message", "campaign")
def test_other_content_is_an_error_and_a_template_is_compared_by_its_source(ansible: Ansible, names: list[str]) -> None:
    ansible.file("templates/t.j2", "hello {{ inventory_hostname }}")
    template = {
        "targets": names,
        "content_template": "t.j2",
        "agent_id": AGENT,
        "campaign": "t",
        "ledger": "ledger.sqlite",
    }

    run = ansible.steps(
        step("first", "send_message", **{**SEND, "targets": names[:2]}),
        step("other", "send_message", **{**SEND, "targets": names, "content": "bye"}),
        step("other campaign", "send_message", **{**SEND, "targets": names[:1], "content": "bye", "campaign": "d"}),
        step("template", "send_message", **template),
        step("template again", "send_message", **template),
    )

    results = {entry["task"]: entry["result"] for entry in run.results}
    other = results["other"]["msg"]
    assert other.startswith(f"campaign: 'c' has had other content for {names[0]} since 20")
    assert other.endswith("; give what is new a campaign of its own")
    assert results["other campaign"]["msg"] == "1 targets: 1 sent"
    assert results["template"]["msg"] == "3 targets: 3 sent"
    assert results["template again"]["msg"] == "3 targets: 3 already_sent"
    assert _turns(ansible) == dict(zip(names, (3, 2, 1), strict=True))


@pytest.mark.covers("send_message", "campaign")
@pytest.mark.parametrize("source", ["content", "content_file", "content_template", "messages"])
def test_edited_content_is_not_sent_to_the_remaining_targets(ansible: Ansible, names: list[str], source: str) -> None:
    path = {"content_file": "files/text", "content_template": "templates/text"}.get(source)

    def send(text: str, targets: list[Any], *arguments: str) -> dict[str, Any]:
        if path is not None:
            ansible.file(path, text)
        value: Any = [{"content": text}] if source == "messages" else "text" if path else text
        given = {**SEND, "content": None, source: value, "targets": targets}
        return ansible.task("send_message", *arguments, **given).result("it")

    own = {"host": names[2], "content": "of its own"}
    assert send("hello", names[:1])["msg"] == "1 targets: 1 sent"
    refused = [send("bye", names[1:2]), send("bye", names[1:2], "--check")]
    assert send("hello", [names[1], own])["msg"] == "2 targets: 2 sent"

    for result in refused:
        assert result["msg"].startswith("campaign: 'c' has had other content since 20")
        assert result["msg"].endswith("; give what is new a campaign of its own")
    assert _turns(ansible) == dict.fromkeys(names, 1)


def test_a_blank_campaign_counts_as_unset(ansible: Ansible, names: list[str]) -> None:
    """A survey passes a skipped answer as a blank one."""
    ledger = ansible.directory / "ledger.sqlite"
    send = {"content": "hello", "agent_id": AGENT, "targets": names[:1], "campaign": " "}

    run = ansible.steps(
        step("first", "send_message", **send),
        step("second", "send_message", **send),
        step("with a ledger", "send_message", **send, ledger=str(ledger)),
        env={"FLEETOPS_LEDGER": str(ledger)},
    )

    assert [_statuses(run.result(name)) for name in ("first", "second")] == [["sent"]] * 2
    assert run.result("with a ledger")["msg"] == "ledger: needs campaign"
    assert not ledger.exists()


@pytest.mark.covers("send_message", "retry")
def test_the_selected_targets_are_sent_to_again(ansible: Ansible, names: list[str]) -> None:
    targets = [{"host": name, "agent_id": f"agent-{name}"} for name in names]
    ansible.sandbox.script(f"agent-{names[1]}", ErrorTurn(message="no credit"))
    send = {**SEND, "targets": targets, "wait_for_reply": True, "max_failures": "100%"}

    run = ansible.steps(
        step("first", "send_message", **send),
        step("undelivered", "send_message", **send),
        step("failed turns", "send_message", **send, retry="failed_turns"),
        step("failed turns again", "send_message", **send, retry="failed_turns"),
        step("all", "send_message", **send, retry="all"),
    )

    results = {entry["task"]: entry["result"] for entry in run.results}
    assert {name: _statuses(result) for name, result in results.items()} == {
        "first": ["sent"] * 3,
        "undelivered": ["already_sent"] * 3,
        "failed turns": ["already_sent", "sent", "already_sent"],
        "failed turns again": ["already_sent"] * 3,
        "all": ["sent"] * 3,
    }
    # A target whose message was delivered earlier is reported with its reply, as at that time.
    states = {name: [target["reply"]["state"] for target in result["targets"]] for name, result in results.items()}
    assert states["first"] == states["undelivered"] == ["replied", "failed", "replied"]
    assert states["failed turns"] == states["all"] == ["replied"] * 3
    ids = [{result["targets"][place]["client_message_id"] for result in results.values()} for place in range(3)]
    assert [len(of_one) for of_one in ids] == [2, 3, 2]
    assert _turns(ansible) == dict(zip(names, (2, 3, 2), strict=True))
    assert _rows(ansible, "attempt, reply_state") == [(2, "replied"), (3, "replied"), (2, "replied")]


@pytest.mark.covers("send_message", "retry")
def test_a_message_that_failed_or_was_dropped_after_its_run_is_sent_again_and_one_that_waits_is_not(
    ansible: Ansible, names: list[str]
) -> None:
    dropped, failed, waits = names
    targets = [{"host": name, "agent_id": f"agent-{name}"} for name in names]
    ansible.sandbox.script(f"agent-{dropped}", GiveUpTurn())
    ansible.sandbox.script(f"agent-{failed}", ErrorTurn(message="no credit"))
    ansible.sandbox.script(f"agent-{waits}", LongTurn(seconds=600))
    busy = {"targets": targets[2:], "content": "what keeps the device busy"}
    send = {**SEND, "targets": targets}

    run = ansible.steps(
        step("busy", "send_message", **busy),
        step("first", "send_message", **send),
        step("same", "send_message", **send),
        step("too early", "send_message", **send, retry="failed_turns"),
    )
    _send_earlier(ansible, seconds=90)
    _connect(ansible, names, time.time())
    restarted = ansible.task("send_message", **send, retry="failed_turns")
    _connect(ansible, names, 0)
    late = ansible.steps(
        step("late", "send_message", **send, retry="failed_turns"),
        step("again", "send_message", **send, retry="failed_turns"),
    )

    results = [run.result(task) for task in ("first", "same", "too early")]
    results += [restarted.result("it"), late.result("late"), late.result("again")]
    none = ["already_sent"] * 3
    expected = [["sent"] * 3, none, ["already_sent", "sent", "already_sent"], none, ["sent", *none[1:]], none]
    assert [_statuses(result) for result in results] == expected
    assert _rows(ansible, "attempt") == [(2,), (2,), (1,)]
    assert _turns(ansible) == {dropped: 2, failed: 2, waits: 2}


def _connect(ansible: Ansible, names: list[str], at: float) -> None:
    """Let the server have it that devices have been connected since a time, in seconds since the epoch."""
    for entry in ansible.sandbox.fleet():
        if entry["name"] in names:
            ansible.sandbox.patch(entry["id"], connectedAt=int(at * 1000))


def _send_earlier(ansible: Ansible, seconds: float) -> None:
    """Let the ledger have it that everything was sent earlier than it was."""
    moment = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()
    ansible.ledgers.change(ansible.directory / "ledger.sqlite", f"UPDATE deliveries SET sent_at = '{moment}'")


@pytest.mark.covers("send_message", "verify")
def test_a_lost_ledger_is_restored_from_the_conversations(ansible: Ansible, names: list[str]) -> None:
    first = ansible.task("send_message", **SEND, targets=names[:2])
    ansible.ledgers.lose(ansible.directory / "ledger.sqlite")
    second = ansible.task("send_message", **SEND, targets=names)
    ansible.ledgers.lose(ansible.directory / "ledger.sqlite")
    ansible.sandbox.clear_requests()
    third = ansible.task("send_message", **SEND, targets=names, verify="none")

    assert _statuses(first.result("it")) == ["sent", "sent"]
    found = second.result("it")
    assert _statuses(found) == ["already_sent", "already_sent", "sent"]
    assert found["targets"][0]["reason"] == "found in the conversation"
    # Without a look-up they are sent again, under ids that the devices know.
    assert _statuses(third.result("it")) == ["sent"] * 3
    assert ansible.sandbox.requests("history") == []
    assert _turns(ansible) == dict.fromkeys(names, 1)


@pytest.mark.covers("send_message", "campaign")
def test_check_mode_reads_the_ledger_and_records_nothing(ansible: Ansible, names: list[str]) -> None:
    before = ansible.task("send_message", "--check", **SEND, targets=names)
    assert not ansible.ledgers.exists(ansible.directory / "ledger.sqlite")
    ansible.task("send_message", **SEND, targets=names[:1]).assert_quiet()
    runs = len(_rows(ansible, "host"))
    some = ansible.task("send_message", "--check", **SEND, targets=names)
    none = ansible.task("send_message", "--check", **SEND, targets=names[:1])
    every = ansible.task("send_message", "--check", **SEND, targets=names[:1], retry="all")

    assert len(before.result("it")["would_send"]) == 3
    result = some.result("it")
    assert result["msg"] == "would send to 2 of 3 targets; 1 have it already"
    assert [entry["host"] for entry in result["would_send"]] == names[1:]
    assert (result["changed"], none.result("it")["changed"], every.result("it")["changed"]) == (True, False, True)
    assert len(_rows(ansible, "host")) == runs == 1
    assert _turns(ansible) == {names[0]: 1}


@pytest.mark.parametrize("others", [0, 1])
def test_a_play_that_is_killed_is_completed_by_the_next(ansible: Ansible, names: list[str], others: int) -> None:
    """The devices restart in between; meanwhile another run leaves the deliveries in progress alone."""
    play = [{"hosts": "localhost", "gather_facts": False, "tasks": [step("it", "send_message", **SEND, targets=names)]}]
    path = ansible.file("killed.yml", yaml.safe_dump(play))
    source = ansible.source()
    ansible.sandbox.add_fault("slow", seconds=60, route="messages", times=2)
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(source), str(path)]
    env = {**os.environ, "LETTA_BASE_URL": ansible.sandbox.url, "LETTA_API_KEY": ansible.sandbox.api_key}
    with subprocess.Popen(
        command, cwd=ansible.directory, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 60
        while sum(_turns(ansible).values()) < 3:
            assert time.monotonic() < deadline
        meanwhile = [ansible.task("send_message", **SEND, targets=names) for _number in range(others)]
        # Ansible's workers are in their own sessions.
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for pid in (process.pid, *map(int, workers)):
            os.kill(pid, signal.SIGKILL)
    ansible.sandbox.clear_faults()
    _restart(ansible)

    run = ansible.task("send_message", **SEND, targets=names)

    for other in meanwhile:
        assert sorted(_statuses(other.result("it"))) == ["already_sent", "not_attempted", "not_attempted"]
    run.assert_quiet()
    assert _statuses(run.result("it")) == ["already_sent"] * 3
    assert _turns(ansible) == dict.fromkeys(names, 1)


@pytest.mark.of_the_file
def test_an_unusable_ledger_is_an_error_before_anything_is_sent(ansible: Ansible, names: list[str]) -> None:
    ansible.file("text", "no database " * 100)
    newer = sqlite3.connect(ansible.directory / "newer")
    newer.executescript("CREATE TABLE t (c); PRAGMA application_id = 0x666C6565; PRAGMA user_version = 9;")
    newer.close()
    paths = {"damaged": "text", "newer": "newer", "directory": ".", "read-only": "/proc/ledger.sqlite"}

    run = ansible.steps(
        *(step(name, "send_message", **{**SEND, "targets": names, "ledger": path}) for name, path in paths.items())
    )

    said = {entry["task"]: entry["result"]["msg"] for entry in run.results}
    assert all(message.startswith("ledger: ") and "\n" not in message for message in said.values()), json.dumps(said)
    assert "is damaged, or no ledger" in said["damaged"]
    assert "has the schema 9" in said["newer"]
    assert "Is a directory" in said["directory"]
    assert "No such file" in said["read-only"]
    assert ansible.sandbox.received() == {}
    assert "Traceback" not in run.output


def test_nothing_more_is_sent_when_the_audit_log_cannot_be_written(ansible: Ansible, names: list[str]) -> None:
    limit = 2**30
    with (ansible.directory / "audit.jsonl").open("wb") as file:
        file.truncate(limit)
    _soft, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        run = ansible.task("send_message", **SEND, targets=names[:3], audit_log="audit.jsonl", concurrency=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    run.assert_error("3 targets: 1 sent, 2 not_attempted", "audit_log: cannot write", "File too large")
    again = ansible.task("send_message", **SEND, targets=names[:3])
    assert again.result("it")["counts"] | {"sent": 2, "already_sent": 1} == again.result("it")["counts"]


@pytest.mark.covers("send_message", "audit_log", "audit_content")
def test_an_audit_log_has_a_line_for_each_outcome_and_the_text_on_request(ansible: Ansible, names: list[str]) -> None:
    audit = {"audit_log": "audit.jsonl"}
    links = {"link": "precious", "dangling": "absent"}
    ansible.file("precious", "mine\n")
    for link, target in links.items():
        (ansible.directory / link).symlink_to(target)

    run = ansible.steps(
        step("first", "send_message", **SEND, **audit, targets=names[:1], wait_for_reply=True),
        step("again", "send_message", **SEND, **audit, targets=names[:1]),
        step("text", "send_message", **SEND, **audit, targets=names[:2], audit_content=True),
        step("no log", "send_message", **SEND, targets=names, audit_content=True),
        step("unwritable", "send_message", **SEND, targets=names, audit_log="."),
        step("no file", "send_message", **SEND, targets=names, audit_log="/dev/null"),
        step("no campaign", "send_message", content="x", targets=names, audit_log="audit.jsonl"),
        *(step(link, "send_message", **SEND, targets=names, audit_log=link) for link in links),
    )

    results = {entry["task"]: entry["result"] for entry in run.results}
    lines = [json.loads(line) for line in (ansible.directory / "audit.jsonl").read_text().splitlines()]
    assert [(line["host"], line["status"], line["reply_state"], line.get("content")) for line in lines] == [
        (names[0], "sent", None, None),
        (names[0], "sent", "replied", None),
        (names[1], "sent", None, ["hello"]),
    ]
    assert lines[0]["client_message_id"] == results["first"]["targets"][0]["client_message_id"]
    assert lines[0]["playbook"] == str(ansible.directory / "play.yml")
    assert "hello" not in json.dumps(lines[0])
    assert (ansible.directory / "audit.jsonl").stat().st_mode & 0o777 == 0o600
    assert results["no log"]["msg"] == "audit_content: needs audit_log"
    assert results["unwritable"]["msg"] == "audit_log: cannot write '.': Is a directory"
    assert results["no file"]["msg"].startswith("audit_log: '/dev/null' is no regular file; ")
    assert results["no campaign"]["msg"] == "audit_log: needs campaign"
    for link in links:
        assert results[link]["msg"] == f"audit_log: {link!r} is a symbolic link; name the file itself"
    assert (ansible.directory / "precious").read_text() == "mine\n"
    assert not (ansible.directory / "absent").exists()
    assert names[2] not in _turns(ansible)
