"""The specifications, the documentation and the code name the same options."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import pytest
import yaml

from ansible_collections.fleetops.environments.plugins.doc_fragments.letta import ModuleDocFragment as Connection
from ansible_collections.fleetops.environments.plugins.inventory import letta as inventory
from ansible_collections.fleetops.environments.plugins.inventory import qoder as qoder_inventory
from ansible_collections.fleetops.environments.plugins.module_utils.options import CONNECTION_SPEC, ROWS_SPEC
from ansible_collections.fleetops.environments.plugins.module_utils.providers.letta.provider import PROVIDER
from ansible_collections.fleetops.environments.plugins.module_utils.providers.registry import list_providers
from tests.sandbox.process import CHECKOUT

COLLECTION = "ansible_collections.fleetops.environments.plugins"
MODULES = sorted(path.stem for path in (CHECKOUT / "plugins/modules").glob("*.py"))
FOR_MODULES = yaml.safe_load(Connection.DOCUMENTATION)
FOR_PLUGINS = yaml.safe_load(Connection.PLUGINS)

Options = dict[str, dict[str, Any]]


def documented_options(module: Any) -> Options:
    """A module's or plugin's documented options, with those of this collection's fragments."""
    documentation = yaml.safe_load(module.DOCUMENTATION)
    options: Options = dict(documentation["options"])
    for name in documentation["extends_documentation_fragment"]:
        if not name.startswith("fleetops.environments."):
            continue
        file, _dot, attribute = name.removeprefix("fleetops.environments.").partition(".")
        fragment = importlib.import_module(f"{COLLECTION}.doc_fragments.{file}").ModuleDocFragment
        shared = yaml.safe_load(getattr(fragment, (attribute or "documentation").upper()))
        for option, entry in shared.get("options", {}).items():
            # The options of the module itself override shared ones, as in Ansible.
            options[option] = {**entry, **options.get(option, {})}
    return options


def strip_descriptions(options: Options, *, sub: str) -> Options:
    """The specification of options, without their descriptions. sub: the key of suboptions."""
    meant: Options = {}
    for name, option in options.items():
        meant[name] = {key: option[key] for key in ("type", "default", "choices", "elements") if key in option}
        meant[name]["required"] = option.get("required", False)
        if sub in option:
            meant[name]["options"] = strip_descriptions(option[sub], sub=sub)
    return meant


@pytest.mark.parametrize("name", MODULES)
def test_a_modules_specification_is_its_documentation(name: str) -> None:
    module = importlib.import_module(f"{COLLECTION}.modules.{name}")

    assert strip_descriptions(_specification(name), sub="options") == strip_descriptions(
        documented_options(module), sub="suboptions"
    )


def test_every_action_belongs_to_a_module() -> None:
    assert sorted(path.stem for path in (CHECKOUT / "plugins/action").glob("*.py")) == MODULES


def test_a_providers_action_group_has_every_module_that_connects_to_it_and_no_other() -> None:
    """The defaults of a group are connection options, which fail in a module without them."""
    groups = yaml.safe_load((CHECKOUT / "meta/runtime.yml").read_text())["action_groups"]
    connecting = [name for name in MODULES if CONNECTION_SPEC.keys() <= _specification(name).keys()]

    assert sorted(groups) == sorted(list_providers())
    for provider, members in groups.items():
        assert sorted(members) == [name for name in connecting if provider in _providers(name)]


@pytest.mark.parametrize("name", MODULES)
def test_a_module_has_an_example_of_itself_and_describes_its_results(name: str) -> None:
    module = importlib.import_module(f"{COLLECTION}.modules.{name}")

    assert f"fleetops.environments.{name}:" in module.EXAMPLES
    yaml.safe_load(module.EXAMPLES)
    assert yaml.safe_load(module.RETURN)


def test_the_connection_options_are_the_same_in_modules_and_in_plugins() -> None:
    specified = strip_descriptions(CONNECTION_SPEC, sub="options")
    for_plugins = strip_descriptions(FOR_PLUGINS["options"], sub="suboptions")

    assert specified == strip_descriptions(FOR_MODULES["options"], sub="suboptions")
    # A module leaves it unset, because the URL that the target was listed from overrides the default.
    assert for_plugins["base_url"].pop("default") == PROVIDER.base_url
    assert specified == for_plugins
    assert FOR_MODULES["requirements"] == FOR_PLUGINS["requirements"]


@pytest.mark.parametrize("name", CONNECTION_SPEC)
def test_a_connection_option_has_its_variable_and_its_environment_variable(name: str) -> None:
    assert FOR_PLUGINS["options"][name]["env"] == [{"name": f"LETTA_{name.upper()}"}]
    assert FOR_PLUGINS["options"][name]["vars"] == [{"name": f"letta_{name}"}]
    described = " ".join(FOR_MODULES["options"][name]["description"])
    assert f"C(letta_{name})" in described
    assert f"E(LETTA_{name.upper()})" in described


def test_the_key_and_nothing_else_is_hidden() -> None:
    assert [name for name, option in CONNECTION_SPEC.items() if option.get("no_log")] == ["api_key"]


def test_requirements_are_those_of_the_collection() -> None:
    lines = (CHECKOUT / "requirements.txt").read_text().splitlines()
    required = {re.sub(r"([<>=]+)", r" \1 ", line.split(",")[0]) for line in lines if line and not line.startswith("#")}

    assert set(FOR_MODULES["requirements"]) == required


