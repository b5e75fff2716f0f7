"""What an inventory source lists: hosts, variables and groups, compared with the sandbox's fleet."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.sandbox.process import Sandbox

from .conftest import FROM_CORE, Ansible, plain

NO_LOGIN = "this-host-has-no-login.write-gather_facts-false.or-connection-relay-in-its-source"

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
LISTED = {
    "id", "device_id", "connection_id", "connection_name", "listener_instance_id", "organization_id", "user_id",
    "api_key_owner", "pod_id", "mode", "effective_mode", "os", "version", "node_version", "git_branch",
    "working_directory", "self_update", "supported_commands", "online", "status", "updatable", "connected_at",
    "last_heartbeat", "last_seen_at", "first_seen_at", "listed_at", "metadata", "invalid",
}  # fmt: skip

# The present words for the older ones of modes.
PRESENT = {"default": "standard", "bypassPermissions": "unrestricted", "fullAccess": "unrestricted"}


def test_a_source_with_nothing_but_the_plugin_lists_the_whole_fleet(ansible: Ansible) -> None:
    hosts = ansible.hosts()

    assert {host["letta_id"] for host in hosts.values()} == {row["id"] for row in ansible.sandbox.fleet()}
    assert len(hosts) == len(ansible.sandbox.fleet())


# The keys of a row's metadata that have their own variable.
WITH_VARIABLES = {
    "os", "lettaCodeVersion", "nodeVersion", "gitBranch", "workingDirectory", "self_update", "supported_commands",
}  # fmt: skip


def test_every_variable_equals_the_value_of_the_api(ansible: Ansible) -> None:
    before = datetime.now(UTC)
    hosts = plain(ansible.hosts())

    for entry in ansible.sandbox.fleet():
        row = entry["row"]
        metadata = row.get("metadata") or {}
        self_update = metadata.get("self_update")
        host = hosts[entry["name"]]
        own = {name.removeprefix("letta_") for name in host if name.startswith("letta_")}
        assert own - {"extra"} == LISTED
        assert {
            "letta_id": row["id"],
            "letta_device_id": row["deviceId"],
            "letta_connection_id": row["connectionId"],
            "letta_connection_name": row["connectionName"],
            "letta_listener_instance_id": row["listenerInstanceId"],
            "letta_organization_id": row["organizationId"],
            "letta_user_id": row.get("userId"),
            "letta_api_key_owner": row.get("apiKeyOwner"),
            "letta_pod_id": row["podId"],
            "letta_mode": row.get("currentMode"),
            "letta_effective_mode": PRESENT.get(row.get("currentMode"), row.get("currentMode")),
            "letta_os": metadata.get("os"),
            "letta_version": metadata.get("lettaCodeVersion"),
            "letta_node_version": metadata.get("nodeVersion"),
            "letta_git_branch": metadata.get("gitBranch"),
            "letta_working_directory": metadata.get("workingDirectory"),
            "letta_self_update": self_update,
            "letta_supported_commands": metadata.get("supported_commands"),
            "letta_online": entry["online"],
            "letta_status": "online" if entry["online"] else "offline",
            "letta_updatable": bool(self_update and self_update["supported"] and self_update["writable"]),
            "letta_metadata": {name: value for name, value in metadata.items() if name not in WITH_VARIABLES},
            "letta_invalid": [],
            "ansible_host": f"{NO_LOGIN}.{row['id']}.letta.invalid",
            "fleetops_environment": {
                "provider": "letta",
                "id": row["id"],
                "device_id": row["deviceId"],
                "connection_id": row["connectionId"],
                "base_url": ansible.sandbox.url,
                "status": "online" if entry["online"] else "offline",
                "self_update": self_update,
            },
        }.items() <= host.items()
        moments = {"connected_at": "connectedAt", "first_seen_at": "firstSeenAt"}
        if not entry["online"]:
            moments |= {"last_heartbeat": "lastHeartbeat", "last_seen_at": "lastSeenAt"}
        for name, key in moments.items():
            _assert_moment(host[f"letta_{name}"], row[key])
        assert MOMENT.fullmatch(host["letta_last_seen_at"])
        listed_at = datetime.fromisoformat(host["letta_listed_at"])
        assert MOMENT.fullmatch(host["letta_listed_at"])
        assert before.replace(microsecond=0) <= listed_at <= datetime.now(UTC)


def _assert_moment(shown: str | None, milliseconds: int | None) -> None:
    if milliseconds is None:
        assert shown is None
        return
    assert shown is not None
    assert MOMENT.fullmatch(shown)
    assert datetime.fromisoformat(shown).timestamp() * 1000 == pytest.approx(milliseconds, abs=1)


def test_unknown_keys_and_words_of_the_api_are_kept(ansible: Ansible) -> None:
    added = ansible.sandbox.add_environment(
        currentMode="contemplative", metadata={"os": "plan9", "$new": {"deep": [1, None, True]}}, shiny={"new": 1}
    )

    host = ansible.hosts()[added["connectionName"]]

    assert host["letta_mode"] == "contemplative"
    assert host["letta_os"] == "plan9"
    assert host["letta_metadata"]["$new"] == {"deep": [1, None, True]}
    assert host["letta_extra"] == {"shiny": {"new": 1}}


def test_a_row_key_never_becomes_the_variable_of_an_option(ansible: Ansible) -> None:
    keys = ["api_key", "apiKey", "base_url", "baseUrl", "letta_api_key", "ansible_connection", "agent_id", "agentId"]
    evil = dict.fromkeys(keys, "http://evil.invalid")
    added = ansible.sandbox.add_environment(**evil, metadata=evil)

    host = ansible.hosts()[added["connectionName"]]

    assert {name.removeprefix("letta_") for name in host} - LISTED == {
        "extra", "ansible_host", "fleetops_environment", *FROM_CORE,
    }  # fmt: skip


def test_a_host_has_the_same_variables_alone_as_in_the_list(ansible: Ansible) -> None:
    name = ansible.sandbox.fleet()[0]["name"]

    run = ansible.inventory("--host", name)

    run.assert_quiet()
    assert plain(json.loads(run.stdout))["letta_connection_name"] == name


@pytest.mark.covers("letta", "group_by")
def test_every_dimension_groups_the_hosts_exactly(ansible: Ansible) -> None:
    dimensions = ["mode", "os", "version", "status", "node_version", "git_branch", "user", "updatable", "command"]
    groups = _groups(ansible.listing(group_by=dimensions))

    expected: dict[str, set[str]] = {}
    for entry in ansible.sandbox.fleet():
        for group in _expected_groups(entry):
            expected.setdefault(group, set()).add(entry["name"])
    assert groups == expected
    assert {"mode_acceptEdits", "version_0_35_0_rc_1", "git_branch_feature_audit_log"} <= groups.keys()


def test_the_default_groups_are_mode_os_version_and_status(ansible: Ansible) -> None:
    groups = _groups(ansible.listing())

    wanted = {"letta", "mode", "os", "version", "online", "offline"}
    expected: dict[str, set[str]] = {}
    for entry in ansible.sandbox.fleet():
        for group in _expected_groups(entry):
            if group.partition("_")[0] in wanted:
                expected.setdefault(group, set()).add(entry["name"])
    assert groups == expected


def test_a_version_group_lies_inside_the_group_of_its_minor_version(ansible: Ansible) -> None:
    listing = ansible.listing()

    assert sorted(listing["version_0_33"]["children"]) == ["version_0_33_4", "version_0_33_9"]
    assert sorted(listing["version_0_34"]["children"]) == ["version_0_34_12", "version_0_34_2"]
    assert "hosts" not in listing["version_0_34"]
    assert listing["version_0_35"]["children"] == ["version_0_35_0_rc_1"]


def test_values_that_only_look_alike_are_in_separate_groups(ansible: Ansible) -> None:
    sandbox = ansible.sandbox
    versions = ["0.34.99", "0.34-99", "0.34", "0_34_99", "latest", "unknown", "v0.34.99"]
    modes = ["two-words", "two_words", "two words", "unknown", "Unknown", "x" * 600, "x" * 599 + "y"]
    names: dict[str, str] = {}
    for version, mode in zip(versions, modes, strict=True):
        row = sandbox.add_environment(metadata={"lettaCodeVersion": version}, currentMode=mode)
        names[row["connectionName"]] = version
    nothing = {entry["name"] for entry in sandbox.fleet() if not entry["row"].get("currentMode")}

    groups = _groups(ansible.listing())

    for dimension in ("version", "mode"):
        of = {
            name: [group for group in groups if _is_leaf(group, dimension) and name in groups[group]] for name in names
        }
        assert all(len(found) == 1 for found in of.values()), of
        assert len({found[0] for found in of.values()}) == len(names), of
    assert groups["mode_unknown"] == nothing
    assert names.keys() & groups["version_0_34_99"] == {name for name in names if names[name] == "0.34.99"}
    assert names.keys() & groups["version_0_34"] == {name for name in names if names[name] == "0.34.99"}
    assert all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", group) for group in groups)


def _is_leaf(group: str, dimension: str) -> bool:
    return group.startswith(f"{dimension}_") and not re.fullmatch(r"version_v?\d+_\d+", group)


def _expected_groups(entry: dict[str, Any]) -> Iterator[str]:
    """Every group of a host, including the parent of its version."""
    row = entry["row"]
    metadata = row.get("metadata") or {}
    self_update = metadata.get("self_update") or {}
    yield "letta"
    mode = row.get("currentMode", "unknown")
    yield f"mode_{mode}"
    if mode in PRESENT:
        yield f"mode_{PRESENT[mode]}"
    yield f"os_{metadata.get('os', 'unknown')}"
    version = metadata.get("lettaCodeVersion", "unknown")
    yield f"version_{re.sub('[.-]', '_', version)}"
    if version != "unknown":
        yield "version_{}_{}".format(*version.split(".")[:2])
    yield "online" if entry["online"] else "offline"
    yield f"node_version_{metadata.get('nodeVersion', 'unknown').replace('.', '_')}"
    yield f"git_branch_{re.sub('[^a-z0-9]', '_', metadata.get('gitBranch', 'unknown'))}"
    yield f"user_{row.get('userId', 'unknown').replace('-', '_')}"
    yield "updatable" if self_update.get("supported") and self_update.get("writable") else "not_updatable"
    for command in metadata.get("supported_commands") or ["unknown"]:
        yield f"command_{command.replace('-', '_')}"


def _groups(listing: dict[str, Any]) -> dict[str, set[str]]:
    """Group → its hosts, including those of its children; without the two groups that Ansible creates."""

    def hosts(group: str) -> set[str]:
        entry = listing.get(group, {})
        return {*entry.get("hosts", []), *(host for child in entry.get("children", []) for host in hosts(child))}

    names = {child for entry in listing.values() for child in entry.get("children", [])}
    return {name: hosts(name) for name in names - {"ungrouped"}}


@pytest.mark.covers("letta", "group_by", "group_prefix", "root_group", "hostvars_prefix", "hostname_prefix")
def test_the_options_decide_the_names_of_groups_variables_and_hosts(ansible: Ansible) -> None:
    listing = ansible.listing(
        group_by=["mode", "version"],
        group_prefix="agents_",
        root_group="everyone",
        hostvars_prefix="agent_",
        hostname_prefix="dev.",
    )

    names = {f"dev.{entry['name']}" for entry in ansible.sandbox.fleet()}
    groups = _groups(listing)
    assert groups["everyone"] == names
    assert {group for group in groups if not group.startswith(("agents_mode_", "agents_version_"))} == {"everyone"}
    assert listing["agents_version_0_33"]["children"] == ["agents_version_0_33_9", "agents_version_0_33_4"]
    hosts = listing["_meta"]["hostvars"]
    assert hosts.keys() == names
    for host in hosts.values():
        assert {name.removeprefix("agent_") for name in host} == LISTED | {
            "extra", "ansible_host", "fleetops_environment", *FROM_CORE,
        }  # fmt: skip
        assert host["fleetops_environment"]["id"] == host["agent_id"]


@pytest.mark.covers("letta", "filters")
def test_filters_select_standard_linux_devices_older_than_a_version(ansible: Ansible) -> None:
    hosts = ansible.hosts(filters=["mode == 'standard'", "os == 'linux'", "semver(version, '<0.34')"])

    rows = [entry["row"] for entry in ansible.sandbox.fleet() if "metadata" in entry["row"]]
    expected = {
        row["connectionName"]
        for row in rows
        if row.get("currentMode") == "standard"
        and row["metadata"]["os"] == "linux"
        and row["metadata"]["lettaCodeVersion"].startswith("0.33.")
    }
    assert len(expected) == 5
    assert hosts.keys() == expected


@pytest.mark.covers("letta", "filters")
def test_filters_may_use_ages_functions_and_nested_values(ansible: Ansible) -> None:
    fleet = ansible.sandbox.fleet()
    now = datetime.now(UTC).timestamp()
    long_gone = {entry["name"] for entry in fleet if now - entry["row"]["lastSeenAt"] / 1000 > 86400}
    assert long_gone

    assert ansible.hosts(filters="older_than(last_seen_at, '1d')").keys() == long_gone
    nested = ansible.hosts(filters=["metadata.machine.architecture == 'arm64' && contains(supported_commands, 'init')"])
    assert nested.keys() == {
        entry["name"]
        for entry in fleet
        if (entry["row"].get("metadata") or {}).get("machine", {}).get("architecture") == "arm64"
    }


@pytest.mark.covers("letta", "hostnames")
def test_hostnames_are_the_first_expression_that_gives_a_text(ansible: Ansible) -> None:
    fleet = ansible.sandbox.fleet()
    nameless = fleet[0]["id"]
    ansible.sandbox.patch(nameless, connectionName="")

    by_default = {host["letta_id"]: name for name, host in ansible.hosts().items()}
    by_expression = ansible.hosts(hostnames=["metadata.nothing", "join('-', ['row', short(id)])", "device_id"])
    by_id = ansible.hosts(hostnames="id")

    assert by_default[nameless] == fleet[0]["row"]["deviceId"]
    assert by_default[fleet[1]["id"]] == fleet[1]["name"]
    assert all(re.fullmatch(r"row-[0-9a-f]{8}", name) for name in by_expression)
    assert len(by_expression) == len(fleet)
    assert by_id.keys() == {entry["id"] for entry in fleet}


@pytest.mark.covers("letta", "on_duplicate")
def test_environments_of_one_name_all_get_a_stable_suffix(ansible: Ansible) -> None:
    twins = {ansible.sandbox.add_environment(connectionName="twin")["id"] for _number in range(3)}

    def names() -> dict[str, str]:
        run = ansible.inventory("--list")
        run.assert_warning("on_duplicate", *twins)
        hosts = json.loads(run.stdout)["_meta"]["hostvars"]
        return {host["letta_id"]: name for name, host in hosts.items() if host["letta_id"] in twins}

    first = names()
    assert len(set(first.values())) == 3
    assert all(re.fullmatch(r"twin-[0-9a-f]{8}", name) for name in first.values())
    gone = twins.pop()
    ansible.sandbox.add_environment(connectionName="twin")
    ansible.sandbox.remove(gone)
    assert names() == {identity: name for identity, name in first.items() if identity != gone}


@pytest.mark.covers("letta", "on_duplicate")
def test_environments_of_one_name_fail_the_listing_on_demand(ansible: Ansible) -> None:
    twins = [ansible.sandbox.add_environment(connectionName="twin")["id"] for _number in range(2)]

    run = ansible.inventory("--list", source=ansible.source(on_duplicate="fail"))

    run.assert_inventory_error("on_duplicate", "twin", *twins)


@pytest.mark.covers("letta", "online_only")
def test_online_only_leaves_out_the_stale_rows_that_the_api_adds(ansible: Ansible) -> None:
    fleet = ansible.sandbox.fleet()
    stale = [entry for entry in fleet if entry["row"]["connectionId"] and not entry["online"]]
    assert stale

    hosts = ansible.hosts(online_only=True)

    assert hosts.keys() == {entry["name"] for entry in fleet if entry["online"]}
    assert [request["query"]["onlineOnly"] for request in ansible.sandbox.requests("list")] == ["true"]


@pytest.mark.covers("letta", "source", "user_id", "page_size")
def test_source_user_and_page_size_are_sent_to_the_api(ansible: Ansible) -> None:
    fleet = ansible.sandbox.fleet()
    user = next(entry["row"]["userId"] for entry in fleet if entry["row"].get("userId"))

    remote = ansible.hosts(source=ansible.source(source="remote"))
    of_user = ansible.hosts(user_id=user)
    ansible.sandbox.clear_requests()
    paged = ansible.hosts(page_size=7)

    assert remote.keys() == {entry["name"] for entry in fleet if entry["source"] == "remote"}
    assert of_user.keys() == {entry["name"] for entry in fleet if entry["row"].get("userId") == user}
    assert paged.keys() == {entry["name"] for entry in fleet}
    assert [request["query"] for request in ansible.sandbox.requests("list")] == [
        {"limit": "7"},
        {"limit": "7", "after": fleet[6]["id"]},
        {"limit": "7", "after": fleet[13]["id"]},
    ]


def test_a_page_holds_a_hundred_rows_by_default(ansible: Ansible) -> None:
    ansible.hosts()

    assert [request["query"] for request in ansible.sandbox.requests("list")] == [{"limit": "100"}]


@pytest.mark.covers("letta", "trust")
@pytest.mark.parametrize(
    ("trust", "names_marked", "ids_marked"),
    [("plain", False, False), ("identifiers", True, False), ("none", True, True)],
)
def test_trust_decides_which_texts_are_exported_as_unsafe(
    ansible: Ansible, trust: str, names_marked: bool, ids_marked: bool
) -> None:
    entry = ansible.sandbox.fleet()[0]
    ansible.sandbox.patch(entry["id"], metadata={"gitBranch": "main", "workingDirectory": "/home/a b"})

    run = ansible.inventory("--list", "--export", source=ansible.source(trust=trust))

    run.assert_quiet()
    host = json.loads(run.stdout)["_meta"]["hostvars"][entry["name"]]

    def is_marked(value: Any) -> bool:
        assert isinstance(plain(value), str)
        return isinstance(value, dict)

    for name in ("connection_name", "git_branch", "api_key_owner", "listed_at", "connected_at"):
        assert is_marked(host[f"letta_{name}"]) is names_marked, name
    for name in (
        "id",
        "device_id",
        "connection_id",
        "mode",
        "effective_mode",
        "os",
        "version",
        "node_version",
        "status",
    ):
        assert is_marked(host[f"letta_{name}"]) is ids_marked, name
    assert {is_marked(command) for command in host["letta_supported_commands"]} == {ids_marked}
    assert is_marked(host["fleetops_environment"]["id"]) is ids_marked
    # Never trusted: a space is enough. Always trusted: the collection's own text.
    assert is_marked(host["letta_working_directory"])
    assert is_marked(host["letta_self_update"]["manual_command"])
    assert not is_marked(host["ansible_host"])
    assert not is_marked(host["fleetops_environment"]["base_url"])
    assert host["letta_online"] is True


@pytest.mark.covers("letta", "on_invalid")
def test_a_malformed_field_costs_no_host(ansible: Ansible) -> None:
    broken = ansible.sandbox.fleet()[0]
    metadata = {**broken["row"]["metadata"], "os": 17, "lettaCodeVersion": ["0.34"], "self_update": "yes"}
    ansible.sandbox.patch(broken["id"], connectionName=None, metadata=metadata)

    warned = ansible.inventory("--list", source=ansible.source(group_prefix="fleet_"))
    failed = ansible.inventory("--list", source=ansible.source(on_invalid="fail"))

    assert warned.returncode == 0
    assert warned.stderr.count("[WARNING]") == 1
    assert f"[WARNING]: rows are not as the API promises: environment {broken['id']}: connection_name: " in (
        " ".join(warned.stderr.split())
    )
    listing = plain(json.loads(warned.stdout))
    hosts = {host["letta_id"]: host for host in listing["_meta"]["hostvars"].values()}
    assert hosts.keys() == {entry["id"] for entry in ansible.sandbox.fleet()}
    host = hosts[broken["id"]]
    assert host["letta_invalid"] == ["connection_name", "os", "self_update", "version"]
    assert [host[f"letta_{name}"] for name in host["letta_invalid"]] == [None] * 4
    raw = {"os": 17, "lettaCodeVersion": ["0.34"], "self_update": "yes"}
    assert raw.items() <= host["letta_metadata"].items()
    [name] = listing["fleet_invalid"]["hosts"]
    assert listing["_meta"]["hostvars"][name] == host
    assert "letta_dropped_rows" not in host
    failed.assert_inventory_error("on_invalid", broken["id"], "connection_name: ", "version: ", "os: ", "self_update: ")


@pytest.mark.covers("letta", "on_invalid", "max_dropped_rows")
def test_rows_without_an_id_are_counted_and_too_many_of_them_fail_the_listing(ansible: Ansible) -> None:
    count = len(ansible.sandbox.fleet())
    ansible.sandbox.add_fault("invalid_rows", damage="no_id", rows=[0, 1])

    few = ansible.inventory("--list", "--export", source=ansible.source(root_group="agents", hostvars_prefix="my_"))
    failed = ansible.inventory("--list", source=ansible.source(on_invalid="fail"))
    one = ansible.inventory("--list", source=ansible.source(max_dropped_rows=1))
    ansible.sandbox.clear_faults()
    ansible.sandbox.add_fault("invalid_rows", damage="id_number", rows=[0, 1, 2])
    many = ansible.inventory("--list")
    wanted = ansible.inventory("--list", "--export", source=ansible.source(max_dropped_rows="20%"))
    wrong = ansible.inventory("--list", source=ansible.source(max_dropped_rows="some"))

    listing = json.loads(few.stdout)
    assert listing["agents"]["vars"] == {"my_dropped_rows": 2}
    assert len(listing["_meta"]["hostvars"]) == count - 2
    assert "environment number 1 (dropped): id: Field required" in " ".join(few.stderr.split())
    failed.assert_inventory_error("on_invalid", "number 1 (dropped)")
    one.assert_inventory_error(
        f"max_dropped_rows: 2 of {count} rows have no id that can be used, and 1 may be dropped; "
    )
    many.assert_inventory_error(
        f"max_dropped_rows: 3 of {count} rows have no id that can be used, and 10% may be dropped; "
    )
    assert json.loads(wanted.stdout)["letta"]["vars"] == {"letta_dropped_rows": 3}
    wrong.assert_inventory_error("max_dropped_rows: must be a count such as 5 or a percentage such as 10%, got 'some'")


def test_sources_with_one_group_count_their_dropped_rows_together(ansible: Ansible) -> None:
    ansible.sandbox.add_fault("invalid_rows", damage="no_id")
    second = ansible.source("second.yml", hostname_prefix="second-")

    run = ansible.inventory("-i", str(second), "--list", "--export")

    assert json.loads(run.stdout)["letta"]["vars"] == {"letta_dropped_rows": 2}


@pytest.mark.covers("letta", "fail_on_empty")
def test_an_empty_fleet_is_an_empty_inventory_or_an_error_on_demand(ansible: Ansible) -> None:
    for entry in ansible.sandbox.fleet():
        ansible.sandbox.remove(entry["id"])

    assert ansible.hosts() == {}
    ansible.inventory("--graph").assert_quiet()
    ansible.inventory("--list", source=ansible.source(fail_on_empty=True)).assert_inventory_error("fail_on_empty")


@pytest.mark.covers("letta", "fail_on_empty")
def test_a_filter_that_nothing_matches_is_an_empty_inventory_too(ansible: Ansible) -> None:
    nothing = {"online_only": True, "filters": ["status == 'offline'"]}

    assert ansible.hosts(**nothing) == {}
    run = ansible.inventory("--list", source=ansible.source(**nothing, fail_on_empty=True))
    run.assert_inventory_error("fail_on_empty", ansible.sandbox.url)


def test_a_fleet_without_devices_is_an_empty_inventory(ansible: Ansible) -> None:
    with Sandbox.start(devices=0) as empty:
        assert ansible.hosts(base_url=empty.url) == {}


@pytest.mark.covers("letta", "compose", "groups", "keyed_groups", "leading_separator")
def test_compose_groups_and_keyed_groups_work_on_the_variables(ansible: Ansible) -> None:
    listing = ansible.listing(
        compose={"where": "letta_connection_name ~ '@' ~ (letta_os | default('nowhere', true))"},
        groups={"penguins": "letta_os == 'linux'"},
        keyed_groups=[{"key": "letta_os | default('none', true)"}, {"key": "letta_mode", "prefix": "in"}],
        leading_separator=False,
    )

    groups = _groups(listing)
    systems = {entry["name"]: (entry["row"].get("metadata") or {}).get("os") for entry in ansible.sandbox.fleet()}
    hosts = plain(listing["_meta"]["hostvars"])
    assert {name: host["where"] for name, host in hosts.items()} == {
        name: f"{name}@{system or 'nowhere'}" for name, system in systems.items()
    }
    assert groups["penguins"] == {name for name, system in systems.items() if system == "linux"}
    assert groups["darwin"] == {name for name, system in systems.items() if system == "darwin"}
    assert groups["in_acceptEdits"] == groups["mode_acceptEdits"]


@pytest.mark.covers("letta", "leading_separator", "use_extra_vars", "strict")
def test_constructed_options_are_those_of_every_inventory_plugin(ansible: Ansible) -> None:
    extra = {"compose": {"ticket": "change"}, "use_extra_vars": True, "keyed_groups": [{"key": "letta_status"}]}

    run = ansible.inventory("--list", "-e", "change=CHG-1", source=ansible.source(**extra))
    lenient = ansible.hosts(compose={"ticket": "change"})
    strict = ansible.inventory("--list", source=ansible.source(compose={"ticket": "change"}, strict=True))

    run.assert_quiet()
    listing = json.loads(run.stdout)
    assert {host["ticket"] for host in plain(listing["_meta"]["hostvars"]).values()} == {"CHG-1"}
    assert _groups(listing)["_online"] == _groups(listing)["online"]
    assert all("ticket" not in host for host in lenient.values())
    strict.assert_inventory_error("ticket", "change")
