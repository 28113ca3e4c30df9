"""A portal's log as others see it: keys, signed checkpoints, receipts, pages and proofs (protocol D1.3–D1.8).

What is signed is durable already: `sign` is called when a COMMIT has returned, and at start for what a crash left
unsigned. Ed25519 makes the same signature again, so nothing is lost with it but the time of our own cosignature.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import msgspec

from meshd.crypto.keys import SigningKey
from meshd.daemon.portal.tree import reader
from meshd.daemon.portal.view import place_of, stored_of, tid_of
from meshd.errors import StoreBusy
from meshd.portal import logleaf, records
from meshd.portal.structures import Binary, ConsistencyProof, PeerStatus, ProofLink, TransferEntry
from meshd.portal.view import LogPage, LogState
from meshd.profile import payload
from meshd.store import portal_log_rows as log_rows
from meshd.store import portal_rows as rows
from meshd.store.db import get_meta, set_meta
from meshd.tlog import checkpoint as checkpoints
from meshd.tlog import cosignature, tree
from meshd.tlog.checkpoint import Checkpoint
from meshd.tlog.cosignature import Cosigner
from meshd.tlog.frontier import Frontier
from meshd.tlog.note import Note, Signer, Verifier, add_lines
from meshd.tlog.proof import Proof

INTERVAL = 3600  # seconds between cosignatures of our own when nothing is written
STALE_SECONDS = 2 * 24 * 3600  # since a peer last brought a checkpoint
OVERLAP = 30 * 24 * 3600  # for which a key that was replaced signs beside the new one
ORIGIN, WITNESS = "mmm-log", "mmm-witness"
LOG_ROLE, WITNESS_ROLE = "log", "witness"
MOST_PEERS = 64  # told in one Status
MOST_LINKS = 64  # of each
_ORIGIN_KEY = "log_origin"


class LogBehind(StoreBusy):
    """Somebody has seen more of this log than the store has: writing would make a second history."""


@dataclass(frozen=True, slots=True)
class Signed:
    """The newest checkpoint, signed. `time`: of our own cosignature, UTC seconds."""

    checkpoint: Checkpoint
    note: Note
    time: int

    @property
    def size(self) -> int:
        return self.checkpoint.size


class Log:
    """One portal's. Made before its writer runs; `signed` is replaced whole, so any thread may read it."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        domain: str,
        edge: Frontier,
        *,
        interval: int = INTERVAL,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self.interval = interval
        self.domain = domain
        self.take_keys(connection)
        self.signed = self._newest(connection, edge)
        self.ahead: str | None = None  # why nothing may be written: see portal_witnesses

    # --- keys ---------------------------------------------------------------------------------------------------------

    def take_keys(self, connection: sqlite3.Connection) -> None:
        """Read the keys, making those that are not there. Within a transaction, or before the writer runs."""
        now = int(self._clock())
        stated = get_meta(connection, _ORIGIN_KEY)
        self.origin = stated.decode() if stated is not None else f"{self.domain}/{ORIGIN}"
        if not self._log_keys(connection, now):
            make_key(connection, self.origin, LOG_ROLE, now)
        if not log_rows.keys(connection, WITNESS_ROLE, now):
            make_key(connection, f"{self.domain}/{WITNESS}", WITNESS_ROLE, now)
        self._signers = [
            Signer(self.origin, SigningKey.from_private(key.secret)) for key in self._log_keys(connection, now)
        ]
        (witness, *_) = log_rows.keys(connection, WITNESS_ROLE, now)
        self.witness = Cosigner(f"{self.domain}/{WITNESS}", SigningKey.from_private(witness.secret))

    def _log_keys(self, connection: sqlite3.Connection, now: int) -> list[log_rows.Key]:
        """Those of this origin: one that the log had before has keys of its own."""
        found = log_rows.keys(connection, LOG_ROLE, now)
        return [key for key in found if Verifier.parse(key.vkey).name == self.origin]

    @property
    def vkeys(self) -> list[str]:
        """Of the log, the newest first, and of the witness."""
        return [*(signer.vkey for signer in self._signers), self.witness.vkey]

    @property
    def verifiers(self) -> list[Verifier]:
        return [signer.verifier for signer in self._signers]

    def rotate(self, connection: sqlite3.Connection) -> str:
        """A new log key, which signs beside the old one for thirty days; returns its vkey. Within a transaction."""
        now = int(self._clock())
        log_rows.retire_keys(connection, LOG_ROLE, now + OVERLAP)
        vkey = make_key(connection, self.origin, LOG_ROLE, now)
        self.take_keys(connection)
        self._again(connection)
        return vkey

    def begin_anew(self, connection: sqlite3.Connection) -> str:
        """Go on under another origin and key: what the old origin signed beyond this store is lost, and this says so.

        Returns the new origin. Within a transaction."""
        number = int(self.origin.rpartition("/")[2]) if self.origin.count("/") == 2 else 1
        origin = f"{self.domain}/{ORIGIN}/{number + 1}"
        set_meta(connection, _ORIGIN_KEY, origin.encode())
        log_rows.retire_keys(connection, LOG_ROLE, int(self._clock()))
        self.take_keys(connection)
        self._again(connection)
        self.ahead = None
        return origin

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def sign(self, edge: Frontier) -> None:
        """Sign the checkpoint of this edge, which is durable."""
        self.signed = self._signed(Checkpoint(self.origin, edge.size, edge.root()))

    def heartbeat(self, connection: sqlite3.Connection) -> None:
        """Cosign again, and keep the note. Within a transaction."""
        now = int(self._clock())
        self.signed = replace(self.signed, note=cosignature.add(self.signed.note, self.witness, now), time=now)
        self.keep(connection)

    def merge(self, connection: sqlite3.Connection, text: str, lines: bytes, verifiers: Iterable[Verifier]) -> bool:
        """Take a witness's lines into the note, if that is still the newest. Within a transaction; SignatureError."""
        if self.signed.note.text != text:
            return False
        self.signed = replace(self.signed, note=add_lines(self.signed.note, lines, verifiers))
        self.keep(connection)
        return True

    @property
    def now(self) -> int:
        """UTC seconds."""
        return int(self._clock())

    @property
    def due(self) -> int:
        """When the next cosignature of ours is due, UTC seconds."""
        return self.signed.time + self.interval

    def _signed(self, checkpoint: Checkpoint) -> Signed:
        now = self.now
        note = checkpoints.sign(checkpoint, self._signers)
        return Signed(checkpoint, cosignature.add(note, self.witness, now), now)

    def _newest(self, connection: sqlite3.Connection, edge: Frontier) -> Signed:
        """As kept with its cosignatures, or signed again."""
        signed = self._signed(Checkpoint(self.origin, edge.size, edge.root()))
        last = log_rows.last_checkpoint(connection)
        if last is None or last.note is None:
            return signed
        kept = Note.parse(last.note.encode())
        if kept.text != signed.note.text:  # under the origin before this one
            return signed
        lines = tuple({(one.name, one.key_id): one for one in (*kept.signatures, *signed.note.signatures)}.values())
        return replace(signed, note=Note(kept.text, lines))

    def _again(self, connection: sqlite3.Connection) -> None:
        self.signed = self._signed(replace(self.signed.checkpoint, origin=self.origin))
        self.keep(connection)

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
        self, connection: sqlite3.Connection, old_size: int | None, peer_sizes: Sequence[tuple[str, int]]
    ) -> LogState:
        signed = self.signed
        proof = None
        if old_size is not None and old_size <= signed.size:
            hashes = self.proof(connection, old_size, signed.size)
            proof = ConsistencyProof(old_size=old_size, new_size=signed.size, hashes=[Binary(one) for one in hashes])
        wanted = dict(peer_sizes)
        return LogState(
            last_write=rows.last_added(connection) or None,
            last_checkpoint=signed.time,
            next_checkpoint=self.due,
            checkpoint=signed.note.encode().decode(),
            log_keys=self.vkeys,
            min_index=0,
            consistency=proof,
            peers=[
                _peer_status(connection, peer, wanted.get(peer.origin), self.now)
                for peer in log_rows.peers(connection)[:MOST_PEERS]
                if peer.log_keys
            ],
        )

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
        target = self._at(connection, tree_size)
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

    def _at(self, connection: sqlite3.Connection, size: int | None) -> Signed | None:
        """The checkpoint of this size, if there ever was one: its signature is the same whenever it is made."""
        signed = self.signed
        if size is None or size == signed.size:
            return signed
        found = log_rows.checkpoint(connection, size) if size < signed.size else None
        return None if found is None else self._signed(Checkpoint(self.origin, size, found.root))


def make_key(connection: sqlite3.Connection, name: str, role: str, now: int) -> str:
    """A new key of this portal; returns its vkey."""
    key = SigningKey.generate(os.urandom)
    vkey = Signer(name, key).vkey if role == LOG_ROLE else Cosigner(name, key).vkey
    log_rows.put_key(connection, log_rows.Key(vkey, role, key.private, now, None))
    return vkey


def _entry(row: rows.Row, found: log_rows.Leaf, full: bool) -> TransferEntry:
    """With its leaf always; content, terms and the salt that blinds these only in `full`."""
    stored = stored_of(row, bare=not full)
    item = records.data_item(stored)
    item = msgspec.structs.replace(item, keys=logleaf.keys(stored)) if full else msgspec.structs.replace(item, row=None)
    return TransferEntry(
        data_item=item,
        salt=Binary(found.salt) if full else None,
        leaf=Binary(found.leaf),
        erased=True if row.raw is None else None,
    )


def _peer_status(connection: sqlite3.Connection, peer: log_rows.Peer, known: int | None, now: int) -> PeerStatus:
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
        evidence=json.loads(peer.evidence) if peer.evidence else None,
    )
