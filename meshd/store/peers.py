"""What this store remembers of each sibling: how far each holds the other's versions, where it was last met, its name.

The idea: a cursor counts only under the store-id that it was given with. A sibling whose store-id changed numbers its
versions anew, so its cursor begins at 0 again; when ours changes, what siblings acknowledged of the old one is void.
A restored backup numbers anew without knowing it. So a cursor also says which version stood there and in which run of
the sibling it told us so, and the sibling sees whether it ever said that (`holds`).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from meshd.errors import FormatError
from meshd.store.db import get_meta, set_meta, store_errors

MAX_ADDRESSES = 8
MAX_ADDRESS = 300  # characters of "host:port"; a DNS name has at most 253
_ASKED = "asked anew"  # meta: see `asked`
RUNS = 4096  # remembered; who was told something before them is told everything again
_SELECT = "SELECT udf, store_id, cursor, their_ack, addresses, last_seen, name FROM peers"


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a sibling's store: up to `seq` we hold everything; `vid` stands there, as it said in its `run`."""

    seq: int = 0
    run: bytes = b""
    vid: bytes = b""


@dataclass(frozen=True, slots=True)
class Peer:
    """A sibling. `cursor`: their seq up to which we hold everything; `their_ack`: our seq up to which they do."""

    udf: str
    store_id: bytes | None = None
    cursor: int = 0
    their_ack: int = 0
    addresses: tuple[str, ...] = ()  # "host:port", the one that worked last first
    last_seen: int = 0  # milliseconds since 1970; 0 = never
    name: str = ""


def get(connection: sqlite3.Connection, udf: str) -> Peer:
    """What is known of a sibling; nothing known is a Peer with nothing in it."""
    with store_errors():
        row = connection.execute(f"{_SELECT} WHERE udf = ?", (udf,)).fetchone()
    return Peer(udf) if row is None else _peer(row)


def every(connection: sqlite3.Connection) -> list[Peer]:
    """All siblings ever remembered, by UDF."""
    with store_errors():
        rows = connection.execute(f"{_SELECT} ORDER BY udf").fetchall()
    return [_peer(row) for row in rows]


def set_cursor(
    connection: sqlite3.Connection, udf: str, store_id: bytes, cursor: int, run: bytes = b"", vid: bytes = b""
) -> None:
    """We hold everything of `store_id` up to `cursor`, where it told us of `vid` in its `run`. Backwards only where
    the store-id or the run is another."""
    connection.execute(
        "INSERT INTO peers (udf, store_id, cursor, run, vid) VALUES (?, ?, ?, ?, ?) ON CONFLICT (udf) DO UPDATE SET"
        " cursor = excluded.cursor, store_id = excluded.store_id, run = excluded.run, vid = excluded.vid"
        " WHERE store_id IS NOT excluded.store_id OR run IS NOT excluded.run OR cursor <= excluded.cursor",
        (udf, store_id, cursor, run, vid),
    )


def cursor_for(connection: sqlite3.Connection, udf: str, store_id: bytes) -> int:
    """Where to go on reading in the sibling's store; 0 for a store-id that is not the one remembered."""
    return place(connection, udf, store_id).seq


def place(connection: sqlite3.Connection, udf: str, store_id: bytes) -> Cursor:
    """As `cursor_for`, with what stands there."""
    with store_errors():
        row = connection.execute(
            "SELECT cursor, run, vid FROM peers WHERE udf = ? AND store_id = ?", (udf, store_id)
        ).fetchone()
    return Cursor() if row is None else Cursor(row[0], row[1] or b"", row[2] or b"")


def begin_run(connection: sqlite3.Connection, run: bytes, last_seq: int) -> None:
    """The store was opened: what is numbered from here on belongs to `run`."""
    connection.execute("UPDATE runs SET last = ? WHERE last IS NULL", (last_seq,))
    connection.execute("INSERT INTO runs (run) VALUES (?)", (run,))
    connection.execute("DELETE FROM runs WHERE id <= (SELECT max(id) FROM runs) - ?", (RUNS,))


