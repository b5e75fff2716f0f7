"""What options mean everywhere: blank is unset, and the nearest source of a key counts."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from ansible_collections.fleetops.environments.plugins.module_utils.options import (
    CONNECTION_SPEC,
    blank,
    given,
    layered,
)
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.provider import PROVIDER
from ansible_collections.fleetops.environments.plugins.plugin_utils.options import forget_blank_environment


@pytest.mark.parametrize("value", [None, "", " ", "\n\t"])
def test_nothing_and_white_space_are_blank(value: Any) -> None:
    assert blank(value)


@pytest.mark.parametrize("value", [False, 0, 0.5, "00", "no", [], {}])
def test_every_other_value_is_a_value(value: Any) -> None:
    assert not blank(value)


def test_blank_options_are_left_out() -> None:
    assert given({"a": "", "b": None, "c": False, "d": " x "}) == {"c": False, "d": " x "}


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
def test_the_first_source_that_has_an_option_counts(layers: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    assert layered(layers) == expected


values = st.sampled_from([None, "", " ", "a", "b", 0, False])


@for_all(st.lists(st.dictionaries(st.sampled_from(sorted(CONNECTION_SPEC)), values), max_size=4))
def test_each_option_is_that_of_the_first_source_that_has_one(layers: list[dict[str, Any]]) -> None:
    options = layered(layers)

    for name in CONNECTION_SPEC.keys() - {"api_key", "api_key_file"}:
        present = [layer[name] for layer in layers if not blank(layer.get(name))]
        assert (name in options) is bool(present)
        assert not present or options[name] == present[0]
    keys = [
        {name: layer[name] for name in ("api_key", "api_key_file") if not blank(layer.get(name))} for layer in layers
    ]
    found = {name: options[name] for name in ("api_key", "api_key_file") if name in options}
    assert found == next((key for key in keys if key), {})


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
