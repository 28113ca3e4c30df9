"""What the devices are called: the Group vault's word, remembered in clear so that a locked device shows it too.

A name is for people and never decides anything: any member can write one, and two devices may have the same. Devices
are found by name, by id, or by the id's beginning; what fits several is refused with the choices.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from concurrent.futures import Future

from meshd.crypto import udf as fingerprints
from meshd.daemon import vaults
from meshd.daemon.context import Daemon, wait
from meshd.daemon.vaults import Head
from meshd.errors import Ambiguous, NotFound
from meshd.profile.apps import GROUP, group
from meshd.store import peers
from meshd.store.db import store_errors


def cached(daemon: Daemon) -> dict[str, str]:
    """UDF → name, of every device whose name was ever read; removed ones too."""
    return {peer.udf: peer.name for peer in peers.every(daemon.reader.connection) if peer.name}


def shown(names: Mapping[str, str], udf: str) -> str:
    """The name of a device, or the beginning of its UDF, which no device name looks like."""
    return names.get(udf) or f"({udf[:11]})"


def refresh(daemon: Daemon) -> Future[None] | None:
    """Read the Group vault and write the names that changed; None when there are none, or the device is locked.

    The future resolves when they are durable. Nobody needs to wait for it.
    """
    keyring = daemon.keyring
    if keyring is None:
        return None
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
        known = cached(daemon)
    changed = {udf: name for udf, (_, name) in said.items() if known.get(udf) != name}
    if not changed:
        return None

    def save(connection: sqlite3.Connection) -> None:
        for udf, name in changed.items():
            peers.set_name(connection, udf, name)

    return daemon.writer.submit(save)


async def resolve(daemon: Daemon, text: str) -> str:
    """`find`, after a look at names that came a moment ago: a person who saw a device join names it at once."""
    try:
        return find(daemon, text)
    except NotFound:
        saved = refresh(daemon)
        if saved is None:
            raise
    await wait(saved)
    return find(daemon, text)


def find(daemon: Daemon, text: str) -> str:
    """The UDF of the one device of the mesh that `text` means. NotFound, Ambiguous."""
    names = cached(daemon)
    devices = daemon.snapshot.devices
    for found in (
        [udf for udf in devices if fingerprints.equal(udf, text)],
        [udf for udf in devices if names.get(udf) == text],
        [udf for udf in devices if names.get(udf, "").casefold() == text.casefold()],
        [udf for udf in devices if fingerprints.matches(text, udf)],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            choices = ", ".join(f"{shown(names, udf)} {udf}" for udf in sorted(found))
            raise Ambiguous(f"more than one device fits: {choices}", hint="give more of its id")
    raise NotFound("there is no such device in this mesh", hint="see: meshctl device list")
