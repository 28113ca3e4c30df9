"""What a replica keeps in memory beside the rows: authority, keys, the ends of chains, who waits.

All of it follows from the rows, and `rebuild` makes it from them: when a store is opened, and after every transaction
that failed. Vids commit to what they name, so what was once read of a profile or a container stays true whatever is
rolled back, and is not read again.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from meshd.crypto.keys import Rng
from meshd.errors import MeshError, StoreDamaged
from meshd.profile import device, master, personal, readers, version
from meshd.profile.claim import Claim, Kind, State
from meshd.profile.readers import Envelope
from meshd.profile.trust import Authority, Change
from meshd.profile.version import Parsed
from meshd.store import chains, lineage, versions
from meshd.store.aside import Aside
from meshd.store.db import get_meta
from meshd.store.directory import Directory
from meshd.store.waiting import Limits, Strangers, Waiting

LIMITS = Limits()
PROFILES = (Kind.MASTER, Kind.PERSONAL)


@dataclass(frozen=True, slots=True)
class Profile:
    """What is remembered of a stored master, personal or device profile, so that `rebuild` need not read it again."""

    claim: Claim
    escrow: frozenset[str] = frozenset()  # MasterProfile: UDFs of its escrow keys
    types: Mapping[str, str] = field(default_factory=dict)  # PersonalProfile: container → tag
    admins: frozenset[str] = frozenset()  # PersonalProfile: those of the MasterProfile in it
    dek: str = ""  # DeviceProfile: UDF of its encryption key


class Memory:
    """What a replica knows besides the rows. `mesh` is empty until this device has joined one."""

    def __init__(self, connection: sqlite3.Connection, rng: Rng, limits: Limits = LIMITS) -> None:
        self.directory = Directory()
        self._rng = rng
        self._limits = limits
        self._read: dict[bytes, Profile] = {}  # by vid, which commits to the content: true whatever is rolled back
        self._envelopes: dict[bytes, Envelope] = {}
        self._strangers = Strangers(limits)
        self._untrue: set[str] = set()  # signers of whom links were told whose versions did not come
        self._taken: set[bytes] = set()  # of a batch, what is held by now: one of it may embed another
        self.rebuild(connection)

    # --- memory from rows ---------------------------------------------------------------------------------------------

    def rebuild(self, connection: sqlite3.Connection) -> None:
        """Make the memory from what is committed."""
        self.mesh = (get_meta(connection, "mesh") or b"").decode()
        self.own = (get_meta(connection, "device") or b"").decode()
        self.authority = Authority(self.mesh, _Chains(connection))
        self.memo: dict[object, Any] = {}  # what others derive from profiles and containers; emptied when these change
        self._book = chains.Book(connection)
        self._lineage = lineage.Lineage(connection)
        self._waiting = Waiting(connection, self._limits)
        self._aside = Aside(connection, self._limits)
        self._carried = versions.count_carried(connection)
        self._misfits = {vid: final for vid, (final, _) in versions.misfits(connection).items()}
        self._followed: set[str] = set()  # signers who are cut, and whose versions this authority has judged
        self._listed: set[str] = set()
        self._listed_escrow: set[bytes] = set()
        self._holders: dict[str, set[str]] = {}  # encryption key → devices that state it
        self._devices: dict[str, device.DeviceProfile] = {}
        self._undecided: frozenset[str] = frozenset()  # as the last transaction left them
        if not self.mesh:
            return
        waiting: deque[Profile] = deque()
        for kind in (*PROFILES, Kind.DEVICE):
            for vid, state in versions.states_of(connection, kind):
                profile = self._profile(connection, vid)
                if kind is Kind.DEVICE:
                    if state is not State.PENDING:
                        self._hold(profile)
                elif state is State.PENDING:
                    self._list(profile)
                else:
                    waiting.append(profile)
        stuck = 0
        while waiting:
            profile = waiting.popleft()
            if all(self.authority.knows(vid) for vid in profile.claim.dependencies):
                self._integrate(profile)
                stuck = 0
            else:
                waiting.append(profile)
                stuck += 1
                if stuck > len(waiting):
                    raise StoreDamaged("a profile in the store has lost its ancestors")
        self._undecided = self.authority.undecided()

    def memory(self) -> object:
        """Everything that `rebuild` makes, in a form that can be compared: what a store that is opened anew would
        say."""
        authority = self.authority
        return (
            (self.mesh, self.own, self._carried, self._misfits, self._listed, self._listed_escrow, self._holders),
            (self._book.memory(), self._lineage.memory(), self._waiting.memory()),
            (authority.heads(Kind.MASTER), authority.heads(Kind.PERSONAL), authority.admins(), authority.devices()),
            (authority.removed(), authority.grants(), authority.applications(), authority.escrow(), authority.health()),
        )

    def _load(self, connection: sqlite3.Connection, vid: bytes) -> Parsed:
        raw = versions.raw(connection, vid)
        if raw is None:
            raise StoreDamaged("a version in the store has lost its content")
        try:
            return version.parse(raw)
        except MeshError as exc:
            raise StoreDamaged(f"a version in the store can't be read: {exc}") from exc

    def _profile(self, connection: sqlite3.Connection, vid: bytes) -> Profile:
        """What is remembered of a profile in the store."""
        found = self._read.get(vid)
        if found is None:
            found = self._remember(self._load(connection, vid))
        return found

    def _remember(self, parsed: Parsed) -> Profile:
        claim = parsed.claim
        found = Profile(claim)
        match claim.kind:
            case Kind.MASTER:
                found = Profile(claim, escrow=frozenset(key.udf for key in master.escrow_keys(parsed)))
            case Kind.PERSONAL:
                types = {udf: app.tag for udf, app in personal.application_entries(parsed).items()}
                found = Profile(claim, types=types, admins=parsed.embedded[0].claim.admins)
            case Kind.DEVICE:
                found = Profile(claim, dek=version.device_keys(parsed.body)[2].udf)
        self._read[claim.vid] = found
        self.directory.learn(parsed)
        return found

    def _integrate(self, profile: Profile) -> Change:
        claim = profile.claim
        change = self.authority.integrate(claim)
        self.memo.clear()
        self._list(profile)
        if claim.kind is Kind.MASTER:
            self._listed_escrow.update(vid for _, vid in claim.links.e)
        self._listed |= self.authority.ever_devices()
        return change

    def _list(self, profile: Profile) -> None:
        """Whose versions are kept from now on, because this profile, judged or waiting, was here (formats.md F1)."""
        claim = profile.claim
        if claim.kind is Kind.MASTER:
            self._listed |= claim.admins
        elif claim.signer == self.mesh or claim.signer in profile.admins:
            self._listed |= claim.devices

    def _hold(self, profile: Profile) -> None:
        self._holders.setdefault(profile.dek, set()).add(profile.claim.signer)

    def device(self, connection: sqlite3.Connection, udf: str) -> device.DeviceProfile | None:
        """The newest profile of a device: most edits, then smaller vid."""
        if udf not in self._devices:
            rows = [row for row in versions.of_entry(connection, Kind.DEVICE, udf) if row.state is State.APPLIED]
            if not rows:
                return None
            newest = min(rows, key=lambda row: (-row.gen, row.vid))
            self._devices[udf] = device.read(self._load(connection, newest.vid))
        return self._devices[udf]

    def envelope(self, connection: sqlite3.Connection, vid: bytes) -> Envelope:
        """What a stored container says in clear."""
        found = self._envelopes.get(vid)
        if found is None:
            found = self._envelopes[vid] = readers.envelope(self._load(connection, vid))
        return found

    def types(self, connection: sqlite3.Connection, profile: bytes) -> Mapping[str, str]:
        """Container → tag, as a stored PersonalProfile states them."""
        return self._profile(connection, profile).types

    def holders(self, key: str) -> frozenset[str]:
        """The devices that state the encryption key of this UDF as theirs, in any of their profiles."""
        return frozenset(self._holders.get(key, ()))

    def escrow_readers(self, connection: sqlite3.Connection) -> frozenset[str]:
        """UDFs of the master escrow keys, which read every vault once recovery was set up."""
        heads = self.authority.heads(Kind.MASTER)
        return frozenset(key for vid in heads for key in self._profile(connection, vid).escrow)

    def tips(self, signer: str) -> tuple[bytes, ...]:
        """The ends of a signer's chain: what a cut names."""
        return self._book.tips(signer)


class _Chains:
    """The store's chains as the authority sees them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def chain(self, signer: str) -> Iterable[tuple[bytes, tuple[bytes, ...]]]:
        return chain(lineage.of_signer(self._connection, signer), versions.of_signer(self._connection, signer))
