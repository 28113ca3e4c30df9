"""Cuts (formats.md F7.3): where a signer's chain ends, and which of his versions are on the standing side.

A cut names the tips of a chain that the remover had seen. What is reachable from them through `q` over versions of
the same signer stands, everything else of that signer is outside: also what carries a smaller count, for counts
can be forged. The walk over a chain is done once per cut, when first asked, and only for signers who were cut; a
version that connects later costs what it connects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from meshd.profile.dag import Dag
from meshd.profile.links import SCOPE_ADMIN, SCOPE_REMOVED

Tips = tuple[bytes, ...]


class ChainView(Protocol):
    """What the store knows of a signer's chain."""

    def chain(self, signer: str) -> Iterable[tuple[bytes, tuple[bytes, ...]]]:
        """(vid, q) of every known version or pruned row of that signer, in whatever state."""


@dataclass(slots=True)
class Reach:
    """The versions that some tips reach, what they lead to that has not come, and what is known but not reached."""

    inside: set[bytes] = field(default_factory=set)
    missing: set[bytes] = field(default_factory=set)
    loose: dict[bytes, tuple[bytes, ...]] = field(default_factory=dict)

    def join(self, vid: bytes, q: tuple[bytes, ...]) -> Sequence[bytes]:
        """A version of the signer is known now; what is reached for the first time."""
        if vid in self.inside:
            return ()
        self.loose[vid] = q
        return self.follow([vid]) if vid in self.missing else ()

    def follow(self, todo: list[bytes]) -> list[bytes]:
        """Walk from `todo`; the versions that are reached for the first time."""
        found = []
        while todo:
            vid = todo.pop()
            if vid in self.inside:
                continue
            before = self.loose.pop(vid, None)
            if before is None:
                self.missing.add(vid)
                continue
            self.missing.discard(vid)
            self.inside.add(vid)
            found.append(vid)
            todo += before
        return found


