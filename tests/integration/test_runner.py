"""The playbooks in ansible-runner, with which AWX runs jobs, and in ansible-navigator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.turns import LongTurn

from .conftest import AGENT, Ansible, awake

INSTRUCT = "fleetops.environments.instruct"


def variables(**others: Any) -> dict[str, Any]:
    return {"instruct_content": "Report.", "instruct_agent_id": AGENT, **others}


@pytest.fixture
def key_file(ansible: Ansible) -> dict[str, str]:
    """The environment with the key in a file, so that ansible-runner does not record the key."""
    path = ansible.file("key", ansible.sandbox.api_key)
    return {"LETTA_BASE_URL": ansible.sandbox.url, "LETTA_API_KEY_FILE": str(path)}


def run_in_runner(ansible: Ansible, env: dict[str, str], *, timeout: int = 0, **others: Any) -> dict[str, Any]:
    """`ansible_runner.run` in its own process; its status, rc, events and the directory of its artifacts."""
    private = ansible.directory / "runner"
    private.mkdir(exist_ok=True)
    given = {
        "private_data_dir": str(private),
        "playbook": INSTRUCT,
        "inventory": str(ansible.source()),
        "extravars": variables(**others),
        "envvars": {name: value for name, value in os.environ.items() if name.startswith("ANSIBLE_")} | env,
        "settings": {"job_timeout": timeout} if timeout else {},
        "quiet": True,
    }
    program = (
        "import json, sys, ansible_runner\n"
        "run = ansible_runner.run(**json.loads(sys.argv[1]))\n"
        "events = [{'event': event['event'], 'data': event.get('event_data', {})} for event in run.events]\n"
        "found = {'status': run.status, 'rc': run.rc, 'stats': run.stats, 'artifacts': run.config.artifact_dir}\n"
        "print(json.dumps({**found, 'events': events}))\n"
    )
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LETTA_", "QODER_"))}
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(given)], cwd=ansible.directory, env=inherited,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def files_with(text: str, directory: str) -> set[str]:
    """The names of the files below a directory that contain a text."""
    return {
        path.name
        for path in Path(directory).rglob("*")
        if path.is_file() and text in path.read_text(encoding="utf-8", errors="replace")
    }


def test_a_job_ends_as_its_hosts_and_its_events_show_what_happened_to_each(
    ansible: Ansible, key_file: dict[str, str]
) -> None:
    bad, good = awake(ansible.sandbox)[:2]
    ansible.sandbox.add_fault("status", route="messages", target=bad["id"], status=422, message="Not like this")
    hosts = f"{bad['name']},{good['name']}"

    well = run_in_runner(ansible, key_file, instruct_hosts=good["name"])
    badly = run_in_runner(ansible, key_file, instruct_hosts=hosts, instruct_max_failures="50%")

    assert (well["status"], well["rc"]) == ("successful", 0)
    assert (badly["status"], badly["rc"]) == ("failed", 2)
    assert badly["stats"]["failures"] == {bad["name"]: 1}
    [sent] = [
        event["data"]["res"]
        for event in badly["events"]
        if event["event"] == "runner_on_ok" and "targets" in event["data"].get("res", {})
    ]
    assert {target["host"]: target["status"] for target in sent["targets"]} == {
        bad["name"]: "failed",
        good["name"]: "sent",
    }


def test_a_key_given_in_a_file_is_in_no_artifact(ansible: Ansible, key_file: dict[str, str]) -> None:
    name = awake(ansible.sandbox)[0]["name"]
    key = ansible.sandbox.api_key

    in_a_file = run_in_runner(ansible, key_file, instruct_hosts=name)
    in_the_environment = run_in_runner(
        ansible, {"LETTA_BASE_URL": ansible.sandbox.url, "LETTA_API_KEY": key}, instruct_hosts=name
    )

    assert files_with(key, in_a_file["artifacts"]) == set()
    # Runner records the whole environment that it gives to the job.
    assert files_with(key, in_the_environment["artifacts"]) == {"command"}


def test_a_job_that_takes_too_long_is_ended(ansible: Ansible, key_file: dict[str, str]) -> None:
    ansible.sandbox.script(AGENT, LongTurn(seconds=600))

    run = run_in_runner(
        ansible, key_file, timeout=10, instruct_hosts=awake(ansible.sandbox)[0]["name"], instruct_wait_for_reply=True
    )

    assert (run["status"], run["rc"]) == ("timeout", 254)
    assert files_with(ansible.sandbox.api_key, run["artifacts"]) == set()


@pytest.fixture
def navigator(ansible: Ansible) -> dict[str, str]:
    """The environment in which ansible-navigator runs the installed tools, without an execution environment."""
    return {
        "ANSIBLE_NAVIGATOR_EXECUTION_ENVIRONMENT": "false",
        "ANSIBLE_NAVIGATOR_MODE": "stdout",
        "ANSIBLE_NAVIGATOR_LOG_FILE": str(ansible.directory / "navigator.log"),
        "ANSIBLE_NAVIGATOR_PLAYBOOK_ARTIFACT_SAVE_AS": str(ansible.directory / "artifact.json"),
        "NO_COLOR": "1",
    }


def test_navigator_runs_a_playbook_and_stores_no_key(
    ansible: Ansible, key_file: dict[str, str], navigator: dict[str, str]
) -> None:
    entry = awake(ansible.sandbox)[0]
    playbook = ansible.file("site.yml", f"- import_playbook: {INSTRUCT}\n")
    given = json.dumps(variables(instruct_hosts=entry["name"]))
    command = ["ansible-navigator", "run", str(playbook), "-i", str(ansible.source()), "-e", given]

    done = subprocess.run(
        [str(Path(sys.executable).with_name(command[0])), *command[1:]], cwd=ansible.directory,
        env={**os.environ, **key_file, **navigator}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert ansible.sandbox.received()[entry["id"]]["turns"] == 1
    artifact = json.loads((ansible.directory / "artifact.json").read_text(encoding="utf-8"))
    assert artifact["status"] == "successful"
    assert files_with(ansible.sandbox.api_key, str(ansible.directory)) == {"key"}
