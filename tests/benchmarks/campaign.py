"""A fan-out with a ledger, compared with the same fan-out without one; and the ledger in PostgreSQL, near and far."""

from __future__ import annotations

from pathlib import Path

from tests.sandbox.postgresql import PostgresqlServer

from .delay import start_delay
from .fan_out import task
from .harness import Comparison, Figures, Goal, Scale, Workplace, in_turn
from .network import start_network

# Seconds to a database and back, where it is in another building.
FAR = 0.002
# As a server has it by default: a commit is on the disk.
DURABLE = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "128MB"}


def run(scale: Scale, directory: Path) -> list[Comparison]:
    """Seconds of the whole play; every run has a new ledger, so that no message was delivered earlier."""
    with (
        start_network(scale.targets, online=True) as network,
        PostgresqlServer.start(**DURABLE) as server,
        start_delay(server.port, FAR) as far,
    ):
        work = Workplace(directory, network)
        plain = work.play("plain", task(scale.concurrency))
        taken = in_turn(
            scale.runs,
            campaign=lambda: with_ledger(work, scale.targets, scale.concurrency),
            plain=lambda: work.playing(plain, messages=scale.targets),
            near=lambda: with_database(work, scale, server, server.port),
            far=lambda: with_database(work, scale, server, far),
        )
    wall = {name: [figures.wall for figures in each] for name, each in taken.items()}
    what = f"a campaign of {scale.targets:,} with the ledger"
    of_sqlite, distance = "the same in SQLite", f"{FAR * 1000:g} ms a round trip"
    return [
        Comparison(what, "the same without", "s", wall["campaign"], wall["plain"], Goal("at most", 1.3)),
        Comparison(f"{what} in PostgreSQL", of_sqlite, "s", wall["near"], wall["campaign"], Goal("at most", 1.5)),
        Comparison(
            f"{what} in PostgreSQL, {distance}", of_sqlite, "s", wall["far"], wall["campaign"], Goal("at most", 2)
        ),
    ]


def with_ledger(work: Workplace, targets: int, concurrency: int) -> Figures:
    """A new campaign on a new ledger, so that every message is looked up first."""
    ledger = work.directory / "ledger.sqlite"
    for file in work.directory.glob(f"{ledger.name}*"):
        file.unlink()
    return _with(work, targets, concurrency, str(ledger))


def with_database(work: Workplace, scale: Scale, server: PostgresqlServer, port: int) -> Figures:
    """The same on a new database. port: where the server is reached."""
    with server.database() as url:
        ledger = url.replace(f":{server.port}/", f":{port}/")
        return _with(work, scale.targets, scale.concurrency, ledger)


def _with(work: Workplace, targets: int, concurrency: int, ledger: str) -> Figures:
    campaign = work.play("campaign", task(concurrency, campaign="benchmark", ledger=ledger))
    return work.playing(campaign, messages=targets)
