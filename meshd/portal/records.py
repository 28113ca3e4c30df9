"""What is stored, as messages carry it: entries as the draft's tagged JSON, records as DataItems.

A DataItem of ours carries the F4 bytes of the version in Data, one of 2016 its tagged JSON in Text, compact; a pruned
version leaves a row. Either way the content has exactly one form, and the log commits to its SHA-256.
"""

from __future__ import annotations

from typing import Any

from meshd.portal import crosslog, documents2016
from meshd.portal.structures import Binary, ChainRow, DataItem
from meshd.portal.view import Stored
from meshd.profile import payload, version
from meshd.profile.claim import Kind

_TYPES = {
    Kind.PERSONAL: "SignedPersonalProfile",
    Kind.CONTAINER: "SignedApplicationProfile",
    Kind.ITEM: "SignedApplicationProfile",
    Kind.OFFLINE_ESCROW: "OfflineEscrowEntry",
    Kind.ONLINE_ESCROW: "OnlineEscrowEntry",
    crosslog.KIND: crosslog.TYPE,
}


def entry_json(stored: Stored) -> dict[str, Any]:
    """The tagged entry."""
    if stored.old:
        return documents2016.to_json(documents2016.parse(stored.raw))
    return version.stored_json(stored.raw)


def type_of(stored: Stored) -> str:
    """The tag of the entry, from its kind alone."""
    return _TYPES.get(stored.kind, "")


def content(stored: Stored) -> bytes:
    """The bytes that Data or Text hold; empty for a pruned version."""
    if stored.old and stored.raw:
        return payload.encode(entry_json(stored))
    return stored.raw


def data_item(stored: Stored) -> DataItem:
    """The record of a stored version."""
    held = content(stored)
    return DataItem(
        transaction_id=stored.transaction_id,
        primary_key=stored.identifier,
        prior_transaction_id=stored.prior,
        action=stored.action,
        added=payload.write_date(stored.added),
        data=Binary(held) if held and not stored.old else None,
        text=held.decode() if held and stored.old else None,
        row=_row(stored) if not held else None,
    )


def _row(stored: Stored) -> ChainRow | None:
    row = stored.row
    if row is None:
        return None
    return ChainRow(
        kind=int(row.kind),
        identifier=row.identifier,
        signer=row.signer,
        notary_token=row.token,
        digest=Binary(row.digest),
    )
