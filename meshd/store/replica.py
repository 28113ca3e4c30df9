"""The one door into the versions of a store: judge, insert, move the heads, and judge again what that touches.

A replica lives in the writer thread. Its authority and key directory are memory; everything else is rows. `accept` takes
versions whose signatures verified, `write` makes one of our own; both end in `_admit`, where `Authority.may_write` decides.
When a transaction fails, `rebuild` makes the memory from the rows again, so the two never tell different stories.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from meshd.crypto.keys import Rng, SigningKey, VerifyKey
from meshd.errors import Denied, FormatError, MeshError, StoreDamaged, TrustError
from meshd.profile import author, device, links, version
from meshd.profile.claim import Kind, State
from meshd.profile.links import Links
from meshd.profile.trust import Authority, Change, check_parents
from meshd.profile.version import Parsed, Version
from meshd.store import chains, versions
from meshd.store.db import get_meta

MAX_PENDING = 4096  # parked versions, all signers together
MAX_PENDING_ESCROW = 64


class Directory:
    """Signing keys by fingerprint. A fingerprint is the hash of its key, so remembering one believes nothing.

    Read by the verifying threads while the writer thread adds to it; entries are never changed or removed.
    """

    def __init__(self) -> None:
        self._keys: dict[str, VerifyKey] = {}

    def signing_key(self, signer: str) -> VerifyKey | None:
        return self._keys.get(signer)

    def learn(self, profile: Parsed) -> None:
        """Remember the keys that a verified profile and what it embeds state."""
        if profile.claim.kind is Kind.MASTER:
            self._keys.update(version.online_keys(profile.body))
            key = version.master_key(profile.body)
            self._keys[key.udf] = key
        elif profile.claim.kind is Kind.DEVICE:
            key = version.device_keys(profile.body)[0]
            self._keys[key.udf] = key
        for part in profile.embedded:
            self.learn(part)


@dataclass(slots=True)
class Outcome:
    """What a transaction did. `entries` are those whose heads may have changed."""

    added: list[tuple[int, bytes]] = field(default_factory=list)  # (seq, vid)
    entries: set[tuple[int, str]] = field(default_factory=set)
    rejected: list[tuple[bytes, str]] = field(default_factory=list)  # (vid, why): dropped and counted
    quarantined: set[bytes] = field(default_factory=set)
    profiles: bool = False  # devices, rights or removals may have changed
    forks: list[tuple[str, int]] = field(default_factory=list)
    restored: bool = False  # versions of our own arrived that this store did not hold
    cloned: bool = False  # … and they can't be what was lost with a restore: somebody else writes with our key

    def note(self, vid: bytes, state: State) -> None:
        """A version was judged anew."""
        if state is State.QUARANTINED:
            self.quarantined.add(vid)
        else:
            self.quarantined.discard(vid)


@dataclass(frozen=True, slots=True)
class Draft:
    """A version to be written: everything but the links that the chain and the authority decide."""

    kind: Kind
    identifier: str
    tag: str
    body: Mapping[str, Any] = field(repr=False)
    parents: tuple[bytes, ...] = ()
    escrow: tuple[tuple[str, bytes], ...] = ()
    confirm: tuple[str, ...] = ()
    cuts: tuple[links.Cut, ...] = ()


class Replica:
    """The mesh's versions in one store. `mesh` is empty until this device has joined one."""

    def __init__(self, connection: sqlite3.Connection, rng: Rng) -> None:
        self.directory = Directory()
        self._rng = rng
        self.rebuild(connection)

    # --- memory from rows ---------------------------------------------------------------------------------------------

    def rebuild(self, connection: sqlite3.Connection) -> None:
        """Make the memory from what is committed."""
        self.mesh = (get_meta(connection, "mesh") or b"").decode()
        self.own = (get_meta(connection, "device") or b"").decode()
        self.authority = Authority(self.mesh, _Chains(connection))
        self._listed_escrow: set[bytes] = set()
        self._ever: frozenset[str] = frozenset()
        self._devices: dict[str, device.DeviceProfile] = {}
        self._needed = {row[0] for row in connection.execute("SELECT DISTINCT need FROM waits")}
        self._holes = {row[0] for row in connection.execute("SELECT DISTINCT need FROM holes")}
        if not self.mesh:
            return
        profiles = versions.of_kind(connection, Kind.MASTER, (State.APPLIED, State.QUARANTINED))
        profiles += versions.of_kind(connection, Kind.PERSONAL, (State.APPLIED, State.QUARANTINED))
        waiting = deque(self._load(connection, row.vid) for row in profiles)
        stuck = 0
        while waiting:
            parsed = waiting.popleft()
            if all(self.authority.knows(vid) for vid in parsed.claim.dependencies):
                self._integrate(parsed)
                stuck = 0
            else:
                waiting.append(parsed)
                stuck += 1
                if stuck > len(waiting):
                    raise StoreDamaged("a profile in the store has lost its ancestors")

    def _load(self, connection: sqlite3.Connection, vid: bytes) -> Parsed:
        raw = versions.raw(connection, vid)
        if raw is None:
            raise StoreDamaged("a profile in the store has lost its content")
        try:
            return version.parse(raw)
        except MeshError as exc:
            raise StoreDamaged(f"a profile in the store can't be read: {exc}") from exc

    def _integrate(self, parsed: Parsed) -> Change:
        change = self.authority.integrate(parsed.claim)
        self.directory.learn(parsed)
        self._ever = self.authority.ever_devices()
        if parsed.claim.kind is Kind.MASTER:
            self._listed_escrow.update(vid for _, vid in parsed.claim.links.e)
        return change

    def device(self, connection: sqlite3.Connection, udf: str) -> device.DeviceProfile | None:
        """The newest profile of a device: most edits, then smaller vid."""
        if udf not in self._devices:
            rows = [row for row in versions.of_entry(connection, Kind.DEVICE, udf) if row.state is State.APPLIED]
            if not rows:
                return None
            newest = min(rows, key=lambda row: (-row.gen, row.vid))
            self._devices[udf] = device.read(self._load(connection, newest.vid))
        return self._devices[udf]

    # --- what others wrote --------------------------------------------------------------------------------------------

    def accept(self, connection: sqlite3.Connection, batch: Sequence[Version], now_ms: int, outcome: Outcome) -> None:
        """Take verified versions in, in any order. What is malformed or a stranger's is in `rejected`, nothing of it stays."""
        held = versions.known(connection, [item.vid for item in batch])
        for item in batch:
            if item.vid not in held:
                held.add(item.vid)
                self._take(connection, item, now_ms, outcome)
        if outcome.restored:
            outcome.cloned = not chains.noticed_restore(connection, self._rng)

    def _take(self, connection: sqlite3.Connection, item: Version, now_ms: int, outcome: Outcome) -> None:
        try:  # nothing of a stranger's profile is taken in, what it embeds neither
            self._check(connection, item, listed=False)
        except (TrustError, FormatError) as exc:
            outcome.rejected.append((item.vid, str(exc)))
            return
        for part in item.embedded:
            assert isinstance(part, Version)  # verify() made the embedded ones too
            if not versions.known(connection, [part.vid]):
                self._take_one(connection, part, now_ms, outcome, listed=True)
        self._take_one(connection, item, now_ms, outcome, listed=True)

    def _take_one(
        self, connection: sqlite3.Connection, item: Parsed, now_ms: int, outcome: Outcome, *, listed: bool
    ) -> None:
        claim = item.claim
        try:
            self._check(connection, item, listed=listed)
            missing = self._missing(connection, item)
            if missing:
                self._park(connection, item, missing, now_ms, outcome)
                return
            self._check_generation(connection, item)
        except (TrustError, FormatError) as exc:
            outcome.rejected.append((claim.vid, str(exc)))
            return
        self._admit(connection, item, now_ms, outcome)

    def _check(self, connection: sqlite3.Connection, item: Parsed, *, listed: bool) -> None:
        """What can be said of a version without its ancestors; TrustError, FormatError."""
        claim = item.claim
        if claim.kind in (Kind.OFFLINE_ESCROW, Kind.ONLINE_ESCROW):
            return
        if claim.kind in (Kind.MASTER, Kind.PERSONAL) and claim.identifier != self.mesh:
            raise TrustError("a profile of another mesh")
        if claim.kind is Kind.DEVICE:
            if not listed and claim.signer not in self._ever:
                raise TrustError("a device profile that no personal profile lists")
            device.read(item)  # the certificate must be the key's: TLS will pin it
            return
        self.authority.check_shape(claim)
        if (
            claim.signer != self.mesh
            and claim.signer not in self._ever
            and (claim.kind is not Kind.PERSONAL or claim.signer not in version.online_keys(item.embedded[0].body))
        ):
            raise TrustError("signed by a device that no profile lists")

    def _missing(self, connection: sqlite3.Connection, item: Parsed) -> set[bytes]:
        claim = item.claim
        if claim.kind in (Kind.OFFLINE_ESCROW, Kind.ONLINE_ESCROW):
            # It counts when a master profile lists it; until then it waits for its own name to be spoken.
            return set() if claim.vid in self._listed_escrow else {claim.vid}
        missing = set()
        for vid in claim.dependencies:
            if self.authority.knows(vid):
                continue
            if claim.kind in (Kind.MASTER, Kind.PERSONAL):
                missing.add(vid)
                continue
            row = versions.get(connection, vid)
            if row is None or row.state is State.PENDING or vid in claim.links.a:
                missing.add(vid)
        return missing

    def _check_generation(self, connection: sqlite3.Connection, item: Parsed) -> None:
        """Parents are of the same entry, and the generation is one more than theirs; likewise the place in the chain."""
        claim = item.claim
        if claim.kind in (Kind.MASTER, Kind.PERSONAL):
            self.authority.check_links(claim)
        else:
            rows = [versions.get(connection, vid) for vid in claim.links.p]
            check_parents(claim, [(row.kind, row.identifier, row.gen) for row in rows if row is not None])
        if claim.links.n:
            chains.check_count(connection, claim)

    def _park(
        self, connection: sqlite3.Connection, item: Parsed, missing: set[bytes], now_ms: int, outcome: Outcome
    ) -> None:
        (parked,) = connection.execute("SELECT count(*) FROM versions WHERE state = 2").fetchone()
        limit = MAX_PENDING if item.signed is not None else MAX_PENDING_ESCROW
        if parked >= limit:
            outcome.rejected.append((item.claim.vid, "too many versions wait for their ancestors"))
            return
        seq = versions.insert(connection, item, State.PENDING, now_ms)
        outcome.added.append((seq, item.claim.vid))
        connection.executemany("INSERT INTO waits VALUES (?, ?)", [(need, item.claim.vid) for need in missing])
        self._needed |= missing

    # --- the door -----------------------------------------------------------------------------------------------------

    def _admit(
        self, connection: sqlite3.Connection, item: Parsed, now_ms: int, outcome: Outcome, *, parked: bool = False
    ) -> State:
        """Judge a version whose ancestors are known, store it, and everything that follows. The only way in."""
        claim = item.claim
        change: Change | None = None
        if claim.kind in (Kind.MASTER, Kind.PERSONAL):
            change = self._integrate(item)
            state = change.state
        elif claim.kind is Kind.DEVICE or item.signed is None:
            state = State.APPLIED
            if claim.kind is Kind.DEVICE:
                self.directory.learn(item)
                self._devices.pop(claim.identifier, None)
                outcome.profiles = True
        else:
            state = State.APPLIED if self.authority.may_write(claim) else State.QUARANTINED
        # Nothing of the same entry can stand on a version that was not here before it.
        plain = state is State.APPLIED and not claim.links.p
        if parked:
            versions.set_state(connection, claim.vid, state)
            if plain:
                versions.replace_heads(connection, *claim.entry, (), claim.vid)
        else:
            seq = versions.insert(connection, item, state, now_ms, head=plain)
            outcome.added.append((seq, claim.vid))
        if claim.links.p:
            versions.add_edges(connection, claim.vid, claim.links.p)
            if state is State.APPLIED:
                self._advance(connection, item)
        if state is State.APPLIED:
            outcome.entries.add(claim.entry)
        else:
            outcome.quarantined.add(claim.vid)
        if claim.links.n:
            self._chain(connection, item, outcome)
        if change is not None:
            outcome.profiles = True
            self._follow(connection, change, outcome)
            if claim.kind is Kind.MASTER:
                for _, vid in claim.links.e:
                    if vid in self._needed:
                        self._release(connection, vid, now_ms, outcome)
        if claim.vid in self._needed:
            self._release(connection, claim.vid, now_ms, outcome)
        return State.QUARANTINED if claim.vid in outcome.quarantined else State.APPLIED

    def _advance(self, connection: sqlite3.Connection, item: Parsed) -> None:
        claim = item.claim
        rows = [versions.get(connection, vid) for vid in claim.links.p]
        if all(row is not None and row.state is State.APPLIED for row in rows):
            versions.replace_heads(connection, *claim.entry, claim.links.p, claim.vid)
        else:
            versions.recompute_heads(connection, *claim.entry)

    def _chain(self, connection: sqlite3.Connection, item: Parsed, outcome: Outcome) -> None:
        claim = item.claim
        fills = claim.vid in self._holes
        found = chains.extend(connection, claim, fills=fills)
        self._holes.discard(claim.vid)
        self._holes |= found.holes
        if found.forks:
            outcome.forks.append((claim.signer, claim.links.n))
        if claim.signer == self.own and not fills:
            outcome.restored = True
        change = self.authority.joined(claim.signer, claim.vid, claim.links.q)
        if change.flips or change.versions or change.signers or change.everything:
            self._follow(connection, change, outcome)

    def _follow(self, connection: sqlite3.Connection, change: Change, outcome: Outcome) -> None:
        """What stands or falls with what was just linked: profiles, then what their signers wrote."""
        for vid, state in change.flips.items():
            versions.set_state(connection, vid, state)
            outcome.note(vid, state)
        if change.flips:
            outcome.profiles = True
            for kind in (Kind.MASTER, Kind.PERSONAL):
                versions.recompute_heads(connection, kind, self.mesh)
                outcome.entries.add((int(kind), self.mesh))
        if change.everything:
            self._judge_again(connection, versions.judged(connection), outcome)
            return
        for signer in change.signers:
            self._judge_again(connection, versions.judged(connection, signer), outcome)
        rows = (versions.get(connection, vid) for vid in change.versions)
        self._judge_again(connection, (row for row in rows if row is not None), outcome)

    def _judge_again(self, connection: sqlite3.Connection, rows: Iterable[versions.Row], outcome: Outcome) -> None:
        touched: set[tuple[int, str]] = set()
        for row in rows:
            if row.state is State.PENDING or row.kind not in (Kind.CONTAINER, Kind.ITEM):
                continue
            state = State.APPLIED if self.authority.may_write(row.claim()) else State.QUARANTINED
            if state is not row.state:
                versions.set_state(connection, row.vid, state)
                outcome.note(row.vid, state)
                touched.add((row.kind, row.identifier))
        for entry in touched:
            versions.recompute_heads(connection, *entry)
        outcome.entries |= touched

    def _release(self, connection: sqlite3.Connection, vid: bytes, now_ms: int, outcome: Outcome) -> None:
        """`vid` is known now: what waited for it, and for nothing else, is judged."""
        self._needed.discard(vid)
        waiting = [row[0] for row in connection.execute("SELECT vid FROM waits WHERE need = ?", (vid,)).fetchall()]
        connection.execute("DELETE FROM waits WHERE need = ?", (vid,))
        for child in waiting:
            if connection.execute("SELECT 1 FROM waits WHERE vid = ?", (child,)).fetchone() is None:
                item = self._load(connection, child)
                try:
                    self._check_generation(connection, item)
                except (TrustError, FormatError) as exc:
                    outcome.rejected.append((child, str(exc)))
                    connection.execute("DELETE FROM versions WHERE vid = ?", (child,))
                    continue
                self._admit(connection, item, now_ms, outcome, parked=True)

    # --- what this device writes --------------------------------------------------------------------------------------

    def write(
        self, connection: sqlite3.Connection, key: SigningKey, draft: Draft, now_ms: int, outcome: Outcome
    ) -> Version:
        """Sign a draft with the device's or the master key and take it in. Denied when this device may not write that."""
        signed = author.sign(
            key,
            draft.kind,
            draft.identifier,
            draft.tag,
            draft.body,
            self._links(connection, key, draft),
            now_ms // 1000,
        )
        for part in signed.embedded:
            if not versions.known(connection, [part.claim.vid]):
                self._take_one(connection, part, now_ms, outcome, listed=True)
        self._check(connection, signed, listed=True)
        self._check_generation(connection, signed)
        if self._missing(connection, signed):
            raise FormatError("a version that names ancestors which are not here")
        mark = outcome.restored
        if self._admit(connection, signed, now_ms, outcome) is not State.APPLIED:
            raise Denied("This device may not write that.", hint="ask an admin of this mesh to grant it")
        outcome.restored = mark  # our own pen is no sign of a restore
        if signed.signer == self.own:
            chains.wrote(connection, signed.vid)
        return signed

    def _links(self, connection: sqlite3.Connection, key: SigningKey, draft: Draft) -> Links:
        parents = tuple(sorted(draft.parents))
        rows = [versions.get(connection, vid) for vid in parents]
        found = Links(
            g=1 + max((row.gen for row in rows if row is not None), default=0),
            p=parents,
            e=draft.escrow,
            k=draft.confirm,
            x=draft.cuts,
        )
        if key.udf != self.mesh:
            q = chains.for_next_write(connection, key.udf)
            found = replace(found, q=q.tips, n=q.n)
        if draft.kind in (Kind.CONTAINER, Kind.ITEM):
            found = replace(found, a=self.authority.heads(Kind.PERSONAL))
        return found

    def introduce(self, connection: sqlite3.Connection, mesh: str, own: str) -> None:
        """This store now belongs to `mesh`, and this device is `own`; once, before anything is written or accepted."""
        if self.mesh:
            raise Denied("This device is connected to a mesh already.")
        connection.execute("INSERT INTO meta VALUES ('mesh', ?), ('device', ?)", (mesh.encode(), own.encode()))
        self.rebuild(connection)

    def take_escrow(self, connection: sqlite3.Connection, entry: Version, now_ms: int, outcome: Outcome) -> None:
        """Store an escrow entry of our own; the master profile that lists it follows in the same transaction."""
        self._take(connection, entry, now_ms, outcome)

    def take_device(self, connection: sqlite3.Connection, profile: Version, now_ms: int, outcome: Outcome) -> None:
        """Store a device profile that a personal profile of this same transaction lists."""
        if not versions.known(connection, [profile.vid]):
            self._take_one(connection, profile, now_ms, outcome, listed=True)


class _Chains:
    """The store's chains as the authority sees them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def chain(self, signer: str) -> Iterable[tuple[bytes, tuple[bytes, ...]]]:
        return versions.of_signer(self._connection, signer)
