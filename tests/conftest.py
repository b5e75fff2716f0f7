"""What tests of all kinds share: a PostgreSQL server for each worker process, which starts when it is first needed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sandbox.postgresql import PostgresqlServer, find_programs


@pytest.fixture(scope="session")
def postgresql_process() -> Iterator[PostgresqlServer]:
    if find_programs() is None:
        pytest.skip("PostgreSQL's server is missing (on Debian: sudo apt-get install postgresql)")
    with PostgresqlServer.start() as server:
        yield server


@pytest.fixture
def postgresql(postgresql_process: PostgresqlServer) -> PostgresqlServer:
    """The server, which runs also if the test before this one has stopped it."""
    if postgresql_process.process is None:
        postgresql_process.run()
    return postgresql_process


@pytest.fixture
def postgresql_url(postgresql: PostgresqlServer) -> Iterator[str]:
    """The URL of a new, empty database, with user and password."""
    with postgresql.database() as url:
        yield url
