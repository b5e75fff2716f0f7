"""reply_info: replies that are collected later."""

from __future__ import annotations

import json
import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.turns import ApprovalTurn, ErrorTurn, GiveUpTurn, LongTurn

from .conftest import AGENT, Ansible, awake, step

KINDS = ("reply", "long", "approval", "error", "gone")


def _names(ansible: Ansible, count: int) -> list[str]:
    return [str(entry["name"]) for entry in awake(ansible.sandbox)[:count]]


def _sent(ansible: Ansible, **scripts: Any) -> list[dict[str, Any]]:
    """Send to one device for each agent with a script; return `targets` of send_message."""
    names = _names(ansible, len(scripts))
    for kind, turn in scripts.items():
        ansible.sandbox.script(f"agent-{kind}", turn)
    targets = [
        {"host": name, "agent_id": f"agent-{kind}", "client_message_id": f"message-{kind}"}
        for name, kind in zip(names, scripts, strict=True)
    ]
    run = ansible.task("send_message", content="?", targets=targets)
    run.assert_quiet()
    sent: list[dict[str, Any]] = run.result("it")["targets"]
    return sent


def _states(result: dict[str, Any]) -> list[str]:
    return [reply["state"] for reply in result["replies"]]


@pytest.mark.covers("reply_info", "replies", "lost_after")
def test_every_state_is_distinguished(ansible: Ansible) -> None:
    sent = _sent(
        ansible,
        reply="Fine.",
        long=LongTurn(seconds=300),
        approval=ApprovalTurn(tool_name="Bash"),
        error=ErrorTurn(message="no credit left"),
        gone="never read",
    )
    ansible.sandbox.remove_agent("agent-gone")
    unsent = {**sent[0], "status": "offline", "host": "was-offline", "client_message_id": None}
    elsewhere = {**sent[0], "host": "elsewhere", "client_message_id": "not-there", "otid": None}
    old = {**elsewhere, "sent_at": "2026-01-31T12:00:00.000Z"}
    bare = {"host": "elsewhere", "agent_id": "agent-reply", "client_message_id": "message-reply"}
    unclear = {**sent[0], "status": "unknown"}
    agentless = {**sent[0], "agent_id": None}

    run = ansible.steps(
        step("all", "reply_info", replies=sent),
        step("odd", "reply_info", replies=[unsent, elsewhere, old, bare, unclear, agentless]),
        step("at once", "reply_info", replies=[elsewhere], lost_after=0),
    )

    result, odd = run.result("all"), run.result("odd")
    assert _states(result) == ["replied", "waiting", "needs_approval", "failed", "lost"]
    assert [reply["host"] for reply in result["replies"]] == [entry["host"] for entry in sent]
    assert [reply["id"] for reply in result["replies"]] == [entry["id"] for entry in sent]
    reply, _long, approval, error, gone = result["replies"]
    assert (reply["text"], reply["stop_reason"], reply["error"]) == ("Fine.", "end_turn", None)
    assert (reply["client_message_id"], reply["agent_id"]) == ("message-reply", "agent-reply")
    [pending] = approval["pending_approvals"]
    assert (pending["request_id"], pending["tool_name"]) == (f"perm-{pending['tool_call_id']}", "Bash")
    assert error["error"] == {"code": "reply_failed", "message": "the turn failed: no credit left"}
    assert "Agent 'agent-gone' not found" in gone["error"]["message"]
    one_each = dict.fromkeys(["replied", "waiting", "needs_approval", "failed", "lost"], 1)
    assert result["counts"] == {**one_each, "skipped": 0}
    assert (result["changed"], result["msg"]) == (
        False,
        "5 messages: 1 replied, 1 waiting, 1 needs_approval, 1 failed, 1 lost",
    )
    assert _states(odd) == ["skipped", "waiting", "lost", "replied", "replied", "skipped"]
    assert odd["replies"][0]["reason"] == "it was not sent: offline"
    assert odd["replies"][5]["reason"] == "it was sent without agent_id, so its reply cannot be told from others"
    assert _states(run.result("at once")) == ["lost"]
    assert len(ansible.sandbox.requests("messages")) == 5


