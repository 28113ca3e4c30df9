"""What a portal's log costs, without disk and network: proofs, receipts, and a reader who comes back after a while.

The logs of these sizes are true ones of equal leaves, whose subtrees are equal too: no storage is measured.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from statistics import median

from bench.figures import Figure, Section
from bench.lab import Lab
from harness.merkle_log import cosigner, signer
from meshd.tlog import checkpoint, cosignature, tree
from meshd.tlog.checkpoint import Checkpoint
from meshd.tlog.frontier import Frontier, verify_page
from meshd.tlog.leaf import Leaf
from meshd.tlog.note import Note
from meshd.tlog.proof import Proof
from meshd.tlog.watch import Advanced, judge

ENTRY = Leaf("TID:1000000", "TID:999999", "Update", "MDLMV-R2LXN-WCHJR-SFTVW", 1_700_000_000, *[bytes(32)] * 3)
PAGE = 1000  # entries, as Transfer sends them
BEFORE = 1_000_000  # entries that the reader has pinned before going away
SIGNER, WITNESS = signer(), cosigner("w1")


def run(lab: Lab, quick: bool) -> Section:
    """`lab` is not needed: nothing here leaves the process."""
    sizes = (10**3, 10**5, 10**7) if quick else (10**3, 10**4, 10**5, 10**6, 10**7)
    figures = [figure for size in sizes for figure in _proofs(size, 20 if quick else 200)]
    figures += _returns("a week away, 10³ new entries", 10**3)
    figures += _returns("a year away, 10⁵ new entries", 10**4 if quick else 10**5)
    return Section("log", "SHA-256 and Python's calls around it, on one core", figures)


class Equal:
    """A log whose leaves are all `leaf_hash`."""

    def __init__(self, leaf_hash: bytes) -> None:
        self._levels = [leaf_hash]
        for _ in range(40):
            self._levels.append(tree.node_hash(self._levels[-1], self._levels[-1]))

    def read(self, level: int, index: int) -> bytes:
        return self._levels[level]

    def note(self, size: int) -> Note:
        signed = checkpoint.sign(Checkpoint(SIGNER.name, size, tree.root(size, self.read)), [SIGNER])
        return cosignature.add(signed, WITNESS, 1_700_000_000)


def _proofs(size: int, rounds: int) -> list[Figure]:
    log = Equal(ENTRY.hash())
    root, leaf = tree.root(size, log.read), log.read(0, 0)
    places = [size * number // rounds for number in range(rounds)]
    paths = [tree.inclusion_proof(place, size, log.read) for place in places]
    roots = [tree.root(place or 1, log.read) for place in places]
    steps = [tree.consistency_proof(place or 1, size, log.read) for place in places]
    receipt = Proof(places[-1], paths[-1], log.note(size), bytes(16) + ENTRY.encode()).encode()
    name = f"10{'⁰¹²³⁴⁵⁶⁷'[len(str(size)) - 1]} entries"

    def check_path(i: int) -> None:
        tree.verify_inclusion(leaf, places[i], size, paths[i], root)

    def check_step(i: int) -> None:
        tree.verify_consistency(places[i] or 1, size, roots[i], root, steps[i])

    return [
        Figure(
            f"{name}: inclusion, made",
            _micro(lambda place: tree.inclusion_proof(place, size, log.read), places),
            "µs",
            more={
                "verified µs": _micro(
                    lambda i: tree.verify_inclusion(leaf, places[i], size, paths[i], root), range(rounds)
                ),
                "hashes": max(map(len, paths)),
                "receipt bytes": len(receipt),
            },
        ),
        Figure(
            f"{name}: consistency, made",
            _micro(lambda place: tree.consistency_proof(place or 1, size, log.read), places),
            "µs",
            more={
                "verified µs": _micro(check_step, range(rounds)),
                "hashes": max(map(len, steps)),
            },
        ),
    ]


def _returns(name: str, new: int) -> list[Figure]:
    """The two ways to come back: the checkpoint and its proof; or every leaf in between, page by page."""
    log = Equal(ENTRY.hash())
    size, data = BEFORE + new, ENTRY.encode()
    first = judge(None, log.note(BEFORE), [SIGNER.verifier], None, None, 0)
    assert isinstance(first, Advanced)
    note, step = log.note(size).encode(), tree.consistency_proof(BEFORE, size, log.read)
    start = time.perf_counter()
    verdict = judge(first.pin, Note.parse(note), (), None, step, 1)
    pinned = time.perf_counter() - start
    assert isinstance(verdict, Advanced)

    edge = Frontier(BEFORE, _peaks(log, BEFORE))
    pages = [(at, min(PAGE, size - at)) for at in range(BEFORE, size, PAGE)]
    proofs = [tree.consistency_proof(at + count, size, log.read) for at, count in pages]
    start = time.perf_counter()
    for (_, count), proof in zip(pages, proofs, strict=True):
        hashes = [Leaf.decode(data).hash() for _ in range(count)]
        edge = verify_page(edge, hashes, size, verdict.pin.root, proof)
    audited = time.perf_counter() - start
    assert edge.root() == verdict.pin.root

    start = time.perf_counter()
    for _ in range(new):
        hashlib.sha256(data).digest()
        hashlib.sha256(data[:65]).digest()
    floor = time.perf_counter() - start
    more = {"entries/s": round(new / audited), "MB/s": round(new * len(data) / audited / 1e6, 1)}
    return [
        Figure(f"{name}: the checkpoint", pinned * 1000, "ms", more={"bytes": len(note) + 45 * len(step)}),
        Figure(
            f"{name}: every leaf ({new})",
            audited * 1000,
            "ms",
            beside={"SHA-256 of the same": audited / floor},
            more=more,
        ),
    ]


def _peaks(log: Equal, size: int) -> tuple[bytes, ...]:
    return tuple(log.read(level, 0) for level in reversed(range(size.bit_length())) if size >> level & 1)


def _micro(work: Callable[[int], object], items: Sequence[int]) -> float:
    times = []
    for item in items:
        start = time.perf_counter()
        work(item)
        times.append(time.perf_counter() - start)
    return median(times) * 1e6
