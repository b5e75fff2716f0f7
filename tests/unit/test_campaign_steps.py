"""The steps of a delivery in a campaign: what each one asks, and what it writes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.campaigns.campaign import Campaign
from ansible_collections.fleetops.environments.plugins.module_utils.campaigns.plan import plan_campaign
from ansible_collections.fleetops.environments.plugins.module_utils.errors import ApiError
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.delivery import Delivery, MessageTarget
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.deliveries import Deliveries
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.schema import Entry, RunFacts
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.store import open_ledger
from ansible_collections.fleetops.environments.plugins.module_utils.providers.conversation import Place, Question
from ansible_collections.fleetops.environments.plugins.module_utils.providers.message import Message

from .support import environment_of, row


@pytest.fixture
def deliveries(tmp_path: Path) -> Iterator[Deliveries]:
    with open_ledger(tmp_path / "ledger.sqlite", RunFacts("tester")) as ledger:
        yield Deliveries(ledger)


class Steps:
    """One target of a campaign that has claimed its message. found: what its conversation has of the message."""

    def __init__(self, deliveries: Deliveries, conversation_id: str | None = None, found: str | None = None) -> None:
        self.asked: list[Question] = []
        self.error: ApiError | None = None
        self._deliveries, self._found = deliveries, found
        environment = environment_of(row(id="e"))
        given = MessageTarget("alpha", environment, "agent-1", conversation_id, messages=[Message.from_user("hello")])
        plan = plan_campaign(deliveries, "c", "undelivered", [given])
        [self.target] = plan.targets
        self.delivery = Delivery.of(self.target)
        self.campaign = Campaign("c", deliveries, plan, self._look_up)
        assert asyncio.run(self.campaign.claim(self.target, self.delivery))

    async def _look_up(self, question: Question, fresh: bool) -> str | None:
        self.asked.append(question)
        if self.error is not None:
            raise self.error
        return self._found

    @property
    def entry(self) -> Entry:
        found = self._deliveries.entry("c", "e")
        assert found is not None
        return found

    def find_earlier(self) -> str | None:
        place = Place(self.delivery.conversation_id)
        return asyncio.run(self.campaign.find_earlier(self.target, self.delivery, place))


@pytest.mark.parametrize("found", [None, "", "message-1"])
def test_looking_for_an_earlier_delivery_changes_nothing(deliveries: Deliveries, found: str | None) -> None:
    steps = Steps(deliveries, "conv-1", found)
    entry, delivery = steps.entry, replace(steps.delivery)

    assert steps.find_earlier() == found

    assert [question.conversation_id for question in steps.asked] == ["conv-1"]
    assert (steps.entry, steps.delivery) == (entry, delivery)


def test_a_look_up_that_fails_leaves_the_delivery_in_doubt(deliveries: Deliveries) -> None:
    steps = Steps(deliveries)
    steps.error = ApiError("HTTP 503", code="http_503", status=503, transient=True)

    with pytest.raises(ApiError, match=r"^whether it was delivered before cannot be looked up: HTTP 503$") as raised:
        steps.find_earlier()

    error = raised.value
    assert (error.code, error.status, error.transient, error.may_be_accepted) == ("http_503", 503, True, True)


def test_a_session_is_recorded_before_anything_is_sent_in_it(deliveries: Deliveries) -> None:
    steps = Steps(deliveries)
    claimed = steps.entry

    steps.delivery.conversation_id = "session-1"
    asyncio.run(steps.campaign.record_session(steps.target, steps.delivery))

    assert steps.entry == replace(claimed, conversation_id="session-1")
    # The final row of the delivery replaces the row with the session.
    steps.delivery.status = "sent"
    asyncio.run(steps.campaign.record(steps.target, steps.delivery))
    assert (steps.entry.status, steps.entry.conversation_id) == ("sent", "session-1")


def test_a_claim_that_another_run_has_taken_over_is_not_sent(
    deliveries: Deliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger had ended the session of this run meanwhile, so another one took it for dead."""
    steps = Steps(deliveries)
    monkeypatch.setattr(
        "ansible_collections.fleetops.environments.plugins.module_utils.campaigns.campaign._RENEW_AFTER", -1.0
    )
    assert steps.find_earlier() is None
    theirs = replace(steps.entry, run=0)
    asyncio.run(deliveries.replace(steps.entry, theirs))

    for go_on in (steps.find_earlier, lambda: asyncio.run(steps.campaign.record_session(steps.target, steps.delivery))):
        with pytest.raises(ApiError, match="another run of the campaign has taken it over") as raised:
            go_on()
        assert not raised.value.may_be_accepted
    steps.delivery.status = "failed"
    asyncio.run(steps.campaign.record(steps.target, steps.delivery))
    assert steps.entry == theirs


