"""The tree beside the reference's vectors, beside an independent implementation, and against whoever bends a proof."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path

import pymerkle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.merkle_log import MemoryLog, entries
from meshd.errors import BadRequest, FormatError, ProofError
from meshd.tlog import frontier, tree
from meshd.tlog.frontier import Frontier, verify_page

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "tlog" / "merkle.json").read_text())
LOG = MemoryLog(entries(200))
SIZES = st.integers(0, LOG.size)


def raw(text: str) -> bytes:
    return base64.b64decode(text)


@pytest.fixture(scope="module")
def reference() -> MemoryLog:
    return MemoryLog([tree.leaf_hash(bytes.fromhex(leaf)) for leaf in VECTORS["leaves"]])


def test_the_roots_are_those_of_the_reference(reference: MemoryLog) -> None:
    assert {size: reference.root(int(size)) for size in VECTORS["roots"]} == {
        size: raw(root) for size, root in VECTORS["roots"].items()
    }
    assert reference.root(0) == tree.EMPTY_ROOT


@pytest.mark.parametrize("number", range(len(VECTORS["consistency"])))
def test_consistency_proofs_are_those_of_the_reference(reference: MemoryLog, number: int) -> None:
    case = VECTORS["consistency"][number]
    proof = tuple(map(raw, case["proof"]))
    assert reference.consistency(case["old"], case["new"]) == proof
    tree.verify_consistency(case["old"], case["new"], raw(case["old_root"]), raw(case["new_root"]), proof)


@pytest.mark.parametrize("number", range(len(VECTORS["inclusion"])))
def test_inclusion_proofs_are_those_of_the_reference(reference: MemoryLog, number: int) -> None:
    case = VECTORS["inclusion"][number]
    proof = tuple(map(raw, case["proof"]))
    assert tree.inclusion_proof(case["index"], case["size"], reference.read) == proof
    tree.verify_inclusion(raw(case["leaf"]), case["index"], case["size"], proof, raw(case["root"]))


def test_every_proof_of_every_small_tree_verifies() -> None:
    for size in range(67):
        root = LOG.root(size)
        for index in range(size):
            tree.verify_inclusion(LOG.leaf(index), index, size, tree.inclusion_proof(index, size, LOG.read), root)
        for old in range(size + 1):
            tree.verify_consistency(old, size, LOG.root(old), root, LOG.consistency(old, size))


def test_an_independent_implementation_makes_and_checks_the_same_proofs() -> None:
    other = pymerkle.InmemoryTree(algorithm="sha256")
    for number in range(70):
        other.append_entry(str(number).encode())
    for size in (1, 2, 3, 7, 8, 9, 31, 32, 33, 64, 65, 70):
        root = LOG.root(size)
        assert other.get_root(size) == root
        for index in range(0, size, 3):
            theirs = other.prove_inclusion(index + 1, size)
            ours = tree.inclusion_proof(index, size, LOG.read)
            tree.verify_inclusion(LOG.leaf(index), index, size, theirs.path[1:], root)
            mine = pymerkle.InclusionProof(
                theirs.algorithm, theirs.security, size, index + 1, theirs.rule, [LOG.leaf(index), *ours]
            )
            pymerkle.verify_inclusion(LOG.leaf(index), root, mine, index=index + 1, size=size)
        for old in range(1, size):
            # Its proof is the path of the leaf right after the old tree, which binds that tree's root as well.
            proof = other.prove_consistency(old, size)
            path = tree.inclusion_proof(old, size, LOG.read)
            assert (tuple(proof.path), tree.root_before(old, size, path)) == ((LOG.leaf(old), *path), LOG.root(old))
            pymerkle.verify_consistency(LOG.root(old), root, proof, prior_size=old, later_size=size)


def mth(leaves: Sequence[bytes]) -> bytes:
    """RFC 9162, 2.1.1, word for word."""
    if len(leaves) < 2:
        return leaves[0] if leaves else tree.EMPTY_ROOT
    k = half(len(leaves))
    return tree.node_hash(mth(leaves[:k]), mth(leaves[k:]))


def subproof(old: int, leaves: Sequence[bytes], whole: bool) -> list[bytes]:
    """RFC 9162, 2.1.4.1, word for word."""
    if old == len(leaves):
        return [] if whole else [mth(leaves)]
    k = half(len(leaves))
    if old <= k:
        return [*subproof(old, leaves[:k], whole), mth(leaves[k:])]
    return [*subproof(old - k, leaves[k:], False), mth(leaves[:k])]


def half(size: int) -> int:
    return max(1 << power for power in range(size.bit_length()) if 1 << power < size)


def test_roots_and_consistency_proofs_are_those_of_the_definition() -> None:
    leaves = [LOG.leaf(index) for index in range(48)]
    for size in range(1, len(leaves) + 1):
        assert LOG.root(size) == mth(leaves[:size])
        for old in range(1, size + 1):
            assert LOG.consistency(old, size) == tuple(subproof(old, leaves[:size], True))


@given(st.data())
def test_no_bent_inclusion_proof_verifies(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, LOG.size))
    index = data.draw(st.integers(0, size - 1))
    good = [LOG.leaf(index), *tree.inclusion_proof(index, size, LOG.read), LOG.root(size)]
    bent, where = data.draw(bends(good))
    with pytest.raises(ProofError):
        tree.verify_inclusion(bent[0], index, size, bent[1:-1], bent[-1])
    assert where


@given(st.data())
def test_no_bent_consistency_proof_verifies(data: st.DataObject) -> None:
    new = data.draw(st.integers(2, LOG.size))
    old = data.draw(st.integers(1, new - 1))
    good = [LOG.root(old), *LOG.consistency(old, new), LOG.root(new)]
    bent, where = data.draw(bends(good))
    with pytest.raises(ProofError):
        tree.verify_consistency(old, new, bent[0], bent[-1], bent[1:-1])
    assert where


@st.composite
def bends(draw: st.DrawFn, good: list[bytes]) -> tuple[list[bytes], str]:
    """The list with a bit flipped, a hash left out, put in or put elsewhere; and what was done."""
    bent = list(good)
    at = draw(st.integers(0, len(bent) - 1))
    match what := draw(st.sampled_from(["flip", "insert", "remove", "cut"])):
        case "flip":
            bit = draw(st.integers(0, 255))
            bent[at] = (int.from_bytes(bent[at], "big") ^ (1 << bit)).to_bytes(32, "big")
        case "insert":
            bent.insert(draw(st.integers(1, len(bent) - 1)), draw(st.sampled_from([*good, bytes(32)])))
        case "remove" if len(bent) > 2:
            del bent[draw(st.integers(1, len(bent) - 2))]
        case _:
            bent[at] = bent[at][:31]
    return bent, what


@given(SIZES)
def test_from_nothing_every_tree_is_consistent_and_only_with_an_empty_proof(size: int) -> None:
    tree.verify_consistency(0, size, tree.EMPTY_ROOT, LOG.root(size), ())
    with pytest.raises(ProofError):
        tree.verify_consistency(0, size, tree.EMPTY_ROOT, LOG.root(size), [bytes(32)])
    with pytest.raises(ProofError):
        tree.verify_consistency(0, size, bytes(32), LOG.root(size), ())


@pytest.mark.parametrize(("old", "new"), [(-1, 3), (4, 3), (1, 2**63)])
def test_impossible_sizes_are_refused(old: int, new: int) -> None:
    with pytest.raises(ProofError):
        tree.verify_consistency(old, new, bytes(32), bytes(32), [bytes(32)])
    with pytest.raises(BadRequest):
        tree.consistency_proof(old, new, LOG.read)


def test_a_proof_of_more_hashes_than_any_log_needs_is_refused_at_once() -> None:
    with pytest.raises(ProofError, match="64"):
        tree.verify_inclusion(bytes(32), 0, 2**62, [bytes(32)] * 100, bytes(32))


def test_a_leaf_that_is_not_there_has_no_proof() -> None:
    for index, size in ((0, 0), (5, 5), (-1, 5)):
        with pytest.raises(BadRequest):
            tree.inclusion_proof(index, size, LOG.read)
        with pytest.raises(ProofError):
            tree.verify_inclusion(bytes(32), index, size, (), bytes(32))


@given(st.integers(0, 199), st.integers(1, 200))
def test_a_path_binds_the_root_of_all_before_its_leaf(index: int, size: int) -> None:
    if 0 < index < size:
        path = tree.inclusion_proof(index, size, LOG.read)
        assert tree.root_before(index, size, path) == LOG.root(index)


@given(SIZES, SIZES)
def test_the_frontier_is_the_tree(first: int, second: int) -> None:
    first, second = min(first, second), max(first, second)
    edge = Frontier().extend(LOG.leaf(index) for index in range(first))
    assert edge.root() == LOG.root(first)
    assert Frontier.decode(edge.encode()) == edge
    for index in range(first, min(second, first + 5)):
        edge = edge.append(LOG.leaf(index))
        assert edge.root() == LOG.root(index + 1)


@given(SIZES, st.integers(0, 30), st.integers(0, 29))
def test_a_page_is_taken_whole_or_not_at_all(first: int, count: int, bad: int) -> None:
    leaves = [LOG.leaf(index) for index in range(first, min(first + count, LOG.size))]
    before = Frontier().extend(LOG.leaf(index) for index in range(first))
    proof = LOG.consistency(first + len(leaves))
    after = verify_page(before, leaves, LOG.size, LOG.root(), proof)
    assert (after.size, after.root()) == (first + len(leaves), LOG.root(first + len(leaves)))
    if bad < len(leaves):
        for wrong in (leaves[:bad] + leaves[bad + 1 :], [*leaves[:bad], bytes(32), *leaves[bad + 1 :]]):
            with pytest.raises(ProofError):
                verify_page(before, wrong, LOG.size, LOG.root(), proof)


@pytest.mark.parametrize(
    "data", [b"", b"\x80", b"\x82\x01\x40", b"\x82\x00\x41a", b"\x82\x20\x40", b"\x82\x03\x58\x20"]
)
def test_a_frontier_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        Frontier.decode(data)


def test_the_largest_frontier_fits_its_bound() -> None:
    edge = Frontier(tree.MAX_SIZE, (bytes(32),) * 63)
    assert len(edge.encode()) <= frontier.MAX_ENCODED
    assert Frontier.decode(edge.encode()) == edge


def test_a_leaf_completes_the_subtrees_that_end_with_it() -> None:
    assert tree.completed(7) == [(0, 7), (1, 3), (2, 1), (3, 0)]
    assert tree.completed(8) == [(0, 8)]
