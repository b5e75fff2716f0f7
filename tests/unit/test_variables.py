"""The check of the variables of playbooks and roles."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleetops.environments.plugins.module_utils.errors import OptionError
from ansible_collections.fleetops.environments.plugins.plugin_utils.variables import (
    check_names,
    convert_variable,
    find_variables,
    read_variables,
)

STOP = read_variables("stop")
NAMES = {"type": "list", "elements": "str", "default": []}


def _refusal(given: AbstractSet[str], listed: AbstractSet[str] = frozenset()) -> str | None:
    try:
        check_names("stop", STOP, given, listed)
    except OptionError as error:
        return str(error)
    return None


@pytest.mark.parametrize("given", [set(), {"stop_hosts"}, {"stops", "audit_hots", "letta_agent_id"}])
def test_variables_of_the_playbook_and_of_others_are_fine(given: set[str]) -> None:
    assert _refusal(given) is None


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("stop_host", "stop_hosts"),
        ("stop_htso", "stop_hosts"),
        ("stop_moed", "stop_mode"),
        ("stop_Hosts", "stop_hosts"),
    ],
)
def test_an_unknown_variable_of_the_run_is_refused_with_the_nearest(given: str, nearest: str) -> None:
    assert _refusal({given}) == f"{given}: stop has no such variable; {nearest!r} is nearest"


@pytest.mark.parametrize(
    ("given", "listed"),
    [
        ({"stpo_hosts"}, set()),
        ({"stophosts"}, set()),
        (set(), {"stop_host"}),
        (set(), {"stop_moed"}),
        (set(), {"sto_mode"}),
    ],
)
def test_what_is_nearly_a_variable_that_is_not_set_is_refused(given: set[str], listed: set[str]) -> None:
    assert str(_refusal(given, listed)).endswith("is nearest")


@pytest.mark.parametrize(
    ("given", "listed"),
    [(set(), {"stop_host", "stop_hosts"}), ({"stop_hosts"}, {"stop_host"}), (set(), {"stop_reason", "__stop_targets"})],
)
def test_other_variables_of_the_inventory_with_the_prefix_are_fine(given: set[str], listed: set[str]) -> None:
    assert _refusal(given, listed) is None


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz_", min_size=1))
def test_every_name_with_the_prefix_is_a_variable_or_refused(rest: str) -> None:
    name = f"stop_{rest}"

    assert (_refusal({name}) is None) == (name in STOP)
    assert _refusal({f"__{name}"}) == f"__{name}: is internal to stop, and cannot be set"


def test_a_playbook_of_a_role_has_the_variables_of_both() -> None:
    assert {"instruct_hosts", "instruct_content"} <= read_variables("instruct").keys()


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ instruct_content | default(omit) }}", ["instruct_content"]),
        ("{{ __stop.variables.stop_agent_id }}", ["stop_agent_id"]),
        (
            "{{ self_update_max_failures if x else self_update_canary_max_failures }}",
            ["self_update_canary_max_failures", "self_update_max_failures"],
        ),
        ("{{ __instruct_targets }} {{ instruct_contents }}", []),
        (5, []),
    ],
)
def test_variables_that_a_template_names(template: Any, expected: list[str]) -> None:
    assert find_variables(template) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [("a", ["a"]), ("a, b,c", ["a", "b", "c"]), (["a,b", 5], ["a,b", "5"]), ([], []), ("", []), (None, [])],
)
def test_a_list_may_be_a_text_with_commas(value: Any, expected: list[str]) -> None:
    assert convert_variable("names", NAMES, value) == expected


@pytest.mark.parametrize(
    ("rules", "value", "expected"),
    [
        ({"type": "int", "default": 5}, "", 5),
        ({"type": "int", "default": 5}, "7", 7),
        ({"type": "bool", "default": True}, "no", False),
        ({"type": "str", "default": "7d"}, "", ""),
        ({"type": "str", "default": "7d"}, None, "7d"),
        ({"type": "str", "default": "a", "choices": ["a", "b"]}, "", "a"),
        ({"type": "raw"}, {"a": ["b, c"]}, {"a": ["b, c"]}),
        ({"type": "dict", "default": {}}, {"a": "b"}, {"a": "b"}),
    ],
)
def test_a_value_gets_its_type_and_a_blank_one_the_default(rules: dict[str, Any], value: Any, expected: Any) -> None:
    assert convert_variable("it", rules, value) == expected


@pytest.mark.parametrize(
    ("rules", "value", "problem"),
    [
        (NAMES, 5, "it: must be a list, got 5"),
        (NAMES, {"a": 1}, "it: must be a list, got {'a': 1}"),
        (NAMES, [{"a": 1}], "it: must be a text, not a list or dictionary"),
        ({"type": "dict"}, "a=b", "it: must be a dict, got 'a=b'"),
        ({"type": "str", "choices": ["a", "b"]}, "c", "it: must be one of a, b, got 'c'"),
        ({"type": "int"}, "5.5", "it: must be of the type int, got '5.5'"),
    ],
)
def test_a_value_of_another_type_is_refused(rules: dict[str, Any], value: Any, problem: str) -> None:
    with pytest.raises(OptionError) as error:
        convert_variable("it", rules, value)

    assert str(error.value) == problem
