"""`init` and `applications`: making a mesh, and the vaults in it.

Founding has three steps that a crash may part: the keystore, the one transaction that founds the mesh, taking both
into use. Until the transaction is durable there is no mesh, and a keystore that is there is from an attempt that did
not end; it is set aside. From then on everything is found again at the next start.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import trio

from meshd.crypto.keys import SigningKey
from meshd.daemon import membership, names, status
from meshd.daemon.context import Daemon, wait
from meshd.daemon.handlers.keys import check_unsealed
from meshd.daemon.keyring import Keyring
from meshd.daemon.pen import Pen
from meshd.daemon.tiers import Tier1, tier2_map
from meshd.errors import BadRequest, Exists, FormatError
from meshd.profile import escrow
from meshd.profile.apps import group, of_tag
from meshd.profile.device import DeviceKeys
from meshd.store.files import file_error, sync_directory
from meshd.store.keystore import Keystore
from meshd.store.replica import Outcome

if TYPE_CHECKING:
    from meshd.daemon.api import App, Call


async def init(app: App, call: Call) -> dict[str, Any]:
    """A new mesh, this device its only one and admin. Exists where there is one; BadRequest, Denied."""
    daemon, body = app.daemon, call.body
    passphrase: str | None = body.get("passphrase")
    if (passphrase is None) != bool(body.get("no_passphrase")):
        raise BadRequest("either a passphrase for this device or no_passphrase is expected")
    if passphrase is None:
        check_unsealed(admin=True, force=bool(body.get("force")))
    name = checked_name(body["name"])
    async with app.founding:
        if daemon.snapshot.connected:
            raise Exists(
                "This device is in a mesh already.", hint="see: meshctl whoami; another mesh needs another --home"
            )
        if any(
            not one.ended for one in app.joining
        ):  # it has a keystore in the place of ours, and deletes it if it fails
            raise Exists("This device is joining a mesh.", hint="wait, or stop the other meshctl connect")
        await _found(app, name, passphrase, body["master_passphrase"])
    return {"mesh": daemon.snapshot.mesh, "device": status.device_name(daemon, names.current(daemon))}


async def _found(app: App, name: str, passphrase: str | None, master_passphrase: str) -> None:
    daemon, rng = app.daemon, app.daemon.rng
    keys, cache_key = DeviceKeys.generate(rng), rng(32)
    master_key = SigningKey.generate(rng)
    sealed = await trio.to_thread.run_sync(
        lambda: escrow.seal_master(master_key, master_passphrase, rng, app.master_kdf)
    )
    tier1 = Tier1(keys.dak, ())  # the Discovery key is made with the mesh, and kept here by `install`
    keystore = await trio.to_thread.run_sync(
        lambda: make_keystore(app, tier1.to_map(), tier2_map(keys, cache_key), passphrase)
    )
    keyring = Keyring(keys, cache_key)

    def write(connection: sqlite3.Connection, outcome: Outcome) -> None:
        pen = Pen(connection, daemon.replica, keyring, outcome, daemon.now_ms(), rng)
        membership.found(pen, master_key, sealed, name)

    await daemon.transact(write)
    daemon.keystore, daemon.tier1 = keystore, tier1
    await daemon.install(keys, cache_key)
    saved = names.refresh(daemon)
    if saved is not None:
        await wait(saved)


def make_keystore(app: App, tier1: dict[str, Any], tier2: dict[str, Any], passphrase: str | None) -> Keystore:
    """The keystore of a device that is not in a mesh yet. Blocking.

    One that is there opened nothing that counts; it is kept under another name all the same, in case the store beside
    it was lost and somebody knows more than we do.
    """
    daemon = app.daemon
    path = daemon.paths.keystore
    if path.exists():
        aside = path.with_name(f"{path.name}.unused-{daemon.now_ms()}")
        try:
            path.rename(aside)
            sync_directory(path.parent)
        except OSError as exc:
            raise file_error(exc, path, "set aside") from exc
        daemon.log.warning("a keystore without a mesh was set aside as %s", aside.name)
    return Keystore.create(path, tier1, tier2, passphrase, daemon.rng, kdf=app.kdf)


async def applications(app: App, call: Call) -> dict[str, Any]:
    """The vaults, by application and name, with what this device may do in each."""
    return {"applications": await vault_list(app.daemon, deleted=bool(call.query.get("deleted")))}


async def vault_list(daemon: Daemon, *, deleted: bool = False) -> list[dict[str, Any]]:
    """The same; deleted vaults only if asked for."""
    index = await daemon.fresh_index()
    keyring, snapshot = daemon.unlocked(), daemon.snapshot
    live: dict[str, int] = {}
    for entry in index.entries.values():
        if not entry.deleted:
            live[entry.container] = live.get(entry.container, 0) + 1
    opened = {
        identifier: vault for identifier, vault in keyring.vaults.items() if deleted or not vault.container.deleted
    }
    writable = await _writable(daemon, tuple(snapshot.applications))
    found = []
    for identifier, application in snapshot.applications.items():
        tag = opened[identifier].application.tag if identifier in opened else application.tag
        kind = of_tag(tag)
        if not kind.vault or (identifier in keyring.vaults and identifier not in opened):
            continue
        found.append(
            {
                "id": identifier,
                "application": kind.name,
                "name": opened[identifier].name if identifier in opened else kind.name,
                "items": live.get(identifier, 0),
                "readable": identifier in opened,
                "writable": identifier in writable,
                "deleted": identifier in opened and opened[identifier].container.deleted,
            }
        )
    return sorted(found, key=lambda view: (view["application"], view["name"], view["id"]))


async def _writable(daemon: Daemon, containers: tuple[str, ...]) -> frozenset[str]:
    """Those that this device may write to. Authority lives in the writer's thread, so it is asked there."""

    def ask(connection: sqlite3.Connection) -> frozenset[str]:
        authority, own = daemon.replica.authority, daemon.replica.own
        return frozenset(container for container in containers if authority.can_write(own, container))

    return await wait(daemon.writer.submit(ask))


def checked_name(name: str) -> str:
    """A device name as the Group vault takes it; BadRequest."""
    try:
        return group.check_name(name)
    except FormatError as exc:
        raise BadRequest(str(exc)) from exc
