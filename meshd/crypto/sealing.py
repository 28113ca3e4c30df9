"""Symmetric building blocks: sealing at rest, keys from passphrases, key derivation (formats.md F6, F9, F10).

One cipher (AES-256-GCM, RFC 5116), one passphrase function (Argon2id, RFC 9106), one derivation (HKDF-SHA256,
RFC 5869). Passphrase parameters travel beside what they seal, so they are bounded both ways when read: too cheap would
be a downgrade, too dear would be a way to stop a device.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from meshd.crypto.keys import Rng
from meshd.errors import DecryptError, FormatError

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
SALT_BYTES = 16

ARGON2ID = "argon2id"
MIN_MEMORY_KIB, MAX_MEMORY_KIB = 19 * 1024, 1024 * 1024
MIN_TIME, MAX_TIME = 2, 16
MIN_LANES, MAX_LANES = 1, 16
MAX_SALT_BYTES = 64
MAX_PASSPHRASE_BYTES = 4096


def _within(what: str, value: object, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:  # a bool is no number here
        raise FormatError(f"a passphrase function whose {what} is not between {least} and {most}")


def aead_seal(key: bytes, plaintext: bytes, aad: bytes, rng: Rng) -> bytes:
    """nonce (12 bytes) ‖ AES-256-GCM(key, nonce, plaintext, aad) with its 16-byte tag."""
    nonce = rng(NONCE_BYTES)
    return nonce + cipher(key).encrypt(nonce, plaintext, aad)


def aead_open(key: bytes, sealed: bytes, aad: bytes) -> bytes:
    """Undo `aead_seal`; DecryptError for another key, other associated data, or a changed byte."""
    if len(sealed) < NONCE_BYTES + TAG_BYTES:
        raise DecryptError("sealed data that is too short")
    try:
        return cipher(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], aad)
    except InvalidTag:
        raise DecryptError from None


def cipher(key: bytes) -> AESGCM:
    """AES-256-GCM under a key of exactly 32 bytes (no shorter AES by accident); FormatError otherwise."""
    if len(key) != KEY_BYTES:
        raise FormatError(f"a key of {len(key)} bytes: {KEY_BYTES} are needed")
    return AESGCM(key)


@dataclass(frozen=True, slots=True)
class KdfParameters:
    """What beside the passphrase determines a key. FormatError for costs out of bounds, an unknown kind, a short salt.

    `memory_kib` in KiB, `time` in passes, `lanes` in threads. An empty salt makes a template for `fresh`.
    """

    kind: str
    memory_kib: int
    time: int
    lanes: int
    salt: bytes = b""

    def __post_init__(self) -> None:
        if self.kind != ARGON2ID:
            raise FormatError(f"an unknown passphrase function {str(self.kind)[:20]!r}")
        _within("memory", self.memory_kib, MIN_MEMORY_KIB, MAX_MEMORY_KIB)
        _within("time", self.time, MIN_TIME, MAX_TIME)
        _within("lanes", self.lanes, MIN_LANES, MAX_LANES)
        if not isinstance(self.salt, bytes):
            raise FormatError("a passphrase function whose salt is not bytes")
        if self.salt:
            _within("salt length", len(self.salt), SALT_BYTES, MAX_SALT_BYTES)

    def fresh(self, rng: Rng) -> KdfParameters:
        """The same costs under a new salt."""
        return replace(self, salt=rng(SALT_BYTES))

    def to_dict(self) -> dict[str, Any]:
        """`{"kind", "memory_kib", "time", "lanes", "salt"}`, the salt as bytes, for CBOR."""
        return {
            "kind": self.kind,
            "memory_kib": self.memory_kib,
            "time": self.time,
            "lanes": self.lanes,
            "salt": self.salt,
        }

    @classmethod
    def from_dict(cls, obj: object) -> KdfParameters:
        """Read what `to_dict` wrote; FormatError for other members or costs out of bounds."""
        if not isinstance(obj, Mapping) or set(obj) != {"kind", "memory_kib", "time", "lanes", "salt"}:
            raise FormatError("passphrase parameters with other members than kind, memory_kib, time, lanes and salt")
        parameters = cls(obj["kind"], obj["memory_kib"], obj["time"], obj["lanes"], obj["salt"])
        if not parameters.salt:
            raise FormatError("passphrase parameters without a salt")
        return parameters


DEVICE_KDF = KdfParameters(ARGON2ID, 64 * 1024, 3, 4)  # RFC 9106 §4, the second recommended option
MASTER_KDF = KdfParameters(ARGON2ID, 256 * 1024, 4, 4)  # rarely used, guards everything
LEAST_KDF = KdfParameters(ARGON2ID, MIN_MEMORY_KIB, MIN_TIME, MIN_LANES)  # the cheapest that is accepted


def derive(passphrase: str, parameters: KdfParameters) -> bytes:
    """The 32-byte key of a passphrase; blocking, 0.1 to 2 s.

    The passphrase is normalised to NFC, so that the same letters typed on another keyboard give the same key; not to
    NFKC, which would make different letters equal. FormatError for a template without a salt or over 4096 bytes.
    """
    if not parameters.salt:
        raise FormatError("passphrase parameters without a salt")
    try:
        secret = unicodedata.normalize("NFC", passphrase).encode("utf-8")
    except UnicodeEncodeError:
        raise FormatError("a passphrase with half a character in it") from None
    if len(secret) > MAX_PASSPHRASE_BYTES:
        raise FormatError(f"a passphrase of more than {MAX_PASSPHRASE_BYTES} bytes")
    function = Argon2id(
        salt=parameters.salt,
        length=KEY_BYTES,
        iterations=parameters.time,
        lanes=parameters.lanes,
        memory_cost=parameters.memory_kib,
    )
    return function.derive(secret)


def hkdf(key: bytes, info: bytes, salt: bytes = b"", length: int = KEY_BYTES) -> bytes:
    """HKDF-SHA256 (RFC 5869): `length` bytes for the purpose that `info` names."""
    return HKDF(SHA256(), length, salt or None, info).derive(key)
