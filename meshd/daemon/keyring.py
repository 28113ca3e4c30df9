"""The opened vaults of an unlocked device: which keys it holds, and which one encrypts the next item (formats.md F5).

A container's heads may be several; their keys are merged by kid. The keyring is filled from the store when the device
is unlocked, follows the containers that change, and is dropped on lock.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from meshd.crypto import sealing
from meshd.crypto.keys import DecryptKey, Rng
from meshd.daemon import snapshot
from meshd.errors import DecryptError, Denied, FormatError, NotFound
from meshd.profile import links, vault, version
from meshd.profile.apps import BY_NAME, of_tag
from meshd.profile.claim import Kind, State
from meshd.profile.device import DeviceKeys
from meshd.profile.personal import Application
from meshd.profile.vault import Container, EpochKey
from meshd.profile.version import Parsed
from meshd.store import versions
from meshd.store.replica import Replica

ASIDE = "Aside"  # member of a key that somebody who is no reader holds, or may: it reads, and never writes again


@dataclass(frozen=True, slots=True)
class Opened:
    """One vault as its applied heads state it. `unopened` are heads that are not wrapped to this device."""

    application: Application
    container: Container = field(repr=False)
    heads: tuple[Parsed, ...] = field(repr=False)
    unopened: tuple[Parsed, ...] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        return self.container.name or of_tag(self.application.tag).name


class Keyring:
    """What this device can open. Used in the writer's thread and in readers; replaced whole values only."""

    def __init__(self, keys: DeviceKeys, cache_key: bytes) -> None:
        self.device = keys
        self.cache_key = cache_key
        self.vaults: dict[str, Opened] = {}
        self._keys: dict[str, bytes] = {}
        self._containers: dict[bytes, Container | None] = {}  # by vid; None: not for this device
        self._lent: tuple[DecryptKey, ...] = ()
        self.said: dict[bytes, str | None] = {}  # Group items by vid: which device each head names

    def __repr__(self) -> str:
        return f"Keyring({len(self.vaults)} vaults)"

    def lend(self, keys: Iterable[DecryptKey]) -> None:
        """Open containers with these keys too, in memory alone: a recovery has the master escrow key until every vault
        is wrapped for this device. An empty list takes them back. What is there is opened by the next `refresh`."""
        self._lent = tuple(keys)
        if self._lent:
            self._containers = {vid: opened for vid, opened in self._containers.items() if opened is not None}

    @property
    def deks(self) -> tuple[DecryptKey, ...]:
        """What opens containers: this device's keys, and those lent."""
        return (*self.device.deks, *self._lent)

    def key(self, kid: str) -> bytes:
        """The 32 bytes of a vault key; DecryptError."""
        found = self._keys.get(kid)
        if found is None:
            raise DecryptError("encrypted under a key that this device does not hold")
        return found

    def refresh(
        self, connection: sqlite3.Connection, applications: Mapping[str, Application], only: Iterable[str] | None = None
    ) -> None:
        """Open what the applied container heads wrap to this device; all of it, or the vaults `only`."""
        vaults, keys = dict(self.vaults), dict(self._keys)
        # What a transaction opened that then failed is no vault.
        gone = [] if only is not None else [identifier for identifier in vaults if identifier not in applications]
        for identifier in (*gone, *(applications if only is None else only)):
            application = applications.get(identifier)
            opened = self._open(connection, application) if application is not None else None
            if opened is None:
                vaults.pop(identifier, None)
                continue
            vaults[identifier] = opened
            keys |= {kid: key.key for kid, key in self.aside(connection, identifier).items()}
            keys |= {key.kid: key.key for key in opened.container.keys}
        self.vaults, self._keys = vaults, keys  # at once: other threads read them

    def _open(self, connection: sqlite3.Connection, application: Application) -> Opened | None:
        heads, closed = [], []
        merged: Container | None = None
        for vid in versions.heads(connection, Kind.CONTAINER, application.identifier):
            raw = versions.raw(connection, vid)
            if raw is None:
                continue
            parsed = version.parse(raw)
            if vid not in self._containers:
                self._containers[vid] = self._opens(parsed)
            container = self._containers[vid]
            if container is None:
                closed.append(parsed)
                continue
            heads.append(parsed)
            merged = container if merged is None else merge(merged, container)
        if merged is None:
            return None
        if not application.tag:  # a profile that does not say its type: the container does
            application = Application(application.identifier, heads[0].tag)
        return Opened(application, merged, tuple(heads), tuple(closed))

    def aside(self, connection: sqlite3.Connection, identifier: str) -> dict[str, EpochKey]:
        """The keys of a vault's quarantined containers, as far as they are wrapped to this device. Whoever had not
        heard that these do not stand may have written under them what does; they are for reading alone.

        Where a head is closed to this device, those of the containers before it as well: it may have been a reader
        then."""
        found: dict[str, EpochKey] = {}
        heads = versions.heads(connection, Kind.CONTAINER, identifier)
        closed = any(self._containers.get(vid) is None for vid in heads)
        rows = connection.execute(
            "SELECT vid, raw FROM versions WHERE kind = 2 AND identifier = ? AND state IN (?, ?)",
            (identifier, State.QUARANTINED, State.APPLIED if closed else State.QUARANTINED),
        ).fetchall()
        for vid, raw in rows:
            if raw is not None and vid not in self._containers:
                self._containers[vid] = self._opens(version.parse(raw))
            container = self._containers.get(vid)
            if container is not None:
                found |= {key.kid: key for key in container.keys}
        return found

    def _opens(self, parsed: Parsed) -> Container | None:
        for key in self.deks:
            try:
                return vault.open_container(parsed, key)
            except (DecryptError, FormatError):
                continue
        return None

    def find(self, name: str, vault_name: str | None = None) -> Opened:
        """The vault of an application called `name` ("password"), or the one of that application that `vault_name`
        names."""
        kind = BY_NAME.get(name)
        tag = kind.tag if kind is not None else name
        found = sorted(
            (
                opened
                for opened in self.vaults.values()
                if opened.application.tag == tag and not opened.container.deleted
            ),
            key=lambda opened: opened.application.identifier,
        )
        if vault_name is not None:
            found = [item for item in found if vault_name in (item.name, item.application.identifier)]
        if not found:
            raise NotFound(
                f"this device reads no {name} vault" + (f" called {vault_name}" if vault_name else ""),
                hint="see: meshctl status; an admin grants vaults",
            )
        return found[0]


