"""Proofs that travel without their log: c2sp.org/tlog-proof, which is also the receipt of a Publish."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass

from meshd.errors import FormatError
from meshd.tlog import checkpoint as checkpoints
from meshd.tlog import note as notes
from meshd.tlog import tree
from meshd.tlog.checkpoint import Checkpoint
from meshd.tlog.note import Note, Verifier
from meshd.tlog.policy import Policy

HEADER = "c2sp.org/tlog-proof@v1"
MAX_EXTRA = 8 << 10  # bytes
MAX_BYTES = notes.MAX_NOTE_BYTES + (16 << 10)


@dataclass(frozen=True, slots=True)
class Proof:
    """The entry `index` is in the log of `checkpoint` (a signed note). `extra` is for the reader and proves nothing."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: Note
    extra: bytes = b""

    def encode(self) -> bytes:
        lines = [HEADER]
        if self.extra:
            lines.append(f"extra {base64.b64encode(self.extra).decode()}")
        lines.append(f"index {self.index}")
        lines += hash_lines(self.hashes)
        return ("\n".join(lines) + "\n\n").encode() + self.checkpoint.encode()

    @classmethod
    def parse(cls, data: bytes) -> Proof:
        """FormatError for anything else, or more than 80 KiB."""
        if len(data) > MAX_BYTES:
            raise FormatError("a proof of more than 80 KiB")
        lines, note = split_head(data)
        if not lines or lines[0] != HEADER:
            raise FormatError("a proof that does not begin with c2sp.org/tlog-proof@v1")
        del lines[0]
        extra = b""
        if lines and lines[0].startswith("extra "):
            extra = notes.decode_base64(lines.pop(0)[6:])
            if not 0 < len(extra) <= MAX_EXTRA:
                raise FormatError("a proof whose extra data is empty or longer than 8 KiB")
        if not lines or not lines[0].startswith("index "):
            raise FormatError("a proof without an index")
        return cls(checkpoints.read_number(lines[0][6:]), read_hashes(lines[1:]), note, extra)

    def verify(self, leaf_hash: bytes, logs: Iterable[Verifier], policy: Policy | None = None) -> Checkpoint:
        """The checkpoint under which the leaf is proven.

        SignatureError unless a known log, of `logs` or of the policy, signed it and the policy's quorum is met;
        ProofError unless the path leads from the leaf to its root.
        """
        checkpoint = (policy or Policy()).satisfied(self.checkpoint, logs).checkpoint
        self.verify_under(checkpoint, leaf_hash)
        return checkpoint

    def verify_under(self, checkpoint: Checkpoint, leaf_hash: bytes) -> None:
        """ProofError unless the path leads from the leaf to this root, that of our note, whose signatures were verified
        before: many proofs have the same."""
        tree.verify_inclusion(leaf_hash, self.index, checkpoint.size, self.hashes, checkpoint.root)


def hash_lines(hashes: Iterable[bytes]) -> list[str]:
    return [base64.b64encode(hash_).decode() for hash_ in hashes]


def read_hashes(lines: list[str]) -> tuple[bytes, ...]:
    """Hashes, one a line, 64 at most; FormatError otherwise."""
    hashes = tuple(notes.decode_base64(line) for line in lines[: tree.MAX_PROOF + 1])
    if len(hashes) > tree.MAX_PROOF or any(len(hash_) != tree.HASH_BYTES for hash_ in hashes):
        raise FormatError("a proof of more than 64 hashes, or of hashes that are not 32 bytes long")
    return hashes


def split_head(data: bytes) -> tuple[list[str], Note]:
    """The lines before the first empty line, which are ASCII, and the note after it."""
    head, blank, rest = data.partition(b"\n\n")
    if not blank or not head.isascii():
        raise FormatError("no empty line before the checkpoint")
    return head.decode("ascii").split("\n"), Note.parse(rest)
