"""Stratum 1 of authority (formats.md F7): who is an admin, and which escrow entries count, by the MasterProfiles
alone.

Only the master signature counts, so every MasterProfile of the right shape stands and nothing here is ever judged
twice: what a set of MasterProfiles says is a constant, kept by the bit mask of the set.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshd.profile.claim import Claim
from meshd.profile.dag import Dag, Facts, Key, merge
from meshd.profile.links import SCOPE_ADMIN, SCOPE_REMOVED

ADMIN = "A"  # (ADMIN, udf)
DEAD = "Z"  # (DEAD, udf): removed by the master key, for ever
ESCROW = "E"  # (ESCROW, identifier, vid in hex)


class Masters:
    """The MasterProfile DAG."""

    def __init__(self) -> None:
        self.dag = Dag(gathered=frozenset({DEAD}))
        self.everything = 0  # the mask of all that is linked
        self.heads: set[int] = set()
        self._facts: list[Facts] = []
        self._admins: dict[int, frozenset[str]] = {}
        self._dead: dict[int, frozenset[str]] = {}

    def fault(self, claim: Claim) -> str | None:
        """Why a MasterProfile with linked parents may not stand: it drops an admin without cutting him."""
        parents = self.dag.seen(self.dag.index[parent] for parent in claim.links.p)
        cut = {cut.udf for cut in claim.links.x if cut.scope in (SCOPE_REMOVED, SCOPE_ADMIN)}
        if self.admins(parents) - claim.admins - cut:
            return "a master profile drops an admin without cutting his chain"
        return None

    def link(self, claim: Claim) -> int:
        """Take up a MasterProfile whose parents are linked; its index."""
        above = [self.dag.index[parent] for parent in claim.links.p]
        before = merge(self._facts[parent] for parent in above)
        index = self.dag.link(claim.vid, claim.links.p, claim.links.g, marked=True)
        ops = self._difference(before, ADMIN, {(udf,) for udf in claim.admins})
        ops |= self._difference(before, ESCROW, {(identifier, vid.hex()) for identifier, vid in claim.links.e})
        ops |= {(DEAD, cut.udf): True for cut in claim.links.x if cut.scope == SCOPE_REMOVED}
        self._facts.append(self.dag.apply(before, index, ops))
        self.everything |= self.dag.seen((index,))
        self.heads.difference_update(above)
        self.heads.add(index)
        return index

    def _difference(self, before: Facts, sort: str, listed: set[tuple[str, ...]]) -> dict[Key, bool]:
        """Adds and removals are what a version lists differently from its signed ancestors."""
        had = {key[1:] for key, ops in before.items() if key[0] == sort and self.dag.present(ops)}
        return {**{(sort, *name): True for name in listed - had}, **{(sort, *name): False for name in had - listed}}

    def _at(self, mask: int) -> Facts:
        return merge(self._facts[index] for index in self.dag.topmost(mask))

    def admins(self, mask: int) -> frozenset[str]:
        """The admins by the MasterProfiles in `mask` (which holds the ancestors of its members)."""
        known = self._admins.get(mask)
        if known is None:
            listed = {key[1] for key, ops in self._at(mask).items() if key[0] == ADMIN and self.dag.present(ops)}
            known = self._admins[mask] = frozenset(listed - self.dead(mask))
        return known

    def dead(self, mask: int) -> frozenset[str]:
        """The UDFs that the MasterProfiles in `mask` removed."""
        known = self._dead.get(mask)
        if known is None:
            known = self._dead[mask] = frozenset(key[1] for key in self._at(mask) if key[0] == DEAD)
        return known

    def escrow(self) -> dict[str, bytes]:
        """Identifier → vid of the escrow entries that are valid now; removal wins."""
        valid: dict[str, bytes] = {}
        for key, ops in self._at(self.everything).items():
            if key[0] == ESCROW and self.dag.present(ops):
                vid = bytes.fromhex(key[2])
                valid[key[1]] = min(vid, valid.get(key[1], vid))  # two for one Identifier: everybody picks the same
        return valid

    def ordered(self, indices: Iterable[int]) -> tuple[bytes, ...]:
        """The vids, largest generation first, then the smallest vid."""
        return in_order(self.dag, indices)


def in_order(dag: Dag, indices: Iterable[int]) -> tuple[bytes, ...]:
    """The vids of `indices`, largest generation first, then by vid: the order of heads (formats.md F1)."""
    return tuple(dag.vids[index] for index in sorted(indices, key=lambda i: (-dag.generations[i], dag.vids[i])))
