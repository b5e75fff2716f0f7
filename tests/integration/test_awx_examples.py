"""examples/awx: against the real modules of awx.awx, and with what AWX gives to the processes that it runs.

No AWX runs here: what its jobs do with job slices, `--limit` stands for.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader

from .conftest import AGENT, CHECKOUT, Ansible, awake

EXAMPLE = CHECKOUT / "examples/awx"
PROJECT = EXAMPLE / "project"
# The package that brings awx.awx with it; Galaxy is not everywhere to be reached.
PACKAGE, VERSION = "ansible", "12.3.0"
SETTINGS: dict[str, Any] = DataLoader().load_from_file(str(EXAMPLE / "settings.yml"))


@pytest.fixture(scope="module")
def collections() -> str:
    """The path of collections in which awx.awx is, besides this one."""
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
    """A module checks its arguments, and then says that there is nobody at the address of the controller."""
    [play] = yaml.safe_load((EXAMPLE / "configure.yml").read_text(encoding="utf-8"))
    settings = ansible.directory / "settings.yml"
    settings.write_text((EXAMPLE / "settings.yml").read_text(encoding="utf-8"))
    # What they say is to be seen, and one that fails is not to keep the next from being tried.
    tasks = [
        {**{key: value for key, value in task.items() if key != "no_log"}, "ignore_errors": True}
        for task in play["tasks"]
    ]

    run = ansible.playbook(
        [{**play, "tasks": tasks}],
        "-e",
        "letta_key=not-a-key",
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


def injected(credential: str, **inputs: str) -> dict[str, str]:
    """The environment variables that AWX makes of a credential; a field that was left empty is an empty text."""
    [kind] = [kind for kind in SETTINGS["awx_credential_types"] if kind["name"] == credential]
    values = {field["id"]: "" for field in kind["inputs"]["fields"]} | inputs
    variables: dict[str, str] = {}
    for name, template in kind["injectors"]["env"].items():
        [field] = [field for field in values if template == f"{{{{ {field} }}}}"]
        variables[name] = values[field]
    return variables


def test_the_source_lists_with_the_injected_credentials(ansible: Ansible) -> None:
    sandbox = ansible.sandbox
    listing = ansible.listing(
        source=PROJECT / "fleet.letta.yml", env=injected("Letta", api_key=sandbox.api_key, base_url=sandbox.url)
    )
    assert set(listing["_meta"]["hostvars"]) == {entry["id"] for entry in sandbox.fleet()}

    # Without the URL of a server of one's own, the blank field is none, and the API itself is meant.
    run = ansible.inventory(
        "--list",
        source=PROJECT / "fleet.letta.yml",
        env={**injected("Letta", api_key=sandbox.api_key), "HTTPS_PROXY": "http://127.0.0.1:9", "LETTA_RETRIES": "0"},
    )
    assert "https://api.letta.com" in run.stderr
    assert run.returncode != 0


def test_hosts_are_enabled_as_the_source_says(ansible: Ansible) -> None:
    tasks = yaml.safe_load((EXAMPLE / "configure.yml").read_text(encoding="utf-8"))[0]["tasks"]
    [source] = [task["awx.awx.inventory_source"] for task in tasks if "awx.awx.inventory_source" in task]
    variables = ansible.listing(source=PROJECT / "fleet.letta.yml")["_meta"]["hostvars"]

    # As _get_enabled in AWX's inventory_import.py compares.
    enabled = {
        host for host, own in variables.items() if str(own[source["enabled_var"]]).lower() == source["enabled_value"]
    }

    assert enabled == {entry["id"] for entry in ansible.sandbox.fleet() if entry["online"]}


def test_slices_that_share_a_campaign_and_a_retry_with_an_empty_ledger(ansible: Ansible) -> None:
    [template] = [item for item in SETTINGS["awx_job_templates"] if item["playbook"] == "instruct.yml"]
    hosts = [entry["id"] for entry in awake(ansible.sandbox)]
    count = template["job_slice_count"]
    answers = {question["variable"]: question.get("default", "") for question in template["survey_spec"]["spec"]}
    answers |= {"instruct_content": "Report.", "instruct_campaign": "spring", "instruct_agent_id": AGENT}

    def sliced(number: int, ledger: str) -> int:
        directory = ansible.directory / f"{ledger}-{number}"
        directory.mkdir()
        variables = {**template["extra_vars"], **answers, "instruct_ledger": str(ansible.directory / ledger)}
        run = Ansible(directory, ansible.sandbox).playbook(
            str(PROJECT / "instruct.yml"), "-e", json.dumps(variables), "--limit", ",".join(hosts[number::count]),
            source=PROJECT / "fleet.letta.yml",
        )  # fmt: skip
        return run.returncode

    for ledger in ("ledger.sqlite", "empty.sqlite"):
        with ThreadPoolExecutor(count) as threads:
            assert list(threads.map(sliced, range(count), [ledger] * count)) == [0] * count
        received = ansible.sandbox.received()
        assert {id_: device["turns"] for id_, device in received.items()} == dict.fromkeys(hosts, 1)
