"""Each signer's chain: its tips, its holes, its forks, and when this device heals its own (formats.md F1).

A device's writes are one hash chain. Two versions with one `n` are a fork: a store restored from a backup, a cloned home, or a
stolen key. A device heals — names both tips in `q` — only branches that it noticed after a restore, before it wrote on, and
once per store-id. Anything else stays visible as evidence.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from meshd.errors import FormatError
from meshd.profile.claim import Claim
from meshd.store import peers, versions
from meshd.store.db import get_meta, set_meta

_ALLOWED = "heal_allowed"  # meta: the store-id under which one healing write may be made
_HEALED = "healed"  # meta: the store-id under which it was made
_LAST = "last_own"  # meta: the version that this store wrote last


@dataclass(frozen=True, slots=True)
class Extended:
    holes: frozenset[bytes]  # predecessors that have not come
    forks: bool  # another version of this signer has the same n


@dataclass(frozen=True, slots=True)
class Next:
    """The chain links of a device's next version."""

    tips: tuple[bytes, ...]
    n: int


def check_count(connection: sqlite3.Connection, claim: Claim) -> None:
    """n = 1 + max over q, as far as q is known; FormatError. Counts decide nothing, but a wrong one is malformed."""
    top = 0
    for vid in claim.links.q:
        row = versions.get(connection, vid)
        if row is None:
            return
        if row.signer != claim.signer:
            raise FormatError("a version that follows one of another signer in its chain")
        top = max(top, row.n)
    if claim.links.n != top + 1:
        raise FormatError("a version whose place in its author's chain is not one after its predecessor's")


def extend(connection: sqlite3.Connection, claim: Claim, *, fills: bool) -> Extended:
    """Put a stored version on its signer's chain. `fills`: some version that came before names it in `q`."""
    signer, n = claim.signer, claim.links.n
    holes = set()
    for vid in claim.links.q:
        connection.execute("DELETE FROM tips WHERE signer = ? AND vid = ?", (signer, vid))
        if connection.execute("SELECT 1 FROM versions WHERE vid = ?", (vid,)).fetchone() is None:
            connection.execute("INSERT OR IGNORE INTO holes VALUES (?, ?)", (vid, claim.vid))
            holes.add(vid)
    if fills:
        connection.execute("DELETE FROM holes WHERE need = ?", (claim.vid,))
    else:
        connection.execute("INSERT OR IGNORE INTO tips VALUES (?, ?)", (signer, claim.vid))
    others = connection.execute(
        "SELECT vid FROM versions WHERE signer = ? AND n = ? AND vid <> ?", (signer, n, claim.vid)
    ).fetchall()
    for (other,) in others:
        first, second = sorted((bytes(other), claim.vid))
        connection.execute("INSERT OR IGNORE INTO forks VALUES (?, ?, ?, ?)", (signer, n, first, second))
    return Extended(frozenset(holes), bool(others))


def tips(connection: sqlite3.Connection, signer: str) -> tuple[bytes, ...]:
    """The versions of a signer that none of his versions follows: what a cut names, and what the next write follows."""
    return tuple(
        sorted(row[0] for row in connection.execute("SELECT vid FROM tips WHERE signer = ?", (signer,)).fetchall())
    )


def for_next_write(connection: sqlite3.Connection, own: str) -> Next:
    """q and n of the next version that `own` signs. Names a foreign branch of ours only when it may be healed."""
    rows = [row for vid in tips(connection, own) if (row := versions.get(connection, vid)) is not None]
    if not rows:
        return Next((), 1)
    store_id = get_meta(connection, "store_id")
    if len(rows) > 1 and get_meta(connection, _ALLOWED) == store_id and get_meta(connection, _HEALED) != store_id:
        set_meta(connection, _HEALED, store_id or b"")
    elif len(rows) > 1:
        # Not ours to join: go on from what this store wrote last, or where that is unknown from what it held first.
        last = versions.get(connection, get_meta(connection, _LAST) or b"")
        rows = [last if last is not None else min(rows, key=lambda row: row.seq)]
    return Next(tuple(sorted(row.vid for row in rows)), 1 + max(row.n for row in rows))


def wrote(connection: sqlite3.Connection, vid: bytes) -> None:
    """Remember the version that this store wrote last: the end of its own branch."""
    set_meta(connection, _LAST, vid)


def noticed_restore(connection: sqlite3.Connection, rng: Callable[[int], bytes]) -> bool:
    """Versions of our own came from outside: this store is a restored backup (or a clone runs). Begin a new store-id, under
    which one healing write is allowed. False when this store-id was begun for that and has healed already: then it is no
    restore but a second writer with our key."""
    store_id = get_meta(connection, "store_id")
    if get_meta(connection, _ALLOWED) == store_id:
        return get_meta(connection, _HEALED) != store_id
    fresh = renumber(connection, rng)
    set_meta(connection, _ALLOWED, fresh)
    return True


def renumber(connection: sqlite3.Connection, rng: Callable[[int], bytes]) -> bytes:
    """A new store-id: what siblings acknowledged under the old one is void (formats.md F8)."""
    fresh = rng(8)
    set_meta(connection, "store_id", fresh)
    peers.forget_acks(connection)
    return fresh


def unhealed_forks(connection: sqlite3.Connection) -> list[tuple[str, int, bytes, bytes]]:
    """Forks whose branches no later version of the signer joins: the evidence of a clone or a stolen key."""
    rows = connection.execute(
        "SELECT f.signer, min(f.n), f.first, f.second FROM forks f"
        " WHERE (SELECT count(*) FROM tips t WHERE t.signer = f.signer) > 1 GROUP BY f.signer"
    )
    return [(row[0], row[1], row[2], row[3]) for row in rows.fetchall()]
