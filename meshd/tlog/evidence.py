"""Evidence that a log has signed two histories: what a third party can check with the log's public keys alone.

A bad proof is no evidence: anybody could have made it, and asking again may mend it. What counts is what the log has
signed, and what its own roots bind. There are four forms, each with two checkpoints that the log signed:

    fork     the same size, two roots
    rewrite  a consistency proof that leads to the larger root, and to another root of the smaller size than was signed
    prefix   the same by the inclusion proof of the leaf that stands right after the smaller tree
    leaf     two leaves at one index, each proven under one of the checkpoints
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

from meshd.crypto import cbor
from meshd.errors import FormatError, ProofError, TrustError
from meshd.tlog import checkpoint as checkpoints
from meshd.tlog import tree
from meshd.tlog.checkpoint import Checkpoint
from meshd.tlog.note import Note, Verifier
from meshd.tlog.proof import Proof

Kind = Literal["fork", "rewrite", "prefix", "leaf"]
KINDS: tuple[Kind, ...] = ("fork", "rewrite", "prefix", "leaf")
VERSION = 1
MAX_BYTES = 64 << 10  # encoded: two checkpoints of 4 KiB, with 64 lines each, and two proofs


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two notes of one log that can't both be true, and what shows it. `first` is of the smaller size.

    `proofs` and `leaves` belong together: none for a fork; the full consistency proof alone for a rewrite; one leaf
    hash and its path for a prefix; two of each, both at `index`, for a leaf.
    """

    kind: Kind
    first: Note
    second: Note
    index: int = 0
    leaves: tuple[bytes, ...] = ()
    proofs: tuple[tuple[bytes, ...], ...] = ()

    @classmethod
    def of_rewrite(cls, one: Note, other: Note, proof: Iterable[bytes], logs: Iterable[Verifier]) -> Evidence | None:
        """From a consistency proof between the two that failed, if it shows that the log contradicts itself.

        `proof` may also lead from one leaf more than the smaller size: where that is a power of two, a proof from it
        does not name the node it starts from, and shows nothing.
        """
        keys, hashes = tuple(logs), tuple(proof)
        small, large = sorted((one, other), key=lambda note: Checkpoint.parse(note.text).size)
        size = Checkpoint.parse(small.text).size
        if not hashes:
            return None
        candidates = [cls("rewrite", small, large, proofs=(hashes,))]
        candidates.append(cls("prefix", small, large, size, leaves=hashes[:1], proofs=(hashes[1:],)))
        return _first_that_holds(candidates, keys)

    @classmethod
    def of_leaves(
        cls, one: Proof, leaf: bytes, other: Proof, other_leaf: bytes, logs: Iterable[Verifier]
    ) -> Evidence | None:
        """From two proofs of different leaf hashes at one index, if both verify."""
        if one.index != other.index:
            return None
        pair = sorted(
            ((one, leaf), (other, other_leaf)), key=lambda part: Checkpoint.parse(part[0].checkpoint.text).size
        )
        (first, first_leaf), (second, second_leaf) = pair
        proofs = (first.hashes, second.hashes)
        found = cls("leaf", first.checkpoint, second.checkpoint, one.index, (first_leaf, second_leaf), proofs)
        return _first_that_holds([found], tuple(logs))

    @property
    def origin(self) -> str:
        return Checkpoint.parse(self.first.text).origin

    def encode(self) -> bytes:
        """Deterministic CBOR, as log.cddl has it, at most 64 KiB; of the notes the log's own lines alone are kept."""
        proofs = [b"".join(proof) for proof in self.proofs]
        notes = [self.first.encode(), self.second.encode()]
        return cbor.encode([VERSION, self.kind, *notes, self.index, list(self.leaves), proofs])

    @classmethod
    def decode(cls, data: bytes) -> Evidence:
        """FormatError for anything that `encode` does not write. It says nothing yet: see `check`."""
        if len(data) > MAX_BYTES:
            raise FormatError("evidence of more than 64 KiB")
        value = cbor.decode(data)
        if not isinstance(value, list) or len(value) != 7 or value[0] != VERSION or value[1] not in KINDS:
            raise FormatError("evidence of another form or version")
        _, kind, first, second, index, leaves, proofs = value
        if not isinstance(first, bytes) or not isinstance(second, bytes) or type(index) is not int or index < 0:
            raise FormatError("evidence with members of other types")
        return cls(
            cast(Kind, kind),
            Note.parse(first),
            Note.parse(second),
            index,
            _hashes(leaves),
            tuple(map(_split, _list(proofs))),
        )

    def sentence(self) -> str:
        """What it shows, for a person; only after `check`."""
        small, large = Checkpoint.parse(self.first.text), Checkpoint.parse(self.second.text)
        match self.kind:
            case "fork":
                return f"{small.origin} has signed two different logs of {small.size} entries"
            case "leaf":
                return f"{small.origin} has proven two different entries at place {self.index}"
            case "rewrite" | "prefix":
                return f"{small.origin} has signed a log of {large.size} entries that rewrites its first {small.size}"


