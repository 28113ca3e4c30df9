from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from harness.faulty import crash_image, flip
from meshd.errors import DiskFull, MeshError, StoreBusy, StoreDamaged, StoreError, StoreTooNew
from meshd.store import db
from meshd.store.db import PAGE_SIZE, Reader, get_meta, known_migrations, open_database, set_meta
from meshd.store.writer import Writer

HERE = Path(__file__).parent
V2 = (2, "CREATE TABLE later (a INTEGER) STRICT; INSERT INTO later SELECT count(*) FROM meta;")


def fill(path: Path, rows: int = 300, migrations: list[db.Migration] | None = None) -> None:
    with open_database(path, create=True, migrations=migrations) as opened, opened.transaction() as connection:
        for number in range(rows):
            set_meta(connection, f"key {number:04}", bytes([number % 251]) * 400)


def count(path: Path) -> int:
    with open_database(path) as opened:
        assert opened.check() == []
        return int(opened.query("SELECT count(*) FROM meta")[0][0])


def test_a_new_store_is_private_durable_and_marked_as_ours(home: Path) -> None:
    with open_database(home / "store.db", create=True) as opened:
        assert opened.query("PRAGMA application_id") == [(int.from_bytes(b"mshd", "big"),)]
        assert opened.query("PRAGMA user_version") == [(len(known_migrations()),)]
        assert opened.query("PRAGMA page_size") == [(PAGE_SIZE,)]
        assert opened.query("PRAGMA journal_mode") == [("wal",)]
        assert opened.query("PRAGMA synchronous") == [(2,)]
        assert opened.query("PRAGMA secure_delete") == [(1,)]
        with opened.transaction() as connection:
            set_meta(connection, "store_id", b"12345678")
            set_meta(connection, "store_id", b"87654321")
        assert get_meta(opened.connection, "store_id") == b"87654321"
        assert get_meta(opened.connection, "nothing") is None
        assert {entry.stat().st_mode & 0o777 for entry in home.iterdir()} == {0o600}
    assert [entry.name for entry in home.iterdir()] == ["store.db"]


def test_a_store_that_others_may_read_is_closed_to_them(home: Path) -> None:
    fill(home / "store.db", 1)
    (home / "store.db").chmod(0o644)
    with open_database(home / "store.db"):
        assert (home / "store.db").stat().st_mode & 0o777 == 0o600


def test_a_missing_store_is_not_made_unless_that_was_asked(home: Path) -> None:
    for options in ({}, {"readonly": True}, {"readonly": True, "create": True}):
        with pytest.raises(StoreError, match="no store"):
            open_database(home / "store.db", **options)
    with pytest.raises(StoreError):
        open_database(home / "nowhere" / "store.db", create=True)
    assert list(home.iterdir()) == []


def test_what_a_crashed_creation_left_is_in_nobodys_way(home: Path) -> None:
    (home / "store.db.new").write_bytes(b"half")
    (home / "store.db.new-journal").write_bytes(b"half")
    fill(home / "store.db", 3)
    assert count(home / "store.db") == 3
    assert [entry.name for entry in home.iterdir()] == ["store.db"]


def test_a_store_that_went_while_its_log_stayed_is_not_made_anew(home: Path) -> None:
    with open_database(home / "store.db", create=True) as opened:
        with opened.transaction() as connection:
            set_meta(connection, "a", b"1")
        log = (home / "store.db-wal").read_bytes()
    (home / "store.db").unlink()
    (home / "store.db-wal").write_bytes(log)
    with pytest.raises(StoreDamaged, match=r"store\.db-wal"):
        open_database(home / "store.db", create=True)
    assert (home / "store.db-wal").read_bytes() == log


@pytest.mark.parametrize("content", [b"", b"\0" * 8192, b"SQLite format 3\0" + b"\xff" * 8000, b"garbage" * 999])
def test_a_file_that_is_no_store_is_reported_and_left_as_it_is(home: Path, content: bytes) -> None:
    (home / "store.db").write_bytes(content)
    for options in ({}, {"create": True}, {"readonly": True}):
        with pytest.raises(StoreDamaged):
            open_database(home / "store.db", **options)
    assert (home / "store.db").read_bytes() == content


def test_a_database_of_another_program_is_refused(home: Path) -> None:
    other = sqlite3.connect(home / "store.db")
    other.execute("CREATE TABLE bookmarks (url)")
    other.close()
    before = (home / "store.db").read_bytes()
    with pytest.raises(StoreDamaged, match="not a store of meshd"):
        open_database(home / "store.db", create=True)
    assert (home / "store.db").read_bytes() == before


