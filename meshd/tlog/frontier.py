"""The right edge of a growing tree: all that a follower needs to know the root, in O(log n) (protocol D1.8)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from meshd.crypto import cbor
from meshd.errors import FormatError
from meshd.tlog import tree

MAX_ENCODED = 10 + 2 + 3 + 63 * tree.HASH_BYTES  # bytes


@dataclass(frozen=True, slots=True)
class Frontier:
    """`size` leaves as the hashes of the complete subtrees that they make, the largest first: one per bit of `size`."""

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.size <= tree.MAX_SIZE or self.size.bit_count() != len(self.hashes):
            raise FormatError("a frontier whose size and hashes do not fit together")
        if any(len(hash_) != tree.HASH_BYTES for hash_ in self.hashes):
            raise FormatError("a frontier with a hash that is not 32 bytes long")

    def append(self, leaf_hash: bytes) -> Frontier:
        return self.extend((leaf_hash,))

    def extend(self, leaf_hashes: Iterable[bytes]) -> Frontier:
        """The frontier after these leaves (32 bytes each)."""
        size, hashes = self.size, list(self.hashes)
        for hash_ in leaf_hashes:
            index = size
            while index & 1:
                hash_ = tree.node_hash(hashes.pop(), hash_)
                index >>= 1
            hashes.append(hash_)
            size += 1
        return Frontier(size, tuple(hashes))

    def root(self) -> bytes:
        return tree.bag(self.hashes) if self.hashes else tree.EMPTY_ROOT

    def encode(self) -> bytes:
        """Deterministic CBOR: `[size, hashes]`, the hashes end to end; some 2 kB at most."""
        return cbor.encode([self.size, b"".join(self.hashes)])

    @classmethod
    def decode(cls, data: bytes) -> Frontier:
        """FormatError for anything that `encode` does not write."""
        if len(data) > MAX_ENCODED:
            raise FormatError("a frontier that is too long")
        value = cbor.decode(data)
        if not isinstance(value, list) or len(value) != 2:
            raise FormatError("a frontier that is not a pair")
        size, joined = value
        if type(size) is not int or type(joined) is not bytes or len(joined) % tree.HASH_BYTES:
            raise FormatError("a frontier with members of other types")
        step = tree.HASH_BYTES
        return cls(size, tuple(joined[at : at + step] for at in range(0, len(joined), step)))


def verify_page(
    before: Frontier,
    leaf_hashes: Sequence[bytes],
    checkpoint_size: int,
    checkpoint_root: bytes,
    page_proof: Sequence[bytes],
) -> Frontier:
    """The frontier after a page of Transfer; ProofError unless all of it belongs to the checkpoint.

    `page_proof` is the consistency proof from `before.size + len(leaf_hashes)` to `checkpoint_size`. `before` itself is
    as good as before after a failure: the page is dropped and asked for again.
    """
    after = before.extend(leaf_hashes)
    tree.verify_consistency(after.size, checkpoint_size, after.root(), checkpoint_root, page_proof)
    return after
