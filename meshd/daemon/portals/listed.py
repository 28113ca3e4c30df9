"""Which accounts the mesh has, as its Discovery vault says (decision 0017); a locked device can read it, too."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from meshd.daemon import vaults
from meshd.daemon.context import Daemon
from meshd.errors import FormatError, MeshError
from meshd.portal import names
from meshd.profile import vault, version
from meshd.profile.apps import DISCOVERY
from meshd.profile.apps import portals as entries
from meshd.profile.apps.portals import PortalEntry
from meshd.store import versions


@dataclass(frozen=True, slots=True)
class Stated:
    """What the Discovery vault says: live entries by account, each with its item; and the items that say "no more"."""

    live: dict[str, tuple[PortalEntry, str]]
    gone: frozenset[str]


def stated(daemon: Daemon, connection: sqlite3.Connection) -> Stated:
    """What the Discovery vault says, read with the keys that a locked device holds too."""
    tier1 = daemon.tier1
    find = entries.keys(tier1.discovery if tier1 is not None else ())
    live: dict[str, tuple[PortalEntry, str]] = {}
    gone: set[str] = set()
    for identifier, found in _winners(daemon, connection, find).items():
        entry = None if found.deleted else entries.read(found)
        if found.deleted:
            gone.add(identifier)
        elif entry is not None and (entry.account not in live or identifier < live[entry.account][1]):
            try:
                live[str(names.normalise(entry.account))] = entry, identifier
            except FormatError:
                continue
    return Stated(live, frozenset(gone))


def items_of(daemon: Daemon, connection: sqlite3.Connection, account: str) -> list[str]:
    """The live items that name an account: two devices may have written one each."""
    tier1 = daemon.tier1
    find = entries.keys(tier1.discovery if tier1 is not None else ())
    return [
        identifier
        for identifier, found in _winners(daemon, connection, find).items()
        if not found.deleted and (entry := entries.read(found)) is not None and entry.account == account
    ]


def _winners(daemon: Daemon, connection: sqlite3.Connection, find: Callable[[str], bytes]) -> dict[str, vault.Item]:
    best: dict[str, tuple[tuple[bool, int, bytes], vault.Item]] = {}
    for container in containers(daemon):
        for identifier, vid in vaults.heads_in(connection, container):
            raw = versions.raw(connection, vid)
            if raw is None:
                continue
            try:
                found = vault.open_item(version.parse(raw), find)
                rank = vault.winner_key(found.deleted, found.time, vid)
            except MeshError:
                continue
            if identifier not in best or best[identifier][0] < rank:
                best[identifier] = rank, found
    return {identifier: found for identifier, (_, found) in best.items()}


def containers(daemon: Daemon) -> list[str]:
    found = daemon.snapshot.applications.values()
    return sorted(app.identifier for app in found if app.tag == DISCOVERY.tag)
