"""The requests and responses of the twelve transactions: the draft's in both 2016 versions, and our extensions.

A response of the Connect transactions carries no Status: in 2016 it derives from MeshRequest. Which member belongs to
which version is data (`JANUARY`, `MARCH`, `OURS`), because a 2016 reader stops at a member that it does not know;
`codec` writes only what the peer's dialect has.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from meshd.portal.structures import (
    Bare,
    Binary,
    ChainRow,
    ConsistencyProof,
    DataItem,
    KeyValue,
    Noticed,
    Outcome,
    PeerSize,
    PeerStatus,
    SearchConstraints,
    Structure,
    Tagged,
    TransferEntry,
    Version,
)


class MeshRequest(Structure, frozen=True):
    portal: str | None = None


class MeshResponse(Structure, frozen=True):
    status: int | None = None
    status_description: str | None = None


# --- administration --------------------------------------------------------------------------------------------------


class HelloRequest(MeshRequest, frozen=True):
    """Which versions and encodings does the service speak?"""


class HelloResponse(MeshResponse, frozen=True):
    version: Version | None = None
    alternates: list[Version] | None = None


class ValidateRequest(MeshRequest, frozen=True):
    """Is this account name free, and may it be had?"""

    account: str | None = None
    reserve: bool | None = None
    language: list[str] | None = None


class ValidateResponse(MeshResponse, frozen=True):
    valid: bool | None = None
    minimum: int | None = None
    maximum: int | None = None
    invalid_characters: str | None = None
    reason: str | None = None
    reservation: str | None = None


class CreateRequest(MeshRequest, frozen=True):
    """Open an account for the mesh of this profile."""

    account: str | None = None
    profile: Tagged | None = None
    invite: str | None = None
    reservation: str | None = None
    rows: list[ChainRow] | None = None
    proof: Tagged | None = None


class CreateResponse(MeshResponse, frozen=True):
    transaction_id: str | None = msgspec.field(default=None, name="TransactionID")
    receipt: str | None = None


# --- mesh -------------------------------------------------------------------------------------------------------------


class PublishRequest(MeshRequest, frozen=True):
    """Store an entry; ours: or many, in order, with rows of what was pruned before them; or close this account."""

    entry: Tagged | None = None
    entries: list[Tagged] | None = None
    rows: list[ChainRow] | None = None
    close: str | None = None


class PublishResponse(MeshResponse, frozen=True):
    transaction_id: str | None = msgspec.field(default=None, name="TransactionID")
    receipt: str | None = None
    missing: list[str] | None = None
    heads: list[str] | None = None
    outcomes: list[Outcome] | None = None


class GetRequest(MeshRequest, frozen=True):
    """Entries by Identifier, by account, or by index terms; also the request of GetRecords."""

    identifier: str | None = None
    account: str | None = None
    key_values: list[KeyValue] | None = None
    not_before: str | None = None
    not_on_or_after: str | None = None
    search_constraints: SearchConstraints | None = None
    multiple: bool | None = None
    full: bool | None = None


class GetResponse(MeshResponse, frozen=True):
    entries: list[Tagged] | None = None
    data_items: list[DataItem] | None = None
    page_key: str | None = None


class GetRecordsResponse(MeshResponse, frozen=True):
    data_items: list[DataItem] | None = None
    page_key: str | None = None
    receipts: list[str] | None = None
    notices: list[Noticed] | None = None


class TransferRequest(MeshRequest, frozen=True):
    """A page of the log, for a mirror."""

    not_before: str | None = None
    until: str | None = None
    after: str | None = None
    max_entries: int | None = None
    max_bytes: int | None = None
    search_constraints: SearchConstraints | None = None
    origin: str | None = None
    tree_size: int | None = None


class TransferResponse(MeshResponse, frozen=True):
    data_items: list[DataItem] | None = None
    page_key: str | None = None
    entries: list[TransferEntry] | None = None
    first: int | None = None
    next: str | None = None
    checkpoint: str | None = None
    page_proof: list[Binary] | None = None


class StatusRequest(MeshRequest, frozen=True):
    """How far is the log, and who has seen it?"""

    old_size: int | None = None
    peer_sizes: list[PeerSize] | None = None
    tree_size: int | None = None


class StatusResponse(MeshResponse, frozen=True):
    last_write_time: str | None = None
    last_checkpoint_time: str | None = None
    next_checkpoint_time: str | None = None
    checkpoint_value: str | None = None
    log_keys: list[str] | None = None
    min_index: int | None = None
    consistency_proof: ConsistencyProof | None = None
    peers: list[PeerStatus] | None = None


# --- connecting a device ----------------------------------------------------------------------------------------------


class ConnectStartRequest(MeshRequest, frozen=True):
    """A new device asks to join the mesh of an account."""

    signed_request: Bare | None = None
    account_id: str | None = msgspec.field(default=None, name="AccountID")


class ConnectStartResponse(MeshRequest, frozen=True):
    signed_connection_result: str | None = None


class ConnectStatusRequest(MeshRequest, frozen=True):
    """Has an administrator answered?"""

    account_id: str | None = msgspec.field(default=None, name="AccountID")
    device_id: str | None = msgspec.field(default=None, name="DeviceID")


class ConnectStatusResponse(MeshRequest, frozen=True):
    result: Bare | None = None


class ConnectPendingRequest(MeshRequest, frozen=True):
    """Who waits for an answer?"""

    account_id: str | None = msgspec.field(default=None, name="AccountID")
    search_constraints: SearchConstraints | None = None


class ConnectPendingResponse(MeshRequest, frozen=True):
    """`asked`: when each of them asked, in order."""

    pending: list[Bare] | None = None
    page_key: str | None = None
    asked: list[str] | None = None


class ConnectCompleteRequest(MeshRequest, frozen=True):
    """An administrator's answer."""

    result: Bare | None = None
    account_id: str | None = msgspec.field(default=None, name="AccountID")


