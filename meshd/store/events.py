"""What happened here, in order: the events that the local API tells its watchers (formats.md F12).

The idea: an event is written in the transaction whose outcome it tells, so ids have no gaps and neither a crash nor a
restart makes a watcher miss one or hear of what did not happen. The newest KEEP are kept; who comes later than that is
told to start from a snapshot (`reset`).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meshd.store.db import store_errors

KEEP = 10_000


@dataclass(frozen=True, slots=True)
class Event:
    id: int
    time: int  # milliseconds since 1970
    type: str
    data: Mapping[str, Any]


def append(connection: sqlite3.Connection, time_ms: int, type: str, data: Mapping[str, Any]) -> int:
    """Add an event inside the caller's transaction and drop the one that is now too old; returns its id."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    cursor = connection.execute("INSERT INTO events (time, type, data) VALUES (?, ?, ?)", (time_ms, type, text))
    number = cursor.lastrowid
    assert number is not None  # an INSERT into a rowid table always has one
    connection.execute("DELETE FROM events WHERE id <= ?", (number - KEEP,))
    return number


def since(connection: sqlite3.Connection, number: int, limit: int) -> list[Event]:
    """The events after `number`, oldest first, at most `limit`. Ask `pruned` first."""
    with store_errors():
        rows = connection.execute(
            "SELECT id, time, type, data FROM events WHERE id > ? ORDER BY id LIMIT ?", (number, limit)
        ).fetchall()
    return [Event(id, time, type, json.loads(data)) for id, time, type, data in rows]


def newest(connection: sqlite3.Connection) -> int:
    """The id of the last event, 0 before the first; also right when every event was deleted."""
    with store_errors():
        row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return 0 if row is None else int(row[0])


def oldest(connection: sqlite3.Connection) -> int:
    """The id of the oldest event kept; the next id when none is."""
    with store_errors():
        (first,) = connection.execute("SELECT min(id) FROM events").fetchone()
    return newest(connection) + 1 if first is None else int(first)


def pruned(connection: sqlite3.Connection, number: int) -> bool:
    """True: a watcher that has heard everything up to `number` needs a snapshot.

    Either events after it were dropped, or this store never had it (it was restored from a backup).
    """
    return number + 1 < oldest(connection) or number > newest(connection)
