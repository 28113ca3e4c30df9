"""`meshd portal log`: what a portal's own log holds, whether it is what was signed, and a copy for others to check.

Offline: nothing is asked or changed, and the portal may run meanwhile. All is read from one state of the store.
`verify` believes no row that it can make itself: each leaf is made again from the version that it stands for, each node
from its leaves, each checkpoint from the tree, and each signature is checked. It says the first difference.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from meshd.daemon.portal.view import stored_of
from meshd.errors import FormatError, ProofError, TrustError
from meshd.portal.logleaf import leaf_of
from meshd.store import portal_log_rows as log_rows
from meshd.store import portal_rows as rows
from meshd.store.db import get_meta
from meshd.store.portal_db import open_portal
from meshd.tlog import checkpoint as checkpoints
from meshd.tlog import tree
from meshd.tlog.frontier import Frontier
from meshd.tlog.leaf import Leaf
from meshd.tlog.note import ED25519, Note, Verifier

AT_ONCE = 1000  # places that are in memory
Json = dict[str, Any]
Told = Callable[[int, int], None]  # places done, of how many


class NotTheLog(ProofError):
    """The store is not what was signed."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What was looked at. `unsigned` checkpoints were followed by another before their note was kept."""

    size: int
    root: bytes
    checkpoints: int
    unsigned: int
    erased: int


def show(store: Path) -> Json:
    """How far the log is, who speaks for it, and what is known of others."""
    with open_portal(store, readonly=True) as database:
        connection = database.connection
        last = log_rows.last_checkpoint(connection)
        keys = connection.execute("SELECT vkey, role, created, until FROM log_keys ORDER BY role, created").fetchall()
        return {
            "mirror_of": (get_meta(connection, "mirror_of") or b"").decode() or None,
            "size": last.size if last else 0,
            "root": (last.root if last else tree.EMPTY_ROOT).hex(),
            "time": last.time if last else None,
            "note": last.note if last else None,
            "keys": [
                {"vkey": vkey, "role": role, "created": created, "until": until} for vkey, role, created, until in keys
            ],
            "peers": [
                {"origin": one.origin, "url": one.url, "state": one.state, "size": one.size, "seen": one.seen or None}
                for one in log_rows.peers(connection)
            ],
        }


def verify(store: Path, told: Told = lambda done, total: None) -> Verified:
    """NotTheLog says the first difference; StoreError if the store can't be read."""
    with open_portal(store, readonly=True) as database:
        connection = database.connection
        connection.execute("BEGIN")  # one state of the store, however long this takes
        try:
            return _verify(connection, told)
        finally:
            connection.execute("ROLLBACK")


def export(store: Path, what: str, out: BinaryIO) -> int:
    """Write `leaves` or `notes` in order; how many there were.

    leaves   a CBOR sequence (RFC 8742): item n, as its bytes are, is what the tree has at index n - 1
    notes    signed notes, an empty line after each
    """
    count = 0
    with open_portal(store, readonly=True) as database:
        if what == "notes":
            for (note,) in database.connection.execute(
                "SELECT note FROM checkpoints WHERE note IS NOT NULL ORDER BY size"
            ):
                out.write(note.encode() + b"\n")
                count += 1
            return count
        while found := log_rows.leaves_after(database.connection, count, AT_ONCE):
            for _, leaf in found:
                out.write(leaf)
                count += 1
    return count


