"""What docs/specs/log.cddl says is what the code writes, and nothing else is read."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycddl import Schema, ValidationError

from harness.merkle_log import MemoryLog, entries
from meshd.crypto import cbor
from meshd.errors import FormatError
from meshd.tlog import leaf
from meshd.tlog.evidence import Evidence, compare
from meshd.tlog.frontier import Frontier
from meshd.tlog.leaf import Leaf, blind_terms, content_digest

CDDL = (Path(__file__).parents[2] / "docs" / "specs" / "log.cddl").read_text()
EXAMPLE = Leaf("T-1", None, "New", "MDLMV-R2LXN", 1_700_000_000, b"v" * 32, content_digest(b"x"), b"t" * 32)
LOG = MemoryLog(entries(20))


@cache
def schema(rule: str) -> Schema:
    """The rule as the first one, which is what a schema checks."""
    return Schema(f"wanted = {rule}\n{CDDL}")


TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=16)
LEAVES = st.builds(
    Leaf,
    tid=TEXT,
    prior=st.none() | TEXT,
    action=st.sampled_from(sorted(leaf.ACTIONS)),
    pkey=TEXT,
    added=st.integers(0, leaf.MAX_TIME),
    vid=st.binary(min_size=32, max_size=32),
    content=st.binary(min_size=32, max_size=32),
    terms=st.binary(min_size=32, max_size=32),
)


@given(LEAVES)
def test_a_leaf_is_as_the_cddl_has_it_and_small(entry: Leaf) -> None:
    data = entry.encode()
    schema("log-leaf").validate_cbor(data)
    assert len(data) <= leaf.MAX_BYTES
    assert Leaf.decode(data) == entry


def test_the_largest_leaf_fits() -> None:
    largest = replace(EXAMPLE, tid="t" * 64, prior="p" * 64, pkey="k" * 128, action="Update", added=leaf.MAX_TIME)
    assert len(largest.encode()) <= leaf.MAX_BYTES


def test_the_hash_of_a_leaf_stays_what_it_is() -> None:
    assert EXAMPLE.hash().hex() == HASH


HASH = "a684c9874db2d084ebdd0954905ccec5d643605ea87e98807fbf1923144f5176"


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, 2),
        (0, True),
        (1, ""),
        (1, "t" * 65),
        (2, []),
        (2, ""),
        (3, "Renew"),
        (3, []),
        (4, "k" * 129),
        (5, -1),
        (5, 2**63),
        (5, True),
        (6, b"v" * 31),
        (7, 7),
        (8, None),
    ],
    ids=range(15),
)
def test_neither_the_cddl_nor_the_code_takes_another_leaf(place: int, value: Any) -> None:
    members = cbor.decode(EXAMPLE.encode())
    assert isinstance(members, list)
    members[place] = value
    data = cbor.encode(members)
    with pytest.raises(FormatError):
        Leaf.decode(data)
    with pytest.raises(ValidationError):
        schema("log-leaf").validate_cbor(data)


def test_terms_are_blinded_in_one_order() -> None:
    terms = [("Type", "b"), ("Account", "a@x"), ("Type", "a")]
    digest = blind_terms(b"s" * 16, terms)
    assert digest == blind_terms(b"s" * 16, [*reversed(terms), terms[0]])
    assert digest != blind_terms(b"S" * 16, terms)
    assert digest != blind_terms(b"s" * 16, terms[:2])
    with pytest.raises(FormatError):
        blind_terms(b"short", terms)


def test_frontiers_are_as_the_cddl_has_them() -> None:
    for size in (0, 1, 7, 20):
        data = Frontier().extend(entries(size)).encode()
        schema("frontier").validate_cbor(data)


def test_evidence_of_every_kind_is_as_the_cddl_has_it() -> None:
    twin = LOG.twin(3)
    found = [
        compare(LOG.note(), twin.note(), LOG.verifiers),
        Evidence.of_rewrite(LOG.note(11), twin.note(), twin.consistency(11), LOG.verifiers),
        Evidence.of_rewrite(LOG.note(8), twin.note(), twin.consistency(9), LOG.verifiers),
        Evidence.of_leaves(LOG.proof(9), LOG.leaf(9), twin.proof(9), twin.leaf(9), LOG.verifiers),
    ]
    assert [one.kind for one in found if one] == ["fork", "rewrite", "prefix", "leaf"]
    for one in found:
        assert one is not None
        schema("evidence").validate_cbor(one.encode())
