"""A whole mesh in one seed: devices with clocks of their own, a bad network, people who act apart, and thieves.

    World(seed).play()          # AssertionError, with the seed in it, where a promise does not hold

The stores, replicas, keyrings and everything that writes are the daemon's own; only what would need threads or sockets
is played here, on one thread and one heap of events, so that a seed plays the same every time. At the end the network
heals, everybody is unlocked and meets, and `harness.simulation_checks` compares what the devices say with what the
world knows to be true.
"""

from __future__ import annotations

import functools
import random
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from harness.mesh_world import START, Device, found, memory_store, seeded
from harness.simulated_net import Events, Net, profiles_beyond
from meshd.crypto.keys import SigningKey
from meshd.daemon import repair
from meshd.daemon.context import Daemon
from meshd.daemon.keyring import Keyring
from meshd.daemon.pen import Pen
from meshd.daemon.snapshot import Snapshot, take
from meshd.errors import FormatError, TrustError, UnknownSigner
from meshd.profile import links, vault, version
from meshd.profile.claim import Kind, Role
from meshd.profile.device import DeviceKeys
from meshd.profile.links import SCOPE_REMOVED
from meshd.profile.version import Parsed, Version
from meshd.store import chains, peers, versions
from meshd.store.db import get_meta
from meshd.store.directory import Directory
from meshd.store.replica import Outcome, Replica

if TYPE_CHECKING:
    from harness.simulated_thief import Thief

T = TypeVar("T")
COMPOSITIONS = ("AM", "AA", "AAM", "AMM", "AAR", "AAMM", "AAMR", "AAMMR", "AAAMM", "AAMMMM", "AAAMMMRR")
ROLES = {"A": Role.ADMIN, "M": Role.MEMBER, "R": Role.RELAY}
ROUNDS = 60  # of meeting and mending after which a mesh must be at rest


class Crash(Exception):
    """The process died before its commit."""


@dataclass(frozen=True)
class Written:
    """An honest version, and who its author knew to be removed when it was written."""

    vid: bytes
    by: str
    kind: Kind
    identifier: str
    removed: frozenset[str]


@dataclass
class Promise:
    """What a person was told is kept: this secret is in that item's history."""

    node: Node
    identifier: str
    secret: str
    draft: bool
    void: bool = False


