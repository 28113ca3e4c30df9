"""What the two devices prove to each other, and over what: identities, transcript, confirmations, the token (F11).

    idA = lv("mmm-pair/1") lv("joiner") lv(udf)        idB = lv("mmm-pair/1") lv("admin") lv(SHA-256(certificate))
    th  = SHA-256(hello ‖ offer ‖ pa ‖ pb), each the body of its frame without the length in front
    confirmation = HMAC-SHA256(HKDF-SHA256(K, salt th, "mmm-pair/1 confirm joiner" | "… admin"), th)

A man in the middle of TLS shows the joiner another certificate than the host has, so the two hold different keys and
the confirmations differ: that is the whole protection, and it needs nothing of TLS but the certificate.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from meshd.crypto import base64url, pake
from meshd.errors import CodeError, FormatError

PROTOCOL = "mmm-pair/1"
Side = Literal["joiner", "admin"]

_SID_BYTES = 16
_TOKEN_PREFIX = "lp1"


def joiner_identity(udf: str) -> bytes:
    """idA: the joiner, by the UDF of its device signature key."""
    return _lv(PROTOCOL.encode()) + _lv(b"joiner") + _lv(udf.encode("ascii"))


def host_identity(certificate: bytes) -> bytes:
    """idB: the host, by the certificate (DER) that its TLS server shows."""
    return _lv(PROTOCOL.encode()) + _lv(b"admin") + _lv(hashlib.sha256(certificate).digest())


def transcript_hash(bodies: Sequence[bytes]) -> bytes:
    """th: the four frames until the key exists, as they were sent."""
    if len(bodies) != 4:
        raise FormatError("a transcript of other than four frames")
    return hashlib.sha256(b"".join(bodies)).digest()


@dataclass(frozen=True, slots=True)
class Proof:
    """The key of one exchange and the transcript that it belongs to; makes and compares what is shown for it."""

    key: bytes = field(repr=False)
    transcript: bytes

    def confirmation(self, side: Side) -> bytes:
        """The 32 bytes by which `side` shows that it holds the key."""
        key = pake.derive(self.key, salt=self.transcript, info=f"{PROTOCOL} confirm {side}")
        return hmac.digest(key, self.transcript, "sha256")

    def check(self, side: Side, confirmation: bytes) -> None:
        """CodeError unless `side` showed what it must; in constant time."""
        if not hmac.compare_digest(self.confirmation(side), confirmation):
            raise CodeError("the code was wrong, or somebody stands between the two devices")

    def block_token(self, udf: str) -> str:
        """The BlockToken of the joiner's SignedConnectionRequest: `lp1.<sid>.<tok>`, which nobody else can make."""
        key = pake.derive(self.key, salt=self.transcript, info=f"{PROTOCOL} token")
        token = hmac.digest(key, udf.encode("ascii"), "sha256")
        return f"{_TOKEN_PREFIX}.{base64url.encode(self.transcript[:_SID_BYTES])}.{base64url.encode(token)}"


def same_token(a: str, b: str) -> bool:
    """Whether two BlockTokens are the same, in constant time."""
    return hmac.compare_digest(a.encode("utf-8", "replace"), b.encode("utf-8", "replace"))


def _lv(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value
