"""The rows of a portal's store: one small function for each question and each change. No judgement is made here.

Everything takes a connection and runs inside the caller's transaction. A row of `versions` comes out as a `Row`; who
asks, and what may be stored, is decided above.
"""

# ruff: noqa: S608 - what is put into the texts of queries are names of columns and tables that stand here

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from meshd.profile import links
from meshd.profile.claim import Claim, Kind, State

_ROW = (
    "v.seq, v.vid, v.kind, v.identifier, m.udf, v.signer, v.n, v.gen, v.added, v.state, v.old, v.prior,"
    " v.token, v.digest, v.raw"
)
_FROM = "versions v LEFT JOIN meshes m ON m.id = v.mesh"


@dataclass(frozen=True, slots=True)
class Row:
    """A stored version. `mesh` is empty for what nobody owns, `raw` None for what was erased."""

    seq: int
    vid: bytes
    kind: int
    identifier: str
    mesh: str
    signer: str
    n: int
    gen: int
    added: int
    state: int
    old: bool
    prior: int | None
    token: str = field(repr=False)
    digest: bytes = field(repr=False)
    raw: bytes | None = field(repr=False)


class Brief(NamedTuple):
    """What is kept of everything that was ever stored."""

    kind: int
    identifier: str
    gen: int
    signer: str
    n: int


@dataclass(frozen=True, slots=True)
class Put:
    """A version to store. `parents` retire if `state` is applied."""

    vid: bytes
    kind: int
    identifier: str
    signer: str
    n: int
    gen: int
    token: str = field(repr=False)
    digest: bytes = field(repr=False)
    raw: bytes = field(repr=False)
    parents: tuple[bytes, ...] = ()
    old: bool = False


def _row(found: tuple[object, ...]) -> Row:
    seq, vid, kind, identifier, mesh, signer, n, gen, added, state, old, prior, token, digest, raw = found
    return Row(
        seq, vid, kind, identifier, mesh or "", signer, n, gen, added, state, bool(old), prior, token, digest, raw  # type: ignore[arg-type]
    )  # fmt: skip


# --- meshes and accounts ----------------------------------------------------------------------------------------------


def mesh_id(connection: sqlite3.Connection, udf: str) -> int | None:
    row = connection.execute("SELECT id FROM meshes WHERE udf = ?", (udf,)).fetchone()
    return None if row is None else int(row[0])


def make_mesh(connection: sqlite3.Connection, udf: str) -> int:
    """The number of a mesh, given to it when it is first seen."""
    found = mesh_id(connection, udf)
    if found is None:
        cursor = connection.execute("INSERT INTO meshes (udf) VALUES (?)", (udf,))
        assert cursor.lastrowid is not None
        found = cursor.lastrowid
    return found


def account(
    connection: sqlite3.Connection, *, name: str = "", mesh: str = ""
) -> tuple[str, str, int, str, int, int, str] | None:
    """(name, mesh, created, status, old, compat, opener) of the account of this name, or of this mesh."""
    where, value = ("a.name = ?", name) if name else ("m.udf = ?", mesh)
    found: tuple[str, str, int, str, int, int, str] | None = connection.execute(
        "SELECT a.name, m.udf, a.created, a.status, a.old, a.compat, a.opener"
        f" FROM accounts a JOIN meshes m ON m.id = a.mesh WHERE {where} ORDER BY a.status = 'Closed' LIMIT 1",
        (value,),
    ).fetchone()
    return found


def usage(connection: sqlite3.Connection, mesh: str) -> tuple[int, int, int, int, int]:
    """(bytes, entries, quarantined bytes, quarantined entries, escrow entries)."""
    found = connection.execute(
        "SELECT bytes, entries, quarantined_bytes, quarantined, escrow FROM meshes WHERE udf = ?", (mesh,)
    ).fetchone()
    return found or (0, 0, 0, 0, 0)


# --- versions, read ---------------------------------------------------------------------------------------------------


def version(connection: sqlite3.Connection, vid: bytes) -> Row | None:
    found = connection.execute(f"SELECT {_ROW} FROM {_FROM} WHERE v.vid = ?", (vid,)).fetchone()
    return None if found is None else _row(found)


def part(connection: sqlite3.Connection, vid: bytes) -> tuple[int, str, str, int, bytes, int] | None:
    """(kind, identifier, mesh, gen, raw, added) of a master or device profile."""
    found: tuple[int, str, str, int, bytes, int] | None = connection.execute(
        "SELECT p.kind, p.identifier, m.udf, p.gen, p.raw, p.added FROM parts p JOIN meshes m ON m.id = p.mesh"
        " WHERE p.vid = ?",
        (vid,),
    ).fetchone()
    return found