def test_a_message_that_its_device_has_dropped_is_lost_before_lost_after_is_over(ansible: Ansible) -> None:
    [entry] = _sent(ansible, drop=GiveUpTurn())
    moments = {"at once": entry["sent_at"], "later": (datetime.now(UTC) - timedelta(seconds=90)).isoformat()}

    def look(when: str) -> dict[str, Any]:
        run = ansible.task("reply_info", replies=[{**entry, "sent_at": moments[when]}])
        run.assert_quiet()
        reply: dict[str, Any] = run.result("it")["replies"][0]
        return reply

    at_once = look("at once")
    ansible.sandbox.patch(entry["id"], connectedAt=int(time.time() * 1000))
    restarted = look("later")
    ansible.sandbox.patch(entry["id"], connectedAt=0)
    dropped = look("later")

    assert [reply["state"] for reply in (at_once, restarted, dropped)] == ["waiting", "waiting", "lost"]
    assert dropped["error"]["code"] == "reply_dropped"


@pytest.mark.covers("reply_info", "client_message_id", "agent_id", "agent_name", "conversation_id")
def test_one_reply_is_found_for_the_current_host(ansible: Ansible) -> None:
    one, two = _names(ansible, 2)
    ansible.sandbox.script(AGENT, then="It is {content}")
    ansible.file(f"host_vars/{two}.yml", f"letta_agent_id: {AGENT}\nletta_conversation_id: default\n")
    ansible.sandbox.name_agent(AGENT, "ops")
    send = step("send", "send_message", content="{{ inventory_hostname }}", agent_id=AGENT, conversation_id="new")

    run = ansible.steps(
        {**send, "register": "sent"},
        step(
            "own",
            "reply_info",
            client_message_id="{{ sent.client_message_id }}",
            agent_id=AGENT,
            conversation_id="{{ sent.conversation_id }}",
        ),
        step("whole", "reply_info", replies=["{{ sent }}"]),
        step("default", "reply_info", client_message_id="{{ sent.client_message_id }}", agent_id=AGENT),
        step("named", "reply_info", client_message_id="{{ sent.client_message_id }}", agent_name="ops"),
        step("nobody", "reply_info", client_message_id="{{ sent.client_message_id }}"),
        hosts=f"{one},{two}",
    )

    for host, own in ((one, True), (two, False)):
        sent = run.result("send", host)
        # The variables of the second host override the options, so it asked in the default conversation.
        assert (sent["conversation_id"] == "default") is not own
        for task in ("own", "whole"):
            [reply] = run.result(task, host)["replies"]
            assert (reply["host"], reply["id"], reply["text"]) == (host, sent["id"], f"It is {host}")
        for task in ("default", "named"):
            assert _states(run.result(task, host)) == ["waiting" if own else "replied"]
    assert run.result("nobody", one)["msg"] == "reply_info: has no agent_id"
    assert _states(run.result("nobody", two)) == ["replied"]


@pytest.mark.covers("reply_info", "reply_dir")
def test_each_answer_is_written_to_a_file_and_the_same_one_is_no_change(ansible: Ansible) -> None:
    sent = _sent(ansible, reply="Fine.\n\n", other="Zwölf {{ 7 * 6 }}", error=ErrorTurn())
    outside = {**sent[0], "host": "../../out", "client_message_id": "message-reply"}
    folder = ansible.directory / "answers"
    task = {"replies": [*sent, outside], "reply_dir": "answers"}

    checked = ansible.task("reply_info", "--check", **task)
    assert not folder.exists()
    first, second = ansible.task("reply_info", **task), ansible.task("reply_info", **task)
    (folder / f"{sent[1]['host']}.txt").write_text("changed by hand")
    third = ansible.task("reply_info", **task)

    for run in (checked, first, second, third):
        run.assert_quiet()
    assert [run.result("it")["changed"] for run in (checked, first, second, third)] == [True, True, False, True]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        f"{sent[0]['host']}.txt": "Fine.\n",
        f"{sent[1]['host']}.txt": "Zwölf {{ 7 * 6 }}\n",
        "..%2F..%2Fout.txt": "Fine.\n",
    }
    assert not list(Path(ansible.directory.parent).glob("out*"))


