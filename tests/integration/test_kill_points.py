"""A run of a campaign that dies at any await of the send path: the next one completes it, each agent has one turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.campaigns.plan import make_message_id
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.delivery import MessageTarget
from ansible_collections.fleetops.environments.plugins.module_utils.http import retry as retries
from ansible_collections.fleetops.environments.plugins.module_utils.providers.message import parse_messages
from tests.sandbox.process import Sandbox
from tests.unit.support import environment_of

from .kill_points import begin_run, each_step, entries, run_forked


@pytest.fixture
def targets(sandbox: Sandbox) -> list[MessageTarget]:
    """Two environments as listed now, with one agent each."""
    environments = [environment_of(sandbox.add_environment(), sandbox.url) for _number in range(2)]
    messages = parse_messages("messages", [{"content": "hello"}])
    return [MessageTarget(found.id, found, f"agent-{found.id}", messages=messages) for found in environments]


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow another attempt for failed deliveries at once."""
    monkeypatch.setattr(retries, "_FIRST_PAUSE", 0.0)


def restart(sandbox: Sandbox, targets: Sequence[MessageTarget]) -> None:
    """Let the devices come back on other connections, without a record of the messages they received."""
    for target in targets:
        sandbox.rotate(target.environment.id, restart=True)


def had(sandbox: Sandbox, targets: Sequence[MessageTarget]) -> list[Counter[str]]:
    """How often the agent of each target received each message; each time was one turn."""
    received = sandbox.received()
    counted = []
    for target in targets:
        of_one = received.get(target.environment.id, {"messages": [], "turns": 0})
        counted.append(Counter(message["client_message_id"] for message in of_one["messages"]))
        assert counted[-1].total() == of_one["turns"]
    return counted


def in_conversations(targets: Sequence[MessageTarget], conversation_id: str | None) -> list[MessageTarget]:
    """The targets, with a conversation that becomes an id when the message is sent."""
    return [replace(target, conversation_id=conversation_id) for target in targets]


def made(sandbox: Sandbox, targets: Sequence[MessageTarget]) -> int:
    """How many conversations the targets' agents have besides their default ones."""
    return sum(len(sandbox.conversations(str(target.agent_id))) for target in targets)


def stale(sandbox: Sandbox, targets: list[MessageTarget]) -> list[MessageTarget]:
    """The devices have registered again after they were listed."""
    restart(sandbox, targets)
    return targets


def listed_as_offline(sandbox: Sandbox, targets: list[MessageTarget]) -> list[MessageTarget]:
    """The devices have come online after they were listed."""
    del sandbox
    return [
        replace(target, environment=replace(target.environment, status="offline", connection_id=None))
        for target in targets
    ]


def unclear(sandbox: Sandbox, targets: list[MessageTarget]) -> list[MessageTarget]:
    """The first message that reaches a device gets no answer."""
    sandbox.clear_faults()
    for target in targets:
        sandbox.add_fault("drop_after", route="messages", target=target.environment.id, nth=1)
    return targets


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize(
    ("listed", "conversation_id"),
    [(stale, None), (listed_as_offline, None), (unclear, None), (stale, "standing"), (unclear, "new")],
)
def test_a_run_that_is_killed_at_any_await_is_completed_by_the_next(
    sandbox: Sandbox,
    tmp_path: Path,
    targets: list[MessageTarget],
    listed: Callable[[Sandbox, list[MessageTarget]], list[MessageTarget]],
    conversation_id: str | None,
) -> None:
    """It dies twice, and the devices restart each time, so the next run lists other connections."""
    targets = in_conversations(targets, conversation_id)

    def kill(ledger: Path, step: int) -> dict[str, Any] | None:
        sandbox.clear_received()
        first = run_forked(sandbox, ledger, listed(sandbox, targets), step)
        restart(sandbox, targets)
        if first is None:
            run_forked(sandbox, ledger, targets, step)
            restart(sandbox, targets)
        return first

    def complete(ledger: Path) -> None:
        done = run_forked(sandbox, ledger, targets)
        assert set(done["statuses"]) <= {"sent", "already_sent"}
        ids = [make_message_id(ledger.stem, target.environment.id, 1) for target in targets]
        assert had(sandbox, targets) == [{own: 1} for own in ids]
        # A standing conversation serves all campaigns, a new one serves one message.
        campaigns = len(list(tmp_path.glob("*.sqlite")))
        assert made(sandbox, targets) == {"standing": 2, "new": 2 * campaigns}.get(str(conversation_id), 0)

    each_step(tmp_path, kill, complete)


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("conversation_id", ["standing", "new"])
def test_a_run_that_is_killed_at_any_await_is_completed_without_its_ledger(
    sandbox: Sandbox, tmp_path: Path, targets: list[MessageTarget], conversation_id: str
) -> None:
    targets = in_conversations(targets, conversation_id)

    def kill(ledger: Path, step: int) -> dict[str, Any] | None:
        sandbox.clear_received()
        first = run_forked(sandbox, ledger, stale(sandbox, targets), step)
        restart(sandbox, targets)
        for file in tmp_path.glob(f"{ledger.name}*"):
            file.unlink()
        return first

    def complete(ledger: Path) -> None:
        done = run_forked(sandbox, ledger, targets)
        assert set(done["statuses"]) <= {"sent", "already_sent"}
        ids = [make_message_id(ledger.stem, target.environment.id, 1) for target in targets]
        assert had(sandbox, targets) == [{own: 1} for own in ids]

    each_step(tmp_path, kill, complete)


