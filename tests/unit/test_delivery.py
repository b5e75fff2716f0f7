"""Delivery: what happened to each target, and what its device received."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.environment import Environment
from ansible_collections.fleetops.environments.plugins.module_utils.errors import ApiError
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.delivery import (
    STATUSES,
    Delivery,
    MessageTarget,
    Retry,
    deliver,
)
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.fan_out import Policy, count_each
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.client import Client, Query
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.models import read_environments
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.provider import PROVIDER
from ansible_collections.fleetops.environments.plugins.module_utils.providers.message import parse_messages
from ansible_collections.fleetops.environments.plugins.module_utils.providers.registry import fetch_listing
from ansible_collections.fleetops.environments.plugins.module_utils.stop import Stop
from tests.sandbox.process import Sandbox

from .support import environment_of, http_answer, policy, raw_server, row, settings_for


def list_now(sandbox: Sandbox) -> dict[str, Environment]:
    """What an inventory would list now, by id."""
    listing = fetch_listing(PROVIDER, settings_for(sandbox), Query())
    sandbox.clear_requests()
    return {found.id: found for found in read_environments(listing, sandbox.url)[0]}


def online(sandbox: Sandbox, count: int = 1) -> list[Environment]:
    found = [environment for environment in list_now(sandbox).values() if environment.status == "online"][:count]
    assert len(found) == count
    return found


def offline(sandbox: Sandbox) -> Environment:
    return next(environment for environment in list_now(sandbox).values() if environment.status == "offline")


def target(
    environment: Environment, messages: Sequence[Any] = ({"content": "hello"},), **changes: Any
) -> MessageTarget:
    sent = parse_messages("messages", messages)
    return MessageTarget(
        **{"host": environment.id, "environment": environment, "messages": sent, "agent_id": "a-1", **changes}
    )


def send_all(
    sandbox: Sandbox,
    targets: Sequence[MessageTarget],
    rules: Policy | None = None,
    meanwhile: Callable[[], None] = lambda: None,
    **settings: Any,
) -> list[Delivery]:
    """Send to the targets while a thread runs something else."""

    async def run() -> list[Delivery]:
        async with Client(settings_for(sandbox, **settings)) as client, asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(meanwhile))
            return await deliver({"letta": client}, targets, rules or policy())

    return asyncio.run(run())


def send_one(sandbox: Sandbox, to: MessageTarget, **settings: Any) -> Delivery:
    [delivery] = send_all(sandbox, [to], **settings)
    return delivery


def routes(sandbox: Sandbox) -> list[str]:
    return [entry["route"] for entry in sandbox.requests()]


def turns(sandbox: Sandbox) -> dict[str, int]:
    return {identity: received["turns"] for identity, received in sandbox.received().items()}


def test_a_message_is_sent(sandbox: Sandbox) -> None:
    [environment] = online(sandbox)
    message = {"content": "hello", "client_message_id": "m-1"}

    delivery = send_one(sandbox, target(environment, [message], conversation_id="conv-1"))

    assert delivery.duration > 0
    delivery.duration = 0.0
    assert datetime.now(UTC) - datetime.fromisoformat(str(delivery.sent_at)) < timedelta(seconds=10)
    delivery.sent_at = None
    assert delivery == Delivery(
        host=environment.id,
        id=environment.id,
        provider="letta",
        client_message_id="m-1",
        otid="m-1",
        agent_id="a-1",
        conversation_id="conv-1",
        connection_id=environment.connection_id,
        status="sent",
        reason=None,
        response_message="Message sent to environment",
        attempts=1,
        via="rest",
    )
    assert sandbox.received()[environment.id]["messages"] == [
        {
            "agentId": "a-1",
            "conversationId": "conv-1",
            "client_message_id": "m-1",
            "otid": "m-1",
            "content": "hello",
        }
    ]


def test_several_messages_go_in_one_request(sandbox: Sandbox) -> None:
    [environment] = online(sandbox)
    approvals = {"approvals": [{"tool_call_id": "call-1", "approve": True}]}

    delivery = send_one(sandbox, target(environment, [approvals, {"content": "a"}, {"content": [{"text": "b"}]}]))

    received = sandbox.received()[environment.id]
    assert (delivery.status, received["posts"], received["turns"]) == ("sent", 1, 1)
    assert [message["content"] for message in received["messages"]] == ["a", [{"text": "b", "type": "text"}]]
    assert [approval["tool_call_id"] for approval in received["approvals"]] == ["call-1"]
    assert delivery.client_message_id == received["messages"][0]["client_message_id"]


def test_without_an_agent_the_request_names_no_agent(sandbox: Sandbox) -> None:
    environment = environment_of(sandbox.add_environment(), sandbox.url)

    delivery = send_one(sandbox, target(environment, agent_id=None))

    [received] = sandbox.received()[environment.id]["messages"]
    assert (delivery.agent_id, received["agentId"], received["conversationId"]) == (None, None, None)


def test_results_are_in_the_order_of_the_targets(sandbox: Sandbox) -> None:
    targets = [target(environment) for environment in online(sandbox, 10)]
    sandbox.add_fault("slow", seconds=0.2, route="messages", nth=[1, 2, 5])

    deliveries = send_all(sandbox, targets, policy(concurrency=5))

    assert [delivery.host for delivery in deliveries] == [to.host for to in targets]
    assert {delivery.status for delivery in deliveries} == {"sent"}
    assert turns(sandbox) == {to.host: 1 for to in targets}


def test_no_target_is_no_delivery(sandbox: Sandbox) -> None:
    assert send_all(sandbox, []) == []


def test_a_target_to_skip_is_not_asked_about(sandbox: Sandbox) -> None:
    first, second = online(sandbox, 2)

    skipped, sent = send_all(sandbox, [target(first, skip="not updatable"), target(second)])

    assert (skipped.status, skipped.reason, skipped.attempts) == ("skipped", "not updatable", 0)
    assert sent.status == "sent"
    assert turns(sandbox) == {second.id: 1}
    assert routes(sandbox) == ["messages"]


# Lost connections


@pytest.mark.parametrize("status", [404, 503])
@pytest.mark.parametrize("restart", [True, False])
def test_a_lost_connection_is_resolved_and_the_message_sent_once(sandbox: Sandbox, status: int, restart: bool) -> None:
    [environment] = online(sandbox)
    sandbox.settings(offline_status=status)
    now = sandbox.rotate(environment.id, restart=restart)

    delivery = send_one(sandbox, target(environment))

    assert (delivery.status, delivery.attempts, delivery.error) == ("sent", 2, None)
    assert delivery.connection_id == now["connectionId"] != environment.connection_id
    assert routes(sandbox) == ["messages", "retrieve", "messages"]
    [received] = sandbox.received()[environment.id]["messages"]
    assert received["client_message_id"] == delivery.client_message_id


def test_approvals_are_sent_over_the_new_connection(sandbox: Sandbox) -> None:
    [environment] = online(sandbox)
    sandbox.rotate(environment.id)

    delivery = send_one(sandbox, target(environment, [{"approvals": [{"tool_call_id": "call-1", "approve": True}]}]))

    assert (delivery.status, delivery.client_message_id) == ("sent", None)
    assert len(sandbox.received()[environment.id]["approvals"]) == 1


def test_a_connection_lost_again_is_not_resolved_a_second_time(sandbox: Sandbox) -> None:
    [environment] = online(sandbox)
    sandbox.add_fault("status", route="messages", status=404)

    delivery = send_one(sandbox, target(environment))

    assert (delivery.status, delivery.attempts) == ("offline", 2)
    assert routes(sandbox) == ["messages", "retrieve", "messages"]


@pytest.mark.parametrize("status", [404, 503])
def test_a_device_that_went_offline_after_the_listing_is_offline(sandbox: Sandbox, status: int) -> None:
    [environment] = online(sandbox)
    sandbox.settings(offline_status=status)
    sandbox.offline(environment.id)

    delivery = send_one(sandbox, target(environment))

    assert (delivery.status, delivery.attempts) == ("offline", 1)
    assert delivery.error == {"code": "offline", "message": "the environment is offline"}
    assert turns(sandbox) == {}


def test_a_removed_row_is_offline(sandbox: Sandbox) -> None:
    [environment] = online(sandbox)
    sandbox.remove(environment.id)

    delivery = send_one(sandbox, target(environment))

    assert delivery.status == "offline"
    assert delivery.error == {"code": "offline", "message": "the environment is no longer there"}


def two_rows(sandbox: Sandbox) -> tuple[Environment, Environment]:
    """Two environments of one device; the second was active last."""
    first = sandbox.add_environment(deviceId="shared")
    second = sandbox.add_environment(deviceId="shared")
    sandbox.rotate(first["id"])
    sandbox.age(first["id"], 60)
    return environment_of(first, sandbox.url), environment_of(second, sandbox.url)


def test_another_row_of_the_device_is_not_mistaken_for_the_target(sandbox: Sandbox) -> None:
    wanted, _other = two_rows(sandbox)

    delivery = send_one(sandbox, target(wanted))

    assert delivery.status == "sent"
    assert turns(sandbox) == {wanted.id: 1}
    assert routes(sandbox) == ["messages", "retrieve", "list", "messages"]


def test_another_row_of_the_device_gets_nothing_when_the_target_was_removed(sandbox: Sandbox) -> None:
    wanted, _other = two_rows(sandbox)
    sandbox.remove(wanted.id)

    assert send_one(sandbox, target(wanted)).status == "offline"
    assert turns(sandbox) == {}


def many_with_newer_rows(sandbox: Sandbox, count: int) -> list[Environment]:
    """Environments that lost their connection, and whose device has a row that was active later."""
    older = [sandbox.add_environment(deviceId=f"shared-{number}") for number in range(count)]
    for row_ in older:
        sandbox.add_environment(deviceId=row_["deviceId"])
        sandbox.rotate(row_["id"])
        sandbox.age(row_["id"], 60)
    return [environment_of(row_, sandbox.url) for row_ in older]


def test_targets_that_are_not_their_devices_newest_row_share_one_listing(sandbox: Sandbox) -> None:
    wanted = many_with_newer_rows(sandbox, 20)

    deliveries = send_all(sandbox, [target(environment) for environment in wanted], policy(concurrency=5))

    assert {delivery.status for delivery in deliveries} == {"sent"}
    assert turns(sandbox) == {environment.id: 1 for environment in wanted}
    assert len(sandbox.requests("retrieve")) == 20
    assert len(sandbox.requests("list")) == 1


def test_a_failed_shared_listing_keeps_only_unclear_deliveries_unclear(sandbox: Sandbox) -> None:
    unclear, clear = many_with_newer_rows(sandbox, 2)
    sandbox.add_fault("drop_after", route="messages", target=unclear.connection_id, nth=1)
    # The clear delivery joins the listing of the unclear one.
    sandbox.add_fault("slow", route="messages", target=clear.connection_id, seconds=1)
    sandbox.add_fault("slow", route="list", seconds=60)

    deliveries = send_all(sandbox, [target(unclear), target(clear)], policy(max_failures=2), deadline=2)

    assert [delivery.status for delivery in deliveries] == ["unknown", "failed"]
    assert len(sandbox.requests("list")) == 1


# Targets that are offline


@pytest.mark.parametrize(("when_offline", "failure"), [("skip", False), ("fail", True)])
def test_an_offline_target_gets_nothing(sandbox: Sandbox, when_offline: str, failure: bool) -> None:
    environment = offline(sandbox)
    rules = policy(when_offline=when_offline)

    [delivery] = send_all(sandbox, [target(environment)], rules)

    assert (delivery.status, delivery.attempts, rules.is_failure(delivery)) == ("offline", 0, failure)
    assert routes(sandbox) == ["retrieve"]


def test_a_target_that_came_online_after_the_listing_gets_its_message(sandbox: Sandbox) -> None:
    environment = offline(sandbox)
    sandbox.online(environment.id)

    assert send_one(sandbox, target(environment)).status == "sent"
    assert routes(sandbox) == ["retrieve", "messages"]


def test_a_target_is_waited_for_until_it_is_online(sandbox: Sandbox) -> None:
    waited_for, [other] = offline(sandbox), online(sandbox)

    def come_online() -> None:
        while "retrieve" not in routes(sandbox):
            pass
        sandbox.online(waited_for.id)

    rules = policy(when_offline="wait")
    deliveries = send_all(sandbox, [target(waited_for), target(other)], rules, come_online)

    assert [(delivery.status, delivery.error) for delivery in deliveries] == [("sent", None), ("sent", None)]
    assert turns(sandbox) == {waited_for.id: 1, other.id: 1}


def test_a_target_that_stays_offline_is_abandoned_and_counts_as_failed(sandbox: Sandbox) -> None:
    environment = offline(sandbox)
    rules = policy(when_offline="wait", offline_timeout=0.3)

    [delivery] = send_all(sandbox, [target(environment)], rules)

    assert (delivery.status, rules.is_failure(delivery)) == ("offline", True)
    assert routes(sandbox) == ["retrieve", "retrieve"]


# Failures


@pytest.mark.parametrize("fault", ["drop_before", "drop_during", "drop_after"])
def test_a_dropped_connection_makes_no_second_turn(sandbox: Sandbox, fault: str) -> None:
    [environment] = online(sandbox)
    sandbox.add_fault(fault, route="messages", nth=1)

    delivery = send_one(sandbox, target(environment))

    assert (delivery.status, delivery.attempts) == ("sent", 2)
    assert turns(sandbox) == {environment.id: 1}


@pytest.mark.parametrize(("fault", "received"), [("drop_before", 0), ("drop_after", 1)])
def test_a_connection_that_always_drops_ends_as_unknown(sandbox: Sandbox, fault: str, received: int) -> None:
    [environment] = online(sandbox)
    sandbox.add_fault(fault, route="messages")

    delivery = send_one(sandbox, target(environment))

    assert (delivery.status, delivery.attempts) == ("unknown", 3)
    assert delivery.error is not None
    assert delivery.error["code"] == "dropped"
    assert sum(turns(sandbox).values()) == received


def test_approvals_are_not_sent_again_after_an_unclear_failure(sandbox: Sandbox) -> None:
    [environment] = online(sandbox)
    sandbox.add_fault("drop_after", route="messages")

    delivery = send_one(sandbox, target(environment, [{"approvals": [{"tool_call_id": "call-1", "approve": True}]}]))

    assert (delivery.status, delivery.attempts) == ("unknown", 1)
    assert len(sandbox.received()[environment.id]["approvals"]) == 1


def test_a_message_together_with_approvals_is_not_sent_again(sandbox: Sandbox) -> None:
    [environment] = online(sandbox)
    sandbox.add_fault("drop_after", route="messages")
    approvals = {"approvals": [{"tool_call_id": "call-1", "approve": True}]}

    assert send_one(sandbox, target(environment, [{"content": "a"}, approvals])).attempts == 1


def test_a_message_that_the_api_refuses_has_failed(sandbox: Sandbox) -> None:
    [environment] = online(sandbox)
    sandbox.add_fault("success_false")

    delivery = send_one(sandbox, target(environment))

    assert (delivery.status, delivery.attempts) == ("failed", 1)
    assert delivery.error == {
        "code": "refused",
        "message": "the API refused the message: The environment did not take the message",
    }


def test_a_refusal_after_an_unclear_failure_is_unknown(sandbox: Sandbox) -> None:
    [environment] = online(sandbox)
    sandbox.add_fault("drop_after", route="messages", nth=1)
    sandbox.add_fault("success_false")

    delivery = send_one(sandbox, target(environment))

    assert (delivery.status, delivery.attempts) == ("unknown", 2)
    assert turns(sandbox) == {environment.id: 1}


def test_a_connection_lost_after_an_unclear_failure_is_unknown_when_the_device_is_offline(
    sandbox: Sandbox,
) -> None:
    [environment] = online(sandbox)
    sandbox.add_fault("drop_after", route="messages", nth=1)
    sandbox.add_fault("status", status=404, route="messages")
    sandbox.add_fault("status", status=404, route="retrieve")

    delivery = send_one(sandbox, target(environment))

    assert (delivery.status, delivery.attempts) == ("unknown", 2)


@pytest.mark.parametrize("fault", ["html_200", "not_json", "truncated_json"])
def test_an_answer_other_than_json_is_unknown(sandbox: Sandbox, fault: str) -> None:
    [environment] = online(sandbox)
    sandbox.add_fault(fault, route="messages")

    assert send_one(sandbox, target(environment)).status == "unknown"


@pytest.mark.parametrize("body", [b"{}", b'{"success": "true"}', b'{"success": null, "message": "a"}', b"[]", b"null"])
def test_an_answer_of_unknown_shape_is_unknown_and_all_attempts_count(body: bytes) -> None:
    busy = http_answer(status=b"503 Busy", headers=(b"Retry-After: 0",))
    failed = http_answer(status=b"500 Oops", headers=(b"Retry-After: 0",))
    answers = iter([failed, http_answer(body)])

    async def run() -> list[Delivery]:
        async with raw_server(lambda _head: next(answers, busy)) as (url, _received):
            client = Client(settings_for(url))
            async with client:
                return await deliver({"letta": client}, [target(environment_of(row(), url))], policy())

    [delivery] = asyncio.run(run())
    assert (delivery.status, delivery.attempts) == ("unknown", 2)
    assert delivery.error is not None
    assert delivery.error["code"] == "invalid"


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500])
def test_a_failure_has_its_code_and_message(sandbox: Sandbox, status: int) -> None:
    [environment] = online(sandbox)
    sandbox.add_fault("status", status=status, retry_after=0, route="messages")

    delivery = send_one(sandbox, target(environment), retries=1)

    assert delivery.status == ("unknown" if status == 500 else "failed")
    assert delivery.attempts == (2 if status >= 429 else 1)
    assert delivery.error is not None
    assert delivery.error["code"] == f"http_{status}"
    assert "SANDBOX_FAULT" in delivery.error["message"]


@pytest.mark.parametrize("fault", [{"fault": "status", "status": 500, "retry_after": 0}, {"fault": "drop_before"}])
def test_a_failed_look_up_sends_nothing(sandbox: Sandbox, fault: dict[str, Any]) -> None:
    environment = offline(sandbox)
    sandbox.add_fault(**fault, route="retrieve")

    assert send_one(sandbox, target(environment), retries=1).status == "failed"


def test_a_look_up_that_takes_too_long_sends_nothing(sandbox: Sandbox) -> None:
    environment = offline(sandbox)
    sandbox.add_fault("slow", seconds=60, route="retrieve")

    delivery = send_one(sandbox, target(environment), deadline=0.3)

    assert (delivery.status, delivery.attempts) == ("failed", 0)


# Conversations


def test_new_creates_a_conversation_for_each_target(sandbox: Sandbox) -> None:
    targets = [target(environment, conversation_id="new") for environment in online(sandbox, 3)]

    deliveries = send_all(sandbox, targets)

    made = [delivery.conversation_id for delivery in deliveries]
    assert len({*made}) == 3
    for delivery in deliveries:
        [received] = sandbox.received()[delivery.id]["messages"]
        assert received["conversationId"] == delivery.conversation_id
    assert [entry["query"] for entry in sandbox.requests("conversations")] == [{"agent_id": "a-1"}] * 3


def test_a_conversation_is_created_once_although_the_connection_was_lost(sandbox: Sandbox) -> None:
    [environment] = online(sandbox)
    sandbox.rotate(environment.id)

    assert send_one(sandbox, target(environment, conversation_id="new")).status == "sent"
    assert len(sandbox.requests("conversations")) == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "status", "status": 404},
        {"fault": "status", "status": 400},
        {"fault": "status", "status": 500, "retry_after": 0},
        {"fault": "drop_after"},
        {"fault": "html_200"},
    ],
)
def test_nothing_is_sent_if_the_conversation_cannot_be_created(sandbox: Sandbox, fault: dict[str, Any]) -> None:
    [environment] = online(sandbox)
    sandbox.add_fault(**fault, route="conversations")

    delivery = send_one(sandbox, target(environment, conversation_id="new"))

    assert (delivery.status, delivery.attempts, delivery.conversation_id) == ("failed", 0, None)
    assert turns(sandbox) == {}


def test_each_target_of_an_agent_has_its_standing_conversation_in_every_run(sandbox: Sandbox) -> None:
    targets = [target(environment, conversation_id="standing") for environment in online(sandbox, 3)]

    first, second = send_all(sandbox, targets), send_all(sandbox, targets[1:])

    made = {delivery.id: delivery.conversation_id for delivery in first}
    assert len({*made.values()}) == 3
    assert [delivery.conversation_id for delivery in second] == [made[delivery.id] for delivery in second]
    for delivery in first:
        received = sandbox.received()[delivery.id]["messages"]
        assert {message["conversationId"] for message in received} == {delivery.conversation_id}
    assert len(sandbox.requests("conversations")) == 3


@pytest.mark.parametrize("route", ["conversation_list", "conversations"])
def test_nothing_is_sent_if_the_standing_conversation_cannot_be_opened(sandbox: Sandbox, route: str) -> None:
    [environment] = online(sandbox)
    sandbox.add_fault("drop_after", route=route)

    delivery = send_one(sandbox, target(environment, conversation_id="standing"))

    assert (delivery.status, delivery.attempts, delivery.conversation_id) == ("failed", 0, None)
    assert turns(sandbox) == {}


@pytest.mark.parametrize("status", [403, 404, 405])
@pytest.mark.parametrize(("route", "call"), [("conversation_list", "GET"), ("conversations", "POST")])
def test_what_cannot_be_opened_says_how_to_send_without_it(
    sandbox: Sandbox, status: int, route: str, call: str
) -> None:
    [environment] = online(sandbox)
    sandbox.add_fault("status", route=route, status=status)

    delivery = send_one(sandbox, target(environment, conversation_id="standing"))
    without = send_one(sandbox, target(environment, conversation_id="default"))

    assert delivery.error is not None
    assert f"{call} {sandbox.url}/v1/conversations/" in delivery.error["message"]
    assert delivery.error["message"].endswith("; conversation_id=default sends without it")
    assert (delivery.status, without.status) == ("failed", "sent")


@pytest.mark.parametrize(
    ("status", "conversation_id", "again"),
    [("unknown", None, "default"), ("unknown", "conv-1", "conv-1"), ("failed", None, None)],
)
def test_an_attempt_sends_where_the_one_before_may_have_sent(
    status: str, conversation_id: str | None, again: str | None
) -> None:
    async def find_message(question: Any, fresh: bool) -> str | None:
        return None

    to = target(environment_of(row(id="e")), conversation_id="standing or default")
    before, delivery = Delivery.of(to), Delivery.of(to)
    before.status, before.conversation_id = status, conversation_id

    assert asyncio.run(Retry({to.host: before}, find_message).claim(to, delivery))
    assert delivery.conversation_id == again


def test_an_answer_to_a_tool_call_makes_no_conversation(sandbox: Sandbox) -> None:
    [environment] = online(sandbox)
    answer = [{"approvals": [{"tool_call_id": "call-1", "approve": True}]}]

    delivery = send_one(sandbox, target(environment, answer, conversation_id="standing"))

    assert (delivery.status, delivery.conversation_id) == ("sent", None)
    assert sandbox.requests("conversations") == []


# Many targets at a time


def test_a_waiting_send_does_not_start_above_the_budget(sandbox: Sandbox) -> None:
    targets = [target(environment) for environment in online(sandbox, 10)]
    sandbox.add_fault("status", status=400, route="messages")

    deliveries = send_all(sandbox, targets, policy(concurrency=10, rate=8))

    counts = count_each((delivery.status for delivery in deliveries), STATUSES)
    assert counts["not_attempted"] > 0
    assert len(sandbox.requests("messages")) == counts["failed"]


def test_sends_run_at_the_same_time(sandbox: Sandbox) -> None:
    targets = [target(environment) for environment in online(sandbox, 9)]
    sandbox.add_fault("slow", seconds=0.2, route="messages")

    send_all(sandbox, targets, policy(concurrency=50))

    under_way = [entry["under_way"] for entry in sandbox.requests("messages")]
    assert under_way[-1] - under_way[0] == 8


# Stopping


def stop_after(sandbox: Sandbox, stop: Stop, route: str) -> Callable[[], None]:
    """Request a stop once a request to a route has arrived."""

    def wait() -> None:
        until = time.monotonic() + 10
        while not sandbox.requests(route) and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.2)
        stop.cut()

    return wait


@pytest.mark.parametrize(("before", "status"), [(None, "failed"), ("drop_after", "unknown")])
def test_after_a_stop_nothing_is_sent_over_a_new_connection(sandbox: Sandbox, before: str | None, status: str) -> None:
    [environment] = online(sandbox)
    sandbox.rotate(environment.id)
    if before is not None:
        # The connection is lost only after it is unclear whether the message arrived.
        sandbox.add_fault(before, route="messages", nth=1)
    sandbox.add_fault("slow", route="retrieve", seconds=1)
    stop = Stop()

    [delivery] = send_all(sandbox, [target(environment)], policy(stop=stop), stop_after(sandbox, stop, "retrieve"))

    assert (delivery.status, (delivery.error or {})["code"]) == (status, "stopped")
    assert len(sandbox.requests("messages")) == (1 if before is None else 2)
    assert turns(sandbox) == {}


def test_a_target_that_waits_when_the_run_stops_has_sent_nothing(sandbox: Sandbox) -> None:
    environments = online(sandbox, 3)
    first, *others = [target(environment) for environment in environments]
    sandbox.add_fault("status", status=429, retry_after=30, route="messages")
    settings = settings_for(sandbox)

    async def run() -> list[Delivery]:
        async with Client(settings) as client, asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(stop_after(sandbox, settings.gate.stop, "messages")))
            return await deliver({"letta": client}, [first, *others], policy(stop=settings.gate.stop, concurrency=1))

    async def held() -> list[Delivery]:
        async with Client(settings) as client:
            settings.gate.note_error(ApiError("later", code="http_429", status=429, retry_after=30))
            asyncio.get_running_loop().call_later(0.2, settings.gate.stop.cut)
            return await deliver({"letta": client}, others, policy(stop=settings.gate.stop, concurrency=2))

    began = time.monotonic()
    told, *rest = asyncio.run(run())
    assert [told.status, *(delivery.status for delivery in rest)] == ["failed", "not_attempted", "not_attempted"]
    assert (told.error or {})["code"] == "http_429"

    settings = settings_for(sandbox)
    for delivery in asyncio.run(held()):
        assert (delivery.status, delivery.attempts, (delivery.error or {})["code"]) == ("failed", 0, "stopped")
    assert time.monotonic() - began < 4
    assert len(sandbox.requests("messages")) == 1
