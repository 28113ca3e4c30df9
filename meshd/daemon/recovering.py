"""Recovery shares: making them, replacing them, giving them up, and what is known of those there are.

It goes in two steps, because nothing may be lost in between: the shares are made and told, in memory alone; when the
person has them, one transaction makes them count. Before it, everything is as it was and the shares are paper; after
it, they are with their holders already. From the first step on the daemon keeps only what others may see: the sealed
entry, the public half of the master escrow key, and what lets a share be told from another.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import trio

from meshd.crypto import sealing
from meshd.crypto.keys import DecryptKey, RecipientKey, SigningKey
from meshd.daemon import authoring, rotation, vaults
from meshd.daemon.background import with_pen
from meshd.daemon.context import Daemon
from meshd.daemon.keyring import Keyring
from meshd.daemon.pen import Pen
from meshd.errors import BadRequest, DecryptError, Exists, NotFound
from meshd.profile import clock, payload, recovery, shares
from meshd.profile.apps import GROUP, recovery_note
from meshd.profile.apps.recovery_note import MAX_LABEL, Drill, Noted
from meshd.profile.links import MAX_HEADS
from meshd.profile.recovery import Escrowed, Info
from meshd.profile.shares import Scheme, Share
from meshd.profile.version import Version

_KEPT = b"mmm-kept-share/1"
WAITING_SECONDS = 3600.0  # that shares which were told may take to be written down


@dataclass(frozen=True, slots=True)
class Wish:
    """What shares are to be made."""

    scheme: Scheme
    labels: tuple[str, ...] = ()
    strength: int = 256
    passphrase: str = field(default="", repr=False)
    replaces: bool = False  # they take the place of those that there are
    accounts: tuple[str, ...] = ()
    portals: tuple[str, ...] = ()
    origin_keys: tuple[str, ...] = ()  # of their logs
    checkpoints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """Shares that were told and do not count yet."""

    token: str
    entry: Version = field(repr=False)
    escrow: RecipientKey
    noted: Noted
    replaces: bool
    keyring: Keyring = field(repr=False)
    until: float


class Kept:
    """Shares that were given so far, one by one, in memory alone: the end of the daemon forgets them. On a device of a
    mesh they are sealed under its cache key, so they outlast its locking, and nobody reads them meanwhile; where there
    is no mesh yet there is no key."""

    def __init__(self) -> None:
        self._open: list[Share] = []
        self._sealed: list[bytes] = []

    def of(self, daemon: Daemon) -> list[Share]:
        """Those so far. Locked."""
        if not daemon.snapshot.connected:
            return list(self._open)
        key = daemon.unlocked().cache_key
        self._sealed += [_seal(key, share, daemon) for share in self._open]
        self._open = []
        try:
            return [shares.read(sealing.aead_open(key, one, _KEPT).decode()) for one in self._sealed]
        except DecryptError:  # the device has other keys than when they were given
            self.forget()
            return []

    def add(self, daemon: Daemon, share: Share) -> None:
        if daemon.snapshot.connected:
            self._sealed.append(_seal(daemon.unlocked().cache_key, share, daemon))
        else:
            self._open.append(share)

    def forget(self) -> None:
        self._open, self._sealed = [], []


def _seal(key: bytes, share: Share, daemon: Daemon) -> bytes:
    return sealing.aead_seal(key, share.mnemonic.encode(), _KEPT, daemon.rng)


class Recovering:
    """What is under way, in memory alone: shares that wait to count, and shares that were given for a drill or for a
    restore."""

    def __init__(self) -> None:
        self._prepared: Prepared | None = None
        self.drill, self.restore = Kept(), Kept()

    def keep(self, prepared: Prepared) -> None:
        self._prepared = prepared

    def take(self, daemon: Daemon, token: str) -> Prepared:
        """What was told under this token, once. NotFound."""
        found, self._prepared = self._prepared, None
        if (
            found is None
            or found.token != token
            or found.keyring is not daemon.keyring
            or trio.current_time() > found.until
        ):
            raise NotFound(
                "These shares don't wait here any more; they are worth nothing, and nothing was changed.",
                hint="make new ones; throw those away",
            )
        return found


async def prepare(daemon: Daemon, master_key: SigningKey, wish: Wish) -> tuple[Prepared, list[Share], str]:
    """New shares, in order, and the five letters that stand beside them; nothing is written. Exists where there are
    some already and the wish does not replace them, NotFound the other way round; BadRequest, Denied."""
    labels = _labels(wish.scheme.check(), wish.labels)
    await with_pen(daemon, lambda pen: _check(pen, master_key, replaces=wish.replaces))
    keyring, now = daemon.unlocked(), daemon.now_ms() // 1000
    key, escrow = recovery.new_key(wish.strength, daemon.rng), DecryptKey.generate(daemon.rng)
    where = (wish.accounts, wish.portals, wish.origin_keys, wish.checkpoints)
    info = Info(master_key.udf, now, wish.scheme, labels, *where)
    made = await trio.to_thread.run_sync(shares.split, key, wish.scheme, wish.passphrase)
    entry = recovery.entry(key, Escrowed(master_key, (escrow,), info), daemon.rng)
    check_key = daemon.rng(recovery_note.CHECK_KEY_BYTES)
    noted = recovery_note.note(entry.identifier, payload.write_date(now), wish.scheme, made, labels, check_key)
    until = trio.current_time() + WAITING_SECONDS
    prepared = Prepared(daemon.rng(16).hex(), entry, escrow.recipient, noted, wish.replaces, keyring, until)
    return prepared, [share for group in made for share in group], shares.check_value(key)


def _labels(scheme: Scheme, given: Sequence[str]) -> tuple[str, ...]:
    if given and len(given) != scheme.shares:
        raise BadRequest(f"There are {scheme.shares} shares, and {len(given)} labels.")
    if not all(label.isprintable() and label == label.strip() and 1 <= len(label) <= MAX_LABEL for label in given):
        raise BadRequest(f"A label has 1 to {MAX_LABEL} printable characters.")
    if given:
        return tuple(given)
    return tuple(
        f"{group.name or f'group {place}'} {number}" if len(scheme.groups) > 1 else f"share {number}"
        for place, group in enumerate(scheme.groups, 1)
        for number in range(1, group.shares + 1)
    )


# --- in the writer's thread -------------------------------------------------------------------------------------------


def _check(pen: Pen, master_key: SigningKey, *, replaces: bool) -> None:
    authoring.check_admin(pen, master_key)
    there = bool(authoring.recovery_entries(pen))
    if there and not replaces:
        raise Exists("This mesh has recovery shares.", hint="replace them: meshctl recovery refresh")
    if replaces and not there:
        raise NotFound("This mesh has no recovery shares.", hint="make some: meshctl recovery create")


def commit(pen: Pen, master_key: SigningKey, prepared: Prepared) -> tuple[str, ...]:
    """The prepared shares count from now on, and those so far do not; returns the vaults that got a new key."""
    _check(pen, master_key, replaces=prepared.replaces)
    top = authoring.write_master(
        pen,
        master_key,
        pen.replica.authority.admins(),
        sealed=authoring.held_master(pen),
        recovery=(prepared.entry, prepared.escrow),
        keep_recovery=False,
    )
    authoring.write_profile(pen, authoring.state(pen), top=top, master_key=master_key)
    rotated = rotation.settle(pen)
    opened = pen.keyring.find(GROUP.tag)
    vaults.add(pen, opened, lambda time, made: recovery_note.item(prepared.noted, time=time, made=made))
    return rotated


def revoke(pen: Pen, master_key: SigningKey) -> tuple[str, ...]:
    """No shares count any more; returns the vaults that got a new key."""
    _check(pen, master_key, replaces=True)
    top = authoring.write_master(
        pen,
        master_key,
        pen.replica.authority.admins(),
        sealed=authoring.held_master(pen),
        keep_recovery=False,
    )
    authoring.write_profile(pen, authoring.state(pen), top=top, master_key=master_key)
    return rotation.settle(pen)


def record(pen: Pen, entry: str, drill: Drill) -> None:
    """Note a drill beside the shares that it was made with."""
    for identifier, noted, heads in _items(pen.connection, pen.keyring):
        if noted.entry == entry:
            time = clock.tick(pen.now_ms, [head.item.time for head in heads])
            said = recovery_note.item(replace(noted, drill=drill), time=time, made=pen.made, previous=heads[0].item)
            vaults.write_item(pen, pen.keyring.find(GROUP.tag), identifier, said, heads[:MAX_HEADS])
            return


# --- what is known ----------------------------------------------------------------------------------------------------


def noted(connection: sqlite3.Connection, keyring: Keyring) -> list[Noted]:
    """All sets of shares that were ever noted, the newest first."""
    found = [one for _, one, _ in _items(connection, keyring)]
    return sorted(found, key=lambda one: (one.made, one.entry), reverse=True)


def _items(connection: sqlite3.Connection, keyring: Keyring) -> list[tuple[str, Noted, list[vaults.Head]]]:
    opened = [one for one in keyring.vaults.values() if one.application.tag == GROUP.tag]
    found = []
    for one in opened:
        for identifier in vaults.items_of(connection, one.application.identifier):
            heads = vaults.open_heads(connection, keyring, identifier)
            said = recovery_note.read(heads[0].item) if heads else None
            if said is not None:
                found.append((identifier, said, heads))
    return found
