"""Stratum 2 of authority (formats.md F7): the PersonalProfile DAG, what its versions say, and which of them stand.

Every linked profile keeps two states: `signed`, what it and all its ancestors say, and `standing`, the same without the
versions that fell. The first is a constant, and new operations are the difference to it, so that nobody launders by
listing on what a thief had added; the second is made again when a version falls or returns. While nothing fell both are
one object, and a version that changes nothing shares its parent's.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshd.profile.authority_cuts import Chains, Cuts
from meshd.profile.authority_grants import DEVICE, GATHERED, Granted, concerns, operations, spared
from meshd.profile.authority_masters import Masters
from meshd.profile.claim import Claim
from meshd.profile.dag import Dag, Facts, Key, merge
from meshd.profile.links import SCOPE_ADMIN, SCOPE_REMOVED, Cut


class Profiles:
    """The PersonalProfile DAG, judged by the MasterProfiles alone."""

    def __init__(self, mesh: str, masters: Masters, master_cuts: Cuts, chains: Chains) -> None:
        self._mesh = mesh
        self._masters = masters
        self._master_cuts = master_cuts
        self.dag = Dag(GATHERED)
        self.stands: list[bool] = []
        self.cuts = Cuts(self.dag, chains, self.stands.__getitem__)
        self.heads: set[int] = set()
        self.by_signer: dict[str, list[int]] = {}
        self.ever: set[str] = set()  # UDFs that a profile ever listed which an admin of its time, or the master, signed
        self._signers: list[str] = []
        self._masks: list[int] = []  # the MasterProfiles embedded in a version and its ancestors
        self._ops: list[dict[Key, bool]] = []
        self._signed: list[Facts] = []
        self._standing: list[Facts] = []
        self._carried: dict[int, tuple[Cut, ...]] = {}  # the cuts that count if the version stands

    # taking up

    def link(self, claim: Claim) -> int:
        """Take up a profile whose parents and embedded MasterProfile are linked, and judge it; its index."""
        above = [self.dag.index[parent] for parent in claim.links.p]
        assert claim.master is not None
        mask = self._masters.dag.seen((self._masters.dag.index[claim.master],)) | self.masters_at(above)
        cuts = self._that_count(claim, mask)
        index = self.dag.link(claim.vid, claim.links.p, claim.links.g, marked=bool(cuts))
        before = merge(self._signed[parent] for parent in above)
        ops = operations(self.dag, before, claim, cuts)
        self._signers.append(claim.signer)
        self._masks.append(mask)
        self._ops.append(ops)
        self._signed.append(self.dag.apply(before, index, ops))
        self.by_signer.setdefault(claim.signer, []).append(index)
        if self._entitled(claim.signer, mask):
            self.ever |= claim.devices
        self.stands.append(self.judge(claim.signer, claim.vid, mask))
        self._standing.append(before)  # overwritten by the next line
        self._standing[index] = self._effect(index)
        if cuts:
            self._carried[index] = cuts
            for cut in cuts:
                self.cuts.add(cut.udf, cut.scope, index, cut.tips, spared(claim, cut))
        if self.stands[index]:
            self._retire(above)
            self.heads.add(index)
        return index

    def _that_count(self, claim: Claim, mask: int) -> tuple[Cut, ...]:
        """An `x` on a UDF that is admin at that profile counts only if the master key signed it."""
        if not claim.links.x:
            return ()
        immune = frozenset() if claim.signer == self._mesh else self._masters.admins(mask)
        return tuple(cut for cut in claim.links.x if cut.udf not in immune and cut.scope != SCOPE_ADMIN)

    def masters_at(self, indices: Iterable[int]) -> int:
        """The mask of the MasterProfiles that these profiles and their ancestors embed."""
        mask = 0
        for index in indices:
            mask |= self._masks[index]
        return mask

    def _entitled(self, signer: str, mask: int) -> bool:
        return signer == self._mesh or signer in self._masters.admins(mask)

    def judge(self, signer: str, vid: bytes, mask: int) -> bool:
        """Does a profile with these MasterProfiles at or below it stand?"""
        return signer == self._mesh or (
            signer in self._masters.admins(mask)
            and not self._master_cuts.outside_removal(signer, vid)
            and not self._master_cuts.outside_scoped(signer, SCOPE_ADMIN, vid, mask)
        )

    def _effect(self, index: int) -> Facts:
        """What stands at a version."""
        above = self.dag.parents[index]
        before = merge(self._standing[parent] for parent in above)
        if not self.stands[index]:
            return before
        # Where nothing fell below, the signed state is the answer and is shared.
        if all(self._standing[parent] is self._signed[parent] for parent in above):
            return self._signed[index]
        return self.dag.apply(before, index, self._ops[index])

    # judging again

    def reconsider(self, indices: Iterable[int]) -> tuple[list[int], set[str], bool]:
        """Judge profiles again: those whose verdict changed, whose containers and items that touches, and whether
        all."""
        flips = []
        for index in sorted(set(indices)):
            verdict = self.judge(self._signers[index], self.dag.vids[index], self._masks[index])
            if verdict != self.stands[index]:
                self.stands[index] = verdict
                flips.append(index)
        signers: set[str] = set()
        everything = False
        if flips:
            for index in range(flips[0], len(self.dag)):
                self._standing[index] = self._effect(index)
            self.cuts.refresh()
            self.heads = self._find_heads()
            for index in flips:
                touched, all_of_them = concerns(self._ops[index])
                signers |= touched
                everything = everything or all_of_them
        return flips, signers, everything

    def _retire(self, above: Iterable[int]) -> None:
        """A standing version replaces its nearest standing ancestors, also through ones that do not stand."""
        todo, seen = list(above), set()
        while todo:
            index = todo.pop()
            if index in seen:
                continue
            seen.add(index)
            if self.stands[index]:
                self.heads.discard(index)
            else:
                todo += self.dag.parents[index]

    def _find_heads(self) -> set[int]:
        heads: set[int] = set()
        replaced: set[int] = set()
        for index in range(len(self.dag) - 1, -1, -1):
            if self.stands[index] and index not in replaced:
                heads.add(index)
            if self.stands[index] or index in replaced:
                replaced.update(self.dag.parents[index])
        return heads

    # reading

    def standing_at(self, indices: Iterable[int]) -> Granted:
        """What the standing versions at or below `indices` give."""
        return Granted(self.dag, merge(self._standing[index] for index in indices))

    def signed_at(self, indices: Iterable[int]) -> Granted:
        """What all versions at or below `indices` say, cuts ignored."""
        return Granted(self.dag, merge(self._signed[index] for index in indices))

    def carried(self, index: int) -> tuple[Cut, ...]:
        """The cuts of a version that count if it stands."""
        return self._carried.get(index, ())

    def fallen_removals(self) -> list[tuple[str, str]]:
        """(who was removed, who had removed) of the removals by profiles that were an admin's, and fell with his
        chain."""
        return [
            (cut.udf, self._signers[index])
            for index, cuts in self._carried.items()
            if not self.stands[index] and self._entitled(self._signers[index], self._masks[index])
            for cut in cuts
            if cut.scope == SCOPE_REMOVED
        ]

    def undecided(self) -> set[str]:
        """The devices that are added by profiles which may come to stand: of their author's chain not all has come
        that his cut names."""
        found: set[str] = set()
        lost: set[str] = set()
        for signer in sorted({self._signers[index] for index, stands in enumerate(self.stands) if not stands}):
            if self._master_cuts.incomplete(signer):
                for index in self.by_signer[signer]:
                    if not self.stands[index]:
                        ops = {name: adds for (sort, name, *_), adds in self._ops[index].items() if sort == DEVICE}
                        found.update(name for name, adds in ops.items() if adds)
                        lost.update(name for name, adds in ops.items() if not adds)
        return found - lost

    def taken_back(self, udf: str, remover: str) -> bool:
        """Did a profile that stands, and knows that the remover was cut, confirm the device?"""
        return any(
            self.stands[index]
            and ops.get((DEVICE, udf)) is True
            and self._master_cuts.known_in(self._masks[index], remover)
            for index, ops in enumerate(self._ops)
        )

    def removers(self, udf: str) -> list[str]:
        """Who removed `udf`, by profiles that stand."""
        return [
            self._signers[index]
            for index, cuts in self._carried.items()
            if self.stands[index] and any(cut.udf == udf and cut.scope == SCOPE_REMOVED for cut in cuts)
        ]
