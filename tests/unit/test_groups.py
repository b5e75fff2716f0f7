"""Groups: one of each dimension for every row, one value for every group."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleetops.environments.plugins.inventory.letta import InventoryModule
from ansible_collections.fleetops.environments.plugins.module_utils.errors import OptionError
from ansible_collections.fleetops.environments.plugins.module_utils.text import shorten
from ansible_collections.fleetops.environments.plugins.plugin_utils.inventory.groups import (
    Groups,
    check_group_name,
    group_rows,
    reads_as_group,
)

VALID = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
DIMENSIONS = {dimension.name: dimension for dimension in InventoryModule.DIMENSIONS}
SINGLE = [name for name in DIMENSIONS if name != "command"]
SAMPLES = [
    "standard", "acceptEdits", "accept-edits", "accept.edits", "accept_edits", "unknown", "Unknown", "", "all", "_",
    "linux", "0.34.12", "0.34-12", "0.34.12-rc.1", "0.34.12-rc-1", "0.34_12", "0_34_12", "0.34", "0", "v0.34.12", "34",
    "0.34.12+build", "{{ 1 }}", "\N{SNOWMAN}", "\N{PILE OF POO}", "x" * 64, "x" * 65, "x" * 300, "a\0b",
]  # fmt: skip

versions = st.lists(st.integers(0, 12), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))
texts = st.one_of(st.none(), st.sampled_from(SAMPLES), st.text(max_size=20), versions)


@st.composite
def rows_of_fields(draw: st.DrawFn) -> list[dict[str, Any]]:
    text_fields = {
        dimension.field: texts
        for name, dimension in DIMENSIONS.items()
        if name not in ("status", "updatable", "command")
    }
    row = st.fixed_dictionaries(
        {
            **text_fields,
            "status": st.sampled_from(["online", "offline"]),
            "updatable": st.booleans(),
            "supported_commands": st.one_of(st.none(), st.lists(texts.filter(lambda text: text is not None))),
        }
    )
    return draw(st.lists(row, max_size=5))


def value_of(row: dict[str, Any], dimension: str) -> Any:
    return row[DIMENSIONS[dimension].field] or (False if dimension == "updatable" else None)


def groups_of(groups: Groups, index: int) -> set[str]:
    return {name for name, members in groups.members.items() if index in members}


@given(rows=rows_of_fields(), dimension=st.sampled_from(SINGLE), prefix=st.sampled_from(["", "fleet_"]))
def test_rows_share_a_group_exactly_when_they_share_the_value(
    rows: list[dict[str, Any]], dimension: str, prefix: str
) -> None:
    groups = group_rows(rows, [DIMENSIONS[dimension]], prefix)

    places = [groups_of(groups, index) for index in range(len(rows))]
    assert all(len(place) == 1 for place in places)
    for one, place in zip(rows, places, strict=True):
        for other, other_place in zip(rows, places, strict=True):
            assert (place == other_place) is (value_of(one, dimension) == value_of(other, dimension))


@given(rows=rows_of_fields())
def test_all_dimensions_together_make_the_same_groups_as_each_alone(rows: list[dict[str, Any]]) -> None:
    together = group_rows(rows, list(DIMENSIONS.values()), "")

    alone = [group_rows(rows, [dimension], "") for dimension in DIMENSIONS.values()]
    assert sum(len(groups.members) for groups in alone) == len(together.members)
    for groups in alone:
        assert groups.members.items() <= together.members.items()
        assert groups.parents.items() <= together.parents.items()


@given(rows=rows_of_fields(), prefix=st.sampled_from(["", "fleet_"]))
def test_every_name_is_one_that_ansible_allows(rows: list[dict[str, Any]], prefix: str) -> None:
    groups = group_rows(rows, list(DIMENSIONS.values()), prefix)

    for name in (*groups.members, *groups.parents, *groups.parents.values()):
        assert VALID.fullmatch(name)
        assert name.startswith(prefix)
        assert name not in ("all", "ungrouped")


@given(rows=rows_of_fields(), data=st.data())
def test_names_do_not_depend_on_the_order_of_the_rows(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(rows))))

    shuffled = group_rows([rows[index] for index in order], list(DIMENSIONS.values()), "")

    groups = group_rows(rows, list(DIMENSIONS.values()), "")
    assert shuffled.parents == groups.parents
    assert {name: {order[index] for index in members} for name, members in shuffled.members.items()} == {
        name: set(members) for name, members in groups.members.items()
    }


@given(rows=rows_of_fields())
def test_a_group_of_a_minor_version_holds_the_versions_of_that_minor_alone(rows: list[dict[str, Any]]) -> None:
    groups = group_rows(rows, [DIMENSIONS["version"]], "")

    for name, parent in groups.parents.items():
        for index in groups.members[name]:
            major_minor = ".".join(rows[index]["version"].split(".")[:2])
            assert parent == "version_" + major_minor.replace(".", "_")
        assert parent not in groups.members


@given(rows=rows_of_fields())
def test_a_row_is_in_one_group_for_each_command(rows: list[dict[str, Any]]) -> None:
    groups = group_rows(rows, [DIMENSIONS["command"]], "")

    for index, row in enumerate(rows):
        commands = {command or None for command in row["supported_commands"] or [None]}
        assert len(groups_of(groups, index)) == len(commands)


def names(field: str, *values: Any, dimension: str | None = None) -> list[str]:
    """The group of each value, with a row for each."""
    groups = group_rows([{field: value} for value in values], [DIMENSIONS[dimension or field]], "")
    return [next(iter(groups_of(groups, index))) for index in range(len(values))]


def test_groups_keep_the_words_of_the_api() -> None:
    assert names("mode", "standard", "acceptEdits") == ["mode_standard", "mode_acceptEdits"]
    assert names("os", "linux") == ["os_linux"]
    assert names("user_id", "user-1", dimension="user") == ["user_user_1"]


@pytest.mark.parametrize("prefix", ["", "fleet_"])
@pytest.mark.parametrize("others", [[], ["standard", "unrestricted"]])
def test_an_older_word_for_a_mode_lies_in_the_present_one(prefix: str, others: list[str]) -> None:
    modes = ["default", "bypassPermissions", "fullAccess", "plan", None, *others]

    groups = group_rows([{"mode": mode} for mode in modes], [DIMENSIONS["mode"]], prefix)

    assert groups.parents == {
        f"{prefix}mode_default": f"{prefix}mode_standard",
        f"{prefix}mode_bypassPermissions": f"{prefix}mode_unrestricted",
        f"{prefix}mode_fullAccess": f"{prefix}mode_unrestricted",
    }
    assert set(groups.members) == {f"{prefix}mode_{mode or 'unknown'}" for mode in modes}


@pytest.mark.parametrize("prefix", ["", "fleet_"])
def test_a_row_with_a_malformed_field_is_in_a_group_of_its_own(prefix: str) -> None:
    rows = [{"os": "linux", "invalid": []}, {"os": None, "invalid": ["os"]}, {"os": "linux"}]

    groups = group_rows(rows, [], prefix)

    assert groups.members == {f"{prefix}invalid": [1]}
    assert reads_as_group(f"{prefix}invalid", [], prefix)


def test_a_version_lies_in_its_minor_version() -> None:
    groups = group_rows([{"version": "0.34.12"}, {"version": "0.35.0-rc.1"}], [DIMENSIONS["version"]], "fleet_")

    assert groups.members == {"fleet_version_0_34_12": [0], "fleet_version_0_35_0_rc_1": [1]}
    assert groups.parents == {
        "fleet_version_0_34_12": "fleet_version_0_34",
        "fleet_version_0_35_0_rc_1": "fleet_version_0_35",
    }


@pytest.mark.parametrize("others", [[], ["0.34.12"]])
def test_a_value_that_only_looks_like_a_version_always_has_a_hash(others: list[str]) -> None:
    assert names("version", "0.34-12", *others)[0] == f"version_0_34_12_{shorten('0.34-12')}"


def test_a_version_of_two_parts_is_not_the_group_of_its_minor_version() -> None:
    groups = group_rows([{"version": "0.34"}, {"version": "0.34.12"}], [DIMENSIONS["version"]], "")

    assert groups.members == {f"version_0_34_{shorten('0.34')}": [0], "version_0_34_12": [1]}
    assert groups.parents == {"version_0_34_12": "version_0_34"}


def test_a_hashed_name_is_never_the_group_of_a_minor_version() -> None:
    # A version whose hash has digits only, and another one whose minor version is that hash.
    chosen = next(str(number) for number in range(10_000) if shorten(str(number)).isdigit())
    groups = group_rows(
        [{"version": chosen}, {"version": f"{chosen}.{shorten(chosen)}.0"}], [DIMENSIONS["version"]], ""
    )

    assert not set(groups.parents.values()) & groups.members.keys()


@pytest.mark.parametrize("missing", [None, ""])
def test_a_missing_value_is_unknown_and_the_word_unknown_is_another_group(missing: str | None) -> None:
    assert names("mode", missing, "unknown") == ["mode_unknown", f"mode_unknown_{shorten('unknown')}"]


def test_the_literal_value_keeps_the_name_that_others_would_share() -> None:
    assert names("mode", "accept.edits", "accept_edits", "accept-edits") == [
        f"mode_accept_edits_{shorten('accept.edits')}",
        "mode_accept_edits",
        f"mode_accept_edits_{shorten('accept-edits')}",
    ]


def test_a_long_value_is_cut_and_has_a_hash() -> None:
    assert names("git_branch", "x" * 65) == [f"git_branch_{'x' * 64}_{shorten('x' * 65)}"]


def test_status_and_updatable_have_names_of_their_own() -> None:
    assert names("status", "online", "offline") == ["online", "offline"]
    assert names("updatable", True, False) == ["updatable", "not_updatable"]


def test_a_host_is_in_the_group_of_each_of_its_commands_once() -> None:
    rows = [{"supported_commands": ["clear", "context-limit", "clear"]}, {"supported_commands": []}]

    assert group_rows(rows, [DIMENSIONS["command"]], "").members == {
        "command_clear": [0],
        "command_context_limit": [0],
        "command_unknown": [1],
    }


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a b", "all", "ungrouped", "\N{SNOWMAN}", "a\n"])
def test_a_group_name_that_ansible_does_not_allow_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match=r"^root_group: "):
        check_group_name("root_group", name)


def test_a_group_name_that_ansible_allows_is_kept() -> None:
    assert check_group_name("root_group", "_fleet1") == "_fleet1"
