"""Cosignatures: what a witness, a mirror or the log's own heartbeat says about a checkpoint, and when.

Ed25519 with a time, type 0x04 of c2sp.org/tlog-cosignature: "at this time the largest tree that I have seen of this
log, consistent with all before, is this one". ML-DSA-44 is not made here; such lines of others are carried along.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshd.crypto.keys import SigningKey
from meshd.errors import SignatureError
from meshd.tlog import note as notes
from meshd.tlog.note import Note, Signature, Verifier


@dataclass(frozen=True, slots=True)
class Cosigner:
    """A key that cosigns under a name. Its key is used for nothing else: the signature does not name the signer."""

    name: str
    key: SigningKey

    @property
    def verifier(self) -> Verifier:
        return Verifier(self.name, notes.COSIGNATURE, self.key.verify_key)

    @property
    def vkey(self) -> str:
        return self.verifier.vkey


def make(text: str, cosigner: Cosigner, time: int) -> Signature:
    """The line of `cosigner` over the text of a checkpoint, made at `time` (seconds)."""
    signature = cosigner.key.sign(notes.cosigned(text, time))
    return Signature(cosigner.name, cosigner.verifier.key_id, time.to_bytes(8, "big") + signature)


def add(note: Note, cosigner: Cosigner, time: int) -> Note:
    """`note` with this cosigner's line, in the place of an older one of the same key."""
    return notes.merge(note, Note(note.text, (make(note.text, cosigner, time),)), [cosigner.verifier])


def verify(note: Note, verifier: Verifier) -> int:
    """When this cosigner last signed (seconds); SignatureError if it did not, or its line does not verify."""
    times = [found.time for found in notes.verified(note, [verifier]) if found.time is not None]
    if not times:
        raise SignatureError(f"{verifier.name} has not cosigned")
    return max(times)
