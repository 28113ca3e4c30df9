"""Writing an item where there may be no key for it: an admin makes a new one first, a member keeps a sealed draft.

After a removal that nobody has followed by new keys yet, what a member wrote would be readable to the removed device
(formats.md F5). So it stays here, sealed under K_cache, is listed as pending, and goes out by itself once an admin has
rotated. A draft names the heads that its author saw, so what others wrote meanwhile is a conflict and nothing is
overwritten. A second edit of the same item takes the place of the first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from meshd.crypto import cbor, sealing
from meshd.daemon import keyring as keyrings
from meshd.daemon import rotation, vaults
from meshd.daemon.context import Daemon
from meshd.daemon.keyring import Keyring, Opened
from meshd.daemon.pen import Pen
from meshd.errors import DecryptError, Denied, FormatError, NotFound
from meshd.profile import clock, payload, vault, version
from meshd.profile.claim import Kind, State
from meshd.profile.vault import EpochKey, Item
from meshd.profile.version import Version
from meshd.store import events, versions
from meshd.store.replica import Draft

T = TypeVar("T")
MAX_DRAFTS = 10_000
_AAD = b"mmm-draft/1"


@dataclass(frozen=True, slots=True)
class Pending:
    """A write that waits for a key. `new`: nobody else has heard of the item."""

    id: int
    created_ms: int
    identifier: str
    tag: str
    parents: tuple[bytes, ...]
    item: Item = field(repr=False)

    @property
    def container(self) -> str:
        return self.identifier.partition("/")[0]

    @property
    def new(self) -> bool:
        return not self.parents


async def write_or_draft(daemon: Daemon, fn: Callable[[Pen], T]) -> tuple[T, list[Pending]]:
    """As `Daemon.write`, for a `fn` that writes items with `add` and `replace` of this module; its result, and what of
    it waits for a key."""

    def run(pen: Pen) -> tuple[T, list[Pending]]:
        (last,) = pen.connection.execute("SELECT coalesce(max(id), 0) FROM drafts").fetchone()
        result = fn(pen)
        return result, [one for one in every(pen.connection, pen.keyring) if one.id > last]

    return await daemon.write(run)


# --- writing ----------------------------------------------------------------------------------------------------------


def add(pen: Pen, opened: Opened, build: Callable[[int, str], Item]) -> Version | Pending:
    """A new item, as `vaults.add`, or the draft of one. Denied where this device may not write."""
    identifier = vault.new_item_identifier(opened.application.identifier, pen.rng)
    item = build(clock.tick(pen.now_ms, ()), pen.made)
    return _write(pen, opened, identifier, opened.application.tag, item, ())


def replace(pen: Pen, identifier: str, build: Callable[[Item, int, str], Item]) -> Version | Pending:
    """A version over all heads of an item, as `vaults.replace`, or a draft of one; where there is a draft of it, over
    that.

    NotFound, Denied."""
    opened = pen.keyring.vaults.get(identifier.partition("/")[0])
    heads = vaults.open_heads(pen.connection, pen.keyring, identifier) if opened is not None else []
    before = latest(pen.connection, pen.keyring, identifier)
    if opened is None or not (heads or before):
        raise NotFound("There is no such item on this device.")
    if before is None:
        time = clock.tick(pen.now_ms, [head.item.time for head in heads])
        item, parents = build(heads[0].item, time, pen.made), tuple(head.vid for head in heads)
        return _write(pen, opened, identifier, heads[0].tag, item, parents)
    # Whoever edits a draft has seen what the draft replaces, and not what others have written since.
    item = build(before.item, clock.tick(pen.now_ms, [before.item.time]), pen.made)
    written = _write(pen, opened, identifier, before.tag, item, before.parents)
    discard(pen, before.id)
    return written


def _write(
    pen: Pen, opened: Opened, identifier: str, tag: str, item: Item, parents: tuple[bytes, ...]
) -> Version | Pending:
    key = write_key(pen, opened)
    if key is None:
        return put(pen, identifier, tag, item, parents)
    return _sign(pen, identifier, tag, item, parents, key)


def _sign(pen: Pen, identifier: str, tag: str, item: Item, parents: Sequence[bytes], key: EpochKey) -> Version:
    """The item over those of `parents` that still stand; members that this release does not know come from the
    first."""
    standing = [parsed for parsed in pen.load(parents) if _stands(pen, parsed.claim.vid)]
    rest: dict[str, Any] = dict(standing[0].body) if standing else {}
    rest |= vault.seal_item(item, key, pen.rng)
    return pen.write(Draft(Kind.ITEM, identifier, tag, rest, parents=tuple(parsed.claim.vid for parsed in standing)))


def write_key(pen: Pen, opened: Opened) -> EpochKey | None:
    """The key for a new write. Where none is fit an admin rotates first; None on a member, which keeps a draft.

    Denied where this device may not write to that vault."""
    container = opened.application.identifier
    authority = pen.replica.authority
    if not authority.can_write(pen.replica.own, container):
        raise Denied("This device may not write that.", hint="ask an admin of this mesh to grant it")
    if not rotation.usable(pen.connection, pen.replica, opened):
        if pen.replica.own not in authority.admins():
            return None
        rotation.rotate(pen, container)
        opened = pen.keyring.vaults[container]
    return keyrings.write_key(pen.connection, pen.replica, opened)


# --- the drafts -------------------------------------------------------------------------------------------------------


def put(pen: Pen, identifier: str, tag: str, item: Item, parents: tuple[bytes, ...]) -> Pending:
    """Keep a write, sealed for this device; Denied when there are too many."""
    (count,) = pen.connection.execute("SELECT count(*) FROM drafts").fetchone()
    if count >= MAX_DRAFTS:
        raise Denied(f"{count} writes wait for a key already.", hint="unlock an admin device and let it sync")
    plain = cbor.encode(
        {
            "v": 1,
            "id": identifier,
            "tag": tag,
            "parents": list(parents),
            "item": payload.encode_private({"Private": item.private, "Meta": item.meta}),
        }
    )
    sealed = sealing.aead_seal(pen.keyring.cache_key, plain, _AAD, pen.rng)
    cursor = pen.connection.execute("INSERT INTO drafts (created, sealed) VALUES (?, ?)", (pen.now_ms, sealed))
    number = cursor.lastrowid
    assert number is not None  # an INSERT into a rowid table always has one
    events.append(pen.connection, pen.now_ms, "draft", {"id": identifier, "state": "kept"})
    return Pending(number, pen.now_ms, identifier, tag, parents, item)


def every(connection: sqlite3.Connection, keyring: Keyring) -> list[Pending]:
    """What waits, oldest first. A draft that another keystore sealed, or that is damaged, is left out and left
    alone."""
    found = []
    for number, created, sealed in connection.execute("SELECT id, created, sealed FROM drafts ORDER BY id").fetchall():
        try:
            found.append(_read(number, created, sealing.aead_open(keyring.cache_key, sealed, _AAD)))
        except (DecryptError, FormatError):
            continue
    return found


def count(connection: sqlite3.Connection) -> int:
    """How many writes wait; for a locked device too."""
    (number,) = connection.execute("SELECT count(*) FROM drafts").fetchone()
    return int(number)


def latest(connection: sqlite3.Connection, keyring: Keyring, identifier: str) -> Pending | None:
    """The draft of an item, if there is one."""
    if not count(connection):
        return None
    return next((one for one in reversed(every(connection, keyring)) if one.identifier == identifier), None)


def discard(pen: Pen, number: int) -> None:
    """Give a draft up; NotFound."""
    if not pen.connection.execute("DELETE FROM drafts WHERE id = ?", (number,)).rowcount:
        raise NotFound("There is no such draft.")


def flush(pen: Pen) -> list[Version]:
    """Write out every draft for which there is a key and the right now; the others stay."""
    written: list[Version] = []
    if not count(pen.connection):
        return written
    for one in every(pen.connection, pen.keyring):
        opened = pen.keyring.vaults.get(one.container)
        if opened is None or not pen.replica.authority.can_write(pen.replica.own, one.container):
            continue
        key = write_key(pen, opened)
        if key is None:
            continue
        written.append(_sign(pen, one.identifier, one.tag, one.item, one.parents, key))
        discard(pen, one.id)
        events.append(pen.connection, pen.now_ms, "draft", {"id": one.identifier, "state": "written"})
    return written


def _stands(pen: Pen, vid: bytes) -> bool:
    row = versions.get(pen.connection, vid)
    return row is not None and row.state is State.APPLIED


def _read(number: int, created: int, plain: bytes) -> Pending:
    fields = cbor.decode(plain)
    if type(fields) is not dict or fields.get("v") != 1:
        raise FormatError("a draft of another release")
    said = payload.decode_private(fields["item"])
    parents = tuple(fields["parents"])
    version.kind_of_application(fields["id"])
    return Pending(number, created, fields["id"], fields["tag"], parents, Item(said["Private"], said["Meta"]))
