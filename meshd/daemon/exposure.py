"""What a device could read, and what of it was changed since: the work-list after a loss.

A key that was ever wrapped to a device may be in somebody else's hands, and with it every version of every item under
that key, old ones and deleted ones too. Which key a version is under stands in clear in its header, so nothing is
decrypted to find them; only where an item has moved on are the secrets compared. Nothing is remembered: the list is
made anew from the store each time, and an item is ticked off when nothing that it holds now, in any of its heads, was
readable there. Deleting a login changes no password: it is listed as deleted, and judged by what it held last.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from meshd.crypto import base64url
from meshd.daemon import vaults
from meshd.daemon.index import Index
from meshd.daemon.keyring import Keyring
from meshd.errors import DecryptError, FormatError
from meshd.profile import payload, vault, version
from meshd.profile.apps import PASSWORD, of_tag, password
from meshd.profile.claim import Kind, State
from meshd.profile.vault import Item
from meshd.store import versions

_DIRECT = '{{"alg":"dir","enc":"A256GCM","kid":"{}"}}'  # the one spelling that an item's header has (meshd.crypto.jwe)
_MARK = b'"EncryptedData":{"protected":"'


@dataclass(frozen=True, slots=True)
class Exposed:
    """An item that the device could read. `changed`: nothing that it holds now was readable there; of a deleted one,
    nothing that it held last. `username` is known of what was opened."""

    id: str
    title: str
    changed: bool
    deleted: bool = False
    username: str = ""

    @property
    def open(self) -> bool:
        """There is something here to change it in."""
        return not self.changed and not self.deleted


def exposure(
    connection: sqlite3.Connection,
    keyring: Keyring,
    device: str | Collection[str],
    titles: Mapping[str, str] | None = None,
) -> list[Exposed]:
    """The items that `device` (its UDF, or those of several) could ever read, unchanged ones first, then by title.

    `titles` names live items without decrypting them, where it can (`titles_of`). Of vaults that this device can't open
    itself nothing is listed. Takes about a second for 10⁵ items, and four more where all have to be decrypted to be
    named; a reader of its own belongs to it."""
    named = titles if titles is not None else {}
    devices = frozenset([device] if isinstance(device, str) else device)
    kids = frozenset(kid for udf in devices for kid in readable_keys(connection, udf))
    found = [
        exposed
        for identifier, held in _items(connection, keyring, kids, devices, named).items()
        if (exposed := held.as_it_was or _judge(connection, keyring, identifier, held.readable, named)) is not None
    ]
    return sorted(found, key=lambda one: (one.changed, one.title.casefold(), one.id))


def titles_of(index: Index) -> dict[str, str]:
    """What the index calls the live items of vaults."""
    return {
        entry.identifier: entry.title or (entry.sites[0] if entry.sites else entry.username)
        for entry in list(index.entries.values())
        if not entry.deleted and of_tag(entry.tag).vault
    }


def counts(found: Iterable[Exposed]) -> tuple[int, int]:
    """(exposed, unchanged); what was deleted is not among the unchanged."""
    listed = list(found)
    return len(listed), sum(one.open for one in listed)


def readable_keys(connection: sqlite3.Connection, device: str) -> frozenset[str]:
    """The kids that were ever wrapped to one of the device's encryption keys, whether that container stands or not: a
    key that was handed over is not handed back."""
    deks = {key for key, owner in key_owners(connection).items() if owner == device}
    kids: set[str] = set()
    for row in versions.of_kind(connection, Kind.CONTAINER, tuple(State)):
        raw = versions.raw(connection, row.vid)
        if raw is not None:
            parsed = version.parse(raw)
            if vault.container_recipients(parsed) & deks:
                kids |= vault.container_kids(parsed)
    return frozenset(kids)


def key_owners(connection: sqlite3.Connection) -> dict[str, str]:
    """Encryption key → the device whose it is: whose profile stated it first here. Anybody may call another's his own,
    and all that this one ever reads would stand on his list."""
    found: dict[str, str] = {}
    for row in versions.of_kind(connection, Kind.DEVICE, tuple(State)):  # in the order in which they came
        raw = versions.raw(connection, row.vid)
        if raw is not None:
            found.setdefault(version.device_keys(version.parse(raw).body)[2].udf, row.signer)
    return found


@dataclass(slots=True)
class _Held:
    """What one look at all rows shows of an item."""

    readable: set[bytes]  # its versions that were
    as_it_was: Exposed | None = None  # the line of an item that still is what was readable


def _items(
    connection: sqlite3.Connection,
    keyring: Keyring,
    kids: frozenset[str],
    devices: frozenset[str],
    named: Mapping[str, str],
) -> dict[str, _Held]:
    """The items with a version under one of these keys. What a device itself wrote counts as read.

    Nearly all are as they were: one head, and that was readable. Their line is made here, while the row is at hand."""
    marks = {mark_of(kid) for kid in kids}
    found: dict[str, _Held] = {}
    headed: set[str] = set()
    rows = connection.execute(
        "SELECT vid, identifier, signer, head, raw FROM versions WHERE kind = 8 AND state <> 2 AND raw IS NOT NULL"
    )
    for vid, identifier, signer, head, raw in rows:
        readable = signer in devices or read_mark(raw) in marks
        if readable:
            held = found.get(identifier)
            if held is None:
                held = found[identifier] = _Held(set())
            held.readable.add(vid)
        if not head:
            continue
        if identifier in headed:  # two heads or more: they are compared
            if identifier in found:
                found[identifier].as_it_was = None
            continue
        headed.add(identifier)
        if readable:
            found[identifier].as_it_was = _as_it_was(keyring, identifier, raw, named.get(identifier))
    return {identifier: held for identifier, held in found.items() if identifier in headed}  # others: in quarantine


def _as_it_was(keyring: Keyring, identifier: str, raw: bytes, title: str | None) -> Exposed | None:
    """The line of an item whose one head was readable; None where that has to be looked at more closely."""
    if title is not None:
        return Exposed(identifier, title, changed=False)
    opened = vaults.open_head(raw, keyring)
    if opened is None:
        return None
    tag, item = opened
    if item.deleted or not of_tag(tag).vault or not secrets(tag, item):
        return None
    called, username = _called([(tag, item)])
    return Exposed(identifier, called, changed=False, username=username)


def mark_of(kid: str) -> bytes:
    """The protected header of an item under this key, as it stands in the item's signed payload."""
    return base64url.encode(_DIRECT.format(kid).encode("ascii")).encode("ascii")


