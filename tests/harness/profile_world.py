"""A small mesh with a fixed clock and fixed randomness: one version of each kind, made by the code under test.

Ana's laptop is the admin, her desktop a member. The golden file of docs/specs/versions.md is written from it.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from meshd.crypto import sealing, udf
from meshd.crypto.keys import SigningKey, VerifyKey
from meshd.profile import author, device, escrow, master, personal, vault, version
from meshd.profile.apps import PASSWORD, password
from meshd.profile.claim import Kind, Role
from meshd.profile.device import DeviceKeys
from meshd.profile.links import Links
from meshd.profile.personal import Application, Listing
from meshd.profile.vault import Container, EpochKey
from meshd.profile.version import Version

NOW = 1_700_000_000  # 2023-11-14T22:13:20Z
PASSPHRASE = "correct horse battery staple"


def seeded(seed: str) -> Callable[[int], bytes]:
    """The n-th call gives SHAKE-256(seed "/" n), so that anybody can make the golden file again."""
    count = 0

    def rng(length: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"{seed}/{count}".encode()).digest(length)

    return rng


@dataclass(frozen=True)
class Directory:
    """Keys by fingerprint, as a store has them."""

    keys: Mapping[str, VerifyKey]

    def signing_key(self, signer: str) -> VerifyKey | None:
        return self.keys.get(signer)


@dataclass(frozen=True)
class World:
    master_key: SigningKey
    laptop: DeviceKeys
    desktop: DeviceKeys
    write_key: EpochKey
    application: Application
    directory: Directory
    sealed_master: bytes
    escrow: Version
    master: Version
    laptop_profile: Version
    desktop_profile: Version
    personal: Version
    container: Version
    item: Version
    edited: Version

    @property
    def versions(self) -> dict[str, Version]:
        """By name; parents and predecessors first."""
        return {
            "online escrow entry": self.escrow,
            "master profile": self.master,
            "device profile (admin)": self.laptop_profile,
            "device profile (member)": self.desktop_profile,
            "personal profile": self.personal,
            "container": self.container,
            "item": self.item,
            "item, edited": self.edited,
        }

    def sign_item(self, body: Mapping[str, object], links: Links, identifier: str | None = None) -> Version:
        """An item by the laptop."""
        name = identifier or self.item.identifier
        return author.sign(self.laptop.dsk, Kind.ITEM, name, PASSWORD.tag, body, links, NOW)


@functools.cache
def world() -> World:
    rng = seeded("versions")
    master_key = SigningKey.generate(rng)
    laptop, desktop = DeviceKeys.generate(rng), DeviceKeys.generate(rng)
    sealed = escrow.seal_master(master_key, PASSPHRASE, rng, sealing.LEAST_KDF)
    entry = escrow.entry(sealed, [laptop.dek.recipient], rng)
    listed = {entry.identifier: entry.vid}
    top = master.write(master_key, [laptop.dsk.verify_key], escrow=listed, now=NOW)
    profiles = {keys.udf: device.create(keys, NOW, rng) for keys in (laptop, desktop)}
    application = Application(udf.random_udf(rng), PASSWORD.tag)
    body = personal.body(
        top,
        Listing(
            devices=profiles,
            applications=[application],
            roles={desktop.udf: Role.MEMBER},
            grants={desktop.udf: {"*": "write"}},
            admins=frozenset({laptop.udf}),
        ),
    )
    first = author.sign(
        master_key, Kind.PERSONAL, master_key.udf, "PersonalProfile", body, personal.links([], n=0), NOW + 1
    )
    write_key = EpochKey.generate(rng, NOW)
    container = author.sign(
        laptop.dsk,
        Kind.CONTAINER,
        application.identifier,
        PASSWORD.tag,
        vault.seal_container(
            PASSWORD.private,
            Container((write_key,), "", {}, {}),
            [laptop.dek.recipient, desktop.dek.recipient],
            rng,
        ),
        Links(g=1, n=2, q=(profiles[laptop.udf].vid,), a=(first.vid,)),
        NOW + 2,
    )
    made = "2023-11-14T22:13:23Z"
    login = password.new(["bücher.example"], "ana", "s3cret", time=(NOW + 3) * 1000 << 16, made=made, note="A\nB")
    item = author.sign(
        laptop.dsk,
        Kind.ITEM,
        vault.new_item_identifier(application.identifier, rng),
        PASSWORD.tag,
        vault.seal_item(login, write_key, rng),
        Links(g=1, n=3, q=(container.vid,), a=(first.vid,)),
        NOW + 3,
    )
    changed = password.edit(login, {"password": "s4cret"}, time=(NOW + 4) * 1000 << 16, made=made)
    edited = author.sign(
        desktop.dsk,
        Kind.ITEM,
        item.identifier,
        PASSWORD.tag,
        vault.seal_item(changed, write_key, rng),
        Links(g=2, n=2, q=(profiles[desktop.udf].vid,), p=(item.vid,), a=(first.vid,)),
        NOW + 4,
    )
    keys = {key.udf: key for key in (master_key.verify_key, laptop.dsk.verify_key, desktop.dsk.verify_key)}
    return World(
        master_key,
        laptop,
        desktop,
        write_key,
        application,
        Directory(keys),
        sealed,
        entry,
        top,
        profiles[laptop.udf],
        profiles[desktop.udf],
        first,
        container,
        item,
        edited,
    )


def again(found: Version) -> Version:
    """Read and verified once more from its bytes, with the keys of the world."""
    return version.verify(version.parse(found.raw), world().directory)
