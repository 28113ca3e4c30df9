"""Items: reading an entry's heads, and writing the version that replaces them. Runs in the writer's thread.

One item is one entry. An edit names every head that it saw as a parent, so editing an item in conflict resolves it,
and a change that arrives in between stays beside it as a conflict. Nothing is overwritten.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from meshd.daemon import keyring as keyrings
from meshd.daemon.keyring import Keyring, Opened
from meshd.daemon.pen import Pen
from meshd.errors import DecryptError, FormatError, NotFound
from meshd.profile import clock, vault, version
from meshd.profile.claim import Kind
from meshd.profile.links import MAX_HEADS
from meshd.profile.vault import EpochKey, Item
from meshd.profile.version import Parsed, Version
from meshd.store import versions
from meshd.store.replica import Draft


@dataclass(frozen=True, slots=True)
class Head:
    """One head of an item, opened."""

    vid: bytes
    signer: str
    updated: int
    tag: str
    parsed: Parsed = field(repr=False)
    item: Item = field(repr=False)

    @property
    def rank(self) -> tuple[bool, int, bytes]:
        return vault.winner_key(self.item.deleted, self.item.time, self.vid)


def items_of(connection: sqlite3.Connection, container: str) -> list[str]:
    """The Identifiers of a vault's items that have a head, deleted ones too."""
    rows = connection.execute(
        "SELECT DISTINCT identifier FROM heads WHERE kind = 8 AND identifier > ? AND identifier < ?",
        (container + "/", container + "0"),  # "0" follows "/" in ASCII
    )
    return [row[0] for row in rows.fetchall()]


def heads_in(connection: sqlite3.Connection, container: str) -> list[tuple[str, bytes]]:
    """(Identifier, vid) of every head of a vault's items, in this order."""
    rows = connection.execute(
        "SELECT identifier, vid FROM heads WHERE kind = 8 AND identifier > ? AND identifier < ?"
        " ORDER BY identifier, vid",
        (container + "/", container + "0"),
    )
    return [(row[0], row[1]) for row in rows]


def open_heads(connection: sqlite3.Connection, keyring: Keyring, identifier: str) -> list[Head]:
    """The heads that this device can open, the winner first, and those that say the same as another at the end."""
    found: list[Head] = []
    for vid, raw in versions.head_raws(connection, Kind.ITEM, identifier):
        parsed = version.parse(raw)
        try:
            item = vault.open_item(parsed, keyring.key)
            clock.read(item.meta.get("T", ""))  # an item whose T can't be read is no head that could win
        except (DecryptError, FormatError):
            continue
        found.append(Head(vid, parsed.claim.signer, parsed.updated, parsed.tag, parsed, item))
    if len(found) == 1:
        return found
    first = distinct(found)
    shown = {head.vid for head in first}
    return first + sorted((head for head in found if head.vid not in shown), key=lambda head: head.rank, reverse=True)


def open_head(raw: bytes, keyring: Keyring) -> tuple[str, Item] | None:
    """(tag, item) of one head as it is stored, without reading again what its signature covers; None where this device
    can't open it, or where it is none that could win, as in `open_heads`."""
    try:
        tag, item = vault.open_stored(raw, keyring.key)
        clock.read(item.meta.get("T", ""))
    except (DecryptError, FormatError):
        return None
    return tag, item


def distinct(heads: Sequence[Head]) -> list[Head]:
    """Heads with different contents, the winner first. Two devices that wrote the same are in no conflict, and of equal
    plaintexts the smaller vid counts (formats.md F5)."""
    found: dict[str, Head] = {}
    for head in sorted(heads, key=lambda head: head.vid):
        found.setdefault(_content(head.item), head)
    return sorted(found.values(), key=lambda head: head.rank, reverse=True)


def _content(item: Item) -> str:
    """The same for the same content: a device of the mesh can make thousands of heads, so they are not compared in
    pairs."""
    meta = {name: value for name, value in item.meta.items() if name not in ("T", "Made")}
    return json.dumps([item.private, meta], sort_keys=True)


def write_item(
    pen: Pen, opened: Opened, identifier: str, item: Item, replaces: Sequence[Head], key: EpochKey | None = None
) -> Version:
    """Encrypt `item` under the vault's write key and sign it as the version that replaces these heads.

    `key` is the write key, where one transaction writes many items of a vault and looked it up once.
    """
    body = vault.seal_item(item, key or keyrings.write_key(pen.connection, pen.replica, opened), pen.rng)
    rest = (
        {name: value for name, value in replaces[0].parsed.body.items() if name != "EncryptedData"} if replaces else {}
    )
    return pen.write(
        Draft(
            Kind.ITEM,
            identifier,
            replaces[0].tag if replaces else opened.application.tag,
            rest | body,
            parents=tuple(head.vid for head in replaces),
        )
    )


def add(pen: Pen, opened: Opened, build: Callable[[int, str], Item], key: EpochKey | None = None) -> Version:
    """A new item. `build` makes its plaintext from (T, Made)."""
    identifier = vault.new_item_identifier(opened.application.identifier, pen.rng)
    return write_item(pen, opened, identifier, build(clock.tick(pen.now_ms, ()), pen.made), (), key)


def replace(pen: Pen, identifier: str, build: Callable[[Item, int, str], Item], key: EpochKey | None = None) -> Version:
    """A new version over all heads of an item. `build` makes it from the winner's plaintext and (T, Made)."""
    container = identifier.partition("/")[0]
    opened = pen.keyring.vaults.get(container)
    heads = open_heads(pen.connection, pen.keyring, identifier) if opened is not None else []
    if opened is None or not heads:
        raise NotFound("there is no such item on this device")
    time = clock.tick(pen.now_ms, [head.item.time for head in heads])
    winner = heads[0].item
    while len(heads) > MAX_HEADS:  # more than a version can name: it takes several, the last of which stands over all
        joined = write_item(pen, opened, identifier, winner, heads[:MAX_HEADS], key)
        head = Head(joined.vid, joined.signer, joined.updated, joined.tag, joined, winner)
        heads = [head, *heads[MAX_HEADS:]]
    return write_item(pen, opened, identifier, build(winner, time, pen.made), heads, key)
