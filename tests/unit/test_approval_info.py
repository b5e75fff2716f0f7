"""Waiting tool calls: which of them a tool's name selects, and how they are answered."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.fleetops.environments.plugins.filter.approval_answers import approval_answers
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.approvals import (
    decide_approvals,
    matches_tool,
)
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.approvals import find_requests
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.relay import Relay


@pytest.mark.parametrize(
    ("tool", "patterns", "expected"),
    [
        ("Bash", None, True),
        ("Bash", [], False),
        ("Bash", ["Read", "Bash"], True),
        ("Bash", ["B*"], True),
        ("Bash", ["b*"], False),
        ("Bash", ["Bas"], False),
        ("Bash\nRead", ["Bash"], False),
        ("Bash\nRead", ["Read"], False),
        ("mcp__files__read", ["mcp__*__read"], True),
        (None, ["Bash"], False),
        ({"of": "another shape"}, ["Bash"], False),
    ],
)
def test_a_tool_is_matched_by_its_whole_name(tool: Any, patterns: list[str] | None, expected: bool) -> None:
    assert matches_tool(tool, patterns) is expected


def _calls(*tools: str) -> list[dict[str, Any]]:
    return [{"tool_call_id": f"call-{number}", "tool_name": tool} for number, tool in enumerate(tools)]


def test_only_named_tools_are_answered_and_a_denial_has_priority() -> None:
    calls = _calls("Read", "Bash", "Write")

    assert decide_approvals(calls, [], [], "why") == []
    assert decide_approvals(calls, ["*"], ["Bash"], None) == [
        {"tool_call_id": "call-0", "approve": True},
        {"tool_call_id": "call-1", "approve": False},
        {"tool_call_id": "call-2", "approve": True},
    ]
    assert decide_approvals(calls, [], ["Bash"], "why") == [
        {"tool_call_id": "call-1", "approve": False, "reason": "why"}
    ]


def test_each_host_gets_its_own_answers() -> None:
    targets = [
        {"host": "one", "pending_approvals": _calls("Read")},
        {"host": "two", "pending_approvals": _calls("Bash")},
        {"host": "three", "pending_approvals": []},
    ]

    assert approval_answers(targets) == {}
    assert approval_answers(targets, ["Read"]) == {"one": [{"tool_call_id": "call-0", "approve": True}]}


def test_what_a_device_says_of_its_calls_keeps_no_other_call_from_being_answered() -> None:
    ids = ("call-1", "call-1", "\ud800", "call\n2", "call-3")
    calls = [{"tool_call_id": said, "tool_name": "Read"} for said in ids]

    answers = decide_approvals(calls, ["Read"], [], None)

    assert [answer["tool_call_id"] for answer in answers] == ["call-1", "call-3"]


@pytest.mark.parametrize("wrong", ["*", {"*": True}, 1, [1], None])
def test_a_value_other_than_a_list_of_names_allows_nothing(wrong: Any) -> None:
    with pytest.raises(AnsibleFilterError, match="allow: must be a list of names of tools"):
        approval_answers([], wrong)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (None, None),
        ("text", None),
        ([], []),
        (["text", {}, {"request": "text"}, {"request": {}}, {"request": {"tool_call_id": 7}}], []),
        (
            [{"request": {"tool_call_id": "call-1"}}],
            [{"request_id": None, "tool_call_id": "call-1", "tool_name": None, "arguments": None}],
        ),
    ],
)
def test_a_tool_call_of_unknown_shape_is_left_out(said: Any, expected: Any) -> None:
    relay = Relay.__new__(Relay)
    relay.device_status = {"pending_control_requests": said}

    assert find_requests(relay) == expected
