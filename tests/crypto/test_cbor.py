"""Deterministic CBOR: the RFC's examples, an independent library as the oracle, and what must not be read."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.crypto import cbor
from meshd.errors import FormatError

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**64), 2**64 - 1), st.binary(max_size=300), st.text(max_size=80)
)
keys = st.text(max_size=30) | st.integers(-300, 300)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=30)
        | st.dictionaries(st.text(max_size=30) | st.integers(-300, 300), inner, max_size=30)
    ),
    max_leaves=30,
)

# RFC 8949, appendix A: the rows that formats.md F4 allows.
EXAMPLES = [
    (0, "00"),
    (23, "17"),
    (24, "1818"),
    (100, "1864"),
    (1000, "1903e8"),
    (1000000, "1a000f4240"),
    (1000000000000, "1b000000e8d4a51000"),
    (18446744073709551615, "1bffffffffffffffff"),
    (-18446744073709551616, "3bffffffffffffffff"),
    (-1, "20"),
    (-1000, "3903e7"),
    (False, "f4"),
    (True, "f5"),
    (None, "f6"),
    (b"", "40"),
    (b"\x01\x02\x03\x04", "4401020304"),
    ("", "60"),
    ("IETF", "6449455446"),
    ("\u6c34", "63e6b0b4"),
    ([], "80"),
    ([1, [2, 3], [4, 5]], "8301820203820405"),
    (list(range(1, 26)), "98190102030405060708090a0b0c0d0e0f101112131415161718181819"),
    ({}, "a0"),
    ({1: 2, 3: 4}, "a201020304"),
    ({"a": 1, "b": [2, 3]}, "a26161016162820203"),
    (["a", {"b": "c"}], "826161a161626163"),
]


@pytest.mark.parametrize(("value", "octets"), EXAMPLES)
def test_the_examples_of_the_rfc_go_both_ways(value: object, octets: str) -> None:
    assert cbor.encode(value).hex() == octets
    assert cbor.decode(bytes.fromhex(octets)) == value


def test_keys_are_in_the_order_of_their_encodings_not_of_their_lengths() -> None:
    # RFC 8949, 4.2.1: 10, 100, -1, "z", "aa"; the older length-first rule would put -1 before 100.
    assert cbor.encode({"aa": 5, "z": 4, -1: 3, 100: 2, 10: 1}).hex() == "a50a01186402200361" + "7a0462616105"


@settings(max_examples=150)
@given(values)
def test_what_is_written_is_read_back_and_an_independent_reader_agrees(value: object) -> None:
    try:
        octets = cbor.encode(value)
    except FormatError:  # nested too deeply
        return
    assert cbor.decode(octets) == value
    assert cbor2.loads(octets) == value


@settings(max_examples=300)
@given(st.binary(max_size=64))
def test_garbage_raises_only_a_format_error_and_what_is_read_has_one_encoding(data: bytes) -> None:
    try:
        value = cbor.decode(data)
    except FormatError:
        return
    assert cbor.encode(value) == data


@settings(max_examples=150)
@given(values, st.data())
def test_every_truncation_is_refused(value: object, data: st.DataObject) -> None:
    try:
        octets = cbor.encode(value)
    except FormatError:
        return
    with pytest.raises(FormatError):
        cbor.decode(octets[: data.draw(st.integers(0, len(octets) - 1))])


@pytest.mark.parametrize(
    ("why", "octets"),
    [
        ("ends", ""),
        ("ends", "18"),
        ("ends", "4401"),
        ("ends", "9bffffffffffffffff"),
        ("ends", "5b7fffffffffffffff61"),
        ("ends", "bb0fffffffffffffff"),
        ("follow", "0102"),
        ("shortest", "1801"),
        ("shortest", "190018"),
        ("shortest", "1b00000000ffffffff"),
        ("shortest", "580161"),
        ("twice", "a2616101616102"),
        ("order", "a2616201616101"),
        ("order", "a22000186401"),
        ("indefinite", "9f0102ff"),
        ("indefinite", "5f4101ff"),
        ("indefinite", "1c"),
        ("tag", "c074323031332d30332d32315432303a30343a30305a"),
        ("tag", "c249010000000000000000"),
        ("tag", "d81c81d81d00"),
        ("tag", "d9270f01"),
        ("simple", "f97e00"),
        ("simple", "f7"),
        ("simple", "f820"),
        ("simple", "ff"),
        ("UTF-8", "62ffff"),
        ("UTF-8", "63eda080"),
        ("deeply", "a1810102"),
        ("deeply", "a1a001"),
        ("key", "a1f501"),
        ("key", "a1f601"),
        ("deeply", "81" * 17 + "00"),
        ("deeply", "81" * 100000 + "00"),
    ],
)
def test_what_is_not_deterministic_cbor_of_the_allowed_types_is_refused(why: str, octets: str) -> None:
    with pytest.raises(FormatError, match=why):
        cbor.decode(bytes.fromhex(octets))


def test_sixteen_containers_may_nest_and_the_limit_can_be_lowered() -> None:
    octets = b"\x81" * 16 + b"\x00"
    assert cbor.encode(cbor.decode(octets)) == octets
    with pytest.raises(FormatError, match="deeply"):
        cbor.decode(octets, max_depth=15)


@pytest.mark.parametrize(
    "value", [1.5, {1.5: 1}, {None: 1}, {(1, 2): 3}, {True: 1}, 2**64, -(2**64) - 1, {1, 2}, object(), "\ud800"]
)
def test_what_has_no_place_in_the_formats_is_not_written(value: object) -> None:
    with pytest.raises(FormatError):
        cbor.encode(value)


def test_a_container_that_holds_itself_is_not_written() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(FormatError, match="deeply"):
        cbor.encode(loop)
