"""The index of items: what `list` and look-ups answer from, without decrypting a vault at every question.

Built when the device is unlocked, from rows sealed under K_cache where the head has not changed and from the items
themselves where it has; it can be rebuilt from the store at any time. It lives while the device is unlocked and holds
no passwords. Entries whose heads move are marked, and read again when somebody asks or the daemon has nothing better
to do.
"""

from __future__ import annotations

import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from meshd.crypto.keys import Rng
from meshd.daemon import keyring as keyrings
from meshd.daemon import vaults
from meshd.daemon.keyring import Keyring
from meshd.errors import DecryptError, FormatError
from meshd.profile import payload
from meshd.profile.apps import PASSWORD, hosts, password
from meshd.profile.claim import Kind
from meshd.profile.vault import Item
from meshd.store import versions


@dataclass(frozen=True, slots=True)
class Entry:
    """One item as lists show it. `heads` counts those with different contents: more than one is a conflict."""

    identifier: str
    winner: bytes
    tag: str
    title: str
    sites: tuple[str, ...]
    username: str
    made: str
    updated: int
    signer: str
    heads: int
    deleted: bool

    @property
    def container(self) -> str:
        return self.identifier.partition("/")[0]


class Tally(NamedTuple):
    """A sort of entries."""

    container: str
    tag: str
    deleted: bool
    in_conflict: bool


def _sort(entry: Entry) -> Tally:
    return Tally(entry.container, entry.tag, entry.deleted, entry.heads > 1)


class Index:
    """Entries by Identifier and by host. Belongs to the trio thread; only `read`, which changes nothing, runs
    elsewhere."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self.entries: dict[str, Entry] = {}
        self._hosts: dict[str, str | set[str]] = {}  # nearly always one entry: a set for each would double the index
        self._domains: dict[str, set[str]] | None = None
        self.tally: Counter[Tally] = Counter()  # how many entries of each sort there are
        self._stale: set[str] = set()
        self._unsaved: set[str] = set()
        self._vaults = frozenset(keyring.vaults)  # open when `follow_keys` looked last
        self._closed: set[str] = set()  # items of open vaults whose key has not come
        self._reading: set[str] = set()

    def load(self, connection: sqlite3.Connection) -> None:
        """Fill from the sealed rows; whatever they do not cover is stale."""
        heads: dict[str, bytes] = {
            identifier: vid if count == 1 else b""
            for identifier, vid, count in connection.execute(
                "SELECT identifier, min(vid), count(*) FROM heads WHERE kind = 8 GROUP BY identifier"
            )
        }
        for identifier, vid, sealed in connection.execute("SELECT identifier, vid, sealed FROM item_index"):
            if heads.get(identifier) != vid or identifier.partition("/")[0] not in self._keyring.vaults:
                continue
            try:
                entry = _decode(identifier, vid, keyrings.open_cache(self._keyring, sealed, identifier))
            except (DecryptError, FormatError):
                continue  # made by another keystore, or damaged: it is read again from the item
            self._put(entry)
            del heads[identifier]
        self._stale = set(heads)

    def mark(self, identifiers: Iterable[str]) -> None:
        """The heads of these items moved."""
        self._stale.update(identifiers)

    def follow_keys(self, connection: sqlite3.Connection) -> None:
        """The keyring moved: what did not open may open now, and what is of a vault that is closed now goes."""
        held = frozenset(self._keyring.vaults)
        for container in held - self._vaults:
            self._stale.update(vaults.items_of(connection, container))
        if lost := self._vaults - held:
            self._stale.update(identifier for identifier, entry in self.entries.items() if entry.container in lost)
        self._stale |= self._closed | self._reading
        self._closed = set()
        self._vaults = held

    @property
    def stale(self) -> int:
        return len(self._stale)

    def refresh(self, connection: sqlite3.Connection) -> None:
        """Read everything that is marked, here and now."""
        self.apply(self.read(connection, self.take_stale()))

    def heads_to_read(self, connection: sqlite3.Connection) -> int:
        """How many versions a refresh opens: an item may have thousands of heads."""
        return sum(versions.count_heads(connection, Kind.ITEM, identifier) for identifier in self._stale)

    def take_stale(self) -> list[str]:
        """The marked items, no longer marked; whoever takes them reads and applies them."""
        taken, self._stale = list(self._stale), set()
        self._reading = set(taken)
        return taken

    def read(self, connection: sqlite3.Connection, identifiers: Iterable[str]) -> list[tuple[str, Entry | None]]:
        """What these items are now; None for one without a head that opens. Changes nothing, so it may run in a
        worker."""
        return [(identifier, self._entry(connection, identifier)) for identifier in identifiers]

    def apply(self, found: Iterable[tuple[str, Entry | None]]) -> None:
        """Take in what was read."""
        self._reading = set()
        for identifier, entry in found:
            self._closed.discard(identifier)
            if entry is None:
                self._drop(identifier)
                if identifier.partition("/")[0] in self._keyring.vaults:
                    self._closed.add(identifier)
            else:
                self._put(entry)
            self._unsaved.add(identifier)

    def take_unsaved(self, limit: int = 2000) -> list[tuple[str, Entry | None]]:
        """Entries that the sealed rows do not have yet; None where a row should go."""
        taken = [self._unsaved.pop() for _ in range(min(limit, len(self._unsaved)))]
        found = [(identifier, self.entries.get(identifier)) for identifier in taken]
        return [(identifier, entry if entry is not None and entry.heads == 1 else None) for identifier, entry in found]

    def _entry(self, connection: sqlite3.Connection, identifier: str) -> Entry | None:
        if identifier.partition("/")[0] not in self._keyring.vaults:
            return None  # taken from this device, which may still hold its older keys
        held = versions.head_rows(connection, Kind.ITEM, identifier)
        if len(held) == 1:  # nearly always: there is nothing to compare, and no need to read all of it again
            vid, signer, updated, raw = held[0]
            opened = vaults.open_head(raw, self._keyring)
            return None if opened is None else _entry(identifier, vid, *opened, updated, signer, 1)
        heads = vaults.open_heads(connection, self._keyring, identifier)
        if not heads:
            return None
        winner = heads[0]
        count = len(vaults.distinct(heads)) if len(heads) > 1 else 1
        return _entry(identifier, winner.vid, winner.tag, winner.item, winner.updated, winner.signer, count)

    def _put(self, entry: Entry) -> None:
        self._drop(entry.identifier)
        self.entries[entry.identifier] = entry
        self.tally[_sort(entry)] += 1
        for site in entry.sites:
            found = self._hosts.setdefault(site, entry.identifier)
            if type(found) is set:
                found.add(entry.identifier)
            elif found != entry.identifier:
                self._hosts[site] = {str(found), entry.identifier}
        self._domains = None

    def _drop(self, identifier: str) -> None:
        entry = self.entries.pop(identifier, None)
        if entry is None:
            return
        self.tally[_sort(entry)] -= 1
        for site in entry.sites:
            found = self._hosts.get(site)
            if type(found) is set:
                found.discard(identifier)
            if not found or found == identifier:
                self._hosts.pop(site, None)
        self._domains = None

    def find(
        self, tag: str, site: str, username: str | None = None, among: Callable[[Entry], bool] = lambda entry: True
    ) -> tuple[list[Entry], bool]:
        """(live entries for a site, exact?). Exact or `*.` matches first; else those of the same registrable domain.

        Two entries of one site are both returned; the caller asks for a user name. `among` says which count.
        """
        host = hosts.normalise(site)
        found = self._select(self._covering(host), tag, username, among)
        if found:
            return found, True
        if self._domains is None:
            self._domains = {}
            for known in self._hosts:
                self._domains.setdefault(hosts.registrable(known), set()).update(self._at(known))
        return self._select(self._domains.get(hosts.registrable(host), set()), tag, username, among), False

    def _at(self, host: str) -> set[str]:
        found = self._hosts.get(host)
        return set() if found is None else {found} if isinstance(found, str) else set(found)

    def _covering(self, host: str) -> set[str]:
        found = self._at(host)
        parts = host.split(".")
        for start in range(len(parts)):  # `*.example.org` covers example.org and everything under it
            found |= self._at("*." + ".".join(parts[start:]))
        return found

    def _select(
        self, identifiers: Iterable[str], tag: str, username: str | None, among: Callable[[Entry], bool]
    ) -> list[Entry]:
        found = [self.entries[identifier] for identifier in identifiers]
        return sorted(
            (
                entry
                for entry in found
                if not entry.deleted and entry.tag == tag and username in (None, entry.username) and among(entry)
            ),
            key=lambda entry: (entry.username, entry.identifier),
        )

    def conflicts(self) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.heads > 1]

    def live(self, tag: str) -> Iterator[Entry]:
        return (entry for entry in self.entries.values() if entry.tag == tag and not entry.deleted)


def save(connection: sqlite3.Connection, keyring: Keyring, rows: Iterable[tuple[str, Entry | None]], rng: Rng) -> None:
    """Write or delete sealed rows, in the writer's transaction."""
    for identifier, entry in rows:
        if entry is None:
            connection.execute("DELETE FROM item_index WHERE identifier = ?", (identifier,))
        else:
            sealed = keyrings.seal_cache(keyring, _encode(entry), identifier, rng)
            connection.execute("INSERT OR REPLACE INTO item_index VALUES (?, ?, ?)", (identifier, entry.winner, sealed))


