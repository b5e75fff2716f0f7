"""A ledger in PostgreSQL: the run is killed at any await, its session ended at any statement, its server stopped."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.campaigns.plan import make_message_id
from ansible_collections.fleetops.environments.plugins.module_utils.errors import OptionError
from ansible_collections.fleetops.environments.plugins.module_utils.fleet.delivery import Delivery, MessageTarget
from ansible_collections.fleetops.environments.plugins.module_utils.ledger import postgresql_session
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.deliveries import Deliveries
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.schema import Entry
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.store import find_location, read_ledger
from ansible_collections.fleetops.environments.plugins.module_utils.providers.message import parse_messages
from tests.sandbox.postgresql import PostgresqlServer
from tests.sandbox.process import Sandbox
from tests.unit.support import environment_of

from .kill_points import Steps, begin_run, each_step, run, run_forked

MESSAGES = parse_messages("messages", [{"content": "hello"}])


def make_targets(sandbox: Sandbox, count: int, conversation_id: str | None = None) -> list[MessageTarget]:
    found = [environment_of(sandbox.add_environment(), sandbox.url) for _number in range(count)]
    return [MessageTarget(one.id, one, f"agent-{one.id}", conversation_id, messages=MESSAGES) for one in found]


def restart(sandbox: Sandbox, targets: list[MessageTarget]) -> None:
    """Let the devices come back on other connections, without a record of the messages they received."""
    for target in targets:
        sandbox.rotate(target.environment.id, restart=True)


def entries(url: str, campaign: str) -> dict[str, Entry]:
    with read_ledger(find_location(url)) as ledger:
        return Deliveries(ledger).entries(campaign)


def check_complete(sandbox: Sandbox, url: str, campaign: str, targets: list[MessageTarget]) -> None:
    """Each agent had one turn, with the message of the campaign, and the ledger has it as sent."""
    for target in targets:
        had = sandbox.received()[target.environment.id]
        ids = [message["client_message_id"] for message in had["messages"]]
        assert (ids, had["turns"]) == ([make_message_id(campaign, target.environment.id, 1)], 1)
    assert [entry.status for entry in entries(url, campaign).values()] == ["sent"] * len(targets)


def test_a_run_that_is_killed_at_any_await_is_completed_by_the_next(
    sandbox: Sandbox, tmp_path: Path, postgresql_url: str
) -> None:
    targets = make_targets(sandbox, 2, "standing")

    def kill(ledger: Path, step: int) -> dict[str, Any] | None:
        sandbox.clear_received()
        restart(sandbox, targets)
        first: dict[str, Any] | None = run_forked(sandbox, ledger, targets, step, url=postgresql_url)
        restart(sandbox, targets)
        return first

    def complete(ledger: Path) -> None:
        done = run_forked(sandbox, ledger, targets, url=postgresql_url)
        assert set(done["statuses"]) <= {"sent", "already_sent"}
        check_complete(sandbox, postgresql_url, ledger.stem, targets)

    each_step(tmp_path, kill, complete)


def test_runs_at_the_same_time_deliver_once(sandbox: Sandbox, tmp_path: Path, postgresql_url: str) -> None:
    """What each commits together is in another order."""
    targets, ledger = make_targets(sandbox, 60), tmp_path / "c"

    orders = (targets, targets[::-1], targets[20:] + targets[:20])
    ends = [begin_run(sandbox, ledger, order, url=postgresql_url, concurrency=20, verify=False) for order in orders]
    statuses = [status for end in ends for status in end()["statuses"]]

    assert statuses.count("sent") == 60
    assert {*statuses} <= {"sent", "already_sent", "not_attempted"}
    check_complete(sandbox, postgresql_url, "c", targets)


def end_session(connection: Any) -> None:
    """End the session, as an administrator or the network does."""
    with psycopg.connect(connection.info.dsn, password=connection.info.password, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 60000)", (connection.info.backend_pid,))


def before(connection: Any, work: Callable[[Any], Any]) -> Any:
    end_session(connection)
    return work(connection)


def after(connection: Any, work: Callable[[Any], Any]) -> Any:
    """The server has done the work, and its answer is lost."""
    work(connection)
    end_session(connection)
    return work(connection)


@pytest.mark.parametrize("lose", [before, after])
def test_a_run_whose_session_is_ended_at_any_statement_delivers_once(
    sandbox: Sandbox, tmp_path: Path, postgresql_url: str, lose: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it cannot go on it says so in one line, and the next run completes it."""
    monkeypatch.setattr(postgresql_session, "_BETWEEN_TRIES", 0.01)
    targets, usual = make_targets(sandbox, 2, "standing"), postgresql_session.Session.run
    ended: list[str] = []
    for fatal in range(1, 200):
        statements = 0

        def counted(session: Any, work: Callable[[Any], Any], fatal: int = fatal) -> Any:
            nonlocal statements
            statements += 1
            # What is done again is not counted again.
            once = [statements == fatal]
            return usual(session, lambda one: lose(one, work) if once and once.pop() else work(one))

        monkeypatch.setattr(postgresql_session.Session, "run", counted)
        sandbox.clear_received()
        restart(sandbox, targets)
        ledger = tmp_path / f"{lose.__name__}-{fatal}"
        try:
            done = asyncio.run(run(sandbox, ledger, targets, Steps(0), url=postgresql_url))
            ended.extend(delivery.status for delivery in done)
        except OptionError as error:
            ended.append(str(error).partition(":")[0])
        monkeypatch.setattr(postgresql_session.Session, "run", usual)
        if statements < fatal:
            break
        if ended[-1] != "sent":
            restart(sandbox, targets)
            run_forked(sandbox, ledger, targets, url=postgresql_url)
        check_complete(sandbox, postgresql_url, ledger.stem, targets)
    assert fatal > 10
    # A transaction that a run is in when it plans is not begun again.
    assert set(ended) <= {"sent", "ledger"}
    assert ended.count("sent") > ended.count("ledger")


