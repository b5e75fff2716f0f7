"""docs/architecture.md: each file that it names is there, and each room's picture has every file of the room."""

from __future__ import annotations

import re
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
PAGE = (CHECKOUT / "docs/architecture.md").read_text()


def code_of(names: set[str]) -> str:
    return "".join((CHECKOUT / "plugins" / name).read_text() for name in names)


def test_every_file_of_a_room_is_in_the_picture() -> None:
    picture = set(re.findall(r"\w+", PAGE.split("```")[1]))
    files = {path for name in ("module_utils", "plugin_utils") for path in (CHECKOUT / "plugins" / name).rglob("*.py")}

    assert sorted(str(path.relative_to(CHECKOUT)) for path in files if path.stem not in picture) == []


def test_every_file_and_function_of_a_journey_is_there() -> None:
    _places, _space, journeys = PAGE.partition("## How a listing travels")
    journeys = journeys.partition("## Decisions")[0]
    named = set(re.findall(r"`([\w/]+\.py)`", journeys))
    files = {str(path.relative_to(CHECKOUT / "plugins")) for path in (CHECKOUT / "plugins").rglob("*.py")}
    resolved = {name: [path for path in files if path == name or path.endswith(f"/{name}")] for name in named}

    assert {name: found for name, found in resolved.items() if not found} == {}
    code = code_of({path for found in resolved.values() for path in found})
    for name in re.findall(r"`(?:Sender\.)?([a-z_]+)`", journeys):
        assert re.search(rf"\b{name}\b", code), f"{name} is in none of the files that the journeys name"
