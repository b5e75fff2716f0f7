"""A PostgreSQL server of its own for tests, as a child process on the loopback interface.

with PostgresqlServer.start() as server, server.database() as url:
    ...
    server.stop()
    server.run()
"""

from __future__ import annotations

import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

PATIENCE = 120.0
# Below the ports that systems give to outgoing connections, so that a stopped server finds its port free again.
PORTS = (10_000, 30_000)
# Whose commits need not survive the end of the machine. The end of the server they do survive.
SETTINGS = {
    "autovacuum_naptime": "1h",
    "fsync": "off",
    "full_page_writes": "off",
    "jit": "off",
    "listen_addresses": "127.0.0.1",
    "log_checkpoints": "off",
    "shared_buffers": "16MB",
    "unix_socket_directories": "",
}


def find_programs() -> Path | None:
    """The directory with the newest `initdb` and `postgres` that are installed; Debian has them on nobody's PATH."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    found = shutil.which("postgres") or (installed and installed[-1])
    return Path(found).resolve().parent if found else None


@dataclass
class PostgresqlServer:
    """A server that has been started. Its tests' role `fleet` may make databases and is no superuser.

    directory: holds the data and what the server prints (`log`).
    """

    programs: Path
    directory: Path
    port: int
    password: str
    settings: dict[str, str]
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @classmethod
    @contextmanager
    def start(cls, tls: Mapping[str, Path] | None = None, **settings: str) -> Iterator[PostgresqlServer]:
        """Start a server and stop it at the end of the block, when its directory is removed, too.

        tls: the files `cert` and `key` that it shows. settings: what postgresql.conf would have, besides SETTINGS.
        Raises RuntimeError if it does not start.
        """
        programs = find_programs()
        if programs is None:
            raise RuntimeError("PostgreSQL's server is not installed")
        # The server runs as another user, who may have no access to a checkout of root.
        with tempfile.TemporaryDirectory(prefix="postgresql-", dir="/tmp" if _is_root() else None) as directory:
            given = {**SETTINGS, **settings}
            server = cls(programs, Path(directory), find_free_port(), secrets.token_hex(16), given)
            server._make_data()
            if tls is not None:
                server._show(tls)
            try:
                server.run()
                with server.connect() as connection:
                    connection.execute(f"CREATE ROLE fleet LOGIN CREATEDB PASSWORD '{server.password}'")
                yield server
            finally:
                server.stop()

    @property
    def pid(self) -> int:
        """The process id of the server itself; each connection has a process of its own."""
        assert self.process is not None
        return self.process.pid

    def run(self) -> None:
        """Start the server, again after `stop`, on the same port. Returns when it answers."""
        command = [self.programs / "postgres", "-D", self.directory / "data", "-p", str(self.port)]
        options = [f"--{name}={value}" for name, value in self.settings.items()]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*run_as_ordinary_user("--pdeathsig=QUIT"), *command, *options],
                cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < end:
            with suppress(psycopg.OperationalError), self.connect():
                return
            time.sleep(0.02)
        raise RuntimeError(f"PostgreSQL did not start:\n{(self.directory / 'log').read_text()}")

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """End the server: at once, without a word to its clients; with SIGINT it ends their connections first."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(PATIENCE)
            self.process = None

    def url(self, database: str, user: str = "fleet", host: str = "127.0.0.1") -> str:
        """The URL of a database."""
        return f"postgresql://{user}:{self.password}@{host}:{self.port}/{database}"

    def connect(self, database: str = "postgres", user: str = "admin") -> psycopg.Connection:
        """A connection, by default of the superuser, whose statements are transactions of their own."""
        return psycopg.connect(self.url(database, user), autocommit=True)

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new, empty database, which is removed at the end of the block."""
        name = f"test_{secrets.token_hex(6)}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} OWNER fleet")
        yield self.url(name)
        if self.process is None:
            self.run()
        with self.connect() as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _show(self, tls: Mapping[str, Path]) -> None:
        self.settings["ssl"] = "on"
        for name, path in tls.items():
            own = self.directory / name
            own.write_bytes(path.read_bytes())
            own.chmod(0o600)
            _give(own)
            self.settings[f"ssl_{name}_file"] = str(own)

    def _make_data(self) -> None:
        password = self.directory / "password"
        password.write_text(self.password)
        _give(self.directory)
        _give(password)
        options = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--username=admin"]
        command = [self.programs / "initdb", *options, f"--pwfile={password}", self.directory / "data"]
        done = subprocess.run(
            [*run_as_ordinary_user(), *command], cwd=self.directory, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"PostgreSQL could not make its data:\n{done.stdout}{done.stderr}")


_NOBODY = pwd.getpwnam("nobody")


def _give(path: Path) -> None:
    """Give a file to the user that the server runs as."""
    if _is_root():
        shutil.chown(path, _NOBODY.pw_uid, _NOBODY.pw_gid)


def _is_root() -> bool:
    return os.geteuid() == 0


def run_as_ordinary_user(*options: str) -> list[str]:
    """What stands before a command so that root runs it as another user, which PostgreSQL insists on."""
    other = ["--reuid=nobody", f"--regid={_NOBODY.pw_gid}", "--clear-groups"] if _is_root() else []
    return ["setpriv", *options, *other] if shutil.which("setpriv") else []


def find_free_port() -> int:
    while True:
        port = random.SystemRandom().randrange(*PORTS)
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port
