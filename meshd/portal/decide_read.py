"""Get and GetRecords: what a portal shows, and to whom.

Anybody may read a personal profile with its whole history, by account or by Identifier, and an offline escrow entry by
its exact name: who lost every device has nothing else, and can't judge a profile without those that it builds on. All
else is for current devices of the account. A mesh's feed is everything stored
for it, in the order of the log, quarantined versions too: who reads it judges for himself. What nobody has and what the
asker may not see are answered alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from meshd.errors import FormatError
from meshd.portal import names, records, rights
from meshd.portal.checked import Get
from meshd.portal.outcomes import Context, Decision, Notice, Write
from meshd.portal.reasons import Reason
from meshd.portal.statuses import Status
from meshd.portal.structures import Noticed
from meshd.portal.view import CLOSED, Stored, View
from meshd.profile import payload
from meshd.profile.claim import Kind

_KINDS = (Kind.PERSONAL, Kind.OFFLINE_ESCROW, Kind.CONTAINER, Kind.ITEM, Kind.ONLINE_ESCROW)
USER_PROFILE, UNIQUE_ID, TYPE = "UserProfile", "UniqueID", "Type"
PERSONAL = "SignedPersonalProfile"
NOTICES = 20  # told at once
_TERMS = frozenset({USER_PROFILE, UNIQUE_ID, TYPE})


def get(checked: Get, context: Context, view: View) -> Decision:
    """Decide a Get or GetRecords."""
    if checked.key_values:
        return _feed(checked, context, view)
    heads: Sequence[Stored] = ()
    writes: list[Write] = []
    if checked.account is not None:
        account = rights.find_account(str(checked.account), view, context)
        if account is not None:
            heads = view.heads(Kind.PERSONAL, account.mesh)
    elif checked.identifier is not None:
        heads, writes = _by_identifier(checked.identifier, context, view)
    if context.plain:
        heads = [head for head in heads if head.old]  # a 2016 reader stops at what ours hold
    limits = checked.constraints
    heads = [one for one in heads if limits.not_before is None or one.added >= limits.not_before]
    heads = [one for one in heads if limits.before is None or one.added < limits.before]
    if not heads:
        return _nothing(checked, context)
    shown = _page(sorted(heads, key=_winner_first)[: None if checked.multiple else 1], context.policy.page_bytes)
    if checked.records:
        return rights.accept("GetRecords", *writes, data_items=[records.data_item(head) for head in shown])
    members: dict[str, Any] = {"entries": [records.entry_json(head) for head in shown if head.raw]}
    if checked.full:
        members["data_items"] = [records.data_item(head) for head in shown]
    return rights.accept("Get", *writes, **members)


def _winner_first(head: Stored) -> tuple[int, bytes]:
    return -head.generation, head.vid


def _nothing(checked: Get, context: Context) -> Decision:
    """A client of 2016 does not look at Status: nothing is a success without Entries."""
    transaction = "GetRecords" if checked.records else "Get"
    if context.plain:
        return rights.accept(transaction)
    return rights.refuse(transaction, context, Status.NOT_FOUND, Reason.NOT_FOUND)


def _by_identifier(identifier: str, context: Context, view: View) -> tuple[Sequence[Stored], list[Write]]:
    for kind in _KINDS:
        heads = view.heads(kind, identifier)
        if heads:
            break
    else:
        return (), []
    if kind is Kind.OFFLINE_ESCROW:
        # Whoever asks by this name holds the key, or has found the shares: the person should hear of it.
        return heads, [Notice(head.mesh, "escrow-read", identifier) for head in heads if head.mesh]
    account = view.mesh_account(heads[0].mesh)
    if account is None or account.status == CLOSED:
        return (), []
    if kind is Kind.PERSONAL or (account.compat and context.plain and context.policy.compat != "off"):
        return heads, []
    return (heads, []) if rights.caller_device(context, view, account.mesh) is not None else ((), [])


def _feed(checked: Get, context: Context, view: View) -> Decision:
    """Records that all KeyValues fit, in log order, from behind the PageKey on. The PageKey is always returned."""
    transaction = "GetRecords" if checked.records else "Get"
    terms = dict(checked.key_values)
    mesh = _mesh(terms.get(USER_PROFILE, ""), context, view)
    if mesh is None or context.plain or not terms.keys() <= _TERMS:
        return _nothing(checked, context)
    known = rights.caller_device(context, view, mesh) is not None
    account = view.mesh_account(mesh)
    if account is None or account.status == CLOSED or not (known or terms.get(TYPE) == PERSONAL):
        return _nothing(checked, context)
    constraints, policy = checked.constraints, context.policy
    last, heard = view.last_index(), view.last_notice()  # who begins has heard what was told before
    if constraints.page_key is None:
        after = 0 if constraints.not_before is None else view.index_at(mesh, constraints.not_before)
    else:
        try:
            after, told = read_page_key(constraints.page_key)
            heard = heard if told is None else min(told, heard)
        except FormatError:
            after = last + 1
        if after > last:  # of another portal, or of this one before it was restored from a backup
            return rights.refuse(transaction, context, Status.NOT_FOUND, Reason.PAGE_KEY)
    most = min(constraints.max_entries or policy.page_entries, policy.page_entries)
    # A place behind anything else would tell strangers how much a mesh writes, and when.
    found = view.feed(mesh, after, most, profiles=terms.get(TYPE) == PERSONAL)
    if constraints.before is not None and constraints.page_key is None:
        found = [one for one in found if one.added < constraints.before]
    fitting = _page(found, min(constraints.max_bytes or policy.page_bytes, policy.page_bytes))
    whole = known and checked.records and terms.keys() == {USER_PROFILE}
    notices = view.told(mesh, heard, NOTICES) if whole else ()
    heard = notices[-1].number if notices else heard
    page_key = page_key_of(fitting[-1].index if fitting else after, heard if whole else None)
    shown = [one for one in fitting if _fits(one, terms)]
    waiting = mesh if known and not found and not notices else None
    items = [records.data_item(one) for one in shown]
    if checked.records:
        said = [Noticed(payload.write_date(one.time), one.what, one.about) for one in notices] or None
        return rights.accept(transaction, feed=waiting, data_items=items, page_key=page_key, notices=said)
    members: dict[str, Any] = {"entries": [records.entry_json(one) for one in shown if one.raw], "page_key": page_key}
    if checked.full:
        members["data_items"] = items
    return rights.accept(transaction, feed=waiting, **members)


def _mesh(value: str, context: Context, view: View) -> str | None:
    """The mesh that a UserProfile term names: by its UDF, or by the account."""
    if "@" not in value:
        return value or None
    try:
        account = rights.find_account(str(names.normalise(value)), view, context)
    except FormatError:
        return None
    return account.mesh if account is not None else None


def _fits(stored: Stored, terms: dict[str, str]) -> bool:
    return terms.get(UNIQUE_ID, stored.identifier) == stored.identifier and (
        TYPE not in terms or terms[TYPE] == records.type_of(stored)
    )


def _page(found: Iterable[Stored], most: int) -> list[Stored]:
    """As many as have at most so many bytes together, but one at least."""
    page: list[Stored] = []
    size = 0
    for one in found:
        size += len(one.raw)
        if page and size > most:
            break
        page.append(one)
    return page


def page_key_of(index: int, heard: int | None = None) -> str:
    """The PageKey behind this place in the log, and this notice. Opaque to clients."""
    return f"P{index}" if heard is None else f"P{index}.{heard}"


def read_page_key(text: str) -> tuple[int, int | None]:
    """(place in the log, number of a notice) that a PageKey names; FormatError."""
    numbers = text[1:].split(".")
    if not text.startswith("P") or len(numbers) > 2 or not all(map(_is_number, numbers)):
        raise FormatError("not a PageKey of a portal")
    return int(numbers[0]), int(numbers[1]) if len(numbers) == 2 else None


def _is_number(text: str) -> bool:
    return text.isdecimal() and text.isascii() and len(text) <= 15
