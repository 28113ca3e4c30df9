"""The versions of one entry as a DAG, and what its operations add up to (formats.md F7).

A version's operations add or remove facts. What holds at a version is the merge of its parents plus its own
operations: a removal beats a concurrent add, a later add beats the removals that it descends from. So a fact is
present iff somebody added it and every removal of it lies below one of the adds; nothing else about the order
matters. Ancestors are therefore kept as bit masks over the few versions that can remove, and a chain of ten
thousand harmless edits shares one integer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

Key: TypeAlias = tuple[str, ...]  # what an operation is about: its sort, then mostly a UDF or vault
Op: TypeAlias = tuple[int, bool]  # (index of the version in its Dag, True for an add and False for a removal)
Ops: TypeAlias = tuple[Op, ...]
Facts: TypeAlias = Mapping[Key, Ops]  # never changed once made: versions share them

NOTHING: Facts = {}


class Dag:
    """Versions in the order in which they were linked: parents before children, each known by its index."""

    def __init__(self, gathered: frozenset[str]) -> None:
        """`gathered` names the sorts of keys whose operations are all kept; of the others a later one replaces the
        rest."""
        self._gathered = gathered
        self.vids: list[bytes] = []
        self.index: dict[bytes, int] = {}
        self.parents: list[tuple[int, ...]] = []
        self.generations: list[int] = []
        self._below: list[int] = []  # marked strict ancestors
        self._seen: list[int] = []  # the same, and the version itself if it is marked
        self._bits: dict[int, int] = {}  # index → its bit, for marked versions

    def __len__(self) -> int:
        return len(self.vids)

    def link(self, vid: bytes, parents: Sequence[bytes], generation: int, *, marked: bool) -> int:
        """Add a version whose parents are linked. `marked` says that it may remove something, or that somebody will ask
        whether another version descends from it."""
        index = len(self.vids)
        above = tuple(self.index[parent] for parent in parents)
        below = self.seen(above)
        seen = below
        if marked:
            bit = len(self._bits)
            self._bits[index] = bit
            seen |= 1 << bit
        self.vids.append(vid)
        self.index[vid] = index
        self.parents.append(above)
        self.generations.append(generation)
        self._below.append(below)
        self._seen.append(seen)
        return index

    def seen(self, indices: Iterable[int]) -> int:
        """The mask of the marked versions among `indices` and their ancestors."""
        mask = 0
        for index in indices:
            mask |= self._seen[index]
        return mask

    def contains(self, mask: int, index: int) -> bool:
        """Is the marked version `index` in `mask`?"""
        return bool(mask >> self._bits[index] & 1)

    def descends(self, index: int, ancestor: int) -> bool:
        """Is the marked version `ancestor` a strict ancestor of `index`?"""
        return bool(self._below[index] >> self._bits[ancestor] & 1)

    def present(self, ops: Ops, removals: Ops = ()) -> bool:
        """Does the fact hold? `removals` of another fact may count against it."""
        if len(ops) == 1 and not removals:
            return ops[0][1]
        covered, added = 0, False
        for index, adds in ops:
            if adds:
                added = True
                covered |= self._below[index]
        return added and all(
            adds or covered >> self._bits[index] & 1 for part in (ops, removals) for index, adds in part
        )

    def apply(self, facts: Facts, index: int, ops: Mapping[Key, bool]) -> Facts:
        """What holds after version `index` did `ops`."""
        if not ops:
            return facts
        after = dict(facts)
        for key, adds in ops.items():
            op = (index, adds)
            # Of a replaceable fact all earlier operations lie below this one, so this one alone decides.
            after[key] = _union(after.get(key, ()), (op,)) if key[0] in self._gathered else (op,)
        return after

    def topmost(self, mask: int) -> list[int]:
        """The indices of a mask over a Dag whose versions are all marked that no other index in it descends from."""
        found = []
        while mask:
            index = mask.bit_length() - 1  # the last linked is nobody's ancestor
            found.append(index)
            mask &= ~self._seen[index]
        return found


def merge(states: Iterable[Facts]) -> Facts:
    """What holds where branches meet. Gives back one of `states` itself wherever that is the answer."""
    distinct: list[Facts] = []
    for state in states:
        if not any(state is other for other in distinct):
            distinct.append(state)
    if not distinct:
        return NOTHING
    distinct.sort(key=len, reverse=True)  # the larger most often holds the other
    base = distinct[0]
    merged: dict[Key, Ops] | None = None
    for state in distinct[1:]:
        current: Facts = base if merged is None else merged
        for key, ops in state.items():
            mine = current.get(key)
            if mine is ops or mine == ops:
                continue
            both = ops if mine is None else _union(mine, ops)
            if both == mine:
                continue
            if merged is None:
                current = merged = dict(base)
            merged[key] = both
    return base if merged is None else merged


def _union(one: Ops, other: Ops) -> Ops:
    return tuple(sorted({*one, *other}))
