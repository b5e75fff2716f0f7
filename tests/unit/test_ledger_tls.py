"""A ledger in PostgreSQL over TLS, as libpq has it: who is trusted is in the URL or in the environment."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from ansible_collections.fleetops.environments.plugins.module_utils.errors import OptionError
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.schema import RunFacts
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.store import find_location, open_ledger
from tests.sandbox.postgresql import PostgresqlServer, find_programs


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the server's certificate, that of its authority, and that of another one."""
    folder, authority = tmp_path_factory.mktemp("certificates"), trustme.CA()
    shown = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    trustme.CA().cert_pem.write_to_path(str(folder / "other.pem"))
    shown.cert_chain_pems[0].write_to_path(str(folder / "cert"))
    shown.private_key_pem.write_to_path(str(folder / "key"))
    return folder


@pytest.fixture(scope="module")
def server(files: Path) -> Iterator[PostgresqlServer]:
    if find_programs() is None:
        pytest.skip("PostgreSQL's server is missing (on Debian: sudo apt-get install postgresql)")
    with PostgresqlServer.start({name: files / name for name in ("cert", "key")}) as running:
        yield running


@pytest.fixture
def url(server: PostgresqlServer) -> Iterator[str]:
    with server.database() as given:
        yield given.replace("127.0.0.1", "localhost")


def is_encrypted(url: str) -> bool:
    """Whether the connection of a ledger that is opened is encrypted."""
    with open_ledger(find_location(url), RunFacts("tester")) as ledger:
        [row] = ledger.query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        return bool(row["ssl"])


def test_the_authority_comes_from_the_url_or_the_environment(
    url: str, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_encrypted(f"{url}?sslmode=verify-full&sslrootcert={files / 'ca.pem'}")
    monkeypatch.setenv("PGSSLROOTCERT", str(files / "ca.pem"))
    assert is_encrypted(f"{url}?sslmode=verify-full")
    # As AWX has it where no authority is given.
    monkeypatch.setenv("PGSSLROOTCERT", "")
    assert is_encrypted(f"{url}?sslmode=require")
    assert not is_encrypted(f"{url}?sslmode=disable")


@pytest.mark.parametrize(
    ("host", "authority", "problem"),
    [("localhost", "other.pem", "certificate verify failed"), ("127.0.0.1", "ca.pem", "does not match host name")],
)
def test_another_server_is_refused_without_a_word_of_the_password(
    url: str, files: Path, host: str, authority: str, problem: str
) -> None:
    given = f"{url.replace('localhost', host)}?sslmode=verify-full&sslrootcert={files / authority}"

    with pytest.raises(OptionError, match=problem) as refused:
        open_ledger(find_location(given), RunFacts("tester"))

    [password] = re.findall(r":(\w+)@", url)
    assert password not in str(refused.value)
    assert "\n" not in str(refused.value)
