"""Symmetric building blocks: what is sealed opens only as it was sealed, and passphrase costs are bounded."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.crypto import sealing
from meshd.errors import DecryptError, FormatError

KEY = bytes(range(32))


@given(st.binary(max_size=200), st.binary(max_size=40))
def test_what_is_sealed_opens(plaintext: bytes, aad: bytes) -> None:
    sealed = sealing.aead_seal(KEY, plaintext, aad, secrets.token_bytes)
    assert len(sealed) == 12 + len(plaintext) + 16
    assert sealing.aead_open(KEY, sealed, aad) == plaintext


def test_no_changed_byte_other_key_or_other_context_opens() -> None:
    sealed = sealing.aead_seal(KEY, b"secret", b"section 1", secrets.token_bytes)
    for at in range(len(sealed)):
        with pytest.raises(DecryptError):
            sealing.aead_open(KEY, sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :], b"section 1")
        with pytest.raises(DecryptError):
            sealing.aead_open(KEY, sealed[:at], b"section 1")
    with pytest.raises(DecryptError):
        sealing.aead_open(KEY, sealed, b"section 2")
    with pytest.raises(DecryptError):
        sealing.aead_open(bytes(32), sealed, b"section 1")


def test_a_key_of_another_length_is_refused() -> None:
    for key in (b"", bytes(16), bytes(24), bytes(33)):
        with pytest.raises(FormatError):
            sealing.aead_seal(key, b"", b"", secrets.token_bytes)
        with pytest.raises(FormatError):
            sealing.aead_open(key, bytes(28), b"")


def test_a_passphrase_gives_the_same_key_however_its_letters_are_composed() -> None:
    parameters = replace(sealing.LEAST_KDF, salt=b"0123456789abcdef")
    key = sealing.derive("caf\u00e9", parameters)
    assert len(key) == 32
    assert sealing.derive("cafe\u0301", parameters) == key
    assert sealing.derive("cafe", parameters) != key
    assert sealing.derive("caf\u00e9", replace(parameters, salt=b"0123456789abcdeX")) != key
    assert sealing.derive("caf\u00e9", replace(parameters, time=3)) != key


def test_the_costs_are_those_of_the_design() -> None:
    device, master = sealing.DEVICE_KDF, sealing.MASTER_KDF
    assert (device.kind, device.memory_kib, device.time, device.lanes) == ("argon2id", 64 * 1024, 3, 4)
    assert (master.kind, master.memory_kib, master.time, master.lanes) == ("argon2id", 256 * 1024, 4, 4)


def test_parameters_survive_a_round_trip_with_a_salt_of_their_own() -> None:
    parameters = sealing.DEVICE_KDF.fresh(secrets.token_bytes)
    assert len(parameters.salt) == 16
    assert parameters.salt != sealing.DEVICE_KDF.fresh(secrets.token_bytes).salt
    assert sealing.KdfParameters.from_dict(parameters.to_dict()) == parameters


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "scrypt"},
        {"kind": None},
        {"memory_kib": 19 * 1024 - 1},
        {"memory_kib": 2**20 + 1},
        {"memory_kib": "65536"},
        {"memory_kib": 65536.0},
        {"time": 1},
        {"time": 17},
        {"time": True},
        {"lanes": 0},
        {"lanes": 17},
        {"salt": b""},
        {"salt": b"short"},
        {"salt": bytes(65)},
        {"salt": "0123456789abcdef"},
        {"more": 1},
    ],
    ids=str,
)
def test_costs_that_are_too_cheap_or_too_dear_are_refused(change: dict[str, Any]) -> None:
    obj = {**sealing.DEVICE_KDF.fresh(secrets.token_bytes).to_dict(), **change}
    with pytest.raises(FormatError):
        sealing.KdfParameters.from_dict(obj)


def test_what_are_no_parameters_is_refused() -> None:
    for obj in (None, [], {}, "x", {1: 2}):
        with pytest.raises(FormatError):
            sealing.KdfParameters.from_dict(obj)


def test_a_passphrase_that_is_no_text_or_endless_is_refused() -> None:
    parameters = sealing.LEAST_KDF.fresh(secrets.token_bytes)
    for passphrase in ("\ud800", "x" * 5000):
        with pytest.raises(FormatError):
            sealing.derive(passphrase, parameters)
    with pytest.raises(FormatError):
        sealing.derive("x", sealing.LEAST_KDF)


def test_hkdf_is_that_of_rfc_5869() -> None:
    """Test case 1."""
    out = sealing.hkdf(b"\x0b" * 22, bytes(range(0xF0, 0xFA)), bytes(range(13)), 42)
    assert out.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"


def test_hkdf_without_salt_is_that_of_rfc_5869() -> None:
    """Test case 3."""
    out = sealing.hkdf(b"\x0b" * 22, b"", length=42)
    assert out.hex() == "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
