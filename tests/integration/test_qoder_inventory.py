"""What an inventory source of Qoder lists: hosts, variables and groups, compared with the sandbox's fleet."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import FROM_CORE, Ansible, plain

NO_LOGIN = "this-host-has-no-login.write-gather_facts-false"

CONTRACT = "fleetops_environment"


def environments(qoder: Ansible, *, archived: bool = False) -> list[dict[str, Any]]:
    """The environments, as `QoderSandbox.environments` has them, that a listing holds; the newest first."""
    entries = reversed(qoder.sandbox.qoder.environments())
    return [entry for entry in entries if archived or not entry["archived"]]


def ids(hosts: dict[str, dict[str, Any]]) -> set[str]:
    return {host["qoder_id"] for host in hosts.values()}


def members(listing: dict[str, Any]) -> dict[str, set[str]]:
    """Group → the ids of its hosts; without `all` and `ungrouped`."""
    hosts = plain(listing["_meta"]["hostvars"])
    return {
        group: {hosts[name]["qoder_id"] for name in entry["hosts"]}
        for group, entry in listing.items()
        if "hosts" in entry and group != "ungrouped"
    }


@pytest.mark.covers("qoder", "plugin")
@pytest.mark.parametrize("generation", ["seed", "new"])
def test_every_variable_equals_the_value_of_the_api(qoder: Ansible, generation: str) -> None:
    qoder.sandbox.settings(qoder_generation=generation)

    hosts = plain(qoder.hosts())

    by_id = {host["qoder_id"]: host for host in hosts.values()}
    assert len(hosts) == len(by_id)
    assert by_id.keys() == {entry["id"] for entry in environments(qoder)}
    for entry in environments(qoder):
        row = entry["row"]
        config = row.get("config") or {}
        packages = config.get("packages") or {}
        assert by_id[entry["id"]] == {
            "qoder_id": row["id"],
            "qoder_type": row.get("type"),
            "qoder_name": row.get("name"),
            "qoder_description": row.get("description"),
            "qoder_status": row.get("status"),
            "qoder_config": config,
            "qoder_config_type": config.get("type"),
            "qoder_networking_type": (config.get("networking") or {}).get("type"),
            "qoder_packages": {kind: names for kind, names in packages.items() if kind != "type"},
            "qoder_metadata": row.get("metadata") or {},
            "qoder_archived": False,
            "qoder_archived_at": row.get("archived_at"),
            "qoder_created_at": row.get("created_at"),
            "qoder_updated_at": row.get("updated_at"),
            "qoder_extra": {},
            "qoder_invalid": [],
            "ansible_host": f"{NO_LOGIN}.{row['id']}.qoder.invalid",
            CONTRACT: {
                "provider": "qoder",
                "id": row["id"],
                "device_id": row["id"],
                "connection_id": None,
                "base_url": qoder.sandbox.qoder.url,
                "status": "online",
                "self_update": None,
            },
            **FROM_CORE,
        }


@pytest.mark.covers("qoder", "include_archived")
@pytest.mark.parametrize("generation", ["seed", "new"])
def test_archived_environments_are_offline_and_listed_when_asked_for(qoder: Ansible, generation: str) -> None:
    qoder.sandbox.settings(qoder_generation=generation)

    hosts = qoder.hosts(include_archived=True)

    everything = environments(qoder, archived=True)
    assert ids(hosts) == {entry["id"] for entry in everything}
    assert {host["qoder_id"]: host["qoder_archived"] for host in hosts.values()} == {
        entry["id"]: entry["archived"] for entry in everything
    }
    assert all((host[CONTRACT]["status"] == "offline") is host["qoder_archived"] for host in hosts.values())
    assert [request["query"] for request in qoder.sandbox.requests()] == [{"limit": "100", "include_archived": "true"}]


def _expected_groups(entry: dict[str, Any]) -> Iterator[str]:
    row = entry["row"]
    config = row.get("config") or {}
    yield "qoder"
    yield f"status_{row.get('status', 'unknown')}"
    yield f"config_type_{config.get('type', 'unknown')}"
    yield f"networking_type_{(config.get('networking') or {}).get('type', 'unknown')}"
    yield "archived" if entry["archived"] else "not_archived"


@pytest.mark.covers("qoder", "group_by", "root_group")
@pytest.mark.parametrize("generation", ["seed", "new"])
def test_every_dimension_groups_the_hosts_exactly(qoder: Ansible, generation: str) -> None:
    qoder.sandbox.settings(qoder_generation=generation)

    groups = members(qoder.listing(include_archived=True))

    expected: dict[str, set[str]] = {}
    for entry in environments(qoder, archived=True):
        for group in _expected_groups(entry):
            expected.setdefault(group, set()).add(entry["id"])
    assert groups == expected
    assert {"networking_type_unrestricted", "networking_type_unknown", "config_type_unknown"} <= groups.keys()
    in_one = "status_building" if generation == "seed" else "config_type_self_hosted"
    assert in_one in groups


@pytest.mark.covers("qoder", "group_by", "group_prefix", "root_group", "hostvars_prefix", "hostname_prefix")
def test_the_options_decide_the_names_of_groups_variables_and_hosts(qoder: Ansible) -> None:
    listing = qoder.listing(
        group_by=["config_type"],
        group_prefix="clouds_",
        root_group="everything",
        hostvars_prefix="cloud_",
        hostname_prefix="c.",
        hostnames="id",
    )

    names = {f"c.{entry['id']}" for entry in environments(qoder)}
    groups = {group for group, entry in listing.items() if "hosts" in entry}
    assert groups == {
        "everything",
        *(f"clouds_config_type_{kind}" for kind in ("cloud", "self_hosted", "edge", "unknown")),
    }
    assert set(listing["everything"]["hosts"]) == names
    assert listing["_meta"]["hostvars"].keys() == names
    for host in listing["_meta"]["hostvars"].values():
        assert {name for name in host if not name.startswith("cloud_")} == {"ansible_host", CONTRACT, *FROM_CORE}


@pytest.mark.covers("qoder", "hostnames", "hostname_prefix", "on_duplicate")
def test_hosts_are_named_by_name_then_id_and_duplicates_get_a_suffix(qoder: Ansible) -> None:
    qoder.sandbox.qoder.add_environment(name="default")
    listed = environments(qoder)
    nameless = {entry["id"] for entry in listed if not entry["row"].get("name")}
    twins = {entry["id"] for entry in listed if entry["row"].get("name") == "default"}
    assert nameless
    assert len(twins) == 2

    run = qoder.inventory("--list")
    bare = qoder.hosts(hostname_prefix="", hostnames=["metadata.nothing", "join('-', ['row', short(id)])"])
    failed = qoder.inventory("--list", source=qoder.source(on_duplicate="fail"))

    run.assert_warning("on_duplicate", "qoder-default", *twins)
    hosts = json.loads(run.stdout)["_meta"]["hostvars"]
    for name, host in plain(hosts).items():
        if host["qoder_id"] in twins:
            assert re.fullmatch(r"qoder-default-[0-9a-f]{8}", name)
        else:
            assert name == f"qoder-{host['qoder_name'] or host['qoder_id']}"
    assert all(re.fullmatch(r"row-[0-9a-f]{8}", name) for name in bare)
    assert len(bare) == len(hosts) == len(listed)
    failed.assert_inventory_error("on_duplicate", "qoder-default", *twins)


@pytest.mark.covers("qoder", "limit", "after_id", "before_id", "created_at_gte", "created_at_lte", "include_archived")
@pytest.mark.parametrize(("generation", "cursor"), [("seed", "after_id"), ("new", "page")])
def test_the_selection_is_sent_to_the_api_on_every_page(qoder: Ansible, generation: str, cursor: str) -> None:
    qoder.sandbox.settings(qoder_generation=generation)
    everything = environments(qoder, archived=True)
    dated = [entry for entry in everything if entry["row"].get("created_at")]
    since, until = dated[-4]["row"]["created_at"], dated[3]["row"]["created_at"]

    after = qoder.hosts(limit=4, after_id=everything[5]["id"], include_archived=True)
    between = qoder.hosts(limit=5, created_at_gte=since, created_at_lte=until, include_archived=True)
    asked = [request["query"] for request in qoder.sandbox.requests()]
    before = qoder.hosts(limit=500, before_id=everything[5]["id"], include_archived=True)

    assert ids(after) == {entry["id"] for entry in everything[6:]}
    assert ids(between) == {entry["id"] for entry in dated[3:-3]}
    assert ids(before) == {entry["id"] for entry in everything[:5]}
    assert asked[0] == {"limit": "4", "include_archived": "true", "after_id": everything[5]["id"]}
    assert asked[1].keys() == {"limit", "include_archived", cursor}
    times = {"created_at[gte]": since, "created_at[lte]": until}
    for query in asked[-2:]:
        assert {"limit": "5", "include_archived": "true", **times}.items() <= query.items()
    assert asked[-1].keys() - times.keys() == {"limit", "include_archived", cursor}
    assert qoder.sandbox.requests()[-1]["query"] == {
        "limit": "100", "include_archived": "true", "before_id": everything[5]["id"],
    }  # fmt: skip


@pytest.mark.covers("qoder", "created_at_gte", "created_at_lte")
@pytest.mark.parametrize(
    ("written", "sent"),
    [
        # The same time as YAML's own type, and as a text.
        ("2026-01-05T12:00:00Z", "2026-01-05T12:00:00+00:00"),
        ("2026-01-05 14:00:00.5+02:00", "2026-01-05T14:00:00.500000+02:00"),
        ("'2026-01-05t12:00:00z'", "2026-01-05T12:00:00Z"),
    ],
)
def test_a_time_may_be_written_with_and_without_quotes(qoder: Ansible, written: str, sent: str) -> None:
    source = qoder.file("times.yml", f"plugin: fleetops.environments.qoder\ncreated_at_gte: {written}\n")

    assert qoder.listing(source)
    assert [request["query"]["created_at[gte]"] for request in qoder.sandbox.requests()] == [sent]


NOT_A_TIME = "must be a time in RFC 3339 such as 2026-01-31T12:00:00Z"
WRONG_OPTIONS: list[tuple[dict[str, Any], list[str]]] = [
    # an unknown option, with the nearest name
    ({"include_archive": True}, ["include_archive", "'include_archived'"]),
    ({"online_only": True}, ["online_only", "no such option"]),
    # invalid values
    ({"limit": 0}, ["limit: must be 1 or more, got 0"]),
    ({"limit": -5}, ["limit: must be 1 or more, got -5"]),
    ({"limit": "many"}, ["limit", "many"]),
    ({"after_id": "env_1", "before_id": "env_2"}, ["before_id: cannot go with after_id"]),
    ({"include_archived": "perhaps"}, ["include_archived", "perhaps"]),
    ({"created_at_gte": "yesterday"}, [f"created_at_gte: {NOT_A_TIME}, got 'yesterday'"]),
    ({"created_at_lte": "2026-05-01"}, [f"created_at_lte: {NOT_A_TIME}, got '2026-05-01'"]),
    ({"created_at_gte": "2026-05-01T00:00:00"}, [f"created_at_gte: {NOT_A_TIME}, got '2026-05-01T00:00:00'"]),
    ({"created_at_gte": 20260501}, [f"created_at_gte: {NOT_A_TIME}, got '20260501'"]),
    ({"created_at_gte": ["2026-05-01T00:00:00Z"]}, ["created_at_gte: must be a text"]),
    ({"group_by": ["status", "mode"]}, ["group_by", "mode"]),
    # There is no archived environment now, but there may be one later.
    ({"root_group": "archived"}, ["root_group", "archived"]),
    ({"root_group": "status_quo"}, ["root_group", "status_quo"]),
    ({"hostvars_prefix": "ansible_"}, ["hostvars_prefix", "ansible_"]),
    ({"hostvars_prefix": "qoder_session_"}, ["hostvars_prefix", "qoder_session_id"]),
    ({"filters": ["config_typ == 'cloud'"]}, ["filters", "config_typ", "'config_type'"]),
    ({"filters": ["mode == 'standard'"]}, ["filters", "'mode'"]),
    ({"filters": ["status =="]}, ["filters", "status =="]),
    ({"hostnames": ["connection_name"]}, ["hostnames", "connection_name"]),
    ({"trust": "all"}, ["trust", "all"]),
    ({"base_url": "api.qoder.com"}, ["base_url", "api.qoder.com"]),
    ({"timeout": 0}, ["timeout", "0"]),
    ({"client_key": "/nowhere/client.key"}, ["client_key", "client_cert"]),
]


@pytest.mark.covers("qoder", "client_key", "client_cert")
def test_a_wrong_option_is_one_line_before_anything_is_asked(qoder: Ansible, subtests: pytest.Subtests) -> None:
    run = qoder.sources(options for options, _parts in WRONG_OPTIONS)

    assert qoder.sandbox.requests() == []
    errors = run.inventory_errors()
    assert "Traceback" not in run.output
    assert run.output.count("[WARNING]: Failed to parse inventory") == len(WRONG_OPTIONS)
    assert "plugins.inventory.letta" not in run.output
    for number, (options, parts) in enumerate(WRONG_OPTIONS):
        with subtests.test(json.dumps(options)):
            message = errors[f"{number}.yml"].partition("\n\n")[0]
            assert "\n" not in message
            assert all(part in message for part in parts), message


@pytest.mark.parametrize("written", ["2026-05-01", "2026-05-01T00:00:00", "2026-05-01 00:00:00"])
def test_a_time_without_quotes_and_zone_is_one_line_before_anything_is_asked(qoder: Ansible, written: str) -> None:
    source = qoder.file("times.yml", f"plugin: fleetops.environments.qoder\ncreated_at_lte: {written}\n")

    run = qoder.inventory("--list", source=source)

    run.assert_inventory_error(f"created_at_lte: {NOT_A_TIME}, got '2026-05-01")
    assert qoder.sandbox.requests() == []


@pytest.mark.covers("qoder", "filters")
def test_filters_select_by_every_field(qoder: Ansible) -> None:
    listed = environments(qoder)

    def where(**wanted: str) -> set[str]:
        return {entry["id"] for entry in listed if wanted.items() <= (entry["row"].get("config") or {}).items()}

    hosted = qoder.hosts(filters="config_type == 'self_hosted'")
    both = qoder.hosts(filters=["networking_type == 'unrestricted'", "contains(packages.pip || `[]`, 'httpx')"])
    old = qoder.hosts(filters=["older_than(created_at, '1s')"])

    assert ids(hosted) == where(type="self_hosted")
    assert ids(both) == {
        entry["id"]
        for entry in listed
        if (entry["row"].get("config") or {}).get("networking") == {"type": "unrestricted"}
        and "pip" in entry["row"]["config"].get("packages", {})
    }
    assert hosted
    assert both
    assert ids(old) == {entry["id"] for entry in listed if entry["row"].get("created_at")}


@pytest.mark.covers("qoder", "trust")
@pytest.mark.parametrize(
    ("trust", "names_marked", "ids_marked"),
    [("plain", False, False), ("identifiers", True, False), ("none", True, True)],
)
def test_trust_decides_which_texts_are_exported_as_unsafe(
    qoder: Ansible, trust: str, names_marked: bool, ids_marked: bool
) -> None:
    added = qoder.sandbox.qoder.add_environment(name="plain", description="two words", status="ready")

    run = qoder.inventory("--list", "--export", source=qoder.source(trust=trust))

    run.assert_quiet()
    host = json.loads(run.stdout)["_meta"]["hostvars"]["qoder-plain"]
    assert plain(host["qoder_id"]) == added["id"]
    marked = {name for name, value in host.items() if isinstance(value, dict) and "__ansible_unsafe" in value}
    identifiers = {"qoder_id", "qoder_type", "qoder_status", "qoder_config_type", "qoder_networking_type"}
    names = {"qoder_name", "qoder_created_at", "qoder_updated_at"}
    assert marked == {"qoder_description", *(identifiers if ids_marked else ()), *(names if names_marked else ())}
    assert isinstance(host[CONTRACT]["id"], dict) is ids_marked
    assert host[CONTRACT]["base_url"] == qoder.sandbox.qoder.url
    assert host["ansible_host"] == f"{NO_LOGIN}.{added['id']}.qoder.invalid"


@pytest.mark.covers("qoder", "on_invalid")
def test_a_malformed_field_costs_no_host(qoder: Ansible) -> None:
    broken = environments(qoder)[0]
    qoder.sandbox.qoder.patch(broken["id"], config="cloud", created_at="yesterday", region={"name": "eu"})

    warned = qoder.inventory("--list")
    failed = qoder.inventory("--list", source=qoder.source(on_invalid="fail"))

    assert warned.returncode == 0
    assert warned.stderr.count("[WARNING]") == 1
    assert f"environment {broken['id']}: config: " in warned.stderr
    listing = json.loads(warned.stdout)
    hosts = {host["qoder_id"]: host for host in plain(listing["_meta"]["hostvars"]).values()}
    assert hosts.keys() == {entry["id"] for entry in environments(qoder)}
    host = hosts[broken["id"]]
    assert (host["qoder_invalid"], host["qoder_extra"]) == (["config", "created_at"], {"region": {"name": "eu"}})
    assert {"config": "cloud", "created_at": "yesterday"}.items() <= host["qoder_metadata"].items()
    assert (host["qoder_config"], host["qoder_created_at"]) == ({}, None)
    assert members(listing)["invalid"] == {broken["id"]}
    failed.assert_inventory_error("on_invalid", broken["id"], "config")


@pytest.mark.covers("qoder", "max_dropped_rows")
def test_too_many_rows_without_an_id_fail_the_listing(qoder: Ansible) -> None:
    qoder.sandbox.add_fault("invalid_rows", damage="no_id", route="qoder_list")

    run = qoder.inventory("--list", "--export", source=qoder.source(max_dropped_rows=1))
    failed = qoder.inventory("--list", source=qoder.source(max_dropped_rows=0))

    assert json.loads(run.stdout)["qoder"]["vars"] == {"qoder_dropped_rows": 1}
    failed.assert_inventory_error("max_dropped_rows: 1 of ", "environment number ")


@pytest.mark.covers("qoder", "fail_on_empty")
def test_an_empty_account_is_an_empty_inventory_or_an_error_on_demand(qoder: Ansible) -> None:
    qoder.sandbox.qoder.account("empty", "key-of-an-empty-account")
    empty = {"api_key": "key-of-an-empty-account"}

    assert qoder.hosts(**empty) == {}
    failed = qoder.inventory("--list", source=qoder.source(**empty, fail_on_empty=True))
    filtered = qoder.inventory("--list", source=qoder.source(filters=["archived"], fail_on_empty=True))

    for run in (failed, filtered):
        run.assert_inventory_error("fail_on_empty", qoder.sandbox.qoder.url)


@pytest.mark.covers("qoder", "compose", "groups", "keyed_groups", "leading_separator", "strict", "use_extra_vars")
def test_constructed_options_are_those_of_every_inventory_plugin(qoder: Ansible) -> None:
    options: dict[str, Any] = {
        "compose": {"ticket": "change"},
        "groups": {"hosted": "qoder_config_type == 'self_hosted'"},
        "keyed_groups": [{"key": "qoder_metadata.team | default('nobody')"}],
        "use_extra_vars": True,
    }

    run = qoder.inventory("--list", "-e", "change=CHG-1", source=qoder.source(**options, leading_separator=False))
    leading = qoder.inventory("--list", "-e", "change=CHG-1", source=qoder.source(**options))
    strict = qoder.inventory("--list", source=qoder.source(compose={"ticket": "change"}, strict=True))

    for done in (run, leading):
        done.assert_quiet()
        hosts = json.loads(done.stdout)["_meta"]["hostvars"]
        assert {host["ticket"] for host in plain(hosts).values()} == {"CHG-1"}
    groups, with_separator = (members(json.loads(done.stdout)) for done in (run, leading))
    assert groups["hosted"] == groups["config_type_self_hosted"]
    nobody = {entry["id"] for entry in environments(qoder) if not (entry["row"].get("metadata") or {}).get("team")}
    assert groups["nobody"] == with_separator["_nobody"] == nobody
    strict.assert_inventory_error("ticket", "change")


@pytest.mark.parametrize("generation", ["seed", "new"])
def test_a_page_that_fails_fails_the_listing_with_the_id_of_the_request(qoder: Ansible, generation: str) -> None:
    qoder.sandbox.settings(qoder_generation=generation)
    qoder.sandbox.add_fault("status", route="qoder_list", status=500, nth=2)

    run = qoder.inventory("--list", source=qoder.source(limit=5, retries=0))

    run.assert_inventory_error(
        f"GET {qoder.sandbox.qoder.url}/environments: 500 Internal Server Error: api_error: ", "(request_id "
    )


@pytest.mark.covers("qoder", "cache", "cache_plugin", "cache_connection", "cache_prefix", "cache_timeout")
def test_the_cache_answers_the_same_question_of_the_same_account_alone(qoder: Ansible) -> None:
    cache = qoder.directory / "cache"
    cached: dict[str, Any] = {
        "cache": True,
        "cache_plugin": "ansible.builtin.jsonfile",
        "cache_connection": str(cache),
        "cache_prefix": "clouds_",
        "cache_timeout": 3600,
    }
    qoder.sandbox.qoder.account("second", "key-of-the-second", environments=3, seed=9)

    first = qoder.listing(**cached)
    qoder.sandbox.clear_requests()
    again = qoder.listing(**cached)
    grouped = qoder.hosts(**cached, filters=["config_type == 'self_hosted'"])
    assert qoder.sandbox.requests() == []
    archived = qoder.hosts(**cached, include_archived=True)
    second = qoder.hosts(**cached, api_key="key-of-the-second")
    added = qoder.sandbox.qoder.add_environment()
    kept = qoder.hosts(**cached)
    flushed = qoder.inventory("--list", "--flush-cache", source=qoder.source(**cached))
    time.sleep(1.2)
    expired = qoder.hosts(**{**cached, "cache_timeout": 1})

    assert again == first
    assert 0 < len(grouped) < len(first["_meta"]["hostvars"])
    assert len(archived) > len(first["_meta"]["hostvars"])
    assert ids(second) <= {entry["id"] for entry in qoder.sandbox.qoder.environments("second")}
    assert added["id"] not in ids(kept)
    flushed.assert_quiet()
    assert added["id"] in ids(plain(json.loads(flushed.stdout)["_meta"]["hostvars"]))
    assert ids(expired) == ids(kept) | {added["id"]}
    # Two more requests: one after a flush and one after the cache expired.
    assert len(qoder.sandbox.requests()) == 4
    files = [path for path in cache.rglob("*") if path.is_file()]
    assert len(files) == 3
    for path in files:
        assert path.name.startswith("clouds_")
        assert qoder.sandbox.qoder.key not in path.read_text()


def test_a_hostile_account_is_usable_unique_harmless_hosts(qoder: Ansible) -> None:
    code = "lookup('ansible.builtin.pipe', 'touch PWNED')"
    account = qoder.sandbox.qoder
    account.account("hostile", "key-of-a-hostile-account", environments=40, seed=3, hostile=True)
    for name in ("{{ " + code + " }}", code, "localhost", "all", "qoder", "archived", "status_ready", "a:b", "-rf"):
        account.add_environment(
            "hostile", name=name, description=name, status=name, metadata={name: [name]}, config={"type": name}
        )
    source = qoder.source(
        api_key="key-of-a-hostile-account",
        hostname_prefix="",
        on_invalid="warn",
        include_archived=True,
        keyed_groups=[{"key": "qoder_status | default('none', true)", "prefix": "is"}],
    )
    look = [
        {"name": "look", "ansible.builtin.debug": {"msg": "{{ qoder_name }} {{ qoder_metadata }} {{ qoder_config }}"}},
        {"name": "deeper", "ansible.builtin.debug": {"var": "{{ qoder_name }}"}, "ignore_errors": True},
    ]

    listed = qoder.inventory("--list", source=source)
    run = qoder.playbook([{"hosts": "qoder", "gather_facts": False, "tasks": look}], source=source)

    assert listed.returncode == 0, listed.output
    hosts = plain(json.loads(listed.stdout)["_meta"]["hostvars"])
    assert len({host["qoder_id"] for host in hosts.values()}) == len(hosts)
    for name, host in hosts.items():
        assert re.fullmatch(r"[A-Za-z0-9_.][A-Za-z0-9._-]{0,254}", name)
        assert name not in ("localhost", "all", "qoder", "archived", "status_ready")
        assert host["ansible_host"] == f"{NO_LOGIN}.{host['qoder_id']}.qoder.invalid"
    assert "localhost" in {host["qoder_name"] for host in hosts.values()}
    assert run.returncode == 0, run.output[-3000:]
    assert list(qoder.directory.rglob("PWNED")) == []