def holds(connection: sqlite3.Connection, cursor: Cursor) -> bool:
    """Is this place in our store what we told somebody of? Not where this store was restored from a backup since: the
    run, or what was numbered in it after the backup, is not known, or another version stands there."""
    if cursor.seq == 0:
        return True
    run = connection.execute("SELECT last FROM runs WHERE run = ?", (cursor.run,)).fetchone()
    if run is None or (run[0] is not None and cursor.seq > run[0]):
        return False
    row = connection.execute("SELECT vid FROM versions WHERE seq = ?", (cursor.seq,)).fetchone()
    return row is not None and bytes(row[0]) == cursor.vid


def ask_anew(connection: sqlite3.Connection) -> None:
    """What was had of siblings and portals is not all that is wanted of them: nothing is, from here on. Conversations
    that began before must not say otherwise: they compare `asked`."""
    connection.execute("UPDATE peers SET cursor = 0, run = NULL, vid = NULL")
    connection.execute("UPDATE portals SET page_key = ''")
    set_meta(connection, _ASKED, str(asked(connection) + 1).encode())


def asked(connection: sqlite3.Connection) -> int:
    """How often everybody was asked for everything anew."""
    return int(get_meta(connection, _ASKED) or b"0")


def set_ack(connection: sqlite3.Connection, udf: str, seq: int) -> None:
    """The sibling holds everything of ours up to `seq`. Never backwards."""
    connection.execute(
        "INSERT INTO peers (udf, their_ack) VALUES (?, ?) ON CONFLICT (udf) DO UPDATE SET"
        " their_ack = max(their_ack, excluded.their_ack)",
        (udf, seq),
    )


def forget_ack(connection: sqlite3.Connection, udf: str) -> None:
    """What the sibling acknowledged were other versions."""
    connection.execute("UPDATE peers SET their_ack = 0 WHERE udf = ?", (udf,))


def forget_acks(connection: sqlite3.Connection) -> None:
    """Our own store-id changed: nobody has acknowledged anything under the new one."""
    connection.execute("UPDATE peers SET their_ack = 0")


def seen(connection: sqlite3.Connection, udf: str, time_ms: int, address: str | None = None) -> None:
    """Met at `time_ms`; `address` becomes the first to try next time. An older time changes only the address."""
    connection.execute(
        "INSERT INTO peers (udf, last_seen) VALUES (?, ?) ON CONFLICT (udf) DO UPDATE SET"
        " last_seen = max(last_seen, excluded.last_seen)",
        (udf, time_ms),
    )
    if address is not None:
        known = get(connection, udf).addresses
        set_addresses(connection, udf, [address, *(other for other in known if other != address)][:MAX_ADDRESSES])


def set_addresses(connection: sqlite3.Connection, udf: str, addresses: Iterable[str]) -> None:
    """Replace the addresses of a sibling, best first; FormatError for more than 8 or one that can't be an address."""
    listed = list(dict.fromkeys(addresses))
    if len(listed) > MAX_ADDRESSES:
        raise FormatError(f"{len(listed)} addresses: at most {MAX_ADDRESSES} are kept")
    for address in listed:
        if not 0 < len(address) <= MAX_ADDRESS or not address.isprintable():
            raise FormatError(f"not an address: {address[:50]!r}")
    connection.execute(
        "INSERT INTO peers (udf, addresses) VALUES (?, ?)"
        " ON CONFLICT (udf) DO UPDATE SET addresses = excluded.addresses",
        (udf, json.dumps(listed)),
    )


def set_name(connection: sqlite3.Connection, udf: str, name: str) -> None:
    """The device's name, cached in clear so that a locked `status` can show it (design.md, settled questions)."""
    connection.execute(
        "INSERT INTO peers (udf, name) VALUES (?, ?) ON CONFLICT (udf) DO UPDATE SET name = excluded.name", (udf, name)
    )


def forget(connection: sqlite3.Connection, udf: str) -> None:
    """Drop a sibling, when it was removed from the mesh."""
    connection.execute("DELETE FROM peers WHERE udf = ?", (udf,))


def _peer(row: tuple[str, bytes | None, int, int, str, int, str]) -> Peer:
    udf, store_id, cursor, their_ack, addresses, last_seen, name = row
    return Peer(udf, store_id, cursor, their_ack, tuple(json.loads(addresses)), last_seen, name)
