"""The way back: shares, and whoever still holds the ciphertext, make this device an admin of the mesh again.

Nothing is written before everything was judged. Then one transaction holds what was fetched, a MasterProfile and a
PersonalProfile by the master key that list this device as an admin, and every vault wrapped for it that is here
already; before it this device is in no mesh, after it in this one. From there on it syncs as any device does. The
master escrow key stays in memory until all vaults have come and are wrapped for this device; whoever is interrupted
gives the shares again, and it goes on. On a device that still is in the mesh the same makes it an admin, under a new
master passphrase.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

import trio

from meshd.crypto.sealing import KdfParameters
from meshd.daemon import membership, pairing_wire, rotation, snapshot
from meshd.daemon import newcomer as newcomers
from meshd.daemon.background import with_pen
from meshd.daemon.context import Daemon
from meshd.daemon.keyring import Keyring
from meshd.daemon.names import moved_past
from meshd.daemon.pen import Pen
from meshd.daemon.searching import Found
from meshd.daemon.verifying import check
from meshd.errors import TrustError
from meshd.profile import device, escrow, master, vault, version
from meshd.profile.claim import Kind
from meshd.profile.personal import Listing
from meshd.profile.version import Parsed, Version
from meshd.store import peers, portal_pins
from meshd.store import portals_client as store
from meshd.store.replica import Directory, Outcome

SYNC_SECONDS = 45.0  # without anything new, until the rest is not waited for; after that it comes by itself


@dataclass(frozen=True, slots=True)
class Restored:
    """`missing`: vaults that have not come yet. `complete`: somebody gave all that he holds; before that nobody is to
    be removed, for what he wrote would be cut off where it is known."""

    mesh: str
    device: str
    missing: int
    complete: bool = True


async def restore(
    daemon: Daemon,
    found: Found,
    passphrase: str | None,
    name: str,
    sealed: bytes,
    kdf: KdfParameters,
    caught_up: Callable[[], bool],
) -> Restored:
    """This device becomes one of the mesh. TrustError where what was given is not believed or the shares were
    replaced; nothing is changed then. `sealed` is the master key under its new passphrase; `caught_up` says whether
    somebody has told all that he holds."""
    newcomer = await newcomers.prepare(daemon, passphrase, kdf)
    believed = await _believed(found)
    keyring = Keyring(newcomer.keys, newcomer.cache_key)
    keyring.lend(found.escrowed.escrow)

    def commit(connection: sqlite3.Connection, outcome: Outcome) -> None:
        replica, now = daemon.replica, daemon.now_ms()
        replica.introduce(connection, found.mesh, newcomer.udf)
        replica.accept(connection, believed, now, outcome)
        pen = Pen(connection, replica, keyring, outcome, now, daemon.rng)
        _return(pen, found, sealed, newcomer.profile)
        _settle(pen)
        _follow(connection, found)
        _remember(pen, found, now)

    await newcomers.enter(daemon, newcomer, commit)
    return await _open_the_rest(daemon, found, name, caught_up)


async def promote(
    daemon: Daemon, found: Found, sealed: bytes, name: str, caught_up: Callable[[], bool] = lambda: True
) -> Restored:
    """The same on a device that is in the mesh: it becomes an admin, or gets a new master passphrase, or opens the
    vaults that an interrupted recovery left. TrustError."""
    if found.mesh != daemon.snapshot.mesh:
        raise TrustError(
            "These shares are another mesh's than the one that this device is in.",
            hint="restore on a device that is in none, or beside this one in another home: --home DIR",
        )

    believed = await _believed(found)

    def write(pen: Pen) -> None:
        pen.replica.accept(pen.connection, believed, pen.now_ms, pen.outcome)  # it may have been away for long
        own = membership.device_profile(pen, pen.replica.own)
        assert own is not None  # it is in the mesh
        _return(pen, found, sealed, own)
        _follow(pen.connection, found)

    await daemon.write(write)
    return await _open_the_rest(daemon, found, name, caught_up)


async def _believed(found: Found) -> list[Version]:
    """What of that which was given is signed as it should be, and no other mesh's profile."""
    verified = await trio.to_thread.run_sync(check, found.raws, [None] * len(found.raws), Directory())
    return [one for one in verified.versions if one.kind is not Kind.PERSONAL or one.identifier == found.mesh]