def conflicted(connection: sqlite3.Connection) -> int:
    """How many items have more than one head, as a locked device can count it."""
    return len(versions.conflicts(connection, Kind.ITEM))


def _encode(entry: Entry) -> bytes:
    return payload.encode_private(
        [
            entry.tag,
            entry.title,
            list(entry.sites),
            entry.username,
            entry.made,
            entry.updated,
            entry.signer,
            entry.deleted,
        ]
    )


def _decode(identifier: str, vid: bytes, plaintext: bytes) -> Entry:
    fields: Any = payload.decode_private(plaintext)
    if type(fields) is not list or len(fields) != 8:
        raise FormatError("an index row of another release")
    tag, title, sites, username, made, updated, signer, deleted = fields
    return _lean(identifier, vid, tag, title, tuple(sites), username, made, updated, signer, 1, deleted)


def _entry(identifier: str, vid: bytes, tag: str, item: Item, updated: int, signer: str, heads: int) -> Entry:
    """What is shown of an opened item."""
    row = password.row(item) if tag == PASSWORD.tag else password.Row("", (), "")
    made, deleted = item.made, item.deleted
    return _lean(identifier, vid, tag, row.title, row.sites, row.username, made, updated, signer, heads, deleted)


def _lean(
    identifier: str,
    winner: bytes,
    tag: str,
    title: str,
    sites: tuple[str, ...],
    username: str,
    made: str,
    updated: int,
    signer: str,
    heads: int,
    deleted: bool,
) -> Entry:
    """An entry that shares with the others what is mostly the same: half of what a large index takes."""
    if sites and title == sites[0]:
        title = sites[0]
    tag, username, made, signer = map(sys.intern, (tag, username, made, signer))
    return Entry(identifier, winner, tag, title, sites, username, made, updated, signer, heads, deleted)
