"""Modules, roles and playbooks with a ledger in PostgreSQL: what they share over it, and that its URL stays hidden."""

from __future__ import annotations

import json
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.sandbox.postgresql import PATIENCE, PostgresqlServer

from .conftest import AGENT, Ansible, Run, add_updatable, messages_of, step

SEND = {"content": "hello", "agent_id": AGENT, "campaign": "c"}
VERSION = "0.34.12"
ROLLOUT = {"name": "r", "version": VERSION, "waves": ["1", "100%"], "soak": 0.2, "soak_grace": 1, "poll_interval": 0.1}


@pytest.fixture
def names(ansible: Ansible) -> list[str]:
    names = [f"shared-{number}" for number in range(4)]
    add_updatable(ansible.sandbox, names, VERSION)
    return names


@pytest.fixture
def machine(ansible: Ansible, tmp_path: Path) -> Ansible:
    """Another machine, which has nothing in common with the first one but the APIs."""
    directory = tmp_path / "machine"
    directory.mkdir()
    return Ansible(directory, ansible.sandbox)


@pytest.fixture
def hidden(postgresql: PostgresqlServer, postgresql_url: str) -> Iterator[tuple[str, str, str]]:
    """The URL of a database, whose user and password are in no other word; then user and password."""
    user, password = f"user{secrets.token_hex(6)}", f"p$HOME{secrets.token_hex(6)}"
    name = postgresql_url.rpartition("/")[2]
    with postgresql.connect(name) as admin:
        admin.execute(f"CREATE ROLE {user} LOGIN PASSWORD '{password}'; GRANT CREATE ON DATABASE {name} TO {user}")
    yield f"postgresql://{user}:{password}@127.0.0.1:{postgresql.port}/{name}", user, password
    with postgresql.connect(name) as admin:
        admin.execute(f"DROP OWNED BY {user} CASCADE; DROP ROLE {user}")


def home(machine: Ansible, url: str) -> dict[str, str]:
    return {"FLEETOPS_LEDGER": url, "HOME": str(machine.directory), "XDG_STATE_HOME": str(machine.directory)}


def assert_hidden(run: Run, directory: Path, *texts: str) -> None:
    """Assert that texts are in no output and in no file, the playbook aside."""
    written = {
        path: path.read_text(errors="replace")
        for path in directory.rglob("*")
        if path.is_file() and path.name not in ("play.yml", "site.yml")
    }
    for text in texts:
        assert text not in run.output
        assert text not in json.dumps(run.results)
        assert [path for path, content in written.items() if text in content] == []


