"""Integration targets of ansible-core itself, unmodified, over Letta's relay.

They come from the source archive of the ansible-core in use. `connection` is the target that core runs for each of its
connection plugins; the roles are those whose results depend on the connection. Hosts have the names that core uses.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ansible.release import __version__ as core_version

from tests.integration.conftest import Ansible
from tests.sandbox.process import Sandbox

from .device import CHECKOUT, Device

# Host → whether modules are piped into Python, or copied to the device first.
HOSTS = {"testhost": True, "testhost2": False}
GROUP = "letta"

without_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: becomes root with su and no password")
without_python = pytest.mark.skipif(
    shutil.which("python3", path=os.defpath) is None, reason=f"needs a python3 in {os.defpath}, to be discovered"
)
ROLES = [
    "async_fail",
    pytest.param("interpreter_discovery_python", marks=without_python),
    "old_style_modules_posix",
    pytest.param("raw", marks=without_root),
    "script",
    "wait_for_connection",
    "want_json_modules_posix",
]

_MAKES_USERS = "adds users to the machine that it runs on, which here also runs the tests"
_WINDOWS = "is `connection` on Windows, and the devices are POSIX systems"
SKIPPED = {
    "connection_delegation": "asks a connection plugin of its own which password it was given",
    "connection_local": "is `connection` with another inventory, and options that only the plugin `local` has",
    "connection_paramiko_ssh": "is `connection` with another inventory",
    "connection_persistent": "tries connections of network devices, which a daemon keeps open between tasks",
    "connection_psrp": _WINDOWS,
    "connection_remote_is_local": "looks for what the plugin `local` prints",
    "connection_ssh": "is `connection` with another inventory, and options that only the plugin `ssh` has",
    "connection_windows_no_pipelining": _WINDOWS,
    "connection_windows_ssh": _WINDOWS,
    "connection_winrm": _WINDOWS,
    "async": "wants files of async tasks on localhost in the user's own home, and HOME is another one here",
    "become": _MAKES_USERS,
    "become_su": _MAKES_USERS,
    "become_sudo": _MAKES_USERS,
    "copy": _MAKES_USERS,
    "fetch": f"{_MAKES_USERS}, and wants a wrong ansible_user to be unreachable, which means nothing here",
    "slurp": _MAKES_USERS,
}


def source_targets(version: str = core_version) -> Path:
    """The integration targets in the source archive of an ansible-core; downloaded once, to .build/core.

    Raises RuntimeError with the output of pip if the archive cannot be downloaded.
    """
    directory = CHECKOUT / ".build" / "core" / version
    if not directory.is_dir():
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent) as partial:
            done = subprocess.run(
                [
                    sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                    "--no-binary", "ansible-core", "--dest", partial, f"ansible-core=={version}",
                ],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode != 0:
                raise RuntimeError(
                    f"the source archive of ansible-core {version} cannot be had, and its own tests are in it:\n"
                    f"{done.stderr}"
                )
            [archive] = Path(partial).glob("*.tar.gz")
            with tarfile.open(archive) as opened:
                opened.extractall(partial, filter="data")
            [targets] = Path(partial).glob("*/test/integration/targets")
            # Another worker process of the tests may have been faster.
            with contextlib.suppress(OSError):
                targets.rename(directory)
    return directory


@pytest.fixture(scope="module")
def targets() -> Path:
    """Without the source archive these tests fail with the reason."""
    try:
        return source_targets()
    except RuntimeError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="module")
def devices(letta: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A sandbox whose fleet is a real device for each host."""
    homes = tmp_path_factory.mktemp("hosts")
    with contextlib.ExitStack() as running:
        sandbox = running.enter_context(Sandbox.start(devices=0))
        for host in HOSTS:
            running.enter_context(Device.start(sandbox, host, homes / host))
        yield sandbox


@pytest.fixture
def ansible(devices: Sandbox, tmp_path: Path) -> Ansible:
    """Ansible's commands, with the variables of core's own inventories next to the source."""
    devices.clear_requests()
    ansible = Ansible(tmp_path, devices)
    ansible.source(connection="relay")
    ansible.file(
        f"group_vars/{GROUP}.yml", yaml.safe_dump({"ansible_python_interpreter": "{{ ansible_playbook_python }}"})
    )
    for host, pipelining in HOSTS.items():
        ansible.file(f"host_vars/{host}.yml", yaml.safe_dump({"ansible_pipelining": pipelining}))
    return ansible


def test_cores_own_test_of_connections_passes(ansible: Ansible, targets: Path) -> None:
    """Core's plays and script, with and without pipelining: commands and files in Unicode, waiting, resetting."""
    target = ansible.directory / "connection"
    shutil.copytree(targets / "connection", target)
    extra = {
        "target_hosts": GROUP,
        "action_prefix": "",
        "local_tmp": ansible.directory / "local tmp",
        "remote_tmp": ansible.directory / "remote tmp",
    }
    done = subprocess.run(
        ["bash", "test.sh", *(word for name, value in extra.items() for word in ("-e", f"{name}={value}"))],
        cwd=target,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "INVENTORY": str(ansible.directory / "fleet.yml"),
            "LETTA_BASE_URL": ansible.sandbox.url,
            "LETTA_API_KEY": ansible.sandbox.api_key,
        },
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert ansible.sandbox.requests("relay"), done.stdout


@pytest.mark.parametrize(
    "role", [*ROLES, *(pytest.param(name, marks=pytest.mark.skip(f"{name} {why}")) for name, why in SKIPPED.items())]
)
def test_a_role_of_core_passes(ansible: Ansible, targets: Path, role: str) -> None:
    """As `ansible-test` runs it; `ansible-test` writes this play."""
    play = {"hosts": "testhost", "gather_facts": True, "roles": [role]}
    # A role may become the user that it already is, and read facts as variables.
    environment = {
        "ANSIBLE_ROLES_PATH": str(targets),
        "ANSIBLE_BECOME_ALLOW_SAME_USER": "1",
        "ANSIBLE_INJECT_FACT_VARS": "true",
    }

    run = ansible.playbook([play], source=ansible.directory / "fleet.yml", env=environment)

    assert run.returncode == 0, run.output
    assert ansible.sandbox.requests("relay"), run.output


def test_each_connection_target_of_core_is_run_or_has_a_reason_not_to_run(targets: Path) -> None:
    assert {path.name for path in targets.glob("connection*")} <= {"connection", *SKIPPED}


def test_a_source_archive_that_cannot_be_downloaded_is_an_error_with_the_message_of_pip() -> None:
    with pytest.raises(
        RuntimeError, match=r"(?s)^the source archive of ansible-core 0\.0\.0 .*No matching distribution"
    ):
        source_targets("0.0.0")
