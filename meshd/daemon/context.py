"""The daemon's state, and the two ways through it: `commit` to change the mesh, the snapshot and reader to look at it.

One writer thread owns the store; tasks await its futures. What a transaction changed is told after its commit: the
snapshot is replaced, the wakeup counter moves, and whoever waits looks at the store again. No data travels with a
wake-up, so none can be missed.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import trio

from meshd.crypto.keys import Rng
from meshd.daemon import membership
from meshd.daemon.config import Config
from meshd.daemon.index import Entry, Index
from meshd.daemon.keyring import Keyring
from meshd.daemon.paths import Paths
from meshd.daemon.pen import Pen
from meshd.daemon.snapshot import Snapshot, take
from meshd.daemon.tiers import Tier1, device_keys
from meshd.errors import Denied, DiskFull, Locked, NotConnected, StoreError
from meshd.profile import device, links, version
from meshd.profile.apps import DISCOVERY
from meshd.profile.claim import Kind, State
from meshd.profile.device import DeviceKeys
from meshd.store import chains, events, peers, versions
from meshd.store.db import Database, Reader, get_meta, open_database, set_meta, store_errors
from meshd.store.keystore import Keystore
from meshd.store.replica import Outcome, Replica
from meshd.store.writer import Writer

T = TypeVar("T")
Clock = Callable[[], int]
READ_INLINE = 50  # so many items are read again without a hop to a thread
DAY_MS = 24 * 3600 * 1000
EVENTS_EACH = 20  # so many items of one transaction are told one by one


class Wakeup:
    """A counter that tasks wait on: "something moved, look again". It moves the ones `above` it along."""

    def __init__(self, *above: Wakeup) -> None:
        self.count = 0
        self._above = above
        self._moved = trio.Event()

    def bump(self) -> None:
        self.count += 1
        self._moved.set()
        self._moved = trio.Event()
        for one in self._above:
            one.bump()

    async def after(self, seen: int) -> int:
        """Return as soon as the counter is past `seen`."""
        while self.count <= seen:
            await self._moved.wait()
        return self.count


@dataclass(frozen=True, slots=True)
class Committed:
    """What came of a transaction, after it is durable."""

    outcome: Outcome
    snapshot: Snapshot | None  # new, where a profile changed
    result: Any


class Daemon:
    """Everything that the tasks of one device share. Made by `open_daemon`, closed by `close`."""

    def __init__(
        self,
        config: Config,
        paths: Paths,
        database: Database,
        rng: Rng,
        now_ms: Clock,
        fault: Callable[[str], None] | None = None,
    ) -> None:
        self.config = config
        self.paths = paths
        self.rng = rng
        self.now_ms = now_ms
        self.refusals = 0  # versions that were malformed, wrongly signed or out of place, lately
        self.refused_at = 0
        self.damage: list[str] = []  # what is wrong with the store's pages, as far as they were read
        self.run = b""  # this time that the store is open: see `peers.begin_run`
        self.log = logging.getLogger("meshd")
        self.database = database
        self.replica = Replica(database.connection, rng)
        self.snapshot = take(database.connection, self.replica)
        self.reader = Reader(paths.store)
        self.writer = Writer(database, lambda: self.replica.rebuild(database.connection), fault=fault)
        self.keystore: Keystore | None = None
        self.tier1: Tier1 | None = None
        self.keyring: Keyring | None = None
        self.index: Index | None = None
        self._indexing = trio.Lock()
        self.stirred = Wakeup()  # either of these:
        self.moved = Wakeup(self.stirred)  # the store has something new
        self.changed = Wakeup(self.stirred)  # who is connected, locked, or in which state
        self.secret_read = trio.current_time() if _in_trio() else 0.0
        self.started = time.monotonic()
        self.cloned = self.snapshot.connected and chains.second_writer(self.reader.connection, self.snapshot.own)
        self.heard_all: Callable[[], bool] = lambda: False  # … that the siblings who are there hold; siblings know

    # --- keys ---------------------------------------------------------------------------------------------------------

    def open_keystore(self) -> None:
        """Open what needs no person. A keystore without a mesh is left from an `init` that did not finish; it is
        ignored.
        """
        if not self.snapshot.connected:
            return
        self.keystore = Keystore.open(self.paths.keystore)
        own = self.snapshot.devices.get(self.snapshot.own)
        self.tier1 = Tier1.from_map(self.keystore.open_tier1()).stated(own.dak.udf if own is not None else "")

    @property
    def locked(self) -> bool:
        return self.keyring is None

    def unlocked(self) -> Keyring:
        """The opened vaults; Locked or NotConnected. Reading a secret puts off the automatic lock."""
        if not self.snapshot.connected:
            raise NotConnected
        if self.keyring is None:
            raise Locked
        self.secret_read = trio.current_time()
        return self.keyring

    async def unlock(self, passphrase: str | None) -> None:
        """Open tier 2 and build the index; WrongPassphrase. Key derivation runs in a worker thread."""
        if self.keystore is None:
            raise NotConnected
        keystore = self.keystore
        fields = await trio.to_thread.run_sync(keystore.unlock, passphrase)
        assert self.tier1 is not None  # opened with the keystore
        await self.install(device_keys(self.tier1, fields), fields["cache"])

    async def install(self, keys: DeviceKeys, cache_key: bytes) -> None:
        """Take these keys into use: open the vaults, then the index."""
        keyring = Keyring(keys, cache_key)
        applications = self.snapshot.applications

        def build() -> Index:
            reader = Reader(self.paths.store)
            try:
                keyring.refresh(reader.connection, applications)
                index = Index(keyring)
                index.load(reader.connection)
                index.refresh(reader.connection)
            finally:
                reader.close()
            return index

        seen = self.moved.count
        self.index = await trio.to_thread.run_sync(build)
        self.keyring = keyring
        self.secret_read = trio.current_time()
        if self.moved.count != seen:  # something was committed while we read
            keyring.refresh(self.reader.connection, self.snapshot.applications)
            self.index.follow_keys(self.reader.connection)
            self.index.mark(row[0] for row in self.reader.query("SELECT DISTINCT identifier FROM heads WHERE kind = 8"))
        await self.keep_discovery_keys()
        self.changed.bump()

    def lock(self) -> None:
        """Forget what opens items. Ciphertext goes on syncing."""
        self.keyring = None
        self.index = None
        if self.keystore is not None:
            self.keystore.lock()
        self.changed.bump()

    async def keep_discovery_keys(self) -> None:
        """Remember the Discovery keys where no person is needed to use them."""
        if self.keyring is None or self.tier1 is None or self.keystore is None:
            return
        held = membership.discovery_keys(self.keyring)
        merged = tuple(key for key in self.tier1.discovery if key not in held) + tuple(held)
        if held and merged != self.tier1.discovery:
            self.tier1 = replace(self.tier1, discovery=merged)
            await trio.to_thread.run_sync(self.keystore.update_tier1, self.tier1.to_map())
            self.changed.bump()

    # --- the store ----------------------------------------------------------------------------------------------------

    async def transact(self, fn: Callable[[sqlite3.Connection, Outcome], T]) -> T:
        """Run `fn` in the writer's thread, in one transaction; return when it is durable and everybody was told."""

        def run(connection: sqlite3.Connection) -> Committed:
            outcome = Outcome()
            result = fn(connection, outcome)
            snapshot = take(connection, self.replica) if outcome.profiles else None
            self._record(connection, outcome)
            return Committed(outcome, snapshot, result)

        with trio.CancelScope(shield=True):  # durable, whoever is cancelled meanwhile: the memory must follow
            committed = await wait(self.writer.submit(run))
            await self._tell(committed)
        result: T = committed.result
        return result

    async def write(self, fn: Callable[[Pen], T]) -> T:
        """Let `fn` write versions as this device; Locked, NotConnected, Denied."""
        keyring = self.unlocked()
        if not self.snapshot.is_member:
            raise Denied("This device was removed from its mesh.", hint="run: meshctl wipe, then connect it anew")

        def run(connection: sqlite3.Connection, outcome: Outcome) -> T:
            return fn(Pen(connection, self.replica, keyring, outcome, self.now_ms(), self.rng))

        return await self.transact(run)

    def _record(self, connection: sqlite3.Connection, outcome: Outcome) -> None:
        """The events of a transaction, written with it."""
        now = self.now_ms()
        items = sorted(identifier for kind, identifier in outcome.entries if kind == Kind.ITEM)
        if len(items) > EVENTS_EACH:  # a first sync or an import is one thing that happened
            events.append(connection, now, "items", {"count": len(items)})
        else:
            for identifier in items:
                heads = versions.heads(connection, Kind.ITEM, identifier)
                events.append(connection, now, "item", {"id": identifier, "conflict": len(heads) > 1})
        if outcome.profiles:
            events.append(connection, now, "mesh", {"devices": sorted(self.replica.authority.devices())})
        if outcome.rejected:
            events.append(connection, now, "rejected", {"count": len(outcome.rejected), "why": outcome.rejected[0][1]})
        if outcome.quarantined:
            events.append(connection, now, "quarantine", {"count": len(outcome.quarantined)})
        if outcome.cloned and not self.cloned:
            events.append(connection, now, "health", {"state": "cloned", "device": self.snapshot.own})
        elif outcome.restored and chains.restore_to_tell(connection):
            events.append(connection, now, "health", {"state": "restored", "device": self.snapshot.own})
        first: dict[str, int] = {}
        for signer, count in outcome.forks:
            first[signer] = min(count, first.get(signer, count))
        for signer, count in first.items():  # a thief can make thousands
            events.append(connection, now, "fork", {"device": signer, "n": count})

    async def _tell(self, committed: Committed) -> None:
        outcome = committed.outcome
        if committed.snapshot is not None:
            self.snapshot = committed.snapshot
        if outcome.rejected:
            self.refused(len(outcome.rejected))
        if outcome.cloned:
            self.cloned = True
        if outcome.renumbered:
            self.cloned = False  # it was a second backup, and shows anew if not
        if self.keyring is not None and self.index is not None:
            containers = [identifier for kind, identifier in outcome.entries if kind == Kind.CONTAINER]
            if containers or committed.snapshot is not None:
                self.keyring.refresh(
                    self.reader.connection, self.snapshot.applications, containers if not outcome.profiles else None
                )
                if any(
                    self.snapshot.applications[identifier].tag == DISCOVERY.tag
                    for identifier in containers
                    if identifier in self.snapshot.applications
                ):
                    await self.keep_discovery_keys()
                if self.index is not None:  # not locked meanwhile
                    self.index.follow_keys(self.reader.connection)
        if self.index is not None:
            self.index.mark(identifier for kind, identifier in outcome.entries if kind == Kind.ITEM)
        if outcome.added or outcome.entries:
            self.moved.bump()
        if committed.snapshot is not None or (
            outcome.rejected or outcome.quarantined or outcome.forks or outcome.turned_away
        ):
            self.changed.bump()

    async def fresh_index(self) -> Index:
        """The index with everything read that was marked; Locked. Reads no secret, so it puts off no lock."""
        index = self.index
        if index is None:
            raise Locked
        async with self._indexing:  # who comes second finds it done
            if index.stale > READ_INLINE or index.heads_to_read(self.reader.connection) > READ_INLINE:
                taken = index.take_stale()
                try:
                    index.apply(await trio.to_thread.run_sync(self._read_items, index, taken))
                except BaseException:
                    index.mark(taken)
                    raise
            elif index.stale:
                index.refresh(self.reader.connection)
        return index

    def _read_items(self, index: Index, identifiers: list[str]) -> list[tuple[str, Entry | None]]:
        reader = Reader(self.paths.store)
        try:
            return index.read(reader.connection, identifiers)
        finally:
            reader.close()

    def refused(self, count: int) -> None:
        """So many versions were refused; counted until a day passes without one."""
        if self.now_ms() - self.refused_at > DAY_MS:
            self.refusals = 0
        self.refusals += count
        self.refused_at = self.now_ms()

    def found_damage(self, problems: list[str]) -> None:
        """What a check of the store found."""
        if problems:
            self.log.error("the store is damaged: %s", "; ".join(problems[:3]))
        if problems != self.damage:
            self.damage = problems
            self.changed.bump()

    def store_id(self) -> bytes:
        """The random name of this store's numbering (formats.md F8)."""
        found = get_meta(self.reader.connection, "store_id")
        if found is None:
            raise StoreError("the store has lost its identity")
        return found

    def profiles_beyond(self, heads: Sequence[bytes]) -> list[bytes]:
        """The personal profiles that somebody who holds these heads lacks, oldest first; they embed what else is
        needed.
        """
        connection = self.reader.connection
        rows = {row.vid: row for row in versions.of_kind(connection, Kind.PERSONAL, tuple(State))}
        held: set[bytes] = set()
        todo = [vid for vid in heads if vid in rows]
        while todo:
            vid = todo.pop()
            if vid not in held:
                held.add(vid)
                todo += [parent for parent in links.parse(rows[vid].token).p if parent in rows]
        lacking = sorted((row for vid, row in rows.items() if vid not in held), key=lambda row: (row.gen, row.seq))
        return [raw for row in lacking if (raw := versions.raw(connection, row.vid)) is not None]

    def certificate_of(self, udf: str) -> bytes | None:
        """The certificate of any device that this store ever heard of, removed ones too."""
        found = self.snapshot.devices.get(udf)
        if found is not None:
            return found.certificate
        rows = versions.of_entry(self.reader.connection, Kind.DEVICE, udf)
        raws = [versions.raw(self.reader.connection, row.vid) for row in sorted(rows, key=lambda row: -row.gen)]
        for raw in raws:
            if raw is not None:
                return device.read(version.parse(raw)).certificate
        return None

    def manual_address(self, udf: str) -> str | None:
        """Where a person said that a device is reached (`device address`)."""
        found = get_meta(self.reader.connection, f"address {udf}")
        return found.decode() if found else None

    async def event(self, type: str, data: Mapping[str, Any]) -> None:
        """Record something that happened and is no change of the store."""
        now = self.now_ms()
        await wait(self.writer.submit(lambda connection: events.append(connection, now, type, data)))
        self.changed.bump()

    def close(self) -> None:
        """Finish what was submitted and close the store."""
        self.lock()
        self.writer.close()
        self.reader.close()
        self.database.close()


