"""Qoder's rows coming in, in both generations, and the parameters of a listing going out."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleetops.environments.plugins.module_utils.environment import Environment, InvalidRow, Listing
from ansible_collections.fleetops.environments.plugins.module_utils.errors import OptionError
from ansible_collections.fleetops.environments.plugins.module_utils.providers.qoder.models import (
    FIELDS,
    Query,
    read_environment,
    read_environments,
)

from .support import NOW
from .test_models import json_values

URL = "https://api.qoder.com/api/v1/cloud"
# The first row of the API page that this collection was first written for.
OLDER: dict[str, Any] = {
    "id": "env_019e3bb39b6774d8878cd0b9d237574b",
    "type": "environment",
    "name": "doc-test-env",
    "description": "",
    "status": "ready",
    "config": {"type": "cloud", "networking": {"type": "limited"}, "packages": {"apt": ["curl"]}},
    "metadata": {},
    "archived": False,
    "archived_at": None,
    "created_at": "2026-05-18T15:28:07.017808Z",
    "updated_at": "2026-05-18T15:28:07.017808Z",
}
NEWER: dict[str, Any] = {
    "id": "env_2",
    "type": "environment",
    "name": "builder",
    "description": "Builds.",
    "config": {
        "type": "cloud",
        "networking": {
            "type": "limited",
            "allowed_hosts": ["pypi.org"],
            "allow_package_managers": True,
            "allow_mcp_servers": False,
        },
        "packages": {"type": "packages", "cargo": ["ripgrep"], "gem": ["rake"], "go": ["example.com/x@latest"]},
    },
    "metadata": {"team": "docs"},
    "archived_at": None,
    "created_at": "2026-05-18T17:28:07+02:00",
    "updated_at": "2026-05-18T15:28:07.1Z",
}


def environment_of(row: dict[str, Any]) -> Environment:
    """A row as an Environment."""
    return read_environment(row, URL)


def make_environment(**changes: Any) -> Environment:
    """A row with only an id and these keys, as an Environment."""
    return environment_of({"id": "env_1", **changes})


def sorted_out(*rows: Any) -> tuple[list[Environment], list[InvalidRow]]:
    return read_environments(Listing(rows, NOW), URL, Query())


def test_every_field_of_the_older_generation() -> None:
    assert environment_of(OLDER).fields == {
        "id": "env_019e3bb39b6774d8878cd0b9d237574b",
        "type": "environment",
        "name": "doc-test-env",
        "description": "",
        "status": "ready",
        "config": OLDER["config"],
        "config_type": "cloud",
        "networking_type": "limited",
        "packages": {"apt": ["curl"]},
        "metadata": {},
        "archived": False,
        "archived_at": None,
        "created_at": "2026-05-18T15:28:07.017808Z",
        "updated_at": "2026-05-18T15:28:07.017808Z",
        "extra": {},
        "invalid": [],
    }


def test_every_field_of_the_newer_generation() -> None:
    assert environment_of(NEWER).fields == {
        "id": "env_2",
        "type": "environment",
        "name": "builder",
        "description": "Builds.",
        "status": None,
        "config": NEWER["config"],
        "config_type": "cloud",
        "networking_type": "limited",
        "packages": {"cargo": ["ripgrep"], "gem": ["rake"], "go": ["example.com/x@latest"]},
        "metadata": {"team": "docs"},
        "archived": False,
        "archived_at": None,
        "created_at": "2026-05-18T15:28:07.000000Z",
        "updated_at": "2026-05-18T15:28:07.100000Z",
        "extra": {},
        "invalid": [],
    }


def test_an_environment_has_what_the_rest_of_the_collection_reads() -> None:
    found = environment_of(OLDER)

    assert found.contract() == {
        "provider": "qoder",
        "id": OLDER["id"],
        "device_id": OLDER["id"],
        "connection_id": None,
        "base_url": URL,
        "status": "online",
        "self_update": None,
    }


@pytest.mark.parametrize("row", [OLDER, NEWER, {"id": "env_1"}, dict.fromkeys(OLDER) | {"id": "env_1"}])
def test_fields_are_those_that_are_documented(row: dict[str, Any]) -> None:
    assert tuple(environment_of(row).fields) == FIELDS


@pytest.mark.parametrize("row", [{"id": "env_1"}, dict.fromkeys({**OLDER, **NEWER}) | {"id": "env_1"}])
def test_every_key_but_the_id_may_be_absent_or_null(row: dict[str, Any]) -> None:
    empty: dict[str, Any] = {"id": "env_1", "archived": False, "invalid": []}
    empty |= {name: {} for name in ("config", "packages", "metadata", "extra")}

    found = environment_of(row)

    assert found.fields == dict.fromkeys(FIELDS) | empty
    assert found.status == "online"


@pytest.mark.parametrize(
    ("changes", "archived"),
    [
        ({"archived_at": "2026-05-18T15:28:07Z"}, True),
        ({"archived": True}, True),
        ({"status": "archived"}, True),
        ({"archived": False, "archived_at": "2026-05-18T15:28:07Z", "status": "ready"}, True),
        ({"archived": True, "archived_at": None, "status": "ready"}, True),
        ({"archived": False, "archived_at": None, "status": "archived"}, True),
        ({"archived": False, "archived_at": None, "status": "ready"}, False),
        ({"archived_at": None}, False),
        ({"status": "failed"}, False),
        ({"archived": "true"}, None),
        ({"archived": 1, "status": "ready"}, None),
        ({"archived": False, "archived_at": "x"}, None),
        ({"archived": False, "status": ["archived"]}, None),
        ({"archived": "true", "status": "archived"}, True),
        ({"archived": True, "archived_at": "x"}, True),
        ({}, False),
    ],
)
def test_one_mark_of_what_is_or_may_be_archived_makes_it_offline(
    changes: dict[str, Any], archived: bool | None
) -> None:
    found = make_environment(**changes)

    assert (found.fields["archived"], found.status) == (archived, "online" if archived is False else "offline")


@pytest.mark.parametrize(
    ("config", "config_type", "networking_type", "packages", "invalid"),
    [
        ({"type": "self_hosted"}, "self_hosted", None, {}, []),
        ({"type": "edge", "networking": {"type": "mesh"}}, "edge", "mesh", {}, []),
        ({"type": "", "networking": {}}, None, None, {}, []),
        ({"networking": None, "packages": None}, None, None, {}, []),
        (
            {"type": 3, "networking": "limited", "packages": "curl"},
            None,
            None,
            {},
            ["config_type", "networking_type", "packages"],
        ),
        (
            {"type": ["cloud"], "networking": {"type": 3}, "packages": ["curl"]},
            None,
            None,
            {},
            ["config_type", "networking_type", "packages"],
        ),
        ({"packages": {"type": "packages"}}, None, None, {}, []),
        ({"packages": {"apt": "curl", "pip": None}}, None, None, {"apt": "curl", "pip": None}, []),
    ],
)
def test_known_and_unknown_values_of_a_config(
    config: dict[str, Any],
    config_type: str | None,
    networking_type: str | None,
    packages: dict[str, Any],
    invalid: list[str],
) -> None:
    fields = make_environment(config=config).fields

    assert (fields["config_type"], fields["networking_type"], fields["packages"]) == (
        config_type, networking_type, packages,
    )  # fmt: skip
    assert (fields["config"], fields["invalid"]) == (config, invalid)


def test_every_key_that_the_api_sends_is_kept() -> None:
    fields = make_environment(type="environment", region={"name": "eu"}, quota=3).fields

    assert (fields["type"], fields["extra"]) == ("environment", {"region": {"name": "eu"}, "quota": 3})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2026-05-18T15:28:07Z", "2026-05-18T15:28:07.000000Z"),
        ("2026-05-18t15:28:07.5z", "2026-05-18T15:28:07.500000Z"),
        ("2026-05-18 17:28:07+02:00", "2026-05-18T15:28:07.000000Z"),
        ("2026-05-18T15:28:07.0178089999Z", "2026-05-18T15:28:07.017808Z"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.000000Z"),
    ],
)
def test_times_are_shown_in_utc_to_the_microsecond(text: str, shown: str) -> None:
    fields = make_environment(created_at=text, updated_at=text, archived_at=text).fields

    assert [fields[name] for name in ("created_at", "updated_at", "archived_at")] == [shown] * 3


@pytest.mark.parametrize(
    ("row", "place"),
    [
        (None, "Input"),
        ("environment", "Input"),
        ([], "Input"),
        ({}, "id:"),
        ({"id": ""}, "id:"),
        ({"id": 17}, "id:"),
        ({"id": None}, "id:"),
    ],
)
def test_a_row_without_an_id_is_dropped_and_the_others_are_kept(row: Any, place: str) -> None:
    valid, [reported] = sorted_out(OLDER, row, NEWER)

    assert [found.id for found in valid] == [OLDER["id"], NEWER["id"]]
    assert (reported.id, reported.dropped) == ("number 2", True)
    assert reported.problem.startswith(f"{place} ")
    assert "\n" not in reported.problem


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("type", 3),
        ("name", 17),
        ("description", ["x"]),
        ("status", ["archived"]),
        ("config", "cloud"),
        ("metadata", ["linux"]),
        ("archived", "yes"),
        ("archived", 1),
        ("archived_at", 17),
        ("archived_at", "1779118087"),
        ("created_at", "yesterday"),
        ("created_at", "2026-05-18T15:28:07"),
        ("updated_at", "2026-13-45T99:00:00Z"),
        # Times that are outside the calendar in UTC.
        ("created_at", "0001-01-01T00:00:00+23:59"),
        ("created_at", "9999-12-31T23:59:59-00:01"),
    ],
)
def test_a_malformed_field_is_unknown_kept_as_it_was_sent_and_named(key: str, value: Any) -> None:
    [found], [reported] = sorted_out({**NEWER, key: value})

    usual = environment_of(NEWER).fields
    changed = {key: {} if key == "config" else None, "invalid": [key], "metadata": usual["metadata"] | {key: value}}
    if key in ("status", "archived_at"):
        changed["archived"] = None
    if key == "config":
        changed |= {"config_type": None, "networking_type": None, "packages": {}}
    if key == "metadata":
        changed["metadata"] = {key: value}
    assert found.fields == usual | changed
    assert (reported.id, reported.dropped) == (found.id, False)
    assert reported.problem.startswith(f"{key}: ")
    assert "\n" not in reported.problem


def test_a_raw_value_never_takes_the_place_of_a_label() -> None:
    assert make_environment(metadata={"name": "label"}, name=17).fields["metadata"] == {"name": "label", "name_": 17}


@given(st.lists(st.dictionaries(st.sampled_from([*OLDER, "{{ x }}"]), json_values), max_size=3))
def test_any_row_with_an_id_is_an_environment(changes: list[dict[str, Any]]) -> None:
    rows = [{**OLDER, **change} for change in changes]

    valid, invalid = sorted_out(*rows)

    assert [found.id for found in valid] == [row["id"] for row in rows if isinstance(row["id"], str) and row["id"]]
    assert len(valid) + sum(row.dropped for row in invalid) == len(rows)
    for found in valid:
        json.dumps(found.fields, allow_nan=False)


@given(json_values, st.dictionaries(st.sampled_from(["type", "networking", "packages"]), json_values))
def test_any_configuration_is_kept(row: Any, config: dict[str, Any]) -> None:
    valid, invalid = sorted_out(row, {**NEWER, "config": config})

    assert [found.fields["config"] for found in valid] == [config]
    assert sum(row.dropped for row in invalid) == 1


@given(st.datetimes().map(str) | st.from_regex(r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:]{8}[Zz+-][0-9:]{0,5}\Z"))
def test_any_text_is_a_time_or_a_report(text: str) -> None:
    [found], invalid = sorted_out({**OLDER, "created_at": text})

    assert (found.fields["created_at"] is None) is bool(invalid)


# The parameters of a listing


def test_a_listing_asks_for_the_largest_page_and_nothing_else() -> None:
    assert (Query().parameters(), Query().start()) == ({"limit": "100"}, {})


@pytest.mark.parametrize(("limit", "sent"), [(1, "1"), (100, "100"), (101, "100"), (10**9, "100")])
def test_more_than_a_hundred_rows_count_as_a_hundred(limit: int, sent: str) -> None:
    assert Query(limit=limit).parameters() == {"limit": sent}


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit: int) -> None:
    with pytest.raises(OptionError, match=rf"^limit: must be 1 or more, got {limit}$"):
        Query(limit=limit)


def test_every_parameter_has_the_name_of_the_api() -> None:
    query = Query(
        include_archived=True, created_at_gte="2026-05-01T00:00:00Z", created_at_lte="2026-06-01t00:00:00z", limit=7
    )

    assert query.parameters() == {
        "limit": "7",
        "include_archived": "true",
        "created_at[gte]": "2026-05-01T00:00:00Z",
        "created_at[lte]": "2026-06-01T00:00:00Z",
    }
    assert Query(after_id="env_1").start() == {"after_id": "env_1"}
    assert Query(before_id="env_1").start() == {"before_id": "env_1"}


def test_a_listing_starts_at_one_end_only() -> None:
    with pytest.raises(OptionError, match=r"^before_id: cannot go with after_id"):
        Query(after_id="env_1", before_id="env_2")


@pytest.mark.parametrize("option", ["created_at_gte", "created_at_lte"])
@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("2026-05-01T00:00:00Z", "2026-05-01T00:00:00Z"),
        ("2026-05-01t00:00:00z", "2026-05-01T00:00:00Z"),
        ("2026-05-01 00:00:00Z", "2026-05-01T00:00:00Z"),
        (" 2026-05-01T00:00:00Z\n", "2026-05-01T00:00:00Z"),
        ("2026-05-01T02:00:00+02:00", "2026-05-01T02:00:00+02:00"),
        ("2026-04-30T16:30:00-07:30", "2026-04-30T16:30:00-07:30"),
        ("2026-05-01T00:00:00-00:00", "2026-05-01T00:00:00-00:00"),
        ("2026-05-01T00:00:00.5Z", "2026-05-01T00:00:00.5Z"),
        ("2026-05-01T00:00:00.123456789012Z", "2026-05-01T00:00:00.123456789012Z"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:60Z"),
        ("2016-12-31T23:59:60.25+00:00", "2016-12-31T23:59:60.25+00:00"),
        ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"),
    ],
)
def test_times_in_any_form_of_rfc_3339_are_sent_as_they_are_with_capitals(option: str, text: str, sent: str) -> None:
    name = f"created_at[{option.removeprefix('created_at_')}]"

    assert Query(**{option: text}).parameters()[name] == sent


@pytest.mark.parametrize("option", ["created_at_gte", "created_at_lte"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-05-01",
        "20260501",
        "1777593600",
        "2026-05-01T00:00:00",
        "2026-05-01T00:00Z",
        "20260501T000000Z",
        "2026-W18-5T00:00:00Z",
        "2026-121T00:00:00Z",
        "2026-05-01T00:00:00,5Z",
        "2026-05-01T00:00:00.Z",
        "2026-05-01T00:00:00+02",
        "2026-05-01T00:00:00+0200",
        "2026-05-01T00:00:00+24:00",
        "2026-05-01T00:00:00 Z",
        "2026-05-01T24:00:00Z",
        "2026-05-01T00:60:00Z",
        "2026-05-01T00:00:61Z",
        "2026-02-30T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "\N{ARABIC-INDIC DIGIT TWO}026-05-01T00:00:00Z",
        "\N{FULLWIDTH DIGIT TWO}026-05-01T00:00:00Z",
        "2026-05-01T00:00:00Z\x00",
        "2026-05-01T00:00:00Z 2026-05-01T00:00:00Z",
    ],
)
def test_a_time_not_in_rfc_3339_is_refused_with_its_option(option: str, text: str) -> None:
    with pytest.raises(OptionError) as raised:
        Query(**{option: text})

    message = str(raised.value)
    assert message.startswith(f"{option}: must be a time in RFC 3339 such as 2026-01-31T12:00:00Z, got ")
    assert "\n" not in message


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    with contextlib.suppress(OptionError):
        Query(created_at_gte=text)
