"""What `verify` makes of a request: values with types, checked as far as that goes without the store.

Each is one transaction. They hold what was signed beside what was read from it, and say nothing about rights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from meshd.crypto.keys import RsaVerifyKey, VerifyKey
from meshd.portal.documents2016 import Document, Profile
from meshd.portal.names import AccountName
from meshd.profile.claim import Kind
from meshd.profile.links import Links
from meshd.profile.version import Parsed, Version


@dataclass(frozen=True, slots=True)
class Constraints:
    """Search constraints of either 2016 version; times in UTC seconds, `not_before` ≤ Added < `before`."""

    not_before: int | None = None
    before: int | None = None
    max_entries: int | None = None
    max_bytes: int | None = None
    page_key: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What is left of a pruned version. Its vid follows from it; its kind and Identifier are only said."""

    vid: bytes
    kind: Kind
    identifier: str
    signer: str
    links: Links
    token: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Current:
    """An entry of ours. `version` is None while the signer's key is unknown: then only its links can be answered."""

    parsed: Parsed
    version: Version | None
    daks: dict[str, VerifyKey] = field(default_factory=dict)  # personal profile: authentication keys of its devices


@dataclass(frozen=True, slots=True)
class Old:
    """An entry of 2016. `profile` is set, and verified, for personal profiles: others wait for who has the key."""

    document: Document
    profile: Profile | None


Entry = Current | Old


@dataclass(frozen=True, slots=True)
class Hello:
    pass


@dataclass(frozen=True, slots=True)
class Validate:
    """`account` is None where `fault` says what is wrong with the name."""

    account: AccountName | None
    fault: str
    reserve: bool


@dataclass(frozen=True, slots=True)
class Create:
    account: AccountName
    entry: Entry
    invite: str | None
    reservation: str | None
    rows: Mapping[bytes, Row] = field(default_factory=dict)  # by vid
    proof: Entry | None = None  # a later profile of the mesh, for who became an administrator after the first


@dataclass(frozen=True, slots=True)
class Publish:
    """One entry, or (`batch`) many in order. A batch is decided entry by entry."""

    entries: tuple[Entry, ...]
    rows: Mapping[bytes, Row]
    batch: bool


@dataclass(frozen=True, slots=True)
class Close:
    """A Publish that gives an account up."""

    account: AccountName


@dataclass(frozen=True, slots=True)
class Get:
    """`records`: GetRecords, which answers with DataItems."""

    identifier: str | None
    account: AccountName | None
    key_values: tuple[tuple[str, str], ...]
    constraints: Constraints
    multiple: bool
    full: bool
    records: bool


@dataclass(frozen=True, slots=True)
class Transfer:
    constraints: Constraints
    after: str | None
    origin: str | None
    tree_size: int | None


@dataclass(frozen=True, slots=True)
class LogStatus:
    old_size: int | None
    peer_sizes: tuple[tuple[str, int], ...]
    tree_size: int | None = None


@dataclass(frozen=True, slots=True)
class ConnectStart:
    """A request that its device signed. `keys`: with which the HTTP request may be signed."""

    account: AccountName
    device: str
    dak: str
    parent: str
    request_id: bytes
    old: bool
    wire: dict[str, Any] = field(repr=False)
    keys: dict[str, VerifyKey | RsaVerifyKey] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class ConnectStatus:
    account: AccountName | None
    device: str


@dataclass(frozen=True, slots=True)
class ConnectPending:
    account: AccountName
    constraints: Constraints


@dataclass(frozen=True, slots=True)
class ConnectComplete:
    """An answer whose signature verified, or (`document`, of 2016) is for the account's profile to verify."""

    account: AccountName
    device: str
    result: str
    signer: str
    wire: dict[str, Any] = field(repr=False)
    document: Document | None = None


Checked = (
    Hello
    | Validate
    | Create
    | Publish
    | Close
    | Get
    | Transfer
    | LogStatus
    | ConnectStart
    | ConnectStatus
    | ConnectPending
    | ConnectComplete
)
