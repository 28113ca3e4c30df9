"""Real signed meshes, quickly and without a daemon: a master key, devices with their keys, profiles, containers, items.

    laptop = found("laptop")
    desktop = laptop.admit("desktop")
    item = laptop.add("github.com", "alice", "secret")
    laptop.meet(desktop)
    assert desktop.passwords() == {item: "secret"}

One idea: a device here is what a daemon holds, a store with its replica and an opened keyring, and nothing around it;
two of them meet by handing over the bytes that each lacks. Everything random comes from the seed, and time is a
counter, so a world is made anew the same. A store is a database in memory; `Device(store=…)` takes any other
connection.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from meshd.crypto.keys import Rng, SigningKey
from meshd.daemon import membership, snapshot, vaults
from meshd.daemon.keyring import Keyring
from meshd.daemon.pen import Pen
from meshd.errors import FormatError, TrustError, UnknownSigner
from meshd.profile import device, version
from meshd.profile.apps import PASSWORD, password
from meshd.profile.claim import Kind, Role, State
from meshd.profile.device import DeviceKeys
from meshd.profile.version import Version
from meshd.store import chains, lineage
from meshd.store.db import known_migrations, set_meta
from meshd.store.lineage import Link
from meshd.store.replica import Directory, Outcome, Replica

T = TypeVar("T")
START = 1_750_000_000_000  # milliseconds
MAX_TOLD = 500_000  # bytes


def seeded(seed: str) -> Rng:
    """Random-looking bytes, the same in every run."""
    count = 0

    def rng(length: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"{seed}/{count}".encode()).digest(length)

    return rng


def memory_store(seed: str = "store") -> sqlite3.Connection:
    """An empty store in memory, with its store-id. Any thread may use it, one at a time."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, cached_statements=256)
    for _, sql in known_migrations():
        connection.executescript(sql)
    set_meta(connection, "store_id", seeded(f"store-id of {seed}")(8))
    return connection


def verified(raws: Iterable[bytes], directory: Directory) -> tuple[list[Version], list[tuple[bytes, str]]]:
    """As a daemon does it: the versions whose signatures verify, and (raw, why) of the rest."""
    good: list[Version] = []
    bad: list[tuple[bytes, str]] = []
    for raw in raws:
        try:
            one = version.verify(version.parse(raw), directory)
        except (FormatError, TrustError, UnknownSigner) as exc:
            bad.append((raw, str(exc)))
            continue
        if one.kind in (Kind.MASTER, Kind.PERSONAL):
            directory.learn(one)
        good.append(one)
    return good, bad


