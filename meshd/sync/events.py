"""What a Session tells its driver: one frozen value for each thing that a peer can do, joined in `Event`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from meshd.sync.messages import Change, HelloInfo


@dataclass(frozen=True, slots=True)
class PeerHello:
    """The peer said who it is. Compare `info.udf` with its certificate before anything else."""

    info: HelloInfo


@dataclass(frozen=True, slots=True)
class PeerProfiles:
    """Signed profiles that the peer thinks we lack, oldest first."""

    raws: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class PeerFeed:
    """The peer wants to hear what follows `after`, if `store_id` is ours and our `run` told it of `vid` there; or else
    everything. It may ask anew later."""

    store_id: bytes
    after: int
    run: bytes = b""
    vid: bytes = b""


@dataclass(frozen=True, slots=True)
class PeerChanges:
    """Versions that the peer holds, in the order of its `seq`. `anew`: our cursor did not hold; from the first on."""

    changes: tuple[Change, ...]
    caught_up: bool
    anew: bool = False


@dataclass(frozen=True, slots=True)
class PeerWant:
    """Versions to answer with `item`, each one. `budget`: the bytes that the peer reckons with for them."""

    vids: tuple[bytes, ...]
    budget: int


@dataclass(frozen=True, slots=True)
class PeerItem:
    """A wanted version, whole. `raw` is b"" where the peer no longer has it."""

    vid: bytes
    kind: int
    raw: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PeerAck:
    """The peer has committed everything up to `seq` of our store."""

    seq: int


@dataclass(frozen=True, slots=True)
class PeerNote:
    """The newest checkpoint of a portal that the peer has verified."""

    text: str


@dataclass(frozen=True, slots=True)
class PeerEvidence:
    """Two notes that contradict each other, as the peer claims."""

    first: str
    second: str


@dataclass(frozen=True, slots=True)
class PeerStability:
    """How far each device has acknowledged the peer's sequence. A claim of the peer, nothing more."""

    acked: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class PeerTrace:
    """The peer asks for the links of a signer's chain from these versions backwards; answer with `chain`, once."""

    signer: str
    vids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class PeerChain:
    """The answer to our trace: (NotaryToken, digest). Each is to be proven by its hash."""

    links: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class PeerClosed:
    """The peer ended the conversation; `code` is a CloseCode or a newer number."""

    code: int
    text: str


@dataclass(frozen=True, slots=True)
class PeerGone:
    """The stream ended. `clean` is False inside a frame or an item; `Session.partial` has what came of it."""

    clean: bool


Event: TypeAlias = (
    PeerHello
    | PeerProfiles
    | PeerFeed
    | PeerChanges
    | PeerWant
    | PeerItem
    | PeerAck
    | PeerNote
    | PeerEvidence
    | PeerStability
    | PeerTrace
    | PeerChain
    | PeerClosed
    | PeerGone
)


@dataclass(frozen=True, slots=True)
class Partial:
    """The part of an item that came before the connection broke; `Session.want(…, resume=…)` asks for the rest."""

    vid: bytes
    kind: int
    total: int
    data: bytes = field(repr=False)