def _return(pen: Pen, found: Found, sealed: bytes, profile: Parsed) -> None:
    """The two profiles that make this device an admin. What else there is stays as it is: who is lost is removed when
    all that they wrote has come, so that nothing of it is cut off."""
    replica, authority = pen.replica, pen.replica.authority
    heads = pen.load(authority.heads(Kind.MASTER))
    if not heads:
        raise TrustError("Nothing that was given is a profile of this mesh.")
    if authority.escrow().get(found.entry.identifier) != found.entry.vid:
        raise TrustError(
            "These shares were replaced by newer ones; they count no more.", hint="look for the newer shares"
        )
    replica.accept(pen.connection, [found.entry], pen.now_ms, pen.outcome)
    own = device.read(profile)
    keys = {udf: key for head in heads for udf, key in version.online_keys(head.body).items()}
    admins = {udf: keys[udf] for udf in authority.admins() if udf in keys} | {own.udf: own.dsk}
    known = [replica.device(pen.connection, udf) for udf in sorted(admins) if udf != own.udf]
    package = escrow.entry(sealed, [own.dek, *(one.dek for one in known if one is not None)], pen.rng)
    replica.take_escrow(pen.connection, package, pen.now_ms, pen.outcome)
    named = {name for head in heads for name in master.recovery_entries(head)}
    kept = {name: vid for name, vid in authority.escrow().items() if name in named}
    top = master.write(
        found.escrowed.master,
        admins.values(),
        parents=heads,
        escrow=kept | {package.identifier: package.vid},
        now=pen.now_ms // 1000,
    )
    now = membership.effective(pen)
    roles = {udf: role for udf, role in now.roles.items() if udf != own.udf}
    grants = {udf: granted for udf, granted in now.grants.items() if udf != own.udf}
    listing = Listing({**now.devices, own.udf: profile}, now.applications, roles, grants, admins=frozenset(admins))
    membership.write_personal(pen, top, listing, master_key=found.escrowed.master)
    pen.refresh()


def _settle(pen: Pen) -> None:
    """Wrap the vaults for this device; not before it is known who else is in the mesh. A removed admin took devices in;
    whether they stand shows when its chain has come, and until then none may be cut off."""
    if not pen.replica.authority.undecided():
        rotation.settle(pen)


def _follow(connection: sqlite3.Connection, found: Found) -> None:
    """The portal that gave is one to follow. A device that follows it already goes on as it was."""
    if found.where is None or store.get(connection, str(found.where.account)) is not None:
        return
    store.put(connection, str(found.where.account), found.where.address, plain=found.where.plain)
    if found.proof is not None and found.proof.pin is not None:
        portal_pins.advance(connection, found.proof.pin)


def _remember(pen: Pen, found: Found, now: int) -> None:
    """Where the devices are that answered: they have to hear of this one before they announce themselves to it."""
    for udf in pen.replica.authority.devices() | pen.replica.authority.undecided():
        profile = pen.replica.device(pen.connection, udf)
        for one in found.peers:
            if profile is not None and profile.certificate == one.certificate:
                peers.seen(pen.connection, udf, now, address=one.address)


def _say_name(pen: Pen, name: str) -> None:
    """Once the names of the others are known: no two are called the same."""
    own = pen.keyring.device.udf
    if own not in pairing_wire.device_names(pen.connection, pen.keyring):
        membership.name_device(pen, own, pairing_wire.name_for(pen, name, own))


async def _open_the_rest(daemon: Daemon, found: Found, name: str, caught_up: Callable[[], bool]) -> Restored:
    """Open what is here and what comes with the master escrow key, wrap it for this device, and have the rest; waited
    for as long as something comes."""
    keyring = daemon.unlocked()
    keyring.lend(found.escrowed.escrow)

    def mend(pen: Pen) -> int:
        pen.refresh()
        _settle(pen)
        return _missing(pen)

    missing, complete = 1, False
    with trio.move_on_after(SYNC_SECONDS) as scope:
        while True:
            moved, changed = daemon.moved.count, daemon.changed.count
            missing = await with_pen(daemon, mend)
            await daemon.keep_discovery_keys()  # the others are not found without
            complete = not missing and not daemon.snapshot.undecided and caught_up()
            if complete:
                break
            await moved_past(daemon, moved, changed)
            if daemon.moved.count != moved:
                scope.deadline = trio.current_time() + SYNC_SECONDS
    if not missing:
        keyring.lend(())
        await with_pen(daemon, lambda pen: _say_name(pen, name))
    await daemon.keep_discovery_keys()
    await daemon.event("recovery", {"state": "restored"})
    return Restored(found.mesh, daemon.snapshot.own, missing, complete)


def _missing(pen: Pen) -> int:
    """Vaults that are not wrapped for this device yet, by any head."""
    own = pen.keyring.device.dek.udf
    opened = pen.keyring.vaults
    wrapped = {
        identifier
        for identifier, one in opened.items()
        if all(own in vault.container_recipients(head) for head in one.heads)
    }
    return len(set(snapshot.applications(pen.connection, pen.replica)) - wrapped)
