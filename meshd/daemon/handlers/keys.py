"""`lock`, `unlock`, `passphrase`, `phrase` and `generate`: the keys at rest, and words to protect them with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from meshd.daemon import generate as generating
from meshd.daemon import locking, names
from meshd.daemon.context import Daemon, wait
from meshd.errors import BadRequest, Denied, Locked, NotConnected, WrongPassphrase
from meshd.store.keystore import Keystore

if TYPE_CHECKING:
    from meshd.daemon.api import App, Call


FORGOTTEN = (
    "forgotten? Nobody can reset it. With another device: remove this one there, then here meshctl wipe and meshctl"
    " connect. With recovery shares alone: meshctl recovery restore --lan in another home (--home DIR), or on another"
    " computer, while this one runs; wipe this one afterwards"
)


async def lock(app: App, call: Call) -> dict[str, Any]:
    await locking.lock(app.daemon, "asked to")
    return {"locked": app.daemon.locked}


async def unlock(app: App, call: Call) -> dict[str, Any]:
    """WrongPassphrase, after a pause that grows; Locked when a passphrase is needed and none is given.

    Unlocking what is unlocked checks the passphrase and changes nothing.
    """
    daemon = app.daemon
    keystore = keystore_of(daemon)
    passphrase: str | None = call.body.get("passphrase")
    if passphrase is None and keystore.needs_passphrase:
        raise Locked("A passphrase is needed to unlock this device.")

    async def attempt() -> bool:
        if daemon.locked:
            await daemon.unlock(passphrase)
            return True
        if passphrase is not None:
            await trio.to_thread.run_sync(keystore.unlock, passphrase)
        return False

    try:
        opened = await app.guard.tried(attempt)
    except WrongPassphrase as exc:
        raise WrongPassphrase(str(exc), hint=FORGOTTEN if app.guard.forgotten else exc.hint) from None
    if opened:
        await locking.tell(daemon, "unlocked")
        saved = names.refresh(daemon)
        if saved is not None:
            await wait(saved)
    return {"locked": daemon.locked}


async def passphrase(app: App, call: Call) -> dict[str, Any]:
    """Another passphrase, or none, from now on. WrongPassphrase: nothing has changed."""
    daemon, body = app.daemon, call.body
    keystore = keystore_of(daemon)
    new: str | None = body.get("new")
    if (new is None) != bool(body.get("no_passphrase")):
        raise BadRequest("either a new passphrase or no_passphrase is expected")
    if new is None:
        admin = daemon.snapshot.own in daemon.snapshot.admins
        check_unsealed(admin=admin, force=bool(body.get("force")))
    old: str | None = body.get("old")
    if old is None and keystore.needs_passphrase:
        raise BadRequest("the passphrase so far is needed")

    async def attempt() -> None:
        await trio.to_thread.run_sync(lambda: keystore.change_passphrase(old, new, kdf=app.kdf))

    await app.guard.tried(attempt)
    return {"changed": True}


async def phrase(app: App, call: Call) -> dict[str, Any]:
    return {"phrase": generating.phrase(app.daemon.rng, call.body.get("words", generating.WORDS))}


async def generate(app: App, call: Call) -> dict[str, Any]:
    return {"password": generating.from_recipe(call.body, app.daemon.rng)}


def check_unsealed(*, admin: bool, force: bool) -> None:
    """Denied: an admin whose keys anybody with its disk can use, unless that is insisted on."""
    if admin and not force:
        raise Denied(
            "An admin without a passphrase lets whoever has its disk write to the mesh.",
            hint="give a passphrase, or insist with --force",
        )


def keystore_of(daemon: Daemon) -> Keystore:
    """The keystore of a connected device."""
    if daemon.keystore is None:
        raise NotConnected
    return daemon.keystore
