"""The knock: what a caller proves before it sees so much as a TLS certificate (formats.md F10).

The server sends 16 random bytes; the client answers `mode ‖ nonce16 ‖ HMAC-SHA256(key, "knock/1" ‖ mode ‖ server16 ‖
nonce16)`. The mode picks the TLS context that follows. The keys are Discovery keys, or derived from an escrow
Identifier: they keep strangers out and names private and are no authority; that is the certificates' business.
"""

from __future__ import annotations

import enum
import hmac
from collections.abc import Sequence

from meshd.crypto import sealing
from meshd.errors import FormatError, Refused, RemoteProtocolError

CHALLENGE_SIZE = 16
NONCE_SIZE = 16
ANSWER_SIZE = 1 + NONCE_SIZE + 32
_LABEL = b"knock/1"
_RECOVERY = b"mmm-recovery/1 knock"


class Mode(enum.IntEnum):
    """What the caller came for."""

    SYNC = 1  # mutual TLS
    INTRODUCTION = 2  # server certificate only: newer profiles are handed in, nothing is handed out
    RECOVERY = 3  # exact look-ups of escrow entries


def answer(mode: Mode, key: bytes, server16: bytes, nonce16: bytes) -> bytes:
    """The 49 bytes that answer the server's challenge. `nonce16` is fresh for each connection."""
    if len(server16) != CHALLENGE_SIZE or len(nonce16) != NONCE_SIZE:
        raise FormatError("the nonces of a knock have 16 bytes each")
    return bytes([mode]) + nonce16 + _proof(key, mode, server16, nonce16)


def recovery_key(identifier: str) -> bytes:
    """What somebody knocks with who has the shares of this recovery entry, and so can name it."""
    return sealing.hkdf(identifier.encode("ascii"), _RECOVERY)


def check(answer: bytes, server16: bytes, keys: Sequence[bytes], recovery: Sequence[bytes] = ()) -> tuple[Mode, int]:
    """The mode asked for, and which of `keys` the caller knocked with (the first, if one is held twice); for mode 3,
    which of `recovery`, and no other.

    Every key is tried, whichever fits: the time taken tells nothing about them. RemoteProtocolError for what is no
    answer or asks for an unknown mode, Refused if no key fits.
    """
    if len(server16) != CHALLENGE_SIZE:
        raise FormatError("the challenge of a knock has 16 bytes")
    if len(answer) != ANSWER_SIZE:
        raise RemoteProtocolError(f"a knock of {len(answer)} bytes")
    try:
        mode = Mode(answer[0])
    except ValueError:
        raise RemoteProtocolError(f"a knock of mode {answer[0]}") from None
    nonce16, proof = answer[1 : 1 + NONCE_SIZE], answer[1 + NONCE_SIZE :]
    tried = recovery if mode is Mode.RECOVERY else keys
    fitting = [hmac.compare_digest(_proof(key, mode, server16, nonce16), proof) for key in tried]
    if True not in fitting:
        raise Refused("a knock with a key that is not held here")
    return mode, fitting.index(True)


def _proof(key: bytes, mode: Mode, server16: bytes, nonce16: bytes) -> bytes:
    return hmac.digest(key, _LABEL + bytes([mode]) + server16 + nonce16, "sha256")
