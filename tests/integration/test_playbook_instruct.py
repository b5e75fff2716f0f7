"""playbooks/instruct.yml: by its path and by its name in the collection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.process import Sandbox
from tests.sandbox.turns import ErrorTurn

from .conftest import AGENT, CHECKOUT, Ansible, Run, awake, messages_of, recap_of

NAME = "fleetops.environments.instruct"
PATH = str(CHECKOUT / "playbooks/instruct.yml")


def _instruct(ansible: Ansible, *arguments: str, playbook: str = NAME, source: Any = None, **variables: Any) -> Run:
    given = {"instruct_content": "Report.", "instruct_agent_id": AGENT, **variables}
    return ansible.playbook(playbook, "-e", json.dumps(given), *arguments, source=source)


def _lines(run: Run) -> list[list[str]]:
    """The playbook's line for each target: host, status, message id, reason."""
    shown = [entry["result"]["msg"] for entry in run.results if entry["task"] == "Show what happened to each target"]
    assert len(shown) == 1
    # Read from the output as well, because users read it there.
    assert all(line in run.stdout for line in shown[0])
    return [line.split("  ") for line in shown[0]]


def _standard(sandbox: Sandbox) -> dict[str, dict[str, Any]]:
    return {
        entry["name"]: entry for entry in sandbox.fleet() if entry["row"].get("currentMode") in ("default", "standard")
    }


@pytest.mark.parametrize("playbook", [NAME, PATH], ids=["by name", "by path"])
def test_a_group_is_instructed_each_time_and_not_in_check_mode(ansible: Ansible, playbook: str) -> None:
    standard = _standard(ansible.sandbox)
    online = {name: entry for name, entry in standard.items() if entry["online"]}
    assert 0 < len(online) < len(standard)

    checked = _instruct(ansible, "--check", playbook=playbook, instruct_hosts="mode_standard")
    checked.assert_quiet()
    assert ansible.sandbox.received() == {}
    assert {(host, status) for host, status, _id, _why in _lines(checked)} == {
        (name, "not_attempted") for name in standard
    }
    would = checked.result("Show what the first targets would get")["msg"]
    assert [(item["host"], item["messages"][0]["content"]) for item in would] == [
        (name, "Report.") for name in sorted(standard)[:5]
    ]

    for turns in (1, 2):
        run = _instruct(ansible, playbook=playbook, instruct_hosts="mode_standard")
        run.assert_quiet()
        received = ansible.sandbox.received()
        assert {id_: device["turns"] for id_, device in received.items()} == {
            entry["id"]: turns for entry in online.values()
        }
        lines = {host: (status, id_, why) for host, status, id_, why in _lines(run)}
        assert lines.keys() == standard.keys()
        for name, entry in standard.items():
            status, id_, why = lines[name]
            if name in online:
                message = received[entry["id"]]["messages"][-1]
                assert (status, id_, why) == ("sent", message["client_message_id"], "-")
                assert (message["content"], message["agentId"]) == ("Report.", AGENT)
            else:
                assert (status, why) == ("offline", "the environment is offline")
        assert f"{len(standard)} targets: {len(online)} sent, {len(standard) - len(online)} offline" in run.stdout


@pytest.fixture
def fifty(tmp_path: Path) -> Iterator[Ansible]:
    with Sandbox.start(devices=50) as sandbox:
        yield Ansible(tmp_path, sandbox)


def test_a_limit_of_two_hosts_of_fifty_is_two_deliveries(fifty: Ansible) -> None:
    first, second = awake(fifty.sandbox)[3], awake(fifty.sandbox)[20]
    assert len(fifty.sandbox.fleet()) > 50

    run = _instruct(fifty, "--limit", f"{first['name']},{second['name']}")

    run.assert_quiet()
    turns = {id_: device["turns"] for id_, device in fifty.sandbox.received().items()}
    assert turns == {first["id"]: 1, second["id"]: 1}
    assert len(fifty.sandbox.requests("messages")) == 2
    assert [host for host, *_rest in _lines(run)] == sorted([first["name"], second["name"]])


