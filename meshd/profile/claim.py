"""What a version asserts, as authority sees it: the view of a verified version that `trust` judges.

A claim is made only from a version whose signature verified. It holds no bytes and no secrets, so that the profile DAGs
of a mesh fit in memory while items stay in the store.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from meshd.profile.links import Links


class Kind(enum.IntEnum):
    """The kinds of entries (formats.md F4). Unknown odd kinds are carried, unknown even kinds refused."""

    PERSONAL = 1
    CONTAINER = 2
    MASTER = 3
    DEVICE = 4
    OFFLINE_ESCROW = 5
    ONLINE_ESCROW = 6
    RECEIPT = 7
    ITEM = 8


class State(enum.IntEnum):
    """Where a version stands in a store (formats.md F7, F8)."""

    APPLIED = 1
    PENDING = 2  # a parent, an authority or the embedded master profile is not known yet
    QUARANTINED = 3  # kept, shown, importable, never applied


class Role(enum.StrEnum):
    ADMIN = "admin"
    MEMBER = "member"
    RELAY = "relay"


READ = "read"
WRITE = "write"
ALL = "*"  # a grant on every vault, future ones too


@dataclass(frozen=True, slots=True)
class Claim:
    """One verified version. `container` is its vault for containers and items; the fields below `links` are of
    profiles alone."""

    vid: bytes
    kind: Kind
    identifier: str
    signer: str  # UDF; the mesh's own UDF when the master key signed
    links: Links
    admins: frozenset[str] = frozenset()  # MasterProfile: UDFs of OnlineSignatureKeys
    master: bytes | None = None  # PersonalProfile: vid of the embedded MasterProfile
    devices: frozenset[str] = frozenset()  # PersonalProfile: UDFs listed in Devices
    applications: frozenset[str] = frozenset()  # PersonalProfile: container Identifiers listed in Applications
    grants: frozenset[tuple[str, str, str]] = frozenset()  # (device, container or "*", "read" | "write")
    roles: tuple[tuple[str, str], ...] = ()  # (device, "member" | "relay") as MeshdGrants states it

    @property
    def container(self) -> str:
        """The vault that a container or item belongs to."""
        return self.identifier.partition("/")[0]

    @property
    def entry(self) -> tuple[int, str]:
        """What names the entry: kind and Identifier (formats.md F1)."""
        return int(self.kind), self.identifier

    @property
    def dependencies(self) -> tuple[bytes, ...]:
        """What must be known before this version can be judged."""
        embedded = (self.master,) if self.master is not None else ()
        return self.links.p + self.links.a + embedded
