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
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta import client as letta
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


def lose(ledger: Path) -> None:
    for file in ledger.parent.glob(f"{ledger.name}*"):
        file.unlink()


def had_once(sandbox: Sandbox, ledger: Path, targets: list[MessageTarget]) -> bool:
    return had(sandbox, targets) == [{make_message_id(ledger.stem, one.environment.id, 1): 1} for one in targets]


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize(
    ("before", "now"),
    [("standing", "standing"), ("new", "new"), ("new", "default"), ("standing or default", "standing")],
)
def test_a_run_that_is_killed_at_any_await_is_completed_without_its_ledger(
    sandbox: Sandbox, tmp_path: Path, targets: list[MessageTarget], before: str, now: str
) -> None:
    def kill(ledger: Path, step: int) -> dict[str, Any] | None:
        sandbox.clear_received()
        first = run_forked(sandbox, ledger, stale(sandbox, in_conversations(targets, before)), step)
        restart(sandbox, targets)
        lose(ledger)
        return first

    def complete(ledger: Path) -> None:
        done = run_forked(sandbox, ledger, in_conversations(targets, now))
        assert set(done["statuses"]) <= {"sent", "already_sent"}
        assert had_once(sandbox, ledger, targets)

    each_step(tmp_path, kill, complete)


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize(("before", "now"), [("standing", "default"), ("default", "standing"), ("new", "conv-0")])
def test_what_was_sent_before_the_ledger_was_lost_is_found_although_a_look_up_is_killed_at_any_await(
    sandbox: Sandbox, tmp_path: Path, targets: list[MessageTarget], before: str, now: str
) -> None:
    """The run that is killed has claimed the messages in conversations that do not have them."""

    def kill(ledger: Path, step: int) -> dict[str, Any] | None:
        sandbox.clear_received()
        run_forked(sandbox, ledger, in_conversations(targets, before))
        restart(sandbox, targets)
        lose(ledger)
        return run_forked(sandbox, ledger, in_conversations(targets, now), step)

    def complete(ledger: Path) -> None:
        done = run_forked(sandbox, ledger, in_conversations(targets, now))
        assert done["statuses"] == ["already_sent"] * 2
        assert had_once(sandbox, ledger, targets)

    each_step(tmp_path, kill, complete)


KINDS = [None, "default", "standing", "new", "standing or default"]


@pytest.mark.parametrize("now", [*KINDS, "conv-0"])
@pytest.mark.parametrize("before", KINDS)
def test_without_its_ledger_a_message_is_found_in_the_conversation_in_which_it_was_sent(
    sandbox: Sandbox, tmp_path: Path, targets: list[MessageTarget], before: str | None, now: str | None
) -> None:
    """Whatever the conversation of either run is, and although a user has archived those that were made."""
    for is_searched in (True, False):
        sandbox.settings(searches=is_searched)
        sandbox.clear_received()
        ledger = tmp_path / f"{is_searched}.sqlite"
        run_forked(sandbox, ledger, in_conversations(targets, before))
        restart(sandbox, targets)
        lose(ledger)
        for made_one in sandbox.conversations(str(targets[0].agent_id)):
            sandbox.archive(made_one["id"])

        done = run_forked(sandbox, ledger, in_conversations(targets, now))
        again = run_forked(sandbox, ledger, in_conversations(targets, now))

        assert (done["statuses"], again["statuses"]) == (["already_sent"] * 2, ["already_sent"] * 2)
        assert had_once(sandbox, ledger, targets)


@pytest.mark.parametrize("now", ["default", "standing", "standing or default"])
def test_what_cannot_be_looked_up_everywhere_is_not_sent(
    sandbox: Sandbox, tmp_path: Path, targets: list[MessageTarget], now: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent has more conversations than are listed, and the API does not search."""
    ledger, targets = tmp_path / "c.sqlite", targets[:1]
    headers, query = {"Authorization": f"Bearer {sandbox.api_key}"}, {"agent_id": str(targets[0].agent_id)}
    sandbox.control.post("/v1/conversations/", headers=headers, params=query, json={"summary": "weekly check"})
    run_forked(sandbox, ledger, in_conversations(targets, "standing"))
    restart(sandbox, targets)
    lose(ledger)
    sandbox.settings(searches=False)
    for name, value in (("_PAGE_SIZE", 1), ("_LEAST_PAGE_SIZE", 1), ("_MOST_PAGES", 1)):
        monkeypatch.setattr(letta, name, value)

    tries = [run_forked(sandbox, ledger, in_conversations(targets, now)) for _number in range(2)]
    assert [one["statuses"] for one in tries] == [["unknown"]] * 2
    monkeypatch.undo()
    assert run_forked(sandbox, ledger, in_conversations(targets, now))["statuses"] == ["already_sent"]
    assert had_once(sandbox, ledger, targets)


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
