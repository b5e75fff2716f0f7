"""The examples for schedulers: their exit codes, that they run once at a time, and that systemd accepts the units."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from .conftest import AGENT, CHECKOUT, Ansible, awake

EXAMPLES = CHECKOUT / "examples/schedulers"
INSTRUCT = "fleetops.environments.instruct"
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not on this machine")


def run_scheduled(ansible: Ansible, pattern: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `fleetops-run` as a scheduler does: no terminal, no standard input, and the test's own lock and ledger."""
    environment = {
        **os.environ,
        "FLEETOPS_LOCK": str(ansible.directory / "lock"),
        "FLEETOPS_LEDGER": str(ansible.directory / "ledger.sqlite"),
        "LETTA_BASE_URL": ansible.sandbox.url,
        "LETTA_API_KEY": ansible.sandbox.api_key,
        # The default ansible-playbook, without the checkout's ansible.cfg.
        "ANSIBLE_CONFIG": str(ansible.file("ansible.cfg", "")),
        **env,
    }
    command = [str(EXAMPLES / "fleetops-run"), pattern, "-i", str(ansible.source()), *arguments]
    return subprocess.run(
        command, cwd=ansible.directory, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def instruct_arguments(ansible: Ansible) -> list[str]:
    variables = yaml.safe_load((EXAMPLES / "instruct.yml").read_text()) | {"instruct_agent_id": AGENT}
    return [INSTRUCT, "-e", f"@{ansible.file('instruct.yml', yaml.safe_dump(variables))}"]


def test_the_playbook_runs_and_a_second_run_on_that_day_changes_nothing(ansible: Ansible) -> None:
    for run in (1, 2):
        done = run_scheduled(ansible, "letta", *instruct_arguments(ansible))
        assert (done.returncode, done.stderr) == (0, ""), run

    received = ansible.sandbox.received()
    assert {device["turns"] for device in received.values()} == {1}
    assert set(received) >= {entry["id"] for entry in awake(ansible.sandbox)}


def test_failed_hosts_no_target_an_unread_inventory_and_an_overlap_end_differently(ansible: Ansible) -> None:
    entry = awake(ansible.sandbox)[0]
    ansible.sandbox.add_fault("status", route="messages", status=422)
    failed = run_scheduled(ansible, "letta", *instruct_arguments(ansible), "--limit", entry["name"])
    assert failed.returncode == 2

    sent = len(ansible.sandbox.requests("messages"))
    nobody = run_scheduled(ansible, "mode_nosuch", *instruct_arguments(ansible))
    assert (nobody.returncode, nobody.stderr.splitlines()[-1]) == (
        66,
        "fleetops-run: mode_nosuch has no host that --limit leaves",
    )
    limited = run_scheduled(ansible, "letta", *instruct_arguments(ansible), "--limit=mode_unknown,!all")
    assert limited.returncode == 66

    unread = run_scheduled(ansible, "letta", *instruct_arguments(ansible), LETTA_API_KEY="wrong-key-for-loopback")
    assert (unread.returncode, unread.stderr.splitlines()[-1]) == (65, "fleetops-run: the inventory cannot be read")

    with (ansible.directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        overlapping = run_scheduled(ansible, "letta", *instruct_arguments(ansible))
    assert overlapping.returncode == 75
    assert "another run holds" in overlapping.stderr
    assert len(ansible.sandbox.requests("messages")) == sent


def test_the_targets_are_listed_with_the_options_of_the_inventory(ansible: Ansible) -> None:
    locked = ansible.vault("encrypt_string", ansible.sandbox.api_key, "--name", "letta_api_key")
    name = awake(ansible.sandbox)[0]["name"]
    given = [f"-e@{ansible.file('secrets.yml', locked)}", *ansible.opened, f"-l{name}"]

    done = run_scheduled(ansible, "letta", *instruct_arguments(ansible), *given, LETTA_API_KEY="")

    assert done.returncode == 0, done.stdout + done.stderr
    assert len(ansible.sandbox.received()) == 1


def test_a_lock_that_fails_for_another_reason_is_no_overlap(ansible: Ansible) -> None:
    flock = ansible.file("bin/flock", "#!/bin/sh\nexit 71\n")
    flock.chmod(0o755)

    done = run_scheduled(ansible, "letta", *instruct_arguments(ansible), PATH=f"{flock.parent}:{os.environ['PATH']}")
    nowhere = run_scheduled(ansible, "letta", *instruct_arguments(ansible), FLEETOPS_LOCK="/nonexistent/lock")

    assert (done.returncode, nowhere.returncode) == (1, 1)
    assert "cannot lock" in done.stderr
    assert "/nonexistent/lock" in nowhere.stderr
    assert ansible.sandbox.requests() == []


def settings_of(unit: str, name: str) -> list[str]:
    """The values of a setting in a systemd unit file."""
    return re.findall(rf"^{name}=(.*)$", (EXAMPLES / unit).read_text(encoding="utf-8"), re.MULTILINE)


def test_the_service_runs_with_the_credential_the_state_and_the_lock_that_it_names(ansible: Ansible) -> None:
    """Its command, with the effects of its other settings in systemd."""
    [credential] = settings_of("fleetops-instruct.service", "LoadCredential")
    [state] = settings_of("fleetops-instruct.service", "StateDirectory")
    ansible.file(f"credentials/{credential.partition(':')[0]}", ansible.sandbox.api_key)
    for directory in ("state", "credentials"):
        (ansible.directory / directory).mkdir(exist_ok=True)
    (ansible.directory / "state" / state).mkdir()
    environment = {"PATH": os.environ["PATH"], "LETTA_BASE_URL": ansible.sandbox.url}
    for line in settings_of("fleetops-instruct.service", "Environment"):
        for word in line.split():
            name, _equals, value = word.partition("=")
            value = value.replace("%S", str(ansible.directory / "state"))
            environment[name] = value.replace("%d", str(ansible.directory / "credentials"))
    environment["ANSIBLE_COLLECTIONS_PATH"] = os.environ["ANSIBLE_COLLECTIONS_PATH"]
    ansible.source("fleet.letta.yml")
    instruct_arguments(ansible)
    [command] = settings_of("fleetops-instruct.service", "ExecStart")
    program, *arguments = shlex.split(command)

    done = subprocess.run(
        [EXAMPLES / Path(program).name, *arguments], cwd=ansible.directory, env=environment,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    kept = {path.name for path in (ansible.directory / "state" / state).iterdir() if path.is_file()}
    assert {"ledger.sqlite", "run.lock"} <= kept
    # An overlap is not a failure of the unit.
    assert settings_of("fleetops-instruct.service", "SuccessExitStatus") == ["75"]


@needs_systemd
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    for path in EXAMPLES.glob("fleetops-instruct.*"):
        # The program is searched for where it would be installed.
        unit = path.read_text().replace("/usr/local/bin/fleetops-run", str(EXAMPLES / "fleetops-run"))
        (tmp_path / path.name).write_text(unit)

    units = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_timer_has_a_random_delay_and_catches_up_on_missed_runs() -> None:
    assert settings_of("fleetops-instruct.timer", "RandomizedDelaySec") == ["10min"]
    assert settings_of("fleetops-instruct.timer", "Persistent") == ["true"]


@needs_systemd
def test_the_timer_uses_its_time_zone() -> None:
    [when] = settings_of("fleetops-instruct.timer", "OnCalendar")

    for base, elapses in (
        ("2026-01-04 12:00 UTC", "2026-01-05 05:30:00 UTC"),
        ("2026-07-05 12:00 UTC", "2026-07-06 04:30:00 UTC"),
    ):
        done = subprocess.run(
            ["systemd-analyze", "calendar", f"--base-time={base}", when],
            env={**os.environ, "TZ": "UTC"}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert elapses in done.stdout


def test_all_schedulers_run_the_tested_program() -> None:
    cron = (EXAMPLES / "fleetops.cron").read_text()
    workflow = yaml.safe_load((EXAMPLES / "ci-workflow.yml").read_text())
    arguments = ["-i", "fleet.letta.yml", INSTRUCT, "-e", "@instruct.yml"]

    [started] = settings_of("fleetops-instruct.service", "ExecStart")
    assert shlex.split(started)[1:] == ["letta", *arguments]
    assert shlex.split(cron.splitlines()[-1])[-len(arguments) - 2 :] == ["fleetops-run", "letta", *arguments]
    # In cron a bare percent sign ends the command.
    assert not re.search(r"(?<!\\)%", cron.splitlines()[-1])
    assert shlex.split(workflow["jobs"]["instruct"]["steps"][-1]["run"]) == ["ansible-playbook", *arguments]
