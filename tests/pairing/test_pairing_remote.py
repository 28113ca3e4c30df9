"""Invitations through a portal: their one spelling, and a witness that fits one secret, mesh and device alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.crypto import fingerprint, udf
from meshd.errors import FormatError
from meshd.pairing import remote
from meshd.pairing.remote import RemoteUri

MESH = udf.make(udf.RANDOM, b"mesh")
OTHER = udf.make(udf.RANDOM, b"other")


def rng(length: int) -> bytes:
    return bytes(range(length))


ADDRESSES = ("", "192.0.2.7:8443", "[2001:db8::7]:443", "portal.example.net:8080")


@given(st.text(min_size=1, max_size=40), st.binary(min_size=10, max_size=64), st.sampled_from(ADDRESSES), st.booleans())
@settings(max_examples=50, deadline=None)
def test_a_uri_reads_back_what_was_written(name: str, secret: bytes, address: str, plain: bool) -> None:
    try:
        uri = RemoteUri(f"{name}@example.net", MESH, secret, address, plain)
        text = uri.text
    except (FormatError, UnicodeEncodeError):
        return
    assert remote.parse(f" {text}\n") == uri
    assert remote.is_remote(text) and len(text) <= remote.MAX_URI


def test_what_would_be_too_long_to_be_read_is_not_made() -> None:
    assert RemoteUri("\U00010000" * 64 + "@example.net", MESH, bytes(16), "192.0.2.7:1")
    with pytest.raises(FormatError):
        RemoteUri("\U00010000" * 64 + "@" + "a.example." * 20, MESH, bytes(16))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mesh-pair:?v=1&c=7-orbit-walnut",
        f"mesh-pair:?a=alice%40example.net&m={MESH}",
        f"mesh-pair:?a=alice%40example.net&m={MESH}&s=AAAAAAAAAAAA",
        f"mesh-pair:?a=alice%40example.net&m={MESH}&s=AAAAAAAAAAAAAAAAAAAAAA&x=1",
        f"mesh-pair:?a=alice@example.net&m={MESH}&s=AAAAAAAAAAAAAAAAAAAAAA",
        f"mesh-pair:?a=alice&m={MESH}&s=AAAAAAAAAAAAAAAAAAAAAA",
        "mesh-pair:?a=alice%40example.net&m=MBE6E-GT7SN-MK74P-74NIR-5XI5U-JNNJR&s=AAAAAAAAAAAAAAAAAAAAAA",
        f"mesh-pair:?a=%ff%40example.net&m={MESH}&s=AAAAAAAAAAAAAAAAAAAAAA",
        f"mesh-pair:?a=alice%40example.net&m={MESH}&s=AAAAAAAAAAAAAAAAAAAAAA&h=",
        f"mesh-pair:?a=alice%40example.net&m={MESH}&s=AAAAAAAAAAAAAAAAAAAAAA&h=example.net",
        f"mesh-pair:?a=alice%40example.net&m={MESH}&s=AAAAAAAAAAAAAAAAAAAAAA&h=a%2fb:1",
        f"mesh-pair:?a=alice%40example.net&m={MESH}&s=AAAAAAAAAAAAAAAAAAAAAA&h=%5Bfe80::1%25eth0%5D:1",
        f"mesh-pair:?a=alice%40example.net&m={MESH}&s=AAAAAAAAAAAAAAAAAAAAAA&i=0",
        f"mesh-pair:?a=alice%40example.net&m={MESH}&s=AAAAAAAAAAAAAAAAAAAAAA&i=1&h=192.0.2.7:1",
        f"mesh-pair:?a=alice%40example.net&m={MESH}&s=AAAAAAAAAAAAAAAAAAAAAA&h=192.0.2.7:1&h=192.0.2.7:1",
    ],
    ids=str.__len__,
)
def test_any_other_spelling_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        remote.parse(text)


def test_a_witness_proves_one_secret_mesh_and_device() -> None:
    secret, device = b"s" * 16, b"d" * 32
    token = remote.pin_token(secret, MESH, device, rng)
    assert token.startswith("pin1.")
    assert len(token) <= 256  # what a BlockToken may have
    assert remote.proves(token, secret, MESH, device)
    assert not remote.proves(token, b"t" * 16, MESH, device)
    assert not remote.proves(token, secret, OTHER, device)
    assert not remote.proves(token, secret, MESH, b"e" * 32)
    assert not remote.proves(remote.fingerprint_token(rng), secret, MESH, device)


def test_a_device_says_whether_its_keys_are_sealed_beside_what_it_proves() -> None:
    secret, device = b"s" * 16, b"d" * 32
    for unsealed in (False, True):
        token = remote.pin_token(secret, MESH, device, rng, unsealed=unsealed)
        assert remote.is_unsealed(token) is unsealed
        assert remote.proves(token, secret, MESH, device)
        assert remote.is_unsealed(remote.fingerprint_token(rng, unsealed=unsealed)) is unsealed


@pytest.mark.parametrize("token", ["", "pin1", "pin1..", "pin1.AAAA.AAAA", "pin1.*.*", "lp1.a.b"])
def test_what_is_no_witness_proves_nothing(token: str) -> None:
    assert not remote.proves(token, b"s" * 16, MESH, b"d" * 32)


def test_a_short_secret_proves_nothing_whatever_it_is() -> None:
    token = remote.pin_token(b"short", MESH, b"d" * 32, rng)
    assert not remote.proves(token, b"short", MESH, b"d" * 32)


def test_words_are_the_whole_fingerprint_in_another_spelling() -> None:
    words = fingerprint.words(MESH)
    assert len(words) == 20
    assert fingerprint.text(MESH).split() == list(words)
    last = "A" if MESH[-1] != "A" else "B"
    assert fingerprint.words(MESH[:-1] + last)[:-1] == words[:-1]
    assert fingerprint.words(MESH[:-1] + last)[-1] != words[-1]
    assert len(fingerprint.words("MBE6E-GT7SN-MK74P-74NIR-5XI5U-JNNJR")) == 15
    with pytest.raises(FormatError):
        fingerprint.words("MBE6E")