@pytest.mark.parametrize("empty", ["pattern", "inventory", "limit"])
def test_an_empty_selection_is_a_separate_error_unless_allowed(ansible: Ansible, empty: str) -> None:
    source, arguments, variables = None, [], {}
    match empty:
        case "pattern":
            variables = {"instruct_hosts": "mode_nosuch"}
        case "inventory":
            source = ansible.source(filters=["id == 'nothing'"])
        case "limit":
            variables, arguments = {"instruct_hosts": "mode_standard"}, ["--limit", "mode_acceptEdits"]

    refused = _instruct(ansible, *arguments, source=source, **variables)
    pattern = variables.get("instruct_hosts", "letta")
    refused.assert_error("no target", f"instruct_hosts={pattern}", "allow_empty")
    assert refused.returncode == 2

    allowed = _instruct(ansible, *arguments, source=source, instruct_allow_empty=True, **variables)
    assert allowed.returncode == 0, allowed.output
    assert "ERROR" not in allowed.output
    # Ansible itself warns about a pattern that matches no host and no group.
    assert ("WARNING" in allowed.output) == (empty == "pattern")
    # No play reached that point.
    assert [entry["task"] for entry in allowed.results] == ["Check the variables", "Require at least one host"]
    assert ansible.sandbox.requests("messages") == []


def test_each_host_ends_as_its_target_and_max_failures_decides_whether_others_get_the_message(ansible: Ansible) -> None:
    bad, good = awake(ansible.sandbox)[:2]
    ansible.sandbox.add_fault("status", route="messages", target=bad["id"], status=422, message="Not like this")
    names = sorted([bad["name"], good["name"]])
    limit = ("--limit", ",".join(names))

    failed = _instruct(ansible, *limit, instruct_concurrency=1, instruct_max_failures=0)

    assert failed.returncode == 2
    lines = {host: (status, why) for host, status, _id, why in _lines(failed)}
    assert list(lines) == names
    assert lines[bad["name"]][0] == "failed"
    assert "422 Unprocessable" in lines[bad["name"]][1]
    assert "Not like this" in lines[bad["name"]][1]
    assert lines[good["name"]] == (("not_attempted", "-") if names[0] == bad["name"] else ("sent", "-"))
    failed.assert_error(
        "failed, as more targets failed than instruct_max_failures=0 allows: 2 targets: ", f"{bad['name']}: failed"
    )
    # The hosts of a relaunch on failed hosts.
    failed.assert_error(f"{bad['name']}: failed: ", "Not like this")
    assert recap_of(failed)[bad["name"]]["failed"] == 1
    assert recap_of(failed)[good["name"]]["failed"] == (names[0] == bad["name"])

    allowed = _instruct(ansible, *limit, instruct_max_failures="50%")

    assert allowed.returncode == 2
    assert "WARNING" not in allowed.output
    assert {host: status for host, status, _id, _why in _lines(allowed)} == {
        bad["name"]: "failed", good["name"]: "sent",
    }  # fmt: skip
    assert {host: counts["failed"] for host, counts in recap_of(allowed).items()} == {bad["name"]: 1, good["name"]: 0}


def test_no_more_hosts_fail_than_allowed(ansible: Ansible) -> None:
    entries = awake(ansible.sandbox)[:3]
    ansible.sandbox.add_fault("status", route="messages", status=422)

    run = _instruct(
        ansible, "--limit", ",".join(entry["name"] for entry in entries), instruct_max_failed_hosts=2
    )  # fmt: skip

    assert run.returncode == 2
    assert sum(counts["failed"] for counts in recap_of(run).values()) == 2
    assert "3 failed" in run.result("Summarise")["msg"]


def test_a_wrong_option_is_shown_and_nothing_is_sent(ansible: Ansible) -> None:
    run = _instruct(ansible, instruct_hosts="mode_standard", instruct_max_targets=2)

    run.assert_error("max_targets", "more than the 2 allowed")
    assert run.returncode == 2
    assert "__instruct_result" not in run.output
    assert ansible.sandbox.received() == {}


