"""A portal's database file: what `db` does for a device's store, under an identity and with migrations of its own.

A portal's file is never taken for a device's, nor the other way round: the application id differs. Everything else —
WAL with synchronous=FULL, a file that is whole or absent, errors as StoreErrors — is the same code.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from importlib import resources
from pathlib import Path

from meshd.errors import StoreDamaged, StoreError, StoreTooNew
from meshd.store import db
from meshd.store.db import Database, Migration, store_errors

APPLICATION_ID = int.from_bytes(b"mshp", "big")
_MIGRATION = re.compile(r"(\d{4})_\w+\.sql\Z")
_MEND = "keep the files, and restore a backup"


def migrations() -> list[Migration]:
    """This release's migrations in order."""
    found = []
    for file in resources.files("meshd.store").joinpath("portal_migrations").iterdir():
        if match := _MIGRATION.match(file.name):
            found.append((int(match.group(1)), file.read_text("utf-8")))
    found.sort()
    if [number for number, _ in found] != list(range(1, len(found) + 1)) or not found:
        raise StoreError("this installation of meshd is not complete: migrations of the portal are missing")
    return found


def open_portal(path: Path, *, create: bool = False, readonly: bool = False) -> Database:
    """Open a portal's store and bring it to this release's schema; as `db.open_database`, with the same errors."""
    steps = migrations()
    if not path.exists():
        if readonly or not create:
            raise StoreError(f"there is no portal's store at {path}")
        _create(path, steps)
    if path.stat().st_size == 0:
        raise StoreDamaged(f"the store {path} is an empty file", hint=_MEND)
    if not readonly and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        raise StoreError(f"the store {path} can't be written: the disk or its permissions do not allow it")
    with store_errors():
        connection = db._connect(path, db._mode(path) if readonly else "rw")
        try:
            _identify(connection, path, steps[-1][0])
            # What is stored is ciphertext and signatures; zeroing freed pages would double the work of every change.
            connection.execute("PRAGMA secure_delete = FAST")
            if not readonly:
                db._ready_to_write(connection)
                db._migrate(connection, steps)
        except BaseException:
            connection.close()
            raise
    return Database(path, connection, readonly=readonly)


def _create(path: Path, steps: list[Migration]) -> None:
    if path.with_name(path.name + "-wal").exists():  # SQLite would replay it into the new file
        raise StoreDamaged(f"the store {path} is gone, but its log is there", hint=_MEND)
    fresh = db._fresh(path)
    with store_errors(), contextlib.closing(db._connect(fresh, "rw")) as connection:
        connection.execute(f"PRAGMA page_size = {db.PAGE_SIZE}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db._migrate(connection, steps)
    db._publish(fresh, path)


def _identify(connection: sqlite3.Connection, path: Path, newest: int) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application == db.APPLICATION_ID:
        raise StoreDamaged(f"{path} is the store of a device, not of a portal")
    if application != APPLICATION_ID:
        raise StoreDamaged(f"{path} is a database, but not a store of a portal (application id {application:#x})")
    if version > newest:
        raise StoreTooNew(
            f"the store {path} has format {version}, and this release of meshd knows formats up to {newest}",
            hint="install the newer release again",
        )
    if version < 1:
        raise StoreDamaged(f"the store {path} has format {version}")
