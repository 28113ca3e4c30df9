"""Codes and URIs: what a person types is forgiven, what a machine writes has one spelling."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shamir_mnemonic.wordlist import WORDLIST

from meshd.errors import FormatError, VersionMismatch
from meshd.pairing.code import (
    Code,
    PairingSecret,
    PairingUri,
    check_address,
    complete_word,
    new_code,
    parse,
    parse_code,
    parse_uri,
)

SECRET = bytes(range(16))
words = st.sampled_from(WORDLIST)
codes = st.builds(Code, st.integers(1, 99), st.lists(words, min_size=2, max_size=3).map(tuple))
addresses = st.one_of(
    st.builds(lambda ip, port: f"{ip}:{port}", st.ip_addresses(v=4), st.integers(1, 65535)),
    st.builds(lambda ip, port: f"[{ip}]:{port}", st.ip_addresses(v=6), st.integers(1, 65535)),
    st.builds(lambda port: f"laptop-7.local:{port}", st.integers(1, 65535)),
)


def test_a_new_code_has_a_slot_and_two_words() -> None:
    slot, *rest = new_code(lambda size: bytes(size), 7).split("-")
    assert slot == "7"
    assert rest == [WORDLIST[0]] * 2
    assert len(new_code(lambda size: b"\xff" * size, 99, words=3).split("-")) == 4


def test_every_word_is_as_likely_as_any_other() -> None:
    # Two random bytes choose a word: over all of their values each word comes 64 times.
    values = iter(range(65536))
    drawn = Counter(
        word for _ in range(32768) for word in new_code(lambda _: next(values).to_bytes(2, "big"), 1).split("-")[1:]
    )
    assert set(drawn) == set(WORDLIST)
    assert set(drawn.values()) == {64}


@settings(max_examples=60)
@given(codes)
def test_a_code_is_read_as_it_was_shown(code: Code) -> None:
    assert parse_code(code.text) == code
    assert code.secret == PairingSecret("code", code.text.encode())


@settings(max_examples=60)
@given(codes, st.sampled_from(["-", " ", "  ", "_", ".", ", ", " - "]), st.booleans())
def test_a_code_is_read_whatever_stands_between_its_parts(code: Code, separator: str, upper: bool) -> None:
    typed = separator.join(code.text.split("-"))
    assert parse_code(f"  {typed.upper() if upper else typed}\n") == code


@settings(max_examples=60)
@given(codes)
def test_four_letters_of_a_word_are_enough(code: Code) -> None:
    assert parse_code("-".join((str(code.slot), *(word[:4] for word in code.words)))) == code


@pytest.mark.parametrize(("typed", "slot"), [("07-orbit-walnut", 7), ("99 orbi waln", 99), ("７-ｏｒｂｉｔ-walnut", 7)])
def test_the_slot_is_forgiven_too(typed: str, slot: int) -> None:
    assert parse_code(typed) == Code(slot, ("orbit", "walnut"))


def test_a_mistyped_word_is_named_with_its_neighbours() -> None:
    with pytest.raises(FormatError, match=r"'wallnut'.*did you mean.*walnut") as caught:
        parse_code("7-orbit-wallnut")
    assert "orbit" not in str(caught.value)  # the right words are still secret
    assert "walnut" in (caught.value.hint or "")
    with pytest.raises(FormatError, match="'xyzzy' is not a word") as caught:
        parse_code("7-orbit-xyzzy")
    assert caught.value.hint is None


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "-",
        "7",
        "7-orbit",
        "orbit-walnut",
        "0-orbit-walnut",
        "00-orbit-walnut",
        "100-orbit-walnut",
        "7abc-orbit-walnut",
        "-7a-orbit-walnut",
        "7-orb-walnut",
        "7-orbit-walnuts",
        "7" + "-orbit" * 9,
        "7-" + "x" * 1000,
        "7-orbit-\x00",
    ],
)
def test_what_is_no_code_is_refused(typed: str) -> None:
    with pytest.raises(FormatError):
        parse_code(typed)


@settings(max_examples=100)
@given(st.text(max_size=60))
def test_whatever_is_typed_raises_only_a_format_error(typed: str) -> None:
    try:
        parse(typed)
    except (FormatError, VersionMismatch):
        pass


def test_a_code_cannot_be_made_of_other_words() -> None:
    for make in (
        lambda: Code(7, ("orbit", "xyzzy")),
        lambda: Code(0, ("orbit", "walnut")),
        lambda: Code(7, ("orbit",)),
    ):
        with pytest.raises(FormatError):
            make()


def test_words_complete() -> None:
    assert complete_word("waln") == ["walnut"]
    assert len(complete_word("")) == 1024


@settings(max_examples=80)
@given(
    st.one_of(codes, st.binary(min_size=16, max_size=16)),
    st.lists(addresses, max_size=8),
    st.binary(max_size=32),
    st.none() | st.binary(min_size=32, max_size=32),
)
def test_a_uri_is_read_as_it_was_written(
    key: Code | bytes, where: list[str], token: bytes, certificate_hash: bytes | None
) -> None:
    code, secret = (key, None) if isinstance(key, Code) else (None, key)
    uri = PairingUri(code, secret, tuple(where), token, certificate_hash)
    assert parse_uri(uri.text) == uri
    assert parse(f"  {uri.text}\n") == uri
    assert uri.pairing_secret == (code.secret if code else PairingSecret("secret", secret or b""))
    assert set(uri.text) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:?&=%")


def test_the_spelling_of_a_uri_is_fixed() -> None:
    uri = PairingUri(
        secret=SECRET,
        addresses=("192.0.2.7:4711", "[2001:DB8:0::7]:4711"),
        token=b"8 bytes!",
        certificate_hash=hashlib.sha256(b"certificate").digest(),
    )
    assert uri.text == (
        "mesh-pair:?v=1&s=AAECAwQFBgcICQoLDA0ODw&a=192.0.2.7:4711&a=%5B2001:db8::7%5D:4711"
        "&t=OCBieXRlcyE&f=A9Zt0Ig1wco_EozOrNHzGslBYwlrIPRFroQoW8CDLXI"
    )
    assert PairingUri(code=parse_code("7-orbit-walnut")).text == "mesh-pair:?v=1&c=7-orbit-walnut"


@pytest.mark.parametrize(
    "text",
    [
        "mesh-pair:?",
        "mesh-pair:?v=1",
        "MESH-PAIR:?v=1&c=7-orbit-walnut",
        "mesh-pair:?v=1&c=7-orbit-walnut&s=AAECAwQFBgcICQoLDA0ODw",
        "mesh-pair:?v=1&c=7-ORBIT-walnut",
        "mesh-pair:?v=1&c=7-orbi-waln",
        "mesh-pair:?v=1&c=7-orbit-walnut&c=7-orbit-walnut",
        "mesh-pair:?c=7-orbit-walnut&v=1",
        "mesh-pair:?v=1&c=7-orbit-walnut&z=1",
        "mesh-pair:?v=1&c=7-orbit-walnut&",
        "mesh-pair:?v=1&c=7-orbit-walnut&t=",
        "mesh-pair:?v=1&c=7-orbit-walnut&t=x",
        "mesh-pair:?v=1&c=7-orbit-walnut&f=AAAA",
        "mesh-pair:?v=1&c=7-orbit-walnut#fragment",
        "mesh-pair:?v=1&s=AAECAwQFBgcICQoLDA0OD",
        "mesh-pair:?v=1&s=AAECAwQFBgcICQoLDA0ODw==",
        "mesh-pair:?v=1&s=AAECAwQFBgcICQoLDA0OD1",
        "mesh-pair:?v=1&s=AAECAwQFBgcICQoLDA0ODw&a=192.0.2.7",
        "mesh-pair:?v=1&s=AAECAwQFBgcICQoLDA0ODw&a=[2001:db8::7]:1",
        "mesh-pair:?v=1&s=AAECAwQFBgcICQoLDA0ODw&a=%5b2001:db8::7%5d:1",
        "mesh-pair:?v=1&s=AAECAwQFBgcICQoLDA0ODw" + "&a=192.0.2.7:1" * 9,
        "mesh-pair:?v=1&c=7-orbit-walnut&t=" + "A" * 3000,
    ],
)
def test_any_other_spelling_of_a_uri_is_refused(text: str) -> None:
    with pytest.raises((FormatError, VersionMismatch)):
        parse_uri(text)


def test_a_uri_of_another_version_is_a_matter_of_releases() -> None:
    with pytest.raises(VersionMismatch):
        parse_uri("mesh-pair:?v=2&x=1")


@pytest.mark.parametrize(
    ("typed", "usual"),
    [
        ("192.0.2.7:1", "192.0.2.7:1"),
        ("Laptop.LOCAL:65535", "laptop.local:65535"),
        ("[2001:DB8:0:0::7]:22", "[2001:db8::7]:22"),
        ("localhost:4711", "localhost:4711"),
    ],
)
def test_addresses_have_a_usual_spelling(typed: str, usual: str) -> None:
    assert check_address(typed) == usual


@pytest.mark.parametrize(
    "typed",
    [
        "",
        ":1",
        "host",
        "host:",
        "host:0",
        "host:65536",
        "host:007",
        "host:1x",
        "host :1",
        "-host:1",
        "a..b:1",
        "192.0.2.256:1",
        "1.2.3:1",
        "2001:db8::7:1",
        "[fe80::1%eth0]:1",
        "[192.0.2.7]:1",
        "[::1:1",
        "höst:1",
        "h/path:1",
        "user@host:1",
        "x" * 300 + ":1",
        "host:\u0661",
    ],
)
def test_what_is_no_address_is_refused(typed: str) -> None:
    with pytest.raises(FormatError):
        check_address(typed)


def test_secrets_are_in_no_repr() -> None:
    uri = PairingUri(secret=SECRET, token=b"8 bytes!")
    coded = PairingUri(code=parse_code("7-orbit-walnut"))
    for shown in itertools.chain.from_iterable(
        (repr(value), str(value))
        for value in (uri, coded, coded.code, coded.pairing_secret, PairingSecret.random(bytes))
    ):
        for secret in ("orbit", "walnut", "AAECAw", "x01", "8 bytes!", "x00"):
            assert secret not in shown