def test_an_answer_that_cannot_be_written_is_still_returned(ansible: Ansible) -> None:
    [host] = _names(ansible, 1)
    (ansible.directory / "answers" / f"{host}.txt").mkdir(parents=True)
    asked = ansible.task("send_message", targets=[host], agent_id=AGENT, content="?", wait_for_reply=True)

    run = ansible.task("reply_info", replies=asked.result("it")["targets"], reply_dir="answers")

    run.assert_error("1 messages: 1 replied; reply_dir: cannot write")
    assert run.result("it")["replies"][0]["text"] == "Done."


@pytest.mark.covers("reply_info", "concurrency", "rate")
def test_concurrency_and_rate_limit_the_requests(ansible: Ansible) -> None:
    sent = _sent(ansible, **{f"r{number}": "Fine." for number in range(6)})
    ansible.sandbox.add_fault("slow", route="history", seconds=0.2)
    ansible.sandbox.clear_requests()

    run = ansible.steps(
        step("two", "reply_info", replies=sent, concurrency=2),
        step("default", "reply_info", replies=sent),
        step("paced", "reply_info", replies=sent, rate=10),
    )

    assert [_states(run.result(task)) for task in ("two", "default", "paced")] == [["replied"] * 6] * 3
    read = ansible.sandbox.requests("history")
    two, default, paced = read[:12], read[12:24], read[24:]
    assert max(entry["under_way"] for entry in two) == 2
    assert max(entry["under_way"] for entry in default) == 6
    every = sorted(entry["at"] for entry in paced)
    assert len(every) == 12
    # Each request starts in its turn, however late one of them arrives on a busy machine.
    assert every[-1] - every[0] > 0.8


def test_invalid_options_are_refused_before_anything_is_asked(ansible: Ansible) -> None:
    one, two = _names(ansible, 2)
    entry = {"host": one, "agent_id": AGENT, "client_message_id": "m-1"}
    ansible.file("a-file", "")
    wrong: dict[str, dict[str, Any]] = {
        "replies: needs what send_message returned": {},
        "agent_id: cannot go with replies": {"replies": [entry], "agent_id": AGENT},
        "agent_name: cannot go with replies": {"replies": [entry], "agent_name": "ops"},
        "replies[0]: has no host": {"replies": [{**entry, "host": ""}]},
        "replies[1]: has no client_message_id": {"replies": [entry, {"host": one, "agent_id": AGENT}]},
        "replies[0]: agent_id must be a text, got 7": {"replies": [{**entry, "agent_id": 7}]},
        "replies[0]: sent_at is no time in ISO 8601: 'noon'": {"replies": [{**entry, "sent_at": "noon"}]},
        "lost_after: must be 0 or more, got -1.0": {"replies": [entry], "lost_after": -1},
        "concurrency: must be 1 or more, got 0": {"replies": [entry], "concurrency": 0},
        "rate: must be more than 0, got 0.0": {"replies": [entry], "rate": 0},
        "reply_dir: cannot write": {"replies": [entry], "reply_dir": "no/such/place"},
        "reply_dir: 'a-file' is no directory": {"replies": [entry], "reply_dir": "a-file"},
        f"reply_dir: '{one}' is in replies more than once": {"replies": [entry, entry], "reply_dir": "answers"},
    }

    run = ansible.steps(*(step(message, "reply_info", **options) for message, options in wrong.items()))
    together = ansible.task("reply_info", replies=[entry], play={"hosts": f"{one},{two}"})
    once = ansible.task("reply_info", replies=[entry], play={"hosts": f"{one},{two}"}, keywords={"run_once": True})

    for result in run.results:
        assert result["outcome"] == "failed"
        assert result["result"]["msg"].startswith(result["task"]), result["result"]["msg"]
    assert len(run.results) == len(wrong)
    assert together.result("it", two)["msg"].startswith("replies: in a play of several hosts needs run_once: true")
    assert [found["result"]["counts"]["waiting"] for found in once.results] == [1]
    assert not (ansible.directory / "answers").exists()


