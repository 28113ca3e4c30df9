"""The rows of versions: what the replica asks of SQLite, one small function each. No judgement is made here.

Everything takes a connection and runs inside the caller's transaction. Only `meshd.store.replica` calls what inserts or
changes a row; a test holds that.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from meshd.profile import links
from meshd.profile.claim import Claim, Kind, State
from meshd.profile.version import Parsed

_SELECT = "SELECT seq, vid, kind, identifier, signer, n, gen, updated, received, state, token FROM versions"


@dataclass(frozen=True, slots=True)
class Row:
    """A stored version without its bytes."""

    seq: int
    vid: bytes
    kind: int
    identifier: str
    signer: str
    n: int
    gen: int
    updated: int
    received: int  # ms, this device's own record of receipt
    state: State
    token: str

    @property
    def entry(self) -> tuple[int, str]:
        return self.kind, self.identifier

    def claim(self) -> Claim:
        """The claim of a container or item row: enough for `may_write`."""
        return Claim(self.vid, Kind(self.kind), self.identifier, self.signer, links.parse(self.token))


class Parent(NamedTuple):
    """What is asked of a version that another one names as its parent."""

    vid: bytes
    kind: int
    identifier: str
    gen: int
    state: State


@dataclass(frozen=True, slots=True)
class Change:
    """What the change feed announces of a version."""

    seq: int
    kind: int
    identifier: str
    vid: bytes
    gen: int
    updated: int
    size: int
    signer: str


def known(connection: sqlite3.Connection, vids: Sequence[bytes]) -> set[bytes]:
    """Those of `vids` that the store holds, in whatever state."""
    found: set[bytes] = set()
    for start in range(0, len(vids), 500):
        part = vids[start : start + 500]
        marks = ",".join("?" * len(part))
        rows = connection.execute(f"SELECT vid FROM versions WHERE vid IN ({marks})", part)  # noqa: S608  (only ?, ?, …)
        found.update(row[0] for row in rows)
    return found


def get(connection: sqlite3.Connection, vid: bytes) -> Row | None:
    row = connection.execute(f"{_SELECT} WHERE vid = ?", (vid,)).fetchone()
    return None if row is None else _row(row)


def some(connection: sqlite3.Connection, vids: Sequence[bytes]) -> Iterator[Row]:
    """Those of `vids` that the store holds, in any order."""
    for start in range(0, len(vids), 500):
        part = vids[start : start + 500]
        marks = ",".join("?" * len(part))
        yield from map(_row, connection.execute(f"{_SELECT} WHERE vid IN ({marks})", part).fetchall())


def raw(connection: sqlite3.Connection, vid: bytes) -> bytes | None:
    """The signed bytes; None for an unknown or pruned version."""
    row = connection.execute("SELECT raw FROM versions WHERE vid = ?", (vid,)).fetchone()
    return None if row is None else row[0]


def raws(connection: sqlite3.Connection, vids: Sequence[bytes]) -> dict[bytes, tuple[int, bytes]]:
    """vid → (kind, bytes) of those that are held whole."""
    found: dict[bytes, tuple[int, bytes]] = {}
    for start in range(0, len(vids), 500):
        part = vids[start : start + 500]
        marks = ",".join("?" * len(part))
        sql = f"SELECT vid, kind, raw FROM versions WHERE raw IS NOT NULL AND vid IN ({marks})"  # noqa: S608
        found.update((vid, (kind, raw)) for vid, kind, raw in connection.execute(sql, part))
    return found


def head_raws(connection: sqlite3.Connection, kind: int, identifier: str) -> list[tuple[bytes, bytes]]:
    """(vid, bytes) of the heads of an entry that are held whole, by vid."""
    rows = connection.execute(
        "SELECT vid, raw FROM versions WHERE kind = ? AND identifier = ? AND head = 1 AND raw IS NOT NULL ORDER BY vid",
        (kind, identifier),
    )
    return rows.fetchall()


def head_rows(connection: sqlite3.Connection, kind: int, identifier: str) -> list[tuple[bytes, str, int, bytes]]:
    """(vid, signer, updated, bytes) of the heads of an entry that are held whole, in any order."""
    return connection.execute(
        "SELECT vid, signer, updated, raw FROM versions"
        " WHERE kind = ? AND identifier = ? AND head = 1 AND raw IS NOT NULL",
        (kind, identifier),
    ).fetchall()


def insert(connection: sqlite3.Connection, parsed: Parsed, state: State, received: int, *, head: bool = False) -> int:
    """Add a version; returns its seq. `head`: it stands and replaces nothing, which nearly all of a first sync do."""
    claim = parsed.claim
    cursor = connection.execute(
        "INSERT INTO versions"
        " (vid, kind, identifier, signer, n, gen, updated, received, state, head, token, digest, raw)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            claim.vid,
            int(claim.kind),
            claim.identifier,
            claim.signer,
            claim.links.n,
            claim.links.g,
            parsed.updated,
            received,
            int(state),
            int(head),
            parsed.token,
            parsed.digest,
            parsed.raw,
        ),
    )
    seq = cursor.lastrowid
    assert seq is not None  # an INSERT into a rowid table always has one
    return seq


def parents(connection: sqlite3.Connection, vids: Sequence[bytes]) -> list[Parent]:
    """Those of `vids` that the store holds."""
    found = []
    for vid in vids:
        row = connection.execute("SELECT kind, identifier, gen, state FROM versions WHERE vid = ?", (vid,)).fetchone()
        if row is not None:
            found.append(Parent(vid, row[0], row[1], row[2], State(row[3])))
    return found


def drop_oldest_parked(connection: sqlite3.Connection, signer: str) -> tuple[bytes, int] | None:
    """Forget the version of a signer that waits longest; (vid, size), or None when there is none."""
    row = connection.execute(
        "SELECT vid, length(raw) FROM versions WHERE state = 2 AND signer = ? ORDER BY seq LIMIT 1", (signer,)
    ).fetchone()
    if row is None:
        return None
    connection.execute("DELETE FROM waits WHERE vid = ?", (row[0],))
    connection.execute("DELETE FROM versions WHERE vid = ?", (row[0],))
    return row[0], row[1]


def set_misfit(connection: sqlite3.Connection, vid: bytes, why: str, *, final: bool) -> None:
    """Remember that a version does not fit what it names."""
    connection.execute(
        "INSERT INTO misfits VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET final = max(final, excluded.final)",
        (vid, int(final), why),
    )


def clear_misfit(connection: sqlite3.Connection, vid: bytes) -> None:
    connection.execute("DELETE FROM misfits WHERE vid = ?", (vid,))


def misfits(connection: sqlite3.Connection) -> dict[bytes, tuple[bool, str]]:
    """vid → (for good?, why) of the versions that do not fit what they name."""
    return {vid: (bool(final), why) for vid, final, why in connection.execute("SELECT vid, final, why FROM misfits")}


def kept_aside(connection: sqlite3.Connection, signer: str = "") -> tuple[int, int]:
    """(entries, bytes) that are quarantined or device profiles; of one signer, or of all."""
    if signer:
        row = connection.execute(
            "SELECT count(*), coalesce(sum(length(raw)), 0) FROM versions WHERE signer = ? AND (state = 3 OR kind = 4)",
            (signer,),
        ).fetchone()
        return int(row[0]), int(row[1])
    found = [
        connection.execute(f"SELECT count(*), coalesce(sum(length(raw)), 0) FROM versions WHERE {which}").fetchone()  # noqa: S608
        for which in ("state <> 1 AND state = 3 AND kind <> 4", "kind = 4")
    ]
    return int(found[0][0] + found[1][0]), int(found[0][1] + found[1][1])


def count_carried(connection: sqlite3.Connection) -> int:
    """How many entries are held of kinds that this release only carries (formats.md F4)."""
    (receipts,) = connection.execute("SELECT count(*) FROM versions WHERE kind = 7").fetchone()
    (later,) = connection.execute("SELECT count(*) FROM versions WHERE kind > 8").fetchone()
    return int(receipts + later)


def set_state(connection: sqlite3.Connection, vid: bytes, state: State) -> None:
    connection.execute("UPDATE versions SET state = ? WHERE vid = ?", (int(state), vid))


def set_states(connection: sqlite3.Connection, moved: Sequence[tuple[Row, State]]) -> None:
    """Give these rows other states, and their entries the heads that follow.

    Most of many are alone in their entry, and each of those is one write: its state says whether it is the head."""
    if len(moved) < 2:
        shared = {row.entry for row, _ in moved}
    else:
        shared = _shared(connection, sorted({row.entry for row, _ in moved}))
    in_order = sorted(moved, key=lambda one: one[0].seq)  # so that each page is written once
    alone = [(int(state), int(state is State.APPLIED), row.seq) for row, state in in_order if row.entry not in shared]
    connection.executemany("UPDATE versions SET state = ?, head = ? WHERE seq = ?", alone)
    for row, state in in_order:
        if row.entry in shared:
            set_state(connection, row.vid, state)
    for entry in shared:
        recompute_heads(connection, *entry)


def _shared(connection: sqlite3.Connection, entries: Sequence[tuple[int, str]]) -> set[tuple[int, str]]:
    """Those of `entries` that hold more than one version."""
    found: set[tuple[int, str]] = set()
    for kind in {kind for kind, _ in entries}:
        names = [identifier for one, identifier in entries if one == kind]
        for start in range(0, len(names), 500):
            part = names[start : start + 500]
            marks = ",".join("?" * len(part))
            rows = connection.execute(
                f"SELECT identifier FROM versions WHERE kind = ? AND identifier IN ({marks})"  # noqa: S608  (only ?, ?, …)
                " GROUP BY identifier HAVING count(*) > 1",
                (kind, *part),
            )
            found.update((kind, row[0]) for row in rows)
    return found


def add_edges(connection: sqlite3.Connection, child: bytes, parents: Iterable[bytes]) -> None:
    connection.executemany("INSERT OR IGNORE INTO edges VALUES (?, ?)", [(parent, child) for parent in parents])


def heads(connection: sqlite3.Connection, kind: int, identifier: str) -> tuple[bytes, ...]:
    """The heads of an entry, by vid."""
    rows = connection.execute("SELECT vid FROM heads WHERE kind = ? AND identifier = ?", (kind, identifier))
    return tuple(sorted(row[0] for row in rows))


def count_heads(connection: sqlite3.Connection, kind: int, identifier: str) -> int:
    row = connection.execute("SELECT count(*) FROM heads WHERE kind = ? AND identifier = ?", (kind, identifier))
    return int(row.fetchone()[0])


def replace_heads(
    connection: sqlite3.Connection, kind: int, identifier: str, gone: Sequence[bytes], new: bytes
) -> None:
    """`new` stands in the place of its parents `gone`."""
    for vid in gone:
        connection.execute("DELETE FROM heads WHERE kind = ? AND identifier = ? AND vid = ?", (kind, identifier, vid))
    connection.execute("INSERT OR IGNORE INTO heads VALUES (?, ?, ?)", (kind, identifier, new))


def recompute_heads(connection: sqlite3.Connection, kind: int, identifier: str) -> None:
    """The heads from the states: applied versions that no applied version descends from, also through quarantined
    ones."""
    rows = connection.execute(
        "SELECT vid, state, head FROM versions WHERE kind = ? AND identifier = ?", (kind, identifier)
    ).fetchall()
    states = {vid: state for vid, state, _ in rows}
    children: dict[bytes, list[bytes]] = {}
    if len(rows) > 1:  # what is alone has nobody after it
        for vid in states:
            for (child,) in connection.execute("SELECT child FROM edges WHERE parent = ?", (vid,)):
                children.setdefault(vid, []).append(child)
    for vid, state, before in rows:
        head = state == State.APPLIED and not _replaced(vid, states, children)
        if head != bool(before):
            connection.execute("UPDATE versions SET head = ? WHERE vid = ?", (int(head), vid))


def _replaced(vid: bytes, states: dict[bytes, int], children: dict[bytes, list[bytes]]) -> bool:
    todo, seen = list(children.get(vid, ())), set()
    while todo:
        child = todo.pop()
        if child in seen:
            continue
        seen.add(child)
        if states.get(child) == State.APPLIED:
            return True
        todo += children.get(child, ())
    return False


def of_signer(connection: sqlite3.Connection, signer: str) -> Iterator[tuple[bytes, tuple[bytes, ...]]]:
    """(vid, q) of everything held of a signer."""
    for vid, token in connection.execute("SELECT vid, token FROM versions WHERE signer = ?", (signer,)).fetchall():
        yield vid, links.before(token)


def judged(connection: sqlite3.Connection, signer: str | None = None) -> Iterator[Row]:
    """The containers and items that stand or are quarantined; of one signer, or all."""
    where = "state <> 2 AND kind IN (2, 8)" + ("" if signer is None else " AND signer = ?")
    rows = connection.execute(f"{_SELECT} WHERE {where}", () if signer is None else (signer,)).fetchall()
    return map(_row, rows)


def of_kind(connection: sqlite3.Connection, kind: int, states: Sequence[State] = (State.APPLIED,)) -> list[Row]:
    marks = ",".join("?" * len(states))
    rows = connection.execute(
        f"{_SELECT} WHERE kind = ? AND state IN ({marks}) ORDER BY seq", (kind, *map(int, states))
    )
    return [_row(row) for row in rows.fetchall()]


def states_of(connection: sqlite3.Connection, kind: int) -> list[tuple[bytes, State]]:
    """(vid, state) of every version of a kind."""
    rows = connection.execute("SELECT vid, state FROM versions WHERE kind = ? ORDER BY seq", (kind,)).fetchall()
    return [(vid, State(state)) for vid, state in rows]


def of_entry(connection: sqlite3.Connection, kind: int, identifier: str) -> list[Row]:
    rows = connection.execute(f"{_SELECT} WHERE kind = ? AND identifier = ? ORDER BY seq", (kind, identifier))
    return [_row(row) for row in rows.fetchall()]


def last_of(connection: sqlite3.Connection, kind: int, identifier: str) -> int:
    """Where an entry's latest version came into this store; 0 where there is none."""
    rows = connection.execute("SELECT max(seq) FROM versions WHERE kind = ? AND identifier = ?", (kind, identifier))
    found: int | None = rows.fetchone()[0]
    return found or 0


