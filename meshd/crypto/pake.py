"""Password-authenticated key exchange: two devices that know one short code get one strong key (formats.md F11).

A suite has a name with a version in it and three verbs: start as joiner, start as host, finish. Another suite can stand
beside this one without a change elsewhere. Whoever runs an exchange gets one guess at the password; neither side knows
that the other had the same one until a confirmation made from the key has been compared, which is the protocol's work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from meshd.errors import FormatError, LocalProtocolError

Rng = Callable[[int], bytes]


class Exchange(Protocol):
    """One side of one exchange: used once, then thrown away."""

    @property
    def message(self) -> bytes:
        """What goes to the other side."""
        ...

    def finish(self, peer_message: bytes) -> bytes:
        """The key K, 32 bytes. FormatError if the peer's message is no element that a peer could have made."""
        ...


class Suite(Protocol):
    """A versioned way to exchange. The identities are part of the key: both sides must name the same ones."""

    @property
    def name(self) -> str:
        """How PairHello lists it."""
        ...

    def start_joiner(self, password: bytes, id_a: bytes, id_b: bytes, rng: Rng) -> Exchange:
        """Begin as the side that moves first, identity `id_a`."""
        ...

    def start_host(self, password: bytes, id_a: bytes, id_b: bytes, rng: Rng) -> Exchange:
        """Begin as the side that answers, identity `id_b`."""
        ...


class Spake2Ed25519:
    """SPAKE2 over the Ed25519 group as the `spake2` package has it: `spake2-ed25519/1`.

    Messages are 33 bytes: the sender's side (`A` the joiner, `B` the host) and a point. The package is pure Python and
    not constant in time: what it could tell is one-time and dead five minutes later.
    """

    name: Final = "spake2-ed25519/1"
    message_size: Final = 33

    def start_joiner(self, password: bytes, id_a: bytes, id_b: bytes, rng: Rng) -> Exchange:
        # Here, because the package computes its group's constants when it is imported and pairing is rare.
        from spake2 import SPAKE2_A

        return _Spake2Exchange(SPAKE2_A(password, idA=id_a, idB=id_b, entropy_f=rng))

    def start_host(self, password: bytes, id_a: bytes, id_b: bytes, rng: Rng) -> Exchange:
        from spake2 import SPAKE2_B

        return _Spake2Exchange(SPAKE2_B(password, idA=id_a, idB=id_b, entropy_f=rng))


class _Spake2Exchange:
    def __init__(self, side: Any) -> None:
        self._side: Any | None = side
        self._message: bytes = side.start()

    @property
    def message(self) -> bytes:
        return self._message

    def finish(self, peer_message: bytes) -> bytes:
        from spake2 import SPAKEError
        from spake2.ed25519_basic import NotOnCurve

        if self._side is None:
            raise LocalProtocolError("a key exchange is finished once")
        side, self._side = self._side, None
        # The package would cut a longer message and reduce a larger coordinate: several spellings of one point.
        if len(peer_message) != Spake2Ed25519.message_size or not _is_reduced(peer_message[1:]):
            raise FormatError("the other side's share is not the encoding of a point")
        try:
            key: bytes = side.finish(peer_message)
        except (SPAKEError, NotOnCurve, ValueError) as exc:  # wrong side, reflected, off the curve, identity, subgroup
            raise FormatError("the other side's share is not one that a peer could have made") from exc
        return key

    def __repr__(self) -> str:
        return "<key exchange>"


SPAKE2_ED25519 = Spake2Ed25519()
SUITES: Final[dict[str, Suite]] = {SPAKE2_ED25519.name: SPAKE2_ED25519}


def choose(offered: tuple[str, ...]) -> Suite:
    """The suite for a peer that knows `offered`, in our order of preference; FormatError if there is none."""
    for name, suite in SUITES.items():
        if name in offered:
            return suite
    raise FormatError("the two devices know no key exchange in common")


def derive(key: bytes, *, salt: bytes, info: str, length: int = 32) -> bytes:
    """HKDF-SHA256 (RFC 5869): an independent key for each purpose `info`."""
    return HKDF(SHA256(), length, salt, info.encode("ascii")).derive(key)


_FIELD_PRIME = 2**255 - 19


def _is_reduced(point: bytes) -> bool:
    y = int.from_bytes(point, "little") & ((1 << 255) - 1)
    return y < _FIELD_PRIME
