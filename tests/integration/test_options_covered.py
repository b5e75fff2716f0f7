"""Every option of every plugin is specified, documented, and covered by a test that fails when it is ignored."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import CHECKOUT

COLLECTION = "fleetops.environments"
PLUGINS = {
    "letta": "inventory",
    "qoder": "inventory",
    "environments": "lookup",
    **{path.stem: "module" for path in sorted((CHECKOUT / "plugins/modules").glob("*.py"))},
}


def list_specified(plugin: str) -> set[str]:
    """The options in the code: an action's or a lookup's SPEC, a plugin's DOCUMENTATION with its fragments."""
    package = f"ansible_collections.{COLLECTION}.plugins"
    if PLUGINS[plugin] == "module":
        return set(importlib.import_module(f"{package}.action.{plugin}").ActionModule.SPEC)
    if PLUGINS[plugin] == "lookup":
        return {"_terms", *importlib.import_module(f"{package}.lookup.{plugin}").SPEC}
    documentation = yaml.safe_load(importlib.import_module(f"{package}.inventory.{plugin}").DOCUMENTATION)
    options = set(documentation["options"])
    for name in documentation["extends_documentation_fragment"]:
        namespace, collection, fragment, *section = name.split(".")
        where = "ansible.plugins" if (namespace, collection) == ("ansible", "builtin") else package
        module = importlib.import_module(f"{where}.doc_fragments.{fragment}")
        text = getattr(module.ModuleDocFragment, section[0].upper() if section else "DOCUMENTATION")
        options |= set(yaml.safe_load(text).get("options") or {})
    return options


def _list_documented(plugin: str) -> dict[str, Any]:
    """The options that `ansible-doc` shows."""
    name = f"{COLLECTION}.{plugin}"
    command = [str(Path(sys.executable).with_name("ansible-doc")), "-t", PLUGINS[plugin], "--json", name]
    shown = json.loads(subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout)
    options: dict[str, Any] = shown[name]["doc"]["options"]
    return options


def _claims() -> dict[str, set[str]]:
    """Plugin → options, from each `@pytest.mark.covers("plugin", "option", ...)` of the tests."""
    claims: dict[str, set[str]] = defaultdict(set)
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
                continue
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.covers":
                    plugin, *options = [ast.literal_eval(argument) for argument in decorator.args]
                    claims[plugin].update(options)
    return claims


def _claims_about(plugin: str) -> set[str]:
    """The options of a plugin that tests cover, directly or by a fragment: `covers("fragment targets", ...)`."""
    claims = _claims()
    found = set(claims[plugin])
    if PLUGINS[plugin] == "module" and "targets" in list_specified(plugin):
        for name in ("fragment targets", "fragment letta"):
            found |= claims[name] & list_specified(plugin)
    return found


@pytest.mark.parametrize("plugin", PLUGINS)
def test_every_option_is_documented_and_has_a_test(plugin: str) -> None:
    specified, claimed = list_specified(plugin), _claims_about(plugin)
    documented = _list_documented(plugin)

    assert set(documented) == specified
    assert specified - claimed == set(), f"options of {plugin} that no test claims to cover"
    assert claimed - specified == set(), f"what tests claim to cover, and {plugin} does not have"
    for name, option in documented.items():
        assert option.get("description"), name


def test_claims_are_about_plugins_that_exist() -> None:
    assert _claims().keys() <= {*PLUGINS, "fragment targets", "fragment letta"}


def test_suboptions_are_documented_as_they_are_specified() -> None:
    package = f"ansible_collections.{COLLECTION}.plugins.action"
    for plugin in (name for name, kind in PLUGINS.items() if kind == "module"):
        documented = _list_documented(plugin)
        for name, option in importlib.import_module(f"{package}.{plugin}").ActionModule.SPEC.items():
            assert set(documented[name].get("suboptions") or {}) == set(option.get("options") or {}), name
