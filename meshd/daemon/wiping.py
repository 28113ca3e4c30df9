"""Forgetting everything: a removed device gives its keys and its copy of the mesh away (`meshctl wipe`).

The keys go first. What is left if a crash comes then is ciphertext that nobody opens, and wiping goes on where it
stopped: a mark beside the store says that it was begun, and goes last. Files on flash may outlive their deletion; what
the keystore's passphrase protected, it still does.
"""

from __future__ import annotations

import os
from pathlib import Path

from meshd.daemon.paths import Paths
from meshd.daemon.snapshot import Snapshot, take
from meshd.errors import Denied, StoreError
from meshd.store.db import get_meta, open_database
from meshd.store.files import SUFFIX, durable_write, file_error, sync_directory
from meshd.store.keystore import HOST_KEY
from meshd.store.replica import Replica

MARK = "wiping"


def check(snapshot: Snapshot, *, force: bool = False) -> None:
    """Denied while this device is still of its mesh, unless forced: what only it holds would be lost."""
    if snapshot.is_member and not force:
        others = len(snapshot.siblings)
        raise Denied(
            "This device still belongs to its mesh."
            + ("" if others else " It is the only one: everything in it would be lost."),
            hint="remove it on another device first, or insist with --force",
        )


def begin(paths: Paths) -> None:
    """Destroy the keys of a home whose daemon runs, and see to it that the rest follows (`finish`). StoreError."""
    durable_write(paths.state / MARK, b"")
    _delete(_keys(paths))


def finish(paths: Paths) -> bool:
    """Where wiping was begun, end it: for the start of a daemon, before anything is opened. Was it? StoreError."""
    mark = paths.state / MARK
    if not mark.exists():
        return False
    wipe(paths, force=True)
    _delete([mark])
    return True


def wipe(paths: Paths, *, force: bool = False) -> list[Path]:
    """Delete keystore, host key and store of a home that no daemon runs on (its lock is the caller's to hold); returns
    what was deleted. Settings stay. Denied while the device is of its mesh, unless `force`; StoreError."""
    if not force and paths.keystore.exists() and paths.store.exists():
        check(_snapshot(paths))
    stored = [paths.store.with_name(paths.store.name + end) for end in ("", "-wal", "-shm", ".new")]
    return _delete(_keys(paths) + stored)


def _delete(files: list[Path]) -> list[Path]:
    """Delete these, in this order; returns those that were there. StoreError."""
    gone = []
    for path in files:
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


def _keys(paths: Paths) -> list[Path]:
    """What opens things, in the order in which it goes."""
    return [
        paths.keystore.with_name(HOST_KEY),
        paths.keystore,
        paths.keystore.with_name(paths.keystore.name + SUFFIX),
        *sorted(paths.keystore.parent.glob(paths.keystore.name + ".unused-*")),
    ]


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
