"""Plans of campaigns: the id of each message, the hash of a content, and what the ledger leaves to send."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.campaigns.plan import (
    hash_content,
    make_message_id,
    plan_campaign,
)
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.delivery import MessageTarget
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.deliveries import Deliveries
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.schema import RunFacts
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.store import open_ledger
from ansible_collections.fleetops.environments.plugins.module_utils.providers.conversation import STATES
from ansible_collections.fleetops.environments.plugins.module_utils.providers.message import Message

from .support import BEGUN, environment_of, row

DELIVERED = replace(BEGUN, status="sent")


def test_an_id_never_changes_and_differs_for_every_other_input() -> None:
    assert make_message_id("c", "environment-1", 1) == "794d9ae4-1c81-5e04-bd91-4ca96d6401b5"
    ids = {
        make_message_id(*parts)
        for parts in [("c", "e", 1), ("d", "e", 1), ("c", "f", 1), ("c", "e", 2), ("c", "e", 1, 1)]
    }
    assert len(ids) == 5


def test_the_hash_covers_the_content_and_not_the_ids() -> None:
    one = hash_content([Message("a", "1", "1")])
    assert one == hash_content([Message("a", "2", "2")])
    assert one != hash_content([Message("b")])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("hello", "666210238ffa9abb360175f4cb4cc74c503b0582bb5496b8597c2c69b69992ba"),
        (("hel", "lo"), "e673f16964b121436aece55b978561167a818dc706be7fd9a4daa3c95de8f832"),
    ],
)
def test_the_hash_of_a_content_never_changes(content: str | tuple[str, ...], expected: str) -> None:
    assert hash_content([Message(content, "1", "1")]) == expected


@pytest.mark.parametrize("reply_state", [None, *STATES])
def test_only_a_failed_turn_is_sent_again(tmp_path: Path, reply_state: str | None) -> None:
    """A lost or waiting message may still become a turn, so sending it again could make a second one."""
    environment = environment_of(row(id="e"))
    sent = MessageTarget("alpha", environment, "agent-1", messages=[Message.from_user("hello")])
    with open_ledger(tmp_path / "ledger.sqlite", RunFacts("tester")) as ledger:
        deliveries = Deliveries(ledger)
        asyncio.run(
            deliveries.replace(
                None, replace(DELIVERED, content_hash=hash_content(sent.messages), reply_state=reply_state)
            )
        )
        planned = plan_campaign(deliveries, "c", "failed_turns", [sent])

    assert [target.attempt for target in planned.targets] == [2 if reply_state == "failed" else 1]
    assert list(planned.settled) == ([] if reply_state == "failed" else ["e"])
