"""Host names are usable, unique and harmless, however a device names itself."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleetops.environments.plugins.module_utils.errors import OptionError
from ansible_collections.fleetops.environments.plugins.module_utils.text import add_hash
from ansible_collections.fleetops.environments.plugins.plugin_utils.inventory.names import (
    assign_names,
    choose_name,
    describe_rivals,
    find_keepers,
    to_host_name,
)

USABLE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")
RESERVED = ("all", "ungrouped", "localhost", "127.0.0.1", "::1", "_meta")
HOSTILE = (
    *RESERVED,
    "LocalHost",
    "ALL",
    "a:b",
    "a b",
    "../..",
    ".hidden",
    "--list",
    "-",
    ".",
    "_",
    "{{ lookup('pipe', 'id') }}",
    "nul\0nul",
    "\N{PILE OF POO}",
    "e\u0301",
    "\u2028",
    "",
    "x" * 600,
    "x" * 255,
    "x" * 254 + ":",
    "alpha",
    "beta",
    "web[1:3]",
    "!alpha",
    "&alpha",
    "*",
)

names = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=40), st.text("ab", min_size=1, max_size=2))
values = st.one_of(names, st.none(), st.booleans(), st.integers(), st.floats(), st.lists(names, max_size=1))
ids = st.one_of(st.integers(1, 9).map("environment-{}".format), st.text(min_size=1, max_size=12))


@st.composite
def fleets(draw: st.DrawFn) -> dict[str, list[Any]]:
    """Environment id → the values that may name it; some equal the suffixed name of another environment."""
    fleet = draw(st.dictionaries(ids, st.lists(values, max_size=3), max_size=8))
    for identity in draw(st.lists(st.sampled_from(sorted(fleet)), unique=True)) if fleet else []:
        victim = draw(st.sampled_from(sorted(fleet)))
        taken = choose_name(fleet[victim], "", victim)
        codes = list(add_hash(taken, victim, separator="-", longest=255))
        fleet[identity] = [draw(st.sampled_from(codes[:3]))]
    return fleet


forbidden_sets = st.sets(st.one_of(names, st.sampled_from(["mode_standard", "online", "letta"])), max_size=6)
prefixes = st.one_of(st.just(""), st.sampled_from(["letta-", "-", ".", "\N{SNOWMAN}", "p" * 300]), st.text(max_size=6))


def name_hosts(fleet: dict[str, list[Any]], forbidden: set[str], prefix: str = "") -> dict[str, str]:
    wanted = {identity: choose_name(candidates, prefix, identity) for identity, candidates in fleet.items()}
    return assign_names(wanted, forbidden, "suffix")


@given(fleet=fleets(), forbidden=forbidden_sets, prefix=prefixes)
def test_every_environment_gets_one_usable_name_of_its_own(
    fleet: dict[str, list[Any]], forbidden: set[str], prefix: str
) -> None:
    hosts = name_hosts(fleet, forbidden, prefix)

    assert hosts.keys() == fleet.keys()
    assert len(set(hosts.values())) == len(fleet)
    for name in hosts.values():
        assert USABLE.fullmatch(name)
        assert name not in forbidden
        assert name.casefold() not in RESERVED


@given(fleet=fleets(), forbidden=forbidden_sets, data=st.data())
def test_names_do_not_depend_on_the_order_of_the_rows(
    fleet: dict[str, list[Any]], forbidden: set[str], data: st.DataObject
) -> None:
    shuffled = dict(data.draw(st.permutations(list(fleet.items()))))

    assert name_hosts(shuffled, forbidden) == name_hosts(fleet, forbidden)


@given(fleet=fleets(), forbidden=forbidden_sets)
def test_a_usable_name_without_a_collision_is_unchanged(fleet: dict[str, list[Any]], forbidden: set[str]) -> None:
    wanted = {identity: choose_name(candidates, "", identity) for identity, candidates in fleet.items()}
    hosts = assign_names(wanted, forbidden, "suffix")

    for identity, name in wanted.items():
        alone = list(wanted.values()).count(name) == 1
        free = name not in forbidden and name.casefold() not in RESERVED
        assert (hosts[identity] == name) is (alone and free)


@given(fleet=fleets(), forbidden=forbidden_sets)
def test_fail_mode_raises_exactly_when_suffix_mode_would_change_a_name(
    fleet: dict[str, list[Any]], forbidden: set[str]
) -> None:
    wanted = {identity: choose_name(candidates, "", identity) for identity, candidates in fleet.items()}
    if assign_names(wanted, forbidden, "suffix") == wanted:
        assert assign_names(wanted, forbidden, "fail") == wanted
    else:
        with pytest.raises(OptionError, match=r"^on_duplicate: "):
            assign_names(wanted, forbidden, "fail")


@given(fleet=fleets(), forbidden=forbidden_sets, data=st.data())
def test_one_environment_at_most_keeps_a_shared_name(
    fleet: dict[str, list[Any]], forbidden: set[str], data: st.DataObject
) -> None:
    wanted = {identity: choose_name(candidates, "", identity) for identity, candidates in fleet.items()}
    ranks = {identity: data.draw(st.none() | st.integers(0, 2)) for identity in wanted}

    keepers = find_keepers(wanted, ranks)
    hosts = assign_names(wanted, forbidden, "first_seen", keepers)

    assert len(set(hosts.values())) == len(fleet)
    for identity, name in wanted.items():
        rivals = [ranks[other] for other, same in wanted.items() if same == name and other != identity]
        rank = ranks[identity]
        first = rank is not None and all(other is None or other > rank for other in rivals)
        free = name not in forbidden and name.casefold() not in RESERVED
        assert (identity in keepers) is first
        assert (hosts[identity] == name) is (free and (first or not rivals))


@pytest.mark.parametrize(
    ("ranks", "keepers"),
    [
        ({"id-1": "2026-01-02T00:00:00.000Z", "id-2": "2026-01-01T00:00:00.000Z", "id-3": None}, {"id-2"}),
        ({"id-1": "2026-01-01T00:00:00.000Z", "id-2": "2026-01-01T00:00:00.000Z", "id-3": None}, set()),
        ({"id-1": None, "id-2": None, "id-3": None}, set()),
        ({"id-1": None, "id-2": 0, "id-3": None}, {"id-2"}),
        ({"id-1": 0, "id-2": 0, "id-3": None}, set()),
    ],
)
def test_the_lowest_rank_keeps_a_name_and_equal_ones_do_not(ranks: dict[str, Any], keepers: set[str]) -> None:
    assert find_keepers(dict.fromkeys(ranks, "alpha"), ranks) == keepers


def test_rivals_are_one_line_of_the_first_names_each_with_its_first_five_ids_and_how_many_more() -> None:
    wanted = {f"id-{number}\n{'x' * 100}": f"{number // 7}{'a' * 255}" for number in range(28)}

    line = describe_rivals(wanted, wanted.keys() - set(list(wanted)[7:14]), most=2)

    assert line.isprintable()
    assert len(line) < 1000
    assert [number for number in range(28) if f"id-{number} " in line] == [0, 1, 2, 3, 4, 14, 15, 16, 17, 18]
    assert line.count(", and 2 more)") == 2
    assert line.endswith("; and 1 more")


def test_an_environment_whose_names_are_all_taken_is_an_error() -> None:
    taken = {"alpha", *add_hash("alpha", "id-1", separator="-")}

    with pytest.raises(OptionError, match=r"^hostname_prefix: all names for the environment id-1 are taken, as many"):
        assign_names({"id-1": "alpha"}, taken, "suffix")


@given(values)
def test_a_safe_name_is_a_usable_name_or_none(value: Any) -> None:
    name = to_host_name(value)

    assert name is None or USABLE.fullmatch(name)


def test_every_colliding_environment_gets_a_suffix_and_none_keeps_the_plain_name() -> None:
    hosts = assign_names({"id-1": "alpha", "id-2": "alpha", "id-3": "beta"}, set(), "suffix")

    assert hosts["id-3"] == "beta"
    for identity in ("id-1", "id-2"):
        assert re.fullmatch(r"alpha-[0-9a-f]{8}", hosts[identity])


def test_the_name_of_a_static_host_collides_too() -> None:
    assert assign_names({"id-1": "web1"}, {"web1"}, "suffix")["id-1"].startswith("web1-")


def test_a_device_that_uses_the_suffixed_name_of_another_causes_no_collision() -> None:
    first = next(add_hash("alpha", "id-1", separator="-"))

    hosts = assign_names({"id-1": "alpha", "id-2": "alpha", "id-3": first}, set(), "suffix")

    assert hosts["id-3"] == first
    assert len(set(hosts.values())) == 3


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("alpha-1.b_c", "alpha-1.b_c"),
        ("a:b", "a_b"),
        ("../..", None),
        ("--list", "list"),
        ("x" * 600, "x" * 255),
        ("\N{PILE OF POO}", None),
        ("", None),
        (None, None),
        (True, None),
        (["alpha"], None),
        (7, "7"),
    ],
)
def test_safe_names(value: Any, expected: str | None) -> None:
    assert to_host_name(value) == expected


def test_the_first_usable_value_names_the_host() -> None:
    assert choose_name([None, "\N{PILE OF POO}", "device-1", "other"], "", "id-1") == "device-1"


def test_the_prefix_is_put_before_the_name() -> None:
    assert choose_name(["alpha"], "letta-", "id-1") == "letta-alpha"


def test_an_environment_without_a_usable_value_is_named_by_its_id() -> None:
    name = choose_name([None, "..."], "", "id-1")

    assert re.fullmatch(r"environment-[0-9a-f]{8}", name)
    assert name != choose_name([None], "", "id-2")


def test_fail_mode_names_the_first_five_environments() -> None:
    with pytest.raises(OptionError) as raised:
        assign_names({f"id-{number}": "alpha" for number in range(7)}, set(), "fail")

    assert "alpha (id-0, " in str(raised.value)
    assert "id-5" not in str(raised.value)
