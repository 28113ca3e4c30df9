"""The rows of who asks a portal: the keys of signers, and the devices that stored profiles list.

As in `portal_rows`, each function is one question or one change inside the caller's transaction. They change with how a
caller proves who he is, not with what is stored.
"""

# ruff: noqa: S608 - what is put into the texts of queries are names of columns and tables that stand here

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

MOST_MESHES = 256  # in which one device is looked for: anybody may list anybody's device


def learn_signer(connection: sqlite3.Connection, udf: str, key: bytes) -> None:
    connection.execute("INSERT OR IGNORE INTO signers VALUES (?, ?)", (udf, key))


def signer(connection: sqlite3.Connection, udf: str) -> bytes | None:
    found = connection.execute("SELECT key FROM signers WHERE udf = ?", (udf,)).fetchone()
    return None if found is None else bytes(found[0])


def put_device(connection: sqlite3.Connection, udf: str, dak: str, key: bytes, gen: int, vid: bytes) -> None:
    """A device's profile states this authentication key. The newest profile counts."""
    connection.execute(
        "INSERT INTO devices VALUES (?, ?, ?, ?, ?) ON CONFLICT (udf) DO UPDATE SET dak = excluded.dak,"
        " key = excluded.key, gen = excluded.gen, vid = excluded.vid"
        " WHERE excluded.gen > gen OR (excluded.gen = gen AND excluded.vid < vid)",
        (udf, dak, key, gen, vid),
    )


def put_members(connection: sqlite3.Connection, mesh: int, devices: Iterable[str]) -> None:
    connection.executemany("INSERT OR IGNORE INTO members VALUES (?, ?)", [(device, mesh) for device in devices])


def put_devices_2016(connection: sqlite3.Connection, mesh: int, devices: dict[str, str]) -> None:
    """The devices of the current profile of 2016, and their authentication keys."""
    connection.execute("DELETE FROM devices_2016 WHERE mesh = ?", (mesh,))
    connection.executemany(
        "INSERT INTO devices_2016 VALUES (?, ?, ?)", [(udf, mesh, dak) for udf, dak in devices.items()]
    )


def devices_of(connection: sqlite3.Connection, dak: str) -> list[tuple[str, str, bool]]:
    """(mesh, device, is it of 2016) of each mesh that may have a device with this authentication key."""
    found = connection.execute(
        "SELECT m.udf, d.udf, 0 FROM devices d JOIN members b ON b.device = d.udf JOIN meshes m ON m.id = b.mesh"
        " WHERE d.dak = ?1 UNION ALL"
        " SELECT m.udf, o.device, 1 FROM devices_2016 o JOIN meshes m ON m.id = o.mesh WHERE o.dak = ?1"
        f" LIMIT {MOST_MESHES}",
        (dak,),
    ).fetchall()
    return [(mesh, udf, bool(old)) for mesh, udf, old in found]


def devices_2016_of(connection: sqlite3.Connection, *, dak: str = "", device: str = "") -> list[tuple[str, str]]:
    """(mesh, device) of accounts of 2016."""
    column, value = ("d.dak", dak) if dak else ("d.device", device)
    found = connection.execute(
        f"SELECT m.udf, d.device FROM devices_2016 d JOIN meshes m ON m.id = d.mesh WHERE {column} = ? ORDER BY m.id"
        f" LIMIT {MOST_MESHES}",
        (value,),
    ).fetchall()
    return [(mesh, udf) for mesh, udf in found]


def device_key(connection: sqlite3.Connection, dak: str) -> bytes | None:
    """The Ed25519 authentication key of this fingerprint, of a device that a stored profile lists."""
    found = connection.execute("SELECT key FROM devices WHERE dak = ?", (dak,)).fetchone()
    return None if found is None else bytes(found[0])


def passing_key(connection: sqlite3.Connection, dak: str) -> bytes | None:
    """As `device_key`, of a device that asks or asked to be connected, of one that opened an account whose profiles
    do not list it yet, or of a peer portal."""
    for sql in (
        "SELECT opener_key FROM accounts WHERE opener = ? AND opener <> ''",
        "SELECT key FROM pending WHERE dak = ? AND old = 0",
        "SELECT key FROM answers WHERE dak = ? AND length(key) > 0",
        "SELECT key FROM peers WHERE keyid = ?",
    ):
        found = connection.execute(sql, (dak,)).fetchone()
        if found is not None:
            return bytes(found[0])
    return None