def test_a_newer_store_is_refused_with_both_numbers_and_left_as_it_is(home: Path) -> None:
    fill(home / "store.db", 2)
    mine = known_migrations()
    with open_database(home / "store.db", migrations=[*mine, (len(mine) + 1, "CREATE TABLE later (a);")]):
        pass
    before = (home / "store.db").read_bytes()
    for readonly in (False, True):
        with pytest.raises(StoreTooNew, match=rf"format {len(mine) + 1}.*up to {len(mine)}"):
            open_database(home / "store.db", readonly=readonly)
    assert (home / "store.db").read_bytes() == before


def test_a_store_of_the_first_release_is_brought_up_to_date_with_everything_in_it(home: Path) -> None:
    path = home / "store.db"
    old = sqlite3.connect(path)
    old.executescript((HERE / "store_v1.sql").read_text())
    old.close()
    with open_database(path) as opened:
        assert opened.query("PRAGMA user_version") == [(len(known_migrations()),)]
        assert opened.check() == []
        assert get_meta(opened.connection, "store_id") == b"12345678"
        assert opened.query("SELECT seq, kind, n, state FROM versions ORDER BY seq") == [(1, 3, 0, 1), (4, 8, 7, 2)]
        assert opened.query("SELECT vid FROM heads") == [(b"\x01" * 32,)]
        with opened.transaction() as connection:
            connection.execute(
                "INSERT INTO versions (vid, kind, identifier, signer, n, gen, updated, received, state, token, digest)"
                " VALUES (x'05', 8, 'i', 's', 1, 1, 0, 0, 1, 't', x'06')"
            )
        assert opened.query("SELECT max(seq) FROM versions") == [(10,)]  # 5 to 9 were given before, to what is gone


def test_the_first_release_is_never_changed_after_the_fact(home: Path) -> None:
    """A released migration is history: a change to the schema is a new file beside it."""

    def schema(path: Path) -> set[str]:
        with open_database(path, migrations=known_migrations()[:1]) as opened:
            return {row[0] for row in opened.query("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")}

    old = sqlite3.connect(home / "old.db")
    old.executescript((HERE / "store_v1.sql").read_text())
    old.close()
    open_database(home / "new.db", create=True, migrations=known_migrations()[:1]).close()
    assert schema(home / "old.db") == schema(home / "new.db")


def test_a_migration_sees_the_rows_and_runs_once(home: Path) -> None:
    fill(home / "store.db", 5, known_migrations()[:1])
    steps = [*known_migrations()[:1], V2]
    for _ in range(2):
        with open_database(home / "store.db", migrations=steps) as opened:
            assert opened.query("SELECT a FROM later") == [(5,)]
            assert opened.query("PRAGMA user_version") == [(2,)]


def test_a_migration_that_fails_leaves_the_older_store(home: Path) -> None:
    fill(home / "store.db", 5, known_migrations()[:1])
    steps = [*known_migrations()[:1], V2, (3, "CREATE TABLE half (a); INSERT INTO nothing VALUES (1);")]
    with pytest.raises(StoreError, match="nothing"):
        open_database(home / "store.db", migrations=steps)
    with open_database(home / "store.db", migrations=steps[:2]) as opened:
        assert opened.query("PRAGMA user_version") == [(2,)]
        assert opened.query("SELECT count(*) FROM sqlite_schema WHERE name = 'half'") == [(0,)]
        assert opened.query("SELECT count(*) FROM meta") == [(5,)]


def test_a_damaged_page_is_reported_and_nothing_is_emptied(home: Path) -> None:
    path = home / "store.db"
    fill(path)
    whole = path.read_bytes()
    pages = len(whole) // PAGE_SIZE
    assert pages > 20
    reported = 0
    for page in range(pages):
        path.write_bytes(whole)
        flip(path, page * PAGE_SIZE + 100 * (page == 0), 64)
        damaged = path.read_bytes()
        try:
            with open_database(path) as opened:
                problems = opened.check()
                quick = opened.quick_check()
        except StoreDamaged:
            reported += 1
        else:
            reported += bool(problems) and bool(quick)
        assert path.stat().st_size == len(damaged)
        assert path.read_bytes()[PAGE_SIZE:] == damaged[PAGE_SIZE:]
    assert reported == pages


def test_reading_a_damaged_page_says_so(home: Path) -> None:
    path = home / "store.db"
    fill(path)
    data = bytearray(path.read_bytes())
    for start in range(PAGE_SIZE, len(data), PAGE_SIZE):
        if b"key 0" in data[start : start + PAGE_SIZE]:
            data[start : start + 8] = b"\xff" * 8
    path.write_bytes(data)
    reader = Reader(path)
    with pytest.raises(StoreDamaged, match="damaged"):
        reader.query("SELECT * FROM meta")
    with pytest.raises(StoreDamaged, match="damaged"):
        reader.one("SELECT value FROM meta WHERE key = 'key 0200'")
    reader.close()
    assert path.read_bytes() == data


