"""Places of a log put into a store as they are elsewhere: what a page of Transfer holds, once the tree has proved it.

What each entry is follows from its content, and is read again: its signature, its vid, the profiles inside it. The row
that comes of it must make the very leaf that was proved, so what is served from here is what the log has. Rights are
judged by the profiles that came before, as where it was published.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from meshd.crypto import legacy
from meshd.daemon.portal.view import SqliteView, place_of, stored_of
from meshd.daemon.portal.writes import Applied, Writing, merge
from meshd.errors import FormatError, MeshError, ProofError
from meshd.portal import crosslog, decide_publish, documents2016, logleaf
from meshd.portal.outcomes import PutDocument, PutVersion, Write
from meshd.portal.structures import DataItem, TransferEntry
from meshd.profile import version
from meshd.profile.claim import Claim, Kind, State
from meshd.profile.links import Links, parse
from meshd.store import portal_log_rows as log_rows
from meshd.store import portal_rows as rows
from meshd.tlog import tree
from meshd.tlog.leaf import SALT_BYTES, Leaf, blind_terms
from meshd.tlog.note import Note

MAX_TERM = 320
_PUBLISHED = (Kind.PERSONAL, Kind.CONTAINER, Kind.ITEM, Kind.OFFLINE_ESCROW, Kind.ONLINE_ESCROW)
_ESCROW = {"OfflineEscrowEntry": Kind.OFFLINE_ESCROW, "OnlineEscrowEntry": Kind.ONLINE_ESCROW}


class NotTheEntry(ProofError):
    """The leaf is proved, and what came with it is something else."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A leaf as it was sent, its salt, and the record that it stands for. Nothing is proved."""

    leaf: bytes
    salt: bytes
    item: DataItem
    erased: bool

    @property
    def hash(self) -> bytes:
        return tree.leaf_hash(self.leaf)


def entry_of(sent: TransferEntry) -> Entry:
    """FormatError for an entry that is not whole: `full` has been granted, or this is no mirror's business."""
    if sent.leaf is None or sent.salt is None or len(sent.salt) != SALT_BYTES:
        raise FormatError(
            "an entry of the log without its leaf and salt", hint="the portal has to grant all of it: --grant full"
        )
    return Entry(bytes(sent.leaf), bytes(sent.salt), sent.data_item, bool(sent.erased))


class Replaying:
    """Beside the writer of one store; its methods belong to the writer's thread, within a transaction."""

    def __init__(self, view: SqliteView) -> None:
        self._view = view
        self._connection = view.connection
        self._writing = Writing(view, self._placed)
        self._due: Entry | None = None

    def apply(self, entries: Sequence[Entry]) -> Applied:
        """All of them at the next places. NotTheEntry says which one is not what its leaf says."""
        done = Applied()
        for entry in entries:
            merge(done, self._one(entry))
        return done

    def _one(self, entry: Entry) -> Applied:
        place = rows.last_place(self._connection) + 1
        try:
            leaf = Leaf.decode(entry.leaf)
            if leaf.tid != f"TID:{place}":
                raise FormatError(f"it is the entry {leaf.tid}")
            self._due = entry
            terms = _terms(entry.item)
            with self._view.deciding(leaf.added):
                if entry.erased or not (entry.item.data or entry.item.text):
                    return self._erased(entry, leaf, terms)
                if terms.get("Type") == crosslog.TYPE:
                    return self._checkpoint(leaf, bytes(entry.item.data or b""))
                return self._writing.apply(self._writes(entry.item, terms.get("UserProfile", "")), leaf.added)
        except (MeshError, ValueError, OverflowError) as exc:
            raise NotTheEntry(f"entry {place} of the log is not what its leaf says: {exc}") from exc
        finally:
            self._due = None

    def _checkpoint(self, leaf: Leaf, note: bytes) -> Applied:
        done = Applied()
        Note.parse(note)
        self._writing.put_checkpoint(leaf.pkey, note, leaf.added, done)
        return done

    def _writes(self, item: DataItem, mesh: str) -> list[Write]:
        if item.text is not None:
            document = documents2016.read(legacy.read_json(item.text))
            return [PutDocument(mesh or None, document)]
        found = version.verify(version.parse(bytes(item.data or b"")), self._view)
        if found.kind not in _PUBLISHED:
            raise FormatError("an entry of a kind that is not published by itself")
        if not mesh or (found.kind is Kind.PERSONAL and found.identifier != mesh):
            raise FormatError("an entry that belongs to no mesh, or to another")
        writes: list[Write] = []
        if found.kind is Kind.PERSONAL:
            authority = self._view.authorities.writing(mesh)
            for one in (*found.embedded, found):
                authority.check_shape(one.claim)
            writes += decide_publish.embedded_writes(mesh, found, self._view.authority(mesh), self._view)
        return [*writes, PutVersion(mesh, found, State.APPLIED)]

    def _placed(self, connection: sqlite3.Connection, place: int) -> None:
        """The row is there: it makes the leaf that was proved, or nothing of it stays."""
        assert self._due is not None
        (row,) = rows.log(connection, place - 1, 1)
        made = logleaf.leaf_of(stored_of(row), self._due.salt)
        if made.encode() != self._due.leaf:
            raise FormatError("its content makes another leaf")
        log_rows.put_leaf(connection, place, self._due.salt, self._due.leaf)

    def _erased(self, entry: Entry, leaf: Leaf, terms: dict[str, str]) -> Applied:
        """The place of a version whose content is gone; its leaf goes on saying what it was."""
        connection, left = self._connection, entry.item.row
        if blind_terms(entry.salt, list(terms.items())) != leaf.terms:
            raise FormatError("its index terms are others")
        identifier, signer, token, digest = leaf.pkey, "", "", b""
        kind = _ESCROW.get(terms.get("Type", ""))
        if left is not None:
            signer, token, digest = left.signer, left.notary_token, bytes(left.digest)
            kind = next((one for one in _PUBLISHED if one == left.kind), None)
            if version.version_id(signer, token, digest) != leaf.vid:
                raise FormatError("what is left of it is of another version")
        if kind is None:
            raise FormatError("nobody can tell what it was")
        mesh = terms.get("UserProfile", "")
        number = rows.make_mesh(connection, mesh) if mesh else None
        links = parse(token) if token else Links(g=1)
        state = State.APPLIED
        if mesh and kind not in _ESCROW.values():
            authority = self._view.authority(mesh)
            claim = Claim(leaf.vid, kind, identifier, signer, links)
            state = State.APPLIED if authority is not None and authority.may_write(claim) else State.QUARANTINED
        put = rows.Put(leaf.vid, int(kind), identifier, signer, links.n, links.g, token, digest, b"", parents=links.p)
        place = rows.put_erased(connection, number, put, state, leaf.added, place_of(leaf.prior) or None)
        log_rows.put_leaf(connection, place, entry.salt, entry.leaf)
        return Applied(places=[place], moved={mesh} if mesh else set())


def _terms(item: DataItem) -> dict[str, str]:
    """Type → term, as the record states them; what is wrong shows when the leaf is made."""
    found: dict[str, str] = {}
    for one in item.keys or []:
        for term in one.values():
            if term.type is None or term.term is None or len(term.term) > MAX_TERM or len(found) >= 8:
                raise FormatError("index terms of another form")
            found[term.type] = term.term
    return found
