from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.errors import StoreError
from meshd.store import events
from meshd.store.db import Database, open_database


@pytest.fixture
def database(home: Path) -> Iterator[Database]:
    with open_database(home / "store.db", create=True) as opened:
        yield opened


def test_ids_begin_at_one_and_have_no_gaps_also_after_a_rollback_and_a_restart(home: Path) -> None:
    path = home / "store.db"
    with open_database(path, create=True) as opened:
        assert events.newest(opened.connection) == 0
        assert not events.pruned(opened.connection, 0)
        with opened.transaction() as connection:
            assert events.append(connection, 1000, "synced", {"peer": "desktop"}) == 1
        with pytest.raises(StoreError), opened.transaction() as connection:
            events.append(connection, 1001, "lost", {})
            raise StoreError("crash")
    with open_database(path) as opened:
        with opened.transaction() as connection:
            assert events.append(connection, 1002, "conflict", {"name": "Grüße"}) == 2
        assert events.since(opened.connection, 0, 10) == [
            events.Event(1, 1000, "synced", {"peer": "desktop"}),
            events.Event(2, 1002, "conflict", {"name": "Grüße"}),
        ]
        assert [event.id for event in events.since(opened.connection, 1, 10)] == [2]
        assert [event.id for event in events.since(opened.connection, 0, 1)] == [1]
        assert events.newest(opened.connection) == 2


def test_only_the_newest_are_kept_and_who_comes_too_late_is_told_to_start_anew(database: Database) -> None:
    with database.transaction() as connection:
        for number in range(events.KEEP + 25):
            events.append(connection, number, "tick", {})
    connection = database.connection
    assert connection.execute("SELECT count(*) FROM events").fetchone() == (events.KEEP,)
    assert events.oldest(connection) == 26
    assert events.pruned(connection, 0)
    assert events.pruned(connection, 24)
    assert not events.pruned(connection, 25)
    assert events.since(connection, 25, 1)[0].id == 26
    assert not events.pruned(connection, events.KEEP + 25)


def test_a_watcher_from_the_future_of_a_restored_store_starts_anew(database: Database) -> None:
    with database.transaction() as connection:
        events.append(connection, 1, "tick", {})
    assert events.pruned(database.connection, 7)


def test_ids_go_on_when_every_event_was_deleted(database: Database) -> None:
    with database.transaction() as connection:
        events.append(connection, 1, "tick", {})
        connection.execute("DELETE FROM events")
    assert events.oldest(database.connection) == 2
    assert events.pruned(database.connection, 0)
    with database.transaction() as connection:
        assert events.append(connection, 2, "tick", {}) == 2
