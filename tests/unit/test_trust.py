"""Which of the API's values Ansible may treat as its own."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, is_trusted_as_template
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.models import FIELDS
from ansible_collections.fleetops.environments.plugins.plugin_utils.inventory.trust import mark_trusted, trust_own_text

PLAIN = ["linux", "0.34.12", "v22.19.0", "/home/dev/docs", "2026-01-31T12:00:00.000Z", "ada@example.com", "a:b+c-d_e"]
NOT_PLAIN = [
    "",
    " ",
    "two words",
    "{{ 1 }}",
    "{% raw %}",
    "a\n",
    "a\0",
    "$(id)",
    "`id`",
    "a;b",
    "a=b",
    "caf\xe9",
    "\N{ARABIC-INDIC DIGIT SEVEN}",
    "C:\\Users",
    "[1]",
    "'a'",
    "#",
    "~root",
    "a,b",
    "!unsafe",
    "a&b",
    "a|b",
    "*",
    "?",
    "<a>",
    "%",
]
IDENTIFIERS = [
    "id",
    "device_id",
    "connection_id",
    "listener_instance_id",
    "organization_id",
    "user_id",
    "pod_id",
    "mode",
    "effective_mode",
    "os",
    "version",
    "node_version",
    "status",
    "supported_commands",
]


@pytest.mark.parametrize("text", PLAIN)
def test_a_plain_text_is_trusted(text: str) -> None:
    value = mark_trusted("working_directory", text, "plain")

    assert value == text
    assert is_trusted_as_template(value)


@pytest.mark.parametrize("text", NOT_PLAIN)
def test_any_other_text_is_not_trusted(text: str) -> None:
    for name in FIELDS:
        for trust in ("plain", "identifiers", "none"):
            value = mark_trusted(name, text, trust)
            assert value == text
            assert not is_trusted_as_template(value)


@given(st.text())
def test_no_trusted_text_changes_as_a_template(text: str) -> None:
    value = mark_trusted("mode", text, "plain")

    assert bool(is_trusted_as_template(value)) is bool(re.fullmatch(r"[A-Za-z0-9._:/@+-]+", text))
    assert Templar(loader=DataLoader()).template(value) == text


@pytest.mark.parametrize("name", FIELDS)
def test_identifiers_are_ids_mode_os_versions_status_and_commands(name: str) -> None:
    trusted = mark_trusted(name, "linux", "identifiers")

    assert is_trusted_as_template(trusted) is (name in IDENTIFIERS)
    assert is_trusted_as_template(mark_trusted(name, "linux", "plain"))
    assert not is_trusted_as_template(mark_trusted(name, "linux", "none"))


def test_texts_in_lists_and_dictionaries_are_trusted_one_by_one_and_keys_are_not() -> None:
    raw: dict[str, Any] = {
        "machine": {"model": "MacBookPro18,3", "architecture": "arm64", "memory": 8, "none": None},
        "supported_commands": ["clear", "{{ 1 }}"],
    }

    value = mark_trusted("metadata", raw, "plain")

    assert value == raw
    assert is_trusted_as_template(value["machine"]["architecture"])
    assert not is_trusted_as_template(value["machine"]["model"])
    assert [is_trusted_as_template(text) for text in value["supported_commands"]] == [True, False]
    assert not any(is_trusted_as_template(key) for key in (*value, *value["machine"]))


@pytest.mark.parametrize("value", [None, True, 7, 1.5, [], {}])
def test_values_other_than_text_are_unchanged(value: Any) -> None:
    assert mark_trusted("mode", value, "plain") is value or mark_trusted("mode", value, "plain") == value


def test_the_collections_own_text_is_trusted() -> None:
    assert is_trusted_as_template(trust_own_text("https://api.letta.com"))
