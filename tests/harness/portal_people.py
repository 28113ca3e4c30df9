"""A person with devices and no daemon: writes the versions of a mesh by hand, for what takes them in.

alice = Person("alice")            # a master key, a first device, a vault
alice.root                         # the first PersonalProfile
phone = alice.device("phone")      # keys and a DeviceProfile
alice.admit(phone)                 # a PersonalProfile by the first device that lists it
alice.item("one password")         # an item by the first device
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from meshd.crypto import udf
from meshd.crypto.keys import SigningKey
from meshd.profile import author, connection, device, escrow, links, master, personal, vault, version
from meshd.profile.apps import PASSWORD, password
from meshd.profile.claim import Kind, Role
from meshd.profile.device import DeviceKeys
from meshd.profile.links import Cut, Links
from meshd.profile.personal import Application, Listing
from meshd.profile.vault import Container, EpochKey
from meshd.profile.version import Version

NOW = 1_790_000_000


def seeded(seed: str) -> Callable[[int], bytes]:
    """Random-looking bytes that are the same in every run."""
    count = 0

    def rng(length: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"{seed}/{count}".encode()).digest(length)

    return rng


@dataclass
class PaperDevice:
    """A device's keys, its profile, and the end of its chain."""

    keys: DeviceKeys
    profile: Version
    last: Version

    @property
    def udf(self) -> str:
        return self.keys.udf

    @property
    def dak(self) -> str:
        return self.keys.dak.udf

    def request(self, mesh: str) -> dict[str, object]:
        return connection.write_request(self.keys.dsk, self.profile, mesh, "fp1.nonce")


@dataclass
class Person:
    """One mesh, written down. `heads` are the personal profiles that the next one replaces."""

    name: str
    devices: list[PaperDevice] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = seeded(self.name)
        self.key = SigningKey.generate(self.rng)
        self.mesh = self.key.udf
        self.first = self.device("first")
        self.devices.append(self.first)
        self.vault = udf.random_udf(self.rng)
        self.epoch = EpochKey.generate(self.rng, NOW)
        self.roles: dict[str, Role] = {}
        self.master = master.write(self.key, [self.first.keys.dsk.verify_key], escrow={}, now=NOW)
        self.root = self.profile(None, ())
        self.head = self.root

    def device(self, name: str) -> PaperDevice:
        """A new device; nobody lists it yet."""
        rng = seeded(f"{self.name}/{name}")
        keys = DeviceKeys.generate(rng)
        profile = device.create(keys, NOW, rng)
        return PaperDevice(keys, profile, profile)

    def profile(self, signer: PaperDevice | None, parents: Sequence[Version], cuts: Sequence[Cut] = ()) -> Version:
        """A PersonalProfile of the devices in `devices`; by the master key where no signer is given."""
        listing = Listing(
            devices={one.udf: one.profile for one in self.devices},
            applications=[Application(self.vault, PASSWORD.tag)],
            roles=dict(self.roles),
            grants={one: {"*": "write"} for one, role in self.roles.items() if role is Role.MEMBER},
            admins=self.master.claim.admins,
        )
        body = personal.body(self.master, listing, parents[0] if parents else None)
        chain = {} if signer is None else {"n": signer.last.links.n + 1, "q": (signer.last.vid,)}
        linked = links.Links(
            g=1 + max((one.links.g for one in parents), default=0),
            p=tuple(sorted(one.vid for one in parents)),
            x=tuple(cuts),
            **chain,  # type: ignore[arg-type]
        )
        key = self.key if signer is None else signer.keys.dsk
        made = author.sign(key, Kind.PERSONAL, self.mesh, "PersonalProfile", body, linked, NOW)
        if signer is not None:
            signer.last = made
        return made

    def admit(self, new: PaperDevice, role: Role = Role.MEMBER) -> Version:
        self.devices.append(new)
        self.roles[new.udf] = role
        self.head = self.profile(self.first, [self.head])
        return self.head

    def promote(self, new: PaperDevice) -> Version:
        """A profile by the master key, under a MasterProfile that makes a device an administrator."""
        if new not in self.devices:
            self.devices.append(new)
        self.roles.pop(new.udf, None)
        return self._by_master()

    def dismiss(self, gone: PaperDevice) -> Version:
        """A profile by the master key that removes an administrator."""
        self.devices.remove(gone)
        return self._by_master([Cut(gone.udf, (gone.last.vid,))])

    def _by_master(self, cuts: Sequence[Cut] = ()) -> Version:
        admins = [one.keys.dsk.verify_key for one in self.devices if one.udf not in self.roles]
        self.master = master.write(self.key, admins, parents=[self.master], escrow={}, cuts=cuts, now=NOW)
        self.head = self.profile(None, [self.head])
        return self.head

    def remove(self, gone: PaperDevice) -> Version:
        """A profile that cuts a device where its chain stands now."""
        self.devices.remove(gone)
        self.roles.pop(gone.udf, None)
        self.head = self.profile(self.first, [self.head], [Cut(gone.udf, (gone.last.vid,))])
        return self.head

    def sign(
        self, by: PaperDevice, kind: Kind, identifier: str, members: dict[str, object], parents: Sequence[Version]
    ) -> Version:
        """A container or item under the newest profile."""
        linked = Links(
            g=1 + max((one.links.g for one in parents), default=0),
            n=by.last.links.n + 1,
            q=(by.last.vid,),
            p=tuple(sorted(one.vid for one in parents)),
            a=(self.head.vid,),
        )
        by.last = author.sign(by.keys.dsk, kind, identifier, PASSWORD.tag, members, linked, NOW)
        return by.last

    def container(self, *parents: Version) -> Version:
        sealed = vault.seal_container(
            PASSWORD.private,
            Container((self.epoch,), "password", {}, {}),
            [self.first.keys.dek.recipient],
            self.rng,
        )
        return self.sign(self.first, Kind.CONTAINER, self.vault, sealed, parents)

    def item(self, secret: str, *parents: Version, by: PaperDevice | None = None, container: str = "") -> Version:
        """A password; a new item unless it has parents."""
        where = container or self.vault
        identifier = parents[0].identifier if parents else vault.new_item_identifier(where, self.rng)
        plain = password.new(["example.net"], "me", secret, time=1, made="2026-01-01T00:00:00Z")
        sealed = vault.seal_item(plain, self.epoch, self.rng)
        return self.sign(by or self.first, Kind.ITEM, identifier, sealed, parents)

    def escrow(self) -> Version:
        return escrow.entry(b"sealed", [self.first.keys.dek.recipient], self.rng)

    def result(self, about: PaperDevice, answer: str, by: PaperDevice | None = None) -> dict[str, object]:
        return connection.write_result((by or self.first).keys.dsk, about.profile, answer)


def tagged(one: Version) -> dict[str, object]:
    """The entry as a Publish carries it."""
    return version.to_json(one)
