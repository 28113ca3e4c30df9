"""The names under which a device is announced on the LAN: siblings know them, strangers cannot link them (F10).

The instance of `_mmm-sync._tcp` is a nonce and its keyed hash; the TXT member `d` is a keyed hash of the device's UDF
under the same nonce. A name is made under the newest Discovery key and recognised under every key ever held, so a
rotation strands nobody. Names carry no authority.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable, Sequence

from meshd.errors import FormatError

NONCE_SIZE = 8
_HASH_SIZE = 12
_INSTANCE_LENGTH = 32  # base32 of 20 bytes: no padding and no spare bits
_TAG_SIZE = 8
_LABEL = b"mmm-sync/1"


def instance(key: bytes, nonce8: bytes) -> str:
    """The instance label, 32 characters of lower-case base32. `nonce8` is fresh hourly, at start, on address change."""
    _check_nonce(nonce8)
    return base64.b32encode(nonce8 + _instance_hash(key, nonce8)).decode("ascii").lower()


def recognise(instance_text: str, keys: Sequence[bytes]) -> tuple[int, bytes] | None:
    """Which of `keys` made this label, and its nonce; None if none did. A full service name may be given."""
    label = instance_text.partition(".")[0]
    if len(label) != _INSTANCE_LENGTH or not label.isascii():
        return None
    try:
        data = base64.b32decode(label.upper())  # DNS keeps case, but does not promise to
    except binascii.Error:
        return None
    nonce8, mark = data[:NONCE_SIZE], data[NONCE_SIZE:]
    for place, key in enumerate(keys):
        if hmac.compare_digest(_instance_hash(key, nonce8), mark):
            return place, nonce8
    return None


def device_tag(key: bytes, nonce8: bytes, udf: str) -> str:
    """The TXT member `d`: 16 lower-case hexadecimal digits, under the key and nonce of the instance label."""
    _check_nonce(nonce8)
    return hmac.digest(key, nonce8 + udf.encode(), "sha256")[:_TAG_SIZE].hex()


def find_device(tag: str, key: bytes, nonce8: bytes, udfs: Iterable[str]) -> str | None:
    """Which of `udfs` the tag stands for; None if it is none of them."""
    wanted = tag.encode("utf-8", "replace")
    for udf in udfs:
        if hmac.compare_digest(device_tag(key, nonce8, udf).encode(), wanted):
            return udf
    return None


def _instance_hash(key: bytes, nonce8: bytes) -> bytes:
    return hmac.digest(key, _LABEL + nonce8, "sha256")[:_HASH_SIZE]


def _check_nonce(nonce8: bytes) -> None:
    if len(nonce8) != NONCE_SIZE:
        raise FormatError("the nonce of a name has 8 bytes")
