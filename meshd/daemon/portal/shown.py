"""A log as others are shown it, a portal's own or one that it mirrors: receipts, Status, pages of Transfer, proofs.

Everything is read from the stored tree, under a checkpoint that its log has signed. Who signs is said in `log` and in
`mirrored`. Protocol D1.6, D1.8.
"""

from __future__ import annotations

import abc
import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from meshd.daemon.portal.tree import reader
from meshd.daemon.portal.view import place_of, stored_of, tid_of
from meshd.portal import crosslog, logleaf, records
from meshd.portal.structures import Binary, ConsistencyProof, PeerStatus, ProofLink, TransferEntry
from meshd.portal.view import LogPage, LogState
from meshd.profile import payload
from meshd.store import portal_log_rows as log_rows
from meshd.store import portal_rows as rows
from meshd.tlog import tree
from meshd.tlog.checkpoint import Checkpoint
from meshd.tlog.cosignature import Cosigner
from meshd.tlog.frontier import Frontier
from meshd.tlog.note import Note
from meshd.tlog.proof import Proof

STALE_SECONDS = 2 * 24 * 3600  # since a peer last brought a checkpoint
MOST_PEERS = 64  # told in one Status
MOST_LINKS = 64  # of each


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint with its note. `time`: of the cosignature made here, UTC seconds."""

    checkpoint: Checkpoint
    note: Note
    time: int

    @property
    def size(self) -> int:
        return self.checkpoint.size


class Shown(abc.ABC):
    """One log. `signed` is replaced whole, so any thread may read it; `ahead`: why nothing may be written."""

    origin: str
    signed: Signed
    witness: Cosigner  # cosigns other logs, and this one

    def __init__(self, *, interval: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.interval = interval
        self.ahead: str | None = None

    @property
    @abc.abstractmethod
    def vkeys(self) -> list[str]:
        """Of the log, the newest first, and of the cosigners that the reader may know."""

    @property
    def stated(self) -> list[str]:
        """What Status names as LogKeys."""
        return self.vkeys

    @abc.abstractmethod
    def sign(self, edge: Frontier) -> None:
        """The tree of this edge is durable."""

    @abc.abstractmethod
    def at(self, connection: sqlite3.Connection, size: int | None) -> Signed | None:
        """The checkpoint of this size, if there ever was one; the newest for None."""

    @property
    def now(self) -> int:
        """UTC seconds."""
        return int(self._clock())

    @property
    def due(self) -> int:
        """When the next cosignature of ours is due, UTC seconds."""
        return self.signed.time + self.interval

    def keep(self, connection: sqlite3.Connection) -> None:
        """Write the note down, as far as it has come. Within a transaction."""
        log_rows.set_note(connection, self.signed.size, self.signed.note.encode().decode())

    # --- proofs -------------------------------------------------------------------------------------------------------

    def receipts(self, connection: sqlite3.Connection, places: Sequence[int]) -> list[str | None]:
        """A tlog-proof for each place; `extra` is the leaf's salt (16 bytes) and the leaf. None: not in the log yet."""
        signed = self.signed
        read = reader(connection)
        return [self._receipt(connection, place, signed, read) for place in places]

    def _receipt(self, connection: sqlite3.Connection, place: int, signed: Signed, read: tree.Read) -> str | None:
        found = log_rows.leaf(connection, place) if place <= signed.size else None
        if found is None:
            return None
        hashes = tree.inclusion_proof(place - 1, signed.size, read)
        return Proof(place - 1, hashes, signed.note, found.salt + found.leaf).encode().decode()

    def proof(self, connection: sqlite3.Connection, old: int, size: int) -> tuple[bytes, ...]:
        """That the tree of `size` leaves, which is signed, extends that of `old`."""
        return tree.consistency_proof(old, size, reader(connection))

    # --- Status and Transfer ------------------------------------------------------------------------------------------

    def state(
        self,
        connection: sqlite3.Connection,
        old_size: int | None,
        peer_sizes: Sequence[tuple[str, int]],
        tree_size: int | None = None,
    ) -> LogState:
        """With the checkpoint of `tree_size`, where there was one of that size; else the newest."""
        signed = self.at(connection, tree_size) or self.signed
        proof = None
        if old_size is not None and old_size <= signed.size:
            hashes = self.proof(connection, old_size, signed.size)
            proof = ConsistencyProof(old_size=old_size, new_size=signed.size, hashes=[Binary(one) for one in hashes])
        wanted = dict(peer_sizes)
        return LogState(
            last_write=rows.last_added(connection) or None,
            last_checkpoint=self.signed.time,
            next_checkpoint=self.due,
            checkpoint=signed.note.encode().decode(),
            log_keys=self.stated,
            min_index=0,
            consistency=proof,
            peers=[
                _peer_status(connection, peer, wanted.get(peer.origin), self.now, self._anchor(connection, peer))
                for peer in log_rows.peers(connection)[:MOST_PEERS]
                if peer.log_keys and peer.origin != self.origin
            ],
        )

    def _anchor(self, connection: sqlite3.Connection, peer: log_rows.Peer) -> str | None:
        """The newest checkpoint of a peer that is an entry of this log: a tlog-proof whose `extra` is salt, leaf, note.
        None: none is, or not under a signed checkpoint yet."""
        row = rows.head(connection, int(crosslog.KIND), crosslog.identifier(peer.origin))
        found = None if row is None or row.seq > self.signed.size else log_rows.leaf(connection, row.seq)
        if row is None or found is None:
            return None
        hashes = tree.inclusion_proof(row.seq - 1, self.signed.size, reader(connection))
        extra = found.salt + found.leaf + (row.raw or b"")
        return Proof(row.seq - 1, hashes, self.signed.note, extra).encode().decode()

    def page(
        self,
        connection: sqlite3.Connection,
        *,
        full: bool,
        after: str | None,
        not_before: int | None,
        until: int | None,
        max_entries: int,
        max_bytes: int,
        origin: str | None,
        tree_size: int | None,
    ) -> LogPage | None:
        """Records behind a cursor, with the proof that they lead to the checkpoint of `tree_size`, or the newest."""
        place = place_of(after)
        target = self.at(connection, tree_size)
        if place is None or target is None or place > target.size or origin not in (None, self.origin):
            return None
        if not_before is not None:
            place = min(rows.place_at(connection, not_before), target.size)
        entries: list[TransferEntry] = []
        size, end = 0, place
        for row in rows.log(connection, place, min(max_entries, target.size - place)):
            found = log_rows.leaf(connection, row.seq)
            assert found is not None
            size += len(found.leaf) + (len(row.raw or b"") if full else 0)
            if (entries and size > max_bytes) or (until is not None and row.added >= until):
                break
            entries.append(_entry(row, found, full))
            end = row.seq
        proof = self.proof(connection, end, target.size) if entries else ()
        following = tid_of(end) if entries and end < target.size else None
        return LogPage(entries, place, following, target.note.encode().decode(), proof)


