"""Letta's rows coming in, and messages going out."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleetops.environments.plugins.module_utils.environment import Listing, describe_invalid
from ansible_collections.fleetops.environments.plugins.module_utils.errors import OptionError
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.models import (
    FIELDS,
    read_environments,
)
from ansible_collections.fleetops.environments.plugins.module_utils.providers.message import parse_messages

from .support import NOW, NOW_MS, environment_of, row

WHOLE = row(
    apiKeyOwner="ada@example.com",
    currentMode="acceptEdits",
    listenerInstanceId="server-1",
    userId="user-1",
    metadata={
        "gitBranch": "main",
        "lettaCodeVersion": "0.34.12",
        "nodeVersion": "v22.19.0",
        "os": "linux",
        "self_update": {
            "supported": True,
            "writable": True,
            "install_path": "/opt/letta",
            "manual_command": "npm install -g @letta-ai/letta-code@latest",
            "reason": "none",
            "channel": "beta",
        },
        "supported_commands": ["clear", "reload"],
        "workingDirectory": "/home/dev/docs",
        "machine": {"architecture": "x64"},
    },
    shoeSize=[{"a": None}],
)


def sorted_out(rows: Sequence[Any], **options: Any) -> tuple[list[str], list[str]]:
    """The ids of the valid rows and of the invalid ones."""
    valid, invalid = read_environments(Listing(rows, NOW), "https://api.letta.com", **options)
    return [found.id for found in valid], [found.id for found in invalid]


def test_every_field_of_the_api_has_a_name() -> None:
    assert environment_of(WHOLE).fields == {
        "id": "environment-1",
        "device_id": "device-1",
        "connection_id": "connection-1",
        "connection_name": "alpha",
        "listener_instance_id": "server-1",
        "organization_id": "org-1",
        "user_id": "user-1",
        "api_key_owner": "ada@example.com",
        "pod_id": "pod-1",
        "mode": "acceptEdits",
        "os": "linux",
        "version": "0.34.12",
        "node_version": "v22.19.0",
        "git_branch": "main",
        "working_directory": "/home/dev/docs",
        "self_update": WHOLE["metadata"]["self_update"],
        "supported_commands": ["clear", "reload"],
        "online": True,
        "status": "online",
        "updatable": True,
        "connected_at": "2026-01-31T11:00:00.000Z",
        "last_heartbeat": "2026-01-31T11:59:55.000Z",
        "last_seen_at": "2026-01-31T11:59:55.000Z",
        "first_seen_at": "2026-01-31T10:00:00.000Z",
        "listed_at": "2026-01-31T12:00:00.000Z",
        "metadata": {"machine": {"architecture": "x64"}},
        "extra": {"shoeSize": [{"a": None}]},
    }


def test_fields_are_those_that_are_documented() -> None:
    assert tuple(environment_of(WHOLE).fields) == FIELDS
    assert tuple(environment_of(row()).fields) == FIELDS


def test_what_may_be_null_may_be_null() -> None:
    nulls = dict.fromkeys(("connectionId", "podId", "connectedAt", "lastHeartbeat"))

    found = environment_of(row(**nulls))

    assert (found.connection_id, found.status) == (None, "offline")
    assert [found.fields[name] for name in ("pod_id", "connected_at", "last_heartbeat")] == [None, None, None]


def test_what_is_optional_may_be_absent_or_null() -> None:
    optional = dict.fromkeys(("apiKeyOwner", "currentMode", "listenerInstanceId", "metadata", "userId"))
    in_metadata = dict.fromkeys(WHOLE["metadata"])

    for raw in (row(), row(**optional), row(metadata={}), row(metadata=in_metadata)):
        found = environment_of(raw)
        for name in ("mode", "os", "version", "self_update", "supported_commands", "user_id", "listener_instance_id"):
            assert found.fields[name] is None
        assert found.fields["updatable"] is False


@pytest.mark.parametrize("missing", [key for key in row() if key != "id"])
def test_what_the_api_always_sends_must_be_there(missing: str) -> None:
    raw = row()
    del raw[missing]

    _valid, invalid = read_environments(Listing([raw], NOW), "https://api.letta.com")

    assert [(found.id, found.problem.split(",")[0]) for found in invalid] == [
        ("environment-1", f"{missing}: Field required")
    ]


@pytest.mark.parametrize("mode", ["plan", "fullAccess", "something new", "\N{SNOWMAN}", ""])
def test_an_unknown_mode_is_data(mode: str) -> None:
    assert environment_of(row(currentMode=mode)).fields["mode"] == mode


def test_an_empty_connection_counts_as_absent() -> None:
    found = environment_of(row(connectionId=""))

    assert (found.connection_id, found.fields["connection_id"], found.status) == (None, None, "offline")


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"lastHeartbeat": NOW_MS - 119_999}, "online"),
        ({"lastHeartbeat": NOW_MS - 120_000}, "offline"),
        ({"lastHeartbeat": NOW_MS - 119_999.5}, "online"),
        ({"lastHeartbeat": NOW_MS + 60_000}, "online"),
        ({"lastHeartbeat": 0}, "offline"),
        ({"lastHeartbeat": None}, "offline"),
        ({"lastHeartbeat": None, "lastSeenAt": NOW_MS}, "offline"),
        ({"connectionId": None}, "offline"),
    ],
)
def test_online_is_a_connection_and_a_heartbeat_younger_than_120_s(changes: dict[str, Any], status: str) -> None:
    found = environment_of(row(**changes))

    assert (found.status, found.fields["status"], found.fields["online"]) == (status, status, status == "online")


def test_online_is_judged_at_the_moment_of_the_listing() -> None:
    raw = row(lastHeartbeat=NOW_MS)

    assert environment_of(raw, now=NOW + timedelta(seconds=119)).status == "online"
    assert environment_of(raw, now=NOW + timedelta(seconds=120)).status == "offline"


def test_online_only_leaves_out_the_extra_rows_of_the_api() -> None:
    rows = [row(id="a"), row(id="b", lastHeartbeat=NOW_MS - 500_000), row(id="c", connectionId=None)]

    assert sorted_out(rows) == (["a", "b", "c"], [])
    assert sorted_out(rows, online_only=True) == (["a"], [])


@pytest.mark.parametrize(
    ("self_update", "expected"),
    [
        ({"supported": True, "writable": True}, True),
        ({"supported": True, "writable": False}, False),
        ({"supported": False, "writable": True}, False),
    ],
)
def test_updatable_is_supported_and_writable(self_update: dict[str, bool], expected: bool) -> None:
    assert environment_of(row(metadata={"self_update": self_update})).fields["updatable"] is expected


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"id": 17}, "id"),
        ({"id": ""}, "id"),
        ({"deviceId": ""}, "deviceId"),
        ({"deviceId": None}, "deviceId"),
        ({"connectionId": 5}, "connectionId"),
        ({"connectionName": None}, "connectionName"),
        ({"lastHeartbeat": "a moment ago"}, "lastHeartbeat"),
        ({"lastHeartbeat": float("nan")}, "lastHeartbeat"),
        ({"lastHeartbeat": float("inf")}, "lastHeartbeat"),
        ({"lastHeartbeat": -1}, "lastHeartbeat"),
        ({"firstSeenAt": 253402300799001}, "firstSeenAt"),
        ({"firstSeenAt": 10**400}, "firstSeenAt"),
        ({"lastSeenAt": None}, "lastSeenAt"),
        ({"currentMode": ["standard"]}, "currentMode"),
        ({"metadata": ["linux"]}, "metadata"),
        ({"metadata": {"os": 5}}, "metadata.os"),
        ({"metadata": {"lettaCodeVersion": 0.34}}, "metadata.lettaCodeVersion"),
        ({"metadata": {"supported_commands": "clear"}}, "metadata.supported_commands"),
        ({"metadata": {"supported_commands": [None]}}, "metadata.supported_commands.0"),
        ({"metadata": {"self_update": {"supported": True}}}, "metadata.self_update.writable"),
        ({"metadata": {"self_update": []}}, "metadata.self_update"),
    ],
)
def test_an_invalid_row_is_reported_with_its_place_and_the_others_are_kept(changes: dict[str, Any], place: str) -> None:
    bad = row(id="bad", **changes) if "id" not in changes else row(**changes)

    valid, invalid = read_environments(Listing([row(id="a"), bad, row(id="b")], NOW), "https://api.letta.com")

    assert [found.id for found in valid] == ["a", "b"]
    assert [found.id for found in invalid] == ["number 2" if "id" in changes else "bad"]
    assert invalid[0].problem.startswith(f"{place}: ")
    assert "\n" not in invalid[0].problem


@pytest.mark.parametrize("raw", [None, "environment", 5, [], {}])
def test_a_row_other_than_an_object_is_reported_by_its_number(raw: Any) -> None:
    assert sorted_out([raw]) == ([], ["number 1"])


def test_the_longest_time_is_a_date() -> None:
    assert environment_of(row(firstSeenAt=253402300799000)).fields["first_seen_at"] == "9999-12-31T23:59:59.000Z"


def test_a_report_names_the_first_five_rows_on_one_line() -> None:
    rows = [row(id=f"bad\n{number}", deviceId=None) for number in range(7)]

    report = describe_invalid(read_environments(Listing(rows, NOW), "https://api.letta.com")[1])

    assert report.startswith("not as the API promises: environment bad 0: deviceId: Input should be a valid string, ")
    assert "bad 4" in report
    assert "bad 5" not in report
    assert report.endswith("; and 2 more")
    assert "\n" not in report


json_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5)
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


@given(
    st.lists(st.dictionaries(st.sampled_from([*row(), "metadata", "currentMode", "userId"]), json_values), max_size=3)
)
def test_any_json_is_a_valid_row_or_a_report(changes: list[dict[str, Any]]) -> None:
    rows = [row(**change) for change in changes]

    valid, invalid = read_environments(Listing(rows, NOW), "https://api.letta.com")

    assert len(valid) + len(invalid) == len(rows)
    for found in valid:
        json.dumps(found.fields, allow_nan=False)


# Outgoing messages


def parse_outgoing(option: str, entries: Sequence[Any]) -> list[dict[str, Any]]:
    """The value of an option, as the API takes it."""
    messages = parse_messages(option, entries)
    return [message.as_option() for message in messages]


def test_a_user_message_gets_an_id_that_is_also_its_otid() -> None:
    first, second = parse_outgoing("messages", [{"content": "a"}, {"role": "user", "content": "b"}])

    assert first.keys() == {"role", "content", "client_message_id", "otid"}
    assert (first["role"], first["content"]) == ("user", "a")
    assert first["client_message_id"] == first["otid"]
    assert first["client_message_id"] != second["client_message_id"]


def test_given_ids_are_kept() -> None:
    given_both = {"role": "user", "content": "a", "client_message_id": "m-1", "otid": "o-1"}

    assert parse_outgoing("messages", [given_both]) == [given_both]
    assert parse_outgoing("messages", [{"content": "a", "client_message_id": "m-1"}])[0]["otid"] == "m-1"


def test_content_may_be_text_parts() -> None:
    parts = [{"type": "text", "text": "a"}, {"text": ""}]

    sent = parse_outgoing("messages", [{"content": parts}])[0]

    assert sent["content"] == [{"type": "text", "text": "a"}, {"type": "text", "text": ""}]


def test_approvals_of_both_shapes() -> None:
    decision = {
        "type": "approval",
        "tool_call_id": "call-1",
        "approve": False,
        "reason": "no",
        "updated_input": {"path": None, "deep": {"a": [None]}},
    }
    tool = {
        "type": "tool",
        "tool_call_id": "call-2",
        "status": "success",
        "tool_return": [{"type": "text", "text": "done"}],
        "stdout": ["a"],
        "stderr": [],
    }
    message = {"type": "approval", "approvals": [decision, tool]}

    assert parse_outgoing("messages", [message]) == [message]


def test_approvals_may_be_as_short_as_the_api_allows() -> None:
    sent = parse_outgoing(
        "messages",
        [
            {
                "approvals": [
                    {"tool_call_id": "call-1", "approve": True},
                    {"tool_call_id": "call-2", "status": "error", "tool_return": "x"},
                ]
            }
        ],
    )

    assert sent == [
        {
            "type": "approval",
            "approvals": [
                {"type": "approval", "tool_call_id": "call-1", "approve": True},
                {"type": "tool", "tool_call_id": "call-2", "status": "error", "tool_return": "x"},
            ],
        }
    ]


@pytest.mark.parametrize(
    ("message", "place", "value"),
    [
        ("hello", "must be a dictionary", "'hello'"),
        (None, "must be a dictionary", "None"),
        ({}, "content: Field required", "{}"),
        ({"content": ""}, "content is empty", ""),
        ({"content": []}, "content is empty", ""),
        ({"content": 5}, "content", "got 5"),
        ({"content": None}, "content", "got None"),
        ({"content": [{"type": "image"}]}, "content", "image"),
        ({"content": [{"text": 5}]}, "content", "5"),
        ({"content": "a", "role": "system"}, "role: Input should be 'user'", "got 'system'"),
        ({"content": "a", "rol": "user"}, "rol: Extra inputs are not permitted", "got 'user'"),
        ({"content": "a", "client_message_id": ""}, "client_message_id", "got ''"),
        ({"content": "a", "client_message_id": 7}, "client_message_id", "got 7"),
        ({"content": "a", "otid": 7}, "otid", "got 7"),
        ({"approvals": []}, "approvals: List should have at least 1 item", "got []"),
        ({"type": "approval"}, "approvals: Field required", "got {'type': 'approval'}"),
        ({"approvals": [{"approve": True}]}, "approvals.0", "got {'approve': True}"),
        ({"approvals": [{"tool_call_id": "a", "approve": "perhaps"}]}, "approvals.0", "'perhaps'"),
        ({"approvals": [{"tool_call_id": "a", "approve": True, "why": 1}]}, "approvals.0", "got 1"),
        ({"approvals": "a"}, "approvals: Input should be a valid list", "got 'a'"),
        ({"content": "a", "approvals": [{"tool_call_id": "a", "approve": True}]}, "content: Extra inputs", "got 'a'"),
    ],
)
def test_a_message_of_unknown_shape_is_refused_with_its_place_and_value(message: Any, place: str, value: str) -> None:
    with pytest.raises(OptionError) as raised:
        parse_outgoing("messages", [{"content": "fine"}, message])

    assert str(raised.value).startswith("messages[1]: ")
    assert place in str(raised.value)
    assert value in str(raised.value)


@pytest.mark.parametrize("value", [float("nan"), [float("-inf")], NOW.date(), {"a": NOW}, b"bytes"])
def test_a_value_that_json_cannot_hold_is_refused_with_its_place(value: Any) -> None:
    approval = {"tool_call_id": "a", "approve": True, "updated_input": {"value": value}}

    with pytest.raises(OptionError, match=r"^messages\[1\]: holds what JSON cannot: "):
        parse_outgoing("messages", [{"content": "fine"}, {"approvals": [approval]}])


def test_no_message_at_all_is_refused() -> None:
    with pytest.raises(OptionError, match=r"^messages: must have at least one message$"):
        parse_outgoing("messages", [])


@given(
    st.lists(
        st.one_of(
            json_values,
            st.dictionaries(
                st.sampled_from(["role", "content", "client_message_id", "otid", "type", "approvals"]), json_values
            ),
        ),
        max_size=3,
    )
)
def test_any_value_is_a_message_or_refused(messages: list[Any]) -> None:
    with contextlib.suppress(OptionError):
        assert len(parse_outgoing("messages", messages)) == len(messages)