def test_an_unreadable_variable_is_named_without_the_lines_around_it(ansible: Ansible) -> None:
    [one] = _names(ansible, 1)
    ask = {"client_message_id": "m-1"}
    keyed = {"letta_agent_id": "{{ nope }}", "letta_api_key": ansible.sandbox.api_key}
    always_new = {"letta_agent_id": AGENT, "letta_conversation_id": "new"}

    run = ansible.steps(
        {**step("undefined", "reply_info", **ask), "vars": keyed},
        {**step("new", "reply_info", **ask), "vars": always_new},
        hosts=one,
    )

    assert run.result("undefined")["msg"] == "letta_agent_id: cannot be read: 'nope' is undefined"
    assert ansible.sandbox.api_key not in run.output
    assert run.result("new")["msg"] == f"conversation_id: must be one that exists, got 'new' for {one}"


def test_a_refused_agent_loses_no_other_reply(ansible: Ansible) -> None:
    sent = _sent(ansible, reply="Fine.", strange="never read")
    ansible.sandbox.add_fault("status", route="history", target="agent-strange", status=422)

    run = ansible.task("reply_info", replies=sent)

    run.assert_quiet()
    assert _states(run.result("it")) == ["replied", "waiting"]
    assert run.result("it")["replies"][1]["error"]["code"] == "http_422"


@pytest.mark.covers("reply_info", "base_url", "api_key", "api_key_file", "timeout", "retries", "deadline")
@pytest.mark.covers("reply_info", "validate_certs", "ca_path", "client_cert", "client_key", "relay_timeout")
def test_each_connection_option_has_an_effect(ansible: Ansible) -> None:
    wrong: dict[str, Any] = {
        "base_url": "ftp://127.0.0.1",
        "api_key": "white space",
        "api_key_file": "/nonexistent/key",
        "timeout": 0,
        "retries": -1,
        "deadline": 0,
        "validate_certs": "perhaps",
        "ca_path": "/nonexistent/ca.pem",
        "client_cert": "/nonexistent/client.pem",
        "client_key": "/nonexistent/client.key",
        "relay_timeout": 0,
    }
    entry = {"host": "anybody", "agent_id": AGENT, "client_message_id": "m-1"}

    run = ansible.steps(
        *(step(option, "reply_info", replies=[entry], **{option: value}) for option, value in wrong.items()),
        step("refused", "reply_info", replies=[entry], api_key="forbidden-key-for-loopback-only"),
    )

    said = {entry["task"]: json.dumps(entry["result"]["msg"]) for entry in run.results}
    assert all(entry["outcome"] == "failed" for entry in run.results)
    assert "403" in said.pop("refused")
    assert all(option in message for option, message in said.items()), said
    assert len(ansible.sandbox.requests("history")) == 1


def test_a_reply_is_found_by_the_otid_that_its_message_was_given(ansible: Ansible) -> None:
    [host] = _names(ansible, 1)
    ansible.sandbox.script(AGENT, then="Fine.")
    messages = [{"content": text, "client_message_id": f"c-{text}", "otid": f"o-{text}"} for text in ("one", "two")]

    run = ansible.steps(
        {**step("send", "send_message", targets=[host], messages=messages, agent_id=AGENT), "register": "sent"},
        step("collect", "reply_info", replies="{{ sent.targets }}"),
    )

    assert run.result("send")["targets"][0]["otid"] == "o-two"
    [reply] = run.result("collect")["replies"]
    assert (reply["state"], reply["text"]) == ("replied", "Fine.")
