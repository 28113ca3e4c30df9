"""A log in memory, honest; and its twin that has another past from some entry on, under the same key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from meshd.crypto.keys import SigningKey
from meshd.tlog import checkpoint, tree
from meshd.tlog.checkpoint import Checkpoint
from meshd.tlog.cosignature import Cosigner
from meshd.tlog.note import Note, Signer, Verifier
from meshd.tlog.proof import Proof

ORIGIN = "portal.example/mmm-log"


def key(name: str) -> SigningKey:
    """The same key for the same name."""
    return SigningKey.from_private(hashlib.sha256(name.encode()).digest())


def signer(origin: str = ORIGIN, secret: str = "log") -> Signer:
    return Signer(origin, key(secret))


def cosigner(name: str) -> Cosigner:
    return Cosigner(f"{name}.example/mmm-witness", key(name))


def entries(count: int, start: int = 0, past: str = "") -> list[bytes]:
    """Leaf hashes."""
    return [tree.leaf_hash(f"{past}{number}".encode()) for number in range(start, start + count)]


class MemoryLog:
    """The stored nodes of a log, and what it signs."""

    def __init__(self, leaf_hashes: Iterable[bytes] = (), by: Signer | None = None) -> None:
        self.signer = by or signer()
        self.nodes: dict[tuple[int, int], bytes] = {}
        self.size = 0
        self.extend(leaf_hashes)

    def extend(self, leaf_hashes: Iterable[bytes]) -> MemoryLog:
        for hash_ in leaf_hashes:
            for level, index, node in tree.append_nodes(self.size, hash_, self.read):
                self.nodes[level, index] = node
            self.size += 1
        return self

    def twin(self, keep: int) -> MemoryLog:
        """As large, signed by the same key; everything after the first `keep` entries is another."""
        common = [self.read(0, index) for index in range(keep)]
        return MemoryLog([*common, *entries(self.size - keep, keep, "other ")], self.signer)

    def read(self, level: int, index: int) -> bytes:
        return self.nodes[level, index]

    def leaf(self, index: int) -> bytes:
        return self.read(0, index)

    def root(self, size: int | None = None) -> bytes:
        return tree.root(self.size if size is None else size, self.read)

    def checkpoint(self, size: int | None = None) -> Checkpoint:
        size = self.size if size is None else size
        return Checkpoint(self.signer.name, size, self.root(size))

    def note(self, size: int | None = None, *also: Signer) -> Note:
        return checkpoint.sign(self.checkpoint(size), [self.signer, *also])

    def consistency(self, old: int, new: int | None = None) -> tuple[bytes, ...]:
        return tree.consistency_proof(old, self.size if new is None else new, self.read)

    def proof(self, index: int, size: int | None = None, extra: bytes = b"") -> Proof:
        size = self.size if size is None else size
        return Proof(index, tree.inclusion_proof(index, size, self.read), self.note(size), extra)

    @property
    def verifiers(self) -> list[Verifier]:
        return [self.signer.verifier]
