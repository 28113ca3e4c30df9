"""What a pairing core tells its driver. Frozen, joined in `Event`, matched with `match`."""

from __future__ import annotations

from dataclasses import dataclass

from meshd.errors import CodeError, Denied, MeshError, Refused, VersionMismatch

# Why a host says no, in the word of the wire: the class and the sentence for the person at the joiner.
_REASONS: dict[str, tuple[type[MeshError], str]] = {
    "code": (CodeError, "the code was wrong"),
    "version": (
        VersionMismatch,
        "the other device runs a release of meshd that pairs in another way: update the older",
    ),
    "alg": (VersionMismatch, "the two devices know no key exchange in common: update the older one"),
    "pw": (Denied, "that invitation is not open for this kind of code"),
    "token": (Denied, "that invitation is open only for devices on its own network (see: meshctl invite --remote)"),
    "busy": (Refused, "other devices are trying that invitation now: try again in a moment"),
    "burned": (CodeError, "that invitation was closed after wrong codes: make a new one"),
    "used": (CodeError, "somebody has joined with that code already: make a new one"),
    "expired": (CodeError, "that invitation has expired: make a new one"),
    "cancelled": (Refused, "that invitation was withdrawn"),
    "rejected": (Refused, "the person at the other device said no"),
    "unsealed": (Denied, "an admin's keys need a passphrase, and this device's have none"),
    "unavailable": (Refused, "the other device can't connect devices now: it may be locked"),
}
REASONS = frozenset(_REASONS)


@dataclass(frozen=True, slots=True)
class Offered:
    """Joiner: the invitation that answered; nothing is proven yet. `ttl` in seconds."""

    slot: int
    left: int
    ttl: int


@dataclass(frozen=True, slots=True)
class TryReserved:
    """A guess is about to leave: the host's share, or the joiner's confirmation.

    Count it (limits.py) before the next `data_to_send`. If there is no try left, call `refuse` (host) or `abandon`
    (joiner) instead, and it never leaves.
    """


@dataclass(frozen=True, slots=True)
class Proven:
    """The other side knows the code. `udf` is the joiner's fingerprint, at both ends."""

    udf: str


@dataclass(frozen=True, slots=True)
class ProfileOffered:
    """Joiner: the mesh to join, a SignedPersonalProfile in JSON, authentic because the code was right."""

    profile: bytes


@dataclass(frozen=True, slots=True)
class Started:
    """Joiner: the host has the request and is deciding (ConnectStartResponse)."""

    message: bytes


@dataclass(frozen=True, slots=True)
class Decided:
    """Joiner: accepted or rejected (ConnectStatusResponse)."""

    message: bytes


@dataclass(frozen=True, slots=True)
class Entries:
    """Joiner: profile and container versions that it needs first, as formats.md F4 writes them."""

    entries: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Welcome:
    """Joiner: the end. The SignedPersonalProfile that lists this device, and addresses of the host."""

    profile: bytes
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CodeRefused:
    """Joiner: this host did not accept the code; it has `left` tries for it."""

    left: int


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """Joiner: this host said no for another reason than a wrong code, in one word."""

    reason: str
    left: int

    def error(self) -> MeshError:
        """The reason as an error to show; words that this release does not know are Refused."""
        kind, sentence = _REASONS.get(self.reason, (Refused, f"the other device said no ({self.reason})"))
        return kind(sentence)


@dataclass(frozen=True, slots=True)
class Greeted:
    """Host: a device greeted, with a fingerprint that it has yet to prove; `alg` is the suite that will be used."""

    udf: str
    alg: str


@dataclass(frozen=True, slots=True)
class GuessFailed:
    """Host: a wrong confirmation came. The conversation is over."""


@dataclass(frozen=True, slots=True)
class Requested:
    """Host: a ConnectStartRequest, and what the device calls itself (printable, ≤ 64 and ≤ 256 characters)."""

    message: bytes
    name: str
    description: str


@dataclass(frozen=True, slots=True)
class PollRequested:
    """Host: the joiner asks how its request stands; `started` or `decide` answers, once there is something to say."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The other side closed the connection; `finished` if everything had been said."""

    finished: bool


Event = (
    Offered
    | TryReserved
    | Proven
    | ProfileOffered
    | Started
    | Decided
    | Entries
    | Welcome
    | CodeRefused
    | TurnedAway
    | Greeted
    | GuessFailed
    | Requested
    | PollRequested
    | Closed
)
