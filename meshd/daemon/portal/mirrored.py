"""A log that is mirrored: what its own portal has signed, as far as it is stored here, under the mirror's cosignature.

A mirror's store is a portal's, with two things said in `meta`: whose log it holds, and the mirror's own name. The
newest checkpoint that was found good is the row of the origin in `log_peers`; it is shown once all its entries are
here. The mirror's cosignature says that they are stored and served, so its key is not a witness's, who says less.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from meshd.crypto.keys import SigningKey
from meshd.daemon.portal.log import INTERVAL, make_key, peer_key
from meshd.daemon.portal.shown import Shown, Signed
from meshd.errors import BadRequest
from meshd.store import portal_log_rows as log_rows
from meshd.store.db import get_meta, set_meta
from meshd.store.portal_db import open_portal
from meshd.tlog import cosignature
from meshd.tlog.checkpoint import Checkpoint
from meshd.tlog.cosignature import Cosigner
from meshd.tlog.frontier import Frontier
from meshd.tlog.note import ED25519, Note, Signer, Verifier

MIRROR, ROLE = "mmm-mirror", "mirror"
EVIDENCE = "mirror_evidence"  # in meta, of a log that contradicted itself: what anybody can check
_OF, _NAME = "mirror_of", "mirror_name"


@dataclass(frozen=True, slots=True)
class Identity:
    """A mirror's two keys: with `peer` it asks the origin for its log, with `cosigner` it cosigns what it holds."""

    name: str
    peer: Signer
    cosigner: Cosigner


def mirror_of(connection: sqlite3.Connection) -> str | None:
    """The origin of the log that this store mirrors; None for the store of a portal of its own."""
    found = get_meta(connection, _OF)
    return None if found is None else found.decode()


def prepare(path: Path, origin: str, name: str, now: int) -> Identity:
    """Make the store a mirror's of this log, or see that it is; the mirror's keys. `name` may be empty where the store
    knows it. BadRequest: it holds something else."""
    with open_portal(path, create=True) as database:
        connection = database.connection
        held, known = mirror_of(connection), get_meta(connection, _NAME)
        if held is None and get_meta(connection, "domain") is not None:
            raise BadRequest(f"{path.parent} is a portal of its own", hint="a mirror needs a directory for itself")
        if held not in (None, origin):
            raise BadRequest(f"{path.parent} mirrors {held}, not {origin}")
        if known is not None and name not in ("", known.decode()):
            raise BadRequest(f"this mirror is {known.decode()}, and its keys are in that name")
        name = known.decode() if known is not None else name
        if not name:
            raise BadRequest("a mirror needs a name for its keys", hint="add --name mirror.example")
        connection.execute("BEGIN IMMEDIATE")
        try:
            set_meta(connection, _OF, origin.encode())
            set_meta(connection, _NAME, name.encode())
            set_meta(connection, "domain", origin.partition("/")[0].encode())
            identity = _identity(connection, name, now)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        return identity


def forget(connection: sqlite3.Connection) -> None:
    """It is a mirror no more: neither its name nor its keys mean anything. Within a transaction."""
    connection.execute("DELETE FROM meta WHERE key IN (?, ?)", (_OF, _NAME))
    connection.execute("DELETE FROM log_keys")


def evidence(path: Path) -> bytes | None:
    """What shows that the mirrored log contradicted itself, if it did."""
    with open_portal(path, readonly=True) as database:
        return get_meta(database.connection, EVIDENCE)


def _identity(connection: sqlite3.Connection, name: str, now: int) -> Identity:
    peer = peer_key(connection, name, now)
    if not log_rows.keys(connection, ROLE, now):
        make_key(connection, f"{name}/{MIRROR}", ROLE, now)
    (found, *_) = log_rows.keys(connection, ROLE, now)
    return Identity(name, peer, Cosigner(f"{name}/{MIRROR}", SigningKey.from_private(found.secret)))


class Mirrored(Shown):
    """The log of another portal, at a checkpoint all of whose entries are stored here."""

    def __init__(
        self,
        origin: str,
        signed: Signed,
        keys: Sequence[str],
        cosigner: Cosigner,
        *,
        interval: int = INTERVAL,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(interval=interval, clock=clock)
        self.origin, self.signed, self.witness = origin, signed, cosigner
        self.keys = tuple(keys)  # of the log and of its portal's witness, as the pin has them

    @classmethod
    def of(
        cls, connection: sqlite3.Connection, size: int, *, clock: Callable[[], float] = time.time
    ) -> Mirrored | None:
        """What a mirror's store of `size` entries can show; None until it was whole once."""
        origin, name = mirror_of(connection), get_meta(connection, _NAME)
        peer = log_rows.peer(connection, origin) if origin is not None else None
        if origin is None or name is None or peer is None:
            return None
        cosigner = _identity(connection, name.decode(), int(clock())).cosigner
        found, seen = Note.parse(peer.note.encode()) if peer.note is not None else None, peer.seen
        if found is None or peer.size != size or not _has_line(found, cosigner):  # on its way to a newer one
            last = log_rows.last_noted(connection)
            if last is None or last.note is None:
                return None
            found, seen = Note.parse(last.note.encode()), last.time
        signed = Signed(Checkpoint.parse(found.text), found, seen)
        return cls(origin, signed, (*peer.log_keys, *peer.witness_keys), cosigner, clock=clock)

    @property
    def vkeys(self) -> list[str]:
        return [*self.keys, self.witness.vkey]

    @property
    def verifiers(self) -> list[Verifier]:
        """The log's own."""
        return [one for one in map(Verifier.parse, self.keys) if one.kind == ED25519]

    def sign(self, edge: Frontier) -> None:
        """Nobody but its portal signs it; what is stored is shown once it is all of a checkpoint."""

    def at(self, connection: sqlite3.Connection, size: int | None) -> Signed | None:
        signed = self.signed
        if size is None or size == signed.size:
            return signed
        found = log_rows.checkpoint(connection, size) if size < signed.size else None
        if found is None or found.note is None:
            return None
        return Signed(Checkpoint(self.origin, size, found.root), Note.parse(found.note.encode()), found.time)


def _has_line(note: Note, cosigner: Cosigner) -> bool:
    mine = cosigner.verifier
    return any((one.name, one.key_id) == (mine.name, mine.key_id) for one in note.signatures)


def cosigned(note: Note, cosigner: Cosigner, now: int) -> Signed:
    """A checkpoint all of whose entries are stored and served here."""
    return Signed(Checkpoint.parse(note.text), cosignature.add(note, cosigner, now), now)