def changes(connection: sqlite3.Connection, after: int, limit: int) -> list[Change]:
    """The feed: what was committed after `after`, oldest first. Escrow entries and profiles alike."""
    rows = connection.execute(
        "SELECT seq, kind, identifier, vid, gen, updated, length(raw), signer FROM versions"
        " WHERE seq > ? AND raw IS NOT NULL ORDER BY seq LIMIT ?",
        (after, limit),
    )
    return [Change(*row) for row in rows.fetchall()]


def count_after(connection: sqlite3.Connection, seq: int, other: str) -> int:
    """How many versions that can be handed on were committed after `seq`, without those that `other` signed."""
    row = connection.execute(
        "SELECT count(*) FROM versions WHERE seq > ? AND raw IS NOT NULL AND signer <> ?", (seq, other)
    ).fetchone()
    return int(row[0])


def last_seq(connection: sqlite3.Connection) -> int:
    """The highest seq ever given."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'versions'").fetchone()
    return 0 if row is None else int(row[0])


def count_states(connection: sqlite3.Connection) -> dict[State, int]:
    rows = connection.execute("SELECT state, count(*) FROM versions WHERE state <> 1 GROUP BY state")
    return {State(state): count for state, count in rows.fetchall()}


def conflicts(connection: sqlite3.Connection, kind: int = Kind.ITEM) -> list[str]:
    """Identifiers of the entries with more than one head."""
    rows = connection.execute(
        "SELECT identifier FROM heads WHERE kind = ? GROUP BY identifier HAVING count(*) > 1", (kind,)
    )
    return [row[0] for row in rows.fetchall()]


def _row(row: tuple[int, bytes, int, str, str, int, int, int, int, int, str]) -> Row:
    return Row(*row[:9], State(row[9]), row[10])


def erase_escrow(connection: sqlite3.Connection, listed: Collection[bytes]) -> None:
    """Delete the content of the offline escrow entries that were applied and are not among `listed`."""
    rows = connection.execute("SELECT vid FROM versions WHERE kind = 5 AND state = 1 AND raw IS NOT NULL").fetchall()
    gone = [(vid,) for (vid,) in rows if vid not in listed]
    connection.executemany("UPDATE versions SET raw = NULL WHERE vid = ?", gone)
