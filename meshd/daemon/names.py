"""What the devices are called: the Group vault's word, remembered in clear so that a locked device shows it too.

A name is for people and never decides anything: any member can write one, and two devices may have the same. Devices
are found by name, by id, or by the id's beginning; what fits several is refused with the choices.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from concurrent.futures import Future

import trio

from meshd.crypto import udf as fingerprints
from meshd.daemon import vaults
from meshd.daemon.context import Daemon, wait
from meshd.daemon.vaults import Head
from meshd.errors import Ambiguous, MeshError, NotFound
from meshd.profile.apps import GROUP, group
from meshd.store import events, peers
from meshd.store.db import store_errors

FOLLOW_SECONDS = 0.05


def cached(daemon: Daemon) -> dict[str, str]:
    """UDF → name, of every device whose name was ever read; removed ones too."""
    return {peer.udf: peer.name for peer in peers.every(daemon.reader.connection) if peer.name}


def current(daemon: Daemon) -> dict[str, str]:
    """The remembered names; where a device has none yet, what the Group vault says is looked at too."""
    names = cached(daemon)
    if not daemon.locked and any(udf not in names for udf in daemon.snapshot.devices):
        names = read(daemon) | names
    return names


def shown(names: Mapping[str, str], udf: str) -> str:
    """The name of a device, or the beginning of its UDF, which no device name looks like."""
    return names.get(udf) or f"({udf[:11]})"


def read(daemon: Daemon) -> dict[str, str]:
    """UDF → name, as the Group vault says now; empty while locked."""
    keyring = daemon.keyring
    if keyring is None:
        return {}
    said: dict[str, tuple[Head, str]] = {}
    with store_errors():
        connection = daemon.reader.connection
        for container, opened in list(keyring.vaults.items()):
            if opened.application.tag != GROUP.tag:
                continue
            for identifier in vaults.items_of(connection, container):
                for head in vaults.open_heads(connection, keyring, identifier):
                    found = None if head.item.deleted else group.read(head.item)
                    if found is not None and (found[0] not in said or said[found[0]][0].rank < head.rank):
                        said[found[0]] = (head, found[1])
    return {udf: name for udf, (_, name) in said.items()}


def refresh(daemon: Daemon) -> Future[None] | None:
    """Remember the names that changed; None when there are none, or the device is locked.

    The future resolves when they are durable. Nobody needs to wait for it.
    """
    known = cached(daemon)
    changed = {udf: name for udf, name in read(daemon).items() if known.get(udf) != name}
    if not changed:
        return None
    now = daemon.now_ms()

    def save(connection: sqlite3.Connection) -> None:
        for udf, name in changed.items():
            if peers.get(connection, udf).name != name:
                peers.set_name(connection, udf, name)
                events.append(connection, now, "device", {"device": udf, "name": name})

    return daemon.writer.submit(save)


async def keep(daemon: Daemon) -> None:
    """Follow the Group vault for as long as it runs. Most commits are about something else and cost one small query."""
    last: object = None
    while True:
        moved, changed = daemon.moved.count, daemon.changed.count
        try:
            now = _state(daemon)
            if now is not None and now != last:
                last = now
                saved = refresh(daemon)
                if saved is not None:
                    await wait(saved)
                    daemon.changed.bump()
        except MeshError as exc:
            daemon.log.info("the names of devices were not followed: %s", exc)
        await settled_past(daemon, moved, changed)


def _state(daemon: Daemon) -> object:
    """Something that differs when the Group vault may say something else; None while locked."""
    if daemon.keyring is None:
        return None
    opened = [vault for vault in daemon.keyring.vaults.values() if vault.application.tag == GROUP.tag]
    heads: set[bytes] = set()
    for vault in opened:
        low, high = vault.application.identifier + "/", vault.application.identifier + "0"
        sql = "SELECT vid FROM versions WHERE kind = 8 AND identifier > ? AND identifier < ? AND head = 1"
        heads.update(row[0] for row in daemon.reader.query(sql, (low, high)))
    return heads, [[head.claim.vid for head in vault.heads] for vault in opened]


async def moved_past(daemon: Daemon, moved: int, changed: int) -> None:
    """Return as soon as the store or the state of the daemon has moved past these counts."""
    while daemon.moved.count <= moved and daemon.changed.count <= changed:
        await daemon.stirred.after(daemon.stirred.count)


async def settled_past(daemon: Daemon, moved: int, changed: int) -> None:
    """As `moved_past`, and a moment later: who only follows lets those go first who carry a change on or wait for it,
    and looks once at what comes together."""
    await moved_past(daemon, moved, changed)
    await trio.sleep(FOLLOW_SECONDS)


async def resolve(daemon: Daemon, text: str, *, removed: bool = False, alike: bool = False) -> str:
    """`find`, after a look at names that came a moment ago: a person who saw a device join names it at once."""
    try:
        return find(daemon, text, alike=alike)
    except NotFound:
        saved = refresh(daemon)
        if saved is not None:
            await wait(saved)
    return find(daemon, text, removed=removed, alike=alike)


def find(daemon: Daemon, text: str, *, removed: bool = False, alike: bool = False) -> str:
    """The UDF of the one device of the mesh that `text` means. NotFound, Ambiguous.

    `removed`: or of one that was removed, where no present one fits; `alike`: as much as a present one."""
    chosen = set(daemon.snapshot.devices) | (set(daemon.snapshot.removed) if alike else set())
    found = _fitting(daemon, text, chosen)
    if found is None and removed:
        found = _fitting(daemon, text, set(daemon.snapshot.removed))
    if found is None:
        raise NotFound("there is no such device in this mesh", hint="see: meshctl device list")
    return found


def _fitting(daemon: Daemon, text: str, devices: Collection[str]) -> str | None:
    names = cached(daemon)
    for found in (
        [udf for udf in devices if fingerprints.equal(udf, text)],
        [udf for udf in devices if names.get(udf) == text],
        [udf for udf in devices if names.get(udf, "").casefold() == text.casefold()],
        [udf for udf in devices if fingerprints.matches(text, udf)],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            gone = daemon.snapshot.removed
            choices = ", ".join(
                f"{shown(names, udf)}{' (removed)' if udf in gone else ''} {udf}"
                for udf in sorted(found, key=lambda udf: (udf in gone, udf))
            )
            raise Ambiguous(
                f"more than one device fits: {choices}",
                hint="say the beginning of its id; see: meshctl device list --removed",
            )
    return None