class Chains:
    """Which versions are reachable from the tips that cuts name."""

    def __init__(self, view: ChainView) -> None:
        self._view = view
        self._reach: dict[str, dict[Tips, Reach]] = {}

    def holds(self, signer: str, tips: Tips, vid: bytes) -> bool:
        """Is `vid` on `signer`'s chain up to `tips`, for a version of his that is here, stored yet or not? What nothing
        that is known of that signer leads to is not."""
        if not tips:
            return False
        reach = self.reached(signer, tips)
        return vid in reach.inside or vid in reach.missing

    def incomplete(self, signer: str, tips: Tips) -> bool:
        """Has something of `signer`'s chain up to `tips` not come yet?"""
        return bool(tips) and bool(self.reached(signer, tips).missing)

    def linked(self, signer: str, rows: Mapping[bytes, tuple[bytes, ...]]) -> tuple[set[bytes], set[bytes]]:
        """As `joined` for each of these (vid → q) that is missing, in this order: which were, and all that is reached.
        Nothing is missing of a chain about which nobody has asked yet."""
        taken: set[bytes] = set()
        found: set[bytes] = set()
        reaches = list(self._reach.get(signer, {}).values())
        for vid, q in rows.items():
            if any(vid in reach.missing for reach in reaches):
                taken.add(vid)
                for reach in reaches:
                    found.update(reach.join(vid, q))
        return taken, found

    def forget(self, signer: str) -> None:
        """Read `signer`'s chain anew when it is asked about; the cuts are to be told with `refresh`."""
        self._reach.pop(signer, None)

    def missing(self, signer: str, tips: Tips) -> frozenset[bytes]:
        """What is known to be on `signer`'s chain up to `tips`, and nothing else is known of it."""
        return frozenset(self.reached(signer, tips).missing) if tips else frozenset()

    def reached(self, signer: str, tips: Tips) -> Reach:
        """The same object at each call, and it grows."""
        of_signer = self._reach.setdefault(signer, {})
        reach = of_signer.get(tips)
        if reach is None:
            reach = of_signer[tips] = Reach(loose=dict(self._view.chain(signer)))
            reach.follow(list(tips))
        return reach

    def joined(self, signer: str, vid: bytes, q: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """A version of `signer` has been stored; the versions that a cut's tips reach now and did not before."""
        of_signer = self._reach.get(signer)
        if not of_signer:
            return ()
        found: set[bytes] = set()
        for reach in of_signer.values():
            found.update(reach.join(vid, q))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class _Cut:
    carrier: int  # the version that states it, by its index in the Dag
    tips: Tips
    spared: frozenset[str]  # vaults that a cut of "*" leaves, because the version that makes it grants them


class Cuts:
    """The cuts that the versions of one DAG carry."""

    def __init__(self, dag: Dag, chains: Chains, standing: Callable[[int], bool]) -> None:
        """`standing` says of a carrier whether it counts now; call `refresh` when its answers change."""
        self._dag = dag
        self._chains = chains
        self._standing = standing
        self._cuts: dict[tuple[str, str], list[_Cut]] = {}
        self._removals: dict[str, list[list[Reach]]] = {}  # those that count now, each with what its tips reach

    def add(self, udf: str, scope: str, carrier: int, tips: Tips, spared: frozenset[str] = frozenset()) -> None:
        self._cuts.setdefault((udf, scope), []).append(_Cut(carrier, tips, spared))
        self._removals.pop(udf, None)

    def refresh(self) -> None:
        """Carriers came to stand, or fell, or a chain is read anew."""
        self._removals.clear()

    def known_in(self, mask: int, udf: str) -> bool:
        """Does a version in `mask` cut `udf`, in whatever scope?"""
        return any(
            self._dag.contains(mask, cut.carrier)
            for (cut_udf, _), cuts in self._cuts.items()
            if cut_udf == udf
            for cut in cuts
        )

    def outside_removal(self, signer: str, vid: bytes) -> bool:
        """Is a version beyond a removal of its signer? Signing in knowledge of it never exempts."""
        return self.inside_removal(signer, vid) is False

    def inside_removal(self, signer: str, vid: bytes) -> bool | None:
        """Is a version on the near side of every removal of its signer that counts? None where none does."""
        binding = self._removals.get(signer)
        if binding is None:
            binding = self._removals[signer] = self._newest(signer)
        for each in binding:
            for reach in each:
                if vid in reach.inside or vid in reach.missing:
                    break
            else:
                return False
        return True if binding else None

    def incomplete(self, signer: str) -> bool:
        """Does a removal of `signer`, or a cut of his being admin, name what has not come yet?"""
        return any(
            self._standing(cut.carrier) and self._chains.incomplete(signer, cut.tips)
            for scope in (SCOPE_REMOVED, SCOPE_ADMIN)
            for cut in self._cuts.get((signer, scope), ())
        )

    def missing(self, signer: str) -> frozenset[bytes]:
        """What has not come of `signer`'s chain up to the ends that standing cuts name, of whatever right, as far as
        that is known."""
        found: frozenset[bytes] = frozenset()
        for (udf, _), cuts in self._cuts.items():
            if udf == signer:
                for cut in cuts:
                    if self._standing(cut.carrier):
                        found |= self._chains.missing(signer, cut.tips)
        return found

    def _newest(self, signer: str) -> list[list[Reach]]:
        """Of the standing removals the DAG-newest count; of several concurrent ones, what all of them leave stands."""
        cuts = [cut for cut in self._cuts.get((signer, SCOPE_REMOVED), ()) if self._standing(cut.carrier)]
        carriers = {cut.carrier for cut in cuts}
        return [
            [self._chains.reached(signer, cut.tips) for cut in cuts if cut.carrier == carrier and cut.tips]
            for carrier in sorted(carriers)
            if not any(other != carrier and self._dag.descends(other, carrier) for other in carriers)
        ]

    def outside_scoped(self, signer: str, scope: str, vid: bytes, known: int, container: str = "") -> bool:
        """Is a version beyond a cut of one right, made without knowledge (`known`: a mask) of the version that cut
        it?"""
        cuts = self._cuts.get((signer, scope))
        if not cuts:
            return False
        kept: dict[int, bool] = {}
        for cut in cuts:
            if container in cut.spared or self._dag.contains(known, cut.carrier) or not self._standing(cut.carrier):
                continue
            kept[cut.carrier] = kept.get(cut.carrier, False) or self._chains.holds(signer, cut.tips, vid)
        return not all(kept.values())
