"""A store without a disk: an `Authority` and the pending and judging-again work that the holder of versions does."""

from __future__ import annotations

from collections.abc import Iterator

from meshd.errors import TrustError
from meshd.profile.claim import Claim, Kind, State
from meshd.profile.trust import Authority, Change, check_parents

PROFILES = (Kind.MASTER, Kind.PERSONAL)


class Replica:
    """Takes claims in any order; `states` is what they are now."""

    def __init__(self, mesh: str) -> None:
        self.claims: dict[bytes, Claim] = {}
        self.states: dict[bytes, State] = {}
        self.by_signer: dict[str, list[Claim]] = {}
        self.rows: dict[str, list[tuple[bytes, tuple[bytes, ...]]]] = {}  # pruned versions
        self.linked: set[bytes] = set()
        self._misfits: set[bytes] = set()
        self._waiting: dict[bytes, list[bytes]] = {}
        self.judgements = 0
        self.authority = Authority(mesh, self)

    def chain(self, signer: str) -> Iterator[tuple[bytes, tuple[bytes, ...]]]:
        for claim in self.by_signer.get(signer, ()):
            yield claim.vid, claim.links.q
        yield from self.rows.get(signer, ())

    def add(self, claim: Claim) -> None:
        """Receive a version; one that is malformed by itself is dropped."""
        if claim.vid in self.claims:
            return
        try:
            self.authority.check_shape(claim)
        except TrustError:
            return
        self.claims[claim.vid] = claim
        self.states[claim.vid] = State.PENDING
        self.by_signer.setdefault(claim.signer, []).append(claim)
        self._follow(self.authority.joined(claim.signer, claim.vid, claim.links.q))
        todo = [claim.vid]
        while todo:
            vid = todo.pop()
            if vid in self.linked:
                continue
            missing = [need for need in self.claims[vid].dependencies if need not in self.linked]
            for need in missing:
                self._waiting.setdefault(need, []).append(vid)
            if not missing:
                self._link(self.claims[vid])
                todo += self._waiting.pop(vid, ())

    def add_row(self, signer: str, vid: bytes, q: tuple[bytes, ...]) -> None:
        """Receive the chain row of a pruned version."""
        self.rows.setdefault(signer, []).append((vid, q))
        self._follow(self.authority.joined(signer, vid, q))

    def _link(self, claim: Claim) -> None:
        self.linked.add(claim.vid)
        if claim.kind in PROFILES:
            change = self.authority.integrate(claim)
            self.states[claim.vid] = change.state
            self._follow(change)
            return
        parents = [self.claims[parent] for parent in claim.links.p]
        try:
            check_parents(claim, ((*parent.entry, parent.links.g) for parent in parents))
        except TrustError:
            self._misfits.add(claim.vid)
        self._judge(claim)

    def _judge(self, claim: Claim) -> None:
        if claim.vid in self.linked and claim.kind not in PROFILES:
            self.judgements += 1
            stands = claim.vid not in self._misfits and self.authority.may_write(claim)
            self.states[claim.vid] = State.APPLIED if stands else State.QUARANTINED

    def _follow(self, change: Change) -> None:
        self.states.update(change.flips)
        if change.everything:
            for claim in self.claims.values():
                self._judge(claim)
            return
        for signer in change.signers:
            for claim in self.by_signer.get(signer, ()):
                self._judge(claim)
        for vid in change.versions:
            if vid in self.claims:
                self._judge(self.claims[vid])

    def heads(self) -> dict[tuple[int, str], frozenset[bytes]]:
        """The heads of every entry: applied, and no applied version descends from them."""
        children: dict[bytes, list[bytes]] = {}
        for claim in self.claims.values():
            for parent in claim.links.p:
                if parent in self.claims and self.claims[parent].entry == claim.entry:
                    children.setdefault(parent, []).append(claim.vid)
        found: dict[tuple[int, str], set[bytes]] = {}
        for vid, state in self.states.items():
            todo, seen = list(children.get(vid, ())), set()
            top = state is State.APPLIED
            while todo and top:
                child = todo.pop()
                if child not in seen:
                    seen.add(child)
                    top = self.states[child] is not State.APPLIED
                    todo += children.get(child, ())
            if top:
                found.setdefault(self.claims[vid].entry, set()).add(vid)
        return {entry: frozenset(vids) for entry, vids in found.items()}

    def head(self, entry: tuple[int, str]) -> tuple[bytes, ...]:
        return tuple(sorted(self.heads().get(entry, ())))
