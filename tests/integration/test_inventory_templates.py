"""Options of an inventory source as templates and vaulted values: rendered alike, before anything uses them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import CHECKOUT, Ansible
from .test_options_covered import list_specified

EXPRESSIONS = {"compose", "groups", "keyed_groups"}


@pytest.mark.parametrize("provider", ["letta", "qoder"])
def test_every_option_that_is_no_expression_is_rendered(
    provider: str, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """Each option of the plugin's documentation, so that a new one is covered."""
    command = [sys.executable, "-m", "tests.integration.source_process", f"fleetops.environments.{provider}"]
    done = subprocess.run([*command, str(tmp_path)], cwd=CHECKOUT, capture_output=True, text=True, check=True)

    options: dict[str, Any] = json.loads(done.stdout)
    assert options.keys() == list_specified(provider) - {"plugin"}
    for name, option in options.items():
        with subtests.test(name):
            assert option["expected"] != option["default"]
            assert bool(option["found"]) is (name not in EXPRESSIONS)
            assert option["found"] == dict.fromkeys(option["found"], option["expected"])


@pytest.mark.covers("letta", "user_id", "filters", "hostname_prefix", "page_size", "cache", "cache_connection")
def test_rendered_options_take_effect(ansible: Ansible) -> None:
    users = [entry["row"].get("userId") for entry in ansible.sandbox.fleet()]
    user = next(user for user in users if user)
    cache = ansible.directory / "cache"
    source = ansible.source(
        user_id="{{ user }}",
        filters=["contains(['{{ systems | join(\"', '\") }}'], os)", "{os: os} && `true`"],
        hostname_prefix="{{ user }}-",
        page_size="{{ 3 + 4 }}",
        cache="{{ 1 == 1 }}",
        cache_plugin="{{ 'ansible.builtin.' ~ kind }}",
        cache_connection="{{ inventory_cache }}",
    )
    extra = {"user": user, "systems": ["linux", "darwin"], "kind": "jsonfile", "inventory_cache": str(cache)}

    first = ansible.inventory("--list", "-e", json.dumps(extra), source=source)
    second = ansible.inventory("--list", "-e", json.dumps(extra), source=source)

    first.assert_quiet()
    hosts = json.loads(first.stdout)["_meta"]["hostvars"]
    assert hosts
    assert all(name.startswith(f"{user}-") for name in hosts)
    assert {host["letta_user_id"] for host in hosts.values()} == {user}
    assert {host["letta_os"] for host in hosts.values()} <= {"linux", "darwin"}
    assert [request["query"] for request in ansible.sandbox.requests("list")] == [{"userId": user, "limit": "7"}]
    assert list(cache.iterdir())
    assert second.stdout == first.stdout


@pytest.mark.covers("qoder", "hostname_prefix")
def test_a_template_that_gives_nothing_is_an_option_that_gives_nothing(qoder: Ansible) -> None:
    by_default = qoder.hosts()
    unset = qoder.hosts(hostname_prefix="{{ none }}", include_archived="{{ '' }}")
    empty = qoder.hosts(hostname_prefix="{{ '' }}")

    assert unset.keys() == by_default.keys()
    assert {f"qoder-{name}" for name in empty} == by_default.keys()


UNRENDERED: list[tuple[dict[str, Any], list[str]]] = [
    ({"user_id": "{{ nobody }}"}, ["user_id", "nobody"]),
    ({"filters": ["mode == '{{ nobody }}'"]}, ["filters", "nobody"]),
    ({"hostnames": ["id", "{{ nobody }}"]}, ["hostnames", "nobody"]),
    ({"hostname_prefix": "{{ 'a' | nobody }}"}, ["hostname_prefix", "nobody"]),
    ({"group_by": ["mode", "{{ nobody.name }}"]}, ["group_by", "nobody"]),
    ({"cache_connection": "{{ nobody"}, ["cache_connection"]),
    ({"cache": "{{ nobody }}"}, ["cache", "nobody"]),
    ({"page_size": "{{ 'many' }}"}, ["page_size", "many"]),
    ({"online_only": "{{ 'perhaps' }}"}, ["online_only", "perhaps"]),
    ({"on_duplicate": "{{ 'merge' }}"}, ["on_duplicate", "merge"]),
    ({"filters": "{{ {'mode': 'standard'} }}"}, ["filters", "standard"]),
    ({"user_id": "{{ omit }}"}, ["user_id"]),
]


