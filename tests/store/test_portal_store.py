"""A portal's store: its file, its rows, and what expires."""

from __future__ import annotations

import pytest

from meshd.errors import StoreDamaged, StoreError, StoreTooNew
from meshd.profile.claim import Kind, State
from meshd.store import portal_key_rows as keys
from meshd.store import portal_rows as rows
from meshd.store.db import known_migrations
from meshd.store.portal_db import APPLICATION_ID, PORTAL, open_portal

MESH = "MESH-OF-ALICE"


@pytest.fixture
def connection(home):
    with open_portal(home / "portal.db", create=True) as database:
        yield database.connection


def version(number: int, identifier: str = "A", *parents: bytes, gen: int = 1, old: bool = False) -> rows.Put:
    vid = number.to_bytes(32, "big")
    return rows.Put(vid, int(Kind.ITEM), identifier, "SIGNER", number, gen, "", b"d" * 32, b"raw", parents, old)


def test_a_new_store_is_made_once_and_found_again(home):
    path = home / "portal.db"
    with pytest.raises(StoreError):
        open_portal(path)
    open_portal(path, create=True).close()
    with open_portal(path) as database:
        assert database.query("PRAGMA application_id") == [(APPLICATION_ID,)]
        assert database.query("PRAGMA user_version") == [(known_migrations(PORTAL)[-1][0],)]
        assert database.query("PRAGMA synchronous") == [(2,)] and database.query("PRAGMA journal_mode") == [("wal",)]
        assert database.check() == []
    assert path.stat().st_mode & 0o077 == 0


def test_a_file_that_is_no_store_is_left_alone(home):
    path = home / "portal.db"
    path.write_bytes(b"")
    with pytest.raises(StoreDamaged):
        open_portal(path)
    path.write_bytes(b"not a database at all" * 400)
    with pytest.raises(StoreDamaged):
        open_portal(path)
    assert path.read_bytes().startswith(b"not a database")


def test_a_store_of_a_newer_release_is_left_alone(home):
    path = home / "portal.db"
    with open_portal(path, create=True) as database:
        database.connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreTooNew):
        open_portal(path)


def test_places_have_no_gaps_although_transactions_fail(connection):
    mesh = rows.make_mesh(connection, MESH)
    assert rows.put(connection, mesh, version(1), State.APPLIED, 10) == 1
    connection.execute("BEGIN")
    assert rows.put(connection, mesh, version(2), State.APPLIED, 11) == 2
    connection.execute("ROLLBACK")
    assert rows.put(connection, mesh, version(3), State.APPLIED, 12) == 2
    assert [row.seq for row in rows.feed(connection, MESH, 0, 10)] == [1, 2]
    assert rows.last_place(connection) == 2


def test_parents_retire_and_heads_can_be_found_anew(connection):
    mesh = rows.make_mesh(connection, MESH)
    first = version(1)
    rows.put(connection, mesh, first, State.APPLIED, 10)
    rows.put(connection, mesh, version(2, "A", first.vid, gen=2), State.APPLIED, 10)
    assert [row.seq for row in rows.heads(connection, "A")] == [2]
    assert rows.heads(connection, "A")[0].prior == 1
    judged = rows.to_judge(connection, mesh, vids=[(2).to_bytes(32, "big")])
    rows.set_state(connection, mesh, judged[0], State.QUARANTINED)
    rows.find_heads(connection, Kind.ITEM, "A")
    assert [row.seq for row in rows.heads(connection, "A")] == [1]
    assert rows.usage(connection, MESH) == (6, 2, 3, 1, 0)


def test_the_place_of_a_time_is_found_by_halves(connection):
    mesh = rows.make_mesh(connection, MESH)
    assert rows.place_at(connection, 5) == 0
    for number, added in enumerate([10, 10, 11, 15, 15, 20], 1):
        rows.put(connection, mesh, version(number, str(number)), State.APPLIED, added)
    assert [rows.place_at(connection, when) for when in (9, 10, 11, 12, 15, 16, 20, 21)] == [0, 0, 2, 3, 3, 5, 5, 6]


def test_the_newest_profile_says_which_key_a_device_has(connection):
    mesh = rows.make_mesh(connection, MESH)
    keys.put_members(connection, mesh, ["D"])
    keys.put_device(connection, "D", "OLD", b"1" * 32, 1, b"a")
    keys.put_device(connection, "D", "NEW", b"2" * 32, 2, b"b")
    keys.put_device(connection, "D", "OLD", b"1" * 32, 1, b"a")
    assert keys.devices_of(connection, "NEW") == [(MESH, "D", False)] and keys.devices_of(connection, "OLD") == []
    assert keys.device_key(connection, "NEW") == b"2" * 32 and keys.device_key(connection, "OLD") is None


def test_what_has_expired_is_forgotten_and_nothing_else(connection):
    connection.execute("INSERT INTO reservations VALUES ('a', 't', 10), ('b', 't', 30)")
    connection.execute("INSERT INTO invites VALUES (x'01', 10, ''), (x'02', 30, '')")
    connection.execute("INSERT INTO held VALUES ('a', x'', 10), ('b', x'', 30)")
    connection.executemany("INSERT INTO pending VALUES (?, 'd', 'k', x'', x'', 0, ?, 0, '{}')", [("a", 10), ("b", 30)])
    connection.executemany("INSERT INTO answers VALUES (?, 'd', 'k', x'', x'', ?, '{}')", [("a", 1), ("b", 6)])
    rows.sweep(connection, 20, answers_before=5, notices=10)
    for table in ("reservations", "invites", "held", "pending", "answers"):
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (1,), table


def test_a_backup_is_whole_while_the_store_is_written(home):
    with open_portal(home / "portal.db", create=True) as database:
        mesh = rows.make_mesh(database.connection, MESH)
        rows.put(database.connection, mesh, version(1), State.APPLIED, 10)
        with open_portal(home / "portal.db", readonly=True) as reader:
            database.connection.execute("BEGIN IMMEDIATE")
            rows.put(database.connection, mesh, version(2, "B"), State.APPLIED, 10)
            reader.backup(home / "copy.db")
            database.connection.execute("COMMIT")
    with open_portal(home / "copy.db", readonly=True) as copy:
        assert copy.query("SELECT count(*) FROM versions") == [(1,)] and copy.check() == []
