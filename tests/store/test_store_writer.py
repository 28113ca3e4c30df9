from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from harness.faulty import FaultAt, Faults, Injected, crash_image, every_fault
from meshd.errors import FormatError, StoreBusy, StoreDamaged, StoreError
from meshd.store.db import Database, Reader, open_database
from meshd.store.writer import MAX_BATCH, POINTS, Writer

Connection = sqlite3.Connection


@pytest.fixture
def database(home: Path) -> Iterator[Database]:
    with open_database(home / "store.db", create=True) as opened:
        yield opened


def put(name: str) -> Callable[[Connection], str]:
    def fn(connection: Connection) -> str:
        connection.execute("INSERT INTO meta VALUES (?, ?)", (name, b"x"))
        connection.execute("INSERT INTO events (time, type, data) VALUES (0, ?, '{}')", (name,))
        return name

    return fn


def names(path: Path) -> list[str]:
    """What the store holds, by name; both halves of each write, or the test fails."""
    with open_database(path) as opened:
        assert opened.check() == []
        meta = [row[0] for row in opened.query("SELECT key FROM meta ORDER BY key")]
        assert meta == [row[0] for row in opened.query("SELECT type FROM events ORDER BY type")]
    return meta


class Gate:
    """Holds the writer in a function, so that what is submitted meanwhile becomes one batch."""

    def __init__(self, writer: Writer) -> None:
        self._open = threading.Event()
        entered = threading.Event()

        def wait(connection: Connection) -> None:
            entered.set()
            self._open.wait()

        self._future = writer.submit(wait)
        entered.wait()

    def open(self) -> None:
        self._open.set()
        self._future.result()


def test_a_result_is_told_when_it_is_durable(database: Database, home: Path) -> None:
    writer = Writer(database)
    assert writer.run(put("one")) == "one"
    assert names(crash_image(home / "store.db", home / "image.db")) == ["one"]
    writer.close()


def test_waiting_functions_share_one_commit(database: Database) -> None:
    faults = Faults()
    writer = Writer(database, fault=faults)
    gate = Gate(writer)
    futures = [writer.submit(put(f"{number:03}")) for number in range(100)]
    gate.open()
    assert [future.result() for future in futures] == [f"{number:03}" for number in range(100)]
    assert faults.points.count("before-commit") < 10
    writer.close()


def test_one_that_fails_among_ten_takes_nobody_with_it(database: Database, home: Path) -> None:
    resets: list[list[str]] = []

    def on_reset() -> None:  # sees what the functions before it wrote, and nothing of the failed one
        resets.append([row[0] for row in database.connection.execute("SELECT key FROM meta ORDER BY key")])

    def bad(connection: Connection) -> None:
        put("bad")(connection)
        raise FormatError("not this one")

    writer = Writer(database, on_reset)
    gate = Gate(writer)
    futures: list[Future[object]] = [writer.submit(bad if number == 4 else put(str(number))) for number in range(10)]
    gate.open()
    with pytest.raises(FormatError, match="not this one"):
        futures[4].result()
    assert [future.result() for number, future in enumerate(futures) if number != 4] == list("012356789")
    assert resets == [["0", "1", "2", "3"]]
    writer.close()
    assert names(home / "store.db") == list("012356789")


def test_one_that_fails_alone_leaves_nothing(database: Database, home: Path) -> None:
    resets: list[int] = []

    def bad(connection: Connection) -> None:
        put("bad")(connection)
        put("bad")(connection)  # the key is there already

    writer = Writer(database, lambda: resets.append(1))
    with pytest.raises(StoreError, match="UNIQUE"):
        writer.run(bad)
    assert resets == [1]
    writer.run(put("good"))
    writer.close()
    assert names(home / "store.db") == ["good"]


def test_memory_is_rebuilt_before_the_next_function_runs(database: Database) -> None:
    memory: list[str] = []

    def remember(name: str, *, fail: bool = False) -> Callable[[Connection], list[str]]:
        def fn(connection: Connection) -> list[str]:
            put(name)(connection)
            memory.append(name)
            if fail:
                raise FormatError(name)
            return list(memory)

        return fn

    def rebuild() -> None:
        memory[:] = [row[0] for row in database.connection.execute("SELECT key FROM meta ORDER BY key")]

    writer = Writer(database, rebuild)
    gate = Gate(writer)
    futures = [writer.submit(remember(name, fail=name in "bd")) for name in "abcde"]
    gate.open()
    assert futures[4].result() == ["a", "c", "e"]
    writer.close()


def test_a_commit_that_fails_fails_the_whole_batch_and_nothing_of_it_stays(database: Database, home: Path) -> None:
    resets: list[int] = []
    full = sqlite3.OperationalError("disk I/O error")
    full.sqlite_errorcode = sqlite3.SQLITE_IOERR
    fault = FaultAt("before-commit", skip=2, error=full)
    writer = Writer(database, lambda: resets.append(1), fault=fault)
    writer.run(put("before"))
    gate = Gate(writer)
    futures = [writer.submit(put(name)) for name in "abc"]
    gate.open()
    for future in futures:
        with pytest.raises(StoreError, match="disk I/O error"):
            future.result()
    assert resets == [1]
    assert writer.run(put("after")) == "after"
    writer.close()
    assert names(home / "store.db") == ["after", "before"]


