"""The rows of a portal's log: leaves, the nodes above them, checkpoints, keys, and what is known of other logs.

As in `portal_rows`, each function is one question or one change inside the caller's transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

MOST_PROOFS = 1000  # steps that are kept of each peer


class Leaf(NamedTuple):
    salt: bytes
    leaf: bytes


class Checkpoint(NamedTuple):
    """`note` is None until it is signed, and then until the commit after that."""

    size: int
    root: bytes
    time: int
    note: str | None


@dataclass(frozen=True, slots=True)
class Key:
    """A key of this portal. `until`: it was replaced, and signs beside the new one until then (UTC seconds)."""

    vkey: str
    role: str
    secret: bytes = field(repr=False)
    created: int
    until: int | None


@dataclass(frozen=True, slots=True)
class Peer:
    """Another portal or a witness; see the table."""

    origin: str
    url: str
    log_keys: tuple[str, ...]
    witness_keys: tuple[str, ...]
    state: str = "Unreachable"
    size: int = 0
    root: bytes | None = None
    note: str | None = None
    seen: int = 0
    evidence: str | None = None


# --- the tree ---------------------------------------------------------------------------------------------------------


def put_leaf(connection: sqlite3.Connection, place: int, salt: bytes, leaf: bytes) -> None:
    connection.execute("INSERT INTO leaves VALUES (?, ?, ?)", (place, salt, leaf))


def leaf(connection: sqlite3.Connection, place: int) -> Leaf | None:
    found = connection.execute("SELECT salt, leaf FROM leaves WHERE place = ?", (place,)).fetchone()
    return None if found is None else Leaf(*found)


def leaves_after(connection: sqlite3.Connection, place: int, limit: int = -1) -> list[tuple[int, bytes]]:
    """(place, leaf) behind this place, in order; all of them by default."""
    return connection.execute(
        "SELECT place, leaf FROM leaves WHERE place > ? ORDER BY place LIMIT ?", (place, limit)
    ).fetchall()


def last_leaf(connection: sqlite3.Connection) -> int:
    found = connection.execute("SELECT max(place) FROM leaves").fetchone()
    return int(found[0] or 0)


def put_nodes(connection: sqlite3.Connection, nodes: Iterable[tuple[int, int, bytes]]) -> None:
    connection.executemany("INSERT INTO nodes VALUES (?, ?, ?)", nodes)


def node(connection: sqlite3.Connection, level: int, number: int) -> bytes | None:
    found = connection.execute("SELECT hash FROM nodes WHERE level = ? AND number = ?", (level, number)).fetchone()
    return None if found is None else bytes(found[0])


# --- checkpoints ------------------------------------------------------------------------------------------------------


def last_checkpoint(connection: sqlite3.Connection) -> Checkpoint | None:
    found = connection.execute("SELECT size, root, time, note FROM checkpoints ORDER BY size DESC LIMIT 1").fetchone()
    return None if found is None else Checkpoint(*found)


def checkpoint(connection: sqlite3.Connection, size: int) -> Checkpoint | None:
    found = connection.execute("SELECT size, root, time, note FROM checkpoints WHERE size = ?", (size,)).fetchone()
    return None if found is None else Checkpoint(*found)


def last_noted(connection: sqlite3.Connection) -> Checkpoint | None:
    """The largest one whose note is kept."""
    found = connection.execute(
        "SELECT size, root, time, note FROM checkpoints WHERE note IS NOT NULL ORDER BY size DESC LIMIT 1"
    ).fetchone()
    return None if found is None else Checkpoint(*found)


def put_checkpoint(connection: sqlite3.Connection, size: int, root: bytes, time: int) -> None:
    """Unsigned. Fails if there is one of this size."""
    connection.execute("INSERT INTO checkpoints (size, root, time) VALUES (?, ?, ?)", (size, root, time))


def set_note(connection: sqlite3.Connection, size: int, note: str) -> None:
    connection.execute("UPDATE checkpoints SET note = ? WHERE size = ?", (note, size))


# --- keys -------------------------------------------------------------------------------------------------------------


def keys(connection: sqlite3.Connection, role: str, now: int) -> list[Key]:
    """The keys that sign now, the newest first."""
    found = connection.execute(
        "SELECT vkey, role, secret, created, until FROM log_keys WHERE role = ? AND (until IS NULL OR until > ?)"
        " ORDER BY until IS NOT NULL, created DESC, vkey",
        (role, now),
    ).fetchall()
    return [Key(*one) for one in found]


def put_key(connection: sqlite3.Connection, key: Key) -> None:
    connection.execute(
        "INSERT INTO log_keys VALUES (?, ?, ?, ?, ?)", (key.vkey, key.role, key.secret, key.created, key.until)
    )


def retire_keys(connection: sqlite3.Connection, role: str, until: int) -> None:
    """Those that are not yet replaced sign until then."""
    connection.execute("UPDATE log_keys SET until = ? WHERE role = ? AND until IS NULL", (until, role))


# --- other logs -------------------------------------------------------------------------------------------------------

_PEER = "origin, url, log_keys, witness_keys, state, size, root, note, seen, evidence"


def _peer(found: Sequence[object]) -> Peer:
    origin, url, log_keys, witness_keys, *rest = found
    return Peer(str(origin), str(url), tuple(str(log_keys).split()), tuple(str(witness_keys).split()), *rest)  # type: ignore[arg-type]


def peers(connection: sqlite3.Connection) -> list[Peer]:
    return [_peer(one) for one in connection.execute(f"SELECT {_PEER} FROM log_peers ORDER BY origin").fetchall()]  # noqa: S608


def peer(connection: sqlite3.Connection, origin: str) -> Peer | None:
    found = connection.execute(f"SELECT {_PEER} FROM log_peers WHERE origin = ?", (origin,)).fetchone()  # noqa: S608
    return None if found is None else _peer(found)


def put_peer(
    connection: sqlite3.Connection, origin: str, url: str, log_keys: Sequence[str], witness_keys: Sequence[str]
) -> None:
    """Know a portal or witness, or know it otherwise; what was seen of it stays."""
    connection.execute(
        "INSERT INTO log_peers (origin, url, log_keys, witness_keys) VALUES (?, ?, ?, ?) ON CONFLICT (origin) DO UPDATE"
        " SET url = excluded.url, log_keys = excluded.log_keys, witness_keys = excluded.witness_keys",
        (origin, url, "\n".join(log_keys), "\n".join(witness_keys)),
    )


def drop_peer(connection: sqlite3.Connection, origin: str) -> bool:
    """Forget a peer; what was cosigned of its log stays forgotten too. False: it was not there."""
    connection.execute("DELETE FROM peer_proofs WHERE origin = ?", (origin,))
    return bool(connection.execute("DELETE FROM log_peers WHERE origin = ?", (origin,)).rowcount)


def saw(connection: sqlite3.Connection, origin: str, size: int, root: bytes, note: str, now: int) -> None:
    """A checkpoint of a peer was cosigned."""
    connection.execute(
        "UPDATE log_peers SET state = 'Consistent', size = ?, root = ?, note = ?, seen = ? WHERE origin = ?",
        (size, root, note, now, origin),
    )


def equivocated(connection: sqlite3.Connection, origin: str, evidence: str) -> None:
    connection.execute(
        "UPDATE log_peers SET state = 'Equivocated', evidence = ? WHERE origin = ? AND evidence IS NULL",
        (evidence, origin),
    )


def put_proof(connection: sqlite3.Connection, origin: str, before: int, size: int, hashes: Sequence[bytes]) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO peer_proofs (origin, size, before, hashes) VALUES (?, ?, ?, ?)",
        (origin, size, before, b"".join(hashes)),
    )
    connection.execute(
        "DELETE FROM peer_proofs WHERE origin = ?1 AND size <= (SELECT size FROM peer_proofs WHERE origin = ?1"
        " ORDER BY size DESC LIMIT 1 OFFSET ?2)",
        (origin, MOST_PROOFS),
    )


def proofs(connection: sqlite3.Connection, origin: str, after: int, limit: int) -> list[tuple[int, int, list[bytes]]]:
    """(from, to, hashes) of the last steps that lead beyond this size, in order; at most `limit`."""
    found = connection.execute(
        "SELECT before, size, hashes FROM peer_proofs WHERE origin = ? AND size > ? ORDER BY size LIMIT ?",
        (origin, after, limit),
    ).fetchall()
    return [(before, size, [held[at : at + 32] for at in range(0, len(held), 32)]) for before, size, held in found]