class Node(Device):
    """An honest device: a store that is written to as the daemon does it, and what the daemon would do by itself."""

    def __init__(self, world: World, name: str, keys: DeviceKeys, store: sqlite3.Connection | None = None) -> None:
        self.world = world
        self.locked = False
        self.up = True
        self.skew_ms = 0
        self.snapshot = Snapshot()
        self.run = b""
        super().__init__(name, keys, seeded(f"{world.seed} {name}"), store or memory_store(f"{world.seed} {name}"))
        self.master_key = world.master_key
        self.watch = repair.Watch()
        self.backup: tuple[sqlite3.Connection, DeviceKeys] | None = None
        self._look_due = False
        self._receiving = False
        self._begin()

    # --- what the process holds ---------------------------------------------------------------------------------------

    @property
    def reader(self) -> Node:
        """As `repair.Watch` asks a daemon for it."""
        return self

    @property
    def is_member(self) -> bool:
        return self.snapshot.is_member

    def open(self) -> None:
        """Everything that a process makes of what is on disk."""
        self.replica = Replica(self.connection, self.rng)
        self.keyring = Keyring(self.keys, self.keyring.cache_key)
        self._begin()

    def _begin(self) -> None:
        self.watch = repair.Watch()
        self.run = self.rng(8)
        peers.begin_run(self.connection, self.run, versions.last_seq(self.connection))
        self._look()

    def restart(self) -> None:
        for line, _ in self.world.net.of(self):
            line.close()
        self.open()
        self.consider()

    def _look(self) -> None:
        self.snapshot = take(self.connection, self.replica)
        self.refresh()

    def refresh(self) -> None:
        if not self.locked:
            super().refresh()

    def lock(self) -> None:
        self.locked = True
        self.keyring = Keyring(self.keys, self.keyring.cache_key)

    def unlock(self) -> None:
        self.locked = False
        self.keyring = Keyring(self.keys, self.keyring.cache_key)
        self.refresh()
        self.consider()

    def store_id(self) -> bytes:
        return get_meta(self.connection, "store_id") or b""

    def believes(self, udf: str) -> bool:
        """Would it talk with that device?"""
        return self.is_member and udf in self.snapshot.devices

    def heads(self, identifier: str | None = None) -> Any:
        """The profile heads, as hello says them; or an item's, opened."""
        return self.snapshot.heads if identifier is None else super().heads(identifier)

    def profiles_beyond(self, heads: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        return profiles_beyond(self, heads)

    def own_profiles(self) -> list[tuple[bytes, bytes]]:
        """Its DeviceProfiles since it renewed its keys: no personal profile need embed them yet."""
        rows = [row for row in versions.of_entry(self.connection, Kind.DEVICE, self.udf) if row.gen > 1]
        return [(row.vid, raw) for row in rows if (raw := versions.raw(self.connection, row.vid)) is not None]

    # --- transactions -------------------------------------------------------------------------------------------------

    def transact(self, fn: Callable[[sqlite3.Connection, Outcome], T]) -> tuple[T, Outcome]:
        world = self.world
        self.now_ms = world.clock(self)
        known = self.replica.authority.removed() if self.replica.mesh else frozenset()
        world.commits += 1
        dies = world.chance.random() < world.crashes or world.commits == world.dies_at

        def run(connection: sqlite3.Connection, outcome: Outcome) -> T:
            result = fn(connection, outcome)
            if dies:
                raise Crash
            return result

        try:
            result, outcome = super().transact(run)
        except Crash:
            world.counts["crashes"] += 1
            self.restart()
            raise
        world.note(self, known, outcome, ours=not self._receiving)
        if outcome.profiles:
            self._look()
        for line, place in world.net.of(self):
            line.moved(place)
        self.consider()
        return result, outcome

    def receive(
        self, sent: Sequence[tuple[bytes, bytes]], cursor: tuple[str, bytes, int, bytes, bytes] | None = None
    ) -> bool | None:
        """Take in what somebody sent, as a conversation does; `cursor` is what `peers.set_cursor` takes. False where
        something of it could not be taken now, None where the process died over it."""
        held = versions.known(self.connection, [vid for vid, _ in sent])
        new = [raw for vid, raw in sent if vid not in held]
        good, refused = self.world.check(new, self.replica.directory)
        assert not refused, f"{self.name} was sent by a device what can't be believed: {refused[0]}"
        unknown = len(good) < len(new)
        if not good:
            if cursor and not unknown:
                peers.set_cursor(self.connection, *cursor)
            return not unknown

        def commit(connection: sqlite3.Connection, outcome: Outcome) -> bool:
            self.replica.accept(connection, good, self.now_ms, outcome)
            assert not outcome.deferred
            taken = not unknown and not outcome.strangers
            if cursor and taken:
                peers.set_cursor(connection, *cursor)
            return taken

        self._receiving = True
        try:
            taken, _ = self.transact(commit)
        except Crash:
            return None
        finally:
            self._receiving = False
        self._check_numbering()
        return taken

    def asks_about(self, other: Node, sent: Sequence[tuple[bytes, bytes]]) -> bool:
        """Before it takes what somebody who was cut wrote, it asks for his chain; not in every world, for with a
        release that can't answer all ends the same. False: the process died over it."""
        if self.world.seed % 4 != 3 or not self.snapshot.cut:
            return True
        held = versions.known(self.connection, [vid for vid, _ in sent])
        signers = {self.world.parse(raw).claim.signer for vid, raw in sent if vid not in held} & self.snapshot.cut
        try:
            self.trace(other, signers)
        except Crash:
            return False
        return True

    def doubt(self, udf: str) -> None:
        """A sibling holds a cursor that this store never gave."""

        def do(connection: sqlite3.Connection, outcome: Outcome) -> None:
            peers.forget_ack(connection, udf)
            outcome.renumbered = chains.doubted(connection, self.rng)

        try:
            self.transact(do)
        except Crash:
            return
        self._check_numbering()

    def _check_numbering(self) -> None:
        """What siblings were told under another store-id is void: every line begins anew."""
        for line, place in self.world.net.of(self):
            if line.ends[place].numbering != self.store_id():  # the store turned out to be a restored one
                line.close()

    # --- what it does by itself ---------------------------------------------------------------------------------------

    def consider(self) -> None:
        """Something moved: look soon whether there is something to put right."""
        if not self._look_due and self.up and not self.locked:
            self._look_due = True
            self.world.events.at(self.world.events.now + 1, self._look_around)

    def _look_around(self) -> None:
        self._look_due = False
        if self._looks() and self.watch.suspects(cast(Daemon, self)) and self.write(self.watch.finds):
            admins = sorted(self.snapshot.admins)
            place = admins.index(self.udf) if self.udf in admins else len(admins)
            pause = repair.SPREAD * (min(place, 4) + self.world.chance.random()) / 3
            self._look_due = True
            self.world.events.at(self.world.events.now + 1000 * pause, self._mend)

    def _looks(self) -> bool:
        return self.up and not self.locked and self.is_member

    def _mend(self) -> None:
        self._look_due = False
        if self._looks():
            try:
                mended = self.write(self.watch.mend)
            except Crash:
                return
            self.world.counts["mended"] += bool(mended)
            self.consider()

    def write(self, fn: Callable[[Pen], T]) -> T:
        """As a daemon: looking costs no commit, and nobody hears of it."""
        if fn == self.watch.finds:
            self.now_ms = self.world.clock(self)
            return fn(self.pen(self.connection, Outcome()))
        return super().write(fn)


class World:
    """One history. `chance` decides everything; nothing else does."""

    def __init__(
        self, seed: int, *, steps: int | None = None, composition: str | None = None, evil: bool = True
    ) -> None:
        self.seed = seed
        self.chance = chance = random.Random(seed)
        self.events = Events(chance)
        self.net = Net(chance, self.events)
        self.crashes = chance.choice((0.0, 0.0, 0.01, 0.05))
        self.commits = 0
        self.dies_at = -1  # the number of the commit that somebody does not live to see
        self.small = seed % 4 != 0  # most worlds are: they cost half, and find nearly as much
        self.most = 6 if self.small else 8  # devices in one mesh, removed ones included
        self.steps = steps if steps is not None else chance.choice((10, 14, 18) if self.small else (15, 25, 40))
        self.evil = evil and chance.random() < 0.7
        self.counts: dict[str, int] = dict.fromkeys(("crashes", "mended", "deeds", "refused"), 0)
        self.raws: dict[bytes, bytes] = {}  # every version that anybody honest ever stored
        self.written: dict[bytes, Written] = {}
        self.promises: list[Promise] = []
        self.leaks: list[str] = []
        self.keys: dict[str, list[DeviceKeys]] = {}  # by UDF, everything that a device ever held
        self.thieves: list[Thief] = []
        self.stolen: set[str] = set()
        self._checked: dict[bytes, Version] = {}
        self._parsed: dict[bytes, Parsed] = {}
        self._named = 0
        self.trace: list[str] = []
        wanted = composition or chance.choice(COMPOSITIONS[:4] if self.small else COMPOSITIONS)
        stores, self.master_key = _start(wanted)
        self.nodes: list[Node] = []
        for one in stores:
            copy = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, cached_statements=256)
            one.connection.backup(copy)
            self._join(Node(self, one.name, one.keys, copy))
        for vid, raw in self.nodes[0].connection.execute("SELECT vid, raw FROM versions"):
            self.raws[vid] = raw
        self._named = len(stores)

    def _join(self, node: Node) -> Node:
        self.nodes.append(node)
        self.keys.setdefault(node.udf, []).append(node.keys)
        if self.chance.random() < 0.5:
            node.skew_ms = self.chance.randint(-172_800_000, 172_800_000)
        return node

    def newcomer(self) -> Node:
        """A device that belongs to no mesh yet."""
        name = f"d{self._named}"
        self._named += 1
        return Node(self, name, DeviceKeys.generate(seeded(f"keys of {self.seed} {name}")))

    def welcome(self, node: Node, mesh: str, sent: Sequence[tuple[bytes, bytes]]) -> None:
        """It was admitted; this is what pairing hands over."""
        node.join(mesh)
        self._join(node)
        node.receive(sent)

    def clock(self, node: Node) -> int:
        return START + 60_000_000 + int(self.events.now) + node.skew_ms

    @property
    def honest(self) -> list[Node]:
        """The devices that are in their owner's hands."""
        return [node for node in self.nodes if node.udf not in self.stolen]

    def bad(self) -> set[str]:
        """Devices in somebody else's hands."""
        return {thief.udf for thief in self.thieves} | {one.udf for thief in self.thieves for one in thief.rogues}

    # --- what the world knows -----------------------------------------------------------------------------------------

    def parse(self, raw: bytes) -> Parsed:
        """As `version.parse`, once."""
        found = self._parsed.get(raw)
        if found is None:
            found = self._parsed[raw] = version.parse(raw)
        return found

    def check(self, raws: Sequence[bytes], directory: Directory) -> tuple[list[Version], list[str]]:
        """Verify as everybody does; what verified once is remembered, where the signer's key is known here too."""
        good: list[Version] = []
        refused: list[str] = []
        again: list[bytes] = []
        for part in (raws, again):
            for raw in list(part):
                one = self._checked.get(raw)
                if one is None or (
                    one.kind in (Kind.PERSONAL, Kind.CONTAINER, Kind.ITEM) and directory.signing_key(one.signer) is None
                ):
                    try:
                        one = version.verify(self.parse(raw), directory)
                    except UnknownSigner:
                        if part is raws:
                            again.append(raw)
                        continue
                    except (FormatError, TrustError) as exc:
                        refused.append(str(exc))
                        continue
                    self._checked[raw] = one
                if one.kind in (Kind.MASTER, Kind.PERSONAL):
                    directory.learn(one)
                good.append(one)
        return good, refused

    def note(self, node: Node, known: frozenset[str], outcome: Outcome, *, ours: bool) -> None:
        """Remember what was stored, and of what an honest device wrote who was removed as far as it knew."""
        after = node.replica.authority.removed()
        known &= after  # whom it took back just now it does not count as removed
        for _, vid in outcome.added:
            row = versions.get(node.connection, vid)
            raw = versions.raw(node.connection, vid)
            assert row is not None and raw is not None
            self.raws.setdefault(vid, raw)
            if row.kind in (Kind.MASTER, Kind.PERSONAL):
                cut = {one.udf for one in links.parse(row.token).x if one.scope == SCOPE_REMOVED}
                known |= cut & after
            if ours and row.signer == node.udf:
                self.written[vid] = Written(vid, node.udf, Kind(row.kind), row.identifier, known)
                self._see_who_reads(node, self.written[vid])

    def _see_who_reads(self, node: Node, one: Written) -> None:
        """Was anybody handed the key of it, by a container that the author holds, of whom he knows that he is removed?
        What others hand out apart from him he can't know; so this is asked when it is written."""
        parsed = self.parse(self.raws[one.vid])
        gone = {
            dek.recipient.udf: udf
            for udf in one.removed & self.keys.keys()
            for keys in self.keys[udf]
            for dek in keys.deks
        }
        handed: set[str] = set()
        if one.kind is Kind.CONTAINER:
            handed = set(vault.container_recipients(parsed))
        elif one.kind is Kind.ITEM:
            kid, container = vault.item_key_id(parsed), one.identifier.partition("/")[0]
            rows = node.connection.execute("SELECT raw FROM versions WHERE kind = 2 AND identifier = ?", (container,))
            for (raw,) in rows.fetchall():
                if kid in vault.container_kids(self.parse(raw)) and self.parse(raw).claim.signer not in self.bad():
                    handed |= vault.container_recipients(self.parse(raw))
        for dek in sorted(handed & gone.keys()):
            if self.bad() & node.replica.holders(dek) - one.removed:
                continue  # a member in a thief's hands calls that key its own: it could as well hand on what it reads
            self.leaks.append(f"{node.name} knew that {gone[dek][:6]} was removed, who reads {one.vid.hex()[:8]}")

    # --- the history --------------------------------------------------------------------------------------------------

    def play(self) -> World:
        from harness import simulation_checks

        try:
            self.act()
            self.rest()
            simulation_checks.check(self)
        except Exception as exc:
            exc.add_note(again(self.seed))
            raise
        return self

    def act(self) -> None:
        from harness import simulated_deeds

        chance = self.chance
        for _ in range(self.steps):
            pause = chance.expovariate(1 / 20_000) if chance.random() < 0.97 else chance.choice((86_400_000.0, 4e10))
            self.events.run_until(self.events.now + pause)
            if chance.random() < 0.15:
                self.net.trouble(self.nodes)
            for _ in range(len(self.nodes)):
                self.net.meet(*chance.sample(self.nodes, 2))
            simulated_deeds.something(self)

    def rest(self) -> None:
        """The network heals, everybody comes, and what is left to do is done."""
        from harness import simulated_deeds

        self.crashes = 0.0
        self.net.islands = {}
        self.net.slow = 20.0
        for line in list(self.net.lines.values()):
            line.close()
        for node in self.honest:
            node.up = True
            node.unlock()
        self.settle()
        if simulated_deeds.clean_up(self):
            self.settle()

    def settle(self) -> None:
        """Let everybody meet until nothing moves any more."""
        for round_ in range(ROUNDS):
            before = [versions.last_seq(node.connection) for node in self.honest]
            for line in list(self.net.lines.values()):
                if any(end.skipped for end in line.ends):
                    line.close()  # what was not taken is asked for in the next conversation
            for place, one in enumerate(self.honest):
                for other in self.honest[:place]:
                    self.net.meet(one, other)
            self.run_dry()
            if before == [versions.last_seq(node.connection) for node in self.honest] and round_ > 2:
                return
        raise AssertionError("the mesh does not come to rest")

    def run_dry(self, most: int = 200_000) -> None:
        for _ in range(most):
            if not self.events.step():
                return
        raise AssertionError("events without end")


def again(seed: int) -> str:
    """How a world is played once more."""
    return f"seed {seed}; again: MESHD_SIM_SEEDS=1 MESHD_SIM_FROM={seed} pytest tests/simulation/test_worlds.py"


@functools.lru_cache(maxsize=64)
def _start(composition: str) -> tuple[list[Device], SigningKey]:
    """A mesh in which everybody holds the same: worlds begin with copies of it."""
    first = found("d0", f"simulated {composition}")
    others = [first.admit(f"d{place}", ROLES[role], meet=False) for place, role in enumerate(composition[1:], 1)]
    first.add("begin.example", secret="from the beginning")
    for other in others:
        other.pull(first)
    assert first.master_key is not None
    return [first, *others], first.master_key