def test_another_program_that_holds_the_store_is_named_and_the_writer_goes_on(database: Database, home: Path) -> None:
    database.connection.execute("PRAGMA busy_timeout = 0")
    writer = Writer(database)
    other = sqlite3.connect(home / "store.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy):
        writer.run(put("one"))
    other.execute("ROLLBACK")
    other.close()
    assert writer.run(put("two")) == "two"
    writer.close()
    assert names(home / "store.db") == ["two"]


def test_a_transaction_that_sqlite_gives_up_fails_what_was_in_it_and_nothing_else(
    database: Database, home: Path
) -> None:
    def lose(connection: Connection) -> None:
        connection.execute("ROLLBACK")  # as SQLite does by itself after some errors
        raise sqlite3.OperationalError("gone")

    writer = Writer(database)
    gate = Gate(writer)
    first, lost, last = writer.submit(put("first")), writer.submit(lose), writer.submit(put("last"))
    gate.open()
    for future in (first, lost):
        with pytest.raises(StoreError, match="gone"):
            future.result()
    assert last.result() == "last"
    writer.close()
    assert names(home / "store.db") == ["last"]


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("together", [False, True])
def test_after_a_crash_at_any_point_what_was_acknowledged_is_there_and_the_rest_is_whole_or_absent(
    home: Path, once: bool, together: bool
) -> None:
    acknowledged: set[str] = set()
    image = home / "image.db"
    number = 0

    def work(faults: Faults) -> None:
        nonlocal number
        number += 1
        acknowledged.clear()
        path = home / f"{number}.db"
        with open_database(path, create=True) as opened:
            writer = Writer(opened, fault=faults)
            gate = Gate(writer) if together and faults.at != 0 else None
            futures = {name: writer.submit(put(name)) for name in "abcd"}
            if gate is not None:
                try:
                    gate.open()
                except Injected:
                    pass
            for name, future in futures.items():
                if future.exception() is None:
                    acknowledged.add(name)
                else:
                    assert isinstance(future.exception(), Injected)
            crash_image(path, image)
            writer.close()

    struck = set()
    for faults in every_fault(work, once=once):
        struck.add(faults.struck)
        found = set(names(image))
        assert found >= acknowledged
        if faults.struck == "before-commit" and not once:
            assert found == acknowledged
        if faults.at is None:
            assert acknowledged == set("abcd")
    assert struck == {None, *POINTS}


def test_a_log_that_ends_anywhere_is_read_up_to_its_last_whole_commit(database: Database, home: Path) -> None:
    writer = Writer(database)
    for name in "abcdef":
        writer.run(put(name))
    image = crash_image(home / "store.db", home / "image.db")
    log = home / "image.db-wal"
    whole, file = log.read_bytes(), image.read_bytes()
    writer.close()
    seen = set()
    for length in range(0, len(whole) + 1, max(1, len(whole) // 40)):
        image.write_bytes(file)
        log.write_bytes(whole[:length])
        if length == 0:
            log.unlink()
        found = "".join(names(image))
        assert "abcdef".startswith(found)
        seen.add(found)
    assert len(seen) > 3


def test_a_failed_rebuild_stops_the_writer_for_good(database: Database, home: Path) -> None:
    def bad(connection: Connection) -> None:
        raise FormatError("bad")

    def on_reset() -> None:
        raise StoreDamaged("can't rebuild")

    writer = Writer(database, on_reset)
    gate = Gate(writer)
    before, failing, after = writer.submit(put("before")), writer.submit(bad), writer.submit(put("after"))
    gate.open()
    assert before.result() == "before"
    with pytest.raises(FormatError):
        failing.result()
    with pytest.raises(StoreError, match="can't rebuild"):
        after.result()
    with pytest.raises(StoreError, match="can't rebuild"):
        writer.submit(put("later"))
    writer.close()
    assert names(home / "store.db") == ["before"]


def test_closing_finishes_what_was_submitted_and_takes_nothing_more(database: Database, home: Path) -> None:
    writer = Writer(database)
    count = MAX_BATCH + 50
    futures = [writer.submit(put(f"{number:04}")) for number in range(count)]
    writer.close()
    assert all(future.done() and future.exception() is None for future in futures)
    with pytest.raises(StoreError, match="closed"):
        writer.submit(put("late"))
    writer.close()
    assert len(names(home / "store.db")) == count


def test_a_future_that_was_cancelled_in_time_never_runs(database: Database, home: Path) -> None:
    writer = Writer(database)
    gate = Gate(writer)
    unwanted, wanted = writer.submit(put("unwanted")), writer.submit(put("wanted"))
    assert unwanted.cancel()
    gate.open()
    wanted.result()
    writer.close()
    assert names(home / "store.db") == ["wanted"]


def test_a_function_that_waits_for_the_writer_is_refused_and_does_not_hang(database: Database) -> None:
    writer = Writer(database)
    with pytest.raises(RuntimeError, match="waits for the writer"):
        writer.run(lambda connection: writer.run(put("inner")))
    writer.close()


def test_many_threads_may_submit_and_a_reader_sees_only_what_is_committed(database: Database, home: Path) -> None:
    writer = Writer(database)
    reader = Reader(home / "store.db")

    def client(number: int) -> None:
        for step in range(20):
            name = writer.run(put(f"{number}-{step:02}"))
            assert name == f"{number}-{step:02}"

    threads = [threading.Thread(target=client, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        rows = reader.query("SELECT (SELECT count(*) FROM meta), (SELECT count(*) FROM events)")
        assert rows[0][0] == rows[0][1]
    for thread in threads:
        thread.join()
    assert reader.one("SELECT count(*) FROM meta") == (120,)
    assert reader.one("SELECT 1 FROM meta WHERE key = 'none'") is None
    reader.close()
    writer.close()
