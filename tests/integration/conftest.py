"""Real ansible-inventory and ansible-playbook processes against a real sandbox process."""

from __future__ import annotations

import json
import os
import pty
import re
import ssl
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from tests.sandbox.process import Sandbox

from .ledgers import IN_POSTGRESQL, Ledgers

CHECKOUT = Path(__file__).resolve().parents[2]
DEVICES = 20
AGENT = "agent-1"
# Core gives each host this variable where facts are no variables, as in the configuration of the checkout.
FROM_CORE: dict[str, Any] = {"ansible_local": {}}


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers. test_options_covered.py collects the options that tests name."""
    config.addinivalue_line("markers", "of_the_file: is about the file of a ledger in SQLite")
    config.addinivalue_line("markers", "covers(plugin, *options): fails when one of these options is ignored")


def step(task: str, module: str, /, **options: Any) -> dict[str, Any]:
    """A task of a module of this collection; the play continues if the task fails."""
    return {"name": task, f"fleetops.environments.{module}": options, "ignore_errors": True}


def awake(sandbox: Sandbox) -> list[dict[str, Any]]:
    """The online environments that accept a message without an agent, as `Sandbox.fleet` has them."""
    return [
        entry
        for entry in sandbox.fleet()
        if entry["online"] and "environmentMessageProtocol" in (entry["row"].get("metadata") or {})
    ]


def add_updatable(sandbox: Sandbox, names: Iterable[str], version: str) -> None:
    """Add simulated devices that can update themselves to a version."""
    for name in names:
        sandbox.add_environment(connectionName=name, metadata={"lettaCodeVersion": "0.33.9"})
    sandbox.upgrade_to(version)


def messages_of(sandbox: Sandbox, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The user messages that reached an agent of an environment."""
    received: list[dict[str, Any]] = sandbox.received().get(entry["id"], {}).get("messages", [])
    return received


@dataclass(frozen=True)
class Run:
    """A finished process. results: every task's result, as recorded by the callback plugin."""

    returncode: int
    stdout: str
    stderr: str
    results: list[dict[str, Any]]

    @property
    def output(self) -> str:
        return self.stdout + self.stderr

    def result(self, task: str, host: str | None = None) -> dict[str, Any]:
        """The result of the only recorded task of that name (and host)."""
        found = [entry for entry in self.results if entry["task"] == task and host in (None, entry["host"])]
        assert len(found) == 1, f"{len(found)} results of {task!r}:\n{self.output}"
        result: dict[str, Any] = found[0]["result"]
        return result

    def assert_quiet(self) -> None:
        """Assert that there are only results: no warning, deprecation, error or traceback."""
        assert self.returncode == 0, self.output
        for word in ("WARNING", "DEPRECATION", "ERROR", "Traceback"):
            assert word not in self.output, self.output

    def assert_warning(self, *parts: str) -> None:
        """Assert success with one warning, on one line with all parts, and no deprecation, error or traceback."""
        assert self.returncode == 0, self.output
        for word in ("DEPRECATION", "ERROR", "Traceback"):
            assert word not in self.output, self.output
        (line,) = [line for line in self.output.splitlines() if "[WARNING]" in line]
        assert all(part in line for part in parts), self.output

    def assert_error(self, *parts: str) -> None:
        """Assert a non-zero exit, all parts on one line of output, no traceback, and no condition as the reason."""
        assert self.returncode != 0, self.output
        assert "Traceback" not in self.output, self.output
        assert "A 'failed_when' expression" not in self.output, self.output
        assert any(all(part in line for part in parts) for line in self.output.splitlines()), self.output

    def assert_inventory_error(self, *parts: str) -> None:
        """Assert that the inventory failed as a whole, and that our part of the message is one line with all parts."""
        self.assert_error(*parts)
        assert self.stdout == "", self.output
        blamed = r"\[WARNING\]: Failed to parse inventory with '\S+\.plugins\.inventory\.\w+' plugin: "
        _before, rest = re.split(blamed, self.stderr)
        message, end = rest.partition("\n\n")[:2]
        assert end, self.output
        assert "\n" not in message, self.output
        assert all(part in message for part in parts), self.output

    def inventory_errors(self) -> dict[str, str]:
        """Name of the source file → all lines about its failure, our line first.

        For many sources in one process, as with `Ansible.sources`.
        """
        said = self.stderr.split("[WARNING]: Failed to parse inventory with ")[1:]
        texts = [text.partition(" plugin: ")[2] for text in said]
        return {re.findall(r"[^/'\"\s]+\.yml", text)[0]: text for text in texts}


def fill_paths(text: str, files: Mapping[str, Path]) -> str:
    """A text in which each name in braces is replaced by the path of a file."""
    for name, path in files.items():
        text = text.replace(f"{{{name}}}", str(path))
    return text