def test_the_variables_of_the_playbook_are_the_options_of_send_message(ansible: Ansible) -> None:
    sandbox = ansible.sandbox
    first, second = awake(sandbox)[:2]
    offline = next(entry for entry in sandbox.fleet() if not entry["online"])
    template = ansible.file("elsewhere/text.j2", "For {{ inventory_hostname }}")
    text = ansible.file("elsewhere/text.txt", "{{ raw }}")
    files = {
        "instruct_result_file": str(ansible.directory / "r.csv"),
        "instruct_retry_file": str(ansible.directory / "t"),
    }
    limit = ("--limit", ",".join(entry["name"] for entry in (first, second, offline)))

    run = ansible.playbook(
        NAME,
        "-e",
        json.dumps(
            {
                "instruct_content_template": str(template),
                "instruct_agent_id": "agent-9",
                "instruct_conversation_id": "new",
                "instruct_client_message_id": "message-9",
                "instruct_max_targets": 3,
                "instruct_max_failures": "34%",
                "instruct_when_offline": "wait",
                "instruct_offline_timeout": 1,
                "instruct_concurrency": 1,
                "instruct_rate": 2,
                **files,
            }
        ),
        *limit,
    )

    # The target that stayed offline is within the budget, so the others got the message.
    assert run.returncode == 2
    assert [host for host, counts in recap_of(run).items() if counts["failed"]] == [offline["name"]]
    received = sandbox.received()
    assert set(received) == {first["id"], second["id"]}
    for entry in (first, second):
        (message,) = received[entry["id"]]["messages"]
        assert message["content"] == f"For {entry['name']}"
        assert (message["agentId"], message["client_message_id"]) == ("agent-9", "message-9")
        assert message["conversationId"].startswith("conv-")
    requests = sandbox.requests("messages")
    assert requests[1]["at"] - requests[0]["at"] >= 0.4
    assert {request["under_way"] for request in requests} == {1}
    assert len(sandbox.requests("retrieve")) >= 2
    assert Path(files["instruct_retry_file"]).read_text() == f"{offline['name']}\n"
    assert len(Path(files["instruct_result_file"]).read_text().splitlines()) == 4

    run = ansible.playbook(
        NAME, "-e", json.dumps({"instruct_content_file": str(text), "letta_agent_id": "agent-8"}), *limit
    )
    run.assert_quiet()
    for entry in (first, second):
        message = sandbox.received()[entry["id"]]["messages"][1]
        assert (message["content"], message["agentId"]) == ("{{ raw }}", "agent-8")


@pytest.mark.parametrize("option", ["content_file", "content_template"])
def test_a_file_is_also_searched_for_in_the_working_directory(ansible: Ansible, option: str) -> None:
    entry = awake(ansible.sandbox)[0]
    ansible.file("said.txt", "Report.")
    variables = {f"instruct_{option}": "said.txt", "instruct_agent_id": AGENT}

    run = ansible.playbook(NAME, "-e", json.dumps(variables), "--limit", entry["name"])

    run.assert_quiet()
    (message,) = messages_of(ansible.sandbox, entry)
    assert message["content"] == "Report."


def test_hosts_without_an_environment_are_ignored(ansible: Ansible) -> None:
    entry = awake(ansible.sandbox)[0]
    ansible.file("inventory/servers.yaml", "all: {hosts: {web-1: {}, web-2: {}}}\n")
    source = ansible.source("inventory/fleet.letta.yml")

    run = _instruct(ansible, "--limit", f"web-1,web-2,{entry['name']}", source=source.parent)

    run.assert_quiet()
    assert set(ansible.sandbox.received()) == {entry["id"]}
    assert [host for host, *_rest in _lines(run)] == [entry["name"]]


def test_filters_and_a_prefix_narrow_the_targets(ansible: Ansible) -> None:
    fleet = awake(ansible.sandbox)
    wanted = sorted(entry["name"] for entry in fleet if entry["row"]["metadata"]["os"] == "linux")
    assert 0 < len(wanted) < len(fleet)
    filters = ["online", "os == 'linux'", "!older_than(last_seen_at, '30m')", "metadata.environmentMessageProtocol"]

    for prefix in ("letta_", "my_"):
        source = ansible.source(hostvars_prefix=prefix)
        run = _instruct(ansible, "--check", source=source, instruct_filters=filters, instruct_hostvars_prefix=prefix)
        run.assert_quiet()
        assert [host for host, *_rest in _lines(run)] == wanted

    typo = _instruct(ansible, instruct_filters=["moed == 'standard'"])
    typo.assert_error(
        "instruct_filters: \"moed == 'standard'\" names 'moed', which no environment has; 'mode' is nearest"
    )
    other = _instruct(ansible, source=ansible.source(hostvars_prefix="my_"), instruct_filters="online")
    other.assert_error("has no variables that begin with 'letta_'", "hostvars_prefix")
    nobody = _instruct(ansible, instruct_filters=["os == 'plan9'"])
    nobody.assert_error("no target: none of the ", """instruct_filters=["os == 'plan9'"] hold""")
    assert [run.returncode for run in (typo, other, nobody)] == [2, 2, 2]
    assert ansible.sandbox.received() == {}