def _verify(connection: sqlite3.Connection, told: Told) -> Verified:
    logs = [Verifier.parse(vkey) for (vkey,) in connection.execute("SELECT vkey FROM log_keys WHERE role = 'log'")]
    domain = (get_meta(connection, "domain") or b"").decode()
    for peer in log_rows.peers(connection):
        if peer.origin.startswith(f"{domain}/"):  # the log that is mirrored here, or was before this became the portal
            logs += map(Verifier.parse, peer.log_keys)
    logs = [one for one in logs if one.kind == ED25519]
    total = rows.last_place(connection)
    signed = connection.execute("SELECT size, root, note FROM checkpoints ORDER BY size")
    expected = signed.fetchone()
    edge, erased, unsigned, count, added = Frontier(), 0, 0, 0, 0
    for row, found in _places(connection):
        place = edge.size + 1
        if row is None or row.seq != place:
            raise NotTheLog(f"place {place}: the version is missing")
        if found is None:
            raise NotTheLog(f"place {place}: the leaf is missing")
        _check_leaf(row, found, added)
        erased, added = erased + (not row.raw), row.added
        edge = _grown(connection, edge, tree.leaf_hash(found.leaf))
        if expected is not None and expected[0] == edge.size:
            unsigned += not _check_checkpoint(edge, expected, logs)
            count, expected = count + 1, signed.fetchone()
        if edge.size % AT_ONCE == 0:
            told(edge.size, total)
    if expected is not None:
        raise NotTheLog(f"there is a checkpoint of {expected[0]} entries, and the log has {edge.size}")
    last = log_rows.last_checkpoint(connection)
    if (last.size if last else 0) != edge.size:
        raise NotTheLog(f"the log has {edge.size} entries, and its last checkpoint {last.size if last else 0}")
    told(edge.size, total)
    return Verified(edge.size, edge.root(), count, unsigned, erased)


def _places(connection: sqlite3.Connection) -> Iterator[tuple[rows.Row | None, log_rows.Leaf | None]]:
    """Versions and leaves side by side, in order."""
    place = 0
    while True:
        versions = rows.log(connection, place, AT_ONCE)
        leaves = connection.execute(
            "SELECT place, salt, leaf FROM leaves WHERE place > ? ORDER BY place LIMIT ?", (place, AT_ONCE)
        ).fetchall()
        if not versions and not leaves:
            return
        by_place = {where: log_rows.Leaf(salt, leaf) for where, salt, leaf in leaves}
        by_seq = {one.seq: one for one in versions}
        for _ in range(max(len(versions), len(leaves))):
            place += 1
            yield by_seq.get(place), by_place.get(place)


def _check_leaf(row: rows.Row, found: log_rows.Leaf, before: int) -> None:
    """The leaf says what is stored; of erased content only its digest is left to believe."""
    try:
        leaf = Leaf.decode(found.leaf)
        if row.raw:
            same = leaf_of(stored_of(row), found.salt) == leaf
        else:
            same = (leaf.tid, leaf.pkey, leaf.added, leaf.vid) == (f"TID:{row.seq}", row.identifier, row.added, row.vid)
    except FormatError as exc:
        raise NotTheLog(f"place {row.seq}: the leaf can't be read: {exc}") from exc
    if not same:
        raise NotTheLog(f"place {row.seq}: the leaf is not of the version that is stored there")
    if row.added < before:
        raise NotTheLog(f"place {row.seq}: its time is before that of the place before it")


def _grown(connection: sqlite3.Connection, edge: Frontier, hash_: bytes) -> Frontier:
    """The edge with this leaf; the stored nodes that it completes are what the leaves make."""
    index, level, made = edge.size, 0, hash_
    peaks = list(edge.hashes)
    while index & 1:
        level, index = level + 1, index >> 1
        made = tree.node_hash(peaks.pop(), made)
        if log_rows.node(connection, level, index) != made:
            raise NotTheLog(f"place {edge.size + 1}: the stored node {index} at level {level} is another one")
    return Frontier(edge.size + 1, (*peaks, made))


def _check_checkpoint(edge: Frontier, stored: tuple[int, bytes, str | None], logs: list[Verifier]) -> bool:
    """Is it signed? NotTheLog if it is of another tree, or its signature does not verify."""
    size, root, text = stored
    if root != edge.root():
        raise NotTheLog(f"the checkpoint of {size} entries has another root than the entries")
    if text is None:
        return False
    try:
        checkpoint, _ = checkpoints.read(Note.parse(text.encode()), logs)
    except (FormatError, TrustError) as exc:
        raise NotTheLog(f"the checkpoint of {size} entries: {exc}") from exc
    if (checkpoint.size, checkpoint.root) != (size, root):
        raise NotTheLog(f"the checkpoint of {size} entries has a note of another tree")
    return True