def brief(connection: sqlite3.Connection, vid: bytes) -> Brief | None:
    """Of a version, part or row."""
    for table in ("versions", "parts", "rows"):
        found = connection.execute(
            f"SELECT kind, identifier, gen, signer, n FROM {table} WHERE vid = ?", (vid,)
        ).fetchone()
        if found is not None:
            return Brief(*found)
    return None


def is_row(connection: sqlite3.Connection, vid: bytes) -> bool:
    """Is all that is held of a version the row of a pruned one?"""
    return connection.execute("SELECT 1 FROM rows WHERE vid = ?", (vid,)).fetchone() is not None


def heads(connection: sqlite3.Connection, identifier: str) -> list[Row]:
    """The heads of all entries of this Identifier, of whatever kind."""
    found = connection.execute(
        f"SELECT {_ROW} FROM {_FROM} WHERE v.identifier = ? AND v.head = 1", (identifier,)
    ).fetchall()
    return [_row(one) for one in found]


def head(connection: sqlite3.Connection, kind: int, identifier: str) -> Row | None:
    """The one head of an entry that has no more than one."""
    found = [one for one in heads(connection, identifier) if one.kind == kind]
    return found[-1] if found else None


def owner(connection: sqlite3.Connection, kind: int, identifier: str) -> str | None:
    found = connection.execute(
        "SELECT m.udf FROM versions v JOIN meshes m ON m.id = v.mesh WHERE v.identifier = ? AND v.kind = ? LIMIT 1",
        (identifier, kind),
    ).fetchone()
    return None if found is None else str(found[0])


def feed(connection: sqlite3.Connection, mesh: str, after: int, limit: int, *, profiles: bool = False) -> list[Row]:
    """What a mesh has behind a place in the log; `profiles`: only its personal profiles, which have an index."""
    number = mesh_id(connection, mesh)
    if number is None:
        return []
    which = "v.mesh = ? AND v.kind = 1" if profiles else "v.mesh = ?"
    found = connection.execute(
        f"SELECT {_ROW} FROM {_FROM} WHERE {which} AND v.seq > ? ORDER BY v.seq LIMIT ?", (number, after, limit)
    ).fetchall()
    return [_row(one) for one in found]


def log(connection: sqlite3.Connection, after: int, limit: int) -> list[Row]:
    found = connection.execute(
        f"SELECT {_ROW} FROM {_FROM} WHERE v.seq > ? ORDER BY v.seq LIMIT ?", (after, limit)
    ).fetchall()
    return [_row(one) for one in found]


def place_at(connection: sqlite3.Connection, seconds: int) -> int:
    """The last place whose version was added before this time. Times never go back: a search by halves."""
    low, high = 0, last_place(connection)
    while low < high:
        middle = (low + high + 1) // 2
        found = connection.execute("SELECT added FROM versions WHERE seq = ?", (middle,)).fetchone()
        if found is not None and found[0] < seconds:
            low = middle
        else:
            high = middle - 1
    return low


def last_place(connection: sqlite3.Connection) -> int:
    found = connection.execute("SELECT max(seq) FROM versions").fetchone()
    return int(found[0] or 0)


def last_added(connection: sqlite3.Connection) -> int:
    found = connection.execute("SELECT added FROM versions ORDER BY seq DESC LIMIT 1").fetchone()
    return 0 if found is None else int(found[0])


def unowned(connection: sqlite3.Connection) -> int:
    (count,) = connection.execute("SELECT count(*) FROM versions WHERE mesh IS NULL AND kind <> 0").fetchone()
    return int(count)


def chain(connection: sqlite3.Connection, signer: str) -> Iterable[tuple[bytes, tuple[bytes, ...]]]:
    """(vid, q) of everything known of a signer, in whatever state; what he wrote for other meshes, too."""
    for table in ("versions", "parts", "rows"):
        for vid, token in connection.execute(
            f"SELECT vid, token FROM {table} WHERE signer = ? AND n > 0", (signer,)
        ).fetchall():
            yield bytes(vid), links.parse(token).q


def profiles(
    connection: sqlite3.Connection, mesh: str, after_part: int, after: int
) -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
    """(place, bytes) of the master profiles and of the personal profiles of a mesh, behind these places."""
    number = mesh_id(connection, mesh)
    if number is None:
        return [], []
    masters = connection.execute(
        "SELECT seq, raw FROM parts WHERE mesh = ? AND kind = ? AND seq > ? ORDER BY seq",
        (number, int(Kind.MASTER), after_part),
    ).fetchall()
    personal = connection.execute(
        "SELECT seq, raw FROM versions WHERE mesh = ? AND kind = 1 AND old = 0 AND seq > ? ORDER BY seq",
        (number, after),
    ).fetchall()
    return masters, personal