class Device:
    """One device's store and keys. `master_key` is the mesh's: tests may use it anywhere."""

    def __init__(
        self, name: str, keys: DeviceKeys, rng: Rng, store: sqlite3.Connection | None = None, clock_ms: int = START
    ) -> None:
        self.name = name
        self.keys = keys
        self.rng = rng
        self.now_ms = clock_ms
        self.connection = store if store is not None else memory_store(name)
        self.keyring = Keyring(keys, hashlib.sha256(name.encode()).digest())
        self.replica = Replica(self.connection, rng)
        self.master_key: SigningKey | None = None
        self._copies = 0

    @property
    def udf(self) -> str:
        return self.keys.udf

    @property
    def mesh(self) -> str:
        return self.replica.mesh

    # transactions

    def transact(self, fn: Callable[[sqlite3.Connection, Outcome], T]) -> tuple[T, Outcome]:
        """One transaction; what fails is rolled back, and memory made anew, as the writer does it."""
        self.now_ms += 1000
        outcome = Outcome()
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            result = fn(self.connection, outcome)
            self.connection.execute("COMMIT")
        except BaseException:
            self.connection.execute("ROLLBACK")
            self.replica.rebuild(self.connection)
            raise
        if outcome.profiles or any(kind == Kind.CONTAINER for kind, _ in outcome.entries):
            self.refresh()
        return result, outcome

    def pen(self, connection: sqlite3.Connection, outcome: Outcome) -> Pen:
        return Pen(connection, self.replica, self.keyring, outcome, self.now_ms, self.rng)

    def write(self, fn: Callable[[Pen], T]) -> T:
        return self.transact(lambda connection, outcome: fn(self.pen(connection, outcome)))[0]

    def take(self, raws: Iterable[bytes]) -> Outcome:
        """Verify and accept; AssertionError for what does not verify."""
        good, bad = verified(raws, self.replica.directory)
        if bad:
            good_again, bad = verified([raw for raw, _ in bad], self.replica.directory)
            good += good_again
        assert not bad, bad[0][1]
        return self.accept(good)

    def accept(self, batch: Sequence[Version]) -> Outcome:
        return self.transact(lambda connection, out: self.replica.accept(connection, batch, self.now_ms, out))[1]

    def trace(self, other: Device, signers: Iterable[str] | None = None) -> None:
        """Ask `other` for the links of the chains that cuts end, as a conversation does before it wants items."""
        for signer in sorted(self.replica.authority.cut() if signers is None else signers):
            told: list[Link] = []
            missing: frozenset[bytes] = frozenset()
            while True:
                before = missing
                missing = self.transact(
                    lambda connection, out: self.replica.accept_links(connection, signer, told, out)  # noqa: B023
                )[0]
                if not missing or missing == before:
                    break
                told = lineage.told(other.connection, signer, sorted(missing), MAX_TOLD)

    def refresh(self) -> None:
        if self.replica.mesh:
            self.keyring.refresh(self.connection, snapshot.applications(self.connection, self.replica))

    # people's doings

    def admit(
        self, name: str, role: Role = Role.MEMBER, grants: dict[str, str] | None = None, *, meet: bool = True
    ) -> Device:
        """Take a new device in. It holds everything that this one does, unless `meet` is False: then only profiles."""
        new = Device(name, device_keys(name), seeded(name), clock_ms=self.now_ms)
        profile = device.create(new.keys, new.now_ms // 1000, new.rng)
        self.write(lambda pen: membership.admit(pen, profile, role, name, grants, self.master_key))
        new.master_key = self.master_key
        new.join(self.mesh)
        new.take(
            self.feed() if meet else [raw for raw in self.feed() if version.parse(raw).claim.kind is Kind.PERSONAL]
        )
        return new

    def join(self, mesh: str) -> None:
        self.transact(lambda connection, _: self.replica.introduce(connection, mesh, self.udf))

    def add(self, site: str, username: str = "alice", secret: str = "secret", **more: Any) -> str:
        """A new login; its Identifier."""
        build: Callable[[int, str], Any] = lambda t, made: password.new(  # noqa: E731  (as `vaults` takes it)
            [site], username, secret, time=t, made=made, **more
        )
        return self.write(lambda pen: vaults.add(pen, pen.keyring.find("password"), build)).identifier

    def edit(self, identifier: str, secret: str) -> bytes:
        """Another password; the vid."""
        change = {"password": secret}
        return self.write(
            lambda pen: vaults.replace(pen, identifier, lambda i, t, made: password.edit(i, change, time=t, made=made))
        ).vid

    def delete(self, identifier: str) -> bytes:
        return self.write(
            lambda pen: vaults.replace(pen, identifier, lambda i, t, made: password.deleted(i, time=t, made=made))
        ).vid

    # looking

    def heads(self, identifier: str) -> list[vaults.Head]:
        """The opened heads of an item, the winner first."""
        return vaults.open_heads(self.connection, self.keyring, identifier)

    def passwords(self) -> dict[str, str]:
        """Identifier → the password shown, of what is not deleted."""
        found = {}
        for identifier in vaults.items_of(self.connection, self.vault()):
            heads = self.heads(identifier)
            if heads and not heads[0].item.deleted:
                found[identifier] = password.view(heads[0].item)["password"]
        return found

    def vault(self, name: str = PASSWORD.name) -> str:
        return self.keyring.find(name).application.identifier

    def states(self) -> dict[bytes, State]:
        return {vid: State(state) for vid, state in self.connection.execute("SELECT vid, state FROM versions")}

    def tips(self) -> tuple[bytes, ...]:
        return chains.tips(self.connection, self.udf)

    # meeting

    def feed(self, after: int = 0) -> list[bytes]:
        """The bytes of all that is stored, in the order in which it came."""
        rows = self.connection.execute("SELECT raw FROM versions WHERE seq > ? ORDER BY seq", (after,))
        return [row[0] for row in rows if row[0] is not None]

    def lacking(self, other: Device) -> list[bytes]:
        """What `other` holds and this does not, in the order of the other's feed."""
        held = {row[0] for row in self.connection.execute("SELECT vid FROM versions")}
        rows = other.connection.execute("SELECT vid, raw FROM versions ORDER BY seq")
        return [raw for vid, raw in rows if vid not in held and raw is not None]

    def pull(self, other: Device) -> Outcome:
        return self.take(self.lacking(other))

    def meet(self, other: Device) -> None:
        """Both hold the same afterwards."""
        self.pull(other)
        other.pull(self)

    # copies

    def copy(self) -> Device:
        """The home as it is now, a backup to go on from or a clone that runs beside it: the same keys and store."""
        store = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, cached_statements=256)
        self.connection.backup(store)
        self._copies += 1
        again = Device(self.name, self.keys, seeded(f"{self.name} copy {self._copies}"), store, self.now_ms)
        again.master_key = self.master_key
        again.refresh()
        return again


def device_keys(name: str) -> DeviceKeys:
    return DeviceKeys.generate(seeded(f"keys of {name}"))


def found(name: str = "laptop", seed: str = "mesh", store: sqlite3.Connection | None = None) -> Device:
    """A new mesh and its first device. The sealed master key is a stand-in: unsealing takes 256 MiB and a second."""
    first = Device(name, device_keys(name), seeded(f"{seed} {name}"), store)
    first.master_key = SigningKey.generate(seeded(f"master of {seed}"))
    key = first.master_key
    first.write(lambda pen: membership.found(pen, key, b"sealed under the master passphrase", name))
    return first
