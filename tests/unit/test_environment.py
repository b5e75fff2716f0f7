"""The common row of all providers, its contract with the inventory, and texts on one line."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleetops.environments.plugins.module_utils.environment import (
    Environment,
    EnvironmentReference,
    InvalidRow,
    check_dropped,
    describe_invalid,
    describe_state,
    is_updatable,
)
from ansible_collections.fleetops.environments.plugins.module_utils.errors import ApiError, FleetError, OptionError
from ansible_collections.fleetops.environments.plugins.module_utils.text import (
    add_hash,
    format_time,
    hash_text,
    one_line,
    shorten,
)

from .support import environment_of, row

SELF_UPDATE = {"supported": True, "writable": True, "manual_command": "npm install"}
FOUND = environment_of(row(metadata={"self_update": SELF_UPDATE}))


def export_value(value: Any) -> Any:
    """A value as AWX stores an exported inventory: every untrusted text wrapped."""
    if isinstance(value, dict):
        return {key: export_value(item) for key, item in value.items()}
    return {"__ansible_unsafe": value} if isinstance(value, str) else value


@pytest.mark.parametrize("through", [lambda value: value, copy.deepcopy, export_value])
@pytest.mark.parametrize("found", [FOUND, environment_of(row(connectionId=None))])
def test_a_contract_gives_the_same_environment_back(through: Callable[[Any], Any], found: Environment) -> None:
    again = EnvironmentReference.from_contract(through(found.contract()))

    assert again.contract() == found.contract()
    assert not hasattr(again, "fields")


def test_a_contract_has_the_fields_that_the_actions_need() -> None:
    assert FOUND.contract() == {
        "provider": "letta",
        "id": "environment-1",
        "device_id": "device-1",
        "connection_id": "connection-1",
        "base_url": "https://api.letta.com",
        "status": "online",
        "self_update": SELF_UPDATE,
    }


@pytest.mark.parametrize("value", [None, "", "text", 7, [], [FOUND.contract()], {"__ansible_unsafe": "text"}])
def test_a_contract_other_than_a_dictionary_is_refused(value: Any) -> None:
    with pytest.raises(FleetError, match=r"^fleetops_environment is not a dictionary$"):
        EnvironmentReference.from_contract(value)


@pytest.mark.parametrize("name", ["provider", "id", "base_url", "status"])
@pytest.mark.parametrize("value", [None, "", 7, ["a"], {"a": "b"}, {"__ansible_unsafe": 7}])
def test_a_contract_without_one_of_its_texts_is_refused(name: str, value: Any) -> None:
    with pytest.raises(FleetError, match=f"^fleetops_environment.{name} is not a text$"):
        EnvironmentReference.from_contract({**FOUND.contract(), name: value})


@pytest.mark.parametrize("name", ["connection_id", "device_id"])
@pytest.mark.parametrize("value", [7, ["a"], {"a": "b"}, {"__ansible_unsafe": 7}, True])
def test_a_contract_whose_connection_or_device_is_not_a_text_is_refused(name: str, value: Any) -> None:
    with pytest.raises(FleetError, match=f"^fleetops_environment.{name} is not a text$"):
        EnvironmentReference.from_contract({**FOUND.contract(), name: value})


@pytest.mark.parametrize("value", [None, "", "npm install", ["a"]])
def test_a_self_update_other_than_a_dictionary_counts_as_absent(value: Any) -> None:
    assert EnvironmentReference.from_contract({**FOUND.contract(), "self_update": value}).self_update is None


@pytest.mark.parametrize("value", [None, ""])
def test_a_contract_without_a_connection_or_a_device_has_none(value: Any) -> None:
    found = EnvironmentReference.from_contract({**FOUND.contract(), "connection_id": value, "device_id": value})

    assert (found.connection_id, found.device_id) == (None, None)


@pytest.mark.parametrize(
    ("self_update", "expected"),
    [
        (None, False),
        ({}, False),
        ({"supported": True, "writable": True}, True),
        ({"supported": "yes", "writable": 1}, False),
        ({"supported": True}, False),
    ],
)
def test_updatable_requires_true_in_both_places(self_update: Any, expected: bool) -> None:
    assert is_updatable(self_update) is expected


@given(st.text())
def test_a_short_id_is_eight_digits_of_the_long_one(text: str) -> None:
    assert len(shorten(text)) == 8
    assert hash_text(text).startswith(shorten(text))
    int(hash_text(text), 16)


@given(name=st.text("ab", min_size=1, max_size=400), text=st.text(max_size=5), longest=st.none() | st.just(255))
def test_names_with_a_hash_differ_and_keep_to_their_length(name: str, text: str, longest: int | None) -> None:
    names = list(add_hash(name, text, separator="-", longest=longest))

    assert len(set(names)) == len(names) == 8
    assert names[0].endswith(f"-{shorten(text)}")
    assert names[-1].endswith(f"-{hash_text(text)}")
    assert longest is None or max(map(len, names)) <= longest
    assert all(other.startswith(name[:100]) for other in names)


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (datetime(2026, 1, 31, 12, tzinfo=UTC), "2026-01-31T12:00:00.000Z"),
        (datetime(2026, 1, 31, 12, 0, 0, 999_999, tzinfo=UTC), "2026-01-31T12:00:00.999Z"),
        (datetime(2026, 1, 31, 12, tzinfo=timezone(timedelta(hours=5, minutes=30))), "2026-01-31T06:30:00.000Z"),
    ],
)
def test_times_are_utc_with_a_z(moment: datetime, expected: str) -> None:
    assert format_time(moment) == expected


def test_more_dropped_rows_than_allowed_are_an_error() -> None:
    invalid = [InvalidRow(f"id-{number}", "id: missing", dropped=number < 2) for number in range(5)]

    assert check_dropped(invalid, 19, "2") == check_dropped(invalid, 20, "10%") == 2
    assert check_dropped(invalid[2:], 3, "0") == 0
    for rows, most in ((19, "10%"), (19, "1"), (19, "0%")):
        with pytest.raises(
            ApiError, match=rf"^max_dropped_rows: 2 of {rows} rows have no id .*, and {most} may be dropped"
        ):
            check_dropped(invalid, rows, most)


def test_a_state_without_times_has_no_none_in_it() -> None:
    bare = environment_of(row(connectionId=None, lastSeenAt=None))

    assert describe_state(bare) == "offline (last seen at unknown), version unknown, mode unknown"


def test_invalid_rows_are_described_on_one_line() -> None:
    rows = [InvalidRow(f"id-{number}", "name: missing") for number in range(3)]

    assert describe_invalid(rows[:1]) == "not as the API promises: environment id-0: name: missing"
    assert describe_invalid(rows, most=2).endswith("environment id-1: name: missing; and 1 more")
    dropped = InvalidRow("number 3", "id: missing", dropped=True)
    assert describe_invalid([*rows, dropped], most=1).endswith(
        ": environment number 3 (dropped): id: missing; and 3 more"
    )


@given(st.text(), st.integers(1, 60))
def test_any_text_becomes_one_printable_line_of_limited_length(text: str, limit: int) -> None:
    line = one_line(text, limit)

    assert len(line) <= limit
    assert line.isprintable()
    assert line == line.strip()
    assert "  " not in line


def test_a_shortened_line_shows_that_it_is_shortened() -> None:
    assert one_line("a\n  b\0c\x1b[31m\N{RIGHT-TO-LEFT OVERRIDE}d") == "a b c [31m d"
    assert one_line("abcdef", 4) == "abc…"


def test_an_option_error_names_the_option() -> None:
    error = OptionError("filters", "is wrong")

    assert (str(error), error.option) == ("filters: is wrong", "filters")
    assert isinstance(error, FleetError)