def test_a_target_whose_row_is_known_is_claimed_and_recorded_without_a_query(
    deliveries: Deliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the one that has failed in a round of the same run."""
    steps = Steps(deliveries)
    steps.delivery.status = "failed"
    asyncio.run(steps.campaign.record(steps.target, steps.delivery))
    asked: list[Any] = []
    monkeypatch.setattr(deliveries.ledger, "query", lambda *given: asked.append(given))

    again = Delivery.of(steps.target)
    assert asyncio.run(steps.campaign.claim(steps.target, again))
    again.status = "sent"
    asyncio.run(steps.campaign.record(steps.target, again))

    assert asked == []
    monkeypatch.undo()
    assert steps.entry.status == "sent"


def test_a_row_that_another_run_has_replaced_since_the_plan_is_read_again(deliveries: Deliveries) -> None:
    steps = Steps(deliveries)
    steps.delivery.status = "failed"
    asyncio.run(steps.campaign.record(steps.target, steps.delivery))
    theirs = replace(steps.entry, run=0, status="sent", sent_at="2026-01-31T10:00:00.000Z")
    asyncio.run(deliveries.replace(steps.entry, theirs))

    again = Delivery.of(steps.target)
    assert not asyncio.run(steps.campaign.claim(steps.target, again))
    asyncio.run(steps.campaign.record(steps.target, again))

    assert (again.status, again.reason) == ("already_sent", "delivered before, 2026-01-31T10:00:00.000Z")
    assert steps.entry == theirs


def opened(steps: Steps, place: Place) -> str | None:
    """What the campaign finds of the message once its conversation is opened."""
    steps.delivery.conversation_id = place.conversation_id
    asyncio.run(steps.campaign.record_session(steps.target, steps.delivery))
    return asyncio.run(steps.campaign.find_earlier(steps.target, steps.delivery, place))


def left_by_another_run(deliveries: Deliveries, **changes: Any) -> None:
    """The row of a run that was killed."""
    claimed = Steps(deliveries, "standing").entry
    assert asyncio.run(deliveries.replace(claimed, replace(claimed, run=0, **changes)))


@pytest.mark.parametrize("kind", ["standing", "new", "standing or default"])
def test_a_claim_says_that_nothing_is_sent_until_its_conversation_is_opened(deliveries: Deliveries, kind: str) -> None:
    steps = Steps(deliveries, kind)
    assert (steps.entry.conversation_id, steps.delivery.conversation_id) == (kind, None)

    assert opened(steps, Place("conv-1", is_new=True)) is None
    assert steps.entry.conversation_id == "conv-1"


def test_a_message_that_may_have_been_sent_in_other_conversations_is_looked_up_in_all(deliveries: Deliveries) -> None:
    steps = Steps(deliveries, "standing")

    assert opened(steps, Place("conv-1", ["conv-2", None])) is None
    assert [question.conversation_id for question in steps.asked] == ["conv-1", "conv-2", None]


def test_a_conversation_that_was_just_made_is_not_read(deliveries: Deliveries) -> None:
    steps = Steps(deliveries, "standing")

    assert opened(steps, Place("conv-1", ["conv-2", None], is_new=True)) is None
    assert [question.conversation_id for question in steps.asked] == ["conv-2", None]


def test_a_message_is_recorded_in_the_conversation_in_which_it_is_found(deliveries: Deliveries) -> None:
    steps = Steps(deliveries, "standing", found="m")

    assert opened(steps, Place("conv-1", ["conv-2", None], is_new=True)) == "m"
    steps.delivery.status = "already_sent"
    asyncio.run(steps.campaign.record(steps.target, steps.delivery))

    assert (steps.entry.status, steps.entry.conversation_id) == ("sent", "conv-2")
    assert steps.delivery.conversation_id == "conv-2"


@pytest.mark.parametrize("kind", ["standing", "new", "standing or default", None])
@pytest.mark.parametrize("status", ["in_flight", "unknown"])
def test_what_an_older_version_may_have_sent_stays_in_the_agents_default_conversation(
    deliveries: Deliveries, kind: str | None, status: str
) -> None:
    """Its device drops the message there if it waits in its queue."""
    left_by_another_run(deliveries, conversation_id=None, status=status)

    steps = Steps(deliveries, kind)

    assert steps.delivery.conversation_id == (kind and "default")


@pytest.mark.parametrize("kind", ["standing", "new", "standing or default"])
def test_what_an_earlier_run_may_have_sent_stays_in_the_conversation_that_it_opened(
    deliveries: Deliveries, kind: str
) -> None:
    left_by_another_run(deliveries, conversation_id="conv-7")

    assert Steps(deliveries, kind).entry.conversation_id == "conv-7"


@pytest.mark.parametrize("kind", ["standing", "new", "conv-9", None])
@pytest.mark.parametrize("before", ["standing", "new", "standing or default"])
def test_what_was_claimed_and_not_opened_goes_where_this_run_says(
    deliveries: Deliveries, before: str, kind: str | None
) -> None:
    left_by_another_run(deliveries, conversation_id=before)

    assert Steps(deliveries, kind).entry.conversation_id == kind


@pytest.mark.parametrize("status", ["in_flight", "unknown"])
@pytest.mark.parametrize("before", ["standing", "new", "standing or default"])
def test_what_was_claimed_and_not_opened_may_go_to_another_agent(
    deliveries: Deliveries, before: str, status: str
) -> None:
    left_by_another_run(deliveries, conversation_id=before, status=status, agent_id="agent-gone")

    assert Steps(deliveries, "standing").entry.agent_id == "agent-1"


def test_what_another_agent_may_have_got_in_its_default_conversation_is_not_sent(deliveries: Deliveries) -> None:
    left_by_another_run(deliveries, conversation_id=None, agent_id="agent-2")

    with pytest.raises(ApiError, match=r"to agent agent-2, conversation default; run the campaign with these once"):
        Steps(deliveries, "standing")


@pytest.mark.parametrize("kind", ["standing", "new", "standing or default"])
def test_what_was_not_delivered_has_its_conversation_chosen_anew(deliveries: Deliveries, kind: str) -> None:
    left_by_another_run(deliveries, conversation_id="conv-7", status="failed")

    assert Steps(deliveries, kind).entry.conversation_id == kind


def test_a_claim_names_the_conversation_of_its_own_target_and_not_of_the_earlier_row(
    deliveries: Deliveries,
) -> None:
    before = Steps(deliveries, "conv-1")
    before.delivery.status, before.delivery.error = "failed", {"code": "http_500", "message": "HTTP 500"}
    asyncio.run(before.campaign.record(before.target, before.delivery))
    assert (before.entry.status, before.entry.conversation_id) == ("failed", "conv-1")

    assert Steps(deliveries, None).entry.conversation_id is None
