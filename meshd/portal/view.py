"""What a portal holds, as decisions see it: the reading half of the interface between `decide` and a store.

A `View` is read within the transaction that will commit what was decided, so that two requests of one batch see each
other. It is narrow on purpose: any store that can answer these questions will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from meshd.crypto.keys import RsaVerifyKey, VerifyKey
from meshd.portal.checked import Row
from meshd.portal.documents2016 import Document, Profile
from meshd.portal.structures import ConsistencyProof, PeerStatus, TransferEntry
from meshd.profile.claim import Kind, State
from meshd.profile.trust import Authority

OPEN, SUSPENDED, CLOSED = "Open", "Suspended", "Closed"


# --- what is there ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Account:
    """An account. `old`: of 2016, with RSA documents. `compat`: 2016 clients may administer it unsigned."""

    name: str
    mesh: str
    created: int
    status: str = OPEN
    old: bool = False
    compat: bool = False
    opener: str = ""  # the authentication key that may bring the profiles by which the portal comes to know its device


@dataclass(frozen=True, slots=True)
class Usage:
    """What an account holds now."""

    bytes: int = 0
    entries: int = 0
    quarantined_bytes: int = 0
    quarantined: int = 0
    escrow: int = 0


@dataclass(frozen=True, slots=True)
class Stored:
    """A version in the store. `index` is its place in the log, `raw` its F4 bytes (empty when pruned: then `row`)."""

    index: int
    transaction_id: str
    added: int
    vid: bytes
    kind: Kind
    identifier: str
    mesh: str
    generation: int
    state: State
    raw: bytes = field(repr=False)
    action: str = "New"
    prior: str | None = None
    old: bool = False  # a document of 2016
    row: Row | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What is kept of any version that was ever stored, rows of pruned ones too."""

    kind: Kind
    identifier: str
    generation: int
    signer: str
    n: int


@dataclass(frozen=True, slots=True)
class Device:
    """Whose an authentication key is: a device that some profile of the mesh lists or listed."""

    mesh: str
    udf: str


@dataclass(frozen=True, slots=True)
class Pending:
    """A connection request that waits for an answer."""

    account: str
    device: str
    dak: str
    request_id: bytes
    asked: int
    wire: dict[str, Any] = field(repr=False)
    old: bool = False  # of a 2016 device


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a connection request. `dak` is that of the device that asked, `request_id` what it asked with."""

    account: str
    device: str
    dak: str
    request_id: bytes
    wire: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class LogState:
    """What `Status` tells; members that the portal has no log for are None. Times in UTC seconds."""

    last_write: int | None = None
    last_checkpoint: int | None = None
    next_checkpoint: int | None = None
    checkpoint: str | None = None
    log_keys: Sequence[str] | None = None
    min_index: int | None = None
    consistency: ConsistencyProof | None = None
    peers: Sequence[PeerStatus] | None = None


@dataclass(frozen=True, slots=True)
class LogPage:
    """A page of `Transfer`."""

    entries: Sequence[TransferEntry]
    first: int
    next: str | None
    checkpoint: str | None
    proof: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Told:
    """A notice: of what, about whom or which entry; its time is in seconds."""

    number: int
    time: int
    what: str
    about: str


class View(Protocol):
    """The questions that decisions ask. Account names are in their one spelling, times UTC seconds."""

    # accounts
    def account(self, name: str) -> Account | None: ...
    def mesh_account(self, mesh: str) -> Account | None:
        """The account that the mesh has; where it has none any more, a closed one."""
        ...

    def usage(self, mesh: str) -> Usage: ...
    def reservation(self, name: str, now: int) -> str | None:
        """The token for which a name is reserved now."""
        ...

    def reservations(self, now: int) -> int: ...
    def has_invite(self, token: str, now: int) -> bool: ...

    # who
    def devices_of(self, dak: str) -> Sequence[Device]:
        """The device whose newest DeviceProfile states this authentication key, once for each mesh that lists or listed
        it. More than one: anybody can list anybody's device, which must not shut that one out."""
        ...

    def signing_key(self, signer: str) -> VerifyKey | None: ...
    def authentication_key(self, keyid: str) -> VerifyKey | RsaVerifyKey | None:
        """The key to verify an HTTP request with: of a device that `devices_of` knows, of one whose connection request
        is pending or answered, or of a peer portal."""
        ...

    def authority(self, mesh: str) -> Authority | None: ...
    def peer_grant(self, keyid: str) -> str | None:
        """`leaves` or `full` for the key of a peer portal."""
        ...

    # versions
    def stored(self, vid: bytes) -> Stored | None: ...
    def known(self, vid: bytes) -> Known | None: ...
    def heads(self, kind: Kind, identifier: str) -> Sequence[Stored]:
        """The applied heads of an entry; of escrow entries the one that there is, listed or not."""
        ...

    def owner(self, kind: Kind, identifier: str) -> str | None:
        """The mesh that an entry belongs to, from its first version on."""
        ...

    def feed(self, mesh: str, after: int, limit: int, *, profiles: bool = False) -> Sequence[Stored]:
        """What was stored for a mesh behind this place in the log, in log order, quarantined versions too; or of that
        its personal profiles alone."""
        ...

    def index_at(self, mesh: str, seconds: int) -> int:
        """The place in the log behind which everything of the mesh was added at this time or later."""
        ...

    def last_index(self) -> int: ...

    # what people are told
    def told(self, mesh: str, after: int, limit: int) -> Sequence[Told]:
        """The notices about a mesh behind this number, oldest first."""
        ...

    def last_notice(self) -> int:
        """The number of the newest, whatever it is about."""
        ...

    # 2016
    def profile_2016(self, mesh: str) -> Profile | None: ...
    def signer_2016(self, kid: str) -> tuple[str, RsaVerifyKey] | None:
        """(mesh, key) of a device that the current profile of an account of 2016 lists."""
        ...

    def held_2016(self, identifier: str) -> Document | None:
        """A document that came before the profile that lists it."""
        ...

    def held_count(self, now: int) -> int: ...
    def unowned_escrow(self) -> int: ...

    # connecting
    def pending(self, account: str, now: int) -> Sequence[Pending]:
        """The unexpired requests, oldest first."""
        ...

    def ever_pending(self, account: str) -> bool: ...
    def answered(self, account: str | None, device: str) -> Answered | None: ...

    # the log
    def log_state(
        self, old_size: int | None, peer_sizes: Sequence[tuple[str, int]], tree_size: int | None = None
    ) -> LogState:
        """With the checkpoint of `tree_size`, where there was one of that size; else the newest."""
        ...

    def log_page(
        self,
        *,
        full: bool,
        after: str | None,
        not_before: int | None,
        until: int | None,
        max_entries: int,
        max_bytes: int,
        origin: str | None,
        tree_size: int | None,
    ) -> LogPage | None:
        """None for a cursor or origin that this portal does not have."""
        ...
