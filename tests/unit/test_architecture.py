"""The rooms of the collection: what each one may import, and how much a reader sees at once."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[2] / "plugins"
LONGEST_FILE = 400
DOCUMENTATION = {"DOCUMENTATION", "EXAMPLES", "RETURN"}
WORDS = {"_deps", "environment", "errors", "files", "filters", "options", "stop", "text", "versions"}
# Room of module_utils → the rooms that it may import besides itself. The words may import each other.
MAY_IMPORT = {
    "words": set(),
    "http": {"words"},
    "providers": {"words", "http"},
    "ledger": {"words"},
    "fleet": {"words", "http", "providers"},
    "campaigns": {"words", "http", "providers", "fleet", "ledger"},
    "rollouts": {"words", "http", "providers", "fleet", "ledger"},
    "report": {"words"},
}
THIRD_PARTY = {"aiohttp", "httpx", "jmespath", "pydantic", "semantic_version", "yarl"}
PLUGIN_FOLDERS = {"action", "connection", "filter", "inventory", "lookup", "modules"}
# What a device does over Letta's relay. Everything else works with any provider.
FOR_LETTA_ALONE = {
    *(f"action.{name}" for name in ("approval_info", "environment_command", "environment_mode", "environment_turn")),
    *(f"action.{name}" for name in ("reply_info", "rollout", "self_update", "wait_for_environment")),
    "inventory.letta",
    *(f"module_utils.fleet.{name}" for name in ("approvals", "command", "device_work", "jobs", "mode", "turn")),
    *(f"module_utils.fleet.{name}" for name in ("drain", "update", "wait")),
    "module_utils.rollouts.preflight",
    "plugin_utils.actions.everywhere",
    "plugin_utils.actions.messages",
    "plugin_utils.connection",
}
# All other modules use httpx.
IMPORT_AIOHTTP = {"module_utils.http.transport", "module_utils.providers.letta.relay"}


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Each Python file below plugins/, by its dotted name there."""
    for path in sorted(PLUGINS.rglob("*.py")):
        yield ".".join(path.relative_to(PLUGINS).with_suffix("").parts), ast.parse(path.read_text())


def imports_of(name: str, tree: ast.Module) -> Iterator[str]:
    """The dotted names that a module imports from plugins/ and from Ansible, also those for types only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = name.split(".")[: -node.level] if node.level else []
            place = [*above, *(node.module or "").split(".")] if node.module else above
            for alias in node.names:
                whole = PLUGINS.joinpath(*place, f"{alias.name}.py")
                yield ".".join([*place, alias.name] if node.level and whole.exists() else place)


IMPORTS = {name: sorted(set(imports_of(name, tree))) for name, tree in modules()}


def room_of(name: str) -> str | None:
    """The room of module_utils that a module is in, None for one outside."""
    parts = name.split(".")
    if parts[0] != "module_utils":
        return None
    return "words" if len(parts) == 2 else parts[1]


def test_every_room_is_known() -> None:
    rooms = {room_of(name) for name in IMPORTS} - {None}
    assert rooms == set(MAY_IMPORT)
    assert {name.split(".")[1] for name in IMPORTS if room_of(name) == "words"} == WORDS


@pytest.mark.parametrize("name", [name for name in IMPORTS if room_of(name)])
def test_a_module_imports_only_rooms_that_its_room_may(name: str) -> None:
    room = room_of(name)
    assert room is not None
    for imported in IMPORTS[name]:
        assert imported.split(".")[0] not in ("ansible", "plugin_utils"), f"{name} imports {imported}"
        other = room_of(imported)
        assert other in {None, room, *MAY_IMPORT[room]}, f"{name} imports {imported}: {room} may not import {other}"


def test_third_party_packages_come_from_deps() -> None:
    for name, imported in IMPORTS.items():
        found = THIRD_PARTY & {other.split(".")[0] for other in imported}
        assert not found or name == "module_utils._deps", f"{name} imports {found}, which may be missing"


def test_plugin_utils_imports_no_plugin() -> None:
    for name, imported in IMPORTS.items():
        found = [other for other in imported if other.split(".")[0] in PLUGIN_FOLDERS]
        assert not found or not name.startswith("plugin_utils"), f"{name} imports {found}"


def test_a_room_names_a_provider_only_for_work_over_its_relay() -> None:
    for provider in ("letta", "qoder"):
        place = f"module_utils.providers.{provider}"
        named = {name for name, imported in IMPORTS.items() if any(other.startswith(place) for other in imported)}
        own = {name for name in named if name.startswith(place)} | {f"inventory.{provider}"}
        assert named - own <= (FOR_LETTA_ALONE if provider == "letta" else set())


def test_providers_do_not_import_each_other() -> None:
    providers = [path.name for path in (PLUGINS / "module_utils/providers").iterdir() if path.is_dir()]
    for name, imported in IMPORTS.items():
        for provider in providers:
            place = f"module_utils.providers.{provider}."
            wrong = [
                other
                for other in imported
                if name.startswith(place)
                and other.startswith("module_utils.providers.")
                and other.split(".")[2] in set(providers) - {provider}
            ]
            assert not wrong, f"{name} imports {wrong}"


def test_httpx_is_the_client_and_knows_addresses() -> None:
    for name, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").endswith("_deps"):
                others = {"aiohttp", "yarl"} & {alias.name for alias in node.names}
                assert not others or name in IMPORT_AIOHTTP, f"{name} imports {others}"
            if isinstance(node, ast.ImportFrom) and node.module == "urllib.parse":
                assert {alias.name for alias in node.names} == {"quote"}, f"{name} takes addresses apart by itself"
            assert not isinstance(node, ast.Import) or "urllib.parse" not in {alias.name for alias in node.names}, name


def test_nothing_imports_itself_in_a_circle() -> None:
    try:
        graphlib.TopologicalSorter(IMPORTS).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(error.args[1]))


def test_no_module_imports_a_private_name_of_another() -> None:
    private = [
        f"{name} imports {alias.name} of {node.module}"
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
        if alias.name.startswith("_") and alias.name != "_deps"
    ]
    assert not private, private


@pytest.mark.parametrize(("folder", "most"), [("module_utils", 16), ("plugin_utils", 9)])
def test_a_reader_sees_few_names_at_a_time(folder: str, most: int) -> None:
    names = sorted(path.name for path in (PLUGINS / folder).iterdir() if path.name != "__pycache__")
    assert len(names) <= most, names


def test_no_file_is_long() -> None:
    for path in PLUGINS.rglob("*.py"):
        if path.parent.name == "doc_fragments":
            continue
        text = path.read_text()
        documentation = sum(
            (node.end_lineno or 0) - node.lineno + 1
            for node in ast.parse(text).body
            if isinstance(node, ast.Assign)
            and any(isinstance(target, ast.Name) and target.id in DOCUMENTATION for target in node.targets)
        )
        lines = len(text.splitlines()) - documentation
        assert lines <= LONGEST_FILE, f"{path.relative_to(PLUGINS)} has {lines} lines"
