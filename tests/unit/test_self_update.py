"""Updates: the method, the proof, and the result of an update that cannot be proven."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.environment import Environment
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.drain import Drain
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.fan_out import Policy, ProviderRun, Target
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.update import (
    Update,
    UpdateOutcome,
    update_environments,
)
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.rollouts import (
    RolloutUpdates,
    add_rollout,
    find_rollout,
)
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.schema import (
    Rollout,
    RolloutTarget,
    RunFacts,
)
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.store import Ledger, open_ledger
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.client import Client
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.relay import Relay
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.standing import write_summary
from ansible_collections.fleetops.environments.plugins.module_utils.rollouts.waves import plan_rollout
from ansible_collections.fleetops.environments.plugins.module_utils.stop import Stop
from ansible_collections.fleetops.environments.plugins.module_utils.text import format_now
from tests.sandbox.process import Sandbox
from tests.sandbox.seeded import SELF_UPDATE
from tests.sandbox.turns import ApprovalTurn, LongTurn, Turn

from .support import begin_turn, environment_of, http_post, settings_for

NPM, PIP = SELF_UPDATE["npm"], SELF_UPDATE["pip"]


def add_environment(sandbox: Sandbox, version: str | None = "0.33.9", said: Any = NPM, **fields: Any) -> Environment:
    """An environment that runs a version and reports this about self-updates."""
    metadata = {"lettaCodeVersion": version}
    row = sandbox.add_environment(metadata=metadata, **{"$delete": ["metadata.self_update"]}, **fields)
    if said:
        row = sandbox.patch(row["id"], metadata={"self_update": said})
    return environment_of(row, sandbox.url)


def update_all(
    sandbox: Sandbox,
    environments: Sequence[Environment],
    target_version: str | None = "0.34.12",
    method: str = "auto",
    within: float = 10,
    *,
    agent_id: str | None = None,
    any_manual_command: bool = False,
    check_mode: bool = False,
    meanwhile: Callable[[], None] = lambda: None,
    policy: dict[str, Any] | None = None,
    progress: RolloutUpdates | None = None,
    when_busy: str = "wait",
    busy_within: float = 60.0,
    recorded: Sequence[dict[str, Any]] = (),
    drain: Drain | None = None,
    **settings: Any,
) -> list[UpdateOutcome]:
    """Update these while a thread runs something else."""
    standard = {"concurrency": 4, "rate": None, "max_failures": 0, "when_offline": "skip", "longest_pause": 0.1}
    rules = Policy(**{**standard, **(policy or {})})
    update = Update(
        target_version, method, within, any_manual_command, drain or Drain(when_busy, busy_within, recorded)
    )

    async def run() -> list[UpdateOutcome]:
        targets = [Target(environment.id, environment, agent_id) for environment in environments]
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(meanwhile))
            return await update_environments(
                ProviderRun(settings_for(sandbox, **settings), targets, rules, check_mode), update, progress
            )

    return asyncio.run(run())


def update_one(sandbox: Sandbox, environment: Environment, *arguments: Any, **options: Any) -> UpdateOutcome:
    [outcome] = update_all(sandbox, [environment], *arguments, **options)
    return outcome


def message_of(outcome: UpdateOutcome) -> str:
    assert outcome.error is not None
    assert "\n" not in outcome.error["message"]
    return outcome.error["message"]


def count_received(sandbox: Sandbox, environment: Environment) -> tuple[int, int]:
    """The number of commands and messages that reached the device."""
    found = sandbox.received().get(environment.id, {})
    return len(found.get("commands", [])), len(found.get("messages", []))


def once_told(sandbox: Sandbox, environment: Environment, do: Callable[[], object]) -> Callable[[], None]:
    """Something to do when the device has been asked to update itself."""

    def wait() -> None:
        until = time.monotonic() + 10
        while count_received(sandbox, environment) == (0, 0) and time.monotonic() < until:
            time.sleep(0.01)
        do()

    return wait


def restarts_on(sandbox: Sandbox, environment: Environment, version: str) -> Callable[[], None]:
    """The actions of an agent that is asked to update its machine."""

    def restart() -> None:
        sandbox.patch(environment.id, metadata={"lettaCodeVersion": version})
        sandbox.rotate(environment.id, restart=True)

    return restart


# By command


def test_a_device_that_is_back_on_the_version_is_changed_and_the_second_time_ok(sandbox: Sandbox) -> None:
    sandbox.upgrade_to("0.34.12")
    environment = add_environment(sandbox)

    first = update_one(sandbox, environment)
    second = update_one(sandbox, environment)

    assert (first.status, first.method, first.error) == ("changed", "command", None)
    assert (first.previous_version, first.version) == ("0.33.9", "0.34.12")
    assert first.connection_id not in (None, environment.connection_id)
    assert first.reason == "updated from 0.33.9 to 0.34.12"
    assert first.updated_at is not None
    assert abs(datetime.now(UTC) - datetime.fromisoformat(first.updated_at)) < timedelta(seconds=30)
    assert second.updated_at is None
    assert (first.output or "").startswith("Updated to 0.34.12. ")
    assert first.duration > 0.2
    assert (second.status, second.method, second.reason, second.version) == ("ok", None, None, "0.34.12")
    assert count_received(sandbox, environment) == (1, 0)


def test_a_newer_version_than_the_target_is_ok_and_says_so(sandbox: Sandbox) -> None:
    environment = add_environment(sandbox, "0.35.0")

    outcome = update_one(sandbox, environment, "0.34.12")

    assert (outcome.status, outcome.reason) == ("ok", "0.35.0 is newer than 0.34.12")
    assert count_received(sandbox, environment) == (0, 0)


def test_a_device_gets_the_offered_version_which_may_be_newer_than_the_target(sandbox: Sandbox) -> None:
    sandbox.upgrade_to("0.35.1")

    assert update_one(sandbox, add_environment(sandbox), "0.34.12").version == "0.35.1"


def test_without_a_target_a_device_updates_to_the_offered_version(sandbox: Sandbox) -> None:
    sandbox.upgrade_to("0.34.12")
    environment = add_environment(sandbox)

    first = update_one(sandbox, environment, None)
    second = update_one(sandbox, environment, None)

    assert (first.status, first.reason) == ("changed", "updated from 0.33.9 to 0.34.12")
    assert (second.status, second.reason) == ("ok", "Already on latest version (0.34.12)")
    assert count_received(sandbox, environment) == (2, 0)


def test_a_device_without_a_new_enough_version_fails_with_its_own_message(sandbox: Sandbox) -> None:
    sandbox.upgrade_to("0.33.9")

    outcome = update_one(sandbox, add_environment(sandbox), "0.34.12")

    assert outcome.status == "failed"
    assert message_of(outcome) == (
        "the device is not offered version 0.34.12 or newer; it said: Already on latest version (0.33.9)"
    )


def test_a_device_that_cannot_update_fails_with_its_own_reason(sandbox: Sandbox) -> None:
    environment = add_environment(sandbox)
    sandbox.command(
        environment.id, "upgrade-letta-code", output="Failed: Update failed: EACCES\n\nTo ...", success=False
    )

    outcome = update_one(sandbox, environment)

    assert (outcome.status, outcome.output) == ("failed", "Failed: Update failed: EACCES\n\nTo ...")
    assert message_of(outcome) == "the device did not update; it said: Failed: Update failed: EACCES To ..."


def test_a_device_that_does_not_come_back_fails_with_its_last_state(sandbox: Sandbox) -> None:
    sandbox.upgrade_to("0.34.12", comes_back=False)

    outcome = update_one(sandbox, add_environment(sandbox), within=1)

    assert (outcome.status, outcome.version, outcome.connection_id) == ("failed", "0.33.9", None)
    message = message_of(outcome)
    assert message.startswith("not back on version 0.34.12 or newer within 1 s: it is offline (last seen at ")
    assert message.endswith(
        "), version 0.33.9, mode standard; the device said: Updated to 0.34.12. Restart Letta Code to use the new "
        "version. Restarting remote listener..."
    )


def test_a_device_that_comes_back_on_its_old_version_fails(sandbox: Sandbox) -> None:
    sandbox.upgrade_to("0.34.12", comes_back_at="0.33.9")

    outcome = update_one(sandbox, add_environment(sandbox), within=1.5)

    assert outcome.status == "failed"
    assert "within 1.5 s: it reconnected and is online, version 0.33.9, " in message_of(outcome)


def test_a_device_that_comes_back_on_another_version_that_is_too_old_fails_at_once(sandbox: Sandbox) -> None:
    sandbox.upgrade_to("0.34.12", comes_back_at="0.34.0")
    started = time.monotonic()

    outcome = update_one(sandbox, add_environment(sandbox), within=60)

    assert (outcome.status, outcome.version) == ("failed", "0.34.0")
    assert message_of(outcome).startswith(
        "not back on version 0.34.12 or newer: it reconnected and is online, version 0.34.0, "
    )
    assert time.monotonic() - started < 30


def test_a_device_that_says_that_it_is_back_on_its_old_version_fails_long_before_the_time_is_over(
    sandbox: Sandbox,
) -> None:
    sandbox.upgrade_to("0.34.12", comes_back_at="0.33.9")
    started = time.monotonic()

    outcome = update_one(sandbox, add_environment(sandbox), within=300)

    assert (outcome.status, outcome.version) == ("failed", "0.33.9")
    assert message_of(outcome).startswith(
        "not back on version 0.34.12 or newer: it reconnected and is online, version 0.33.9, "
    )
    assert time.monotonic() - started < 150


@pytest.mark.parametrize("answers", [True, False])
def test_a_device_that_only_reconnects_has_the_whole_time(sandbox: Sandbox, *, answers: bool) -> None:
    """Before its answer it may still be installing. After it, a new connection that is silent proves nothing."""
    environment = add_environment(sandbox)
    sandbox.command(environment.id, "upgrade-letta-code", output="Updated to 0.34.12.", seconds=0 if answers else 60)
    if not answers:
        sandbox.add_fault("relay_cut_after", target=environment.id)

    def reconnect() -> None:
        sandbox.rotate(environment.id)
        if answers:
            sandbox.add_fault("relay_silent", target=environment.id)

    outcome = update_one(
        sandbox, environment, within=8, meanwhile=once_told(sandbox, environment, reconnect), retries=0
    )

    assert outcome.status == ("failed" if answers else "unknown")
    assert "within 8 s: it reconnected and is online, version 0.33.9, " in message_of(outcome)


def test_an_older_version_is_no_update_without_a_target_either(sandbox: Sandbox) -> None:
    sandbox.upgrade_to("0.34.12", comes_back_at="0.33.0")

    outcome = update_one(sandbox, add_environment(sandbox), None, within=60)

    assert outcome.status == "failed"
    assert message_of(outcome).startswith("not back on a newer version: it reconnected and is online, version 0.33.0, ")


def test_a_device_that_comes_back_as_another_environment_fails_and_names_it(sandbox: Sandbox) -> None:
    sandbox.upgrade_to("0.34.12", comes_back=False)
    environment = add_environment(sandbox)
    new: list[str] = []

    def come_back() -> None:
        row = sandbox.add_environment(deviceId=environment.device_id, metadata={"lettaCodeVersion": "0.34.12"})
        new.append(row["id"])

    outcome = update_one(sandbox, environment, within=1, meanwhile=once_told(sandbox, environment, come_back))

    assert (outcome.status, outcome.id, outcome.version) == ("failed", environment.id, "0.33.9")
    assert f"; its device is there as another environment, {new[0]}: online, version 0.34.12, " in message_of(outcome)


def test_a_new_version_on_the_same_connection_proves_nothing(sandbox: Sandbox) -> None:
    sandbox.command((environment := add_environment(sandbox)).id, "upgrade-letta-code", output="Updated to 0.34.12.")
    register = once_told(
        sandbox, environment, lambda: sandbox.patch(environment.id, metadata={"lettaCodeVersion": "0.34.12"})
    )

    outcome = update_one(sandbox, environment, within=1, meanwhile=register)

    assert (outcome.status, outcome.version) == ("failed", "0.34.12")


# When it may be told


def end_turn(sandbox: Sandbox, agent_id: str) -> None:
    http_post(
        settings_for(sandbox), "v1", "conversations", "default", "cancel",
        body={}, params={"agent_id": agent_id}, repeatable=False,
    )  # fmt: skip


def end_turn_in(sandbox: Sandbox, conversation_id: str) -> None:
    http_post(settings_for(sandbox), "v1", "conversations", conversation_id, "cancel", body={}, repeatable=False)


def after_looks(sandbox: Sandbox, count: int, do: Callable[[], object]) -> Callable[[], None]:
    """Something to do when a device has been looked at over its relay so often."""

    def wait() -> None:
        until = time.monotonic() + 20
        while len(sandbox.requests("relay")) < count and time.monotonic() < until:
            time.sleep(0.01)
        do()

    return wait


def test_a_busy_device_is_told_once_its_turn_is_over_and_others_meanwhile(sandbox: Sandbox) -> None:
    sandbox.upgrade_to("0.34.12")
    busy, idle = add_environment(sandbox), add_environment(sandbox)
    begin_turn(sandbox, busy, "agent-1", LongTurn(seconds=3600))
    told: list[tuple[int, int]] = []

    def end() -> None:
        until = time.monotonic() + 20
        while count_received(sandbox, idle) == (0, 0) and time.monotonic() < until:
            time.sleep(0.01)
        told.append(count_received(sandbox, busy))
        end_turn(sandbox, "agent-1")

    outcomes = update_all(
        sandbox, [busy, idle], agent_id="agent-1", meanwhile=after_looks(sandbox, 5, end), policy={"concurrency": 1}
    )

    assert [(outcome.status, outcome.reason) for outcome in outcomes] == [
        ("changed", "updated from 0.33.9 to 0.34.12")
    ] * 2
    # The message that began its turn, and no command.
    assert told == [(0, 1)]
    assert count_received(sandbox, busy) == (1, 1)


def test_a_device_that_reports_nothing_is_not_told(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = add_environment(sandbox)
    for name in ("device_status", "loop_status"):
        monkeypatch.setattr(Relay, name, property(lambda _relay: {}, lambda _relay, _value: None), raising=False)

    outcome = update_one(sandbox, environment, agent_id="agent-1")

    assert (outcome.status, (outcome.error or {})["code"]) == ("failed", "unknown_work")
    assert "cannot be found out: the device does not say what is under way; " in message_of(outcome)
    assert count_received(sandbox, environment) == (0, 0)


@pytest.mark.parametrize("turn", [LongTurn(seconds=3600), ApprovalTurn()], ids=["works", "waits for approval"])
def test_a_busy_device_is_skipped_or_fails_when_its_time_is_over(sandbox: Sandbox, turn: Turn) -> None:
    environment = add_environment(sandbox)
    begin_turn(sandbox, environment, "agent-1", turn)
    told = {"agent_id": "agent-1"}

    skipped = update_one(sandbox, environment, when_busy="skip", **told)
    late = update_one(sandbox, environment, busy_within=0.2, **told)

    assert (skipped.status, skipped.reason) == ("skipped", "busy: a turn of agent-1")
    assert (late.status, (late.error or {})["code"]) == ("failed", "busy")
    assert message_of(late).startswith("not told to update, as it is still busy after ")
    assert message_of(late).endswith(": a turn of agent-1; when_busy=interrupt updates it all the same")
    assert count_received(sandbox, environment) == (0, 1)


def test_a_busy_conversation_is_looked_at_first_and_alone_until_its_work_has_ended(sandbox: Sandbox) -> None:
    environment = add_environment(sandbox)
    settings = settings_for(sandbox)
    ids = [
        http_post(settings, "v1", "conversations", "", params={"agent_id": "agent-1"}, body={}, repeatable=False).data[
            "id"
        ]
        for _number in range(3)
    ]
    begin_turn(sandbox, environment, "agent-1", LongTurn(seconds=3600), ids[0])
    recorded = [{"id": environment.id, "agent_id": "agent-1", "conversation_id": one} for one in ids]
    drain = Drain(recorded=recorded)

    async def look() -> str | None:
        async with Client(settings) as client:
            return await drain.find_work(client, Target("h", environment, "agent-1"), environment)

    found, asked = [], []
    for _number in range(2):
        sandbox.clear_requests()
        found.append(asyncio.run(look()))
        asked.append([entry["query"]["conversationId"] for entry in sandbox.requests("relay")])
    end_turn_in(sandbox, ids[0])
    sandbox.clear_requests()
    idle = asyncio.run(look())

    assert found == [f"a turn of agent-1 in {ids[0]}"] * 2
    # One that is open names the conversations as well.
    assert asked == [["default", ids[2], ids[1], ids[0]], [ids[0]]]
    assert idle is None
    assert len(sandbox.requests("relay")) == 5


@pytest.mark.parametrize("agent_id", ["agent-1", None], ids=["of the task", "of a campaign"])
@pytest.mark.parametrize("kind", ["standing", "recorded", "named by the device"])
def test_a_device_that_is_busy_in_any_of_its_conversations_is_not_told(
    sandbox: Sandbox, kind: str, agent_id: str | None
) -> None:
    busy, other = add_environment(sandbox), add_environment(sandbox)
    summary = {"summary": write_summary(busy.id)} if kind == "standing" else {}
    made = http_post(
        settings_for(sandbox), "v1", "conversations", "", params={"agent_id": "agent-1"}, body=summary, repeatable=False
    )
    conversation_id = made.data["id"]
    if kind == "named by the device":
        sandbox.patch(busy.id, metadata={"cwd_map": {f"conversation:{conversation_id}": "/work"}})
    begin_turn(sandbox, busy, "agent-1", LongTurn(seconds=3600), conversation_id)
    sandbox.upgrade_to("0.34.12")
    row = {"agent_id": "agent-1", "conversation_id": conversation_id if kind == "recorded" else None}

    outcomes = update_all(
        sandbox, [busy, other], agent_id=agent_id, when_busy="skip", recorded=[{"id": busy.id, **row}]
    )

    assert [outcome.status for outcome in outcomes] == ["skipped", "changed"]
    assert outcomes[0].reason == f"busy: a turn of agent-1 in {conversation_id}"
    assert count_received(sandbox, busy) == (0, 1)


def test_a_device_whose_conversations_cannot_be_listed_is_not_told(sandbox: Sandbox) -> None:
    environment = add_environment(sandbox)
    sandbox.add_fault("status", route="conversation_list", status=401)

    outcome = update_one(sandbox, environment, agent_id="agent-1")

    assert outcome.status == "failed"
    assert message_of(outcome).startswith("what is under way on it cannot be found out: the conversations of agent-1 ")
    assert count_received(sandbox, environment) == (0, 0)


def test_a_busy_device_is_interrupted_if_that_is_wanted(sandbox: Sandbox) -> None:
    sandbox.upgrade_to("0.34.12")
    environment = add_environment(sandbox)
    begin_turn(sandbox, environment, "agent-1", LongTurn(seconds=3600))

    outcome = update_one(sandbox, environment, when_busy="interrupt", agent_id="agent-1")

    assert outcome.status == "changed"


def test_a_device_that_cannot_be_looked_at_is_not_told(sandbox: Sandbox) -> None:
    environment = add_environment(sandbox, said={**NPM, "writable": False})
    sandbox.add_fault("relay_close", target=environment.id)

    outcome = update_one(sandbox, environment, agent_id="agent-1", retries=0)

    assert outcome.status == "failed"
    assert message_of(outcome).startswith("what is under way on it cannot be found out: ")
    assert message_of(outcome).endswith("; when_busy=interrupt updates it all the same")
    assert count_received(sandbox, environment) == (0, 0)


def test_a_stop_leaves_a_device_that_is_waited_for_untold(sandbox: Sandbox) -> None:
    environment, stop = add_environment(sandbox), Stop()
    begin_turn(sandbox, environment, "agent-1", LongTurn(seconds=3600))

    outcome = update_one(
        sandbox, environment, agent_id="agent-1", policy={"stop": stop},
        meanwhile=after_looks(sandbox, 2, lambda: stop.finish("a signal came")),
    )  # fmt: skip

    assert (outcome.status, outcome.reason) == ("not_attempted", "busy: a turn of agent-1")
    assert count_received(sandbox, environment) == (0, 1)


def test_environments_of_one_device_are_updated_one_after_the_other(sandbox: Sandbox) -> None:
    sandbox.upgrade_to("0.34.12", seconds=0.5)
    pair = [add_environment(sandbox, deviceId="device-pair") for _number in range(2)]
    other = add_environment(sandbox)
    under_way: list[int] = []

    def watch() -> None:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            told = [count_received(sandbox, environment)[0] for environment in pair]
            rows = {entry["id"]: entry["row"] for entry in sandbox.fleet()}
            versions = [rows[environment.id]["metadata"]["lettaCodeVersion"] for environment in pair]
            under_way.append(sum(told) - versions.count("0.34.12"))
            if versions == ["0.34.12"] * 2:
                return

    outcomes = update_all(sandbox, [*pair, other], meanwhile=watch)

    assert [outcome.status for outcome in outcomes] == ["changed"] * 3
    assert max(under_way) == 1


def test_a_device_that_may_still_be_installing_is_not_told_as_another_environment(sandbox: Sandbox) -> None:
    sandbox.upgrade_to("0.34.12", comes_back=False)
    first, second = (add_environment(sandbox, deviceId="device-pair") for _number in range(2))

    outcomes = update_all(sandbox, [first, second], within=1, policy={"max_failures": 2})

    assert [outcome.status for outcome in outcomes] == ["failed", "failed"]
    assert message_of(outcomes[1]) == (f"its device was told to update as {first.id}, and may still be installing")
    assert [count_received(sandbox, environment) for environment in (first, second)] == [(1, 0), (0, 0)]


def test_a_device_in_doubt_is_not_told_as_another_environment_in_a_later_wave(sandbox: Sandbox) -> None:
    sandbox.upgrade_to("0.34.12", comes_back=False)
    first, second = (add_environment(sandbox, deviceId="device-pair") for _number in range(2))
    drain = Drain()

    [told] = update_all(sandbox, [first], within=1, drain=drain)
    [later] = update_all(sandbox, [second], within=1, drain=drain)

    assert (told.status, later.status) == ("failed", "failed")
    assert message_of(later) == f"its device was told to update as {first.id}, and may still be installing"
    assert count_received(sandbox, second) == (0, 0)


# Lost answers


@pytest.mark.parametrize("fault", ["relay_cut_after", "relay_cut_during"])
def test_an_update_whose_answer_was_lost_is_changed_when_the_device_is_back(sandbox: Sandbox, fault: str) -> None:
    sandbox.upgrade_to("0.34.12", seconds=0.5)
    environment = add_environment(sandbox)
    sandbox.add_fault(fault, target=environment.id)

    outcome = update_one(sandbox, environment, agent_id="agent-1")

    assert (outcome.status, outcome.method, outcome.output) == ("changed", "command", None)
    assert count_received(sandbox, environment) == (1, 0)


@pytest.mark.parametrize(("fault", "comes_back"), [("relay_cut_before", True), ("relay_cut_after", False)])
def test_an_unclear_update_that_is_not_proven_is_unknown_and_no_other_method_is_tried(
    sandbox: Sandbox, fault: str, comes_back: bool
) -> None:
    sandbox.upgrade_to("0.34.12", comes_back=comes_back)
    environment = add_environment(sandbox)
    sandbox.add_fault(fault, target=environment.id)

    outcome = update_one(sandbox, environment, within=1, agent_id="agent-1")

    assert outcome.status == "unknown"
    message = message_of(outcome)
    assert "no answer to execute_command" in message
    assert message.endswith("; the update may be under way")
    assert count_received(sandbox, environment)[1] == 0


def test_an_old_device_that_never_answers_is_changed_when_it_is_back(sandbox: Sandbox) -> None:
    sandbox.upgrade_to("0.34.12")

    outcome = update_one(sandbox, add_environment(sandbox, "0.29.0"))

    assert (outcome.status, outcome.output) == ("changed", None)


@pytest.mark.parametrize("fault", ["relay_close", "relay_silent"])
def test_a_relay_that_fails_before_anything_was_sent_is_a_failure(sandbox: Sandbox, fault: str) -> None:
    environment = add_environment(sandbox)
    sandbox.add_fault(fault, target=environment.id)

    outcome = update_one(sandbox, environment, retries=0, timeout=1, agent_id="agent-1")

    assert outcome.status == "failed"
    assert count_received(sandbox, environment) == (0, 0)


def test_look_ups_that_fail_briefly_lose_nothing(sandbox: Sandbox) -> None:
    sandbox.upgrade_to("0.34.12")
    sandbox.add_fault("status", route="retrieve", status=503, nth=[2, 3])

    assert update_one(sandbox, add_environment(sandbox), retries=0).status == "changed"


@pytest.mark.parametrize("status", [401, 503])
def test_an_update_that_can_no_longer_be_looked_up_is_unknown(sandbox: Sandbox, status: int) -> None:
    sandbox.upgrade_to("0.34.12")
    sandbox.add_fault("status", route="retrieve", status=status, nth=list(range(2, 50)))

    outcome = update_one(sandbox, add_environment(sandbox), within=1, retries=0)

    assert outcome.status == "unknown"
    assert message_of(outcome).startswith("the device said: Updated to 0.34.12.")
    assert str(status) in message_of(outcome)


# By message


def test_without_the_command_the_agent_is_instructed_and_the_device_is_changed_when_it_is_back(
    sandbox: Sandbox,
) -> None:
    environment = add_environment(sandbox, said={**NPM, "writable": False, "reason": "Needs write access."})
    restart = once_told(sandbox, environment, restarts_on(sandbox, environment, "0.34.12"))

    outcome = update_one(sandbox, environment, agent_id="agent-1", meanwhile=restart)

    assert (outcome.status, outcome.method, outcome.agent_id) == ("changed", "message", "agent-1")
    [message] = sandbox.received()[environment.id]["messages"]
    assert NPM["manual_command"] in message["content"].splitlines()
    assert (message["agentId"], message["client_message_id"]) == ("agent-1", outcome.client_message_id)
    assert count_received(sandbox, environment) == (0, 1)


def test_a_message_without_effect_fails_and_says_that_it_was_delivered(sandbox: Sandbox) -> None:
    environment = add_environment(sandbox)

    outcome = update_one(sandbox, environment, method="message", within=1, agent_id="agent-1")

    assert (outcome.status, outcome.method) == ("failed", "message")
    assert message_of(outcome).endswith("version 0.33.9, mode standard; the message was delivered")
    assert count_received(sandbox, environment) == (0, 1)


def test_an_unclear_message_is_changed_when_the_device_is_back_and_unknown_otherwise(sandbox: Sandbox) -> None:
    one, two = add_environment(sandbox), add_environment(sandbox)
    sandbox.add_fault("drop_after", route="messages", per_target=True)
    restart = once_told(sandbox, one, restarts_on(sandbox, one, "0.34.12"))

    outcomes = update_all(
        sandbox, [one, two], method="message", within=3, agent_id="agent-1", meanwhile=restart, retries=1
    )

    assert [outcome.status for outcome in outcomes] == ["changed", "unknown"]
    assert message_of(outcomes[1]).endswith("; the message may have been delivered")
    assert count_received(sandbox, two) == (0, 1)


@pytest.mark.parametrize("command", [PIP["manual_command"], "npm install -g @letta-ai/letta-code; reboot"])
def test_an_agent_gets_only_commands_of_an_installer(sandbox: Sandbox, command: str) -> None:
    environment = add_environment(sandbox, said={**PIP, "manual_command": command})

    outcome = update_one(sandbox, environment, agent_id="agent-1")

    assert (outcome.status, outcome.method, outcome.error) == ("skipped", None, None)
    assert outcome.reason == (
        f"not updatable: {PIP['reason']}; manual_command is no installer's command known here "
        f"(see allow_any_manual_command): {command}"
    )
    assert count_received(sandbox, environment) == (0, 0)


def test_any_manual_command_is_sent_when_that_is_allowed(sandbox: Sandbox) -> None:
    environment = add_environment(sandbox, said=PIP)

    outcome = update_one(sandbox, environment, within=0.5, agent_id="agent-1", any_manual_command=True)

    assert (outcome.status, outcome.method) == ("failed", "message")
    [message] = sandbox.received()[environment.id]["messages"]
    assert PIP["manual_command"] in message["content"]


def test_a_device_without_a_manual_command_is_skipped(sandbox: Sandbox) -> None:
    outcome = update_one(sandbox, add_environment(sandbox, said={}), agent_id="agent-1", any_manual_command=True)

    assert outcome.status == "skipped"
    assert outcome.reason == "not updatable: reports no self_update support; reports no manual_command"


# When neither is possible


@pytest.mark.parametrize(
    ("said", "method", "code", "said_of_it"),
    [
        (PIP, "auto", "no_method", f"not updatable: {PIP['reason']}; there is no agent_id to send a message to; to "),
        (PIP, "command", "not_updatable", f"not updatable: {PIP['reason']}"),
        ({}, "auto", "no_method", "not updatable: reports no self_update support; there is no agent_id "),
        (NPM, "message", "no_method", "there is no agent_id to send a message to; to update by hand: "),
    ],
)
def test_a_device_without_a_method_fails_with_the_reason(
    sandbox: Sandbox, said: Any, method: str, code: str, said_of_it: str
) -> None:
    environment = add_environment(sandbox, said=said)

    outcome = update_one(sandbox, environment, method=method)

    assert outcome.status == "failed"
    assert outcome.error is not None
    assert outcome.error["code"] == code
    assert message_of(outcome).startswith(said_of_it)
    if code == "no_method":
        assert message_of(outcome).endswith(f"by hand: {said.get('manual_command', 'the device does not say how')}")
    assert count_received(sandbox, environment) == (0, 0)


def test_a_device_that_does_not_list_the_command_is_not_asked_to_run_it(sandbox: Sandbox) -> None:
    environment = add_environment(sandbox)
    sandbox.patch(environment.id, metadata={"supported_commands": ["reload"]})

    outcome = update_one(sandbox, environment, method="command")

    assert message_of(outcome) == "the device does not list upgrade-letta-code in its supported_commands"
    assert count_received(sandbox, environment) == (0, 0)


@pytest.mark.parametrize(
    ("version", "problem"),
    [
        ("dev", "reports 'dev' as its version, which cannot be compared with 0.34.12"),
        (None, "reports no version that can be compared with 0.34.12"),
        (17, "reports no version that can be compared with 0.34.12"),
    ],
)
def test_a_version_that_cannot_be_compared_fails_before_anything_is_sent(
    sandbox: Sandbox, version: Any, problem: str
) -> None:
    environment = add_environment(sandbox, version)

    outcome = update_one(sandbox, environment, "0.34.12")

    assert outcome.status == "failed"
    assert message_of(outcome) == f"target_version: the device {problem}"
    assert count_received(sandbox, environment) == (0, 0)


def test_without_a_target_a_version_that_cannot_be_compared_may_be_updated(sandbox: Sandbox) -> None:
    sandbox.upgrade_to("0.34.12")

    assert update_one(sandbox, add_environment(sandbox, "dev"), None).status == "changed"


def test_an_offline_device_is_offline_unless_it_is_waited_for(sandbox: Sandbox) -> None:
    sandbox.upgrade_to("0.34.12")
    environment = add_environment(sandbox)
    sandbox.offline(environment.id)

    def come_online() -> None:
        while not sandbox.requests("retrieve"):
            time.sleep(0.01)
        sandbox.online(environment.id)

    skipped = update_one(sandbox, environment)
    sandbox.clear_requests()
    waited = update_one(
        sandbox, environment, meanwhile=come_online, policy={"when_offline": "wait", "offline_timeout": 20.0}
    )

    assert (skipped.status, message_of(skipped)) == ("offline", "the environment is offline")
    assert (waited.status, waited.error) == ("changed", None)


def test_a_device_that_does_not_come_back_counts_before_the_next_device_is_updated(sandbox: Sandbox) -> None:
    sandbox.upgrade_to("0.34.12", comes_back=False)
    environments = [add_environment(sandbox) for _number in range(3)]

    outcomes = update_all(sandbox, environments, within=0.5, policy={"concurrency": 1})

    assert [outcome.status for outcome in outcomes] == ["failed", "not_attempted", "not_attempted"]
    assert [count_received(sandbox, environment) for environment in environments] == [(1, 0), (0, 0), (0, 0)]


def test_a_slow_device_delays_no_other_device(sandbox: Sandbox) -> None:
    slow, *others = [add_environment(sandbox) for _number in range(4)]
    sandbox.command(slow.id, "upgrade-letta-code", output="Already on latest version", seconds=2)
    sandbox.upgrade_to("0.34.12", seconds=0)

    outcomes = update_all(sandbox, [slow, *others], None, policy={"concurrency": 2})

    assert [outcome.status for outcome in outcomes] == ["ok", "changed", "changed", "changed"]


def test_check_mode_shows_the_update_and_sends_nothing(sandbox: Sandbox) -> None:
    able, unable, prose, current = (
        add_environment(sandbox),
        add_environment(sandbox, said={**NPM, "writable": False}),
        add_environment(sandbox, said=PIP),
        add_environment(sandbox, "0.34.12"),
    )

    outcomes = update_all(sandbox, [able, unable, prose, current], agent_id="agent-1", check_mode=True)

    assert [(outcome.status, outcome.method, outcome.reason) for outcome in outcomes[:2]] == [
        ("changed", "command", "would run upgrade-letta-code"),
        ("changed", "message", f"would have agent-1 do this: {NPM['manual_command']}"),
    ]
    assert [outcome.status for outcome in outcomes[2:]] == ["skipped", "ok"]
    assert sandbox.received() == {}
    assert sandbox.requests("relay") == []


# In a rollout


def find(ledger: Ledger, name: str) -> Rollout:
    rollout = find_rollout(ledger, name)
    assert rollout is not None
    return rollout


def test_a_device_that_restarts_when_its_rollout_goes_on_has_its_time_to_come_back(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    environment = add_environment(sandbox)
    sandbox.offline(environment.id)
    told = RolloutTarget(host="d", environment_id=environment.id, preflight="updatable", told_at=format_now())

    def come_back() -> None:
        time.sleep(0.5)
        restarts_on(sandbox, environment, "0.34.12")()

    with open_ledger(tmp_path / "ledger.sqlite", RunFacts("somebody")) as ledger:
        rollout = plan_rollout("r", "0.34.12", ["100%"], [told], format_now())
        add_rollout(ledger, rollout)
        progress = RolloutUpdates(ledger, rollout, {})
        # An offline device is not waited for otherwise.
        outcome = update_one(sandbox, environment, progress=progress, meanwhile=come_back)

    assert (outcome.status, outcome.version) == ("changed", "0.34.12")
    assert str(outcome.reason).startswith("an earlier run told it to update itself")
    assert count_received(sandbox, environment) == (0, 0)


def test_a_device_that_has_installed_and_is_back_on_its_old_version_is_told_again_long_before_its_time_is_over(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.upgrade_to("0.34.12")
    environment = add_environment(sandbox)
    target = RolloutTarget(host="d", environment_id=environment.id, preflight="updatable")
    started = time.monotonic()

    with open_ledger(tmp_path / "ledger.sqlite", RunFacts("somebody")) as ledger:
        add_rollout(ledger, plan_rollout("r", "0.34.12", ["100%"], [target], format_now()))
        # The earlier run was killed when it had heard the device's answer.
        before = RolloutUpdates(ledger, find(ledger, "r"), {})
        before.tell(environment.id)
        before.tell(environment.id, "0.34.12")
        progress = RolloutUpdates(ledger, find(ledger, "r"), {})
        outcome = update_one(sandbox, environment, progress=progress, within=300)

    assert (outcome.status, outcome.version) == ("changed", "0.34.12")
    assert time.monotonic() - started < 150
    assert count_received(sandbox, environment) == (1, 0)


def test_only_what_may_be_installing_holds_back_the_other_environments_of_its_device(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    told, other = (add_environment(sandbox, deviceId="device-pair") for _number in range(2))
    alone = add_environment(sandbox)
    targets = [RolloutTarget(host=one.id, environment_id=one.id, preflight="updatable") for one in (told, other, alone)]
    devices = {told.id: "device-pair", other.id: "device-pair"}

    with open_ledger(tmp_path / "ledger.sqlite", RunFacts("somebody")) as ledger:
        add_rollout(ledger, plan_rollout("r", "0.34.12", ["100%"], targets, format_now()))
        RolloutUpdates(ledger, find(ledger, "r"), devices).tell(told.id)
        updates = RolloutUpdates(ledger, find(ledger, "r"), devices)
        held = [updates.find_told(one) for one in (told, other, alone)]
        updates.tell(told.id, "0.34.12")
        installed = [RolloutUpdates(ledger, find(ledger, "r"), devices).find_told(one) for one in (told, other)]
        updates.done(told.id, "0.34.12", format_now())
        done = [updates.find_told(one) for one in (told, other)]

    assert held[0] is not None
    assert held == [held[0], held[0], None]
    assert installed[0] is not None
    assert (installed[0][1], installed[1]) == (True, None)
    assert done == [None, None]


def test_a_device_is_not_updated_if_that_cannot_be_recorded(sandbox: Sandbox, tmp_path: Path) -> None:
    environment = add_environment(sandbox)
    target = RolloutTarget(host="d", environment_id=environment.id, preflight="updatable")
    with open_ledger(tmp_path / "ledger.sqlite", RunFacts("somebody")) as ledger:
        rollout = plan_rollout("r", "0.34.12", ["100%"], [target], format_now())
        add_rollout(ledger, rollout)
        progress = RolloutUpdates(ledger, rollout, {})
        ledger.change("DROP TABLE rollout_targets")
        outcome = update_one(sandbox, environment, progress=progress)

    assert outcome.status == "failed"
    assert message_of(outcome).startswith("ledger: ")
    assert count_received(sandbox, environment) == (0, 0)