def test_replies_are_waited_for_and_written(ansible: Ansible) -> None:
    names = ["asked", "broken"]
    for name in names:
        ansible.sandbox.add_environment(connectionName=name)
    ansible.sandbox.script("agent-asked", then="I am {{ 1 + 1 }} fine.")
    ansible.sandbox.script("agent-broken", then=ErrorTurn(message="no credit left"))
    answers = ansible.directory / "answers"
    told = {
        "instruct_agent_id": "{{ 'agent-' ~ inventory_hostname }}",
        "instruct_wait_for_reply": True,
        "instruct_reply_dir": str(answers),
    }
    ansible.file("group_vars/letta.yml", "letta_agent_id: agent-{{ inventory_hostname }}\n")

    for _time in (1, 2):
        run = _instruct(ansible, "--limit", ",".join(names), **told)
        assert run.returncode == 2
        assert "WARNING" not in run.output
        lines = {host: (status, why) for host, status, _id, why in _lines(run)}
        assert lines["asked"] == ("sent", "I am {{ 1 + 1 }} fine.")
        run.assert_error("broken: sent: the turn failed: no credit left")
        assert (answers / "asked.txt").read_text() == "I am {{ 1 + 1 }} fine.\n"
        assert [recap_of(run)[name]["failed"] for name in names] == [0, 1]

    alone = _instruct(ansible, instruct_reply_dir=str(answers))
    alone.assert_error("instruct_reply_dir: needs instruct_wait_for_reply=true")


def test_a_campaign_reaches_every_host_once(ansible: Ansible) -> None:
    names = [entry["name"] for entry in awake(ansible.sandbox)[:2]]
    log = ansible.directory / "audit.jsonl"
    told = {
        "instruct_campaign": "spring",
        "instruct_ledger": str(ansible.directory / "ledger.sqlite"),
        "instruct_verify": "none",
        "instruct_audit_log": str(log),
    }

    for status, retry in (("sent", "undelivered"), ("already_sent", "undelivered"), ("sent", "all")):
        run = _instruct(ansible, "--limit", ",".join(names), **told, instruct_retry=retry)
        run.assert_quiet()
        assert [line[1] for line in _lines(run)] == [status, status]

    assert {device["turns"] for device in ansible.sandbox.received().values()} == {2}
    assert len(log.read_text().splitlines()) == 4


def test_the_role_instructs_both_providers_in_a_custom_play(ansible: Ansible) -> None:
    qoder = ansible.sandbox.qoder
    one = awake(ansible.sandbox)[0]
    qoder.add_environment(name="cloud")
    cloud = ansible.file("cloud.qoder.yml", "plugin: fleetops.environments.qoder\n")
    role = {"role": "fleetops.environments.instruct", "vars": {"instruct_content": "Hello."}}
    play = {
        "hosts": f"{one['name']},qoder-cloud",
        "gather_facts": False,
        "roles": [role | {"vars": role["vars"] | {"instruct_agent": "agent-q", "instruct_agent_id": AGENT}}],
    }

    run = ansible.playbook(
        [play], "-i", str(cloud), env={"QODER_MANAGED_BASE_URL": qoder.url, "QODER_ACCESS_TOKEN": qoder.key}
    )

    run.assert_quiet()
    assert sorted((host, status) for host, status, *_rest in _lines(run)) == sorted(
        [(one["name"], "sent"), ("qoder-cloud", "sent")]
    )


@pytest.mark.parametrize(
    ("wrong", "parts"),
    [
        ({"instruct_when_offline": "perhaps"}, ("instruct_when_offline", "skip, fail, wait")),
        ({"instruct_max_targets": "many"}, ("instruct_max_targets", "many")),
        ({"instruct_content": ""}, ("content: nothing to send",)),
        ({"instruct_max_failures": "some"}, ("max_failures: must be a count such as 5",)),
    ],
)
def test_an_error_is_one_line(ansible: Ansible, wrong: dict[str, Any], parts: tuple[str, ...]) -> None:
    names = [entry["name"] for entry in awake(ansible.sandbox)[:2]]

    run = _instruct(ansible, "--limit", ",".join(names), **wrong)

    run.assert_error(*parts)
    assert run.returncode == 2
    assert ansible.sandbox.received() == {}
