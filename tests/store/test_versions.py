from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from harness.mesh_world import Device, found, memory_store, seeded
from meshd.profile.claim import Kind, State
from meshd.store import chains, versions
from meshd.store.db import open_database
from meshd.store.replica import Replica

ENTRY = (int(Kind.ITEM), "VAULT/item")


@pytest.fixture
def connection() -> sqlite3.Connection:
    return memory_store()


def put(connection: sqlite3.Connection, name: str, parents: str = "", state: State = State.APPLIED) -> bytes:
    """A row of the entry, by a one-letter name; `parents` are such names."""
    connection.execute(
        "INSERT INTO versions (vid, kind, identifier, signer, n, gen, updated, received, state, token, digest, raw)"
        " VALUES (?, ?, ?, 'S', ?, 1, 0, 0, ?, 'mnt1;g=1', x'00', x'00')",
        (name.encode(), *ENTRY, ord(name), int(state)),
    )
    versions.add_edges(connection, name.encode(), [parent.encode() for parent in parents])
    return name.encode()


def heads(connection: sqlite3.Connection) -> str:
    versions.recompute_heads(connection, *ENTRY)
    return b"".join(versions.heads(connection, *ENTRY)).decode()


def test_heads_are_applied_versions_that_no_applied_version_descends_from(connection: sqlite3.Connection) -> None:
    put(connection, "a")
    assert heads(connection) == "a"
    put(connection, "b", "a")
    put(connection, "c", "a")
    assert heads(connection) == "bc"
    put(connection, "d", "bc")
    assert heads(connection) == "d"


def test_a_quarantined_version_is_no_head_and_hides_nothing_but_what_is_applied_over_it_does(
    connection: sqlite3.Connection,
) -> None:
    put(connection, "a")
    put(connection, "b", "a", State.QUARANTINED)
    assert heads(connection) == "a"
    put(connection, "c", "b")
    assert heads(connection) == "c", "it replaces a, through b"
    put(connection, "d", "a", State.PENDING)
    assert heads(connection) == "c"
    versions.set_state(connection, b"c", State.QUARANTINED)
    assert heads(connection) == "a"
    versions.set_state(connection, b"b", State.APPLIED)
    assert heads(connection) == "b"


def test_the_feed_goes_by_seq_and_leaves_pruned_rows_out(connection: sqlite3.Connection) -> None:
    for name in "abc":
        put(connection, name)
    connection.execute("UPDATE versions SET raw = NULL WHERE vid = x'62'")
    feed = versions.changes(connection, 0, 10)
    assert [(change.seq, change.vid, change.size) for change in feed] == [(1, b"a", 1), (3, b"c", 1)]
    assert versions.changes(connection, 1, 1) == feed[1:]
    assert versions.raws(connection, [b"a", b"b", b"c"]).keys() == {b"a", b"c"}
    assert versions.known(connection, [b"a", b"b", b"x"]) == {b"a", b"b"}


def test_a_seq_is_never_given_again(connection: sqlite3.Connection) -> None:
    for name in "abc":
        put(connection, name)
    connection.execute("DELETE FROM versions WHERE vid = x'63'")
    put(connection, "d")
    assert versions.last_seq(connection) == 4
    assert [change.seq for change in versions.changes(connection, 0, 10)] == [1, 2, 4]


def test_more_vids_than_sqlite_takes_at_once_are_looked_up_in_parts(connection: sqlite3.Connection) -> None:
    put(connection, "a")
    many = [number.to_bytes(4, "big") for number in range(40_000)]
    assert versions.known(connection, [*many, b"a"]) == {b"a"}
    assert versions.raws(connection, [*many, b"a"]).keys() == {b"a"}


def test_conflicts_are_entries_with_more_than_one_head(connection: sqlite3.Connection) -> None:
    put(connection, "a")
    heads(connection)
    assert versions.conflicts(connection) == []
    put(connection, "b")
    heads(connection)
    assert versions.conflicts(connection) == [ENTRY[1]]


def test_a_misfit_that_is_final_stays_final(connection: sqlite3.Connection) -> None:
    versions.set_misfit(connection, b"a", "its readers", final=False)
    versions.set_misfit(connection, b"b", "its parents", final=True)
    versions.set_misfit(connection, b"a", "its place", final=True)
    versions.set_misfit(connection, b"b", "its readers", final=False)
    assert versions.misfits(connection) == {b"a": (True, "its readers"), b"b": (True, "its parents")}
    versions.clear_misfit(connection, b"a")
    assert versions.misfits(connection).keys() == {b"b"}


def test_nothing_that_a_device_does_every_day_reads_a_whole_table(home: Path) -> None:
    """Every statement of a day, put to SQLite's planner over a store with rows in it."""
    with open_database(home / "store.db", create=True) as database:
        connection = database.connection
        laptop = found(store=connection)
        desktop = laptop.admit("desktop")
        item = laptop.add("example.org")
        statements: list[str] = []
        connection.set_trace_callback(statements.append)
        day(laptop, desktop, item)
        connection.set_trace_callback(None)
        plans = {}
        for sql in {re.sub(r"\s+", " ", sql) for sql in statements}:
            ours = sql not in ("SELECT vid, raw FROM versions ORDER BY seq", "SELECT vid FROM versions")
            if ours and sql.startswith(("SELECT", "INSERT", "UPDATE", "DELETE")) and "seq > 0 ORDER" not in sql:
                plans[sql] = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]
        assert len(plans) > 50
        for sql, plan in plans.items():
            for step in plan:
                # waits, holes, tips, joins and misfits are short, or empty; they are read whole when a store is opened.
                # Two indexes hold the few versions that are not applied.
                few = re.search(r"INDEX versions_(aside|pending)\b", step)
                whole = re.match(r"SCAN (versions|edges|v|b)\b", step)
                assert few or not whole, f"{sql[:200]}: {plan}"


def day(laptop: Device, desktop: Device, item: str) -> None:
    laptop.edit(item, "new")
    laptop.add("another.example")
    desktop.pull(laptop)
    desktop.edit(item, "newer")
    desktop.add("third.example")
    held = set(laptop.feed())
    laptop.take(raw for raw in reversed(desktop.feed()) if raw not in held)
    laptop.admit("tablet")
    laptop.passwords()
    chains.unhealed_forks(laptop.connection)
    versions.count_states(laptop.connection)
    versions.changes(laptop.connection, 3, 100)
    Replica(laptop.connection, seeded("again"))
