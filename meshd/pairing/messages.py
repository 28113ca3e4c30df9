"""What the two devices of a pairing say: frames, and the messages in them (formats.md F11, docs/specs/pairing.md).

A frame is a u32 big-endian length and that many bytes of deterministic CBOR, `[type, map]`. Each message is a frozen
class whose fields are the keys of its map; one table says what each key may hold, for both directions, so that we can't
send what we would refuse. Keys that this release does not know are ignored, unknown odd types too; unknown even types
end the conversation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Final

from meshd.crypto import cbor, udf
from meshd.errors import FormatError, RemoteProtocolError, VersionMismatch
from meshd.pairing.code import MAX_SLOT, check_address

VERSION = 1
MAX_FRAME_UNPROVEN = 64 * 1024  # before both sides have shown that they know the code
MAX_FRAME = 4 * 1024 * 1024
MAX_NAME = 64
MAX_DESCRIPTION = 256
NONCE_BYTES = 16
TAG_BYTES = 32
_MAX_SHARE = 256
_MAX_TTL = 15 * 60
_MAX_ADDRESSES = 32


@dataclass(frozen=True, slots=True)
class PairHello:
    """The joiner: who I am, what I speak. `at` is the token that only this link can know; `pw` says which password."""

    TYPE: ClassVar[int] = 0
    v: int
    at: str
    na: bytes
    udf: str
    alg: tuple[str, ...]
    pw: str


@dataclass(frozen=True, slots=True)
class PairOffer:
    """The host: which invitation this is, how many tries it has left, how many seconds it lives."""

    TYPE: ClassVar[int] = 2
    v: int
    nb: bytes
    slot: int
    left: int
    ttl: int


@dataclass(frozen=True, slots=True)
class JoinerShare:
    """The joiner's half of the key exchange."""

    TYPE: ClassVar[int] = 4
    pa: bytes


@dataclass(frozen=True, slots=True)
class HostShare:
    """The host's half of the key exchange."""

    TYPE: ClassVar[int] = 6
    pb: bytes


@dataclass(frozen=True, slots=True)
class JoinerProof:
    """The joiner proves that it knows the code."""

    TYPE: ClassVar[int] = 8
    ta: bytes


@dataclass(frozen=True, slots=True)
class HostProof:
    """The host proves that it knows the code."""

    TYPE: ClassVar[int] = 10
    tb: bytes


@dataclass(frozen=True, slots=True)
class Refusal:
    """The host says no, in one word, and ends the conversation."""

    TYPE: ClassVar[int] = 12
    err: str
    left: int


@dataclass(frozen=True, slots=True)
class Profile:
    """The mesh that the joiner is asked to join: its SignedPersonalProfile."""

    TYPE: ClassVar[int] = 14
    profile: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """The joiner asks to be connected: a ConnectStartRequest, and how a person calls this device."""

    TYPE: ClassVar[int] = 16
    msg: bytes
    name: str
    desc: str | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """The host has the request: a ConnectStartResponse."""

    TYPE: ClassVar[int] = 18
    msg: bytes


@dataclass(frozen=True, slots=True)
class Decision:
    """The host has decided, and its decision is durable: a ConnectStatusResponse."""

    TYPE: ClassVar[int] = 20
    msg: bytes


@dataclass(frozen=True, slots=True)
class Poll:
    """The joiner asks how its request stands."""

    TYPE: ClassVar[int] = 22


@dataclass(frozen=True, slots=True)
class Welcomed:
    """The last message: the SignedPersonalProfile that lists the joiner, and where the host can be reached."""

    TYPE: ClassVar[int] = 24
    profile: bytes
    addr: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EntryBatch:
    """Versions that the joiner needs before it can sync: profiles and containers, as formats.md F4 writes them."""

    TYPE: ClassVar[int] = 26
    entries: tuple[bytes, ...]


Message = (
    PairHello
    | PairOffer
    | JoinerShare
    | HostShare
    | JoinerProof
    | HostProof
    | Refusal
    | Profile
    | Request
    | Started
    | Decision
    | Poll
    | Welcomed
    | EntryBatch
)

Check = Callable[[Any], Any]  # returns the value as the class keeps it, or raises FormatError


def _integer(least: int, most: int) -> Check:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise FormatError(f"not a number from {least} to {most}")
        return value

    return check


def _octets(least: int, most: int) -> Check:
    def check(value: Any) -> bytes:
        if not isinstance(value, bytes) or not least <= len(value) <= most:
            raise FormatError(f"not {least} to {most} bytes" if least != most else f"not {least} bytes")
        return value

    return check


def _printable(least: int, most: int) -> Check:
    # isprintable() is false for control characters, line ends and the marks that turn the writing direction: what a
    # stranger's device calls itself is shown on a terminal.
    def check(value: Any) -> str:
        if not isinstance(value, str) or not least <= len(value) <= most:
            raise FormatError(f"not a text of {least} to {most} characters")
        if not value.isprintable() or value != value.strip():
            raise FormatError("a text with characters that can't be shown")
        return value

    return check


def _ascii(least: int, most: int) -> Check:
    printable = _printable(least, most)

    def check(value: Any) -> str:
        text: str = printable(value)
        if not text.isascii():
            raise FormatError("a text that is not ASCII")
        return text

    return check