def test_what_cannot_be_rendered_is_one_line_with_the_option(ansible: Ansible, subtests: pytest.Subtests) -> None:
    run = ansible.sources(options for options, _parts in UNRENDERED)

    errors = run.inventory_errors()
    assert "Traceback" not in run.output
    assert ansible.sandbox.requests() == []
    for number, (options, parts) in enumerate(UNRENDERED):
        with subtests.test(json.dumps(options)):
            message = errors[f"{number}.yml"].partition("\n\n")[0]
            assert "\n" not in message
            assert all(part in message for part in parts), message


def test_a_vaulted_value_in_a_list_works_and_without_its_password_is_one_line(ansible: Ansible) -> None:
    vaulted = ansible.vault("encrypt_string", "--name", "- ", "os == 'linux'").partition("!vault")[2]
    text = "plugin: fleetops.environments.letta\nfilters:\n  - '`true`'\n  - !vault" + vaulted
    source = ansible.file("fleet.yml", text)

    opened = ansible.inventory("--list", *ansible.opened, source=source)
    locked = ansible.inventory("--list", source=source)

    opened.assert_quiet()
    assert {host["letta_os"] for host in json.loads(opened.stdout)["_meta"]["hostvars"].values()} == {"linux"}
    locked.assert_inventory_error("filters", "vault")


NESTED = {
    "a nested key": "compose:\n  plugin: letta_mode\n  'plugin': x\nplugin: fleetops.environments.{}\n",
    "in a list": "keyed_groups:\n- {{plugin: x, key: a}}\n- plugin: y\n  key: z\nplugin: fleetops.environments.{}\n",
    "in a text": "compose:\n  a: |\n    plugin: x\nplugin: 'fleetops.environments.{}'\n",
    "as a value": "root_group: plugin\nplugin: fleetops.environments.{}\n",
    "a list as a key": "? [plugin, x]\n: plugin\n? plugin\n: fleetops.environments.{}\n",
    "JSON": '{{"compose": {{"plugin": "x"}}, "plugin": "fleetops.environments.{}"}}',
    "an alias": "compose: &it\n  plugin: x\ngroups: *it\nplugin: fleetops.environments.{}\n",
    "broken after the key": "plugin: fleetops.environments.{}\n  indented: wrongly\n",
    "vaulted after the key": "plugin: fleetops.environments.{}\napi_key: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  00\n",
}
BOTH = {"ANSIBLE_INVENTORY_ENABLED": "fleetops.environments.letta,fleetops.environments.qoder"}


def test_the_key_plugin_of_the_source_itself_decides_who_reads_it(ansible: Ansible, subtests: pytest.Subtests) -> None:
    """Each source is for the second plugin, and the first one does not blame itself for it."""
    for number, text in enumerate(NESTED.values()):
        ansible.file(f"{number}.yml", text.format("qoder"))
    more = [part for number in range(1, len(NESTED)) for part in ("-i", f"{number}.yml")]

    run = ansible.inventory(
        *more, "--list", source="0.yml", env={**BOTH, "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "false"}
    )

    assert "Traceback" not in run.output
    errors = run.inventory_errors()
    for number, what in enumerate(NESTED):
        with subtests.test(what):
            said = run.stderr.replace("\n", " ")
            assert f"plugins.inventory.letta' plugin: {number}" not in said
            if what.startswith(("broken", "vaulted", "a list")):
                assert f"{number}.yml" in errors
            else:
                assert f"{number}.yml" not in errors, errors[f"{number}.yml"]


@pytest.mark.covers("letta", "plugin")
def test_a_nested_key_plugin_above_the_sources_own_hides_no_fleet(ansible: Ansible) -> None:
    source = ansible.file("fleet.yml", "compose:\n  plugin: letta_mode\nplugin: fleetops.environments.letta\n")

    assert ansible.listing(source)["_meta"]["hostvars"].keys() == {entry["name"] for entry in ansible.sandbox.fleet()}
