"""Letta's rows coming in, and messages going out."""

from __future__ import annotations

import contextlib
import json
import re
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
from ansible_collections.fleetops.environments.plugins.module_utils.text import one_line

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
    """The ids of the environments and of the rows that are dropped."""
    valid, invalid = read_environments(Listing(rows, NOW), "https://api.letta.com", **options)
    return [found.id for found in valid], [found.id for found in invalid if found.dropped]


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
        "effective_mode": "acceptEdits",
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
        "invalid": [],
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


NAMES = {
    "deviceId": "device_id",
    "connectionName": "connection_name",
    "organizationId": "organization_id",
    "firstSeenAt": "first_seen_at",
    "lastSeenAt": "last_seen_at",
}


@pytest.mark.parametrize(("missing", "name"), NAMES.items())
def test_what_the_api_always_sends_is_named_where_it_is_missing(missing: str, name: str) -> None:
    raw = row()
    del raw[missing]

    [found], invalid = read_environments(Listing([raw], NOW), "https://api.letta.com")

    kind = "number" if name.endswith("_at") else "string"
    assert (found.fields[name], found.fields["invalid"], found.fields["metadata"]) == (None, [name], {})
    assert [(each.id, each.problem, each.dropped) for each in invalid] == [
        ("environment-1", f"{name}: Input should be a valid {kind}, got None", False)
    ]


@pytest.mark.parametrize("absent", [key for key in row() if key not in ("id", *NAMES)])
def test_a_nullable_key_that_is_absent_counts_as_null(absent: str) -> None:
    raw = row(**{absent: None})
    absent_raw = {key: value for key, value in raw.items() if key != absent}

    assert environment_of(absent_raw) == environment_of(raw)
    assert environment_of(absent_raw).fields["invalid"] == []


def test_a_row_without_a_device_keeps_its_connection() -> None:
    found = environment_of(row(deviceId=None))

    assert (found.id, found.device_id, found.connection_id, found.status) == (
        "environment-1", None, "connection-1", "online",
    )  # fmt: skip


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


@pytest.mark.parametrize("id_", [17, "", None, ["a"], {}, "environment-\N{REPLACEMENT CHARACTER}"])
def test_only_an_id_that_cannot_be_used_costs_a_row(id_: Any) -> None:
    valid, invalid = read_environments(Listing([row(id="a"), row(id=id_), row(id="b")], NOW), "https://api.letta.com")

    assert [found.id for found in valid] == ["a", "b"]
    assert [(found.id, found.dropped) for found in invalid] == [
        (id_ if isinstance(id_, str) and id_ else "number 2", True)
    ]
    assert invalid[0].problem.startswith("id: ")
    assert "\n" not in invalid[0].problem


SUPPORTED_ALONE = {"supported": True}


@pytest.mark.parametrize(
    ("changes", "name", "kept"),
    [
        ({"deviceId": ""}, "device_id", {"deviceId": ""}),
        ({"deviceId": None}, "device_id", {}),
        ({"deviceId": "\N{REPLACEMENT CHARACTER}"}, "device_id", {"deviceId": "\N{REPLACEMENT CHARACTER}"}),
        ({"connectionId": 5}, "connection_id", {"connectionId": 5}),
        ({"connectionName": None}, "connection_name", {}),
        ({"organizationId": 3}, "organization_id", {"organizationId": 3}),
        ({"podId": {}}, "pod_id", {"podId": {}}),
        ({"lastHeartbeat": "a moment ago"}, "last_heartbeat", {"lastHeartbeat": "a moment ago"}),
        ({"lastHeartbeat": -1}, "last_heartbeat", {"lastHeartbeat": -1}),
        ({"lastHeartbeat": f"{NOW_MS}.5"}, "last_heartbeat", {"lastHeartbeat": f"{NOW_MS}.5"}),
        ({"connectedAt": "1e3"}, "connected_at", {"connectedAt": "1e3"}),
        ({"lastSeenAt": True}, "last_seen_at", {"lastSeenAt": True}),
        ({"firstSeenAt": False}, "first_seen_at", {"firstSeenAt": False}),
        ({"userId": True}, "user_id", {"userId": True}),
        ({"firstSeenAt": 253402300799001}, "first_seen_at", {"firstSeenAt": 253402300799001}),
        ({"firstSeenAt": 10**400}, "first_seen_at", {"firstSeenAt": 10**400}),
        ({"lastSeenAt": None}, "last_seen_at", {}),
        ({"currentMode": ["standard"]}, "mode", {"currentMode": ["standard"]}),
        ({"metadata": ["linux"]}, "metadata", {"metadata": ["linux"]}),
        ({"metadata": {"os": 17}}, "os", {"os": 17}),
        ({"metadata": {"lettaCodeVersion": [1]}}, "version", {"lettaCodeVersion": [1]}),
        (
            {"metadata": {"supported_commands": "clear"}},
            "supported_commands", {"supported_commands": "clear"},
        ),
        (
            {"metadata": {"supported_commands": [None]}},
            "supported_commands", {"supported_commands": [None]},
        ),
        (
            {"metadata": {"self_update": SUPPORTED_ALONE}},
            "self_update", {"self_update": SUPPORTED_ALONE},
        ),
        ({"metadata": {"self_update": "yes"}}, "self_update", {"self_update": "yes"}),
    ],
)  # fmt: skip
def test_a_malformed_field_is_unknown_kept_as_it_was_sent_and_named(
    changes: dict[str, Any], name: str, kept: dict[str, Any]
) -> None:
    whole = {**WHOLE, **changes, "metadata": changes.get("metadata", WHOLE["metadata"])}
    if isinstance(whole["metadata"], dict):
        whole["metadata"] = WHOLE["metadata"] | whole["metadata"]

    [found], [reported] = read_environments(Listing([whole], NOW), "https://api.letta.com")

    usual = environment_of(WHOLE).fields
    assert found.fields["invalid"] == [name]
    assert found.fields["metadata"] == (kept if name == "metadata" else usual["metadata"] | kept)
    assert name == "metadata" or found.fields[name] is None
    of_others = {"invalid", "metadata", name, *({"online", "status"} if found.status == "offline" else ())}
    of_others |= {"effective_mode"} if name == "mode" else {"updatable"} if name == "self_update" else set()
    if name != "metadata":
        assert {key: value for key, value in found.fields.items() if key not in of_others} == {
            key: value for key, value in usual.items() if key not in of_others
        }
    assert (reported.id, reported.dropped) == (found.id, False)
    assert reported.problem.startswith(f"{name}: ")
    assert "\n" not in reported.problem
    json.dumps(found.fields, allow_nan=False)


