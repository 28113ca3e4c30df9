"""What a witness does with a checkpoint that a log brings (c2sp.org/tlog-witness), without the HTTP around it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from meshd.errors import FormatError, ProofError, SignatureError
from meshd.tlog import checkpoint as checkpoints
from meshd.tlog import tree
from meshd.tlog.checkpoint import Checkpoint
from meshd.tlog.note import MAX_NOTE_BYTES, Note, Verifier
from meshd.tlog.proof import hash_lines, read_hashes, split_head
from meshd.tlog.watch import Evidence, compare

MAX_PROOF_LINES = 63
MAX_BYTES = MAX_NOTE_BYTES + (4 << 10)  # of an add-checkpoint request
SIZE_TYPE = "text/x.tlog.size"  # the Content-Type of a 409


@dataclass(frozen=True, slots=True)
class Request:
    """The body of add-checkpoint: the log believes that the witness has seen `old` entries."""

    old: int
    proof: tuple[bytes, ...]
    note: Note

    @property
    def origin(self) -> str:
        return self.note.text.partition("\n")[0]

    def encode(self) -> bytes:
        return ("\n".join([f"old {self.old}", *hash_lines(self.proof)]) + "\n\n").encode() + self.note.encode()

    @classmethod
    def parse(cls, body: bytes) -> Request:
        """FormatError, which is a 400, for anything else, a note that is no checkpoint included."""
        if len(body) > MAX_BYTES:
            raise FormatError("an add-checkpoint request that is too long")
        lines, note = split_head(body)
        if not lines[0].startswith("old "):
            raise FormatError("an add-checkpoint request that does not begin with the old size")
        if len(lines) - 1 > MAX_PROOF_LINES:
            raise FormatError("an add-checkpoint request with more than 63 proof lines")
        Checkpoint.parse(note.text)
        return cls(checkpoints.read_number(lines[0][4:]), read_hashes(lines[1:]), note)


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest checkpoint of a log that this witness has cosigned, and the note that it came in."""

    size: int
    root: bytes
    note: Note


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer. With 200, `seen` is stored before the cosignature is told, in the transaction that read the old.

    `evidence` is there when the log has signed two trees: it is kept and told, whatever the status.
    """

    status: int
    seen: Seen | None = None
    size: int | None = None  # with a 409: what the witness has
    evidence: Evidence | None = None
    reason: str = ""

    @property
    def body(self) -> bytes:
        """What a 409 answers; the cosignature of a 200 is the caller's to make."""
        return b"" if self.size is None else f"{self.size}\n".encode()


def decide(known_keys: Sequence[Verifier], stored: Seen | None, request: Request) -> Outcome:
    """Whether to cosign: `known_keys` are those trusted for the request's origin (none: 404), `stored` what was seen.

    Nobody but the log itself can be blamed for what it signed: a bad proof is refused (422) and accuses no one.
    """
    if not known_keys:
        return Outcome(404, reason="an unknown log")
    try:
        checkpoint, _ = checkpoints.read(request.note, known_keys)
    except FormatError as exc:
        return Outcome(400, reason=str(exc))
    except SignatureError as exc:
        return Outcome(403, reason=str(exc))
    if request.old > checkpoint.size:
        return Outcome(400, reason="the old size is above that of the checkpoint")
    evidence = compare(stored.note, request.note, known_keys) if stored is not None else None
    size, root = (stored.size, stored.root) if stored is not None else (0, tree.EMPTY_ROOT)
    if request.old != size or evidence is not None:
        return Outcome(409, size=size, evidence=evidence, reason=f"the newest checkpoint seen is of {size} entries")
    try:
        tree.verify_consistency(size, checkpoint.size, root, checkpoint.root, request.proof)
    except ProofError as exc:
        found = (
            Evidence.of_rewrite(stored.note, request.note, request.proof, known_keys) if stored is not None else None
        )
        return Outcome(422, evidence=found, reason=str(exc))
    return Outcome(200, seen=Seen(checkpoint.size, checkpoint.root, request.note))


def origin_hash(origin: str) -> str:
    """The path segment under which a witness answers for a log: SHA-256 of the origin, in hex."""
    return hashlib.sha256(origin.encode()).hexdigest()
