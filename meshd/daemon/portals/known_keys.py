"""The keys of a portal's log, as devices of one mesh tell each other (decision 0027).

Who sees a portal first takes its log's key at first sight, and writes it to the portal's item in the Discovery vault.
For every other device the first contact is then none: it believes a log that one of these keys has signed. A key that
the portal replaces goes the same way, so a device that was away for months finds the one that counts now.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from meshd.daemon import vaults
from meshd.daemon.pen import Pen
from meshd.daemon.portals.listed import stated
from meshd.errors import Denied, FormatError, Locked, MeshError
from meshd.profile.apps import portals as entries
from meshd.store.portal_pins import PinRow
from meshd.tlog.note import ED25519, Verifier

if TYPE_CHECKING:
    from meshd.daemon.portals.state import Portal

TELL_SECONDS = 3600.0  # between two writings of one portal's item
OTHERS = "its log is signed by another key than the other devices of this mesh know"


def read(vkeys: tuple[str, ...]) -> tuple[Verifier, ...]:
    """Those of a log that can be read."""
    found = []
    for vkey in vkeys:
        try:
            verifier = Verifier.parse(vkey)
        except FormatError:
            continue
        found += [verifier] if verifier.kind == ED25519 else []
    return tuple(found)


def own(pin: PinRow) -> tuple[str, ...]:
    """The keys that speak for the log since the newest checkpoint."""
    return tuple(one.vkey for one in read(pin.keys))[: entries.MAX_KEYS]


async def keep(portal: Portal) -> None:
    """Tell the others what this device has seen, and notice where they have seen something else."""
    last = portal.told_keys
    while True:
        seen = portal.daemon.changed.count
        try:
            if portal.told_keys != last:  # by what the others know it may be believed after all
                last = portal.told_keys
                await portal.watch.settle(await portal.watch.look())
            await _settle(portal)
        except MeshError as exc:
            portal.daemon.log.info("the keys of the log of %s were not compared: %s", portal.name, exc)
        await portal.daemon.changed.after(seen)


async def _settle(portal: Portal) -> None:
    watch = portal.watch
    pin, told = watch.pin, set(portal.told_keys)
    if pin is None or watch.doubted or portal.leaving or set(own(pin)) == told:
        return
    if told and not told & set(own(pin)):
        await watch.settle(await watch.look())  # it may have been replaced while this device was away
        pin, entry = watch.pin, stated(portal.daemon, portal.daemon.reader.connection).live.get(portal.name)
        told = set(entry[0].log_keys) if entry is not None else told  # the list is followed by another task
        if pin is not None and not watch.doubted and not told & set(own(pin)):
            await watch.suspect(OTHERS, owes=True)
        return
    if trio.current_time() >= portal.told_until:  # a portal may change its keys as often as it likes
        await tell(portal, own(pin))


async def tell(portal: Portal, keys: tuple[str, ...]) -> None:
    """Write these keys to the portal's item, where this device may: admins, and members with a grant on all vaults.

    None: a person decided, and what follows is a first contact for all."""
    daemon, name = portal.daemon, portal.name

    def write(pen: Pen) -> None:
        entry, identifier = stated(daemon, pen.connection).live.get(name, (None, ""))
        if entry is None or set(entry.log_keys) == set(keys):
            return
        if not keys or not entry.log_keys or set(entry.log_keys) & set(keys):  # what contradicts it is for a person
            changed = replace(entry, log_keys=keys)
            vaults.replace(pen, identifier, lambda item, t, made: entries.item(changed, time=t, made=made))

    if daemon.locked:
        return
    portal.told_until = trio.current_time() + TELL_SECONDS
    try:
        await daemon.write(write)
    except Denied:
        portal.told_until = math.inf
    except Locked:
        portal.told_until = 0.0