def test_each_malformed_field_of_a_row_is_named() -> None:
    raw = row(
        metadata={"os": 17, "lettaCodeVersion": ["0.34"], "nodeVersion": "v22"}, currentMode=1, connectionName=None
    )

    [found], [reported] = read_environments(Listing([raw], NOW), "https://api.letta.com")

    assert found.fields["invalid"] == ["connection_name", "mode", "os", "version"]
    assert (found.fields["node_version"], found.status) == ("v22", "online")
    assert re.findall(r"(\w+): Input", reported.problem) == ["connection_name", "mode", "version", "os"]


def test_a_raw_value_never_takes_the_place_of_what_a_device_sent() -> None:
    fields = environment_of(row(currentMode=1, metadata={"currentMode": "good", "currentMode_": 2})).fields

    assert fields["metadata"] == {"currentMode": "good", "currentMode_": 2, "currentMode__": 1}


def test_a_long_raw_value_is_kept_as_the_beginning_of_its_json() -> None:
    fields = environment_of(row(metadata={"supported_commands": [1] * 10_000})).fields

    assert fields["metadata"]["supported_commands"].startswith("[1, 1, ")
    assert len(fields["metadata"]["supported_commands"]) == 1000


@pytest.mark.parametrize("value", ["yes", 1])
def test_a_device_that_is_updatable_in_another_word_is_not(value: Any) -> None:
    found = environment_of(row(metadata={"self_update": {"supported": value, "writable": True}}))

    assert (found.self_update, found.fields["updatable"], found.fields["invalid"]) == (None, False, ["self_update"])


@pytest.mark.parametrize(
    ("mode", "effective"),
    [
        ("default", "standard"),
        ("bypassPermissions", "unrestricted"),
        ("fullAccess", "unrestricted"),
        ("standard", "standard"),
        ("plan", "plan"),
        ("", ""),
        (None, None),
        (17, None),
    ],
)
def test_the_effective_mode_is_the_present_word(mode: Any, effective: str | None) -> None:
    assert environment_of(row(currentMode=mode)).fields["effective_mode"] == effective


@pytest.mark.parametrize("raw", [None, "environment", 5, [], {}])
def test_a_row_other_than_an_object_is_reported_by_its_number(raw: Any) -> None:
    assert sorted_out([raw]) == ([], ["number 1"])


def test_the_longest_time_is_a_date() -> None:
    assert environment_of(row(firstSeenAt=253402300799000)).fields["first_seen_at"] == "9999-12-31T23:59:59.000Z"


def test_a_report_names_the_first_five_rows_on_one_line() -> None:
    rows = [row(id=f"bad\n{number}", deviceId=17) for number in range(6)] + [row(id=17)]

    report = describe_invalid(read_environments(Listing(rows, NOW), "https://api.letta.com")[1])

    assert report.startswith(
        "not as the API promises: environment number 7 (dropped): id: Input should be a valid string"
    )
    assert "; environment bad 0: device_id: Input should be a valid string, got 17; " in report
    assert "bad 3" in report
    assert "bad 4" not in report
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
    st.lists(
        st.dictionaries(
            st.sampled_from([*row(), "metadata", "currentMode", "userId"]),
            json_values | st.dictionaries(st.sampled_from([*WHOLE["metadata"]]), json_values),
        ),
        max_size=3,
    )
)
def test_any_json_with_an_id_is_an_environment(changes: list[dict[str, Any]]) -> None:
    rows = [row(**change) for change in changes]

    valid, invalid = read_environments(Listing(rows, NOW), "https://api.letta.com")

    usable = [raw["id"] for raw in rows if isinstance(raw["id"], str) and raw["id"]]
    assert [found.id for found in valid] == usable
    assert sum(each.dropped for each in invalid) == len(rows) - len(usable)
    assert {each.id for each in invalid if not each.dropped} <= {one_line(id_, 80) for id_ in usable}
    for found in valid:
        assert tuple(found.fields) == FIELDS
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
