"""Modules that run on real devices, over the relay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Ansible, Run
from tests.sandbox.process import Sandbox

from .conftest import Fleet
from .device import Device
from .test_terminal import wait_until_gone

ON_DEVICES: dict[str, Any] = {"hosts": "alpha", "vars": {"ansible_python_interpreter": "/usr/bin/python3"}}
# A device's user may have any of these shells; their startup files disturb typed commands.
SHELLS = {"bash": "bash", "zsh": "zsh", "new-zsh": "zsh", "fish": "fish", "dash": "dash"}
START_UP_FILES = {
    "bash": {
        ".bashrc": "echo '<ready>'; read -t 0.5 line; PS1='\\[\\e[31m\\]> '; PROMPT_COMMAND='echo prompt'\n"
        "set -o vi; trap 'echo bye' EXIT; (sleep 0.3; echo noise; sleep 0.3; echo more) &\n"
    },
    "zsh": {".zshrc": "PROMPT='%F{red}> '; preexec() { echo before; }; precmd() { echo after; }; echo hello\n"},
    "new-zsh": {},
    "fish": {".config/fish/config.fish": "function fish_prompt; echo '> '; end; echo hello\n"},
    "dash": {".profile": "exit 1\n"},
}


def task(name: str, module: str, /, become: bool = False, **options: Any) -> dict[str, Any]:
    """A task of one of Ansible's own modules; the play continues if it fails."""
    return {"name": name, f"ansible.builtin.{module}": options, "become": become, "ignore_errors": True}


def on_devices(ansible: Ansible, *tasks: dict[str, Any], pipelining: bool = True, **options: Any) -> Run:
    """A play of these tasks on devices."""
    play = {**ON_DEVICES, **options.pop("play", {})}
    play["vars"] = {"ansible_pipelining": pipelining, **ON_DEVICES["vars"], **options.pop("variables", {})}
    return ansible.steps(*tasks, source=ansible.source(connection="relay"), **play, **options)


def connections(sandbox: Sandbox) -> int:
    """The number of opened WebSockets."""
    return len([entry for entry in sandbox.requests("relay") if entry["status"] == 101])


@pytest.mark.parametrize("pipelining", [True, False])
def test_every_kind_of_task_works_with_one_connection_each_and_leaves_nothing(
    ansible: Ansible, fleet: Fleet, tmp_path: Path, pipelining: bool
) -> None:
    there = tmp_path / "on the device"
    there.mkdir()
    ansible.file("script.sh", "#!/bin/sh\necho ran with $1\n")
    ansible.file("template.j2", "{{ inventory_hostname }}: {{ '✓' }}\n")
    ansible.file("file.bin", "\x00\x01 ✓\n")
    tasks = [
        task("command", "command", argv=["printf", "%s\\n", "a 'b' \"c\" ✓"]),
        task("raw", "raw", _raw_params="printf out; printf err >&2; exit 3"),
        task("script", "script", cmd="script.sh one"),
        task("copy", "copy", src="file.bin", dest=f"{there}/copied", mode="0640"),
        task("template", "template", src="template.j2", dest=f"{there}/rendered"),
        task("fetch", "fetch", src=f"{there}/copied", dest=str(tmp_path / "fetched"), flat=True),
        task("stdin", "command", cmd="cat", stdin="line\n\n", stdin_add_newline=False),
        task("setup", "setup", gather_subset="all"),
        {**task("async", "command", cmd="echo later"), "async": 30, "poll": 1},
        {**task("loop", "command", cmd="echo {{ item }}"), "loop": [1, 2, 3]},
    ]

    run = on_devices(ansible, *tasks, pipelining=pipelining)

    assert run.result("command")["stdout"] == "a 'b' \"c\" ✓"
    raw = run.result("raw")
    assert (raw["rc"], raw["stdout"], raw["stderr"]) == (3, "out", "err")
    assert run.result("script")["stdout"] == "ran with one\n"
    assert (there / "copied").read_text() == (tmp_path / "fetched").read_text() == "\x00\x01 ✓\n"
    assert (there / "copied").stat().st_mode & 0o777 == 0o640
    assert (there / "rendered").read_text() == "alpha: ✓\n"
    assert run.result("stdin")["stdout"] == "line\n\n".rstrip("\n")
    assert run.result("setup")["ansible_facts"]["ansible_env"]["HOME"] == str(fleet.alpha.home)
    assert run.result("async")["stdout"] == "later"
    assert [item["stdout"] for item in run.result("loop")["results"]] == ["1", "2", "3"]
    assert connections(fleet.sandbox) == len(tasks)
    assert fleet.sandbox.api_key not in run.output + json.dumps(run.results)
    wait_until_gone(fleet.alpha)
    # Directories that Ansible itself keeps on every host.
    assert {path.name for path in fleet.alpha.home.glob(".*")} <= {".ansible", ".ansible_async", ".letta"}


