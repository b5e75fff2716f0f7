"""Data from a server become harmless, also when the whole JSON is checked instead of every text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleetops.environments.plugins.module_utils.http.sanitize import parse_json, sanitize

KEYS = ["sk-spruce-0123456789", 'sk-"quoted"-0123', "sk/slashed/0123", "sk\\escaped\\0123", "short"]
HOSTILE = ["__ansible_unsafe", "__ansible", "\ud83d", "\\u", "C:\\users", "/", '"', *KEYS]

texts = st.lists(st.sampled_from(HOSTILE) | st.text(max_size=3), max_size=3).map("".join)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def spelt(value: Any, *, in_escapes: bool) -> str:
    """A value as JSON; in_escapes: with a letter and the slash written as escapes."""
    text = json.dumps(value)
    return text.replace("k", "\\u006b").replace("/", "\\/") if in_escapes else text


@given(value=values, key=st.sampled_from(KEYS), in_escapes=st.booleans())
def test_decoding_json_gives_the_same_as_checking_every_text(value: Any, key: str, in_escapes: bool) -> None:
    text = spelt(value, in_escapes=in_escapes)

    assert parse_json(text, key) == sanitize(json.loads(text), key)


@pytest.mark.parametrize("in_escapes", [False, True])
@pytest.mark.parametrize("key", KEYS)
def test_the_key_is_left_out_in_every_spelling(key: str, in_escapes: bool) -> None:
    text = spelt({"a": [f"x {key} y"]}, in_escapes=in_escapes)

    assert parse_json(text, key) == {"a": ["x ******** y" if len(key) >= 8 else f"x {key} y"]}


@pytest.mark.parametrize("depth", [63, 64, 65, 200])
@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a":', "}")])
def test_values_nested_too_deep_are_left_out(depth: int, begin: str, end: str) -> None:
    text = begin * depth + "1" + end * depth

    found = parse_json(text, KEYS[0])

    assert found == sanitize(json.loads(text), KEYS[0])
    assert (found == json.loads(text)) == (depth <= 64)


@pytest.mark.parametrize("text", ["", "NaN", "[Infinity]", "1e999", "{", "[" * 100_000])
def test_invalid_json_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"JSON|Expecting|too deep"):
        parse_json(text, KEYS[0])
