"""What options mean everywhere: blank is unset, and the nearest source of a key is used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from ansible_collections.fleetops.environments.plugins.module_utils.errors import OptionError
from ansible_collections.fleetops.environments.plugins.module_utils.options import (
    CONNECTION_SPEC,
    convert_value,
    drop_blanks,
    is_blank,
    merge_connection_options,
    parse_share,
)
from ansible_collections.fleetops.environments.plugins.module_utils.providers.base import connection_settings
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.provider import PROVIDER
from ansible_collections.fleetops.environments.plugins.plugin_utils.options import forget_blank_environment


@pytest.mark.parametrize("value", [None, "", " ", "\n\t"])
def test_nothing_and_white_space_are_blank(value: Any) -> None:
    assert is_blank(value)


@pytest.mark.parametrize("value", [False, 0, 0.5, "00", "no", [], {}])
def test_every_other_value_is_a_value(value: Any) -> None:
    assert not is_blank(value)


def test_blank_options_are_left_out() -> None:
    assert drop_blanks({"a": "", "b": None, "c": False, "d": " x "}) == {"c": False, "d": " x "}


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([{"api_key": "a"}, {"api_key": "b"}], {"api_key": "a"}),
        ([{}, {"api_key": "b"}], {"api_key": "b"}),
        ([{"api_key": ""}, {"api_key": "b"}], {"api_key": "b"}),
        ([{"api_key_file": "a"}, {"api_key": "b"}], {"api_key_file": "a"}),
        ([{"api_key": "a"}, {"api_key_file": "b"}], {"api_key": "a"}),
        ([{"api_key": None, "api_key_file": " "}, {"api_key_file": "b"}, {"api_key": "c"}], {"api_key_file": "b"}),
        ([{"api_key": "a", "api_key_file": "b"}, {"api_key": "c"}], {"api_key": "a", "api_key_file": "b"}),
        ([{"validate_certs": ""}, {"validate_certs": False}], {"validate_certs": False}),
        ([{"retries": 0}, {"retries": 5}], {"retries": 0}),
        ([{"timeout": 1}, {"timeout": 2, "deadline": 3}], {"timeout": 1, "deadline": 3}),
        ([{"content": "a", "targets": []}], {}),
        ([], {}),
    ],
)
def test_the_first_source_that_has_an_option_is_used(layers: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    assert merge_connection_options(layers) == expected


values = st.sampled_from([None, "", " ", "a", "b", 0, False])


@for_all(st.lists(st.dictionaries(st.sampled_from(sorted(CONNECTION_SPEC)), values), max_size=4))
def test_each_option_comes_from_the_first_source_that_has_it(layers: list[dict[str, Any]]) -> None:
    options = merge_connection_options(layers)

    for name in CONNECTION_SPEC.keys() - {"api_key", "api_key_file"}:
        present = [layer[name] for layer in layers if not is_blank(layer.get(name))]
        assert (name in options) is bool(present)
        assert not present or options[name] == present[0]
    keys = [
        {name: layer[name] for name in ("api_key", "api_key_file") if not is_blank(layer.get(name))} for layer in layers
    ]
    found = {name: options[name] for name in ("api_key", "api_key_file") if name in options}
    assert found == next((key for key in keys if key), {})


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("bool", " Yes", True),
        ("bool", "0", False),
        ("bool", 1.0, True),
        ("int", "5", 5),
        ("int", 5.0, 5),
        ("float", "0.5", 0.5),
        ("str", 5, "5"),
        ("path", "$PLACE/key", "/place/key"),
        ("path", "~/key", "/home/of/tests/key"),
        ("raw", ["a"], ["a"]),
        ("bool", None, None),
    ],
)
def test_a_text_is_converted_to_the_type_of_its_option(
    monkeypatch: pytest.MonkeyPatch, kind: str, value: Any, expected: Any
) -> None:
    monkeypatch.setenv("PLACE", "/place")
    monkeypatch.setenv("HOME", "/home/of/tests")

    found = convert_value("option", value, kind)

    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        ("bool", "maybe", "must be of the type bool, got 'maybe'"),
        ("bool", [], "must be of the type bool"),
        ("int", "5.5", "must be of the type int, got '5.5'"),
        ("int", float("inf"), "must be of the type int"),
        ("float", "nan", "must be a number, got 'nan'"),
        ("float", ["1"], "must be a number"),
        ("str", {"key": "secret"}, "must be a text, not a list or dictionary$"),
        ("path", ["secret"], "must be a text, not a list or dictionary$"),
    ],
)
def test_a_value_of_another_type_is_refused(kind: str, value: Any, problem: str) -> None:
    with pytest.raises(OptionError, match=f"^option: {problem}"):
        convert_value("option", value, kind)


def test_settings_come_from_the_layers_then_the_environment_then_the_usual_values(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("key-of-the-file\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LETTA_API_KEY", "key-of-the-environment")
    monkeypatch.setenv("LETTA_RETRIES", "7")
    monkeypatch.setenv("LETTA_TIMEOUT", " ")

    plain = connection_settings(PROVIDER)
    layered = connection_settings(
        PROVIDER,
        {"api_key": " ", "validate_certs": "no", "deadline": None},
        {"api_key_file": "$HOME/key", "validate_certs": True, "retries": 1, "deadline": "60"},
        {"base_url": "http://127.0.0.1:8283", "retries": 2, "not_of_a_connection": 3},
    )

    assert (plain.base_url, plain.api_key) == ("https://api.letta.com", "key-of-the-environment")
    assert (plain.timeout, plain.retries, plain.deadline, plain.validate_certs) == (30, 7, 120, True)
    assert (layered.base_url, layered.api_key) == ("http://127.0.0.1:8283", "key-of-the-file")
    assert (layered.timeout, layered.retries, layered.deadline, layered.validate_certs) == (30, 1, 60, False)


def test_without_a_key_the_provider_says_how_to_give_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LETTA_API_KEY", raising=False)

    with pytest.raises(OptionError, match=r"^api_key: no key was given; set the option api_key or api_key_file"):
        connection_settings(PROVIDER, {"api_key": ""})


def test_variables_give_connection_options_by_their_names() -> None:
    variables = {"letta_api_key": "a", "letta_timeout": "{{ seconds }}", "letta_agent_id": "b", "qoder_retries": 1}

    assert PROVIDER.options_in_variables(variables) == {"api_key": "a", "timeout": "{{ seconds }}"}


def test_blank_environment_variables_are_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETTA_VALIDATE_CERTS", "")
    monkeypatch.setenv("LETTA_TIMEOUT", "  ")
    monkeypatch.setenv("LETTA_RETRIES", "0")

    forget_blank_environment(["LETTA_VALIDATE_CERTS", "LETTA_TIMEOUT", "LETTA_RETRIES", "LETTA_CA_PATH"])

    assert {name for name in os.environ if name.startswith("LETTA_")} == {"LETTA_RETRIES"}


def test_the_names_of_an_option() -> None:
    assert PROVIDER.variable_of("api_key") == "letta_api_key"
    assert PROVIDER.environment_variables_of("api_key") == ("LETTA_API_KEY",)


def test_the_help_names_every_way_to_give_a_key() -> None:
    assert all(word in PROVIDER.key_help for word in ("api_key_file", "letta_api_key", "LETTA_API_KEY"))


@pytest.mark.parametrize(
    ("value", "targets", "expected"),
    [
        ("0", 10, 0),
        ("5", 10, 5),
        (" 5 ", 10, 5),
        ("500", 10, 500),
        ("0%", 10, 0),
        ("10%", 25, 2),
        ("10 %", 9, 0),
        ("100%", 7, 7),
        ("50%", 0, 0),
    ],
)
def test_a_budget_is_a_count_or_a_share(value: str, targets: int, expected: int) -> None:
    assert parse_share("max_failures", value, targets) == expected


@pytest.mark.parametrize(
    "value", ["", "%", "-1", "1.5", "101%", "ten", "5%%", "\xb2", "\N{ARABIC-INDIC DIGIT SEVEN}", "+5"]
)
def test_a_budget_that_is_no_count_and_no_share_is_refused(value: str) -> None:
    with pytest.raises(OptionError, match=r"^max_failures: must be a count such as 5 or a percentage") as raised:
        parse_share("max_failures", value, 10)

    assert repr(value) in str(raised.value)
