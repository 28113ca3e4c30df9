"""What is decided: writes as values, replies, and the settings and circumstances that a decision depends on.

Applying writes is the store's, in order and in one transaction. It judges a `PutVersion` once more, by the authority
into which the profiles before it were integrated; `state` is what the decision was made under.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshd.portal.checked import Row
from meshd.portal.documents2016 import Document
from meshd.portal.messages import Response
from meshd.portal.names import AccountName
from meshd.portal.statuses import Status
from meshd.portal.view import Account, Answered, Pending
from meshd.profile.claim import State
from meshd.profile.version import Version

# --- what is to be written --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenAccount:
    account: Account


@dataclass(frozen=True, slots=True)
class CloseAccount:
    """For ever: nobody gets the name again. The mesh may have another."""

    account: str


@dataclass(frozen=True, slots=True)
class PutOpener:
    """Let the device with this authentication key send the profiles of the mesh, in place of who might before."""

    account: str
    keyid: str
    public: bytes


@dataclass(frozen=True, slots=True)
class UseInvite:
    token: str


@dataclass(frozen=True, slots=True)
class Reserve:
    name: str
    token: str
    until: int


@dataclass(frozen=True, slots=True)
class PutVersion:
    """Store a version of ours: a leaf of the log, whatever its state. Parents retire; a MasterProfile or DeviceProfile
    that came embedded is no leaf (`leaf`): its bytes are inside the personal profile."""

    mesh: str
    version: Version
    state: State
    leaf: bool = True


@dataclass(frozen=True, slots=True)
class PutRow:
    mesh: str
    row: Row


@dataclass(frozen=True, slots=True)
class PutDocument:
    """Store a document of 2016 in place of the entry's head. `mesh` is None for escrow that nobody owns yet."""

    mesh: str | None
    document: Document


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep a document of 2016 aside until a profile lists it, or until `until`. Not served, no leaf."""

    document: Document
    until: int


@dataclass(frozen=True, slots=True)
class Release:
    """Forget the held document of this Identifier: it was stored, or its signature was not what it should be."""

    identifier: str


@dataclass(frozen=True, slots=True)
class PutPending:
    """Keep a connection request; one of the same device is replaced, and an old answer to it forgotten."""

    pending: Pending
    expires: int


@dataclass(frozen=True, slots=True)
class PutAnswer:
    """Keep an answer, and forget the request that it answers."""

    answered: Answered


@dataclass(frozen=True, slots=True)
class Notice:
    """Tell the devices of a mesh, and the portal's log, about something that they should know."""

    mesh: str
    what: str
    about: str


Write = (
    OpenAccount
    | CloseAccount
    | PutOpener
    | UseInvite
    | Reserve
    | PutVersion
    | PutRow
    | PutDocument
    | Hold
    | Release
    | PutPending
    | PutAnswer
    | Notice
)


# --- the outcome ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accept:
    """Commit `writes`, in order and together, then answer `reply`.

    `feed` names the mesh whose feed the reply has come to the end of: who may wait for more, waits for that."""

    writes: tuple[Write, ...]
    reply: Response
    feed: str | None = None

    @property
    def status(self) -> int:
        return getattr(self.reply, "status", None) or int(Status.SUCCESS)


@dataclass(frozen=True, slots=True)
class Refuse:
    """Write nothing and answer `reply`, which says why where its type can. `status` is HTTP's, too."""

    status: Status
    reply: Response
    location: str | None = None


Decision = Accept | Refuse


# --- who asks, under which rules --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Anonymous:
    pass


@dataclass(frozen=True, slots=True)
class SignedBy:
    """The HTTP request verified by the authentication key of this UDF; whose it is, the view knows."""

    keyid: str


@dataclass(frozen=True, slots=True)
class PeerPortal:
    """The HTTP request verified by the key of a peer portal."""

    keyid: str


Caller = Anonymous | SignedBy | PeerPortal


@dataclass(frozen=True, slots=True)
class Policy:
    """A portal's settings, as far as they decide anything. Bytes, counts, seconds."""

    domain: str
    compat: str = "off"  # off | read | full: what 2016 clients may do
    accounts: str = "open"  # open | invite | closed
    quota_bytes: int = 2 * 1024**3
    quota_entries: int = 1_000_000
    quota_quarantined_bytes: int = 64 * 1024**2
    quota_quarantined: int = 10_000
    escrow_per_account: int = 16
    unowned_escrow: int = 10_000
    held_documents: int = 1000
    hold_seconds: int = 24 * 3600
    pending_per_account: int = 8
    pending_seconds: int = 15 * 60
    reserve_seconds: int = 10 * 60
    reservations: int = 1000
    page_entries: int = 1000
    page_bytes: int = 2_500_000  # in base64 they still fit a body
    uris: tuple[str, ...] = ()
    moved: tuple[Status, str] | None = None  # 303 or 307, and whereto
    encodings: tuple[str, ...] = ("application/json", "application/cbor")


@dataclass(frozen=True, slots=True)
class Context:
    """What surrounds a request. `extensions` is None for a 2016 client. `fresh` is a random token, if one is needed."""

    caller: Caller
    now: int
    policy: Policy
    extensions: frozenset[str] | None = None
    languages: tuple[str, ...] = ()
    if_head: frozenset[bytes] | None = None  # Mesh-If-Head: the heads that the writer has seen
    fresh: str = ""
    account: AccountName | None = None  # Mesh-Account: for which one a device asks that belongs to several

    @property
    def plain(self) -> bool:
        return self.extensions is None
