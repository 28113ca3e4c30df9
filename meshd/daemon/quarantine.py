"""What was signed by who was not entitled to: kept and shown, never applied, and taken over by hand.

After a device was removed, what it wrote outside its cut is here. Importing signs the content anew, as this device,
over what the item says now; the quarantined version itself stays where it is. When a later profile moves a removal or
confirms what fell, the store judges these versions again by itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from meshd.crypto import base64url
from meshd.daemon import vaults
from meshd.daemon.keyring import Keyring
from meshd.daemon.pen import Pen
from meshd.errors import BadRequest, DecryptError, Denied, FormatError, NotFound
from meshd.profile import clock, links, vault, version
from meshd.profile.apps import PASSWORD, of_tag, password
from meshd.profile.claim import Kind, State
from meshd.profile.vault import Item
from meshd.profile.version import Version
from meshd.store import versions

MANY = 1000  # versions that a count opens
FROM = "From"  # member of an item's plaintext: the quarantined version that it was imported from

OWN = "this device wrote it, beyond what was known of it when it was removed; no other device need have it"
REMOVED = "a removed device wrote it, beyond what was known of it when it was removed"
NO_RIGHT = "whoever signed it had no right to"


@dataclass(frozen=True, slots=True)
class Entry:
    """A quarantined version. `title` is empty where this device can't read it; `newest`: no other one here replaces
    it."""

    vid: bytes
    kind: Kind
    id: str  # of the entry that it is a version of
    application: str
    signer: str
    received_ms: int
    updated: int
    title: str
    why: str
    newest: bool
    imported: bool

    @property
    def name(self) -> str:
        """How a person says it: the vid in base64url."""
        return base64url.encode(self.vid)


@dataclass(frozen=True, slots=True)
class Shown:
    """A quarantined item, opened, beside what is applied now (None: nothing, or deleted for good)."""

    entry: Entry
    item: Item = field(repr=False)
    now: Item | None = field(default=None, repr=False)


def every(
    connection: sqlite3.Connection, keyring: Keyring | None, removed: Collection[str], own: str = ""
) -> list[Entry]:
    """All of it, what came last first. `keyring` None: locked, so without titles. `removed` are the removed devices,
    `own` is this one."""
    rows = connection.execute("SELECT vid FROM versions WHERE state = 3 ORDER BY seq DESC").fetchall()
    found = [row for (vid,) in rows if (row := versions.get(connection, vid)) is not None]
    replaced = {parent for row in found for parent in links.parse(row.token).p} if found else set()
    misfits = versions.misfits(connection) if found else {}
    entries = []
    for row in found:
        why = misfits[row.vid][1] if row.vid in misfits else _why(row.signer, removed, own)
        entries.append(_entry(connection, keyring, row, why, newest=row.vid not in replaced))
    return entries


def count(connection: sqlite3.Connection, keyring: Keyring | None, items_of: str | None = None) -> int:
    """How many items of `every` are worth a look, as lists show them: the newest of each, without what was imported;
    `items_of`: only those that this device signed. Nobody imports profiles and vaults. Where there are very many,
    imported ones are not looked for."""
    rows = connection.execute(
        "SELECT vid, kind, identifier, signer, token FROM versions WHERE state <> 1 AND state = 3"
    ).fetchall()
    replaced = {parent for row in rows for parent in links.parse(row[4]).p}
    found = [row for row in rows if row[1] == Kind.ITEM and row[0] not in replaced and items_of in (None, row[3])]
    if keyring is None or len(found) > MANY:
        return len(found)
    return sum(not _imported(connection, keyring, name, vid) for vid, _, name, *_ in found)


def _imported(connection: sqlite3.Connection, keyring: Keyring, identifier: str, vid: bytes) -> bool:
    mark = base64url.encode(vid)
    return any(head.item.meta.get(FROM) == mark for head in vaults.open_heads(connection, keyring, identifier))


def _why(signer: str, removed: Collection[str], own: str) -> str:
    if signer not in removed:
        return NO_RIGHT
    return OWN if signer == own else REMOVED


def find(connection: sqlite3.Connection, text: str) -> bytes:
    """The version that a person means: a vid in base64url, its beginning (8 characters or more), or an item's
    Identifier, which means its newest quarantined version. NotFound, BadRequest."""
    rows = connection.execute("SELECT vid, identifier, seq FROM versions WHERE state = 3 ORDER BY seq DESC").fetchall()
    for vid, identifier, _ in rows:
        if identifier == text:
            return bytes(vid)
    fitting = [bytes(vid) for vid, *_ in rows if len(text) >= 8 and base64url.encode(vid).startswith(text)]
    if len(fitting) > 1:
        raise BadRequest("More than one version begins like that.")
    if not fitting:
        raise NotFound("There is no such version in quarantine.", hint="see: meshctl quarantine list")
    return fitting[0]


def show(connection: sqlite3.Connection, keyring: Keyring, vid: bytes, removed: Collection[str] = ()) -> Shown:
    """A quarantined item and what is applied in its place. NotFound, DecryptError; BadRequest for what is no item."""
    row, item = _open(connection, keyring, vid)
    heads = vaults.open_heads(connection, keyring, row.identifier)
    why = _why(row.signer, removed, "")
    entry = _entry(connection, keyring, row, why, newest=True)
    return Shown(entry, item, heads[0].item if heads and not heads[0].item.deleted else None)


def take_over(pen: Pen, vid: bytes) -> Version | None:
    """Import: the content of a quarantined item, signed by this device over everything that the item says now. None
    where it says that already. Nothing else is applied. NotFound, BadRequest, DecryptError, Denied."""
    row, item = _open(pen.connection, pen.keyring, vid)
    opened = pen.keyring.vaults.get(row.identifier.partition("/")[0])
    if opened is None:
        raise Denied(
            "The vault of that item is none of this mesh's now.",
            hint="an admin takes it back: meshctl quarantine confirm",
        )
    heads = vaults.open_heads(pen.connection, pen.keyring, row.identifier)
    if heads and _same(heads[0].item, item):
        return None
    time = clock.tick(pen.now_ms, [head.item.time for head in heads])
    fresh = replace(item, meta=item.meta | {"T": clock.write(time), FROM: base64url.encode(vid)})
    return vaults.write_item(pen, opened, row.identifier, fresh, heads)


def _open(connection: sqlite3.Connection, keyring: Keyring, vid: bytes) -> tuple[versions.Row, Item]:
    row, raw = versions.get(connection, vid), versions.raw(connection, vid)
    if row is None or row.state is not State.QUARANTINED:
        raise NotFound("There is no such version in quarantine.", hint="see: meshctl quarantine list")
    if row.kind != Kind.ITEM or raw is None:
        raise BadRequest(
            "Only items are imported.",
            hint="what fell with an admin, devices and vaults, comes back by: meshctl quarantine confirm NAME",
        )
    return row, vault.open_item(version.parse(raw), keyring.key)


def _entry(
    connection: sqlite3.Connection, keyring: Keyring | None, row: versions.Row, why: str, *, newest: bool
) -> Entry:
    application, title, imported = "", "", False
    raw = versions.raw(connection, row.vid)
    if raw is not None and row.kind in (Kind.ITEM, Kind.CONTAINER):
        parsed = version.parse(raw)
        application = of_tag(parsed.tag).name
        if keyring is not None and row.kind == Kind.ITEM:
            title = _title(keyring, parsed)
            imported = _imported(connection, keyring, row.identifier, row.vid)
    return Entry(
        row.vid,
        Kind(row.kind),
        row.identifier,
        application,
        row.signer,
        row.received,
        row.updated,
        title,
        why,
        newest,
        imported,
    )


def _title(keyring: Keyring, parsed: version.Parsed) -> str:
    try:
        item = vault.open_item(parsed, keyring.key)
    except (DecryptError, FormatError):
        return ""
    if parsed.tag != PASSWORD.tag or item.deleted:
        return ""
    row = password.row(item)
    return row.title or (row.sites[0] if row.sites else row.username)


def _same(one: Item, other: Item) -> bool:
    aside = ("T", "Made", FROM)
    left, right = ({k: v for k, v in item.meta.items() if k not in aside} for item in (one, other))
    return one.private == other.private and left == right
