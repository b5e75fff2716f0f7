"""Qoder's replies: a message is found among the events of its session, and what follows is its turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import hypothesis
import hypothesis.strategies as st
import pydantic
import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.environment import Environment
from ansible_collections.fleetops.environments.plugins.module_utils.errors import ApiError
from ansible_collections.fleetops.environments.plugins.module_utils.providers.conversation import (
    STATES,
    Address,
    Question,
    Reply,
)
from ansible_collections.fleetops.environments.plugins.module_utils.providers.message import Message
from ansible_collections.fleetops.environments.plugins.module_utils.providers.qoder.client import Client
from ansible_collections.fleetops.environments.plugins.module_utils.providers.qoder.models import Event
from ansible_collections.fleetops.environments.plugins.module_utils.providers.qoder.replies import Conversations
from tests.sandbox.process import Sandbox
from tests.sandbox.qoder_turns import QoderTurn

from .qoder_support import AGENT, new_environment, only_session, qoder_settings, with_client

ASKED = {"id": "evt_1", "type": "user.message", "content": [{"type": "text", "text": "hello"}]}
END = {"type": "session.status_idle", "stop_reason": {"type": "end_turn"}}
RUNNING = {"type": "session.status_running"}
WAITS = {"type": "session.status_idle", "stop_reason": {"type": "requires_action", "event_ids": ["evt_use"]}}
USE = {"id": "evt_use", "type": "agent.tool_use", "name": "Bash", "input": {"command": "true"}}
BY_ID = Question(provider="qoder", agent_id=AGENT, conversation_id="sess_1", otid="evt_1")
BY_TEXT = Question(
    provider="qoder", agent_id=AGENT, conversation_id="sess_1", text="hello", since="2026-01-31T12:00:00Z"
)


def agent_message(text: str) -> dict[str, Any]:
    return {"type": "agent.message", "content": [{"type": "text", "text": text}]}


def user_message(text: str = "hello", **changes: Any) -> dict[str, Any]:
    return {**ASKED, "content": [{"type": "text", "text": text}], **changes}


class Sessions(Client):
    """A client that reads the events of its sessions from a list, `at_once` per look; adds missing ids."""

    def __init__(self, events: Sequence[dict[str, Any]], at_once: int = 1000) -> None:
        self.all = [{"id": f"evt_n{number}", **event} for number, event in enumerate(events)]
        self.at_once = at_once
        self.looks: list[str | None] = []

    async def events(self, session_id: str, after_id: str | None) -> AsyncIterator[Event]:
        self.looks.append(after_id)
        ids = [event["id"] for event in self.all]
        begin = ids.index(after_id) + 1 if after_id in ids else 0
        for raw in self.all[begin : begin + self.at_once]:
            try:
                yield Event.model_validate(raw)
            except pydantic.ValidationError:
                continue


def look_at(sessions: Client, question: Question, times: int = 1) -> Reply:
    async def run() -> Reply:
        look = Conversations(sessions, concurrency=1, rate=None).search_reply(question)
        for _number in range(times):
            reply = await look(0.0)
        return reply

    return asyncio.run(run())


def reply_to(*events: dict[str, Any], question: Question = BY_ID) -> Reply:
    """The reply that a look finds for the message `evt_1`."""
    return look_at(Sessions([{"type": "session.created"}, *events]), question)


def find_message(question: Question, *events: dict[str, Any]) -> bool:
    async def run() -> bool:
        return bool(await Conversations(Sessions(events), concurrency=1, rate=None).find_message(question, True))

    return asyncio.run(run())


class TestEndings:
    def test_an_answer(self) -> None:
        reply = reply_to(ASKED, RUNNING, agent_message("first"), agent_message("last"), agent_message("  "), END)

        assert (reply.state, reply.text, reply.stop_reason, reply.error) == ("replied", "last", "end_turn", None)
        assert (reply.event_id, reply.run_id) == ("evt_1", None)

    def test_a_reply_has_its_duration(self) -> None:
        times = [{"processed_at": f"2026-01-31T12:00:0{second}.500Z"} for second in range(3)]
        events = [event | time for event, time in zip([ASKED, agent_message("a"), END], times, strict=True)]

        assert reply_to(*events, question=BY_TEXT).duration == 2
        assert reply_to(ASKED, agent_message("a"), END).duration is None

    @pytest.mark.parametrize("events", [[], [RUNNING], [RUNNING, agent_message("well")], [{"type": "session.updated"}]])
    def test_a_turn_under_way_is_still_waited_for(self, events: list[dict[str, Any]]) -> None:
        reply = reply_to(ASKED, *events)

        assert (reply.state, reply.stop_reason, reply.found) == ("waiting", None, True)

    def test_a_missing_stop_reason_is_the_default(self) -> None:
        assert reply_to(ASKED, agent_message("a"), {"type": "session.status_idle"}).state == "replied"

    @pytest.mark.parametrize(
        ("end", "state", "stop_reason", "why"),
        [
            (END, "failed", "end_turn", "the turn ended without an answer"),
            ({**END, "stop_reason": {"type": "cancelled"}}, "failed", "cancelled", "the turn was cancelled"),
            ({**END, "stop_reason": {"type": "retries_exhausted"}}, "failed", "retries_exhausted",
             "the turn failed: retries_exhausted"),
            ({"type": "session.error", "error": {"message": "No\nmodel"}}, "failed", "error",
             "the turn failed: No model"),
            ({"type": "session.error", "error": "broken"}, "failed", "error", "the turn failed: error"),
            ({"type": "session.status_terminated"}, "failed", "terminated", "the session was terminated"),
            ({"type": "session.deleted"}, "lost", "deleted", "the session was deleted before the end of the turn"),
        ],
    )  # fmt: skip
    def test_no_answer(self, end: dict[str, Any], state: str, stop_reason: str, why: str) -> None:
        reply = reply_to(ASKED, RUNNING, end)

        code = {"failed": "reply_failed", "lost": "reply_lost"}[state]
        assert (reply.state, reply.stop_reason, reply.error) == (state, stop_reason, {"code": code, "message": why})

    @pytest.mark.parametrize("retry", ["retrying", {"type": "retrying"}])
    def test_an_error_that_the_agent_gets_over(self, retry: Any) -> None:
        error = {"type": "session.error", "error": {"message": "busy", "retry_status": retry}}

        assert reply_to(ASKED, error).state == "waiting"
        assert reply_to(ASKED, error, agent_message("at last"), END).text == "at last"

    @pytest.mark.parametrize("retry", ["exhausted", {"type": "exhausted"}, None, 5])
    def test_an_error_that_it_does_not_get_over(self, retry: Any) -> None:
        error = {"type": "session.error", "error": {"message": "busy", "retry_status": retry}}

        assert reply_to(ASKED, error, END).error == {"code": "reply_failed", "message": "the turn failed: busy"}


class TestApprovals:
    def test_a_waiting_tool_call_is_shown(self) -> None:
        reply = reply_to(ASKED, RUNNING, USE, WAITS)

        assert (reply.state, reply.stop_reason) == ("needs_approval", "requires_action")
        assert reply.pending_approvals == [
            {
                "request_id": "evt_use",
                "tool_call_id": "evt_use",
                "tool_name": "Bash",
                "arguments": {"command": "true"},
            }
        ]
        assert reply.error == {"code": "needs_approval", "message": "the turn waits for approval of Bash (evt_use)"}

    def test_a_tool_call_without_details_is_shown_by_its_id(self) -> None:
        [waiting] = reply_to(ASKED, WAITS).pending_approvals

        assert (waiting["tool_call_id"], waiting["tool_name"], waiting["arguments"]) == ("evt_use", None, None)

    def test_calls_that_the_end_does_not_name(self) -> None:
        end = {"type": "session.status_idle", "stop_reason": {"type": "requires_action"}}

        assert [call["tool_call_id"] for call in reply_to(ASKED, USE, end).pending_approvals] == ["evt_use"]

    def test_the_turn_continues_after_the_answer(self) -> None:
        answer = {"type": "user.tool_confirmation", "tool_use_id": "evt_use", "result": "allow"}
        begun = [ASKED, USE, WAITS, answer, RUNNING]

        assert reply_to(*begun).state == "waiting"
        reply = reply_to(*begun, agent_message("It worked."), END)
        assert (reply.state, reply.text, reply.pending_approvals) == ("replied", "It worked.", [])

    def test_it_still_waits_while_something_else_happens(self) -> None:
        assert reply_to(ASKED, USE, WAITS, {"type": "session.updated"}).state == "needs_approval"

    def test_it_has_failed_if_another_message_takes_its_place(self) -> None:
        reply = reply_to(ASKED, USE, WAITS, user_message("leave it", id="evt_9"), RUNNING, agent_message("I do."), END)

        message = "the turn waited for approval, and another message came instead"
        assert (reply.state, reply.text) == ("failed", None)
        assert reply.error == {"code": "reply_failed", "message": message}

    def test_a_session_that_is_deleted_while_it_waits(self) -> None:
        assert reply_to(ASKED, USE, WAITS, {"type": "session.deleted"}).state == "lost"


class TestWhose:
    def test_earlier_and_later_turns_are_ignored(self) -> None:
        before = [user_message("before", id="evt_b"), agent_message("not this"), END]
        after = [user_message("after", id="evt_a"), RUNNING, agent_message("nor this"), {"type": "session.deleted"}]
        turn = [ASKED, agent_message("but this"), END]

        for question in (BY_ID, BY_TEXT):
            reply = look_at(Sessions([*before, *turn, *after]), question)
            assert (reply.state, reply.text) == ("replied", "but this")

    def test_the_last_of_several_messages_is_matched(self) -> None:
        reply = reply_to(user_message("first", id="evt_0b"), ASKED, agent_message("to both"), END, question=BY_TEXT)

        assert (reply.event_id, reply.text) == ("evt_1", "to both")

    def test_the_only_message_of_a_session_is_matched_without_an_id(self) -> None:
        question = Question(provider="qoder", agent_id="None", conversation_id="sess_1")

        assert reply_to(user_message("what?"), agent_message("yes"), END, question=question).text == "yes"

    @pytest.mark.parametrize(
        ("processed_at", "found"),
        [
            ("2026-01-31T12:00:01Z", True),
            ("2026-01-31T11:56:00Z", True),  # clocks differ
            ("2026-01-31T11:54:00Z", False),
            (None, True),
        ],
    )
    def test_the_same_text_from_before_is_not_matched(self, processed_at: str | None, found: bool) -> None:
        events = [user_message(processed_at=processed_at), agent_message("yes"), END]

        assert reply_to(*events, question=BY_TEXT).found is found
        assert find_message(BY_TEXT, *events) is found

    def test_another_text_is_not_matched(self) -> None:
        assert not reply_to(user_message("other"), agent_message("yes"), END, question=BY_TEXT).found
        assert not find_message(BY_TEXT, user_message("other"))
        assert not find_message(BY_TEXT, {**agent_message("hello"), "id": "evt_1"})

    def test_each_look_reads_only_new_events(self) -> None:
        sessions = Sessions([user_message("before", id="evt_b"), ASKED, RUNNING, agent_message("now"), END], at_once=2)

        assert look_at(sessions, BY_TEXT, times=3).text == "now"
        assert sessions.looks == [None, "evt_1", "evt_n3"]

    def test_events_before_a_message_with_an_id_are_not_read(self) -> None:
        sessions = Sessions([user_message("before", id="evt_b"), ASKED, agent_message("now"), END])

        assert look_at(sessions, BY_ID).text == "now"
        assert sessions.looks == ["evt_1"]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "message"]), inner),
    max_leaves=6,
)
TYPES = ["user.message", "agent.message", "agent.tool_use", "session.status_idle", "session.error", "session.deleted"]
HOSTILE = st.fixed_dictionaries(
    {"type": st.sampled_from(TYPES)},
    optional=dict.fromkeys(("id", "content", "stop_reason", "name", "input", "error", "processed_at"), ANYTHING),
)


@hypothesis.given(events=st.lists(HOSTILE, max_size=6))
def test_hostile_events_end_in_a_state(events: list[dict[str, Any]]) -> None:
    for question in (BY_ID, BY_TEXT):
        reply = reply_to(ASKED, *events, question=question)
        assert reply.state in STATES
        assert reply.error is None or len(reply.error["message"].splitlines()) == 1


class TestInTheSandbox:
    @pytest.fixture
    def environment(self, sandbox: Sandbox) -> Environment:
        return new_environment(sandbox)

    @pytest.mark.parametrize(
        ("ends", "state"),
        [
            ("end_turn", "replied"),
            ("requires_action", "needs_approval"),
            ("cancelled", "failed"),
            ("error", "failed"),
            ("terminated", "failed"),
            ("deleted", "lost"),
        ],
    )
    def test_every_ending(self, sandbox: Sandbox, environment: Environment, ends: Any, state: str) -> None:
        sandbox.qoder.script(AGENT, QoderTurn(ends=ends))
        question = self._sent(sandbox, environment)

        reply = self._look(sandbox, question)

        assert (reply.state, reply.stop_reason, reply.event_id) == (state, ends, question.otid)
        assert reply.text == "Done."

    def test_an_approval_and_the_reply_after_it(self, sandbox: Sandbox, environment: Environment) -> None:
        sandbox.qoder.script(AGENT, QoderTurn(ends="requires_action", texts=["Shall I?"]))
        question = self._sent(sandbox, environment)
        [waiting] = self._look(sandbox, question).pending_approvals

        event = {"type": "user.tool_confirmation", "tool_use_id": waiting["tool_call_id"], "result": "allow"}
        httpx.post(
            f"{sandbox.qoder.url}/sessions/{question.conversation_id}/events",
            json={"events": [event]}, headers={"Authorization": f"Bearer {sandbox.qoder.key}"}, trust_env=False,
        ).raise_for_status()  # fmt: skip
        reply = self._look(sandbox, question)

        assert waiting["tool_name"] == "Bash"
        assert (reply.state, reply.text) == ("replied", "Done.")

    @pytest.mark.parametrize("generation", ["seed", "new"])
    def test_a_long_session(
        self, sandbox: Sandbox, environment: Environment, generation: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "ansible_collections.fleetops.environments.plugins.module_utils.providers.qoder.client._EVENTS_A_PAGE", 3
        )
        sandbox.settings(qoder_generation=generation)
        sandbox.qoder.script(AGENT, QoderTurn(texts=[str(number) for number in range(10)]))

        assert self._look(sandbox, self._sent(sandbox, environment)).text == "9"

    def test_a_deleted_session_is_lost(self, sandbox: Sandbox) -> None:
        question = Question(provider="qoder", agent_id=AGENT, conversation_id="sess_gone", otid="evt_1")

        reply = self._look(sandbox, question)

        assert (reply.state, (reply.error or {})["code"]) == ("lost", "reply_lost")
        assert "not found" in (reply.error or {})["message"]

    def test_endless_pages_are_an_error(self, sandbox: Sandbox, environment: Environment) -> None:
        question = self._sent(sandbox, environment)
        sandbox.add_fault("no_cursor", route="qoder_events")

        with pytest.raises(ApiError, match="no cursor tells where to go on"):
            self._look(sandbox, question)

    @staticmethod
    def _sent(sandbox: Sandbox, environment: Environment) -> Question:
        message = Message("hello", "message-1")

        async def sent(client: Client) -> str | None:
            session_id = await client.create_conversation(environment, AGENT, "message-1")
            accepted = await client.send(environment, [message], Address(AGENT, session_id))
            return accepted.message_id

        otid = with_client(qoder_settings(sandbox), sent)
        return Question(provider="qoder", agent_id=AGENT, conversation_id=only_session(sandbox)["id"], otid=otid)

    @staticmethod
    def _look(sandbox: Sandbox, question: Question) -> Reply:
        return with_client(
            qoder_settings(sandbox),
            lambda client: Conversations(client, concurrency=2, rate=None).search_reply(question)(0.0),
        )