def recap_of(run: Run) -> dict[str, dict[str, int]]:
    """Host → ok, changed, failed, skipped, ignored, ... as the recap of the output has them."""
    lines = run.stdout.partition("PLAY RECAP")[2].splitlines()[1:]
    counted = [line.partition(" : ") for line in lines if " : " in line]
    return {
        host.strip(): {word: int(number) for word, _equals, number in (part.partition("=") for part in rest.split())}
        for host, _colon, rest in counted
    }


def plain(value: Any) -> Any:
    """A value of an exported inventory without its marks of unsafe texts."""
    if isinstance(value, dict):
        if value.keys() == {"__ansible_unsafe"}:
            return value["__ansible_unsafe"]
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Ansible:
    """Runs Ansible's commands in `directory`, by default with the sandbox's URLs and keys in the environment.

    provider: whose inventory plugin a source is for. ledgers: where those are that plays and arguments name.
    """

    directory: Path
    sandbox: Sandbox
    provider: str = "letta"
    ledgers: Ledgers = field(default_factory=Ledgers)

    def source(self, name: str = "fleet.yml", **options: Any) -> Path:
        """Write an inventory source with these options."""
        path = self.directory / name
        path.write_text(yaml.safe_dump({"plugin": f"fleetops.environments.{self.provider}", **options}))
        return path

    def inventory(self, *arguments: str, source: Path | str | None = None, env: Mapping[str, str] | None = None) -> Run:
        """`ansible-inventory -i SOURCE ARGUMENTS`."""
        return self._run(["ansible-inventory", "-i", str(source or self.source()), *arguments], env)

    def sources(
        self, options: Iterable[Mapping[str, Any]], *arguments: str, env: Mapping[str, str] | None = None
    ) -> Run:
        """`ansible-inventory --list` of the sources `0.yml`, `1.yml`, ...; continues after a source that fails."""
        first, *rest = [self.source(f"{number}.yml", **given) for number, given in enumerate(options)]
        going_on = {"ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "false", **(env or {})}
        more = [argument for path in rest for argument in ("-i", str(path))]
        return self.inventory(*more, "--list", *arguments, source=first, env=going_on)

    def listing(
        self, source: Path | str | None = None, env: Mapping[str, str] | None = None, **options: Any
    ) -> dict[str, Any]:
        """The inventory as `ansible-inventory --list` shows it; asserts that nothing else was printed."""
        run = self.inventory("--list", source=source or self.source(**options), env=env)
        run.assert_quiet()
        shown: dict[str, Any] = json.loads(run.stdout)
        return shown

    def hosts(self, **options: Any) -> dict[str, dict[str, Any]]:
        """Host name → variables, of an inventory source with these options."""
        hosts: dict[str, dict[str, Any]] = self.listing(**options).get("_meta", {}).get("hostvars", {})
        return hosts

    def playbook(
        self,
        playbook: str | list[dict[str, Any]],
        *arguments: str,
        source: Path | str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Run:
        """`ansible-playbook -i SOURCE PLAYBOOK ARGUMENTS`; a list of plays is written to a file first."""
        if not isinstance(playbook, str):
            path = self.directory / "play.yml"
            text = yaml.safe_dump(playbook, sort_keys=False, width=10_000)
            path.write_text(self.ledgers.name_databases(text, self.directory))
            playbook = str(path)
        return self._run(["ansible-playbook", "-i", str(source or self.source()), playbook, *arguments], env)

    def task(
        self,
        module: str,
        *arguments: str,
        play: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        source: Path | str | None = None,
        keywords: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Run:
        """One task named `it` of this collection's module, by default on `localhost`."""
        task = {"name": "it", f"fleetops.environments.{module}": options, **(keywords or {})}
        whole = {"hosts": "localhost", "gather_facts": False, **(play or {}), "tasks": [task]}
        return self.playbook([whole], *arguments, source=source, env=env)

    def steps(
        self,
        *steps: Mapping[str, Any],
        arguments: tuple[str, ...] = (),
        source: Path | str | None = None,
        env: Mapping[str, str] | None = None,
        **play: Any,
    ) -> Run:
        """One play of these tasks, by default on `localhost`."""
        whole = {"hosts": "localhost", "gather_facts": False, **play, "tasks": [dict(step) for step in steps]}
        return self.playbook([whole], *arguments, source=source, env=env)

    def static(self, listing: Mapping[str, Any]) -> Path:
        """Write the result of `listing` as a static inventory, as AWX stores it."""
        path = self.directory / "static.yaml"
        path.write_text(yaml.safe_dump({"all": {"hosts": listing["_meta"]["hostvars"]}}))
        return path

    def file(self, name: str, text: str) -> Path:
        """Write a file below the directory of the source and the playbook."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.ledgers.name_databases(text, self.directory))
        return path

    def vault(self, *arguments: str) -> str:
        """The output of `ansible-vault ARGUMENTS`; `opened` gives the arguments that decrypt it again."""
        command = [str(Path(sys.executable).with_name("ansible-vault")), *arguments, *self.opened]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    @property
    def opened(self) -> list[str]:
        """Arguments that give Ansible's commands the password of the vault."""
        return ["--vault-password-file", str(self.file("vault-password", "not-a-secret\n"))]

    def on_a_terminal(self, playbook: Path) -> str:
        """The output of `ansible-playbook` on a terminal."""
        ours, theirs = pty.openpty()
        process = self.start(playbook, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        written = bytearray()
        try:
            while chunk := os.read(ours, 4096):
                written += chunk
        except OSError:
            # The other end was closed, which on Linux is an error and not an end of file.
            pass
        finally:
            os.close(ours)
            process.wait()
        return written.decode()

    def start(self, playbook: Path, **streams: Any) -> subprocess.Popen[bytes]:
        """An `ansible-playbook` process that is still running."""
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(self.source()), str(playbook)]
        environment = {**os.environ, "LETTA_BASE_URL": self.sandbox.url, "LETTA_API_KEY": self.sandbox.api_key}
        return subprocess.Popen(command, cwd=self.directory, env=environment, **streams)

    def _run(self, command: list[str], env: Mapping[str, str] | None) -> Run:
        record = self.directory / "record.jsonl"
        record.unlink(missing_ok=True)
        environment = {
            **os.environ,
            "ANSIBLE_CALLBACK_PLUGINS": str(CHECKOUT / "tests/integration/callback"),
            "ANSIBLE_CALLBACKS_ENABLED": "record",
            "RECORD_FILE": str(record),
            "LETTA_BASE_URL": self.sandbox.url,
            "LETTA_API_KEY": self.sandbox.api_key,
            "QODER_MANAGED_BASE_URL": self.sandbox.qoder.url,
            "QODER_ACCESS_TOKEN": self.sandbox.qoder.key,
            **(env or {}),
        }
        for name, value in (env or {}).items():
            environment[name] = self.ledgers.name_databases(value, self.directory)
        executable = str(Path(sys.executable).with_name(command[0]))
        arguments = [self.ledgers.name_databases(argument, self.directory) for argument in command[1:]]
        done = subprocess.run(
            [executable, *arguments], cwd=self.directory, env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        lines = record.read_text().splitlines() if record.exists() else []
        return Run(done.returncode, done.stdout, done.stderr, [json.loads(line) for line in lines])


@dataclass(frozen=True)
class Certificates:
    """PEM files: the certificates that the server shows and trusts, and those that a client needs."""

    authority: Path
    client_cert: Path
    client_key: Path
    server: dict[str, Path]
    context: ssl.SSLContext


@pytest.fixture(scope="session")
def sandbox_process() -> Iterator[Sandbox]:
    """One sandbox for all tests of a worker process."""
    with Sandbox.start(devices=DEVICES, seed=1, forbidden_key="forbidden-key-for-loopback-only") as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(sandbox_process: Sandbox) -> Sandbox:
    """The sandbox with its seeded fleet, nothing received and no faults."""
    sandbox_process.reset()
    return sandbox_process


@pytest.fixture(scope="session")
def other_sandbox_process() -> Iterator[Sandbox]:
    """A second sandbox at another URL, with the same key and other devices."""
    with Sandbox.start(devices=3, seed=2) as sandbox:
        yield sandbox


@pytest.fixture
def other_sandbox(other_sandbox_process: Sandbox) -> Sandbox:
    """The second sandbox with its seeded fleet, nothing received and no faults."""
    other_sandbox_process.reset()
    return other_sandbox_process


@pytest.fixture
def ledgers(request: pytest.FixtureRequest) -> Iterator[Ledgers]:
    """Files, or databases that are removed at the end."""
    if not IN_POSTGRESQL:
        yield Ledgers()
        return
    if request.node.get_closest_marker("of_the_file"):
        pytest.skip("is about the file of a ledger")
    server = request.getfixturevalue("postgresql")
    with ExitStack() as at_end:
        yield Ledgers(lambda: at_end.enter_context(server.database()))


@pytest.fixture
def ansible(tmp_path: Path, sandbox: Sandbox, ledgers: Ledgers) -> Ansible:
    """Ansible's commands, in the test's own directory."""
    return Ansible(tmp_path, sandbox, ledgers=ledgers)


@pytest.fixture
def qoder(ansible: Ansible) -> Ansible:
    """Ansible's commands, with sources for Qoder's inventory plugin."""
    return replace(ansible, provider="qoder")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    client = authority.issue_cert("fleet@example.com")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    client.configure_cert(context)
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    server.cert_chain_pems[0].write_to_path(str(folder / "server.pem"))
    server.private_key_pem.write_to_path(str(folder / "server.key"))
    client.cert_chain_pems[0].write_to_path(str(folder / "client.pem"))
    client.private_key_pem.write_to_path(str(folder / "client.key"))
    (folder / "other.pem").write_bytes(trustme.CA().cert_pem.bytes())
    shown = {"tls_cert": folder / "server.pem", "tls_key": folder / "server.key"}
    return Certificates(folder / "ca.pem", folder / "client.pem", folder / "client.key", shown, context)