def _list_of(inner: Check, least: int, most: int) -> Check:
    def check(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)) or not least <= len(value) <= most:
            raise FormatError(f"not a list of {least} to {most}")
        return tuple(inner(item) for item in value)

    return check


def _fingerprint(value: Any) -> str:
    if not udf.is_current(value):
        raise FormatError("not a fingerprint of 200 bits")
    return str(value)


_BODY = _octets(1, MAX_FRAME)

# What each key may hold. A key with "?" may be absent; every other one must be there.
SHAPES: Final[dict[type[Message], dict[str, Check]]] = {
    PairHello: {
        "v": _integer(VERSION, VERSION),
        "at": _ascii(0, 64),
        "na": _octets(NONCE_BYTES, NONCE_BYTES),
        "udf": _fingerprint,
        "alg": _list_of(_ascii(1, 64), 1, 8),
        "pw": _ascii(1, 16),
    },
    PairOffer: {
        "v": _integer(VERSION, VERSION),
        "nb": _octets(NONCE_BYTES, NONCE_BYTES),
        "slot": _integer(1, MAX_SLOT),
        "left": _integer(0, 99),
        "ttl": _integer(0, _MAX_TTL),
    },
    JoinerShare: {"pa": _octets(1, _MAX_SHARE)},
    HostShare: {"pb": _octets(1, _MAX_SHARE)},
    JoinerProof: {"ta": _octets(TAG_BYTES, TAG_BYTES)},
    HostProof: {"tb": _octets(TAG_BYTES, TAG_BYTES)},
    Refusal: {"err": _ascii(1, 32), "left": _integer(0, 99)},
    Profile: {"profile": _BODY},
    Request: {"msg": _BODY, "name": _printable(1, MAX_NAME), "?desc": _printable(1, MAX_DESCRIPTION)},
    Started: {"msg": _BODY},
    Decision: {"msg": _BODY},
    Poll: {},
    Welcomed: {"profile": _BODY, "addr": _list_of(check_address, 0, _MAX_ADDRESSES)},
    EntryBatch: {"entries": _list_of(_BODY, 1, MAX_FRAME)},
}
_BY_TYPE: Final[dict[int, type[Message]]] = {kind.TYPE: kind for kind in SHAPES}


def encode(message: Message) -> bytes:
    """The body of the frame. FormatError if a field holds what the other side would refuse."""
    kind = type(message)
    values = {part.name: getattr(message, part.name) for part in fields(message)}
    present = {name: value for name, value in values.items() if value is not None}
    _checked(kind, present)
    return cbor.encode([kind.TYPE, present])


def decode(body: bytes) -> Message | None:
    """The message in a frame's body; None for an unknown odd type, which is ignored.

    Raises FormatError for what is not a message, VersionMismatch for another version's greeting, RemoteProtocolError
    for an unknown even type.
    """
    frame = cbor.decode(body)
    match frame:
        case [int() as number, dict() as members] if not isinstance(number, bool) and number >= 0:
            pass
        case _:
            raise FormatError("a frame that is not [type, map]")
    if not all(isinstance(key, str) for key in members):
        raise FormatError("a frame with a key that is not a text")
    kind = _BY_TYPE.get(number)
    if kind is None:
        if number % 2:
            return None
        raise RemoteProtocolError(f"a message of the unknown type {number}, which may not be ignored")
    if kind in (PairHello, PairOffer):
        _same_version(members.get("v"))
    return kind(**_checked(kind, members))


def _checked(kind: type[Message], members: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, check in SHAPES[kind].items():
        key = name.removeprefix("?")
        if key not in members:
            if key == name:
                raise FormatError(f"{kind.__name__} without {key}")
            continue
        try:
            found[key] = check(members[key])
        except FormatError as exc:
            raise FormatError(f"{kind.__name__}.{key}: {exc}") from None
    return found


def _same_version(version: object) -> None:
    # Before anything else of the message: another version's may have any form.
    if isinstance(version, bool) or not isinstance(version, int):
        raise FormatError("a greeting without a version")
    if version != VERSION:
        which, other = ("a newer", "this one") if version > VERSION else ("an older", "that one")
        raise VersionMismatch(
            f"the other device runs {which} release of meshd, which pairs in another way",
            hint=f"update {other}, then try again",
        )


def frame(body: bytes) -> bytes:
    """The body with its length in front."""
    return len(body).to_bytes(4, "big") + body


class FrameReader:
    """Cuts what arrives into bodies of frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def clear(self) -> None:
        self._buffer.clear()

    def next_body(self, limit: int) -> bytes | None:
        """The next whole body, None if it is not all here. RemoteProtocolError if it says to be longer than `limit`."""
        if len(self._buffer) < 4:
            return None
        length = int.from_bytes(self._buffer[:4], "big")
        # Before the body is here: a stranger must not make us keep what we would refuse.
        if length > limit:
            raise RemoteProtocolError(f"a frame of {length} bytes: at most {limit} are allowed here")
        if len(self._buffer) < 4 + length:
            return None
        body = bytes(self._buffer[4 : 4 + length])
        del self._buffer[: 4 + length]
        return body