def test_every_documented_inventory_option_is_read() -> None:
    code = "".join(
        (CHECKOUT / path).read_text()
        for path in ("plugins/inventory/letta.py", "plugins/plugin_utils/inventory/base.py")
    )
    of_the_query = {field.name for field in fields(PROVIDER.query)} & documented_options(inventory).keys()
    read = {*re.findall(r'get_option\("(\w+)"\)', code), *CONNECTION_SPEC, *of_the_query}

    assert documented_options(inventory).keys() - read == {"plugin"}
    # The other options come from fragments of core, which reads some of them itself.
    cache = {"cache", "cache_plugin", "cache_connection", "cache_prefix"}
    assert read - documented_options(inventory).keys() <= cache | {"compose", "groups", "keyed_groups", "strict"}


def test_inventory_defaults_are_those_of_the_design() -> None:
    options = documented_options(inventory)

    assert {name: options[name].get("default") for name in options.keys() - CONNECTION_SPEC} == {
        "plugin": None,
        "connection": "none",
        "online_only": False,
        "source": None,
        "user_id": None,
        "page_size": 100,
        "filters": None,
        "hostnames": ["connection_name", "device_id"],
        "hostname_prefix": "",
        "on_duplicate": "suffix",
        "hostvars_prefix": "letta_",
        "group_by": ["mode", "os", "version", "status"],
        "group_prefix": "",
        "root_group": "letta",
        "trust": "plain",
        "volatile_variables": True,
        "on_invalid": "warn",
        "max_dropped_rows": "10%",
        "fail_on_empty": False,
    }


def test_qoders_defaults_are_those_of_the_design() -> None:
    options = documented_options(qoder_inventory)

    assert {name: options[name].get("default") for name in options.keys() - CONNECTION_SPEC} == {
        "plugin": None,
        "limit": 100,
        "after_id": None,
        "before_id": None,
        "include_archived": False,
        "created_at_gte": None,
        "created_at_lte": None,
        "filters": None,
        "hostnames": ["name", "id"],
        "hostname_prefix": "qoder-",
        "on_duplicate": "suffix",
        "hostvars_prefix": "qoder_",
        "group_by": ["status", "config_type", "networking_type", "archived"],
        "group_prefix": "",
        "root_group": "qoder",
        "trust": "plain",
        "volatile_variables": True,
        "on_invalid": "warn",
        "max_dropped_rows": "10%",
        "fail_on_empty": False,
    }


@pytest.mark.parametrize("plugin", [inventory, qoder_inventory])
def test_the_group_dimensions_are_the_documented_ones(plugin: Any) -> None:
    assert documented_options(plugin)["group_by"]["choices"] == [
        dimension.name for dimension in plugin.InventoryModule.DIMENSIONS
    ]


@pytest.mark.parametrize("option", CONNECTION_SPEC)
def test_each_connection_option_of_an_inventory_has_the_sources_of_its_provider(option: str) -> None:
    for plugin in (inventory, qoder_inventory):
        provider, entry = plugin.InventoryModule.PROVIDER, documented_options(plugin)[option]
        # Ansible takes the last of several options that are set.
        assert [place["name"] for place in entry["env"][::-1]] == list(provider.environment_variables_of(option))
        assert [place["name"] for place in entry["vars"]] == [provider.variable_of(option)]
        assert entry["type"] == CONNECTION_SPEC[option]["type"]
        assert entry.get("default") == CONNECTION_SPEC[option].get(
            "default", provider.base_url if option == "base_url" else None
        )


def test_the_options_of_a_listing_are_the_same_in_modules_and_in_the_inventory() -> None:
    of_module, of_inventory = (
        strip_descriptions(documented_options(one), sub="suboptions")
        for one in (_module("environment_info"), inventory)
    )

    for name in ("online_only", "source", "user_id", "filters", "max_dropped_rows"):
        assert of_module[name] == of_inventory[name]
    assert {name: of_module[name] for name in ROWS_SPEC} == strip_descriptions(ROWS_SPEC, sub="options")


def test_options_that_hold_expressions_are_never_split_at_commas() -> None:
    for options in map(documented_options, (inventory, qoder_inventory, _module("environment_info"))):
        for name in ("filters", "hostnames"):
            assert options.get(name, {"type": "raw"})["type"] == "raw"


def test_no_field_of_a_row_is_the_variable_of_an_option() -> None:
    for provider in (inventory.InventoryModule.PROVIDER, qoder_inventory.InventoryModule.PROVIDER):
        assert not set(provider.fields) & {*CONNECTION_SPEC, provider.agent, provider.conversation}


def _providers(name: str) -> Sequence[str]:
    """The names of the providers that a module supports."""
    only = importlib.import_module(f"{COLLECTION}.action.{name}").ActionModule.PROVIDERS
    return list_providers() if only is None else [provider.name for provider in only]


def _specification(name: str) -> Options:
    """What the action of a module checks its options by."""
    specification: Options = importlib.import_module(f"{COLLECTION}.action.{name}").ActionModule.SPEC
    return specification


def _module(name: str) -> Any:
    return importlib.import_module(f"{COLLECTION}.modules.{name}")
