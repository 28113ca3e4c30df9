"""The one door into the versions of a store: judge, insert, move the heads, and judge again what that touches.

A replica lives in the writer thread. `accept` takes versions whose signatures verified, `write` makes one of our own;
both end in `_admit`, where `Authority.may_write` decides, or in `_park`, until what they name is here. What is stored
is a pure function of the versions that came, in whatever order. When a transaction fails, `rebuild` makes the memory
from the rows again, so the two never tell different stories.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace

from meshd.crypto.keys import SigningKey
from meshd.errors import Denied, FormatError, TrustError
from meshd.profile import author, device, links, readers
from meshd.profile.claim import Claim, Kind, State
from meshd.profile.links import MAX_HEADS, Links
from meshd.profile.trust import Change, check_parents
from meshd.profile.version import Parsed, Version, version_id
from meshd.store import chains, lineage, versions
from meshd.store.directory import Directory
from meshd.store.memory import PROFILES, Memory
from meshd.store.outcome import Draft, Outcome
from meshd.store.versions import Parent

__all__ = ["Directory", "Draft", "Outcome", "Replica"]

_ESCROW = (Kind.OFFLINE_ESCROW, Kind.ONLINE_ESCROW)
_MISCOUNTED = "a version whose place in its author's chain is not one after its predecessor's"


class Replica(Memory):
    """The mesh's versions in one store, and all that may be done to them."""

    # --- what others wrote --------------------------------------------------------------------------------------------

    def accept(self, connection: sqlite3.Connection, batch: Sequence[Version], now_ms: int, outcome: Outcome) -> None:
        """Take verified versions in, in any order. What is malformed by itself is in `rejected` and nothing of it
        stays; what does not fit the versions that it names is there too, and kept, but never applied."""
        held = versions.known(connection, [item.vid for item in batch])
        if self._strangers:  # only now: what a transaction took in that failed later must still be here
            for vid in versions.known(connection, self._strangers.vids()):
                self._strangers.forget(vid)
        self._taken = held
        self._aside.begin()
        for item in batch:
            if item.claim.vid not in held:
                self._take(connection, item, now_ms, outcome)
                held.add(item.claim.vid)
        self._book.flush(connection)
        self._aside.end(connection)
        if any(item.claim.kind is Kind.PERSONAL or item.claim.kind is Kind.MASTER for item in batch):
            self._erase_escrow(connection)
        self._look_who_is_undecided(outcome)
        if outcome.restored:
            outcome.cloned = outcome.cloned or not chains.noticed_restore(connection, self._rng)

    def accept_links(
        self, connection: sqlite3.Connection, signer: str, told: Sequence[lineage.Link], outcome: Outcome
    ) -> frozenset[bytes]:
        """Take links of a signer's chain ahead of their versions, each behind one that names it; what is still missing.
        What nothing names, or finds no room, is left out: whatever a peer tells proves itself, or changes nothing.
        Nothing is missing of whom links were told in vain: once is enough."""
        if signer in self._untrue:
            return frozenset()
        missing = self.authority.missing(signer)  # from here on it follows that chain, whoever asked for these
        rows: dict[bytes, lineage.Link] = {}
        named: dict[bytes, tuple[bytes, ...]] = {}
        for link in told[: self._lineage.room(signer) if len(missing) <= lineage.WIDEST else 0]:
            vid = version_id(signer, link.token, link.digest)
            try:
                named[vid] = links.before(link.token)
            except FormatError:
                continue  # it is the link of no version
            rows[vid] = link
        taken, change = self.authority.linked(signer, named)
        if taken:
            self._lineage.keep(connection, signer, [(vid, link) for vid, link in rows.items() if vid in taken])
            self._follow(connection, change, outcome)
            self._look_who_is_undecided(outcome)
        return self.authority.missing(signer)

    def end_links(self, connection: sqlite3.Connection, outcome: Outcome) -> None:
        """All that a peer has is here. Versions that only links speak of count no more, and what stood by them is
        judged by what was signed: so whatever was told, everybody's stores say the same."""
        for signer in self._lineage.end(connection):
            self._untrue.add(signer)
            self._follow(connection, self.authority.unlinked(signer), outcome)
        self._look_who_is_undecided(outcome)

    def _look_who_is_undecided(self, outcome: Outcome) -> None:
        undecided = self.authority.undecided()
        if undecided != self._undecided:  # also where no profile changed: the end of a chain showed that they are none
            self._undecided = undecided
            outcome.profiles = True

    def _erase_escrow(self, connection: sqlite3.Connection) -> None:
        """Forget what recovery entries hold that counted once and count no more: whoever has their shares would still
        open them. Sealed master keys stay, for a mesh whose admins are all gone."""
        versions.erase_escrow(connection, set(self.authority.escrow().values()))

    def _take(self, connection: sqlite3.Connection, item: Version, now_ms: int, outcome: Outcome) -> None:
        """One version and what it embeds. Nothing of a stranger's profile is taken in, what it embeds neither."""
        claim = item.claim
        parts: list[Parsed] = [item]
        if item.embedded:
            held = versions.known(connection, [part.claim.vid for part in item.embedded])
            parts = [part for part in item.embedded if part.claim.vid not in held] + parts
        try:
            for part in parts:
                self._check(part)
        except (TrustError, FormatError) as exc:
            outcome.rejected.append((claim.vid, str(exc)))
            return
        if item.signed is None:
            if claim.kind not in _ESCROW and not self._carry(claim.vid, outcome):
                return
        elif not self._is_listed(item):
            self._strangers.add(item)
            outcome.strangers.append(claim.vid)
            return
        elif claim.signer != self.mesh and not self._aside.takes(
            connection, self.authority, claim.signer, claim.vid, len(item.raw)
        ):
            outcome.turned_away.append(claim.signer)
            return
        known = len(self._listed)
        for part in parts:
            self._store(connection, part, now_ms, outcome)
        if len(self._listed) > known:
            self._take_strangers(connection, now_ms, outcome)

    def _is_listed(self, item: Version) -> bool:
        """Does some profile list the signer, so that what he writes is kept whatever becomes of it (formats.md F1)?"""
        signer = item.claim.signer
        if signer in self._listed or signer == self.mesh:
            return True
        # The MasterProfile in a personal one is of this mesh, and the master key signed it: others were refused before.
        return item.claim.kind is Kind.PERSONAL and signer in item.embedded[0].claim.admins

    def _carry(self, vid: bytes, outcome: Outcome) -> bool:
        """Is there room for an entry of a kind that this release only carries?"""
        if self._carried >= self._limits.carried:
            outcome.deferred.append(vid)
            return False
        self._carried += 1
        return True

    def _take_strangers(self, connection: sqlite3.Connection, now_ms: int, outcome: Outcome) -> None:
        """Somebody is listed now who was not."""
        for one in self._strangers.of(self._listed):
            if not versions.known(connection, [one.vid]):  # each anew: one may list the next
                self._take(connection, one, now_ms, outcome)

    def _check(self, item: Parsed) -> None:
        """What can be said of a version without its ancestors; TrustError, FormatError."""
        claim = item.claim
        if item.signed is None:
            return
        if claim.kind in PROFILES and claim.identifier != self.mesh:
            raise TrustError("a profile of another mesh")
        self.authority.check_shape(claim)
        if claim.links.n and (claim.links.n > 1) is not bool(claim.links.q):
            raise FormatError("a version whose place in its author's chain contradicts its predecessors")
        if claim.kind is Kind.DEVICE:
            device.read(item)  # the certificate must be the key's: TLS will pin it

    def _store(
        self, connection: sqlite3.Connection, item: Parsed, now_ms: int, outcome: Outcome, *, ours: bool = False
    ) -> None:
        """Judge a version, or park it until it can be judged; then whatever waited for it."""
        missing = self._missing(connection, item)
        if missing:
            self._park(connection, item, missing, now_ms, outcome)
            return
        todo = deque(self._admit(connection, item, now_ms, outcome, ours=ours))
        while todo:  # not by recursion: ten thousand edits may wait for the first
            todo += self._admit(connection, self._load(connection, todo.popleft()), now_ms, outcome, parked=True)

    def _missing(self, connection: sqlite3.Connection, item: Parsed) -> list[bytes]:
        """What must be known before a version can be judged, and is not."""
        claim = item.claim
        if claim.kind in _ESCROW:
            # It counts when a master profile lists it; until then it waits for its own name to be spoken.
            return [] if claim.vid in self._listed_escrow else [claim.vid]
        unknown = [vid for vid in claim.dependencies if not self.authority.knows(vid)]
        if not unknown:
            return unknown
        unknown = list(dict.fromkeys(unknown))
        if claim.kind not in PROFILES:
            here = {row.vid for row in versions.parents(connection, unknown) if row.state is not State.PENDING}
            unknown = [vid for vid in unknown if vid not in here]
        return unknown

    def _park(
        self, connection: sqlite3.Connection, item: Parsed, missing: list[bytes], now_ms: int, outcome: Outcome
    ) -> None:
        claim = item.claim
        if not self._waiting.room(connection, item):
            outcome.deferred.append(claim.vid)
            return
        seq = versions.insert(connection, item, State.PENDING, now_ms)
        self._taken.add(claim.vid)
        outcome.added.append((seq, claim.vid))
        self._waiting.park(connection, item, missing)
        if claim.kind in (*PROFILES, Kind.DEVICE):
            self._list(self._remember(item))
        if claim.links.n:
            self._chain(connection, claim, outcome, ours=False)

    # --- the door -----------------------------------------------------------------------------------------------------

    def _admit(
        self,
        connection: sqlite3.Connection,
        item: Parsed,
        now_ms: int,
        outcome: Outcome,
        *,
        parked: bool = False,
        ours: bool = False,
    ) -> list[bytes]:
        """Judge a version whose ancestors are known, store it, and what follows from it. The only way in.

        Returns the parked versions that waited for it alone."""
        claim = item.claim
        change: Change | None = None
        if claim.kind in PROFILES:
            fault = self._link_fault(claim)  # the authority finds it, too, and keeps it from counting
            change = self._integrate(self._remember(item))
            state = change.state
        elif item.signed is None:
            fault, state = None, State.APPLIED
        else:
            fault = self._fault(connection, item)
            state = State.APPLIED if self.authority.may_write(claim) and not fault else State.QUARANTINED
        if claim.vid in self._misfits:  # its place in the chain was seen to be wrong while it waited
            state = State.QUARANTINED
        self._insert(connection, item, state, now_ms, outcome, parked=parked)
        if fault:
            outcome.rejected.append((claim.vid, fault))
        elif state is State.QUARANTINED and claim.vid not in self._misfits:
            outcome.quarantined.add(claim.vid)
        if claim.kind is Kind.DEVICE:
            self._take_device(connection, item, state, outcome)
        elif claim.kind is Kind.CONTAINER:
            self.memo.clear()
        if claim.links.n and not parked:
            self._chain(connection, claim, outcome, ours=ours)
        if change is not None:
            outcome.profiles = True
            self._follow(connection, change, outcome)
            self._aside.look_again(connection, self.authority)
        freed = self._waiting.release(connection, claim.vid)
        if claim.kind is Kind.MASTER:
            for _, vid in claim.links.e:
                freed += self._waiting.release(connection, vid)
        return freed

    def _insert(
        self, connection: sqlite3.Connection, item: Parsed, state: State, now_ms: int, outcome: Outcome, *, parked: bool
    ) -> None:
        """The row, its edges, and the heads of its entry."""
        claim = item.claim
        applied = state is State.APPLIED
        # Nothing of the same entry can stand on a version that was not here before it.
        plain = applied and not claim.links.p and item.signed is not None
        if parked:
            self._waiting.left(claim.signer, len(item.raw))
            versions.set_state(connection, claim.vid, state)
            if plain:
                versions.replace_heads(connection, *claim.entry, (), claim.vid)
        else:
            seq = versions.insert(connection, item, state, now_ms, head=plain)
            self._taken.add(claim.vid)
            outcome.added.append((seq, claim.vid))
        if claim.links.p:
            versions.add_edges(connection, claim.vid, claim.links.p)
            if applied:
                parents = versions.parents(connection, claim.links.p)
                if all(parent.state is State.APPLIED for parent in parents):
                    versions.replace_heads(connection, *claim.entry, claim.links.p, claim.vid)
                else:
                    versions.recompute_heads(connection, *claim.entry)
        if applied:
            outcome.entries.add(claim.entry)

    def _link_fault(self, claim: Claim) -> str | None:
        try:
            self.authority.check_links(claim)
        except TrustError as exc:
            return str(exc)
        return None

    def _fault(self, connection: sqlite3.Connection, item: Parsed) -> str | None:
        """Why a container, item or device profile does not fit what it names. It is remembered as a misfit."""
        claim = item.claim
        fault: str | None = None
        if claim.links.p or claim.links.g != 1:
            fault = _parents_fault(claim, versions.parents(connection, claim.links.p))
        if fault is None and claim.kind is Kind.CONTAINER:
            mine = self._envelopes[claim.vid] = readers.envelope(item)
            try:
                self.authority.check_links(claim)
            except TrustError as exc:
                fault = str(exc)
            else:
                types = {self._profile(connection, vid).types.get(claim.identifier, "") for vid in claim.links.a} - {""}
                replaced = (self.envelope(connection, vid) for vid in claim.links.p)
                fault = readers.lacking_keys(mine, replaced, types)
                if fault is None:
                    fault = self._readers_fault(connection, claim)
                    if fault is not None:
                        self._misfit(connection, claim.vid, fault, final=False)
                        return fault
        if fault is not None:
            self._misfit(connection, claim.vid, fault, final=True)
        return fault

    def _readers_fault(self, connection: sqlite3.Connection, claim: Claim) -> str | None:
        return readers.wrong_readers(
            self.authority,
            claim,
            self.envelope(connection, claim.vid),
            self.holders,
            lambda vid: self._profile(connection, vid).escrow,
        )

    def _misfit(self, connection: sqlite3.Connection, vid: bytes, why: str, *, final: bool) -> None:
        self._misfits[vid] = final or self._misfits.get(vid, False)
        versions.set_misfit(connection, vid, why, final=final)

    def _take_device(self, connection: sqlite3.Connection, item: Parsed, state: State, outcome: Outcome) -> None:
        """A device states its keys: containers that are wrapped for one of them may now be seen to be right."""
        self._hold(self._remember(item))
        self._devices.pop(item.claim.identifier, None)
        self.memo.clear()
        outcome.profiles = outcome.profiles or state is State.APPLIED
        for vid in [vid for vid, final in self._misfits.items() if not final]:
            row = versions.get(connection, vid)
            if row is None or self._readers_fault(connection, row.claim()) is not None:
                continue
            del self._misfits[vid]
            versions.clear_misfit(connection, vid)
            self._judge_again(connection, [row], outcome)

    def _chain(self, connection: sqlite3.Connection, claim: Claim, outcome: Outcome, *, ours: bool) -> None:
        """A version is stored, in whatever state: put it on its signer's chain, and judge again what that connects."""
        found = self._book.extend(connection, claim)
        self._lineage.came(connection, claim.signer, claim.vid)
        if found.forks:
            outcome.forks.append((claim.signer, claim.links.n))
        for vid in found.miscounted:
            self._miscounted(connection, vid, outcome)
        if claim.signer == self.own and not ours and not found.fills:
            # The first profile of a device comes back from who admitted it.
            outcome.restored = outcome.restored or claim.kind is not Kind.DEVICE or claim.links.n > 1
            outcome.cloned = outcome.cloned or chains.follows_own(connection, claim.links.q)
        change = self.authority.joined(claim.signer, claim.vid, claim.links.q)
        if claim.signer not in self._followed and self.authority.is_cut(claim.signer):
            # What stands of that chain was judged before this store was opened: once more, so that authority follows
            # it.
            self._followed.add(claim.signer)
            self._judge_again(connection, versions.judged(connection, claim.signer), outcome)
        # The version itself was judged a moment ago, as the link that it is.
        others = change.versions and change.versions != (claim.vid,)
        if change.flips or others or change.signers or change.everything:
            self._follow(connection, change, outcome)

    def _miscounted(self, connection: sqlite3.Connection, vid: bytes, outcome: Outcome) -> None:
        """A version whose place in its chain is wrong is malformed. Profiles stand all the same: others may have
        built on one before its predecessor came, and would fall with it."""
        row = versions.get(connection, vid)
        assert row is not None  # it was stored
        if row.kind in PROFILES:
            outcome.forks.append((row.signer, row.n))
            return
        self._misfit(connection, vid, _MISCOUNTED, final=True)
        outcome.rejected.append((vid, _MISCOUNTED))
        if row.state is State.APPLIED:
            versions.set_state(connection, vid, State.QUARANTINED)
            versions.recompute_heads(connection, row.kind, row.identifier)
            outcome.entries.add((row.kind, row.identifier))
            if row.kind == Kind.DEVICE:
                self._devices.pop(row.identifier, None)
                outcome.profiles = True
            self.memo.clear()

    def _follow(self, connection: sqlite3.Connection, change: Change, outcome: Outcome) -> None:
        """What stands or falls with what was just linked: profiles, then what their signers wrote."""
        for vid, state in change.flips.items():
            versions.set_state(connection, vid, state)
            outcome.note(vid, state)
        if change.flips:
            self.memo.clear()
            outcome.profiles = True
            for kind in PROFILES:
                versions.recompute_heads(connection, kind, self.mesh)
                outcome.entries.add((int(kind), self.mesh))
            self._aside.look_again(connection, self.authority)
        if change.everything:
            self._judge_again(connection, versions.judged(connection), outcome)
            return
        for signer in change.signers:
            self._judge_again(connection, versions.judged(connection, signer), outcome)
        self._judge_again(connection, versions.some(connection, change.versions), outcome)

    def _judge_again(self, connection: sqlite3.Connection, rows: Iterable[versions.Row], outcome: Outcome) -> None:
        moved: list[tuple[versions.Row, State]] = []
        for row in rows:
            if row.state is State.PENDING or row.kind not in (Kind.CONTAINER, Kind.ITEM) or row.vid in self._misfits:
                continue
            state = State.APPLIED if self.authority.may_write(row.claim()) else State.QUARANTINED
            if state is not row.state:
                moved.append((row, state))
                outcome.note(row.vid, state)
                outcome.entries.add((row.kind, row.identifier))
        if any(row.kind == Kind.CONTAINER for row, _ in moved):
            self.memo.clear()
        versions.set_states(connection, moved)

    # --- what this device writes --------------------------------------------------------------------------------------

    def write(
        self, connection: sqlite3.Connection, key: SigningKey, draft: Draft, now_ms: int, outcome: Outcome
    ) -> Version:
        """Sign a draft with the device's or the master key and take it in. Denied when this device may not write
        that."""
        link = self._book.next_link(connection, key.udf) if key.udf != self.mesh else chains.Next((), 0)
        signed = author.sign(
            key,
            draft.kind,
            draft.identifier,
            draft.tag,
            draft.body,
            self._links(connection, link, draft),
            now_ms // 1000,
        )
        if draft.kind in (Kind.CONTAINER, Kind.ITEM) and not self.authority.may_write(signed.claim):
            raise Denied("This device may not write that.", hint="ask an admin of this mesh to grant it")
        if signed.embedded:
            held = versions.known(connection, [part.claim.vid for part in signed.embedded])
            for part in signed.embedded:
                if part.claim.vid not in held:
                    self._check(part)
                    self._store(connection, part, now_ms, outcome)
        self._check(signed)
        if self._missing(connection, signed):
            raise FormatError("a version that names ancestors which are not here")
        refused, known, self._taken = len(outcome.rejected), len(self._listed), set()
        self._store(connection, signed, now_ms, outcome, ours=key.udf == self.own)
        for vid, why in outcome.rejected[refused:]:
            if vid == signed.vid:
                raise FormatError(why)
        if signed.vid in outcome.quarantined:
            raise Denied("This device may not write that.", hint="ask an admin of this mesh to grant it")
        if len(self._listed) > known:
            self._take_strangers(connection, now_ms, outcome)
        self._book.flush(connection)
        if signed.signer == self.own:
            chains.wrote(connection, signed.vid, link)
        return signed

    def _links(self, connection: sqlite3.Connection, link: chains.Next, draft: Draft) -> Links:
        parents = versions.parents(connection, draft.parents)
        if len(parents) < len(draft.parents):
            raise FormatError("a version that names ancestors which are not here")
        # Of more heads than a token holds the rest stay beside it (formats.md F1).
        parents = sorted(parents, key=lambda parent: (-parent.gen, parent.vid))[:MAX_HEADS]
        found = Links(
            g=1 + max((parent.gen for parent in parents), default=0),
            n=link.n,
            q=link.tips,
            p=tuple(sorted(parent.vid for parent in parents)),
            e=draft.escrow,
            k=draft.confirm,
            x=draft.cuts,
        )
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
        self.accept(connection, [entry], now_ms, outcome)

    def take_device(self, connection: sqlite3.Connection, profile: Version, now_ms: int, outcome: Outcome) -> None:
        """Store a device profile that a personal profile of this same transaction lists."""
        if not versions.known(connection, [profile.vid]):
            self._check(profile)
            self._store(connection, profile, now_ms, outcome)
            self._book.flush(connection)


def _parents_fault(claim: Claim, parents: Sequence[Parent]) -> str | None:
    try:
        check_parents(claim, [(parent.kind, parent.identifier, parent.gen) for parent in parents])
    except TrustError as exc:
        return str(exc)
    return None
