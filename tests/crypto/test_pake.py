"""The key exchange: one code gives one key, anything else gives two keys or a clear error."""

from __future__ import annotations

import hashlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.crypto import pake
from meshd.errors import FormatError, LocalProtocolError

CODE = b"7-orbit-walnut"


def fixed(seed: bytes) -> pake.Rng:
    """The same bytes in every run."""
    counter = itertools.count()
    return lambda size: hashlib.shake_256(seed + next(counter).to_bytes(4, "big")).digest(size)


def exchange(
    joiner: bytes = CODE,
    host: bytes = CODE,
    ids_joiner: tuple[bytes, bytes] = (b"a", b"b"),
    ids_host: tuple[bytes, bytes] = (b"a", b"b"),
) -> tuple[bytes, bytes]:
    a = pake.SPAKE2_ED25519.start_joiner(joiner, *ids_joiner, fixed(b"joiner"))
    b = pake.SPAKE2_ED25519.start_host(host, *ids_host, fixed(b"host"))
    return a.finish(b.message), b.finish(a.message)


def test_the_same_code_gives_both_sides_the_same_key() -> None:
    a, b = exchange()
    assert a == b
    assert len(a) == 32


def test_another_code_gives_another_key() -> None:
    a, b = exchange(host=b"7-orbit-wallet")
    assert a != b


@pytest.mark.parametrize("ids", [(b"x", b"b"), (b"a", b"x"), (b"b", b"a")])
def test_other_identities_give_another_key(ids: tuple[bytes, bytes]) -> None:
    a, b = exchange(ids_host=ids)
    assert a != b


def test_the_exchange_is_the_same_in_every_release() -> None:
    a = pake.SPAKE2_ED25519.start_joiner(CODE, b"a", b"b", fixed(b"joiner"))
    assert (a.message[:1], len(a.message)) == (b"A", pake.SPAKE2_ED25519.message_size)
    assert exchange()[0].hex() == "d64df3a5da9f93b28aa4e1affa00fc8a1bd12273f760a7ef668deefabbf2725f"


# Points of Ed25519 by their y, little-endian: the identity, the point of order two, two of order eight, y = p (which
# is 0 once reduced), one that is on no point, and the identity in a second spelling.
IDENTITY = (1).to_bytes(32, "little")
BAD_POINTS = {
    "identity": IDENTITY,
    "order two": (2**255 - 20).to_bytes(32, "little"),
    "order four": bytes(32),
    "order eight": bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    "not reduced": (2**255 - 19).to_bytes(32, "little"),
    "identity, not reduced": (2**255 - 18).to_bytes(32, "little"),
    "off the curve": (2).to_bytes(32, "little"),
}


@pytest.mark.parametrize("point", BAD_POINTS.values(), ids=BAD_POINTS.keys())
@pytest.mark.parametrize("side", ["joiner", "host"])
def test_a_share_that_no_peer_could_have_made_is_refused(side: str, point: bytes) -> None:
    if side == "joiner":
        ours, letter = pake.SPAKE2_ED25519.start_joiner(CODE, b"a", b"b", fixed(b"x")), b"B"
    else:
        ours, letter = pake.SPAKE2_ED25519.start_host(CODE, b"a", b"b", fixed(b"x")), b"A"
    with pytest.raises(FormatError):
        ours.finish(letter + point)


def test_our_own_share_sent_back_is_refused() -> None:
    ours = pake.SPAKE2_ED25519.start_joiner(CODE, b"a", b"b", fixed(b"x"))
    with pytest.raises(FormatError):
        ours.finish(ours.message)
    again = pake.SPAKE2_ED25519.start_joiner(CODE, b"a", b"b", fixed(b"x"))
    with pytest.raises(FormatError):
        again.finish(b"B" + again.message[1:])


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=40))
def test_garbage_raises_only_a_format_error(data: bytes) -> None:
    ours = pake.SPAKE2_ED25519.start_host(CODE, b"a", b"b", fixed(b"x"))
    try:
        ours.finish(data)
    except FormatError:
        pass


@pytest.mark.parametrize("size", [0, 1, 32, 34, 65])
def test_a_share_of_another_length_is_refused(size: int) -> None:
    theirs = pake.SPAKE2_ED25519.start_joiner(CODE, b"a", b"b", fixed(b"y")).message
    ours = pake.SPAKE2_ED25519.start_host(CODE, b"a", b"b", fixed(b"x"))
    with pytest.raises(FormatError):
        ours.finish((theirs * 2)[:size])


def test_an_exchange_is_finished_once() -> None:
    theirs = pake.SPAKE2_ED25519.start_joiner(CODE, b"a", b"b", fixed(b"y")).message
    ours = pake.SPAKE2_ED25519.start_host(CODE, b"a", b"b", fixed(b"x"))
    ours.finish(theirs)
    with pytest.raises(LocalProtocolError):
        ours.finish(theirs)


def test_a_suite_is_chosen_by_its_name() -> None:
    assert pake.choose(("cpace/1", "spake2-ed25519/1")) is pake.SPAKE2_ED25519
    with pytest.raises(FormatError, match="in common"):
        pake.choose(("cpace/1",))


def test_nothing_secret_is_in_the_repr() -> None:
    ours = pake.SPAKE2_ED25519.start_joiner(CODE, b"a", b"b", fixed(b"x"))
    assert repr(ours) == "<key exchange>"


def test_each_purpose_has_its_own_key() -> None:
    assert pake.derive(b"k" * 32, salt=b"s", info="one") != pake.derive(b"k" * 32, salt=b"s", info="two")


def test_the_derivation_is_that_of_rfc_5869() -> None:
    # Appendix A.3: no salt, no info, 42 bytes.
    expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    assert pake.derive(b"\x0b" * 22, salt=b"", info="", length=42).hex() == expected