def read_mark(raw: bytes) -> bytes:
    """The protected header of a stored item, found without reading the rest; `mark_of` its key."""
    start = raw.find(_MARK)
    if start >= 0:
        start += len(_MARK)
        if raw.find(_MARK, start) < 0:  # a second one: somebody plays tricks, and the slow way finds the right one
            return raw[start : raw.find(b'"', start)]
    try:
        return mark_of(vault.item_key_id(version.parse(raw)))
    except FormatError:
        return b""


def _judge(
    connection: sqlite3.Connection,
    keyring: Keyring,
    identifier: str,
    readable: set[bytes],
    named: Mapping[str, str],
) -> Exposed | None:
    """The line of an item that has moved on; None where there is nothing to do: no vault item, or without a secret."""
    title = named.get(identifier)
    shown = vaults.open_heads(connection, keyring, identifier)
    if not shown or not of_tag(shown[0].tag).vault:
        return None
    live = [head for head in shown if not head.item.deleted]
    seen = list(_opened(connection, keyring, readable))
    before = [secrets(tag, item) for tag, item in seen]
    if not any(before):
        return None
    held = [(head.vid, head.tag, head.item) for head in live] or _last(connection, keyring, identifier)
    changed = not any(vid in readable or _known(before, secrets(tag, item)) for vid, tag, item in held)
    called, username = _called([(tag, item) for _, tag, item in held] or seen)
    return Exposed(identifier, title or called, changed, not live, username)


def _known(before: Iterable[Mapping[str, tuple[Any, ...]]], now: Mapping[str, tuple[Any, ...]]) -> bool:
    """Is one of the secrets `now` among those that were readable?"""
    return any(value in told.get(name, ()) for told in before for name, values in now.items() for value in values)


def _last(connection: sqlite3.Connection, keyring: Keyring, identifier: str) -> list[tuple[bytes, str, Item]]:
    """(vid, tag, item) of what a deleted item held last; empty where that can't be read."""
    applied = [row.vid for row in versions.of_entry(connection, Kind.ITEM, identifier) if row.state is State.APPLIED]
    found = []
    for vid, (_, raw) in versions.raws(connection, applied).items():
        parsed = version.parse(raw)
        try:
            item = vault.open_item(parsed, keyring.key)
            rank = (item.time, vid)
        except (DecryptError, FormatError):
            continue
        if not item.deleted:
            found.append((rank, (vid, parsed.tag, item)))
    return [max(found, key=lambda pair: pair[0])[1]] if found else []


def _opened(connection: sqlite3.Connection, keyring: Keyring, vids: Iterable[bytes]) -> Iterator[tuple[str, Item]]:
    for _, raw in versions.raws(connection, list(vids)).values():
        parsed = version.parse(raw)
        try:
            yield parsed.tag, vault.open_item(parsed, keyring.key)
        except (DecryptError, FormatError):
            continue


def secrets(tag: str, item: Item) -> dict[str, tuple[Any, ...]]:
    """What of an item would have to be changed, by name: a login's password and TOTP secret, or its note where it has
    neither; everything that an item of another kind holds."""
    if item.deleted:
        return {}
    if tag == PASSWORD.tag:
        view = password.view(item)
        found = {name: (view[name],) for name in ("password", "totp") if view[name]}
        return found or ({"note": (view["note"],)} if view["note"] else {})
    return {"content": (payload.encode_private({"private": item.private, "fields": item.fields}),)}


def _called(items: Iterable[tuple[str, Item]]) -> tuple[str, str]:
    """Title and user name of a login."""
    for tag, item in items:
        if tag == PASSWORD.tag and not item.deleted:
            row = password.row(item)
            return row.title or (row.sites[0] if row.sites else "") or row.username, row.username
    return "", ""
