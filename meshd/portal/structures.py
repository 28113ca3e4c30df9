"""The structures that portal messages are made of: the draft's in both 2016 versions, and those that we added.

One class is one schema structure, with the exact names of the wire and the schema's order. A member that is None is
not written; an empty list is. `Tagged` is a polymorphic object with its type as the one member (`TStruct`), `Bare` an
object whose type the schema gives (`Struct`); both stay decoded JSON, because what is signed inside must not be
rebuilt (reference: protocol-2016.md §2, §4).
"""

from __future__ import annotations

from typing import Any

import msgspec

Tagged = dict[str, Any]
Bare = dict[str, Any]


class Binary(bytes):
    """A member of type Binary: base64url text in JSON, a byte string in CBOR."""


class Structure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="pascal"):
    """What all structures share: wire names are the field names in PascalCase unless said otherwise."""


class Encoding(Structure, frozen=True):
    """A media type and the dictionaries that may be used with it."""

    id: list[str] | None = msgspec.field(default=None, name="ID")
    dictionary: list[str] | None = None


class Version(Structure, frozen=True):
    """A protocol version that a service speaks, and where it prefers to be reached."""

    major: int | None = None
    minor: int | None = None
    encodings: list[Encoding] | None = None
    uri: list[str] | None = msgspec.field(default=None, name="URI")


class KeyValue(Structure, frozen=True):
    key: str | None = None
    value: str | None = None


class SearchConstraints(Structure, frozen=True):
    """Of March 2016. With a PageKey only MaxEntries and MaxBytes still count."""

    not_before: str | None = None
    before: str | None = None
    max_entries: int | None = None
    max_bytes: int | None = None
    page_key: str | None = None


class Noticed(Structure, frozen=True):
    """Ours: something that a portal tells the devices of a mesh about it."""

    time: str
    what: str
    about: str


class IndexTerm(Structure, frozen=True):
    type: str | None = None
    term: str | None = None


class ChainRow(Structure, frozen=True):
    """Ours: what is left of a pruned version; its vid and its links follow from it (formats.md F1)."""

    kind: int
    identifier: str
    signer: str
    notary_token: str
    digest: Binary


class DataItem(Structure, frozen=True):
    """One record of the store. Ours carry the entry's F4 bytes in Data; those of 2016 its JSON in Text."""

    transaction_id: str | None = msgspec.field(default=None, name="TransactionID")
    primary_key: str | None = None
    prior_transaction_id: str | None = msgspec.field(default=None, name="PriorTransactionID")
    action: str | None = None
    added: str | None = None
    keys: list[dict[str, IndexTerm]] | None = None
    data: Binary | None = None
    text: str | None = None
    pending: bool | None = None
    commit: bool | None = None
    rollback: bool | None = None
    row: ChainRow | None = None  # ours: the version was pruned
    erased: bool | None = None  # ours: the content is gone, the leaf stays


class PortalEntry(Structure, frozen=True):
    created: str | None = None
    modified: str | None = None


class Account(PortalEntry, frozen=True):
    """A portal's record of an account. Status: Open, Closed or Suspended."""

    account_id: str | None = msgspec.field(default=None, name="AccountID")
    user_profile_udf: str | None = msgspec.field(default=None, name="UserProfileUDF")
    status: str | None = None


class AccountProfile(Account, frozen=True):
    profile: Tagged | None = None


class ConnectionsPending(Account, frozen=True):
    requests: list[Bare] | None = None


class ConsistencyProof(Structure, frozen=True):
    """Ours: the tree of NewSize extends the one of OldSize (RFC 6962 §2.1.2)."""

    old_size: int
    new_size: int
    hashes: list[Binary]


class PeerSize(Structure, frozen=True):
    """Ours: the size of a peer portal's log that the caller holds a checkpoint of."""

    origin: str
    size: int


class ProofLink(Structure, frozen=True):
    """Ours: one consistency proof in a chain of them."""

    from_: int = msgspec.field(name="From")
    to: int
    hashes: list[Binary]


class PeerStatus(Structure, frozen=True):
    """Ours: what a portal knows of another one's log. State: Consistent, Stale, Unreachable or Equivocated."""

    origin: str
    log_keys: list[str] | None = None
    checkpoint: str | None = None
    seen: str | None = None
    state: str | None = None
    proof_chain: list[ProofLink] | None = None
    anchor: str | None = None
    evidence: list[str] | None = None


class TransferEntry(Structure, frozen=True):
    """Ours: a record of the log and its leaf, which the tree commits to. With content and index terms comes the salt
    that blinds these."""

    data_item: DataItem
    salt: Binary | None = None
    leaf: Binary | None = None
    erased: bool | None = None


class Outcome(Structure, frozen=True):
    """Ours: what became of one entry of a batch."""

    status: int
    missing: list[str] | None = None
    transaction_id: str | None = msgspec.field(default=None, name="TransactionID")
    receipt: str | None = None