def _entry(row: rows.Row, found: log_rows.Leaf, full: bool) -> TransferEntry:
    """With its leaf always; content, terms and the salt that blinds these only in `full`."""
    stored = stored_of(row, bare=not full)
    item = records.data_item(stored)
    item = msgspec.structs.replace(item, keys=logleaf.keys(stored)) if full else msgspec.structs.replace(item, row=None)
    return TransferEntry(
        data_item=item,
        salt=Binary(found.salt) if full else None,
        leaf=Binary(found.leaf),
        erased=None if row.raw else True,
    )


def _peer_status(
    connection: sqlite3.Connection, peer: log_rows.Peer, known: int | None, now: int, anchor: str | None
) -> PeerStatus:
    """What we know of a peer's log; `known` is the size that the caller has: the chain of proofs leads on from it."""
    steps = log_rows.proofs(connection, peer.origin, known, MOST_LINKS) if known is not None else []
    stale = peer.state == "Consistent" and now - peer.seen > STALE_SECONDS
    return PeerStatus(
        origin=peer.origin,
        log_keys=list(peer.log_keys),
        checkpoint=peer.note,
        seen=payload.write_date(peer.seen) if peer.seen else None,
        state="Stale" if stale else peer.state,
        proof_chain=[
            ProofLink(from_=before, to=size, hashes=[Binary(one) for one in hashes]) for before, size, hashes in steps
        ]
        or None,
        anchor=anchor,
        evidence=json.loads(peer.evidence) if peer.evidence else None,
    )