def merge(first: Container, second: Container) -> Container:
    """Union by kid (formats.md F5). Deterministic: what the smaller-sorting side says of the rest wins."""
    keys = {key.kid: key for key in (*second.keys, *first.keys)}
    keys |= {key.kid: key for key in (*second.keys, *first.keys) if key.unknown.get(ASIDE)}
    return Container(
        vault.sorted_keys(keys.values()),
        min(first.name, second.name) if first.name and second.name else first.name or second.name,
        first.private,
        second.epochs | first.epochs,
        deleted=first.deleted and second.deleted,
    )


def write_key(connection: sqlite3.Connection, replica: Replica, opened: Opened) -> EpochKey:
    """The key for new items: the newest that nobody but readers holds or will be given.

    Newest = largest g of the introducing version, then smaller vid; never a clock. Denied when there is none: an admin
    rotates first.
    """
    held = {key.kid: key for key in opened.container.keys if not key.unknown.get(ASIDE)}
    for kid in fit_keys(connection, replica, opened.application):
        if kid in held:
            return held[kid]
    raise Denied(
        "The keys of this vault were readable by a device that no longer is one; an admin must make new ones first.",
        hint="unlock an admin device and let it sync",
    )


def fit_keys(connection: sqlite3.Connection, replica: Replica, application: Application) -> list[str]:
    """The kids that may encrypt new items, best first.

    Every version that wrapped a key counts, not the first alone: a key that was later given to a device that has since
    been removed is no longer used. Nor is one that was made without knowledge of a removal, whatever that device could
    read: an admin who has not heard either may yet grant it the vault, and wrap the key for it."""
    memo = ("fit keys", application)
    found: list[str] | None = replica.memo.get(memo)
    if found is None:
        found = replica.memo[memo] = _fit_keys(connection, replica, application)
    return found


def _fit_keys(connection: sqlite3.Connection, replica: Replica, application: Application) -> list[str]:
    readers = snapshot.readers(replica, application)
    escrow = replica.escrow_readers(connection)
    introduced: dict[str, versions.Row] = {}
    wrapped: dict[str, list[versions.Row]] = {}  # kid → the containers with it that stand
    spoiled: set[str] = set()
    rows = versions.of_entry(connection, Kind.CONTAINER, application.identifier)
    # What fell last: it hands out nothing that its author did not hold.
    for row in sorted(rows, key=lambda row: (row.state, row.gen, row.vid)):
        if row.state is State.PENDING:
            continue
        found = replica.envelope(connection, row.vid)
        kids = set(found.kids)
        if row.state is State.APPLIED:
            for kid in kids:
                introduced.setdefault(kid, row)
                wrapped.setdefault(kid, []).append(row)
        else:
            kids = {
                kid
                for kid in kids
                if any(_was_handed(connection, replica, application, one, row.signer) for one in wrapped.get(kid, ()))
            }
        if not all(key in escrow or replica.holders(key) & readers for key in found.recipients):
            spoiled |= kids
    unheard = replica.authority.unheard_removals
    unaware = {row.vid: bool(unheard(links.parse(row.token).a)) for row in introduced.values()}
    fit = [kid for kid, row in introduced.items() if kid not in spoiled and not unaware[row.vid]]
    return sorted(fit, key=lambda kid: (-introduced[kid].gen, introduced[kid].vid))


def _was_handed(
    connection: sqlite3.Connection, replica: Replica, application: Application, row: versions.Row, device: str
) -> bool:
    """Did a container that stands give its keys to this device? It must have been a reader there: that it calls the
    encryption key of one its own says nothing, for anybody may."""
    if device not in snapshot.readers(replica, application, links.parse(row.token).a):
        return False
    return any(device in replica.holders(key) for key in replica.envelope(connection, row.vid).recipients)


def seal_cache(keyring: Keyring, plaintext: bytes, identifier: str, rng: Rng) -> bytes:
    """A row of the item index, sealed under K_cache for this identifier."""
    return sealing.aead_seal(keyring.cache_key, plaintext, b"mmm-index/1 " + identifier.encode(), rng)


def open_cache(keyring: Keyring, sealed: bytes, identifier: str) -> bytes:
    return sealing.aead_open(keyring.cache_key, sealed, b"mmm-index/1 " + identifier.encode())
