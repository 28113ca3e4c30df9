"""UDF: the fingerprint of a key or of any bytes, as people and profiles write it (formats.md F3, the 2016 draft).

    H1 = SHA-512(data)     H2 = SHA-512(content type ‖ ":" ‖ H1)     UDF = base32(0x60 ‖ first bits of H2), groups of 5

New fingerprints have 200 bits, 8 groups (`MBXEX-…`); 150 bits, 6 groups, are only read from 2016. A fingerprint is
compared whole and in constant time; only a person's abbreviation of a name matches in part.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable

from meshd.errors import FormatError

X509_KEYINFO = "application/x509-keyinfo"
MMM_ESCROWED = "application/mmm-escrowed"
MMM_EPOCH = "application/mmm-epoch"
RANDOM = "application/random"

BITS = 200
BITS_2016 = 150
_VERSION_BYTE = b"\x60"  # makes every fingerprint begin with M
_MAX_BITS = 512

_GROUP = r"[A-Z2-7]{5}"
_UDF = re.compile(rf"{_GROUP}(?:-{_GROUP}){{7}}\Z|{_GROUP}(?:-{_GROUP}){{5}}(?:-A)?\Z")
_FULL = re.compile(rf"{_GROUP}(?:-{_GROUP}){{7}}\Z")
_ABBREVIATED = re.compile(r"[A-Z2-7]{4,}\Z")


def make(content_type: str, data: bytes, bits: int = BITS) -> str:
    """The fingerprint of `data` under a content type, cut to whole groups of 25 bits.

    `bits` is 200 for all that is new, 150 for what 2016 made. Where it is no multiple of 8 the last byte takes the
    *low* bits of its digest byte, moved up, as the 2016 implementation does.
    """
    raw = digest(content_type, data, bits)
    characters = 5 * (len(raw) * 8 // 25)
    return _grouped(_base32(raw)[:characters])


def digest(content_type: str, data: bytes, bits: int = BITS) -> bytes:
    """The bytes under a fingerprint, version byte first; their full spelling is `spell(digest(…))`."""
    if not 16 <= bits <= _MAX_BITS:
        raise FormatError(f"a fingerprint of {bits} bits")
    outer = hashlib.sha512(content_type.encode("ascii") + b":" + hashlib.sha512(data).digest()).digest()
    whole, rest = divmod(bits, 8)
    raw = _VERSION_BYTE + outer[: whole - 1]
    if rest:
        raw += bytes([(outer[whole - 1] << (8 - rest)) & 0xFF])
    return raw


def spell(raw: bytes) -> str:
    """All bits of `raw` in base32 groups of five, the last group as short as it comes (the 2016 full form)."""
    return _grouped(_base32(raw))


def random_udf(rng: Callable[[int], bytes]) -> str:
    """A new identifier of 200 bits that nobody has had before."""
    return make(RANDOM, rng(32))


def is_udf(text: object) -> bool:
    """Whether `text` has the form of a fingerprint: 200 bits, or the 150 bits of 2016 (with `-A` if it was random)."""
    return isinstance(text, str) and _UDF.match(text) is not None


def is_current(text: object) -> bool:
    """Whether `text` has the 200-bit form that new keys and identifiers have."""
    return isinstance(text, str) and _FULL.match(text) is not None


def check(text: object) -> str:
    """Return `text` if it has the form of a fingerprint, else FormatError."""
    if not isinstance(text, str) or not _UDF.match(text):
        raise FormatError(f"not a fingerprint: {str(text)[:50]!r}")
    return text


def equal(a: str, b: str) -> bool:
    """Whether two fingerprints are the same: whole, letter case aside, in constant time."""
    return hmac.compare_digest(a.upper().encode("utf-8", "replace"), b.upper().encode("utf-8", "replace"))


def matches(abbreviated: str, full: str) -> bool:
    """Whether a person who typed `abbreviated` can mean `full`: at least four leading characters, dashes and case free.

    For choosing among a person's own devices and entries, never for trust.
    """
    typed = abbreviated.replace("-", "").replace(" ", "").upper()
    return _ABBREVIATED.match(typed) is not None and full.replace("-", "").upper().startswith(typed)


def _base32(raw: bytes) -> str:
    return base64.b32encode(raw).rstrip(b"=").decode("ascii")


def _grouped(characters: str) -> str:
    return "-".join(characters[at : at + 5] for at in range(0, len(characters), 5))
