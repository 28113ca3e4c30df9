"""What this store holds a portal's log to: the newest checkpoint believed, what speaks against the portal, receipts.

A pin moves only forward, in the transaction that takes in what came with the checkpoint, and never while it is frozen.
Receipts stay here: each device keeps those of what it published itself, and any other can ask the portal again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from meshd.store.db import get_meta, set_meta, store_errors

_INTRUSION = "intrusion "  # meta: and an account
_PIN = "account, origin, keys, size, root, note, time, fresh, suspect, why, owes, frozen, evidence"


@dataclass(frozen=True, slots=True)
class PinRow:
    """How far a portal's log was believed. Times in ms since 1970, 0 for never."""

    account: str
    origin: str
    keys: tuple[str, ...]
    size: int
    root: bytes
    note: str
    time: int
    fresh: int = 0
    suspect: int = 0
    why: str = ""
    owes: bool = False
    frozen: int = 0
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a portal proved of a version: the leaf's index, and the proof as it gave it."""

    vid: bytes
    place: int
    proof: str


def get(connection: sqlite3.Connection, account: str) -> PinRow | None:
    """The pin; None where nothing was believed yet."""
    found = shown(connection, account)
    return found if found is not None and found.note else None


def shown(connection: sqlite3.Connection, account: str) -> PinRow | None:
    """The same with one that says only why nothing was believed yet: its note is empty."""
    with store_errors():
        row = connection.execute(f"SELECT {_PIN} FROM portal_pins WHERE account = ?", (account,)).fetchone()  # noqa: S608
    return None if row is None else _pin(row)


def every(connection: sqlite3.Connection) -> list[PinRow]:
    """All pins, by account."""
    return [pin for pin in every_shown(connection) if pin.note]


def every_shown(connection: sqlite3.Connection) -> list[PinRow]:
    """As `shown`, of all accounts."""
    with store_errors():
        rows = connection.execute(f"SELECT {_PIN} FROM portal_pins ORDER BY account").fetchall()  # noqa: S608
    return [_pin(row) for row in rows]


def advance(connection: sqlite3.Connection, pin: PinRow) -> bool:
    """Believe this checkpoint from now on; what it mends is forgotten. False, and nothing, where another task got
    further meanwhile or the pin was frozen."""
    cursor = connection.execute(
        f"INSERT INTO portal_pins ({_PIN}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, '', 0, 0, '')"  # noqa: S608
        " ON CONFLICT (account) DO UPDATE SET origin = excluded.origin, keys = excluded.keys, size = excluded.size,"
        " root = excluded.root, note = excluded.note, time = excluded.time, fresh = excluded.fresh,"
        " suspect = suspect * owes, why = CASE owes WHEN 0 THEN '' ELSE why END"
        " WHERE note = '' OR (frozen = 0 AND origin = excluded.origin AND size <= excluded.size)",
        (
            pin.account,
            pin.origin,
            "\n".join(pin.keys),
            pin.size,
            pin.root,
            pin.note,
            pin.time,
            pin.fresh,
        ),
    )
    return cursor.rowcount > 0


def suspect(connection: sqlite3.Connection, account: str, why: str, now_ms: int, *, owes: bool = False) -> bool:
    """It does not prove what it owes; the pin stays. `owes`: more than that it only grew. True if new."""
    before = shown(connection, account)
    connection.execute(
        f"INSERT OR IGNORE INTO portal_pins ({_PIN}) VALUES (?, '', '', 0, x'', '', ?, 0, 0, '', 0, 0, '')",  # noqa: S608
        (account, now_ms),
    )
    connection.execute(
        "UPDATE portal_pins SET suspect = CASE suspect WHEN 0 THEN ? ELSE suspect END, why = ?, owes = max(owes, ?)"
        " WHERE account = ?",
        (now_ms, why, int(owes), account),
    )
    return before is None or not before.suspect


def clear(connection: sqlite3.Connection, account: str) -> None:
    """Everything that it owed was proved after all."""
    connection.execute("UPDATE portal_pins SET suspect = 0, why = '', owes = 0 WHERE account = ?", (account,))


def intrude(connection: sqlite3.Connection, account: str, why: str, now_ms: int) -> bool:
    """Somebody else wrote there in the name of this mesh; "": nobody did. True if new."""
    held = get_meta(connection, _INTRUSION + account)
    if bool(held) == bool(why):
        return False
    set_meta(connection, _INTRUSION + account, f"{now_ms} {why}".encode() if why else b"")
    return bool(why)


