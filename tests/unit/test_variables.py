"""The check of the variables of playbooks and roles."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Set as AbstractSet
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleetops.environments.plugins.module_utils.errors import OptionError
from ansible_collections.fleetops.environments.plugins.plugin_utils.variables import (
    check_modes,
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
        ({"sto_mode"}, set()),
    ],
)
def test_what_is_nearly_a_variable_that_is_not_set_is_refused(given: set[str], listed: set[str]) -> None:
    way_out = "; the inventory sets it, so set stop_\\w+ there, or rename it" if listed else ""
    assert re.search(rf"is nearest{way_out}$", str(_refusal(given, listed)))


def test_the_way_out_of_a_refused_variable_of_the_inventory_is_told() -> None:
    told = (
        "stop_host: stop has no such variable; 'stop_hosts' is nearest; the inventory sets it, so set stop_hosts there"
    )

    assert _refusal(set(), {"stop_host"}) == f"{told}, or rename it"


@pytest.mark.parametrize("listed", ["sto_mode", "shop_hosts", "stops_hosts", "step_hosts", "auditd_rules"])
def test_a_variable_of_the_inventory_without_the_prefix_is_another_roles(listed: str) -> None:
    assert _refusal(set(), {listed}) is None


@pytest.mark.parametrize("given", ["STOP_HOSTS", "Stop_hosts", "__STOP_targets"])
def test_capitals_make_no_other_variable(given: str) -> None:
    assert str(_refusal({given})).startswith(f"{given}: ")


def test_a_variable_that_is_like_none_is_refused_with_the_place_that_lists_them() -> None:
    assert str(_refusal({"stop_qqqqqqqqqqqqqqq"})).endswith(
        "stop has no such variable; meta/argument_specs.yml and roles/NAME/meta/argument_specs.yml of the collection "
        "list the variables"
    )


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
    [
        ("a", ["a"]),
        ("a, b,c", ["a", "b", "c"]),
        (["a,b", 5], ["a,b", "5"]),
        ([], []),
        ("", []),
        (None, []),
        ('["a"]', ["a"]),
        ("['a', \"b,c\"]", ["a", "b,c"]),
        ("[a, 5]", ["a", "5"]),
        ("[]", []),
        ("mcp_[ab],c", ["mcp_[ab]", "c"]),
        ('["[ab]c"]', ["[ab]c"]),
    ],
)
def test_a_list_may_be_a_text_with_commas(value: Any, expected: list[str]) -> None:
    assert convert_variable("names", NAMES, value) == expected


@pytest.mark.parametrize("text", ['["a"', "[ab]c", "a,['b']", '"a","b"', "{a: b}", '[ "a" ], b'])
def test_a_text_that_is_no_list_in_one_of_the_two_forms_is_refused(text: str) -> None:
    with pytest.raises(OptionError) as error:
        convert_variable("names", NAMES, text)

    assert str(error.value) == f'names: must be a list such as a,b or ["a","b"], got {text!r}'


@pytest.mark.parametrize("mode", ["unrestriced", "Unrestricted", "strct", "unrestricted strict", "supervised"])
def test_only_what_is_nearly_a_known_mode_is_refused(mode: str) -> None:
    refused: Any = contextlib.nullcontext() if mode == "supervised" else pytest.raises(OptionError)
    with refused as error:
        check_modes("modes", [mode, "strict"], ["unrestricted", "strict"])

    if mode != "supervised":
        assert str(error.value).startswith(f"modes: {mode!r} is no known mode, and ")


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
        (NAMES, "[{a: 1}]", "it: must be a text, not a list or dictionary"),
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