def check(evidence: Evidence, logs: Iterable[Verifier]) -> None:
    """ProofError unless the evidence holds; SignatureError unless keys of the log among those given signed both."""
    keys = tuple(logs)
    small, _ = checkpoints.read(evidence.first, keys)
    large, _ = checkpoints.read(evidence.second, keys)
    if small.origin != large.origin or small.size > large.size:
        raise ProofError("the two checkpoints are not of one log, the smaller first")
    match evidence:
        case Evidence(kind="fork", leaves=(), proofs=()):
            holds = small.size == large.size and small.root != large.root
        case Evidence(kind="rewrite", leaves=(), proofs=(proof,)):
            found_small, found_large = tree.prefix_roots(small.size, large.size, proof)
            holds = found_large == large.root and found_small != small.root
        case Evidence(kind="prefix", leaves=(leaf,), proofs=(proof,)):
            tree.verify_inclusion(leaf, small.size, large.size, proof, large.root)
            holds = evidence.index == small.size > 0 and tree.root_before(small.size, large.size, proof) != small.root
        case Evidence(kind="leaf", leaves=(one, other), proofs=(path, other_path)):
            tree.verify_inclusion(one, evidence.index, small.size, path, small.root)
            tree.verify_inclusion(other, evidence.index, large.size, other_path, large.root)
            holds = one != other
        case _:
            holds = False
    if not holds:
        raise ProofError("the evidence shows no contradiction")


def compare(one: Note, other: Note, logs: Iterable[Verifier]) -> Evidence | None:
    """The evidence if these two notes are a fork of one log; None if not, whatever else may be wrong with them.

    For gossip: both may come from strangers, so notes that no known key of their log signed are passed over.
    """
    return _first_that_holds([Evidence("fork", one, other)], tuple(logs))


def _first_that_holds(candidates: Iterable[Evidence], logs: tuple[Verifier, ...]) -> Evidence | None:
    for evidence in candidates:
        try:
            check(evidence, logs)
        except (FormatError, ProofError):
            continue
        except TrustError:
            return None
        first, second = (_own_lines(note, logs) for note in (evidence.first, evidence.second))
        return Evidence(evidence.kind, first, second, evidence.index, evidence.leaves, evidence.proofs)
    return None


def _own_lines(note: Note, logs: tuple[Verifier, ...]) -> Note:
    """The note with nothing but what its log has signed."""
    _, signed = checkpoints.read(note, logs)
    return Note(note.text, tuple(one.signature for one in signed))


def _hashes(value: object) -> tuple[bytes, ...]:
    hashes = _list(value)
    if any(type(hash_) is not bytes or len(hash_) != tree.HASH_BYTES for hash_ in hashes):
        raise FormatError("evidence with a hash that is not 32 bytes long")
    return cast(tuple[bytes, ...], hashes)


def _list(value: object) -> tuple[object, ...]:
    if not isinstance(value, list) or len(value) > 2:
        raise FormatError("evidence with more than two leaves or proofs")
    return tuple(value)


def _split(joined: object) -> tuple[bytes, ...]:
    step = tree.HASH_BYTES
    if not isinstance(joined, bytes) or len(joined) % step or len(joined) > (tree.MAX_PROOF + 1) * step:
        raise FormatError("evidence with a proof that is no list of hashes")
    return tuple(joined[at : at + step] for at in range(0, len(joined), step))
