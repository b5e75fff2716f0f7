"""PgBouncer as a child process, in front of one database of the test's server."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from .postgresql import PATIENCE, find_free_port, run_as_ordinary_user


def find_pgbouncer() -> str | None:
    """The program; Debian has it on the administrator's PATH alone."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


@contextmanager
def start_pgbouncer(url: str, mode: str, pool_size: int = 3) -> Iterator[str]:
    """The URL of the database behind a PgBouncer. mode: `session` or `transaction`."""
    program, given, port = find_pgbouncer(), conninfo_to_dict(url), find_free_port()
    assert program is not None
    with tempfile.TemporaryDirectory(prefix="pgbouncer-", dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        settings = {
            "listen_addr": "127.0.0.1", "listen_port": port, "unix_socket_dir": "", "auth_type": "plain",
            "auth_file": f"{directory}/users", "pool_mode": mode, "default_pool_size": pool_size,
        }  # fmt: skip
        lines = [f"{name} = {value}" for name, value in settings.items()]
        database = f"{given['dbname']} = host={given['host']} port={given['port']}"
        Path(directory, "users").write_text(f'"{given["user"]}" "{given["password"]}"\n')
        Path(directory, "ini").write_text("\n".join(["[databases]", database, "[pgbouncer]", *lines]))
        with subprocess.Popen(
            [*run_as_ordinary_user("--pdeathsig=KILL"), program, f"{directory}/ini"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            behind = f"postgresql://{given['user']}:{given['password']}@127.0.0.1:{port}/{given['dbname']}"
            try:
                _wait_for(behind, process)
                yield behind
            finally:
                process.terminate()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end:
        with suppress(psycopg.OperationalError), psycopg.connect(url):
            return
        time.sleep(0.02)
    raise RuntimeError(f"PgBouncer did not start as user {os.getuid()}")
