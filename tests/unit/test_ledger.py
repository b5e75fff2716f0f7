"""The ledger: what it stores, which runs share it, and which error an unusable ledger gives."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import signal
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.fleetops.environments.plugins.module_utils.errors import OptionError
from ansible_collections.fleetops.environments.plugins.module_utils.ledger import sqlite as module
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.deliveries import Deliveries
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.rollouts import (
    RolloutUpdates,
    add_rollout,
    find_rollout,
)
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.schema import (
    Rollout,
    RolloutTarget,
    RunFacts,
    Wave,
)
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.sqlite import SqliteLedger
from ansible_collections.fleetops.environments.plugins.module_utils.ledger.store import find_location

from .support import BEGUN

FACTS = RunFacts("tester", "7", "alice", "/plays/site.yml")
ROLLOUT = Rollout(
    name="r",
    version="1.0.0",
    waves_wanted=["100%"],
    planned_at="2026-01-31T10:00:00.000Z",
    waves=[Wave(number=1)],
    targets=[RolloutTarget(host="one", environment_id="e", preflight="updatable", wave=1)],
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.sqlite"


def open_ledger(path: Path) -> SqliteLedger:
    return SqliteLedger.open(path, FACTS)


def problem(path: Path, use: Callable[[Path], object] = open_ledger) -> str:
    """The error when the ledger is opened or read; one line that names the option and the file."""
    with pytest.raises(OptionError) as caught:
        use(path)
    message = str(caught.value)
    assert message.startswith("ledger: ")
    assert repr(str(path)) in message
    assert "\n" not in message
    return message


def sql(path: Path, statement: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        with connection:
            return list(connection.execute(statement))
    finally:
        connection.close()


@contextmanager
def as_nobody() -> Iterator[Path]:
    """A directory of a user who, unlike root, may not write everywhere."""
    root = os.getuid() == 0
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o777)
        if root:
            os.seteuid(65534)
        try:
            yield Path(name)
        finally:
            if root:
                os.seteuid(0)


def test_the_path_is_the_option_then_the_environment_then_the_state_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("FLEETOPS_LEDGER", raising=False)
    assert find_location(None) == Path("/home/someone/.local/state/fleetops/ledger.sqlite")
    monkeypatch.setenv("XDG_STATE_HOME", "not/absolute")
    assert find_location(None) == Path("/home/someone/.local/state/fleetops/ledger.sqlite")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert find_location("") == Path("/state/fleetops/ledger.sqlite")
    monkeypatch.setenv("FLEETOPS_LEDGER", "~/ledger")
    assert find_location(None) == Path("/home/someone/ledger")
    assert find_location("/option") == Path("/option")


def test_the_file_and_its_directory_are_the_users_alone(path: Path) -> None:
    with open_ledger(path) as ledger:
        Deliveries(ledger).begin("c", None, 0)
        modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}

    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert modes == dict.fromkeys(modes, 0o600)
    assert {"ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-lock"} <= modes.keys()


def test_a_recorded_delivery_is_kept(path: Path) -> None:
    with open_ledger(path) as ledger:
        assert asyncio.run(Deliveries(ledger).replace(None, BEGUN))
        assert asyncio.run(Deliveries(ledger).replace(BEGUN, replace(BEGUN, status="sent")))

    with open_ledger(path) as ledger:
        assert Deliveries(ledger).entry("c", "e") == replace(BEGUN, status="sent")
        assert Deliveries(ledger).entries("c") == {"e": replace(BEGUN, status="sent")}
        assert Deliveries(ledger).entries("other") == {}
        assert Deliveries(ledger).entry("c", "other") is None
    [run, _second] = sql(path, "SELECT os_user, awx_job_id, awx_user, playbook FROM runs")
    assert run == ("tester", "7", "alice", "/plays/site.yml")


def test_a_row_that_changed_since_it_was_read_is_not_replaced(path: Path) -> None:
    with open_ledger(path) as one, open_ledger(path) as other:
        assert asyncio.run(Deliveries(one).replace(None, BEGUN))
        assert not asyncio.run(Deliveries(other).replace(None, replace(BEGUN, run=2)))
        assert Deliveries(other).entry("c", "e") == BEGUN


@pytest.mark.parametrize("wrong", ["~nobody-of-this-name/ledger", "a\0b"])
def test_an_invalid_path_is_one_line_that_names_the_option(wrong: str) -> None:
    with pytest.raises(OptionError, match=r"^ledger: .* is no path: .*; name another file$"):
        find_location(wrong)


def test_runs_over_a_link_and_over_the_file_itself_share_their_locks(path: Path) -> None:
    link = path.with_name("link.sqlite")
    path.parent.mkdir(exist_ok=True)
    link.symlink_to(path)

    with (
        SqliteLedger.open(find_location(str(path)), RunFacts("tester")) as one,
        SqliteLedger.open(find_location(str(link)), RunFacts("tester")) as other,
    ):
        numbers = (one.run, other.run)
    assert numbers == (1, 2)
    assert sorted(file.name for file in path.parent.iterdir() if file.name.endswith("-lock")) == [f"{path.name}-lock"]


def test_a_run_is_alive_until_its_process_ends(path: Path) -> None:
    with open_ledger(path) as ledger:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            other = open_ledger(path)
            os.write(writer, str(other.run).encode())
            signal.pause()
        number = int(os.read(reader, 10))
        assert ledger.is_alive(ledger.run)
        assert ledger.is_alive(number)
        # A reader does not end the run.
        assert ledger.is_alive(number)
        os.kill(child, 9)
        os.waitpid(child, 0)
        assert not ledger.is_alive(number)


def test_a_campaign_keeps_its_content(path: Path) -> None:
    with open_ledger(path) as ledger:
        Deliveries(ledger).begin("c", None, 0)
        Deliveries(ledger).begin("c", "one", 0)
        Deliveries(ledger).begin("c", None, 0)
        Deliveries(ledger).begin("other", "other", 0)
        Deliveries(ledger).check_source("c", "one")
        with pytest.raises(
            OptionError, match=r"^campaign: 'c' has had other content since 20.*; give what is new a camp"
        ):
            Deliveries(ledger).begin("c", "other", 1)
        assert Deliveries(ledger).repeat("c") == 0


def test_a_campaign_keeps_the_last_repeat_that_began(path: Path) -> None:
    with open_ledger(path) as ledger:
        assert Deliveries(ledger).repeat("c") == 0
        for repeat in (0, 2, 1):
            Deliveries(ledger).begin("c", None, repeat)
        assert Deliveries(ledger).repeat("c") == 2


def test_reading_creates_no_file(path: Path) -> None:
    assert SqliteLedger.read(path) is None
    assert not path.parent.exists()
    with open_ledger(path) as ledger:
        asyncio.run(Deliveries(ledger).replace(None, BEGUN))
    reading = SqliteLedger.read(path)
    assert reading is not None
    with reading:
        assert Deliveries(reading).entries("c") == {"e": BEGUN}
        with pytest.raises(OptionError, match="readonly"):
            Deliveries(reading).begin("c", None, 0)


def test_a_ledger_in_a_read_only_directory_is_read() -> None:
    with as_nobody() as directory:
        path = directory / "inner" / "ledger.sqlite"
        with open_ledger(path) as ledger:
            asyncio.run(Deliveries(ledger).replace(None, BEGUN))
        path.parent.chmod(0o555)

        with_row = SqliteLedger.read(path)
        assert with_row is not None
        with with_row:
            assert Deliveries(with_row).entries("c") == {"e": BEGUN}
            assert not with_row.is_alive(1)


def test_a_ledger_in_a_read_only_directory_is_read_as_its_writer_sees_it() -> None:
    """A run of another user can write the ledger: its rows are still in the files beside it."""
    with as_nobody() as directory:
        path = directory / "inner" / "ledger.sqlite"
        with open_ledger(path) as ledger:
            asyncio.run(Deliveries(ledger).replace(None, BEGUN))
            path.parent.chmod(0o555)

            with_row = SqliteLedger.read(path)
            assert with_row is not None
            with with_row:
                assert Deliveries(with_row).entries("c") == {"e": BEGUN}


def test_a_reader_sees_a_row_written_after_it_opened_the_ledger(path: Path) -> None:
    """The directory is writable, so another run may begin to write the ledger after it was opened."""
    open_ledger(path).close()
    reading = SqliteLedger.read(path)
    assert reading is not None
    with reading, open_ledger(path) as ledger:
        asyncio.run(Deliveries(ledger).replace(None, BEGUN))
        assert Deliveries(reading).entries("c") == {"e": BEGUN}


# Unusable ledgers


def test_a_ledger_with_two_names_is_refused(path: Path) -> None:
    open_ledger(path).close()
    path.with_name("other.sqlite").hardlink_to(path)

    assert "has 2 names (hard links), and runs under another one would not be noticed; leave one name" in problem(path)


def test_a_ledger_whose_latest_part_cannot_be_read_is_not_read() -> None:
    with as_nobody() as directory:
        path = directory / "inner" / "ledger.sqlite"
        child = os.fork()
        if child == 0:
            asyncio.run(Deliveries(open_ledger(path)).replace(None, BEGUN))
            os._exit(0)
        os.waitpid(child, 0)
        Path(f"{path}-shm").unlink()
        path.parent.chmod(0o555)

        with pytest.raises(OptionError, match=r"unable to open database file; see that it and its directory can be w"):
            SqliteLedger.read(path)


@pytest.mark.parametrize("damage", [b"no database at all, but a text that somebody wrote\n" * 100, b"x" * 4096])
def test_a_file_other_than_a_database_is_refused(path: Path, damage: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(damage)

    assert "is damaged, or no ledger: file is not a database; move it away, and" in problem(path)
    assert path.read_bytes() == damage


def test_a_damaged_file_is_refused(path: Path) -> None:
    with open_ledger(path) as ledger:
        for number in range(200):
            asyncio.run(Deliveries(ledger).replace(None, replace(BEGUN, environment_id=str(number))))
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))

    assert "malformed" in problem(path)


@pytest.mark.parametrize("use", [open_ledger, SqliteLedger.read])
@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_a_database_of_another_program_stays_unchanged(
    path: Path, journal_mode: str, use: Callable[[Path], object]
) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal_mode}")
        connection.execute("CREATE TABLE songs (title TEXT)")
    before = path.read_bytes()

    assert "is a database of something else; name another file" in problem(path, use)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_database_of_another_program_that_is_in_use_is_refused(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("CREATE TABLE songs (title TEXT)")
        before = {file: file.read_bytes() for file in path.parent.iterdir() if not file.name.endswith("-shm")}

        assert "is a database of something else; name another file" in problem(path)
        assert {file: file.read_bytes() for file in before} == before
        assert len(list(path.parent.iterdir())) == 3


def test_a_ledger_whose_run_was_killed_while_creating_it_is_created_again(path: Path) -> None:
    path.parent.mkdir()
    sql(path, "PRAGMA journal_mode = wal")
    assert path.stat().st_size

    assert SqliteLedger.read(path) is None
    with open_ledger(path) as ledger:
        assert ledger.run == 1


def test_a_ledger_whose_rows_are_not_yet_in_its_file_is_read(path: Path) -> None:
    """The state after a killed run: all its rows are in the files beside the ledger."""
    child = os.fork()
    if child == 0:
        # The ledger stays open until the end: closing it would write the rows to the file itself.
        killed = open_ledger(path)
        asyncio.run(Deliveries(killed).replace(None, BEGUN))
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as connection:
        assert not connection.execute("SELECT 1 FROM sqlite_master").fetchall()

    with open_ledger(path) as ledger:
        assert ledger.run == 2
        assert Deliveries(ledger).entries("c") == {"e": BEGUN}


@pytest.mark.parametrize("use", [open_ledger, SqliteLedger.read])
def test_a_newer_schema(path: Path, use: Callable[[Path], object]) -> None:
    open_ledger(path).close()
    sql(path, "PRAGMA user_version = 4")
    before = {file: file.read_bytes() for file in path.parent.iterdir()}

    assert "has the schema 4, and this version of the collection knows 3; update the collection" in problem(path, use)
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before


def test_a_schema_before_the_first_release_is_refused(path: Path) -> None:
    open_ledger(path).close()
    sql(path, "PRAGMA user_version = 1")

    assert problem(path).endswith(" has the schema 1, and this version of the collection knows 3; name another file")


# An earlier schema


def tables(path: Path) -> set[tuple[object, ...]]:
    """Each column of each table, and the version, whatever the order of the columns."""
    columns = 'SELECT m.name, c.name, c.type, c."notnull", c.pk FROM sqlite_schema m, pragma_table_info(m.name) c'
    return {*sql(path, columns), *sql(path, "PRAGMA user_version")}


@pytest.fixture
def earlier(path: Path) -> Path:
    """A ledger of schema 2, with a delivery and a rollout."""
    with open_ledger(path) as ledger:
        asyncio.run(Deliveries(ledger).replace(None, BEGUN))
        add_rollout(ledger, ROLLOUT)
    sql(path, "ALTER TABLE rollout_targets DROP COLUMN told_at")
    sql(path, "PRAGMA user_version = 2")
    return path


def test_an_earlier_schema_is_upgraded_in_its_place_by_one_of_many_runs(earlier: Path, tmp_path: Path) -> None:
    children = []
    for _number in range(4):
        children.append(os.fork())
        if children[-1] == 0:
            open_ledger(earlier).close()
            os._exit(0)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4

    open_ledger(tmp_path / "new.sqlite").close()
    assert tables(earlier) == tables(tmp_path / "new.sqlite")
    with open_ledger(earlier) as ledger:
        assert ledger.run == 6
        assert Deliveries(ledger).entries("c") == {"e": BEGUN}
        RolloutUpdates(ledger, ROLLOUT, {}).tell("e")
        assert (read_rollout(ledger).targets[0].told_at or "").startswith("2")


def test_an_earlier_schema_is_read_without_a_change_of_the_file(earlier: Path) -> None:
    before = earlier.read_bytes()

    reading = SqliteLedger.read(earlier)

    assert reading is not None
    with reading:
        assert Deliveries(reading).entries("c") == {"e": BEGUN}
        assert read_rollout(reading) == ROLLOUT
    assert earlier.read_bytes() == before


def test_an_upgrade_that_is_cut_off_leaves_the_earlier_schema(earlier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tables(earlier)
    with monkeypatch.context() as patched:
        patched.setitem(module.UPGRADES, 2, f"{module.UPGRADES[2]}; ALTER TABLE missing ADD COLUMN more TEXT")
        assert "no such table: missing" in problem(earlier)
    assert tables(earlier) == before

    with open_ledger(earlier) as ledger:
        assert read_rollout(ledger) == ROLLOUT


def read_rollout(ledger: SqliteLedger) -> Rollout:
    found = find_rollout(ledger, ROLLOUT.name)
    assert found is not None
    return found


def test_a_directory(tmp_path: Path) -> None:
    assert problem(tmp_path).endswith(": Is a directory; name a file in it")
    with pytest.raises(OptionError, match=r"^ledger: cannot use '.*': Is a directory; name a file in it$"):
        SqliteLedger.read(tmp_path)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    for path in (tmp_path / "file" / "ledger", tmp_path / "file" / "deeper" / "ledger"):
        assert problem(path).endswith("; a part of its path is a file, and no directory; name another file")


def test_a_directory_that_cannot_be_written() -> None:
    with as_nobody() as directory:
        inner = directory / "inner"
        inner.mkdir(mode=0o555)
        assert problem(inner / "ledger.sqlite").endswith(
            ": Permission denied; see that it and its directory can be written, or name another file"
        )


def test_a_file_that_cannot_be_written() -> None:
    with as_nobody() as directory:
        path = directory / "ledger.sqlite"
        open_ledger(path).close()
        path.chmod(0o400)
        assert problem(path).endswith(
            ": Permission denied; see that it and its directory can be written, or name another file"
        )


def test_a_full_disk(path: Path) -> None:
    with open_ledger(path) as ledger:
        [(pages,)] = ledger._connection.execute("PRAGMA page_count")
        ledger._connection.execute(f"PRAGMA max_page_count = {pages}")
        big = replace(BEGUN, host="x" * 100_000)
        with pytest.raises(
            OptionError, match=r"^ledger: cannot use '[^\n]*': database or disk is full; make room, and run this again$"
        ):
            asyncio.run(Deliveries(ledger).replace(None, big))
        # Writing works again when there is room.
        ledger._connection.execute("PRAGMA max_page_count = 1000000")
        assert asyncio.run(Deliveries(ledger).replace(None, replace(BEGUN, environment_id="last")))


def test_a_disk_without_room_for_the_files_beside_the_ledger(path: Path) -> None:
    """With little room left, SQLite fails while it creates the index of the rows that are not yet in the file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, before[1]))
    try:
        message = problem(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert message.endswith(": disk I/O error; see that its disk has room and works, or name another file")


def test_a_lock_that_another_process_keeps_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_ledger(path).close()
    monkeypatch.setattr(module, "_AT_FIRST", 0.1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert problem(path).endswith(
            ": database is locked; another process keeps it locked, and `fuser` names it; end that, or run this again "
            "when it has ended"
        )


def test_a_run_that_never_finishes_preparing_the_ledger_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_ledger(path).close()
    monkeypatch.setattr(module, "_AT_FIRST", 0.1)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        lock = os.open(f"{path}-lock", os.O_RDWR)
        fcntl.lockf(lock, fcntl.LOCK_EX, 1, 0)
        os.write(writer, b"locked")
        signal.pause()
    try:
        assert os.read(reader, 10)
        assert "; another process keeps it locked, and `fuser` names it; end that, or " in problem(path)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    open_ledger(path).close()


def test_a_lock_that_another_process_keeps_briefly_is_waited_for(path: Path) -> None:
    open_ledger(path).close()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            os.write(writer, b"locked")
            time.sleep(0.3)
            os._exit(0)
    assert os.read(reader, 10)
    with open_ledger(path) as ledger:
        assert ledger.run == 2
    os.waitpid(child, 0)
