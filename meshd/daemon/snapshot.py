"""What the mesh says right now, as one immutable value that any task may read.

The authority lives in the writer's thread and moves under it; everybody else reads the snapshot that came with the last
transaction that changed a profile.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field

from meshd.profile import readers as rules
from meshd.profile.claim import Kind, Role
from meshd.profile.device import DeviceProfile
from meshd.profile.personal import Application
from meshd.store.replica import Replica


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The effective state of the mesh at the heads that this store holds. All keys are UDFs."""

    mesh: str = ""
    own: str = ""
    heads: tuple[bytes, ...] = ()  # of the PersonalProfile
    admins: frozenset[str] = frozenset()
    roles: Mapping[str, Role] = field(default_factory=dict)
    devices: Mapping[str, DeviceProfile] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()
    undecided: frozenset[str] = frozenset()  # those of `devices` of which that is not sure until more has come
    cut: frozenset[str] = frozenset()  # those whom some cut names: not all that they wrote stands
    fallen: frozenset[str] = frozenset()  # listed only by profiles that fell with the admin who had signed them
    applications: Mapping[str, Application] = field(default_factory=dict)  # by container Identifier
    escrow: frozenset[str] = frozenset()  # Identifiers of the escrow entries that count
    health: tuple[tuple[str, str, str], ...] = ()  # (code, UDF, detail) that authority reports

    @property
    def connected(self) -> bool:
        """This device belongs to a mesh. It may have been removed from it since."""
        return bool(self.mesh)

    @property
    def is_member(self) -> bool:
        """This device is in the effective device set."""
        return self.own in self.devices

    @property
    def gone(self) -> frozenset[str]:
        """The devices that are not of the mesh, and may not know it yet."""
        return self.removed | self.fallen

    @property
    def siblings(self) -> dict[str, DeviceProfile]:
        """The other devices."""
        return {udf: profile for udf, profile in self.devices.items() if udf != self.own}

    def container(self, tag: str) -> str | None:
        """The vault of this type that was made first: smallest Identifier, as all devices see it."""
        found = [app.identifier for app in self.applications.values() if app.tag == tag]
        return min(found, default=None)


def take(connection: sqlite3.Connection, replica: Replica) -> Snapshot:
    """The state of the replica, in the writer's thread."""
    if not replica.mesh:
        return Snapshot()
    authority = replica.authority
    devices = {}
    roles = {}
    undecided = authority.undecided()
    here = authority.devices() | undecided
    for udf in here:
        profile = replica.device(connection, udf)
        if profile is not None:
            devices[udf] = profile
            roles[udf] = authority.role(udf) or Role.MEMBER
    return Snapshot(
        mesh=replica.mesh,
        own=replica.own,
        heads=authority.heads(Kind.PERSONAL),
        admins=authority.admins(),
        roles=roles,
        devices=devices,
        removed=authority.removed(),
        undecided=undecided,
        cut=authority.cut(),
        fallen=authority.ever_devices() - here - authority.admins() - authority.removed(),
        applications=applications(connection, replica),
        escrow=frozenset(authority.escrow()),
        health=tuple(authority.health()),
    )


def applications(connection: sqlite3.Connection, replica: Replica) -> dict[str, Application]:
    """The effective vaults with their types. A type is stated by whichever head lists the vault."""
    found: dict[str, str] = {}
    for vid in replica.authority.heads(Kind.PERSONAL):
        found = {**replica.types(connection, vid), **found}
    listed = replica.authority.applications()
    return {identifier: Application(identifier, found.get(identifier, "")) for identifier in sorted(listed)}


def readers(replica: Replica, application: Application, at: tuple[bytes, ...] | None = None) -> frozenset[str]:
    """The devices that hold a vault's keys, now or in the state that `at` gives (formats.md F5)."""
    if at is None:
        return rules.readers(replica.authority, application.identifier, application.tag)
    return rules.readers_at(replica.authority, at, application.identifier, application.tag)