class ConnectCompleteResponse(MeshRequest, frozen=True):
    """Nothing but the fact that it was taken."""


# --- what belongs together --------------------------------------------------------------------------------------------

Request = (
    HelloRequest
    | ValidateRequest
    | CreateRequest
    | PublishRequest
    | GetRequest
    | TransferRequest
    | StatusRequest
    | ConnectStartRequest
    | ConnectStatusRequest
    | ConnectPendingRequest
    | ConnectCompleteRequest
)
Response = (
    MeshResponse | ConnectStartResponse | ConnectStatusResponse | ConnectPendingResponse | ConnectCompleteResponse
)


class Transaction(NamedTuple):
    request: type[Request]
    response: type[Response]


TRANSACTIONS: Mapping[str, Transaction] = MappingProxyType(
    {
        "Hello": Transaction(HelloRequest, HelloResponse),
        "ValidateAccount": Transaction(ValidateRequest, ValidateResponse),
        "CreateAccount": Transaction(CreateRequest, CreateResponse),
        "Publish": Transaction(PublishRequest, PublishResponse),
        "Get": Transaction(GetRequest, GetResponse),
        "GetRecords": Transaction(GetRequest, GetRecordsResponse),
        "Transfer": Transaction(TransferRequest, TransferResponse),
        "Status": Transaction(StatusRequest, StatusResponse),
        "ConnectStart": Transaction(ConnectStartRequest, ConnectStartResponse),
        "ConnectStatus": Transaction(ConnectStatusRequest, ConnectStatusResponse),
        "ConnectPending": Transaction(ConnectPendingRequest, ConnectPendingResponse),
        "ConnectComplete": Transaction(ConnectCompleteRequest, ConnectCompleteResponse),
    }
)

# Members, by type, that only one 2016 version has. `Portal` (March) stands in every type derived from MeshRequest.
JANUARY: Mapping[str, frozenset[str]] = {
    "GetRequest": frozenset({"NotBefore", "NotOnOrAfter"}),
    "GetRecordsResponse": frozenset({"DataItems"}),
    "TransferRequest": frozenset({"NotBefore", "Until", "After", "MaxEntries", "MaxBytes"}),
    "ConnectStartResponse": frozenset({"SignedConnectionResult"}),
}
_PORTAL = frozenset({"Portal"})
MARCH: Mapping[str, frozenset[str]] = {
    "ValidateResponse": frozenset({"Maximum"}),
    "GetRequest": frozenset({"SearchConstraints", "Full"}),
    "GetResponse": frozenset({"DataItems", "PageKey"}),
    "TransferRequest": frozenset({"SearchConstraints"}),
    "TransferResponse": frozenset({"DataItems", "PageKey"}),
    "ConnectPendingRequest": frozenset({"SearchConstraints"}),
    "ConnectPendingResponse": frozenset({"PageKey"}),
}
# Members that we added: they go only to a peer that has sent or announced Mesh-Extensions.
OURS: Mapping[str, frozenset[str]] = {
    "ValidateResponse": frozenset({"Reservation"}),
    "CreateRequest": frozenset({"Invite", "Reservation", "Rows", "Proof"}),
    "CreateResponse": frozenset({"TransactionID", "Receipt"}),
    "PublishRequest": frozenset({"Entries", "Rows", "Close"}),
    "PublishResponse": frozenset({"TransactionID", "Receipt", "Missing", "Heads", "Outcomes"}),
    "GetRecordsResponse": frozenset({"PageKey", "Receipts", "Notices"}),
    "TransferRequest": frozenset({"Origin", "TreeSize"}),
    "TransferResponse": frozenset({"Entries", "First", "Next", "Checkpoint", "PageProof"}),
    "DataItem": frozenset({"Row", "Erased"}),
    "ConnectPendingResponse": frozenset({"Asked"}),
    "StatusRequest": frozenset({"OldSize", "PeerSizes", "TreeSize"}),
    "StatusResponse": frozenset({"LogKeys", "MinIndex", "ConsistencyProof", "Peers"}),
}
_NONE: frozenset[str] = frozenset()


def january_only(kind: type[Structure]) -> frozenset[str]:
    """The members of a message that March's reader stops at."""
    return JANUARY.get(kind.__name__, _NONE)


def march_only(kind: type[Structure]) -> frozenset[str]:
    """The members of a message that January's reader stops at."""
    own = MARCH.get(kind.__name__, _NONE)
    return own | _PORTAL if issubclass(kind, MeshRequest) else own


def ours_only(kind: type[Structure]) -> frozenset[str]:
    """The members of a message that no 2016 reader knows."""
    return OURS.get(kind.__name__, _NONE)
