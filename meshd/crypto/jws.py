"""Signed data: JWS in flattened JSON, Ed25519 alone (formats.md F2; RFC 7515, RFC 8037, RFC 9864).

The protected header has exactly one spelling for a signer, so it is compared, not parsed: no message chooses an
algorithm, and no header member can mean anything. The bytes that were signed are kept as they came. Every version of
a first sync passes here, so nothing is decoded twice.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, field
from typing import Any

from meshd.crypto import base64url, udf
from meshd.crypto.keys import SIGNATURE_BYTES, SigningKey, VerifyKey
from meshd.errors import FormatError, SignatureError

MAX_PAYLOAD = 2 * 1024 * 1024

_HEAD = b'{"alg":"Ed25519","kid":"'
_TAIL = b'"}'
_HEADER_BYTES = len(_HEAD) + 47 + len(_TAIL)
_MEMBERS = {"protected", "payload", "signature"}


@dataclass(frozen=True, slots=True)
class Jws:
    """A signature with what it covers, as raw bytes (nothing in base64). Not verified by being one."""

    protected: bytes
    payload: bytes
    signature: bytes
    covered: bytes = field(init=False, repr=False, compare=False)  # the signing input, spelled once

    def __post_init__(self) -> None:
        object.__setattr__(self, "covered", signing_input(self.protected, self.payload))

    @property
    def digest(self) -> bytes:
        """SHA-256 of the signing input: the last part of a vid (formats.md F1)."""
        return hashlib.sha256(self.covered).digest()


def protected_header(kid: str) -> bytes:
    """A signer's one protected header, `{"alg":"Ed25519","kid":"…"}`; FormatError unless `kid` is a UDF of 200 bits."""
    if not udf.is_current(kid):
        raise FormatError(f"not the fingerprint of an Ed25519 key: {kid[:50]!r}")
    return _HEAD + kid.encode("ascii") + _TAIL


def signing_input(protected: bytes, payload: bytes) -> bytes:
    """What a signature covers: base64url(protected) "." base64url(payload) (RFC 7515 §5.1)."""
    return base64url.spell(protected) + b"." + base64url.spell(payload)


def sign(key: SigningKey, payload: bytes) -> Jws:
    """Sign a payload of at most 2 MiB; FormatError above."""
    if len(payload) > MAX_PAYLOAD:
        raise FormatError(f"a payload of {len(payload)} bytes: at most {MAX_PAYLOAD} are allowed")
    protected = protected_header(key.udf)
    return Jws(protected, payload, key.sign(signing_input(protected, payload)))


@functools.lru_cache(maxsize=1024)  # a store has many versions by few signers
def signer(protected: bytes) -> str:
    """The UDF of who claims to have signed; FormatError unless the header is byte for byte the one that F2 allows."""
    if len(protected) == _HEADER_BYTES and protected.startswith(_HEAD) and protected.endswith(_TAIL):
        kid = protected[len(_HEAD) : -len(_TAIL)].decode("ascii", "replace")
        if udf.is_current(kid):
            return kid
    raise FormatError("a protected header other than alg Ed25519 and the signer's kid")


def verify(jws: Jws, key: VerifyKey) -> None:
    """SignatureError unless `key` signed this; FormatError for a header or size that no signer makes."""
    if len(jws.payload) > MAX_PAYLOAD:
        raise FormatError(f"a payload of {len(jws.payload)} bytes: at most {MAX_PAYLOAD} are allowed")
    if signer(jws.protected) != key.udf:
        raise SignatureError("signed by another key than the expected one")
    key.verify(jws.signature, jws.covered)


def to_json(jws: Jws) -> dict[str, str]:
    """`{"protected", "payload", "signature"}` in base64url (flattened JSON serialization)."""
    return json_of(jws.protected, jws.payload, jws.signature)


def json_of(protected: bytes, payload: bytes, signature: bytes) -> dict[str, str]:
    """As `to_json`, of the parts."""
    return {
        "protected": base64url.encode(protected),
        "payload": base64url.encode(payload),
        "signature": base64url.encode(signature),
    }


def from_json(obj: Any) -> Jws:
    """Read the flattened JSON form; FormatError unless it is exactly the three members and the one header."""
    if not isinstance(obj, dict) or obj.keys() != _MEMBERS:
        raise FormatError("signed data with other members than protected, payload and signature")
    for member, limit in (("protected", _HEADER_BYTES), ("payload", MAX_PAYLOAD), ("signature", SIGNATURE_BYTES)):
        if not isinstance(obj[member], str) or len(obj[member]) > (limit * 4 + 2) // 3:
            raise FormatError(f"signed data whose {member} is no text or too long")
    jws = Jws(base64url.decode(obj["protected"]), base64url.decode(obj["payload"]), base64url.decode(obj["signature"]))
    signer(jws.protected)
    if len(jws.signature) != SIGNATURE_BYTES:
        raise FormatError("a signature that is not 64 bytes long")
    return jws
