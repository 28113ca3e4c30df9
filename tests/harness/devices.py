"""Whole devices in one trio program: real stores, keys, TLS and sync over a LAN in memory, with cheap passphrases.

    async with mesh(home, "laptop", "desktop") as (lan, laptop, desktop):
        ...

The first device founds the mesh and admits the others by hand, which is what pairing does in the end. Each device
has a wall
clock of its own (`clock_ms` is added to the real one).
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import trio

from harness.lan import MemoryHost, MemoryLan
from meshd.crypto import sealing
from meshd.crypto.keys import SigningKey
from meshd.daemon import context, membership, paths, tiers, vaults
from meshd.daemon.config import Config
from meshd.daemon.context import Daemon
from meshd.daemon.keyring import Keyring
from meshd.daemon.pen import Pen
from meshd.daemon.siblings import Siblings
from meshd.daemon.verifying import check
from meshd.profile import device, escrow
from meshd.profile.apps import PASSWORD, password
from meshd.profile.claim import Kind, Role
from meshd.profile.device import DeviceKeys
from meshd.profile.version import Version
from meshd.store import versions
from meshd.store.keystore import Keystore

PATIENCE = 20.0  # seconds of real time that anything here may take


@dataclass
class Device:
    """One device and where it stands on the LAN. `running` is set while its services are up."""

    name: str
    home: Path
    host: MemoryHost
    daemon: Daemon
    keys: DeviceKeys
    cache_key: bytes
    clock_ms: int = 0
    siblings: Siblings | None = None
    running: trio.CancelScope | None = None
    fault: Callable[[str], None] | None = field(default=None, repr=False)

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self.clock_ms

    @property
    def udf(self) -> str:
        return self.keys.udf

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve and dial until `stop`."""
        self.siblings = Siblings(self.daemon, self.host)
        with trio.CancelScope() as self.running:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.host.run)
                await nursery.start(self.siblings.run)
                task_status.started()

    def stop(self) -> None:
        assert self.running is not None
        self.running.cancel()

    async def add(self, site: str, username: str, secret: str) -> Version:
        return await self.daemon.write(
            lambda pen: vaults.add(
                pen,
                pen.keyring.find("password"),
                lambda t, made: password.new([site], username, secret, time=t, made=made),
            )
        )

    async def edit(self, identifier: str, secret: str) -> Version:
        return await self.daemon.write(
            lambda pen: vaults.replace(
                pen, identifier, lambda item, t, made: password.edit(item, {"password": secret}, time=t, made=made)
            )
        )

    async def delete(self, identifier: str) -> Version:
        return await self.daemon.write(
            lambda pen: vaults.replace(pen, identifier, lambda item, t, made: password.deleted(item, time=t, made=made))
        )

    def heads(self, identifier: str) -> list[vaults.Head]:
        """The opened heads, the winner first."""
        return vaults.open_heads(self.daemon.reader.connection, self.daemon.unlocked(), identifier)

    def passwords(self) -> dict[str, str]:
        """Identifier → the password shown, of what is not deleted."""
        vault = self.daemon.unlocked().find(PASSWORD.name)
        found = {}
        for identifier in vaults.items_of(self.daemon.reader.connection, vault.application.identifier):
            heads = self.heads(identifier)
            if heads and not heads[0].item.deleted:
                found[identifier] = password.view(heads[0].item)["password"]
        return found

    def holds(self) -> set[bytes]:
        """Every vid in the store, whatever its state."""
        return {row[0] for row in self.daemon.reader.query("SELECT vid FROM versions")}

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something holds here, as commits and connections come."""
        with trio.fail_after(PATIENCE):
            while True:
                moved, changed = self.daemon.moved.count, self.daemon.changed.count
                if true():
                    return
                await _either(self.daemon, moved, changed)

    async def until_connected(self, *others: Device) -> None:
        assert self.siblings is not None
        connections = self.siblings.connections
        await self.until(lambda: all(o.udf in connections and connections[o.udf].connected for o in others))

    async def until_same(self, other: Device) -> None:
        """Wait until both hold the same versions."""
        await self.until(lambda: self.holds() >= other.holds())
        await other.until(lambda: other.holds() >= self.holds())

    def reopen(self) -> None:
        """Close the store and open it again, locked or not as the keystore says; memory comes from disk."""
        self.daemon.close()
        self.daemon = _open(self)


async def _either(daemon: Daemon, moved: int, changed: int) -> None:
    async with trio.open_nursery() as nursery:

        async def one(counter: context.Wakeup, seen: int) -> None:
            await counter.after(seen)
            nursery.cancel_scope.cancel()

        nursery.start_soon(one, daemon.moved, moved)
        nursery.start_soon(one, daemon.changed, changed)


def _open(found: Device) -> Daemon:
    where = paths.resolve(str(found.home))
    paths.prepare(where)
    return context.open_daemon(Config(), where, rng=secrets.token_bytes, now_ms=found.now_ms, fault=found.fault)


def blank(home: Path, lan: MemoryLan, name: str, clock_ms: int = 0) -> Device:
    """A device that belongs to no mesh yet: an empty store."""
    keys = DeviceKeys.generate(secrets.token_bytes)
    where = paths.resolve(str(home / name))
    paths.prepare(where)
    made = Device(name, home / name, lan.host(name), None, keys, secrets.token_bytes(32), clock_ms)  # type: ignore[arg-type]
    made.daemon = _open(made)
    return made


async def _keystore(new: Device) -> None:
    Keystore.create(
        new.daemon.paths.keystore,
        tiers.Tier1(new.keys.dak, ()).to_map(),
        tiers.tier2_map(new.keys, new.cache_key),
        None,
    )


async def found(new: Device) -> SigningKey:
    """Make `new` the first device of a mesh; returns the master key."""
    await _keystore(new)
    master = SigningKey.generate(secrets.token_bytes)
    blob = escrow.seal_master(master, "master passphrase", secrets.token_bytes, sealing.LEAST_KDF)
    ring = Keyring(new.keys, new.cache_key)
    daemon = new.daemon
    await daemon.transact(
        lambda connection, outcome: membership.found(
            Pen(connection, daemon.replica, ring, outcome, new.now_ms(), secrets.token_bytes), master, blob, new.name
        )
    )
    daemon.open_keystore()
    await daemon.install(new.keys, new.cache_key)
    return master


async def admit(
    admin: Device, new: Device, role: Role = Role.MEMBER, master: SigningKey | None = None, *, meet: bool = True
) -> None:
    """Take `new` into the admin's mesh. It gets profiles and containers at once, the rest by sync."""
    profile = device.create(new.keys, new.now_ms() // 1000, secrets.token_bytes)
    await admin.daemon.write(lambda pen: membership.admit(pen, profile, role, new.name, master_key=master))
    await _keystore(new)
    await new.daemon.transact(
        lambda connection, outcome: new.daemon.replica.introduce(connection, admin.daemon.snapshot.mesh, new.udf)
    )
    connection = admin.daemon.reader.connection
    raws = [
        versions.raw(connection, row.vid)
        for kind in (Kind.PERSONAL, Kind.CONTAINER)
        for row in versions.of_kind(connection, kind)
    ]
    held = [raw for raw in raws if raw is not None]
    verified = check(held, [None] * len(held), new.daemon.replica.directory)
    assert not verified.refused and not verified.unknown
    await new.daemon.transact(
        lambda connection, outcome: new.daemon.replica.accept(connection, verified.versions, new.now_ms(), outcome)
    )
    new.daemon.open_keystore()
    await new.daemon.install(new.keys, new.cache_key)


@contextlib.asynccontextmanager
async def mesh(home: Path, *names: str, run: bool = True) -> AsyncIterator[tuple[MemoryLan, list[Device]]]:
    """A mesh of devices called so, all members of it; running unless `run` is False."""
    lan = MemoryLan()
    devices = [blank(home, lan, name) for name in names]
    try:
        await found(devices[0])
        for member in devices[1:]:
            await admit(devices[0], member)
        async with trio.open_nursery() as nursery:
            if run:
                for one in devices:
                    await nursery.start(one.run)
            yield lan, devices
            nursery.cancel_scope.cancel()
    finally:
        for one in devices:
            one.daemon.close()
