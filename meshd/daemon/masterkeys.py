"""The master key of a mesh, for the length of one command: opening it, another passphrase, and keeping it offline.

It exists sealed under the master passphrase, wrapped for the admins' devices (formats.md F6). `offline` takes that from
the devices into a file that the person keeps; `online` brings it back. Every change is a new escrow entry and a
MasterProfile that lists it, with its PersonalProfile, in one transaction; where a file is written, it is on disk before
that.
"""

from __future__ import annotations

from pathlib import Path

import trio

from meshd.crypto import base64url, sealing, udf
from meshd.crypto.keys import SigningKey
from meshd.daemon import authoring, membership, rotation
from meshd.daemon.context import Daemon
from meshd.daemon.pen import Pen
from meshd.errors import BadRequest, Denied, Exists, FormatError, TrustError
from meshd.profile import escrow, payload
from meshd.profile.claim import Kind, State
from meshd.profile.version import Version
from meshd.store import versions
from meshd.store.files import durable_write, read_file

MAX_FILE = 64 * 1024
_TAG = "MeshdMasterKey"


async def unseal(
    daemon: Daemon, passphrase: str, *, file: Path | None = None, sealed: bytes | None = None
) -> SigningKey:
    """The master key, by its passphrase, from this device, from a file that was written before `offline`, or from what
    such a file holds (`decode`). A second and 256 MiB.

    WrongPassphrase; Denied where this device does not hold it; TrustError when it is another mesh's."""
    if not passphrase:
        raise BadRequest("The master passphrase is needed.")
    if sealed is not None:
        blob = sealed
    elif file is not None:
        blob = await trio.to_thread.run_sync(read, file, daemon.snapshot.mesh)
    else:
        blob = await daemon.write(membership.sealed_master)
    key = await trio.to_thread.run_sync(escrow.open_master, blob, passphrase)
    if key.udf != daemon.snapshot.mesh:
        raise TrustError("The sealed master key is not this mesh's.")
    return key


async def reseal(
    daemon: Daemon, master_key: SigningKey, passphrase: str, parameters: sealing.KdfParameters | None = None
) -> bytes:
    """The master key under another passphrase, for `change_passphrase` or `online`. A second and 256 MiB."""
    if not passphrase:
        raise BadRequest("An empty master passphrase.")
    return await trio.to_thread.run_sync(escrow.seal_master, master_key, passphrase, daemon.rng, parameters)


# --- in the writer's thread -------------------------------------------------------------------------------------------


def change_passphrase(pen: Pen, master_key: SigningKey, sealed: bytes) -> Version:
    """From now on devices hold the master key under the passphrase of `sealed`; returns the MasterProfile.

    Whoever kept a copy of the old entry can still try the old passphrase on it: only a new mesh would change that."""
    return _restate(pen, master_key, sealed)


def offline(pen: Pen, master_key: SigningKey) -> Version:
    """No device holds the sealed master key any more. Write it to a file first (`write`)."""
    return _restate(pen, master_key, None)


def online(pen: Pen, master_key: SigningKey, sealed: bytes) -> Version:
    """The admins' devices hold the sealed master key again. Exists where they do."""
    if authoring.held_master(pen) is not None:
        raise Exists("This mesh's admins hold the sealed master key already.")
    return _restate(pen, master_key, sealed)


def _restate(pen: Pen, master_key: SigningKey, sealed: bytes | None) -> Version:
    authoring.check_admin(pen, master_key)
    top = authoring.write_master(pen, master_key, pen.replica.authority.admins(), sealed=sealed)
    authoring.write_profile(pen, authoring.state(pen), top=top, master_key=master_key)
    rotation.settle(pen)
    return top


def salvage(pen: Pen) -> bytes:
    """The sealed master key from any escrow entry that this device can open, valid or not: when every admin is gone,
    one that was removed still holds what its person needs. Denied where there is none."""
    authority = pen.replica.authority
    listed = set(authority.escrow().values())
    rows = versions.of_kind(pen.connection, Kind.ONLINE_ESCROW, tuple(State))
    for row in sorted(rows, key=lambda row: (row.vid not in listed, -row.seq)):
        blob = membership.open_sealed(pen, row.vid)
        if blob is not None:
            return blob
    raise Denied("This device holds no sealed master key.", hint="do this on a device that is or was an admin")


# --- the file ---------------------------------------------------------------------------------------------------------


def write(path: Path, mesh: str, sealed: bytes) -> None:
    """Put the sealed master key into a new file, readable by its owner alone; durable when this returns. Exists."""
    if path.exists():
        raise Exists(f"{path} exists already.")
    durable_write(path, encode(mesh, sealed))


def read(path: Path, mesh: str) -> bytes:
    """The sealed master key from a file that `write` made. FormatError, StoreError; TrustError for another mesh's."""
    return decode(read_file(path, MAX_FILE), mesh)


def encode(mesh: str, sealed: bytes) -> bytes:
    """What such a file holds: a line of JSON."""
    return payload.encode({_TAG: {"V": 1, "Mesh": mesh, "Sealed": base64url.encode(sealed)}}) + b"\n"


def decode(data: bytes, mesh: str) -> bytes:
    """The sealed master key from what a file holds. FormatError; TrustError for another mesh's."""
    fields = payload.decode(data.rstrip(b"\n"))
    found = fields.get(_TAG) if type(fields) is dict else None
    if type(found) is not dict or found.get("V") != 1:
        raise FormatError("that file holds no sealed master key")
    if not udf.equal(payload.text_member(found, "Mesh", 64), mesh):
        raise TrustError("That file is of another mesh.")
    return base64url.decode(payload.text_member(found, "Sealed", 8192))