def intrusion(connection: sqlite3.Connection, account: str) -> tuple[int, str] | None:
    """Since when (ms since 1970) and what, if there was one."""
    with store_errors():
        held = get_meta(connection, _INTRUSION + account)
    time, _, why = (held or b"").decode().partition(" ")
    return (int(time), why) if time else None


def freeze(connection: sqlite3.Connection, account: str, evidence: str, now_ms: int) -> bool:
    """It contradicted itself: nothing of it is believed until a person decides. True where that is new; the first
    evidence stays."""
    cursor = connection.execute(
        "UPDATE portal_pins SET frozen = ?, evidence = ? WHERE account = ? AND frozen = 0", (now_ms, evidence, account)
    )
    return cursor.rowcount > 0


def forget(connection: sqlite3.Connection, account: str) -> None:
    """A person decided: what comes next is a first contact again. Receipts go with the log that they were of."""
    pin = get(connection, account)
    if pin is not None:
        connection.execute("DELETE FROM portal_heard WHERE origin = ?", (pin.origin,))
    intrude(connection, account, "", 0)
    connection.execute("DELETE FROM portal_pins WHERE account = ?", (account,))
    connection.execute("DELETE FROM portal_receipts WHERE account = ?", (account,))


def put_receipts(connection: sqlite3.Connection, account: str, receipts: Iterable[Receipt]) -> None:
    """Keep them; an earlier one of the same version stays."""
    connection.executemany(
        "INSERT OR IGNORE INTO portal_receipts VALUES (?, ?, ?, ?)",
        [(account, one.vid, one.place, one.proof) for one in receipts],
    )


def receipt(connection: sqlite3.Connection, account: str, vid: bytes) -> Receipt | None:
    with store_errors():
        row = connection.execute(
            "SELECT vid, place, proof FROM portal_receipts WHERE account = ? AND vid = ?", (account, vid)
        ).fetchone()
    return None if row is None else Receipt(*row)


def last_receipt(connection: sqlite3.Connection, account: str) -> Receipt | None:
    """That of the newest leaf."""
    with store_errors():
        row = connection.execute(
            "SELECT vid, place, proof FROM portal_receipts WHERE account = ? ORDER BY place DESC LIMIT 1", (account,)
        ).fetchone()
    return None if row is None else Receipt(*row)


def receipts(connection: sqlite3.Connection, account: str) -> list[Receipt]:
    """All of an account, by index."""
    with store_errors():
        rows = connection.execute(
            "SELECT vid, place, proof FROM portal_receipts WHERE account = ? ORDER BY place", (account,)
        ).fetchall()
    return [Receipt(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class Heard:
    """A checkpoint that another device of the mesh believes. `agreed`: ms since 1970, 0 where it is not known yet."""

    origin: str
    device: str
    note: str
    agreed: int = 0


def hear(connection: sqlite3.Connection, origin: str, device: str, note: str) -> bool:
    """Keep what a sibling showed, in place of what it showed before. False where it is the same."""
    cursor = connection.execute(
        "INSERT INTO portal_heard (origin, device, note) VALUES (?, ?, ?) ON CONFLICT (origin, device) DO UPDATE SET"
        " note = excluded.note, agreed = 0 WHERE note <> excluded.note",
        (origin, device, note),
    )
    return cursor.rowcount > 0


def heard(connection: sqlite3.Connection, origin: str) -> list[Heard]:
    """What the siblings have shown of this log, by device."""
    with store_errors():
        rows = connection.execute(
            "SELECT origin, device, note, agreed FROM portal_heard WHERE origin = ? ORDER BY device", (origin,)
        ).fetchall()
    return [Heard(*row) for row in rows]


def agree(connection: sqlite3.Connection, one: Heard, now_ms: int) -> None:
    """It was proved that this checkpoint and the pin are of one tree."""
    connection.execute(
        "UPDATE portal_heard SET agreed = ? WHERE origin = ? AND device = ? AND note = ?",
        (now_ms, one.origin, one.device, one.note),
    )


def _pin(row: tuple[Any, ...]) -> PinRow:
    account, origin, keys, size, root, note, time, fresh, since, why, owes, frozen, evidence = row
    held = tuple(keys.split("\n"))
    return PinRow(account, origin, held, size, root, note, time, fresh, since, why, bool(owes), frozen, evidence)
