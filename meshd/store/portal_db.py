"""A portal's database file: what `db` does for a device's store, under an identity and with migrations of its own.

A portal's file is never taken for a device's, nor the other way round: the application id differs.
"""

from __future__ import annotations

from pathlib import Path

from meshd.store.db import Database, Kind, open_database

APPLICATION_ID = int.from_bytes(b"mshp", "big")
# What is stored is ciphertext and signatures; zeroing freed pages would double the work of every change.
PORTAL = Kind(APPLICATION_ID, "a portal", "portal_migrations", ("PRAGMA secure_delete = FAST",))


def open_portal(path: Path, *, create: bool = False, readonly: bool = False) -> Database:
    """Open a portal's store and bring it to this release's schema; as `db.open_database`, with the same errors."""
    return open_database(path, readonly=readonly, create=create, kind=PORTAL)
