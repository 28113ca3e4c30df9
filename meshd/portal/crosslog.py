"""Another log's checkpoint as an entry of a portal's own log (protocol D1.5).

What a peer has signed is then part of this log's history too: who rewrites one later has to rewrite both. The entry is
no version of a mesh; its content is the note with the lines of its own log alone, so that it stays small.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from typing import cast

from meshd.errors import FormatError
from meshd.profile.claim import Kind
from meshd.tlog import checkpoint as checkpoints
from meshd.tlog.note import Note, Verifier

KIND = cast(Kind, 0)  # no kind of entry (formats.md F4), and known to portals' stores alone
TYPE = "Checkpoint"
MAX_NOTE = 7 * 1024  # bytes: so that an anchor carries it beside its leaf


def identifier(origin: str) -> str:
    """The PrimaryKey of the entries of one origin: fits a leaf, however long the origin."""
    return f"{TYPE}-{base64.b32encode(hashlib.sha256(origin.encode()).digest()).decode().rstrip('=')}"


def vid(note: bytes) -> bytes:
    """What stands for a version's id in the leaf."""
    return hashlib.sha256(note).digest()


def own(note: Note, keys: Iterable[Verifier]) -> bytes:
    """The note with what its log has signed, and nothing else. FormatError, SignatureError."""
    _, signed = checkpoints.read(note, keys)
    encoded = Note(note.text, tuple(one.signature for one in signed)).encode()
    if len(encoded) > MAX_NOTE:
        raise FormatError("a checkpoint with more signatures than an entry of the log has room for")
    return encoded
