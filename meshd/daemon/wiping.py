"""Forgetting everything: a removed device gives its keys and its copy of the mesh away (`meshctl wipe`).

The keys go first. What is left if a crash comes then is ciphertext that nobody opens, and wiping goes on where it
stopped. Files on flash may outlive their deletion; what the keystore's passphrase protected, it still does.
"""

from __future__ import annotations

import os
from pathlib import Path

from meshd.daemon.paths import Paths
from meshd.daemon.snapshot import Snapshot, take
from meshd.errors import Denied, StoreError
from meshd.store.db import get_meta, open_database
from meshd.store.files import SUFFIX, file_error, sync_directory
from meshd.store.keystore import HOST_KEY
from meshd.store.replica import Replica


def check(snapshot: Snapshot, *, force: bool = False) -> None:
    """Denied while this device is still of its mesh, unless forced: what only it holds would be lost."""
    if snapshot.is_member and not force:
        others = len(snapshot.siblings)
        raise Denied(
            "This device still belongs to its mesh."
            + ("" if others else " It is the only one: everything in it would be lost."),
            hint="remove it on another device first, or insist with --force",
        )


def wipe(paths: Paths, *, force: bool = False) -> list[Path]:
    """Delete keystore, host key and store of a home that no daemon runs on (its lock is the caller's to hold); returns
    what was deleted. Settings stay. Denied while the device is of its mesh, unless `force`; StoreError."""
    if not force and paths.keystore.exists() and paths.store.exists():
        check(_snapshot(paths))
    gone = []
    for path in _files(paths):
        try:
            path.unlink()
        except FileNotFoundError:
            continue
        except OSError as exc:
            raise file_error(exc, path, "deleted") from exc
        gone.append(path)
    for directory in {path.parent for path in gone}:
        try:
            sync_directory(directory)
        except OSError as exc:
            raise file_error(exc, directory, "synced") from exc
    return gone


def _files(paths: Paths) -> list[Path]:
    """In the order in which they go: what opens things before what is opened."""
    names = [
        paths.keystore.with_name(HOST_KEY),
        paths.keystore,
        paths.keystore.with_name(paths.keystore.name + SUFFIX),
        *sorted(paths.keystore.parent.glob(paths.keystore.name + ".unused-*")),
    ]
    return names + [paths.store.with_name(paths.store.name + end) for end in ("", "-wal", "-shm", ".new")]


def _snapshot(paths: Paths) -> Snapshot:
    """What the store says of this device; without one that can be read nobody can say that it is still needed."""
    try:
        database = open_database(paths.store, readonly=True)
    except StoreError as exc:
        raise StoreError(f"{exc}", hint="insist with --force") from exc
    try:
        if get_meta(database.connection, "mesh") is None:
            return Snapshot()
        return take(database.connection, Replica(database.connection, os.urandom))
    finally:
        database.close()
