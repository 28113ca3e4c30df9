"""New keys of this device where portals join it with the others: how they come to know them.

A portal knows the keys that a personal profile lists, and an admin writes that. Until one has, this device signs its
requests with the old key, which stays in the keystore as `spare`; and it asks, as a device does that joins, with the
profile that states the new ones. An admin's daemon takes that in by itself (`requests`): the device signed it with the
key that names it, and is of the mesh.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from meshd.daemon.context import Daemon
from meshd.daemon.portals.state import Portal
from meshd.errors import MeshError
from meshd.portal.messages import ConnectStartRequest, ConnectStartResponse
from meshd.profile import connection as connections
from meshd.profile import device, version
from meshd.profile.claim import Kind
from meshd.profile.version import Parsed
from meshd.store import portals_client as store
from meshd.store import versions
from meshd.store.db import store_errors

if TYPE_CHECKING:
    from meshd.daemon.portals.roster import Portals

LOOK_SECONDS = 10.0
ASK_AGAIN = 600.0  # seconds; a portal forgets a request after 15 minutes


async def run(portals: Portals) -> None:
    """Ask where the new key is not known, and forget the old one when it is known everywhere; until cancelled."""
    daemon = portals.daemon
    asked: dict[tuple[str, str], float] = {}  # (account, key) → when
    while True:
        seen = daemon.changed.count
        try:
            if outlived(daemon):
                await _look(portals, asked)
        except MeshError as exc:
            daemon.log.info("telling the portals of new keys: %s", exc)
        with trio.move_on_after(LOOK_SECONDS):
            await daemon.changed.after(seen)


def outlived(daemon: Daemon) -> bool:
    """Is the spare key one that an earlier profile of this device states? Else it is one that is being made."""
    tier1 = daemon.tier1
    return tier1 is not None and tier1.spare is not None and tier1.spare.udf in _earlier(daemon)


async def _look(portals: Portals, asked: dict[tuple[str, str], float]) -> None:
    daemon, tier1 = portals.daemon, portals.daemon.tier1
    assert tier1 is not None  # it has outlived something
    accounts = {row.account for row in store.every(daemon.reader.connection)}
    if not accounts <= portals.running.keys():
        return
    unaware = [one for one in portals.running.values() if not one.plain and one.link.accepted != tier1.dak.udf]
    if not unaware and daemon.keystore is not None:
        daemon.tier1 = replace(tier1, spare=None)
        await trio.to_thread.run_sync(daemon.keystore.update_tier1, daemon.tier1.to_map())
    for one in unaware:
        key, now = (one.name, tier1.dak.udf), trio.current_time()
        if one.link.uses_spare and not daemon.locked and now - asked.get(key, -ASK_AGAIN) >= ASK_AGAIN:
            asked[key] = now
            await _ask(portals, one)


async def _ask(portals: Portals, portal: Portal) -> None:
    daemon, keyring = portals.daemon, portals.daemon.unlocked()
    own = _profiles(daemon)[-1]
    request = connections.write_request(keyring.device.dsk, own, daemon.snapshot.mesh)
    link = portals.link(portal.link.where, lambda: daemon.tier1.dak if daemon.tier1 is not None else None)
    start = ConnectStartRequest(account_id=portal.name, signed_request=request)
    await link.ask("ConnectStart", start, ConnectStartResponse)


def _profiles(daemon: Daemon) -> list[Parsed]:
    """This device's own profiles, the newest last."""
    connection = daemon.reader.connection
    with store_errors():
        rows = sorted(versions.of_entry(connection, Kind.DEVICE, daemon.snapshot.own), key=lambda row: row.gen)
        return [version.parse(raw) for row in rows if (raw := versions.raw(connection, row.vid)) is not None]


def _earlier(daemon: Daemon) -> set[str]:
    return {device.read(one).dak.udf for one in _profiles(daemon)[:-1]}
