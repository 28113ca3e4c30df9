"""Checkpoints: how large a log is and what its root is, as a log signs it (c2sp.org/tlog-checkpoint)."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass

from meshd.errors import FormatError, SignatureError
from meshd.tlog import note as notes
from meshd.tlog import tree
from meshd.tlog.note import Note, Signer, Verified, Verifier

MAX_TEXT = 4096  # bytes, extension lines and all: so that evidence about a checkpoint always fits its bound


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The log `origin` has `size` leaves under `root` (32 bytes)."""

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not self.origin or "\n" in self.origin:
            raise FormatError("a checkpoint without an origin")
        if not 0 <= self.size <= tree.MAX_SIZE or len(self.root) != tree.HASH_BYTES:
            raise FormatError("a checkpoint with an impossible size or root")
        if self.size == 0 and self.root != tree.EMPTY_ROOT:
            raise FormatError("a checkpoint of an empty log with a root that is not that of nothing")

    @property
    def text(self) -> str:
        """Three lines; extension lines are never written, for nobody could audit them."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """FormatError for anything else than three lines; extension lines after them are let pass and mean nothing."""
        if len(text.encode()) > MAX_TEXT:
            raise FormatError("a checkpoint of more than 4096 bytes")
        lines = text.split("\n")
        if len(lines) < 4 or lines[-1] or not all(lines[:-1]):
            raise FormatError("a checkpoint that does not consist of three lines")
        root = notes.decode_base64(lines[2])
        return cls(lines[0], read_number(lines[1]), root)


def sign(checkpoint: Checkpoint, signers: Iterable[Signer]) -> Note:
    """The checkpoint as a log publishes it. Only for what is durable: this can't be taken back."""
    return notes.sign(checkpoint.text, signers)


def read(note: Note, logs: Iterable[Verifier]) -> tuple[Checkpoint, tuple[Verified, ...]]:
    """The checkpoint in `note` and which keys of its log (type 0x01, named as the origin) have signed it; at least one.

    FormatError if it is no checkpoint, SignatureError if no key of that log signed, or one of them did not verify.
    """
    checkpoint = Checkpoint.parse(note.text)
    keys = [log for log in logs if log.name == checkpoint.origin and log.kind == notes.ED25519]
    found = notes.verified(note, keys)
    if not found:
        raise SignatureError(f"no known key of the log {checkpoint.origin} has signed its checkpoint")
    return checkpoint, found


def read_number(text: str) -> int:
    """An ASCII decimal without leading zeroes and below 2^63; FormatError for anything else."""
    if not (text.isascii() and text.isdigit()) or (text[0] == "0" and text != "0") or len(text) > 19:
        raise FormatError("a number that is not a plain decimal")
    number = int(text)
    if number > tree.MAX_SIZE:
        raise FormatError("a number that is too large")
    return number
