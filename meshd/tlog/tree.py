"""The Merkle tree of RFC 6962 and RFC 9162: roots, proofs and their verification.

A log keeps the hash of every complete subtree; it is written once and never changes. Whoever makes a proof hands in a
`Read` over them: `read(level, index)` is the hash of the subtree over the leaves `index << level` up to, without,
`(index + 1) << level`; level 0 holds the leaf hashes. Nothing is read beyond the size that was asked about.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from meshd.errors import BadRequest, ProofError

HASH_BYTES = 32
MAX_SIZE = 2**63 - 1  # leaves; what C2SP's cosigners may sign
MAX_PROOF = 64  # hashes

Read = Callable[[int, int], bytes]

EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """The 32 bytes that stand for the leaf `data`: SHA-256(0x00 ‖ data)."""
    return hashlib.sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right)."""
    return hashlib.sha256(b"\1" + left + right).digest()


def completed(size: int) -> list[tuple[int, int]]:
    """The (level, index) of the subtrees that leaf number `size`, counted from 0, completes; the leaf itself first."""
    nodes = [(0, size)]
    level, index = 0, size
    while index & 1:
        level, index = level + 1, index >> 1
        nodes.append((level, index))
    return nodes


def append_nodes(index: int, leaf_hash: bytes, read: Read) -> list[tuple[int, int, bytes]]:
    """What to store when the leaf number `index` is appended: (level, index, hash) of each subtree that it completes.

    `read` gives the older nodes, those of leaves appended just before in the same batch among them.
    """
    nodes: list[tuple[int, int, bytes]] = []
    hash_ = leaf_hash
    for level, place in completed(index):
        if level:
            hash_ = node_hash(read(level - 1, 2 * place), hash_)
        nodes.append((level, place, hash_))
    return nodes


def root(size: int, read: Read) -> bytes:
    """The root of the first `size` leaves; of none it is SHA-256 of nothing."""
    return _span(0, size, read) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, read: Read) -> tuple[bytes, ...]:
    """The audit path of the leaf `index` in the tree of `size` leaves, its sibling first (RFC 9162, 2.1.3.1).

    BadRequest unless 0 <= index < size.
    """
    if not 0 <= index < size <= MAX_SIZE:
        raise BadRequest(f"there is no leaf {index} in a log of {size} entries")
    path: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(_span(middle, high, read))
            high = middle
        else:
            path.append(_span(low, middle, read))
            low = middle
    return tuple(reversed(path))


def consistency_proof(old: int, new: int, read: Read) -> tuple[bytes, ...]:
    """The proof that the first `old` leaves of `new` are what they were (RFC 9162, 2.1.4.1).

    Empty for old = 0, as C2SP has it, and for old = new. BadRequest unless 0 <= old <= new.
    """
    if not 0 <= old <= new <= MAX_SIZE:
        raise BadRequest(f"there is no proof from {old} to {new} entries")
    if old in (0, new):
        return ()
    if old & (old - 1) == 0:  # the verifier has the first node: it is the old root
        return full_consistency_proof(old, new, read)[1:]
    return full_consistency_proof(old, new, read)


def full_consistency_proof(old: int, new: int, read: Read) -> tuple[bytes, ...]:
    """As `consistency_proof`, for 0 < old < new, with the node it starts from even where that is the old root."""
    path: list[bytes] = []
    low, high = 0, new
    while high != old:
        middle = low + _split(high - low)
        if old <= middle:
            path.append(_span(middle, high, read))
            high = middle
        else:
            path.append(_span(low, middle, read))
            low = middle
    return (_span(low, high, read), *reversed(path))


