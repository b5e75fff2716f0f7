"""Writes each option of an inventory plugin, read from a source that has its value and from sources that render to it.

python -m tests.integration.source_process NAME DIRECTORY
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible import constants
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret, VaultSecretsContext
from ansible.plugins.loader import init_plugin_loader, inventory_loader

SECRETS = [("default", VaultSecret(b"not-a-secret"))]
OF_A_TYPE = {"int": 7, "float": 7.5, "path": "/a/path", "str": "a_text"}


class Vaulted(str):
    """A text that the source has in a vault."""

    __slots__ = ()


yaml.SafeDumper.add_representer(
    Vaulted,
    lambda dumper, text: dumper.represent_scalar("!vault", VaultLib(SECRETS).encrypt(text).decode(), style="|"),
)


def make_value(name: str, definition: Mapping[str, Any]) -> Any:
    """A value of an option that is not its default."""
    if name in ("compose", "groups"):
        return {"a_name": "{{ value }}"}
    if name == "keyed_groups":
        return [{"key": "{{ value }}"}]
    choices, kind = definition.get("choices"), definition.get("type", "str")
    if kind in ("list", "raw"):
        return [choices[-1] if choices else "id"]
    if kind.startswith("bool"):
        return not definition.get("default")
    return choices[-1] if choices else next(OF_A_TYPE[start] for start in OF_A_TYPE if kind.startswith(start))


def spell(value: Any) -> Iterator[tuple[str, Any]]:
    """Ways to write a value so that it has to be rendered. Expressions have none."""
    if "{{" in str(value):
        return
    yield "template", "{{ value }}"
    if isinstance(value, list):
        yield "template in a list", ["{{ value[0] }}"]
        yield "vaulted in a list", [Vaulted(value[0])]
    elif isinstance(value, str):
        yield "vaulted", Vaulted(value)


def read_option(plugin_name: str, directory: Path, option: str, given: Any, value: Any) -> Any:
    """An option as a plugin has it that reads a source with `given`. value: of the extra variable `value`."""
    source = directory / "source.yml"
    source.write_text(yaml.safe_dump({"plugin": plugin_name, option: given}))
    plugin = inventory_loader.get(plugin_name)
    plugin.loader, plugin._vars = DataLoader(), {"value": value}
    plugin._read_config_data(str(source))
    return plugin.get_option(option)


def main(plugin_name: str, directory: Path) -> None:
    init_plugin_loader()
    VaultSecretsContext.initialize(VaultSecretsContext(SECRETS))
    loaded = inventory_loader.get(plugin_name)
    shown: dict[str, Any] = {}
    # Core's own texts have a type that YAML does not write.
    known = constants.config.get_configuration_definitions("inventory", loaded._load_name)
    definitions: dict[str, Any] = json.loads(json.dumps(known))
    for option, definition in definitions.items():
        if option == "plugin":
            continue
        value = make_value(option, definition)
        expected = read_option(plugin_name, directory, option, value, value)
        found = {way: read_option(plugin_name, directory, option, given, value) for way, given in spell(value)}
        default = definition.get("default")
        shown[option] = {"value": value, "default": default, "expected": expected, "found": found}
    json.dump(shown, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
