"""CBOR made to be expensive: refused before it costs anything, and with nothing but a FormatError."""

from __future__ import annotations

import itertools
import time

import pytest

from meshd.crypto import cbor
from meshd.errors import FormatError

MANY = 60_000
# Tuples of -1 and -2 all have the same hash: as map keys they would cost the square of their number.
COLLIDING = b"".join(
    b"\x90" + bytes(choice) + b"\x00" for choice in itertools.islice(itertools.product(b"\x20\x21", repeat=16), MANY)
)
MAP = b"\xb9" + MANY.to_bytes(2, "big")


@pytest.mark.parametrize(
    "data",
    [
        MAP + COLLIDING,
        b"\xa1\x01" + MAP + COLLIDING,
        b"\x82\x00\xa1\x00\x81" + MAP + COLLIDING,
        b"\xc6" * 1_000_000 + b"\x00",
        b"\xd8\x1c" * 1_000_000 + b"\x00",
        b"\x81" * 1_000_000,
        b"\xa1\x00" * 1_000_000,
        b"\xa1\x60" * 1_000_000,
        b"\xd8\x1c\x82" + b"\x82\xd8\x1d\x00\xd8\x1d\x00" * 100_000,
    ],
    ids=["keys", "keys below an integer", "keys in a frame", "tags", "shares", "arrays", "maps", "text maps", "laughs"],
)
def test_what_would_be_expensive_is_refused_at_once(data: bytes) -> None:
    begin = time.perf_counter()
    with pytest.raises(FormatError):
        cbor.decode(data)
    assert time.perf_counter() - begin < 1  # milliseconds; with collisions it would be minutes


@pytest.mark.parametrize("major", range(6))
@pytest.mark.parametrize("argument", ["1a7fffffff", "1affffffff", "1b7fffffffffffffff", "1bffffffffffffffff"])
@pytest.mark.parametrize("before", ["", "a100", "81", "a160"])
def test_a_length_claim_allocates_nothing_and_raises_only_a_format_error(
    major: int, argument: str, before: str
) -> None:
    head = bytes.fromhex(argument)
    data = bytes.fromhex(before) + bytes([head[0] | major << 5]) + head[1:]
    if major < 2:
        assert cbor.encode(cbor.decode(data)) == data
    else:
        with pytest.raises(FormatError):
            cbor.decode(data + b"\x00")


def test_no_error_repeats_what_was_in_the_data() -> None:
    for data in ("a266736563726574016673656372657402", "a1667365637265748167ff", "a1667365637265747f", "a1f866736563"):
        with pytest.raises(FormatError) as caught:
            cbor.decode(bytes.fromhex(data))
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None