class Judged(NamedTuple):
    """What is needed to judge a stored version again."""

    seq: int
    state: State
    size: int
    claim: Claim


def to_judge(
    connection: sqlite3.Connection, mesh: int, *, signer: str = "", vids: Sequence[bytes] = (), pending: bool = False
) -> list[Judged]:
    """Versions of a mesh: those of a signer, or those named, or those that wait, or all of them."""
    base = (
        "SELECT seq, vid, kind, identifier, signer, token, state, length(raw) FROM versions WHERE mesh = ? AND old = 0"
    )
    if vids:
        found = []
        for vid in vids:
            found += connection.execute(f"{base} AND vid = ?", (mesh, vid)).fetchall()
    elif signer:
        found = connection.execute(f"{base} AND signer = ?", (mesh, signer)).fetchall()
    elif pending:
        found = connection.execute(f"{base} AND state = 2", (mesh,)).fetchall()
    else:
        found = connection.execute(f"{base} AND kind <> 1", (mesh,)).fetchall()
    return [
        Judged(seq, State(state), size or 0, _claim(vid, kind, identifier, by, token))
        for seq, vid, kind, identifier, by, token, state, size in found
    ]


def _claim(vid: bytes, kind: int, identifier: str, signer: str, token: str) -> Claim:
    linked = links.parse(token) if token else links.Links(g=1)
    return Claim(bytes(vid), Kind(kind), identifier, signer, linked)


# --- versions, written ------------------------------------------------------------------------------------------------


def put(connection: sqlite3.Connection, mesh: int | None, one: Put, state: State, added: int) -> int:
    """Store a version at the next place of the log; returns that."""
    applied = state is State.APPLIED
    escrow = one.kind in (Kind.OFFLINE_ESCROW, Kind.ONLINE_ESCROW)
    prior = None
    if one.parents:
        found = connection.execute("SELECT seq FROM versions WHERE vid = ?", (one.parents[0],)).fetchone()
        prior = None if found is None else found[0]
    cursor = connection.execute(
        "INSERT INTO versions (vid, kind, identifier, mesh, signer, n, gen, added, state, head, old, prior, token,"
        " digest, raw) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            one.vid, one.kind, one.identifier, mesh, one.signer, one.n, one.gen, added, int(state),
            int(applied or escrow), int(one.old), prior, one.token, one.digest, one.raw,
        ),
    )  # fmt: skip
    if applied and not one.old:
        connection.executemany(
            "UPDATE versions SET head = 0 WHERE vid = ? AND head = 1", [(vid,) for vid in one.parents]
        )
    if mesh is not None:
        away = state is State.QUARANTINED
        size = len(one.raw)
        count(connection, mesh, size=size, entries=1, away=size * away, away_entries=int(away), escrow=int(escrow))
    place = cursor.lastrowid
    assert place is not None
    return place


def put_erased(
    connection: sqlite3.Connection, mesh: int | None, one: Put, state: State, added: int, prior: int | None
) -> int:
    """Take the next place of the log for a version whose content is gone: it replaces others, and is no head."""
    place = put(connection, mesh, one, state, added)
    connection.execute("UPDATE versions SET head = 0, prior = ? WHERE seq = ?", (prior, place))
    if mesh is not None:
        escrow = one.kind in (Kind.OFFLINE_ESCROW, Kind.ONLINE_ESCROW)
        count(connection, mesh, entries=-1, escrow=-int(escrow))
    return place


def erase_escrow(connection: sqlite3.Connection, mesh: int, listed: Collection[bytes]) -> None:
    """Delete the content of a mesh's offline escrow entries that counted once and are not among `listed`: whoever has
    their shares would still open them. Their places in the log stay."""
    found = connection.execute(
        "SELECT vid, length(raw) FROM versions WHERE mesh = ? AND kind = 5 AND state = 1 AND old = 0"
        " AND length(raw) > 0",
        (mesh,),
    ).fetchall()
    for vid, size in found:
        if bytes(vid) not in listed:
            connection.execute("UPDATE versions SET raw = x'', head = 0 WHERE vid = ?", (vid,))
            count(connection, mesh, size=-size, entries=-1, escrow=-1)