def wait_for_requests(ansible: Ansible, route: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ansible.sandbox.requests(route):
        assert time.monotonic() < deadline
        time.sleep(0.05)


# What machines share


def test_a_campaign_is_sent_once_by_all_machines(
    ansible: Ansible, machine: Ansible, names: list[str], postgresql_url: str
) -> None:
    states = []
    for where in (ansible, machine, ansible):
        run = where.task("send_message", **SEND, targets=names, env=home(where, postgresql_url))
        run.assert_quiet()
        states.append(run.result("it")["msg"])
    assert states == ["4 targets: 4 sent", *["4 targets: 4 already_sent"] * 2]
    mine = [one for one in ansible.sandbox.fleet() if one["name"] in names]
    assert [len(messages_of(ansible.sandbox, one)) for one in mine] == [1] * 4

    run = machine.task("campaign_info", campaign="c", ledger=postgresql_url, include_deliveries=True)
    run.assert_quiet()
    assert run.result("it")["counts"]["sent"] == 4
    assert {one["status"] for one in run.result("it")["deliveries"]} == {"sent"}


def test_a_run_notices_that_another_machine_pauses_its_campaign(
    ansible: Ansible, machine: Ansible, names: list[str], postgresql_url: str
) -> None:
    runs: list[Run] = []
    options = {**SEND, "targets": names, "rate": 0.5, "ledger": postgresql_url}
    sending = threading.Thread(target=lambda: runs.append(ansible.task("send_message", **options)))
    sending.start()
    wait_for_requests(ansible, "messages")
    paused = machine.task("campaign_control", campaign="c", state="paused", ledger=postgresql_url)
    sending.join(PATIENCE)

    paused.assert_quiet()
    [run] = runs
    run.assert_quiet()
    rest = {one["reason"] for one in run.result("it")["targets"] if one["status"] != "sent"}
    assert rest <= {"the campaign is paused"}
    again = machine.task("send_message", **options).result("it")
    assert again["counts"]["already_sent"] == run.result("it")["counts"]["sent"]


def test_a_rollout_that_one_machine_planned_is_gone_on_with_on_another(
    ansible: Ansible, machine: Ansible, names: list[str], postgresql_url: str
) -> None:
    planned = ansible.task("rollout", **ROLLOUT, targets=names, env=home(ansible, postgresql_url))
    planned.assert_quiet()
    assert planned.result("it")["state"] == "pending"

    done = machine.task("rollout", **ROLLOUT, targets=names, state="run", env=home(machine, postgresql_url))
    done.assert_quiet()
    assert done.result("it")["state"] == "passed"
    assert [wave["hosts"] for wave in done.result("it")["waves"]] == [
        wave["hosts"] for wave in planned.result("it")["waves"]
    ]


@pytest.mark.parametrize("how", [signal.SIGQUIT, signal.SIGINT])
def test_a_run_goes_on_when_its_server_stops_and_starts(
    ansible: Ansible, names: list[str], postgresql: PostgresqlServer, postgresql_url: str, how: signal.Signals
) -> None:
    runs: list[Run] = []
    options = {**SEND, "targets": names, "rate": 1, "ledger": postgresql_url}
    sending = threading.Thread(target=lambda: runs.append(ansible.task("send_message", **options)))
    sending.start()
    wait_for_requests(ansible, "messages")
    postgresql.stop(how)
    postgresql.run()
    sending.join(PATIENCE)

    [run] = runs
    run.assert_quiet()
    assert run.result("it")["msg"] == "4 targets: 4 sent"
    assert ansible.task("send_message", **options).result("it")["msg"] == "4 targets: 4 already_sent"
    mine = [one for one in ansible.sandbox.fleet() if one["name"] in names]
    assert [len(messages_of(ansible.sandbox, one)) for one in mine] == [1] * 4


def test_a_rollout_goes_on_when_its_server_stops_and_starts(
    ansible: Ansible, names: list[str], postgresql: PostgresqlServer, postgresql_url: str
) -> None:
    runs: list[Run] = []
    options = {**ROLLOUT, "soak": 2, "targets": names, "state": "run", "ledger": postgresql_url}
    updating = threading.Thread(target=lambda: runs.append(ansible.task("rollout", **options)))
    updating.start()
    deadline = time.monotonic() + PATIENCE
    while not is_told(postgresql_url):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    postgresql.stop()
    postgresql.run()
    updating.join(PATIENCE)

    [run] = runs
    assert run.returncode == 0, run.output
    assert run.result("it")["state"] == "passed"


def is_told(url: str) -> bool:
    """Whether a rollout has told a device to update."""
    with psycopg.connect(url) as connection, suppress(psycopg.errors.UndefinedTable):
        return bool(connection.execute("SELECT 1 FROM fleetops.rollout_waves WHERE state = 'running'").fetchall())
    return False


# What is hidden


def test_no_output_has_the_url_of_the_ledger(ansible: Ansible, names: list[str], hidden: tuple[str, str, str]) -> None:
    url, user, password = hidden
    # Core shows what else stands in the command.
    variables = ansible.file("site.yml", json.dumps({"url": url}))
    ledger = {"ledger": "{{ url }}"}
    campaign = {"campaign": "c", **ledger}
    files = {"audit_log": "audit.jsonl", "result_file": "result.jsonl"}
    run = ansible.steps(
        step("send", "send_message", **SEND, **ledger, targets=names, **files),
        step("send plain", "send_message", **{**SEND, "campaign": "d"}, ledger=url, targets=names),
        step("pause", "campaign_control", **campaign, state="paused"),
        step("info", "campaign_info", **campaign, include_deliveries=True),
        step("plan", "rollout", **ROLLOUT, **ledger, targets=names),
        step("report", "fleet_report", json_path="report.json", rollout="r", campaigns=["c"], **ledger),
        step(
            "turns",
            "environment_turn",
            targets=names,
            state="present",
            all_conversations=True,
            agent_id=AGENT,
            **ledger,
        ),
        {
            **step("other content", "send_message", **{**SEND, "content": "bye"}, ledger=url, targets=names),
            "ignore_errors": True,
        },
        arguments=("-vvvv", "-e", f"@{variables}"),
        env={"ANSIBLE_LOG_PATH": str(ansible.directory / "ansible.log")},
    )

    assert run.returncode == 0, run.output
    assert run.result("send")["msg"] == "4 targets: 4 sent"
    assert run.result("info")["counts"]["sent"] == 4
    assert (ansible.directory / "audit.jsonl").read_text().count("\n") == 4
    assert_hidden(run, ansible.directory, url, user, password)


@pytest.mark.parametrize("form", ["role", "parameter", "include", "playbook"])
def test_no_output_of_a_role_or_a_playbook_has_the_url(
    ansible: Ansible, names: list[str], hidden: tuple[str, str, str], form: str
) -> None:
    url, user, password = hidden
    given = {"instruct_content": "hello", "instruct_agent_id": AGENT, "instruct_campaign": "c", "instruct_ledger": url}
    role: dict[str, Any] = {"role": "fleetops.environments.instruct"}
    play: dict[str, Any] = {"hosts": "all", "gather_facts": False, "any_errors_fatal": False}
    if form == "include":
        play["tasks"] = [{"include_role": {"name": role["role"]}, "vars": given}]
    elif form == "playbook":
        play = {"import_playbook": "fleetops.environments.instruct", "vars": given}
    else:
        play |= {"roles": [role | (given if form == "parameter" else {"vars": given})]}
    site = ansible.file("site.yml", json.dumps([play]))
    log = {"ANSIBLE_LOG_PATH": str(ansible.directory / "ansible.log")}
    runs = [ansible.playbook(str(site), "-vvvv", "--limit", "shared-*,localhost", env=log) for _time in range(2)]
    report = {
        "report_json_path": str(ansible.directory / "report.json"),
        "report_campaigns": ["c"],
        "report_ledger": url,
    }
    variables = ansible.file("given/site.yml", json.dumps(report))
    runs.append(ansible.playbook("fleetops.environments.report", "-vvvv", "-e", f"@{variables}", env=log))

    for run in runs:
        assert run.returncode == 0, run.output
        assert_hidden(run, ansible.directory, url, user, password)
    assert len(ansible.sandbox.requests("messages")) == len(names)
    assert "4 already_sent" in runs[1].stdout
    assert '"sent": 4' in (ansible.directory / "report.json").read_text()


def test_a_path_may_have_a_home_and_variables(ansible: Ansible, names: list[str]) -> None:
    run = ansible.task(
        "send_message", "-vvvv", **SEND, targets=names, ledger="~/$WHERE/ledger.sqlite",
        env={"HOME": str(ansible.directory), "WHERE": "below"},
    )  # fmt: skip
    assert run.returncode == 0, run.output
    assert (ansible.directory / "below/ledger.sqlite").exists()


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        (("@127.0.0.1:", "@127.0.0.1:9"), "the port is not a number from 1 to 65535"),
        (("?", "?colour=red"), "invalid URI query parameter"),
        (("?", "?sslmode=verify-full"), "127.0.0.1"),
        (("p$HOME", "q$HOME"), 'password authentication failed for user "********"'),
        (("/test_", "/none_"), "see that its server runs"),
    ],
)
def test_a_url_that_cannot_be_used_is_one_line(
    ansible: Ansible, names: list[str], hidden: tuple[str, str, str], changed: tuple[str, str], what: str
) -> None:
    url, user, password = hidden
    wrong = f"{url}?".replace(*changed).rstrip("?")
    run = ansible.task("send_message", "-vvvv", **SEND, targets=names, ledger=wrong)

    run.assert_error("ledger: ", what)
    assert "\n" not in run.result("it")["msg"]
    assert_hidden(run, ansible.directory, user, password, password.replace("p$", "q$"))
    assert not ansible.sandbox.requests("messages")


def test_without_psycopg_a_url_is_one_line(ansible: Ansible, names: list[str], hidden: tuple[str, str, str]) -> None:
    ansible.file("without/psycopg.py", "raise ImportError('not here')\n")
    path = {"PYTHONPATH": str(ansible.directory / "without")}
    run = ansible.task("send_message", "-vvvv", **SEND, targets=names, ledger=hidden[0], env=path)
    run.assert_error("ledger: a postgresql:// URL needs psycopg", "requirements-postgresql.txt")
    assert_hidden(run, ansible.directory, hidden[0])


def test_the_option_names_a_database_that_has_a_ledger(ansible: Ansible, postgresql_url: str) -> None:
    run = ansible.task("campaign_info", campaign="c", ledger=postgresql_url)
    run.assert_error("ledger: there is no 'postgresql://127.0.0.1:", "give the one that a run has made")
    ansible.task("campaign_info", "--check", campaign="c", ledger=postgresql_url).assert_quiet()
    ansible.task("campaign_info", campaign="c", env={"FLEETOPS_LEDGER": postgresql_url}).assert_quiet()