def test_a_command_that_prints_too_much_is_ended_and_fails_its_task_as_too_long_a_file_does(
    ansible: Ansible, fleet: Fleet, tmp_path: Path
) -> None:
    run = on_devices(
        ansible,
        task("endless", "raw", _raw_params=f"echo $$ >'{tmp_path}/pid'; exec cat /dev/zero"),
        task("large", "raw", _raw_params="head -c 1048576 /dev/zero | tr '\\0' x"),
        task("file", "raw", _raw_params=f"head -c 1048577 /dev/zero >'{tmp_path}/file'"),
        task("fetched", "fetch", src=str(tmp_path / "file"), dest=str(tmp_path / "fetched"), flat=True),
        variables={"letta_max_output": 1, "letta_max_file": 1},
    )

    message = run.result("endless")["msg"]
    assert "the command printed more than 1 MB and was ended; raise max_output (variable letta_max_output)" in message
    assert "unreachable" not in run.result("endless")
    assert len(run.result("large")["stdout"]) == 1024**2
    assert "the file is longer than 1 MB; raise max_file (variable letta_max_file)" in run.result("fetched")["msg"]
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()
    wait_until_gone(fleet.alpha)


@pytest.fixture(scope="module")
def sudo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for sudo with a password: like sudo, it asks on standard error, and reads from standard input."""
    path = tmp_path_factory.mktemp("sudo") / "sudo"
    path.write_text(
        f"#!{sys.executable}\n"
        "import os, sys\n"
        "arguments = sys.argv[1:]\n"
        "prompt = arguments[arguments.index('-p') + 1]\n"
        "for _attempt in range(3):\n"
        "    sys.stderr.write(prompt)\n"
        "    sys.stderr.flush()\n"
        "    line = b''\n"
        "    while not line.endswith(b'\\n'):\n"
        "        line += os.read(0, 1)\n"
        "    if line == b'open sesame\\n':\n"
        "        os.environ['BECAME'] = arguments[arguments.index('-u') + 1]\n"
        "        shell = arguments.index('/bin/sh')\n"
        "        os.execvp('/bin/sh', arguments[shell:])\n"
        "    sys.stderr.write('Sorry, try again.\\n')\n"
        "sys.exit(1)\n"
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("pipelining", [True, False])
def test_become_sends_the_password_only_to_the_prompt(
    ansible: Ansible, fleet: Fleet, sudo: Path, pipelining: bool
) -> None:
    variables = {"ansible_become_exe": str(sudo), "ansible_become_password": "open sesame"}

    run = on_devices(
        ansible,
        task("raw", "raw", become=True, _raw_params="echo $BECAME; cat; echo err >&2"),
        task("module", "command", become=True, cmd="env"),
        pipelining=pipelining,
        variables=variables,
    )

    raw = run.result("raw")
    assert (raw["stdout"], raw["stderr"]) == ("root\n", "err\n")
    assert "BECAME=root" in run.result("module")["stdout_lines"]
    assert "open sesame" not in run.output + json.dumps(run.results)
    wait_until_gone(fleet.alpha)


def test_a_wrong_password_fails_at_once_and_leaves_nothing(ansible: Ansible, fleet: Fleet, sudo: Path) -> None:
    variables = json.dumps({"ansible_become_exe": str(sudo), "ansible_become_password": "let me in"})

    run = on_devices(ansible, task("it", "command", become=True, cmd="id"), arguments=("-e", variables))

    assert run.result("it")["msg"] == "Task failed: Incorrect sudo password, see become_pass"
    assert "let me in" not in run.output
    wait_until_gone(fleet.alpha)


def test_a_password_refused_at_the_end_is_distinguished_from_a_failed_command(ansible: Ansible, tmp_path: Path) -> None:
    refusing = tmp_path / "sudo"
    refusing.write_text(
        "#!/bin/sh\n"
        'while [ "$1" != -p ]; do shift; done\n'
        'printf %s "$2" >&2; read -r line; echo "Sorry, try again." >&2; exit 1\n'
    )
    refusing.chmod(0o755)
    variables = {"ansible_become_exe": str(refusing), "ansible_become_password": "let me in"}

    run = on_devices(ansible, task("it", "raw", become=True, _raw_params="id"), variables=variables)

    assert run.result("it")["msg"] == "Task failed: Incorrect sudo password, see become_pass"


def test_an_unknown_prompt_makes_the_device_unreachable_and_is_ended(
    ansible: Ansible, fleet: Fleet, tmp_path: Path
) -> None:
    asking = tmp_path / "sudo"
    asking.write_text("#!/bin/sh\nprintf 'Parole: ' >&2; read -r line; exit 1\n")
    asking.chmod(0o755)
    variables = {"ansible_become_exe": str(asking), "ansible_become_password": "open sesame", "letta_timeout": 10}

    run = on_devices(ansible, task("it", "raw", become=True, _raw_params="id"), variables=variables)

    run.assert_error("UNREACHABLE!", "the command asked nothing known within the timeout of 10 s")
    wait_until_gone(fleet.alpha)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, because sudo asks root for no password")
def test_become_with_sudo_itself(ansible: Ansible) -> None:
    run = on_devices(
        ansible,
        task("it", "command", become=True, cmd="id -un"),
        play={"become_user": "nobody"},
        # User nobody may not read root's files, but with pipelining the interpreter needs no file.
        pipelining=True,
        variables={"ansible_remote_tmp": "/tmp"},
    )

    assert run.result("it")["stdout"] == "nobody", run.output


def test_the_interpreter_is_found_on_the_device(ansible: Ansible) -> None:
    run = on_devices(ansible, task("it", "ping"), variables={"ansible_python_interpreter": "auto_silent"})

    run.assert_quiet()
    assert run.result("it")["ping"] == "pong"


@pytest.fixture(scope="module")
def shells(letta: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sandbox, dict[str, Device]]]:
    """Five devices whose users have different shells."""
    homes = tmp_path_factory.mktemp("shells")
    with ExitStack() as running:
        sandbox = running.enter_context(Sandbox.start(devices=0))

        def start(name: str) -> Device:
            for file, text in START_UP_FILES[name].items():
                path = homes / name / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            shell = subprocess.check_output(["sh", "-c", f"command -v {SHELLS[name]}"], text=True).strip()
            return running.enter_context(Device.start(sandbox, name, homes / name, SHELL=shell))

        with ThreadPoolExecutor() as starting:
            devices = list(starting.map(start, SHELLS))
        yield sandbox, dict(zip(SHELLS, devices, strict=True))


def test_five_devices_at_once_with_different_shells_and_startup_files(
    shells: tuple[Sandbox, dict[str, Device]], tmp_path: Path
) -> None:
    sandbox, devices = shells

    run = on_devices(
        Ansible(tmp_path, sandbox),
        task("raw", "raw", _raw_params="cat; printf 'out\\n\\n'; printf err >&2; exit 4"),
        task("module", "command", cmd="echo hello"),
        play={"hosts": "all"},
    )

    for name, device in devices.items():
        raw = run.result("raw", name)
        assert (raw["rc"], raw["stdout"], raw["stderr"]) == (4, "out\n\n", "err"), name
        assert run.result("module", name)["stdout"] == "hello", name
        wait_until_gone(device)
        for history in device.home.rglob("*history*"):
            assert "stty" not in history.read_text(), history


def test_nothing_connects_until_it_is_asked_for(ansible: Ansible, fleet: Fleet) -> None:
    run = ansible.steps(task("it", "ping"), hosts="alpha")

    assert "UNREACHABLE" in run.output
    assert "alpha" not in ansible.hosts()["alpha"]["ansible_host"]
    assert connections(fleet.sandbox) == 0


def test_actions_on_the_controller_never_connect(ansible: Ansible, fleet: Fleet) -> None:
    run = ansible.steps(
        task("debug", "debug", msg="hello"),
        {"name": "send", "fleetops.environments.send_message": {"content": "hello", "agent_id": "agent-1"}},
        source=ansible.source(connection="relay"),
        hosts="alpha",
    )

    run.assert_quiet()
    assert fleet.sandbox.requests("relay") == []


def test_the_plugin_itself_imports_no_heavy_package() -> None:
    program = (
        "import sys, ansible.plugins.connection, ansible.module_utils.common.arg_spec, ansible.utils.display\n"
        "before = set(sys.modules)\n"
        "import ansible_collections.fleetops.environments.plugins.connection.letta\n"
        "print(*sorted(set(sys.modules) - before))"
    )

    said = subprocess.check_output(
        [sys.executable, "-c", program],
        text=True,
        env={**os.environ, "PYTHONPATH": os.environ["ANSIBLE_COLLECTIONS_PATH"]},
    )

    ours = {name for name in said.split() if name.startswith("ansible")}
    assert {name.partition(".")[0] for name in set(said.split()) - ours} <= set(sys.stdlib_module_names), said
    assert all("module_utils._deps" not in name for name in ours)


@pytest.mark.parametrize(
    ("variables", "env", "said"),
    [
        ({"letta_allow_connection": False}, {}, "the variable letta_allow_connection forbids commands on this device"),
        (
            {"letta_allow_connection": True},
            {"LETTA_ALLOW_CONNECTION": "false"},
            "the environment variable LETTA_ALLOW_CONNECTION forbids commands on devices",
        ),
        ({}, {"LETTA_ALLOW_CONNECTION": "perhaps"}, "LETTA_ALLOW_CONNECTION: must be true or false, got 'perhaps'"),
    ],
)
def test_a_forbidden_connection_fails_and_does_not_connect(
    ansible: Ansible, fleet: Fleet, variables: dict[str, Any], env: dict[str, str], said: str
) -> None:
    run = on_devices(ansible, task("it", "ping"), variables=variables, env=env)

    assert run.result("it")["msg"] == f"Task failed: {said}"
    assert fleet.sandbox.requests("relay") == []


def test_a_device_in_another_mode_is_refused_unless_allowed(ansible: Ansible, fleet: Fleet) -> None:
    fleet.sandbox.patch(fleet.alpha_row["id"], currentMode="standard")
    try:
        refused = on_devices(ansible, task("it", "ping"))
        assert "the device is in mode standard, which a terminal would go round" in refused.result("it")["msg"]
        assert fleet.sandbox.requests("relay") == []

        allowed = on_devices(ansible, task("it", "ping"), variables={"letta_allow_outside_permission_mode": True})
        assert allowed.result("it")["ping"] == "pong"
    finally:
        fleet.sandbox.patch(fleet.alpha_row["id"], currentMode="unrestricted")


@pytest.mark.parametrize(("variable", "os"), [("letta_metadata", "win32"), ("letta_metadata", "windows")])
def test_a_system_other_than_posix_is_refused(ansible: Ansible, fleet: Fleet, variable: str, os: str) -> None:
    row = fleet.alpha_row
    fleet.sandbox.patch(row["id"], metadata={**row["metadata"], "os": os})
    try:
        run = on_devices(ansible, task("it", "ping"))
    finally:
        fleet.sandbox.patch(row["id"], metadata=row["metadata"])

    assert run.result("it")["msg"] == f"Task failed: the device runs {os}, and only POSIX systems can be worked with"


def test_blank_options_count_as_unset(ansible: Ansible) -> None:
    run = on_devices(
        ansible,
        task("it", "ping"),
        variables={"letta_timeout": "", "letta_validate_certs": "", "letta_base_url": " "},
        env={"LETTA_TIMEOUT": "", "LETTA_VALIDATE_CERTS": "", "LETTA_ALLOW_CONNECTION": ""},
    )

    assert run.result("it")["ping"] == "pong"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"fault": "status", "status": 401}, "401"),
        ({"fault": "status", "status": 404}, "404"),
        ({"fault": "status", "status": 503}, "503"),
        ({"fault": "relay_close"}, "the relay closed the connection (1011"),
        ({"fault": "relay_cut_before"}, "the connection was cut"),
        ({"fault": "relay_silent"}, "no shell on the device within the timeout of 5 s"),
    ],
)
def test_a_device_that_cannot_be_reached_is_unreachable(
    ansible: Ansible, fleet: Fleet, fault: dict[str, Any], said: str
) -> None:
    fleet.sandbox.add_fault(**fault, route="relay")

    run = on_devices(ansible, task("it", "ping"), variables={"letta_timeout": 5, "letta_retries": 1})

    assert run.returncode == 4
    assert said in run.output
    assert "unreachable=1" in run.output
    assert "Traceback" not in run.output


def test_an_offline_device_is_unreachable_at_once(ansible: Ansible, fleet: Fleet) -> None:
    real = (fleet.alpha.name, fleet.beta.name)
    simulated = next(entry for entry in fleet.sandbox.fleet() if entry["name"] not in real)
    fleet.sandbox.offline(simulated["id"])

    run = on_devices(ansible, task("it", "ping"), play={"hosts": simulated["name"]})

    assert "the environment is offline" in run.output
    assert run.returncode == 4


@pytest.fixture(scope="module")
def nothing_is_left(device_processes: Fleet) -> Iterator[None]:
    """Waits at the end, once, for the devices to notice that their clients are gone."""
    yield
    wait_until_gone(device_processes.alpha)


# A task's commands: the terminal, the line that starts our shell, our shell, the module, the end.
@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize("fault", ["relay_cut_before", "relay_cut_after", "relay_cut_during", "relay_silent"])
@pytest.mark.parametrize("command", [1, 2, 3, 4, 5])
def test_nothing_runs_twice_and_nothing_is_left_wherever_the_relay_drops(
    ansible: Ansible, fleet: Fleet, tmp_path: Path, fault: str, command: int
) -> None:
    count = tmp_path / "count"
    fleet.sandbox.add_fault(fault, target=fleet.alpha_row["id"], command=command, times=1)
    # As short as a busy machine allows, if the timeout is waited for. A device that is silent from the first command on
    # would be given up after the relay_timeout.
    limits = {"letta_timeout": 15 if fault == "relay_silent" else 60, "letta_relay_timeout": 60}

    run = on_devices(ansible, task("it", "raw", _raw_params=f"echo ran >>'{count}'"), variables=limits)

    ran = count.read_text().count("ran") if count.exists() else 0
    if command in (1, 2, 5):
        assert (run.result("it").get("rc"), ran) == (0, 1), run.output
    elif run.returncode == 0:
        assert (command, ran) == (3, 1)
    else:
        assert run.returncode == 4, run.output
        assert "what was begun may have been done" in run.output
        assert ran <= 1
    assert "Traceback" not in run.output