def replace_head(connection: sqlite3.Connection, kind: int, identifier: str) -> int | None:
    """A document of 2016 takes the place of what was there; returns the place of that."""
    found = connection.execute(
        "SELECT seq FROM versions WHERE identifier = ? AND kind = ? AND head = 1", (identifier, kind)
    ).fetchone()
    if found is None:
        return None
    connection.execute("UPDATE versions SET head = 0 WHERE seq = ?", (found[0],))
    return int(found[0])


def set_prior(connection: sqlite3.Connection, place: int, prior: int) -> None:
    connection.execute("UPDATE versions SET prior = ? WHERE seq = ?", (prior, place))


def count(
    connection: sqlite3.Connection, mesh: int, *, size: int = 0, entries: int = 0, away: int = 0, away_entries: int = 0,
    escrow: int = 0,
) -> None:  # fmt: skip
    """Add to what a mesh uses."""
    connection.execute(
        "UPDATE meshes SET bytes = bytes + ?, entries = entries + ?, quarantined_bytes = quarantined_bytes + ?,"
        " quarantined = quarantined + ?, escrow = escrow + ? WHERE id = ?",
        (size, entries, away, away_entries, escrow, mesh),
    )


def put_part(connection: sqlite3.Connection, mesh: int, one: Put, added: int) -> int:
    """Store a master or device profile; returns its place among the parts."""
    cursor = connection.execute(
        "INSERT INTO parts (vid, kind, identifier, mesh, signer, n, gen, added, token, raw)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (one.vid, one.kind, one.identifier, mesh, one.signer, one.n, one.gen, added, one.token, one.raw),
    )
    count(connection, mesh, size=len(one.raw), entries=1)
    place = cursor.lastrowid
    assert place is not None
    return place


def put_row(connection: sqlite3.Connection, mesh: int, one: Put) -> None:
    connection.execute(
        "INSERT OR IGNORE INTO rows (vid, kind, identifier, mesh, signer, n, gen, token, digest)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (one.vid, one.kind, one.identifier, mesh, one.signer, one.n, one.gen, one.token, one.digest),
    )
    count(connection, mesh, size=len(one.token) + 96)


def set_state(connection: sqlite3.Connection, mesh: int, one: Judged, state: State) -> None:
    """A version was judged otherwise than before. The heads of its entry are to be found anew."""
    connection.execute("UPDATE versions SET state = ? WHERE seq = ?", (int(state), one.seq))
    away = int(state is State.QUARANTINED) - int(one.state is State.QUARANTINED)
    if away:
        count(connection, mesh, away=away * one.size, away_entries=away)


def find_heads(connection: sqlite3.Connection, kind: int, identifier: str) -> None:
    """The heads of an entry by its applied versions: those that none of these names as a parent."""
    found = connection.execute(
        "SELECT seq, vid, state, token, head FROM versions WHERE identifier = ? AND kind = ? AND old = 0",
        (identifier, kind),
    ).fetchall()
    named: set[bytes] = set()
    for _, _, state, token, _ in found:
        if state == State.APPLIED and token:
            named.update(links.parse(token).p)
    for seq, vid, state, _, head in found:
        due = int(state == State.APPLIED and bytes(vid) not in named)
        if due != head:
            connection.execute("UPDATE versions SET head = ? WHERE seq = ?", (due, seq))


# --- what passes ------------------------------------------------------------------------------------------------------


def notices(connection: sqlite3.Connection, mesh: str, after: int, limit: int) -> list[tuple[int, int, str, str]]:
    """(number, time, what, about), oldest first."""
    return connection.execute(
        "SELECT id, time, what, about FROM notices WHERE id > ? AND mesh = ? ORDER BY id LIMIT ?", (after, mesh, limit)
    ).fetchall()


def last_notice(connection: sqlite3.Connection) -> int:
    found = connection.execute("SELECT max(id) FROM notices").fetchone()
    return int(found[0] or 0)


def sweep(connection: sqlite3.Connection, now: int, *, answers_before: int, notices: int) -> None:
    """Forget what has expired."""
    connection.execute("DELETE FROM reservations WHERE until <= ?", (now,))
    connection.execute("DELETE FROM invites WHERE expires <= ?", (now,))
    connection.execute("DELETE FROM held WHERE until <= ?", (now,))
    connection.execute("DELETE FROM pending WHERE expires <= ?", (now,))
    connection.execute("DELETE FROM answers WHERE given < ?", (answers_before,))
    connection.execute("DELETE FROM notices WHERE id <= (SELECT max(id) FROM notices) - ?", (notices,))