def _in_trio() -> bool:
    try:
        trio.lowlevel.current_trio_token()
    except RuntimeError:
        return False
    return True


async def wait(future: Future[T]) -> T:
    """The result of a writer's future. If the caller is cancelled the work still happens; only nobody waits for it."""
    token = trio.lowlevel.current_trio_token()
    done = trio.Event()

    def resolved(_: Future[T]) -> None:
        try:
            token.run_sync_soon(done.set)
        except trio.RunFinishedError:
            pass

    future.add_done_callback(resolved)
    await done.wait()
    return future.result()


def open_daemon(
    config: Config,
    paths: Paths,
    *,
    rng: Rng,
    now_ms: Clock,
    fault: Callable[[str], None] | None = None,
) -> Daemon:
    """Open the store (made if missing) and what of the keystore needs no person. The home's lock is the caller's to
    hold.
    """
    database = open_database(paths.store, create=True)
    try:
        with store_errors():
            named = get_meta(database.connection, "store_id") is not None
        if not named:
            if database.query("SELECT 1 FROM versions LIMIT 1"):
                raise StoreError("the store has lost its identity")
            with database.transaction() as connection:
                set_meta(connection, "store_id", rng(8))
        run = rng(8)
        try:
            with database.transaction() as connection:
                peers.begin_run(connection, run, versions.last_seq(connection))
        except DiskFull:
            run = b""  # what is there can be read all the same; siblings are told everything again, later
        with store_errors():
            daemon = Daemon(config, paths, database, rng, now_ms, fault)
        daemon.run = run
    except BaseException:
        database.close()
        raise
    try:
        daemon.open_keystore()
    except BaseException:
        daemon.close()
        raise
    return daemon
