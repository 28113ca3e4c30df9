"""`renewals`, `master` and `wipe`: this device's own keys, the mesh's, and giving all of them up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from meshd.daemon import authoring, masterkeys, names, renewal, status, wiping
from meshd.daemon.background import with_pen
from meshd.daemon.context import Daemon
from meshd.daemon.handlers import wishes
from meshd.daemon.pen import Pen
from meshd.errors import BadRequest, Denied, NotConnected
from meshd.profile import escrow
from meshd.store.replica import Outcome

if TYPE_CHECKING:
    import sqlite3

    from meshd.daemon.api import App, Call


async def renew(app: App, call: Call) -> dict[str, Any]:
    """New authentication and encryption keys for this device. Denied, with `needs`: an admin's sealed master key is to
    be wrapped for the new one, else the old one would still open it."""
    daemon = app.daemon
    key = await wishes.master_key(app, call.body)
    if key is None and await with_pen(daemon, authoring.held_master) is not None:
        raise wishes.master_needed(
            "Renewing the keys of a device that holds the sealed master key takes its passphrase."
        )
    await renewal.renew(daemon, master_key=key)
    await daemon.event("device", {"device": daemon.snapshot.own, "state": "renewed"})
    return {"device": status.device_name(daemon, names.current(daemon))}


async def passphrase(app: App, call: Call) -> dict[str, Any]:
    """The master key under another passphrase, on every admin's device. Denied, WrongPassphrase."""
    daemon, body = app.daemon, call.body
    key = await wishes.master_key(app, body)
    if key is None:
        raise wishes.master_needed("To change the master passphrase, the one so far is needed.")
    sealed = await masterkeys.reseal(daemon, key, body["new"], app.master_kdf)
    kept = await with_pen(daemon, authoring.held_master) is not None
    if not kept:
        raise Denied(
            "No device holds the sealed master key: it is kept offline.", hint="bring it back: meshctl master online"
        )
    await daemon.write(lambda pen: masterkeys.change_passphrase(pen, key, sealed))
    return {"state": "online"}


async def file(app: App, call: Call) -> dict[str, Any]:
    """The sealed master key as text, once its passphrase has been proved. A removed admin gives it too: where no admin
    is left, what its person needs is there and nowhere else. Denied, WrongPassphrase."""
    sealed = await _salvaged(app.daemon)
    await _check(app, sealed, call.body["master_passphrase"])
    return {"text": masterkeys.encode(app.daemon.snapshot.mesh, sealed).decode()}


async def offline(app: App, call: Call) -> dict[str, Any]:
    """From now on no device holds the sealed master key. The request brings what the file holds, which has to open."""
    daemon, body = app.daemon, call.body
    sealed = masterkeys.decode(body["text"].encode(), daemon.snapshot.mesh)
    key = await app.guard.tried(lambda: masterkeys.unseal(daemon, body["master_passphrase"], sealed=sealed))
    await daemon.write(lambda pen: masterkeys.offline(pen, key))
    await daemon.event("master", {"state": "offline"})
    return {"state": "offline"}


async def online(app: App, call: Call) -> dict[str, Any]:
    """The admins' devices hold the sealed master key again, as it is in the file. Exists where they do."""
    daemon, body = app.daemon, call.body
    sealed = masterkeys.decode(body["text"].encode(), daemon.snapshot.mesh)
    key = await app.guard.tried(lambda: masterkeys.unseal(daemon, body["master_passphrase"], sealed=sealed))
    await daemon.write(lambda pen: masterkeys.online(pen, key, sealed))
    await daemon.event("master", {"state": "online"})
    return {"state": "online"}


async def wipe(app: App, call: Call) -> dict[str, Any]:
    """Destroy this device's keys now; its store goes as soon as this is answered. Denied while it is of its mesh."""
    daemon = app.daemon
    wiping.check(daemon.snapshot, force=bool(call.body.get("force")))
    async with app.founding:
        if not daemon.snapshot.connected or app.wiped.is_set():
            raise NotConnected
        await trio.to_thread.run_sync(wiping.begin, daemon.paths)
        daemon.lock()
        app.wiped.set()
    return {"wiped": True}


async def _salvaged(daemon: Daemon) -> bytes:
    """What this device holds of the sealed master key, member of its mesh or not any more."""
    keyring = daemon.unlocked()

    def look(connection: sqlite3.Connection, outcome: Outcome) -> bytes:
        return masterkeys.salvage(Pen(connection, daemon.replica, keyring, outcome, daemon.now_ms(), daemon.rng))

    return await daemon.transact(look)


async def _check(app: App, sealed: bytes, passphrase: str) -> None:
    """WrongPassphrase, after a pause that grows."""
    if not passphrase:
        raise BadRequest("The master passphrase is needed.")

    async def attempt() -> None:
        await trio.to_thread.run_sync(escrow.open_master, sealed, passphrase)

    await app.guard.tried(attempt)