@contextmanager
def under_way(sandbox: Sandbox, url: str, targets: list[MessageTarget]) -> Iterator[Future[list[Delivery]]]:
    """A run in another thread, to whose devices it takes a moment to send."""
    sandbox.add_fault("slow", seconds=0.05, route="messages")
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(lambda: asyncio.run(run(sandbox, Path("c"), targets, Steps(0), url=url)))


def wait_until_received(sandbox: Sandbox, count: int, running: Future[list[Delivery]]) -> None:
    while len(sandbox.received()) < count:
        assert not running.done()


@pytest.mark.parametrize("how", [signal.SIGQUIT, signal.SIGINT])
def test_a_run_goes_on_when_its_server_was_stopped_and_started(
    sandbox: Sandbox, postgresql: PostgresqlServer, postgresql_url: str, how: signal.Signals
) -> None:
    targets = make_targets(sandbox, 24)
    with under_way(sandbox, postgresql_url, targets) as running:
        for begun in (4, 12):
            wait_until_received(sandbox, begun, running)
            postgresql.stop(how)
            postgresql.run()
        assert [delivery.status for delivery in running.result()] == ["sent"] * 24
    check_complete(sandbox, postgresql_url, "c", targets)


def test_a_run_whose_server_stays_away_ends_and_the_next_one_completes_it(
    sandbox: Sandbox, postgresql: PostgresqlServer, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_session.Session.wait_for_others, "__defaults__", (0.5,))
    targets = make_targets(sandbox, 12)
    with under_way(sandbox, postgresql_url, targets) as running:
        wait_until_received(sandbox, 4, running)
        postgresql.stop()
        done = running.result()
    began = [delivery for delivery in done if delivery.status != "not_attempted"]
    assert 4 <= len(began) < 12
    # Those that were sent before are recorded, or say that they are not.
    failed = [delivery.error for delivery in began if delivery.error is not None]
    assert failed
    assert {error["code"] for error in failed} == {"ledger"}
    assert all("see that its server runs" in error["message"] for error in failed)
    unsent = {delivery.reason for delivery in done if delivery.status == "not_attempted"}
    assert unsent == {"another delivery could not be recorded"}

    restart(sandbox, targets)
    postgresql.run()
    run_forked(sandbox, Path("c"), targets, url=postgresql_url)
    check_complete(sandbox, postgresql_url, "c", targets)