def test_a_truncated_store_is_reported(home: Path) -> None:
    path = home / "store.db"
    fill(path)
    whole = path.read_bytes()
    for length in (10, 99, PAGE_SIZE, len(whole) // 2, len(whole) - PAGE_SIZE):
        path.write_bytes(whole[:length])
        try:
            with open_database(path) as opened:
                assert opened.quick_check() != []
        except StoreDamaged:
            pass
        assert path.stat().st_size == length


def test_a_full_disk_fails_the_write_and_loses_nothing(home: Path) -> None:
    path = home / "store.db"
    fill(path, 50)
    with open_database(path) as opened:
        (pages,) = opened.query("PRAGMA page_count")[0]
        opened.query(f"PRAGMA max_page_count = {pages + 4}")
        writer = Writer(opened)
        kept = 0
        with pytest.raises(DiskFull, match="full"):
            for number in range(1000):
                writer.run(lambda c, number=number: set_meta(c, f"new {number}", b"x" * 1000))
                kept += 1
        assert 0 < kept < 100
        opened.query("PRAGMA max_page_count = 1000000")
        writer.run(lambda c: set_meta(c, "after", b"space again"))
        writer.close()
    assert count(path) == 50 + kept + 1


def in_a_small_disk(home: Path, script: str, size: str = "640k") -> str:
    """Run Python code in a mount namespace of its own, where `DISK` is a file system of `size` bytes."""
    unshare = shutil.which("unshare")
    disk = home / "disk"
    disk.mkdir()
    command = f'mount -t tmpfs -o size={size} none "$0" && exec "$@"'
    if unshare is None or subprocess.run([unshare, "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here")
    code = f"from pathlib import Path\nDISK = Path({str(disk)!r})\n" + textwrap.dedent(script)
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run(
        [unshare, "-rm", "sh", "-c", command, str(disk), sys.executable, "-c", code],
        capture_output=True, text=True, env=environment, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_disk_that_really_is_full_fails_the_write_and_loses_nothing(home: Path) -> None:
    script = """
        from meshd.errors import DiskFull
        from meshd.store.db import open_database, set_meta
        from meshd.store.files import durable_write
        from meshd.store.writer import Writer
        kept = 0
        database = open_database(DISK / "store.db", create=True)
        writer = Writer(database)
        try:
            while kept < 10_000:
                writer.run(lambda c: set_meta(c, f"key {kept}", b"x" * 3000))
                kept += 1
        except DiskFull as exc:
            print(type(exc).__name__, exc)
        writer.close()
        try:
            durable_write(DISK / "keystore", b"x" * 1_000_000)
        except DiskFull:
            print("keystore", sorted(entry.name for entry in DISK.iterdir() if "keystore" in entry.name))
        image = {entry.name: entry.read_bytes() for entry in DISK.iterdir()}
        database.close()
        with open_database(DISK / "store.db") as again:
            assert again.check() == [], again.check()
            assert again.query("SELECT count(*) FROM meta") == [(kept,)]
        assert kept > 20
    """
    assert in_a_small_disk(home, script) == "DiskFull The disk is full.\nkeystore []\n"


def test_a_store_on_a_read_only_disk_can_be_read_and_says_why_it_cannot_be_written(home: Path) -> None:
    script = """
        import subprocess
        from meshd.errors import StoreError
        from meshd.store.db import Reader, open_database, set_meta
        from meshd.store.files import durable_write
        with open_database(DISK / "store.db", create=True) as database, database.transaction() as connection:
            set_meta(connection, "a", b"1")
        subprocess.run(["mount", "-o", "remount,ro", str(DISK)], check=True)
        reader = Reader(DISK / "store.db")
        print(reader.query("SELECT key FROM meta"))
        for attempt in (lambda: open_database(DISK / "store.db"), lambda: durable_write(DISK / "keystore", b"x")):
            try:
                attempt()
            except StoreError as exc:
                print(type(exc).__name__, exc)
    """
    lines = in_a_small_disk(home, script).splitlines()
    assert lines[0] == "[('a',)]"
    assert lines[1].startswith("StoreError the store ")
    assert lines[2].startswith("StoreError ")
    assert all("can't be written" in line for line in lines[1:])


def test_a_reader_cannot_write(home: Path) -> None:
    fill(home / "store.db", 1)
    reader = Reader(home / "store.db")
    with pytest.raises(StoreError, match="can't be written"):
        reader.query("DELETE FROM meta")
    reader.close()
    assert count(home / "store.db") == 1


def test_two_programs_that_write_one_store_are_told_apart(home: Path) -> None:
    fill(home / "store.db", 1)
    other = sqlite3.connect(home / "store.db", isolation_level=None)
    with open_database(home / "store.db") as opened:
        opened.query("PRAGMA busy_timeout = 0")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy), opened.transaction():
            pass
    other.close()


def test_a_transaction_that_raises_leaves_nothing(home: Path) -> None:
    with open_database(home / "store.db", create=True) as opened:
        with pytest.raises(MeshError, match="no"), opened.transaction() as connection:
            set_meta(connection, "a", b"1")
            raise MeshError("no")
        with pytest.raises(StoreError, match="UNIQUE"), opened.transaction() as connection:
            connection.execute("INSERT INTO meta VALUES ('a', x'00')")
            connection.execute("INSERT INTO meta VALUES ('a', x'00')")
    assert count(home / "store.db") == 0


def test_a_killed_process_leaves_what_was_committed(home: Path) -> None:
    with open_database(home / "store.db", create=True) as opened:
        with opened.transaction() as connection:
            set_meta(connection, "committed", b"1")
        opened.connection.execute("BEGIN IMMEDIATE")
        set_meta(opened.connection, "open", b"1")
        image = crash_image(home / "store.db", home / "image.db")
        opened.connection.execute("ROLLBACK")
    assert count(image) == 1


def test_a_backup_is_one_whole_file_also_while_somebody_writes(home: Path) -> None:
    fill(home / "store.db", 40)
    with open_database(home / "store.db") as opened:
        opened.connection.execute("BEGIN IMMEDIATE")
        set_meta(opened.connection, "open", b"1")
        opened.backup(home / "backup.db")
        opened.connection.execute("COMMIT")
        assert (home / "backup.db").stat().st_mode & 0o777 == 0o600
        with pytest.raises(StoreError, match="exists"):
            opened.backup(home / "backup.db")
    assert sorted(entry.name for entry in home.iterdir()) == ["backup.db", "store.db"]
    assert count(home / "backup.db") == 40
    assert count(home / "store.db") == 41


def test_what_is_deleted_is_gone_from_the_file(home: Path) -> None:
    path = home / "store.db"
    secret = b"sealed under a key that was rotated away" * 20
    with open_database(path, create=True) as opened:
        with opened.transaction() as connection:
            set_meta(connection, "draft", secret)
            connection.execute("INSERT INTO drafts (created, sealed) VALUES (0, ?)", (secret,))
        with opened.transaction() as connection:
            connection.execute("DELETE FROM meta")
            connection.execute("DELETE FROM drafts")
        opened.checkpoint()
        assert (home / "store.db-wal").stat().st_size == 0
    assert secret[:40] not in path.read_bytes()


def test_heads_read_and_write_like_a_table(home: Path) -> None:
    row = "INSERT INTO versions (vid, kind, identifier, signer, n, gen, updated, received, state, token, digest)"
    with open_database(home / "store.db", create=True) as opened, opened.transaction() as connection:
        for number in (1, 2):
            connection.execute(f"{row} VALUES (?, 8, 'item', 's', 1, 1, 0, 0, 1, 't', x'00')", (bytes([number]),))
        connection.execute("INSERT INTO heads VALUES (8, 'item', x'01')")
        connection.execute("INSERT OR IGNORE INTO heads VALUES (8, 'item', x'01')")
        connection.execute("INSERT INTO heads VALUES (8, 'item', x'09')")  # no such version: says nothing
        assert connection.execute("SELECT * FROM heads").fetchall() == [(8, "item", b"\x01")]
        connection.execute("INSERT INTO heads VALUES (8, 'item', x'02')")
        connection.execute("DELETE FROM heads WHERE kind = 8 AND identifier = 'item' AND vid = x'01'")
        assert connection.execute("SELECT vid FROM heads WHERE kind = 8").fetchall() == [(b"\x02",)]
        connection.execute("DELETE FROM heads WHERE identifier = 'item'")
        assert connection.execute("SELECT count(*) FROM heads").fetchone() == (0,)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (sqlite3.SQLITE_FULL, DiskFull),
        (sqlite3.SQLITE_IOERR_SHMSIZE, DiskFull),
        (sqlite3.SQLITE_IOERR_WRITE, StoreError),
        (sqlite3.SQLITE_READONLY_DBMOVED, StoreError),
        (sqlite3.SQLITE_CANTOPEN, StoreError),
        (sqlite3.SQLITE_CORRUPT_INDEX, StoreDamaged),
        (sqlite3.SQLITE_NOTADB, StoreDamaged),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, StoreBusy),
    ],
)
def test_every_kind_of_fault_has_its_class(code: int, error: type[StoreError]) -> None:
    fault = sqlite3.OperationalError("as SQLite says it")
    fault.sqlite_errorcode = code
    with pytest.raises(StoreError) as caught, db.store_errors():
        raise fault
    assert type(caught.value) is error
    assert caught.value.__cause__ is fault
