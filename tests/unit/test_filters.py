"""Expressions over a row: which are true, and which are refused."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleetops.environments.plugins.module_utils.errors import OptionError
from ansible_collections.fleetops.environments.plugins.module_utils.filters import Expressions
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.models import FIELDS
from ansible_collections.fleetops.environments.plugins.module_utils.text import shorten

from .support import NOW, environment_of, row


def fields(**changes: Any) -> dict[str, Any]:
    return {**environment_of(row()).fields, **changes}


def holds(expression: Any, now: datetime = NOW, **changes: Any) -> bool:
    return Expressions("filters", expression, FIELDS).all_hold(fields(**changes), now)


@pytest.mark.parametrize(
    ("version", "wanted", "expected"),
    [
        ("0.33.9", "<0.34", True),
        ("0.34.0", "<0.34", False),
        ("0.9.0", "<0.34", True),
        ("0.34.12", ">=0.34.2,<0.36", True),
        ("0.34.12", ">= 0.34.2, < 0.36", True),
        ("0.34.12", "==0.34.12", True),
        ("0.34.12", "0.34.12", True),
        ("0.34.12", "~0.34.2", True),
        ("0.35.0", "^0.34.2", False),
        ("1.4.0", "^1.2.0", True),
        ("v0.33.9", "<0.34", True),
        ("0.33.9+build.7", "<0.34", True),
        # A pre-release belongs neither to its final version nor to the versions below that.
        ("0.34.0-rc.1", "<0.34", False),
        ("0.34.0-rc.1", ">=0.34", False),
        ("0.33.0-rc.1", "<0.34", True),
        ("0.35.0-rc.1", ">=0.34", True),
        ("0.34.0-rc.2", ">0.34.0-rc.1", True),
        ("0.34", "<0.35", False),
        ("latest", "<0.35", False),
        ("", "<0.35", False),
        (None, "<0.35", False),
    ],
)
def test_semver(version: str | None, wanted: str, expected: bool) -> None:
    assert holds(f"semver(version, '{wanted}')", version=version) is expected


@pytest.mark.parametrize("wanted", ["banana", "<", "0.34.12.1", "<v0.34"])
@pytest.mark.parametrize("version", ["0.33.9", "not a version"])
def test_an_invalid_range_is_an_error_with_an_example(wanted: str, version: str) -> None:
    with pytest.raises(OptionError, match=r"'<0\.34'") as raised:
        holds(f"semver(version, '{wanted}')", version=version)

    assert repr(wanted) in str(raised.value)


@pytest.mark.parametrize(
    ("age", "seconds"),
    [("90s", 90), ("15m", 900), ("12h", 43_200), ("7d", 604_800), ("2w", 1_209_600), (" 1d ", 86400)],
)
def test_older_than_counts_from_the_listing(age: str, seconds: int) -> None:
    for extra, expected in ((-1, False), (0, False), (1, True)):
        moment = (NOW - timedelta(seconds=seconds + extra)).isoformat()
        assert holds(f"older_than(last_seen_at, '{age}')", last_seen_at=moment) is expected


def test_older_than_reads_a_time_without_a_zone_as_utc() -> None:
    assert holds("older_than(last_seen_at, '1h')", last_seen_at="2026-01-31T10:59:59")
    assert not holds("older_than(last_seen_at, '1h')", last_seen_at="2026-01-31T11:59:59")


@pytest.mark.parametrize("moment", [None, "", "yesterday", "2026-13-01"])
def test_a_value_that_is_no_time_is_not_older(moment: str | None) -> None:
    assert not holds("older_than(last_seen_at, '1s')", last_seen_at=moment)


@pytest.mark.parametrize("age", ["", "7", "d", "7y", "-7d", "1.5h", "7 d"])
def test_an_invalid_age_is_an_error_with_an_example(age: str) -> None:
    with pytest.raises(OptionError, match="'7d'") as raised:
        holds(f"older_than(last_seen_at, '{age}')", last_seen_at=None)

    assert repr(age) in str(raised.value)


def test_nothing_is_older_than_the_longest_age() -> None:
    assert not holds("older_than(last_seen_at, '999999999w')")


def test_short_shortens_an_id() -> None:
    assert holds(f"short(id) == '{shorten('environment-1')}'")


def test_each_expression_gives_its_value_in_order() -> None:
    expressions = Expressions("hostnames", ["connection_name", "join('-', [os, short(id)])", "pod_id"], FIELDS)

    assert list(expressions.values(fields(os="linux", pod_id=None))) == [
        "alpha",
        f"linux-{shorten('environment-1')}",
        None,
    ]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("online", True),
        ("!online", False),
        ("pod_id", True),
        ("user_id", False),
        ("''", False),
        ("`[]`", False),
        ("`{}`", False),
        ("`false`", False),
        ("`null`", False),
        ("`0`", True),
        ("`[0]`", True),
        ("extra", False),
    ],
)
def test_truth_is_that_of_jmespath(expression: str, expected: bool) -> None:
    assert holds(expression) is expected


def test_all_filters_must_hold() -> None:
    assert holds(["os == 'linux'", "mode == 'standard'"], os="linux", mode="standard")
    assert not holds(["os == 'linux'", "mode == 'standard'"], os="linux", mode="plan")
    assert holds([])


def test_a_single_text_is_one_expression_whatever_commas_it_has() -> None:
    assert holds("contains(['a', 'b'], mode)", mode="b")


@pytest.mark.parametrize("value", [7, {"os": "linux"}, ["os", 7], [["os"]], True])
def test_a_value_other_than_a_list_of_texts_is_refused(value: Any) -> None:
    with pytest.raises(OptionError, match=r"^filters: must be a list of expressions, got "):
        Expressions("filters", value, FIELDS)


@pytest.mark.parametrize(
    ("expression", "name", "nearest"),
    [
        ("modee == 'standard'", "modee", "mode"),
        ("os == 'linux' && moode", "moode", "mode"),
        ("!verison", "verison", "version"),
        ("semver(versoin, '<0.34')", "versoin", "version"),
        ("not_null(mode, osx)", "osx", "os"),
        ("[mode, deviceId]", "deviceId", "device_id"),
        ("{a: onlin}", "onlin", "online"),
        ("metdata.machine.architecture", "metdata", "metadata"),
        ("suported_commands[0]", "suported_commands", "supported_commands"),
        ("suported_commands[?@ == 'clear']", "suported_commands", "supported_commands"),
        ("modee | length(@)", "modee", "mode"),
        ("@.modee == 'standard'", "modee", "mode"),
        ("@ | modee", "modee", "mode"),
    ],
)
def test_a_name_that_no_row_has_is_refused_with_the_nearest(expression: str, name: str, nearest: str) -> None:
    with pytest.raises(OptionError) as raised:
        Expressions("filters", expression, FIELDS)

    assert f"{expression!r} names {name!r}" in str(raised.value)
    assert f"{nearest!r} is nearest" in str(raised.value)


@pytest.mark.parametrize(
    "expression",
    [
        "metadata.machine.architecture == 'x64'",
        "extra.anything",
        "self_update.writable",
        "metadata | machine.model",
        "supported_commands[?contains(@, 'clear')] | [0]",
        "metadata.list[?name == 'a'].value",
        "sort_by(metadata.list || `[]`, &size)[0].name",
        "id | length(@)",
        "@.mode",
    ],
)
def test_names_inside_a_field_are_not_checked(expression: str) -> None:
    Expressions("filters", expression, FIELDS)


@pytest.mark.parametrize(
    "expression",
    ["[?mode=='standard']", "[0]", "[].mode", "[*].mode", "[1:]", "@[0]", "[?online] | [0]", "[0].mode == 'standard'"],
)
def test_an_expression_that_treats_the_row_as_a_list_is_refused_with_an_example(expression: str) -> None:
    with pytest.raises(
        OptionError, match="takes the environment for a list; write a condition such as status == "
    ) as raised:
        Expressions("filters", expression, FIELDS)

    assert str(raised.value).startswith(f"filters: {expression!r} ")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("supported_commands[?@=='reload']", True),
        ("supported_commands[?@=='clear']", False),
        ("supported_commands[0]", True),
        ("supported_commands[1]", False),
        ("supported_commands[]", True),
        ("[mode, os]", True),
        ("@", True),
        ("keys(@)[0]", True),
    ],
)
def test_a_list_in_a_row_is_a_list(expression: str, expected: bool) -> None:
    assert holds(expression, supported_commands=["reload"]) is expected


@pytest.mark.parametrize("expression", ["", "os ==", "os = 'linux'", "(os", "os ? 'a'", "os == `1", "semver(version"])
def test_an_expression_that_is_not_jmespath_is_refused(expression: str) -> None:
    with pytest.raises(OptionError, match="is not a JMESPath expression: ") as raised:
        Expressions("filters", ["online", expression], FIELDS)

    assert repr(expression) in str(raised.value)


@pytest.mark.parametrize(
    "expression",
    ["semvar(version, '<1')", "semver(version)", "semver(online, '<1')", "length(online)", "metadata.list[::0]"],
)
def test_an_expression_that_fails_on_a_row_is_refused(expression: str) -> None:
    with pytest.raises(OptionError, match="cannot be evaluated: ") as raised:
        holds(expression, metadata={"list": ["a"]})

    assert repr(expression) in str(raised.value)


@given(version=st.text(max_size=12), moment=st.text(max_size=12))
def test_no_text_of_a_device_makes_a_filter_fail(version: str, moment: str) -> None:
    holds(["semver(version, '<0.34')", "older_than(last_seen_at, '7d')"], version=version, last_seen_at=moment)
    holds("older_than(last_seen_at, '7d')", now=datetime.now(UTC), last_seen_at=moment)


@given(st.text("abos&|!=<>()[]{}.,@*'\"\\ :?0-9", max_size=20))
def test_every_text_is_an_expression_or_refused(text: str) -> None:
    with contextlib.suppress(OptionError):
        holds(text)