def test_a_campaign_that_began_in_default_conversations_goes_on_in_standing_ones(
    sandbox: Sandbox, tmp_path: Path, targets: list[MessageTarget]
) -> None:
    """The version before knew no other conversations. What it may have sent stays where it sent it."""

    def kill(ledger: Path, step: int) -> dict[str, Any] | None:
        sandbox.clear_received()
        for target in targets:
            # Its device keeps the record of the messages that it received.
            sandbox.rotate(target.environment.id)
        return run_forked(sandbox, ledger, targets, step)

    def complete(ledger: Path) -> None:
        for _number in range(2):
            done = run_forked(sandbox, ledger, in_conversations(targets, "standing"))
            assert set(done["statuses"]) <= {"sent", "already_sent"}
        ids = [make_message_id(ledger.stem, target.environment.id, 1) for target in targets]
        assert had(sandbox, targets) == [{own: 1} for own in ids]

    each_step(tmp_path, kill, complete)


@pytest.mark.parametrize("conversation_id", ["standing", "new"])
def test_runs_at_the_same_time_deliver_once_in_one_conversation_each(
    sandbox: Sandbox, tmp_path: Path, targets: list[MessageTarget], conversation_id: str
) -> None:
    targets, ledger = in_conversations(targets, conversation_id), tmp_path / "c.sqlite"
    sandbox.add_fault("slow", route="conversations", seconds=0.3)

    ends = [begin_run(sandbox, ledger, order) for order in (targets, targets[::-1], targets)]
    statuses = [status for end in ends for status in end()["statuses"]]

    assert statuses.count("sent") == 2
    assert {*statuses} <= {"sent", "already_sent", "not_attempted"}
    assert [sum(turns.values()) for turns in had(sandbox, targets)] == [1, 1]
    assert made(sandbox, targets) == 2


def test_a_repeat_that_is_killed_at_any_await_makes_each_attempt_once(
    sandbox: Sandbox, tmp_path: Path, targets: list[MessageTarget]
) -> None:
    """Sending to all again continues an incomplete repeat; after a complete one it begins another."""

    def kill(ledger: Path, step: int) -> dict[str, Any] | None:
        sandbox.clear_received()
        run_forked(sandbox, ledger, targets)
        restart(sandbox, targets)
        repeated = run_forked(sandbox, ledger, targets, step, retry="all")
        restart(sandbox, targets)
        return repeated

    def go_on(ledger: Path) -> None:
        known = entries(ledger)
        done = run_forked(sandbox, ledger, targets, retry="all")
        assert set(done["statuses"]) <= {"sent", "already_sent"}
        complete = all((entry.attempt, entry.status) == (2, "sent") for entry in known.values())
        last = 3 if complete else 2
        assert {entry.attempt for entry in entries(ledger).values()} == {last}
        for target, turns in zip(targets, had(sandbox, targets), strict=True):
            assert turns == {make_message_id(ledger.stem, target.environment.id, nth): 1 for nth in range(1, last + 1)}

    each_step(tmp_path, kill, go_on)
