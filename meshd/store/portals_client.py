"""What this store remembers of the portals of the mesh: how far their feeds were followed, what they hold of ours.

A cursor on our own numbering says what a portal holds; the few versions that could not be published when their turn
came stand in `outbox`. Both move only in the transaction that follows a portal's answer, so that a crash repeats some
of it and forgets nothing; publishing twice changes nothing (a version is named by its vid).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from meshd.profile.claim import Kind, State
from meshd.store import portal_pins
from meshd.store.db import get_meta, store_errors

# What is published by itself. Master and device profiles travel inside personal profiles.
KINDS = (Kind.PERSONAL, Kind.CONTAINER, Kind.OFFLINE_ESCROW, Kind.ONLINE_ESCROW, Kind.ITEM)
_MARKS = "1, 2, 5, 6, 8"
_AT_ONCE = 500
_ROW = "seq, vid, kind, identifier, signer, gen, state, length(raw)"
_SELECT = "SELECT account, address, plain, item, moved, page_key, store_id, cursor, last_success FROM portals"


@dataclass(frozen=True, slots=True)
class PortalRow:
    """A portal of the mesh."""

    account: str
    address: str = ""
    plain: bool = False
    item: str = ""
    moved: str = ""
    page_key: str = ""
    store_id: bytes | None = None
    cursor: int = 0
    last_success: int = 0


@dataclass(frozen=True, slots=True)
class ToPublish:
    """A version that a portal may still need."""

    seq: int
    vid: bytes
    kind: int
    identifier: str
    signer: str
    gen: int
    state: State
    size: int


@dataclass(frozen=True, slots=True)
class ChainRecord:
    """What a row of a pruned or embedded version consists of (formats.md F1)."""

    vid: bytes
    kind: int
    identifier: str
    signer: str
    token: str
    digest: bytes
    whole: bool


def every(connection: sqlite3.Connection) -> list[PortalRow]:
    """All portals, by account."""
    with store_errors():
        return [_portal(row) for row in connection.execute(f"{_SELECT} ORDER BY account").fetchall()]


def get(connection: sqlite3.Connection, account: str) -> PortalRow | None:
    with store_errors():
        row = connection.execute(f"{_SELECT} WHERE account = ?", (account,)).fetchone()
    return None if row is None else _portal(row)


def put(connection: sqlite3.Connection, account: str, address: str, *, plain: bool, item: str = "") -> None:
    """Know a portal. One that is known already keeps its place; another address forgets where it had moved to."""
    connection.execute(
        "INSERT INTO portals (account, address, plain, item) VALUES (?, ?, ?, ?) ON CONFLICT (account) DO UPDATE SET"
        " moved = CASE WHEN address = excluded.address AND plain = excluded.plain THEN moved ELSE '' END,"
        " address = excluded.address, plain = excluded.plain,"
        " item = CASE WHEN excluded.item = '' THEN item ELSE excluded.item END",
        (account, address, int(plain), item),
    )


def forget(connection: sqlite3.Connection, account: str) -> None:
    """The mesh does not use it any more."""
    connection.execute("DELETE FROM portals WHERE account = ?", (account,))
    connection.execute("DELETE FROM outbox WHERE portal = ?", (account,))
    connection.execute("DELETE FROM portal_answers WHERE account = ?", (account,))
    portal_pins.forget(connection, account)


def followed(connection: sqlite3.Connection, account: str, page_key: str, now_ms: int) -> None:
    """Its feed was taken in up to here."""
    connection.execute(
        "UPDATE portals SET page_key = ?, last_success = ? WHERE account = ?", (page_key, now_ms, account)
    )


def moved(connection: sqlite3.Connection, account: str, uri: str) -> None:
    connection.execute("UPDATE portals SET moved = ? WHERE account = ?", (uri, account))


def begin_anew(connection: sqlite3.Connection, account: str) -> None:
    """It lost what it had: follow from its beginning, and publish from ours."""
    connection.execute("UPDATE portals SET page_key = '', cursor = 0 WHERE account = ?", (account,))
    connection.execute("DELETE FROM outbox WHERE portal = ?", (account,))


def cursor(connection: sqlite3.Connection, account: str) -> int:
    """Our seq up to which it holds everything; 0 where that was said of another numbering."""
    found = get(connection, account)
    return found.cursor if found is not None and found.store_id == get_meta(connection, "store_id") else 0


def published(
    connection: sqlite3.Connection,
    account: str,
    seq: int,
    *,
    done: Iterable[int],
    later: Iterable[tuple[int, int]],
    now_ms: int,
) -> None:
    """Everything up to `seq` is there, but for `later`: (seq, ms since 1970 from which on to try again). `done` leave
    the outbox."""
    numbering = get_meta(connection, "store_id")
    before = get(connection, account)
    if before is None:
        return
    if before.store_id != numbering:
        connection.execute("DELETE FROM outbox WHERE portal = ?", (account,))
        connection.execute("UPDATE portals SET cursor = 0 WHERE account = ?", (account,))
    connection.execute(
        "UPDATE portals SET cursor = max(cursor, ?), store_id = ?, last_success = ? WHERE account = ?",
        (seq, numbering, now_ms, account),
    )
    connection.executemany("DELETE FROM outbox WHERE portal = ? AND seq = ?", [(account, one) for one in done])
    connection.executemany(
        "INSERT INTO outbox (portal, seq, attempts, due) VALUES (?, ?, 1, ?) ON CONFLICT (portal, seq) DO UPDATE SET"
        " attempts = attempts + 1, due = excluded.due",
        [(account, one, due) for one, due in later],
    )


def after(connection: sqlite3.Connection, seq: int, limit: int) -> list[ToPublish]:
    """Versions of the kinds that are published, behind this seq; pruned ones are left out."""
    rows = connection.execute(
        f"SELECT {_ROW} FROM versions WHERE seq > ? AND kind IN ({_MARKS}) AND raw IS NOT NULL ORDER BY seq LIMIT ?",  # noqa: S608
        (seq, limit),
    )
    return [_to_publish(row) for row in rows.fetchall()]


def kept_back(connection: sqlite3.Connection, account: str) -> set[int]:
    """The seqs of those in the outbox."""
    with store_errors():
        return {row[0] for row in connection.execute("SELECT seq FROM outbox WHERE portal = ?", (account,)).fetchall()}


def due(connection: sqlite3.Connection, account: str, now_ms: int, limit: int) -> list[tuple[ToPublish, int]]:
    """(version, attempts) of those that could not be published before and whose time has come."""
    columns = ", ".join(f"versions.{name}" for name in _ROW.split(", ")[:-1]) + ", length(versions.raw)"
    rows = connection.execute(
        f"SELECT {columns}, outbox.attempts FROM outbox JOIN versions USING (seq)"  # noqa: S608
        " WHERE portal = ? AND due <= ? AND raw IS NOT NULL ORDER BY seq LIMIT ?",
        (account, now_ms, limit),
    )
    return [(_to_publish(row[:-1]), row[-1]) for row in rows.fetchall()]


def again(connection: sqlite3.Connection, account: str, now_ms: int) -> None:
    """What stands in the outbox is due now."""
    connection.execute("UPDATE outbox SET due = ? WHERE portal = ? AND due > ?", (now_ms, account, now_ms))


def next_due(connection: sqlite3.Connection, account: str) -> int | None:
    """When the next of them is to be tried."""
    row = connection.execute("SELECT min(due) FROM outbox WHERE portal = ?", (account,)).fetchone()
    return None if row is None or row[0] is None else int(row[0])


def behind(connection: sqlite3.Connection, account: str) -> tuple[int, int]:
    """(versions behind the cursor, versions in the outbox)."""
    with store_errors():
        (waiting,) = connection.execute(
            f"SELECT count(*) FROM versions WHERE seq > ? AND kind IN ({_MARKS}) AND raw IS NOT NULL",  # noqa: S608
            (cursor(connection, account),),
        ).fetchone()
        (kept,) = connection.execute("SELECT count(*) FROM outbox WHERE portal = ?", (account,)).fetchone()
    return int(waiting), int(kept)


def by_vid(connection: sqlite3.Connection, vids: Sequence[bytes]) -> list[ToPublish]:
    """Those of `vids` that are held whole and published by themselves."""
    found = []
    for vid in vids:
        row = connection.execute(
            f"SELECT {_ROW} FROM versions WHERE vid = ? AND kind IN ({_MARKS}) AND raw IS NOT NULL",  # noqa: S608
            (vid,),
        ).fetchone()
        if row is not None:
            found.append(_to_publish(row))
    return found


def places(connection: sqlite3.Connection, vids: Sequence[bytes], after: int) -> list[tuple[bytes, int]]:
    """(vid, seq) of those of `vids` that `by_vid` finds, behind this seq."""
    found: list[tuple[bytes, int]] = []
    for start in range(0, len(vids), _AT_ONCE):
        part = vids[start : start + _AT_ONCE]
        found += connection.execute(
            f"SELECT vid, seq FROM versions WHERE vid IN ({', '.join('?' * len(part))}) AND seq > ?"  # noqa: S608
            f" AND kind IN ({_MARKS}) AND raw IS NOT NULL",
            (*part, after),
        ).fetchall()
    return found


def chain_record(connection: sqlite3.Connection, vid: bytes) -> ChainRecord | None:
    """The row of a version, whether pruned or not; None where it was never held."""
    row = connection.execute(
        "SELECT vid, kind, identifier, signer, token, digest, raw IS NOT NULL FROM versions WHERE vid = ?", (vid,)
    ).fetchone()
    return None if row is None else ChainRecord(row[0], row[1], row[2], row[3], row[4], row[5], whole=bool(row[6]))


def root(connection: sqlite3.Connection, mesh: str) -> bytes | None:
    """The bytes of the first PersonalProfile, which opens an account."""
    row = connection.execute(
        "SELECT raw FROM versions WHERE kind = 1 AND identifier = ? AND signer = ? AND gen = 1 AND state = 1"
        " AND raw IS NOT NULL ORDER BY seq LIMIT 1",
        (mesh, mesh),
    ).fetchone()
    return None if row is None else row[0]


def put_answer(connection: sqlite3.Connection, account: str, device: str, answer: str) -> None:
    """Keep a signed answer (JSON) until the portal has it."""
    connection.execute("INSERT OR REPLACE INTO portal_answers VALUES (?, ?, ?)", (account, device, answer))


def answers(connection: sqlite3.Connection, account: str) -> list[tuple[str, str]]:
    """(device, answer) of those that the portal has not got yet."""
    sql = "SELECT device, answer FROM portal_answers WHERE account = ? ORDER BY device"
    return [(row[0], row[1]) for row in connection.execute(sql, (account,)).fetchall()]


def answered(connection: sqlite3.Connection, account: str, device: str) -> None:
    connection.execute("DELETE FROM portal_answers WHERE account = ? AND device = ?", (account, device))


def _to_publish(row: tuple[int, bytes, int, str, str, int, int, int]) -> ToPublish:
    return ToPublish(*row[:6], State(row[6]), row[7])


def _portal(row: tuple[str, str, int, str, str, str, bytes | None, int, int]) -> PortalRow:
    account, address, plain, item, moved_to, page_key, store_id, at, last = row
    return PortalRow(account, address, bool(plain), item, moved_to, page_key, store_id, at, last)