def verify_inclusion(leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """ProofError unless `proof` leads from the leaf at `index` to the `root` of `size` leaves (RFC 9162, 2.1.3.2)."""
    _check_hashes(leaf_hash, root, *proof)
    if not 0 <= index < size <= MAX_SIZE:
        raise ProofError(f"a proof for the leaf {index} of a log of {size} entries")
    if _climb(leaf_hash, index, size - 1, proof)[1] != root:
        raise ProofError("the inclusion proof leads to another root")


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """ProofError unless `proof` shows that the tree of `new` leaves begins with that of `old` (RFC 9162, 2.1.4.2).

    From old = 0 every tree is consistent: the proof must be empty then, and the old root that of nothing.
    """
    _check_hashes(old_root, new_root, *proof)
    if not 0 <= old <= new <= MAX_SIZE:
        raise ProofError(f"a consistency proof from {old} to {new} entries")
    if old == 0 or old == new:
        if proof:
            raise ProofError(f"a consistency proof from {old} to {new} entries that is not empty")
        if (old == 0 and old_root != EMPTY_ROOT) or (new == 0 and new_root != EMPTY_ROOT):
            raise ProofError("the root of an empty log is another one")
        if old == new and old_root != new_root:
            raise ProofError(f"two roots for {old} entries")
        return
    full = proof if old & (old - 1) else (old_root, *proof)
    found_old, found_new = prefix_roots(old, new, full)
    if found_new != new_root or found_old != old_root:
        raise ProofError("the consistency proof leads to other roots")


def prefix_roots(old: int, new: int, full: Sequence[bytes]) -> tuple[bytes, bytes]:
    """The roots of `old` and of `new` leaves to which a full proof (see `full_consistency_proof`) leads; 0 < old < new.

    Where the second is a root that somebody signed, the first is bound by it: nobody finds other nodes that lead there.
    ProofError for a proof of the wrong length.
    """
    if not full or not 0 < old < new <= MAX_SIZE:
        raise ProofError("an empty consistency proof" if not full else f"a proof from {old} to {new} entries")
    _check_hashes(*full)
    first, last = old - 1, new - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    return _climb(full[0], first, last, full[1:])


def root_before(index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """The root of the leaves before `index`, as the inclusion proof of the leaf at `index` binds it; 0 < index < size.

    The left siblings of a path are the complete subtrees of all that stands before it. They are those of the tree only
    where the proof verifies.
    """
    lefts, last = [], size - 1
    for sibling in proof:
        if index & 1 or index == last:
            lefts.append(sibling)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        index, last = index >> 1, last >> 1
    if not lefts:
        raise ProofError("a proof that is too short")
    return bag(lefts[::-1])


def _climb(start: bytes, index: int, last: int, path: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Walk up from the node `index` of a row that ends at `last`; what the left nodes alone make, and what all make."""
    left = whole = start
    for sibling in path:
        if last == 0:
            raise ProofError("a proof that is too long")
        if index & 1 or index == last:
            left, whole = node_hash(sibling, left), node_hash(sibling, whole)
            while not index & 1 and index:  # a node without right neighbour rises as it is
                index, last = index >> 1, last >> 1
        else:
            whole = node_hash(whole, sibling)
        index, last = index >> 1, last >> 1
    if last:
        raise ProofError("a proof that is too short")
    return left, whole


def _span(low: int, high: int, read: Read) -> bytes:
    """The root over the leaves low..high, of which `low` is a multiple of the largest complete subtree in it."""
    peaks: list[bytes] = []
    while low < high:
        level = (high - low).bit_length() - 1
        peaks.append(read(level, low >> level))
        low += 1 << level
    return bag(peaks)


def bag(peaks: Sequence[bytes]) -> bytes:
    """The root over complete subtrees that stand side by side, the largest first; at least one."""
    hash_ = peaks[-1]
    for left in reversed(peaks[:-1]):
        hash_ = node_hash(left, hash_)
    return hash_


def _split(size: int) -> int:
    """The largest power of two below `size`, which is 2 or more."""
    return 1 << (size - 1).bit_length() - 1


def _check_hashes(*hashes: bytes) -> None:
    if len(hashes) > MAX_PROOF + 3:
        raise ProofError("a proof of more than 64 hashes")
    if any(len(hash_) != HASH_BYTES for hash_ in hashes):
        raise ProofError("a hash that is not 32 bytes long")
