"""What a portal's log says of one entry: a small header and digests, so that content can be erased (protocol D1.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from meshd.crypto import cbor
from meshd.errors import FormatError
from meshd.tlog import tree

VERSION = 1
ACTIONS = frozenset({"New", "Update", "Modify", "Delete", "Drop"})
DIGEST_BYTES = 32
SALT_BYTES = 16
MAX_BYTES = 400  # of an encoded leaf
MAX_TRANSACTION = 64  # bytes of a TransactionID
MAX_KEY = 128  # bytes of a PrimaryKey
MAX_TIME = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Leaf:
    """One entry of the log, as log.cddl's `log-leaf` has it.

    `tid`, `prior`, `action` and `pkey` are the DataItem's own members, verbatim; `added` is in seconds and never falls
    along a log; `vid` is the version id, `content` the SHA-256 of Text or Data as GetRecords returns it, `terms` the
    blinded index terms, each of 32 bytes.
    """

    tid: str
    prior: str | None
    action: str
    pkey: str
    added: int
    vid: bytes
    content: bytes
    terms: bytes

    def __post_init__(self) -> None:
        _check_text(self.tid, MAX_TRANSACTION, "TransactionID")
        if self.prior is not None:
            _check_text(self.prior, MAX_TRANSACTION, "PriorTransactionID")
        _check_text(self.pkey, MAX_KEY, "PrimaryKey")
        if self.action not in ACTIONS:
            raise FormatError("a log entry with an unknown action")
        if type(self.added) is not int or not 0 <= self.added <= MAX_TIME:
            raise FormatError("a log entry of an impossible time")
        for digest in (self.vid, self.content, self.terms):
            if type(digest) is not bytes or len(digest) != DIGEST_BYTES:
                raise FormatError("a log entry with a digest that is not 32 bytes long")

    def encode(self) -> bytes:
        """Deterministic CBOR, 400 bytes at most by the bounds of its members."""
        members = [self.tid, self.prior, self.action, self.pkey, self.added, self.vid, self.content, self.terms]
        return cbor.encode([VERSION, *members])

    @classmethod
    def decode(cls, data: bytes) -> Leaf:
        """FormatError for anything that `encode` does not write."""
        if len(data) > MAX_BYTES:
            raise FormatError("a log entry of more than 400 bytes")
        value = cbor.decode(data)
        if not isinstance(value, list) or len(value) != 9 or type(value[0]) is not int or value[0] != VERSION:
            raise FormatError("a log entry of another form or version")
        if type(value[3]) is not str:
            raise FormatError("a log entry whose action is no text")
        return cls(*value[1:])

    def hash(self) -> bytes:
        """The leaf hash of the tree."""
        return tree.leaf_hash(self.encode())


def content_digest(content: bytes) -> bytes:
    """SHA-256 of Text (in UTF-8) or Data, exactly as GetRecords returns it."""
    return hashlib.sha256(content).digest()


def blind_terms(salt: bytes, terms: Iterable[tuple[str, str]]) -> bytes:
    """SHA-256(salt ‖ CBOR of the [type, term] pairs in the order of their UTF-8, each once).

    The salt (16 random bytes, kept beside the content and erased with it) keeps readers of the log from guessing.
    """
    if len(salt) != SALT_BYTES:
        raise FormatError("a salt that is not 16 bytes long")
    ordered = sorted(set(terms), key=lambda pair: (pair[0].encode(), pair[1].encode()))
    return hashlib.sha256(salt + cbor.encode(ordered)).digest()


def _check_text(value: str, limit: int, what: str) -> None:
    if type(value) is not str or not value or len(value.encode()) > limit:
        raise FormatError(f"a log entry whose {what} is no text of 1 to {limit} bytes")
